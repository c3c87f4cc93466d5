//! A session with its participants and its adventure.

use entity::{
    sea_orm_active_enums::{AdventureStatus, CharacterClass, DifficultyLevel},
    sessions,
};
use sea_orm::{DbBackend, Statement, prelude::DateTimeWithTimeZone};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Sessions;
use crate::{
    Error, Executor,
    adventures::AdventureContent,
    json::{decode_json_cell, decode_optional_json_cell},
    operation::operation,
    rows,
};

/// A session with its participants and its adventure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SessionDetails {
    /// The session.
    pub session: sessions::Model,
    /// Display name of the Seer.
    pub seer_name: String,
    /// Everyone who has or has had a seat, in the order of joining. Empty for a visitor, who has not signed in.
    pub players: Vec<SessionPlayer>,
    /// The adventure. `None` if the session has ended and the caller may not read the adventure, because it is somebody
    /// else's and not published.
    pub adventure: Option<SessionAdventure>,
}

/// Somebody who has or has had a seat in a session. Every signed-in user who can see the session can see these fields.
/// Serialized in snake case; deserialization also accepts the camel-case names that the game's specification prescribes
/// for the result of the database function `get_session_details`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SessionPlayer {
    /// Id of the player's account.
    #[serde(alias = "userId")]
    pub user_id: Uuid,
    /// Display name of the player.
    #[serde(alias = "displayName")]
    pub display_name: String,
    /// URL of the player's avatar.
    #[serde(alias = "avatarUrl")]
    pub avatar_url: Option<String>,
    /// Id of the character.
    #[serde(alias = "characterId")]
    pub character_id: Uuid,
    /// Name of the character.
    #[serde(alias = "characterName")]
    pub character_name: String,
    /// Class of the character.
    #[serde(alias = "characterClass")]
    pub character_class: CharacterClass,
    /// When the seat was first taken.
    #[serde(alias = "joinedAt")]
    pub joined_at: DateTimeWithTimeZone,
    /// Whether the player holds the seat now.
    #[serde(alias = "isActive")]
    pub is_active: bool,
}

/// The adventure of a session. Description and content are included for callers who may read the adventure and, until
/// the session ends, also for the Seer and seated players.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SessionAdventure {
    /// Id of the adventure.
    pub id: Uuid,
    /// Id of the account that created it.
    pub creator_id: Uuid,
    /// Name.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// URL of the thumbnail.
    pub thumbnail_url: Option<String>,
    /// Difficulty.
    pub difficulty: DifficultyLevel,
    /// Estimated duration in minutes.
    pub estimated_duration: i32,
    /// Status: draft, published or archived.
    pub status: AdventureStatus,
    /// Content. `None` if it is not included for the caller, or does not have the shape of [`AdventureContent`] (a
    /// draft may have any content).
    #[serde(default, deserialize_with = "deserialize_content_if_well_formed")]
    pub content: Option<AdventureContent>,
}

/// Deserializes the content, or returns `None` if it does not have the shape of [`AdventureContent`]. The author's
/// client may have stored any JSON in a draft. Even then, players must be able to read the session.
fn deserialize_content_if_well_formed<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<AdventureContent>, D::Error> {
    let document = Option::<Value>::deserialize(deserializer)?;
    Ok(document.and_then(|document| serde_json::from_value(document).ok()))
}

/// `get_session_details`, which the game's specification defines, does not return the Seer's name. A subquery reads the
/// name. With a join, the planner, which expects a thousand rows from the function, would read all users.
const SELECT_DETAILS: &str = "SELECT session_data, players, adventure_data,
        (SELECT display_name FROM public.users WHERE id = (session_data ->> 'seer_id')::uuid) AS seer_name
    FROM public.get_session_details($1)";

impl<C: Executor> Sessions<'_, C> {
    /// Returns a session with its participants and its adventure.
    ///
    /// Who may: everyone if it is public; otherwise its participants and the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn details(self, id: Uuid) -> Result<SessionDetails, Error> {
        operation!(self.executor, reads "sessions.details", session = id, |tx| {
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, SELECT_DETAILS, [id.into()]);
            let rows = tx.fetch_all(statement).await?;
            let row = rows.first().ok_or(Error::NotFound { what: "session" })?;
            Ok(SessionDetails {
                session: decode_json_cell(row, "session_data", "session")?,
                seer_name: rows::decode_cell(row, "seer_name")?,
                players: decode_json_cell(row, "players", "players")?,
                adventure: decode_optional_json_cell(row, "adventure_data", "adventure")?,
            })
        })
    }
}
