//! Seats: taking them, giving them up, and removing players from them.

use entity::{session_players, sessions};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, FromQueryResult, QueryFilter, Statement};
use uuid::Uuid;

use super::{SessionSummary, Sessions, lobby};
use crate::{
    Error, Executor, JoinCode,
    connection::{OperationTransaction, OperationTransactionExt},
    operation::operation,
    rows::{self, ExistenceCheck},
};

const JOIN_BY_CODE: &str = "SELECT * FROM private.join_by_code($1, $2)";

const FIND_BY_CODE: &str = "SELECT * FROM private.session_by_code($1)";

impl<C: Executor> Sessions<'_, C> {
    /// Returns a summary of the session with this code, public or private, so that a user can look at it before
    /// joining. Once the session has started or was cancelled, only its participants (including players who left) and
    /// the service find it by its code.
    ///
    /// Who may: a user who knows the code, and the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownJoinCode`], [`Error::NotSignedIn`].
    pub async fn by_code(self, code: &JoinCode) -> Result<SessionSummary, Error> {
        operation!(self.executor, reads "sessions.by_code", |tx| {
            // The database function is SECURITY DEFINER, because knowing the code gives access to the session.
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, FIND_BY_CODE, [code.as_str().into()]);
            let summary_row = rows::fetch_all(tx, statement, lobby::SummaryRow::decode).await?.pop();
            Ok(summary_row.ok_or(Error::UnknownJoinCode)?.into())
        })
    }

    /// Takes a seat in the session with this code, even if the session is private, or takes the caller's former seat
    /// there again. If the caller is already seated with this character, returns that seat unchanged. If the caller is
    /// seated with another character, changes it, as [`change_character`](Self::change_character) does.
    ///
    /// Who may: a user who knows the code. A new seat can be taken until the session starts, a former seat until the
    /// session ends. Three round trips. Event `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownJoinCode`], [`Error::SessionFull`], [`Error::SessionOver`], [`Error::SessionStarted`],
    /// [`Error::CharacterNotYours`], [`Error::CharacterRetired`], [`Error::PlayerRemoved`],
    /// [`Error::SeatLimitReached`], [`Error::NotFound`] for the character, [`Error::NotSignedIn`],
    /// [`Error::AccountClosed`].
    pub async fn join(self, code: &JoinCode, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.executor, "sessions.join", character = character_id, |tx| {
            // Refuses visitors and the service.
            tx.user_id()?;
            // The database function is SECURITY DEFINER, because knowing the code gives access to the session.
            let values = [code.as_str().into(), character_id.into()];
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, JOIN_BY_CODE, values);
            session_players::Model::find_by_statement(statement).one(tx).await?.ok_or(Error::UnknownJoinCode)
        })
    }

    /// Takes a seat in a public session, or takes the caller's former seat in any session again. The Seer can also take
    /// a seat in a private session that they run. If the caller is already seated with this character, returns that
    /// seat unchanged. If the caller is seated with another character, changes it, as
    /// [`change_character`](Self::change_character) does.
    ///
    /// Who may: a user. A new seat can be taken until the session starts, a former seat until the session ends. Four
    /// round trips, or three if the seat stays unchanged. Event `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] if the session is private and another user's, or does not exist;
    /// [`Error::SessionStarted`], [`Error::SessionFull`], [`Error::SessionOver`], [`Error::CharacterNotYours`],
    /// [`Error::CharacterRetired`], [`Error::PlayerRemoved`], [`Error::SeatLimitReached`], [`Error::NotFound`] for the
    /// character, [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn join_by_id(self, id: Uuid, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.executor, "sessions.join_by_id", session = id, character = character_id, |tx| {
            take_seat(tx, id, tx.user_id()?, character_id).await
        })
        .map_err(|error| error.with_rule_if_not_allowed("only users who know its code may join a private session"))
    }

    /// Gives up the caller's seat. Idempotent.
    ///
    /// Who may: a player of the session. Three round trips. Event `player_left`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`], [`Error::NotSeated`], [`Error::NotFound`] for the session, [`Error::NotSignedIn`].
    pub async fn leave(self, id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.executor, "sessions.leave", session = id, |tx| {
            let row = session_players::ActiveModel { is_active: Set(false), ..Default::default() };
            update_own_seat(tx, id, row).await
        })
    }

    /// Puts the caller back into a seat that they gave up, with the same character or another.
    ///
    /// Who may: a player who left, until the session ends, if it has a free seat. Three round trips. Event
    /// `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionFull`], [`Error::SessionOver`], [`Error::SessionStarted`] for another character while the caller
    /// is seated, [`Error::CharacterNotYours`], [`Error::CharacterRetired`], [`Error::PlayerRemoved`],
    /// [`Error::SeatLimitReached`], [`Error::NotSeated`], [`Error::NotFound`] for the session or the character,
    /// [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn rejoin(self, id: Uuid, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.executor, "sessions.rejoin", session = id, character = character_id, |tx| {
            let row = session_players::ActiveModel {
                is_active: Set(true),
                character_id: Set(character_id),
                ..Default::default()
            };
            update_own_seat(tx, id, row).await
        })
    }

    /// Changes the character in the caller's seat. A player who left or was removed can do so until the session ends,
    /// but does not return to the seat by doing so.
    ///
    /// Who may: a seated player until the session starts; a player who left or was removed, until the session ends.
    /// Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::SessionStarted`], [`Error::SessionOver`], [`Error::CharacterNotYours`], [`Error::CharacterRetired`],
    /// [`Error::NotSeated`], [`Error::NotFound`] for the session or the character, [`Error::NotSignedIn`].
    pub async fn change_character(self, id: Uuid, character_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.executor, "sessions.change_character", session = id, character = character_id, |tx| {
            let row = session_players::ActiveModel { character_id: Set(character_id), ..Default::default() };
            update_own_seat(tx, id, row).await
        })
    }

    /// Seats a player in a session that has not ended, even a player who left or was removed. If the player is already
    /// seated with this character, returns that seat unchanged. If the player is seated with another character, changes
    /// the character, which is possible only before the session starts.
    ///
    /// Who may: the service; others may only seat themselves, because a seat lets the Seer damage the character. Four
    /// round trips, or three if the seat stays unchanged. Event `player_joined`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionFull`], [`Error::SessionOver`], [`Error::CharacterNotYours`] if the character is not the
    /// player's, [`Error::CharacterRetired`], [`Error::SeatLimitReached`], [`Error::NotFound`] for the session or the
    /// character, [`Error::SessionStarted`] after the start, if the player is seated with another character, or is the
    /// caller and has never had a seat in the session; [`Error::PlayerRemoved`] if the player is the caller and was
    /// removed, [`Error::NotYourChoice`] if the caller is another user who can see the session, [`Error::NotAllowed`]
    /// if the caller cannot see the session, [`Error::NotSignedIn`], [`Error::AccountClosed`] if the player's account
    /// is closed.
    pub async fn seat_player(
        self,
        id: Uuid,
        player_id: Uuid,
        character_id: Uuid,
    ) -> Result<session_players::Model, Error> {
        operation!(
            self.executor,
            "sessions.seat_player",
            session = id,
            player = player_id,
            character = character_id,
            |tx| { take_seat(tx, id, player_id, character_id).await }
        )
        .map_err(|error| {
            error.with_rule_if_not_allowed(
                "only the service may seat another user, and only users who know its code may join a private session",
            )
        })
    }

    /// Removes a player from a session; the player cannot rejoin until [`readmit`](Self::readmit). Idempotent.
    ///
    /// Who may: the Seer and the service; players may remove themselves, which is leaving. Three round trips. Event
    /// `player_left`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionOver`], [`Error::NotSessionSeer`], [`Error::PlayerRemoved`] if the caller is the player and was
    /// removed before; [`Error::NotFound`] if there is no such seat or the caller cannot see the session;
    /// [`Error::NotSignedIn`].
    pub async fn remove_player(self, id: Uuid, player_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.executor, "sessions.remove_player", session = id, player = player_id, |tx| {
            let row = session_players::ActiveModel {
                is_active: Set(false),
                // A trigger replaces this time with the database's, or with NULL if the caller is the player, who then
                // has only left.
                removed_at: Set(Some(chrono::Utc::now().into())),
                ..Default::default()
            };
            update_seat_as_seer(tx, id, player_id, row).await
        })
    }

    /// Allows a player whom the Seer removed to rejoin. The player is not seated by this, and no seat is kept free for
    /// them. Idempotent.
    ///
    /// Who may: the Seer and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::PlayerRemoved`] if the caller is that player, [`Error::NotSessionSeer`], [`Error::NotFound`] if there
    /// is no such seat or the caller cannot see the session; [`Error::NotSignedIn`].
    pub async fn readmit(self, id: Uuid, player_id: Uuid) -> Result<session_players::Model, Error> {
        operation!(self.executor, "sessions.readmit", session = id, player = player_id, |tx| {
            let row = session_players::ActiveModel { removed_at: Set(None), ..Default::default() };
            update_seat_as_seer(tx, id, player_id, row).await
        })
    }
}

