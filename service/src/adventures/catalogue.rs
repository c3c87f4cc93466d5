//! Lists of adventures: the catalogue of the published ones, and one's own.

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
    Caller, Cursor, Error, Page,
    bounded_scan::{PageQuery, SCAN_LIMIT},
    operation::operation,
    page::List,
    rows,
    sql::Binds,
};

/// Rows of a page.
const PAGE: usize = 20;

/// An adventure without its content, as a list shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct AdventureSummary {
    /// Adventure.
    pub id: Uuid,
    /// Who made it.
    pub creator_id: Uuid,
    /// Name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Small picture.
    pub thumbnail_url: Option<String>,
    /// How hard.
    pub difficulty: DifficultyLevel,
    /// Minutes.
    pub estimated_duration: i32,
    /// Fewest players.
    pub min_players: i32,
    /// Most players.
    pub max_players: i32,
    /// Draft, published or archived.
    pub status: AdventureStatus,
    /// When it was published last.
    pub published_at: Option<DateTimeWithTimeZone>,
    /// Whether its content was judged and found without fault.
    pub is_valid: bool,
    /// Sessions in which it was completed.
    pub times_played: i32,
    /// What players think of it.
    pub average_rating: Option<Decimal>,
    /// When it was begun.
    pub created_at: DateTimeWithTimeZone,
}

/// Which adventures to show. All, by default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CatalogueFilter {
    /// Only this hard.
    pub difficulty: Option<DifficultyLevel>,
    /// Only of at least so many minutes.
    pub shortest: Option<i32>,
    /// Only of at most so many minutes.
    pub longest: Option<i32>,
    /// Only for so many players.
    pub players: Option<i32>,
    /// Only where name or description holds this, in any case.
    pub search: Option<String>,
}

/// In which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CatalogueOrder {
    /// The last to be published first.
    #[default]
    Newest,
    /// The most often completed first.
    MostPlayed,
    /// The best rated first, those without a rating last.
    BestRated,
}

crate::values::named!(
    CatalogueOrder,
    "order",
    { Newest = "newest", MostPlayed = "most_played", BestRated = "best_rated" },
    "must be newest, most_played or best_rated"
);

/// Where a page ended, in its order.
#[derive(Serialize, Deserialize)]
enum Key {
    Newest(Option<DateTimeWithTimeZone>, Uuid),
    MostPlayed(i32, Uuid),
    BestRated(Option<Decimal>, Uuid),
}

impl<C: Caller> Adventures<'_, C> {
    /// A page of the published adventures, twenty at most: the first, or the one that `after` leads to.
    ///
    /// Pages are stable while adventures come and go; one that is played or rated meanwhile moves. With a filter, a page looks
    /// through a thousand adventures at most: with fewer rows than twenty, or none, and a next page, it goes on there.
    ///
    /// Who may: everybody. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], also for a cursor of another order.
    pub async fn catalogue(
        self,
        filter: &CatalogueFilter,
        order: CatalogueOrder,
        after: Option<&Cursor>,
    ) -> Result<Page<AdventureSummary>, Error> {
        let list = List::new("adventures.catalogue", &(filter, order));
        let after = list.key::<Key>(after)?;
        let walk = walk(filter, order, after.as_ref())?;
        operation!(self.caller, reads "adventures.catalogue", |tx| {
            let place = |row: &AdventureSummary| match order {
                CatalogueOrder::Newest => Key::Newest(row.published_at, row.id),
                CatalogueOrder::MostPlayed => Key::MostPlayed(row.times_played, row.id),
                CatalogueOrder::BestRated => Key::BestRated(row.average_rating, row.id),
            };
            let end = |row: &PgRow, id| {
                Ok(match order {
                    CatalogueOrder::Newest => Key::Newest(rows::cell(row, "place")?, id),
                    CatalogueOrder::MostPlayed => Key::MostPlayed(rows::cell(row, "place")?, id),
                    CatalogueOrder::BestRated => Key::BestRated(rows::cell(row, "place")?, id),
                })
            };
            walk.page(tx, list, PAGE, summaries, place, end).await
        })
    }

    /// A page of the caller's adventures, drafts and archived ones too, the last begun first; twenty at most.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCursor`], [`Error::NotSignedIn`].
    pub async fn mine(self, after: Option<&Cursor>) -> Result<Page<AdventureSummary>, Error> {
        let list = List::new("adventures.mine", &self.caller.identity());
        let after = list.key::<(DateTimeWithTimeZone, Uuid)>(after)?;
        operation!(self.caller, reads "adventures.mine", |tx| {
            let mut binds = Binds::default();
            let mut conditions = format!("creator_id = {}", binds.bind(tx.user()?));
            if let Some((created, id)) = after {
                let (created, id) = (binds.bind(created), binds.bind(id));
                conditions += &format!(" AND created_at <= {created} AND (created_at < {created} OR id > {id})");
            }
            let rows = PAGE + 1;
            let sql = format!(
                "SELECT {COLUMNS} FROM public.adventures WHERE {conditions} ORDER BY created_at DESC, id LIMIT {rows}"
            );
            let rows = rows::fetch_all(tx, binds.statement(sql), summaries).await?;
            list.page(rows, PAGE, |row: &AdventureSummary| (row.created_at, row.id))
        })
    }
}

