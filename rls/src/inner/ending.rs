//! The end of a transaction: commit, rollback or drop, and the clean-up of the connection.

use futures_util::FutureExt;
use sea_orm::{DbErr, RuntimeErr, sqlx};

use super::{Inner, OUTERMOST, Over, Pending};
use crate::{
    Error,
    error::{is_from_pooler, is_lost},
    identity::{IDENTITY_CHANGED, TRANSACTION_ENDED},
    runtime::{AtomicBool, Ordering, spawn_detached},
    wire::{Answer, Connection, Ending, Released, SERVER_POSITION, exec_error, has_only_driver_statements},
};

impl<C: Connection> Inner<C> {
    /// Ends a transaction that only read. What it read is valid whether it is committed or rolled back, so the caller
    /// does not wait: the message is sent, and a task that owns the connection waits for the answer before it returns
    /// the connection to its pool. COMMIT and ROLLBACK differ only in the server's statistics, and in whether a
    /// NOTIFY sent by a function of a view is delivered.
    fn end_unawaited(&mut self, ending: Ending) {
        self.over = Some(Over::Ended);
        self.pending = None;
        let Some(pooled) = self.pooled.take() else { return };
        let mut end = Box::pin(Released { connection: Some(pooled), ending, cleaning: None }.return_to_pool());
        // Polled once, so that the message is sent now, however long the runtime takes to begin the task.
        if end.as_mut().now_or_never().is_none() {
            spawn_detached(end);
        }
    }

    /// Whether the commit or rollback need not be awaited: there is nothing to verify or clean, and no log position to
    /// record.
    fn may_end_unawaited(&self) -> bool {
        self.ends_unawaited
            && !self.unclean
            && self.server.is_none()
            && !self.frames.iter().any(|frame| frame.unverified)
    }

    /// Commits the transaction. `is_sent` is set when the COMMIT is sent, and cleared if it is known to have failed.
    ///
    /// PostgreSQL answers the commit of a failed transaction with ROLLBACK, which the driver reports as success. So
    /// another statement, which fails in a failed transaction, is sent before it in the same message.
    pub(crate) async fn commit(&mut self, is_sent: &AtomicBool) -> Result<(), DbErr> {
        if self.may_end_unawaited() {
            self.end_unawaited(Ending::Commit);
            return Ok(());
        }
        let is_unverified = self.frames.iter().any(|frame| frame.unverified);
        let before =
            if is_unverified { self.stored_identity.require_sql(&self.started_at) } else { "CLOSE ALL".to_owned() };
        // In the same message, so that the position costs no round trip.
        let position = if self.server.is_some() { format!("SELECT {SERVER_POSITION}; ") } else { String::new() };
        let after = if self.unclean { self.statements.clean_sql() } else { String::new() };
        let mut answer = Answer::default();
        self.ready().await?;
        self.pending = Some(Pending::End);
        let server = self.server.clone();
        // If `commit` is dropped before the server answers, it records that the outcome is unknown.
        let commit = server.as_ref().map(|server| server.commit(&self.identity));
        is_sent.store(!self.writes_nothing(), Ordering::SeqCst);
        let connection = self.connection()?;
        let outcome = connection.simple_query(format!("{before}; COMMIT; {position}{after}"), &mut answer).await;
        // The COMMIT is the second statement.
        let is_committed = answer.completed >= 2;
        // A pooler that lost the server does not know whether the server had the COMMIT.
        let is_unknown = outcome.as_ref().err().is_some_and(|error| is_lost(error) || is_from_pooler(error));
        if let Some(commit) = commit {
            commit.answered(is_committed, answer.position, is_unknown);
        }
        match outcome {
            Ok(()) => self.ended(&answer),
            // The transaction is committed, but the connection could not be cleaned.
            Err(_) if is_committed => {
                self.close(Over::Ended);
                Ok(())
            }
            Err(error) if is_unknown => {
                self.close(Over::Lost);
                Err(if self.writes_nothing() {
                    Error::ConnectionLost(exec_error(error)).into()
                } else {
                    commit_unknown(&error.to_string())
                })
            }
            Err(error) => {
                is_sent.store(false, Ordering::SeqCst);
                (self.pending, self.has_unread_end) = (None, true);
                let refused = self.commit_error(error, answer.completed);
                self.roll_back_failed_commit(OUTERMOST).await;
                Err(refused)
            }
        }
    }

