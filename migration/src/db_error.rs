//! What a database error says: its SQLSTATE, the database's reason, and a message for the operator.

use sea_orm_migration::sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, sqlx};

use crate::printable::escape_unprintable;

/// The SQLSTATE of a statement that waited longer than `lock_timeout`.
pub(crate) const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The SQLSTATE of a PREPARE whose name is already in use on the server connection. Another client of the pooler may
/// have left a statement of that name there.
const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";

/// The SQLSTATE of the execution of a prepared statement that the server connection does not have. The pooler may have
/// switched to another server connection.
const INVALID_SQL_STATEMENT_NAME: &str = "26000";

/// The SQLSTATE of a write on a standby or in a read-only transaction.
const READ_ONLY_SQL_TRANSACTION: &str = "25006";

/// The SQLSTATE of a statement for which the role lacks a privilege.
pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// The SQLSTATE of a DROP without CASCADE of an object on which others depend.
const DEPENDENT_OBJECTS_STILL_EXIST: &str = "2BP01";

/// Classes of SQLSTATEs that say nothing about the statement itself: 08 (`connection_exception`), 40
/// (`transaction_rollback`, such as a deadlock), 53 (`insufficient_resources`), 57 (`operator_intervention`, such as a
/// cancelled statement or a shutdown), 58 (`system_error`), XX (`internal_error`, such as a corrupted index).
const CLASSES_NOT_ABOUT_THE_STATEMENT: [&str; 6] = ["08", "40", "53", "57", "58", "XX"];

/// Returns a message for the operator: what failed, the likeliest cause, and the remedy. It contains no secret.
#[must_use]
pub fn operator_message(error: &DbErr) -> String {
    if let DbErr::Migration(message) = error {
        return message.clone();
    }
    match sqlstate(error).as_deref() {
        Some(DUPLICATE_PREPARED_STATEMENT | INVALID_SQL_STATEMENT_NAME) => {
            "The URL is that of a pooler in transaction mode, which does not keep the client's prepared statements: \
             either connect with `migration::connect`, which works through such a pooler, or use the URL of the server \
             itself or of a pooler in session mode (on Supabase, port 5432); nothing was changed."
                .to_owned()
        }
        Some(LOCK_NOT_AVAILABLE) => {
            "Another database session holds a lock that this command needs: end its transaction, and run the command \
             again; nothing was changed."
                .to_owned()
        }
        Some(INSUFFICIENT_PRIVILEGE) => format!(
            "The role lacks a privilege ({}): connect as the owner of the schema; nothing was changed.",
            database_message(error)
        ),
        Some(READ_ONLY_SQL_TRANSACTION) => {
            "The database accepts no writes: connect to the primary; nothing was changed.".to_owned()
        }
        Some(DEPENDENT_OBJECTS_STILL_EXIST) => format!(
            "{}: {}. Drop or change those objects first; nothing was changed.",
            database_message(error),
            detail(error).unwrap_or_else(|| "other objects depend on it".to_owned())
        ),
        Some(code) if is_connection_loss_code(code) => connection_loss_message(),
        None if is_pool_timeout(error) => {
            "All connections of the pool stayed in use: end what uses them, or give the migration a pool of its own; \
             nothing was changed."
                .to_owned()
        }
        None if is_connection_loss(error) => connection_loss_message(),
        _ => format!("The command failed, and changed nothing: {}.", database_message(error)),
    }
}

fn connection_loss_message() -> String {
    "The connection to the server was lost, and the server rolls back what was not committed: run the command again."
        .to_owned()
}

/// Whether the SQLSTATE says that the server or a pooler closes the connection: class 08 (`connection_exception`), or
/// 57P01 and the following ones (`admin_shutdown`, `crash_shutdown` and so on).
fn is_connection_loss_code(code: &str) -> bool {
    code.starts_with("57P") || code.starts_with("08")
}

/// Whether an error that has no SQLSTATE says that the connection was lost.
fn is_connection_loss(error: &DbErr) -> bool {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error))
        | DbErr::Conn(RuntimeErr::SqlxError(error)) => {
            matches!(**error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
        }
        DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => true,
        _ => false,
    }
}

fn is_pool_timeout(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => true,
        DbErr::Conn(RuntimeErr::SqlxError(error)) => matches!(**error, sqlx::Error::PoolTimedOut),
        _ => false,
    }
}

/// Returns the DETAIL of the database's error, such as the list of dependent objects.
fn detail(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return None;
    };
    let error = error.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    Some(escape_unprintable(&error.detail()?.replace('\n', ", ")))
}

/// Returns the database's reason for rejecting a statement: its message and DETAIL. `None` if the cause is not the
/// statement but the connection, a lock, another transaction, the server's state or resources, or a pooler. For these,
/// see [`operator_message`].
pub(crate) fn rejection_reason(error: &DbErr) -> Option<String> {
    let code = sqlstate(error)?;
    let has_other_cause = matches!(
        &*code,
        LOCK_NOT_AVAILABLE | READ_ONLY_SQL_TRANSACTION | DUPLICATE_PREPARED_STATEMENT | INVALID_SQL_STATEMENT_NAME
    ) || CLASSES_NOT_ABOUT_THE_STATEMENT.iter().any(|class| code.starts_with(class));
    (!has_other_cause).then(|| match detail(error) {
        Some(detail) => format!("{}: {}", database_message(error), detail.trim_end_matches('.')),
        None => database_message(error),
    })
}

/// Returns the database's message, without the text that SeaORM and SQLx add. If the error is not the database's,
/// returns its own text.
fn database_message(error: &DbErr) -> String {
    let message = match error {
        DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error))
        | DbErr::Conn(RuntimeErr::SqlxError(error)) => match error.as_database_error() {
            Some(error) => error.message().to_owned(),
            None => error.to_string(),
        },
        other => other.to_string(),
    };
    escape_unprintable(&message.trim_end_matches('.').replace('\n', " "))
}

/// Returns the SQLSTATE of a database error.
pub(crate) fn sqlstate(error: &DbErr) -> Option<String> {
    Some(rls::sqlx_error(error)?.as_database_error()?.code()?.into_owned())
}
