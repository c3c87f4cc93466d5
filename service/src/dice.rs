//! Rolls: a caller says what is rolled, the database rolls it.

use entity::{
    dice_rolls,
    sea_orm_active_enums::{Attribute, RollType},
};
use sea_orm::{ActiveValue::Set, DbBackend, EntityTrait, FromQueryResult, Statement};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Caller, Difficulty, Error, create, documents, operation::operation};

/// The dice of a creature: `creatures.stats`, one to ten for each attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Strength and force.
    pub might: u8,
    /// Speed and skill.
    pub grace: u8,
    /// Knowledge and sense.
    pub wit: u8,
    /// Courage and will.
    pub heart: u8,
}

impl Default for Stats {
    fn default() -> Self {
        Self { might: 1, grace: 1, wit: 1, heart: 1 }
    }
}

/// Who rolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Roller {
    /// A character, by its player or the Seer.
    Character(Uuid),
    /// A creature, by the Seer.
    Creature(Uuid),
}

/// A change to a roll that everyone at the table sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(rename_all = "snake_case")]
pub enum ModifierKind {
    /// The number of dice.
    Dice,
    /// The total.
    Flat,
}

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
#[derive(Clone, Debug)]
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
    /// Kind; a check of the attribute by default.
    pub kind: RollType,
    /// At most ten.
    pub modifiers: Vec<Modifier>,
    /// What is tried.
    pub description: Option<String>,
}

impl NewRoll {
    /// A check of an attribute against a difficulty; change the fields for anything else.
    #[must_use]
    pub fn check(session_id: Uuid, roller: Roller, attribute: Attribute, difficulty: Difficulty) -> Self {
        Self {
            id: None,
            session_id,
            roller,
            attribute,
            difficulty,
            kind: RollType::AttributeCheck,
            modifiers: Vec::new(),
            description: None,
        }
    }
}

/// What a table's rolls, or a character's, came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, FromQueryResult, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RollStatistics {
    /// Rolls.
    pub rolls: i64,
    /// Rolls that succeeded.
    pub successes: i64,
    /// Rolls with all dice six.
    pub critical_successes: i64,
    /// Rolls with all dice one.
    pub critical_failures: i64,
    /// Rolls that were heroic saves.
    pub heroic_saves: i64,
    /// Mean of the modified totals; none without rolls.
    pub mean_total: Option<f64>,
}

/// Whose rolls to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatisticsOf {
    /// All at a table.
    Session(Uuid),
    /// All of a character, at every live table.
    Character(Uuid),
}

/// Operations on rolls: [`Operations::dice`](crate::Operations::dice).
#[derive(Debug)]
pub struct Dice<'a, C> {
    pub(crate) caller: &'a C,
}

const STATISTICS: &str = "SELECT
    count(*) AS rolls,
    count(*) FILTER (WHERE success) AS successes,
    count(*) FILTER (WHERE outcome = 'critical_success') AS critical_successes,
    count(*) FILTER (WHERE outcome = 'critical_failure') AS critical_failures,
    count(*) FILTER (WHERE roll_type = 'heroic_save') AS heroic_saves,
    avg(modified_total)::double precision AS mean_total
  FROM public.dice_rolls
  WHERE ";

impl<C: Caller> Dice<'_, C> {
    /// Rolls. Dice are counted from the sheet and the modifiers and drawn by the database; nobody names a result.
    /// Twice with the same id gives the first roll.
    ///
    /// Who may: a player for the own seated character, the Seer for any character seated there, the own, and the
    /// adventure's creatures; in an active session. Four round trips. Event `dice_rolled`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anybody else and in a session that is not active, [`Error::InvalidValue`] for
    /// modifiers out of bounds, [`Error::CreatureNotInAdventure`], [`Error::IdConflict`].
    pub async fn roll(self, new: NewRoll) -> Result<dice_rolls::Model, Error> {
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let modifiers = documents::to_json(&new.modifiers)?;
        let (character_id, creature_id) = match new.roller {
            Roller::Character(id) => (Some(id), None),
            Roller::Creature(id) => (None, Some(id)),
        };
        operation!(self.caller, "dice.roll", |tx| {
            let row = dice_rolls::ActiveModel {
                id: Set(id),
                session_id: Set(new.session_id),
                character_id: Set(character_id),
                creature_id: Set(creature_id),
                attribute: Set(new.attribute),
                difficulty: Set(new.difficulty.get()),
                roll_type: Set(new.kind),
                modifiers: Set(modifiers.clone()),
                description: Set(new.description.clone()),
                ..Default::default()
            };
            create::once(tx, row, id, dice_rolls::Column::Id, "roll", |there| {
                there.session_id == new.session_id
                    && there.character_id == character_id
                    && there.creature_id == creature_id
            })
            .await
        })
    }

    /// Rolls a failed roll again, the same way; the new result stands even if it is worse.
    ///
    /// One an encounter for each seat, once a roll, within thirty seconds. Who may: who may roll for the character.
    /// Five round trips. Event `dice_rolled`.
    ///
    /// # Errors
    ///
    /// [`Error::HeroicSaveSpent`], [`Error::HeroicSaveNotNeeded`], [`Error::HeroicSaveTooLate`],
    /// [`Error::RollAlreadySaved`], [`Error::RollNotSaveable`], [`Error::NotAllowed`], [`Error::NotFound`].
    pub async fn heroic_save(self, roll_id: Uuid) -> Result<dice_rolls::Model, Error> {
        operation!(self.caller, "dice.heroic_save", |tx| {
            let first =
                dice_rolls::Entity::find_by_id(roll_id).one(tx).await?.ok_or(Error::NotFound { what: "roll" })?;
            let row = dice_rolls::ActiveModel {
                session_id: Set(first.session_id),
                character_id: Set(first.character_id),
                creature_id: Set(first.creature_id),
                attribute: Set(first.attribute),
                difficulty: Set(first.difficulty),
                roll_type: Set(RollType::HeroicSave),
                modifiers: Set(first.modifiers),
                description: Set(first.description),
                original_roll_id: Set(Some(roll_id)),
                ..Default::default()
            };
            Ok(dice_rolls::Entity::insert(row).exec_with_returning(tx).await?)
        })
    }

    /// How many rolls there were, how they went, and their mean.
    ///
    /// Who may: those at the table; of a character, of the rolls at tables that the caller sees. Four round trips.
    ///
    /// # Errors
    ///
    /// None of its own: no rolls give zeros.
    pub async fn statistics(self, of: StatisticsOf) -> Result<RollStatistics, Error> {
        let (condition, id) = match of {
            StatisticsOf::Session(id) => ("session_id = $1", id),
            StatisticsOf::Character(id) => ("character_id = $1", id),
        };
        operation!(self.caller, "dice.statistics", |tx| {
            let statement =
                Statement::from_sql_and_values(DbBackend::Postgres, format!("{STATISTICS}{condition}"), [id.into()]);
            Ok(RollStatistics::find_by_statement(statement).one(tx).await?.unwrap_or_default())
        })
    }
}
