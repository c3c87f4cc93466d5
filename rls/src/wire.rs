//! Messages of several statements, and waiting for the end of what is in progress.

use std::time::Duration;

use futures_util::TryStreamExt;
use sea_orm::{
    DbErr, RuntimeErr, Statement, Values,
    sqlx::{
        self, AssertSqlSafe, Connection, Either, Executor, PgConnection, Postgres, Row, postgres::PgRow, query::Query,
        query_with,
    },
};
use sea_query_sqlx::SqlxValues;
use tokio::time::timeout;

use crate::{Error, error::is_lost, pool::PooledConnection};

/// Timeout for ending the transaction of a released connection and for cleaning it; after it the connection is closed,
/// and the server rolls back.
pub(crate) const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of values of one statement. The protocol has a 16-bit count.
const MAX_VALUES: usize = u16::MAX as usize;

/// Undoes what a statement can have changed in a session. `RESET ALL` resets neither the role nor the session
/// authorization. `DISCARD ALL` would reset everything, but it cannot share a message with other statements, and it
/// would deallocate the driver's prepared statements. Those are counted instead: PREPARE can add some (`from_sql`),
/// DEALLOCATE can remove some, and nothing can replace one of the driver's.
const CLEAN: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; \
     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; ";
const PREPARED: &str = "SELECT count(*) FILTER (WHERE NOT from_sql)::integer, count(*) FILTER (WHERE from_sql)::integer \
     FROM pg_catalog.pg_prepared_statements";

/// How the driver's named prepared statements are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PreparedStatements {
    /// They stay on their connection.
    #[default]
    Cached,
    /// Each transaction begins with DEALLOCATE ALL, because behind a pooler the server connection belonged to another
    /// client before.
    Deallocated,
}

impl PreparedStatements {
    pub(crate) fn begin(self) -> &'static str {
        match self {
            Self::Cached => "",
            Self::Deallocated => "DEALLOCATE ALL; ",
        }
    }

    pub(crate) fn clean(self) -> String {
        match self {
            Self::Cached => format!("{CLEAN}{PREPARED}"),
            Self::Deallocated => format!("{CLEAN}DEALLOCATE ALL"),
        }
    }
}

/// The result of a message of several statements, as far as it was executed.
#[derive(Default)]
pub(crate) struct Answer {
    /// How many statements completed.
    pub(crate) done: usize,
    /// The last row.
    pub(crate) row: Option<PgRow>,
    /// What the third statement says of the server: it is the one after a commit.
    pub(crate) place: Option<Place>,
}

/// Where a server is: a standby or not, how far its log has come, and on which timeline, which a standby does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) is_standby: bool,
    pub(crate) lsn: u64,
    pub(crate) timeline: u32,
}

/// The columns of a [`Place`]. Everybody may call these functions.
pub(crate) const PLACE: &str = "pg_is_in_recovery()::integer, \
     (coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, '0/0') \
       - '0/0')::bigint, \
     CASE WHEN pg_is_in_recovery() THEN 0 \
       ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer END";

impl Place {
    /// From the columns of a row that came in text, from `first` on.
    pub(crate) fn read(row: &PgRow, first: usize) -> Option<Self> {
        Some(Self {
            is_standby: number(row, first)? == 1,
            lsn: number(row, first + 1)?.try_into().ok()?,
            timeline: number(row, first + 2)?.try_into().ok()?,
        })
    }
}

/// Sends several statements in one message, with the simple query protocol. If one fails, `answer` has what completed
/// before it.
pub(crate) async fn simple_query(
    connection: &mut PgConnection,
    sql: String,
    answer: &mut Answer,
) -> Result<(), sqlx::Error> {
    let mut stream = connection.fetch_many(AssertSqlSafe(sql));
    while let Some(part) = stream.try_next().await? {
        match part {
            Either::Left(_) => answer.done += 1,
            Either::Right(row) => {
                if answer.done == 2 {
                    answer.place = Place::read(&row, 0);
                }
                answer.row = Some(row);
            }
        }
    }
    Ok(())
}

/// Returns the first column of the query's only row. Unprepared, because a pooler may be in between.
pub(crate) async fn ask(connection: &mut PgConnection, question: &'static str) -> Result<Option<String>, sqlx::Error> {
    match sqlx::raw_sql(question).fetch_optional(connection).await? {
        Some(row) => row.try_get(0),
        None => Ok(None),
    }
}

/// Returns an integer column of a row in text format.
pub(crate) fn number(row: &PgRow, column: usize) -> Option<i64> {
    if column >= row.len() {
        return None;
    }
    row.try_get_raw(column).ok()?.as_str().ok()?.parse().ok()
}

