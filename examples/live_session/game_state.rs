//! Writes the game state of a session: a JSON document that all its participants can read.

use serde_json::{Value, json};
use sparc::service::{Error, IdentityConnection, Operations, characters::HitPoints, sessions::ExpectedVersion};
use uuid::Uuid;

/// Writes the hit points of a character into the game state of the session, and returns these hit points. Of the
/// participants, only the character's own player can read the character, but all can read the game state.
pub async fn write_hit_points_to_game_state(
    seer: &IdentityConnection,
    session_id: Uuid,
    hit_points: HitPoints,
) -> Result<HitPoints, Error> {
    let current_and_maximum = json!([hit_points.hit_points, hit_points.max_hit_points]);
    let character_id = hit_points.character_id.to_string();
    change_game_state(seer, session_id, |state| state["hit_points"][character_id] = current_and_maximum).await?;
    Ok(hit_points)
}

/// Reads the game state, changes it with `change`, and writes it back. Fails if another writer has changed it in
/// between.
pub async fn change_game_state(
    seer: &IdentityConnection,
    session_id: Uuid,
    change: impl FnOnce(&mut Value),
) -> Result<(), Error> {
    let session = seer.sessions().get(session_id).await?;
    let mut state = session.game_state;
    change(&mut state);
    seer.sessions().set_game_state(session_id, state, ExpectedVersion::Version(session.game_state_version)).await?;
    Ok(())
}
