//! Explains a database error: its SQLSTATE, the database's reason, and a message for the operator.

use sea_orm_migration::sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, sqlx};

/// Returns a message for the operator: what failed, the likeliest cause, and the remedy. It contains no secret.
#[must_use]
pub fn operator_message(error: &DbErr) -> String {
    if let DbErr::Migration(message) = error {
        return message.clone();
    }
    match sqlstate(error).as_deref() {
        Some("42P05" | "26000") => {
            "The URL is that of a pooler in transaction mode, which does not keep this pool's prepared statements: \
             connect with `migration::connect`, which works through such a pooler, or to the server itself or a pooler \
             in session mode (on Supabase, port 5432); nothing was changed."
                .to_owned()
        }
        Some("55P03") => "Another database session holds a lock that this command needs: end its transaction, and run \
                          the command again; nothing was changed."
            .to_owned(),
        Some("42501") => format!(
            "The role lacks a privilege ({}): connect as the owner of the schema; nothing was changed.",
            database_message(error)
        ),
        Some("25006") => "The database accepts no writes: connect to the primary; nothing was changed.".to_owned(),
        Some("2BP01") => format!(
            "{}: {}. Drop or change those objects first; nothing was changed.",
            database_message(error),
            detail(error).unwrap_or_else(|| "other objects depend on it".to_owned())
        ),
        Some(code) if is_connection_loss(code) => connection_lost(),
        None if is_pool_timeout(error) => {
            "All connections of the pool stayed in use: end what uses them, or give the migration a pool of its own; \
             nothing was changed."
                .to_owned()
        }
        None if is_connection_lost(error) => connection_lost(),
        _ => format!("The command failed, and changed nothing: {}.", database_message(error)),
    }
}

fn connection_lost() -> String {
    "The connection to the server was lost, and the server rolls back what was not committed: run the command again."
        .to_owned()
}

/// Whether the SQLSTATE says that the server or a pooler closes the connection.
fn is_connection_loss(code: &str) -> bool {
    code.starts_with("57P") || code.starts_with("08")
}

fn is_connection_lost(error: &DbErr) -> bool {
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

/// Returns the DETAIL of the database's message, such as the list of dependent objects.
fn detail(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return None;
    };
    let error = error.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    Some(error.detail()?.replace('\n', ", "))
}

/// Returns the database's reason for rejecting a statement, with its detail. `None` if the cause is not the statement
/// but the connection, a lock, a read-only server or a pooler; [`operator_message`] has a message for each of these.
pub(crate) fn rejection_reason(error: &DbErr) -> Option<String> {
    let code = sqlstate(error)?;
    let is_due_to_statement = !matches!(&*code, "55P03" | "25006" | "42P05" | "26000") && !is_connection_loss(&code);
    is_due_to_statement.then(|| match detail(error) {
        Some(detail) => format!("{}: {}", database_message(error), detail.trim_end_matches('.')),
        None => database_message(error),
    })
}

/// Returns the database's message, without the text that SeaORM and SQLx add.
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
    message.trim_end_matches('.').replace('\n', " ")
}

/// Returns the SQLSTATE of a database error.
pub(crate) fn sqlstate(error: &DbErr) -> Option<String> {
    Some(rls::sqlx_error(error)?.as_database_error()?.code()?.into_owned())
}
