//! Characters: whom the players play.

use entity::{
    characters,
    sea_orm_active_enums::{Attribute, CharacterClass},
};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, sea_query::Expr};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{AttributeValue, Caller, Error, create, documents, operation::operation};

/// The four attributes of a character: how many dice a check on each rolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Strength and force.
    pub might: AttributeValue,
    /// Speed and skill.
    pub grace: AttributeValue,
    /// Knowledge and sense.
    pub wit: AttributeValue,
    /// Courage and will.
    pub heart: AttributeValue,
}

impl Attributes {
    /// Attributes from numbers.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] unless each is 1 to 6.
    pub fn new(might: i32, grace: i32, wit: i32, heart: i32) -> Result<Self, Error> {
        Ok(Self {
            might: AttributeValue::new(might)?,
            grace: AttributeValue::new(grace)?,
            wit: AttributeValue::new(wit)?,
            heart: AttributeValue::new(heart)?,
        })
    }

    const fn known(might: i32, grace: i32, wit: i32, heart: i32) -> Self {
        Self {
            might: AttributeValue::known(might),
            grace: AttributeValue::known(grace),
            wit: AttributeValue::known(wit),
            heart: AttributeValue::known(heart),
        }
    }

    /// The usual sheet of a class (design, "Facts of the game").
    #[must_use]
    pub const fn usual(class: CharacterClass) -> Self {
        match class {
            CharacterClass::Warrior => Self::known(5, 3, 2, 2),
            CharacterClass::Rogue => Self::known(2, 5, 3, 2),
            CharacterClass::Wizard | CharacterClass::Necromancer => Self::known(1, 2, 5, 4),
            CharacterClass::Cleric => Self::known(2, 2, 3, 5),
            CharacterClass::Paladin => Self::known(4, 2, 2, 4),
            CharacterClass::Ranger => Self::known(3, 4, 3, 2),
        }
    }
}

/// The attribute that a class is best at (design, "Facts of the game").
#[must_use]
pub const fn primary_attribute(class: CharacterClass) -> Attribute {
    match class {
        CharacterClass::Warrior | CharacterClass::Paladin => Attribute::Might,
        CharacterClass::Rogue | CharacterClass::Ranger => Attribute::Grace,
        CharacterClass::Wizard | CharacterClass::Necromancer => Attribute::Wit,
        CharacterClass::Cleric => Attribute::Heart,
    }
}

/// A thing that a character carries: one element of `characters.equipment`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// What it is called.
    pub name: String,
    /// Whatever else the client keeps of it; kept as it is.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What only this character can do: `characters.special_ability`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpecialAbility {
    /// What it is called.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: String,
    /// Whatever else the client keeps of it; kept as it is.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A character to be made.
#[derive(Clone, Debug)]
pub struct NewCharacter {
    /// Id to give it; drawn where none is given. The same id again gives the first character.
    pub id: Option<Uuid>,
    /// 2 to 50 characters, its own within the account.
    pub name: String,
    /// Class. Warrior by default.
    pub class: CharacterClass,
    /// Attributes; the usual sheet of the class where none are given.
    pub attributes: Option<Attributes>,
    /// What it carries.
    pub equipment: Vec<Item>,
    /// What only it can do.
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

/// Operations on characters: [`Operations::characters`](crate::Operations::characters).
#[derive(Debug)]
pub struct Characters<'a, C> {
    pub(crate) caller: &'a C,
}

impl<C: Caller> Characters<'_, C> {
    /// Makes a character of the caller's. Twice with the same id gives the first.
    ///
    /// Who may: a user, for oneself. Four round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::CharacterLimitReached`] with ten living ones, [`Error::CharacterNameTaken`], [`Error::IdConflict`],
    /// [`Error::InvalidValue`] for the name, [`Error::NotSignedIn`], [`Error::AccountClosed`].
    pub async fn create(self, new: NewCharacter) -> Result<characters::Model, Error> {
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let attributes = new.attributes.unwrap_or(Attributes::usual(new.class));
        let equipment = documents::to_json(&new.equipment)?;
        let special_ability = documents::to_json(&new.special_ability)?;
        operation!(self.caller, "characters.create", |tx| {
            let user_id = tx.user_id().ok_or(Error::NotSignedIn)?;
            let row = characters::ActiveModel {
                id: Set(id),
                user_id: Set(user_id),
                name: Set(new.name.clone()),
                class: Set(new.class),
                might: Set(attributes.might.get()),
                grace: Set(attributes.grace.get()),
                wit: Set(attributes.wit.get()),
                heart: Set(attributes.heart.get()),
                equipment: Set(equipment.clone()),
                special_ability: Set(special_ability.clone()),
                ..Default::default()
            };
            create::once(tx, row, id, characters::Column::Id, "character", |there| {
                there.user_id == user_id && there.name == new.name && there.class == new.class
            })
            .await
        })
    }

    /// The caller's living characters, the one played last first.
    ///
    /// Who may: a user. Four round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn list(self) -> Result<Vec<characters::Model>, Error> {
        operation!(self.caller, "characters.list", |tx| {
            let user_id = tx.user_id().ok_or(Error::NotSignedIn)?;
            Ok(characters::Entity::find()
                .filter(characters::Column::UserId.eq(user_id))
                .filter(characters::Column::RetiredAt.is_null())
                .order_by_desc(characters::Column::LastPlayedAt)
                .order_by_asc(characters::Column::Name)
                .all(tx)
                .await?)
        })
    }

    /// One character.
    ///
    /// Who may: its owner. Four round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], also for somebody else's.
    pub async fn get(self, id: Uuid) -> Result<characters::Model, Error> {
        operation!(self.caller, "characters.get", |tx| {
            characters::Entity::find_by_id(id).one(tx).await?.ok_or(Error::NotFound { what: "character" })
        })
    }

    /// Sends a character to rest: its history stays, it takes no seat, and it does not count against ten. Again is no
    /// error.
    ///
    /// Who may: its owner. Four round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::CharacterSeated`] at a live table, [`Error::NotFound`].
    pub async fn retire(self, id: Uuid) -> Result<characters::Model, Error> {
        operation!(self.caller, "characters.retire", |tx| {
            characters::Entity::update_many()
                .col_expr(characters::Column::RetiredAt, Expr::cust("now()"))
                .filter(characters::Column::Id.eq(id))
                .exec_with_returning(tx)
                .await?
                .pop()
                .ok_or(Error::NotFound { what: "character" })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{AttributeValue, Attributes, primary_attribute};
    use entity::sea_orm_active_enums::{Attribute, CharacterClass};
    use sea_orm::Iterable;

    #[test]
    fn every_class_is_best_at_its_primary_attribute() {
        for class in CharacterClass::iter() {
            let sheet = Attributes::usual(class);
            let values = [sheet.might, sheet.grace, sheet.wit, sheet.heart];
            let primary = match primary_attribute(class) {
                Attribute::Might => sheet.might,
                Attribute::Grace => sheet.grace,
                Attribute::Wit => sheet.wit,
                Attribute::Heart => sheet.heart,
            };
            assert_eq!(values.iter().max(), Some(&primary), "{class:?}");
            for value in values {
                assert!(AttributeValue::new(value.get()).is_ok(), "{class:?}");
            }
        }
    }
}
