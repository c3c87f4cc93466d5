//! Each event arrives once and in order. This also holds under load, for events that are committed late, for large
//! events, and after the server has crashed.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use sparc::{
    entity::session_events::Model as Event,
    service::{Operations, Options, Sparc, sessions::ExpectedVersion},
};
use testdb::Server;
use uuid::Uuid;

use super::{
    callers_with_access, connect_sparc, event_seqs, insert_events_sql, new_wave_event, next_event, read_to_error,
    read_until, receives_nothing, write_events,
};
use crate::world::{BoxedTask, World, insert_attribute_check_sql, run_together};

#[tokio::test]
async fn an_event_arrives_once_and_in_order_whoever_writes_it() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (first_sparc, second_sparc, player) =
        (connect_sparc(&world).await, connect_sparc(&world).await, &game.players[0]);
    let seqs_before = event_seqs(&world, game.session_id).await;
    let ada = first_sparc.as_user(player.user_id);
    let mut stream_from_now = ada.events().subscribe(game.session_id, None).await.unwrap();
    // A stream that starts after 0 delivers all events of the last day.
    let mut stream_of_last_day = ada.events().subscribe(game.session_id, Some(0)).await.unwrap();
    let mut resumed_stream =
        second_sparc.as_user(player.user_id).events().subscribe(game.session_id, Some(seqs_before[0])).await.unwrap();

    ada.events().send(new_wave_event(game.session_id)).await.unwrap();
    let sent_event = second_sparc.as_user(player.user_id).events().send(new_wave_event(game.session_id)).await.unwrap();
    assert_eq!(
        read_until(&mut stream_from_now, sent_event.seq).await.len(),
        2,
        "both must arrive before any other event is written"
    );
    write_events(&player.caller, game.session_id, 3).await;
    world.owner().execute(&insert_attribute_check_sql(game.session_id, player.character_id)).await.unwrap();

    let seqs = event_seqs(&world, game.session_id).await;
    let newest_seq = *seqs.last().unwrap();
    let new_seqs = seqs[seqs_before.len()..].to_vec();
    assert_eq!(new_seqs.len(), 6, "two were sent, three inserted, and the roll caused one");
    assert_eq!(read_until(&mut stream_from_now, newest_seq).await, new_seqs[2..]);
    assert_eq!(read_until(&mut stream_of_last_day, newest_seq).await, seqs);
    assert_eq!(read_until(&mut resumed_stream, newest_seq).await, seqs[1..]);
    assert!(receives_nothing(&mut stream_from_now).await, "no event may arrive twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_subscribers_in_ten_sessions_get_every_event_under_load() {
    let world = World::new().await;
    let (first_sparc, second_sparc) = (connect_sparc(&world).await, connect_sparc(&world).await);
    let mut streams = Vec::new();
    let mut writers: Vec<BoxedTask<()>> = Vec::new();
    let mut event_counts_and_games = Vec::new();
    for _ in 0..10 {
        let game = world.new_active_session(2).await;
        let mut subscribers = callers_with_access(&first_sparc, &game);
        subscribers.push(second_sparc.as_user(game.players[0].user_id));
        for subscriber in subscribers {
            streams.push((game.session_id, subscriber.events().subscribe(game.session_id, None).await.unwrap()));
        }
        for (index, player) in game.players.iter().enumerate() {
            let (caller, session_id) = (player.caller.clone(), game.session_id);
            let sender = [&first_sparc, &second_sparc][index].as_user(player.user_id);
            writers.push(Box::pin(async move {
                for _ in 0..8 {
                    sender.events().send(new_wave_event(session_id)).await.unwrap();
                    write_events(&caller, session_id, 2).await;
                }
            }));
        }
        event_counts_and_games.push((event_seqs(&world, game.session_id).await.len(), game));
    }
    assert_eq!(streams.len(), 50, "each session must have five subscribers");
    let readers: Vec<_> = streams
        .into_iter()
        .map(|(session_id, mut stream)| {
            tokio::spawn(async move {
                let mut received_seqs = Vec::new();
                // Two players each write three events, eight times.
                for _ in 0..48 {
                    received_seqs.push(next_event(&mut stream).await.seq);
                }
                (session_id, received_seqs, stream)
            })
        })
        .collect();
    run_together(writers).await;
    for reader in readers {
        let (session_id, received_seqs, mut stream) = reader.await.unwrap();
        let (count_before, _) = event_counts_and_games.iter().find(|(_, game)| game.session_id == session_id).unwrap();
        assert_eq!(received_seqs, event_seqs(&world, session_id).await[*count_before..]);
        assert!(
            tokio::time::timeout(Duration::from_millis(60), stream.next()).await.is_err(),
            "no further event may arrive"
        );
    }
}

