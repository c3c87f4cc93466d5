//! Poolers in transaction mode, which may run each transaction of a connection in another server process.
//!
//! The driver prepares each statement once per connection and gives it a number as its name. In a process where another
//! client has prepared statements, that name may be of another statement, which would run in its place. A pooler that
//! tracks prepared statements gives them names of its own; of any other, this refuses to use such a process.

use sea_orm::sqlx;

use crate::wire::{Answer, Connection};

/// The server process in which the last transaction of a connection ran.
#[derive(Debug, Default)]
pub(crate) struct ServerProcess {
    id: Option<i64>,
    /// Whether a pooler was seen that gives prepared statements names of its own.
    is_tracked: bool,
}

impl ServerProcess {
    /// Records the process of a transaction. Returns whether it may have prepared statements of other clients.
    fn is_foreign(&mut self, id: Option<i64>) -> bool {
        let last = std::mem::replace(&mut self.id, id);
        last.is_some() && last != id && !self.is_tracked
    }
}

/// The number of prepared statements in the process with the driver's names, and with those of poolers that track them.
const NAMES: &str = r"SELECT count(*) FILTER (WHERE name LIKE 'sqlx\_s\_%'),
     count(*) FILTER (WHERE name ~* '^(pgbouncer|pgcat|odyssey|supavisor)_')
     FROM pg_catalog.pg_prepared_statements";

/// The reason for refusing the connection.
const UNTRACKED: &str = "a pooler in transaction mode does not track prepared statements; use \
     Options::without_prepared_statements, or PgBouncer 1.21 or later with max_prepared_statements";

/// Checks at the beginning of a transaction that no prepared statement of another client can be taken for one of this
/// connection's. That takes a round trip, but only if the process is another one than that of the last transaction.
pub(crate) async fn check(connection: &mut impl Connection, process: Option<i64>) -> Result<(), sqlx::Error> {
    let Some(last) = connection.server_process() else { return Ok(()) };
    if !last.is_foreign(process) {
        return Ok(());
    }
    let mut answer = Answer::default();
    connection.simple_query(NAMES.to_owned(), &mut answer).await?;
    let count = |column| answer.row.as_ref().and_then(|row| row.number(column));
    match (count(0), count(1)) {
        // What this connection has prepared is in another process. Later, its names may be given to other statements.
        (Some(0), Some(0)) => connection.forget_prepared_statements().await,
        (Some(0), Some(_)) => {
            if let Some(process) = connection.server_process() {
                process.is_tracked = true;
            }
            Ok(())
        }
        _ => Err(sqlx::Error::Configuration(UNTRACKED.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::ServerProcess;

    #[test]
    fn a_process_is_foreign_only_after_another_one() {
        let mut process = ServerProcess::default();
        assert!(!process.is_foreign(Some(7)), "the first one");
        assert!(!process.is_foreign(Some(7)), "the same one");
        assert!(process.is_foreign(Some(8)), "another one");
        assert!(!process.is_foreign(Some(8)), "the same one again");
        process.is_tracked = true;
        assert!(!process.is_foreign(Some(7)), "a pooler that tracks prepared statements");
    }
}