rows::row_decoder!(COLUMNS, summaries: AdventureSummary {
    id, creator_id, name, description, thumbnail_url, difficulty, estimated_duration, min_players, max_players, status,
    published_at, is_valid, times_played, average_rating, created_at,
});

/// Conditions that are looked at one adventure after the other.
fn unindexed_filters(filter: &CatalogueFilter, binds: &mut Binds) -> String {
    let mut conditions = Vec::new();
    if let Some(difficulty) = filter.difficulty {
        let value = binds.bind(difficulty.to_value().value.into_owned());
        conditions.push(format!("difficulty = {value}::public.difficulty_level"));
    }
    if let Some(shortest) = filter.shortest {
        conditions.push(format!("estimated_duration >= {}", binds.bind(shortest)));
    }
    if let Some(longest) = filter.longest {
        conditions.push(format!("estimated_duration <= {}", binds.bind(longest)));
    }
    if let Some(players) = filter.players {
        conditions.push(format!("{} BETWEEN min_players AND max_players", binds.bind(players)));
    }
    if let Some(search) = &filter.search {
        let value = binds.bind_search(search);
        conditions.push(format!("(name ILIKE {value} OR description ILIKE {value})"));
    }
    conditions.join(" AND ")
}

fn walk(filter: &CatalogueFilter, order: CatalogueOrder, after: Option<&Key>) -> Result<PageQuery, Error> {
    let mut binds = Binds::default();
    let unindexed_filters = unindexed_filters(filter, &mut binds);
    let (column, nulls, walk) = match order {
        CatalogueOrder::Newest => ("published_at", "", "newest_adventures"),
        CatalogueOrder::MostPlayed => ("times_played", "", "most_played_adventures"),
        CatalogueOrder::BestRated => ("average_rating", " NULLS LAST", "best_rated_adventures"),
    };
    let ordered = format!("ORDER BY {column} DESC{nulls}, id");
    let (place, id) = match (order, after) {
        (_, None) => (None, None),
        (CatalogueOrder::Newest, Some(Key::Newest(place, id))) => (place.map(|place| binds.bind(place)), Some(id)),
        (CatalogueOrder::MostPlayed, Some(Key::MostPlayed(place, id))) => (Some(binds.bind(*place)), Some(id)),
        (CatalogueOrder::BestRated, Some(Key::BestRated(place, id))) => {
            (place.map(|place| binds.bind(place)), Some(id))
        }
        _ => return Err(Error::InvalidCursor),
    };
    let is_first = id.is_none();
    let null = || "NULL".to_owned();
    let (place, id) = (place.unwrap_or_else(null), id.map_or_else(null, |id| binds.bind(*id)));
    let rows = PAGE + 1;
    Ok(if !unindexed_filters.is_empty() {
        // Its rows come in the list's order: the first that match are the page.
        let with = format!(
            "walked AS MATERIALIZED (SELECT * FROM private.{walk}({place}, {id}, {SCAN_LIMIT}) WITH ORDINALITY), "
        );
        let page = format!("SELECT {COLUMNS} FROM walked WHERE {unindexed_filters} LIMIT {rows}");
        let walked = format!("SELECT {column} AS place, id AS last, ordinality AS nth FROM walked");
        PageQuery::bounded(binds, &with, &page, &walked, PAGE, &ordered)
    } else if is_first {
        let page = format!("SELECT {COLUMNS} FROM public.adventures WHERE status = 'published' {ordered} LIMIT {rows}");
        PageQuery::exact(binds, page)
    } else {
        PageQuery::exact(binds, format!("SELECT {COLUMNS} FROM private.{walk}({place}, {id}, {rows})"))
    })
}
