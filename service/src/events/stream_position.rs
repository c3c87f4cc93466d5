//! Where a stream is in a session's events, and whether events that it must return may have been deleted.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use entity::session_events::Model as Event;
use uuid::Uuid;

use super::hub::{HistoryId, Notification, RecentPage, SessionSnapshot};
use crate::Error;

/// Maximum number of events that a subscription holds.
pub(super) const SUBSCRIPTION_PAGE_SIZE: i64 = 50;

/// For this long after `caught_up_at`, no event that was written since then can have been deleted. Events are kept for
/// 24 hours; half of that leaves a wide margin.
const SAFE_IDLE_TIME: Duration = Duration::from_secs(12 * 60 * 60);

/// A position in a session's events: the event after which reading continues.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct EventPosition {
    /// 0 if reading starts at the first event.
    pub(super) seq: i64,
    /// The id of the event, and the time at which it was created. The id is needed because another server may have
    /// given the same `seq` to a different event. `None` if reading starts at the first event, or if the event
    /// was deleted before it could be read.
    pub(super) id_and_time: Option<(Uuid, DateTime<Utc>)>,
}

impl EventPosition {
    fn from_event(event: &Event) -> Self {
        Self { seq: event.seq, id_and_time: Some((event.id, event.created_at.to_utc())) }
    }

    /// Returns whether the clean-up may have deleted the event because of its age. Events are deleted after 24 hours;
    /// one hour less allows for a difference between the clocks. `false` if the event's time is unknown.
    fn event_may_have_expired(&self) -> bool {
        self.id_and_time.is_some_and(|(_, created_at)| Utc::now() - created_at > TimeDelta::hours(23))
    }
}

/// A page of events after a position, and the state of the event at that position.
pub(super) struct EventPage {
    pub(super) events: Vec<Event>,
    pub(super) history_id: String,
    /// Whether the event at the position still exists.
    pub(super) position_event_exists: bool,
    /// Whether the event at the position exists and is less than a day old.
    pub(super) position_event_is_recent: bool,
}

/// The position of a stream, and what is certain about the events that follow.
#[derive(Debug)]
pub(super) struct StreamPosition {
    event_position: EventPosition,
    /// The history in which the position was read.
    history_id: HistoryId,
    /// Every event that the stream could still miss was written after this time. At first, it is the time at which the
    /// stream started, if there are no events to catch up with, or if the stream starts at the first event. Later, it
    /// is a time at which no event followed the position. `None` if no such time is known: an event that the stream
    /// could miss may then be almost a day old.
    caught_up_at: Option<Instant>,
    /// Whether there may be more events to read, even without a further notification from the poller.
    has_more: bool,
}

impl StreamPosition {
    /// Returns the position of a new stream.
    pub(super) fn new(snapshot: &SessionSnapshot, event_position: EventPosition, now: Instant) -> Self {
        let has_more = snapshot.newest_seq > event_position.seq;
        // A stream that starts at the first event must return the events that are still there when it reads its first
        // page, and those that are written after its start.
        let caught_up_at = (!has_more || event_position.seq == 0).then_some(now);
        Self { event_position, history_id: snapshot.history_id.clone(), caught_up_at, has_more }
    }

    /// Returns the position of the event after which reading continues.
    pub(super) fn event_position(&self) -> EventPosition {
        self.event_position
    }

    /// Returns the history in which the position was read.
    pub(super) fn history_id(&self) -> &HistoryId {
        &self.history_id
    }

    /// Returns whether it is certain that no event after the position was deleted because of its age.
    pub(super) fn was_caught_up_recently(&self, now: Instant) -> bool {
        self.caught_up_at.is_some_and(|caught_up_at| now.duration_since(caught_up_at) <= SAFE_IDLE_TIME)
    }

    /// Returns whether there may be events to read.
    pub(super) fn must_read(&self, notification: &Notification) -> bool {
        let history_differs = notification.history_id.as_ref().is_some_and(|history_id| *history_id != self.history_id);
        self.has_more || history_differs || notification.newest_seq > self.event_position.seq
    }

