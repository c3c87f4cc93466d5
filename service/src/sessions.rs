//! Sessions: one table, one night, from the lobby to the end.

mod details;
mod lobby;

use chrono::{DateTime, Utc};
use entity::{sea_orm_active_enums::SessionStatus, session_players, sessions};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, Statement};
use serde_json::Value;
use uuid::Uuid;

pub use details::{Mate, SessionAdventure, SessionDetails};
pub use lobby::{AdventureCard, LobbyFilter, LobbyRow};

use crate::{Caller, Error, JoinCode, TableSize, connection::Transaction, create, operation::operation};

/// A session to be opened.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Id to give it; drawn where none is given. The same id again gives the first session.
    pub id: Option<Uuid>,
    /// What is played: published, or the Seer's own.
    pub adventure_id: Uuid,
    /// Whether the lobby shows it. Not by default.
    pub visibility: Visibility,
    /// Seats, the Seer not counted. Four by default.
    pub max_players: TableSize,
    /// Whom the Seer looks for.
    pub looking_for: Option<String>,
    /// When it is to begin.
    pub scheduled_start: Option<DateTime<Utc>>,
}

impl Default for NewSession {
    fn default() -> Self {
        Self {
            id: None,
            adventure_id: Uuid::nil(),
            visibility: Visibility::Private,
            max_players: TableSize::known(4),
            looking_for: None,
            scheduled_start: None,
        }
    }
}

/// Who sees a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Everyone, and the lobby shows it while it has a seat free.
    Public,
    /// Those at the table, and whoever knows its code may join.
    Private,
}

/// Operations on sessions: [`Operations::sessions`](crate::Operations::sessions).
#[derive(Debug)]
pub struct Sessions<'a, C> {
    pub(crate) caller: &'a C,
}

const JOIN_BY_CODE: &str = "SELECT private.join_by_code($1, $2) AS session_id";

