//! The connection of a migration: a pool of one, which works through a pooler in transaction mode too.

use sea_orm_migration::sea_orm::{
    DatabaseConnection, SqlxPostgresConnector,
    sqlx::{ConnectOptions, Connection, postgres::PgPoolOptions},
};

pub use rls::connect::{CONNECT_TIMEOUT, ConnectError, explain, open, options};

/// How `pg_stat_activity` shows this program.
pub(crate) const APPLICATION_NAME: &str = "sparc migration";

/// Connects to the database at `url`, through a pool of one connection that keeps no prepared statements.
///
/// # Errors
///
/// [`ConnectError`], at once when nobody listens, and after ten seconds when nothing answers at all.
pub async fn connect(url: &str) -> Result<DatabaseConnection, ConnectError> {
    // A pooler in transaction mode knows neither statements by name nor every setting.
    let options = options(url)?
        .application_name(APPLICATION_NAME)
        .statement_cache_capacity(0)
        .extra_float_digits(None)
        .disable_statement_logging();
    // A pool retries until its timeout; one connection says at once what is wrong.
    let (connection, options) = open(&options, CONNECT_TIMEOUT).await?;
    let explain = |error| explain(&options, &error);
    connection.close().await.map_err(explain)?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options.clone())
        .await
        .map_err(explain)?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}
