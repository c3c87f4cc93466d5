//! The part of a transaction's state that is outside the lock of its connection: what was dropped, and how many calls
//! wait for the connection.

use std::sync::PoisonError;

use tokio::sync::Notify;

use crate::runtime::{AtomicUsize, BlockingMutex, Ordering};

/// What must be recorded even while a call holds the connection: a handle that is being dropped cannot wait for that
/// call.
#[derive(Debug, Default)]
pub(crate) struct StateOutsideLock {
    /// What was dropped since the last call, each with the id of its frame (the transaction, or a savepoint in it).
    dropped: BlockingMutex<Vec<(u64, Dropped)>>,
    /// How many calls wait for the connection.
    waiter_count: AtomicUsize,
    waiter_added: Notify,
}

/// What was dropped before it was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The handle of the frame, without commit or rollback.
    Handle,
    /// An operation of several statements (see
    /// [`UncheckedTransaction::mark_failed`](crate::UncheckedTransaction::mark_failed)).
    Operation,
}

/// Counts one call that waits for the connection.
pub(crate) struct WaiterGuard<'a>(&'a StateOutsideLock);

impl<'a> WaiterGuard<'a> {
    pub(crate) fn new(state: &'a StateOutsideLock) -> Self {
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

impl StateOutsideLock {
    pub(crate) fn record_drop(&self, frame_id: u64, dropped: Dropped) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push((frame_id, dropped));
    }

    /// Returns whether a call waits for the connection.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiter_count.load(Ordering::SeqCst) > 0
    }

    /// Returns when another call waits for the connection.
    pub(crate) async fn wait_for_waiter(&self) {
        loop {
            let waiter_added = self.waiter_added.notified();
            if self.has_waiters() {
                return;
            }
            waiter_added.await;
        }
    }

    /// Returns what was dropped since the last call, and forgets it.
    pub(crate) fn take_drops(&self) -> Vec<(u64, Dropped)> {
        std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
