//! Rolls of the past, and the saves that are left.

use chrono::{DateTime, Utc};
use entity::{
    dice_rolls::{self, Model as Roll},
    sea_orm_active_enums::RollType,
};
use sea_orm::{ActiveEnum, DbBackend, FromQueryResult, Statement, prelude::DateTimeWithTimeZone};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Dice, RollScope};
use crate::{Caller, Cursor, Error, Page, PageSize, operation::operation, page::List, rows, sql::Binds};

/// Which rolls to show. All, fifty a page, by default.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HistoryFilter {
    /// Only of this character.
    pub character_id: Option<Uuid>,
    /// Only of this kind.
    pub kind: Option<RollType>,
    /// Only then or later.
    pub from: Option<DateTime<Utc>>,
    /// Only before.
    pub until: Option<DateTime<Utc>>,
    /// Rolls of a page.
    pub page_size: PageSize,
}

/// Whether a seat has its heroic save.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct HeroicSavesRemaining {
    /// Who sits there.
    pub user_id: Uuid,
    /// With which character.
    pub character_id: Uuid,
    /// Heroic saves left in this encounter: one, or none.
    pub left: i32,
}

/// One an encounter: a save that was counted for an earlier one is given back.
const SAVES_LEFT: &str = "SELECT
    seat.user_id,
    seat.character_id,
    CASE
      WHEN seat.heroic_saves_used = 0 OR seat.heroic_saves_encounter <> session.encounters_begun THEN 1
      ELSE 0
    END AS left
  FROM public.session_players AS seat
  JOIN public.sessions AS session ON session.id = seat.session_id
  WHERE seat.session_id = $1
    AND seat.is_active
  ORDER BY seat.joined_at, seat.user_id";

rows::row_decoder!(COLUMNS, rolls: Roll {
    id, session_id, character_id, creature_id, character_name, attribute, dice_count, difficulty, roll_type, modifiers,
    results, total, modified_total, success, outcome, margin, description, animation_seed, original_roll_id, rolled_by,
    created_at,
});

type Place = (DateTimeWithTimeZone, Uuid);

fn text(kind: RollType) -> String {
    kind.to_value().value.into_owned()
}

/// A walk along the table's rolls.
fn of_session(id: Uuid, filter: &HistoryFilter, after: Option<Place>, limit: usize) -> Statement {
    let mut binds = Binds::default();
    let mut conditions = format!("session_id = {}", binds.bind(id));
    if let Some(character) = filter.character_id {
        conditions += &format!(" AND character_id = {}", binds.bind(character));
    }
    if let Some(kind) = filter.kind {
        conditions += &format!(" AND roll_type = {}::public.roll_type", binds.bind(text(kind)));
    }
    if let Some(from) = filter.from {
        conditions += &format!(" AND created_at >= {}", binds.bind(from));
    }
    if let Some(until) = filter.until {
        conditions += &format!(" AND created_at < {}", binds.bind(until));
    }
    if let Some((created, roll)) = after {
        let (created, roll) = (binds.bind(created), binds.bind(roll));
        conditions += &format!(" AND created_at <= {created} AND (created_at < {created} OR id > {roll})");
    }
    let limit = binds.bind(limit as i64);
    let sql = format!(
        "SELECT {COLUMNS} FROM public.dice_rolls WHERE {conditions} ORDER BY created_at DESC, id LIMIT {limit}"
    );
    binds.statement(sql)
}

/// A walk along the character's rolls, which the database insists on.
fn of_character(id: Uuid, filter: &HistoryFilter, after: Option<Place>, limit: usize) -> Statement {
    let mut binds = Binds::default();
    let arguments = [
        binds.bind(id),
        binds.bind(filter.kind.map(text)) + "::public.roll_type",
        binds.bind(filter.from),
        binds.bind(filter.until),
        binds.bind(after.map(|(created, _)| created)),
        binds.bind(after.map(|(_, roll)| roll)),
        binds.bind(limit as i32),
    ]
    .join(", ");
    let other = filter.character_id.map(|other| format!(" WHERE character_id = {}", binds.bind(other)));
    let other = other.unwrap_or_default();
    let sql =
        format!("SELECT {COLUMNS} FROM private.rolls_of_character({arguments}){other} ORDER BY created_at DESC, id");
    binds.statement(sql)
}

impl<C: Caller> Dice<'_, C> {
    /// A page of rolls, the latest first: of a table, or of a character at the tables that the caller was at.
    ///
    /// Who may: those at the table; to others there are none. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], [`Error::NotSignedIn`].
    pub async fn history(
        self,
        of: RollScope,
        filter: &HistoryFilter,
        after: Option<&Cursor>,
    ) -> Result<Page<dice_rolls::Model>, Error> {
        // Pages of one list may have other sizes.
        let list = List::new("dice.history", &(of, HistoryFilter { page_size: PageSize::default(), ..*filter }));
        let after = list.key::<(DateTimeWithTimeZone, Uuid)>(after)?;
        let limit = filter.page_size.rows();
        let (id, statement) = match of {
            RollScope::Session(id) => (id, of_session(id, filter, after, limit + 1)),
            RollScope::Character(id) => (id, of_character(id, filter, after, limit + 1)),
        };
        operation!(self.caller, reads "dice.history", of = id, |tx| {
            let rolls = rows::fetch_all(tx, statement.clone(), rolls).await?;
            list.page(rolls, limit, |row: &dice_rolls::Model| (row.created_at, row.id))
        })
    }

    /// The heroic saves that are left at a table, a line for each seat that is held.
    ///
    /// Who may: whoever, signed in, sees the session; to others there are none. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn heroic_saves_remaining(self, session_id: Uuid) -> Result<Vec<HeroicSavesRemaining>, Error> {
        operation!(self.caller, reads "dice.heroic_saves_remaining", session = session_id, |tx| {
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, SAVES_LEFT, [session_id.into()]);
            Ok(HeroicSavesRemaining::find_by_statement(statement).all(tx).await?)
        })
    }
}
