//! Sessions, from the lobby to the archive. A Seer runs a session of an adventure, and players take the session's
//! seats, each with a character. The session waits for players (`waiting` or `starting_soon`), is played (`active` or
//! `paused`) and ends (`completed` or `cancelled`). Until it ends, it is *live*.
//!
//! ```
//! use service::{Operations, Sparc, sessions::NewSession};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(demo.url()).await?;
//! # let (seer_id, player_id, adventure_id, hero_id) = (demo.seer, demo.player, demo.adventure, demo.hero);
//! let (morgan, ada) = (sparc.as_user(seer_id), sparc.as_user(player_id));
//! let session = morgan.sessions().create(NewSession { adventure_id, ..Default::default() }).await?;
//! ada.sessions().join(&session.code.parse()?, hero_id).await?;
//! morgan.sessions().start(session.id).await?;
//! morgan.sessions().set_scene(session.id, Some("ford")).await?;
//! morgan.sessions().complete(session.id).await?;
//! # Ok(())
//! # }
//! ```

mod control;
mod details;
mod lobby;
mod my_sessions;
mod participation;
mod seats;

use chrono::{DateTime, SubsecRound, Utc};
use entity::sessions;
use sea_orm::ActiveValue::Set;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use control::ExpectedVersion;
pub use details::{SessionAdventure, SessionDetails, SessionPlayer};
pub use lobby::{LobbyFilter, SessionSummary, SessionSummaryAdventure};
pub use my_sessions::{ArchivedSession, MySession};
pub use participation::Participation;

use crate::{
    Error, Executor, MaxPlayers,
    connection::OperationTransaction,
    operation::operation,
    rows::{self, set_if_some},
};

/// A session to create.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewSession {
    /// Id of the session; random if absent. Repeating the request with the same id returns the existing session.
    pub id: Option<Uuid>,
    /// Adventure to play: a published one, or one of the Seer's own.
    pub adventure_id: Uuid,
    /// Who can see the session. Private by default.
    #[serde(default = "NewSession::default_visibility")]
    pub visibility: Visibility,
    /// Number of seats; the Seer needs none. Four by default.
    #[serde(default = "NewSession::default_max_players")]
    pub max_players: MaxPlayers,
    /// Description of the players that the Seer is looking for.
    pub looking_for: Option<String>,
    /// Scheduled start.
    pub scheduled_start: Option<DateTime<Utc>>,
}

impl Default for NewSession {
    fn default() -> Self {
        Self {
            id: None,
            adventure_id: Uuid::nil(),
            visibility: Visibility::Private,
            max_players: MaxPlayers::new_unchecked(4),
            looking_for: None,
            scheduled_start: None,
        }
    }
}

/// Defaults of fields that a JSON document omits.
impl NewSession {
    fn default_visibility() -> Visibility {
        Self::default().visibility
    }

    fn default_max_players() -> MaxPlayers {
        Self::default().max_players
    }
}

/// Who can see a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everyone. The lobby lists the session while it waits for players and has a free seat; a session with a scheduled
    /// start is listed only until six hours after that time.
    Public,
    /// Its participants (the Seer and the players, even those who left, but not those whom the Seer removed) and the
    /// service. Until the session starts, users who know its join code can look at a summary of it, and join.
    Private,
}

crate::values::impl_text_conversions!(
    Visibility,
    "visibility",
    { Public = "public", Private = "private" },
    "must be public or private"
);

/// Changes to a session. `None` leaves a field unchanged; `Some(None)` clears it. Once the session has ended, its Seer
/// can change only `visibility` and `looking_for`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SessionChanges {
    /// Who can see the session.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// Number of seats; it must not be below the number of seats taken.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub max_players: Option<MaxPlayers>,
    /// Description of the players that the Seer is looking for.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub looking_for: Option<Option<String>>,
    /// Scheduled start.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub scheduled_start: Option<Option<DateTime<Utc>>>,
}

