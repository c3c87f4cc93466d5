//! Seats: taking one, giving it up, and what the Seer may do with them.

use entity::{session_players, sessions};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, Statement};
use uuid::Uuid;

use super::{SessionSummary, Sessions, lobby};
use crate::{
    Caller, Error, JoinCode,
    connection::{OperationTransaction, UncheckedTransaction},
    operation::operation,
    rows,
};

const JOIN_BY_CODE: &str = "SELECT * FROM private.join_by_code($1, $2)";

const BY_CODE: &str = "SELECT * FROM private.session_by_code($1)";

impl<C: Caller> Sessions<'_, C> {
    /// What the session with that code is, public or private: who was told the code looks before sitting down.
    ///
    /// Who may: a user who knows the code, and the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownJoinCode`], [`Error::NotSignedIn`].
    pub async fn by_code(self, code: &JoinCode) -> Result<SessionSummary, Error> {
        operation!(self.caller, reads "sessions.by_code", |tx| {
            // Elevated by the database: what a code is for.
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, BY_CODE, [code.as_str().into()]);
            let row = rows::fetch_all(tx, statement, lobby::Row::read).await?.pop().ok_or(Error::UnknownJoinCode)?;
            Ok(row.into())
        })
    }

    /// Takes a seat in the session with that code, public or private, or comes back to it. Who sits there already stays.
    ///
    /// Who may: a user who knows the code; newly while the session waits, back as long as it lives. Three round trips.
    /// Event `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownJoinCode`], [`Error::SessionFull`], [`Error::SessionOver`], [`Error::SessionStarted`],
    /// [`Error::CharacterNotYours`], [`Error::CharacterRetired`], [`Error::PlayerRemoved`], [`Error::SeatLimitReached`],
    /// [`Error::NotFound`] for the character, [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn join(self, code: &JoinCode, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.join", character = character_id, |tx| {
            tx.user()?;
            // Elevated by the database: what a code is for.
            let values = [code.as_str().into(), character_id.into()];
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, JOIN_BY_CODE, values);
            session_players::Model::find_by_statement(statement).one(tx).await?.ok_or(Error::UnknownJoinCode)
        })
    }

    /// Takes a seat in a public session, as the lobby offers it, or comes back to any. Who sits there already stays.
    ///
    /// Who may: a user; newly while the session waits, back as long as it lives. Three round trips, and one more where a seat is taken. Event
    /// `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] where the session is private, or not there; [`Error::SessionStarted`], [`Error::SessionFull`],
    /// [`Error::SessionOver`], [`Error::CharacterNotYours`], [`Error::CharacterRetired`], [`Error::PlayerRemoved`],
    /// [`Error::SeatLimitReached`], [`Error::NotFound`] for the character, [`Error::NotSignedIn`],
    /// [`Error::AccountClosed`].
    pub async fn join_public(self, id: Uuid, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.join_public", session = id, character = character_id, |tx| {
            sit(tx, id, tx.user()?, character_id).await
        })
        .map_err(|error| error.with_rule("only who knows its code may join a private session"))
    }

    /// Gives up the own seat. Again is no error.
    ///
    /// Who may: a player of the session. Three round trips. Event `player_left`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`], [`Error::NotSeated`], [`Error::NotFound`] for the session, [`Error::NotSignedIn`].
    pub async fn leave(self, id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.leave", session = id, |tx| { change_own(tx, id, left()).await })
    }

    /// Takes the seat again that the caller gave up, with the same character or another.
    ///
    /// Who may: a player who left, while the session lives and has a seat. Three round trips. Event `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionFull`], [`Error::SessionOver`], [`Error::CharacterNotYours`], [`Error::CharacterRetired`],
    /// [`Error::PlayerRemoved`], [`Error::SeatLimitReached`], [`Error::NotSeated`], [`Error::NotFound`] for the session or
    /// the character, [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn rejoin(self, id: Uuid, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.rejoin", session = id, character = character_id, |tx| {
            let row = session_players::ActiveModel {
                is_active: Set(true),
                character_id: Set(character_id),
                ..Default::default()
            };
            change_own(tx, id, row).await
        })
    }

    /// Brings another character to the seat that the caller holds.
    ///
    /// Who may: the player, before the start. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::SessionStarted`], [`Error::SessionOver`], [`Error::CharacterNotYours`], [`Error::CharacterRetired`],
    /// [`Error::NotSeated`], [`Error::NotFound`] for the session or the character, [`Error::NotSignedIn`].
    pub async fn change_character(self, id: Uuid, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.change_character", session = id, character = character_id, |tx| {
            let row = session_players::ActiveModel { character_id: Set(character_id), ..Default::default() };
            change_own(tx, id, row).await
        })
    }

    /// Seats a player, at any time while the session is live; one who left or was removed rejoins. Idempotent.
    ///
    /// Who may: the service. Players seat themselves: a seat lets its Seer wound the character. Four round trips. Event `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionFull`], [`Error::SessionOver`], [`Error::CharacterNotYours`] where it is not the player's,
    /// [`Error::CharacterRetired`], [`Error::SeatLimitReached`], [`Error::NotFound`] for the character,
    /// [`Error::NotAllowed`] also for the Seer, [`Error::NotYourChoice`] for the Seer where the player left,
    /// [`Error::NotSignedIn`], [`Error::AccountClosed`] for the player's.
    pub async fn seat(self, id: Uuid, player_id: Uuid, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.seat", session = id, player = player_id, character = character_id, |tx| {
            sit(tx, id, player_id, character_id).await
        })
        .map_err(|error| error.with_rule("only the service may seat another"))
    }

    /// Removes a player from the session, who cannot rejoin until [`readmit`](Self::readmit). Idempotent.
    ///
    /// Who may: the Seer, and the service. Three round trips. Event `player_left`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`], [`Error::NotSessionSeer`], [`Error::NotFound`] without such a seat, and where the caller does
    /// not see the session; [`Error::NotSignedIn`].
    pub async fn remove(self, id: Uuid, player_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.remove", session = id, player = player_id, |tx| {
            let row = session_players::ActiveModel {
                is_active: Set(false),
                // The database stamps the moment.
                removed_at: Set(Some(chrono::Utc::now().into())),
                ..Default::default()
            };
            change_by_seer(tx, id, player_id, row).await
        })
    }

    /// Lets a player rejoin whom the Seer removed. The seat stays free until the player takes it. Idempotent.
    ///
    /// Who may: the Seer, and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::PlayerRemoved`] for the player, [`Error::NotSessionSeer`], [`Error::NotFound`] without such a seat, and where
    /// the caller does not see the session; [`Error::NotSignedIn`].
    pub async fn readmit(self, id: Uuid, player_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.caller, "sessions.readmit", session = id, player = player_id, |tx| {
            let row = session_players::ActiveModel { removed_at: Set(None), ..Default::default() };
            change_by_seer(tx, id, player_id, row).await
        })
    }
}

