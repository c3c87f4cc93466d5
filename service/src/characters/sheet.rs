//! A character's sheet: its attributes, and the types of its JSON columns.

use entity::sea_orm_active_enums::{Attribute, CharacterClass};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{AttributeValue, Error};

/// The four attributes of a character, each from 1 to 6. A check of an attribute rolls as many dice as the attribute's
/// value; modifiers may add dice or take some away.
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
    /// Creates attributes from numbers.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] unless each number is 1 to 6.
    pub fn new(might: i32, grace: i32, wit: i32, heart: i32) -> Result<Self, Error> {
        Ok(Self {
            might: AttributeValue::new(might)?,
            grace: AttributeValue::new(grace)?,
            wit: AttributeValue::new(wit)?,
            heart: AttributeValue::new(heart)?,
        })
    }

    const fn new_unchecked(might: i32, grace: i32, wit: i32, heart: i32) -> Self {
        Self {
            might: AttributeValue::new_unchecked(might),
            grace: AttributeValue::new_unchecked(grace),
            wit: AttributeValue::new_unchecked(wit),
            heart: AttributeValue::new_unchecked(heart),
        }
    }

    /// Returns the default attributes of a class (`docs/decisions.md`, "Game rules").
    #[must_use]
    pub const fn default_for(class: CharacterClass) -> Self {
        match class {
            CharacterClass::Warrior => Self::new_unchecked(5, 3, 2, 2),
            CharacterClass::Rogue => Self::new_unchecked(2, 5, 3, 2),
            CharacterClass::Wizard | CharacterClass::Necromancer => Self::new_unchecked(1, 2, 5, 4),
            CharacterClass::Cleric => Self::new_unchecked(2, 2, 3, 5),
            CharacterClass::Paladin => Self::new_unchecked(4, 2, 2, 4),
            CharacterClass::Ranger => Self::new_unchecked(3, 4, 3, 2),
        }
    }
}

/// Returns the primary attribute of a class (`docs/decisions.md`, "Game rules"). None of the class's default attributes
/// is higher.
#[must_use]
pub const fn primary_attribute(class: CharacterClass) -> Attribute {
    match class {
        CharacterClass::Warrior | CharacterClass::Paladin => Attribute::Might,
        CharacterClass::Rogue | CharacterClass::Ranger => Attribute::Grace,
        CharacterClass::Wizard | CharacterClass::Necromancer => Attribute::Wit,
        CharacterClass::Cleric => Attribute::Heart,
    }
}

/// An item that a character carries: one element of `characters.equipment`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Item {
    /// Name.
    pub name: String,
    /// Further fields, stored unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A character's special ability: `characters.special_ability`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SpecialAbility {
    /// Name.
    pub name: String,
    /// Description of its effect.
    #[serde(default)]
    pub description: String,
    /// Further fields, stored unchanged.
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
    fn each_class_has_its_default_attributes() {
        let values_of = |class| {
            let Attributes { might, grace, wit, heart } = Attributes::default_for(class);
            [might, grace, wit, heart].map(AttributeValue::get)
        };
        assert_eq!(values_of(CharacterClass::Warrior), [5, 3, 2, 2]);
        assert_eq!(values_of(CharacterClass::Rogue), [2, 5, 3, 2]);
        assert_eq!(values_of(CharacterClass::Wizard), [1, 2, 5, 4]);
        assert_eq!(values_of(CharacterClass::Cleric), [2, 2, 3, 5]);
        assert_eq!(values_of(CharacterClass::Paladin), [4, 2, 2, 4]);
        assert_eq!(values_of(CharacterClass::Ranger), [3, 4, 3, 2]);
        assert_eq!(values_of(CharacterClass::Necromancer), [1, 2, 5, 4]);
    }

    #[test]
    fn default_attributes_are_valid_and_none_is_higher_than_the_primary_attribute() {
        for class in CharacterClass::iter() {
            let Attributes { might, grace, wit, heart } = Attributes::default_for(class);
            let primary = match primary_attribute(class) {
                Attribute::Might => might,
                Attribute::Grace => grace,
                Attribute::Wit => wit,
                Attribute::Heart => heart,
            };
            let values = [might, grace, wit, heart];
            assert_eq!(values.iter().max(), Some(&primary), "{class:?}");
            for value in values {
                assert!(AttributeValue::new(value.get()).is_ok(), "{class:?}");
            }
        }
    }
}
