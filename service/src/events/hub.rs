//! The hub: the subscribers of each session, and the events that the poller (`poller.rs`) has read for them. A
//! *subscriber* is one subscription, not a user.
//!
//! The hub keeps the most recent events of each session, so that one read serves all subscribers of the session. A slow
//! subscriber, which needs older events, reads pages of its own from the database. So the hub's use of memory depends
//! on the number of sessions, not of subscribers.

mod registration;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rls::LogPosition;
use tokio::sync::{Notify, Semaphore, watch};
use uuid::Uuid;

pub(crate) use registration::{RecentPage, Registration, SubscriberHandle};

use super::recent::{RecentEvents, SessionUpdate};
use crate::Error;

/// Identifies the history of events (see `super::choose_history_id`). It changes when a server is promoted or the
/// database is created again from a dump; without replicas, also when the server is restarted.
pub(crate) type HistoryId = Arc<str>;

/// A notification to a subscriber.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notification {
    /// The `seq` (number) of the newest known event of the session, in the history that was last read.
    pub(crate) newest_seq: i64,
    /// `None` if it is not known which history is current.
    pub(crate) history_id: Option<HistoryId>,
    /// With replicas, a position in the write-ahead log after the newest known event. A reader uses only a server that
    /// has replayed the log up to this position.
    pub(crate) log_position: Option<LogPosition>,
    /// The error that ended the subscription, if it has ended.
    pub(crate) end_error: Option<Error>,
}

/// Maximum number of pages that the subscribers of a `Sparc` handle read at the same time, so that many slow
/// subscribers leave connections of the pool to others.
const MAX_CONCURRENT_PAGE_READS: usize = 4;

/// All subscriptions of a `Sparc` handle.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// A permit for each page that may be read at the same time.
    pub(super) page_read_permits: Arc<Semaphore>,
    /// Notified when a session is added, the last subscriber leaves or the hub is closed. The poller then does not wait
    /// for the end of its interval.
    pub(super) poller_wake: Notify,
}

impl Default for Hub {
    fn default() -> Self {
        let page_read_permits = Arc::new(Semaphore::new(MAX_CONCURRENT_PAGE_READS));
        Self { state: Mutex::default(), page_read_permits, poller_wake: Notify::default() }
    }
}

/// The hub's state, behind its mutex.
#[derive(Debug, Default)]
struct State {
    /// The sessions that have subscribers.
    sessions: HashMap<Uuid, Session>,
    /// `None` if it is not known which history is current.
    history_id: Option<HistoryId>,
    /// The id of the newest subscriber. Ids ascend.
    last_subscriber_id: u64,
    /// Whether a session was added since the last poll.
    has_newly_watched_session: bool,
    /// The running poller, identified by the subscriber for which it was started.
    poller_id: Option<u64>,
    /// The time at which the last poll that was published (see [`Hub::publish`]) began.
    polled_at: Option<Instant>,
    /// The log position that a polled server must have replayed. Each subscriber, when it subscribed, had read or
    /// written up to some position; this is the latest of these. A server that has not replayed it may lack the seat of
    /// a subscriber.
    required_log_position: Option<LogPosition>,
    /// Like `required_log_position`, but the positions up to which the poller has read count too. The newest known
    /// event of each session was written before this position.
    latest_log_position: Option<LogPosition>,
    /// Whether the `Sparc` handle is closed.
    is_closed: bool,
}

/// What the hub knows of a session that has subscribers.
#[derive(Debug, Default)]
struct Session {
    /// The `seq` of the newest known event.
    newest_seq: i64,
    recent: RecentEvents,
    /// The subscribers by their ids.
    subscribers: HashMap<u64, Subscriber>,
}

/// One subscription to a session.
#[derive(Debug)]
struct Subscriber {
    /// `None` for the service.
    account_id: Option<Uuid>,
    notifications: watch::Sender<Notification>,
}

