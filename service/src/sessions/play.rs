//! What the Seer does at the table: the session's life, its scene, its encounter, its state.

use entity::{sea_orm_active_enums::SessionStatus, sessions};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, Statement};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Sessions, find, update};
use crate::{
    Caller, Error,
    connection::{OperationTransaction, UncheckedTransaction},
    operation::operation,
};

/// Which game state one means to write over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExpectedVersion {
    /// The one of this `sessions.game_state_version`: another screen of the Seer's is not overwritten unseen.
    Version(i32),
    /// Whichever it is.
    Any,
}

impl<C: Caller> Sessions<'_, C> {
    /// Tells the lobby and the table that it is about to begin.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn announce(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.announce", session = id, |tx| {
            set_status(tx, id, SessionStatus::StartingSoon).await
        })
    }

    /// Takes the announcement back: the session waits again.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn withdraw(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.withdraw", session = id, |tx| {
            set_status(tx, id, SessionStatus::Waiting).await
        })
    }

    /// Begins to play, which stamps the start. Again is no error.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn start(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.start", session = id, |tx| {
            make_active(tx, id, [SessionStatus::Waiting, SessionStatus::StartingSoon]).await
        })
    }

    /// Stops for a while: nobody rolls.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn pause(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.pause", session = id, |tx| {
            set_status(tx, id, SessionStatus::Paused).await
        })
    }

    /// Goes on after a pause. Again is no error.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn resume(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.resume", session = id, |tx| {
            make_active(tx, id, [SessionStatus::Paused]).await
        })
    }

    /// Ends the session well: it counts for the Seer, every player who was seated, and the adventure.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn complete(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.complete", session = id, |tx| {
            set_status(tx, id, SessionStatus::Completed).await
        })
    }

    /// Calls the session off: it counts for nobody.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn cancel(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.cancel", session = id, |tx| {
            set_status(tx, id, SessionStatus::Cancelled).await
        })
    }

    /// Moves the table to a scene, or to none.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `scene_changed`.
    ///
    /// # Errors
    ///
    /// [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn set_scene(self, id: Uuid, scene: Option<&str>) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.set_scene", session = id, |tx| {
            let row = sessions::ActiveModel { current_scene_id: Set(scene.map(str::to_owned)), ..Default::default() };
            update(tx, id, row).await
        })
    }

    /// Begins an encounter, or ends it with none: everyone has the heroic save back.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `encounter_changed`.
    ///
    /// # Errors
    ///
    /// [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn set_encounter(self, id: Uuid, encounter: Option<&str>) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.set_encounter", session = id, |tx| {
            let row =
                sessions::ActiveModel { current_encounter_id: Set(encounter.map(str::to_owned)), ..Default::default() };
            update(tx, id, row).await
        })
    }

    /// Sets the state that the table's clients share, over the one that is expected to be there. The same state again
    /// changes nothing, and tells nobody.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `game_state`, with the new version.
    ///
    /// # Errors
    ///
    /// [`Error::GameStateChanged`] where it has another version than the expected, [`Error::NotSessionSeer`],
    /// [`Error::NotFound`], [`Error::NotSignedIn`], [`Error::InvalidValue`] for a text with NUL.
    pub async fn set_game_state(self, id: Uuid, state: Value, over: ExpectedVersion) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.set_game_state", session = id, |tx| {
            let row = sessions::ActiveModel { game_state: Set(state.clone()), ..Default::default() };
            let mut change = sessions::Entity::update_many().set(row).filter(sessions::Column::Id.eq(id));
            if let ExpectedVersion::Version(version) = over {
                change = change.filter(sessions::Column::GameStateVersion.eq(version));
            }
            if let Some(session) = change.exec_with_returning(tx).await?.pop() {
                return Ok(session);
            }
            run_by_caller(tx, id).await?;
            Err(Error::GameStateChanged)
        })
    }
}

impl<C: Caller> Sessions<'_, C> {
    /// Gives a live session another code; the old one opens nothing any more.
    ///
    /// Who may: the Seer, and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`],
    /// [`Error::AccountClosed`].
    pub async fn renew_code(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.renew_code", session = id, |tx| {
            // Elevated by the database: the column is the server's.
            let sql = "SELECT * FROM private.renew_session_code($1)";
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [id.into()]);
            match sessions::Model::find_by_statement(statement).one(tx).await? {
                Some(session) => Ok(session),
                None => {
                    run_by_caller(tx, id).await?;
                    Err(Error::SessionOver)
                }
            }
        })
    }
}

async fn set_status(tx: &UncheckedTransaction, id: Uuid, status: SessionStatus) -> Result<sessions::Model, Error> {
    update(tx, id, sessions::ActiveModel { status: Set(status), ..Default::default() }).await
}

/// Both ways to be active, each from where it leads: the status machine alone would let a waiting session resume.
async fn make_active(
    tx: &UncheckedTransaction,
    id: Uuid,
    from: impl IntoIterator<Item = SessionStatus>,
) -> Result<sessions::Model, Error> {
    let row = sessions::ActiveModel { status: Set(SessionStatus::Active), ..Default::default() };
    let changed = sessions::Entity::update_many()
        .set(row)
        .filter(sessions::Column::Id.eq(id))
        .filter(sessions::Column::Status.is_in(from.into_iter().chain([SessionStatus::Active])))
        .exec_with_returning(tx)
        .await?
        .pop();
    match changed {
        Some(session) => Ok(session),
        None => {
            let session = run_by_caller(tx, id).await?;
            Err(Error::IllegalTransition { from: session.status, to: SessionStatus::Active })
        }
    }
}

/// The session that a change did not meet, if the caller could have changed it.
async fn run_by_caller(tx: &UncheckedTransaction, id: Uuid) -> Result<sessions::Model, Error> {
    let session = find(tx, id).await?;
    if tx.caller().user().is_none_or(|user| user == session.seer_id) { Ok(session) } else { Err(Error::NotSessionSeer) }
}
