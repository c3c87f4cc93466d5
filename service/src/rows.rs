//! One row at a time: made once however often it is asked for, found, changed; and many, read.

use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel,
    PrimaryKeyTrait, QueryFilter, QueryResult, Statement, TryInsertResult,
};
use uuid::Uuid;

use crate::{Error, connection::Worn};

/// Inserts the row, or gives the one that its id has already if `is_same` says that it is what was meant.
///
/// A retry after a lost answer is safe. One round trip; two where the row is there. With two at once, the second waits for the first and finds it.
pub(crate) async fn once<A>(
    tx: &Worn,
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
    tx: &Worn,
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

/// The row of that id, as far as the caller sees it.
pub(crate) async fn find<E>(tx: &Worn, id: Uuid, what: &'static str) -> Result<E::Model, Error>
where
    E: EntityTrait,
    <E::PrimaryKey as PrimaryKeyTrait>::ValueType: From<Uuid>,
{
    E::find_by_id(id).one(tx).await?.ok_or(Error::NotFound { what })
}

/// Changes the row of that id and gives it as it is then; none where the caller may not, or there is none. Nothing to
/// change gives it as it is. One round trip.
pub(crate) async fn change<A>(
    tx: &Worn,
    row: A,
    id: Uuid,
    id_column: <A::Entity as EntityTrait>::Column,
) -> Result<Option<<A::Entity as EntityTrait>::Model>, Error>
where
    A: ActiveModelTrait + ActiveModelBehavior + Send,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
    <<A::Entity as EntityTrait>::PrimaryKey as PrimaryKeyTrait>::ValueType: From<Uuid>,
{
    if !row.is_changed() {
        return Ok(A::Entity::find_by_id(id).one(tx).await?);
    }
    let changed = A::Entity::update_many().set(row).filter(id_column.eq(id)).exec_with_returning(tx).await?;
    Ok(changed.into_iter().next())
}

/// All rows of a statement.
pub(crate) async fn all<T>(
    tx: &Worn,
    statement: Statement,
    read: impl Fn(&QueryResult) -> Result<T, DbErr>,
) -> Result<Vec<T>, Error> {
    Ok(tx.query_all_raw(statement).await?.iter().map(read).collect::<Result<_, _>>()?)
}

/// Reads a row of the hot lists by the plain names of its columns: `read!(row => Card { id, status })`. SeaORM's own way puts
/// each name together anew for every cell, with a prefix that is empty here.
macro_rules! read {
    ($row:ident => $type:ident { $($field:ident),+ $(,)? }) => {
        Ok($type { $($field: $row.try_get_by(stringify!($field))?),+ })
    };
}

pub(crate) use read;

/// Sets a field that is to be changed.
pub(crate) fn set_if<T: Clone + Into<sea_orm::Value>>(field: &mut sea_orm::ActiveValue<T>, to: &Option<T>) {
    if let Some(value) = to {
        *field = sea_orm::ActiveValue::Set(value.clone());
    }
}
