//! The input of a roll: the character or creature that rolls, the attribute, the difficulty and the modifiers.

use entity::sea_orm_active_enums::{Attribute, RollType};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Difficulty;

/// The character or creature that rolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Roller {
    /// A character; its player or the Seer rolls.
    Character(Uuid),
    /// A creature; the Seer rolls.
    Creature(Uuid),
}

/// A modifier of a roll, visible to all participants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Modifier {
    /// What the modifier changes: the number of dice, or the total.
    #[serde(rename = "type")]
    pub kind: ModifierKind,
    /// Amount: -5 to 5 for the number of dice, -10 to 10 for the total.
    pub value: i32,
    /// The source of the modifier, for display: at most 100 characters, at least one of them visible.
    pub source: String,
}

/// What a modifier changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ModifierKind {
    /// The number of dice.
    Dice,
    /// The total.
    Flat,
}

crate::values::impl_text_conversions!(ModifierKind, "type", { Dice = "dice", Flat = "flat" }, "must be dice or flat");

impl Modifier {
    /// Creates a modifier of the number of dice.
    #[must_use]
    pub fn dice(value: i32, source: &str) -> Self {
        Self { kind: ModifierKind::Dice, value, source: source.to_owned() }
    }

    /// Creates a modifier of the total.
    #[must_use]
    pub fn flat(value: i32, source: &str) -> Self {
        Self { kind: ModifierKind::Flat, value, source: source.to_owned() }
    }
}

/// A roll to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRoll {
    /// Id of the roll; random if absent. Repeating the request with the same id returns the existing roll.
    pub id: Option<Uuid>,
    /// Session.
    pub session_id: Uuid,
    /// The character or creature that rolls.
    pub roller: Roller,
    /// The attribute that gives the number of dice. Initiative is one die, whatever the attribute.
    pub attribute: Attribute,
    /// The number that the total plus the flat modifiers must reach. Whatever the difficulty, a roll succeeds if all
    /// dice show six, and fails if all dice show one.
    pub difficulty: Difficulty,
    /// Kind of roll. For a heroic save, call [`Dice::use_heroic_save`](crate::dice::Dice::use_heroic_save).
    pub kind: RollType,
    /// Modifiers, at most ten.
    #[serde(default)]
    pub modifiers: Vec<Modifier>,
    /// What the character or creature attempts.
    pub description: Option<String>,
}

impl NewRoll {
    /// Creates a roll of this kind, without modifiers.
    #[must_use]
    pub fn new(kind: RollType, session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self { id: None, session_id, roller, attribute, difficulty, kind, modifiers: Vec::new(), description: None }
    }

    /// Creates a check of an attribute against a difficulty.
    #[must_use]
    pub fn attribute_check(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::new(RollType::AttributeCheck, session_id, roller, attribute, difficulty)
    }

    /// Creates an attack roll.
    #[must_use]
    pub fn attack(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::new(RollType::Attack, session_id, roller, attribute, difficulty)
    }

    /// Creates a defense roll.
    #[must_use]
    pub fn defense(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::new(RollType::Defense, session_id, roller, attribute, difficulty)
    }

    /// Creates a damage roll.
    #[must_use]
    pub fn damage(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::new(RollType::Damage, session_id, roller, attribute, difficulty)
    }

    /// Creates a healing roll.
    #[must_use]
    pub fn healing(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::new(RollType::Healing, session_id, roller, attribute, difficulty)
    }

    /// Creates a roll for a special ability.
    #[must_use]
    pub fn ability(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::new(RollType::Ability, session_id, roller, attribute, difficulty)
    }

    /// Adds a modifier.
    #[must_use]
    pub fn with(mut self, modifier: Modifier) -> Self {
        self.modifiers.push(modifier);
        self
    }
}
