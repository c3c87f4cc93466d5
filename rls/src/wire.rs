//! Sends statements, one or several per message, over the connection of a transaction.

use std::{
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use futures_util::{TryStreamExt, stream::BoxStream};
use sea_orm::{
    DbErr, RuntimeErr, Statement, Value, Values,
    sqlx::{
        self, AssertSqlSafe, Either, Executor, PgConnection, Postgres, Row, postgres::PgQueryResult, query::Query,
        query_with,
    },
};
use sea_query_sqlx::SqlxValues;

use crate::{
    Error,
    position::parse_lsn,
    server_process::{STATEMENT_COUNTS_SQL, ServerProcess, StatementCounts},
    text_row::TextRow,
};

/// The connection of a transaction. It is a trait, so that tests can use a model of a server instead of a real one.
pub(crate) trait Connection: Send + Sized + 'static {
    /// Sends several statements in one message, with the simple query protocol. If one fails, `response` describes
    /// those that completed before it.
    fn simple_query(
        &mut self,
        sql: String,
        response: &mut SimpleQueryResponse,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Runs one statement with the extended protocol.
    fn execute(&mut self, query: PgQuery) -> impl Future<Output = Result<PgQueryResult, sqlx::Error>> + Send;

    /// The driver's row type.
    type Row: Send + 'static;

    /// Runs one statement with the extended protocol, and streams its rows.
    fn fetch(&mut self, query: PgQuery) -> BoxStream<'_, Result<Self::Row, sqlx::Error>>;

    /// Reads the responses to everything that was sent, and ignores their rows. Returns the last error in them, if
    /// there is one. Fails if the connection is broken.
    fn drain(&mut self) -> impl Future<Output = Result<Option<sqlx::Error>, sqlx::Error>> + Send;

    /// Returns how many prepared statements the database session has according to the driver.
    fn cached_statement_count(&self) -> Option<i64>;

    /// Closes the driver's prepared statements on the server, and empties the driver's cache of them.
    fn clear_cached_statements(&mut self) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Returns the server process of the connection's last transaction; `None` if it is not tracked, as for the
    /// connections of a pool that the application created itself ([`Pool::External`](crate::pool::Pool::External)).
    fn server_process(&mut self) -> Option<&mut ServerProcess>;

    /// Returns the connection to its pool.
    fn release(self);

    /// Discards the connection instead of returning it.
    fn discard(self);

    /// Discards the connection because a cached prepared statement no longer fits its table.
    fn discard_as_outdated(self) {
        self.discard();
    }
}

/// Timeout for rolling back a transaction, and for cleaning the database session of a connection that is released.
/// After it, the connection is closed, and the server rolls back. It is also the minimum timeout for reading the rest
/// of an earlier call's response: even if the deadline of statements is shorter, a rollback can wait this long for that
/// response.
pub(crate) const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of values of one statement. The protocol sends their number in 16 bits.
const MAX_VALUES: usize = u16::MAX as usize;

/// Undoes what a statement may have changed in a database session, except for prepared statements. `RESET ALL` resets
/// neither the role nor the session authorization. `DISCARD ALL` would reset everything, but it cannot share a message
/// with other statements, and it would deallocate the driver's prepared statements.
const CLEAN_SESSION: &str = "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; \
     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; ";

/// How the driver's named prepared statements are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PreparedStatementMode {
    /// They stay prepared on their connection, and are used again.
    #[default]
    Cached,
    /// Each transaction begins with DEALLOCATE ALL, because behind a pooler another client may have used the server
    /// connection.
    PerTransaction,
}

impl PreparedStatementMode {
    /// Returns the SQL that follows BEGIN in the message that begins a transaction.
    pub(crate) fn sql_after_begin(self) -> &'static str {
        match self {
            Self::Cached => "",
            Self::PerTransaction => "DEALLOCATE ALL; ",
        }
    }

    /// Returns the SQL that cleans the database session. [`has_only_the_drivers_prepared_statements`] checks the
    /// response: the counts show whether a statement has changed the prepared statements. PREPARE can add some and
    /// DEALLOCATE can remove some, but nothing can replace one of the driver's without changing the counts.
    pub(crate) fn clean_session_sql(self) -> String {
        match self {
            Self::Cached => format!("{CLEAN_SESSION}SELECT {STATEMENT_COUNTS_SQL}"),
            Self::PerTransaction => format!("{CLEAN_SESSION}DEALLOCATE ALL"),
        }
    }
}

