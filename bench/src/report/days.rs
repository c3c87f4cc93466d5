//! The size of the table of events over simulated days.

use serde::{Deserialize, Serialize};

/// The size of the table of events at the end of a simulated day.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DayResult {
    /// Simulated days since the start, with fractions.
    pub elapsed_days: f64,
    /// Events written since the start of the simulation.
    pub events_written: u64,
    /// Live rows of the table, as estimated in `pg_stat_user_tables`.
    pub live_rows: f64,
    /// Dead rows of the table, as estimated there.
    pub dead_rows: f64,
    /// Size of the table in bytes.
    pub table_bytes: f64,
    /// Size of its indexes in bytes.
    pub index_bytes: f64,
    /// The number of autovacuum runs of the table, including those before the simulation.
    pub autovacuum_runs: f64,
}
