//! Live events: each is delivered once and in order, whoever wrote it, to callers who may subscribe.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use sparc::{
    entity::session_events::Model as Event,
    service::{
        Error, Operations, Options, Sparc,
        events::{NewEvent, Subscription},
        sessions::{ExpectedVersion, Participation},
    },
};
use testdb::Server;
use uuid::Uuid;

use crate::world::{BoxedTask, GameSession, Person, World, at_once, roll};

/// The longest time that an event may take to arrive, on a busy machine.
pub const BOUND: Duration = Duration::from_secs(30);
/// An event that has not arrived after this time was not sent.
pub const SILENCE: Duration = Duration::from_millis(400);

pub async fn next(stream: &mut Subscription) -> Event {
    let next = tokio::time::timeout(BOUND, stream.next()).await.expect("no event arrives");
    next.expect("the stream must not end").unwrap()
}

pub async fn is_silent(stream: &mut Subscription) -> bool {
    tokio::time::timeout(SILENCE, stream.next()).await.is_err()
}

/// Reads events up to number `last` and returns their numbers.
pub async fn up_to(stream: &mut Subscription, last: i64) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        seen.push(next(stream).await.seq);
        assert!(*seen.last().unwrap() <= last, "{last} is missing: {seen:?}");
    }
    seen
}

/// Returns the code of the error that ends the stream, and asserts that nothing follows it.
pub async fn end(stream: &mut Subscription) -> &'static str {
    let code = loop {
        match tokio::time::timeout(BOUND, stream.next()).await.expect("the stream does not end") {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error.code(),
            None => panic!("the stream ended without an error"),
        }
    };
    assert!(stream.next().await.is_none(), "the stream continues after its error");
    code
}

pub fn code(outcome: Result<Subscription, Error>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |_| "subscribed")
}

pub async fn numbers(world: &World, session: Uuid) -> Vec<i64> {
    let sql = format!("SELECT seq FROM session_events WHERE session_id = '{session}' ORDER BY seq");
    world.owner().values(&sql).await.unwrap()
}

pub fn wave(session_id: Uuid) -> NewEvent {
    NewEvent { session_id, kind: "wave".into(), payload: json!({ "hand": "left" }), ..Default::default() }
}

/// An insert of events as a client of the API would write it.
fn insert_events(session: Uuid, count: usize) -> String {
    format!(
        "INSERT INTO session_events (session_id, event_type)
         SELECT '{session}', 'client.plain' FROM generate_series(1, {count})"
    )
}

pub async fn write(person: &Person, session: Uuid, count: usize) {
    person.exec(&insert_events(session, count)).await.unwrap();
}

pub async fn another(world: &World) -> Sparc {
    Sparc::connect_with(world.url(), Options::default().max_connections(6)).await.unwrap()
}

pub fn everybody(sparc: &Sparc, game: &GameSession) -> Vec<sparc::service::IdentityConnection> {
    let mut all = vec![sparc.as_user(game.seer.uuid()), sparc.as_service()];
    all.extend(game.players.iter().map(|player| sparc.as_user(player.id)));
    all
}

