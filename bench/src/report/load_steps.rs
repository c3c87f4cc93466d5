//! The steps of the load test, and when the machine sustains one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A step is sustained only if the 99th percentile of a roll's latency is below this, in milliseconds.
const MAX_ROLL_P99_MS: f64 = 50.0;
/// A step is sustained only if more than this percentage of the due rolls were made.
const MIN_MADE_ROLLS_PERCENT: f64 = 95.0;
/// The time after which an event that has not arrived counts as lost.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The measurements of a step: a run of the load test with a fixed number of sessions.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LoadStep {
    /// Concurrent sessions of six players.
    pub sessions: u64,
    /// Rolls per second that the players wanted to make.
    pub due_rolls_per_second: f64,
    /// Rolls per second that were made.
    pub rolls_per_second: f64,
    /// Operations per second: rolls, and the players' requests for new events.
    pub operations_per_second: f64,
    /// Median latency of a roll from the moment it was due, in milliseconds.
    pub roll_p50_ms: f64,
    /// The 99th percentile of that latency, in milliseconds.
    pub roll_p99_ms: f64,
    /// Median time from the moment a roll was due until all six players have received its event, in milliseconds.
    pub delivered_to_all_p50_ms: f64,
    /// The 99th percentile of that time, in milliseconds.
    pub delivered_to_all_p99_ms: f64,
    /// The number of rolls whose event had not reached all six players after [`DELIVERY_TIMEOUT`]. Such a roll's time
    /// of delivery is the time until the session stopped waiting. Old reports do not have this number; in their steps,
    /// every event arrived.
    #[serde(default)]
    pub undelivered_events: usize,
    /// The mean number of processors that PostgreSQL kept busy; `None` where the system does not report it.
    pub postgresql_cpus: Option<f64>,
    /// The mean number of processors that the service kept busy.
    pub service_cpus: Option<f64>,
}

impl LoadStep {
    /// Whether the machine sustained the step; [`sustained_definition`] says when.
    #[must_use]
    pub fn is_sustained(&self) -> bool {
        self.roll_p99_ms < MAX_ROLL_P99_MS
            && self.rolls_per_second * 100.0 > self.due_rolls_per_second * MIN_MADE_ROLLS_PERCENT
            && self.undelivered_events == 0
    }
}

/// Returns the sustained step with the most sessions, if there is one.
#[must_use]
pub fn max_sustained_step(steps: &[LoadStep]) -> Option<&LoadStep> {
    steps.iter().filter(|step| step.is_sustained()).max_by_key(|step| step.sessions)
}

/// Returns the definition of a sustained step, for the page.
#[must_use]
pub fn sustained_definition() -> String {
    format!(
        "The machine *sustains* a number of sessions if the 99th percentile of a roll's latency is below \
         {MAX_ROLL_P99_MS} ms, more than {MIN_MADE_ROLLS_PERCENT} percent of the due rolls are made, and no event \
         takes longer than {} s to reach all six players. How fast an event is delivered within that limit does not \
         matter.",
        DELIVERY_TIMEOUT.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_with_slow_or_missing_rolls_or_a_lost_event_is_not_sustained() {
        let step = LoadStep {
            sessions: 100,
            due_rolls_per_second: 25.0,
            rolls_per_second: 24.0,
            roll_p99_ms: 49.0,
            ..LoadStep::default()
        };
        assert!(step.is_sustained());
        for not_sustained in [
            LoadStep { roll_p99_ms: 50.0, ..step },
            LoadStep { rolls_per_second: 23.0, ..step },
            LoadStep { undelivered_events: 1, ..step },
        ] {
            assert!(!not_sustained.is_sustained(), "{not_sustained:?}");
            let not_sustained = LoadStep { sessions: 200, ..not_sustained };
            assert_eq!(max_sustained_step(&[step, not_sustained]).map(|step| step.sessions), Some(100));
        }
    }
}
