//! The most recent events of a session, which the poller reads once for all subscribers.

use std::{collections::VecDeque, time::Instant};

use entity::session_events::Model as Event;

use super::hub::SessionUpdate;

/// Maximum number of recent events kept per session.
const MAX_RECENT_EVENTS: usize = 50;

/// The most recent events of a session, without a gap.
#[derive(Debug, Default)]
pub(super) struct RecentEvents {
    /// `events` has every event of the session after this `seq`.
    after_seq: i64,
    events: VecDeque<Event>,
    /// The access of subscribers up to this id was checked when the newest of the events were read.
    last_checked_subscriber_id: u64,
    /// When the newest of the events were read.
    read_at: Option<Instant>,
}

impl RecentEvents {
    /// Creates an empty list, whose first event will follow this `seq`.
    pub(super) fn starting_after(after_seq: i64) -> Self {
        Self { after_seq, ..Self::default() }
    }

    /// Returns the events after a `seq` and the time at which they were read. `None` if there are none, if not all of
    /// them are kept here, or if this subscriber's access was not checked.
    pub(super) fn events_after(&self, after_seq: i64, subscriber_id: u64) -> Option<(Vec<Event>, Instant)> {
        if self.last_checked_subscriber_id < subscriber_id || after_seq < self.after_seq {
            return None;
        }
        let start_index = self.events.partition_point(|event| event.seq <= after_seq);
        let events: Vec<Event> = self.events.range(start_index..).cloned().collect();
        (!events.is_empty()).then_some((events, self.read_at?))
    }

    /// Returns whether the newest of the events were read before `time`.
    pub(super) fn newest_were_read_before(&self, time: Instant) -> bool {
        self.read_at.is_some_and(|read_at| read_at < time)
    }

    /// Adds the events of an update. If the events would then have a gap, discards all of them.
    pub(super) fn add(&mut self, update: SessionUpdate, last_checked_subscriber_id: u64, read_at: Instant) {
        self.last_checked_subscriber_id = last_checked_subscriber_id;
        self.read_at = Some(read_at);
        // If the session lost its last subscriber and gained another one since the poll began, this list was recreated,
        // and may begin after another `seq` than the update. An update lacks its newest events if they were too large.
        let last_seq = self.events.back().map_or(self.after_seq, |last| last.seq);
        let is_contiguous =
            update.after_seq <= last_seq && update.events.last().is_some_and(|last| last.seq == update.newest_seq);
        if is_contiguous {
            self.events.extend(update.events.into_iter().filter(|event| event.seq > last_seq));
            while self.events.len() > MAX_RECENT_EVENTS
                && let Some(oldest) = self.events.pop_front()
            {
                self.after_seq = oldest.seq;
            }
        } else {
            self.events.clear();
            self.after_seq = self.after_seq.max(update.newest_seq);
        }
    }
}