/// Returns the last column of a row in text format.
pub(crate) fn last_text(row: &PgRow) -> Option<String> {
    let last = row.len().checked_sub(1)?;
    Some(row.try_get_raw(last).ok()?.as_str().ok()?.to_owned())
}

/// Returns whether the session has exactly the driver's prepared statements.
pub(crate) fn has_own_statements(connection: &PgConnection, answer: &Answer, statements: PreparedStatements) -> bool {
    match statements {
        PreparedStatements::Deallocated => true,
        PreparedStatements::Cached => answer.row.as_ref().is_some_and(|row| {
            let own = i64::try_from(connection.cached_statements_size()).ok();
            number(row, 0) == own && number(row, 1) == Some(0)
        }),
    }
}

/// Waits for the responses to everything that was sent on the connection. Returns the server's error, if there was one.
pub(crate) async fn drain(connection: &mut PgConnection) -> Result<Option<sqlx::Error>, sqlx::Error> {
    let mut refused = None;
    loop {
        match connection.flush().await {
            Ok(()) => return Ok(refused),
            Err(error) if is_lost(&error) => return Err(error),
            Err(error) => refused = Some(error),
        }
    }
}

/// Converts the statement to the driver's type without copying it. A statement whose text is unlikely to recur is not
/// cached.
pub(crate) fn prepared(statement: Statement, is_kept: bool) -> Query<'static, Postgres, SqlxValues> {
    let values = statement.values.unwrap_or_else(|| Values(Vec::new()));
    query_with(AssertSqlSafe(statement.sql), SqlxValues(values)).persistent(is_kept)
}

/// Checks what the driver would notice too late, when part of the statement has been sent.
pub(crate) fn check_values(statement: &Statement) -> Result<(), Error> {
    let count = statement.values.as_ref().map_or(0, |values| values.0.len());
    if count > MAX_VALUES {
        return Err(Error::invalid(format!("it must have at most {MAX_VALUES} values, and has {count}")));
    }
    Ok(())
}

pub(crate) fn exec_error(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(error.into()))
}

pub(crate) fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

/// A connection that is no longer in use. It returns to its pool once it is idle and clean. If that fails, or no
/// runtime is there to do it or the runtime shuts down first, the connection is closed.
pub(crate) struct Released {
    pub(crate) connection: Option<PooledConnection>,
    pub(crate) ending: Ending,
    /// How to clean the session, if that is necessary.
    pub(crate) unclean: Option<PreparedStatements>,
}

/// How the transaction of a released connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// No transaction is open.
    Done,
    /// COMMIT or ROLLBACK was sent and is not answered yet.
    Sent,
    /// It is to be committed: it only read.
    Commit,
    /// A transaction may be open, and is to be rolled back.
    Rollback,
}

impl Released {
    pub(crate) async fn put_back(mut self) {
        let Some(pooled) = &mut self.connection else { return };
        let (ending, unclean) = (self.ending, self.unclean);
        let end = async {
            let connection = pooled.connection();
            let refused = drain(connection).await?;
            if ending == Ending::Sent && refused.is_some() {
                // An error before or at the end of the transaction: it is unknown whether the transaction is open.
                return Ok(false);
            }
            let mut answer = Answer::default();
            let sql = match ending {
                Ending::Commit => Some("COMMIT"),
                Ending::Rollback => Some("ROLLBACK"),
                Ending::Done | Ending::Sent => None,
            };
            if let Some(sql) = sql {
                simple_query(connection, sql.to_owned(), &mut answer).await?;
            }
            let Some(statements) = unclean else { return Ok::<_, sqlx::Error>(true) };
            simple_query(connection, statements.clean(), &mut answer).await?;
            Ok(has_own_statements(connection, &answer, statements))
        };
        if matches!(timeout(ROLLBACK_TIMEOUT, end).await, Ok(Ok(true))) {
            drop(self.connection.take());
        }
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.discard();
        }
    }
}

/// Runs a statement that cannot run in a transaction, and cleans the session afterwards.
pub(crate) async fn execute_as_login(
    pool: &crate::pool::Pool,
    statements: PreparedStatements,
    sql: String,
) -> Result<(), DbErr> {
    let connection = Some(pool.acquire().await?);
    // If this is dropped before it completes, the connection is closed.
    let mut released = Released { connection, ending: Ending::Done, unclean: Some(statements) };
    if let Some(pooled) = &mut released.connection {
        simple_query(pooled.connection(), sql, &mut Answer::default()).await.map_err(exec_error)?;
    }
    released.put_back().await;
    Ok(())
}