/// What the server answered to a message of several statements, up to the first error.
#[derive(Default)]
pub(crate) struct SimpleQueryResponse {
    /// How many statements completed.
    pub(crate) completed_count: usize,
    /// The row that was received last, whichever statement returned it.
    pub(crate) last_row: Option<TextRow>,
    /// The third statement's row, read as the server's replication status. It has a meaning only if there are replicas,
    /// in the response to the message that commits a transaction. The first three statements of that message are a
    /// check, which fails if the transaction must not be committed; the COMMIT; and the query of the status.
    pub(crate) status_after_commit: Option<ReplicationStatus>,
}

/// Whether a server is a standby, its position in the write-ahead log, and its timeline. A standby does not report its
/// timeline here, so `timeline` is then 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplicationStatus {
    pub(crate) is_standby: bool,
    pub(crate) lsn: u64,
    pub(crate) timeline: u32,
}

/// The SQL of a [`ReplicationStatus`]: a column with the position (LSN), and one with the name of the current WAL file,
/// whose first eight digits are the timeline; on a standby, the second column is NULL. Any role may call these
/// functions. The columns have no casts, because the server parses this SQL in each message, and parsing would take
/// three times as long with casts.
pub(crate) const REPLICATION_STATUS_SQL: &str = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
     ELSE pg_current_wal_insert_lsn() END, \
     CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END";
/// The number of columns in [`REPLICATION_STATUS_SQL`].
pub(crate) const REPLICATION_STATUS_COLUMN_COUNT: usize = 2;

impl ReplicationStatus {
    /// Reads the status from the columns of [`REPLICATION_STATUS_SQL`], which begin at `first_column` of the row.
    pub(crate) fn read(row: &TextRow, first_column: usize) -> Option<Self> {
        // A standby that has replayed nothing yet has no log position.
        let lsn = row.0.get(first_column)?.as_deref().map_or(Some(0), parse_lsn)?;
        let wal_file = row.0.get(first_column + 1)?.as_deref();
        let timeline = wal_file.map_or(Some(0), |name| u32::from_str_radix(name.get(..8)?, 16).ok())?;
        Some(Self { is_standby: wal_file.is_none(), lsn, timeline })
    }
}

/// Does the same as [`Connection::simple_query`], on a connection of the driver.
pub(crate) async fn simple_query(
    connection: &mut PgConnection,
    sql: String,
    response: &mut SimpleQueryResponse,
) -> Result<(), sqlx::Error> {
    let mut stream = connection.fetch_many(AssertSqlSafe(sql));
    while let Some(part) = stream.try_next().await? {
        match part {
            Either::Left(_) => response.completed_count += 1,
            Either::Right(row) => {
                let row = TextRow::from_row(&row);
                let is_from_third_statement = response.completed_count == 2;
                if is_from_third_statement {
                    response.status_after_commit = ReplicationStatus::read(&row, 0);
                }
                response.last_row = Some(row);
            }
        }
    }
    Ok(())
}

/// Returns the first column of the query's first row, or `None` if there is no row or the value is NULL. The query is
/// not prepared, because the server may be behind a pooler.
pub(crate) async fn query_scalar(
    connection: &mut PgConnection,
    query: &'static str,
) -> Result<Option<String>, sqlx::Error> {
    match sqlx::raw_sql(query).fetch_optional(connection).await? {
        Some(row) => row.try_get(0),
        None => Ok(None),
    }
}

