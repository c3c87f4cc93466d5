//! The caller's part in a session.

use sea_orm::{DbBackend, Statement, sqlx::postgres::PgRow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Sessions;
use crate::{Error, Executor, operation::operation, rows};

/// The caller's part in a session: [`Sessions::participation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Participation {
    /// The caller runs the session, with or without a seat.
    Seer,
    /// The caller holds a seat.
    Player,
    /// The caller gave up their seat, or was removed and then readmitted. They may take it again until the session
    /// ends, if a seat is free.
    Left,
    /// The Seer removed the caller. Until the Seer readmits them, the caller cannot rejoin and, if the session is
    /// private, can read only their own seat.
    Removed,
    /// The caller has no part in the session, or there is no such session, or it is archived.
    None,
}

impl Participation {
    /// Whether the caller may read the session's events and rolls: `true` for all but [`Removed`](Self::Removed) and
    /// [`None`](Self::None).
    #[must_use]
    pub fn may_read_events(self) -> bool {
        !matches!(self, Self::Removed | Self::None)
    }
}

/// The row that [`SELECT_PARTICIPATION`] returns.
struct ParticipationRow {
    is_seer: bool,
    /// Whether the caller holds their seat now. `None` if they have never had one.
    is_seated: Option<bool>,
    is_removed: bool,
}

/// `$1` is the id of the session, `$2` that of the caller. Row-level security lets every user see their own seats and
/// the sessions that they run.
const SELECT_PARTICIPATION: &str = "SELECT \
      EXISTS (SELECT FROM public.sessions WHERE id = $1 AND seer_id = $2) AS is_seer, \
      seat.is_active AS is_seated, seat.removed_at IS NOT NULL AS is_removed \
    FROM (SELECT) AS one_row \
    LEFT JOIN public.session_players AS seat ON seat.session_id = $1 AND seat.user_id = $2";

impl<C: Executor> Sessions<'_, C> {
    /// Returns the caller's part in a session. The result is [`None`](Participation::None) also if the session is
    /// archived or does not exist.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn participation(self, id: Uuid) -> Result<Participation, Error> {
        operation!(self.executor, reads "sessions.participation", session = id, |tx| {
            let values = [id.into(), tx.user_id()?.into()];
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, SELECT_PARTICIPATION, values);
            let decode =
                |rows: &[PgRow]| rows::decode_rows!(rows => ParticipationRow { is_seer, is_seated, is_removed });
            let row = rows::fetch_all(tx, statement, decode).await?.pop();
            Ok(match row {
                Some(ParticipationRow { is_seer: true, .. }) => Participation::Seer,
                Some(ParticipationRow { is_seated: Some(true), .. }) => Participation::Player,
                Some(ParticipationRow { is_seated: Some(false), is_removed: true, .. }) => Participation::Removed,
                Some(ParticipationRow { is_seated: Some(false), .. }) => Participation::Left,
                _ => Participation::None,
            })
        })
    }
}
