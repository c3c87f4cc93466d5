//! Statistics of rolls.

use entity::sea_orm_active_enums::RollType;
use sea_orm::{DbBackend, FromQueryResult, Statement};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Dice;
use crate::{Error, Executor, operation::operation};

/// The rolls to list or count. Those of archived sessions are not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RollScope {
    /// All rolls of a session.
    Session(Uuid),
    /// The rolls of a character. A user gets those in the sessions where the user takes part: as the Seer, or as a
    /// player (also one who has left, but not one whom the Seer removed). The service gets those in all sessions.
    Character(Uuid),
}

/// Statistics of rolls of all kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RollStatistics {
    /// Number of rolls.
    pub rolls: i64,
    /// Number of rolls that succeeded.
    pub successes: i64,
    /// Number of rolls whose dice all show six.
    pub critical_successes: i64,
    /// Number of rolls whose dice all show one.
    pub critical_failures: i64,
    /// Mean of the modified totals; `None` without rolls.
    pub mean_modified_total: Option<f64>,
    /// Statistics of each kind that was rolled.
    pub by_kind: Vec<KindStatistics>,
}

/// Statistics of rolls of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct KindStatistics {
    /// Kind of roll.
    pub kind: RollType,
    /// Number of rolls.
    pub rolls: i64,
    /// Number of rolls that succeeded.
    pub successes: i64,
    /// Number of rolls whose dice all show six.
    pub critical_successes: i64,
    /// Number of rolls whose dice all show one.
    pub critical_failures: i64,
    /// Mean of the modified totals.
    pub mean_modified_total: f64,
}

/// Statistics of one kind, or of all kinds together if `kind` is `None`.
#[derive(FromQueryResult)]
struct StatisticsRow {
    kind: Option<RollType>,
    rolls: i64,
    successes: i64,
    critical_successes: i64,
    critical_failures: i64,
    mean_modified_total: Option<f64>,
}

/// The beginning of the statement. A condition on the session or the character follows, then [`GROUP_BY_KIND`].
const SELECT_STATISTICS_WHERE: &str = "SELECT
    roll_type AS kind,
    count(*) AS rolls,
    count(*) FILTER (WHERE success) AS successes,
    count(*) FILTER (WHERE outcome = 'critical_success') AS critical_successes,
    count(*) FILTER (WHERE outcome = 'critical_failure') AS critical_failures,
    avg(modified_total)::double precision AS mean_modified_total
  FROM public.dice_rolls
  WHERE ";

/// Returns one row for all rolls together, and one for each kind.
const GROUP_BY_KIND: &str = " GROUP BY GROUPING SETS ((), (roll_type)) ORDER BY roll_type";

impl<C: Executor> Dice<'_, C> {
    /// Returns the numbers of rolls, successes and critical results, and the mean modified total (the total plus the
    /// flat modifiers), overall and for each kind of roll.
    ///
    /// Who may: the session's participants, players who have left it, and the service; other users get zeros. For a
    /// character, a user gets the statistics of the rolls that [`RollScope::Character`] includes. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn statistics(self, scope: RollScope) -> Result<RollStatistics, Error> {
        let (condition, id) = match scope {
            RollScope::Session(id) => ("session_id = $1", id),
            RollScope::Character(id) => ("character_id = $1", id),
        };
        operation!(self.executor, reads "dice.statistics", scope = id, |tx| {
            let sql = format!("{SELECT_STATISTICS_WHERE}{condition}{GROUP_BY_KIND}");
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [id.into()]);
            let mut statistics = RollStatistics::default();
            for row in StatisticsRow::find_by_statement(statement).all(tx).await? {
                match row.kind {
                    Some(kind) => statistics.by_kind.push(KindStatistics {
                        kind,
                        rolls: row.rolls,
                        successes: row.successes,
                        critical_successes: row.critical_successes,
                        critical_failures: row.critical_failures,
                        mean_modified_total: row.mean_modified_total.unwrap_or_default(),
                    }),
                    None => {
                        statistics.rolls = row.rolls;
                        statistics.successes = row.successes;
                        statistics.critical_successes = row.critical_successes;
                        statistics.critical_failures = row.critical_failures;
                        statistics.mean_modified_total = row.mean_modified_total;
                    }
                }
            }
            Ok(statistics)
        })
    }
}
