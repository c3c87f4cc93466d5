//! Sizes, index builds and migrations of the compared databases.

use serde::{Deserialize, Serialize};

/// The measurements of sizes, index builds and migrations, made at one scale while the databases were created and
/// filled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CreationResult {
    /// The scale; 1 is 300 thousand sessions.
    pub scale: f64,
    /// Size of the specification's database divided by its sessions, in bytes.
    pub specification_bytes_per_session: f64,
    /// Size of this schema's database divided by its sessions, in bytes.
    pub ours_bytes_per_session: f64,
    /// Milliseconds to build this schema's indexes, except those of constraints.
    pub index_builds_ms: f64,
    /// The build of each of these indexes.
    pub index_builds: Vec<IndexBuild>,
    /// Milliseconds that `up` takes on an empty database.
    pub up_on_empty_database_ms: f64,
    /// Milliseconds that `up` takes when it runs again, on the filled database.
    pub repeated_up_on_filled_database_ms: f64,
    /// The longest time, in milliseconds, for which an ACCESS EXCLUSIVE lock on a table was seen during the `up` on the
    /// filled database.
    pub longest_lock_ms: f64,
    /// The table with that lock; empty if no such lock was seen.
    pub longest_lock_table: String,
}

/// The build time and the size of an index.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IndexBuild {
    /// The index's name.
    pub index: String,
    /// Build time in milliseconds.
    pub ms: f64,
    /// Size in bytes.
    pub bytes: f64,
}
