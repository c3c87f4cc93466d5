//! The part of a transaction's state that is outside the lock of its connection: the frames that were left unfinished,
//! and how many calls wait for the connection.

use std::sync::PoisonError;

use tokio::sync::Notify;

use crate::runtime::{AtomicUsize, BlockingMutex, Ordering};

/// What must be recorded even while a call holds the connection: a handle that is being dropped cannot wait for that
/// call.
#[derive(Debug, Default)]
pub(crate) struct UnlockedState {
    /// The ids of the frames (the transaction, or a savepoint in it) that were left unfinished, each with the reason,
    /// until the next call takes them.
    unfinished: BlockingMutex<Vec<(u64, UnfinishedReason)>>,
    /// How many calls wait for the connection.
    waiter_count: AtomicUsize,
    /// Notified when a call begins to wait.
    waiter_added: Notify,
}

/// Why a frame is unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnfinishedReason {
    /// The handle of the frame was dropped without commit or rollback, its rollback was not answered in time, or its
    /// commit was not sent in time. In a transaction that can write nothing, it is enough that the commit was not
    /// answered in time.
    Abandoned,
    /// An operation of several statements did not complete (see
    /// [`UnguardedTransaction::mark_failed`](crate::UnguardedTransaction::mark_failed)), or the task of a stream
    /// stopped before the end of the stream. For the outermost frame, another possible reason is that a RELEASE
    /// SAVEPOINT was sent but not answered in time.
    Failed,
}

/// Counts one call as waiting for the connection, until the guard is dropped.
pub(crate) struct WaiterGuard<'a>(&'a UnlockedState);

impl<'a> WaiterGuard<'a> {
    pub(crate) fn new(state: &'a UnlockedState) -> Self {
        state.waiter_count.fetch_add(1, Ordering::SeqCst);
        state.waiter_added.notify_waiters();
        Self(state)
    }
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        self.0.waiter_count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl UnlockedState {
    pub(crate) fn record_unfinished(&self, frame_id: u64, reason: UnfinishedReason) {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).push((frame_id, reason));
    }

    /// Returns whether a call waits for the connection.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiter_count.load(Ordering::SeqCst) > 0
    }

    /// Waits until a call waits for the connection; returns at once if one does already.
    pub(crate) async fn wait_for_waiter(&self) {
        loop {
            let waiter_added = self.waiter_added.notified();
            if self.has_waiters() {
                return;
            }
            waiter_added.await;
        }
    }

    /// Returns the unfinished frames with their reasons, and forgets them.
    pub(crate) fn take_unfinished(&self) -> Vec<(u64, UnfinishedReason)> {
        std::mem::take(&mut *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
