//! Live events: subscribers receive the events of a session as they happen. Each event is delivered once and in order,
//! whoever wrote it, to every subscriber of its session.
//!
//! The number of an event is its `seq`. The *poller* is the task of a `Sparc` handle that reads new events for all its
//! streams.

mod access;
mod delivery;
mod ending_and_resuming;

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

use crate::world::{GameSession, SqlCaller, World};

/// The longest time that an event may take to arrive on a busy machine.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// The time after which a test concludes that no event is coming.
pub const SILENCE_TIMEOUT: Duration = Duration::from_millis(400);

/// Returns the next event; panics if none arrives in time, if the stream returns an error, or if it ends.
pub async fn next_event(stream: &mut Subscription) -> Event {
    let next_item = tokio::time::timeout(DELIVERY_TIMEOUT, stream.next()).await.expect("an event must arrive");
    next_item.expect("the stream must not end").unwrap()
}

/// Returns whether the stream yields nothing within [`SILENCE_TIMEOUT`]: no event, no error, and not its end.
pub async fn receives_nothing(stream: &mut Subscription) -> bool {
    tokio::time::timeout(SILENCE_TIMEOUT, stream.next()).await.is_err()
}

/// Reads events up to the one with the number `last_seq`, and returns their numbers.
pub async fn read_until(stream: &mut Subscription, last_seq: i64) -> Vec<i64> {
    let mut seqs = Vec::new();
    while seqs.last() != Some(&last_seq) {
        seqs.push(next_event(stream).await.seq);
        assert!(*seqs.last().unwrap() <= last_seq, "{last_seq} is missing: {seqs:?}");
    }
    seqs
}

/// Reads up to the error that ends the stream, and returns its code. Asserts that nothing follows the error.
pub async fn read_to_error(stream: &mut Subscription) -> &'static str {
    let code = loop {
        match tokio::time::timeout(DELIVERY_TIMEOUT, stream.next()).await.expect("the stream must end") {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error.code(),
            None => panic!("the stream ended without an error"),
        }
    };
    assert!(stream.next().await.is_none(), "the stream must end after its error");
    code
}

/// Returns `subscribed`, or the code of the error.
pub fn subscribe_outcome_code(outcome: Result<Subscription, Error>) -> &'static str {
    outcome.map_or_else(|error| error.code(), |_| "subscribed")
}

/// Returns the numbers of the session's events in ascending order.
pub async fn event_seqs(world: &World, session_id: Uuid) -> Vec<i64> {
    let sql = format!("SELECT seq FROM session_events WHERE session_id = '{session_id}' ORDER BY seq");
    world.owner().fetch_values(&sql).await.unwrap()
}

/// Returns an event of the kind `wave`, to send to the session.
pub fn new_wave_event(session_id: Uuid) -> NewEvent {
    NewEvent { session_id, kind: "wave".into(), payload: json!({ "hand": "left" }), ..Default::default() }
}

/// Returns a plain SQL INSERT of `count` events, like one that a client of the platform (Supabase) sends if it does not
/// use the crate `service`.
fn insert_events_sql(session_id: Uuid, count: usize) -> String {
    format!(
        "INSERT INTO session_events (session_id, event_type)
         SELECT '{session_id}', 'client.plain' FROM generate_series(1, {count})"
    )
}

/// Inserts `count` events in one statement, by plain SQL.
pub async fn write_events(caller: &SqlCaller, session_id: Uuid, count: usize) {
    caller.execute(&insert_events_sql(session_id, count)).await.unwrap();
}

/// Connects a new `Sparc` handle to the database.
pub async fn connect_sparc(world: &World) -> Sparc {
    Sparc::connect_with(world.url(), Options::default().max_connections(6)).await.unwrap()
}

/// Returns one connection each for the Seer, the service and every player.
pub fn callers_with_access(sparc: &Sparc, game: &GameSession) -> Vec<sparc::service::IdentityConnection> {
    let mut callers = vec![sparc.as_user(game.seer.user_id()), sparc.as_service()];
    callers.extend(game.players.iter().map(|player| sparc.as_user(player.user_id)));
    callers
}
