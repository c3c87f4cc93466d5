//! `subscribe_many`: one stream with the events of several sessions. One test also has many streams at once.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use sparc::{
    entity::session_events::Model as Event,
    service::{Error, Operations, events::Subscriptions},
};
use uuid::Uuid;

use crate::{
    live_events::{DELIVERY_TIMEOUT, SILENCE_TIMEOUT, connect_sparc, event_seqs, write_events},
    world::{World, insert_seat_sql, run_together},
};

/// Returns the next event or error with its session, or `None` at the end of the stream.
async fn next_item(stream: &mut Subscriptions) -> Option<(Uuid, Result<Event, Error>)> {
    tokio::time::timeout(DELIVERY_TIMEOUT, stream.next()).await.expect("an event must arrive")
}

/// Returns the numbers (`seq`) of the next `count` events, by session.
async fn read_event_seqs(stream: &mut Subscriptions, count: usize) -> BTreeMap<Uuid, Vec<i64>> {
    let mut seen = BTreeMap::<Uuid, Vec<i64>>::new();
    for _ in 0..count {
        let (session_id, event) = next_item(stream).await.unwrap();
        let event = event.unwrap();
        assert_eq!(event.session_id, session_id);
        seen.entry(session_id).or_default().push(event.seq);
    }
    seen
}

/// Returns whether the stream yields nothing within [`SILENCE_TIMEOUT`]: no event, no error, and not its end.
async fn receives_nothing(stream: &mut Subscriptions) -> bool {
    tokio::time::timeout(SILENCE_TIMEOUT, stream.next()).await.is_err()
}

#[tokio::test]
async fn a_stream_delivers_each_sessions_events_in_order_while_sessions_are_added_and_removed() {
    let world = World::new().await;
    let sparc = connect_sparc(&world).await;
    let mut games = Vec::new();
    for _ in 0..3 {
        games.push(world.new_active_session(1).await);
    }
    let [first_session_id, second_session_id, third_session_id] = [0, 1, 2].map(|index| games[index].session_id);
    let earlier_seqs = event_seqs(&world, second_session_id).await;
    let mut stream = sparc
        .as_service()
        .events()
        .subscribe_many([(first_session_id, None), (second_session_id, Some(earlier_seqs[0]))])
        .await
        .unwrap();
    // A subscription reads pages of fifty events, so the new events of a session do not fit on one page.
    for game in &games {
        write_events(&game.players[0].caller, game.session_id, 70).await;
    }
    let mut expected = BTreeMap::new();
    // Each session had two events when the stream began. The first subscription starts after both, the second after one
    // of them.
    expected.insert(first_session_id, event_seqs(&world, first_session_id).await.split_off(2));
    expected.insert(second_session_id, event_seqs(&world, second_session_id).await.split_off(1));
    let count = expected.values().map(Vec::len).sum();
    assert_eq!(read_event_seqs(&mut stream, count).await, expected);

    stream.add(third_session_id, Some(0)).await.unwrap();
    assert!(stream.remove(first_session_id));
    assert!(!stream.remove(first_session_id));
    for game in &games {
        write_events(&game.players[0].caller, game.session_id, 1).await;
    }
    let mut expected = BTreeMap::new();
    expected.insert(second_session_id, vec![*event_seqs(&world, second_session_id).await.last().unwrap()]);
    expected.insert(third_session_id, event_seqs(&world, third_session_id).await);
    let count = expected.values().map(Vec::len).sum();
    assert_eq!(read_event_seqs(&mut stream, count).await, expected);
    assert!(receives_nothing(&mut stream).await, "no event of a removed session may arrive, and none twice");

    // If a session is added again with a later `seq`, only its events after that `seq` are delivered. Earlier events
    // are skipped, even if they were not read yet.
    write_events(&games[1].players[0].caller, second_session_id, 5).await;
    stream.add(second_session_id, Some(*event_seqs(&world, second_session_id).await.last().unwrap())).await.unwrap();
    write_events(&games[1].players[0].caller, second_session_id, 1).await;
    let newest_seq = *event_seqs(&world, second_session_id).await.last().unwrap();
    assert_eq!(read_event_seqs(&mut stream, 1).await, BTreeMap::from([(second_session_id, vec![newest_seq])]));
    assert!(receives_nothing(&mut stream).await);
    let mut session_ids: Vec<Uuid> = stream.session_ids().collect();
    session_ids.sort_unstable();
    let mut expected = vec![second_session_id, third_session_id];
    expected.sort_unstable();
    assert_eq!(session_ids, expected);
}

#[tokio::test]
async fn an_error_for_one_session_ends_the_events_of_that_session_only() {
    let world = World::new().await;
    let sparc = connect_sparc(&world).await;
    let (game, other_game) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let ada = sparc.as_user(game.players[0].user_id);
    let unknown_session_id = Uuid::new_v4();
    let mut stream = ada
        .events()
        .subscribe_many([(game.session_id, None), (other_game.session_id, None), (unknown_session_id, Some(3))])
        .await
        .unwrap();
    let mut error_codes = BTreeMap::new();
    for _ in 0..2 {
        let (session_id, outcome) = next_item(&mut stream).await.unwrap();
        error_codes.insert(session_id, outcome.unwrap_err().code());
    }
    assert_eq!(
        error_codes,
        BTreeMap::from([(other_game.session_id, "not_allowed"), (unknown_session_id, "not_allowed")])
    );
    assert_eq!(stream.add(other_game.session_id, None).await.unwrap_err().code(), "not_allowed");
    assert_eq!(stream.add(game.session_id, Some(i64::MAX)).await.unwrap_err().code(), "events_expired");
    write_events(&game.players[0].caller, game.session_id, 2).await;
    read_event_seqs(&mut stream, 2).await;

    // Without the seat, the player is no longer a participant.
    world
        .owner()
        .execute(&format!("DELETE FROM session_players WHERE user_id = '{}'", game.players[0].user_id))
        .await
        .unwrap();
    let final_error = loop {
        match next_item(&mut stream).await.unwrap() {
            (_, Ok(_)) => {}
            (session_id, Err(error)) => break (session_id, error.code()),
        }
    };
    assert_eq!(final_error, (game.session_id, "not_allowed"));
    assert!(next_item(&mut stream).await.is_none(), "the stream must end with its last session");

    let visitor_outcome = sparc.as_anon().events().subscribe_many([(other_game.session_id, None)]).await;
    assert_eq!(visitor_outcome.unwrap_err().code(), "not_signed_in");
}

