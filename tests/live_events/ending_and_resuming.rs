//! What ends a stream, and after which event a caller can resume one.

use std::time::Duration;

use sparc::service::Operations;

use super::{
    callers_with_access, connect_sparc, event_seqs, next_event, read_to_error, read_until, receives_nothing,
    subscribe_outcome_code, write_events,
};
use crate::world::{World, outcome_code};

#[tokio::test]
async fn resuming_after_an_event_that_does_not_exist_fails_with_events_expired() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    write_events(&game.players[0].caller, game.session_id, 3).await;
    let numbers = event_seqs(&world, game.session_id).await;
    let delete = format!("DELETE FROM session_events WHERE seq <= {}", numbers[1]);
    world.owner().execute(&delete).await.unwrap();
    // Two deleted events, and two numbers that no event ever had.
    for seq in [numbers[0], numbers[1], numbers.last().unwrap() + 1, -1] {
        assert_eq!(
            subscribe_outcome_code(ada.events().subscribe(game.session_id, Some(seq)).await),
            "events_expired",
            "{seq}"
        );
        assert_eq!(outcome_code(ada.events().after(game.session_id, seq).await), "events_expired", "{seq}");
    }
    let later_events = ada.events().after(game.session_id, numbers[2]).await.unwrap();
    assert_eq!(later_events.iter().map(|event| event.seq).collect::<Vec<_>>(), numbers[3..]);
    assert!(ada.events().after(game.session_id, *numbers.last().unwrap()).await.unwrap().is_empty());
    let mut stream = ada.events().subscribe(game.session_id, Some(numbers[2])).await.unwrap();
    assert_eq!(read_until(&mut stream, *numbers.last().unwrap()).await, numbers[3..]);
}

#[tokio::test]
async fn nobody_resumes_after_an_event_older_than_a_day_if_newer_ones_follow() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    write_events(&game.players[0].caller, game.session_id, 2).await;
    let numbers = event_seqs(&world, game.session_id).await;
    // The clean-up skips locked rows, so an event older than a day may remain.
    let age_first_event =
        format!("UPDATE session_events SET created_at = now() - INTERVAL '25 hours' WHERE seq = {}", numbers[0]);
    world.owner().execute(&age_first_event).await.unwrap();
    assert_eq!(
        subscribe_outcome_code(ada.events().subscribe(game.session_id, Some(numbers[0])).await),
        "events_expired"
    );
    assert_eq!(outcome_code(ada.events().after(game.session_id, numbers[0]).await), "events_expired");
    assert_eq!(subscribe_outcome_code(ada.events().subscribe(game.session_id, Some(numbers[1])).await), "subscribed");
    assert_eq!(outcome_code(ada.events().after(game.session_id, numbers[1]).await), "done");
    assert_eq!(subscribe_outcome_code(ada.events().subscribe(game.session_id, None).await), "subscribed");
}

#[tokio::test]
async fn the_stream_of_a_session_that_has_ended_stays_open_until_it_is_archived() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let mut stream = sparc.as_user(game.players[0].user_id).events().subscribe(game.session_id, None).await.unwrap();
    sparc.as_user(game.seer.user_id()).sessions().complete(game.session_id).await.unwrap();
    assert_eq!(next_event(&mut stream).await.event_type, "session_status");
    assert!(receives_nothing(&mut stream).await);
    // A session is archived 90 days after its end.
    world.update_session(&game, "ended_at = now() - INTERVAL '1 year'").await;
    assert_eq!(world.owner().fetch_value::<i32>("SELECT private.archive_sessions(10)").await, Ok(1));
    assert_eq!(read_to_error(&mut stream).await, "not_found");
}

/// Asserts that the poller (the task that reads new events for all streams of a `Sparc` handle) stops: waits until no
/// `Sparc` handle has sent a statement for 200 ms.
async fn assert_poller_stops(world: &World) {
    let select_last_activity = "SELECT coalesce(max(state_change)::text, '') FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'sparc'";
    for _ in 0..50 {
        let before: String = world.owner().fetch_value(select_last_activity).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        if world.owner().fetch_value::<String>(select_last_activity).await.unwrap() == before {
            return;
        }
    }
    panic!("the poller must stop sending statements");
}

