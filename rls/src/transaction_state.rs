//! A transaction's connection and state: the stack of frames (the transaction and its savepoints) and the request in
//! progress. [`SharedTransaction`](crate::shared_transaction::SharedTransaction) gives one call at a time exclusive
//! access to the connection and the state. The steps of a transaction are in `begin.rs`, `verification.rs`,
//! `ending.rs`, `savepoints.rs` and `settling.rs`; each of these files uses only those named before it.

mod begin;
mod ending;
mod frame;
mod savepoints;
mod settling;
mod verification;

use std::{sync::Arc, time::Duration};

pub(crate) use begin::{BeginRequest, READ_ONLY};
pub(crate) use frame::{
    EndReason, Failure, Frame, OUTERMOST_FRAME_ID, Pending, already_ended_error, commit_unknown_error,
};
pub(crate) use savepoints::savepoint_name;
use sea_orm::{DbErr, sqlx};

use crate::{
    Error, Identity,
    error::{breaks_connection, is_from_pooler, is_outdated_statement_error},
    pool::PooledConnection,
    runtime::{AtomicBool, Ordering, timeout},
    tracked_server::TrackedServer,
    wire::{Connection, PreparedStatementMode, ROLLBACK_TIMEOUT, SimpleQueryResponse, exec_error},
};

/// A transaction's connection and state.
#[derive(Debug)]
pub(crate) struct TransactionState<C: Connection = PooledConnection> {
    /// `None` once the connection was released or discarded.
    pub(crate) connection: Option<C>,
    /// The stack of frames; the innermost is the last.
    pub(crate) frames: Vec<Frame>,
    /// The request in progress, if there is one.
    pub(crate) pending: Option<Pending>,
    /// Whether the end of a response is still unread: after an error, the server also sends ReadyForQuery, which the
    /// driver does not read before it returns the error.
    pub(crate) must_finish_response: bool,
    /// `None` while the transaction is open.
    pub(crate) end_reason: Option<EndReason>,
    /// Whether a statement that may change the database session was sent, so that the session must be cleaned before
    /// the connection is used again.
    pub(crate) must_clean_session: bool,
    /// Whether a raw statement of the caller that may commit (COMMIT, END, PREPARE TRANSACTION) was sent, and the
    /// server has neither refused it nor answered the verification that follows it. Shared with the handles of the
    /// transaction, which read it while a call holds the connection.
    pub(crate) has_unknown_raw_commit: Arc<AtomicBool>,
    /// Whether a cached prepared statement no longer fits its table. The connection is then discarded as outdated.
    pub(crate) has_outdated_statement: bool,
    /// The highest id that a frame has had so far.
    pub(crate) highest_frame_id: u64,
    /// The start time of the transaction in seconds since 1970, as the server prints that number.
    pub(crate) started_at: String,
    pub(crate) identity: Identity,
    /// The identity with its settings as they were read back from the server, which may print them in another form than
    /// the one in which they were set. Verification compares with this form.
    pub(crate) read_back_identity: Identity,
    /// The time limit of each statement, counted from its start.
    pub(crate) statement_deadline: Option<Duration>,
    pub(crate) prepared_statement_mode: PreparedStatementMode,
    /// Whether the caller need not wait for the end of the transaction: the transaction was begun only to read, and is
    /// not SERIALIZABLE, so what it has read is valid whether it is committed or rolled back.
    pub(crate) need_not_await_end: bool,
    /// Whether the transaction is REPEATABLE READ, so that all its statements see the snapshot of the first one. Also
    /// `false` if its isolation level was not read when it began.
    pub(crate) is_repeatable_read: bool,
    /// Whether the transaction was begun as `READ ONLY`.
    is_read_only: bool,
    /// The server that the transaction runs on, if there are replicas.
    pub(crate) tracked_server: Option<TrackedServer>,
}

impl<C: Connection> TransactionState<C> {
    /// Whether the transaction can write nothing, so that the outcome of its commit does not matter: it is `READ ONLY`,
    /// which no later statement can change, or it began on a standby.
    pub(crate) fn cannot_write(&self) -> bool {
        self.is_read_only || self.tracked_server.as_ref().is_some_and(|server| server.was_standby)
    }

    pub(crate) fn connection(&mut self) -> Result<&mut C, DbErr> {
        let end_reason = self.end_reason;
        match (&mut self.connection, end_reason) {
            (Some(connection), None) => Ok(connection),
            (_, end_reason) => Err(already_ended_error(end_reason)),
        }
    }

    pub(crate) fn frame(&mut self, id: u64) -> Option<&mut Frame> {
        self.frames.iter_mut().find(|frame| frame.id == id)
    }

    fn innermost_frame_id(&self) -> u64 {
        self.frames.last().map_or(OUTERMOST_FRAME_ID, |frame| frame.id)
    }

    /// Checks that the frame may be used.
    pub(crate) fn check_usable(&mut self, frame_id: u64) -> Result<(), DbErr> {
        if self.end_reason.is_some() {
            return Err(already_ended_error(self.end_reason));
        }
        let innermost = self.frames.last().map(|frame| frame.id);
        match self.frame(frame_id).map(|frame| frame.failure) {
            None => Err(Error::TransactionOver.into()),
            Some(_) if innermost != Some(frame_id) => Err(Error::NestedTransactionOpen.into()),
            Some(Some(Failure::CallFailed)) => Err(Error::TransactionFailed.into()),
            Some(Some(Failure::IdentityChanged)) => Err(Error::IdentityChanged.into()),
            Some(None) => Ok(()),
        }
    }

