//! What can go wrong with an identity's connection. Whatever else the server refuses is passed on as it is.

use sea_orm::{
    ConnAcquireErr, DbErr, RuntimeErr, SqlxError, SqlxPostgresError,
    sqlx::{self, postgres::PgSeverity},
};

/// What a connection, a transaction or a pool could not do.
///
/// SeaORM's traits return [`DbErr`]; `Error::from` gives back the variant it was made from. A variant that is not listed
/// as unknown in its outcome left nothing in the database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A transaction was used, or committed, while one nested in it is open.
    #[error("a nested transaction is open; commit it or roll it back first")]
    NestedTransactionOpen,
    /// The transaction was committed or rolled back, or the one around it was.
    #[error("the transaction is over")]
    TransactionOver,
    /// A statement failed in this transaction, or a call was dropped half way; it can only be rolled back.
    #[error("a statement failed or was cancelled in this transaction; roll it back, nothing of it will be committed")]
    TransactionFailed,
    /// A statement changed the role or the claims; nothing was committed.
    #[error("a statement changed the identity (role or claims); nothing was committed")]
    IdentityChanged,
    /// A statement ended the transaction that it ran in: what was done before it may be in the database.
    #[error("a statement ended its transaction; what was done before it may have been committed")]
    TransactionEnded,
    /// A statement that cannot be run as it is: several at once, too many values, too few, `COPY` from the client.
    #[error("the statement cannot be run: {reason}")]
    InvalidStatement {
        /// What it must be.
        reason: String,
    },
    /// The time allowed for it passed. Nothing was committed.
    #[error("deadline exceeded; nothing was committed")]
    DeadlineExceeded,
    /// No connection of the pool was free in time.
    #[error("no database connection was free in time; allow more connections, or wait longer")]
    PoolTimeout,
    /// The pool was closed.
    #[error("the pool is closed; connect again")]
    PoolClosed,
    /// The pool or its login is not set up for this identity.
    #[error("the connection is not set up: {reason}")]
    Misconfigured {
        /// What is wrong, and what must be.
        reason: String,
    },
    /// Of the addresses of the primary and its replicas, none leads to a server that takes writes. Nothing was committed.
    #[error("no server takes writes: none of the addresses leads to a primary; nothing was committed")]
    NoPrimary,
    /// The connection was lost before the commit was sent. Nothing was committed.
    #[error("the connection to the database was lost before the commit; nothing was committed")]
    ConnectionLost(#[source] DbErr),
    /// The answer to a commit was lost: it may have happened, or not.
    #[error("the answer to the commit was lost; it may have been committed")]
    CommitUnknown(#[source] DbErr),
    /// Whatever else the database or SeaORM said.
    #[error(transparent)]
    Database(DbErr),
}

/// Marks a text that a [`DbErr`] carries as one of ours.
const PREFIX: &str = "rls:";

impl Error {
    /// A name that stays the same from version to version.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NestedTransactionOpen => "nested_transaction_open",
            Self::TransactionOver => "transaction_over",
            Self::TransactionFailed => "transaction_failed",
            Self::IdentityChanged => "identity_changed",
            Self::TransactionEnded => "transaction_ended",
            Self::InvalidStatement { .. } => "invalid_statement",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::PoolTimeout => "pool_timeout",
            Self::PoolClosed => "pool_closed",
            Self::Misconfigured { .. } => "misconfigured",
            Self::NoPrimary => "no_primary",
            Self::ConnectionLost(_) => "connection_lost",
            Self::CommitUnknown(_) => "commit_unknown",
            Self::Database(_) => "database",
        }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::InvalidStatement { reason: reason.into() }
    }
}

/// SeaORM's traits have no place for another error's type: the code and the text travel in `DbErr::Custom`.
impl From<Error> for DbErr {
    fn from(error: Error) -> Self {
        let detail = match error {
            Error::Database(error) => return error,
            Error::InvalidStatement { ref reason } | Error::Misconfigured { ref reason } => reason.clone(),
            Error::ConnectionLost(ref source) | Error::CommitUnknown(ref source) => source.to_string(),
            _ => error.to_string(),
        };
        Self::Custom(format!("{PREFIX}{}: {detail}", error.code()))
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match error {
            DbErr::Custom(text) => from_text(text),
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => Self::PoolTimeout,
            DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => Self::PoolClosed,
            DbErr::AttrNotSet(column) => Self::invalid(format!("the column {column} must have a value")),
            DbErr::PrimaryKeyNotSet { .. } | DbErr::UpdateGetPrimaryKey => {
                Self::invalid("the row must have its primary key")
            }
            error => match sqlx_error(&error).and_then(classify) {
                Some(Class::Lost) => Self::ConnectionLost(error),
                Some(Class::PoolTimeout) => Self::PoolTimeout,
                Some(Class::PoolClosed) => Self::PoolClosed,
                Some(Class::Misconfigured(reason)) => Self::Misconfigured { reason },
                Some(Class::Invalid(reason)) => Self::InvalidStatement { reason },
                None => Self::Database(error),
            },
        }
    }
}

