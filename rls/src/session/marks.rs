//! What the calls of a transaction leave for whoever has the connection.

use std::sync::PoisonError;

use tokio::sync::Notify;

use crate::runtime::{AtomicUsize, Ordering, StdMutex};

/// What can be recorded without the connection: a handle that is being dropped cannot wait for it.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    dropped: StdMutex<Vec<(u64, Dropped)>>,
    /// How many calls wait for the connection.
    waiting: AtomicUsize,
    wanted: Notify,
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
pub(super) struct Waiting<'a>(&'a Marks);

impl<'a> Waiting<'a> {
    pub(super) fn new(marks: &'a Marks) -> Self {
        marks.waiting.fetch_add(1, Ordering::SeqCst);
        marks.wanted.notify_waiters();
        Self(marks)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Marks {
    pub(super) fn add(&self, frame: u64, dropped: Dropped) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push((frame, dropped));
    }

    pub(crate) fn take(&self) -> Vec<(u64, Dropped)> {
        std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until a call waits for the connection.
    pub(super) async fn waiter(&self) {
        loop {
            let wanted = self.wanted.notified();
            if self.has_waiters() {
                return;
            }
            wanted.await;
        }
    }
}
