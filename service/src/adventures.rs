//! Adventures: what a Seer runs, from the first draft to the catalogue.
//!
//! ```
//! use service::{Error, Operations, Sparc, adventures::{AdventureContent, NewAdventure}};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let night = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(night.url()).await?;
//! # let (id, content) = (night.seer, AdventureContent::single_scene("It rains."));
//! let morgan = sparc.as_user(id);
//! let draft = NewAdventure { name: "The Drowned Ford".into(), content, ..Default::default() };
//! let draft = morgan.adventures().create(draft).await?;
//! match morgan.adventures().publish(draft.id).await {
//!     Ok(adventure) => println!("published at {:?}", adventure.published_at),
//!     Err(Error::AdventureInvalid(faults)) => println!("{} things to mend", faults.len()),
//!     Err(other) => return Err(other.into()),
//! }
//! # Ok(())
//! # }
//! ```

mod catalogue;

use entity::{
    adventures,
    sea_orm_active_enums::{AdventureStatus, DifficultyLevel},
};
use rls::{supabase::SERVICE_ROLE, unchecked::Unchecked};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QuerySelect, Statement,
    TransactionOptions, prelude::Decimal,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

pub use crate::content::{AdventureContent, Connection, Node, NodeKind, ValidationError, ValidationErrorKind};
pub use catalogue::{AdventureSummary, CatalogueFilter, CatalogueOrder};

use crate::{
    Caller, Error,
    connection::{OperationTransaction, UncheckedTransaction, sealed::Sealed},
    json,
    operation::operation,
    rows::{self, set_if},
};

/// An adventure to be made, as a draft.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NewAdventure {
    /// Id to give it; drawn where none is given. The same id again gives the first adventure.
    pub id: Option<Uuid>,
    /// 3 to 100 characters.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// How hard. Medium by default.
    #[serde(default = "NewAdventure::default_difficulty")]
    pub difficulty: DifficultyLevel,
    /// Minutes. 60 by default.
    #[serde(default = "NewAdventure::default_duration")]
    pub estimated_duration: i32,
    /// Fewest players, 1 to 6. Two by default.
    #[serde(default = "NewAdventure::default_min_players")]
    pub min_players: i32,
    /// Most players, 1 to 6. Four by default.
    #[serde(default = "NewAdventure::default_max_players")]
    pub max_players: i32,
    /// Small picture.
    pub thumbnail_url: Option<String>,
    /// Large picture.
    pub artwork_url: Option<String>,
    /// The story.
    #[serde(default)]
    pub content: AdventureContent,
}

impl Default for NewAdventure {
    fn default() -> Self {
        Self {
            id: None,
            name: String::new(),
            description: None,
            thumbnail_url: None,
            artwork_url: None,
            difficulty: DifficultyLevel::Medium,
            estimated_duration: 60,
            min_players: 2,
            max_players: 4,
            content: AdventureContent::default(),
        }
    }
}

/// What a JSON document that leaves a field out means.
impl NewAdventure {
    fn default_difficulty() -> DifficultyLevel {
        Self::default().difficulty
    }

    fn default_duration() -> i32 {
        Self::default().estimated_duration
    }

    fn default_min_players() -> i32 {
        Self::default().min_players
    }

    fn default_max_players() -> i32 {
        Self::default().max_players
    }
}

/// What to change of an adventure besides its content. `None` leaves a field as it is; `Some(None)` empties it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AdventureChanges {
    /// 3 to 100 characters.
    #[serde(deserialize_with = "crate::values::given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is about.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub description: Option<Option<String>>,
    /// Small picture.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub thumbnail_url: Option<Option<String>>,
    /// Large picture.
    #[serde(deserialize_with = "crate::values::nullable", skip_serializing_if = "Option::is_none")]
    pub artwork_url: Option<Option<String>>,
    /// How hard.
    #[serde(deserialize_with = "crate::values::given", skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<DifficultyLevel>,
    /// Minutes, 1 or more.
    #[serde(deserialize_with = "crate::values::given", skip_serializing_if = "Option::is_none")]
    pub estimated_duration: Option<i32>,
    /// Fewest players, 1 to 6.
    #[serde(deserialize_with = "crate::values::given", skip_serializing_if = "Option::is_none")]
    pub min_players: Option<i32>,
    /// Most players, 1 to 6.
    #[serde(deserialize_with = "crate::values::given", skip_serializing_if = "Option::is_none")]
    pub max_players: Option<i32>,
}

/// The best that players can think of an adventure.
const MAX_RATING: i32 = 5;

