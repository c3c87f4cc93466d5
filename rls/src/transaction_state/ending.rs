//! The end of a transaction by commit, rollback or drop, and the cleaning of the database session.

use futures_util::FutureExt;
use sea_orm::{DbErr, sqlx};

use super::{EndReason, Pending, TransactionState, commit_unknown_error};
use crate::{
    Error,
    connection_to_release::{ConnectionToRelease, Ending},
    error::{breaks_connection, is_from_pooler},
    identity::{IDENTITY_CHANGED_SQLSTATE, TRANSACTION_ENDED_SQLSTATE},
    runtime::{AtomicBool, Ordering, spawn_or_drop},
    sqlstate,
    wire::{
        Connection, REPLICATION_STATUS_SQL, SimpleQueryResponse, exec_error, has_only_the_drivers_prepared_statements,
    },
};

impl<C: Connection> TransactionState<C> {
    /// Ends a transaction that has only read. What was read is valid whether the transaction is committed or rolled
    /// back, so the caller does not wait. COMMIT or ROLLBACK is sent now, and a task that owns the connection waits for
    /// the answer before it returns the connection to its pool. For such a transaction, COMMIT and ROLLBACK differ only
    /// in the server's statistics, and in that only COMMIT delivers what a function has sent with NOTIFY.
    fn end_in_background(&mut self, ending: Ending) {
        self.end_reason = Some(EndReason::EndedByCrate);
        self.pending = None;
        let Some(connection) = self.connection.take() else { return };
        let connection_to_release = ConnectionToRelease { connection: Some(connection), ending, cleaning_mode: None };
        let mut return_to_pool = Box::pin(connection_to_release.return_to_pool());
        // Polled once, so that COMMIT or ROLLBACK is sent now, however long the runtime takes to begin the task.
        if return_to_pool.as_mut().now_or_never().is_none() {
            spawn_or_drop(return_to_pool);
        }
    }

    /// Whether the commit or rollback need not be awaited: the transaction has only read, its connection can be used
    /// again, nothing must be verified or cleaned, and no log position must be recorded.
    fn may_end_in_background(&self) -> bool {
        self.need_not_await_end
            && !self.must_clean_session
            && !self.has_outdated_statement
            && self.tracked_server.is_none()
            && !self.frames.iter().any(|frame| frame.needs_verification)
    }

    /// Commits the transaction. If the transaction can write, sets `may_have_taken_effect` when the COMMIT is sent, and
    /// clears it if the commit is known to have failed.
    ///
    /// PostgreSQL answers the COMMIT of a failed transaction with ROLLBACK, which the driver reports as success. So the
    /// message begins with a statement that fails if the transaction has failed; then the COMMIT after it is not run.
    pub(crate) async fn commit(&mut self, may_have_taken_effect: &AtomicBool) -> Result<(), DbErr> {
        if self.may_end_in_background() {
            self.end_in_background(Ending::Commit);
            return Ok(());
        }
        // After raw SQL, the identity is verified here once more, although it was verified after each raw statement:
        // raw SQL may have created a temporary view that calls a function that changes the identity, and a later
        // statement, which by its text needed no verification, may have read that view.
        let needs_verification = self.must_clean_session || self.frames.iter().any(|frame| frame.needs_verification);
        let check_sql = if needs_verification {
            self.read_back_identity.assert_unchanged_sql(&self.started_at)
        } else {
            // Like any statement, it fails in a failed transaction. Otherwise it only closes cursors.
            "CLOSE ALL".to_owned()
        };
        // The log position is read in the same message, so that it costs no round trip.
        let status_sql =
            if self.tracked_server.is_some() { format!("SELECT {REPLICATION_STATUS_SQL}; ") } else { String::new() };
        let cleaning_sql =
            if self.must_clean_session { self.prepared_statement_mode.clean_session_sql() } else { String::new() };
        let mut response = SimpleQueryResponse::default();
        self.finish_response().await?;
        self.pending = Some(Pending::End);
        let server = self.tracked_server.clone();
        // If this value is dropped before the server has answered, its drop records that the outcome is unknown.
        let commit_in_progress = server.as_ref().map(|server| server.track_commit(&self.identity));
        may_have_taken_effect.store(!self.cannot_write(), Ordering::SeqCst);
        let connection = self.connection()?;
        let sql = format!("{check_sql}; COMMIT; {status_sql}{cleaning_sql}");
        let outcome = connection.simple_query(sql, &mut response).await;
        // The COMMIT is the second statement.
        let is_committed = response.completed_count >= 2;
        // A pooler that has lost the server does not know whether the server received the COMMIT.
        let is_unanswered =
            outcome.as_ref().err().is_some_and(|error| breaks_connection(error) || is_from_pooler(error));
        if let Some(commit) = commit_in_progress {
            commit.record_outcome(is_committed, response.status_after_commit, is_unanswered);
        }
        match outcome {
            Ok(()) => self.record_end(&response),
            // The transaction is committed, but a later statement of the message has failed: the query of the log
            // position, or the cleaning of the database session.
            Err(_) if is_committed => {
                self.close(EndReason::EndedByCrate);
                Ok(())
            }
            Err(error) if is_unanswered => {
                self.close(EndReason::ConnectionLost);
                Err(if self.cannot_write() {
                    Error::ConnectionLost(exec_error(error)).into()
                } else {
                    commit_unknown_error(&error.to_string())
                })
            }
            Err(error) => {
                may_have_taken_effect.store(false, Ordering::SeqCst);
                (self.pending, self.must_finish_response) = (None, true);
                let commit_error = self.record_commit_error(error, response.completed_count);
                // An error of the rollback is ignored, because the caller needs the error of the commit. If the
                // rollback fails, the connection is closed.
                let _ = self.roll_back().await;
                Err(commit_error)
            }
        }
    }