/// Returns whether the database session has no prepared statements but those that the driver can use again (and, behind
/// a pooler, those of the pooler's other clients), according to the response to
/// [`PreparedStatementMode::clean_session_sql`].
pub(crate) fn has_only_the_drivers_prepared_statements(
    connection: &impl Connection,
    response: &SimpleQueryResponse,
    prepared_statement_mode: PreparedStatementMode,
) -> bool {
    match prepared_statement_mode {
        // The SQL has deallocated all of them, and the driver remembers none.
        PreparedStatementMode::PerTransaction => true,
        PreparedStatementMode::Cached => {
            response.last_row.as_ref().and_then(|row| StatementCounts::read(row, 0)).is_some_and(|counts| {
                counts.from_sql == 0 && counts.driver_can_reuse_statements(connection.cached_statement_count())
            })
        }
    }
}

/// A statement as the driver takes it.
pub(crate) type PgQuery = Query<'static, Postgres, SqlxValues>;

/// Converts the statement to the driver's type. `is_cacheable` is false if the text of the statement is unlikely to
/// recur.
///
/// The driver finds a prepared statement by its text alone, whatever the types of the values. If a connection had
/// prepared a statement for a `bigint`, and the next value were a text of eight bytes, the server would read those
/// bytes as a `bigint`. So a comment that depends on the types is appended to the text.
pub(crate) fn driver_query(statement: Statement, is_cacheable: bool) -> PgQuery {
    let Statement { mut sql, values, .. } = statement;
    let values = values.unwrap_or_else(|| Values(Vec::new()));
    if is_cacheable && !values.0.is_empty() {
        let _ = write!(sql, " /*{:x}*/", hash_of_types(&values));
    }
    query_with(AssertSqlSafe(sql), SqlxValues(values)).persistent(is_cacheable)
}

/// Returns a hash of the values' types. The hash is the same in every process, so that a statement has the same text in
/// the statistics and logs of all processes.
fn hash_of_types(values: &Values) -> u64 {
    let mut hasher = DefaultHasher::new();
    for value in &values.0 {
        std::mem::discriminant(value).hash(&mut hasher);
        if let Value::Array(item_type, _) = value {
            item_type.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Refuses more values than the protocol allows, more values than the statement has parameters, and values that cannot
/// be sent. The driver checks the maximum only after it has sent part of the statement, PostgreSQL accepts surplus
/// values, and the conversion to the driver's values panics if it fails.
pub(crate) fn check_values(statement: &Statement) -> Result<(), Error> {
    let values = statement.values.as_ref().map_or(&[][..], |values| &values.0);
    for (index, value) in values.iter().enumerate() {
        if let Err(rule) = check_value(value) {
            return Err(Error::invalid_statement(format!("the value of ${} must {rule}", index + 1)));
        }
    }
    let count = values.len();
    if count > MAX_VALUES {
        return Err(Error::invalid_statement(format!("it must have at most {MAX_VALUES} values, and has {count}")));
    }
    let parameter_count = if count > 0 { highest_parameter_number(&statement.sql) } else { 0 };
    if count > parameter_count {
        return Err(Error::invalid_statement(format!(
            "it must have one value per parameter: {parameter_count}, not {count}"
        )));
    }
    Ok(())
}

/// Checks that a value can be sent. If it cannot, returns what the value must be: the text that follows "must" in the
/// message.
fn check_value(value: &Value) -> Result<(), &'static str> {
    match value {
        Value::BigUnsigned(Some(number)) if i64::try_from(*number).is_err() => {
            Err("be at most 9223372036854775807, the highest bigint")
        }
        Value::Array(item_type, Some(items)) => items.iter().try_for_each(|item| {
            if *item == item.as_null() {
                Err("be an array without NULL")
            } else if matches!(item, Value::Array(..)) || item.array_type() != *item_type {
                Err("be an array whose items have its item type")
            } else {
                check_value(item)
            }
        }),
        _ => Ok(()),
    }
}

/// Returns the highest number of a parameter in the text (1 for `$1`), which is the count of parameters. What looks
/// like a parameter in a string or a name counts too, so the number may be too high, but never too low.
fn highest_parameter_number(sql: &str) -> usize {
    let leading_number = |rest: &str| {
        let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().unwrap_or_default()
    };
    sql.split('$').skip(1).map(leading_number).max().unwrap_or_default()
}

pub(crate) fn exec_error(error: sqlx::Error) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(error.into()))
}

pub(crate) fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}
