//! Messages for errors of the database.

use sea_orm_migration::sea_orm::{DbErr, RuntimeErr, sqlx};

/// One sentence for a person: what failed, the likeliest cause, and the remedy. It holds no secret.
#[must_use]
pub fn user_message(error: &DbErr) -> String {
    if let DbErr::Migration(sentence) = error {
        return sentence.clone();
    }
    match sqlstate(error).as_deref() {
        Some("42P05" | "26000") => {
            "Prepared statements collide, because the address is that of a pooler in transaction mode: use the server's own address \
             or a pooler in session mode (on Supabase, port 5432); nothing was changed."
                .to_owned()
        }
        Some("55P03") => "Another database session has held a lock that this command needs for ten seconds: end its \
                          transaction, and run the command again; nothing was changed."
            .to_owned(),
        Some("42501") => format!(
            "The role lacks a privilege ({}): connect as the owner of the schema; nothing was changed.",
            said(error)
        ),
        Some("25006") => "The database accepts no writes: give the address of the primary; nothing was changed.".to_owned(),
        Some("2BP01") => format!(
            "{}: {}. Drop or change those objects first; nothing was changed.",
            said(error),
            detail(error).unwrap_or_else(|| "other objects depend on it".to_owned())
        ),
        Some("57P01" | "57P02" | "57P03") => lost(),
        None if is_lost(error) => lost(),
        _ => format!("The migration failed and was rolled back: {}.", said(error)),
    }
}

fn lost() -> String {
    "The connection to the server was lost, and the server rolls back what was begun: run the command again.".to_owned()
}

fn is_lost(error: &DbErr) -> bool {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error))
        | DbErr::Conn(RuntimeErr::SqlxError(error)) => {
            matches!(
                **error,
                sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed
            )
        }
        DbErr::ConnectionAcquire(_) => true,
        _ => false,
    }
}

/// What the database adds to its message: the objects that depend on another.
fn detail(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return None;
    };
    let refusal = error.as_database_error()?.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    Some(refusal.detail()?.replace('\n', ", "))
}

/// What the database said against a statement, with what it adds; none where the connection failed, or a lock or privilege was in the
/// way, which have words of their own.
pub(crate) fn refusal(error: &DbErr) -> Option<String> {
    let code = sqlstate(error)?;
    let has_own_words =
        matches!(&*code, "55P03" | "25006" | "42P05" | "26000") || code.starts_with("57P") || code.starts_with("08");
    (!has_own_words).then(|| match detail(error) {
        Some(detail) => format!("{}: {}", said(error), detail.trim_end_matches('.')),
        None => said(error),
    })
}

/// The database's own words, without the layers around them.
fn said(error: &DbErr) -> String {
    let said = match error {
        DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error))
        | DbErr::Conn(RuntimeErr::SqlxError(error)) => match error.as_database_error() {
            Some(refusal) => refusal.message().to_owned(),
            None => error.to_string(),
        },
        other => other.to_string(),
    };
    said.trim_end_matches('.').replace('\n', " ")
}

/// The SQLSTATE of what the database said.
pub(crate) fn sqlstate(error: &DbErr) -> Option<String> {
    Some(rls::sqlx_error(error)?.as_database_error()?.code()?.into_owned())
}
