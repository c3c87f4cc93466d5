//! Streams the rows of a statement.

use std::{pin::Pin, sync::Arc, time::Instant};

use futures_util::{Stream, TryStreamExt, stream};
use sea_orm::{DbErr, QueryResult, RuntimeErr, Statement};
use tokio::{
    select,
    sync::{Notify, mpsc},
};

use crate::{
    Error,
    runtime::{AtomicBool, AtomicUsize, Ordering, spawn, timeout},
    shared_transaction::{Call, DEADLINE_GRACE, SharedTransaction, Verification},
    statement_kind::{WriteKind, may_run_read_only, write_kind},
    transaction_state::{OUTERMOST_FRAME_ID, commit_unknown_error},
    wire::{Connection, check_values, driver_query, query_error},
};

/// A stream of rows.
pub type RowStream<'a> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'a>>;

/// The number of unread rows at which the buffer of a slow reader is full. While it is full, at most one further row is
/// read from the server, unless another call waits for the connection ([`RowSender::send`]).
const STREAM_BUFFER_ROWS: usize = if cfg!(test) { 2 } else { 64 };

/// What the task that has the connection sends to the reader of a stream.
enum StreamMessage<R> {
    Row(R),
    /// Nothing follows.
    Failed(DbErr),
    /// All rows were sent, and the transaction is committed if [`stream_rows`] was called with `commits_at_end`.
    /// Nothing follows.
    Complete,
}

/// Sends rows to the reader, from the task that has the connection.
struct RowSender<R> {
    sender: mpsc::UnboundedSender<StreamMessage<R>>,
    progress: Arc<StreamProgress>,
}

/// What the task and the reader of a stream know of each other.
#[derive(Default)]
struct StreamProgress {
    /// The number of rows sent and not yet read.
    unread_count: AtomicUsize,
    /// Notified each time the reader has read a row.
    row_read: Notify,
    /// Whether the task may have sent a COMMIT whose outcome matters: that of a transaction that can write, or one that
    /// the caller sent as raw SQL.
    may_have_committed: AtomicBool,
}

impl<R> RowSender<R> {
    /// Sends a row to the reader as soon as the buffer has room. Returns `false` if the stream was dropped.
    ///
    /// If another call waits for the connection, the row is sent although the buffer is full. So all remaining rows are
    /// read into memory, and the connection becomes free. Otherwise a reader that runs another statement before it has
    /// read the last row would wait for itself.
    async fn send(&self, shared: &SharedTransaction<impl Connection>, row: R) -> bool {
        while self.progress.unread_count.load(Ordering::SeqCst) >= STREAM_BUFFER_ROWS && !shared.has_waiters() {
            select! {
                // Without `biased`, the order would be random, and the tests under `shuttle` could not repeat a
                // schedule.
                biased;
                () = self.progress.row_read.notified() => {}
                () = shared.wait_for_waiter() => {}
                () = self.sender.closed() => return false,
            }
        }
        self.progress.unread_count.fetch_add(1, Ordering::SeqCst);
        self.sender.send(StreamMessage::Row(row)).is_ok()
    }

    /// Waits until all rows have been read. Returns `false` if the stream was dropped before that.
    async fn wait_until_read(&self) -> bool {
        while self.progress.unread_count.load(Ordering::SeqCst) > 0 {
            select! {
                biased;
                () = self.progress.row_read.notified() => {}
                () = self.sender.closed() => break,
            }
        }
        self.progress.unread_count.load(Ordering::SeqCst) == 0
    }
}

/// The reader's end of a stream.
struct RowReader<R> {
    receiver: mpsc::UnboundedReceiver<StreamMessage<R>>,
    progress: Arc<StreamProgress>,
    /// The first message, until it is read.
    first_message: Option<StreamMessage<R>>,
}

impl<R: Send> RowReader<R> {
    /// Waits for the first message, without counting its row as read. If the statement has failed before its first row,
    /// returns the error.
    async fn wait_for_first_message(&mut self) -> Result<(), DbErr> {
        match self.receive().await {
            StreamMessage::Failed(error) => Err(error),
            message => {
                self.first_message = Some(message);
                Ok(())
            }
        }
    }

    async fn receive(&mut self) -> StreamMessage<R> {
        self.receiver.recv().await.unwrap_or_else(|| {
            // The task has not run to its end: it has panicked, or its runtime has shut down.
            let cause = "the task that reads the rows has stopped";
            StreamMessage::Failed(if self.progress.may_have_committed.load(Ordering::SeqCst) {
                commit_unknown_error(cause)
            } else {
                Error::ConnectionLost(DbErr::Conn(RuntimeErr::Internal(cause.to_owned()))).into()
            })
        })
    }

    /// Returns the next row, and the reader for those after it; `None` after the last row.
    async fn next(mut self) -> Option<(Result<R, DbErr>, Option<Self>)> {
        let message = match self.first_message.take() {
            Some(message) => message,
            None => self.receive().await,
        };
        match message {
            StreamMessage::Row(row) => {
                self.progress.unread_count.fetch_sub(1, Ordering::SeqCst);
                self.progress.row_read.notify_one();
                Some((Ok(row), Some(self)))
            }
            StreamMessage::Failed(error) => Some((Err(error), None)),
            StreamMessage::Complete => None,
        }
    }
}

/// How the stream ended.
enum StreamEnd {
    /// After the last row.
    Complete,
    /// The stream was dropped.
    Dropped,
}

