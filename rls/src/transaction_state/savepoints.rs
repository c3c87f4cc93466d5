//! Savepoints: how they are released or rolled back.

use sea_orm::DbErr;

use super::{Failure, OUTERMOST_FRAME_ID, Pending, TransactionState};
use crate::{
    Error,
    runtime::{AtomicBool, Ordering},
    wire::Connection,
};

impl<C: Connection> TransactionState<C> {
    /// Removes the frame and those nested in it. If the identity has not been verified in one of them, it must be
    /// verified in the frame around them.
    pub(crate) fn remove_frames_from(&mut self, frame_id: u64) {
        let Some(index) = self.frames.iter().position(|frame| frame.id == frame_id) else { return };
        let needed_verification = self.frames.drain(index..).any(|frame| frame.needs_verification);
        if let Some(outer) = self.frames.last_mut() {
            outer.needs_verification |= needed_verification;
        }
    }

    /// Rolls back to the savepoint and releases it.
    pub(crate) async fn roll_back_savepoint(&mut self, frame_id: u64) -> Result<(), DbErr> {
        let Some(index) = self.frames.iter().position(|frame| frame.id == frame_id) else {
            return Err(Error::TransactionOver.into());
        };
        let outer_id = index.checked_sub(1).map_or(OUTERMOST_FRAME_ID, |outer_index| self.frames[outer_index].id);
        let sql = format!("ROLLBACK TO SAVEPOINT {0}; RELEASE SAVEPOINT {0}", savepoint_name(frame_id));
        let outcome = self.run_own_sql(sql, Pending::RollbackTo(frame_id)).await;
        self.remove_frames_from(frame_id);
        if outcome.is_err() {
            self.mark_failed(outer_id, Failure::CallFailed);
        }
        outcome.map(drop)
    }

    /// Releases the savepoint. Sets `may_have_taken_effect` when the RELEASE is sent, and clears it if the RELEASE
    /// fails. It is cleared even if the connection was lost, because the server then rolls back the whole transaction.
    pub(crate) async fn release_savepoint(
        &mut self,
        frame_id: u64,
        may_have_taken_effect: &AtomicBool,
    ) -> Result<(), DbErr> {
        if self.frame(frame_id).is_some_and(|frame| frame.needs_verification)
            && let Err(error) = self.verify(frame_id, Pending::DroppableCall).await
        {
            self.roll_back_failed_commit(frame_id).await;
            return Err(error);
        }
        let sql = format!("RELEASE SAVEPOINT {}", savepoint_name(frame_id));
        may_have_taken_effect.store(true, Ordering::SeqCst);
        match self.run_own_sql(sql, Pending::Release(frame_id)).await {
            Ok(_) => {
                self.remove_frames_from(frame_id);
                Ok(())
            }
            Err(error) => {
                may_have_taken_effect.store(false, Ordering::SeqCst);
                self.roll_back_failed_commit(frame_id).await;
                Err(error)
            }
        }
    }

    /// Rolls back the frame, or the transaction, after its commit has failed. The commit has consumed the handle, so
    /// the caller cannot roll back.
    pub(crate) async fn roll_back_failed_commit(&mut self, frame_id: u64) {
        if self.end_reason.is_some() {
            return;
        }
        // An error of the rollback is ignored, because the caller needs the error of the commit. If the rollback fails,
        // the connection is closed, or the outer frame is marked as failed.
        let _ = if frame_id == OUTERMOST_FRAME_ID {
            self.roll_back().await
        } else {
            self.roll_back_savepoint(frame_id).await
        };
    }
}

/// Returns the name of the frame's savepoint, which is unique in its transaction.
pub(crate) fn savepoint_name(frame_id: u64) -> String {
    format!("rls_{frame_id}")
}
