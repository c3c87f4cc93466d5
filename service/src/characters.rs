//! The characters of the players.
//!
//! ```
//! use entity::sea_orm_active_enums::CharacterClass;
//! use service::{Operations, Sparc, characters::NewCharacter};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(demo.url()).await?;
//! # let user_id = demo.player;
//! let ada = sparc.as_user(user_id);
//! let new_character = NewCharacter { name: "Brunhild".into(), class: CharacterClass::Warrior, ..Default::default() };
//! let brunhild = ada.characters().create(new_character).await?; // with a warrior's default attributes
//! let hit_points = ada.characters().damage(brunhild.id, 2).await?;
//! println!("{} of {} hit points", hit_points.hit_points, hit_points.max_hit_points);
//! # Ok(())
//! # }
//! ```

mod progression;
mod sheet;

use entity::{
    characters,
    sea_orm_active_enums::{CharacterClass, SessionStatus},
    session_players, sessions,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect,
    prelude::DateTimeWithTimeZone, sea_query::Expr,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use progression::HitPoints;
pub use sheet::{Attributes, Item, SpecialAbility, primary_attribute};

use crate::{Error, Executor, connection::OperationTransaction, json, operation::operation, rows};

/// A character to create.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewCharacter {
    /// Id of the character; random if absent. Repeating the request with the same id returns the existing character.
    pub id: Option<Uuid>,
    /// Name, 2 to 50 characters, unique within the account.
    pub name: String,
    /// Class. Warrior by default.
    #[serde(default = "NewCharacter::default_class")]
    pub class: CharacterClass,
    /// Attributes. The defaults of the class if absent ([`Attributes::default_for`]).
    pub attributes: Option<Attributes>,
    /// Items that the character carries.
    #[serde(default)]
    pub equipment: Vec<Item>,
    /// Special ability.
    #[serde(default)]
    pub special_ability: SpecialAbility,
}

impl Default for NewCharacter {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            class: CharacterClass::Warrior,
            attributes: None,
            equipment: Vec::new(),
            special_ability: SpecialAbility::default(),
        }
    }
}

impl NewCharacter {
    /// Default for a JSON document that omits the field.
    fn default_class() -> CharacterClass {
        Self::default().class
    }
}

/// A seat that a character holds or has held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct CharacterSeat {
    /// Character.
    pub character_id: Uuid,
    /// Session.
    pub session_id: Uuid,
    /// Status of the session.
    pub session_status: SessionStatus,
    /// Seer of the session.
    pub seer_id: Uuid,
    /// Adventure of the session.
    pub adventure_id: Uuid,
    /// Whether the seat is currently held.
    pub is_active: bool,
    /// When the seat was first taken.
    pub joined_at: DateTimeWithTimeZone,
}

/// Operations on characters: [`Operations::characters`](crate::Operations::characters).
#[derive(Debug)]
pub struct Characters<'a, C> {
    pub(crate) executor: &'a C,
}

