//! Adventures, from draft to catalogue. An adventure is a draft until its creator publishes it; then the catalogue
//! lists it, until it is unpublished or archived.
//!
//! ```
//! use service::{Error, Operations, Sparc, adventures::{AdventureContent, NewAdventure}};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(demo.url()).await?;
//! # let (seer_id, content) = (demo.seer, AdventureContent::single_scene("It rains."));
//! let morgan = sparc.as_user(seer_id);
//! let new_adventure = NewAdventure { name: "The Drowned Ford".into(), content, ..Default::default() };
//! let draft = morgan.adventures().create(new_adventure).await?;
//! match morgan.adventures().publish(draft.id).await {
//!     Ok(adventure) => println!("published at {:?}", adventure.published_at),
//!     Err(Error::AdventureInvalid(errors)) => println!("{} validation errors", errors.len()),
//!     Err(other) => return Err(other.into()),
//! }
//! # Ok(())
//! # }
//! ```

mod catalogue;
mod inputs;

use entity::{adventures, sea_orm_active_enums::AdventureStatus};
use rls::{supabase::SERVICE_ROLE, unguarded::UnguardedExt};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QuerySelect, Statement,
    TransactionOptions, prelude::Decimal,
};
use serde_json::json;
use uuid::Uuid;

pub use crate::content::{AdventureContent, Node, NodeConnection, NodeKind, ValidationError, ValidationErrorKind};
pub use catalogue::{AdventureSummary, CatalogueFilter, CatalogueOrder};
pub use inputs::{AdventureChanges, NewAdventure};

use crate::{
    Error, Executor,
    connection::{OperationTransaction, OperationTransactionExt},
    json,
    operation::operation,
    rows::{self, set_if_some},
};

/// Maximum average rating.
const MAX_RATING: i32 = 5;

/// Operations on adventures: [`Operations::adventures`](crate::Operations::adventures).
#[derive(Debug)]
pub struct Adventures<'a, C> {
    pub(crate) executor: &'a C,
}

