//! The part of a transaction's state that is outside the lock of its connection: what was left unfinished, and how many
//! calls wait for the connection.

use std::sync::PoisonError;

use tokio::sync::Notify;

use crate::runtime::{AtomicUsize, BlockingMutex, Ordering};

/// What must be recorded even while a call holds the connection: a handle that is being dropped cannot wait for that
/// call.
#[derive(Debug, Default)]
pub(crate) struct UnfinishedCalls {
    /// What was left unfinished, each with the id of its frame (the transaction, or a savepoint in it), until the next
    /// call takes it.
    unfinished: BlockingMutex<Vec<(u64, Unfinished)>>,
    /// How many calls wait for the connection.
    waiter_count: AtomicUsize,
    waiter_added: Notify,
}

/// What did not finish: it was dropped, it failed, or its deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// The handle of the frame was dropped without commit or rollback.
    DroppedHandle,
    /// An operation of several statements did not complete (see
    /// [`UncheckedTransaction::mark_failed`](crate::UncheckedTransaction::mark_failed)).
    Operation,
}

/// Counts one call that waits for the connection.
pub(crate) struct WaiterGuard<'a>(&'a UnfinishedCalls);

impl<'a> WaiterGuard<'a> {
    pub(crate) fn new(state: &'a UnfinishedCalls) -> Self {
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

impl UnfinishedCalls {
    pub(crate) fn record_unfinished(&self, frame_id: u64, unfinished: Unfinished) {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).push((frame_id, unfinished));
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

    /// Returns what was recorded as unfinished, and clears it.
    pub(crate) fn take_unfinished(&self) -> Vec<(u64, Unfinished)> {
        std::mem::take(&mut *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
