//! The most recent events of a session. The poller reads them once, for all subscribers of the session.

use std::{collections::VecDeque, time::Instant};

use entity::session_events::Model as Event;
use uuid::Uuid;

/// Maximum number of recent events kept per session.
const MAX_RECENT_EVENTS: usize = 50;

/// The new events that a poll found in a session, at most fifty. If their payloads together are too large, `events` has
/// only the first few of them, or none, but `newest_seq` is still that of the last event found.
#[derive(Debug)]
pub(crate) struct SessionUpdate {
    pub(crate) session_id: Uuid,
    /// The newest `seq` known before the poll.
    pub(crate) after_seq: i64,
    /// The newest `seq` that the poll found.
    pub(crate) newest_seq: i64,
    /// Whether it is certain that no visible event of the session had a higher `seq`.
    pub(crate) reached_end: bool,
    pub(crate) events: Vec<Event>,
}

/// The most recent events of a session, without a gap.
#[derive(Debug, Default)]
pub(super) struct RecentEvents {
    /// `events` has every event after this `seq` (an event's number) that the poller has found in the session.
    after_seq: i64,
    events: VecDeque<Event>,
    /// The highest id of a subscriber whose access was checked for the last update. Ids ascend, so later subscribers
    /// were not checked.
    last_checked_subscriber_id: u64,
    /// When the poll of the last update began. `None` before the first update.
    polled_at: Option<Instant>,
    /// Whether that poll read all events of the session that were visible.
    reached_end: bool,
}

impl RecentEvents {
    /// Creates an empty list, for the events after this `seq`.
    pub(super) fn starting_after(after_seq: i64) -> Self {
        Self { after_seq, ..Self::default() }
    }

    /// Returns the events after a `seq`, and the time at which the poll that read the newest of them began; without
    /// that time if the session may have had more visible events then. `None` if there are no events after the `seq`,
    /// if not all of them are kept here, or if this subscriber's access was not checked.
    pub(super) fn events_after(&self, after_seq: i64, subscriber_id: u64) -> Option<(Vec<Event>, Option<Instant>)> {
        if self.last_checked_subscriber_id < subscriber_id || after_seq < self.after_seq {
            return None;
        }
        let start_index = self.events.partition_point(|event| event.seq <= after_seq);
        let events: Vec<Event> = self.events.range(start_index..).cloned().collect();
        (!events.is_empty()).then_some((events, self.polled_at.filter(|_| self.reached_end)))
    }

    /// Returns whether the poll that read the newest events began before `time`. `false` if there was no update.
    pub(super) fn newest_were_read_before(&self, time: Instant) -> bool {
        self.polled_at.is_some_and(|polled_at| polled_at < time)
    }

    /// Adds the events of an update. If the list would then have a gap, discards all events. `polled_at` is when the
    /// poll began.
    pub(super) fn add(&mut self, update: SessionUpdate, last_checked_subscriber_id: u64, polled_at: Instant) {
        self.last_checked_subscriber_id = last_checked_subscriber_id;
        self.polled_at = Some(polled_at);
        self.reached_end = update.reached_end;
        // There are two causes of a gap. If the session lost its last subscriber and gained another one since the poll
        // began, this list was recreated, and the update may begin beyond its end (`update.after_seq` is greater than
        // `last_seq`). And an update lacks its newest events if its payloads together were too large.
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
