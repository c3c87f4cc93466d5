//! The lobby: public sessions that wait and have a seat free (design, "Facts of the game").

use chrono::{DateTime, Utc};
use entity::sea_orm_active_enums::{DifficultyLevel, SessionStatus};
use sea_orm::{ActiveEnum, FromQueryResult, Statement, prelude::DateTimeWithTimeZone};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Sessions;
use crate::{Caller, Cursor, Error, Page, operation::operation, sql::Binds};

/// Rows of a lobby page.
const PAGE: usize = 20;

/// Which sessions to show. All, by default.
#[derive(Clone, Debug, Default)]
pub struct LobbyFilter {
    /// Only adventures this hard.
    pub difficulty: Option<DifficultyLevel>,
    /// Only adventures of at most so many minutes.
    pub longest: Option<i32>,
    /// Only sessions that are to begin before.
    pub starts_before: Option<DateTime<Utc>>,
    /// Only sessions that are to begin then or later.
    pub starts_after: Option<DateTime<Utc>>,
    /// Only sessions with at least so many seats free.
    pub free_seats: Option<i32>,
    /// Only of this Seer.
    pub seer_id: Option<Uuid>,
    /// Only of this adventure.
    pub adventure_id: Option<Uuid>,
    /// Only where the name of the adventure or of the Seer holds this, in any case.
    pub search: Option<String>,
}

/// One session in a line, as the lobby shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionCard {
    /// Session.
    pub id: Uuid,
    /// In the lobby: waiting, or starting soon.
    pub status: SessionStatus,
    /// When it is to begin.
    pub scheduled_start: Option<DateTimeWithTimeZone>,
    /// Whom the Seer looks for.
    pub looking_for: Option<String>,
    /// Seats held.
    pub seats_taken: i32,
    /// Seats in all.
    pub max_players: i32,
    /// When it was opened.
    pub created_at: DateTimeWithTimeZone,
    /// Who runs it.
    pub seer_id: Uuid,
    /// Name of who runs it.
    pub seer_name: String,
    /// What is played; none where it is a draft that the caller may not read.
    pub adventure: Option<AdventureCard>,
}

/// An adventure in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AdventureCard {
    /// Adventure.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Small picture.
    pub thumbnail_url: Option<String>,
    /// How hard.
    pub difficulty: DifficultyLevel,
    /// Minutes.
    pub estimated_duration: i32,
}

/// The order of the list: soonest first, undated last, the newest first among equals.
#[derive(Serialize, Deserialize)]
struct Key {
    start: Option<DateTimeWithTimeZone>,
    created: DateTimeWithTimeZone,
    id: Uuid,
}

#[derive(FromQueryResult)]
pub(super) struct Row {
    id: Uuid,
    status: SessionStatus,
    scheduled_start: Option<DateTimeWithTimeZone>,
    looking_for: Option<String>,
    seats_taken: i32,
    max_players: i32,
    created_at: DateTimeWithTimeZone,
    seer_id: Uuid,
    seer_name: String,
    adventure_id: Option<Uuid>,
    adventure_name: Option<String>,
    thumbnail_url: Option<String>,
    difficulty: Option<DifficultyLevel>,
    estimated_duration: Option<i32>,
}

impl<C: Caller> Sessions<'_, C> {
    /// A page of the lobby: twenty public sessions that wait and have a seat free, soonest first. The first page, or
    /// the one that `after` leads to.
    ///
    /// Who may: everybody. Four round trips.
    ///
    /// # Errors
    ///
    /// [`Error::BadCursor`].
    pub async fn lobby(self, filter: &LobbyFilter, after: Option<&Cursor>) -> Result<Page<SessionCard>, Error> {
        let after = after.map(Cursor::key::<Key>).transpose()?;
        let statement = statement(filter, after.as_ref());
        operation!(self.caller, "sessions.lobby", |tx| {
            let rows =
                Row::find_by_statement(statement.clone()).all(tx).await?.into_iter().map(SessionCard::from).collect();
            Page::of(rows, PAGE, |row: &SessionCard| Key {
                start: row.scheduled_start,
                created: row.created_at,
                id: row.id,
            })
        })
    }
}