impl<C: Executor> Adventures<'_, C> {
    /// Creates a draft for the caller. Repeating the request with the same id returns the existing adventure. An
    /// account can have two hundred adventures.
    ///
    /// Who may: a user. Three round trips, or four if the request is repeated. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AdventureLimitReached`] with two hundred adventures, [`Error::InvalidValue`], [`Error::IdConflict`],
    /// [`Error::NotSignedIn`].
    pub async fn create(self, adventure: NewAdventure) -> Result<adventures::Model, Error> {
        let id = adventure.id.unwrap_or_else(Uuid::new_v4);
        let content = json::to_json(&adventure.content)?;
        operation!(self.executor, "adventures.create", adventure = id, |tx| {
            let creator_id = tx.user_id()?;
            let build_row = || adventures::ActiveModel {
                id: Set(id),
                creator_id: Set(creator_id),
                name: Set(adventure.name.clone()),
                description: Set(adventure.description.clone()),
                thumbnail_url: Set(adventure.thumbnail_url.clone()),
                artwork_url: Set(adventure.artwork_url.clone()),
                difficulty: Set(adventure.difficulty),
                estimated_duration: Set(adventure.estimated_duration),
                min_players: Set(adventure.min_players),
                max_players: Set(adventure.max_players),
                content: Set(content.clone()),
                ..Default::default()
            };
            rows::insert_or_get(tx, build_row, adventures::Column::Id, "adventure", rows::RepeatCheck::ByDigest).await
        })
    }

    /// Changes an adventure except its content, which [`set_content`](Self::set_content) replaces. Without changes,
    /// returns it as it is, to everyone who may read it.
    ///
    /// Who may: the creator and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`]; [`Error::NotFound`], also for another user's adventure that is not published;
    /// [`Error::AdventureNotYours`] for another user's published adventure; [`Error::NotSignedIn`].
    pub async fn edit(self, id: Uuid, changes: AdventureChanges) -> Result<adventures::Model, Error> {
        let mut row = adventures::ActiveModel::default();
        set_if_some(&mut row.name, &changes.name);
        set_if_some(&mut row.description, &changes.description);
        set_if_some(&mut row.thumbnail_url, &changes.thumbnail_url);
        set_if_some(&mut row.artwork_url, &changes.artwork_url);
        set_if_some(&mut row.difficulty, &changes.difficulty);
        set_if_some(&mut row.estimated_duration, &changes.estimated_duration);
        set_if_some(&mut row.min_players, &changes.min_players);
        set_if_some(&mut row.max_players, &changes.max_players);
        operation!(self.executor, "adventures.edit", adventure = id, |tx| {
            update_adventure(tx, id, row.clone()).await
        })
    }

    /// Replaces the content of an unpublished adventure. If the content differs from the previous one, the adventure is
    /// then not valid until it is validated again.
    ///
    /// Who may: the creator and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AdventurePublished`], [`Error::InvalidValue`] for content above 1 MiB and for text that contains NUL,
    /// [`Error::NotFound`], [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn set_content(self, id: Uuid, content: &AdventureContent) -> Result<adventures::Model, Error> {
        let content = json::to_json(content)?;
        operation!(self.executor, "adventures.set_content", adventure = id, |tx| {
            let row = adventures::ActiveModel { content: Set(content.clone()), ..Default::default() };
            update_adventure(tx, id, row).await
        })
    }

    /// Validates the content, stores the result and returns every error with the node that it concerns. Without errors,
    /// the adventure is valid and can be published.
    ///
    /// If the service has a login of its own ([`Options::service_url`](crate::Options::service_url)), the result is
    /// stored in a separate transaction of that login, which would not see what the caller's transaction has written.
    /// In a caller's transaction, this operation then fails with [`Error::NotAllowed`], unless the adventure is already
    /// published.
    ///
    /// Who may: the creator. Six round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn validate(self, id: Uuid) -> Result<Vec<ValidationError>, Error> {
        operation!(self.executor, "adventures.validate", adventure = id, |tx| {
            validate_and_store(self.executor, tx, id).await
        })
    }

    /// Validates the content, and publishes the adventure if there are no errors. If it is already published, only
    /// `updated_at` changes. If it was published before, it keeps its first `published_at`. In a caller's transaction,
    /// the restriction of [`validate`](Self::validate) applies.
    ///
    /// Who may: the creator. Seven round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AdventureInvalid`] with every validation error, [`Error::NotFound`], [`Error::AdventureNotYours`],
    /// [`Error::NotSignedIn`].
    pub async fn publish(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.executor, "adventures.publish", adventure = id, |tx| {
            let errors = validate_and_store(self.executor, tx, id).await?;
            if !errors.is_empty() {
                return Err(Error::AdventureInvalid(errors));
            }
            let outcome = set_status(tx, id, AdventureStatus::Published).await;
            // The content has just been found valid. If the database refuses it now, it has changed meanwhile, and
            // another attempt validates it again.
            outcome.map_err(|error| if matches!(error, Error::AdventureInvalid(_)) { Error::Busy } else { error })
        })
    }

    /// Makes a published or archived adventure a draft again. Sessions that play it continue.
    ///
    /// Who may: the creator and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AccountClosed`] if the creator's account is closed, [`Error::NotFound`], [`Error::AdventureNotYours`],
    /// [`Error::NotSignedIn`].
    pub async fn unpublish(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.executor, "adventures.unpublish", adventure = id, |tx| {
            set_status(tx, id, AdventureStatus::Draft).await
        })
    }

    /// Archives an adventure: it leaves the catalogue and keeps its history.
    ///
    /// Who may: the creator and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn archive(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.executor, "adventures.archive", adventure = id, |tx| {
            set_status(tx, id, AdventureStatus::Archived).await
        })
    }

    /// Deletes an adventure that has no history, together with its creatures. It has history if one of its sessions is
    /// live, or has ended and had a player besides its Seer. Other ended sessions are deleted with the adventure.
    ///
    /// Who may: the creator and the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::StillReferenced`] if it has history (archive it instead); [`Error::NotFound`],
    /// [`Error::AdventureNotYours`], [`Error::NotSignedIn`].
    pub async fn delete(self, id: Uuid) -> Result<(), Error> {
        operation!(self.executor, "adventures.delete", adventure = id, |tx| {
            let deleted = adventures::Entity::delete_by_id(id).exec(tx).await?;
            if deleted.rows_affected == 0 {
                rows::require::<adventures::Entity>(tx, id, "adventure").await?;
                return Err(Error::AdventureNotYours);
            }
            Ok(())
        })
    }

    /// Returns an adventure with its content.
    ///
    /// Who may: everyone if it is published; otherwise its creator and the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn get(self, id: Uuid) -> Result<adventures::Model, Error> {
        operation!(self.executor, reads "adventures.get", adventure = id, |tx| {
            rows::require::<adventures::Entity>(tx, id, "adventure").await
        })
    }

    /// Sets the average rating of an adventure, 0 to 5, or removes it. The service decides who rates and how; the
    /// catalogue can be sorted by rating.
    ///
    /// Who may: the service. Three round trips. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`], [`Error::NotFound`], [`Error::InvalidValue`].
    pub async fn set_average_rating(self, id: Uuid, average: Option<Decimal>) -> Result<adventures::Model, Error> {
        if average.is_some_and(|average| average < Decimal::ZERO || average > Decimal::from(MAX_RATING)) {
            return Err(Error::InvalidValue { field: "average_rating", rule: "must be 0 to 5" });
        }
        operation!(self.executor, "adventures.set_average_rating", adventure = id, |tx| {
            let row = adventures::ActiveModel { average_rating: Set(average), ..Default::default() };
            update_adventure(tx, id, row).await
        })
        .map_err(|error| error.with_rule_if_not_allowed("only the service may set a rating"))
    }
}