#[tokio::test]
async fn an_event_arrives_once_and_in_order_whoever_writes_it() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (ours, theirs, player) = (another(&world).await, another(&world).await, &game.players[0]);
    let before = numbers(&world, game.session).await;
    let ada = ours.as_user(player.id);
    let mut from_now = ada.events().subscribe(game.session, None).await.unwrap();
    let mut of_the_day = ada.events().subscribe(game.session, Some(0)).await.unwrap();
    let mut resumed = theirs.as_user(player.id).events().subscribe(game.session, Some(before[0])).await.unwrap();

    ada.events().send(wave(game.session)).await.unwrap();
    let sent = theirs.as_user(player.id).events().send(wave(game.session)).await.unwrap();
    assert_eq!(up_to(&mut from_now, sent.seq).await.len(), 2, "before any other event is written");
    write(&player.person, game.session, 3).await;
    world.owner().exec(&roll(game.session, player.character)).await.unwrap();

    let all = numbers(&world, game.session).await;
    let last = *all.last().unwrap();
    let news = all[before.len()..].to_vec();
    assert_eq!(news.len(), 6);
    assert_eq!(up_to(&mut from_now, last).await, news[2..]);
    assert_eq!(up_to(&mut of_the_day, last).await, all);
    assert_eq!(up_to(&mut resumed, last).await, all[1..]);
    assert!(is_silent(&mut from_now).await, "an event arrives twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_subscribers_of_ten_sessions_each_get_all_their_events_under_load() {
    let world = World::new().await;
    let (ours, theirs) = (another(&world).await, another(&world).await);
    let mut readers = Vec::new();
    let mut writers: Vec<BoxedTask<()>> = Vec::new();
    let mut games = Vec::new();
    for _ in 0..10 {
        let game = world.new_active_session(2).await;
        let mut subscribers = everybody(&ours, &game);
        subscribers.push(theirs.as_user(game.players[0].id));
        for subscriber in subscribers {
            readers.push((game.session, subscriber.events().subscribe(game.session, None).await.unwrap()));
        }
        for (place, player) in game.players.iter().enumerate() {
            let (person, session) = (player.person.clone(), game.session);
            let sender = [&ours, &theirs][place].as_user(player.id);
            writers.push(Box::pin(async move {
                for _ in 0..8 {
                    sender.events().send(wave(session)).await.unwrap();
                    write(&person, session, 2).await;
                }
            }));
        }
        games.push((numbers(&world, game.session).await.len(), game));
    }
    assert_eq!(readers.len(), 50);
    let reading: Vec<_> = readers
        .into_iter()
        .map(|(session, mut stream)| {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..48 {
                    seen.push(next(&mut stream).await.seq);
                }
                (session, seen, stream)
            })
        })
        .collect();
    at_once(writers).await;
    for reader in reading {
        let (session, seen, mut stream) = reader.await.unwrap();
        let (before, _) = games.iter().find(|(_, game)| game.session == session).unwrap();
        assert_eq!(seen, numbers(&world, session).await[*before..]);
        assert!(tokio::time::timeout(Duration::from_millis(60), stream.next()).await.is_err(), "one event too many");
    }
}

#[tokio::test]
async fn an_event_that_commits_long_after_its_number_was_drawn_arrives() {
    let world = World::new().await;
    let (game, other) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let sparc = another(&world).await;
    let mut stream = sparc.as_service().events().subscribe(game.session, None).await.unwrap();
    let mut others = sparc.as_service().events().subscribe(other.session, None).await.unwrap();
    let open = game.players[0].person.begin().await;
    sea_orm::ConnectionTrait::execute_unprepared(&open, &insert_events(game.session, 1)).await.unwrap();
    // Later numbers of another session become visible earlier.
    write(&other.players[0].person, other.session, 1).await;
    next(&mut others).await;
    assert!(is_silent(&mut stream).await, "the event is not committed yet");
    open.commit().await.unwrap();
    next(&mut stream).await;
    assert!(is_silent(&mut stream).await);
}

#[tokio::test]
async fn a_slow_subscriber_delays_no_other_and_loses_no_event() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    let ada = sparc.as_user(game.players[0].id);
    let mut slow = ada.events().subscribe(game.session, None).await.unwrap();
    let mut fast = ada.events().subscribe(game.session, None).await.unwrap();
    let before = numbers(&world, game.session).await.len();
    for _ in 0..5 {
        write(&game.players[0].person, game.session, 100).await;
        let newest = *numbers(&world, game.session).await.last().unwrap();
        assert_eq!(up_to(&mut fast, newest).await.len(), 100);
    }
    let all = numbers(&world, game.session).await;
    assert_eq!(up_to(&mut slow, *all.last().unwrap()).await, all[before..]);
}