#[tokio::test]
async fn an_event_arrives_even_if_another_sessions_event_with_a_higher_number_was_committed_first() {
    let world = World::new().await;
    let (game, other_game) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let sparc = connect_sparc(&world).await;
    let mut stream = sparc.as_service().events().subscribe(game.session_id, None).await.unwrap();
    let mut other_stream = sparc.as_service().events().subscribe(other_game.session_id, None).await.unwrap();
    let open_transaction = game.players[0].caller.begin().await;
    sea_orm::ConnectionTrait::execute_unprepared(&open_transaction, &insert_events_sql(game.session_id, 1))
        .await
        .unwrap();
    // An event of another session draws a higher number, but becomes visible first.
    write_events(&other_game.players[0].caller, other_game.session_id, 1).await;
    next_event(&mut other_stream).await;
    assert!(receives_nothing(&mut stream).await, "the event is not committed yet");
    open_transaction.commit().await.unwrap();
    next_event(&mut stream).await;
    assert!(receives_nothing(&mut stream).await);
}

#[tokio::test]
async fn a_slow_subscriber_loses_no_event_and_delays_no_other_subscriber() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    let mut slow_stream = ada.events().subscribe(game.session_id, None).await.unwrap();
    let mut fast_stream = ada.events().subscribe(game.session_id, None).await.unwrap();
    let count_before = event_seqs(&world, game.session_id).await.len();
    for _ in 0..5 {
        write_events(&game.players[0].caller, game.session_id, 100).await;
        let newest_seq = *event_seqs(&world, game.session_id).await.last().unwrap();
        assert_eq!(read_until(&mut fast_stream, newest_seq).await.len(), 100);
    }
    let seqs = event_seqs(&world, game.session_id).await;
    assert_eq!(read_until(&mut slow_stream, *seqs.last().unwrap()).await, seqs[count_before..]);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_keeps_no_connection() {
    let world = World::new().await;
    let options = Options::default().max_connections(2).deadline(Duration::from_secs(5));
    let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
    let mut session_ids = Vec::new();
    for _ in 0..8 {
        let game = world.new_active_session(1).await;
        // A page holds at most 50 events, so each session has a second page to read.
        write_events(&game.players[0].caller, game.session_id, 80).await;
        session_ids.push(game.session_id);
    }
    let from_start = session_ids.iter().map(|session_id| (*session_id, Some(0)));
    let mut multi_session_stream = sparc.as_service().events().subscribe_many(from_start).await.unwrap();
    // The first item comes while pages of other sessions are being read.
    multi_session_stream.next().await.unwrap().1.unwrap();
    world.owner().assert_no_transaction_stays_idle().await;
    let user = sparc.as_user(world.new_account().await);
    assert!(user.users().me().await.is_ok(), "the other callers of the handle must get connections");
    let mut count = 1;
    while count < 8 * 80 {
        multi_session_stream.next().await.unwrap().1.unwrap();
        count += 1;
    }
    multi_session_stream.add(world.new_active_session(1).await.session_id, None).await.unwrap();
    drop(multi_session_stream);
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_survives_a_crash_of_the_server() {
    // The servers of other tests run with these settings off, and could lose committed events in a crash.
    let server =
        Server::start_plain(Some(&["fsync=on", "synchronous_commit=on", "full_page_writes=on"])).await.unwrap();
    let world = World::new_on(&server).await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    let mut stream = ada.events().subscribe(game.session_id, None).await.unwrap();
    let mut received_seqs = Vec::new();
    for round in 0..3 {
        let sent_event = loop {
            // The first attempts after a crash can get a connection that it has broken.
            match ada.events().send(new_wave_event(game.session_id)).await {
                Ok(event) => break event,
                Err(error) => assert!(error.is_retryable() || error.code() == "commit_unknown", "{error}"),
            }
        };
        received_seqs.extend(read_until(&mut stream, sent_event.seq).await);
        if round < 2 {
            let server = server.clone();
            tokio::task::spawn_blocking(move || server.crash_and_restart()).await.unwrap().unwrap();
        }
    }
    let seqs = event_seqs(&world.with_new_pool().await, game.session_id).await;
    assert_eq!(received_seqs, seqs[seqs.len() - received_seqs.len()..]);
}

#[tokio::test]
async fn large_events_and_large_batches_arrive() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (sparc, seer) = (connect_sparc(&world).await, world.sparc.as_user(game.seer.user_id()));
    let mut streams = Vec::new();
    for caller in callers_with_access(&sparc, &game) {
        streams.push(caller.events().subscribe(game.session_id, None).await.unwrap());
    }
    let count_before = event_seqs(&world, game.session_id).await.len();
    for round in 0..3 {
        // The poller, which reads for all subscribers, does not read an event as large as one with 6,000 UUIDs: each
        // subscriber reads it. The event of the first round is small.
        let words: Vec<String> = (0..6000).map(|_| Uuid::new_v4().to_string()).collect();
        let state = if round == 0 { json!(words[..4]) } else { json!(words) };
        seer.sessions().set_game_state(game.session_id, state.clone(), ExpectedVersion::Any).await.unwrap();
        // With the event of the game state, these are 121 events. They are read in pages of at most 50.
        write_events(&game.players[0].caller, game.session_id, 99).await;
        write_events(&game.players[0].caller, game.session_id, 21).await;
        let seqs = event_seqs(&world, game.session_id).await;
        // The first subscriber reads nothing in the second round, and the events of two rounds in the third.
        for (index, stream) in streams.iter_mut().enumerate().skip(usize::from(round == 1)) {
            let rounds = if index == 0 && round == 2 { 2 } else { 1 };
            let mut events = Vec::new();
            while events.last().is_none_or(|event: &Event| event.seq < *seqs.last().unwrap()) {
                events.push(next_event(stream).await);
            }
            assert_eq!(events.len(), rounds * 121);
            let state_event = events.iter().rfind(|event| event.event_type == "game_state").unwrap();
            assert!(state_event.payload["game_state"] == state, "the event must arrive in full");
        }
    }
    write_events(&game.players[0].caller, game.session_id, 1).await;
    let seqs = event_seqs(&world, game.session_id).await;
    assert_eq!(seqs.len() - count_before, 3 * 121 + 1);
    for stream in &mut streams {
        assert_eq!(read_until(stream, *seqs.last().unwrap()).await.len(), 1);
    }
}