async fn find_seat(
    tx: &OperationTransaction,
    session_id: Uuid,
    user_id: Uuid,
) -> Result<session_players::Model, Error> {
    session_players::Entity::find_by_id((session_id, user_id)).one(tx).await?.ok_or(Error::NotFound { what: "seat" })
}

/// Updates the caller's seat. If there is none, the error is `NotSeated` if the caller can see the session, and
/// otherwise `NotFound`.
async fn update_own_seat(
    tx: &OperationTransaction,
    session_id: Uuid,
    row: session_players::ActiveModel,
) -> Result<session_players::Model, Error> {
    match update_seat(tx, session_id, tx.user_id()?, row).await {
        Err(Error::NotFound { what: "seat" }) => {
            let session = sessions::Entity::find_by_id(session_id).one(tx).await?;
            Err(if session.is_some() { Error::NotSeated } else { Error::NotFound { what: "session" } })
        }
        result => result,
    }
}

/// Updates the seat of a player for the Seer or the service. If no row is updated, the error is `NotSessionSeer` if the
/// caller is another user who can see the session, and otherwise `NotFound`.
async fn update_seat_as_seer(
    tx: &OperationTransaction,
    session_id: Uuid,
    player_id: Uuid,
    row: session_players::ActiveModel,
) -> Result<session_players::Model, Error> {
    match update_seat(tx, session_id, player_id, row).await {
        Err(Error::NotFound { what: "seat" }) => {
            if let Some(session) = sessions::Entity::find_by_id(session_id).one(tx).await?
                && tx.caller_identity().user_id().is_some_and(|caller_id| caller_id != session.seer_id)
            {
                return Err(Error::NotSessionSeer);
            }
            Err(Error::NotFound { what: "seat" })
        }
        result => result,
    }
}

