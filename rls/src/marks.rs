//! What is recorded without access to the connection: handles that were dropped, and calls that wait for it.

use std::sync::PoisonError;

use tokio::sync::Notify;

use crate::runtime::{AtomicUsize, Ordering, StdMutex};

/// Recorded without access to the connection, because a handle that is being dropped cannot wait for it.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    dropped: StdMutex<Vec<(u64, Dropped)>>,
    /// How many calls wait for the connection.
    waiting: AtomicUsize,
    waiter_added: Notify,
}

/// What was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The handle of the frame, without commit or rollback.
    Handle,
    /// An operation of several statements, before it completed.
    Operation,
}

/// Counts one call that waits for the connection.
pub(crate) struct Waiting<'a>(&'a Marks);

impl<'a> Waiting<'a> {
    pub(crate) fn new(marks: &'a Marks) -> Self {
        marks.waiting.fetch_add(1, Ordering::SeqCst);
        marks.waiter_added.notify_waiters();
        Self(marks)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Marks {
    pub(crate) fn add(&self, frame: u64, dropped: Dropped) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push((frame, dropped));
    }

    /// Returns whether a call waits for the connection.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until another call waits for the connection.
    pub(crate) async fn wait_for_waiter(&self) {
        loop {
            let waiter_added = self.waiter_added.notified();
            if self.has_waiters() {
                return;
            }
            waiter_added.await;
        }
    }

    pub(crate) fn take(&self) -> Vec<(u64, Dropped)> {
        std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