fn left() -> session_players::ActiveModel {
    session_players::ActiveModel { is_active: Set(false), ..Default::default() }
}

async fn seat(tx: &UncheckedTransaction, session_id: Uuid, user_id: Uuid) -> Result<session_players::Model, Error> {
    session_players::Entity::find_by_id((session_id, user_id)).one(tx).await?.ok_or(Error::NotFound { what: "seat" })
}

/// Whoever sees the session and never had a seat there is told that.
async fn change_own(
    tx: &UncheckedTransaction,
    session_id: Uuid,
    row: session_players::ActiveModel,
) -> Result<session_players::Model, Error> {
    match change(tx, session_id, tx.user()?, row).await {
        Err(Error::NotFound { what: "seat" }) => {
            let session = sessions::Entity::find_by_id(session_id).one(tx).await?;
            Err(if session.is_some() { Error::NotSeated } else { Error::NotFound { what: "session" } })
        }
        changed => changed,
    }
}

/// Whoever sees the session and does not run it is told that.
async fn change_by_seer(
    tx: &UncheckedTransaction,
    session_id: Uuid,
    user_id: Uuid,
    row: session_players::ActiveModel,
) -> Result<session_players::Model, Error> {
    match change(tx, session_id, user_id, row).await {
        Err(Error::NotFound { what: "seat" }) => {
            if let Some(session) = sessions::Entity::find_by_id(session_id).one(tx).await?
                && tx.caller().user().is_some_and(|user| user != session.seer_id)
            {
                return Err(Error::NotSessionSeer);
            }
            Err(Error::NotFound { what: "seat" })
        }
        changed => changed,
    }
}

async fn change(
    tx: &UncheckedTransaction,
    session_id: Uuid,
    user_id: Uuid,
    row: session_players::ActiveModel,
) -> Result<session_players::Model, Error> {
    session_players::Entity::update_many()
        .set(row)
        .filter(session_players::Column::SessionId.eq(session_id))
        .filter(session_players::Column::UserId.eq(user_id))
        .exec_with_returning(tx)
        .await?
        .pop()
        .ok_or(Error::NotFound { what: "seat" })
}

/// An old seat first, where there is one: seats are locked before sessions, whoever takes them.
async fn sit(
    tx: &UncheckedTransaction,
    session_id: Uuid,
    user_id: Uuid,
    character_id: Uuid,
) -> Result<session_players::Model, Error> {
    let held = session_players::Entity::find_by_id((session_id, user_id)).one(tx).await?;
    match held {
        Some(held) if held.is_active => return Ok(held),
        Some(_) => {
            let row = session_players::ActiveModel {
                is_active: Set(true),
                character_id: Set(character_id),
                ..Default::default()
            };
            let rejoined = session_players::Entity::update_many()
                .set(row)
                .filter(session_players::Column::SessionId.eq(session_id))
                .filter(session_players::Column::UserId.eq(user_id))
                .filter(session_players::Column::IsActive.eq(false))
                .exec_with_returning(tx)
                .await?
                .pop();
            if let Some(seat) = rejoined {
                return Ok(seat);
            }
        }
        None => {
            let row = session_players::ActiveModel {
                session_id: Set(session_id),
                user_id: Set(user_id),
                character_id: Set(character_id),
                ..Default::default()
            };
            let key = [session_players::Column::SessionId, session_players::Column::UserId];
            if let Some(seat) = rows::insert_if_absent(tx, row, key).await? {
                return Ok(seat);
            }
        }
    }
    // Somebody took it meanwhile: the same caller, twice at once.
    seat(tx, session_id, user_id).await
}
