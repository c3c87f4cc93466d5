//! A connection with an open transaction and its savepoints: which calls are allowed, and in what state each call
//! leaves the transaction.
//!
//! From the check of the state to the response, each call has exclusive access to the connection ([`Call`]). The state
//! is a stack of frames (the transaction and its savepoints), of which only the innermost may be used. A call that was
//! dropped before its response arrived leaves a [`Pending`] in the state. Before the next call sends anything, it reads
//! that response and updates the frames (`settle`).

mod call;

use std::{pin::pin, sync::Arc, time::Duration};

pub(crate) use call::Call;

use sea_orm::DbErr;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    Error, Identity,
    error::breaks_connection,
    pool::{Pool, PooledConnection},
    runtime::{AtomicBool, AtomicU64, Ordering, timeout},
    sqlstate,
    tracked_server::TrackedServer,
    transaction_state::{
        BeginRequest, EndReason, Failure, Frame, OUTERMOST_FRAME_ID, Pending, TransactionState, already_ended_error,
        commit_unknown_error, savepoint_name,
    },
    unlocked_state::{UnfinishedReason, UnlockedState, WaiterGuard},
    wire::{Connection, REPLICATION_STATUS_SQL, ROLLBACK_TIMEOUT, ReplicationStatus, exec_error},
};

/// The server cancels a statement at its deadline; the client gives up this much later. For a commit, the deadline
/// counts as at least this long, so the client gives up after twice this time at the earliest: most commits are
/// answered by then, and an answer is needed to know the outcome.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// A handle of a transaction. Its clones serve the transactions nested in it.
#[derive(Debug)]
pub(crate) struct SharedTransaction<C: Connection = PooledConnection> {
    state: Arc<Mutex<TransactionState<C>>>,
    /// The part of the state that is outside the lock.
    unlocked_state: Arc<UnlockedState>,
    pub(crate) identity: Identity,
    /// The time limit of each statement, counted from its start.
    pub(crate) statement_deadline: Option<Duration>,
    /// The number of statements sent through this handle and its clones that may have written something.
    write_count: Arc<AtomicU64>,
    /// The timeline of the transaction's server, if there are replicas.
    pub(crate) timeline: Option<u32>,
    /// See [`TransactionState::is_repeatable_read`].
    pub(crate) is_repeatable_read: bool,
    /// See [`TransactionState::has_unknown_raw_commit`].
    has_unknown_raw_commit: Arc<AtomicBool>,
}

/// When the identity is verified after a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Not at all: the statement is a library's own, or cannot change the identity.
    Skipped,
    /// Before the statement's result is returned; for a stream, after its last row.
    Immediate,
    /// In the commit that follows, or before the next statement.
    Deferred,
}

impl SharedTransaction {
    /// Acquires a connection, and begins a transaction of the request's identity on it. A dead connection is replaced
    /// by another one, unless the dead one was newly opened or more connections than the pool can hold were already
    /// replaced. Returns the transaction and, if there are replicas, the server's replication status. `server` is
    /// `None` without replicas.
    pub(crate) async fn begin(
        pool: &Pool,
        request: &BeginRequest<'_>,
        server: Option<TrackedServer>,
    ) -> Result<(Self, Option<ReplicationStatus>), DbErr> {
        let mut dead_connection_count = 0;
        loop {
            let connection = pool.acquire().await?;
            let is_last_attempt = connection.is_new() || dead_connection_count > pool.max_connections();
            let mode = pool.prepared_statement_mode();
            match TransactionState::begin(connection, mode, request, server.clone()).await {
                Ok((state, status)) => {
                    return Ok((Self::new(state), status));
                }
                Err(error) if breaks_connection(&error) && !is_last_attempt => dead_connection_count += 1,
                Err(error) => return Err(exec_error(error)),
            }
        }
    }
}

impl<C: Connection> Clone for SharedTransaction<C> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            unlocked_state: self.unlocked_state.clone(),
            identity: self.identity.clone(),
            write_count: self.write_count.clone(),
            has_unknown_raw_commit: self.has_unknown_raw_commit.clone(),
            ..*self
        }
    }
}

impl<C: Connection> SharedTransaction<C> {
    pub(crate) fn new(state: TransactionState<C>) -> Self {
        Self {
            identity: state.identity.clone(),
            statement_deadline: state.statement_deadline,
            timeline: state.tracked_server.as_ref().map(|server| server.timeline),
            is_repeatable_read: state.is_repeatable_read,
            has_unknown_raw_commit: state.has_unknown_raw_commit.clone(),
            state: Arc::new(Mutex::new(state)),
            unlocked_state: Arc::default(),
            write_count: Arc::default(),
        }
    }

    /// Returns the current replication status of the server.
    pub(crate) async fn replication_status(&self) -> Result<Option<ReplicationStatus>, DbErr> {
        let mut state = self.lock().await;
        let response = state.run_own_sql(format!("SELECT {REPLICATION_STATUS_SQL}"), Pending::DroppableCall).await?;
        Ok(response.last_row.as_ref().and_then(|row| ReplicationStatus::read(row, 0)))
    }