/// Updates the seat of a user, if the caller may. The error is `NotFound` if no row is updated.
async fn update_seat(
    tx: &OperationTransaction,
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

/// Seats a user with this character. If the caller may seat the user, and the user already holds a seat with this
/// character, returns the seat unchanged. A seat that the user has given up, or holds with another character, is
/// updated and not inserted again, because an update locks the seat before the session, as the lock order requires
/// (`docs/decisions.md`, "Lock order").
async fn take_seat(
    tx: &OperationTransaction,
    session_id: Uuid,
    user_id: Uuid,
    character_id: Uuid,
) -> Result<session_players::Model, Error> {
    // If the caller may not seat this user, the insert is tried even if the seat exists, because the policy for new
    // seats refuses the insert with the right error.
    let may_seat = tx.caller_identity().user_id().is_none_or(|caller_id| caller_id == user_id);
    let existing_seat = match may_seat {
        true => session_players::Entity::find_by_id((session_id, user_id)).one(tx).await?,
        false => None,
    };
    let existing_seat = match existing_seat {
        Some(seat) => seat,
        None => {
            let row = session_players::ActiveModel {
                session_id: Set(session_id),
                user_id: Set(user_id),
                character_id: Set(character_id),
                ..Default::default()
            };
            let key = [session_players::Column::SessionId, session_players::Column::UserId];
            if let Some(seat) = rows::insert_if_absent(tx, row, key, ExistenceCheck::ByConflict).await? {
                return Ok(seat);
            }
            // A concurrent request for the same user took the seat.
            find_seat(tx, session_id, user_id).await?
        }
    };
    if existing_seat.is_active && existing_seat.character_id == character_id {
        return Ok(existing_seat);
    }
    let row =
        session_players::ActiveModel { is_active: Set(true), character_id: Set(character_id), ..Default::default() };
    update_seat(tx, session_id, user_id, row).await
}
