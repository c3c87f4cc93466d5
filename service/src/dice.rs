//! Rolls: a caller says what is rolled, the database rolls it.
//!
//! ```
//! use entity::sea_orm_active_enums::Attribute;
//! use service::{Difficulty, Operations, Sparc, dice::{Modifier, NewRoll, Roller}};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let night = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(night.url()).await?;
//! # let (ada, table, hero) = (night.player, night.session, night.hero);
//! let ada = sparc.as_user(ada);
//! let blow = NewRoll::attack(table, Roller::Character(hero), Attribute::Might, Difficulty::new(12)?)
//!     .with(Modifier::flat(1, "high ground"));
//! let blow = ada.dice().roll(blow).await?;
//! if !blow.success {
//!     ada.dice().heroic_save(blow.id).await?; // once an encounter, within thirty seconds
//! }
//! # Ok(())
//! # }
//! ```

mod history;
mod initiative;
mod new;
mod statistics;

use entity::{dice_rolls, sea_orm_active_enums::RollType};
use sea_orm::{ActiveValue::Set, EntityTrait};
use uuid::Uuid;

pub use history::{HeroicSavesRemaining, HistoryFilter};
pub use initiative::{NewInitiative, Turn};
pub use new::{Modifier, ModifierKind, NewRoll, Roller};
pub use statistics::{KindStatistics, RollScope, RollStatistics};

use crate::{Caller, Error, json, operation::operation, rows};

/// Operations on rolls: [`Operations::dice`](crate::Operations::dice).
#[derive(Debug)]
pub struct Dice<'a, C> {
    pub(crate) caller: &'a C,
}

impl<C: Caller> Dice<'_, C> {
    /// Rolls. Dice are counted from the sheet and the modifiers and drawn by the database; nobody names a result.
    /// Twice with the same id gives the first roll.
    ///
    /// Who may: a player for the own seated character, the Seer for any character seated there, the own, and the
    /// adventure's creatures; in an active session. Three round trips. Event `dice_rolled`.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotActive`], [`Error::NotSeated`] for a character or a player without a seat,
    /// [`Error::CharacterNotYours`], [`Error::CharacterRetired`], [`Error::NotSessionSeer`] for a creature,
    /// [`Error::NotAllowed`] for whoever has no part in the session, as where there is none; [`Error::InvalidValue`] for
    /// modifiers out of bounds, [`Error::CreatureNotInAdventure`], [`Error::IdConflict`], [`Error::NotSignedIn`].
    pub async fn roll(self, new: NewRoll) -> Result<dice_rolls::Model, Error> {
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let modifiers = json::to_json(&new.modifiers)?;
        let (character_id, creature_id) = match new.roller {
            Roller::Character(id) => (Some(id), None),
            Roller::Creature(id) => (None, Some(id)),
        };
        operation!(self.caller, "dice.roll", session = new.session_id, roll = id, |tx| {
            let row = || dice_rolls::ActiveModel {
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
            let repeat = rows::Repeat::Unchanged(dice_rolls::Column::RolledBy);
            rows::insert_or_get(tx, row, dice_rolls::Column::Id, "roll", repeat).await
        })
    }

    /// Rolls a failed roll again, the same way; the new result stands even if it is worse.
    ///
    /// One an encounter for each seat, once a roll, within thirty seconds. Who may: who may roll for the character.
    /// Four round trips. Event `dice_rolled`.
    ///
    /// # Errors
    ///
    /// [`Error::HeroicSaveSpent`], [`Error::HeroicSaveNotNeeded`], [`Error::HeroicSaveTooLate`],
    /// [`Error::RollAlreadySaved`], [`Error::RollNotSaveable`], [`Error::NotSeated`], [`Error::NotFound`],
    /// [`Error::NotSignedIn`].
    pub async fn heroic_save(self, roll_id: Uuid) -> Result<dice_rolls::Model, Error> {
        operation!(self.caller, "dice.heroic_save", roll = roll_id, |tx| {
            let first = rows::find::<dice_rolls::Entity>(tx, roll_id, "roll").await?;
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

    /// One roll.
    ///
    /// Who may: those at the table. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn get(self, id: Uuid) -> Result<dice_rolls::Model, Error> {
        operation!(self.caller, reads "dice.get", roll = id, |tx| { rows::find::<dice_rolls::Entity>(tx, id, "roll").await })
    }
}
