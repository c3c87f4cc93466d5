//! The performance goals, and whether a report meets them.

use crate::{
    overhead::BARE_INSERT_NAMES,
    report::{LoadStep, OperationResult, Report, StatementResult, max_sustained_step},
};

/// A goal and its measurement.
#[derive(Debug)]
pub struct Goal {
    /// What is measured.
    pub name: String,
    /// The value that is to be reached.
    pub target: String,
    /// The measured value.
    pub measured: String,
    /// Whether the goal is met.
    pub is_met: bool,
}

/// Returns the goals for live events.
fn live_goals(report: &Report) -> Vec<Goal> {
    let Some(live) = &report.live else { return Vec::new() };
    let goal = |name: String, target: &str, measured: String, is_met| Goal {
        name,
        target: target.to_owned(),
        measured,
        is_met,
    };
    let mut goals = Vec::new();
    for comparison in &live.writer_comparisons {
        goals.push(goal(
            format!("rolls by {} clients, with a thousand subscribers compared with none", comparison.clients),
            "at most 3 percent fewer",
            format!("{:.1} percent", comparison.loss_percent),
            comparison.loss_percent <= 3.0,
        ));
    }
    let delays = live.delays_at_human_speed;
    let missing_text = match delays.missing {
        Some(0) => String::new(),
        Some(missing) => format!(", missing deliveries: {missing}"),
        None => ", missing deliveries not counted".to_owned(),
    };
    goals.push(goal(
        "delay of an event from its writer to a subscriber in another process".to_owned(),
        "95th percentile within 100 ms, no delivery missing",
        format!("{:.1} ms{missing_text}", delays.p95_ms),
        delays.p95_ms <= 100.0 && delays.missing.unwrap_or_default() == 0,
    ));
    let idle = live.idle;
    for (process, percent) in [("PostgreSQL", idle.postgresql_percent), ("their own process", idle.subscribers_percent)]
    {
        let Some(percent) = percent else { continue };
        goals.push(goal(
            format!("processor use of a thousand idle subscribers of 250 sessions, in {process}"),
            "at most 3 percent of a processor",
            format!("{percent:.2} percent"),
            percent <= 3.0,
        ));
    }
    let (max_with_subscriptions, max_with_polling) = live.max_sustained_sessions;
    // `max_with_polling` is 0 if the load test was skipped, or if no number of sessions was sustained.
    if max_with_polling > 0 {
        // A step can be sustained even if events reach the players late, so the goal also shows how long that takes.
        let delivery_text = |steps: &[LoadStep]| {
            max_sustained_step(steps)
                .map_or_else(|| "-".to_owned(), |step| format!("{:.0} ms", step.delivered_to_all_p99_ms))
        };
        goals.push(goal(
            "sessions that the load test sustains, with subscriptions instead of polling".to_owned(),
            "twice as many",
            format!(
                "{:.1} times ({max_with_subscriptions}, {max_with_polling}; 99th percentile of the time until all \
                 players have an event: {}, {})",
                max_with_subscriptions as f64 / max_with_polling as f64,
                delivery_text(&live.steps_with_subscriptions),
                delivery_text(&live.steps_with_polling)
            ),
            max_with_subscriptions >= 2 * max_with_polling,
        ));
    }
    goals
}

