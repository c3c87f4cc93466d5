//! The creatures of an adventure. In a session, the Seer plays them.
//!
//! ```
//! use service::{Operations, Sparc, creatures::{NewCreature, Stats}};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(demo.url()).await?;
//! # let (seer_id, adventure_id) = (demo.seer, demo.adventure);
//! let morgan = sparc.as_user(seer_id);
//! let stats = Stats { might: 4, grace: 2, ..Default::default() };
//! let new_creature = NewCreature { name: "Reed Horror".into(), stats, ..Default::default() };
//! let horror = morgan.creatures().add(adventure_id, new_creature).await?;
//! println!("{} has {} hit points", horror.name, horror.hit_points);
//! # Ok(())
//! # }
//! ```

use entity::creatures;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    Error, Executor, json,
    operation::operation,
    rows::{self, set_if_some},
};

/// The attributes of a creature: `creatures.stats`. Each is from 1 to 10. A check of an attribute rolls
/// as many dice as the attribute's value; modifiers may add dice or take some away. Unknown fields are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stats {
    /// Strength and force.
    pub might: u8,
    /// Speed and skill.
    pub grace: u8,
    /// Knowledge and sense.
    pub wit: u8,
    /// Courage and will.
    pub heart: u8,
    /// Further fields, stored unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Default for Stats {
    fn default() -> Self {
        Self { might: 1, grace: 1, wit: 1, heart: 1, extra: Map::new() }
    }
}

/// An ability of a creature: one element of `creatures.abilities`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ability {
    /// Name.
    pub name: String,
    /// Description of its effect.
    #[serde(default)]
    pub description: String,
    /// Further fields, stored unchanged.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A creature to add to an adventure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewCreature {
    /// Id of the creature; random if absent. Repeating the request with the same id returns the existing creature.
    pub id: Option<Uuid>,
    /// Name, 1 to 100 characters.
    pub name: String,
    /// Description.
    pub description: Option<String>,
    /// Attributes.
    #[serde(default)]
    pub stats: Stats,
    /// Abilities.
    #[serde(default)]
    pub abilities: Vec<Ability>,
    /// Hit points, 0 to 1000. Six by default.
    #[serde(default = "NewCreature::default_hit_points")]
    pub hit_points: i32,
    /// Armor, 0 to 100. 0 by default.
    #[serde(default)]
    pub armor: i32,
}

impl Default for NewCreature {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            description: None,
            stats: Stats::default(),
            abilities: Vec::new(),
            hit_points: 6,
            armor: 0,
        }
    }
}

impl NewCreature {
    /// Default for a JSON document that omits the field.
    fn default_hit_points() -> i32 {
        Self::default().hit_points
    }
}

/// Changes to a creature. `None` leaves a field unchanged; `Some(None)` clears it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CreatureChanges {
    /// Name, 1 to 100 characters.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Description.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub description: Option<Option<String>>,
    /// Attributes.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
    /// Abilities.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub abilities: Option<Vec<Ability>>,
    /// Hit points, 0 to 1000.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub hit_points: Option<i32>,
    /// Armor, 0 to 100.
    #[serde(deserialize_with = "crate::values::not_null", skip_serializing_if = "Option::is_none")]
    pub armor: Option<i32>,
}

/// Operations on creatures: [`Operations::creatures`](crate::Operations::creatures).
#[derive(Debug)]
pub struct Creatures<'a, C> {
    pub(crate) executor: &'a C,
}

