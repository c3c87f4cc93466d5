//! The lobby: public sessions that wait and have a seat free (design, "Facts of the game").

use chrono::{DateTime, Utc};
use entity::sea_orm_active_enums::{DifficultyLevel, SessionStatus};
use sea_orm::{ActiveEnum, DbErr, prelude::DateTimeWithTimeZone, sqlx::postgres::PgRow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Sessions;
use crate::{
    Caller, Cursor, Error, Page,
    bounded_scan::{PageQuery, SCAN_LIMIT},
    operation::operation,
    page::List,
    rows,
    sql::Binds,
};

/// Rows of a lobby page.
const PAGE: usize = 20;

/// Which sessions to show. All, by default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SessionSummary {
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
    pub adventure: Option<LobbyAdventure>,
}

/// An adventure in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct LobbyAdventure {
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
    /// the one that `after` leads to. Sessions scheduled more than six hours ago are left out.
    ///
    /// By difficulty, length, free seats or search, a page looks through a thousand sessions at most: with fewer rows than
    /// twenty, or none, and a next page, it goes on there.
    ///
    /// Who may: everybody. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`].
    pub async fn lobby(self, filter: &LobbyFilter, after: Option<&Cursor>) -> Result<Page<SessionSummary>, Error> {
        let list = List::new("sessions.lobby", filter);
        let after = list.key::<Key>(after)?;
        let walk = walk(filter, after.as_ref());
        operation!(self.caller, reads "sessions.lobby", |tx| {
            let cards = |rows: &[PgRow]| Ok(Row::read(rows)?.into_iter().map(SessionSummary::from).collect());
            let place = |row: &SessionSummary| Key { start: row.scheduled_start, created: row.created_at, id: row.id };
            let end = |row: &PgRow, id| {
                Ok(Key { start: rows::cell(row, "start")?, created: rows::cell(row, "created")?, id })
            };
            walk.page(tx, list, PAGE, cards, place, end).await
        })
    }
}

impl Row {
    pub(super) fn read(rows: &[PgRow]) -> Result<Vec<Self>, DbErr> {
        rows::decode_rows!(rows => Self {
            id, status, scheduled_start, looking_for, seats_taken, max_players, created_at, seer_id, seer_name,
            adventure_id, adventure_name, thumbnail_url, difficulty, estimated_duration,
        })
    }
}

