//! Who listens to which session, and what the poller has found for them.
//!
//! The last few events of each session are kept here for all of its subscribers, so that one read serves them all. A
//! subscriber who is too slow for that reads pages of its own. So what a hub holds is bounded by the number of sessions.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use entity::session_events::Model as Event;
use rls::Position;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::poller;
use crate::{Error, IdentityConnection};

/// Most events of a session that are kept for its subscribers.
const RECENT_EVENTS: usize = 50;

/// Which server's events were seen: one that was started again, promoted or restored has another.
pub(crate) type History = Arc<str>;

/// What a subscriber is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake {
    /// The newest event of the session that was seen, in the history that was read last.
    pub(crate) newest: i64,
    pub(crate) history: Option<History>,
    /// How far the server's log was where that was seen: a reader on another server waits until it is there.
    pub(crate) position: Option<Position>,
    /// Why the subscription is over.
    pub(crate) ended: Option<Error>,
}

/// All subscriptions of a handle.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// There is a new subscriber, or none is left: the next look does not wait for its tick.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Uuid, Session>,
    history: Option<History>,
    last_id: u64,
    /// A session was added that no look has included yet.
    has_new: bool,
    /// The poller that runs.
    poller: Option<u64>,
    polled_at: Option<Instant>,
    /// What every subscriber had seen when they came: a server that is not as far may not know their seats.
    required: Option<Position>,
    /// Where what is known of the sessions was seen.
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
    /// None: the service.
    account: Option<Uuid>,
    wake: watch::Sender<Wake>,
}

/// The last events of a session, without a gap.
#[derive(Debug, Default)]
struct Recent {
    /// They are all there are after this one.
    after: i64,
    events: VecDeque<Event>,
    /// Subscribers up to this one were found to have access when the last of them were read.
    checked_up_to: u64,
    read_at: Option<Instant>,
}

/// What a subscription begins with.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) session_id: Uuid,
    pub(crate) history: History,
    /// The newest event of the session.
    pub(crate) newest: i64,
}

/// What to look for.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) sessions: Vec<Uuid>,
    /// The newest event of each that was seen.
    pub(crate) seen: Vec<i64>,
    pub(crate) has_new: bool,
    /// None: nothing was seen yet of what the server has.
    pub(crate) history: Option<History>,
    /// Whoever is asked must have come so far, to know the seats of the subscribers up to `last_id`.
    pub(crate) required: Option<Position>,
    pub(crate) last_id: u64,
}

/// What a look found of a session: the events after what was seen, or where they are too large or too many, the first of
/// them and the number of the last that was seen.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) session_id: Uuid,
    /// What was seen before.
    pub(crate) after: i64,
    pub(crate) newest: i64,
    pub(crate) events: Vec<Event>,
}

/// Those who were asked about, and those of them who may not listen any longer.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) up_to: u64,
    pub(crate) refused: Vec<(Uuid, Option<Uuid>, Error)>,
}

/// A subscription's place; gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    place: Place,
    pub(crate) wake: watch::Receiver<Wake>,
}

/// Where a subscription stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    hub: Arc<Hub>,
    session_id: Uuid,
    id: u64,
}

impl Registration {
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// When it was last seen that there is nothing newer than what was told.
    pub(crate) fn polled_at(&self) -> Option<Instant> {
        self.place.hub.lock().polled_at
    }

    /// The events after that one, and when they were read. None where they are not all here, or where it was not checked
    /// whether this subscriber may read them.
    pub(crate) fn recent(&self, history: &History, after: i64) -> Option<(Vec<Event>, Instant)> {
        let state = self.place.hub.lock();
        let session = state.sessions.get(&self.place.session_id)?;
        let recent = &session.recent;
        let is_checked = recent.checked_up_to >= self.place.id && session.subscribers.contains_key(&self.place.id);
        if !is_checked || state.history.as_ref() != Some(history) || after < recent.after {
            return None;
        }
        let first = recent.events.partition_point(|event| event.seq <= after);
        let events: Vec<Event> = recent.events.range(first..).cloned().collect();
        (!events.is_empty()).then_some((events, recent.read_at?))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.place.leave();
    }
}

