//! The tutorial: two paths of steps that are completed in order.
//!
//! The player's path is welcome, character basics, dice rolling, combat practice, player complete. The Seer's path is
//! welcome, running sessions, seer complete (`docs/decisions.md`, "Game rules"). The database does not let a user
//! complete steps out of order, and derives the completed steps from the current step.
//!
//! ```
//! use entity::sea_orm_active_enums::TutorialPath;
//! use service::{Operations, Sparc, tutorial::Step};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(demo.url()).await?;
//! # let user_id = demo.player;
//! let ada = sparc.as_user(user_id);
//! ada.tutorial().begin(TutorialPath::Seer).await?;
//! ada.tutorial().complete_step(Step::Welcome).await?;
//! ada.tutorial().complete_step(Step::RunningSessions).await?;
//! let progress = ada.tutorial().complete().await?;
//! assert!(progress.completed_at.is_some());
//! # Ok(())
//! # }
//! ```

use std::{fmt, str::FromStr};

use entity::{
    sea_orm_active_enums::TutorialPath,
    tutorial_progress::{self, Column},
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, EntityTrait, QueryFilter, QuerySelect,
    sea_query::{Expr, OnConflict},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, Executor, connection::OperationTransaction, operation::operation, rows};

/// A step of the tutorial. `Display` writes the name that `tutorial_progress` stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Step {
    /// Introduction to the game, the first step of both paths.
    Welcome,
    /// Introduction to characters.
    CharacterBasics,
    /// Introduction to dice rolls.
    DiceRolling,
    /// A practice fight.
    CombatPractice,
    /// The end of the player's path.
    PlayerComplete,
    /// How a Seer runs a session.
    RunningSessions,
    /// The end of the Seer's path.
    SeerComplete,
}

impl Step {
    /// Returns the steps of a path in order.
    #[must_use]
    pub const fn of_path(path: TutorialPath) -> &'static [Self] {
        match path {
            TutorialPath::Player => {
                &[Self::Welcome, Self::CharacterBasics, Self::DiceRolling, Self::CombatPractice, Self::PlayerComplete]
            }
            TutorialPath::Seer => &[Self::Welcome, Self::RunningSessions, Self::SeerComplete],
        }
    }

    /// Returns the name of the step in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::CharacterBasics => "character-basics",
            Self::DiceRolling => "dice-rolling",
            Self::CombatPractice => "combat-practice",
            Self::PlayerComplete => "player-complete",
            Self::RunningSessions => "running-sessions",
            Self::SeerComplete => "seer-complete",
        }
    }

    /// Returns the step that follows this one on a path. `None` after the last step, and for a step of the other path.
    fn next(self, path: TutorialPath) -> Option<Self> {
        let steps = Self::of_path(path);
        let index = steps.iter().position(|step| *step == self)?;
        steps.get(index + 1).copied()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [TutorialPath::Player, TutorialPath::Seer]
            .into_iter()
            .flat_map(Self::of_path)
            .find(|step| step.as_str() == text)
            .copied()
            .ok_or(Error::InvalidValue { field: "step", rule: "must be a step of the tutorial" })
    }
}

/// Operations on the tutorial: [`Operations::tutorial`](crate::Operations::tutorial).
#[derive(Debug)]
pub struct Tutorial<'a, C> {
    pub(crate) executor: &'a C,
}