#[tokio::test]
async fn dropping_the_last_stream_stops_the_poller_and_the_next_one_restarts_it() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    for _ in 0..2 {
        let mut streams = Vec::new();
        for caller in callers_with_access(&sparc, &game) {
            streams.push(caller.events().subscribe(game.session_id, None).await.unwrap());
        }
        write_events(&game.players[0].caller, game.session_id, 1).await;
        for stream in &mut streams {
            next_event(stream).await;
        }
        drop(streams);
        assert_poller_stops(&world).await;
    }
}

#[tokio::test]
async fn closing_the_handle_ends_its_streams() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    let mut stream = ada.events().subscribe(game.session_id, None).await.unwrap();
    write_events(&game.players[0].caller, game.session_id, 1).await;
    next_event(&mut stream).await;
    sparc.close().await.unwrap();
    assert_eq!(read_to_error(&mut stream).await, "pool_closed");
    assert_eq!(subscribe_outcome_code(ada.events().subscribe(game.session_id, None).await), "pool_closed");
}

#[tokio::test]
async fn the_stream_of_a_session_without_events_of_the_last_day_starts_after_its_newest_event() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    write_events(&game.players[0].caller, game.session_id, 2).await;
    world.owner().execute("UPDATE session_events SET created_at = now() - INTERVAL '25 hours'").await.unwrap();
    let newest_seq = ada.events().newest_seq(game.session_id).await.unwrap();
    let mut stream_after_newest = ada.events().subscribe(game.session_id, Some(newest_seq)).await.unwrap();
    let mut stream_from_now = ada.events().subscribe(game.session_id, None).await.unwrap();
    assert!(
        !event_seqs(&world, game.session_id).await.is_empty(),
        "the old events must stay until the next event is written"
    );
    assert!(ada.events().after(game.session_id, 0).await.unwrap().is_empty());
    assert!(receives_nothing(&mut stream_after_newest).await, "an event older than a day must not be delivered as new");
    write_events(&game.players[0].caller, game.session_id, 1).await;
    let newest_seq_after_write = event_seqs(&world, game.session_id).await.pop().unwrap();
    assert_eq!(ada.events().newest_seq(game.session_id).await.unwrap(), newest_seq_after_write);
    for stream in [&mut stream_after_newest, &mut stream_from_now] {
        assert_eq!(next_event(stream).await.seq, newest_seq_after_write);
    }
}

#[tokio::test]
async fn a_stream_knows_where_to_resume_before_and_after_each_event() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    write_events(&game.players[0].caller, game.session_id, 2).await;
    let numbers_before = event_seqs(&world, game.session_id).await;
    let resumed_stream = ada.events().subscribe(game.session_id, Some(numbers_before[0])).await.unwrap();
    assert_eq!(resumed_stream.last_seq(), numbers_before[0]);
    let mut stream = ada.events().subscribe(game.session_id, None).await.unwrap();
    assert_eq!(stream.last_seq(), *numbers_before.last().unwrap(), "a new stream starts after the newest event");
    write_events(&game.players[0].caller, game.session_id, 2).await;
    for seq in &event_seqs(&world, game.session_id).await[numbers_before.len()..] {
        assert_eq!((next_event(&mut stream).await.seq, stream.last_seq()), (*seq, *seq));
    }
    let eventless_game = world.new_session(0).await;
    let seer = sparc.as_user(eventless_game.seer.user_id());
    assert_eq!(seer.events().subscribe(eventless_game.session_id, None).await.unwrap().last_seq(), 0);
}

#[tokio::test]
async fn pages_of_events_have_at_most_two_hundred_and_follow_each_other_without_a_gap() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let ada = world.sparc.as_user(game.players[0].user_id);
    for _ in 0..5 {
        write_events(&game.players[0].caller, game.session_id, 100).await;
    }
    let numbers = event_seqs(&world, game.session_id).await;
    let mut read_numbers = Vec::new();
    for expected_count in [200, 200, numbers.len() - 400, 0] {
        let last_seq = read_numbers.last().copied().unwrap_or_default();
        let page = ada.events().after(game.session_id, last_seq).await.unwrap();
        assert_eq!(page.len(), expected_count);
        read_numbers.extend(page.into_iter().map(|event| event.seq));
    }
    assert_eq!(read_numbers, numbers);
}
