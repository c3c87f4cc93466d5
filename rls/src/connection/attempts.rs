//! The attempts to run one statement in a transaction of its own.

use std::time::Instant;

use sea_orm::DbErr;

use super::{IdentityConnection, MAX_ATTEMPTS};
use crate::Transaction;

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
