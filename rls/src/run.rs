//! Runs statements of one frame, and verifies the identity after those that contain SQL of the caller.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, TryStreamExt, stream};
use sea_orm::{DbErr, ExecResult, QueryResult, Statement, sqlx::postgres::PgRow};
use tokio::{
    select,
    sync::{Notify, mpsc},
};

use crate::{
    Error,
    inner::{OUTERMOST, commit_unknown},
    plain::{is_commit, is_plain, is_plain_read},
    runtime::{AtomicUsize, Ordering, spawn, timeout},
    session::{Call, Check, GRACE, Session},
    wire::{Connection, check_values, exec_error, prepared, query_error},
};

/// Runs one statement of a frame and verifies the identity, with exclusive access to the connection.
macro_rules! run {
    ($session:expr, $frame:expr, $statement:expr, $check:expr, $error:ident, |$query:ident, $connection:ident| $run:expr) => {{
        let statement: StatementToRun = $statement;
        check_values(&statement.statement)?;
        let run = async {
            let mut call = $session.call($frame).await?;
            if statement.may_write() {
                $session.count_write();
            }
            if $check != Check::Never {
                call.expect_changes();
                if is_commit(&statement.statement.sql) {
                    call.expect_commit();
                }
            }
            let $query = prepared(statement.statement, statement.is_cached);
            let $connection = call.connection()?;
            let outcome = $run.await;
            let answer = call.done(outcome).map_err(|error| match call.is_commit_unknown() {
                true => commit_unknown(&error.to_string()),
                false => $error(error),
            })?;
            if $check == Check::Now {
                call.verify().await?;
            }
            Ok(answer)
        };
        $session.within_deadline(run).await
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

impl<C: Connection> Session<C> {
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
        set: [Statement; 2],
        statement: Statement,
    ) -> Result<ExecResult, DbErr> {
        let [elevate, restore] = set;
        let run = async {
            let mut call = self.call(frame).await?;
            self.count_write();
            call.execute(elevate).await?;
            let done = call.execute(statement).await?;
            call.execute(restore).await?;
            call.mark_complete();
            Ok(done)
        };
        self.within_deadline(run).await
    }
}

impl Session {
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
    /// Runs one of several statements. The call is in progress until [`mark_complete`](Call::mark_complete).
    async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        let outcome = self.connection()?.execute(prepared(statement, true)).await;
        let done = self.done(outcome).map_err(exec_error)?;
        self.mark_pending();
        Ok(done.into())
    }
}

/// A stream of rows.
pub type RowStream<'a> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'a>>;

/// The maximum number of rows buffered for a slow reader; then reading from the server pauses.
const STREAM_BUFFER: usize = if cfg!(test) { 2 } else { 64 };

/// The channel between the task that has the connection and the reader.
struct Rows<R> {
    out: mpsc::UnboundedSender<Result<R, DbErr>>,
    flow: Arc<Flow>,
}

#[derive(Default)]
struct Flow {
    unread: AtomicUsize,
    was_read: Notify,
}

impl<R> Rows<R> {
    /// Sends a row when the buffer has room. If another call waits for the connection, the remaining rows are read into
    /// memory, so that a reader who runs another statement before the last row does not wait for itself. Returns
    /// `false` if the stream was dropped.
    async fn send(&self, session: &Session<impl Connection>, row: R) -> bool {
        while self.flow.unread.load(Ordering::SeqCst) >= STREAM_BUFFER && !session.has_waiters() {
            select! {
                // Without `biased`, the order would be random, and no schedule could be repeated.
                biased;
                () = self.flow.was_read.notified() => {}
                () = session.wait_for_waiter() => {}
                () = self.out.closed() => return false,
            }
        }
        self.flow.unread.fetch_add(1, Ordering::SeqCst);
        self.out.send(Ok(row)).is_ok()
    }

    /// Waits until the last row has been read. Returns `false` if the stream was dropped before.
    async fn wait_until_read(&self) -> bool {
        while self.flow.unread.load(Ordering::SeqCst) > 0 {
            select! {
                biased;
                () = self.flow.was_read.notified() => {}
                () = self.out.closed() => break,
            }
        }
        self.flow.unread.load(Ordering::SeqCst) == 0
    }
}

/// How the stream ended.
enum End {
    /// After the last row.
    Complete,
    /// The stream was dropped.
    Dropped,
}

/// Streams the rows of a statement until the last row, the deadline, or until the stream is dropped. A task holds the
/// connection, because a stream that held it would be self-referential. With `commits`, the transaction is committed
/// once the last row has been read.
pub(crate) async fn stream_rows<C: Connection>(
    session: &Session<C>,
    frame: u64,
    statement: Statement,
    check: Check,
    commits: bool,
) -> Result<impl Stream<Item = Result<C::Row, DbErr>> + Send + 'static, DbErr> {
    check_values(&statement)?;
    let mut call = session.within_deadline(session.call(frame)).await?;
    session.count_write();
    if check != Check::Never {
        call.expect_changes();
    }
    let (out, read) = mpsc::unbounded_channel();
    let flow = Arc::new(Flow::default());
    let rows = Rows { out, flow: flow.clone() };
    let session = session.clone();
    spawn(async move {
        // A read has nothing to save, so it is committed however many of its rows the reader takes.
        let must_be_read = commits && !is_plain_read(&statement.sql);
        let outcome = send_all(&session, call, statement, &rows, must_be_read).await;
        let outcome = match outcome {
            Ok(End::Complete) if commits => session.commit(OUTERMOST).await,
            Ok(End::Complete | End::Dropped) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            // If the stream was dropped, there is no reader for the error.
            let _ = rows.out.send(Err(error));
        }
    });
    Ok(stream::unfold((read, flow), |(mut read, flow)| async {
        let row = read.recv().await?;
        flow.unread.fetch_sub(1, Ordering::SeqCst);
        flow.was_read.notify_one();
        Some((row, (read, flow)))
    }))
}

async fn send_all<C: Connection>(
    session: &Session<C>,
    mut call: Call<C>,
    statement: Statement,
    rows: &Rows<C::Row>,
    must_be_read: bool,
) -> Result<End, DbErr> {
    call.mark_stream();
    let connection = call.connection()?;
    let sending = async {
        let mut stream = connection.fetch(prepared(statement, true));
        while let Some(row) = stream.try_next().await? {
            if !rows.send(session, row).await {
                return Ok(End::Dropped);
            }
        }
        if must_be_read && !rows.wait_until_read().await {
            return Ok(End::Dropped);
        }
        Ok(End::Complete)
    };
    let outcome = match session.time {
        None => Ok(sending.await),
        Some(time) => timeout(time.saturating_add(GRACE), sending).await,
    };
    match outcome {
        // The next call reads the remaining rows.
        Ok(Ok(End::Dropped)) => Ok(End::Dropped),
        Ok(outcome) => call.done(outcome).map_err(query_error),
        Err(_) => {
            call.deadline_exceeded();
            Err(Error::DeadlineExceeded.into())
        }
    }
}
