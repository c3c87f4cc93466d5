//! Which of several servers a transaction is on, and what its commit says of the log there.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::{
    Identity,
    position::{Position, Positions},
    wire::Place,
};

/// The log of one of several servers.
#[derive(Debug)]
pub(crate) struct Log {
    positions: Arc<Positions>,
    /// The newest timeline that a primary was seen on.
    newest: Arc<AtomicU32>,
    /// The timeline that the server is on.
    pub(crate) timeline: AtomicU32,
}

impl Log {
    pub(crate) fn new(positions: Arc<Positions>, newest: Arc<AtomicU32>) -> Self {
        Self { positions, newest, timeline: AtomicU32::new(0) }
    }
}

/// Which of several servers a transaction is on.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    log: Arc<Log>,
    /// It is on a standby, so that nothing can be written in it, also once that is promoted.
    pub(crate) is_standby: bool,
    /// The timeline that it was on when it began.
    pub(crate) timeline: u32,
}

impl Origin {
    pub(crate) fn on(log: Arc<Log>) -> Self {
        let timeline = log.timeline.load(Ordering::SeqCst);
        Self { log, is_standby: false, timeline }
    }

    /// What the server said at the beginning. A standby does not say its timeline: the monitor did.
    pub(crate) fn begun(&mut self, place: Place) {
        self.is_standby = place.is_standby;
        if !place.is_standby {
            self.timeline = place.timeline;
        }
    }

    /// Before a commit is sent.
    pub(crate) fn commit(&self, identity: &Identity) -> Commit {
        Commit { log: self.log.clone(), identity: identity.clone(), is_answered: self.is_standby }
    }
}

/// A commit that is under way. Dropped before it is answered, only the primary knows what became of it.
pub(crate) struct Commit {
    log: Arc<Log>,
    identity: Identity,
    is_answered: bool,
}

impl Commit {
    /// What the identity has seen is remembered, on a replica too: the next one must not show less.
    pub(crate) fn answered(mut self, is_committed: bool, place: Option<Place>, is_lost: bool) {
        let Log { positions, newest, timeline } = &*self.log;
        match place {
            Some(place) if is_committed && place.is_standby => {
                let timeline = timeline.load(Ordering::SeqCst);
                positions.note(&self.identity, Position { timeline, lsn: place.lsn });
            }
            Some(place) if is_committed => {
                newest.fetch_max(place.timeline, Ordering::SeqCst);
                let position = Position { timeline: place.timeline, lsn: place.lsn };
                positions.note_from_primary(&self.identity, position);
            }
            // Committed, and not told up to where; or not known.
            _ if is_committed || is_lost => return,
            _ => {}
        }
        self.is_answered = true;
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if !self.is_answered {
            self.log.positions.note_unknown(&self.identity);
        }
    }
}