/// Operations on adventures: [`Operations::adventures`](crate::Operations::adventures).
#[derive(Debug)]
pub struct Adventures<'a, C> {
    pub(crate) caller: &'a C,
}

impl<C: Caller> Adventures<'_, C> {
    /// Makes a draft of the caller's. Twice with the same id gives the first.
    ///
    /// Who may: a user. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] for name, duration or players, [`Error::IdConflict`], [`Error::NotSignedIn`].
    pub async fn create(self, new: NewAdventure) -> Result<adventures::Model, Error> {
        let id = new.id.unwrap_or_else(Uuid::new_v4);
        let content = json::to_json(&new.content)?;
        operation!(self.caller, "adventures.create", adventure = id, |tx| {
            let creator_id = tx.user()?;
            let row = || adventures::ActiveModel {
                id: Set(id),
                creator_id: Set(creator_id),
                name: Set(new.name.clone()),
                description: Set(new.description.clone()),
                thumbnail_url: Set(new.thumbnail_url.clone()),
                artwork_url: Set(new.artwork_url.clone()),
                difficulty: Set(new.difficulty),
                estimated_duration: Set(new.estimated_duration),
                min_players: Set(new.min_players),
                max_players: Set(new.max_players),
                content: Set(content.clone()),
                ..Default::default()
            };
            rows::insert_or_get(tx, row, adventures::Column::Id, "adventure", rows::Repeat::Remembered).await
        })
    }

    /// Changes what an adventure is called and for whom it is; its content has [`set_content`](Self::set_content).
    /// Nothing to change gives it as it is.
    ///
    /// Who may: the creator, and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`], [`Error::NotFound`], also for somebody else's draft; [`Error::AdventureNotYours`] for
    /// somebody else's that is published; [`Error::NotSignedIn`].
    pub async fn edit(self, id: Uuid, changes: AdventureChanges) -> Result<adventures::Model, Error> {
        let mut row = adventures::ActiveModel::default();
        set_if(&mut row.name, &changes.name);
        set_if(&mut row.description, &changes.description);
        set_if(&mut row.thumbnail_url, &changes.thumbnail_url);
        set_if(&mut row.artwork_url, &changes.artwork_url);
        set_if(&mut row.difficulty, &changes.difficulty);
        set_if(&mut row.estimated_duration, &changes.estimated_duration);
        set_if(&mut row.min_players, &changes.min_players);
        set_if(&mut row.max_players, &changes.max_players);
        operation!(self.caller, "adventures.edit", adventure = id, |tx| { update(tx, id, row.clone()).await })
    }

    /// Replaces the content of a draft; it is valid again once it was judged again.
    ///
    /// Who may: the creator, and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AdventurePublished`], [`Error::NotFound`], [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn set_content(self, id: Uuid, content: &AdventureContent) -> Result<adventures::Model, Error> {
        let content = json::to_json(content)?;
        operation!(self.caller, "adventures.set_content", adventure = id, |tx| {
            update(tx, id, adventures::ActiveModel { content: Set(content.clone()), ..Default::default() }).await
        })
    }

    /// Judges the content, writes the verdict down, and gives every fault with the node that it is at. No fault: the
    /// adventure is valid and may be published.
    ///
    /// Who may: the creator. Six round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn validate(self, id: Uuid) -> Result<Vec<ValidationError>, Error> {
        operation!(self.caller, "adventures.validate", adventure = id, |tx| {
            validate_and_store(self.caller, tx, id).await
        })
    }

    /// Judges the content, and publishes the adventure if it has no fault. A published one stays as it is.
    ///
    /// Who may: the creator. Seven round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AdventureInvalid`] with every fault, [`Error::NotFound`], [`Error::AdventureNotYours`],
    /// [`Error::NotSignedIn`].
    pub async fn publish(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.caller, "adventures.publish", adventure = id, |tx| {
            let faults = validate_and_store(self.caller, tx, id).await?;
            if !faults.is_empty() {
                return Err(Error::AdventureInvalid(faults));
            }
            set_status(tx, id, AdventureStatus::Published).await
        })
    }

    /// Takes an adventure back to a draft, from the catalogue or the archive. Sessions that play it go on.
    ///
    /// Who may: the creator, and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn unpublish(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.caller, "adventures.unpublish", adventure = id, |tx| {
            set_status(tx, id, AdventureStatus::Draft).await
        })
    }

    /// Puts an adventure away: out of the catalogue, its history kept.
    ///
    /// Who may: the creator, and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn archive(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.caller, "adventures.archive", adventure = id, |tx| {
            set_status(tx, id, AdventureStatus::Archived).await
        })
    }

    /// Deletes an adventure that was never played, with its creatures.
    ///
    /// Who may: the creator, and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::StillReferenced`] for one that a session plays or played: archive it; [`Error::NotFound`],
    /// [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn delete(self, id: Uuid) -> Result<(), Error> {
        operation!(self.caller, "adventures.delete", adventure = id, |tx| {
            let gone = adventures::Entity::delete_by_id(id).exec(tx).await?;
            if gone.rows_affected == 0 {
                rows::find::<adventures::Entity>(tx, id, "adventure").await?;
                return Err(Error::AdventureNotYours);
            }
            Ok(())
        })
    }

    /// One adventure with its content.
    ///
    /// Who may: everybody where it is published, else the creator. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn get(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.caller, reads "adventures.get", adventure = id, |tx| {
            rows::find::<adventures::Entity>(tx, id, "adventure").await
        })
    }

    /// Sets what players think of an adventure: 0 to 5, or nothing yet. Who rates, and how, is the service's to
    /// say; the catalogue is ordered by it.
    ///
    /// Who may: the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`], [`Error::InvalidValue`].
    pub async fn set_rating(self, id: Uuid, average: Option<Decimal>) -> Result<adventures::Model, Error> {
        if average.is_some_and(|average| average < Decimal::ZERO || average > Decimal::from(MAX_RATING)) {
            return Err(Error::InvalidValue { field: "average_rating", rule: "must be 0 to 5" });
        }
        operation!(self.caller, "adventures.set_rating", adventure = id, |tx| {
            update(tx, id, adventures::ActiveModel { average_rating: Set(average), ..Default::default() }).await
        })
        .map_err(|error| error.with_rule("only the service may rate an adventure"))
    }
}

