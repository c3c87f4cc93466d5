//! A run of an operation: what it needs, and its result.

use crate::{argument_sets::ArgumentSet, cpu::CpuTimes};

/// The server, the database and the argument sets that operations run with.
#[derive(Clone)]
pub struct Environment<'a> {
    /// URL of the database.
    pub url: &'a str,
    /// The users and sessions of the clients. Each client uses one argument set; if there are fewer argument sets than
    /// clients, clients share them.
    pub argument_sets: &'a [ArgumentSet],
    /// The process id of the server's postmaster.
    pub postmaster_pid: Option<u32>,
}

/// The result of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunResult {
    /// Operations per second.
    pub operations_per_second: f64,
    /// PostgreSQL's processor time per operation, in milliseconds.
    pub postgresql_cpu_ms: Option<f64>,
    /// The service's processor time per operation, in milliseconds; `None` for a run of pgbench.
    pub service_cpu_ms: Option<f64>,
}

/// Returns the processor time per operation, in milliseconds.
pub(super) fn cpu_ms_per_operation(before: Option<CpuTimes>, after: Option<CpuTimes>, operations: f64) -> Option<f64> {
    let used = after?.since(&before?);
    Some(used.as_secs_f64() * 1000.0 / operations)
}
