//! The databases that the commands measure: the settings of their servers, and a database that is filled with the rows
//! of a data set.

use chrono::Utc;
use sea_orm::ConnectionTrait;
use testdb::{Database, Server};

use crate::{data_set::DataSet, failure::Failure, fill::fill, growth::migrate, schema::Schema};

/// Settings of a production host: acknowledged commits are on disk, and the rows that the workload reads fit in the
/// shared buffers. The planner's cost parameters are PostgreSQL's defaults.
pub const PRODUCTION_SETTINGS: [&str; 8] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "wal_level=logical",
    "shared_buffers=4GB",
    "max_wal_size=8GB",
    "max_connections=200",
    "autovacuum_naptime=15s",
];

/// Supabase's definition of `auth.uid()`.
pub const AUTH_UID_SQL: &str = include_str!("../sql/auth_uid.sql");

/// Creates a database with this project's schema, fills it with everything but events, and installs Supabase's
/// definition of `auth.uid()`.
pub async fn create_filled_database(server: &Server, data_set: DataSet) -> Result<Database, Failure> {
    let database = server.create_unmigrated().await?;
    let pool = database.connect(2).await?;
    migrate(&pool, None).await?;
    fill(database.url(), Schema::Ours, data_set, Utc::now()).await?;
    pool.execute_unprepared(AUTH_UID_SQL).await?;
    pool.close().await?;
    Ok(database)
}