    /// Records a request's outcome. An error of the server fails the frame; a lost connection ends the transaction.
    pub(crate) fn record_outcome<T>(
        &mut self,
        frame_id: u64,
        outcome: Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        self.pending = None;
        if let Err(error) = &outcome {
            // A pooler that has lost the server does not know whether the server received the request.
            if breaks_connection(error) || is_from_pooler(error) && self.has_unknown_raw_commit() {
                self.close(EndReason::ConnectionLost);
            } else if error.as_database_error().is_some() {
                self.set_has_unknown_raw_commit(false);
                self.has_outdated_statement |= is_outdated_statement_error(error);
                self.must_finish_response = true;
                self.mark_failed(frame_id, Failure::CallFailed);
            } else {
                // The driver failed before it had read the whole response, the rest of which may still arrive.
                self.pending = Some(Pending::DroppableCall);
            }
        }
        outcome
    }

    pub(crate) fn mark_failed(&mut self, frame_id: u64, failure: Failure) {
        if let Some(frame) = self.frame(frame_id) {
            frame.failure.get_or_insert(failure);
        }
    }

    /// Ends the transaction and discards the connection instead of returning it to its pool.
    pub(crate) fn close(&mut self, reason: EndReason) {
        let is_interrupted = matches!(reason, EndReason::ConnectionLost | EndReason::DeadlineExceeded);
        let is_commit_unknown = is_interrupted && self.has_unknown_raw_commit();
        self.end_reason = Some(if is_commit_unknown { EndReason::RawCommitUnknown } else { reason });
        self.pending = None;
        if let Some(connection) = self.connection.take() {
            connection.discard();
        }
    }

    /// Reads the last response to its end. If this were left to the driver, it would read the rest of the response at
    /// the start of the next call, before it sends that call's request. If that call were then dropped, nobody would
    /// know whether its request was sent. Once the response has been read, the driver sends a call's request as soon as
    /// the call is first polled.
    async fn finish_response(&mut self) -> Result<(), DbErr> {
        if !self.must_finish_response || self.end_reason.is_some() {
            return Ok(());
        }
        let limit = self.statement_deadline.unwrap_or_default().max(ROLLBACK_TIMEOUT);
        match timeout(limit, self.connection()?.drain()).await {
            Ok(Ok(_)) => {
                self.must_finish_response = false;
                Ok(())
            }
            Ok(Err(error)) => {
                self.close(EndReason::ConnectionLost);
                Err(self.caller_error(error, exec_error))
            }
            Err(_) => {
                self.close(EndReason::DeadlineExceeded);
                Err(self.deadline_error())
            }
        }
    }

    /// Runs SQL of this crate in the innermost frame, and returns the server's response. `pending` stays recorded until
    /// the response arrives.
    pub(crate) async fn run_own_sql(&mut self, sql: String, pending: Pending) -> Result<SimpleQueryResponse, DbErr> {
        self.finish_response().await?;
        self.pending = Some(pending);
        let frame_id = self.innermost_frame_id();
        let mut response = SimpleQueryResponse::default();
        let outcome = self.connection()?.simple_query(sql, &mut response).await;
        self.record_outcome(frame_id, outcome).map_err(|error| self.caller_error(error, exec_error))?;
        Ok(response)
    }

    /// Converts an error of the driver to the error that the caller gets. If the connection was closed while it was
    /// unknown whether a raw statement of the caller had committed the transaction, the error says that the outcome is
    /// unknown.
    pub(crate) fn caller_error(&self, error: sqlx::Error, to_db_err: fn(sqlx::Error) -> DbErr) -> DbErr {
        if self.end_reason == Some(EndReason::RawCommitUnknown) {
            commit_unknown_error(&error.to_string())
        } else {
            to_db_err(error)
        }
    }

    /// Records that a statement of the caller ended the transaction.
    pub(crate) fn record_end_by_statement(&mut self) -> Error {
        self.end_reason = Some(EndReason::EndedByStatement);
        // The server has answered, so the transaction has certainly ended, and later errors say so instead of
        // `commit_unknown`. But the answer does not say whether the statement committed what was written before it (as
        // a COMMIT does, and a ROLLBACK does not), and at which log position.
        self.set_has_unknown_raw_commit(false);
        self.record_commit_without_position();
        Error::TransactionEndedByStatement
    }

    /// Returns the error of a call that the server did not answer by the deadline.
    pub(crate) fn deadline_error(&self) -> DbErr {
        if self.has_unknown_raw_commit() {
            return commit_unknown_error("the server did not answer in time");
        }
        Error::DeadlineExceeded.into()
    }

    /// Whether it is unknown if a raw statement of the caller has committed the transaction.
    pub(crate) fn has_unknown_raw_commit(&self) -> bool {
        self.has_unknown_raw_commit.load(Ordering::SeqCst)
    }

    pub(crate) fn set_has_unknown_raw_commit(&self, value: bool) {
        self.has_unknown_raw_commit.store(value, Ordering::SeqCst);
    }

    /// Records, if there are replicas, that the identity has committed or may have committed, and that the log position
    /// of that commit was not received. The identity's next reads use the primary.
    fn record_commit_without_position(&self) {
        if let Some(server) = &self.tracked_server {
            // A tracked commit that is dropped before its outcome is recorded is a commit without position.
            drop(server.track_commit(&self.identity));
        }
    }
}
