//! The errors of this crate, and how the errors of SeaORM, the driver and the server are converted to them. An error
//! whose cause is not recognized is passed on unchanged, as [`Error::Database`].

use std::{error::Error as StdError, fmt, sync::Arc};

use sea_orm::{
    ConnAcquireErr, DbErr, RuntimeErr, SqlxError, SqlxPostgresError,
    sqlx::{
        self,
        error::{DatabaseError, ErrorKind},
        postgres::PgSeverity,
    },
};

use crate::sqlstate;

/// An error of a connection, a transaction or a pool.
///
/// SeaORM's traits return [`DbErr`]; `Error::from` converts a `DbErr` back to the variant that it was created from, or
/// to the one that names its cause. Nothing was committed, except where a variant says that something was or may have
/// been.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A transaction was used or committed while a transaction nested in it was open.
    #[error("a nested transaction is open; commit it or roll it back first")]
    NestedTransactionOpen,
    /// The transaction, or an outer one, was committed or rolled back.
    #[error("the transaction was already committed or rolled back")]
    TransactionOver,
    /// A statement failed in this transaction, or a call was dropped before it completed. The transaction can only be
    /// rolled back.
    #[error("a statement failed or was cancelled in this transaction; roll it back, nothing of it will be committed")]
    TransactionFailed,
    /// A statement changed the role or a setting of the identity. Nothing was committed.
    #[error("a statement changed the identity (role or settings); nothing was committed")]
    IdentityChanged,
    /// A statement ended the transaction that it ran in. What the transaction did before may have been committed.
    #[error("a statement ended its transaction; what the transaction did before may have been committed")]
    TransactionEndedByStatement,
    /// The statement cannot be run. For example, its text contains several statements, it has too many or too few
    /// values, or it is a `COPY` from or to the client.
    #[error("the statement cannot be run: {reason}")]
    InvalidStatement {
        /// What the statement must be, or why it cannot be run.
        reason: String,
    },
    /// The deadline was exceeded. Nothing was committed.
    #[error("deadline exceeded; nothing was committed")]
    DeadlineExceeded,
    /// No connection of the pool became free within the timeout, or the server allows no further connection.
    #[error("no database connection was free in time; allow more connections, or wait longer")]
    PoolTimeout,
    /// The pool is closed.
    #[error("the pool is closed; connect again")]
    PoolClosed,
    /// The connection is not configured for what was asked of it. For example, the pool's login is not a member of the
    /// identity's role.
    #[error("the connection is misconfigured: {reason}")]
    Misconfigured {
        /// The cause, and what is required.
        reason: String,
    },
    /// Neither the server of the URL nor a replica accepts writes. Nothing was committed.
    #[error("no server accepts writes: none of the configured servers is a primary; nothing was committed")]
    NoPrimary,
    /// The URL is invalid, or the first connection of a pool could not be opened.
    #[error(transparent)]
    Connect(#[from] crate::ConnectError),
    /// The connection could not be opened, or it was lost before the commit was sent. If the transaction can write
    /// nothing, the connection may also have been lost after that. Nothing was committed.
    #[error("the connection to the database could not be opened or was lost; nothing was committed")]
    ConnectionLost(#[source] DbErr),
    /// The server did not answer the commit: the connection was lost, a pooler reported an error in the server's place,
    /// or the deadline was exceeded. The outcome is unknown.
    #[error("the answer to the commit was lost; the transaction may have been committed")]
    CommitUnknown(#[source] DbErr),
    /// The claims of a token cannot be used for an identity.
    #[error("the token's claims cannot be used: {rule}")]
    InvalidClaims {
        /// What the claims must be.
        rule: &'static str,
    },
    /// An error of the application's own type, which the function given to
    /// [`Database::with_error_mapper`](crate::Database::with_error_mapper) returned.
    #[error(transparent)]
    Application(Arc<dyn StdError + Send + Sync>),
    /// Any other error of the database or SeaORM.
    #[error(transparent)]
    Database(DbErr),
}

impl Error {
    /// Returns a name that is stable across versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NestedTransactionOpen => "nested_transaction_open",
            Self::TransactionOver => "transaction_over",
            Self::TransactionFailed => "transaction_failed",
            Self::IdentityChanged => "identity_changed",
            Self::TransactionEndedByStatement => "transaction_ended",
            Self::InvalidStatement { .. } => "invalid_statement",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::PoolTimeout => "pool_timeout",
            Self::PoolClosed => "pool_closed",
            Self::Misconfigured { .. } => "misconfigured",
            Self::NoPrimary => "no_primary",
            Self::Connect(_) => "connect_failed",
            Self::ConnectionLost(_) => "connection_lost",
            Self::CommitUnknown(_) => "commit_unknown",
            Self::InvalidClaims { .. } => "invalid_claims",
            Self::Application(_) => "application",
            Self::Database(_) => "database",
        }
    }

    pub(crate) fn invalid_statement(reason: impl Into<String>) -> Self {
        Self::InvalidStatement { reason: reason.into() }
    }
}

