//! Completes what earlier calls on a transaction left unfinished, before the next call sends anything.

use sea_orm::DbErr;

use super::{EndReason, Failure, OUTERMOST_FRAME_ID, Pending, TransactionState};
use crate::{
    runtime::timeout,
    unlocked_state::{UnfinishedReason, UnlockedState},
    wire::{Connection, ROLLBACK_TIMEOUT, exec_error},
};

impl<C: Connection> TransactionState<C> {
    /// Completes what earlier calls left unfinished: reads an outstanding response, updates the frames, and rolls back
    /// abandoned frames. If this call is dropped too, the next call continues where this one stopped.
    pub(crate) async fn settle(&mut self, unlocked_state: &UnlockedState) -> Result<(), DbErr> {
        if self.pending.is_none() {
            self.finish_response().await?;
        }
        if let (Some(pending), None) = (self.pending, self.end_reason) {
            let deadline = self.statement_deadline;
            let drain = self.connection()?.drain();
            let drained = match deadline {
                // Without a deadline, a statement is awaited however long it takes, even if its call was dropped.
                None => Ok(drain.await),
                Some(deadline) => timeout(deadline.max(ROLLBACK_TIMEOUT), drain).await,
            };
            let has_server_error = match drained {
                Ok(Ok(server_error)) => server_error.is_some(),
                Ok(Err(error)) => {
                    self.close(EndReason::ConnectionLost);
                    return Err(self.caller_error(error, exec_error));
                }
                Err(_) => {
                    self.close(EndReason::DeadlineExceeded);
                    return Err(self.deadline_error());
                }
            };
            (self.pending, self.must_finish_response) = (None, false);
            match pending {
                Pending::Call(frame_id) => self.mark_failed(frame_id, Failure::CallFailed),
                Pending::DroppableCall if has_server_error => {
                    let frame_id = self.innermost_frame_id();
                    self.mark_failed(frame_id, Failure::CallFailed);
                }
                Pending::DroppableCall => {}
                // The nested transaction was never returned to a caller.
                Pending::Savepoint(frame_id) => {
                    if let Some(frame) = self.frame(frame_id) {
                        frame.is_abandoned = true;
                    }
                }
                Pending::Release(frame_id) | Pending::RollbackTo(frame_id) if !has_server_error => {
                    self.remove_frames_from(frame_id)
                }
                Pending::Release(frame_id) | Pending::RollbackTo(frame_id) => {
                    self.mark_failed(frame_id, Failure::CallFailed)
                }
                // The transaction was never returned to a caller.
                Pending::Begin => self.close(EndReason::EndedByCrate),
                // The transaction has ended, by commit or rollback.
                Pending::End if !has_server_error => self.end_reason = Some(EndReason::EndedByCrate),
                // The transaction may still be open. The server rolls it back when the connection is closed.
                Pending::End => self.close(EndReason::EndedByCrate),
            }
            if has_server_error {
                self.set_has_unknown_raw_commit(false);
            } else if self.has_unknown_raw_commit() && self.end_reason.is_none() {
                // The call that sent the COMMIT was dropped. The verification fails if the transaction has ended.
                self.verify(self.innermost_frame_id(), Pending::DroppableCall).await?;
            }
        }
        for (frame_id, reason) in unlocked_state.take_unfinished() {
            match reason {
                UnfinishedReason::Failed => self.mark_failed(frame_id, Failure::CallFailed),
                UnfinishedReason::Abandoned => {
                    if let Some(frame) = self.frame(frame_id) {
                        frame.is_abandoned = true;
                    }
                }
            }
        }
        while let (Some(frame_id), None) =
            (self.frames.iter().find(|frame| frame.is_abandoned).map(|frame| frame.id), self.end_reason)
        {
            if frame_id == OUTERMOST_FRAME_ID {
                self.roll_back().await?;
            } else {
                self.roll_back_savepoint(frame_id).await?;
            }
        }
        Ok(())
    }
}
