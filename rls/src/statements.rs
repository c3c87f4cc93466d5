//! Runs statements in a frame (the transaction, or a savepoint in it), and streams their rows. After statements that
//! contain SQL of the caller, the identity is verified.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, TryStreamExt, stream};
use sea_orm::{DbErr, ExecResult, QueryResult, Statement, sqlx::postgres::PgRow};
use tokio::{
    select,
    sync::{Notify, mpsc},
};

use crate::{
    runtime::{AtomicUsize, Ordering, spawn, timeout},
    shared_transaction::{Call, DEADLINE_GRACE, SharedTransaction, Verification},
    statement_kind::{cannot_change_session, only_reads},
    transaction_state::OUTERMOST_FRAME_ID,
    wire::{Connection, check_value_count, driver_query, exec_error, query_error},
};

/// Runs one statement in a frame, with exclusive access to the connection. `$verification` says when the identity is
/// verified.
macro_rules! run_statement {
    (
        $shared:expr, $frame_id:expr, $statement:expr, $verification:expr, $to_db_err:ident,
        |$query:ident, $connection:ident| $run:expr
    ) => {{
        let statement: StatementToRun = $statement;
        check_value_count(&statement.statement)?;
        let run = async {
            let mut call = $shared.begin_call($frame_id).await?;
            if may_write(&statement.statement.sql) {
                $shared.count_write();
            }
            if $verification != Verification::Skipped {
                call.expect_session_changes();
                call.record_if_raw_commit(&statement.statement);
            }
            let $query = driver_query(statement.statement, statement.is_cached);
            let $connection = call.connection()?;
            let outcome = $run.await;
            let result = call.record_outcome_for_caller(outcome, $to_db_err)?;
            if $verification == Verification::Immediate {
                call.verify().await?;
            }
            Ok(result)
        };
        $shared.within_deadline(run).await
    }};
}

/// A statement, and whether the driver caches it as a prepared statement.
pub(crate) struct StatementToRun {
    pub(crate) statement: Statement,
    pub(crate) is_cached: bool,
}

impl From<Statement> for StatementToRun {
    fn from(statement: Statement) -> Self {
        Self { statement, is_cached: true }
    }
}

fn may_write(sql: &str) -> bool {
    // A `SELECT` may write through a function that it calls. One that cannot change the session does not.
    !(sql.starts_with("SELECT ") && cannot_change_session(sql))
}

impl<C: Connection> SharedTransaction<C> {
    pub(crate) async fn execute(
        &self,
        frame_id: u64,
        statement: impl Into<StatementToRun>,
        verification: Verification,
    ) -> Result<ExecResult, DbErr> {
        run_statement!(self, frame_id, statement.into(), verification, exec_error, |query, connection| connection
            .execute(query))
        .map(Into::into)
    }

    /// Runs one statement in another role and restores the role, with exclusive access to the connection. `set_roles`
    /// are the statements that set the other role, and that restore the identity's role. After a failure the role need
    /// not be restored: the frame can only be rolled back, which restores it.
    pub(crate) async fn execute_as_role(
        &self,
        frame_id: u64,
        set_roles: [Statement; 2],
        statement: Statement,
    ) -> Result<ExecResult, DbErr> {
        let [set_role, restore_role] = set_roles;
        let run = async {
            let mut call = self.begin_call(frame_id).await?;
            self.count_write();
            call.execute(set_role).await?;
            let result = call.execute(statement).await?;
            call.execute(restore_role).await?;
            call.complete();
            Ok(result)
        };
        self.within_deadline(run).await
    }
}

impl SharedTransaction {
    pub(crate) async fn fetch_optional(
        &self,
        frame_id: u64,
        statement: Statement,
        verification: Verification,
    ) -> Result<Option<PgRow>, DbErr> {
        run_statement!(self, frame_id, statement.into(), verification, query_error, |query, connection| query
            .fetch_optional(connection.pg_connection_mut()))
    }

    pub(crate) async fn fetch_all(
        &self,
        frame_id: u64,
        statement: Statement,
        verification: Verification,
    ) -> Result<Vec<PgRow>, DbErr> {
        run_statement!(self, frame_id, statement.into(), verification, query_error, |query, connection| query
            .fetch_all(connection.pg_connection_mut()))
    }
}

impl<C: Connection> Call<C> {
    /// Runs one of several statements of a call. The call remains in progress until [`complete`](Call::complete).
    async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        let outcome = self.connection()?.execute(driver_query(statement, true)).await;
        let result = self.record_outcome(outcome).map_err(exec_error)?;
        self.expect_more_statements();
        Ok(result.into())
    }
}

/// A stream of rows.
pub type RowStream<'a> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'a>>;

/// The maximum number of rows buffered for a slow reader. While the buffer is full, no row is read from the server.
const STREAM_BUFFER_ROWS: usize = if cfg!(test) { 2 } else { 64 };

/// Sends rows to the reader, from the task that has the connection.
struct RowSender<R> {
    sender: mpsc::UnboundedSender<Result<R, DbErr>>,
    unread_rows: Arc<UnreadRows>,
}

