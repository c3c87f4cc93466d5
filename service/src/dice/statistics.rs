//! What rolls came to.

use entity::sea_orm_active_enums::RollType;
use sea_orm::{DbBackend, FromQueryResult, Statement};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Dice;
use crate::{Caller, Error, operation::operation};

/// Whose rolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RollScope {
    /// All at a table.
    Session(Uuid),
    /// All of a character, at the tables that the caller was at.
    Character(Uuid),
}

/// How often it was rolled, and how it went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RollStatistics {
    /// Rolls.
    pub rolls: i64,
    /// Rolls that succeeded.
    pub successes: i64,
    /// Rolls with all dice six.
    pub critical_successes: i64,
    /// Rolls with all dice one.
    pub critical_failures: i64,
    /// Mean of the modified totals; none without rolls.
    pub mean_total: Option<f64>,
    /// The same by kind, of the kinds that were rolled.
    pub by_kind: Vec<KindStatistics>,
}

/// How often one kind was rolled, and how it went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct KindStatistics {
    /// Kind.
    pub kind: RollType,
    /// Rolls.
    pub rolls: i64,
    /// Rolls that succeeded.
    pub successes: i64,
    /// Rolls with all dice six.
    pub critical_successes: i64,
    /// Rolls with all dice one.
    pub critical_failures: i64,
    /// Mean of the modified totals.
    pub mean_total: f64,
}

/// A kind, or (without one) all of them.
#[derive(FromQueryResult)]
struct Row {
    kind: Option<RollType>,
    rolls: i64,
    successes: i64,
    critical_successes: i64,
    critical_failures: i64,
    mean_total: Option<f64>,
}

const STATISTICS: &str = "SELECT
    roll_type AS kind,
    count(*) AS rolls,
    count(*) FILTER (WHERE success) AS successes,
    count(*) FILTER (WHERE outcome = 'critical_success') AS critical_successes,
    count(*) FILTER (WHERE outcome = 'critical_failure') AS critical_failures,
    avg(modified_total)::double precision AS mean_total
  FROM public.dice_rolls
  WHERE ";

const BY_KIND: &str = " GROUP BY GROUPING SETS ((), (roll_type)) ORDER BY roll_type";

impl<C: Caller> Dice<'_, C> {
    /// How many rolls there were, how they went, and their mean: in all, and by kind.
    ///
    /// Who may: those at the table; of a character, of the rolls at tables that the caller was at. To others there are
    /// none. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn statistics(self, of: RollScope) -> Result<RollStatistics, Error> {
        let (condition, id) = match of {
            RollScope::Session(id) => ("session_id = $1", id),
            RollScope::Character(id) => ("character_id = $1", id),
        };
        operation!(self.caller, reads "dice.statistics", of = id, |tx| {
            let sql = format!("{STATISTICS}{condition}{BY_KIND}");
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [id.into()]);
            let mut statistics = RollStatistics::default();
            for row in Row::find_by_statement(statement).all(tx).await? {
                match row.kind {
                    Some(kind) => statistics.by_kind.push(KindStatistics {
                        kind,
                        rolls: row.rolls,
                        successes: row.successes,
                        critical_successes: row.critical_successes,
                        critical_failures: row.critical_failures,
                        mean_total: row.mean_total.unwrap_or_default(),
                    }),
                    None => {
                        statistics.rolls = row.rolls;
                        statistics.successes = row.successes;
                        statistics.critical_successes = row.critical_successes;
                        statistics.critical_failures = row.critical_failures;
                        statistics.mean_total = row.mean_total;
                    }
                }
            }
            Ok(statistics)
        })
    }
}