fn from_text(text: String) -> Error {
    let Some((code, detail)) = text.strip_prefix(PREFIX).and_then(|text| text.split_once(": ")) else {
        return Error::Database(DbErr::Custom(text));
    };
    let source = || DbErr::Conn(RuntimeErr::Internal(detail.to_owned()));
    match code {
        "nested_transaction_open" => Error::NestedTransactionOpen,
        "transaction_over" => Error::TransactionOver,
        "transaction_failed" => Error::TransactionFailed,
        "identity_changed" => Error::IdentityChanged,
        "transaction_ended" => Error::TransactionEnded,
        "invalid_statement" => Error::invalid(detail),
        "deadline_exceeded" => Error::DeadlineExceeded,
        "pool_timeout" => Error::PoolTimeout,
        "pool_closed" => Error::PoolClosed,
        "misconfigured" => Error::Misconfigured { reason: detail.to_owned() },
        "no_primary" => Error::NoPrimary,
        "connection_lost" => Error::ConnectionLost(source()),
        "commit_unknown" => Error::CommitUnknown(source()),
        _ => Error::Database(DbErr::Custom(text)),
    }
}

/// Whether it is [`Error::ConnectionLost`], or will be.
pub(crate) fn is_connection_lost(error: &DbErr) -> bool {
    match error {
        DbErr::Custom(text) => text.strip_prefix(PREFIX).is_some_and(|text| text.starts_with("connection_lost")),
        error => matches!(sqlx_error(error).and_then(classify), Some(Class::Lost)),
    }
}

/// Whether a replica could not answer what the primary may: it was to write, or the rows that it reads are just being
/// removed there, or the server is gone.
pub(crate) fn is_replicas_own(error: &DbErr) -> bool {
    let code = sqlx_error(error).and_then(pg_error).map(SqlxPostgresError::code);
    matches!(code, Some("25006" | "40001" | "40P01" | "55000")) || is_connection_lost(error)
}

/// Whether the server takes no writes.
pub(crate) fn is_read_only(error: &DbErr) -> bool {
    sqlx_error(error).and_then(pg_error).map(SqlxPostgresError::code) == Some("25006")
}

/// The driver's error in SeaORM's, if it came from there.
#[must_use]
pub fn sqlx_error(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner))
        | DbErr::Conn(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

/// What the server said, if it was the server.
#[must_use]
pub fn pg_error(error: &SqlxError) -> Option<&SqlxPostgresError> {
    error.as_database_error().and_then(|error| error.try_downcast_ref())
}

enum Class {
    Lost,
    PoolTimeout,
    PoolClosed,
    Misconfigured(String),
    Invalid(String),
}

/// Whether the connection is of no use after it: the network failed, the server said good-bye, or the two do not
/// understand each other any more.
pub(crate) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        error => pg_error(error).is_some_and(is_fatal),
    }
}

/// The server ends the connection after it.
fn is_fatal(error: &SqlxPostgresError) -> bool {
    matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
        || matches!(error.code(), "57P01" | "57P02" | "57P05")
}

fn classify(error: &SqlxError) -> Option<Class> {
    Some(match error {
        SqlxError::PoolTimedOut => Class::PoolTimeout,
        SqlxError::PoolClosed => Class::PoolClosed,
        SqlxError::Protocol(text) if text.contains("CopyInResponse") || text.contains("CopyOutResponse") => {
            Class::Invalid("COPY must read or write on the server; the connection was closed".to_owned())
        }
        SqlxError::Configuration(source) => Class::Misconfigured(source.to_string()),
        SqlxError::Encode(source) => Class::Invalid(format!("a value cannot be sent: {source}")),
        SqlxError::InvalidArgument(text) => Class::Invalid(text.clone()),
        SqlxError::TypeNotFound { type_name } => Class::Invalid(format!("there is no type {type_name}")),
        error => match pg_error(error) {
            Some(error) => return classify_refusal(error),
            None if is_lost(error) => Class::Lost,
            None => return None,
        },
    })
}

fn classify_refusal(error: &SqlxPostgresError) -> Option<Class> {
    let said = || error.message().to_owned();
    match error.code() {
        // A login that may not enter, or a database that is not there.
        "28000" | "28P01" | "3D000" => Some(Class::Misconfigured(said())),
        // As many values as the text has places for, and one statement.
        "08P01" if !is_fatal(error) => Some(Class::Invalid(said())),
        "42601" if error.routine() == Some("exec_parse_message") => {
            Some(Class::Invalid("it must be one statement".to_owned()))
        }
        // Too many connections: another one may leave.
        "53300" => Some(Class::PoolTimeout),
        code if code.starts_with("57P") || code.starts_with("08") || is_fatal(error) => Some(Class::Lost),
        _ => None,
    }
}