    /// Closes the connection, so that the server rolls back. Must be called before any statement of the caller has run
    /// in this transaction.
    pub(crate) async fn discard(self) {
        self.lock().await.close(EndReason::EndedByCrate);
    }

    /// Settles what earlier calls left unfinished, and returns exclusive access to the connection for a call in the
    /// frame `frame_id`, which must be the innermost.
    pub(crate) async fn begin_call(&self, frame_id: u64) -> Result<Call<C>, DbErr> {
        let mut state = self.lock().await;
        state.settle(&self.unlocked_state).await?;
        state.check_usable(frame_id)?;
        if state.frame(frame_id).is_some_and(|frame| frame.needs_verification) {
            // `Pending::DroppableCall`, because the frame need not fail if the call is dropped here: no statement of
            // the caller has been sent.
            state.verify(frame_id, Pending::DroppableCall).await?;
        }
        state.pending = Some(Pending::Call(frame_id));
        Ok(Call { state, frame_id })
    }

    /// Applies the deadline to `work`. If the deadline is exceeded while a request of `work` is unanswered, the
    /// connection is closed, because the response may still arrive on it.
    pub(crate) async fn within_deadline<T>(&self, work: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        self.within_deadline_of_statement(&AtomicBool::new(false), work).await
    }

    /// Does the same as [`within_deadline`](Self::within_deadline) for a statement of the caller. `work` sets
    /// `may_be_raw_commit` if the statement may commit the transaction; then it is unknown at the deadline whether the
    /// transaction was committed.
    pub(crate) async fn within_deadline_of_statement<T>(
        &self,
        may_be_raw_commit: &AtomicBool,
        work: impl Future<Output = Result<T, DbErr>>,
    ) -> Result<T, DbErr> {
        let Some(deadline) = self.statement_deadline else { return work.await };
        let outcome = timeout(deadline.saturating_add(DEADLINE_GRACE), work).await;
        outcome.unwrap_or_else(|_| {
            let error_at_close = self.close_if_unanswered();
            Err(if may_be_raw_commit.load(Ordering::SeqCst) {
                commit_unknown_error("the server did not answer in time")
            } else {
                error_at_close.unwrap_or_else(|| Error::DeadlineExceeded.into())
            })
        })
    }

    /// Closes the connection if a request on it is unanswered, and returns the error for the caller of that request. If
    /// another call holds the connection, the connection stays open.
    fn close_if_unanswered(&self) -> Option<DbErr> {
        let mut state = self.state.clone().try_lock_owned().ok().filter(|state| state.pending.is_some())?;
        state.close(EndReason::DeadlineExceeded);
        Some(state.deadline_error())
    }

    async fn lock(&self) -> OwnedMutexGuard<TransactionState<C>> {
        if let Ok(state) = self.state.clone().try_lock_owned() {
            return state;
        }
        let _waiting = WaiterGuard::new(&self.unlocked_state);
        self.state.clone().lock_owned().await
    }

    /// Returns whether a call waits for the connection.
    pub(crate) fn has_waiters(&self) -> bool {
        self.unlocked_state.has_waiters()
    }

    /// Waits until another call waits for the connection.
    pub(crate) async fn wait_for_waiter(&self) {
        self.unlocked_state.wait_for_waiter().await;
    }

    /// Creates a savepoint inside the frame, and returns the id of the savepoint's own frame.
    pub(crate) async fn begin_nested(&self, outer_id: u64, modes: &str) -> Result<u64, DbErr> {
        let begin = async {
            let mut call = self.begin_call(outer_id).await?;
            let state = &mut *call.state;
            state.highest_frame_id += 1;
            let frame_id = state.highest_frame_id;
            let sql = format!("SAVEPOINT {}", savepoint_name(frame_id));
            state.frames.push(Frame::new(frame_id));
            if let Err(error) = state.run_own_sql(sql, Pending::Savepoint(frame_id)).await {
                state.remove_frames_from(frame_id);
                state.mark_failed(outer_id, Failure::CallFailed);
                return Err(error);
            }
            if !modes.is_empty() {
                let set_modes_sql = format!("SET TRANSACTION{modes}");
                if let Err(error) = state.run_own_sql(set_modes_sql, Pending::Savepoint(frame_id)).await {
                    state.roll_back_savepoint(frame_id).await?;
                    return Err(explain_nested_mode_error(error));
                }
            }
            Ok(frame_id)
        };
        self.within_deadline(begin).await
    }