#[tokio::test]
async fn nobody_else_may_subscribe() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.set(&game, "is_public = true").await;
    let (sparc, stranger) = (another(&world).await, world.new_account().await);
    let nowhere = Uuid::new_v4();
    for after in [None, Some(0), Some(1)] {
        let subscribe = async |caller: sparc::service::IdentityConnection, session| {
            code(caller.events().subscribe(session, after).await)
        };
        assert_eq!(subscribe(sparc.as_user(stranger), game.session).await, "not_allowed");
        assert_eq!(subscribe(sparc.as_user(stranger), nowhere).await, "not_allowed");
        assert_eq!(subscribe(sparc.as_user(Uuid::new_v4()), game.session).await, "unknown_account");
        assert_eq!(subscribe(sparc.as_anon(), game.session).await, "not_signed_in");
        assert_eq!(subscribe(sparc.as_service(), nowhere).await, "not_found");
    }
    for caller in everybody(&sparc, &game) {
        assert_eq!(code(caller.events().subscribe(game.session, Some(0)).await), "subscribed");
    }
    let mut left = sparc.as_user(game.players[0].id).events().subscribe(game.session, None).await.unwrap();
    game.players[0].person.exec("UPDATE session_players SET is_active = false").await.unwrap();
    assert_eq!(
        next(&mut left).await.event_type,
        "player_left",
        "a player who left still reads events, as in the table"
    );
}

#[tokio::test]
async fn losing_access_ends_a_stream_with_an_error_and_leaves_the_others() {
    let world = World::new().await;
    let game = world.new_active_session(3).await;
    let sparc = another(&world).await;
    let [closing, unseated, staying] = [0, 1, 2].map(|place| sparc.as_user(game.players[place].id));
    let subscribe = async |caller: &sparc::service::IdentityConnection| {
        caller.events().subscribe(game.session, None).await.unwrap()
    };
    let (mut closed, mut gone) = (subscribe(&closing).await, subscribe(&unseated).await);
    let (mut stays, mut service) = (subscribe(&staying).await, subscribe(&sparc.as_service()).await);

    sparc.as_service().users().erase(game.players[0].id).await.unwrap();
    assert_eq!(end(&mut closed).await, "account_closed");
    assert_eq!(code(closing.events().subscribe(game.session, None).await), "account_closed");

    let sql = format!("DELETE FROM session_players WHERE user_id = '{}'", game.players[1].id);
    world.owner().exec(&sql).await.unwrap();
    assert_eq!(end(&mut gone).await, "not_allowed");

    write(&game.players[2].person, game.session, 1).await;
    let newest = *numbers(&world, game.session).await.last().unwrap();
    up_to(&mut stays, newest).await;
    up_to(&mut service, newest).await;

    world.set(&game, "status = 'cancelled'").await;
    let sql = format!("DELETE FROM sessions WHERE id = '{}'", game.session);
    world.owner().exec(&sql).await.unwrap();
    assert_eq!(end(&mut stays).await, "not_found");
    assert_eq!(end(&mut service).await, "not_found");
}