/// Returns the goals for which the report has measurements.
#[must_use]
pub fn goals(report: &Report) -> Vec<Goal> {
    let mut goals = Vec::new();
    let at_scale_1 =
        |name: &str| report.statements.iter().find(|statement| statement.scale == 1.0 && statement.name == name);
    for (name, target_ratio) in [("lobby, first page", 1000.0), ("a session's rolls", 500.0)] {
        if let Some(statement) = at_scale_1(name) {
            goals.push(Goal {
                name: format!("{name}, compared with the specification's, scale 1"),
                target: format!("{target_ratio} times faster"),
                measured: format!(
                    "{:.0} times ({:.1} ms, {:.3} ms)",
                    statement.ratio, statement.specification_ms, statement.ours_ms
                ),
                is_met: statement.ratio >= target_ratio,
            });
        }
    }
    if let Some(lobby) = at_scale_1("lobby, first page") {
        goals.push(Goal {
            name: "lobby, first page, by the server's clock".to_owned(),
            target: "under 1 ms".to_owned(),
            measured: format!("{:.3} ms", lobby.server_ms),
            is_met: lobby.server_ms < 1.0,
        });
    }
    goals.extend(growth_goal(report));
    if let Some(overhead) = report.overhead {
        goals.push(Goal {
            name: "a roll, compared with bare INSERTs into the same tables".to_owned(),
            target: "under 2.0 times".to_owned(),
            measured: format!(
                "{:.2} times ({:.3} ms, {:.3} ms)",
                overhead.roll_ratio, overhead.roll_ms, overhead.bare_roll_and_event_ms
            ),
            is_met: overhead.roll_ratio < 2.0,
        });
        let event_ratio = overhead.event_ms / overhead.bare_event_ms;
        goals.push(Goal {
            name: "an event that a player sends, compared with a bare INSERT of the same row".to_owned(),
            target: "under 2.5 times".to_owned(),
            measured: format!("{event_ratio:.2} times ({:.3} ms, {:.3} ms)", overhead.event_ms, overhead.bare_event_ms),
            is_met: event_ratio < 2.5,
        });
    }
    goals.extend(live_goals(report));
    let round_trip_texts: Vec<String> = report
        .operations
        .iter()
        .filter(|result| result.clients == 1)
        .map(|result| format!("{} {}", result.name, result.round_trips))
        .collect();
    if !round_trip_texts.is_empty() {
        goals.push(Goal {
            name:
                "round trips, including BEGIN with the identity, and COMMIT (`tests/operations/round_trips.rs` counts \
                   those of all operations)"
                    .to_owned(),
            target: "at most 4".to_owned(),
            measured: round_trip_texts.join(", "),
            is_met: report.operations.iter().all(|result| result.round_trips <= 4),
        });
    }
    // Operations are measured with 1, 8 and 64 clients; there are no goals for 64.
    goals.extend(report.operations.iter().filter(|result| result.clients <= 8).map(operation_goal));
    // The ratio is the specification's time divided by this schema's.
    let mut slow_statement_names: Vec<&str> = report
        .statements
        .iter()
        .filter(|statement| statement.ratio < 0.5 && !is_bare_insert(statement))
        .map(|statement| statement.name.as_str())
        .collect();
    slow_statement_names.sort_unstable();
    slow_statement_names.dedup();
    if !report.statements.is_empty() {
        goals.push(Goal {
            name: "statements that take more than twice the time of the specification's".to_owned(),
            target: "none".to_owned(),
            measured: if slow_statement_names.is_empty() { "none".to_owned() } else { slow_statement_names.join("; ") },
            is_met: slow_statement_names.is_empty(),
        });
    }
    goals
}

/// Returns the goal for an operation of the service: its throughput compared with pgbench's, or its processor time
/// compared with PostgreSQL's.
///
/// With several clients, the processors are fully used, and the service (or pgbench) and PostgreSQL compete for them.
/// Then the throughput of an operation that returns a page of rows depends on the time that the service needs to decode
/// these rows; pgbench decodes none. So the goal for such an operation is about the service's processor time, where the
/// system reports it.
fn operation_goal(result: &OperationResult) -> Goal {
    let clients_text = format!("{} client{}", result.clients, if result.clients == 1 { "" } else { "s" });
    if let (true, Some(service_ms), Some(postgresql_ms)) =
        (result.clients > 1 && result.operation_returns_page(), result.service_cpu_ms, result.postgresql_cpu_ms)
    {
        let ratio = service_ms / postgresql_ms;
        return Goal {
            name: format!(
                "{} by the service, its processor time compared with PostgreSQL's, {clients_text}",
                result.name
            ),
            target: "at most 0.6 times".to_owned(),
            measured: format!("{ratio:.2} times ({service_ms:.3} ms, {postgresql_ms:.3} ms)"),
            is_met: ratio <= 0.6,
        };
    }
    let min_ratio = if result.clients == 1 { 0.85 } else { 0.9 };
    Goal {
        name: format!("{} by the service, compared with pgbench, {clients_text}", result.name),
        target: format!("at least {min_ratio}"),
        measured: format!("{:.2}", result.ratio),
        is_met: result.ratio >= min_ratio,
    }
}

