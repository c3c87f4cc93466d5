//! Savepoints: how they are released or rolled back.

use sea_orm::DbErr;

use super::{Failure, Inner, OUTERMOST, Pending};
use crate::{
    Error,
    runtime::{AtomicBool, Ordering},
    wire::Connection,
};

impl<C: Connection> Inner<C> {
    /// Removes the frame and those nested in it. If one of them was not verified, the frame around it must be verified
    /// instead.
    pub(crate) fn remove_frames_from(&mut self, frame: u64) {
        let Some(index) = self.frames.iter().position(|candidate| candidate.id == frame) else { return };
        let had_unverified = self.frames.drain(index..).any(|frame| frame.is_unverified);
        if let Some(outer) = self.frames.last_mut() {
            outer.is_unverified |= had_unverified;
        }
    }

    /// Rolls back to the savepoint and releases it.
    pub(crate) async fn roll_back_to(&mut self, frame: u64) -> Result<(), DbErr> {
        let Some(index) = self.frames.iter().position(|candidate| candidate.id == frame) else {
            return Err(Error::TransactionOver.into());
        };
        let outer = self.frames.get(index.wrapping_sub(1)).map_or(OUTERMOST, |frame| frame.id);
        let sql = format!("ROLLBACK TO SAVEPOINT {0}; RELEASE SAVEPOINT {0}", savepoint_name(frame));
        let outcome = self.send_internal(sql, Pending::RollbackTo(frame)).await;
        self.remove_frames_from(frame);
        if outcome.is_err() {
            self.mark_failed(outer, Failure::Failed);
        }
        outcome.map(drop)
    }

    /// Releases the savepoint. `is_sent` is set when the RELEASE is sent, and cleared if it is known to have failed.
    pub(crate) async fn release(&mut self, frame: u64, is_sent: &AtomicBool) -> Result<(), DbErr> {
        if self.frame(frame).is_some_and(|frame| frame.is_unverified)
            && let Err(changed) = self.verify(frame, Pending::Stream).await
        {
            self.roll_back_failed_commit(frame).await;
            return Err(changed);
        }
        let sql = format!("RELEASE SAVEPOINT {}", savepoint_name(frame));
        is_sent.store(true, Ordering::SeqCst);
        match self.send_internal(sql, Pending::Release(frame)).await {
            Ok(_) => {
                self.remove_frames_from(frame);
                Ok(())
            }
            Err(error) => {
                is_sent.store(false, Ordering::SeqCst);
                self.roll_back_failed_commit(frame).await;
                Err(error)
            }
        }
    }

    /// Rolls back after a failed commit. The commit has consumed the handle, so the caller cannot roll back.
    pub(crate) async fn roll_back_failed_commit(&mut self, frame: u64) {
        if self.end_reason.is_some() {
            return;
        }
        // An error of the rollback is ignored, because the caller needs the first error. After it, the connection is
        // closed, or the outer frame has failed.
        let _ = if frame == OUTERMOST { self.roll_back().await } else { self.roll_back_to(frame).await };
    }
}

/// Returns the name of the frame's savepoint, which is unique in its transaction.
pub(crate) fn savepoint_name(frame: u64) -> String {
    format!("rls_{frame}")
}