#[tokio::test]
async fn events_with_very_large_numbers_arrive_and_resetting_the_sequence_ends_the_streams() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = connect_sparc(&world).await;
    let ada = sparc.as_user(game.players[0].user_id);
    let mut stream = ada.events().subscribe(game.session_id, None).await.unwrap();
    let count_before = event_seqs(&world, game.session_id).await.len();
    // The largest 32-bit integer; 2^53, up to which a JSON reader that uses doubles can tell all integers apart; and
    // almost the last value of the sequence.
    for start in [i64::from(i32::MAX), 1 << 53, i64::MAX - 4] {
        world.owner().execute(&format!("SELECT setval('session_events_seq_seq', {start})")).await.unwrap();
        write_events(&game.players[0].caller, game.session_id, 2).await;
    }
    let seqs = event_seqs(&world, game.session_id).await.split_off(count_before);
    assert!(seqs.len() == 6 && seqs[1] > i64::from(i32::MAX) && seqs[3] > 1 << 53 && seqs[5] > i64::MAX - 4);
    assert_eq!(read_until(&mut stream, seqs[5]).await, seqs);
    let mut resumed_stream = ada.events().subscribe(game.session_id, Some(seqs[2])).await.unwrap();
    assert_eq!(read_until(&mut resumed_stream, seqs[5]).await, seqs[3..]);
    world.owner().execute("SELECT setval('session_events_seq_seq', 1000)").await.unwrap();
    write_events(&game.players[0].caller, game.session_id, 1).await;
    for stream in [&mut stream, &mut resumed_stream] {
        assert_eq!(read_to_error(stream).await, "events_expired");
    }
}