/// The errors are not read before the sessions are added or removed.
#[tokio::test]
async fn the_error_of_a_refused_session_is_not_returned_after_the_session_was_added_or_removed() {
    let world = World::new().await;
    let sparc = connect_sparc(&world).await;
    let (game, other_game) = (world.new_session(0).await, world.new_session(0).await);
    let player = world.new_player().await;
    let mut stream = sparc
        .as_user(player.user_id)
        .events()
        .subscribe_many([(game.session_id, None), (other_game.session_id, None)])
        .await
        .unwrap();
    world.owner().execute(&insert_seat_sql(game.session_id, player.user_id, player.character_id)).await.unwrap();
    stream.add(game.session_id, None).await.unwrap();
    assert!(!stream.remove(other_game.session_id), "the session was never included");
    write_events(&player.caller, game.session_id, 2).await;
    read_event_seqs(&mut stream, 2).await;
    assert!(receives_nothing(&mut stream).await);
}

#[tokio::test]
async fn a_stream_may_begin_without_sessions_and_yields_an_error_once_sparc_is_closed() {
    let world = World::new().await;
    let sparc = connect_sparc(&world).await;
    let game = world.new_active_session(1).await;
    let mut stream = sparc.as_service().events().subscribe_many([]).await.unwrap();
    assert!(next_item(&mut stream).await.is_none());
    stream.add(game.session_id, None).await.unwrap();
    write_events(&game.players[0].caller, game.session_id, 1).await;
    read_event_seqs(&mut stream, 1).await;
    sparc.clone().close().await.unwrap();
    let (session_id, outcome) = next_item(&mut stream).await.unwrap();
    assert_eq!((session_id, outcome.unwrap_err().code()), (game.session_id, "pool_closed"));
}

#[tokio::test]
async fn a_closed_account_cannot_subscribe_to_many_sessions() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let closed_account_id = game.players[0].user_id;
    world.sparc.as_service().users().close_account(closed_account_id).await.unwrap();
    let outcome = world.sparc.as_user(closed_account_id).events().subscribe_many([(game.session_id, None)]).await;
    assert_eq!(outcome.unwrap_err().code(), "account_closed");
}

/// Each of two handles has 250 streams, one for each session, and one stream of all 250 sessions: 502 streams with
/// 2 * (250 + 250) subscriptions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscriptions_deliver_all_events_of_their_sessions() {
    const SESSION_COUNT: usize = 250;
    /// Two INSERTs of two events each.
    const EVENTS_PER_SESSION: usize = 4;
    let world = World::new().await;
    let (first_handle, second_handle) = (connect_sparc(&world).await, connect_sparc(&world).await);
    let mut games = Vec::new();
    for _ in 0..SESSION_COUNT {
        games.push(world.new_active_session(1).await);
    }
    let mut single_session_streams = Vec::new();
    let all_sessions: Vec<_> = games.iter().map(|game| (game.session_id, None)).collect();
    let mut many_session_streams = Vec::new();
    for sparc in [&first_handle, &second_handle] {
        many_session_streams.push(sparc.as_service().events().subscribe_many(all_sessions.clone()).await.unwrap());
        for game in &games {
            let caller = sparc.as_user(game.players[0].user_id);
            single_session_streams
                .push((game.session_id, caller.events().subscribe(game.session_id, None).await.unwrap()));
        }
    }
    assert_eq!(single_session_streams.len() + many_session_streams.len() * SESSION_COUNT, 1000);
    let mut read_tasks = Vec::new();
    for (session_id, mut stream) in single_session_streams {
        read_tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < EVENTS_PER_SESSION {
                let event =
                    tokio::time::timeout(4 * DELIVERY_TIMEOUT, stream.next()).await.expect("an event must arrive");
                seen.push(event.unwrap().unwrap().seq);
            }
            let outcome = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
            assert!(outcome.is_err(), "no event may be delivered twice");
            BTreeMap::from([(session_id, seen)])
        }));
    }
    for mut stream in many_session_streams {
        let event_count = EVENTS_PER_SESSION * SESSION_COUNT;
        read_tasks.push(tokio::spawn(async move { read_event_seqs(&mut stream, event_count).await }));
    }
    let write_tasks = games.iter().map(|game| {
        let (caller, session_id) = (game.players[0].caller.clone(), game.session_id);
        async move {
            for _ in 0..2 {
                write_events(&caller, session_id, 2).await;
            }
        }
    });
    run_together(write_tasks.collect()).await;
    for task in read_tasks {
        for (session_id, seen) in task.await.unwrap() {
            // Each session had two events before the streams began.
            assert_eq!(seen, event_seqs(&world, session_id).await.split_off(2), "{session_id}");
        }
    }
}
