//! What is rolled, and by whom.

use entity::sea_orm_active_enums::{Attribute, RollType};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Difficulty;

/// Who rolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Roller {
    /// A character, by its player or the Seer.
    Character(Uuid),
    /// A creature, by the Seer.
    Creature(Uuid),
}

/// A change to a roll that everyone at the table sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Modifier {
    /// Dice, or points.
    #[serde(rename = "type")]
    pub kind: ModifierKind,
    /// -5 to 5 dice, -10 to 10 points.
    pub value: i32,
    /// Where it comes from.
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

crate::values::named!(ModifierKind, "type", { Dice = "dice", Flat = "flat" }, "must be dice or flat");

impl Modifier {
    /// So many dice more, or fewer.
    #[must_use]
    pub fn dice(value: i32, source: &str) -> Self {
        Self { kind: ModifierKind::Dice, value, source: source.to_owned() }
    }

    /// So many points more, or fewer.
    #[must_use]
    pub fn flat(value: i32, source: &str) -> Self {
        Self { kind: ModifierKind::Flat, value, source: source.to_owned() }
    }
}

/// A roll to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewRoll {
    /// Id to give it; drawn where none is given. The same id again gives the first roll.
    pub id: Option<Uuid>,
    /// Table.
    pub session_id: Uuid,
    /// Who rolls.
    pub roller: Roller,
    /// Whose dice are counted.
    pub attribute: Attribute,
    /// What the modified total must reach.
    pub difficulty: Difficulty,
    /// Kind. A heroic save has [`Dice::heroic_save`](crate::dice::Dice::heroic_save).
    pub kind: RollType,
    /// At most ten.
    #[serde(default)]
    pub modifiers: Vec<Modifier>,
    /// What is tried.
    pub description: Option<String>,
}

impl NewRoll {
    /// A roll of that kind, without modifiers.
    #[must_use]
    pub fn of(kind: RollType, session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self { id: None, session_id, roller, attribute, difficulty, kind, modifiers: Vec::new(), description: None }
    }

    /// A check of an attribute against a difficulty.
    #[must_use]
    pub fn check(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::of(RollType::AttributeCheck, session_id, roller, attribute, difficulty)
    }

    /// A blow, or a shot.
    #[must_use]
    pub fn attack(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::of(RollType::Attack, session_id, roller, attribute, difficulty)
    }

    /// A parry, or a leap aside.
    #[must_use]
    pub fn defense(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::of(RollType::Defense, session_id, roller, attribute, difficulty)
    }

    /// How much a blow takes.
    #[must_use]
    pub fn damage(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::of(RollType::Damage, session_id, roller, attribute, difficulty)
    }

    /// How much a hand or a prayer gives back.
    #[must_use]
    pub fn healing(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::of(RollType::Healing, session_id, roller, attribute, difficulty)
    }

    /// What only this one can do.
    #[must_use]
    pub fn ability(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self::of(RollType::Ability, session_id, roller, attribute, difficulty)
    }

    /// The same, with a modifier more.
    #[must_use]
    pub fn with(mut self, modifier: Modifier) -> Self {
        self.modifiers.push(modifier);
        self
    }
}
