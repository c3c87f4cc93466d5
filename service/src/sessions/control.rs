//! The Seer's control of a session: status, scene, encounter, game state and join code.

use entity::{sea_orm_active_enums::SessionStatus, sessions};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, Statement};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Sessions, find_session, update_session};
use crate::{
    Error, Executor,
    connection::{OperationTransaction, OperationTransactionExt},
    operation::operation,
};

/// The version of the game state that a write expects to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExpectedVersion {
    /// Only the state with this `sessions.game_state_version`, so that two clients of a Seer do not overwrite each
    /// other's changes unknowingly.
    Version(i32),
    /// Any version.
    Any,
}

impl<C: Executor> Sessions<'_, C> {
    /// Announces that the session starts soon. Idempotent.
    ///
    /// Who may: the Seer and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn announce_start(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.announce_start", session = id, |tx| {
            set_status(tx, id, SessionStatus::StartingSoon).await
        })
    }

    /// Withdraws the announcement that the session starts soon: the session's status is `waiting` again. Idempotent.
    ///
    /// Who may: the Seer and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn withdraw_announcement(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.withdraw_announcement", session = id, |tx| {
            set_status(tx, id, SessionStatus::Waiting).await
        })
    }

    /// Starts the session and records the time. Idempotent.
    ///
    /// Who may: the Seer and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionHasNoPlayer`], [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`],
    /// [`Error::NotSignedIn`].
    pub async fn start(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.start", session = id, |tx| {
            activate(tx, id, [SessionStatus::Waiting, SessionStatus::StartingSoon]).await
        })
    }

    /// Pauses the session: until it is resumed, only the service can roll. Idempotent.
    ///
    /// Who may: the Seer and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn pause(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.pause", session = id, |tx| {
            set_status(tx, id, SessionStatus::Paused).await
        })
    }

    /// Resumes the session after a pause. Idempotent.
    ///
    /// Who may: the Seer and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionHasNoPlayer`], [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`],
    /// [`Error::NotSignedIn`].
    pub async fn resume(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.resume", session = id, |tx| {
            activate(tx, id, [SessionStatus::Paused]).await
        })
    }

    /// Completes the session: it then counts in the statistics of the Seer, of everyone who has had a seat, and of the
    /// adventure, unless nobody but the Seer has had a seat (a Seer can take one in their own session). Idempotent.
    ///
    /// Who may: the Seer and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn complete(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.complete", session = id, |tx| {
            set_status(tx, id, SessionStatus::Completed).await
        })
    }

    /// Cancels the session: it counts in nobody's statistics. Idempotent.
    ///
    /// Who may: the Seer and the service. Three round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn cancel(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.cancel", session = id, |tx| {
            set_status(tx, id, SessionStatus::Cancelled).await
        })
    }

    /// Sets the current scene of a session; `None` clears it. `scene_id` is the id of a scene in the adventure's
    /// content; nothing checks whether the content has it.
    ///
    /// Who may: the Seer and the service. Three round trips. Event `scene_changed`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`] except for the service, [`Error::InvalidValue`] for more than 200 characters and for text
    /// that contains NUL, [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn set_scene(self, id: Uuid, scene_id: Option<&str>) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.set_scene", session = id, |tx| {
            let row =
                sessions::ActiveModel { current_scene_id: Set(scene_id.map(str::to_owned)), ..Default::default() };
            update_session(tx, id, row).await
        })
    }

    /// Sets the current encounter; `None` ends the current one. `encounter_id` is any text that identifies the
    /// encounter to the clients. A change of the encounter restores the heroic save of every seat. (A heroic save is a
    /// second roll after a failed one; each seat has one per encounter.)
    ///
    /// Who may: the Seer and the service. Three round trips. Event `encounter_changed`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`] except for the service, [`Error::InvalidValue`] for more than 200 characters and for text
    /// that contains NUL, [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn set_encounter(self, id: Uuid, encounter_id: Option<&str>) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.set_encounter", session = id, |tx| {
            let row = sessions::ActiveModel {
                current_encounter_id: Set(encounter_id.map(str::to_owned)),
                ..Default::default()
            };
            update_session(tx, id, row).await
        })
    }

    /// Replaces the game state that the session's clients share, if the stored state has the expected version. An
    /// identical state changes only `updated_at` and causes no event.
    ///
    /// Who may: the Seer and the service. Three round trips. Event `game_state`, with the new version.
    ///
    /// # Errors
    ///
    /// [`Error::GameStateChanged`] if the stored state has another version, [`Error::SessionOver`] except for the
    /// service, [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`], [`Error::InvalidValue`] for a
    /// state that exceeds the bounds of documents (`docs/decisions.md`, "Bounds") or contains NUL.
    pub async fn set_game_state(
        self,
        id: Uuid,
        state: Value,
        expected: ExpectedVersion,
    ) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.set_game_state", session = id, |tx| {
            let row = sessions::ActiveModel { game_state: Set(state.clone()), ..Default::default() };
            let mut update = sessions::Entity::update_many().set(row).filter(sessions::Column::Id.eq(id));
            if let ExpectedVersion::Version(version) = expected {
                update = update.filter(sessions::Column::GameStateVersion.eq(version));
            }
            if let Some(session) = update.exec_with_returning(tx).await?.pop() {
                return Ok(session);
            }
            find_as_seer(tx, id).await?;
            Err(Error::GameStateChanged)
        })
    }

    /// Replaces the join code of a session that has not ended; the old code no longer works.
    ///
    /// Who may: the Seer and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`], [`Error::NotSessionSeer`], [`Error::NotFound`], [`Error::NotSignedIn`],
    /// [`Error::AccountClosed`].
    pub async fn replace_code(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.executor, "sessions.replace_code", session = id, |tx| {
            // The database function is SECURITY DEFINER, because users may not write the column `code`.
            let sql = "SELECT * FROM private.replace_session_code($1)";
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [id.into()]);
            match sessions::Model::find_by_statement(statement).one(tx).await? {
                Some(session) => Ok(session),
                None => {
                    find_as_seer(tx, id).await?;
                    Err(Error::SessionOver)
                }
            }
        })
    }
}