impl<C: Executor> Creatures<'_, C> {
    /// Adds a creature to an adventure. Repeating the request with the same id returns the existing creature. An
    /// adventure can have at most two hundred creatures.
    ///
    /// Who may: the adventure's creator and the service. Three round trips, or four if the request is repeated. No
    /// event.
    ///
    /// # Errors
    ///
    /// [`Error::CreatureLimitReached`] if the adventure already has two hundred creatures,
    /// [`Error::AdventureNotYours`] for another user's published adventure, [`Error::NotAllowed`] for another user's
    /// unpublished adventure. If there is no such adventure, [`Error::NotAllowed`] for a user and [`Error::NotFound`]
    /// for the service. [`Error::InvalidValue`], [`Error::IdConflict`], [`Error::NotSignedIn`].
    pub async fn add(self, adventure_id: Uuid, creature: NewCreature) -> Result<creatures::Model, Error> {
        let id = creature.id.unwrap_or_else(Uuid::new_v4);
        let stats = json::to_json(&creature.stats)?;
        let abilities = json::to_json(&creature.abilities)?;
        operation!(self.executor, "creatures.add", adventure = adventure_id, creature = id, |tx| {
            let build_row = || creatures::ActiveModel {
                id: Set(id),
                adventure_id: Set(adventure_id),
                name: Set(creature.name.clone()),
                description: Set(creature.description.clone()),
                stats: Set(stats.clone()),
                abilities: Set(abilities.clone()),
                hit_points: Set(creature.hit_points),
                armor: Set(creature.armor),
                ..Default::default()
            };
            rows::insert_or_get(tx, build_row, creatures::Column::Id, "creature", rows::RepeatCheck::ByDigest).await
        })
    }

    /// Changes a creature. Without changes, returns the creature as it is, to everyone who may read it.
    ///
    /// Who may: the adventure's creator and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`], [`Error::NotFound`] if the caller cannot read the creature,
    /// [`Error::AdventureNotYours`] if the caller can read but not change it, [`Error::NotSignedIn`].
    pub async fn edit(self, id: Uuid, changes: CreatureChanges) -> Result<creatures::Model, Error> {
        let mut row = creatures::ActiveModel::default();
        set_if_some(&mut row.name, &changes.name);
        set_if_some(&mut row.description, &changes.description);
        set_if_some(&mut row.stats, &changes.stats.as_ref().map(json::to_json).transpose()?);
        set_if_some(&mut row.abilities, &changes.abilities.as_ref().map(json::to_json).transpose()?);
        set_if_some(&mut row.hit_points, &changes.hit_points);
        set_if_some(&mut row.armor, &changes.armor);
        operation!(self.executor, "creatures.edit", creature = id, |tx| {
            match rows::update_returning(tx, row.clone(), id, creatures::Column::Id).await? {
                Some(creature) => Ok(creature),
                None => {
                    rows::require::<creatures::Entity>(tx, id, "creature").await?;
                    Err(Error::AdventureNotYours)
                }
            }
        })
    }

    /// Removes a creature from its adventure. The creature's rolls remain, and keep its name.
    ///
    /// Who may: the adventure's creator and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn remove(self, id: Uuid) -> Result<(), Error> {
        operation!(self.executor, "creatures.remove", creature = id, |tx| {
            let deleted = creatures::Entity::delete_by_id(id).exec(tx).await?;
            if deleted.rows_affected == 0 {
                rows::require::<creatures::Entity>(tx, id, "creature").await?;
                return Err(Error::AdventureNotYours);
            }
            Ok(())
        })
    }

    /// Returns a creature.
    ///
    /// Who may: everyone who may read its adventure. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn get(self, id: Uuid) -> Result<creatures::Model, Error> {
        operation!(self.executor, reads "creatures.get", creature = id, |tx| {
            rows::require::<creatures::Entity>(tx, id, "creature").await
        })
    }

    /// Returns the creatures of an adventure, sorted by name.
    ///
    /// Who may: everyone who may read the adventure; others get an empty list. Three round trips.
    ///
    /// # Errors
    ///
    /// None specific to this operation.
    pub async fn list(self, adventure_id: Uuid) -> Result<Vec<creatures::Model>, Error> {
        operation!(self.executor, reads "creatures.list", adventure = adventure_id, |tx| {
            Ok(creatures::Entity::find()
                .filter(creatures::Column::AdventureId.eq(adventure_id))
                .order_by_asc(creatures::Column::Name)
                .order_by_asc(creatures::Column::Id)
                .all(tx)
                .await?)
        })
    }
}