    /// Records that no event followed the position at this time.
    pub(super) fn record_caught_up(&mut self, at: Instant) {
        self.caught_up_at = self.caught_up_at.max(Some(at));
    }

    /// Moves past events that the poller has read for all subscribers.
    pub(super) fn advance_to_recent(&mut self, recent: &RecentPage) {
        self.has_more = false;
        self.caught_up_at = self.caught_up_at.max(recent.caught_up_at);
        if let Some(last) = recent.events.last() {
            self.event_position = EventPosition::from_event(last);
        }
    }

    /// Moves past a page that the stream has read itself, and continues in the history in which the page was read.
    /// `read_at` is when reading began; `notification` is the one that caused it. Returns an error if events may be
    /// missing between the position and the page.
    pub(super) fn advance_to_page(
        &mut self,
        page: &EventPage,
        read_at: Instant,
        notification: &Notification,
    ) -> Result<(), Error> {
        let history_changed = *page.history_id != *self.history_id;
        let server_lacks_event = history_changed
            && self.event_position.seq > 0
            && !page.position_event_exists
            && !self.event_position.event_may_have_expired();
        let later_events_may_be_deleted = !self.was_caught_up_recently(read_at) && !page.position_event_is_recent;
        if server_lacks_event || later_events_may_be_deleted {
            return Err(Error::EventsExpired);
        }
        if history_changed {
            self.history_id = page.history_id.as_str().into();
        }
        self.has_more = page.events.len() as i64 == SUBSCRIPTION_PAGE_SIZE;
        if !self.has_more {
            self.caught_up_at = Some(read_at);
        } else if self.event_position.seq == 0 {
            // The first page began with the oldest event that still existed. The events after the page may be just as
            // old, and the stream misses some if they are deleted before it reads them.
            self.caught_up_at = None;
        }
        match page.events.last() {
            Some(last) => self.event_position = EventPosition::from_event(last),
            // The events up to `newest_seq` have been deleted since the poller read them. That does not follow if
            // `newest_seq` is from another history than the page: in the page's history, new events may still get
            // numbers up to `newest_seq`.
            None if notification.newest_seq > self.event_position.seq
                && notification.history_id.as_ref() == Some(&self.history_id) =>
            {
                self.event_position = EventPosition { seq: notification.newest_seq, id_and_time: None };
            }
            None => (),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use uuid::Uuid;

    use super::{EventPage, EventPosition, SUBSCRIPTION_PAGE_SIZE, StreamPosition};
    use crate::events::{
        hub::{Notification, SessionSnapshot},
        new_test_event,
    };

    const HISTORY: &str = "a history";

    /// Returns the position of a stream that starts after the event with this `seq` in a session whose newest event has
    /// the number `newest_seq`.
    fn start_after(seq: i64, newest_seq: i64, now: Instant) -> StreamPosition {
        let snapshot = SessionSnapshot { session_id: Uuid::nil(), history_id: HISTORY.into(), newest_seq };
        let event_position =
            if seq == 0 { EventPosition::default() } else { EventPosition::from_event(&new_test_event(seq)) };
        StreamPosition::new(&snapshot, event_position, now)
    }

    /// Returns a page with these events, as if the event at the position had been deleted.
    fn page_after_deleted_event(seqs: impl IntoIterator<Item = i64>) -> EventPage {
        EventPage {
            events: seqs.into_iter().map(new_test_event).collect(),
            history_id: HISTORY.to_owned(),
            position_event_exists: false,
            position_event_is_recent: false,
        }
    }

    fn page_after_recent_event(seqs: impl IntoIterator<Item = i64>) -> EventPage {
        EventPage { position_event_exists: true, position_event_is_recent: true, ..page_after_deleted_event(seqs) }
    }

    fn notification_of(newest_seq: i64, history_id: &str) -> Notification {
        Notification { newest_seq, history_id: Some(history_id.into()), ..Default::default() }
    }

    /// Moves the stream to the page, and returns its new `seq`, or the code of the error.
    fn advance(stream: &mut StreamPosition, page: &EventPage, read_at: Instant) -> Result<i64, &'static str> {
        let outcome = stream.advance_to_page(page, read_at, &notification_of(0, HISTORY));
        outcome.map(|()| stream.event_position().seq).map_err(|error| error.code())
    }

    #[test]
    fn a_stream_that_was_idle_for_half_a_day_continues_only_if_its_last_event_still_exists() {
        let now = Instant::now();
        let [after_11_hours, after_13_hours] = [11, 13].map(|hours| now + Duration::from_secs(hours * 60 * 60));
        // 0 is the position of a stream that started before the session had an event.
        for seq in [0, 7] {
            let mut stream = start_after(seq, seq, now);
            assert_eq!(advance(&mut stream, &page_after_deleted_event([8]), after_13_hours), Err("events_expired"));
            assert_eq!(advance(&mut stream, &page_after_deleted_event([8]), after_11_hours), Ok(8), "{seq}");
            assert_eq!(advance(&mut stream, &page_after_deleted_event([9]), after_13_hours), Ok(9), "{seq}");
        }
        let mut stream = start_after(7, 7, now);
        assert!(!stream.was_caught_up_recently(after_13_hours));
        assert_eq!(advance(&mut stream, &page_after_recent_event([8]), after_13_hours), Ok(8));
        assert!(stream.was_caught_up_recently(after_13_hours));
        let mut stream = start_after(7, 7, now);
        stream.record_caught_up(after_11_hours);
        assert_eq!(advance(&mut stream, &page_after_deleted_event([8]), after_13_hours), Ok(8));
    }

    #[test]
    fn a_stream_with_unread_events_continues_only_if_its_last_event_still_exists() {
        let now = Instant::now();
        let mut stream = start_after(7, 200, now);
        assert_eq!(advance(&mut stream, &page_after_deleted_event([100]), now), Err("events_expired"));
        assert_eq!(advance(&mut stream, &page_after_recent_event(8..8 + SUBSCRIPTION_PAGE_SIZE), now), Ok(57));
        assert_eq!(advance(&mut stream, &page_after_deleted_event([100]), now), Err("events_expired"));
        assert_eq!(advance(&mut stream, &page_after_recent_event(58..=200), now), Ok(200));
    }

    #[test]
    fn a_stream_of_the_last_day_starts_with_the_first_event_that_still_exists_and_then_misses_none() {
        let now = Instant::now();
        let mut stream = start_after(0, 200, now);
        assert_eq!(advance(&mut stream, &page_after_deleted_event(51..51 + SUBSCRIPTION_PAGE_SIZE), now), Ok(100));
        assert_eq!(advance(&mut stream, &page_after_deleted_event([150]), now), Err("events_expired"));
    }

    #[test]
    fn a_stream_moves_past_deleted_events_only_in_the_history_in_which_they_were_numbered() {
        let now = Instant::now();
        for (history_id, expected_seq) in [(HISTORY, 9), ("another history", 7)] {
            let mut stream = start_after(7, 7, now);
            stream.advance_to_page(&page_after_recent_event([]), now, &notification_of(9, history_id)).unwrap();
            assert_eq!(stream.event_position().seq, expected_seq, "{history_id}");
        }
    }

    #[test]
    fn a_stream_continues_in_another_history_only_if_it_has_the_last_event_of_the_stream() {
        let now = Instant::now();
        let in_another_history = |page: EventPage| EventPage { history_id: "another history".to_owned(), ..page };
        for seq in [0, 7] {
            let mut stream = start_after(seq, seq, now);
            assert_eq!(advance(&mut stream, &in_another_history(page_after_recent_event([8])), now), Ok(8));
            assert_eq!(stream.history_id().as_ref(), "another history");
            assert!(stream.must_read(&notification_of(8, HISTORY)));
        }
        let mut stream = start_after(7, 7, now);
        let outcome = advance(&mut stream, &in_another_history(page_after_deleted_event([8])), now);
        assert_eq!(outcome, Err("events_expired"));
        // At position 0, there is no event that could be missing.
        assert_eq!(
            advance(&mut start_after(0, 0, now), &in_another_history(page_after_deleted_event([8])), now),
            Ok(8)
        );
    }
}
