//! The uses and the cost of each index.

use serde::{Deserialize, Serialize};

/// An index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Index {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Bytes on disk.
    pub bytes: f64,
    /// Its uses: first the names of the measured statements that read it, then the constraints that it serves, then
    /// other uses.
    pub used_by: Vec<String>,
    /// Microseconds that it adds to each written row; `None` if it belongs to a constraint, or if the table has too few
    /// rows to measure it.
    pub write_cost_us: Option<f64>,
}
