//! Single statements, in the specification's schema and in this project's ("this schema").

use serde::{Deserialize, Serialize};

/// The result of measuring two statements for the same purpose, the specification's and the service's. The fields that
/// begin with `specification_` are about the specification's schema.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatementResult {
    /// The name of the pair.
    pub name: String,
    /// The scale; 1 is 300 thousand sessions.
    pub scale: f64,
    /// The role that ran the statements.
    pub role: String,
    /// Median in the specification's schema, in milliseconds.
    pub specification_ms: f64,
    /// Whether the specification's statement was stopped; `specification_ms` is then a lower bound.
    pub specification_timed_out: bool,
    /// Median in this schema, in milliseconds.
    pub ours_ms: f64,
    /// `specification_ms` divided by `ours_ms`.
    pub ratio: f64,
    /// The 99th percentile in this schema, in milliseconds.
    pub p99_ms: f64,
    /// Median in this schema without the specification's statements in between, in milliseconds: the smallest of the
    /// medians of a few rounds. The goal that limits how times grow with the data (see `goals`) compares this value
    /// between scales.
    pub ours_isolated_ms: f64,
    /// Rows returned in this schema.
    pub rows: u64,
    /// Rows returned in the specification's schema.
    pub specification_rows: u64,
    /// The number of timed messages in this schema. A message that repeats the statement gives one time, the mean. Old
    /// reports call it `timed_executions`.
    #[serde(alias = "timed_executions")]
    pub timed_messages: usize,
    /// Planning and execution time in this schema by the server's clock, in milliseconds.
    pub server_ms: f64,
    /// A hash of the custom plan's shape, in this schema.
    pub plan_hash: String,
    /// A hash of the generic plan's shape, in this schema.
    pub generic_plan_hash: String,
    /// The numbers of executions of this schema's statement with a custom plan and with the generic plan.
    pub plan_counts: (u64, u64),
    /// Shared buffers that the custom plan hits or reads, the mean over several argument sets.
    pub buffers: u64,
    /// The custom plan in this schema.
    pub plan: Plan,
}

impl StatementResult {
    /// Returns a key that identifies the result in a report: the scale and the statement's name.
    #[must_use]
    pub fn key(&self) -> (u64, String) {
        (self.scale.to_bits(), self.name.clone())
    }
}

/// The plan of a statement, with measurements of its execution.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The text of EXPLAIN.
    pub text: String,
    /// The plan's nodes with their tables, indexes and join types. Costs and times are left out, because they differ
    /// between runs.
    pub shape: String,
    /// The sum of planning and execution time, in milliseconds.
    pub ms: f64,
    /// Shared buffers hit or read, the mean over several argument sets.
    pub buffers: u64,
}

impl Plan {
    /// Returns the FNV-1a hash of the shape.
    #[must_use]
    pub fn hash(&self) -> String {
        let hash = self
            .shape
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        format!("{hash:016x}")
    }
}