impl From<Row> for SessionCard {
    fn from(row: Row) -> Self {
        let adventure = match (row.adventure_id, row.adventure_name, row.difficulty, row.estimated_duration) {
            (Some(id), Some(name), Some(difficulty), Some(estimated_duration)) => {
                Some(AdventureCard { id, name, thumbnail_url: row.thumbnail_url, difficulty, estimated_duration })
            }
            _ => None,
        };
        Self {
            id: row.id,
            status: row.status,
            scheduled_start: row.scheduled_start,
            looking_for: row.looking_for,
            seats_taken: row.seats_taken,
            max_players: row.max_players,
            created_at: row.created_at,
            seer_id: row.seer_id,
            seer_name: row.seer_name,
            adventure,
        }
    }
}

/// Each part of the list is a walk along `idx_sessions_free_seats`: the conditions are its predicate to the letter.
const PART: &str = "SELECT
    session.id, session.status, session.scheduled_start, session.looking_for, session.seats_taken,
    session.max_players, session.created_at, session.seer_id, seer.display_name AS seer_name,
    adventure.id AS adventure_id, adventure.name AS adventure_name, adventure.thumbnail_url, adventure.difficulty,
    adventure.estimated_duration
  FROM public.sessions AS session
  JOIN public.users AS seer ON seer.id = session.seer_id
  LEFT JOIN public.adventures AS adventure ON adventure.id = session.adventure_id
  WHERE session.is_public
    AND session.status IN ('waiting', 'starting_soon')
    AND session.seats_taken < session.max_players";

const ORDER: &str = "ORDER BY scheduled_start NULLS LAST, created_at DESC, id";

fn statement(filter: &LobbyFilter, after: Option<&Key>) -> Statement {
    let mut binds = Binds::default();
    let mut part = PART.to_owned();
    if let Some(difficulty) = filter.difficulty {
        let value = binds.bind(difficulty.to_value().value.into_owned());
        part.push_str(&format!(" AND adventure.difficulty = {value}::public.difficulty_level"));
    }
    if let Some(longest) = filter.longest {
        part.push_str(&format!(" AND adventure.estimated_duration <= {}", binds.bind(longest)));
    }
    if let Some(before) = filter.starts_before {
        part.push_str(&format!(" AND session.scheduled_start < {}", binds.bind(before)));
    }
    if let Some(after) = filter.starts_after {
        part.push_str(&format!(" AND session.scheduled_start >= {}", binds.bind(after)));
    }
    if let Some(seats) = filter.free_seats {
        part.push_str(&format!(" AND session.max_players - session.seats_taken >= {}", binds.bind(seats)));
    }
    if let Some(seer) = filter.seer_id {
        part.push_str(&format!(" AND session.seer_id = {}", binds.bind(seer)));
    }
    if let Some(adventure) = filter.adventure_id {
        part.push_str(&format!(" AND session.adventure_id = {}", binds.bind(adventure)));
    }
    if let Some(search) = &filter.search {
        let value = binds.bind_search(search);
        part.push_str(&format!(" AND (adventure.name ILIKE {value} OR seer.display_name ILIKE {value})"));
    }

    let limit = PAGE + 1;
    let sql = match after {
        None => format!("{part} {ORDER} LIMIT {limit}"),
        Some(Key { start, created, id }) => {
            let created = binds.bind(*created);
            let id = binds.bind(*id);
            let later =
                format!("(session.created_at < {created} OR (session.created_at = {created} AND session.id > {id}))");
            match start {
                None => format!(
                    "{part} AND session.scheduled_start IS NULL AND session.created_at <= {created} AND {later} \
                     {ORDER} LIMIT {limit}"
                ),
                // Dated sessions, then the undated: two walks, each along the index.
                Some(start) => {
                    let start = binds.bind(*start);
                    format!(
                        "({part} AND session.scheduled_start >= {start} \
                         AND (session.scheduled_start > {start} OR {later}) {ORDER} LIMIT {limit}) \
                         UNION ALL \
                         ({part} AND session.scheduled_start IS NULL {ORDER} LIMIT {limit}) \
                         {ORDER} LIMIT {limit}"
                    )
                }
            }
        }
    };
    binds.statement(sql)
}
