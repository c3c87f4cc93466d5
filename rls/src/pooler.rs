//! Poolers in transaction mode, which may run each transaction of a connection in a different server process.
//!
//! The driver prepares each statement once per connection, under a name that contains a number. In a server process
//! where another client has prepared statements, that name may belong to a different statement, which would then run
//! instead. A pooler that tracks prepared statements prevents this by giving them names of its own. With any other
//! pooler, `begin` fails with [`Error::Misconfigured`](crate::Error::Misconfigured) as soon as such a name is found.

use sea_orm::sqlx;

use crate::wire::{Answer, Connection};

/// The server process in which the last transaction of a connection ran.
#[derive(Debug, Default)]
pub(crate) struct ServerProcess {
    id: Option<i64>,
    /// Whether the pooler was seen to give prepared statements names of its own.
    pooler_tracks_statements: bool,
}

impl ServerProcess {
    /// Records the process in which a transaction runs. Returns whether the names of the prepared statements in that
    /// process must be checked.
    fn must_check_names_in(&mut self, id: Option<i64>) -> bool {
        let last = std::mem::replace(&mut self.id, id);
        last.is_some() && last != id && !self.pooler_tracks_statements
    }
}

/// Counts the prepared statements in the server process by the origin of their names: the driver, and poolers.
const COUNT_STATEMENTS_BY_OWNER: &str = r"SELECT count(*) FILTER (WHERE name LIKE 'sqlx\_s\_%'),
     count(*) FILTER (WHERE name ~* '^(pgbouncer|pgcat|odyssey|supavisor)_')
     FROM pg_catalog.pg_prepared_statements";

/// The reason of [`Error::Misconfigured`](crate::Error::Misconfigured) if the pooler does not track them.
const UNTRACKED_STATEMENTS: &str = "a pooler in transaction mode does not track prepared statements; use \
     Options::without_prepared_statements, or PgBouncer 1.21 or later with max_prepared_statements";

/// Checks at the beginning of a transaction that no prepared statement of another client can be mistaken for one of
/// this connection. This takes a round trip, but only if the process is not that of the connection's last transaction.
pub(crate) async fn check_statement_names(
    connection: &mut impl Connection,
    process_id: Option<i64>,
) -> Result<(), sqlx::Error> {
    if !connection.server_process().is_some_and(|process| process.must_check_names_in(process_id)) {
        return Ok(());
    }
    let mut answer = Answer::default();
    connection.simple_query(COUNT_STATEMENTS_BY_OWNER.to_owned(), &mut answer).await?;
    let count = |column| answer.row.as_ref().and_then(|row| row.number(column));
    match (count(0), count(1)) {
        // This connection prepared its statements in another process. In this process, other clients may later use the
        // same names for their statements. So the driver forgets its statements, and prepares them again.
        (Some(0), Some(0)) => connection.forget_prepared_statements().await,
        (Some(0), Some(_)) => {
            if let Some(process) = connection.server_process() {
                process.pooler_tracks_statements = true;
            }
            Ok(())
        }
        _ => Err(sqlx::Error::Configuration(UNTRACKED_STATEMENTS.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::ServerProcess;

    #[test]
    fn names_are_checked_only_in_a_different_process() {
        let mut process = ServerProcess::default();
        assert!(!process.must_check_names_in(Some(7)), "the first process");
        assert!(!process.must_check_names_in(Some(7)), "the same process");
        assert!(process.must_check_names_in(Some(8)), "another process");
        assert!(!process.must_check_names_in(Some(8)), "the same process again");
        process.pooler_tracks_statements = true;
        assert!(!process.must_check_names_in(Some(7)), "a pooler that tracks prepared statements");
    }
}
