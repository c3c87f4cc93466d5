//! Poolers in transaction mode, which may run each transaction of a connection in a different server process.
//!
//! The driver prepares each statement once per connection, under a name that contains a number. In a server process
//! where another client has prepared statements, that name may belong to a different statement, which would then run
//! instead. A pooler that tracks prepared statements prevents this by giving them names of its own. With any other
//! pooler, `begin` fails with [`Error::Misconfigured`](crate::Error::Misconfigured) as soon as another server process
//! has a prepared statement under a name that the driver gives.

use sea_orm::sqlx;

use crate::wire::{Connection, SimpleQueryResponse};

/// The server process in which the last transaction of a connection ran.
#[derive(Debug, Default)]
pub(crate) struct ServerProcess {
    /// `None` before the first transaction.
    id: Option<i64>,
    /// Whether the pooler has been seen to give prepared statements names of its own.
    pooler_tracks_statements: bool,
}

impl ServerProcess {
    /// Returns whether the names of the prepared statements in the process `id`, where the next transaction runs, must
    /// be checked.
    fn requires_name_check_in(&self, id: Option<i64>) -> bool {
        self.id.is_some() && self.id != id && !self.pooler_tracks_statements
    }
}

/// Counts the prepared statements in the server process: those named by the driver, and those named by a pooler.
const COUNT_DRIVER_AND_POOLER_STATEMENTS_SQL: &str = r"SELECT count(*) FILTER (WHERE name LIKE 'sqlx\_s\_%'),
     count(*) FILTER (WHERE name ~* '^(pgbouncer|pgcat|odyssey|supavisor)_')
     FROM pg_catalog.pg_prepared_statements";

/// The reason of [`Error::Misconfigured`](crate::Error::Misconfigured) if the pooler does not track prepared
/// statements.
const UNTRACKED_STATEMENTS_REASON: &str = "a pooler in transaction mode does not track prepared statements; use \
     Options::without_prepared_statement_cache, or PgBouncer 1.21 or later with max_prepared_statements";

/// Makes sure, at the beginning of a transaction, that no prepared statement of another client can be mistaken for one
/// of this connection. Fails if that is not possible. This takes a round trip or two, but only if the process is not
/// that of the connection's last transaction, and the pooler is not known to track prepared statements.
pub(crate) async fn prevent_statement_name_collisions(
    connection: &mut impl Connection,
    process_id: Option<i64>,
) -> Result<(), sqlx::Error> {
    let requires_name_check =
        connection.server_process().is_some_and(|process| process.requires_name_check_in(process_id));
    if requires_name_check {
        ensure_safe_statement_names(connection).await?;
    }
    // The id is recorded only now: if this call is dropped during the check, the next transaction must check again.
    if let Some(process) = connection.server_process() {
        process.id = process_id;
    }
    Ok(())
}

/// Counts the prepared statements in the server process. Depending on who has named them, makes the driver forget its
/// own, records that the pooler tracks them, or fails.
async fn ensure_safe_statement_names(connection: &mut impl Connection) -> Result<(), sqlx::Error> {
    let mut response = SimpleQueryResponse::default();
    connection.simple_query(COUNT_DRIVER_AND_POOLER_STATEMENTS_SQL.to_owned(), &mut response).await?;
    let count = |column| response.last_row.as_ref().and_then(|row| row.integer(column));
    let (named_by_driver, named_by_pooler) = (count(0), count(1));
    match (named_by_driver, named_by_pooler) {
        // This connection prepared its statements in another process. In the present one, other clients may later use
        // the same names for their statements. So the driver forgets its statements, and prepares them again.
        (Some(0), Some(0)) => connection.forget_prepared_statements().await,
        // The pooler has given names of its own to all statements, including those of this connection.
        (Some(0), Some(_)) => {
            if let Some(process) = connection.server_process() {
                process.pooler_tracks_statements = true;
            }
            Ok(())
        }
        // The process has statements under names that the driver gives, perhaps those of another client.
        _ => Err(sqlx::Error::Configuration(UNTRACKED_STATEMENTS_REASON.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::ServerProcess;

    #[test]
    fn names_of_prepared_statements_are_checked_only_in_a_different_process() {
        let mut process = ServerProcess::default();
        assert!(!process.requires_name_check_in(Some(7)), "the first process");
        process.id = Some(7);
        assert!(!process.requires_name_check_in(Some(7)), "the same process");
        assert!(process.requires_name_check_in(Some(8)), "another process");
        process.pooler_tracks_statements = true;
        assert!(!process.requires_name_check_in(Some(8)), "a pooler that tracks prepared statements");
    }
}
