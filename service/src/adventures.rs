//! Adventures: what a Seer runs, and the creatures in it.

mod content;

use entity::{
    adventures, creatures,
    sea_orm_active_enums::{AdventureStatus, DifficultyLevel},
};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbBackend, EntityTrait, QueryFilter, QuerySelect, Statement};
use serde_json::json;
use uuid::Uuid;

pub use content::{AdventureContent, Connection, Fault, FaultKind, Node, NodeKind};

use crate::{Caller, Error, connection::Transaction, create, dice::Stats, documents, operation::operation};

/// An adventure to be made, as a draft.
#[derive(Clone, Debug)]
pub struct NewAdventure {
    /// Id to give it; drawn where none is given. The same id again gives the first adventure.
    pub id: Option<Uuid>,
    /// 3 to 100 characters.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// How hard. Medium by default.
    pub difficulty: DifficultyLevel,
    /// Minutes. 60 by default.
    pub estimated_duration: i32,
    /// Fewest players, 1 to 6. Two by default.
    pub min_players: i32,
    /// Most players, 1 to 6. Four by default.
    pub max_players: i32,
    /// The story.
    pub content: AdventureContent,
}

impl Default for NewAdventure {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            description: None,
            difficulty: DifficultyLevel::Medium,
            estimated_duration: 60,
            min_players: 2,
            max_players: 4,
            content: AdventureContent::default(),
        }
    }
}

/// A creature to be put into an adventure.
#[derive(Clone, Debug, Default)]
pub struct NewCreature {
    /// Id to give it; drawn where none is given. The same id again gives the first creature.
    pub id: Option<Uuid>,
    /// 1 to 100 characters.
    pub name: String,
    /// What it looks like.
    pub description: Option<String>,
    /// The dice that it rolls.
    pub stats: Stats,
}

/// Operations on adventures: [`Operations::adventures`](crate::Operations::adventures).
#[derive(Debug)]
pub struct Adventures<'a, C> {
    pub(crate) caller: &'a C,
}

impl<C: Caller> Adventures<'_, C> {
    /// Makes a draft of the caller's. Twice with the same id gives the first.
    ///
    /// Who may: a user. Four round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] for name or players, [`Error::IdConflict`], [`Error::NotSignedIn`].
    pub async fn create(self, new: NewAdventure) -> Result<adventures::Model, Error> {
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let content = documents::to_json(&new.content)?;
        operation!(self.caller, "adventures.create", |tx| {
            let creator_id = tx.user_id().ok_or(Error::NotSignedIn)?;
            let row = adventures::ActiveModel {
                id: Set(id),
                creator_id: Set(creator_id),
                name: Set(new.name.clone()),
                description: Set(new.description.clone()),
                difficulty: Set(new.difficulty),
                estimated_duration: Set(new.estimated_duration),
                min_players: Set(new.min_players),
                max_players: Set(new.max_players),
                content: Set(content.clone()),
                ..Default::default()
            };
            create::once(tx, row, id, adventures::Column::Id, "adventure", |there| {
                there.creator_id == creator_id && there.name == new.name
            })
            .await
        })
    }

    /// Replaces the content of a draft; it is valid again once it was judged again.
    ///
    /// Who may: the creator. Four round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AdventurePublished`], [`Error::NotFound`], also for somebody else's.
    pub async fn set_content(self, id: Uuid, content: &AdventureContent) -> Result<adventures::Model, Error> {
        let content = documents::to_json(content)?;
        operation!(self.caller, "adventures.set_content", |tx| {
            let row = adventures::ActiveModel { content: Set(content.clone()), ..Default::default() };
            update(tx, id, row).await
        })
    }

    /// Puts a creature into an adventure of the caller's. Twice with the same id gives the first.
    ///
    /// Who may: the adventure's creator. Four round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anybody else's adventure, [`Error::InvalidValue`] for the name,
    /// [`Error::IdConflict`].
    pub async fn add_creature(self, adventure_id: Uuid, new: NewCreature) -> Result<creatures::Model, Error> {
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let stats = documents::to_json(&new.stats)?;
        operation!(self.caller, "adventures.add_creature", |tx| {
            let row = creatures::ActiveModel {
                id: Set(id),
                adventure_id: Set(adventure_id),
                name: Set(new.name.clone()),
                description: Set(new.description.clone()),
                stats: Set(stats.clone()),
                ..Default::default()
            };
            create::once(tx, row, id, creatures::Column::Id, "creature", |there| {
                there.adventure_id == adventure_id && there.name == new.name
            })
            .await
        })
    }

    /// Judges the content, writes the verdict down, and gives every fault with the node that it is at. No fault: the
    /// adventure is valid and may be published.
    ///
    /// Who may: the creator. Eight round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], also for somebody else's.
    pub async fn validate(self, id: Uuid) -> Result<Vec<Fault>, Error> {
        operation!(self.caller, "adventures.validate", |tx| { judge(tx, id).await })
    }

    /// Judges the content, and publishes the adventure if it has no fault. A published one stays as it is.
    ///
    /// Who may: the creator. Nine round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AdventureInvalid`] with every fault, [`Error::NotFound`].
    pub async fn publish(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.caller, "adventures.publish", |tx| {
            let faults = judge(tx, id).await?;
            if !faults.is_empty() {
                return Err(Error::AdventureInvalid(faults));
            }
            let published = adventures::ActiveModel { status: Set(AdventureStatus::Published), ..Default::default() };
            update(tx, id, published).await
        })
    }

    /// One adventure with its content.
    ///
    /// Who may: everybody where it is published, else the creator. Four round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn get(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.caller, "adventures.get", |tx| {
            adventures::Entity::find_by_id(id).one(tx).await?.ok_or(Error::NotFound { what: "adventure" })
        })
    }
}

async fn update(tx: &Transaction, id: Uuid, row: adventures::ActiveModel) -> Result<adventures::Model, Error> {
    adventures::Entity::update_many()
        .set(row)
        .filter(adventures::Column::Id.eq(id))
        .exec_with_returning(tx)
        .await?
        .pop()
        .ok_or(Error::NotFound { what: "adventure" })
}

const VERDICT: &str = "UPDATE public.adventures
     SET is_valid = $2, validation_errors = $3
     WHERE id = $1";

/// Reads the content as its creator and holds the row, so that what was judged is what is published; the verdict is the
/// server's to write.
async fn judge(tx: &Transaction, id: Uuid) -> Result<Vec<Fault>, Error> {
    let creator = tx.user_id().ok_or(Error::NotSignedIn)?;
    let adventure = adventures::Entity::find_by_id(id)
        .filter(adventures::Column::CreatorId.eq(creator))
        .lock_exclusive()
        .one(tx)
        .await?
        .ok_or(Error::NotFound { what: "adventure" })?;
    let faults = match documents::from_json::<AdventureContent>(adventure.content, "content") {
        Ok(content) => content.faults(),
        Err(_) => vec![Fault { node: None, kind: FaultKind::Unreadable }],
    };
    // A published adventure is valid and cannot be edited: there is nothing to write down.
    if adventure.status != AdventureStatus::Published {
        let values = [id.into(), faults.is_empty().into(), json!(faults).into()];
        tx.elevated(Statement::from_sql_and_values(DbBackend::Postgres, VERDICT, values)).await?;
    }
    Ok(faults)
}
