//! The lobby: public sessions that wait for players and have a free seat.

use chrono::{DateTime, Utc};
use entity::sea_orm_active_enums::{DifficultyLevel, SessionStatus};
use sea_orm::{ActiveEnum, DbErr, prelude::DateTimeWithTimeZone, sqlx::postgres::PgRow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Sessions;
use crate::{
    Cursor, Error, Executor, Page,
    binds::Binds,
    limited_scan::{PageQuery, SCAN_LIMIT},
    operation::operation,
    page::ListId,
    rows,
};

/// Maximum number of sessions per page (`docs/decisions.md`, "Game rules").
const PAGE_SIZE: usize = 20;

/// Filter for the lobby. By default, all sessions match.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LobbyFilter {
    /// Only sessions whose adventure has this difficulty.
    pub difficulty: Option<DifficultyLevel>,
    /// Only sessions whose adventure takes at most this many minutes.
    #[serde(deserialize_with = "crate::values::optional_number")]
    pub max_minutes: Option<i32>,
    /// Only sessions scheduled to start before this time.
    pub starts_before: Option<DateTime<Utc>>,
    /// Only sessions scheduled to start at this time or later.
    pub starts_from: Option<DateTime<Utc>>,
    /// Only sessions with at least this many free seats.
    #[serde(deserialize_with = "crate::values::optional_number")]
    pub min_free_seats: Option<i32>,
    /// Only sessions of this Seer.
    pub seer_id: Option<Uuid>,
    /// Only sessions of this adventure.
    pub adventure_id: Option<Uuid>,
    /// Only sessions for which the name of the adventure or of the Seer contains this text, ignoring case.
    pub search: Option<String>,
}

/// A session as the lobby lists it, and as [`Sessions::by_code`] returns it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SessionSummary {
    /// Id of the session.
    pub id: Uuid,
    /// Status; in the lobby, waiting or starting soon.
    pub status: SessionStatus,
    /// Scheduled start.
    pub scheduled_start: Option<DateTimeWithTimeZone>,
    /// Description of the players that the Seer is looking for.
    pub looking_for: Option<String>,
    /// Number of seats taken.
    pub seats_taken: i32,
    /// Number of seats, taken and free.
    pub max_players: i32,
    /// When it was created.
    pub created_at: DateTimeWithTimeZone,
    /// Id of the Seer's account.
    pub seer_id: Uuid,
    /// Display name of the Seer.
    pub seer_name: String,
    /// The adventure. In the lobby, `None` if the caller may not read the adventure, because it is another user's and
    /// not published.
    pub adventure: Option<SessionSummaryAdventure>,
}

/// The adventure of a [`SessionSummary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SessionSummaryAdventure {
    /// Id of the adventure.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// URL of the thumbnail.
    pub thumbnail_url: Option<String>,
    /// Difficulty.
    pub difficulty: DifficultyLevel,
    /// Estimated duration in minutes.
    pub estimated_duration: i32,
}

/// A position in the lobby. The soonest sessions come first, those without a scheduled start last; among sessions with
/// the same start, the newest come first.
#[derive(Serialize, Deserialize)]
struct ListPosition {
    start: Option<DateTimeWithTimeZone>,
    created: DateTimeWithTimeZone,
    id: Uuid,
}

/// A row that the lobby's query or `private.session_by_code` returns.
pub(super) struct SummaryRow {
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

impl<C: Executor> Sessions<'_, C> {
    /// Returns a page of the lobby: at most twenty public sessions that wait for players and have a free seat, the
    /// soonest first. Returns the first page if `after` is `None`, and otherwise the page after that cursor. Sessions
    /// whose scheduled start is more than six hours ago are omitted.
    ///
    /// With a filter by difficulty, duration, free seats or text, at most a thousand sessions are scanned for a page.
    /// So a page can have fewer than twenty sessions, or none, although there is a next page.
    ///
    /// Who may: everyone. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], [`Error::InvalidValue`] for a search text that contains NUL, and for a time that
    /// PostgreSQL cannot represent (before 4713 BC).
    pub async fn lobby(self, filter: &LobbyFilter, after: Option<&Cursor>) -> Result<Page<SessionSummary>, Error> {
        let list = ListId::new("sessions.lobby", filter);
        let after = list.decode_cursor::<ListPosition>(after)?;
        let query = page_query(filter, after.as_ref());
        operation!(self.executor, reads "sessions.lobby", |tx| {
            let decode = |rows: &[PgRow]| Ok(SummaryRow::decode(rows)?.into_iter().map(SessionSummary::from).collect());
            let position_of = |session: &SessionSummary| ListPosition {
                start: session.scheduled_start,
                created: session.created_at,
                id: session.id,
            };
            let scan_end_position = |row: &PgRow, id| {
                let (start, created) = (rows::decode_cell(row, "start")?, rows::decode_cell(row, "created")?);
                Ok(ListPosition { start, created, id })
            };
            query.fetch(tx, list, PAGE_SIZE, decode, position_of, scan_end_position).await
        })
    }
}

