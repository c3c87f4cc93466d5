//! The attempts to run one statement in a transaction of its own.

use std::time::Instant;

use sea_orm::DbErr;

use super::IdentityConnection;
use crate::{
    Transaction,
    error::{is_connection_lost, is_outdated_statement_error, is_read_only_error, may_succeed_on_primary, sqlx_error},
    servers::Purpose,
};

/// The maximum number of attempts to run one statement; see [`Attempts::decide_retry`].
const MAX_ATTEMPTS: u32 = 3;

/// The attempts to run one statement.
pub(super) struct Attempts<'a> {
    connection: &'a IdentityConnection,
    /// Whether the next attempt runs in a `READ ONLY` transaction, on a replica if one is fresh enough.
    runs_read_only: bool,
    attempt_count: u32,
    /// Whether the last attempt to begin a transaction failed after waiting for at least the pool's `acquire_timeout`.
    /// Then the statement is not retried.
    has_waited_in_vain: bool,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(connection: &'a IdentityConnection, runs_read_only: bool) -> Self {
        Self { connection, runs_read_only, attempt_count: 0, has_waited_in_vain: false }
    }

    /// Begins the transaction of the next attempt.
    pub(super) async fn begin(&mut self) -> Result<Transaction, DbErr> {
        self.attempt_count += 1;
        let started_at = Instant::now();
        let begun = self.connection.begin_for_one_statement(self.runs_read_only).await;
        let limit = self.connection.servers().primary_pool().acquire_timeout();
        self.has_waited_in_vain = begun.is_err() && limit.is_some_and(|limit| started_at.elapsed() >= limit);
        begun
    }

    /// Decides whether there is another attempt after this error, and whether that attempt runs read-only.
    pub(super) fn decide_retry(&mut self, error: &DbErr) -> bool {
        self.attempt_count < MAX_ATTEMPTS
            && !self.has_waited_in_vain
            && self.connection.decide_retry(error, &mut self.runs_read_only)
    }
}

impl IdentityConnection {
    /// Begins a transaction for one statement. With `runs_read_only`, the transaction is `READ ONLY`, and begins on a
    /// replica if one is fresh enough. The transaction does not map errors, because the unmapped error says whether the
    /// statement may be retried.
    async fn begin_for_one_statement(&self, runs_read_only: bool) -> Result<Transaction, DbErr> {
        let unguarded = if runs_read_only {
            self.begin_read(self.deadline).await?
        } else {
            self.begin_with_modes(Purpose::NeedsPrimary, "", self.deadline).await?
        };
        Ok(Transaction::new(unguarded, |_, error| error).with_deferred_verification())
    }

    /// Returns whether a failed statement may be retried in a new transaction: only if it has left nothing in the
    /// database. Sets `runs_read_only` to `false` if the retry must run in a transaction that may write, or on the
    /// primary. Wakes the monitor if the server that was the primary is read-only.
    fn decide_retry(&self, error: &DbErr, runs_read_only: &mut bool) -> bool {
        if sqlx_error(error).is_some_and(is_outdated_statement_error) {
            // No connection that is open now will be used again, so the retry prepares the statement again. (Of a pool
            // that the application already had, only this connection was discarded, so the retry may meet another
            // outdated statement.)
            return true;
        }
        let Some(cluster) = self.servers().cluster() else {
            // A `SELECT` that seems only to read may write, through a function that a view or a policy calls.
            return is_connection_lost(error) || is_read_only_error(error) && std::mem::take(runs_read_only);
        };
        if std::mem::take(runs_read_only) {
            // The primary may accept what the replica refused.
            return may_succeed_on_primary(error);
        }
        let failed_as_read_only = is_read_only_error(error);
        if failed_as_read_only {
            // The server that was the primary may have become a standby.
            cluster.wake_monitor();
        }
        failed_as_read_only || is_connection_lost(error)
    }
}