/// Marks the frame (the transaction, or a savepoint in it) as failed if the guard is dropped while rows are still being
/// sent: the task that sends them has panicked, or its runtime has shut down.
struct FailFrameOnDrop<'a, C: Connection> {
    shared: &'a SharedTransaction<C>,
    frame_id: u64,
    is_disarmed: bool,
}

impl<C: Connection> Drop for FailFrameOnDrop<'_, C> {
    fn drop(&mut self) {
        if !self.is_disarmed {
            self.shared.mark_failed(self.frame_id);
        }
    }
}

/// Streams the rows of a statement, until the last row, the deadline, or the drop of the stream. Returns once the first
/// row or the end has arrived, so that a statement that fails at once can be retried. A task holds the connection,
/// because a stream that held the connection itself would be self-referential. With `commits_at_end`, the task commits
/// the transaction after the last row.
pub(crate) async fn stream_rows<C: Connection>(
    shared: &SharedTransaction<C>,
    frame_id: u64,
    statement: Statement,
    verification: Verification,
    commits_at_end: bool,
) -> Result<impl Stream<Item = Result<C::Row, DbErr>> + Send + 'static, DbErr> {
    check_values(&statement)?;
    let mut call = shared.within_deadline(shared.begin_call(frame_id)).await?;
    if write_kind(&statement.sql) != WriteKind::None {
        shared.count_write();
    }
    let progress = Arc::<StreamProgress>::default();
    if verification != Verification::Skipped {
        call.expect_session_changes();
        progress.may_have_committed.store(call.record_if_raw_commit(&statement), Ordering::SeqCst);
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let row_sender = RowSender { sender, progress: progress.clone() };
    let shared = shared.clone();
    spawn(async move {
        // If the stream is dropped before its last row was read, what the statement wrote must be rolled back, so the
        // commit waits for the reader.
        let can_write = !call.cannot_write();
        let waits_for_reader = commits_at_end && can_write;
        let outcome = send_all(&shared, frame_id, call, statement, verification, &row_sender, waits_for_reader).await;
        let outcome = match outcome {
            Ok(StreamEnd::Complete) if commits_at_end => {
                row_sender.progress.may_have_committed.fetch_or(can_write, Ordering::SeqCst);
                shared.commit(OUTERMOST_FRAME_ID).await
            }
            Ok(StreamEnd::Complete | StreamEnd::Dropped) => Ok(()),
            Err(error) => Err(error),
        };
        // This fails if the stream was dropped; then nobody needs the outcome.
        let _ = row_sender.sender.send(outcome.map_or_else(StreamMessage::Failed, |()| StreamMessage::Complete));
    });
    let mut reader = RowReader { receiver, progress, first_message: None };
    reader.wait_for_first_message().await?;
    Ok(stream::unfold(Some(reader), |reader| async { reader?.next().await }))
}

/// Sends all rows of the statement to the reader. With `waits_for_reader`, waits until they have been read or the
/// stream is dropped, unless the statement seems only to read and the transaction has written nothing.
async fn send_all<C: Connection>(
    shared: &SharedTransaction<C>,
    frame_id: u64,
    mut call: Call<C>,
    statement: Statement,
    verification: Verification,
    row_sender: &RowSender<C::Row>,
    waits_for_reader: bool,
) -> Result<StreamEnd, DbErr> {
    // The guard is dropped before `call`, so that no other call gets the connection before the frame is marked as
    // failed.
    let mut frame_guard = FailFrameOnDrop { shared, frame_id, is_disarmed: false };
    let seems_read_only = may_run_read_only(&statement.sql);
    call.expect_rows();
    let connection = call.connection()?;
    let sending = async {
        let mut stream = connection.fetch(driver_query(statement, true));
        while let Some(row) = stream.try_next().await? {
            if !row_sender.send(shared, row).await {
                return Ok(StreamEnd::Dropped);
            }
        }
        Ok(StreamEnd::Complete)
    };
    let time_limit = shared.statement_deadline.map(|deadline| deadline.saturating_add(DEADLINE_GRACE));
    let started_at = Instant::now();
    let outcome = match time_limit {
        None => Ok(sending.await),
        Some(limit) => timeout(limit, sending).await,
    };
    frame_guard.is_disarmed = true;
    match outcome {
        // The server's remaining rows are still on the connection; the next call reads and discards them.
        Ok(Ok(StreamEnd::Dropped)) => return Ok(StreamEnd::Dropped),
        Ok(outcome) => call.record_outcome_for_caller(outcome, query_error)?,
        Err(_) => return Err(call.close_at_deadline()),
    };
    let finishing = async {
        if verification == Verification::Immediate {
            call.verify().await?;
        }
        // If nothing was written, there is nothing to roll back, so the connection is free as soon as the last row was
        // sent. If the statement seems only to read, the server is asked whether anything was written, because a view
        // may call a function that writes. Any other statement is taken to have written something.
        if waits_for_reader
            && !(seems_read_only && call.transaction_has_written_nothing().await?)
            && !row_sender.wait_until_read().await
        {
            return Ok(StreamEnd::Dropped);
        }
        Ok(StreamEnd::Complete)
    };
    match time_limit {
        None => finishing.await,
        Some(limit) => match timeout(limit.saturating_sub(started_at.elapsed()), finishing).await {
            Ok(end) => end,
            Err(_) => Err(call.close_at_deadline()),
        },
    }
}
