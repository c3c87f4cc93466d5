//! The contents of `report.json`. `run_info` describes the run; each other module below this one has the results of one
//! kind of measurement.

mod creations;
mod days;
mod drivers;
mod http;
mod indexes;
mod live;
mod load_steps;
mod operations;
mod overhead;
mod replicas;
mod run_info;
mod statements;

use std::{collections::HashSet, fs, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    creations::{CreationResult, IndexBuild},
    days::DayResult,
    drivers::{DriverResults, OperationComparison, PhaseTimes, ProgramResult, RoundTrips},
    http::{ApiResult, HttpComparison},
    indexes::Index,
    live::{AlternativeResult, BroadcastCost, DelaySummary, IdleCpuUsage, LiveResults, WriterComparison},
    load_steps::{DELIVERY_TIMEOUT, LoadStep, max_sustained_step, sustained_definition},
    operations::OperationResult,
    overhead::Overhead,
    replicas::{ReplicaLoadStep, ReplicaResults, TrackingCost},
    run_info::RunInfo,
    statements::{Plan, StatementResult},
};
use crate::failure::Failure;

/// The measurements of a run. A command fills only the fields that it measures.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The machine, the server and the duration.
    pub run_info: RunInfo,
    /// Single statements, in the specification's schema and in this project's, at each scale.
    pub statements: Vec<StatementResult>,
    /// Whole operations, by the service and by pgbench.
    pub operations: Vec<OperationResult>,
    /// What triggers and policies add to the time of a roll and of an event.
    pub overhead: Option<Overhead>,
    /// The steps of the load test with polling players, sorted by their numbers of sessions.
    pub load_steps: Vec<LoadStep>,
    /// Sizes, index builds and migrations, at each scale.
    pub creations: Vec<CreationResult>,
    /// The uses and the cost of each index.
    pub indexes: Vec<Index>,
    /// The scale at which the indexes were measured; `None` if they were not. Old reports do not have it, but [`merge`]
    /// computes it.
    pub indexes_scale: Option<f64>,
    /// The size of the table of events after each simulated day.
    pub days: Vec<DayResult>,
    /// Live events, which the service streams to subscribers as they happen.
    pub live: Option<LiveResults>,
    /// The effect of read replicas.
    pub replicas: Option<ReplicaResults>,
    /// The example web service compared with PostgREST, the server of Supabase's HTTP API.
    pub http: Vec<HttpComparison>,
    /// The service compared with hand-written programs.
    pub drivers: Option<DriverResults>,
}

impl Report {
    /// Adds the measurements of `other` that this report lacks, and the duration of `other`'s run. The simulated days
    /// of `other` replace those of this report if they are more.
    fn merge_with(&mut self, other: Self) {
        let present_keys: HashSet<_> = self.statements.iter().map(StatementResult::key).collect();
        self.statements
            .extend(other.statements.into_iter().filter(|statement| !present_keys.contains(&statement.key())));
        let present_scales: Vec<f64> = self.creations.iter().map(|creation| creation.scale).collect();
        self.creations.extend(other.creations.into_iter().filter(|creation| !present_scales.contains(&creation.scale)));
        fn fill_if_empty<T>(list: &mut Vec<T>, other_list: Vec<T>) {
            if list.is_empty() {
                *list = other_list;
            }
        }
        fill_if_empty(&mut self.operations, other.operations);
        fill_if_empty(&mut self.load_steps, other.load_steps);
        if self.indexes.is_empty() {
            (self.indexes, self.indexes_scale) = (other.indexes, other.indexes_scale);
        }
        fill_if_empty(&mut self.http, other.http);
        // Every run of `compare` simulates a few days by default, so the longest list counts, not the first.
        if other.days.len() > self.days.len() {
            self.days = other.days;
        }
        self.overhead = self.overhead.or(other.overhead);
        self.live = self.live.take().or(other.live);
        self.replicas = self.replicas.take().or(other.replicas);
        self.drivers = self.drivers.take().or(other.drivers);
        self.run_info.seconds += other.run_info.seconds;
    }
}

/// Merges several reports. If several contain the same measurement, the first one counts; of several simulations of
/// days, the longest. The run info is the first report's, but [`RunInfo::seconds`] is the sum of all.
pub fn merge(paths: &[PathBuf]) -> Result<Report, Failure> {
    let mut merged: Option<Report> = None;
    for path in paths {
        let report = parse_report(&fs::read(path)?)?;
        match &mut merged {
            Some(merged) => merged.merge_with(report),
            None => merged = Some(report),
        }
    }
    let mut merged = merged.unwrap_or_default();
    merged.statements.sort_by(|a, b| a.scale.total_cmp(&b.scale));
    // At each scale, the statements are sorted in the order of the scale that has the most statements.
    let lists_by_scale = merged.statements.chunk_by(|a, b| a.scale == b.scale);
    let longest_list = lists_by_scale.max_by_key(|list| list.len()).unwrap_or_default();
    let order: Vec<String> = longest_list.iter().map(|statement| statement.name.clone()).collect();
    let rank = |statement: &StatementResult| order.iter().position(|name| *name == statement.name);
    merged.statements.sort_by(|a, b| a.scale.total_cmp(&b.scale).then(rank(a).cmp(&rank(b))));
    merged.creations.sort_by(|a, b| a.scale.total_cmp(&b.scale));
    Ok(merged)
}

/// Parses a `report.json`.
fn parse_report(json: &[u8]) -> Result<Report, Failure> {
    let mut report: Report = serde_json::from_slice(json)?;
    // An old report lacks this scale. Unless it was merged, its scales are those of one run, which measured the indexes
    // at the scale nearest to 1.
    if !report.indexes.is_empty() && report.indexes_scale.is_none() {
        report.indexes_scale = nearest_to_1(report.creations.iter().map(|creation| creation.scale));
    }
    Ok(report)
}

/// Returns the scale that is nearest to 1, by ratio: 0.1 and 10 are equally near. Most goals are about scale 1, so what
/// is measured at only one scale is measured at this one.
#[must_use]
pub fn nearest_to_1(scales: impl IntoIterator<Item = f64>) -> Option<f64> {
    scales.into_iter().min_by(|a, b| a.ln().abs().total_cmp(&b.ln().abs()))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn old_names_of_fields_are_read() {
        let overhead: Overhead = from_value(json!({
            "roll_ms": 0.5, "bare_roll_ms": 0.25, "roll_ratio": 2.0, "event_ms": 0.3, "bare_event_ms": 0.1
        }))
        .unwrap();
        assert_eq!(overhead.bare_roll_and_event_ms, 0.25);
        let delays: DelaySummary =
            from_value(json!({ "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "count": 4 })).unwrap();
        assert_eq!((delays.deliveries, delays.missing), (4, None));
    }

    #[test]
    fn the_scale_of_the_indexes_is_that_of_the_report_that_has_them() {
        let creation = |scale| CreationResult { scale, ..CreationResult::default() };
        let index = Index { table: "t".into(), name: "i".into(), bytes: 0.0, used_by: Vec::new(), write_cost_us: None };
        // An old report, which has no scale of the indexes.
        let old_report =
            Report { creations: vec![creation(0.1), creation(0.01)], indexes: vec![index], ..Report::default() };
        let mut json = to_value(&old_report).unwrap();
        json.as_object_mut().unwrap().remove("indexes_scale");
        let mut merged = Report { creations: vec![creation(1.0)], ..Report::default() };
        merged.merge_with(parse_report(json.to_string().as_bytes()).unwrap());
        assert_eq!(merged.indexes_scale, Some(0.1));
    }
}