async fn set_status(tx: &OperationTransaction, id: Uuid, status: SessionStatus) -> Result<sessions::Model, Error> {
    update_session(tx, id, sessions::ActiveModel { status: Set(status), ..Default::default() }).await
}

/// Makes a session active if its status is one of `allowed_statuses`, or it is already active. The database does not
/// distinguish starting from resuming, so without this check `resume` could start a waiting session.
async fn activate(
    tx: &OperationTransaction,
    id: Uuid,
    allowed_statuses: impl IntoIterator<Item = SessionStatus>,
) -> Result<sessions::Model, Error> {
    let row = sessions::ActiveModel { status: Set(SessionStatus::Active), ..Default::default() };
    let activated = sessions::Entity::update_many()
        .set(row)
        .filter(sessions::Column::Id.eq(id))
        .filter(sessions::Column::Status.is_in(allowed_statuses.into_iter().chain([SessionStatus::Active])))
        .exec_with_returning(tx)
        .await?
        .pop();
    match activated {
        Some(session) => Ok(session),
        None => {
            let session = find_as_seer(tx, id).await?;
            Err(Error::IllegalTransition { from: session.status, to: SessionStatus::Active })
        }
    }
}

/// Finds a session after an update of it changed no row. Returns an error unless the caller is its Seer or the service.
/// (Visitors do not reach this function: they have no privilege to update a session or to call
/// `private.replace_session_code`.)
async fn find_as_seer(tx: &OperationTransaction, id: Uuid) -> Result<sessions::Model, Error> {
    let session = find_session(tx, id).await?;
    if tx.caller_identity().user_id().is_none_or(|caller_id| caller_id == session.seer_id) {
        Ok(session)
    } else {
        Err(Error::NotSessionSeer)
    }
}
