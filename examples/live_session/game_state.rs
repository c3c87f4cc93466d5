//! Writes the game state of a session: a JSON document that all its participants can read.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect, TransactionTrait};
use serde_json::{Value, json};
use sparc::entity::{session_players, sessions};
use sparc::service::{
    Error, IdentityConnection, Operations, Transaction, characters::HitPoints, sessions::ExpectedVersion,
};
use uuid::Uuid;

/// Damages a character that has a seat in the session, or heals it if `damage` is negative. Returns its hit points, and
/// writes them into the game state. If one of the two writes is refused, neither has an effect.
pub async fn damage_or_heal(
    seer: &IdentityConnection,
    session_id: Uuid,
    character_id: Uuid,
    damage: i8,
) -> Result<HitPoints, Error> {
    let tx = seer.begin().await?;
    let session = lock_session(&tx, session_id).await?;
    // Without this check, a Seer could damage a character that is seated only in another of the Seer's sessions, or the
    // Seer's own character.
    session_players::Entity::find()
        .filter(session_players::Column::SessionId.eq(session_id))
        .filter(session_players::Column::CharacterId.eq(character_id))
        .filter(session_players::Column::IsActive.eq(true))
        .one(&tx)
        .await?
        .ok_or(Error::NotFound { what: "seat" })?;
    let (characters, amount) = (tx.characters(), damage.unsigned_abs());
    let hit_points = match damage {
        ..0 => characters.heal(character_id, amount).await?,
        0.. => characters.damage(character_id, amount).await?,
    };
    write_state(&tx, session, |state| set_hit_points(state, hit_points)).await?;
    tx.commit().await?;
    Ok(hit_points)
}

/// Writes the hit points of a character into the state. Of the participants, only the character's own player can read
/// the character, but all can read the game state. The Seer can store any JSON value as the state, so if the state or
/// its member `hit_points` is not an object, an object replaces it.
pub fn set_hit_points(state: &mut Value, hit_points: HitPoints) {
    let current_and_maximum = json!([hit_points.hit_points, hit_points.max_hit_points]);
    let state = object_or_replace(state);
    let all_hit_points = object_or_replace(state.entry("hit_points").or_insert(Value::Null));
    all_hit_points.insert(hit_points.character_id.to_string(), current_and_maximum);
}

/// Returns the value as an object, after replacing it by an empty one if it is not an object.
fn object_or_replace(value: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("the value is an object")
}

/// Reads the game state, changes it with `change`, and writes it back.
pub async fn change_game_state(
    seer: &IdentityConnection,
    session_id: Uuid,
    change: impl FnOnce(&mut Value),
) -> Result<(), Error> {
    let tx = seer.begin().await?;
    let session = lock_session(&tx, session_id).await?;
    write_state(&tx, session, change).await?;
    Ok(tx.commit().await?)
}

/// Reads a session and locks it until the end of the transaction, so that concurrent changes wait. Refuses everyone but
/// the session's Seer: row-level security lets nobody else change the session, and therefore nobody else lock it.
async fn lock_session(tx: &Transaction, session_id: Uuid) -> Result<sessions::Model, Error> {
    match sessions::Entity::find_by_id(session_id).lock_exclusive().one(tx).await? {
        Some(session) => Ok(session),
        None => {
            // `NotFound`, if the caller cannot read the session either.
            tx.sessions().get(session_id).await?;
            Err(Error::NotSessionSeer)
        }
    }
}

/// Changes the game state of a session that the transaction has locked.
async fn write_state(tx: &Transaction, session: sessions::Model, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
    let mut state = session.game_state;
    change(&mut state);
    tx.sessions().set_game_state(session.id, state, ExpectedVersion::Any).await?;
    Ok(())
}