#[tokio::test]
async fn resuming_after_events_that_were_deleted_asks_the_caller_to_reload() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    let ada = sparc.as_user(game.players[0].id);
    write(&game.players[0].person, game.session, 3).await;
    let all = numbers(&world, game.session).await;
    let forgotten = format!("DELETE FROM session_events WHERE seq <= {}", all[1]);
    world.owner().exec(&forgotten).await.unwrap();
    for seq in [all[0], all[1], all.last().unwrap() + 1, -1] {
        assert_eq!(code(ada.events().subscribe(game.session, Some(seq)).await), "events_expired", "{seq}");
    }
    let mut kept = ada.events().subscribe(game.session, Some(all[2])).await.unwrap();
    assert_eq!(up_to(&mut kept, *all.last().unwrap()).await, all[3..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_survives_a_crash_of_the_server() {
    let server =
        Server::start_private(Some(&["fsync=on", "synchronous_commit=on", "full_page_writes=on"])).await.unwrap();
    let world = World::new_on(&server).await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    let ada = sparc.as_user(game.players[0].id);
    let mut stream = ada.events().subscribe(game.session, None).await.unwrap();
    let mut seen = Vec::new();
    for round in 0..3 {
        let sent = loop {
            // The first attempt may get a connection that the crash broke.
            match ada.events().send(wave(game.session)).await {
                Ok(sent) => break sent,
                Err(error) => assert!(error.is_retryable() || error.code() == "commit_unknown", "{error}"),
            }
        };
        seen.extend(up_to(&mut stream, sent.seq).await);
        if round < 2 {
            let dying = server.clone();
            tokio::task::spawn_blocking(move || dying.crash()).await.unwrap().unwrap();
        }
    }
    let all = numbers(&world.reconnect().await, game.session).await;
    assert_eq!(seen, all[all.len() - seen.len()..]);
}

#[tokio::test]
async fn subscribing_and_reading_are_refused_in_the_same_way() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    world.set(&game, "is_public = true").await;
    let [stranger, closed] = [world.new_account().await, game.players[1].id];
    world.sparc.as_service().users().erase(closed).await.unwrap();
    let outcome = async |caller: sparc::service::IdentityConnection, session| {
        let after = caller.events().after(session, 0).await.map_or_else(|error| error.code(), |_| "done");
        let newest = caller.events().newest(session).await.map_or_else(|error| error.code(), |_| "done");
        assert_eq!(after, newest);
        assert_eq!(after.replace("done", "subscribed"), code(caller.events().subscribe(session, None).await));
        after
    };
    let (nowhere, sparc) = (Uuid::new_v4(), &world.sparc);
    assert_eq!(outcome(sparc.as_user(stranger), game.session).await, "not_allowed");
    assert_eq!(outcome(sparc.as_user(game.seer.uuid()), nowhere).await, "not_allowed");
    assert_eq!(outcome(sparc.as_user(closed), game.session).await, "account_closed");
    assert_eq!(outcome(sparc.as_anon(), game.session).await, "not_signed_in");
    assert_eq!(outcome(sparc.as_service(), nowhere).await, "not_found");
    for caller in [sparc.as_service(), sparc.as_user(game.seer.uuid()), sparc.as_user(game.players[0].id)] {
        assert_eq!(outcome(caller, game.session).await, "done");
    }
}

#[tokio::test]
async fn events_after_the_closing_of_an_account_are_not_delivered_to_it() {
    let world = World::new().await;
    let sparc = another(&world).await;
    for _ in 0..3 {
        let game = world.new_active_session(2).await;
        let mut closed = sparc.as_user(game.players[0].id).events().subscribe(game.session, None).await.unwrap();
        let mut others = sparc.as_service().events().subscribe(game.session, None).await.unwrap();
        world.sparc.as_service().users().erase(game.players[0].id).await.unwrap();
        let last = *numbers(&world, game.session).await.last().unwrap();
        write(&game.players[1].person, game.session, 1).await;
        while let Some(Ok(event)) = tokio::time::timeout(BOUND, closed.next()).await.expect("the stream does not end") {
            assert!(event.seq <= last, "an event from after the closing was delivered");
        }
        up_to(&mut others, *numbers(&world, game.session).await.last().unwrap()).await;
    }
}

#[tokio::test]
async fn large_events_and_large_batches_arrive() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (sparc, seer) = (another(&world).await, world.sparc.as_user(game.seer.uuid()));
    let mut streams = Vec::new();
    for caller in everybody(&sparc, &game) {
        streams.push(caller.events().subscribe(game.session, None).await.unwrap());
    }
    let before = numbers(&world, game.session).await.len();
    for round in 0..3 {
        // An event that the database stores compressed is still large for its reader.
        let words: Vec<String> = (0..6000).map(|_| Uuid::new_v4().to_string()).collect();
        let state = if round == 0 { json!(words[..4]) } else { json!(words) };
        seer.sessions().set_game_state(game.session, state, ExpectedVersion::Any).await.unwrap();
        write(&game.players[0].person, game.session, 99).await;
        write(&game.players[0].person, game.session, 21).await;
        let all = numbers(&world, game.session).await;
        // The first subscriber is slow in the second round.
        for (place, stream) in streams.iter_mut().enumerate().skip(usize::from(round == 1)) {
            let rounds = if place == 0 && round == 2 { 2 } else { 1 };
            assert_eq!(up_to(stream, *all.last().unwrap()).await.len(), rounds * 121);
        }
    }
    write(&game.players[0].person, game.session, 1).await;
    let all = numbers(&world, game.session).await;
    assert_eq!(all.len() - before, 3 * 121 + 1);
    for stream in &mut streams {
        assert_eq!(up_to(stream, *all.last().unwrap()).await.len(), 1);
    }
}

