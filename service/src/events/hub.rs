//! The subscribers of each session, and the events that the poller has read for them.
//!
//! The most recent events of each session are kept here, so that one read serves all of its subscribers. A subscriber
//! that is too slow for that reads pages of its own. The memory of a hub is therefore bounded by the number of
//! sessions.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use entity::session_events::Model as Event;
use rls::Position;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{poller, recent::Recent};
use crate::{Error, IdentityConnection};

/// Identifies the server whose events were read. It changes when a server is restarted, promoted or restored.
pub(crate) type History = Arc<str>;

/// The state that a subscriber is notified of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake {
    /// The `seq` of the newest known event of the session, in the history that was last read.
    pub(crate) newest: i64,
    pub(crate) history: Option<History>,
    /// The log position at which the poller saw that event. A reader uses only a server that has replayed it.
    pub(crate) position: Option<Position>,
    /// The error that ended the subscription.
    pub(crate) ended: Option<Error>,
}

/// All subscriptions of a `Sparc` handle.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Notified when a session is added or the last subscriber leaves, so that the poller does not wait for its
    /// interval.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Uuid, Session>,
    history: Option<History>,
    last_id: u64,
    /// Whether a session was added since the last poll.
    has_new: bool,
    /// Id of the running poller.
    poller: Option<u64>,
    polled_at: Option<Instant>,
    /// The latest position that any subscriber had seen when it subscribed. A server that has not replayed it may lack
    /// that subscriber's seat.
    required: Option<Position>,
    /// The log position at which the state of the sessions was read.
    position: Option<Position>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Session {
    newest: i64,
    recent: Recent,
    subscribers: HashMap<u64, Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    /// `None` for the service.
    account: Option<Uuid>,
    wake: watch::Sender<Wake>,
}

/// The state with which a subscription starts.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) session_id: Uuid,
    pub(crate) history: History,
    /// The `seq` of the newest event of the session.
    pub(crate) newest: i64,
}

/// The sessions to poll.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) sessions: Vec<Uuid>,
    /// The `seq` of the newest known event of each session.
    pub(crate) seen: Vec<i64>,
    pub(crate) has_new: bool,
    /// `None` if no history is established yet.
    pub(crate) history: Option<History>,
    /// The position that a server must have replayed, so that it has the seats of the subscribers up to `last_id`.
    pub(crate) required: Option<Position>,
    pub(crate) last_id: u64,
}

/// The new events that a poll found in a session. If they are too large or too many, `events` has only the first of
/// them, and `newest` is the `seq` of the last one found.
#[derive(Debug)]
pub(crate) struct SessionUpdate {
    pub(crate) session_id: Uuid,
    /// The newest `seq` known before.
    pub(crate) after: i64,
    pub(crate) newest: i64,
    pub(crate) events: Vec<Event>,
}

/// The result of an access check.
#[derive(Debug, Default)]
pub(crate) struct AccessCheck {
    /// Id of the last subscriber that was checked.
    pub(crate) up_to: u64,
    /// The session and account of each subscriber that may no longer listen, and why.
    pub(crate) refused: Vec<(Uuid, Option<Uuid>, Error)>,
}

/// A subscriber's registration, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    slot: Slot,
    pub(crate) wake: watch::Receiver<Wake>,
}

/// Identifies a subscriber in the hub.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    hub: Arc<Hub>,
    session_id: Uuid,
    id: u64,
}

impl Registration {
    pub(crate) fn slot(&self) -> Slot {
        self.slot.clone()
    }

    /// The time of the last poll, at which nothing newer than the notified state existed.
    pub(crate) fn polled_at(&self) -> Option<Instant> {
        self.slot.hub.lock().polled_at
    }

    /// Returns the events after a `seq` and the time at which they were read. `None` if they are not all kept here, or
    /// if this subscriber's access was not checked.
    pub(crate) fn recent(&self, history: &History, after: i64) -> Option<(Vec<Event>, Instant)> {
        let state = self.slot.hub.lock();
        let session = state.sessions.get(&self.slot.session_id)?;
        if !session.subscribers.contains_key(&self.slot.id) || state.history.as_ref() != Some(history) {
            return None;
        }
        session.recent.after(after, self.slot.id)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slot.remove();
    }
}

impl Slot {
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
            self.hub.changed.notify_one();
        }
    }
}

