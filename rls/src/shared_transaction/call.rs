//! A call's exclusive access to the connection of its transaction.

use sea_orm::{DbErr, Statement, sqlx};
use tokio::sync::OwnedMutexGuard;

use crate::{
    pool::PooledConnection,
    statement_kind::may_commit,
    transaction_state::{EndReason, Failure, Pending, TransactionState},
    wire::Connection,
};

/// Exclusive access to the connection for one call, from the check of the state to the response. If a `Call` is dropped
/// before [`record_outcome`](Call::record_outcome), the call was cancelled: its outcome is unknown, and its frame (the
/// transaction, or a savepoint in it) can only be rolled back. After [`expect_rows`](Call::expect_rows), a drop does
/// not fail the frame; only an error in the response does.
pub(crate) struct Call<C: Connection = PooledConnection> {
    pub(super) state: OwnedMutexGuard<TransactionState<C>>,
    /// The id of the frame in which the call runs.
    pub(super) frame_id: u64,
}

impl<C: Connection> Call<C> {
    pub(crate) fn connection(&mut self) -> Result<&mut C, DbErr> {
        self.state.connection()
    }

    /// Records that the response is a stream of rows, which may be left unread.
    pub(crate) fn expect_rows(&mut self) {
        self.state.pending = Some(Pending::DroppableCall);
    }

    /// Records the server's response.
    pub(crate) fn record_outcome<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.state.record_outcome(self.frame_id, outcome)
    }

    /// Records the server's response to a statement of the caller, and returns what the caller gets. If the response to
    /// a COMMIT that the caller sent as raw SQL was lost, the error says that the outcome is unknown.
    pub(crate) fn record_outcome_for_caller<T>(
        &mut self,
        outcome: Result<T, sqlx::Error>,
        to_db_err: fn(sqlx::Error) -> DbErr,
    ) -> Result<T, DbErr> {
        self.record_outcome(outcome).map_err(|error| self.state.caller_error(error, to_db_err))
    }

    /// If the caller's statement, which is about to be sent, may commit the transaction (COMMIT, END, PREPARE
    /// TRANSACTION), records that the outcome is unknown. Returns whether the statement may commit.
    pub(crate) fn record_if_raw_commit(&mut self, statement: &Statement) -> bool {
        let may_commit = may_commit(&statement.sql);
        if may_commit {
            self.state.set_has_unknown_raw_commit(true);
        }
        may_commit
    }

    /// Asks the server whether the transaction has written nothing: it then has no transaction id.
    pub(crate) async fn transaction_has_written_nothing(&mut self) -> Result<bool, DbErr> {
        let sql = "SELECT (pg_catalog.pg_current_xact_id_if_assigned() IS NULL)::integer".to_owned();
        let response = self.state.run_own_sql(sql, Pending::DroppableCall).await?;
        Ok(response.last_row.and_then(|row| row.integer(0)) == Some(1))
    }

    /// Whether the transaction can write nothing.
    pub(crate) fn cannot_write(&self) -> bool {
        self.state.cannot_write()
    }

    /// Records that the frame can only be rolled back.
    pub(crate) fn mark_failed(&mut self) {
        self.state.mark_failed(self.frame_id, Failure::CallFailed);
    }

    /// Records that more statements of the call follow.
    pub(crate) fn expect_more_statements(&mut self) {
        self.state.pending = Some(Pending::Call(self.frame_id));
    }

    /// Records that the call is complete.
    pub(crate) fn complete(&mut self) {
        self.state.pending = None;
    }

    /// Records that the next statement may change the database session, the identity or both.
    pub(crate) fn expect_session_changes(&mut self) {
        self.state.must_clean_session = true;
        if let Some(frame) = self.state.frame(self.frame_id) {
            frame.needs_verification = true;
        }
    }

    /// Verifies that the transaction is still the one that was begun, and the identity the one that was set.
    pub(crate) async fn verify(&mut self) -> Result<(), DbErr> {
        self.state.verify(self.frame_id, Pending::Call(self.frame_id)).await
    }

    /// Closes the connection because the deadline was exceeded, and returns what the caller gets.
    pub(crate) fn close_at_deadline(&mut self) -> DbErr {
        self.state.close(EndReason::DeadlineExceeded);
        self.state.deadline_error()
    }
}
