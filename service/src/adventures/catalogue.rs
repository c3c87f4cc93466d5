//! Lists of adventures: the catalogue of published ones, and the caller's own.

use entity::sea_orm_active_enums::{AdventureStatus, DifficultyLevel};
use sea_orm::{
    ActiveEnum,
    prelude::{DateTimeWithTimeZone, Decimal},
    sqlx::postgres::PgRow,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Adventures;
use crate::{
    Cursor, Error, Executor, Page,
    binds::Binds,
    limited_scan::{PageQuery, SCAN_LIMIT},
    operation::operation,
    page::ListId,
    rows,
};

/// Maximum number of adventures per page.
const PAGE_SIZE: usize = 20;

/// An adventure without its content, for lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct AdventureSummary {
    /// Id of the adventure.
    pub id: Uuid,
    /// Account that created it.
    pub creator_id: Uuid,
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// URL of the thumbnail.
    pub thumbnail_url: Option<String>,
    /// Difficulty.
    pub difficulty: DifficultyLevel,
    /// Estimated duration in minutes.
    pub estimated_duration: i32,
    /// Minimum number of players.
    pub min_players: i32,
    /// Maximum number of players.
    pub max_players: i32,
    /// Status: draft, published or archived.
    pub status: AdventureStatus,
    /// When it was first published.
    pub published_at: Option<DateTimeWithTimeZone>,
    /// Whether its content has been validated without errors.
    pub is_valid: bool,
    /// Number of its completed sessions that had a player besides the Seer.
    pub times_played: i32,
    /// Average rating, 0 to 5, if it has one.
    pub average_rating: Option<Decimal>,
    /// When it was created.
    pub created_at: DateTimeWithTimeZone,
}

/// Filter for the catalogue. By default, all adventures match.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CatalogueFilter {
    /// Only adventures of this difficulty.
    pub difficulty: Option<DifficultyLevel>,
    /// Only adventures that take at least this many minutes.
    #[serde(deserialize_with = "crate::values::optional_number")]
    pub min_minutes: Option<i32>,
    /// Only adventures that take at most this many minutes.
    #[serde(deserialize_with = "crate::values::optional_number")]
    pub max_minutes: Option<i32>,
    /// Only adventures that this number of players can play.
    #[serde(deserialize_with = "crate::values::optional_number")]
    pub player_count: Option<i32>,
    /// Only adventures whose name or description contains this text, ignoring case.
    pub search: Option<String>,
}

/// Order of the catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CatalogueOrder {
    /// Sorted by first publication, the latest first.
    #[default]
    Newest,
    /// The most often completed first.
    MostPlayed,
    /// The best rated first, those without a rating last.
    BestRated,
}

crate::values::impl_text_conversions!(
    CatalogueOrder,
    "order",
    { Newest = "newest", MostPlayed = "most_played", BestRated = "best_rated" },
    "must be newest, most_played or best_rated"
);

/// Maximum number of adventures that the first, short scan for a filtered page reads. If at most [`PAGE_SIZE`] of them
/// match, a second scan reads up to [`SCAN_LIMIT`] adventures.
const SHORT_SCAN_LIMIT: usize = 100;

/// A position in the catalogue, in one of its orders: the value by which the list is sorted, and the id.
#[derive(Serialize, Deserialize)]
enum ListPosition {
    Newest(Option<DateTimeWithTimeZone>, Uuid),
    MostPlayed(i32, Uuid),
    BestRated(Option<Decimal>, Uuid),
}

