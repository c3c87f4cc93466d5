//! The caller's live and past sessions, and archived sessions with their seats and rolls.

use chrono::{DateTime, Utc};
use entity::{archived_dice_rolls, archived_session_players, archived_sessions, sea_orm_active_enums::SessionStatus};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect,
    prelude::DateTimeWithTimeZone,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Sessions;
use crate::{
    Cursor, Error, Executor, Page, RollsPageSize, binds::Binds, identity::Identity, operation::operation, page::ListId,
};

/// Maximum number of sessions per page.
const PAGE_SIZE: usize = 50;

/// One of the caller's sessions, for lists.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct MySession {
    /// Id of the session.
    pub id: Uuid,
    /// Join code.
    pub code: String,
    /// Status.
    pub status: SessionStatus,
    /// Id of the Seer's account.
    pub seer_id: Uuid,
    /// Display name of the Seer.
    pub seer_name: String,
    /// Id of the adventure.
    pub adventure_id: Uuid,
    /// Name of the adventure; `None` if it is another user's and not published.
    pub adventure_name: Option<String>,
    /// The caller's character; `None` for a Seer without a seat.
    pub character_id: Option<Uuid>,
    /// Number of seats taken.
    pub seats_taken: i32,
    /// Number of seats, taken and free.
    pub max_players: i32,
    /// Scheduled start.
    pub scheduled_start: Option<DateTimeWithTimeZone>,
    /// When the session started.
    pub started_at: Option<DateTimeWithTimeZone>,
    /// When the session ended.
    pub ended_at: Option<DateTimeWithTimeZone>,
    /// When the session was created.
    pub created_at: DateTimeWithTimeZone,
    /// Whether the session is in the archive.
    pub is_archived: bool,
}

/// An archived session with its seats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ArchivedSession {
    /// The session.
    pub session: archived_sessions::Model,
    /// Everyone who had a seat, in the order of joining. Empty for a visitor.
    pub seats: Vec<archived_session_players::Model>,
}

/// Selects the columns of [`MySession`] except `is_archived`. [`FROM_WHERE_MY_SESSIONS`] or
/// [`FROM_WHERE_MY_ARCHIVED_SESSIONS`] follows.
const SELECT_MY_SESSIONS: &str = "SELECT
    session.id, session.code::text AS code, session.status, session.seer_id, seer.display_name AS seer_name,
    session.adventure_id, adventure.name AS adventure_name, seat.character_id, session.seats_taken,
    session.max_players, session.scheduled_start, session.started_at, session.ended_at, session.created_at";

/// The sessions that the caller runs, or has or had a seat in. Archived sessions, and sessions from which the Seer
/// removed the caller, are left out. `$1` is the caller's id.
const FROM_WHERE_MY_SESSIONS: &str = "
  FROM public.sessions AS session
  JOIN public.users AS seer ON seer.id = session.seer_id
  LEFT JOIN public.adventures AS adventure ON adventure.id = session.adventure_id
  LEFT JOIN public.session_players AS seat ON seat.session_id = session.id AND seat.user_id = $1
  WHERE session.id = ANY ((SELECT private.my_session_ids())::uuid[])";

/// The archived sessions that the caller ran or had a seat in, except those from which the Seer removed the caller.
/// `$1` is the caller's id.
const FROM_WHERE_MY_ARCHIVED_SESSIONS: &str = "
  FROM public.archived_sessions AS session
  JOIN public.users AS seer ON seer.id = session.seer_id
  LEFT JOIN public.adventures AS adventure ON adventure.id = session.adventure_id
  LEFT JOIN public.archived_session_players AS seat ON seat.session_id = session.id AND seat.user_id = $1
  WHERE session.id = ANY ((SELECT private.my_archived_session_ids())::uuid[])";