impl<C: Executor> Tutorial<'_, C> {
    /// Returns the caller's progress; `None` if the caller has neither begun nor skipped the tutorial.
    ///
    /// Who may: a user. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn progress(self) -> Result<Option<tutorial_progress::Model>, Error> {
        operation!(self.executor, reads "tutorial.progress", |tx| {
            Ok(tutorial_progress::Entity::find_by_id(tx.user_id()?).one(tx).await?)
        })
    }

    /// Begins a path. If the caller has already begun one, changes only `updated_at` and returns their progress;
    /// [`restart`](Self::restart) changes the path.
    ///
    /// Who may: a user. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn begin(self, path: TutorialPath) -> Result<tutorial_progress::Model, Error> {
        operation!(self.executor, "tutorial.begin", |tx| {
            let user_id = tx.user_id()?;
            let row =
                tutorial_progress::ActiveModel { user_id: Set(user_id), path: Set(Some(path)), ..Default::default() };
            // A caller who skipped the tutorial without beginning it has a row without a path. This call sets the path.
            let new_path = Expr::cust("coalesce(tutorial_progress.path, excluded.path)");
            let on_conflict = OnConflict::column(Column::UserId).value(Column::Path, new_path).to_owned();
            Ok(tutorial_progress::Entity::insert(row).on_conflict(on_conflict).exec_with_returning(tx).await?)
        })
    }

    /// Completes the caller's current step, which `step` must name, and moves to the next one.
    ///
    /// Who may: a user. Four round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::TutorialOutOfOrder`] if `step` is not the current step or is the last of the path, or if the caller has
    /// skipped the tutorial without beginning a path; [`Error::NotFound`] if the caller has neither begun nor skipped
    /// the tutorial; [`Error::NotSignedIn`].
    pub async fn complete_step(self, step: Step) -> Result<tutorial_progress::Model, Error> {
        operation!(self.executor, "tutorial.complete_step", |tx| {
            let progress = lock_progress(tx, tx.user_id()?).await?;
            let next_step = progress.path.and_then(|path| step.next(path)).ok_or(Error::TutorialOutOfOrder)?;
            if progress.current_step != step.as_str() {
                return Err(Error::TutorialOutOfOrder);
            }
            let row = tutorial_progress::ActiveModel { current_step: Set(next_step.to_string()), ..Default::default() };
            update_progress(tx, progress.user_id, row).await
        })
    }

    /// Completes the tutorial; the current step must be the last of the path. Idempotent.
    ///
    /// Who may: a user. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::TutorialOutOfOrder`] before the last step, [`Error::NotFound`] if the caller has neither begun nor
    /// skipped the tutorial, [`Error::NotSignedIn`].
    pub async fn complete(self) -> Result<tutorial_progress::Model, Error> {
        operation!(self.executor, "tutorial.complete", |tx| {
            // The database keeps the time of an earlier completion.
            tutorial_progress::Entity::update_many()
                .col_expr(Column::CompletedAt, Expr::cust("now()"))
                .filter(Column::UserId.eq(tx.user_id()?))
                .exec_with_returning(tx)
                .await?
                .pop()
                .ok_or(Error::NotFound { what: "tutorial" })
        })
    }

    /// Marks the tutorial as skipped, even if the caller has not begun it. The caller may still begin or continue it.
    /// Idempotent.
    ///
    /// Who may: a user. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`].
    pub async fn skip(self) -> Result<tutorial_progress::Model, Error> {
        operation!(self.executor, "tutorial.skip", |tx| {
            let user_id = tx.user_id()?;
            let row =
                tutorial_progress::ActiveModel { user_id: Set(user_id), skipped: Set(true), ..Default::default() };
            let on_conflict = OnConflict::column(Column::UserId).update_column(Column::Skipped).to_owned();
            Ok(tutorial_progress::Entity::insert(row).on_conflict(on_conflict).exec_with_returning(tx).await?)
        })
    }

    /// Restarts the tutorial at the beginning of a path, and clears the completed steps, the time of completion and the
    /// skipped mark.
    ///
    /// Who may: a user. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if the caller has neither begun nor skipped the tutorial, [`Error::NotSignedIn`].
    pub async fn restart(self, path: TutorialPath) -> Result<tutorial_progress::Model, Error> {
        operation!(self.executor, "tutorial.restart", |tx| {
            let row = tutorial_progress::ActiveModel {
                path: Set(Some(path)),
                current_step: Set(Step::Welcome.to_string()),
                completed_steps: Set(Vec::new()),
                completed_at: Set(None),
                skipped: Set(false),
                ..Default::default()
            };
            update_progress(tx, tx.user_id()?, row).await
        })
    }
}

/// Finds the user's progress and locks the row. So the second of two concurrent calls for the same step is refused.
async fn lock_progress(tx: &OperationTransaction, user_id: Uuid) -> Result<tutorial_progress::Model, Error> {
    tutorial_progress::Entity::find_by_id(user_id)
        .lock_exclusive()
        .one(tx)
        .await?
        .ok_or(Error::NotFound { what: "tutorial" })
}

async fn update_progress(
    tx: &OperationTransaction,
    user_id: Uuid,
    row: tutorial_progress::ActiveModel,
) -> Result<tutorial_progress::Model, Error> {
    rows::update_returning(tx, row, user_id, Column::UserId).await?.ok_or(Error::NotFound { what: "tutorial" })
}

#[cfg(test)]
mod tests {
    use super::{Step, TutorialPath};

    #[test]
    fn a_step_is_parsed_from_its_name_and_the_next_step_depends_on_the_path() {
        for step in [TutorialPath::Player, TutorialPath::Seer].into_iter().flat_map(Step::of_path) {
            assert_eq!(step.to_string().parse::<Step>().unwrap(), *step);
            assert_eq!(serde_json::to_value(step).unwrap(), step.as_str());
        }
        assert_eq!(Step::Welcome.next(TutorialPath::Seer), Some(Step::RunningSessions));
        assert_eq!(Step::DiceRolling.next(TutorialPath::Player), Some(Step::CombatPractice));
        assert_eq!(Step::PlayerComplete.next(TutorialPath::Player), None);
        assert_eq!(Step::SeerComplete.next(TutorialPath::Player), None);
        assert_eq!("nowhere".parse::<Step>().unwrap_err().code(), "invalid_value");
    }
}