impl<C: Executor> Adventures<'_, C> {
    /// Returns a page of at most twenty published adventures: the first, or the one after the cursor.
    ///
    /// Adventures that are published or unpublished between two requests do not shift the next page. In the orders by
    /// plays and by rating, an adventure may move to another page if it is rated, or one of its sessions is completed,
    /// in the meantime.
    ///
    /// With a filter, at most a thousand adventures are scanned for a page. So a page may have fewer than twenty
    /// adventures, or none, although there is a next page.
    ///
    /// Who may: everyone. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], also for a cursor of another order or filter; [`Error::InvalidValue`] for a search
    /// text that contains NUL.
    pub async fn catalogue(
        self,
        filter: &CatalogueFilter,
        order: CatalogueOrder,
        after: Option<&Cursor>,
    ) -> Result<Page<AdventureSummary>, Error> {
        let list = ListId::new("adventures.catalogue", &(filter, order));
        let after = list.decode_cursor::<ListPosition>(after)?;
        let query = page_query(filter, order, after.as_ref())?;
        operation!(self.executor, reads "adventures.catalogue", |tx| {
            let position_of = |summary: &AdventureSummary| match order {
                CatalogueOrder::Newest => ListPosition::Newest(summary.published_at, summary.id),
                CatalogueOrder::MostPlayed => ListPosition::MostPlayed(summary.times_played, summary.id),
                CatalogueOrder::BestRated => ListPosition::BestRated(summary.average_rating, summary.id),
            };
            let scan_end_position = |row: &PgRow, id| {
                Ok(match order {
                    CatalogueOrder::Newest => ListPosition::Newest(rows::decode_cell(row, "sort_value")?, id),
                    CatalogueOrder::MostPlayed => ListPosition::MostPlayed(rows::decode_cell(row, "sort_value")?, id),
                    CatalogueOrder::BestRated => ListPosition::BestRated(rows::decode_cell(row, "sort_value")?, id),
                })
            };
            query.fetch(tx, list, PAGE_SIZE, decode_summaries, position_of, scan_end_position).await
        })
    }

    /// Returns a page of at most twenty of the caller's adventures, including drafts and archived ones, the most
    /// recently created first.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], [`Error::NotSignedIn`].
    pub async fn mine(self, after: Option<&Cursor>) -> Result<Page<AdventureSummary>, Error> {
        let list = ListId::new("adventures.mine", &self.executor.identity());
        let after = list.decode_cursor::<(DateTimeWithTimeZone, Uuid)>(after)?;
        operation!(self.executor, reads "adventures.mine", |tx| {
            let mut binds = Binds::default();
            let mut conditions = format!("creator_id = {}", binds.bind(tx.user_id()?));
            if let Some((created_at, id)) = after {
                let (created_at, id) = (binds.bind(created_at), binds.bind(id));
                // Earlier rows, and rows of the same time with a higher id. The condition with `<=` follows from the
                // one in parentheses, but only the former limits the index scan.
                conditions +=
                    &format!(" AND created_at <= {created_at} AND (created_at < {created_at} OR id > {id})");
            }
            let limit = PAGE_SIZE + 1;
            let sql = format!(
                "SELECT {SUMMARY_COLUMNS} FROM public.adventures WHERE {conditions} \
                 ORDER BY created_at DESC, id LIMIT {limit}"
            );
            let summaries = rows::fetch_all(tx, binds.into_statement(sql), decode_summaries).await?;
            list.build_page(summaries, PAGE_SIZE, |summary: &AdventureSummary| (summary.created_at, summary.id))
        })
    }
}

rows::row_decoder!(SUMMARY_COLUMNS, decode_summaries: AdventureSummary {
    id, creator_id, name, description, thumbnail_url, difficulty, estimated_duration, min_players, max_players, status,
    published_at, is_valid, times_played, average_rating, created_at,
});

/// Returns the conditions of the filter as SQL; empty if there are none. PostgreSQL evaluates them for each adventure
/// that is scanned, because the indexes in the orders of the catalogue do not contain the filtered columns.
fn unindexed_conditions(filter: &CatalogueFilter, binds: &mut Binds) -> String {
    let mut conditions = Vec::new();
    if let Some(difficulty) = filter.difficulty {
        let difficulty = binds.bind(difficulty.to_value().value.into_owned());
        conditions.push(format!("difficulty = {difficulty}::public.difficulty_level"));
    }
    if let Some(min_minutes) = filter.min_minutes {
        conditions.push(format!("estimated_duration >= {}", binds.bind(min_minutes)));
    }
    if let Some(max_minutes) = filter.max_minutes {
        conditions.push(format!("estimated_duration <= {}", binds.bind(max_minutes)));
    }
    if let Some(player_count) = filter.player_count {
        conditions.push(format!("{} BETWEEN min_players AND max_players", binds.bind(player_count)));
    }
    if let Some(search) = &filter.search {
        let pattern = binds.bind_contains_pattern(search);
        conditions.push(format!("(name ILIKE {pattern} OR description ILIKE {pattern})"));
    }
    conditions.join(" AND ")
}

