//! Statistics of a user.

use sea_orm::{DbBackend, FromQueryResult, Statement};
use serde::{Deserialize, Serialize};

use super::Users;
use crate::{Error, Executor, operation::operation};

/// Statistics of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct UserStatistics {
    /// Number of completed sessions in which the user had a seat. A session does not count if nobody but its Seer had a
    /// seat. (A Seer may take one.)
    pub games_played: i32,
    /// Number of completed sessions that the user ran. A session does not count if nobody but its Seer had a seat.
    pub games_run: i32,
    /// Number of characters that are not retired.
    pub living_characters: i64,
    /// Number of retired characters.
    pub retired_characters: i64,
    /// Number of published adventures.
    pub published_adventures: i64,
    /// Number of completed sessions of the user's adventures, whoever ran them. A session does not count if nobody but
    /// its Seer had a seat.
    pub adventure_plays: i64,
    /// Number of rolls of the user's characters. Rolls in archived sessions do not count, because they are in a table
    /// of the archive. Rolls in sessions from which the Seer removed the user do not count either, because the user
    /// cannot read them.
    pub rolls: i64,
}

const SELECT_STATISTICS: &str = "SELECT
    profile.games_played,
    profile.games_run,
    own_characters.living_characters,
    own_characters.retired_characters,
    own_adventures.published_adventures,
    own_adventures.adventure_plays,
    (SELECT count(*) FROM public.dice_rolls WHERE character_id = ANY (own_characters.ids)) AS rolls
  FROM public.users AS profile,
    LATERAL (
      SELECT
        count(*) FILTER (WHERE retired_at IS NULL) AS living_characters,
        count(*) FILTER (WHERE retired_at IS NOT NULL) AS retired_characters,
        array_agg(id) AS ids
      FROM public.characters
      WHERE user_id = profile.id
    ) AS own_characters,
    LATERAL (
      SELECT
        count(*) FILTER (WHERE status = 'published') AS published_adventures,
        coalesce(sum(times_played), 0) AS adventure_plays
      FROM public.adventures
      WHERE creator_id = profile.id
    ) AS own_adventures
  WHERE profile.id = $1";

impl<C: Executor> Users<'_, C> {
    /// Returns the caller's statistics.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn my_statistics(self) -> Result<UserStatistics, Error> {
        operation!(self.executor, reads "users.my_statistics", |tx| {
            let statement =
                Statement::from_sql_and_values(DbBackend::Postgres, SELECT_STATISTICS, [tx.user_id()?.into()]);
            // The transaction began with a check that the account exists. So the profile is missing only if the account
            // was deleted since.
            UserStatistics::find_by_statement(statement).one(tx).await?.ok_or(Error::NotFound { what: "user" })
        })
    }
}
