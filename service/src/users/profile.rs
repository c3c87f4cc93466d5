//! The profile of an account.

use entity::users;
use sea_orm::{DerivePartialModel, prelude::DateTimeWithTimeZone};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The columns of `users` that everybody may read. Not among them are the e-mail address, `account_id`, `closed_at`,
/// and the counters with which the database enforces limits, such as `live_seats` (`docs/decisions.md`, "Privacy and
/// server-owned columns").
///
/// Users have no privilege to read the other columns, so `users::Entity::find()`, which selects all columns, fails for
/// them. Use this partial model instead: `users::Entity::find().into_partial_model::<Profile>()`.
#[derive(Clone, Debug, PartialEq, Eq, DerivePartialModel, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[sea_orm(entity = "users::Entity")]
#[non_exhaustive]
pub struct Profile {
    /// Id of the profile: that of the account, even after the account has been deleted. (`account_id` is NULL then.)
    pub id: Uuid,
    /// Display name.
    pub display_name: String,
    /// http(s) URL or path of the avatar.
    pub avatar_url: Option<String>,
    /// Short text about the user.
    pub bio: Option<String>,
    /// Whether the account has the verification badge.
    pub is_verified: bool,
    /// Number of completed sessions in which the user had a seat. (A Seer may take a seat in their own session. A
    /// session in which nobody else had a seat does not count.)
    pub games_played: i32,
    /// Number of completed sessions that the user ran. A session without a player besides the Seer does not count.
    pub games_run: i32,
    /// When the account was created.
    pub created_at: DateTimeWithTimeZone,
    /// When the profile was last edited. A change of `games_played` or `games_run` is not an edit.
    pub updated_at: DateTimeWithTimeZone,
}

impl From<users::Model> for Profile {
    fn from(user: users::Model) -> Self {
        Self {
            id: user.id,
            display_name: user.display_name,
            avatar_url: user.avatar_url,
            bio: user.bio,
            is_verified: user.is_verified,
            games_played: user.games_played,
            games_run: user.games_run,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// Changes to the caller's profile. `None` leaves a field unchanged; `Some(None)` clears it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ProfileChanges {
    /// Display name.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// http(s) URL or path of the avatar.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<Option<String>>,
    /// Short text about the user.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub bio: Option<Option<String>>,
}

/// The verification badge of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Badge {
    /// The account is verified.
    Verified,
    /// The account is not verified.
    None,
}

crate::values::impl_text_conversions!(
    Badge,
    "badge",
    { Verified = "verified", None = "none" },
    "must be verified or none"
);