/// Returns two results for each statement that was measured at scale 1 and at scale 10: first the one at scale 1.
#[must_use]
pub fn at_scales_1_and_10(report: &Report) -> Vec<(&StatementResult, &StatementResult)> {
    let at_scale_10 = report.statements.iter().filter(|statement| statement.scale == 10.0);
    at_scale_10
        .filter_map(|at_10| {
            let at_1 = report.statements.iter().find(|at_1| at_1.scale == 1.0 && at_1.name == at_10.name)?;
            Some((at_1, at_10))
        })
        .collect()
}

/// Whether the statement is a bare INSERT: one that runs without triggers and policies, and is measured only for
/// comparison.
fn is_bare_insert(statement: &StatementResult) -> bool {
    BARE_INSERT_NAMES.contains(&statement.name.as_str())
}

/// Returns the goal that compares the times at scale 10 with those at scale 1, if the report has statements at both.
/// These times are measured in isolation: without the specification's statements in between, which read more as the
/// data grows and would evict pages.
fn growth_goal(report: &Report) -> Option<Goal> {
    let (bare_inserts, statements): (Vec<_>, Vec<_>) = at_scales_1_and_10(report)
        .into_iter()
        .map(|(at_1, at_10)| (at_10, at_10.ours_isolated_ms / at_1.ours_isolated_ms))
        .partition(|(statement, _)| is_bare_insert(statement));
    if statements.is_empty() {
        return None;
    }
    let name_and_ratio_text = |(statement, ratio): &(&StatementResult, f64)| format!("{} {ratio:.2}", statement.name);
    let above_target: Vec<_> = statements.iter().filter(|(_, ratio)| *ratio > 1.3).collect();
    let exceptions_text = if above_target.is_empty() {
        String::new()
    } else {
        format!(
            " (exceptions: {})",
            above_target.iter().map(|exception| name_and_ratio_text(exception)).collect::<Vec<_>>().join(", ")
        )
    };
    let bare_insert_texts: Vec<String> = bare_inserts.iter().map(name_and_ratio_text).collect();
    Some(Goal {
        name: "the time of each statement at scale 10, compared with scale 1".to_owned(),
        target: "at most 1.3 times".to_owned(),
        measured: format!(
            "{} of {}{exceptions_text}; for comparison, INSERTs without triggers and policies: {}",
            statements.len() - above_target.len(),
            statements.len(),
            bare_insert_texts.join(", ")
        ),
        is_met: above_target.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{DelaySummary, LiveResults};

    #[test]
    fn the_goal_for_delays_is_not_met_if_deliveries_are_late_or_known_to_be_missing() {
        let delay_goal = |p95_ms, missing| {
            let delays = DelaySummary { p95_ms, missing, ..DelaySummary::default() };
            let live = LiveResults { delays_at_human_speed: delays, ..LiveResults::default() };
            let goals = goals(&Report { live: Some(live), ..Report::default() });
            let goal = goals.into_iter().find(|goal| goal.name.starts_with("delay of an event")).unwrap();
            (goal.measured, goal.is_met)
        };
        assert_eq!(delay_goal(20.0, Some(0)), ("20.0 ms".to_owned(), true));
        assert_eq!(delay_goal(101.0, Some(0)), ("101.0 ms".to_owned(), false));
        assert_eq!(delay_goal(20.0, Some(1)), ("20.0 ms, missing deliveries: 1".to_owned(), false));
        // An old report.
        assert_eq!(delay_goal(20.0, None), ("20.0 ms, missing deliveries not counted".to_owned(), true));
    }
}