/// Operations on sessions: [`Operations::sessions`](crate::Operations::sessions).
#[derive(Debug)]
pub struct Sessions<'a, C> {
    pub(crate) executor: &'a C,
}

impl<C: Executor> Sessions<'_, C> {
    /// Creates a session with the caller as its Seer; the database generates its join code. Repeating the request with
    /// the same id returns the existing session.
    ///
    /// Who may: a user. Three round trips, or four if the request is repeated. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AdventureNotPlayable`], also if there is no such adventure; [`Error::SessionLimitReached`],
    /// [`Error::IdConflict`], [`Error::InvalidValue`] for a `looking_for` that contains NUL or has more than 500
    /// characters and for a start that is more than an hour in the past or after the year 2999, [`Error::NotSignedIn`],
    /// [`Error::AccountClosed`].
    pub async fn create(self, session: NewSession) -> Result<sessions::Model, Error> {
        let id = session.id.unwrap_or_else(Uuid::new_v4);
        operation!(self.executor, "sessions.create", session = id, |tx| {
            let seer_id = tx.user_id()?;
            let build_row = || sessions::ActiveModel {
                id: Set(id),
                seer_id: Set(seer_id),
                adventure_id: Set(session.adventure_id),
                is_public: Set(session.visibility == Visibility::Public),
                max_players: Set(session.max_players.get()),
                looking_for: Set(session.looking_for.clone()),
                // PostgreSQL stores microseconds, and the values of a repeated request must equal the stored ones.
                scheduled_start: Set(session.scheduled_start.map(|start| start.trunc_subsecs(6).into())),
                ..Default::default()
            };
            rows::insert_or_get(tx, build_row, sessions::Column::Id, "session", rows::RepeatCheck::ByDigest).await
        })
    }

    /// Changes the visibility, number of seats, `looking_for` or scheduled start of a session; its status, scene,
    /// encounter and game state have operations of their own. Without changes, returns the session as it is, to
    /// everyone who can see it.
    ///
    /// Who may: the Seer and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`] if the Seer changes the number of seats or the start of a session that has ended,
    /// [`Error::MaxPlayersBelowSeated`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`],
    /// [`Error::InvalidValue`] for a `looking_for` that contains NUL or has more than 500 characters, for a start
    /// outside the years 2000 to 2999 and, from the Seer, for a start more than an hour in the past.
    pub async fn edit(self, id: Uuid, changes: SessionChanges) -> Result<sessions::Model, Error> {
        let mut row = sessions::ActiveModel::default();
        set_if_some(&mut row.is_public, &changes.visibility.map(|visibility| visibility == Visibility::Public));
        set_if_some(&mut row.max_players, &changes.max_players.map(MaxPlayers::get));
        set_if_some(&mut row.looking_for, &changes.looking_for);
        set_if_some(&mut row.scheduled_start, &changes.scheduled_start.map(|start| start.map(Into::into)));
        operation!(self.executor, "sessions.edit", session = id, |tx| { update_session(tx, id, row.clone()).await })
    }

    /// Returns a session.
    ///
    /// Who may: everyone if it is public; otherwise its participants and the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn get(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.executor, reads "sessions.get", session = id, |tx| { find_session(tx, id).await })
    }
}

async fn find_session(tx: &OperationTransaction, id: Uuid) -> Result<sessions::Model, Error> {
    rows::require::<sessions::Entity>(tx, id, "session").await
}

/// Updates a session to the values that `row` sets, and returns it; if `row` sets no column, only reads it. If there is
/// no such session that the caller may update, the error is `NotSessionSeer` if the caller can read the session, and
/// otherwise `NotFound`.
async fn update_session(
    tx: &OperationTransaction,
    id: Uuid,
    row: sessions::ActiveModel,
) -> Result<sessions::Model, Error> {
    match rows::update_returning(tx, row, id, sessions::Column::Id).await? {
        Some(session) => Ok(session),
        None => {
            find_session(tx, id).await?;
            Err(Error::NotSessionSeer)
        }
    }
}
