//! A character's sheet: attributes, and what stands on it as documents.

use entity::sea_orm_active_enums::{Attribute, CharacterClass};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{AttributeValue, Error};

/// The four attributes of a character: how many dice a check on each rolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Item {
    /// What it is called.
    pub name: String,
    /// Whatever else the client keeps of it; kept as it is.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What only this character can do: `characters.special_ability`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

#[cfg(test)]
mod tests {
    use super::{Attributes, primary_attribute};
    use crate::AttributeValue;
    use entity::sea_orm_active_enums::{Attribute, CharacterClass};
    use sea_orm::Iterable;

    #[test]
    fn sheets_are_those_of_the_game() {
        let of = |class| {
            let sheet = Attributes::usual(class);
            [sheet.might, sheet.grace, sheet.wit, sheet.heart].map(AttributeValue::get)
        };
        assert_eq!(of(CharacterClass::Warrior), [5, 3, 2, 2]);
        assert_eq!(of(CharacterClass::Rogue), [2, 5, 3, 2]);
        assert_eq!(of(CharacterClass::Wizard), [1, 2, 5, 4]);
        assert_eq!(of(CharacterClass::Cleric), [2, 2, 3, 5]);
        assert_eq!(of(CharacterClass::Paladin), [4, 2, 2, 4]);
        assert_eq!(of(CharacterClass::Ranger), [3, 4, 3, 2]);
        assert_eq!(of(CharacterClass::Necromancer), [1, 2, 5, 4]);
    }

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