impl Hub {
    /// Adds a subscriber, and starts the poller if it is the first.
    pub(crate) fn register(
        self: &Arc<Self>,
        service: impl FnOnce() -> IdentityConnection,
        start: &Start,
        account: Option<Uuid>,
        seen: Option<Position>,
    ) -> Result<Registration, Error> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Error::PoolClosed);
        }
        state.required = state.required.max(seen);
        state.position = state.position.max(seen);
        state.last_id += 1;
        let id = state.last_id;
        if state.sessions.is_empty() {
            state.history = Some(start.history.clone());
        } else if state.history.as_ref() != Some(&start.history) {
            // One of the two histories is outdated. The next poll finds out which.
            state.history = None;
        }
        let (history, position) = (state.history.clone(), state.position);
        let entry = state.sessions.entry(start.session_id).or_default();
        let is_new = entry.subscribers.is_empty();
        if is_new {
            entry.newest = start.newest;
            entry.recent = Recent::starting_after(start.newest);
        }
        let (sender, wake) = watch::channel(Wake { newest: entry.newest, history, position, ended: None });
        entry.subscribers.insert(id, Subscriber { account, wake: sender });
        state.has_new |= is_new;
        if state.poller.is_none() {
            state.poller = Some(id);
            tokio::spawn(poller::run(PollerGuard { hub: self.clone(), id }, service()));
        } else if is_new {
            self.changed.notify_one();
        }
        Ok(Registration { slot: Slot { hub: self.clone(), session_id: start.session_id, id }, wake })
    }

    /// Ends all subscriptions, because the handle is closed.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.end_all(&Error::PoolClosed);
        self.changed.notify_one();
    }

    /// Ends all subscriptions.
    pub(super) fn end_all(&self, ended: &Error) {
        self.lock().end_all(ended);
    }

    /// Ignores poisoning: no code that holds the lock can leave the state inconsistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sessions to poll, or `None` if there are no subscribers, in which case the poller must stop.
    pub(super) fn watched(&self) -> Option<Watched> {
        let mut state = self.lock();
        if state.sessions.is_empty() {
            state.poller = None;
            return None;
        }
        let has_new = std::mem::take(&mut state.has_new);
        let (sessions, seen) = state.sessions.iter().map(|(id, session)| (*id, session.newest)).unzip();
        let (history, required, last_id) = (state.history.clone(), state.required, state.last_id);
        Some(Watched { sessions, seen, has_new, history, required, last_id })
    }

    /// Returns the listeners of the given sessions, or of all, up to the given subscriber.
    pub(super) fn listeners(&self, only: Option<&[SessionUpdate]>, up_to: u64) -> BTreeSet<(Uuid, Option<Uuid>)> {
        let state = self.lock();
        let of = |(id, session): (&Uuid, &Session)| -> Vec<_> {
            let asked = session.subscribers.iter().filter(|(subscriber, _)| **subscriber <= up_to);
            asked.map(|(_, one)| (*id, one.account)).collect()
        };
        match only {
            None => state.sessions.iter().flat_map(of).collect(),
            Some(updates) => {
                updates.iter().filter_map(|one| state.sessions.get_key_value(&one.session_id)).flat_map(of).collect()
            }
        }
    }

    /// Starts a new history, after another server has answered: discards what was read from the previous one, and makes
    /// each subscriber check its position.
    pub(super) fn reset(&self, history: &History, updates: Vec<SessionUpdate>, position: Option<Position>) {
        let mut state = self.lock();
        state.position = state.position.max(position);
        let position = state.position;
        state.history = Some(history.clone());
        let newest: HashMap<Uuid, i64> = updates.into_iter().map(|update| (update.session_id, update.newest)).collect();
        for (id, session) in &mut state.sessions {
            session.newest = newest.get(id).copied().unwrap_or_default();
            session.recent = Recent::starting_after(session.newest);
            for one in session.subscribers.values() {
                one.wake.send_modify(|wake| {
                    wake.newest = session.newest;
                    wake.history = Some(history.clone());
                    wake.position = position;
                });
            }
        }
    }

    /// Ends the subscriptions of those that may no longer listen, then notifies the others of new events.
    pub(super) fn publish(
        &self,
        begun: Instant,
        checked: AccessCheck,
        updates: Vec<SessionUpdate>,
        position: Option<Position>,
    ) {
        let mut state = self.lock();
        state.position = state.position.max(position);
        let position = state.position;
        for (session_id, account, error) in checked.refused {
            let Some(session) = state.sessions.get_mut(&session_id) else { continue };
            session.subscribers.retain(|id, one| {
                // The server may lack the seat of a subscriber that was added since.
                let stays = one.account != account || *id > checked.up_to;
                if !stays {
                    one.wake.send_modify(|wake| wake.ended = Some(error.clone()));
                }
                stays
            });
            if session.subscribers.is_empty() {
                state.sessions.remove(&session_id);
            }
        }
        for update in updates {
            let Some(session) = state.sessions.get_mut(&update.session_id) else { continue };
            session.newest = session.newest.max(update.newest);
            session.recent.add(update, checked.up_to, begun);
            for one in session.subscribers.values() {
                one.wake.send_modify(|wake| {
                    wake.newest = session.newest;
                    wake.position = position;
                });
            }
        }
        state.polled_at = Some(begun);
    }

    /// Discards events that were read before that time: subscribers have had time to take them.
    pub(super) fn expire_before(&self, time: Instant) {
        for session in self.lock().sessions.values_mut() {
            if session.recent.was_read_before(time) {
                session.recent = Recent::starting_after(session.newest);
            }
        }
    }
}

impl State {
    fn end_all(&mut self, ended: &Error) {
        for (_, session) in self.sessions.drain() {
            for one in session.subscribers.into_values() {
                one.wake.send_modify(|wake| wake.ended = Some(ended.clone()));
            }
        }
    }
}

/// Guards the running poller. When the poller ends, for whatever reason, so do the subscriptions that depend on it.
pub(crate) struct PollerGuard {
    pub(super) hub: Arc<Hub>,
    id: u64,
}

impl Drop for PollerGuard {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        if state.poller == Some(self.id) {
            state.poller = None;
            let reason = "the async runtime that polled for events has stopped; subscribe again";
            state.end_all(&Error::Misconfigured { reason: reason.to_owned() });
        }
    }
}
