//! Creating twice with the same id gives the first result: a retry after a lost answer is safe.

use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, DbErr, EntityTrait, IntoActiveModel, PrimaryKeyTrait, TryInsertResult,
};
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
    if let Some(model) = unless_there(tx, row, [id_column]).await? {
        return Ok(model);
    }
    A::Entity::find_by_id(id).one(tx).await?.filter(is_same).ok_or(Error::IdConflict { what })
}

/// Inserts the row unless one with the same key is there: `INSERT ... ON CONFLICT (key) DO NOTHING RETURNING *`.
pub(crate) async fn unless_there<A>(
    tx: &Transaction,
    row: A,
    key: impl IntoIterator<Item = <A::Entity as EntityTrait>::Column>,
) -> Result<Option<<A::Entity as EntityTrait>::Model>, Error>
where
    A: ActiveModelTrait + ActiveModelBehavior + Send,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
{
    match A::Entity::insert(row).on_conflict_do_nothing_on(key).exec_with_returning(tx).await {
        Ok(TryInsertResult::Inserted(model)) => Ok(Some(model)),
        Ok(TryInsertResult::Conflicted | TryInsertResult::Empty) => Ok(None),
        // No row came back: where SeaORM asks for one, it says so, and not that there was a conflict.
        Err(DbErr::RecordNotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
