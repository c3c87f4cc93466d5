//! The most recent events of a session, which one read serves to all of its subscribers.

use std::{collections::VecDeque, time::Instant};

use entity::session_events::Model as Event;

use super::hub::SessionUpdate;

/// Maximum number of recent events kept per session.
const RECENT_EVENTS: usize = 50;

/// The most recent events of a session, without a gap.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// `events` has every event of the session after this `seq`.
    after: i64,
    events: VecDeque<Event>,
    /// Access was checked for subscribers up to this id when the last of the events were read.
    checked_up_to: u64,
    read_at: Option<Instant>,
}

impl Recent {
    /// No events yet: the first one follows this `seq`.
    pub(super) fn starting_after(after: i64) -> Self {
        Self { after, ..Self::default() }
    }

    /// Returns the events after a `seq` and the time at which they were read. `None` if they are not all kept here, or
    /// if this subscriber's access was not checked.
    pub(super) fn after(&self, after: i64, subscriber: u64) -> Option<(Vec<Event>, Instant)> {
        if self.checked_up_to < subscriber || after < self.after {
            return None;
        }
        let first = self.events.partition_point(|event| event.seq <= after);
        let events: Vec<Event> = self.events.range(first..).cloned().collect();
        (!events.is_empty()).then_some((events, self.read_at?))
    }

    /// Returns whether the last of the events were read before that time.
    pub(super) fn was_read_before(&self, time: Instant) -> bool {
        self.read_at.is_some_and(|read_at| read_at < time)
    }

    pub(super) fn add(&mut self, update: SessionUpdate, checked_up_to: u64, read_at: Instant) {
        self.checked_up_to = checked_up_to;
        self.read_at = Some(read_at);
        // The session may have lost its last subscriber and gained another since the poll began.
        let last_seq = self.events.back().map_or(self.after, |last| last.seq);
        let is_contiguous =
            update.after <= last_seq && update.events.last().is_some_and(|last| last.seq == update.newest);
        if is_contiguous {
            self.events.extend(update.events.into_iter().filter(|event| event.seq > last_seq));
            while self.events.len() > RECENT_EVENTS
                && let Some(oldest) = self.events.pop_front()
            {
                self.after = oldest.seq;
            }
        } else {
            self.events.clear();
            self.after = self.after.max(update.newest);
        }
    }
}