/// What the database said about a session when a subscription to it started.
#[derive(Clone, Debug)]
pub(crate) struct SessionSnapshot {
    pub(crate) session_id: Uuid,
    pub(crate) history_id: HistoryId,
    /// The `seq` of the newest event of the session, or 0 if it has none.
    pub(crate) newest_seq: i64,
}

/// The sessions to poll.
#[derive(Debug, Default)]
pub(crate) struct WatchedSessions {
    pub(crate) session_ids: Vec<Uuid>,
    /// The `seq` of the newest known event of each session, in the order of `session_ids`.
    pub(crate) newest_seqs: Vec<i64>,
    /// Whether a session was added since the last poll.
    pub(crate) has_newly_watched_session: bool,
    /// `None` if it is not known which history is current.
    pub(crate) history_id: Option<HistoryId>,
    /// The log position that a server must have replayed to have the seats of the subscribers up to
    /// `last_subscriber_id`.
    pub(crate) required_log_position: Option<LogPosition>,
    /// The id of the newest subscriber.
    pub(crate) last_subscriber_id: u64,
}

/// The result of a check whether subscribers may still read the events of their sessions.
#[derive(Debug, Default)]
pub(crate) struct AccessCheck {
    /// In the sessions that were checked (all, or those with new events), all subscribers up to this id were checked.
    pub(crate) last_checked_subscriber_id: u64,
    pub(crate) refusals: Vec<Refusal>,
}

/// An account, or the service, whose subscribers may no longer read a session's events.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) session_id: Uuid,
    /// `None` for the service.
    pub(crate) account_id: Option<Uuid>,
    /// The error that ends the subscriptions.
    pub(crate) error: Error,
}