/// Carries an [`Error`] through SeaORM's traits, which return [`DbErr`]. It looks like an error of the driver, and
/// `Error::from` unwraps the same variant again.
#[derive(Debug)]
struct CarriedError {
    error: Error,
    text: String,
}

impl fmt::Display for CarriedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for CarriedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl DatabaseError for CarriedError {
    fn message(&self) -> &str {
        &self.text
    }

    fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

impl From<Error> for DbErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error,
            error => {
                let carried = CarriedError { text: error.to_string(), error };
                Self::Exec(RuntimeErr::SqlxError(SqlxError::Database(Box::new(carried)).into()))
            }
        }
    }
}

fn carried_error(error: &SqlxError) -> Option<&Error> {
    let carried = error.as_database_error()?.try_downcast_ref::<CarriedError>()?;
    Some(&carried.error)
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match error {
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => Self::PoolTimeout,
            DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => Self::PoolClosed,
            DbErr::AttrNotSet(column) => Self::invalid_statement(format!("the column {column} must have a value")),
            DbErr::PrimaryKeyNotSet { .. } | DbErr::UpdateGetPrimaryKey => {
                Self::invalid_statement("the row must have its primary key")
            }
            error => {
                let Some(inner) = sqlx_error(&error) else { return Self::Database(error) };
                if let Some(carried) = carried_error(inner) {
                    return carried.clone();
                }
                match classify(inner) {
                    Some(ErrorClass::ConnectionLost) => Self::ConnectionLost(error),
                    Some(ErrorClass::PoolTimeout) => Self::PoolTimeout,
                    Some(ErrorClass::PoolClosed) => Self::PoolClosed,
                    Some(ErrorClass::DeadlineExceeded) => Self::DeadlineExceeded,
                    Some(ErrorClass::Misconfigured(reason)) => Self::Misconfigured { reason },
                    Some(ErrorClass::InvalidStatement(reason)) => Self::InvalidStatement { reason },
                    None => Self::Database(error),
                }
            }
        }
    }
}

/// Returns whether the error is an [`Error::ConnectionLost`], or converts to one.
pub(crate) fn is_connection_lost(error: &DbErr) -> bool {
    sqlx_error(error).is_some_and(|error| match carried_error(error) {
        Some(carried) => matches!(carried, Error::ConnectionLost(_)),
        None => matches!(classify(error), Some(ErrorClass::ConnectionLost)),
    })
}

