//! Events: what happens in a session, in the same order for all participants.
//!
//! Triggers write an event for each roll, for each seat that is taken or given up, and for each change of a session's
//! status, scene, encounter or game state, so that no program can forget one. Participants can also send events; their
//! type begins with `client.`. Events are kept for a day. [`Events::subscribe`] streams them as they happen;
//! [`Events::after`] returns a page at a time.
//!
//! The *readers* of a session's events are those who may read them: the Seer, a player (even after leaving, unless the
//! Seer removed them), and the service.
//!
//! ```
//! use service::{Operations, Sparc, events::NewEvent};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(demo.url()).await?;
//! # let (user_id, session_id) = (demo.player, demo.session);
//! let ada = sparc.as_user(user_id);
//! ada.events().send(NewEvent { session_id, kind: "wave".into(), ..Default::default() }).await?;
//! let mut last_seq = 0;
//! for event in ada.events().after(session_id, last_seq).await? {
//!     println!("{} {}", event.event_type, event.payload);
//!     last_seq = event.seq; // the next call continues here, or fails if it would miss events
//! }
//! # Ok(())
//! # }
//! ```

mod hub;
mod poller;
mod reader;
mod recent;
mod stream_position;
mod subscription;

use entity::session_events::{self, Model as Event};
use sea_orm::{ActiveValue::Set, DbBackend, Statement, sqlx::postgres::PgRow};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    Error, Executor, binds::Binds, connection::OperationTransaction, error::no_event_access_error,
    operation::operation, rows,
};

pub(crate) use hub::Hub;
pub use subscription::{Subscription, Subscriptions};

/// Maximum number of events that one call of [`Events::after`] returns.
const MAX_EVENTS_PER_CALL: i64 = 200;

/// An event that a client sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// Id of the event; random if absent. Repeating the request with the same id returns the existing event.
    pub id: Option<Uuid>,
    /// Session.
    pub session_id: Uuid,
    /// Type of the event without its prefix `client.`, 1 to 57 characters without control characters.
    pub kind: String,
    /// Payload. An empty object by default.
    #[serde(default = "NewEvent::default_payload")]
    pub payload: Value,
}

impl Default for NewEvent {
    fn default() -> Self {
        Self { id: None, session_id: Uuid::nil(), kind: String::new(), payload: Value::Object(Map::new()) }
    }
}

impl NewEvent {
    /// Default for a JSON document that omits the field.
    fn default_payload() -> Value {
        Self::default().payload
    }
}

/// Operations on events: [`Operations::events`](crate::Operations::events).
#[derive(Debug)]
pub struct Events<'a, C> {
    pub(crate) executor: &'a C,
}

rows::row_decoder!(EVENT_COLUMNS, decode_events: Event {
    id, session_id, event_type, payload, created_at, seq, sender_id
});

impl<C: Executor> Events<'_, C> {
    /// Sends a client's event to a session: its type is `client.` followed by `kind`, and its sender is the caller.
    /// Repeating the request with the same id returns the existing event.
    ///
    /// Who may: the Seer, everyone who holds a seat, and the service. Three round trips, or four if the request is
    /// repeated. Event `client.*`.
    ///
    /// # Errors
    ///
    /// [`Error::NotSeated`] for a player who left, [`Error::NotAllowed`] for anyone else, [`Error::NotFound`] for the
    /// service if there is no such session, [`Error::InvalidValue`] for `kind`, for a payload out of bounds
    /// (`docs/decisions.md`, "Bounds") and for text that contains NUL; [`Error::IdConflict`], [`Error::NotSignedIn`].
    pub async fn send(self, event: NewEvent) -> Result<session_events::Model, Error> {
        if event.kind.is_empty() {
            return Err(Error::InvalidValue { field: "kind", rule: "must have 1 to 57 characters" });
        }
        let id = event.id.unwrap_or_else(Uuid::new_v4);
        let event_type = format!("client.{}", event.kind);
        operation!(self.executor, "events.send", session = event.session_id, event = id, |tx| {
            let build_row = || session_events::ActiveModel {
                id: Set(id),
                session_id: Set(event.session_id),
                event_type: Set(event_type.clone()),
                payload: Set(event.payload.clone()),
                ..Default::default()
            };
            let author = session_events::Column::SenderId;
            let repeat_check = rows::RepeatCheck::ByColumnsAndAuthor { author, changed_by_database: None };
            rows::insert_or_get(tx, build_row, session_events::Column::Id, "event", repeat_check).await
        })
    }

    /// Returns the next events of a session after the one with this `seq`, at most two hundred, the oldest first. With
    /// 0, it starts with the oldest event of the last day. A further call with the `seq` of the last event returned
    /// continues without a gap, or fails if later events may have been deleted.
    ///
    /// Who may: the readers of the session's events. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anyone else, [`Error::AccountClosed`], [`Error::EventsExpired`] if the event with this
    /// `seq` is no longer kept (call [`newest_seq`](Self::newest_seq), and then reload the session);
    /// [`Error::NotFound`] for the service if there is no such session, [`Error::NotSignedIn`].
    pub async fn after(self, session_id: Uuid, seq: i64) -> Result<Vec<session_events::Model>, Error> {
        operation!(self.executor, reads "events.after", session = session_id, |tx| {
            read_kept_events_after(tx, session_id, seq).await
        })
    }

    /// Returns the `seq` of the newest event of a session, or 0 if it has none from the last day. A client calls it
    /// before it reads the session's state, and then subscribes after that event, so that it misses no change.
    ///
    /// Who may: the readers of the session's events. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anyone else, [`Error::AccountClosed`], [`Error::NotFound`] for the service if there is
    /// no such session, [`Error::NotSignedIn`].
    pub async fn newest_seq(self, session_id: Uuid) -> Result<i64, Error> {
        operation!(self.executor, reads "events.newest_seq", session = session_id, |tx| {
            let mut binds = Binds::default();
            let (session, limit) = (binds.bind(session_id), binds.bind(1_i64));
            // The age is compared outside the subquery, so that the index scan ends at the newest event, however old.
            let sql = format!(
                "SELECT seq FROM ( \
                   SELECT seq, created_at FROM public.session_events \
                   WHERE (SELECT private.require_event_access({session})) AND session_id = {session} \
                   ORDER BY seq DESC LIMIT {limit} \
                 ) AS newest \
                 WHERE created_at > now() - INTERVAL '24 hours'"
            );
            let statement = binds.into_statement(sql);
            let newest = rows::fetch_all(tx, statement, |rows| rows::decode_rows!(rows => NewestSeq { seq })).await?;
            Ok(newest.first().map_or(0, |newest| newest.seq))
        })
    }
}

