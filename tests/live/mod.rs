//! Live events: each is delivered once and in order, whoever wrote it, to callers who may subscribe.

mod access;
mod delivery;
mod ends;

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use sparc::{
    entity::session_events::Model as Event,
    service::{
        Error, Options, Sparc,
        events::{NewEvent, Subscription},
    },
};
use uuid::Uuid;

use crate::world::{GameSession, Person, World};

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

pub async fn new_handle(world: &World) -> Sparc {
    Sparc::connect_with(world.url(), Options::default().max_connections(6)).await.unwrap()
}

pub fn everybody(sparc: &Sparc, game: &GameSession) -> Vec<sparc::service::IdentityConnection> {
    let mut all = vec![sparc.as_user(game.seer.uuid()), sparc.as_service()];
    all.extend(game.players.iter().map(|player| sparc.as_user(player.id)));
    all
}
