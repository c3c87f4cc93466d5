//! Creating twice with the same id gives the first result: a retry after a lost answer is safe.

use sea_orm::{ActiveModelBehavior, ActiveModelTrait, EntityTrait, IntoActiveModel, PrimaryKeyTrait, TryInsertResult};
use uuid::Uuid;

use crate::{Error, connection::Transaction};

/// Inserts the row, or gives the one that its id has already if `is_same` says that it is what was meant.
///
/// One round trip; two where the row is there. With two at once, the second waits for the first and finds it.
pub(crate) async fn once<A>(
    tx: &Transaction,
    row: A,
    id: Uuid,
    id_column: <A::Entity as EntityTrait>::Column,
    what: &'static str,
    is_same: impl FnOnce(&<A::Entity as EntityTrait>::Model) -> bool,
) -> Result<<A::Entity as EntityTrait>::Model, Error>
where
    A: ActiveModelTrait + ActiveModelBehavior + Send,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
    <<A::Entity as EntityTrait>::PrimaryKey as PrimaryKeyTrait>::ValueType: From<Uuid>,
{
    let inserted = A::Entity::insert(row).on_conflict_do_nothing_on([id_column]).exec_with_returning(tx).await?;
    if let TryInsertResult::Inserted(model) = inserted {
        return Ok(model);
    }
    A::Entity::find_by_id(id).one(tx).await?.filter(is_same).ok_or(Error::IdConflict { what })
}
