//! An adventure to create, and changes to one.

use entity::sea_orm_active_enums::DifficultyLevel;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::AdventureContent;

/// An adventure to create, as a draft.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewAdventure {
    /// Id of the adventure; random if absent. Repeating the request with the same id returns the existing adventure.
    pub id: Option<Uuid>,
    /// Name, 3 to 100 characters.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// Difficulty. Medium by default.
    #[serde(default = "NewAdventure::default_difficulty")]
    pub difficulty: DifficultyLevel,
    /// Estimated duration in minutes, 1 or more. 60 by default.
    #[serde(default = "NewAdventure::default_duration")]
    pub estimated_duration: i32,
    /// Minimum number of players, 1 to 6. Two by default.
    #[serde(default = "NewAdventure::default_min_players")]
    pub min_players: i32,
    /// Maximum number of players, 1 to 6. Four by default.
    #[serde(default = "NewAdventure::default_max_players")]
    pub max_players: i32,
    /// http(s) URL or path of the thumbnail.
    pub thumbnail_url: Option<String>,
    /// http(s) URL or path of the artwork.
    pub artwork_url: Option<String>,
    /// Content of the adventure.
    #[serde(default)]
    pub content: AdventureContent,
}

impl Default for NewAdventure {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            description: None,
            thumbnail_url: None,
            artwork_url: None,
            difficulty: DifficultyLevel::Medium,
            estimated_duration: 60,
            min_players: 2,
            max_players: 4,
            content: AdventureContent::default(),
        }
    }
}

/// Defaults of fields that a JSON document omits.
impl NewAdventure {
    fn default_difficulty() -> DifficultyLevel {
        Self::default().difficulty
    }

    fn default_duration() -> i32 {
        Self::default().estimated_duration
    }

    fn default_min_players() -> i32 {
        Self::default().min_players
    }

    fn default_max_players() -> i32 {
        Self::default().max_players
    }
}

/// Changes to an adventure, except to its content. `None` leaves a field unchanged; `Some(None)` clears it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AdventureChanges {
    /// Name, 3 to 100 characters.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Description.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub description: Option<Option<String>>,
    /// http(s) URL or path of the thumbnail.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub thumbnail_url: Option<Option<String>>,
    /// http(s) URL or path of the artwork.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub artwork_url: Option<Option<String>>,
    /// Difficulty.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<DifficultyLevel>,
    /// Estimated duration in minutes, 1 or more.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub estimated_duration: Option<i32>,
    /// Minimum number of players, 1 to 6.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub min_players: Option<i32>,
    /// Maximum number of players, 1 to 6.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub max_players: Option<i32>,
}
