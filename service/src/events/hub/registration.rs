//! A subscriber's registration in the hub: how it begins and ends, and what the subscriber gets through it.

use std::{sync::Arc, time::Instant};

use entity::session_events::Model as Event;
use rls::LogPosition;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use super::{HistoryId, Hub, Notification, PollerGuard, SessionSnapshot, Subscriber};
use crate::{Error, events::recent::RecentEvents};

/// A subscriber's registration, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(super) handle: SubscriberHandle,
    pub(crate) notifications: watch::Receiver<Notification>,
}

/// Events that the poller has read for all subscribers of a session.
#[derive(Debug)]
pub(crate) struct RecentPage {
    pub(crate) events: Vec<Event>,
    /// The time at which the poll that read the newest of them began. `None` if others may have followed them then.
    pub(crate) caught_up_at: Option<Instant>,
    /// With replicas, a position in the write-ahead log after all these events.
    pub(crate) log_position: Option<LogPosition>,
}

/// Identifies a subscriber in the hub. [`remove`](Self::remove) removes the subscriber; dropping a handle does not.
#[derive(Clone, Debug)]
pub(crate) struct SubscriberHandle {
    pub(super) hub: Arc<Hub>,
    pub(super) session_id: Uuid,
    pub(super) id: u64,
}

impl Hub {
    /// Adds a subscriber, and starts the poller if it is not running. `start_poller` spawns the task of the poller.
    /// `log_position` is the position up to which the subscriber has read or written.
    pub(crate) fn register(
        self: &Arc<Self>,
        start_poller: impl FnOnce(PollerGuard),
        snapshot: &SessionSnapshot,
        account_id: Option<Uuid>,
        log_position: Option<LogPosition>,
    ) -> Result<Registration, Error> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Error::PoolClosed);
        }
        state.required_log_position = state.required_log_position.max(log_position);
        state.latest_log_position = state.latest_log_position.max(log_position);
        state.last_subscriber_id += 1;
        let id = state.last_subscriber_id;
        if state.sessions.is_empty() {
            state.history_id = Some(snapshot.history_id.clone());
        } else if state.history_id.as_ref() != Some(&snapshot.history_id) {
            // One of the two histories is outdated. The next poll finds out which one.
            state.history_id = None;
        }
        let (history_id, latest_log_position) = (state.history_id.clone(), state.latest_log_position);
        let session = state.sessions.entry(snapshot.session_id).or_default();
        let is_new_session = session.subscribers.is_empty();
        if is_new_session {
            session.newest_seq = snapshot.newest_seq;
            session.recent = RecentEvents::starting_after(snapshot.newest_seq);
        }
        let (sender, receiver) = watch::channel(Notification {
            newest_seq: session.newest_seq,
            history_id,
            log_position: latest_log_position,
            end_error: None,
        });
        session.subscribers.insert(id, Subscriber { account_id, notifications: sender });
        state.has_newly_watched_session |= is_new_session;
        let handle = SubscriberHandle { hub: self.clone(), session_id: snapshot.session_id, id };
        let registration = Registration { handle, notifications: receiver };
        if state.poller_id.is_none() {
            state.poller_id = Some(id);
            // The lock must be released first: a runtime that is shutting down drops the poller's task as soon as it is
            // spawned, and with the task the guard, whose `drop` locks the state.
            drop(state);
            start_poller(PollerGuard { hub: self.clone(), poller_id: id });
        } else if is_new_session {
            self.poller_wake.notify_one();
        }
        Ok(registration)
    }
}

impl Registration {
    pub(crate) fn handle(&self) -> SubscriberHandle {
        self.handle.clone()
    }

    /// Returns the newest notification, even if it was seen before, and marks it as seen. `Err` if the subscription has
    /// ended: with the error that ended it, or without one if the subscriber was removed.
    pub(crate) fn newest_notification(&mut self) -> Result<Notification, Option<Error>> {
        self.newest_notification_interrupted_by(|| ())
    }

    /// As [`newest_notification`](Self::newest_notification). `between` runs between the check whether the sender has
    /// been dropped and the read: in a test, it ends the subscription.
    pub(super) fn newest_notification_interrupted_by(
        &mut self,
        between: impl FnOnce(),
    ) -> Result<Notification, Option<Error>> {
        // The hub sends the error and then drops the sender. If the sender has been dropped before the notification is
        // read, that notification is the last one. If the notification were read first, the error could be sent between
        // the two, and would be missed.
        let has_ended = self.notifications.has_changed().is_err();
        between();
        let mut notification = self.notifications.borrow_and_update().clone();
        match notification.end_error.take() {
            None if !has_ended => Ok(notification),
            end_error => Err(end_error),
        }
    }

    /// Returns the time at which the last poll that was published (see [`Hub::publish`]) began, or `None` before the
    /// first. The subscribers have been notified of every event that was visible at that time, with two exceptions. If
    /// a session has more than fifty new events, a poll reads only the first fifty of them. And an event may become
    /// visible later than `EAGER_READING_TIME` after its number was drawn, because its transaction stayed open. Until
    /// all older transactions have ended too, only every tenth poll looks for such an event.
    pub(crate) fn polled_at(&self) -> Option<Instant> {
        self.handle.hub.lock().polled_at
    }

    /// Returns the permits for the pages that the subscribers of the `Sparc` handle may read at the same time.
    pub(crate) fn page_read_permits(&self) -> Arc<Semaphore> {
        self.handle.hub.page_read_permits.clone()
    }

    /// Returns the events that follow `after_seq`. They may be newer than the last notification. `None` if there are
    /// none, if the hub does not keep all of them, if this subscriber's access was not checked or has ended, or if
    /// `history_id` is not that of the current history.
    pub(crate) fn recent_events(&self, history_id: &HistoryId, after_seq: i64) -> Option<RecentPage> {
        let state = self.handle.hub.lock();
        let session = state.sessions.get(&self.handle.session_id)?;
        if !session.subscribers.contains_key(&self.handle.id) || state.history_id.as_ref() != Some(history_id) {
            return None;
        }
        let (events, caught_up_at) = session.recent.events_after(after_seq, self.handle.id)?;
        Some(RecentPage { events, caught_up_at, log_position: state.latest_log_position })
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
