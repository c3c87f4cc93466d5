//! The service compared with the same operations in plain sqlx and in tokio-postgres with pipelining. These three are
//! called *programs*.

use serde::{Deserialize, Serialize};

/// The measurements of the command `drivers`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DriverResults {
    /// The time of a round trip in milliseconds, without and with the added latency.
    pub round_trip_ms: [f64; 2],
    /// Each operation, with each number of clients, without and with the added latency.
    pub operations: Vec<OperationComparison>,
    /// The round trips of each operation.
    pub round_trips: Vec<RoundTrips>,
    /// The time of each phase of each operation.
    pub phases: Vec<PhaseTimes>,
}

/// The number of round trips that the caller of an operation waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The operation.
    pub name: String,
    /// The numbers of the service, of plain sqlx, and of tokio-postgres with pipelining.
    pub counts: [f64; 3],
}

/// An operation, measured in all three programs with one number of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationComparison {
    /// The operation.
    pub name: String,
    /// Whether latency was added.
    pub has_added_latency: bool,
    /// Concurrent clients.
    pub clients: usize,
    /// The results of the service, of plain sqlx, and of tokio-postgres with pipelining.
    pub results: [ProgramResult; 3],
}

/// The result of one program: its run with the median throughput.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ProgramResult {
    /// Operations per second.
    pub operations_per_second: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of the latency in milliseconds.
    pub p99_ms: f64,
    /// Processor time of this process per operation, in milliseconds; `None` where the system does not report it. With
    /// added latency, it includes the proxy's.
    pub program_cpu_ms: Option<f64>,
    /// Processor time of PostgreSQL per operation, in milliseconds.
    pub postgresql_cpu_ms: Option<f64>,
}

/// The median times of an operation's phases, and the times for comparison, in milliseconds. Only `service_begin_ms` is
/// measured with the crate `service`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// The operation.
    pub name: String,
    /// For comparison: a round trip, measured with a prepared `SELECT 1`.
    pub round_trip_ms: f64,
    /// For comparison: the first message of the crate `service`. It contains BEGIN, the role, all settings of the
    /// identity, and the check that the account is open.
    pub service_begin_ms: f64,
    /// BEGIN.
    pub begin_ms: f64,
    /// Setting the role and the claims.
    pub identity_ms: f64,
    /// The operation's statement.
    pub statement_ms: f64,
    /// For comparison: the operation's statement, run by the owner of the tables, who is exempt from row-level
    /// security. `None` if the statement writes.
    pub statement_without_row_security_ms: Option<f64>,
    /// COMMIT.
    pub commit_ms: f64,
}
