//! Runs statements of one frame, and verifies the identity after those that contain SQL of the caller.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, TryStreamExt, stream};
use sea_orm::{DbErr, ExecResult, QueryResult, Statement, sqlx::postgres::PgRow};
use tokio::{
    select,
    sync::{Notify, mpsc},
};

use crate::{
    inner::OUTERMOST,
    plain::{is_plain, is_plain_read},
    runtime::{AtomicUsize, Ordering, spawn, timeout},
    shared_transaction::{Call, Check, GRACE, SharedTransaction},
    wire::{Connection, check_values, driver_query, exec_error, query_error},
};

/// Runs one statement of a frame and verifies the identity, with exclusive access to the connection.
macro_rules! run {
    ($shared:expr, $frame:expr, $statement:expr, $check:expr, $error:ident, |$query:ident, $connection:ident| $run:expr) => {{
        let statement: StatementToRun = $statement;
        check_values(&statement.statement)?;
        let run = async {
            let mut call = $shared.call($frame).await?;
            if statement.may_write() {
                $shared.count_write();
            }
            if $check != Check::Never {
                call.expect_changes();
                call.expect_commit_of(&statement.statement);
            }
            let $query = driver_query(statement.statement, statement.is_cached);
            let $connection = call.connection()?;
            let outcome = $run.await;
            let answer = call.answered_to_caller(outcome, $error)?;
            if $check == Check::Now {
                call.verify().await?;
            }
            Ok(answer)
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

impl StatementToRun {
    fn may_write(&self) -> bool {
        // A `SELECT` may write through a function that it calls.
        !(self.statement.sql.starts_with("SELECT ") && is_plain(&self.statement.sql))
    }
}

impl<C: Connection> SharedTransaction<C> {
    pub(crate) async fn execute(
        &self,
        frame: u64,
        statement: impl Into<StatementToRun>,
        check: Check,
    ) -> Result<ExecResult, DbErr> {
        run!(self, frame, statement.into(), check, exec_error, |query, connection| connection.execute(query))
            .map(Into::into)
    }

    /// Runs one statement in another role and restores the role, with exclusive access to the connection. After a
    /// failure there is nothing to restore: the frame can only be rolled back, which restores the role.
    pub(crate) async fn execute_as_role(
        &self,
        frame: u64,
        set_roles: [Statement; 2],
        statement: Statement,
    ) -> Result<ExecResult, DbErr> {
        let [elevate, restore] = set_roles;
        let run = async {
            let mut call = self.call(frame).await?;
            self.count_write();
            call.execute(elevate).await?;
            let done = call.execute(statement).await?;
            call.execute(restore).await?;
            call.complete();
            Ok(done)
        };
        self.within_deadline(run).await
    }
}

impl SharedTransaction {
    pub(crate) async fn fetch_optional(
        &self,
        frame: u64,
        statement: Statement,
        check: Check,
    ) -> Result<Option<PgRow>, DbErr> {
        run!(self, frame, statement.into(), check, query_error, |query, connection| query
            .fetch_optional(connection.connection()))
    }

    pub(crate) async fn fetch_all(&self, frame: u64, statement: Statement, check: Check) -> Result<Vec<PgRow>, DbErr> {
        run!(self, frame, statement.into(), check, query_error, |query, connection| query
            .fetch_all(connection.connection()))
    }
}

impl<C: Connection> Call<C> {
    /// Runs one of several statements. The call is in progress until [`complete`](Call::complete).
    async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        let outcome = self.connection()?.execute(driver_query(statement, true)).await;
        let done = self.answered(outcome).map_err(exec_error)?;
        self.expect_more();
        Ok(done.into())
    }
}

/// A stream of rows.
pub type RowStream<'a> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'a>>;

/// The maximum number of rows buffered for a slow reader; then reading from the server pauses.
const STREAM_BUFFER: usize = if cfg!(test) { 2 } else { 64 };

/// Sends rows from the task that has the connection to the reader.
struct RowSender<R> {
    sender: mpsc::UnboundedSender<Result<R, DbErr>>,
    flow: Arc<Flow>,
}

/// The number of rows sent and not yet read.
#[derive(Default)]
struct Flow {
    unread: AtomicUsize,
    was_read: Notify,
}

impl<R> RowSender<R> {
    /// Sends a row when the buffer has room. If another call waits for the connection, the remaining rows are read into
    /// memory, so that a reader who runs another statement before the last row does not wait for itself. Returns
    /// `false` if the stream was dropped.
    async fn send(&self, shared: &SharedTransaction<impl Connection>, row: R) -> bool {
        while self.flow.unread.load(Ordering::SeqCst) >= STREAM_BUFFER && !shared.has_waiters() {
            select! {
                // Without `biased`, the order would be random, and no schedule could be repeated.
                biased;
                () = self.flow.was_read.notified() => {}
                () = shared.wait_for_waiter() => {}
                () = self.sender.closed() => return false,
            }
        }
        self.flow.unread.fetch_add(1, Ordering::SeqCst);
        self.sender.send(Ok(row)).is_ok()
    }

    /// Waits until the last row has been read. Returns `false` if the stream was dropped before.
    async fn wait_until_read(&self) -> bool {
        while self.flow.unread.load(Ordering::SeqCst) > 0 {
            select! {
                biased;
                () = self.flow.was_read.notified() => {}
                () = self.sender.closed() => break,
            }
        }
        self.flow.unread.load(Ordering::SeqCst) == 0
    }
}

/// How the stream ended.
enum StreamEnd {
    /// After the last row.
    Complete,
    /// The stream was dropped.
    Dropped,
}

/// Streams the rows of a statement until the last row, the deadline, or until the stream is dropped. A task holds the
/// connection, because a stream that held it would be self-referential. With `commits`, the transaction is committed
/// once the last row has been read.
pub(crate) async fn stream_rows<C: Connection>(
    shared: &SharedTransaction<C>,
    frame: u64,
    statement: Statement,
    check: Check,
    commits: bool,
) -> Result<impl Stream<Item = Result<C::Row, DbErr>> + Send + 'static, DbErr> {
    check_values(&statement)?;
    let mut call = shared.within_deadline(shared.call(frame)).await?;
    shared.count_write();
    if check != Check::Never {
        call.expect_changes();
        call.expect_commit_of(&statement);
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let flow = Arc::new(Flow::default());
    let rows = RowSender { sender, flow: flow.clone() };
    let shared = shared.clone();
    spawn(async move {
        // A read has nothing to save, so it is committed however many of its rows the reader takes.
        let must_be_read = commits && !is_plain_read(&statement.sql);
        let outcome = send_all(&shared, call, statement, &rows, must_be_read).await;
        let outcome = match outcome {
            Ok(StreamEnd::Complete) if commits => shared.commit(OUTERMOST).await,
            Ok(StreamEnd::Complete | StreamEnd::Dropped) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            // If the stream was dropped, there is no reader for the error.
            let _ = rows.sender.send(Err(error));
        }
    });
    Ok(stream::unfold((receiver, flow), |(mut receiver, flow)| async {
        let row = receiver.recv().await?;
        flow.unread.fetch_sub(1, Ordering::SeqCst);
        flow.was_read.notify_one();
        Some((row, (receiver, flow)))
    }))
}

async fn send_all<C: Connection>(
    shared: &SharedTransaction<C>,
    mut call: Call<C>,
    statement: Statement,
    rows: &RowSender<C::Row>,
    must_be_read: bool,
) -> Result<StreamEnd, DbErr> {
    call.expect_rows();
    let connection = call.connection()?;
    let sending = async {
        let mut stream = connection.fetch(driver_query(statement, true));
        while let Some(row) = stream.try_next().await? {
            if !rows.send(shared, row).await {
                return Ok(StreamEnd::Dropped);
            }
        }
        if must_be_read && !rows.wait_until_read().await {
            return Ok(StreamEnd::Dropped);
        }
        Ok(StreamEnd::Complete)
    };
    let outcome = match shared.deadline {
        None => Ok(sending.await),
        Some(deadline) => timeout(deadline.saturating_add(GRACE), sending).await,
    };
    match outcome {
        // The next call reads the remaining rows.
        Ok(Ok(StreamEnd::Dropped)) => Ok(StreamEnd::Dropped),
        Ok(outcome) => call.answered_to_caller(outcome, query_error),
        Err(_) => Err(call.close_at_deadline()),
    }
}
