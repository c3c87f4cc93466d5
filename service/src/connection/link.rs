//! A connection of the pool with a transaction open on it.
//!
//! SeaORM's own transactions say BEGIN and nothing else. Here the begin and the identity are one message and one round trip,
//! and a transaction that nobody waits for any more, even one that was just being begun, is ended before anybody else has
//! the connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt;
use sea_orm::{
    DbErr, ExecResult, QueryResult, RuntimeErr, Statement, Values,
    sqlx::{self, AssertSqlSafe, Executor, PgConnection, Postgres, postgres::PgRow, query::Query, query_with},
};
use sea_query_sqlx::SqlxValues;
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedMutexGuard, mpsc},
    time::timeout,
};

use super::pool::{Pool, Taken};
use crate::identity::OVER;

/// No savepoint was left without an end.
const NONE: u32 = u32::MAX;

/// So long a connection has to roll back what nobody waits for; then it is closed, and the server does.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a transaction and those nested in it share.
#[derive(Debug)]
pub(crate) struct Link {
    line: Arc<Mutex<Line>>,
    /// The outermost savepoint that was dropped without an end: gone back to before anything else is said.
    left: AtomicU32,
}

/// The connection itself, and whether a transaction may be open on it: without one, nothing is said.
#[derive(Debug)]
struct Line {
    taken: Option<Taken>,
    is_open: bool,
}

impl Link {
    /// Takes a connection and says what begins a transaction, in one message.
    pub(crate) async fn begin(pool: &Pool, sql: String) -> Result<Self, DbErr> {
        let mut line = Line::of(pool).await?;
        line.say(sql).await?;
        Ok(Self { line: Arc::new(Mutex::new(line)), left: AtomicU32::new(NONE) })
    }

    /// Makes a savepoint.
    pub(crate) async fn save(&self, depth: u32) -> Result<(), DbErr> {
        self.ready().await?.say(format!("SAVEPOINT {}", savepoint(depth))).await.map(drop)
    }

    /// Keeps what was done since the savepoint, or, at depth zero, commits.
    pub(crate) async fn keep(&self, depth: u32) -> Result<(), DbErr> {
        let mut line = self.ready().await?;
        if depth > 0 {
            return line.say(format!("RELEASE SAVEPOINT {}", savepoint(depth))).await.map(drop);
        }
        line.say("COMMIT".to_owned()).await?;
        line.is_open = false;
        Ok(())
    }

    /// Undoes what was done since the savepoint, or, at depth zero, all.
    pub(crate) async fn undo(&self, depth: u32) -> Result<(), DbErr> {
        if depth > 0 {
            self.leave(depth);
            return self.ready().await.map(drop);
        }
        let mut line = self.line.lock().await;
        line.say("ROLLBACK".to_owned()).await?;
        line.is_open = false;
        Ok(())
    }

    /// A savepoint ends without a word: what was done since is undone before the next statement.
    pub(crate) fn leave(&self, depth: u32) {
        self.left.fetch_min(depth, Ordering::Relaxed);
    }

    async fn ready(&self) -> Result<OwnedMutexGuard<Line>, DbErr> {
        let mut line = self.line.clone().lock_owned().await;
        let mut depth = self.left.load(Ordering::Relaxed);
        while depth != NONE {
            line.say(format!("ROLLBACK TO SAVEPOINT {}", savepoint(depth))).await?;
            // One further out may have been left in the meantime.
            match self.left.compare_exchange(depth, NONE, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(further) => depth = further,
            }
        }
        Ok(line)
    }

    /// Runs a statement that is prepared once a connection.
    pub(crate) async fn execute(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let mut line = self.ready().await?;
        prepared(statement).execute(line.connection()?).await.map(Into::into).map_err(exec_error)
    }

    /// Runs statements as they are.
    pub(crate) async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.ready().await?.say(sql.to_owned()).await
    }

    /// The first row.
    pub(crate) async fn query_one(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut line = self.ready().await?;
        let row = prepared(statement).fetch_optional(line.connection()?).await;
        row.map(|row| row.map(Into::into)).map_err(query_error)
    }

    /// All rows.
    pub(crate) async fn query_all(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut line = self.ready().await?;
        prepared(statement).fetch(line.connection()?).map_ok(Into::into).try_collect().await.map_err(query_error)
    }

    /// The same, as the driver has them.
    pub(crate) async fn rows(&self, statement: Statement) -> Result<Vec<PgRow>, DbErr> {
        let mut line = self.ready().await?;
        prepared(statement).fetch_all(line.connection()?).await.map_err(query_error)
    }

    /// Sends the rows as they come, until there are no more or nobody reads them. A task has the connection as long, because a
    /// stream that had it would borrow from itself; whatever is said next in the transaction waits for its end.
    pub(crate) async fn send(
        &self,
        statement: Statement,
        rows: mpsc::Sender<Result<QueryResult, DbErr>>,
    ) -> Result<(), DbErr> {
        let mut line = self.ready().await?;
        tokio::spawn(async move {
            let sent = async {
                let mut stream = prepared(statement).fetch(line.connection()?);
                while let Some(row) = stream.try_next().await.map_err(query_error)? {
                    if rows.send(Ok(row.into())).await.is_err() {
                        break;
                    }
                }
                Ok(())
            };
            if let Err(error) = sent.await {
                // Nobody reads any more: nobody is left to tell.
                let _ = rows.send(Err(error)).await;
            }
        });
        Ok(())
    }
}

/// Runs what cannot run in a transaction.
pub(crate) async fn alone(pool: &Pool, sql: String) -> Result<(), DbErr> {
    let mut line = Line::of(pool).await?;
    line.say(sql).await?;
    line.is_open = false;
    Ok(())
}

impl Line {
    async fn of(pool: &Pool) -> Result<Self, DbErr> {
        Ok(Self { taken: Some(pool.take().await?), is_open: true })
    }

    fn connection(&mut self) -> Result<&mut PgConnection, DbErr> {
        // One nested in it may still be there, and would speak as the login.
        let over = || DbErr::Custom(OVER.to_owned());
        self.taken.as_mut().filter(|_| self.is_open).map(Taken::connection).ok_or_else(over)
    }

    async fn say(&mut self, sql: String) -> Result<ExecResult, DbErr> {
        self.connection()?.execute(AssertSqlSafe(sql)).await.map(Into::into).map_err(exec_error)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let left = Left(self.taken.take().filter(|_| self.is_open));
        if let (true, Ok(runtime)) = (left.0.is_some(), Handle::try_current()) {
            runtime.spawn(left.end());
        }
    }
}

/// A connection whose transaction nobody ended. It goes back once that is rolled back, and not at all where that fails, or
/// where there is no runtime to do it, or one that ends before it is done.
struct Left(Option<Taken>);

impl Left {
    async fn end(mut self) {
        let Some(taken) = &mut self.0 else { return };
        if matches!(timeout(PATIENCE, taken.connection().execute("ROLLBACK")).await, Ok(Ok(_))) {
            self.0 = None;
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(taken) = self.0.take() {
            taken.discard();
        }
    }
}

fn savepoint(depth: u32) -> String {
    format!("sparc_{depth}")
}

/// The statement as the driver takes it; nothing of it is copied.
fn prepared(statement: Statement) -> Query<'static, Postgres, SqlxValues> {
    let values = statement.values.unwrap_or_else(|| Values(Vec::new()));
    query_with(AssertSqlSafe(statement.sql), SqlxValues(values))
}

fn exec_error(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(error.into()))
}

fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}