async fn set_status(tx: &UncheckedTransaction, id: Uuid, status: AdventureStatus) -> Result<adventures::Model, Error> {
    update(tx, id, adventures::ActiveModel { status: Set(status), ..Default::default() }).await
}

/// What row security hides from an update is not there; whether it can be read decides what the caller is told.
async fn update(tx: &UncheckedTransaction, id: Uuid, row: adventures::ActiveModel) -> Result<adventures::Model, Error> {
    match rows::update_returning(tx, row, id, adventures::Column::Id).await? {
        Some(adventure) => Ok(adventure),
        None => {
            rows::find::<adventures::Entity>(tx, id, "adventure").await?;
            Err(Error::AdventureNotYours)
        }
    }
}

const STORE_VALIDATION: &str = "UPDATE public.adventures
     SET is_valid = $2, validation_errors = $3
     WHERE id = $1
       AND updated_at = $4
       AND status <> 'published'";

/// Reads the content as its creator and stores what is wrong with it, which is the server's to write: as `service_role` in
/// the same transaction, which holds the row; or, where the service has a login of its own, in one of the service's.
async fn validate_and_store(
    caller: &impl Sealed,
    tx: &UncheckedTransaction,
    id: Uuid,
) -> Result<Vec<ValidationError>, Error> {
    let creator = tx.user()?;
    let mut find = adventures::Entity::find_by_id(id).filter(adventures::Column::CreatorId.eq(creator));
    let is_here = tx.may_take_role(SERVICE_ROLE);
    if is_here {
        find = find.lock_exclusive();
    }
    let Some(adventure) = find.one(tx).await? else {
        rows::find::<adventures::Entity>(tx, id, "adventure").await?;
        return Err(Error::AdventureNotYours);
    };
    let faults = match json::from_json::<AdventureContent>(adventure.content, "content") {
        Ok(content) => content.validate(),
        Err(_) => vec![ValidationError { node: None, kind: ValidationErrorKind::Unreadable }],
    };
    // A published adventure is valid and cannot be edited: there is nothing to store.
    if adventure.status == AdventureStatus::Published {
        return Ok(faults);
    }
    let values = [id.into(), faults.is_empty().into(), json!(faults).into(), adventure.updated_at.into()];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, STORE_VALIDATION, values);
    if is_here {
        tx.execute_as_service(statement).await?;
        return Ok(faults);
    }
    let service = caller.as_service().ok_or(Error::NotAllowed {
        rule: "where the service has a login of its own, an adventure must be validated outside of a transaction",
    })?;
    let service = Unchecked::begin_unchecked(&service, TransactionOptions::default(), caller.deadline()).await?;
    let stored = service.execute_raw(statement).await?;
    service.commit().await?;
    // Somebody edited it meanwhile: begin again.
    if stored.rows_affected() == 0 { Err(Error::Busy) } else { Ok(faults) }
}