    /// Records that the server has executed this crate's COMMIT or ROLLBACK, and keeps the connection only if the
    /// database session is clean.
    fn record_end(&mut self, response: &SimpleQueryResponse) -> Result<(), DbErr> {
        self.pending = None;
        self.set_has_unknown_raw_commit(false);
        self.end_reason = Some(EndReason::EndedByCrate);
        if self.must_clean_session {
            let prepared_statement_mode = self.prepared_statement_mode;
            let is_clean = has_only_the_drivers_prepared_statements(
                self.connection_after_end()?,
                response,
                prepared_statement_mode,
            );
            if is_clean { self.must_clean_session = false } else { self.discard_connection() }
        }
        Ok(())
    }

    /// Returns the error of a commit that the server refused after `completed_count` statements of its message. If the
    /// transaction had ended before, this is recorded.
    fn record_commit_error(&mut self, error: sqlx::Error, completed_count: usize) -> DbErr {
        self.set_has_unknown_raw_commit(false);
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match (completed_count, code.as_deref()) {
            (0, Some(TRANSACTION_ENDED_SQLSTATE)) => self.record_end_by_statement().into(),
            (0, Some(IDENTITY_CHANGED_SQLSTATE)) => Error::IdentityChanged.into(),
            (_, Some(sqlstate::IN_FAILED_SQL_TRANSACTION)) => Error::TransactionFailed.into(),
            _ => exec_error(error),
        }
    }

    /// Returns the connection even if the transaction has ended, unlike [`connection`](Self::connection).
    fn connection_after_end(&mut self) -> Result<&mut C, DbErr> {
        self.connection.as_mut().ok_or_else(|| Error::TransactionOver.into())
    }

    fn discard_connection(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.discard();
        }
    }

    /// Rolls back the transaction.
    pub(crate) async fn roll_back(&mut self) -> Result<(), DbErr> {
        if self.end_reason.is_some() {
            // If the connection was closed (it was lost, or the deadline was exceeded), the server rolls back. If a
            // statement or this crate has already ended the transaction, there is nothing to roll back.
            return Ok(());
        }
        if self.may_end_in_background() {
            self.end_in_background(Ending::Rollback);
            return Ok(());
        }
        let cleaning_sql =
            if self.must_clean_session { self.prepared_statement_mode.clean_session_sql() } else { String::new() };
        let mut response = SimpleQueryResponse::default();
        if self.finish_response().await.is_err() {
            // The server rolls back when its connection is closed.
            self.close(EndReason::EndedByCrate);
            return Ok(());
        }
        self.pending = Some(Pending::End);
        let outcome = self.connection()?.simple_query(format!("ROLLBACK; {cleaning_sql}"), &mut response).await;
        match outcome {
            Ok(()) => self.record_end(&response),
            Err(_) => {
                // The server rolls back when its connection is closed.
                self.close(EndReason::EndedByCrate);
                Ok(())
            }
        }
    }
}

impl<C: Connection> Drop for TransactionState<C> {
    fn drop(&mut self) {
        if self.has_unknown_raw_commit() {
            self.record_commit_without_position();
        }
        let Some(connection) = self.connection.take() else { return };
        if self.has_outdated_statement {
            // The server rolls back when its connection is closed.
            return connection.discard_as_outdated();
        }
        let is_idle_and_clean =
            self.end_reason == Some(EndReason::EndedByCrate) && self.pending.is_none() && !self.must_clean_session;
        if is_idle_and_clean {
            return connection.release();
        }
        let cleaning_mode = self.must_clean_session.then_some(self.prepared_statement_mode);
        let ending = match (self.end_reason, self.pending) {
            // COMMIT or ROLLBACK was sent. If it succeeded, a further ROLLBACK would cause a warning in the server's
            // log.
            (_, Some(Pending::End)) => Ending::Sent,
            (Some(EndReason::EndedByCrate), _) => Ending::Done,
            // The transaction is open, or the statement that ended it may have begun another one (`COMMIT AND CHAIN`).
            _ => Ending::Rollback,
        };
        let connection_to_release = ConnectionToRelease { connection: Some(connection), ending, cleaning_mode };
        spawn_or_drop(connection_to_release.return_to_pool());
    }
}