impl<C: Executor> Characters<'_, C> {
    /// Creates a character for the caller. Repeating the request with the same id returns the existing character.
    ///
    /// Who may: a user. Three round trips, or four if the request is repeated. No event.
    ///
    /// # Errors
    ///
    /// [`Error::CharacterLimitReached`] with ten characters that are not retired, [`Error::CharacterNameTaken`],
    /// [`Error::IdConflict`], [`Error::InvalidValue`] for the name, the equipment or the special ability,
    /// [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn create(self, character: NewCharacter) -> Result<characters::Model, Error> {
        let id = character.id.unwrap_or_else(Uuid::new_v4);
        let attributes = character.attributes.unwrap_or(Attributes::default_for(character.class));
        let equipment = json::to_json(&character.equipment)?;
        let special_ability = json::to_json(&character.special_ability)?;
        operation!(self.executor, "characters.create", character = id, |tx| {
            let user_id = tx.user_id()?;
            let build_row = || characters::ActiveModel {
                id: Set(id),
                user_id: Set(user_id),
                name: Set(character.name.clone()),
                class: Set(character.class),
                might: Set(attributes.might.get()),
                grace: Set(attributes.grace.get()),
                wit: Set(attributes.wit.get()),
                heart: Set(attributes.heart.get()),
                equipment: Set(equipment.clone()),
                special_ability: Set(special_ability.clone()),
                ..Default::default()
            };
            rows::insert_or_get(tx, build_row, characters::Column::Id, "character", rows::RepeatCheck::ByDigest).await
        })
    }

    /// Returns the caller's living characters (those that are not retired), the most recently played first.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn living(self) -> Result<Vec<characters::Model>, Error> {
        operation!(self.executor, reads "characters.living", |tx| {
            Ok(characters::Entity::find()
                .filter(characters::Column::UserId.eq(tx.user_id()?))
                .filter(characters::Column::RetiredAt.is_null())
                .order_by_with_nulls(
                    characters::Column::LastPlayedAt,
                    sea_orm::Order::Desc,
                    sea_orm::sea_query::NullOrdering::Last,
                )
                .order_by_asc(characters::Column::Name)
                .all(tx)
                .await?)
        })
    }

    /// Returns the caller's retired characters, the most recently retired first.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn retired(self) -> Result<Vec<characters::Model>, Error> {
        operation!(self.executor, reads "characters.retired", |tx| {
            Ok(characters::Entity::find()
                .filter(characters::Column::UserId.eq(tx.user_id()?))
                .filter(characters::Column::RetiredAt.is_not_null())
                .order_by_desc(characters::Column::RetiredAt)
                .order_by_asc(characters::Column::Name)
                .all(tx)
                .await?)
        })
    }

    /// Returns a character.
    ///
    /// Who may: its owner and the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], also for another user's character; [`Error::NotSignedIn`].
    pub async fn get(self, id: Uuid) -> Result<characters::Model, Error> {
        operation!(self.executor, reads "characters.get", character = id, |tx| {
            rows::require::<characters::Entity>(tx, id, "character").await
        })
    }

    /// Returns the seats that a character holds or has held in sessions that are not archived, the most recently joined
    /// first. A seat for which the player has since chosen another character is left out. So are seats in sessions that
    /// the caller cannot see, such as a player's own seat in a private session from which the Seer removed them.
    ///
    /// Who may: its owner and the service, and other users for the sessions that they can see. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn seats(self, id: Uuid) -> Result<Vec<CharacterSeat>, Error> {
        operation!(self.executor, reads "characters.seats", character = id, |tx| {
            Ok(session_players::Entity::find()
                .inner_join(sessions::Entity)
                .filter(session_players::Column::CharacterId.eq(id))
                .order_by_desc(session_players::Column::JoinedAt)
                .order_by_asc(session_players::Column::SessionId)
                .select_only()
                .columns([
                    session_players::Column::CharacterId,
                    session_players::Column::SessionId,
                    session_players::Column::IsActive,
                    session_players::Column::JoinedAt,
                ])
                .column_as(sessions::Column::Status, "session_status")
                .columns([sessions::Column::SeerId, sessions::Column::AdventureId])
                .into_model()
                .all(tx)
                .await?)
        })
    }

    /// Renames a character.
    ///
    /// Who may: its owner and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::CharacterNameTaken`], [`Error::InvalidValue`], [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn rename(self, id: Uuid, name: &str) -> Result<characters::Model, Error> {
        operation!(self.executor, "characters.rename", character = id, |tx| {
            update_character(tx, id, characters::ActiveModel { name: Set(name.to_owned()), ..Default::default() }).await
        })
    }

    /// Replaces a character's equipment.
    ///
    /// Who may: its owner and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] for equipment above 64 KiB and for text that contains NUL, [`Error::NotFound`],
    /// [`Error::NotSignedIn`].
    pub async fn set_equipment(self, id: Uuid, equipment: &[Item]) -> Result<characters::Model, Error> {
        let equipment = json::to_json(&equipment)?;
        operation!(self.executor, "characters.set_equipment", character = id, |tx| {
            let row = characters::ActiveModel { equipment: Set(equipment.clone()), ..Default::default() };
            update_character(tx, id, row).await
        })
    }

    /// Replaces a character's special ability.
    ///
    /// Who may: its owner and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] for an ability above 16 KiB and for text that contains NUL, [`Error::NotFound`],
    /// [`Error::NotSignedIn`].
    pub async fn set_special_ability(self, id: Uuid, ability: &SpecialAbility) -> Result<characters::Model, Error> {
        let ability = json::to_json(ability)?;
        operation!(self.executor, "characters.set_special_ability", character = id, |tx| {
            let row = characters::ActiveModel { special_ability: Set(ability.clone()), ..Default::default() };
            update_character(tx, id, row).await
        })
    }

    /// Retires a character: it keeps its history, takes no seats and does not count towards the limit of ten living
    /// characters. An account can have a hundred retired ones. Idempotent.
    ///
    /// Who may: its owner and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::CharacterSeated`] while it has a seat in a live session, [`Error::RetiredLimitReached`] with a hundred
    /// retired characters, [`Error::NotFound`], [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn retire(self, id: Uuid) -> Result<characters::Model, Error> {
        operation!(self.executor, "characters.retire", character = id, |tx| { set_retired_at(tx, id, "now()").await })
    }

    /// Brings a retired character back into play. Idempotent.
    ///
    /// Who may: its owner and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::CharacterLimitReached`] with ten characters that are not retired, [`Error::NotFound`],
    /// [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn unretire(self, id: Uuid) -> Result<characters::Model, Error> {
        operation!(self.executor, "characters.unretire", character = id, |tx| { set_retired_at(tx, id, "NULL").await })
    }

    /// Deletes a character that has never been played.
    ///
    /// Who may: its owner and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::StillReferenced`] if it has rolled, or is the character of a seat, even one that its player has left
    /// (retire it instead); [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn delete(self, id: Uuid) -> Result<(), Error> {
        operation!(self.executor, "characters.delete", character = id, |tx| {
            let deleted = characters::Entity::delete_by_id(id).exec(tx).await?;
            if deleted.rows_affected == 0 { Err(Error::NotFound { what: "character" }) } else { Ok(()) }
        })
    }
}

/// Updates a character. The error is `NotFound` if there is none or the caller may not update it.
async fn update_character(
    tx: &OperationTransaction,
    id: Uuid,
    row: characters::ActiveModel,
) -> Result<characters::Model, Error> {
    rows::update_returning(tx, row, id, characters::Column::Id).await?.ok_or(Error::NotFound { what: "character" })
}

/// Sets `retired_at` to the SQL expression `now()` or `NULL`. If the character is already retired, `now()` does not
/// change `retired_at`, because a trigger keeps the earlier time.
async fn set_retired_at(
    tx: &OperationTransaction,
    id: Uuid,
    sql_expression: &'static str,
) -> Result<characters::Model, Error> {
    characters::Entity::update_many()
        .col_expr(characters::Column::RetiredAt, Expr::cust(sql_expression))
        .filter(characters::Column::Id.eq(id))
        .exec_with_returning(tx)
        .await?
        .pop()
        .ok_or(Error::NotFound { what: "character" })
}
