//! The performance goals, and whether a report meets them.

use crate::{measure::StatementResult, operations::OperationResult, overhead::BARE, report::Report};

/// A goal and its measurement.
#[derive(Debug)]
pub struct Goal {
    /// What is measured.
    pub name: String,
    /// The value that meets the goal.
    pub target: String,
    /// The measured value.
    pub measured: String,
    /// Whether the goal is met.
    pub is_met: bool,
}

/// Returns the goals for live events.
fn live(report: &Report) -> Vec<Goal> {
    let Some(live) = &report.live else { return Vec::new() };
    let goal = |name: String, target: &str, measured: String, is_met| Goal {
        name,
        target: target.to_owned(),
        measured,
        is_met,
    };
    let mut goals = Vec::new();
    for one in &live.writers {
        goals.push(goal(
            format!("rolls by {} clients with a thousand subscribers", one.clients),
            "at most 3 percent fewer",
            format!("{:.1} percent", one.loss_percent),
            one.loss_percent <= 3.0,
        ));
    }
    let delay = live.at_human_speed;
    goals.push(goal(
        "delay of an event from its writer to a subscriber in another process".to_owned(),
        "95th percentile within 100 ms",
        format!("{:.1} ms", delay.p95_ms),
        delay.p95_ms <= 100.0,
    ));
    let idle = live.idle;
    for (process, percent) in [("the server", idle.server_percent), ("their own process", idle.process_percent)] {
        let Some(percent) = percent else { continue };
        goals.push(goal(
            format!("a thousand idle subscribers of 250 sessions, in {process}"),
            "at most 3 percent of a processor",
            format!("{percent:.2} percent"),
            percent <= 3.0,
        ));
    }
    let (subscribing, polling) = live.sustained;
    if polling > 0 {
        goals.push(goal(
            "sessions of an evening, with subscriptions instead of polling".to_owned(),
            "twice as many",
            format!("{:.1} times ({subscribing}, {polling})", subscribing as f64 / polling as f64),
            subscribing >= 2 * polling,
        ));
    }
    goals
}

