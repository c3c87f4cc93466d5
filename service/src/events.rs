//! Events: what everyone at a table is told, in one order.
//!
//! Triggers write them, so that no writer forgets one; a participant may add kinds that begin with `client.`. They are
//! kept for a day. [`Events::subscribe`] gives them as they happen; [`Events::after`] a page at a time.
//!
//! ```
//! use service::{Operations, Sparc, events::NewEvent};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let night = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(night.url()).await?;
//! # let (ada, table) = (night.player, night.session);
//! let ada = sparc.as_user(ada);
//! ada.events().send(NewEvent { session_id: table, kind: "wave".into(), ..Default::default() }).await?;
//! let mut seen = 0;
//! for event in ada.events().after(table, seen).await? {
//!     println!("{} {}", event.event_type, event.payload);
//!     seen = event.seq; // the next call begins here, and misses nothing
//! }
//! # Ok(())
//! # }
//! ```

mod hub;
mod poller;
mod reader;
mod subscription;

use entity::session_events::{self, Model as Event};
use sea_orm::ActiveValue::Set;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    Caller, Error, connection::UncheckedTransaction, error::not_listener, operation::operation, rows, sql::Binds,
};

pub(crate) use hub::Hub;
pub use subscription::{Subscription, Subscriptions};

/// Most events of one answer.
const PAGE: i64 = 200;

/// Something of a client's own to be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// Id to give it; drawn where none is given. The same id again gives the first event.
    pub id: Option<Uuid>,
    /// Table.
    pub session_id: Uuid,
    /// Its kind, without the `client.` that is put before it; 1 to 57 characters.
    pub kind: String,
    /// What is told.
    #[serde(default = "NewEvent::default_payload")]
    pub payload: Value,
}

impl Default for NewEvent {
    fn default() -> Self {
        Self { id: None, session_id: Uuid::nil(), kind: String::new(), payload: Value::Object(Map::new()) }
    }
}

impl NewEvent {
    /// What a JSON document that leaves the payload out means.
    fn default_payload() -> Value {
        Self::default().payload
    }
}

/// Operations on events: [`Operations::events`](crate::Operations::events).
#[derive(Debug)]
pub struct Events<'a, C> {
    pub(crate) caller: &'a C,
}

rows::row_decoder!(COLUMNS, events: Event { id, session_id, event_type, payload, created_at, seq, sender_id });

impl<C: Caller> Events<'_, C> {
    /// Tells the table something of a client's own: kind `client.` and `kind`, with the caller's id as the sender's.
    /// Twice with the same id gives the first.
    ///
    /// Who may: the Seer, whoever has a seat, and the service. Three round trips. Event `client.*`.
    ///
    /// # Errors
    ///
    /// [`Error::NotSeated`] for whoever left, [`Error::NotAllowed`] for anybody else, [`Error::InvalidValue`] for the kind or a text with NUL,
    /// [`Error::IdConflict`], [`Error::NotSignedIn`].
    pub async fn send(self, new: NewEvent) -> Result<session_events::Model, Error> {
        if new.kind.is_empty() {
            return Err(Error::InvalidValue { field: "kind", rule: "must have 1 to 57 characters" });
        }
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let kind = format!("client.{}", new.kind);
        operation!(self.caller, "events.send", session = new.session_id, event = id, |tx| {
            let row = || session_events::ActiveModel {
                id: Set(id),
                session_id: Set(new.session_id),
                event_type: Set(kind.clone()),
                payload: Set(new.payload.clone()),
                ..Default::default()
            };
            let repeat = rows::Repeat::Unchanged(session_events::Column::SenderId);
            rows::insert_or_get(tx, row, session_events::Column::Id, "event", repeat).await
        })
    }

    /// What happened in a session after the event with that `seq` (0: all of the last day), at most two hundred, the
    /// oldest first. Who asks again with the last `seq` misses nothing.
    ///
    /// Who may: the Seer, whoever has or had a seat, and the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anybody else, [`Error::AccountClosed`], [`Error::NotFound`] to the service,
    /// [`Error::NotSignedIn`].
    pub async fn after(self, session_id: Uuid, seq: i64) -> Result<Vec<session_events::Model>, Error> {
        operation!(self.caller, reads "events.after", session = session_id, |tx| {
            reader::following(tx, session_id, seq, PAGE).await
        })
    }

    /// The `seq` of the newest event of a session: who has read the session's state begins to listen after it. 0 where there
    /// is none.
    ///
    /// Who may: the Seer, whoever has or had a seat, and the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anybody else, [`Error::AccountClosed`], [`Error::NotFound`] to the service,
    /// [`Error::NotSignedIn`].
    pub async fn newest(self, session_id: Uuid) -> Result<i64, Error> {
        operation!(self.caller, reads "events.newest", session = session_id, |tx| {
            let mut binds = Binds::default();
            let (session, one) = (binds.bind(session_id), binds.bind(1_i64));
            let sql = format!(
                "SELECT seq FROM public.session_events \
                 WHERE (SELECT private.require_listener({session})) AND session_id = {session} \
                 ORDER BY seq DESC LIMIT {one}"
            );
            let newest =
                rows::fetch_all(tx, binds.statement(sql), |rows| rows::decode_rows!(rows => Newest { seq })).await?;
            Ok(newest.first().map_or(0, |newest| newest.seq))
        })
    }
}

struct Newest {
    seq: i64,
}

/// Which server's events these are, so that whoever listens sees when it is another's: with replicas the timeline of the log,
/// which a standby has in common with the server that it follows, and which each promotion changes; else what the server says,
/// which a standby does not.
fn history_of(tx: &UncheckedTransaction, said: Option<String>) -> Result<String, Error> {
    match (tx.timeline(), said) {
        (Some(timeline), _) => Ok(format!("timeline {timeline}")),
        (None, Some(said)) => Ok(said),
        // What happens would be seen there late, and after a promotion not at all.
        (None, None) => Err(Error::ReadOnly),
    }
}

/// Why somebody may not listen to a session, by `private.listener_status`.
fn refusal(status: &str) -> Option<Error> {
    match status {
        "listens" => None,
        "account_closed" => Some(Error::AccountClosed),
        "no_session" => Some(Error::NotFound { what: "session" }),
        _ => Some(not_listener()),
    }
}
