//! What ends a stream, and after which event a caller can resume one. Also: how many events `after` returns.

use std::time::Duration;

use futures_util::StreamExt;
use sparc::service::Operations;

use super::{
    DELIVERY_TIMEOUT, callers_with_access, connect_sparc, event_seqs, next_event, read_to_error, read_until,
    receives_nothing, subscribe_outcome_code, write_events,
};
use crate::world::{GameSession, World, outcome_code};

#[tokio::test]
async fn resuming_after_an_event_that_does_not_exist_fails_with_events_expired() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    write_events(&game.players[0].caller, game.session_id, 3).await;
    let seqs = event_seqs(&world, game.session_id).await;
    let delete = format!("DELETE FROM session_events WHERE seq <= {}", seqs[1]);
    world.owner().execute(&delete).await.unwrap();
    // Two deleted events, and two numbers that no event ever had.
    for seq in [seqs[0], seqs[1], seqs.last().unwrap() + 1, -1] {
        assert_eq!(
            subscribe_outcome_code(ada.events().subscribe(game.session_id, Some(seq)).await),
            "events_expired",
            "{seq}"
        );
        assert_eq!(outcome_code(ada.events().after(game.session_id, seq).await), "events_expired", "{seq}");
    }
    let later_events = ada.events().after(game.session_id, seqs[2]).await.unwrap();
    assert_eq!(later_events.iter().map(|event| event.seq).collect::<Vec<_>>(), seqs[3..]);
    assert!(ada.events().after(game.session_id, *seqs.last().unwrap()).await.unwrap().is_empty());
    let mut stream = ada.events().subscribe(game.session_id, Some(seqs[2])).await.unwrap();
    assert_eq!(read_until(&mut stream, *seqs.last().unwrap()).await, seqs[3..]);
}

#[tokio::test]
async fn resuming_after_an_event_older_than_a_day_fails_if_newer_events_follow() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    write_events(&game.players[0].caller, game.session_id, 2).await;
    let seqs = event_seqs(&world, game.session_id).await;
    // The clean-up skips locked rows, so an event that is older than a day can still be there.
    let age_first_event =
        format!("UPDATE session_events SET created_at = now() - INTERVAL '25 hours' WHERE seq = {}", seqs[0]);
    world.owner().execute(&age_first_event).await.unwrap();
    assert_eq!(subscribe_outcome_code(ada.events().subscribe(game.session_id, Some(seqs[0])).await), "events_expired");
    assert_eq!(outcome_code(ada.events().after(game.session_id, seqs[0]).await), "events_expired");
    assert_eq!(subscribe_outcome_code(ada.events().subscribe(game.session_id, Some(seqs[1])).await), "subscribed");
    assert_eq!(outcome_code(ada.events().after(game.session_id, seqs[1]).await), "done");
    assert_eq!(subscribe_outcome_code(ada.events().subscribe(game.session_id, None).await), "subscribed");
}

/// Dates all events back by more than a day, and writes two new ones. After each of the two, the clean-up deletes up to
/// a hundred of the old events.
async fn replace_events_after_a_day(world: &World, game: &GameSession) {
    world.owner().execute("UPDATE session_events SET created_at = now() - INTERVAL '25 hours'").await.unwrap();
    let last_old_seq = *event_seqs(world, game.session_id).await.last().unwrap();
    for _ in 0..2 {
        write_events(&game.players[0].caller, game.session_id, 1).await;
    }
    assert!(event_seqs(world, game.session_id).await[0] > last_old_seq, "the old events must have been deleted");
}

#[tokio::test]
async fn a_stream_that_was_not_read_while_its_next_events_were_deleted_ends_with_events_expired() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    write_events(&game.players[0].caller, game.session_id, 3).await;
    let first_seq = event_seqs(&world, game.session_id).await[0];
    let mut stream = ada.events().subscribe(game.session_id, Some(first_seq)).await.unwrap();
    // A stream that starts after 0 returns the events that are still there when it is read.
    let mut stream_of_last_day = ada.events().subscribe(game.session_id, Some(0)).await.unwrap();
    replace_events_after_a_day(&world, &game).await;
    let new_seqs = event_seqs(&world, game.session_id).await;
    let outcome = tokio::time::timeout(DELIVERY_TIMEOUT, stream.next()).await.unwrap().unwrap();
    assert_eq!(outcome.map(|event| event.seq).map_err(|error| error.code()), Err("events_expired"));
    assert_eq!(read_until(&mut stream_of_last_day, new_seqs[1]).await, new_seqs);
}

#[tokio::test]
async fn a_stream_whose_events_after_the_first_page_were_deleted_ends_with_events_expired() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    // A stream reads pages of fifty events, so these are more than two pages.
    for _ in 0..2 {
        write_events(&game.players[0].caller, game.session_id, 60).await;
    }
    let seqs = event_seqs(&world, game.session_id).await;
    // Two streams, one from the beginning and one after the first event, each with the index of its own first event.
    let mut streams = Vec::new();
    for after_index in [None, Some(0)] {
        let after_seq = after_index.map_or(0, |index: usize| seqs[index]);
        let mut stream = ada.events().subscribe(game.session_id, Some(after_seq)).await.unwrap();
        next_event(&mut stream).await;
        streams.push((stream, after_index.map_or(0, |index| index + 1)));
    }
    replace_events_after_a_day(&world, &game).await;
    for (stream, first_index) in &mut streams {
        // The rest of the page that the stream had read.
        assert_eq!(read_until(stream, seqs[*first_index + 49]).await, seqs[*first_index + 1..*first_index + 50]);
        let outcome = tokio::time::timeout(DELIVERY_TIMEOUT, stream.next()).await.unwrap().unwrap();
        assert_eq!(outcome.map(|event| event.seq).map_err(|error| error.code()), Err("events_expired"));
    }
}