/// Reads the page of [`Events::after`]. Returns an error if the event with this `seq` is no longer kept, because later
/// events may then have been deleted, too; or [`Error::ReadOnly`] if only the primary can tell.
async fn read_kept_events_after(tx: &OperationTransaction, session_id: Uuid, seq: i64) -> Result<Vec<Event>, Error> {
    // The query also returns the event with this `seq`, if it is still kept. So no further round trip is needed to look
    // it up.
    let includes_start = seq != 0;
    let mut binds = Binds::default();
    let (session, start) = (binds.bind(session_id), binds.bind(seq));
    let limit = binds.bind(MAX_EVENTS_PER_CALL + i64::from(includes_start));
    let sql = format!(
        "SELECT {EVENT_COLUMNS} FROM public.session_events \
         WHERE (SELECT private.require_event_access({session})) AND session_id = {session} AND seq >= {start} \
           AND ({start} > 0 AND seq > {start} OR created_at > now() - INTERVAL '24 hours') \
         ORDER BY seq LIMIT {limit}"
    );
    let mut events = rows::fetch_all(tx, binds.into_statement(sql), decode_events).await?.into_iter();
    if includes_start {
        match events.next() {
            Some(start) if start.seq == seq => (),
            // Events of a session become visible in the order of their numbers, on a standby too. So a later event
            // shows that this server has replayed the one with this `seq`, if there ever was one.
            Some(_) => return Err(Error::EventsExpired),
            // A standby that is behind may lack an event that the client has received through another server.
            None if is_standby(tx).await? => return Err(Error::ReadOnly),
            None => return Err(Error::EventsExpired),
        }
    }
    Ok(events.collect())
}

async fn is_standby(tx: &OperationTransaction) -> Result<bool, Error> {
    let statement = Statement::from_string(DbBackend::Postgres, "SELECT pg_is_in_recovery() AS is_standby");
    let decode = |rows: &[PgRow]| rows.iter().map(|row| rows::decode_cell(row, "is_standby")).collect();
    Ok(rows::fetch_all(tx, statement, decode).await?.pop().unwrap_or_default())
}

/// The `seq` of the newest event of a session.
struct NewestSeq {
    seq: i64,
}

/// An SQL expression: the OID of the database, which is the same on the primary and its standbys, and changes if the
/// database is created again from a dump.
const DATABASE_OID_SQL: &str = "(SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = current_database())";

/// Returns an identifier of the *history* of events that is being read. Another history may lack events that this one
/// has, and may have other events with the same numbers. If the identifier changes, a subscription may be reading
/// another history.
///
/// With replicas, the identifier has two parts: the WAL timeline, which the primary and its standbys share, and which
/// changes with each promotion; and the database's OID. Without replicas, the identifier is `event_history_id`, the
/// result of `private.event_history_id()`, which includes the OID and also changes with each restart.
/// `event_history_id` is `None` on a standby; without replicas, that is an error.
fn choose_history_id(
    tx: &OperationTransaction,
    database_oid: i64,
    event_history_id: Option<String>,
) -> Result<String, Error> {
    match (tx.timeline(), event_history_id) {
        (Some(timeline), _) => Ok(format!("timeline {timeline}, database {database_oid}")),
        (None, Some(event_history_id)) => Ok(event_history_id),
        // No replicas are configured, but the server is a standby. A standby shows events late, and may lack some of
        // them when it is promoted.
        (None, None) => Err(Error::ReadOnly),
    }
}

/// Returns the error for a result of `private.event_access` or `private.my_event_access`. `None` if the account may
/// read the session's events.
fn event_access_error(status: &str) -> Option<Error> {
    match status {
        "may_read" => None,
        "account_closed" => Some(Error::AccountClosed),
        "no_session" => Some(Error::NotFound { what: "session" }),
        _ => Some(no_event_access_error()),
    }
}

/// Returns a new event of the session with the nil id, for unit tests.
#[cfg(test)]
fn new_test_event(seq: i64) -> Event {
    Event {
        id: Uuid::new_v4(),
        session_id: Uuid::nil(),
        event_type: "client.wave".to_owned(),
        payload: Value::Null,
        created_at: chrono::Utc::now().fixed_offset(),
        seq,
        sender_id: None,
    }
}
