//! The history of rolls, and the remaining heroic saves of a session.

use chrono::{DateTime, Utc};
use entity::{
    dice_rolls::{self, Model as Roll},
    sea_orm_active_enums::RollType,
};
use sea_orm::{ActiveEnum, DbBackend, FromQueryResult, Statement, prelude::DateTimeWithTimeZone};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Dice, RollScope};
use crate::{Cursor, Error, Executor, Page, RollsPageSize, binds::Binds, operation::operation, page::ListId, rows};

/// Filter for the history. By default, all rolls match, and a page has at most fifty.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HistoryFilter {
    /// Only rolls of this character.
    pub character_id: Option<Uuid>,
    /// Only rolls of this kind.
    pub kind: Option<RollType>,
    /// Only rolls at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only rolls before this time.
    pub until: Option<DateTime<Utc>>,
    /// Rolls per page, 1 to 200. 50 by default.
    #[serde(deserialize_with = "crate::values::rolls_page_size")]
    pub page_size: RollsPageSize,
}

/// The remaining heroic saves of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct HeroicSavesRemaining {
    /// Id of the player's account.
    pub user_id: Uuid,
    /// Id of the character in the seat.
    pub character_id: Uuid,
    /// Heroic saves remaining in the current encounter: 0 or 1.
    pub remaining: i32,
}

/// Each seat has one heroic save per encounter. `heroic_saves_used` counts the saves that were used in the encounter
/// with the number `heroic_saves_encounter`. If the current encounter, whose number is `sessions.encounter_number`, is
/// another one, its save remains.
const SELECT_HEROIC_SAVES_REMAINING: &str = "SELECT
    seat.user_id,
    seat.character_id,
    CASE
      WHEN seat.heroic_saves_used = 0 OR seat.heroic_saves_encounter <> session.encounter_number THEN 1
      ELSE 0
    END AS remaining
  FROM public.session_players AS seat
  JOIN public.sessions AS session ON session.id = seat.session_id
  WHERE seat.session_id = $1
    AND seat.is_active
  ORDER BY seat.joined_at, seat.user_id";

rows::row_decoder!(ROLL_COLUMNS, decode_rolls: Roll {
    id, session_id, character_id, creature_id, character_name, attribute, dice_count, difficulty, roll_type, modifiers,
    results, total, modified_total, success, outcome, margin, description, animation_seed, original_roll_id, rolled_by,
    created_at,
});

/// A position in the history: the time and the id of a roll.
type ListPosition = (DateTimeWithTimeZone, Uuid);

/// Returns the name that the kind has in the database.
fn roll_type_name(kind: RollType) -> String {
    kind.to_value().value.into_owned()
}

/// Returns the statement that lists the rolls of a session, by an index scan.
fn session_rolls_statement(
    session_id: Uuid,
    filter: &HistoryFilter,
    after: Option<ListPosition>,
    limit: usize,
) -> Statement {
    let mut binds = Binds::default();
    let mut conditions = format!("session_id = {}", binds.bind(session_id));
    if let Some(character_id) = filter.character_id {
        conditions += &format!(" AND character_id = {}", binds.bind(character_id));
    }
    if let Some(kind) = filter.kind {
        conditions += &format!(" AND roll_type = {}::public.roll_type", binds.bind(roll_type_name(kind)));
    }
    if let Some(from) = filter.from {
        conditions += &format!(" AND created_at >= {}", binds.bind(from));
    }
    if let Some(until) = filter.until {
        conditions += &format!(" AND created_at < {}", binds.bind(until));
    }
    if let Some((created_at, roll_id)) = after {
        let (created_at, roll_id) = (binds.bind(created_at), binds.bind(roll_id));
        // Earlier rows, and rows of the same time with a higher id. The condition with `<=` follows from the one in
        // parentheses, but only the former limits the index scan.
        conditions += &format!(" AND created_at <= {created_at} AND (created_at < {created_at} OR id > {roll_id})");
    }
    let limit = binds.bind(limit as i64);
    let sql = format!(
        "SELECT {ROLL_COLUMNS} FROM public.dice_rolls WHERE {conditions} ORDER BY created_at DESC, id LIMIT {limit}"
    );
    binds.into_statement(sql)
}

/// Returns the statement that lists the rolls of a character, by a database function that always scans the index of the
/// character's rolls.
fn character_rolls_statement(
    character_id: Uuid,
    filter: &HistoryFilter,
    after: Option<ListPosition>,
    limit: usize,
) -> Statement {
    let mut binds = Binds::default();
    let arguments = [
        binds.bind(character_id),
        binds.bind(filter.kind.map(roll_type_name)) + "::public.roll_type",
        binds.bind(filter.from),
        binds.bind(filter.until),
        binds.bind(after.map(|(created_at, _)| created_at)),
        binds.bind(after.map(|(_, roll_id)| roll_id)),
        binds.bind(limit as i32),
    ]
    .join(", ");
    // The filter may name another character; then no roll matches.
    let where_clause = filter.character_id.map(|id| format!(" WHERE character_id = {}", binds.bind(id)));
    let where_clause = where_clause.unwrap_or_default();
    let sql = format!(
        "SELECT {ROLL_COLUMNS} FROM private.rolls_of_character({arguments}){where_clause} \
         ORDER BY created_at DESC, id"
    );
    binds.into_statement(sql)
}

impl<C: Executor> Dice<'_, C> {
    /// Returns a page of the rolls of a session or of a character, the latest first. [`RollScope`] says which rolls of
    /// a character these are.
    ///
    /// Who may: the session's participants and the service; other users get an empty page. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], [`Error::InvalidValue`] for a time that PostgreSQL cannot represent (before 4713 BC),
    /// [`Error::NotSignedIn`].
    pub async fn history(
        self,
        scope: RollScope,
        filter: &HistoryFilter,
        after: Option<&Cursor>,
    ) -> Result<Page<dice_rolls::Model>, Error> {
        // The page size is not part of the list's id, so a cursor remains valid when the page size changes.
        let list =
            ListId::new("dice.history", &(scope, HistoryFilter { page_size: RollsPageSize::default(), ..*filter }));
        let after = list.decode_cursor::<ListPosition>(after)?;
        let page_size = filter.page_size.as_usize();
        let (id, statement) = match scope {
            RollScope::Session(id) => (id, session_rolls_statement(id, filter, after, page_size + 1)),
            RollScope::Character(id) => (id, character_rolls_statement(id, filter, after, page_size + 1)),
        };
        operation!(self.executor, reads "dice.history", scope = id, |tx| {
            let rolls = rows::fetch_all(tx, statement.clone(), decode_rolls).await?;
            list.build_page(rolls, page_size, |roll: &dice_rolls::Model| (roll.created_at, roll.id))
        })
    }

    /// Returns the remaining heroic saves in a session, one entry for each seated player.
    ///
    /// Who may: a user who can see the session, and the service; other users get an empty list. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn heroic_saves_remaining(self, session_id: Uuid) -> Result<Vec<HeroicSavesRemaining>, Error> {
        operation!(self.executor, reads "dice.heroic_saves_remaining", session = session_id, |tx| {
            let statement =
                Statement::from_sql_and_values(DbBackend::Postgres, SELECT_HEROIC_SAVES_REMAINING, [session_id.into()]);
            Ok(HeroicSavesRemaining::find_by_statement(statement).all(tx).await?)
        })
    }
}
