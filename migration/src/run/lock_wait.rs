//! Finds out who holds a lock for which a command waits. The server knows the holder only while the command waits, so
//! another connection asks meanwhile.

use std::{pin::pin, time::Duration};

use sea_orm_migration::{
    SchemaManagerConnection,
    sea_orm::{
        self, DatabaseTransaction, DbErr, FromQueryResult,
        sqlx::{self, Connection, PgConnection, Row},
    },
};

use crate::{MigrationError, db_error, printable::escape_unprintable, query, script};

/// The pause before another connection asks whether the command waits for a lock, and the timeout of that question.
/// Three times this interval must be shorter than the time after which the command gives up waiting (`lock_timeout` in
/// `script::STANDARD_SETTINGS`). Then even if a question began just before the wait, there is time for the rest of that
/// question, for a pause, and for a question during the wait.
const ASK_INTERVAL: Duration = Duration::from_secs(3);

/// The processes that block a command: they hold the lock for which the command waits, or are ahead of it in the queue.
struct Blockers {
    /// Each process, with the lock for which the command waits.
    descriptions: String,
    /// Whether the lock is that of the migrators, for which the command waits up to ten minutes.
    are_migrators: bool,
}

/// Does the work in this transaction. If it gives up waiting for a lock, the error names the processes that block the
/// command. If it waits for another migrator, a line on standard error says so.
///
/// If no other connection can be opened, the error names no process, and no such line is written.
pub(super) async fn run_and_name_blockers<T>(
    db: &SchemaManagerConnection<'_>,
    transaction: &DatabaseTransaction,
    work: impl Future<Output = Result<T, DbErr>>,
) -> Result<T, DbErr> {
    #[derive(FromQueryResult)]
    struct Backend {
        pid: i32,
    }
    let Backend { pid } = query::fetch_one(transaction, "SELECT pg_catalog.pg_backend_pid() AS pid").await?;
    let mut work = pin!(work);
    let mut observer = None;
    let mut blockers: Option<Blockers> = None;
    let mut has_announced_wait = false;
    let outcome = loop {
        if let Ok(outcome) = tokio::time::timeout(ASK_INTERVAL, work.as_mut()).await {
            break outcome;
        }
        // The work makes no progress while the other connection asks, so the question must not take longer than the
        // interval.
        let answer = tokio::time::timeout(ASK_INTERVAL, find_blockers(db, &mut observer, pid)).await.unwrap_or(None);
        blockers = last_known(blockers, answer);
        if let Some(Blockers { descriptions, are_migrators: true }) = &blockers
            && !has_announced_wait
        {
            let descriptions = escape_unprintable(descriptions);
            eprintln!("Waiting at most ten minutes for another migrator to end ({descriptions}).");
            has_announced_wait = true;
        }
    };
    match (outcome, blockers) {
        (Err(error), Some(Blockers { descriptions, .. }))
            if db_error::sqlstate(&error).as_deref() == Some(db_error::LOCK_NOT_AVAILABLE) =>
        {
            Err(MigrationError::Locked { blockers: descriptions }.into())
        }
        (outcome, _) => outcome,
    }
}

/// Returns the newer answer, or the older one if the newer names nobody: the last question before the error may have
/// taken too long, or may have reached the server just after the wait had ended.
fn last_known(older: Option<Blockers>, newer: Option<Blockers>) -> Option<Blockers> {
    newer.or(older)
}

/// Asks who blocks the server process. `None` if nobody does, or if the question cannot be asked. Opens the connection
/// `observer` if there is none.
async fn find_blockers(
    db: &SchemaManagerConnection<'_>,
    observer: &mut Option<PgConnection>,
    pid: i32,
) -> Option<Blockers> {
    // A caller's transaction does not say how to connect.
    let SchemaManagerConnection::Connection(pool) = db else { return None };
    let mut connection = match observer.take() {
        Some(connection) => connection,
        None => PgConnection::connect_with(&pool.get_postgres_connection_pool().connect_options()).await.ok()?,
    };
    // `raw_sql` prepares no statement, so the connection may lead through a pooler.
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(blockers_sql(pid))).fetch_all(&mut connection).await.ok()?;
    *observer = Some(connection);
    let descriptions: Vec<String> = rows.iter().filter_map(|row| row.try_get(0).ok()).collect();
    (!descriptions.is_empty()).then(|| Blockers {
        descriptions: descriptions.join(", "),
        are_migrators: rows.iter().any(|row| row.try_get(1).unwrap_or(false)),
    })
}

/// Returns a query with one row for each process that blocks the server process `pid`, and two columns: a text with the
/// blocking process and the lock, and whether that is the lock of the migrators. `pg_locks` shows the upper half of
/// that lock's key in `classid` and the lower half in `objid`. For a prepared transaction, which has no process,
/// `pg_blocking_pids` returns 0.
fn blockers_sql(pid: i32) -> String {
    format!(
        "SELECT DISTINCT
           format(
             '%s on %s',
             CASE blocker.pid
               WHEN 0 THEN 'a prepared transaction'
               ELSE format('process %s%s', blocker.pid, coalesce(' of ' || usename, ''))
             END,
             CASE
               WHEN is_migrator_lock THEN 'the lock of the migrators'
               ELSE coalesce(nspname || '.' || relname, 'the lock of type ' || locktype)
             END
           ),
           is_migrator_lock
         FROM unnest(pg_catalog.pg_blocking_pids({pid})) AS blocker (pid)
         LEFT JOIN pg_catalog.pg_stat_activity USING (pid)
         CROSS JOIN (
           SELECT *, locktype = 'advisory' AND (classid::bigint << 32) + objid::bigint = {} AS is_migrator_lock
           FROM pg_catalog.pg_locks
           WHERE pid = {pid} AND NOT granted
         ) AS awaited
         LEFT JOIN pg_catalog.pg_class ON pg_class.oid = awaited.relation
         LEFT JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
         ORDER BY 1",
        script::LOCK_KEY
    )
}

#[cfg(test)]
mod tests {
    use super::{Blockers, last_known};

    #[test]
    fn an_answer_that_names_nobody_does_not_replace_one_that_names_somebody() {
        let blockers =
            |descriptions: &str| Some(Blockers { descriptions: descriptions.to_owned(), are_migrators: false });
        let descriptions = |known: Option<Blockers>| known.map(|known| known.descriptions);
        assert_eq!(descriptions(last_known(blockers("process 1"), None)).as_deref(), Some("process 1"));
        assert_eq!(
            descriptions(last_known(blockers("process 1"), blockers("process 2"))).as_deref(),
            Some("process 2")
        );
        assert_eq!(descriptions(last_known(None, None)), None);
    }
}
