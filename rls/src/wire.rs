//! What is said on a connection: messages of several statements, and the end of whatever is under way.

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

/// Timeout for bringing an abandoned connection to rest; after it the connection is closed, and the server rolls back.
pub(crate) const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Most values of one statement: the protocol counts them in sixteen bits.
const MAX_VALUES: usize = u16::MAX as usize;

/// Undoes what a statement can have changed in a session. `RESET ALL` resets neither the role nor the session's
/// authorization; DISCARD ALL would do all of it, but in no message with others, and it would forget the statements that
/// the driver has prepared. Those are counted instead: PREPARE can add some (`from_sql`), DEALLOCATE can take some away,
/// and nothing can replace one of the driver's.
const CLEAN: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; \
     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; ";
const PREPARED: &str = "SELECT count(*) FILTER (WHERE NOT from_sql)::integer, count(*) FILTER (WHERE from_sql)::integer \
     FROM pg_catalog.pg_prepared_statements";

/// What becomes of the statements that the driver prepares by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PreparedStatements {
    /// They are kept on their connection.
    #[default]
    Cached,
    /// Each transaction begins without any: behind a pooler, the connection was somebody else's before.
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

/// What a message of several statements came to, as far as it came.
#[derive(Default)]
pub(crate) struct Answer {
    /// How many of its statements were done.
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

/// Says several statements in one message, in text. What was done before one failed is in `answer`.
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

/// A whole number of a row that came in text.
pub(crate) fn number(row: &PgRow, column: usize) -> Option<i64> {
    if column >= row.len() {
        return None;
    }
    row.try_get_raw(column).ok()?.as_str().ok()?.parse().ok()
}

/// The last column of a row that came in text.
pub(crate) fn last_text(row: &PgRow) -> Option<String> {
    let last = row.len().checked_sub(1)?;
    Some(row.try_get_raw(last).ok()?.as_str().ok()?.to_owned())
}

/// Whether the session has the driver's prepared statements and no others.
pub(crate) fn has_own_statements(connection: &PgConnection, answer: &Answer, statements: PreparedStatements) -> bool {
    match statements {
        PreparedStatements::Deallocated => true,
        PreparedStatements::Cached => answer.row.as_ref().is_some_and(|row| {
            let own = i64::try_from(connection.cached_statements_size()).ok();
            number(row, 0) == own && number(row, 1) == Some(0)
        }),
    }
}

/// Waits until whatever was said on the connection is answered. The server's refusal of it, if it was refused.
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

/// The statement as the driver takes it; nothing of it is copied. One whose text will hardly come again is not kept.
pub(crate) fn prepared(statement: Statement, is_kept: bool) -> Query<'static, Postgres, SqlxValues> {
    let values = statement.values.unwrap_or_else(|| Values(Vec::new()));
    query_with(AssertSqlSafe(statement.sql), SqlxValues(values)).persistent(is_kept)
}

/// What the driver would find out too late, when the connection has half a statement on it.
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

/// A connection that nobody waits for any more. It goes back once it is at rest and clean, and not at all where that
/// fails, or where there is no runtime to do it, or one that ends before it is done.
pub(crate) struct Released {
    pub(crate) connection: Option<PooledConnection>,
    pub(crate) rollback: Rollback,
    /// What cleans it, if there is anything to clean.
    pub(crate) unclean: Option<PreparedStatements>,
}

/// What becomes of the transaction of a released connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollback {
    /// There is none.
    Done,
    /// Its end was sent, and is not answered yet.
    Sent,
    /// It may be open.
    Needed,
}

impl Released {
    pub(crate) async fn put_back(mut self) {
        let Some(pooled) = &mut self.connection else { return };
        let (rollback, unclean) = (self.rollback, self.unclean);
        let ending = async {
            let connection = pooled.connection();
            let refused = drain(connection).await?;
            if rollback == Rollback::Sent && refused.is_some() {
                // Refused before its end or at it: whether the transaction is open is not known.
                return Ok(false);
            }
            let mut answer = Answer::default();
            if rollback == Rollback::Needed {
                simple_query(connection, "ROLLBACK".to_owned(), &mut answer).await?;
            }
            let Some(statements) = unclean else { return Ok::<_, sqlx::Error>(true) };
            simple_query(connection, statements.clean(), &mut answer).await?;
            Ok(has_own_statements(connection, &answer, statements))
        };
        if matches!(timeout(ROLLBACK_TIMEOUT, ending).await, Ok(Ok(true))) {
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

/// Runs what cannot run in a transaction, and cleans up after it.
pub(crate) async fn execute_as_login(
    pool: &crate::pool::Pool,
    statements: PreparedStatements,
    sql: String,
) -> Result<(), DbErr> {
    let connection = Some(pool.acquire().await?);
    // Dropped half way, it is closed.
    let mut released = Released { connection, rollback: Rollback::Done, unclean: Some(statements) };
    if let Some(pooled) = &mut released.connection {
        simple_query(pooled.connection(), sql, &mut Answer::default()).await.map_err(exec_error)?;
    }
    released.put_back().await;
    Ok(())
}