/// Whether a statement failed on a replica for a reason that need not apply to the primary: the statement writes
/// (`READ_ONLY_SQL_TRANSACTION`), it conflicts with what the replica replays (`SERIALIZATION_FAILURE`,
/// `DEADLOCK_DETECTED`), it needs something that a standby does not support (`OBJECT_NOT_IN_PREREQUISITE_STATE`;
/// `FEATURE_NOT_SUPPORTED` for an unlogged table), or the replica cannot be reached.
pub(crate) fn may_succeed_on_primary(error: &DbErr) -> bool {
    let code = sqlx_error(error).and_then(pg_error).map(SqlxPostgresError::code);
    matches!(
        code,
        Some(
            sqlstate::READ_ONLY_SQL_TRANSACTION
                | sqlstate::SERIALIZATION_FAILURE
                | sqlstate::DEADLOCK_DETECTED
                | sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE
                | sqlstate::FEATURE_NOT_SUPPORTED
        )
    ) || is_connection_lost(error)
}

/// Whether the statement failed because the server or the transaction is read-only.
pub(crate) fn is_read_only_error(error: &DbErr) -> bool {
    sqlx_error(error).and_then(pg_error).map(SqlxPostgresError::code) == Some(sqlstate::READ_ONLY_SQL_TRANSACTION)
}

/// Whether the error says that a cached prepared statement no longer fits its table: since the statement was prepared,
/// a column was added, dropped or renamed, or got another type, so that the columns of the result would differ.
pub(crate) fn is_outdated_statement_error(error: &sqlx::Error) -> bool {
    pg_error(error).is_some_and(|error| {
        error.code() == sqlstate::FEATURE_NOT_SUPPORTED && error.routine() == Some("RevalidateCachedQuery")
    })
}

/// Returns the driver's error inside SeaORM's, if there is one.
#[must_use]
pub fn sqlx_error(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner))
        | DbErr::Conn(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

/// Returns the error as PostgreSQL's protocol reports it, if it came from the server or a pooler.
#[must_use]
pub fn pg_error(error: &SqlxError) -> Option<&SqlxPostgresError> {
    error.as_database_error().and_then(|error| error.try_downcast_ref())
}

/// The causes that are recognized in an error of the driver. Each becomes the variant of [`Error`] of the same name.
enum ErrorClass {
    ConnectionLost,
    PoolTimeout,
    PoolClosed,
    DeadlineExceeded,
    Misconfigured(String),
    InvalidStatement(String),
}

/// Whether the connection is unusable after this error: the network failed, the server closed the connection, a pooler
/// has lost the server, or the protocol is out of sync.
pub(crate) fn breaks_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        error => pg_error(error).is_some_and(is_fatal),
    }
}

/// Whether the server closes the connection after this error, or a pooler has lost the server. A pooler's error is
/// recognized by its severity or SQLSTATE, an error of PostgreSQL itself only by its severity: PostgreSQL uses class 08
/// also for a statement with too many or too few values, and for its own connection to another server (`dblink`,
/// foreign tables).
fn is_fatal(error: &SqlxPostgresError) -> bool {
    let reports_lost_server = || {
        error.code().starts_with("08")
            || matches!(
                error.code(),
                sqlstate::ADMIN_SHUTDOWN | sqlstate::CRASH_SHUTDOWN | sqlstate::IDLE_SESSION_TIMEOUT
            )
    };
    matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
        || !is_from_postgres(error) && reports_lost_server()
}

/// Whether PostgreSQL itself reported the error, not a pooler. PostgreSQL's message names the routine in its source
/// code that raised the error; a pooler's message names none.
fn is_from_postgres(error: &SqlxPostgresError) -> bool {
    error.routine().is_some()
}

/// Whether a pooler reported the error in the server's place, so that it is unknown what the server has done.
pub(crate) fn is_from_pooler(error: &sqlx::Error) -> bool {
    pg_error(error).is_some_and(|error| !is_from_postgres(error))
}