impl SummaryRow {
    pub(super) fn decode(rows: &[PgRow]) -> Result<Vec<Self>, DbErr> {
        rows::decode_rows!(rows => Self {
            id, status, scheduled_start, looking_for, seats_taken, max_players, created_at, seer_id, seer_name,
            adventure_id, adventure_name, thumbnail_url, difficulty, estimated_duration,
        })
    }
}

impl From<SummaryRow> for SessionSummary {
    fn from(row: SummaryRow) -> Self {
        let adventure = match (row.adventure_id, row.adventure_name, row.difficulty, row.estimated_duration) {
            (Some(id), Some(name), Some(difficulty), Some(estimated_duration)) => Some(SessionSummaryAdventure {
                id,
                name,
                thumbnail_url: row.thumbnail_url,
                difficulty,
                estimated_duration,
            }),
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

const SELECT_SUMMARY: &str = "SELECT
    session.id, session.status, session.scheduled_start, session.looking_for, session.seats_taken,
    session.max_players, session.created_at, session.seer_id, seer.display_name AS seer_name,
    adventure.id AS adventure_id, adventure.name AS adventure_name, adventure.thumbnail_url, adventure.difficulty,
    adventure.estimated_duration";

const JOINS: &str = "
  JOIN public.users AS seer ON seer.id = session.seer_id
  LEFT JOIN public.adventures AS adventure ON adventure.id = session.adventure_id";

/// The same joins, one row at a time. So the planner cannot choose to read all users, whatever it estimates for the
/// conditions.
const LATERAL_JOINS: &str = "
  CROSS JOIN LATERAL (SELECT display_name FROM public.users WHERE id = session.seer_id LIMIT 1) AS seer
  LEFT JOIN LATERAL (
    SELECT id, name, thumbnail_url, difficulty, estimated_duration
    FROM public.adventures
    WHERE id = session.adventure_id
    LIMIT 1
  ) AS adventure ON true";

/// The predicate of the index `idx_sessions_free_seats`. A query with this condition can read each range of the list
/// (see [`page_query`]) from that index.
const IS_PUBLIC_AND_OPEN: &str = "session.is_public
    AND session.status IN ('waiting', 'starting_soon')
    AND session.seats_taken < session.max_players";

const ORDER_BY: &str = "ORDER BY scheduled_start NULLS LAST, created_at DESC, id";

/// The condition on sessions with a scheduled start. The lobby omits those whose start is more than six hours ago
/// (`docs/decisions.md`, "Sessions").
const IS_AT_MOST_SIX_HOURS_LATE: &str = "session.scheduled_start >= now() - INTERVAL '6 hours'";

/// Returns the SQL of the table or subquery from which the sessions are selected, and the WHERE clause with the filters
/// that indexes support.
fn indexed_source_and_where(filter: &LobbyFilter, binds: &mut Binds) -> (String, String) {
    // A Seer has few sessions, so they are selected first; the planner might otherwise scan the whole list. The common
    // table expression already excludes private sessions, so that they are not materialized.
    let source = match filter.seer_id {
        None => "public.sessions".to_owned(),
        Some(seer_id) => format!(
            "(WITH seers_sessions AS MATERIALIZED (SELECT * FROM public.sessions WHERE seer_id = {} AND is_public) \
             SELECT * FROM seers_sessions)",
            binds.bind(seer_id)
        ),
    };
    let mut where_clause = format!("WHERE {IS_PUBLIC_AND_OPEN}");
    if let Some(starts_before) = filter.starts_before {
        where_clause.push_str(&format!(" AND session.scheduled_start < {}", binds.bind(starts_before)));
    }
    if let Some(starts_from) = filter.starts_from {
        where_clause.push_str(&format!(" AND session.scheduled_start >= {}", binds.bind(starts_from)));
    }
    if let Some(adventure_id) = filter.adventure_id {
        where_clause.push_str(&format!(" AND session.adventure_id = {}", binds.bind(adventure_id)));
    }
    (source, where_clause)
}

/// Returns the SQL of the filter's conditions that no index supports. PostgreSQL evaluates them for each scanned
/// session. The text is empty if the filter has none of them.
fn unindexed_conditions(filter: &LobbyFilter, binds: &mut Binds) -> String {
    let mut conditions = Vec::new();
    if let Some(min_free_seats) = filter.min_free_seats {
        conditions.push(format!("session.max_players - session.seats_taken >= {}", binds.bind(min_free_seats)));
    }
    if let Some(difficulty) = filter.difficulty {
        let difficulty = binds.bind(difficulty.to_value().value.into_owned());
        conditions.push(format!("adventure.difficulty = {difficulty}::public.difficulty_level"));
    }
    if let Some(max_minutes) = filter.max_minutes {
        conditions.push(format!("adventure.estimated_duration <= {}", binds.bind(max_minutes)));
    }
    if let Some(search) = &filter.search {
        let pattern = binds.bind_contains_pattern(search);
        conditions.push(format!("(adventure.name ILIKE {pattern} OR seer.display_name ILIKE {pattern})"));
    }
    conditions.join(" AND ")
}

/// Returns the query for one page.
fn page_query(filter: &LobbyFilter, after: Option<&ListPosition>) -> PageQuery {
    let mut binds = Binds::default();
    let (source, where_clause) = indexed_source_and_where(filter, &mut binds);
    // The list is read as a union of ranges, so that an index scan can begin at the first row of each range. The
    // condition of each range begins with `AND`.
    let range_sql = |range_condition: &str, limit: usize| {
        format!("SELECT * FROM {source} AS session {where_clause}{range_condition} {ORDER_BY} LIMIT {limit}")
    };
    let ranges_sql = |range_conditions: &[&str], limit: usize| {
        let subqueries: Vec<_> =
            range_conditions.iter().map(|condition| format!("({})", range_sql(condition, limit))).collect();
        format!("SELECT * FROM ({}) AS session {ORDER_BY} LIMIT {limit}", subqueries.join(" UNION ALL "))
    };
    let and_unscheduled = " AND session.scheduled_start IS NULL";
    // Returns the SQL that selects the first sessions of the list, or the first after the cursor, up to a limit.
    let first_sessions_sql: Box<dyn Fn(usize) -> String> = match after {
        None => Box::new(|limit| ranges_sql(&[&format!(" AND {IS_AT_MOST_SIX_HOURS_LATE}"), and_unscheduled], limit)),
        Some(ListPosition { start, created, id }) => {
            let (created, id) = (binds.bind(*created), binds.bind(*id));
            // The condition on the sessions after the cursor, among those with the same start. Its part in parentheses
            // implies its first part, but only the first part can limit the scan of the index.
            let follows_cursor = format!(
                "session.created_at <= {created} \
                 AND (session.created_at < {created} OR (session.created_at = {created} AND session.id > {id}))"
            );
            match start {
                None => Box::new(move |limit| range_sql(&format!("{and_unscheduled} AND {follows_cursor}"), limit)),
                Some(start) => {
                    let start = binds.bind(*start);
                    let and_same_start = format!(
                        " AND {IS_AT_MOST_SIX_HOURS_LATE} AND session.scheduled_start = {start} AND {follows_cursor}"
                    );
                    let and_later_start =
                        format!(" AND {IS_AT_MOST_SIX_HOURS_LATE} AND session.scheduled_start > {start}");
                    Box::new(move |limit| ranges_sql(&[&and_same_start, &and_later_start, and_unscheduled], limit))
                }
            }
        }
    };
    let conditions = unindexed_conditions(filter, &mut binds);
    if conditions.is_empty() {
        // The page is selected before Seers and adventures are joined to it, so that a wrong estimate of the planner
        // does not change the plan.
        return PageQuery::without_scan_limit(
            binds,
            format!("{SELECT_SUMMARY} FROM ({}) AS session{JOINS} {ORDER_BY}", first_sessions_sql(PAGE_SIZE + 1)),
        );
    }
    let (limit, scanned_sessions_sql) = (PAGE_SIZE + 1, first_sessions_sql(SCAN_LIMIT));
    let page_sql = format!(
        "{SELECT_SUMMARY} FROM ({scanned_sessions_sql}) AS session{LATERAL_JOINS} WHERE {conditions} \
         {ORDER_BY} LIMIT {limit}"
    );
    let scan_positions_sql = format!(
        "SELECT scheduled_start AS start, created_at AS created, id AS scanned_id, \
           row_number() OVER ({ORDER_BY}) AS scan_ordinal \
         FROM ({scanned_sessions_sql}) AS scanned"
    );
    let no_ctes = "";
    PageQuery::with_scan_limit(binds, no_ctes, &page_sql, &scan_positions_sql, PAGE_SIZE, ORDER_BY)
}
