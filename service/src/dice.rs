//! Dice rolls: the caller says what to roll, and the database draws the result.
//!
//! ```
//! use entity::sea_orm_active_enums::Attribute;
//! use service::{Difficulty, Operations, Sparc, dice::{Modifier, NewRoll, Roller}};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(demo.url()).await?;
//! # let (user_id, session_id, hero_id) = (demo.player, demo.session, demo.hero);
//! let ada = sparc.as_user(user_id);
//! let attack = NewRoll::attack(session_id, Roller::Character(hero_id), Attribute::Might, Difficulty::new(12)?)
//!     .with(Modifier::flat(1, "high ground"));
//! let roll = ada.dice().roll(attack).await?;
//! if !roll.success {
//!     ada.dice().use_heroic_save(roll.id).await?; // once per encounter, within 30 seconds
//! }
//! # Ok(())
//! # }
//! ```

mod history;
mod initiative;
mod new_roll;
mod statistics;

use entity::{dice_rolls, sea_orm_active_enums::RollType};
use sea_orm::{ActiveValue::Set, EntityTrait, sea_query::Expr};
use uuid::Uuid;

pub use history::{HeroicSavesRemaining, HistoryFilter};
pub use initiative::{NewInitiative, Turn};
pub use new_roll::{Modifier, ModifierKind, NewRoll, Roller};
pub use statistics::{KindStatistics, RollScope, RollStatistics};

use crate::{Error, Executor, json, operation::operation, rows};

/// Operations on rolls: [`Operations::dice`](crate::Operations::dice).
#[derive(Debug)]
pub struct Dice<'a, C> {
    pub(crate) executor: &'a C,
}

impl<C: Executor> Dice<'_, C> {
    /// Makes a roll. The database computes the number of dice from the attribute of the character or creature and from
    /// the modifiers, and draws the results; a user can choose neither the number nor the results. Repeating the
    /// request with the same id returns the existing roll.
    ///
    /// Who may: in an active session, a player for their own seated character, and the Seer for every seated character,
    /// for their own characters and for the adventure's creatures; in any session, the service. Three round trips, or
    /// four if the request is repeated. Event `dice_rolled`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotActive`], [`Error::NotSeated`] if the player or the character has no seat,
    /// [`Error::CharacterNotYours`], [`Error::CharacterRetired`], [`Error::NotSessionSeer`] if a player rolls for a
    /// creature, [`Error::NotAllowed`] if the caller is not a participant or there is no such session,
    /// [`Error::NotFound`] for the service if there is no such session or character; [`Error::InvalidValue`] for
    /// modifiers or a description out of bounds and for the kind `heroic_save`, [`Error::CreatureNotInAdventure`], also
    /// if there is no such creature; [`Error::IdConflict`], [`Error::NotSignedIn`].
    pub async fn roll(self, roll: NewRoll) -> Result<dice_rolls::Model, Error> {
        let id = roll.id.unwrap_or_else(Uuid::new_v4);
        let modifiers = json::to_json(&roll.modifiers)?;
        let (character_id, creature_id) = match roll.roller {
            Roller::Character(id) => (Some(id), None),
            Roller::Creature(id) => (None, Some(id)),
        };
        operation!(self.executor, "dice.roll", session = roll.session_id, roll = id, |tx| {
            let build_row = || dice_rolls::ActiveModel {
                id: Set(id),
                session_id: Set(roll.session_id),
                character_id: Set(character_id),
                creature_id: Set(creature_id),
                attribute: Set(roll.attribute),
                difficulty: Set(roll.difficulty.get()),
                roll_type: Set(roll.kind),
                modifiers: Set(modifiers.clone()),
                description: Set(roll.description.clone()),
                ..Default::default()
            };
            // When this is a repeated request, the creature of the stored roll may have been deleted since, which sets
            // the column to NULL. But if the requested creature still exists, the stored roll was another creature's.
            let if_creature_was_deleted = |id: Uuid| {
                let sql = "dice_rolls.creature_id IS NULL AND NOT EXISTS (SELECT FROM public.creatures WHERE id = $1)";
                (dice_rolls::Column::CreatureId, Expr::cust_with_values(sql, [id]))
            };
            let repeat_check = rows::RepeatCheck::ByColumnsAndAuthor {
                author: dice_rolls::Column::RolledBy,
                changed_by_database: creature_id.map(if_creature_was_deleted),
            };
            rows::insert_or_get(tx, build_row, dice_rolls::Column::Id, "roll", repeat_check).await
        })
    }

    /// Saves a failed roll: repeats it with the same attribute, difficulty and modifiers; the new result stands even if
    /// it is worse.
    ///
    /// Each seat has one heroic save per encounter; a character without a seat has none. A roll can be saved only once,
    /// within 30 seconds. A creature's roll and a heroic save cannot be saved.
    ///
    /// Who may: everyone who may roll for the character, and the service. Four round trips. Event `dice_rolled`.
    ///
    /// # Errors
    ///
    /// [`Error::HeroicSaveSpent`], also for a character without a seat; [`Error::HeroicSaveNotNeeded`],
    /// [`Error::HeroicSaveTooLate`], [`Error::RollAlreadySaved`], [`Error::RollNotSaveable`],
    /// [`Error::SessionNotActive`], [`Error::NotSeated`], [`Error::CharacterNotYours`], [`Error::CharacterRetired`],
    /// [`Error::NotSessionSeer`] if a player saves a creature's roll, [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn use_heroic_save(self, roll_id: Uuid) -> Result<dice_rolls::Model, Error> {
        operation!(self.executor, "dice.use_heroic_save", roll = roll_id, |tx| {
            let original = rows::require::<dice_rolls::Entity>(tx, roll_id, "roll").await?;
            let row = dice_rolls::ActiveModel {
                session_id: Set(original.session_id),
                character_id: Set(original.character_id),
                creature_id: Set(original.creature_id),
                attribute: Set(original.attribute),
                difficulty: Set(original.difficulty),
                roll_type: Set(RollType::HeroicSave),
                modifiers: Set(original.modifiers),
                description: Set(original.description),
                original_roll_id: Set(Some(roll_id)),
                ..Default::default()
            };
            Ok(dice_rolls::Entity::insert(row).exec_with_returning(tx).await?)
        })
    }

    /// Returns a roll.
    ///
    /// Who may: the session's participants and the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn get(self, id: Uuid) -> Result<dice_rolls::Model, Error> {
        operation!(self.executor, reads "dice.get", roll = id, |tx| {
            rows::require::<dice_rolls::Entity>(tx, id, "roll").await
        })
    }
}