#[tokio::test]
async fn numbers_may_reach_the_maximum_and_never_restart() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    let ada = sparc.as_user(game.players[0].id);
    let mut stream = ada.events().subscribe(game.session, None).await.unwrap();
    let before = numbers(&world, game.session).await.len();
    for start in [i64::from(i32::MAX), 1 << 53, i64::MAX - 4] {
        world.owner().exec(&format!("SELECT setval('session_events_seq_seq', {start})")).await.unwrap();
        write(&game.players[0].person, game.session, 2).await;
    }
    let all = numbers(&world, game.session).await.split_off(before);
    assert!(all.len() == 6 && all[1] > i64::from(i32::MAX) && all[3] > 1 << 53 && all[5] > i64::MAX - 4);
    assert_eq!(up_to(&mut stream, all[5]).await, all);
    let mut resumed = ada.events().subscribe(game.session, Some(all[2])).await.unwrap();
    assert_eq!(up_to(&mut resumed, all[5]).await, all[3..]);
    world.owner().exec("SELECT setval('session_events_seq_seq', 1000)").await.unwrap();
    write(&game.players[0].person, game.session, 1).await;
    for stream in [&mut stream, &mut resumed] {
        assert_eq!(end(stream).await, "events_expired");
    }
}

#[tokio::test]
async fn the_stream_of_a_session_that_has_ended_stays_open_until_it_is_archived() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    let mut stream = sparc.as_user(game.players[0].id).events().subscribe(game.session, None).await.unwrap();
    sparc.as_user(game.seer.uuid()).sessions().complete(game.session).await.unwrap();
    assert_eq!(next(&mut stream).await.event_type, "session_status");
    assert!(is_silent(&mut stream).await);
    world.set(&game, "ended_at = now() - INTERVAL '1 year'").await;
    assert_eq!(world.owner().value::<i32>("SELECT private.archive_sessions(10)").await, Ok(1));
    assert_eq!(end(&mut stream).await, "not_found");
}

#[tokio::test]
async fn nobody_resumes_after_an_event_older_than_a_day_even_if_it_still_exists() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    let ada = sparc.as_user(game.players[0].id);
    write(&game.players[0].person, game.session, 2).await;
    let all = numbers(&world, game.session).await;
    // A clean-up skips locked rows, so an older event may remain although later ones were deleted.
    let old = format!("UPDATE session_events SET created_at = now() - INTERVAL '25 hours' WHERE seq = {}", all[0]);
    world.owner().exec(&old).await.unwrap();
    assert_eq!(code(ada.events().subscribe(game.session, Some(all[0])).await), "events_expired");
    assert_eq!(code(ada.events().subscribe(game.session, Some(all[1])).await), "subscribed");
    assert_eq!(code(ada.events().subscribe(game.session, None).await), "subscribed");
}

#[tokio::test]
async fn a_session_without_events_of_the_last_day_is_followed_from_its_newest_event() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    let ada = sparc.as_user(game.players[0].id);
    write(&game.players[0].person, game.session, 2).await;
    world.owner().exec("UPDATE session_events SET created_at = now() - INTERVAL '25 hours'").await.unwrap();
    let newest = ada.events().newest(game.session).await.unwrap();
    let mut after_newest = ada.events().subscribe(game.session, Some(newest)).await.unwrap();
    let mut from_now = ada.events().subscribe(game.session, None).await.unwrap();
    assert!(!numbers(&world, game.session).await.is_empty(), "the old events are not deleted before the next one");
    assert!(ada.events().after(game.session, 0).await.unwrap().is_empty());
    assert!(is_silent(&mut after_newest).await, "an event older than a day must not be delivered as new");
    write(&game.players[0].person, game.session, 1).await;
    let last = numbers(&world, game.session).await.pop().unwrap();
    assert_eq!(ada.events().newest(game.session).await.unwrap(), last);
    for stream in [&mut after_newest, &mut from_now] {
        assert_eq!(next(stream).await.seq, last);
    }
}