impl<C: Caller> Sessions<'_, C> {
    /// Opens a session with the caller as its Seer; the database draws its code. Twice with the same id gives the
    /// first.
    ///
    /// Who may: a user. Four round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AdventureNotPlayable`], [`Error::NotFound`] for the adventure, [`Error::IdConflict`],
    /// [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn create(self, new: NewSession) -> Result<sessions::Model, Error> {
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        operation!(self.caller, "sessions.create", |tx| {
            let seer_id = tx.user_id().ok_or(Error::NotSignedIn)?;
            let row = sessions::ActiveModel {
                id: Set(id),
                seer_id: Set(seer_id),
                adventure_id: Set(new.adventure_id),
                is_public: Set(new.visibility == Visibility::Public),
                max_players: Set(new.max_players.get()),
                looking_for: Set(new.looking_for.clone()),
                scheduled_start: Set(new.scheduled_start.map(Into::into)),
                ..Default::default()
            };
            create::once(tx, row, id, sessions::Column::Id, "session", |there| {
                there.seer_id == seer_id && there.adventure_id == new.adventure_id
            })
            .await
        })
    }

    /// One session.
    ///
    /// Who may: everybody where it is public, else those at its table. Four round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn get(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.get", |tx| { find(tx, id).await })
    }

    /// Takes a seat in the session with that code, public or private, or comes back to it. Who sits there already stays.
    ///
    /// Who may: a user who knows the code; newly while the session waits, back as long as it lives. Five round trips.
    /// Event `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchCode`], [`Error::SessionFull`], [`Error::SessionOver`], [`Error::SessionStarted`],
    /// [`Error::CharacterNotYours`], [`Error::CharacterRetired`], [`Error::NotFound`] for the character,
    /// [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn join(self, code: &JoinCode, character_id: Uuid) -> Result<session_players::Model, Error> {
        #[derive(FromQueryResult)]
        struct Row {
            session_id: Uuid,
        }
        operation!(self.caller, "sessions.join", |tx| {
            let user_id = tx.user_id().ok_or(Error::NotSignedIn)?;
            let values = [code.as_str().into(), character_id.into()];
            // Elevated by the database: what a code is for.
            let row = Row::find_by_statement(Statement::from_sql_and_values(DbBackend::Postgres, JOIN_BY_CODE, values))
                .one(tx)
                .await?
                .ok_or(Error::NoSuchCode)?;
            seat(tx, row.session_id, user_id).await
        })
    }

    /// Takes a seat in a public session, as the lobby offers it, or comes back to any. Who sits there already stays.
    ///
    /// Who may: a user; newly while the session waits, back as long as it lives. Five round trips. Event
    /// `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] where the session is private or does not wait, [`Error::SessionFull`],
    /// [`Error::SessionOver`], [`Error::CharacterNotYours`], [`Error::CharacterRetired`], [`Error::NotFound`] for the
    /// character, [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn join_public(self, id: Uuid, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.join_public", |tx| {
            let user_id = tx.user_id().ok_or(Error::NotSignedIn)?;
            // The own seat first, where there is one: seats are taken before sessions, whoever takes them.
            let back = session_players::ActiveModel {
                is_active: Set(true),
                character_id: Set(character_id),
                ..Default::default()
            };
            let back = session_players::Entity::update_many()
                .set(back)
                .filter(session_players::Column::SessionId.eq(id))
                .filter(session_players::Column::UserId.eq(user_id))
                .filter(session_players::Column::IsActive.eq(false))
                .exec_with_returning(tx)
                .await?
                .pop();
            if let Some(seat) = back {
                return Ok(seat);
            }
            let row = session_players::ActiveModel {
                session_id: Set(id),
                user_id: Set(user_id),
                character_id: Set(character_id),
                ..Default::default()
            };
            let key = [session_players::Column::SessionId, session_players::Column::UserId];
            match create::unless_there(tx, row, key).await? {
                Some(seat) => Ok(seat),
                None => seat(tx, id, user_id).await,
            }
        })
    }

    /// Gives up the own seat. Again is no error.
    ///
    /// Who may: a player of the session. Four round trips. Event `player_left`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`], [`Error::NotFound`] without a seat, [`Error::NotSignedIn`].
    pub async fn leave(self, id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.leave", |tx| {
            let user_id = tx.user_id().ok_or(Error::NotSignedIn)?;
            let left = session_players::ActiveModel { is_active: Set(false), ..Default::default() };
            session_players::Entity::update_many()
                .set(left)
                .filter(session_players::Column::SessionId.eq(id))
                .filter(session_players::Column::UserId.eq(user_id))
                .exec_with_returning(tx)
                .await?
                .pop()
                .ok_or(Error::NotFound { what: "seat" })
        })
    }

    /// Begins or goes on: the first time stamps the start.
    ///
    /// Who may: the Seer. Four round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotASeer`], [`Error::NotFound`].
    pub async fn start(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.start", |tx| { set_status(tx, id, SessionStatus::Active).await })
    }

    /// Ends the session well: it counts for the Seer, every player who was seated, and the adventure.
    ///
    /// Who may: the Seer. Four round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotASeer`], [`Error::NotFound`].
    pub async fn complete(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.complete", |tx| { set_status(tx, id, SessionStatus::Completed).await })
    }

    /// Calls the session off: it counts for nobody.
    ///
    /// Who may: the Seer. Four round trips. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::IllegalTransition`], [`Error::NotASeer`], [`Error::NotFound`].
    pub async fn cancel(self, id: Uuid) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.cancel", |tx| { set_status(tx, id, SessionStatus::Cancelled).await })
    }

    /// Moves the table to a scene, or to none.
    ///
    /// Who may: the Seer. Four round trips. Event `scene_changed`.
    ///
    /// # Errors
    ///
    /// [`Error::NotASeer`], [`Error::NotFound`].
    pub async fn set_scene(self, id: Uuid, scene: Option<&str>) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.set_scene", |tx| {
            let row = sessions::ActiveModel { current_scene_id: Set(scene.map(str::to_owned)), ..Default::default() };
            update(tx, id, row).await
        })
    }

    /// Begins an encounter, or ends it with none: everyone has the heroic save back.
    ///
    /// Who may: the Seer. Four round trips. Event `encounter_changed`.
    ///
    /// # Errors
    ///
    /// [`Error::NotASeer`], [`Error::NotFound`].
    pub async fn set_encounter(self, id: Uuid, encounter: Option<&str>) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.set_encounter", |tx| {
            let row =
                sessions::ActiveModel { current_encounter_id: Set(encounter.map(str::to_owned)), ..Default::default() };
            update(tx, id, row).await
        })
    }

    /// Sets the state that the table's clients share.
    ///
    /// Who may: the Seer. Four round trips. Event `game_state`.
    ///
    /// # Errors
    ///
    /// [`Error::NotASeer`], [`Error::NotFound`].
    pub async fn set_game_state(self, id: Uuid, state: Value) -> Result<sessions::Model, Error> {
        operation!(self.caller, "sessions.set_game_state", |tx| {
            let row = sessions::ActiveModel { game_state: Set(state.clone()), ..Default::default() };
            update(tx, id, row).await
        })
    }
}

async fn find(tx: &Transaction, id: Uuid) -> Result<sessions::Model, Error> {
    sessions::Entity::find_by_id(id).one(tx).await?.ok_or(Error::NotFound { what: "session" })
}

async fn seat(tx: &Transaction, session_id: Uuid, user_id: Uuid) -> Result<session_players::Model, Error> {
    session_players::Entity::find_by_id((session_id, user_id)).one(tx).await?.ok_or(Error::NotFound { what: "seat" })
}

async fn set_status(tx: &Transaction, id: Uuid, status: SessionStatus) -> Result<sessions::Model, Error> {
    let row = sessions::ActiveModel { status: Set(status), ..Default::default() };
    update(tx, id, row).await
}

/// What row security hides from an update is not there; whether it exists decides what the caller is told.
async fn update(tx: &Transaction, id: Uuid, row: sessions::ActiveModel) -> Result<sessions::Model, Error> {
    let changed = sessions::Entity::update_many()
        .set(row)
        .filter(sessions::Column::Id.eq(id))
        .exec_with_returning(tx)
        .await?
        .pop();
    match changed {
        Some(session) => Ok(session),
        None => match find(tx, id).await {
            Ok(_) => Err(Error::NotASeer),
            Err(error) => Err(error),
        },
    }
}
