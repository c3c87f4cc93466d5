//! `subscribe_many`: one stream with the events of several sessions, and many such streams at once.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use sparc::{
    entity::session_events::Model as Event,
    service::{Error, Operations, events::Subscriptions},
};
use uuid::Uuid;

use crate::{
    live::{DELIVERY_TIMEOUT, SILENCE_TIMEOUT, connect_sparc, event_numbers, write_events},
    world::{World, run_together},
};

async fn next(stream: &mut Subscriptions) -> Option<(Uuid, Result<Event, Error>)> {
    tokio::time::timeout(DELIVERY_TIMEOUT, stream.next()).await.expect("no event arrives")
}

/// Returns the numbers of the next `count` events, by session.
async fn read_events(stream: &mut Subscriptions, count: usize) -> BTreeMap<Uuid, Vec<i64>> {
    let mut seen = BTreeMap::<Uuid, Vec<i64>>::new();
    for _ in 0..count {
        let (session, event) = next(stream).await.unwrap();
        let event = event.unwrap();
        assert_eq!(event.session_id, session);
        seen.entry(session).or_default().push(event.seq);
    }
    seen
}

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
    let [first, second, third] = [0, 1, 2].map(|index| games[index].session_id);
    let earlier_numbers = event_numbers(&world, second).await;
    let mut stream =
        sparc.as_service().events().subscribe_many([(first, None), (second, Some(earlier_numbers[0]))]).await.unwrap();
    for game in &games {
        write_events(&game.players[0].person, game.session_id, 70).await;
    }
    let mut expected = BTreeMap::new();
    // Each session has two events so far. The first subscription starts after both, the second after one of them.
    expected.insert(first, event_numbers(&world, first).await.split_off(2));
    expected.insert(second, event_numbers(&world, second).await.split_off(1));
    let count = expected.values().map(Vec::len).sum();
    assert_eq!(read_events(&mut stream, count).await, expected);

    stream.add(third, Some(0)).await.unwrap();
    assert!(stream.remove(first));
    assert!(!stream.remove(first));
    for game in &games {
        write_events(&game.players[0].person, game.session_id, 1).await;
    }
    let mut expected = BTreeMap::new();
    expected.insert(second, vec![*event_numbers(&world, second).await.last().unwrap()]);
    expected.insert(third, event_numbers(&world, third).await);
    let count = expected.values().map(Vec::len).sum();
    assert_eq!(read_events(&mut stream, count).await, expected);
    assert!(receives_nothing(&mut stream).await, "no event of a removed session may arrive, and none twice");

    // A session that is added again with a later `seq` continues there: unread events up to it are not delivered.
    write_events(&games[1].players[0].person, second, 5).await;
    stream.add(second, Some(*event_numbers(&world, second).await.last().unwrap())).await.unwrap();
    write_events(&games[1].players[0].person, second, 1).await;
    let newest = *event_numbers(&world, second).await.last().unwrap();
    assert_eq!(read_events(&mut stream, 1).await, BTreeMap::from([(second, vec![newest])]));
    assert!(receives_nothing(&mut stream).await);
    let mut sessions: Vec<Uuid> = stream.sessions().collect();
    sessions.sort_unstable();
    let mut expected = vec![second, third];
    expected.sort_unstable();
    assert_eq!(sessions, expected);
}

