//! Opens connection pools.

use sea_orm::{ConnectOptions, DatabaseConnection, DbErr};

/// Opens a pool of at most `max_connections` connections, which does not log statements.
pub(crate) async fn connect(url: &str, max_connections: u32) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(max_connections).sqlx_logging(false).test_before_acquire(false);
    sea_orm::Database::connect(options).await
}