    /// Records that the server has ended the transaction, and keeps the connection only if the database session is
    /// clean.
    fn ended(&mut self, answer: &Answer) -> Result<(), DbErr> {
        self.pending = None;
        self.over = Some(Over::Ended);
        if self.unclean {
            let statements = self.statements;
            let is_clean = has_only_driver_statements(self.connection_after_end()?, answer, statements);
            if is_clean { self.unclean = false } else { self.discard() }
        }
        Ok(())
    }

    fn commit_error(&mut self, error: sqlx::Error, completed: usize) -> DbErr {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match (completed, code.as_deref()) {
            (0, Some(TRANSACTION_ENDED)) => self.ended_by_statement().into(),
            (0, Some(IDENTITY_CHANGED)) => Error::IdentityChanged.into(),
            (_, Some("25P02")) => Error::TransactionFailed.into(),
            _ => exec_error(error),
        }
    }

    /// Records that a statement of the caller ended the transaction. It may have committed what was written before, at
    /// an unknown log position.
    pub(crate) fn ended_by_statement(&mut self) -> Error {
        self.over = Some(Over::EndedByStatement);
        self.note_unknown_commit();
        Error::TransactionEnded
    }

    /// Returns the error of a call that the server did not answer by the deadline.
    pub(crate) fn deadline_error(&self) -> DbErr {
        if self.is_committing {
            return commit_unknown("the server did not answer in time");
        }
        Error::DeadlineExceeded.into()
    }

    fn note_unknown_commit(&self) {
        if let Some(server) = &self.server {
            // Dropping it unanswered records the unknown commit.
            drop(server.commit(&self.identity));
        }
    }

    fn connection_after_end(&mut self) -> Result<&mut C, DbErr> {
        self.pooled.as_mut().ok_or_else(|| Error::TransactionOver.into())
    }

    fn discard(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            pooled.discard();
        }
    }

    pub(crate) async fn roll_back(&mut self) -> Result<(), DbErr> {
        if self.over.is_some() {
            // If the connection was lost or the deadline exceeded, the server rolls back. If a statement ended the
            // transaction, there is nothing to roll back.
            return Ok(());
        }
        if self.may_end_unawaited() {
            self.end_unawaited(Ending::Rollback);
            return Ok(());
        }
        let after = if self.unclean { self.statements.clean_sql() } else { String::new() };
        let mut answer = Answer::default();
        if self.ready().await.is_err() {
            // The server rolls back when its connection is lost.
            self.close(Over::Ended);
            return Ok(());
        }
        self.pending = Some(Pending::End);
        let outcome = self.connection()?.simple_query(format!("ROLLBACK; {after}"), &mut answer).await;
        match outcome {
            Ok(()) => self.ended(&answer),
            Err(_) => {
                // The server rolls back when its connection is lost.
                self.close(Over::Ended);
                Ok(())
            }
        }
    }
}

impl<C: Connection> Drop for Inner<C> {
    fn drop(&mut self) {
        if self.is_committing {
            self.note_unknown_commit();
        }
        let Some(pooled) = self.pooled.take() else { return };
        let is_idle_and_clean = self.over == Some(Over::Ended) && self.pending.is_none() && !self.unclean;
        if is_idle_and_clean {
            return pooled.release();
        }
        let cleaning = self.unclean.then_some(self.statements);
        let ending = match (self.over, self.pending) {
            // COMMIT or ROLLBACK was sent. If it succeeded, another rollback would log a warning on the server.
            (_, Some(Pending::End)) => Ending::Sent,
            (Some(Over::Ended), _) => Ending::Done,
            // The transaction is open, or the statement that ended it may have begun another.
            _ => Ending::Rollback,
        };
        let released = Released { connection: Some(pooled), ending, cleaning };
        spawn_detached(released.return_to_pool());
    }
}

pub(crate) fn commit_unknown(text: &str) -> DbErr {
    Error::CommitUnknown(DbErr::Conn(RuntimeErr::Internal(text.to_owned()))).into()
}