#[tokio::test]
async fn an_error_for_one_session_ends_the_events_of_that_session_only() {
    let world = World::new().await;
    let sparc = connect_sparc(&world).await;
    let (game, other_game) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let ada = sparc.as_user(game.players[0].user_id);
    let unknown = Uuid::new_v4();
    let mut stream = ada
        .events()
        .subscribe_many([(game.session_id, None), (other_game.session_id, None), (unknown, Some(3))])
        .await
        .unwrap();
    let mut refused = BTreeMap::new();
    for _ in 0..2 {
        let (session, outcome) = next(&mut stream).await.unwrap();
        refused.insert(session, outcome.unwrap_err().code());
    }
    assert_eq!(refused, BTreeMap::from([(other_game.session_id, "not_allowed"), (unknown, "not_allowed")]));
    assert_eq!(stream.add(other_game.session_id, None).await.unwrap_err().code(), "not_allowed");
    assert_eq!(stream.add(game.session_id, Some(i64::MAX)).await.unwrap_err().code(), "events_expired");
    write_events(&game.players[0].person, game.session_id, 2).await;
    read_events(&mut stream, 2).await;

    world
        .owner()
        .execute(&format!("DELETE FROM session_players WHERE user_id = '{}'", game.players[0].user_id))
        .await
        .unwrap();
    let ended = loop {
        match next(&mut stream).await.unwrap() {
            (_, Ok(_)) => {}
            (session, Err(error)) => break (session, error.code()),
        }
    };
    assert_eq!(ended, (game.session_id, "not_allowed"));
    assert!(next(&mut stream).await.is_none(), "the stream must end with its last session");

    let mut service_stream = sparc.as_service().events().subscribe_many([]).await.unwrap();
    assert!(next(&mut service_stream).await.is_none());
    service_stream.add(other_game.session_id, None).await.unwrap();
    write_events(&other_game.players[0].person, other_game.session_id, 1).await;
    read_events(&mut service_stream, 1).await;
    let by_visitor = sparc.as_anon().events().subscribe_many([(other_game.session_id, None)]).await;
    assert_eq!(by_visitor.unwrap_err().code(), "not_signed_in");
    sparc.clone().close().await.unwrap();
    let (session, outcome) = next(&mut service_stream).await.unwrap();
    assert_eq!((session, outcome.unwrap_err().code()), (other_game.session_id, "pool_closed"));
}

#[tokio::test]
async fn a_closed_account_cannot_subscribe_to_many_sessions() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let closed = game.players[0].user_id;
    world.sparc.as_service().users().close_account(closed).await.unwrap();
    let outcome = world.sparc.as_user(closed).events().subscribe_many([(game.session_id, None)]).await;
    assert_eq!(outcome.unwrap_err().code(), "account_closed");
}

/// Each of two handles has 250 streams of one session and one stream of 250 sessions: 2 * (250 + 250) subscriptions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscriptions_in_502_streams_get_all_events_of_their_250_sessions() {
    const SESSIONS: usize = 250;
    let world = World::new().await;
    let (first_handle, second_handle) = (connect_sparc(&world).await, connect_sparc(&world).await);
    let mut games = Vec::new();
    for _ in 0..SESSIONS {
        games.push(world.new_active_session(1).await);
    }
    let mut single_streams = Vec::new();
    let all: Vec<_> = games.iter().map(|game| (game.session_id, None)).collect();
    let mut gateway_streams = Vec::new();
    for sparc in [&first_handle, &second_handle] {
        gateway_streams.push(sparc.as_service().events().subscribe_many(all.clone()).await.unwrap());
        for game in &games {
            let caller = sparc.as_user(game.players[0].user_id);
            single_streams.push((game.session_id, caller.events().subscribe(game.session_id, None).await.unwrap()));
        }
    }
    assert_eq!(single_streams.len() + gateway_streams.len() * SESSIONS, 1000);
    let mut read_tasks = Vec::new();
    for (session, mut stream) in single_streams {
        read_tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 4 {
                let event = tokio::time::timeout(4 * DELIVERY_TIMEOUT, stream.next()).await.expect("no event arrives");
                seen.push(event.unwrap().unwrap().seq);
            }
            let more = tokio::time::timeout(Duration::from_millis(300), stream.next()).await;
            assert!(more.is_err(), "no event may be delivered twice");
            BTreeMap::from([(session, seen)])
        }));
    }
    for mut stream in gateway_streams {
        read_tasks.push(tokio::spawn(async move { read_events(&mut stream, 4 * SESSIONS).await }));
    }
    let write_tasks = games.iter().map(|game| {
        let (person, session) = (game.players[0].person.clone(), game.session_id);
        async move {
            for _ in 0..2 {
                write_events(&person, session, 2).await;
            }
        }
    });
    run_together(write_tasks.collect()).await;
    for task in read_tasks {
        for (session, seen) in task.await.unwrap() {
            assert_eq!(seen, event_numbers(&world, session).await.split_off(2), "{session}");
        }
    }
}
