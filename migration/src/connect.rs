//! A connection to migrate through, or one sentence that says why there is none.

use std::time::Duration;

use sea_orm_migration::sea_orm::{
    DatabaseConnection, SqlxPostgresConnector,
    sqlx::{
        self, ConnectOptions, Connection, PgConnection,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
};

/// Why there is no connection, as a sentence for a person. No sentence holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not one of PostgreSQL.
    #[error(
        "The database address does not parse: write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special \
         characters of the password percent-encoded."
    )]
    Address,
    /// Nobody listens there.
    #[error("No PostgreSQL server answers at {host}:{port}: start it, or correct the host and port of the address.")]
    Unreachable {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
    },
    /// The server refused the password, or the user.
    #[error(
        "The server at {host}:{port} refuses user \"{user}\": correct the user or password of the address, or the \
         server's pg_hba.conf."
    )]
    Login {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
        /// User of the address.
        user: String,
    },
    /// The server has no such database.
    #[error(
        "The server at {host}:{port} has no database \"{database}\": create it (createdb {database}), or correct the \
         address."
    )]
    NoDatabase {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
        /// Database of the address.
        database: String,
    },
    /// Anything else that the server or the driver said.
    #[error("The server at {host}:{port} does not let us in: {reason}.")]
    Other {
        /// Host of the address.
        host: String,
        /// Port of the address.
        port: u16,
        /// What was said.
        reason: String,
    },
}

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to the database at `url`.
///
/// # Errors
///
/// [`ConnectError`], at once when nobody listens, and after ten seconds when nothing answers at all.
pub async fn connect(url: &str) -> Result<DatabaseConnection, ConnectError> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(ConnectError::Address);
    }
    let options: PgConnectOptions = url.parse().map_err(|_| ConnectError::Address)?;
    let options = options.application_name("sparc migration").disable_statement_logging();
    // A pool goes on knocking until its time is up; one connection says at once what is wrong.
    tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options))
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(|error| explain(&options, &error))?
        .close()
        .await
        .map_err(|error| explain(&options, &error))?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .connect_with(options.clone())
        .await
        .map_err(|error| explain(&options, &error))?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

fn explain(options: &PgConnectOptions, error: &sqlx::Error) -> ConnectError {
    let host = options.get_host().to_owned();
    let port = options.get_port();
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => ConnectError::Unreachable { host, port },
        sqlx::Error::Database(refusal) => match refusal.code().as_deref() {
            Some("28P01" | "28000") => ConnectError::Login { host, port, user: options.get_username().to_owned() },
            Some("3D000") => ConnectError::NoDatabase {
                host,
                port,
                database: options.get_database().unwrap_or_else(|| options.get_username()).to_owned(),
            },
            _ => ConnectError::Other { host, port, reason: refusal.message().to_owned() },
        },
        other => ConnectError::Other { host, port, reason: other.to_string() },
    }
}