impl Place {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes the subscriber out. A stream that still waits there ends.
    pub(crate) fn leave(&self) {
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
    /// Adds a subscriber, and starts the poller with the first.
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
            // One of both is of a server that is no more; the next look tells.
            state.history = None;
        }
        let (history, position) = (state.history.clone(), state.position);
        let entry = state.sessions.entry(start.session_id).or_default();
        let is_new = entry.subscribers.is_empty();
        if is_new {
            entry.newest = start.newest;
            entry.recent.after = start.newest;
        }
        let (sender, wake) = watch::channel(Wake { newest: entry.newest, history, position, ended: None });
        entry.subscribers.insert(id, Subscriber { account, wake: sender });
        state.has_new |= is_new;
        if state.poller.is_none() {
            state.poller = Some(id);
            tokio::spawn(poller::run(Running { hub: self.clone(), id }, service()));
        } else if is_new {
            self.changed.notify_one();
        }
        Ok(Registration { place: Place { hub: self.clone(), session_id: start.session_id, id }, wake })
    }

    /// Ends all subscriptions: the handle is closed.
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

    /// Nothing that holds the lock can fail half way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to look for. None: nobody listens, and the poller is over.
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

    /// Who listens, to these sessions alone or to all, of the subscribers up to that one.
    pub(super) fn listeners(&self, only: Option<&[News]>, up_to: u64) -> BTreeSet<(Uuid, Option<Uuid>)> {
        let state = self.lock();
        let of = |(id, session): (&Uuid, &Session)| -> Vec<_> {
            let asked = session.subscribers.iter().filter(|(subscriber, _)| **subscriber <= up_to);
            asked.map(|(_, one)| (*id, one.account)).collect()
        };
        match only {
            None => state.sessions.iter().flat_map(of).collect(),
            Some(news) => {
                news.iter().filter_map(|one| state.sessions.get_key_value(&one.session_id)).flat_map(of).collect()
            }
        }
    }

    /// Another server answers: what was read of the one before it is forgotten, and each subscriber looks whether it is
    /// where it was.
    pub(super) fn renew(&self, history: &History, news: Vec<News>, position: Option<Position>) {
        let mut state = self.lock();
        state.position = state.position.max(position);
        let position = state.position;
        state.history = Some(history.clone());
        let newest: HashMap<Uuid, i64> = news.into_iter().map(|news| (news.session_id, news.newest)).collect();
        for (id, session) in &mut state.sessions {
            session.newest = newest.get(id).copied().unwrap_or_default();
            session.recent = Recent { after: session.newest, ..Recent::default() };
            for one in session.subscribers.values() {
                one.wake.send_modify(|wake| {
                    wake.newest = session.newest;
                    wake.history = Some(history.clone());
                    wake.position = position;
                });
            }
        }
    }

    /// Sends away whoever may not listen any longer, then tells the others what is new.
    pub(super) fn announce(&self, begun: Instant, checked: Checked, news: Vec<News>, position: Option<Position>) {
        let mut state = self.lock();
        state.position = state.position.max(position);
        let position = state.position;
        for (session_id, account, error) in checked.refused {
            let Some(session) = state.sessions.get_mut(&session_id) else { continue };
            session.subscribers.retain(|id, one| {
                // The server may not know the seat of somebody who came since.
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
        for news in news {
            let Some(session) = state.sessions.get_mut(&news.session_id) else { continue };
            session.newest = session.newest.max(news.newest);
            session.recent.add(news, checked.up_to, begun);
            for one in session.subscribers.values() {
                one.wake.send_modify(|wake| {
                    wake.newest = session.newest;
                    wake.position = position;
                });
            }
        }
        state.polled_at = Some(begun);
    }

    /// Lets go of what all subscribers have read, or could have.
    pub(super) fn forget_before(&self, time: Instant) {
        for session in self.lock().sessions.values_mut() {
            if session.recent.read_at.is_some_and(|read_at| read_at < time) {
                session.recent = Recent { after: session.newest, ..Recent::default() };
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

impl Recent {
    fn add(&mut self, news: News, checked_up_to: u64, read_at: Instant) {
        self.checked_up_to = checked_up_to;
        self.read_at = Some(read_at);
        // The session may have lost its last subscriber and got another one since the look began.
        let known = self.events.back().map_or(self.after, |last| last.seq);
        let is_whole = news.after <= known && news.events.last().is_some_and(|last| last.seq == news.newest);
        if is_whole {
            self.events.extend(news.events.into_iter().filter(|event| event.seq > known));
            while self.events.len() > RECENT_EVENTS
                && let Some(oldest) = self.events.pop_front()
            {
                self.after = oldest.seq;
            }
        } else {
            self.events.clear();
            self.after = self.after.max(news.newest);
        }
    }
}

/// The poller that runs. However it ends, nobody waits for it in vain.
pub(crate) struct Running {
    pub(super) hub: Arc<Hub>,
    id: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        if state.poller == Some(self.id) {
            state.poller = None;
            let reason = "the runtime that looked for events has stopped; subscribe again";
            state.end_all(&Error::Misconfigured { reason: reason.to_owned() });
        }
    }
}