    /// Commits the transaction, or releases the savepoint. Returns `Ok` only if the server has done so, or if the
    /// transaction has only read and its end need not be awaited.
    pub(crate) async fn commit(&self, frame_id: u64) -> Result<(), DbErr> {
        let time_limit =
            self.statement_deadline.map(|deadline| deadline.max(DEADLINE_GRACE).saturating_add(DEADLINE_GRACE));
        let may_have_taken_effect = AtomicBool::new(false);
        let commit = async {
            let mut state = self.lock().await;
            state.settle(&self.unlocked_state).await?;
            if let Err(error) = state.check_usable(frame_id) {
                state.roll_back_failed_commit(frame_id).await;
                return Err(error);
            }
            if frame_id == OUTERMOST_FRAME_ID {
                state.commit(&may_have_taken_effect).await
            } else {
                state.release_savepoint(frame_id, &may_have_taken_effect).await
            }
        };
        // The future may hold the connection. It is in an `Option`, so that it can be dropped before this function
        // ends.
        let mut commit = pin!(Some(commit));
        // Always `Some`: the future is dropped only below.
        let Some(commit_future) = commit.as_mut().as_pin_mut() else { return Err(Error::TransactionOver.into()) };
        match time_limit {
            None => commit_future.await,
            Some(limit) => match timeout(limit, commit_future).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    // `may_have_taken_effect` is not part of the state behind the lock, because another call may hold
                    // the lock now.
                    let may_have_taken_effect = may_have_taken_effect.load(Ordering::SeqCst);
                    let has_unknown_raw_commit = self.has_unknown_raw_commit.load(Ordering::SeqCst);
                    if frame_id == OUTERMOST_FRAME_ID && may_have_taken_effect || has_unknown_raw_commit {
                        commit.set(None);
                        self.close_if_unanswered();
                        return Err(commit_unknown_error("the server did not answer in time"));
                    }
                    // If another call gets the connection, it settles this commit first. If the RELEASE was sent, the
                    // savepoint may no longer exist, so only the whole transaction can be rolled back.
                    if may_have_taken_effect {
                        self.mark_failed(OUTERMOST_FRAME_ID)
                    } else {
                        self.abandon(frame_id)
                    }
                    commit.set(None);
                    self.close_if_unanswered();
                    Err(Error::DeadlineExceeded.into())
                }
            },
        }
    }

    /// Rolls back the transaction, or to the savepoint. The frames nested in it end too.
    pub(crate) async fn rollback(&self, frame_id: u64) -> Result<(), DbErr> {
        let rollback = async {
            let mut state = self.lock().await;
            // An error of `settle` is ignored. If the connection was closed, the server rolls back; otherwise the
            // rollback follows.
            let _ = state.settle(&self.unlocked_state).await;
            if matches!(
                state.end_reason,
                Some(EndReason::EndedByCrate | EndReason::EndedByStatement | EndReason::RawCommitUnknown)
            ) || state.frame(frame_id).is_none()
            {
                return Err(already_ended_error(state.end_reason));
            }
            if frame_id == OUTERMOST_FRAME_ID {
                state.roll_back().await
            } else {
                state.roll_back_savepoint(frame_id).await
            }
        };
        timeout(ROLLBACK_TIMEOUT, rollback).await.unwrap_or_else(|_| {
            self.close_if_unanswered();
            if self.has_unknown_raw_commit.load(Ordering::SeqCst) {
                return Err(commit_unknown_error("the server did not answer a COMMIT in time"));
            }
            // If the connection was closed, the server rolls back. If another call has the connection, the frame is
            // rolled back before the next statement.
            self.abandon(frame_id);
            Ok(())
        })
    }

    /// Records that a frame was abandoned ([`UnfinishedReason::Abandoned`]). The next call rolls the frame back before
    /// it sends a request of its own.
    pub(crate) fn abandon(&self, frame_id: u64) {
        self.unlocked_state.record_unfinished(frame_id, UnfinishedReason::Abandoned);
    }

    /// Records that an operation in the frame did not complete. From then on, the frame can only be rolled back.
    pub(crate) fn mark_failed(&self, frame_id: u64) {
        self.unlocked_state.record_unfinished(frame_id, UnfinishedReason::Failed);
    }

    /// Returns the same transaction with a separate count of writes.
    pub(crate) fn with_separate_write_count(&self) -> Self {
        Self { write_count: Arc::default(), ..self.clone() }
    }

    pub(crate) fn count_write(&self) {
        self.write_count.fetch_add(1, Ordering::Relaxed);
    }

    /// Subtracts the last write from the count, because it has affected no row.
    pub(crate) fn uncount_write(&self) {
        self.write_count.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn write_count(&self) -> u64 {
        self.write_count.load(Ordering::Relaxed)
    }
}

/// Explains the server's error for transaction modes that a savepoint cannot have. Returns any other error unchanged.
fn explain_nested_mode_error(error: DbErr) -> DbErr {
    match crate::error::sqlx_error(&error).and_then(|error| error.as_database_error()).and_then(|error| error.code()) {
        Some(code) if code == sqlstate::ACTIVE_SQL_TRANSACTION || code == sqlstate::READ_ONLY_SQL_TRANSACTION => {
            Error::invalid_statement(
                "a nested transaction must have the isolation level of the outer one, and be read-only if the outer \
                 one is",
            )
            .into()
        }
        _ => error,
    }
}