/// Returns the query for one page.
fn page_query(
    filter: &CatalogueFilter,
    order: CatalogueOrder,
    after: Option<&ListPosition>,
) -> Result<PageQuery, Error> {
    let mut binds = Binds::default();
    let conditions = unindexed_conditions(filter, &mut binds);
    let (sort_column, nulls_clause, list_function) = match order {
        CatalogueOrder::Newest => ("published_at", "", "newest_adventures"),
        CatalogueOrder::MostPlayed => ("times_played", "", "most_played_adventures"),
        CatalogueOrder::BestRated => ("average_rating", " NULLS LAST", "best_rated_adventures"),
    };
    let order_by = format!("ORDER BY {sort_column} DESC{nulls_clause}, id");
    // The placeholder of the cursor's sort value, and the cursor's id. A sort value may be NULL.
    let (after_value, after_id) = match (order, after) {
        (_, None) => (None, None),
        (CatalogueOrder::Newest, Some(ListPosition::Newest(sort_value, id))) => {
            (sort_value.map(|sort_value| binds.bind(sort_value)), Some(id))
        }
        (CatalogueOrder::MostPlayed, Some(ListPosition::MostPlayed(sort_value, id))) => {
            (Some(binds.bind(*sort_value)), Some(id))
        }
        (CatalogueOrder::BestRated, Some(ListPosition::BestRated(sort_value, id))) => {
            (sort_value.map(|sort_value| binds.bind(sort_value)), Some(id))
        }
        // Not reached: the id of the list depends on the order, so a cursor of another order has already been refused.
        _ => return Err(Error::InvalidCursor),
    };
    let is_first_page = after.is_none();
    let sql_null = || "NULL".to_owned();
    let after_value = after_value.unwrap_or_else(sql_null);
    let after_id = after_id.map_or_else(sql_null, |id| binds.bind(*id));
    let limit = PAGE_SIZE + 1;
    Ok(if !conditions.is_empty() {
        // The function returns rows in the order of the list, so the first rows that match are the page. PostgreSQL
        // collects all rows of a function before it returns the first, so a short scan is tried before the long one.
        let ctes = format!(
            "short_scan AS MATERIALIZED (
                SELECT {SUMMARY_COLUMNS} FROM private.{list_function}({after_value}, {after_id}, {SHORT_SCAN_LIMIT})
                WHERE {conditions} LIMIT {limit}
              ),
              long_scan AS MATERIALIZED (
                SELECT * FROM private.{list_function}({after_value}, {after_id}, {SCAN_LIMIT}) WITH ORDINALITY
                WHERE (SELECT count(*) FROM short_scan) < {limit}
              ), "
        );
        let page_sql = format!(
            "(SELECT * FROM short_scan WHERE NOT EXISTS (SELECT FROM long_scan))
             UNION ALL
             (SELECT {SUMMARY_COLUMNS} FROM long_scan WHERE {conditions} LIMIT {limit})"
        );
        let scan_positions_sql =
            format!("SELECT {sort_column} AS sort_value, id AS scanned_id, ordinality AS scan_ordinal FROM long_scan");
        PageQuery::with_scan_limit(binds, &ctes, &page_sql, &scan_positions_sql, PAGE_SIZE, &order_by)
    } else if is_first_page {
        let page_sql = format!(
            "SELECT {SUMMARY_COLUMNS} FROM public.adventures WHERE status = 'published' {order_by} LIMIT {limit}"
        );
        PageQuery::without_scan_limit(binds, page_sql)
    } else {
        // A plain query would read again all rows that have the sort value of the cursor. The function does not.
        PageQuery::without_scan_limit(
            binds,
            format!("SELECT {SUMMARY_COLUMNS} FROM private.{list_function}({after_value}, {after_id}, {limit})"),
        )
    })
}