/// Returns the goals that the report has measurements for.
#[must_use]
pub fn goals(report: &Report) -> Vec<Goal> {
    let mut goals = Vec::new();
    let at_one = |name: &str| report.measures.iter().find(|measure| measure.scale == 1.0 && measure.name == name);
    for (name, times) in [("lobby, first page", 1000.0), ("a session's rolls", 500.0)] {
        if let Some(measured) = at_one(name) {
            goals.push(Goal {
                name: format!("{name}, compared with the specification's, scale 1"),
                target: format!("{times} times faster"),
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
            name: "lobby, first page, in the server".to_owned(),
            target: "under 1 ms".to_owned(),
            measured: format!("{:.3} ms", lobby.server_ms),
            is_met: lobby.server_ms < 1.0,
        });
    }
    goals.extend(growth(report));
    if let Some(cost) = report.overhead {
        goals.push(Goal {
            name: "a roll, compared with bare INSERTs into the same tables".to_owned(),
            target: "under 2.0 times".to_owned(),
            measured: format!("{:.2} times ({:.3} ms, {:.3} ms)", cost.ratio, cost.roll_ms, cost.bare_ms),
            is_met: cost.ratio < 2.0,
        });
        let times = cost.event_ms / cost.bare_event_ms;
        goals.push(Goal {
            name: "an event of a client, compared with its bare INSERT".to_owned(),
            target: "under 2.5 times".to_owned(),
            measured: format!("{times:.2} times ({:.3} ms, {:.3} ms)", cost.event_ms, cost.bare_event_ms),
            is_met: times < 2.5,
        });
    }
    goals.extend(live(report));
    let trips: Vec<String> = report
        .operations
        .iter()
        .filter(|result| result.clients == 1)
        .map(|result| format!("{} {}", result.name, result.round_trips))
        .collect();
    if !trips.is_empty() {
        goals.push(Goal {
            name: "round trips, including begin, identity and commit (for a join, see `tests/operations/wire.rs`)"
                .to_owned(),
            target: "4".to_owned(),
            measured: trips.join(", "),
            is_met: report.operations.iter().all(|result| result.round_trips <= 4),
        });
    }
    goals.extend(report.operations.iter().filter(|result| result.clients <= 8).map(compared_with_pgbench));
    let mut slower: Vec<&str> = report
        .measures
        .iter()
        .filter(|one| one.ratio < 0.5 && !is_bare(one))
        .map(|measure| measure.name.as_str())
        .collect();
    slower.sort_unstable();
    slower.dedup();
    goals.push(Goal {
        name: "statements that take more than twice the time of the specification's".to_owned(),
        target: "none".to_owned(),
        measured: if slower.is_empty() { "none".to_owned() } else { slower.join("; ") },
        is_met: slower.is_empty(),
    });
    goals
}

/// Compares an operation with pgbench. With several clients, client and server compete for fully used processors; so
/// the goal of an operation that returns rows, which the service decodes, is about the service's own processor time.
fn compared_with_pgbench(result: &OperationResult) -> Goal {
    let clients = format!("{} client{}", result.clients, if result.clients == 1 { "" } else { "s" });
    if let (true, Some(service), Some(server)) =
        (result.clients > 1 && result.returns_rows(), result.client_cpu_ms, result.server_cpu_ms)
    {
        let times = service / server;
        return Goal {
            name: format!("{} by the service, its processor time compared with the server's, {clients}", result.name),
            target: "at most 0.6 times".to_owned(),
            measured: format!("{times:.2} times ({service:.3} ms, {server:.3} ms)"),
            is_met: times <= 0.6,
        };
    }
    let target = if result.clients == 1 { 0.85 } else { 0.9 };
    Goal {
        name: format!("{} by the service, compared with pgbench, {clients}", result.name),
        target: format!("at least {target}"),
        measured: format!("{:.2}", result.ratio),
        is_met: result.ratio >= target,
    }
}

/// Returns the statements measured at scale 1 and at scale 10, the smaller scale first.
#[must_use]
pub fn grown(report: &Report) -> Vec<(&StatementResult, &StatementResult)> {
    let big = report.measures.iter().filter(|measure| measure.scale == 10.0);
    big.filter_map(|big| {
        let small = report.measures.iter().find(|small| small.scale == 1.0 && small.name == big.name)?;
        Some((small, big))
    })
    .collect()
}

fn is_bare(measured: &StatementResult) -> bool {
    BARE.contains(&measured.name.as_str())
}

/// Returns the goal that compares scale 10 with scale 1.
fn growth(report: &Report) -> Option<Goal> {
    let grown = grown(report);
    let (bare, grown): (Vec<_>, Vec<_>) =
        grown.iter().map(|(small, big)| (*big, big.isolated_ms / small.isolated_ms)).partition(|(big, _)| is_bare(big));
    if grown.is_empty() {
        return None;
    }
    let with_growth = |(big, times): &(&StatementResult, f64)| format!("{} {times:.2}", big.name);
    let over: Vec<_> = grown.iter().filter(|(_, times)| *times > 1.3).collect();
    let list = if over.is_empty() {
        "all".to_owned()
    } else {
        over.iter().map(|one| with_growth(one)).collect::<Vec<_>>().join(", ")
    };
    let bare: Vec<String> = bare.iter().map(with_growth).collect();
    Some(Goal {
        name: "every read and write at scale 10, compared with scale 1".to_owned(),
        target: "within 1.3 times".to_owned(),
        measured: format!(
            "{} of {}; {list}; for comparison, bare rows without triggers and policies: {}",
            grown.len() - over.len(),
            grown.len(),
            bare.join(", ")
        ),
        is_met: over.is_empty(),
    })
}
