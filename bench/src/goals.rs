//! What this schema is held to, and whether it keeps it.

use crate::{measure::Measured, overhead::BARE, report::Report};

/// A goal with its figure.
#[derive(Debug)]
pub struct Goal {
    /// What is held.
    pub what: String,
    /// What is asked.
    pub asked: String,
    /// What was measured.
    pub measured: String,
    /// Whether it holds.
    pub is_met: bool,
}

/// What live events are held to.
fn live(report: &Report) -> Vec<Goal> {
    let Some(live) = &report.live else { return Vec::new() };
    let goal = |what: String, asked: &str, figure: String, is_met| Goal {
        what,
        asked: asked.to_owned(),
        measured: figure,
        is_met,
    };
    let mut goals = Vec::new();
    for one in &live.writers {
        goals.push(goal(
            format!("rolls by {} clients beside a thousand subscribers", one.clients),
            "at most 3 percent fewer",
            format!("{:.1} percent", one.loss_percent),
            one.loss_percent <= 3.0,
        ));
    }
    let delay = live.at_human_speed;
    goals.push(goal(
        "an event, from its writer to a subscriber in another process".to_owned(),
        "95 of 100 within 100 ms",
        format!("{:.1} ms", delay.p95_ms),
        delay.p95_ms <= 100.0,
    ));
    let idle = live.idle;
    for (what, percent) in [("server", idle.server_percent), ("their process", idle.process_percent)] {
        let Some(percent) = percent else { continue };
        goals.push(goal(
            format!("a thousand idle subscribers of 250 sessions, in the {what}"),
            "at most 3 percent of a processor",
            format!("{percent:.2} percent"),
            percent <= 3.0,
        ));
    }
    let (listening, polling) = live.borne;
    if polling > 0 {
        goals.push(goal(
            "tables of an evening, listening beside polling".to_owned(),
            "twice as many",
            format!("{:.1} times ({listening}, {polling})", listening as f64 / polling as f64),
            listening >= 2 * polling,
        ));
    }
    goals
}

/// All goals of which the run says something.
#[must_use]
pub fn goals(report: &Report) -> Vec<Goal> {
    let mut goals = Vec::new();
    let at_one = |name: &str| report.measures.iter().find(|measure| measure.scale == 1.0 && measure.name == name);
    for (name, times) in [("lobby, first page", 1000.0), ("a table's rolls", 500.0), ("one event", 500.0)] {
        if let Some(measured) = at_one(name) {
            goals.push(Goal {
                what: format!("{name}, beside the specification's, scale 1"),
                asked: format!("{times} times faster"),
                measured: format!(
                    "{:.0} times ({:.1} ms, {:.3} ms)",
                    measured.ratio, measured.prd_ms, measured.ours_ms
                ),
                is_met: measured.ratio >= times,
            });
        }
    }
    if let Some(lobby) = at_one("lobby, first page") {
        goals.push(Goal {
            what: "lobby, first page, in the server".to_owned(),
            asked: "under 1 ms".to_owned(),
            measured: format!("{:.3} ms", lobby.server_ms),
            is_met: lobby.server_ms < 1.0,
        });
    }
    goals.extend(growth(report));
    if let Some(cost) = report.overhead {
        goals.push(Goal {
            what: "a roll, beside bare INSERTs into the same tables".to_owned(),
            asked: "under 2.0 times".to_owned(),
            measured: format!("{:.2} times ({:.3} ms, {:.3} ms)", cost.ratio, cost.roll_ms, cost.bare_ms),
            is_met: cost.ratio < 2.0,
        });
    }
    goals.extend(live(report));
    let trips: Vec<String> = report
        .operations
        .iter()
        .filter(|operated| operated.clients == 1)
        .map(|operated| format!("{} {}", operated.name, operated.round_trips))
        .collect();
    if !trips.is_empty() {
        goals.push(Goal {
            what: "round trips, begin, identity and commit included (a join too: `tests/operations/wire.rs`)"
                .to_owned(),
            asked: "4".to_owned(),
            measured: trips.join(", "),
            is_met: report.operations.iter().all(|operated| operated.round_trips <= 4),
        });
    }
    for operated in &report.operations {
        let asked = match operated.clients {
            1 => 0.85,
            8 => 0.9,
            _ => continue,
        };
        goals.push(Goal {
            what: format!("{} by the service, beside pgbench, {} at once", operated.name, operated.clients),
            asked: format!("{asked} of it"),
            measured: format!("{:.2}", operated.ratio),
            is_met: operated.ratio >= asked,
        });
    }
    let mut slower: Vec<&str> = report
        .measures
        .iter()
        .filter(|one| one.ratio < 1.0 && !is_bare(one))
        .map(|measure| measure.name.as_str())
        .collect();
    slower.sort_unstable();
    slower.dedup();
    goals.push(Goal {
        what: "what is slower than the specification's".to_owned(),
        asked: "nothing".to_owned(),
        measured: if slower.is_empty() { "nothing".to_owned() } else { slower.join("; ") },
        is_met: slower.is_empty(),
    });
    goals
}

/// What both scales have, the smaller first.
#[must_use]
pub fn grown(report: &Report) -> Vec<(&Measured, &Measured)> {
    let big = report.measures.iter().filter(|measure| measure.scale == 10.0);
    big.filter_map(|big| {
        let small = report.measures.iter().find(|small| small.scale == 1.0 && small.name == big.name)?;
        Some((small, big))
    })
    .collect()
}

fn is_bare(measured: &Measured) -> bool {
    BARE.contains(&measured.name.as_str())
}

/// Scale 10 beside scale 1.
fn growth(report: &Report) -> Option<Goal> {
    let grown = grown(report);
    let (bare, grown): (Vec<_>, Vec<_>) =
        grown.iter().map(|(small, big)| (*big, big.alone_ms / small.alone_ms)).partition(|(big, _)| is_bare(big));
    if grown.is_empty() {
        return None;
    }
    let told = |(big, times): &(&Measured, f64)| format!("{} {times:.2}", big.name);
    let over: Vec<_> = grown.iter().filter(|(_, times)| *times > 1.3).collect();
    let list = if over.is_empty() {
        "all".to_owned()
    } else {
        over.iter().map(|one| told(one)).collect::<Vec<_>>().join(", ")
    };
    let beside: Vec<String> = bare.iter().map(told).collect();
    Some(Goal {
        what: "every read and write at scale 10, beside scale 1".to_owned(),
        asked: "within 1.3 times".to_owned(),
        measured: format!(
            "{} of {}; {list}; beside them, without any rule of this schema: {}",
            grown.len() - over.len(),
            grown.len(),
            beside.join(", ")
        ),
        is_met: over.is_empty(),
    })
}
