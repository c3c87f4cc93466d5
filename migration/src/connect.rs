//! The connection for migrations: a pool of one connection, which also works through a pooler in transaction mode.

use sea_orm_migration::sea_orm::{
    DatabaseConnection, SqlxPostgresConnector,
    sqlx::{ConnectOptions, Connection, postgres::PgPoolOptions},
};

pub use rls::connect::{CONNECT_TIMEOUT, ConnectError, open, options, to_connect_error};

/// The program's name in `pg_stat_activity`. By this name, `run` also recognizes a connection that [`connect`] opened.
pub(crate) const APPLICATION_NAME: &str = "sparc migration";

/// Connects to the database at `url`, through a pool of one connection that caches no prepared statements.
///
/// # Errors
///
/// [`ConnectError`]: at once if no server listens, and after ten seconds if none answers.
pub async fn connect(url: &str) -> Result<DatabaseConnection, ConnectError> {
    // A pooler in transaction mode may not support named prepared statements, so none are cached. Such a pooler may
    // also refuse the startup parameter `extra_float_digits`, so the parameter is not sent.
    let options = options(url)?
        .application_name(APPLICATION_NAME)
        .statement_cache_capacity(0)
        .extra_float_digits(None)
        .disable_statement_logging();
    // A single connection is opened first, because it reports at once what is wrong, whereas a pool would retry until
    // its timeout. The returned options say whether the server was reached with TLS.
    let (connection, options) = open(&options, CONNECT_TIMEOUT).await?;
    let to_error = |error| to_connect_error(&options, &error);
    connection.close().await.map_err(to_error)?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(options.clone())
        .await
        .map_err(to_error)?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}