/// The number of rows sent and not yet read.
#[derive(Default)]
struct UnreadRows {
    count: AtomicUsize,
    /// Notified after each row that is read.
    row_read: Notify,
}

impl<R> RowSender<R> {
    /// Sends a row to the reader as soon as the buffer has room. Returns `false` if the stream was dropped.
    ///
    /// If another call waits for the connection, the row is sent although the buffer is full. So all remaining rows are
    /// read into memory, and the connection becomes free. Otherwise a reader that runs another statement before it has
    /// read the last row would wait for itself.
    async fn send(&self, shared: &SharedTransaction<impl Connection>, row: R) -> bool {
        while self.unread_rows.count.load(Ordering::SeqCst) >= STREAM_BUFFER_ROWS && !shared.has_waiters() {
            select! {
                // Without `biased`, the order would be random, and the tests under `shuttle` could not repeat a
                // schedule.
                biased;
                () = self.unread_rows.row_read.notified() => {}
                () = shared.wait_for_waiter() => {}
                () = self.sender.closed() => return false,
            }
        }
        self.unread_rows.count.fetch_add(1, Ordering::SeqCst);
        self.sender.send(Ok(row)).is_ok()
    }

    /// Waits until all rows have been read. Returns `false` if the stream was dropped before that.
    async fn wait_until_read(&self) -> bool {
        while self.unread_rows.count.load(Ordering::SeqCst) > 0 {
            select! {
                biased;
                () = self.unread_rows.row_read.notified() => {}
                () = self.sender.closed() => break,
            }
        }
        self.unread_rows.count.load(Ordering::SeqCst) == 0
    }
}

/// How the stream ended.
enum StreamEnd {
    /// After the last row.
    Complete,
    /// The stream was dropped.
    Dropped,
}

/// Streams the rows of a statement, until the last row, the deadline, or the drop of the stream. A task holds the
/// connection, because a stream that held the connection itself would be self-referential. With `commits_at_end`, the
/// task commits the transaction after the last row.
pub(crate) async fn stream_rows<C: Connection>(
    shared: &SharedTransaction<C>,
    frame_id: u64,
    statement: Statement,
    verification: Verification,
    commits_at_end: bool,
) -> Result<impl Stream<Item = Result<C::Row, DbErr>> + Send + 'static, DbErr> {
    check_value_count(&statement)?;
    let mut call = shared.within_deadline(shared.begin_call(frame_id)).await?;
    if may_write(&statement.sql) {
        shared.count_write();
    }
    if verification != Verification::Skipped {
        call.expect_session_changes();
        call.record_if_raw_commit(&statement);
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let unread_rows = Arc::new(UnreadRows::default());
    let row_sender = RowSender { sender, unread_rows: unread_rows.clone() };
    let shared = shared.clone();
    spawn(async move {
        // If the stream is dropped before its last row was read, a write must be rolled back, so the commit waits for
        // the reader. A statement that only reads has nothing to roll back.
        let waits_for_reader = commits_at_end && !only_reads(&statement.sql);
        let outcome = send_all(&shared, call, statement, &row_sender, waits_for_reader).await;
        let outcome = match outcome {
            Ok(StreamEnd::Complete) if commits_at_end => shared.commit(OUTERMOST_FRAME_ID).await,
            Ok(StreamEnd::Complete | StreamEnd::Dropped) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            // This fails if the stream was dropped; then nobody needs the error.
            let _ = row_sender.sender.send(Err(error));
        }
    });
    Ok(stream::unfold((receiver, unread_rows), |(mut receiver, unread_rows)| async {
        let row = receiver.recv().await?;
        // Only rows were counted, not the error that may follow them.
        if row.is_ok() {
            unread_rows.count.fetch_sub(1, Ordering::SeqCst);
            unread_rows.row_read.notify_one();
        }
        Some((row, (receiver, unread_rows)))
    }))
}

/// Sends all rows of the statement to the reader. With `waits_for_reader`, returns only when they have been read.
async fn send_all<C: Connection>(
    shared: &SharedTransaction<C>,
    mut call: Call<C>,
    statement: Statement,
    row_sender: &RowSender<C::Row>,
    waits_for_reader: bool,
) -> Result<StreamEnd, DbErr> {
    call.expect_rows();
    let connection = call.connection()?;
    let sending = async {
        let mut stream = connection.fetch(driver_query(statement, true));
        while let Some(row) = stream.try_next().await? {
            if !row_sender.send(shared, row).await {
                return Ok(StreamEnd::Dropped);
            }
        }
        if waits_for_reader && !row_sender.wait_until_read().await {
            return Ok(StreamEnd::Dropped);
        }
        Ok(StreamEnd::Complete)
    };
    let outcome = match shared.deadline {
        None => Ok(sending.await),
        Some(deadline) => timeout(deadline.saturating_add(DEADLINE_GRACE), sending).await,
    };
    match outcome {
        // The next call discards the rows that are still unread.
        Ok(Ok(StreamEnd::Dropped)) => Ok(StreamEnd::Dropped),
        Ok(outcome) => call.record_outcome_for_caller(outcome, query_error),
        Err(_) => Err(call.close_at_deadline()),
    }
}