impl Hub {
    /// Ends all subscriptions, and refuses new ones, because the `Sparc` handle is closed.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.end_all(&Error::PoolClosed);
        self.poller_wake.notify_one();
    }

    /// Ends all subscriptions with this error.
    pub(super) fn end_all(&self, error: &Error) {
        self.lock().end_all(error);
    }

    /// Locks the state. A poisoned lock is used all the same, because no code that holds it can leave the state
    /// inconsistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sessions to poll, and resets `has_newly_watched_session`. `None` if there are no subscribers: the
    /// poller must then stop, and the hub already treats it as stopped.
    pub(super) fn begin_poll(&self) -> Option<WatchedSessions> {
        let mut state = self.lock();
        if state.sessions.is_empty() {
            state.poller_id = None;
            return None;
        }
        let has_newly_watched_session = std::mem::take(&mut state.has_newly_watched_session);
        let (session_ids, newest_seqs) = state.sessions.iter().map(|(id, session)| (*id, session.newest_seq)).unzip();
        let (history_id, required_log_position, last_subscriber_id) =
            (state.history_id.clone(), state.required_log_position, state.last_subscriber_id);
        Some(WatchedSessions {
            session_ids,
            newest_seqs,
            has_newly_watched_session,
            history_id,
            required_log_position,
            last_subscriber_id,
        })
    }

    /// Returns the session and account of each subscriber with an id up to `last_subscriber_id`. If `updates` is given,
    /// returns only the subscribers of the updated sessions.
    pub(super) fn subscriber_accounts(
        &self,
        updates: Option<&[SessionUpdate]>,
        last_subscriber_id: u64,
    ) -> BTreeSet<(Uuid, Option<Uuid>)> {
        let state = self.lock();
        let accounts_of = |(session_id, session): (&Uuid, &Session)| -> Vec<_> {
            let subscribers = session.subscribers.iter().filter(|(id, _)| **id <= last_subscriber_id);
            subscribers.map(|(_, subscriber)| (*session_id, subscriber.account_id)).collect()
        };
        match updates {
            None => state.sessions.iter().flat_map(accounts_of).collect(),
            Some(updates) => {
                let updated_sessions =
                    updates.iter().filter_map(|update| state.sessions.get_key_value(&update.session_id));
                updated_sessions.flat_map(accounts_of).collect()
            }
        }
    }

    /// Makes the history of the server that was polled the current one. Ends the subscriptions of accounts that may no
    /// longer read the events, discards the recent events, and notifies the remaining subscribers. A subscriber that
    /// has read another history then checks whether this one has the last event that the subscriber has read.
    /// `newest_seqs` has the newest `seq` of each session that has an event.
    pub(super) fn switch_to_history(
        &self,
        access_check: AccessCheck,
        history_id: &HistoryId,
        newest_seqs: &HashMap<Uuid, i64>,
        log_position: Option<LogPosition>,
    ) {
        let mut state = self.lock();
        state.latest_log_position = state.latest_log_position.max(log_position);
        let latest_log_position = state.latest_log_position;
        state.history_id = Some(history_id.clone());
        state.end_refused(access_check);
        for (id, session) in &mut state.sessions {
            session.newest_seq = newest_seqs.get(id).copied().unwrap_or_default();
            session.recent = RecentEvents::starting_after(session.newest_seq);
            for subscriber in session.subscribers.values() {
                subscriber.notifications.send_modify(|notification| {
                    notification.newest_seq = session.newest_seq;
                    notification.history_id = Some(history_id.clone());
                    notification.log_position = latest_log_position;
                });
            }
        }
    }

    /// Ends the subscriptions of accounts that may no longer read the events, then notifies the others of new events.
    pub(super) fn publish(
        &self,
        polled_at: Instant,
        access_check: AccessCheck,
        updates: Vec<SessionUpdate>,
        log_position: Option<LogPosition>,
    ) {
        let mut state = self.lock();
        state.latest_log_position = state.latest_log_position.max(log_position);
        let latest_log_position = state.latest_log_position;
        let last_checked_subscriber_id = access_check.last_checked_subscriber_id;
        state.end_refused(access_check);
        for update in updates {
            let Some(session) = state.sessions.get_mut(&update.session_id) else { continue };
            session.newest_seq = session.newest_seq.max(update.newest_seq);
            session.recent.add(update, last_checked_subscriber_id, polled_at);
            for subscriber in session.subscribers.values() {
                subscriber.notifications.send_modify(|notification| {
                    notification.newest_seq = session.newest_seq;
                    notification.log_position = latest_log_position;
                });
            }
        }
        state.polled_at = Some(polled_at);
    }

    /// Discards the recent events of each session whose newest events were read before `time`: its subscribers have had
    /// enough time to take them.
    pub(super) fn discard_events_read_before(&self, time: Instant) {
        for session in self.lock().sessions.values_mut() {
            if session.recent.newest_were_read_before(time) {
                session.recent = RecentEvents::starting_after(session.newest_seq);
            }
        }
    }
}

impl State {
    /// Ends the subscriptions of accounts that may no longer read the events.
    fn end_refused(&mut self, access_check: AccessCheck) {
        for Refusal { session_id, account_id, error } in access_check.refusals {
            let Some(session) = self.sessions.get_mut(&session_id) else { continue };
            session.subscribers.retain(|id, subscriber| {
                // A subscriber that was added after the check may have a seat that the polled server did not know yet.
                let is_kept = subscriber.account_id != account_id || *id > access_check.last_checked_subscriber_id;
                if !is_kept {
                    subscriber.notifications.send_modify(|notification| notification.end_error = Some(error.clone()));
                }
                is_kept
            });
            if session.subscribers.is_empty() {
                self.sessions.remove(&session_id);
            }
        }
    }

    fn end_all(&mut self, error: &Error) {
        for (_, session) in self.sessions.drain() {
            for subscriber in session.subscribers.into_values() {
                subscriber.notifications.send_modify(|notification| notification.end_error = Some(error.clone()));
            }
        }
    }
}

/// Guards the running poller: if the poller ends while there are subscriptions, they end too.
pub(crate) struct PollerGuard {
    pub(super) hub: Arc<Hub>,
    poller_id: u64,
}

impl Drop for PollerGuard {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        if state.poller_id == Some(self.poller_id) {
            state.poller_id = None;
            let reason = "the async runtime that polled for events has stopped; subscribe again";
            state.end_all(&Error::Misconfigured { reason: reason.to_owned() });
        }
    }
}