impl From<Row> for SessionSummary {
    fn from(row: Row) -> Self {
        let adventure = match (row.adventure_id, row.adventure_name, row.difficulty, row.estimated_duration) {
            (Some(id), Some(name), Some(difficulty), Some(estimated_duration)) => {
                Some(LobbyAdventure { id, name, thumbnail_url: row.thumbnail_url, difficulty, estimated_duration })
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

const CARDS: &str = "SELECT
    session.id, session.status, session.scheduled_start, session.looking_for, session.seats_taken,
    session.max_players, session.created_at, session.seer_id, seer.display_name AS seer_name,
    adventure.id AS adventure_id, adventure.name AS adventure_name, adventure.thumbnail_url, adventure.difficulty,
    adventure.estimated_duration";

const JOINED: &str = "
  JOIN public.users AS seer ON seer.id = session.seer_id
  LEFT JOIN public.adventures AS adventure ON adventure.id = session.adventure_id";

/// The same, one by one: whatever the planner expects of the conditions, it does not read all users for them.
const LOOKED_UP: &str = "
  CROSS JOIN LATERAL (SELECT display_name FROM public.users WHERE id = session.seer_id LIMIT 1) AS seer
  LEFT JOIN LATERAL (
    SELECT id, name, thumbnail_url, difficulty, estimated_duration
    FROM public.adventures
    WHERE id = session.adventure_id
    LIMIT 1
  ) AS adventure ON true";

/// The predicate of `idx_sessions_free_seats` to the letter: each part of the list is a walk along it.
const OPEN: &str = "session.is_public
    AND session.status IN ('waiting', 'starting_soon')
    AND session.seats_taken < session.max_players";

const ORDER: &str = "ORDER BY scheduled_start NULLS LAST, created_at DESC, id";

/// A session that should have begun longer ago is not offered any more.
const NOT_MISSED: &str = "session.scheduled_start >= now() - INTERVAL '6 hours'";

/// Conditions on a session that its indexes answer, and where the sessions come from.
fn indexed_filters(filter: &LobbyFilter, binds: &mut Binds) -> (String, String) {
    // Of one Seer there are few: found first, whatever the planner would think of a walk along the whole list. Private ones are
    // left out there, before anything is asked about them.
    let sessions = match filter.seer_id {
        None => "public.sessions".to_owned(),
        Some(seer) => format!(
            "(WITH run AS MATERIALIZED (SELECT * FROM public.sessions WHERE seer_id = {} AND is_public) \
             SELECT * FROM run)",
            binds.bind(seer)
        ),
    };
    let mut conditions = format!("WHERE {OPEN}");
    if let Some(before) = filter.starts_before {
        conditions.push_str(&format!(" AND session.scheduled_start < {}", binds.bind(before)));
    }
    if let Some(after) = filter.starts_after {
        conditions.push_str(&format!(" AND session.scheduled_start >= {}", binds.bind(after)));
    }
    if let Some(adventure) = filter.adventure_id {
        conditions.push_str(&format!(" AND session.adventure_id = {}", binds.bind(adventure)));
    }
    (sessions, conditions)
}

/// Conditions that are looked at one session after the other.
fn unindexed_filters(filter: &LobbyFilter, binds: &mut Binds) -> String {
    let mut conditions = Vec::new();
    if let Some(seats) = filter.free_seats {
        conditions.push(format!("session.max_players - session.seats_taken >= {}", binds.bind(seats)));
    }
    if let Some(difficulty) = filter.difficulty {
        let value = binds.bind(difficulty.to_value().value.into_owned());
        conditions.push(format!("adventure.difficulty = {value}::public.difficulty_level"));
    }
    if let Some(longest) = filter.longest {
        conditions.push(format!("adventure.estimated_duration <= {}", binds.bind(longest)));
    }
    if let Some(search) = &filter.search {
        let value = binds.bind_search(search);
        conditions.push(format!("(adventure.name ILIKE {value} OR seer.display_name ILIKE {value})"));
    }
    conditions.join(" AND ")
}

/// The list as it is asked for.
fn walk(filter: &LobbyFilter, after: Option<&Key>) -> PageQuery {
    let mut binds = Binds::default();
    let (sessions, conditions) = indexed_filters(filter, &mut binds);
    let part = |condition: &str, rows: usize| {
        format!("SELECT * FROM {sessions} AS session {conditions}{condition} {ORDER} LIMIT {rows}")
    };
    let undated = " AND session.scheduled_start IS NULL";
    // Each part is a walk along the index, and begins where its rows do.
    let parts = |conditions: &[&str], rows: usize| {
        let parts: Vec<_> = conditions.iter().map(|condition| format!("({})", part(condition, rows))).collect();
        format!("SELECT * FROM ({}) AS session {ORDER} LIMIT {rows}", parts.join(" UNION ALL "))
    };
    let list: Box<dyn Fn(usize) -> String> = match after {
        None => Box::new(|rows| parts(&[&format!(" AND {NOT_MISSED}"), undated], rows)),
        Some(Key { start, created, id }) => {
            let (created, id) = (binds.bind(*created), binds.bind(*id));
            let later =
                format!("(session.created_at < {created} OR (session.created_at = {created} AND session.id > {id}))");
            match start {
                None => Box::new(move |rows| {
                    part(&format!("{undated} AND session.created_at <= {created} AND {later}"), rows)
                }),
                // Those of the same moment, however many, then the later, then the undated.
                Some(start) => {
                    let start = binds.bind(*start);
                    let same = format!(
                        " AND {NOT_MISSED} AND session.scheduled_start = {start} AND session.created_at <= {created} \
                         AND {later}"
                    );
                    let dated = format!(" AND {NOT_MISSED} AND session.scheduled_start > {start}");
                    Box::new(move |rows| parts(&[&same, &dated, undated], rows))
                }
            }
        }
    };
    let unindexed_filters = unindexed_filters(filter, &mut binds);
    if unindexed_filters.is_empty() {
        // The page first, then who and what belongs to it: there is nothing to misjudge.
        return PageQuery::exact(binds, format!("{CARDS} FROM ({}) AS session{JOINED} {ORDER}", list(PAGE + 1)));
    }
    let (rows, list) = (PAGE + 1, list(SCAN_LIMIT));
    let page = format!("{CARDS} FROM ({list}) AS session{LOOKED_UP} WHERE {unindexed_filters} {ORDER} LIMIT {rows}");
    let walked = format!(
        "SELECT scheduled_start AS start, created_at AS created, id AS last, row_number() OVER ({ORDER}) AS nth \
         FROM ({list}) AS walked"
    );
    PageQuery::bounded(binds, "", &page, &walked, PAGE, ORDER)
}
