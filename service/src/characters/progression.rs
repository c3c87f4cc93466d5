//! Operations that change a character's hit points, experience and level.

use entity::characters;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, ExprTrait, FromQueryResult, QueryFilter, Statement,
    sea_query::Expr,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Characters, update_character};
use crate::{Error, Executor, Level, MaxHitPoints, connection::OperationTransaction, operation::operation};

/// Hit points of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct HitPoints {
    /// Id of the character.
    pub character_id: Uuid,
    /// Current hit points. At 0 the character is down.
    pub hit_points: i32,
    /// Maximum hit points.
    pub max_hit_points: i32,
}

impl HitPoints {
    /// Whether the character is down: it has no hit points left.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.hit_points == 0
    }
}

const CHANGE_HIT_POINTS: &str = "SELECT character_id, hit_points, max_hit_points
     FROM private.change_hit_points($1, $2)";

/// A change of hit points that heals any character fully: no character's maximum is higher than 10, and the database
/// limits the result to the character's maximum.
const FULL_HEAL: i32 = 1000;

impl<C: Executor> Characters<'_, C> {
    /// Removes hit points from a character, down to 0.
    ///
    /// Who may: its owner, the Seer of each active or paused session in which the character is seated, and the service.
    /// Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn damage(self, id: Uuid, points: u8) -> Result<HitPoints, Error> {
        operation!(self.executor, "characters.damage", character = id, |tx| {
            change_hit_points(tx, id, -i32::from(points)).await
        })
    }

    /// Restores hit points of a character, up to its maximum.
    ///
    /// Who may: its owner, the Seer of each active or paused session in which the character is seated, and the service.
    /// Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn heal(self, id: Uuid, points: u8) -> Result<HitPoints, Error> {
        operation!(self.executor, "characters.heal", character = id, |tx| {
            change_hit_points(tx, id, points.into()).await
        })
    }

    /// Restores all hit points of a character.
    ///
    /// Who may: its owner, the Seer of each active or paused session in which the character is seated, and the service.
    /// Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn rest(self, id: Uuid) -> Result<HitPoints, Error> {
        operation!(self.executor, "characters.rest", character = id, |tx| {
            change_hit_points(tx, id, FULL_HEAL).await
        })
    }

    /// Adds experience to a character.
    ///
    /// A Seer may not award experience: anyone can create a session and is then its Seer, so a player with a second
    /// account could award it to themselves (`docs/decisions.md`, "Experience and hit points"). A program that lets
    /// Seers award experience must apply rules of its own, and then call this as the service.
    ///
    /// Who may: the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`], [`Error::InvalidValue`] if the total would
    /// exceed 2,147,483,647.
    pub async fn award_experience(self, id: Uuid, points: u16) -> Result<characters::Model, Error> {
        operation!(self.executor, "characters.award_experience", character = id, |tx| {
            characters::Entity::update_many()
                .col_expr(
                    characters::Column::Experience,
                    Expr::col(characters::Column::Experience).add(i32::from(points)),
                )
                .filter(characters::Column::Id.eq(id))
                .exec_with_returning(tx)
                .await?
                .pop()
                .ok_or(Error::NotFound { what: "character" })
        })
        .map_err(|error| error.with_rule_if_not_allowed("only the service may award experience"))
    }

    /// Sets a character's level. A Seer may not set it, for the same reason as in
    /// [`award_experience`](Self::award_experience).
    ///
    /// Who may: the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`].
    pub async fn set_level(self, id: Uuid, level: Level) -> Result<characters::Model, Error> {
        operation!(self.executor, "characters.set_level", character = id, |tx| {
            update_character(tx, id, characters::ActiveModel { level: Set(level.get()), ..Default::default() }).await
        })
        .map_err(|error| error.with_rule_if_not_allowed("only the service may set a level"))
    }

    /// Sets a character's maximum hit points, and lowers its current hit points to that maximum if they exceed it.
    ///
    /// Who may: the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`].
    pub async fn set_max_hit_points(self, id: Uuid, max: MaxHitPoints) -> Result<characters::Model, Error> {
        operation!(self.executor, "characters.set_max_hit_points", character = id, |tx| {
            characters::Entity::update_many()
                .col_expr(characters::Column::MaxHitPoints, Expr::value(max.get()))
                .col_expr(characters::Column::HitPoints, Expr::cust_with_values("least(hit_points, $1)", [max.get()]))
                .filter(characters::Column::Id.eq(id))
                .exec_with_returning(tx)
                .await?
                .pop()
                .ok_or(Error::NotFound { what: "character" })
        })
        .map_err(|error| error.with_rule_if_not_allowed("only the service may set the maximum hit points"))
    }
}

/// Adds `change` to the hit points, which stay between 0 and the maximum. The database function is SECURITY DEFINER,
/// because a Seer may damage and heal characters whose rows the Seer cannot see.
async fn change_hit_points(tx: &OperationTransaction, id: Uuid, change: i32) -> Result<HitPoints, Error> {
    let values = [id.into(), change.into()];
    HitPoints::find_by_statement(Statement::from_sql_and_values(DbBackend::Postgres, CHANGE_HIT_POINTS, values))
        .one(tx)
        .await?
        .ok_or(Error::NotFound { what: "character" })
}