/// Recognizes the cause of an error. Returns `None` if the cause is none of those in [`ErrorClass`].
fn classify(error: &SqlxError) -> Option<ErrorClass> {
    Some(match error {
        SqlxError::PoolTimedOut => ErrorClass::PoolTimeout,
        SqlxError::PoolClosed => ErrorClass::PoolClosed,
        SqlxError::Protocol(text) if text.contains("CopyInResponse") || text.contains("CopyOutResponse") => {
            ErrorClass::InvalidStatement("COPY must read or write on the server; the connection was closed".to_owned())
        }
        SqlxError::Configuration(source) => ErrorClass::Misconfigured(source.to_string()),
        SqlxError::Encode(source) => ErrorClass::InvalidStatement(format!("a value cannot be sent: {source}")),
        SqlxError::InvalidArgument(text) => ErrorClass::InvalidStatement(text.clone()),
        SqlxError::TypeNotFound { type_name } => ErrorClass::InvalidStatement(format!("there is no type {type_name}")),
        error => match pg_error(error) {
            Some(error) => return classify_server_error(error),
            None if breaks_connection(error) => ErrorClass::ConnectionLost,
            None => return None,
        },
    })
}

fn classify_server_error(error: &SqlxPostgresError) -> Option<ErrorClass> {
    let message = || error.message().to_owned();
    match error.code() {
        // The login is refused, or the database does not exist.
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION | sqlstate::INVALID_PASSWORD | sqlstate::INVALID_CATALOG_NAME => {
            Some(ErrorClass::Misconfigured(message()))
        }
        // The statement has the wrong number of values.
        sqlstate::PROTOCOL_VIOLATION if !is_fatal(error) => Some(ErrorClass::InvalidStatement(message())),
        // The text contains more than one statement.
        sqlstate::SYNTAX_ERROR if error.routine() == Some("exec_parse_message") => {
            Some(ErrorClass::InvalidStatement("it must be one statement".to_owned()))
        }
        // The statement was cancelled, as a rule by `statement_timeout`, which has the value of the deadline.
        sqlstate::QUERY_CANCELED => Some(ErrorClass::DeadlineExceeded),
        // The server allows no further connection, but one that is in use may become free.
        sqlstate::TOO_MANY_CONNECTIONS => Some(ErrorClass::PoolTimeout),
        // The server is shutting down or starting, or has closed the connection.
        code if code.starts_with("57P") || is_fatal(error) => Some(ErrorClass::ConnectionLost),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sea_orm::{DbErr, RuntimeErr};

    use super::{Error, is_connection_lost};

    #[test]
    fn an_error_survives_the_conversion_to_sea_orm_and_back() {
        // The text contains the code of another error (`pool_closed`), and must not be taken for that error.
        let source = || DbErr::Conn(RuntimeErr::Internal("gone: rls:pool_closed".to_owned()));
        for error in [
            Error::NestedTransactionOpen,
            Error::TransactionOver,
            Error::TransactionFailed,
            Error::IdentityChanged,
            Error::TransactionEndedByStatement,
            Error::invalid_statement("it must be one statement"),
            Error::DeadlineExceeded,
            Error::PoolTimeout,
            Error::PoolClosed,
            Error::NoPrimary,
            Error::Connect(crate::ConnectError::InvalidUrl),
            Error::Misconfigured { reason: "no such role".to_owned() },
            Error::ConnectionLost(source()),
            Error::CommitUnknown(source()),
            Error::InvalidClaims { rule: "sub must be the UUID of an account" },
            Error::Application(Arc::new(std::fmt::Error)),
        ] {
            let (code, text) = (error.code(), error.to_string());
            let is_lost = matches!(error, Error::ConnectionLost(_));
            let carried = DbErr::from(error);
            assert!(carried.to_string().ends_with(&text), "{carried}");
            assert_eq!(is_connection_lost(&carried), is_lost, "{carried}");
            let arrived = Error::from(carried);
            assert_eq!((arrived.code(), arrived.to_string()), (code, text));
        }
    }

    #[test]
    fn a_custom_text_is_not_mistaken_for_an_error_of_this_crate() {
        let custom = DbErr::Custom("rls:pool_closed: the pool is closed".to_owned());
        assert_eq!(Error::from(custom).code(), "database");
    }
}
