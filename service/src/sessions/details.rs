//! A session with all that a client shows of it.

use entity::{
    sea_orm_active_enums::{AdventureStatus, CharacterClass, DifficultyLevel},
    sessions,
};
use sea_orm::{DbBackend, FromQueryResult, Statement, prelude::DateTimeWithTimeZone};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Sessions;
use crate::{Caller, Error, adventures::AdventureContent, json::from_json, operation::operation};

/// A session, who sits there, and what is played.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SessionDetails {
    /// The session.
    pub session: sessions::Model,
    /// Everyone who has or had a seat, the first to come first; nobody, for a visitor.
    pub players: Vec<Participant>,
    /// What is played.
    pub adventure: SessionAdventure,
}

/// A participant, as the others in the session see them. Written in snake case; the names that the specification gives
/// `get_session_details` are read, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Participant {
    /// Account.
    #[serde(alias = "userId")]
    pub user_id: Uuid,
    /// Name of the player.
    #[serde(alias = "displayName")]
    pub display_name: String,
    /// Picture of the player.
    #[serde(alias = "avatarUrl")]
    pub avatar_url: Option<String>,
    /// Character.
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
    /// Whether the seat is held now.
    #[serde(alias = "isActive")]
    pub is_active: bool,
}

/// What a session plays. The content is there for those who may read the adventure or sit at the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SessionAdventure {
    /// Adventure.
    pub id: Uuid,
    /// Who made it.
    pub creator_id: Uuid,
    /// Name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// Small picture.
    pub thumbnail_url: Option<String>,
    /// How hard.
    pub difficulty: DifficultyLevel,
    /// Minutes.
    pub estimated_duration: i32,
    /// Draft, published or archived.
    pub status: AdventureStatus,
    /// The story; none also where a draft holds something else.
    #[serde(default, deserialize_with = "story")]
    pub content: Option<AdventureContent>,
}

/// A draft may hold anything that its author's client put there: no reason to keep the table from its players.
fn story<'de, D: Deserializer<'de>>(document: D) -> Result<Option<AdventureContent>, D::Error> {
    let document = Option::<Value>::deserialize(document)?;
    Ok(document.and_then(|document| serde_json::from_value(document).ok()))
}

const DETAILS: &str = "SELECT session_data, players, adventure_data FROM public.get_session_details($1)";

impl<C: Caller> Sessions<'_, C> {
    /// A session with its table and its adventure.
    ///
    /// Who may: everybody where it is public, else those at its table. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn details(self, id: Uuid) -> Result<SessionDetails, Error> {
        #[derive(FromQueryResult)]
        struct Row {
            session_data: Value,
            players: Value,
            adventure_data: Value,
        }
        operation!(self.caller, reads "sessions.details", session = id, |tx| {
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, DETAILS, [id.into()]);
            let row = Row::find_by_statement(statement).one(tx).await?.ok_or(Error::NotFound { what: "session" })?;
            Ok(SessionDetails {
                session: from_json(row.session_data, "session")?,
                players: from_json(row.players, "players")?,
                adventure: from_json(row.adventure_data, "adventure")?,
            })
        })
    }
}