#[tokio::test]
async fn the_stream_of_an_ended_session_stays_open_until_the_session_is_archived() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let mut stream = sparc.as_user(game.players[0].user_id).events().subscribe(game.session_id, None).await.unwrap();
    sparc.as_user(game.seer.user_id()).sessions().complete(game.session_id).await.unwrap();
    assert_eq!(next_event(&mut stream).await.event_type, "session_status");
    assert!(receives_nothing(&mut stream).await);
    // A session can be archived 90 days after its end.
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
async fn dropping_the_last_stream_stops_the_poller_and_a_new_stream_restarts_it() {
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
async fn deleting_a_session_ends_a_stream_that_is_not_read_even_if_every_poll_finds_a_new_history() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let mut stream = sparc.as_user(game.players[0].user_id).events().subscribe(game.session_id, None).await.unwrap();
    // The result of this function identifies the history of events. It is now different for each poll.
    let return_new_history = "CREATE OR REPLACE FUNCTION private.event_history_id() RETURNS text LANGUAGE sql
        AS 'SELECT clock_timestamp()::text'";
    world.owner().execute(return_new_history).await.unwrap();
    world.update_session(&game, "status = 'cancelled'").await;
    let sql = format!("DELETE FROM sessions WHERE id = '{}'", game.session_id);
    world.owner().execute(&sql).await.unwrap();
    // The stream is not read, so only the poller can notice that its caller has lost access.
    assert_poller_stops(&world).await;
    assert_eq!(read_to_error(&mut stream).await, "not_found");
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
async fn streams_of_a_session_whose_events_are_all_older_than_a_day_deliver_only_new_events() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    write_events(&game.players[0].caller, game.session_id, 2).await;
    world.owner().execute("UPDATE session_events SET created_at = now() - INTERVAL '25 hours'").await.unwrap();
    // This returns 0, because no event is from the last day.
    let newest_seq = ada.events().newest_seq(game.session_id).await.unwrap();
    let mut stream_after_newest_seq = ada.events().subscribe(game.session_id, Some(newest_seq)).await.unwrap();
    let mut stream_from_now = ada.events().subscribe(game.session_id, None).await.unwrap();
    assert!(
        !event_seqs(&world, game.session_id).await.is_empty(),
        "the old events must stay until the next event is written"
    );
    assert!(ada.events().after(game.session_id, 0).await.unwrap().is_empty());
    assert!(
        receives_nothing(&mut stream_after_newest_seq).await,
        "an event older than a day must not be delivered as new"
    );
    write_events(&game.players[0].caller, game.session_id, 1).await;
    let newest_seq_after_write = event_seqs(&world, game.session_id).await.pop().unwrap();
    assert_eq!(ada.events().newest_seq(game.session_id).await.unwrap(), newest_seq_after_write);
    for stream in [&mut stream_after_newest_seq, &mut stream_from_now] {
        assert_eq!(next_event(stream).await.seq, newest_seq_after_write);
    }
}

#[tokio::test]
async fn last_seq_of_a_stream_is_where_it_started_and_then_the_last_event_returned() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    write_events(&game.players[0].caller, game.session_id, 2).await;
    let seqs_before = event_seqs(&world, game.session_id).await;
    let resumed_stream = ada.events().subscribe(game.session_id, Some(seqs_before[0])).await.unwrap();
    assert_eq!(resumed_stream.last_seq(), seqs_before[0]);
    let mut stream = ada.events().subscribe(game.session_id, None).await.unwrap();
    assert_eq!(stream.last_seq(), *seqs_before.last().unwrap(), "a new stream starts after the newest event");
    write_events(&game.players[0].caller, game.session_id, 2).await;
    for seq in &event_seqs(&world, game.session_id).await[seqs_before.len()..] {
        assert_eq!((next_event(&mut stream).await.seq, stream.last_seq()), (*seq, *seq));
    }
    let eventless_game = world.new_session(0).await;
    let seer = sparc.as_user(eventless_game.seer.user_id());
    assert_eq!(seer.events().subscribe(eventless_game.session_id, None).await.unwrap().last_seq(), 0);
}

#[tokio::test]
async fn after_returns_at_most_two_hundred_events_and_the_next_call_continues_without_a_gap() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let ada = world.sparc.as_user(game.players[0].user_id);
    for _ in 0..5 {
        write_events(&game.players[0].caller, game.session_id, 100).await;
    }
    let seqs = event_seqs(&world, game.session_id).await;
    let mut received_seqs = Vec::new();
    for expected_count in [200, 200, seqs.len() - 400, 0] {
        let last_seq = received_seqs.last().copied().unwrap_or_default();
        let page = ada.events().after(game.session_id, last_seq).await.unwrap();
        assert_eq!(page.len(), expected_count);
        received_seqs.extend(page.into_iter().map(|event| event.seq));
    }
    assert_eq!(received_seqs, seqs);
}
