//! Whole operations of the service, compared with pgbench.

use serde::{Deserialize, Serialize};

/// An operation, measured with a fixed number of concurrent clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationResult {
    /// The operation.
    pub name: String,
    /// Concurrent clients.
    pub clients: u32,
    /// Operations per second by the service.
    pub operations_per_second: f64,
    /// Transactions per second by pgbench when it sends BEGIN and the identity in two round trips.
    pub pgbench_operations_per_second: f64,
    /// `operations_per_second` divided by `pgbench_operations_per_second`.
    pub ratio: f64,
    /// Transactions per second by pgbench when it sends BEGIN and the identity in one round trip, as the service does.
    pub pgbench_pipelined_operations_per_second: f64,
    /// Round trips per operation of the service.
    pub round_trips: usize,
    /// Median latency of the service's operation, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of that latency, in milliseconds.
    pub p99_ms: f64,
    /// PostgreSQL's processor time per operation of the service, in milliseconds; `None` where the system does not
    /// report it.
    pub postgresql_cpu_ms: Option<f64>,
    /// The service's own processor time per operation, in milliseconds.
    pub service_cpu_ms: Option<f64>,
    /// PostgreSQL's processor time per transaction of pgbench without pipelining, in milliseconds.
    pub postgresql_cpu_ms_with_pgbench: Option<f64>,
}
