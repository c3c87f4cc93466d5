//! A subscriber's registration in the hub.

use std::{sync::Arc, time::Instant};

use entity::session_events::Model as Event;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use super::{HistoryId, Hub, Notification};

/// A subscriber's registration, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(super) handle: SubscriberHandle,
    pub(crate) notifications: watch::Receiver<Notification>,
}

/// Identifies a subscriber in the hub. [`remove`](Self::remove) removes the subscriber; dropping a handle does not.
#[derive(Clone, Debug)]
pub(crate) struct SubscriberHandle {
    pub(super) hub: Arc<Hub>,
    pub(super) session_id: Uuid,
    pub(super) id: u64,
}

impl Registration {
    pub(crate) fn handle(&self) -> SubscriberHandle {
        self.handle.clone()
    }

    /// Returns the time at which the last successful poll began, or `None` before the first. The subscribers have been
    /// notified of every event that was visible at that time, with one exception: if an event's transaction stayed open
    /// for longer than `EAGER_READING_TIME` after it had drawn the event's number, only every tenth poll looks for it.
    pub(crate) fn polled_at(&self) -> Option<Instant> {
        self.handle.hub.lock().polled_at
    }

    /// Returns the permits for the pages that the subscribers of the `Sparc` handle may read at the same time.
    pub(crate) fn page_reads(&self) -> Arc<Semaphore> {
        self.handle.hub.page_reads.clone()
    }

    /// Returns the events that follow `after_seq`, together with the time at which they were read. `None` if there are
    /// none, if the hub does not keep all of them, if this subscriber's access was not checked or has ended, or if
    /// `history_id` is not that of the current history.
    pub(crate) fn recent_events(&self, history_id: &HistoryId, after_seq: i64) -> Option<(Vec<Event>, Instant)> {
        let state = self.handle.hub.lock();
        let session = state.sessions.get(&self.handle.session_id)?;
        if !session.subscribers.contains_key(&self.handle.id) || state.history_id.as_ref() != Some(history_id) {
            return None;
        }
        session.recent.events_after(after_seq, self.handle.id)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.handle.remove();
    }
}

impl SubscriberHandle {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Removes the subscriber. Its stream, if it is still waiting, ends.
    pub(crate) fn remove(&self) {
        let mut state = self.hub.lock();
        if let Some(session) = state.sessions.get_mut(&self.session_id) {
            session.subscribers.remove(&self.id);
            if session.subscribers.is_empty() {
                state.sessions.remove(&self.session_id);
            }
        }
        if state.sessions.is_empty() {
            self.hub.poller_wake.notify_one();
        }
    }
}
