//! Verifies that the server is still in the transaction that was begun, with the identity that was set.

use sea_orm::DbErr;

use super::{Failure, Pending, TransactionState};
use crate::{
    Error,
    server_process::StatementCounts,
    wire::{Connection, PreparedStatementMode, exec_error},
};

impl<C: Connection> TransactionState<C> {
    /// Verifies that the server is still in the same transaction, with the same identity. If the identity has changed,
    /// the frame fails. If the server is in another transaction, a statement of the caller has ended the one that was
    /// begun.
    pub(crate) async fn verify(&mut self, frame_id: u64, pending: Pending) -> Result<(), DbErr> {
        let sql = self.read_back_identity.verify_sql(&self.started_at);
        let row = self.run_own_sql(sql, pending).await?.last_row;
        let finding = row.as_ref().and_then(|row| row.integer(0));
        if finding.is_some() {
            self.set_has_unknown_raw_commit(false);
        }
        match finding {
            // The identity is unchanged.
            Some(0) => {
                let counts = row.and_then(|row| StatementCounts::read(&row, 1));
                self.clear_cached_statements_if_deallocated(counts, pending).await?;
                if let Some(frame) = self.frame(frame_id) {
                    frame.needs_verification = false;
                }
                Ok(())
            }
            // The identity was changed.
            Some(1) => {
                self.mark_failed(frame_id, Failure::IdentityChanged);
                Err(Error::IdentityChanged.into())
            }
            // This is another transaction (2), or there is no answer that can be read.
            _ => Err(self.record_end_by_statement().into()),
        }
    }

    /// If a statement has removed prepared statements of the driver (`DEALLOCATE`), clears the driver's cache, so that
    /// the driver prepares them again. `counts` is what the database session still has.
    async fn clear_cached_statements_if_deallocated(
        &mut self,
        counts: Option<StatementCounts>,
        pending: Pending,
    ) -> Result<(), DbErr> {
        if self.prepared_statement_mode == PreparedStatementMode::PerTransaction {
            return Ok(());
        }
        let cached_count = self.connection()?.cached_statement_count();
        if counts.is_some_and(|counts| counts.driver_can_reuse_statements(cached_count)) {
            return Ok(());
        }
        self.pending = Some(pending);
        let outcome = self.connection()?.clear_cached_statements().await;
        let frame_id = self.innermost_frame_id();
        self.record_outcome(frame_id, outcome).map_err(|error| self.caller_error(error, exec_error))
    }
}
