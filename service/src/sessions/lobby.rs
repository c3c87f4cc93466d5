//! The lobby: public sessions that wait and have a seat free (design, "Facts of the game").

use chrono::{DateTime, Utc};
use entity::sea_orm_active_enums::{DifficultyLevel, SessionStatus};
use sea_orm::{ActiveEnum, DbErr, QueryResult, Statement, prelude::DateTimeWithTimeZone};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Sessions;
use crate::{Caller, Cursor, Error, Page, operation::operation, rows, sql::Binds};

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
    /// Who may: everybody. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::BadCursor`].
    pub async fn lobby(self, filter: &LobbyFilter, after: Option<&Cursor>) -> Result<Page<SessionCard>, Error> {
        let after = after.map(Cursor::key::<Key>).transpose()?;
        let statement = statement(filter, after.as_ref());
        operation!(self.caller, "sessions.lobby", |tx| {
            let rows = rows::all(tx, statement.clone(), |row| Row::read(row).map(SessionCard::from)).await?;
            Page::of(rows, PAGE, |row: &SessionCard| Key {
                start: row.scheduled_start,
                created: row.created_at,
                id: row.id,
            })
        })
    }
}

impl Row {
    pub(super) fn read(row: &QueryResult) -> Result<Self, DbErr> {
        rows::read!(row => Self {
            id, status, scheduled_start, looking_for, seats_taken, max_players, created_at, seer_id, seer_name,
            adventure_id, adventure_name, thumbnail_url, difficulty, estimated_duration,
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

const CARDS: &str = "SELECT
    session.id, session.status, session.scheduled_start, session.looking_for, session.seats_taken,
    session.max_players, session.created_at, session.seer_id, seer.display_name AS seer_name,
    adventure.id AS adventure_id, adventure.name AS adventure_name, adventure.thumbnail_url, adventure.difficulty,
    adventure.estimated_duration";

const JOINED: &str = "
  JOIN public.users AS seer ON seer.id = session.seer_id
  LEFT JOIN public.adventures AS adventure ON adventure.id = session.adventure_id";

/// The predicate of `idx_sessions_free_seats` to the letter: each part of the list is a walk along it.
const OPEN: &str = "session.is_public
    AND session.status IN ('waiting', 'starting_soon')
    AND session.seats_taken < session.max_players";

const ORDER: &str = "ORDER BY scheduled_start NULLS LAST, created_at DESC, id";

/// What is asked of the list, once for all of its parts.
struct Asked {
    binds: Binds,
    /// Where the sessions come from.
    sessions: String,
    /// Conditions on a session alone.
    of_session: String,
    /// Conditions on its adventure and its Seer.
    of_others: String,
}

impl Asked {
    fn new(filter: &LobbyFilter) -> Self {
        let mut binds = Binds::default();
        let (mut of_session, mut of_others) = (String::new(), String::new());
        // Of one Seer there are few: found first, whatever the planner would think of a walk along the whole list.
        let sessions = match filter.seer_id {
            None => "public.sessions".to_owned(),
            Some(seer) => format!(
                "(WITH run AS MATERIALIZED (SELECT * FROM public.sessions WHERE seer_id = {}) SELECT * FROM run)",
                binds.bind(seer)
            ),
        };
        if let Some(difficulty) = filter.difficulty {
            let value = binds.bind(difficulty.to_value().value.into_owned());
            of_others.push_str(&format!(" AND adventure.difficulty = {value}::public.difficulty_level"));
        }
        if let Some(longest) = filter.longest {
            of_others.push_str(&format!(" AND adventure.estimated_duration <= {}", binds.bind(longest)));
        }
        if let Some(before) = filter.starts_before {
            of_session.push_str(&format!(" AND session.scheduled_start < {}", binds.bind(before)));
        }
        if let Some(after) = filter.starts_after {
            of_session.push_str(&format!(" AND session.scheduled_start >= {}", binds.bind(after)));
        }
        if let Some(seats) = filter.free_seats {
            let seats = binds.bind(seats);
            of_session.push_str(&format!(" AND session.max_players - session.seats_taken >= {seats}"));
        }
        if let Some(adventure) = filter.adventure_id {
            of_session.push_str(&format!(" AND session.adventure_id = {}", binds.bind(adventure)));
        }
        if let Some(search) = &filter.search {
            let value = binds.bind_search(search);
            of_others.push_str(&format!(" AND (adventure.name ILIKE {value} OR seer.display_name ILIKE {value})"));
        }
        Self { binds, sessions, of_session, of_others }
    }

    /// The part of the list whose sessions are so.
    fn part(&self, condition: &str) -> String {
        let Self { sessions, of_session, of_others, .. } = self;
        let limit = PAGE + 1;
        let walk = format!("FROM {sessions} AS session");
        let open = format!("WHERE {OPEN}{of_session}{condition}");
        if of_others.is_empty() {
            // The page first, then who and what belongs to it: there is nothing to misjudge.
            format!("{CARDS} FROM (SELECT * {walk} {open} {ORDER} LIMIT {limit}) AS session{JOINED} {ORDER}")
        } else {
            format!("{CARDS} {walk}{JOINED} {open}{of_others} {ORDER} LIMIT {limit}")
        }
    }
}

fn statement(filter: &LobbyFilter, after: Option<&Key>) -> Statement {
    let mut asked = Asked::new(filter);
    let sql = match after {
        None => asked.part(""),
        Some(Key { start, created, id }) => {
            let created = asked.binds.bind(*created);
            let id = asked.binds.bind(*id);
            let later =
                format!("(session.created_at < {created} OR (session.created_at = {created} AND session.id > {id}))");
            let undated = " AND session.scheduled_start IS NULL";
            match start {
                None => asked.part(&format!("{undated} AND session.created_at <= {created} AND {later}")),
                // Dated sessions, then the undated: two walks, each along the index.
                Some(start) => {
                    let start = asked.binds.bind(*start);
                    let dated = asked.part(&format!(
                        " AND session.scheduled_start >= {start} AND (session.scheduled_start > {start} OR {later})"
                    ));
                    let undated = asked.part(undated);
                    format!("({dated}) UNION ALL ({undated}) {ORDER} LIMIT {}", PAGE + 1)
                }
            }
        }
    };
    asked.binds.statement(sql)
}
