//! What befalls a character: hit points, experience, level.

use entity::characters;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, ExprTrait, FromQueryResult, QueryFilter, Statement,
    sea_query::Expr,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Characters, change};
use crate::{Caller, Error, Level, MaxHitPoints, connection::UncheckedTransaction, operation::operation};

/// How much a character can still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct HitPoints {
    /// Character.
    pub character_id: Uuid,
    /// Hit points: 0 is down.
    pub hit_points: i32,
    /// The most that there can be.
    pub max_hit_points: i32,
}

impl HitPoints {
    /// Whether the character is down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.hit_points == 0
    }
}

const CHANGE_HIT_POINTS: &str = "SELECT character_id, hit_points, max_hit_points
     FROM private.change_hit_points($1, $2)";

/// More than any character has.
const ALL: i32 = 1000;

impl<C: Caller> Characters<'_, C> {
    /// Takes hit points, down to none.
    ///
    /// Who may: its owner, the Seer at whose table it sits while the session is active or paused, the service. Three
    /// round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn damage(self, id: Uuid, points: u8) -> Result<HitPoints, Error> {
        operation!(self.caller, "characters.damage", character = id, |tx| {
            change_hit_points(tx, id, -i32::from(points)).await
        })
    }

    /// Gives hit points back, up to the maximum.
    ///
    /// Who may: its owner, the Seer at whose table it sits while the session is active or paused, the service. Three
    /// round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn heal(self, id: Uuid, points: u8) -> Result<HitPoints, Error> {
        operation!(self.caller, "characters.heal", character = id, |tx| {
            change_hit_points(tx, id, points.into()).await
        })
    }

    /// Gives all hit points back.
    ///
    /// Who may: its owner, the Seer at whose table it sits while the session is active or paused, the service. Three
    /// round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NotSignedIn`].
    pub async fn rest(self, id: Uuid) -> Result<HitPoints, Error> {
        operation!(self.caller, "characters.rest", character = id, |tx| { change_hit_points(tx, id, ALL).await })
    }

    /// Adds experience to a character.
    ///
    /// The service's, and not the Seer's: whoever opens a table is its Seer, and a player with a second account could
    /// award oneself (decision "Privacy and server-owned columns"). A game server that lets its Seers award does so as
    /// the service, by its own rules.
    ///
    /// Who may: the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`], [`Error::InvalidValue`] above 2,147,483,647.
    pub async fn award_experience(self, id: Uuid, points: u16) -> Result<characters::Model, Error> {
        operation!(self.caller, "characters.award_experience", character = id, |tx| {
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
        .map_err(|error| error.with_rule("only the service may award experience"))
    }

    /// Sets a character's level.
    ///
    /// Who may: the service, for the same reason as experience. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`].
    pub async fn set_level(self, id: Uuid, level: Level) -> Result<characters::Model, Error> {
        operation!(self.caller, "characters.set_level", character = id, |tx| {
            change(tx, id, characters::ActiveModel { level: Set(level.get()), ..Default::default() }).await
        })
        .map_err(|error| error.with_rule("only the service may set a level"))
    }

    /// Sets the most hit points that a character can have; those that it has are cut to it.
    ///
    /// Who may: the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`].
    pub async fn set_max_hit_points(self, id: Uuid, most: MaxHitPoints) -> Result<characters::Model, Error> {
        operation!(self.caller, "characters.set_max_hit_points", character = id, |tx| {
            characters::Entity::update_many()
                .col_expr(characters::Column::MaxHitPoints, Expr::value(most.get()))
                .col_expr(characters::Column::HitPoints, Expr::cust_with_values("least(hit_points, $1)", [most.get()]))
                .filter(characters::Column::Id.eq(id))
                .exec_with_returning(tx)
                .await?
                .pop()
                .ok_or(Error::NotFound { what: "character" })
        })
        .map_err(|error| error.with_rule("only the service may set the most hit points"))
    }
}

/// Elevated by the database: a Seer's blow meets a sheet that the Seer does not see.
async fn change_hit_points(tx: &UncheckedTransaction, id: Uuid, change: i32) -> Result<HitPoints, Error> {
    let values = [id.into(), change.into()];
    HitPoints::find_by_statement(Statement::from_sql_and_values(DbBackend::Postgres, CHANGE_HIT_POINTS, values))
        .one(tx)
        .await?
        .ok_or(Error::NotFound { what: "character" })
}
