//! Events: what everyone at a table is told, in one order.

use entity::session_events;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::Value;
use uuid::Uuid;

use crate::{Caller, Error, create, operation::operation};

/// Most events of one page.
const PAGE: u64 = 200;

/// Operations on events: [`Operations::events`](crate::Operations::events).
#[derive(Debug)]
pub struct Events<'a, C> {
    pub(crate) caller: &'a C,
}

impl<C: Caller> Events<'_, C> {
    /// What happened at a table after the event with that `seq` (0: all of the last day), at most two hundred, the
    /// oldest first. Who asks again with the last `seq` misses nothing.
    ///
    /// Who may: those at the table. Four round trips.
    ///
    /// # Errors
    ///
    /// None of its own: of a table that the caller may not read there are none.
    pub async fn after(self, session_id: Uuid, seq: i64) -> Result<Vec<session_events::Model>, Error> {
        operation!(self.caller, "events.after", |tx| {
            Ok(session_events::Entity::find()
                .filter(session_events::Column::SessionId.eq(session_id))
                .filter(session_events::Column::Seq.gt(seq))
                .order_by_asc(session_events::Column::Seq)
                .limit(PAGE)
                .all(tx)
                .await?)
        })
    }

    /// Tells the table something of a client's own: kind `client.` and `kind`.
    ///
    /// Who may: the Seer and whoever has a seat. Four round trips. Event `client.*`, with the sender's id.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anybody else, [`Error::RuleViolated`] for a kind of more than 57 characters.
    pub async fn send(self, session_id: Uuid, kind: &str, payload: Value) -> Result<session_events::Model, Error> {
        let id = Uuid::new_v4();
        operation!(self.caller, "events.send", |tx| {
            let row = session_events::ActiveModel {
                id: Set(id),
                session_id: Set(session_id),
                event_type: Set(format!("client.{kind}")),
                payload: Set(payload.clone()),
                ..Default::default()
            };
            create::once(tx, row, id, session_events::Column::Id, "event", |there| there.session_id == session_id).await
        })
    }
}