#[tokio::test]
async fn a_stream_knows_where_to_resume_before_and_after_each_event() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    let ada = sparc.as_user(game.players[0].id);
    write(&game.players[0].person, game.session, 2).await;
    let old = numbers(&world, game.session).await;
    let resumed = ada.events().subscribe(game.session, Some(old[0])).await.unwrap();
    assert_eq!(resumed.last_seq(), old[0]);
    let mut stream = ada.events().subscribe(game.session, None).await.unwrap();
    assert_eq!(stream.last_seq(), *old.last().unwrap(), "a new stream starts after the newest event");
    write(&game.players[0].person, game.session, 2).await;
    for seq in &numbers(&world, game.session).await[old.len()..] {
        assert_eq!((next(&mut stream).await.seq, stream.last_seq()), (*seq, *seq));
    }
    let quiet = world.new_session(0).await;
    let seer = sparc.as_user(quiet.seer.uuid());
    assert_eq!(seer.events().subscribe(quiet.session, None).await.unwrap().last_seq(), 0);
}

#[tokio::test]
async fn participation_returns_the_callers_part_in_a_session() {
    let world = World::new().await;
    let game = world.new_session(3).await;
    let [player, left, removed] = [0, 1, 2].map(|place| &game.players[place]);
    world.set(&game, "is_public = true").await;
    let of = async |id| world.sparc.as_user(id).sessions().participation(game.session).await.unwrap();
    let leave = "UPDATE session_players SET is_active = false WHERE user_id =";
    world.owner().exec(&format!("{leave} '{}'", left.id)).await.unwrap();
    let seer = world.sparc.as_user(game.seer.uuid());
    seer.sessions().remove(game.session, removed.id).await.unwrap();
    assert_eq!(of(game.seer.uuid()).await, Participation::Seer);
    assert_eq!(of(player.id).await, Participation::Player);
    assert_eq!(of(left.id).await, Participation::Left);
    assert_eq!(of(removed.id).await, Participation::Removed);
    assert_eq!(
        of(world.new_account().await).await,
        Participation::None,
        "seeing a session does not make the caller a participant"
    );
    let nowhere = seer.sessions().participation(Uuid::new_v4()).await.unwrap();
    assert_eq!(nowhere, Participation::None);
    assert!(!nowhere.is_participant() && of(removed.id).await.is_participant());
    assert_eq!(json!(of(left.id).await), json!("left"));
    let outcome = world.sparc.as_anon().sessions().participation(game.session).await;
    assert_eq!(outcome.unwrap_err().code(), "not_signed_in");
}

/// Waits until the handle's connections are idle.
async fn until_quiet(world: &World) {
    let last = "SELECT COALESCE(max(state_change)::text, '') FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'sparc'";
    for _ in 0..50 {
        let before: String = world.owner().value(last).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        if world.owner().value::<String>(last).await.unwrap() == before {
            return;
        }
    }
    panic!("something keeps sending statements");
}

#[tokio::test]
async fn dropping_the_last_stream_stops_the_poller_and_the_next_one_restarts_it() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    for _ in 0..2 {
        let mut streams = Vec::new();
        for caller in everybody(&sparc, &game) {
            streams.push(caller.events().subscribe(game.session, None).await.unwrap());
        }
        write(&game.players[0].person, game.session, 1).await;
        for stream in &mut streams {
            next(stream).await;
        }
        drop(streams);
        until_quiet(&world).await;
    }
}

#[tokio::test]
async fn closing_the_handle_ends_its_streams() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sparc = another(&world).await;
    let ada = sparc.as_user(game.players[0].id);
    let mut stream = ada.events().subscribe(game.session, None).await.unwrap();
    write(&game.players[0].person, game.session, 1).await;
    next(&mut stream).await;
    sparc.close().await.unwrap();
    assert_eq!(end(&mut stream).await, "pool_closed");
    assert_eq!(code(ada.events().subscribe(game.session, None).await), "pool_closed");
}
