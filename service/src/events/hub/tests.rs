//! What the hub tells subscribers, whatever happens at the same time.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rls::LogPosition;
use uuid::Uuid;

use super::{super::recent::SessionUpdate, AccessCheck, Hub, PollerGuard, RecentPage, Registration, SessionSnapshot};
use crate::{Error, events::new_test_event};

const HISTORY: &str = "a history";

/// Adds a subscriber to a session without events. `start_poller` gets the poller's guard: `drop` ends the poller at
/// once, and `std::mem::forget` makes the hub believe that the poller is running.
fn subscribe(hub: &Arc<Hub>, start_poller: impl FnOnce(PollerGuard)) -> Registration {
    let snapshot = SessionSnapshot { session_id: Uuid::nil(), history_id: HISTORY.into(), newest_seq: 0 };
    hub.register(start_poller, &snapshot, None, None).unwrap()
}

/// Publishes the event with this `seq`, which a poll has read at this log position.
fn publish_event(hub: &Hub, seq: i64, reached_end: bool, log_position: &str) {
    let event = new_test_event(seq);
    let (session_id, after_seq) = (event.session_id, seq - 1);
    let update = SessionUpdate { session_id, after_seq, newest_seq: seq, reached_end, events: vec![event] };
    let access_check = AccessCheck { last_checked_subscriber_id: u64::MAX, refusals: Vec::new() };
    hub.publish(Instant::now(), access_check, vec![update], log_position.parse().ok());
}

/// Returns the `seq` of each recent event, and the log position that comes with them.
fn recent_seqs_and_position(registration: &Registration) -> (Vec<i64>, Option<LogPosition>) {
    let RecentPage { events, log_position, .. } = registration.recent_events(&HISTORY.into(), 0).unwrap();
    (events.into_iter().map(|event| event.seq).collect(), log_position)
}

#[test]
fn a_subscription_ends_if_its_poller_is_dropped_as_soon_as_it_is_spawned() {
    let (sender, receiver) = mpsc::channel();
    // In a thread of its own, so that a deadlock fails the test.
    std::thread::spawn(move || {
        let mut registration = subscribe(&Arc::default(), drop);
        let _ = sender.send(registration.newest_notification().map(|_| ()));
    });
    let outcome = receiver.recv_timeout(Duration::from_secs(10)).expect("`register` must return");
    assert_eq!(outcome.unwrap_err().map(|error| error.code()), Some("misconfigured"));
}

#[test]
fn recent_events_come_with_a_log_position_after_all_of_them() {
    let hub = Arc::new(Hub::default());
    let mut registration = subscribe(&hub, std::mem::forget);
    publish_event(&hub, 1, true, "1-0/10");
    let first_position = registration.newest_notification().unwrap().log_position;
    assert_eq!(recent_seqs_and_position(&registration), (vec![1], first_position));
    // Published after the subscriber has read its notification, and before it takes the events.
    publish_event(&hub, 2, true, "1-0/20");
    assert_eq!(recent_seqs_and_position(&registration), (vec![1, 2], "1-0/20".parse().ok()));
}

#[test]
fn recent_events_are_known_to_be_the_newest_only_if_the_poll_has_read_all_new_events() {
    let hub = Arc::new(Hub::default());
    let registration = subscribe(&hub, std::mem::forget);
    for (seq, reached_end) in [(1, false), (2, true), (3, false)] {
        publish_event(&hub, seq, reached_end, "");
        let recent = registration.recent_events(&HISTORY.into(), 0).unwrap();
        assert_eq!(recent.caught_up_at.is_some(), reached_end);
    }
}

#[test]
fn the_error_that_ends_a_subscription_is_returned_even_if_it_ends_while_a_notification_is_read() {
    let hub = Arc::new(Hub::default());
    let mut registration = subscribe(&hub, std::mem::forget);
    let outcome = registration.newest_notification_interrupted_by(|| hub.end_all(&Error::EventsExpired));
    assert_eq!(outcome.unwrap_err().map(|error| error.code()), Some("events_expired"));
}

#[test]
fn a_subscription_that_is_removed_ends_without_an_error() {
    let hub = Arc::new(Hub::default());
    let mut registration = subscribe(&hub, std::mem::forget);
    registration.handle().remove();
    assert!(registration.newest_notification().unwrap_err().is_none());
}