impl<C: Executor> Sessions<'_, C> {
    /// Returns a page of at most fifty live sessions that the caller runs or has a seat in, the most recently created
    /// first.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], [`Error::NotSignedIn`].
    pub async fn my_live(self, after: Option<&Cursor>) -> Result<Page<MySession>, Error> {
        let list = ListId::new("sessions.my_live", &self.executor.identity());
        let after = list.decode_cursor::<(DateTime<Utc>, Uuid)>(after)?;
        operation!(self.executor, reads "sessions.my_live", |tx| {
            let mut binds = Binds::default();
            // `$1`: the id of the caller.
            binds.bind(tx.user_id()?);
            let after_condition = after_condition(&mut binds, "created_at", after);
            let statement = binds.into_statement(format!(
                "{SELECT_MY_SESSIONS}, false AS is_archived {FROM_WHERE_MY_SESSIONS}
                 AND session.status NOT IN ('completed', 'cancelled')
                 AND (session.seer_id = $1 OR seat.is_active)
                 {after_condition}
                 ORDER BY created_at DESC, id LIMIT {}",
                PAGE_SIZE + 1
            ));
            let sessions = MySession::find_by_statement(statement).all(tx).await?;
            list.build_page(sessions, PAGE_SIZE, |session: &MySession| (session.created_at, session.id))
        })
    }

    /// Returns a page of at most fifty ended sessions that the caller ran or had a seat in, including archived ones,
    /// the most recently ended first. Sessions from which the Seer removed the caller are omitted.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], [`Error::NotSignedIn`].
    pub async fn my_past(self, after: Option<&Cursor>) -> Result<Page<MySession>, Error> {
        let list = ListId::new("sessions.my_past", &self.executor.identity());
        let after = list.decode_cursor::<(DateTime<Utc>, Uuid)>(after)?;
        operation!(self.executor, reads "sessions.my_past", |tx| {
            let mut binds = Binds::default();
            // `$1`: the id of the caller.
            binds.bind(tx.user_id()?);
            let after_condition = after_condition(&mut binds, "ended_at", after);
            let page_clauses = format!("{after_condition} ORDER BY ended_at DESC, id LIMIT {}", PAGE_SIZE + 1);
            let statement = binds.into_statement(format!(
                "({SELECT_MY_SESSIONS}, false AS is_archived {FROM_WHERE_MY_SESSIONS}
                  AND session.status IN ('completed', 'cancelled') {page_clauses})
                 UNION ALL
                 ({SELECT_MY_SESSIONS}, true AS is_archived {FROM_WHERE_MY_ARCHIVED_SESSIONS} {page_clauses})
                 ORDER BY ended_at DESC, id LIMIT {}",
                PAGE_SIZE + 1
            ));
            let sessions = MySession::find_by_statement(statement).all(tx).await?;
            list.build_page(sessions, PAGE_SIZE, |session: &MySession| (session.ended_at, session.id))
        })
    }

    /// Returns an archived session with its seats; [`archived_rolls`](Self::archived_rolls) returns its rolls.
    ///
    /// Who may: everyone if it was public; otherwise its participants and the service. Four round trips, or three for a
    /// visitor.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn get_archived(self, id: Uuid) -> Result<ArchivedSession, Error> {
        operation!(self.executor, reads "sessions.get_archived", session = id, |tx| {
            let session =
                archived_sessions::Entity::find_by_id(id).one(tx).await?.ok_or(Error::NotFound { what: "session" })?;
            // Visitors have no privilege to read seats.
            let seats = match tx.caller_identity() {
                Identity::Anon => Vec::new(),
                _ => {
                    archived_session_players::Entity::find()
                        .filter(archived_session_players::Column::SessionId.eq(id))
                        .order_by_asc(archived_session_players::Column::JoinedAt)
                        .order_by_asc(archived_session_players::Column::UserId)
                        .all(tx)
                        .await?
                }
            };
            Ok(ArchivedSession { session, seats })
        })
    }

    /// Returns a page of the rolls of an archived session, the oldest first.
    ///
    /// Who may: the session's participants and the service; other users get an empty page. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], [`Error::NotSignedIn`].
    pub async fn archived_rolls(
        self,
        id: Uuid,
        size: RollsPageSize,
        after: Option<&Cursor>,
    ) -> Result<Page<archived_dice_rolls::Model>, Error> {
        let list = ListId::new("sessions.archived_rolls", &id);
        let after = list.decode_cursor::<(DateTimeWithTimeZone, Uuid)>(after)?;
        let page_size = size.as_usize();
        operation!(self.executor, reads "sessions.archived_rolls", session = id, |tx| {
            let mut query = archived_dice_rolls::Entity::find()
                .filter(archived_dice_rolls::Column::SessionId.eq(id))
                .order_by_asc(archived_dice_rolls::Column::CreatedAt)
                .order_by_asc(archived_dice_rolls::Column::Id)
                .limit(page_size as u64 + 1);
            if let Some((created_at, roll_id)) = after {
                query = query.filter(archived_dice_rolls::Column::CreatedAt.gte(created_at)).filter(
                    Condition::any()
                        .add(archived_dice_rolls::Column::CreatedAt.gt(created_at))
                        .add(archived_dice_rolls::Column::Id.gt(roll_id)),
                );
            }
            let rolls = query.all(tx).await?;
            list.build_page(rolls, page_size, |roll: &archived_dice_rolls::Model| (roll.created_at, roll.id))
        })
    }
}

/// Returns the condition for the rows after a position, in a list that is sorted by `column`, descending, and then by
/// id. The condition begins with `AND`; without a position it is empty.
fn after_condition(binds: &mut Binds, column: &str, after: Option<(DateTime<Utc>, Uuid)>) -> String {
    match after {
        None => String::new(),
        Some((time, id)) => {
            let (time, id) = (binds.bind(time), binds.bind(id));
            // Rows with an earlier time, and rows of the same time with a higher id. Only the condition with `<=`
            // limits the index scan.
            format!("AND session.{column} <= {time} AND (session.{column} < {time} OR session.id > {id})")
        }
    }
}