async fn set_status(tx: &OperationTransaction, id: Uuid, status: AdventureStatus) -> Result<adventures::Model, Error> {
    update_adventure(tx, id, adventures::ActiveModel { status: Set(status), ..Default::default() }).await
}

/// Updates an adventure. If the caller may not update it, the error is `AdventureNotYours` if they can read it, and
/// otherwise `NotFound`.
async fn update_adventure(
    tx: &OperationTransaction,
    id: Uuid,
    row: adventures::ActiveModel,
) -> Result<adventures::Model, Error> {
    match rows::update_returning(tx, row, id, adventures::Column::Id).await? {
        Some(adventure) => Ok(adventure),
        None => {
            rows::require::<adventures::Entity>(tx, id, "adventure").await?;
            Err(Error::AdventureNotYours)
        }
    }
}

/// Matches no row if the adventure was edited or published after it was read.
const STORE_VALIDATION: &str = "UPDATE public.adventures
     SET is_valid = $2, validation_errors = $3
     WHERE id = $1
       AND updated_at = $4
       AND status <> 'published'";

/// Reads the content as the adventure's creator, validates it, and stores the result as the service, because users may
/// not write the result. If users and the service have a single login, this is one transaction, which locks the row.
/// Otherwise a second transaction, through the service's own login, stores the result.
async fn validate_and_store(
    executor: &impl Executor,
    tx: &OperationTransaction,
    id: Uuid,
) -> Result<Vec<ValidationError>, Error> {
    let creator_id = tx.user_id()?;
    let mut query = adventures::Entity::find_by_id(id).filter(adventures::Column::CreatorId.eq(creator_id));
    let has_single_login = tx.can_execute_as_role(SERVICE_ROLE);
    if has_single_login {
        query = query.lock_exclusive();
    }
    let Some(adventure) = query.one(tx).await? else {
        rows::require::<adventures::Entity>(tx, id, "adventure").await?;
        return Err(Error::AdventureNotYours);
    };
    let errors = match json::from_json::<AdventureContent>(adventure.content, "content") {
        Ok(content) => content.validate(),
        Err(_) => vec![ValidationError { node: None, kind: ValidationErrorKind::Unreadable }],
    };
    // A published adventure is valid and its content cannot change, so there is nothing to store.
    if adventure.status == AdventureStatus::Published {
        return Ok(errors);
    }
    let is_stored = adventure.is_valid == errors.is_empty() && adventure.validation_errors == json!(errors);
    let values = [id.into(), errors.is_empty().into(), json!(errors).into(), adventure.updated_at.into()];
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, STORE_VALIDATION, values);
    if has_single_login {
        tx.execute_as_service(statement).await?;
        return Ok(errors);
    }
    let service_connection = executor.as_service().ok_or(Error::NotAllowed {
        rule: "an adventure must be validated outside a transaction if the service has its own login",
    })?;
    // Storing the same result again would change `updated_at`. If transactions are REPEATABLE READ by default, every
    // attempt of `publish` would then fail: it updates the row in `tx`, whose snapshot is older than the stored result.
    if is_stored {
        return Ok(errors);
    }
    let service_tx =
        UnguardedExt::begin_unguarded(&service_connection, TransactionOptions::default(), executor.deadline()).await?;
    let update_result = service_tx.execute_raw(statement).await?;
    service_tx.commit().await?;
    // After `Busy`, the operation is retried: it reads the adventure again.
    if update_result.rows_affected() == 0 { Err(Error::Busy) } else { Ok(errors) }
}
