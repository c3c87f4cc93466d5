//! One row at a time: made once however often it is asked for, found, changed; and many, read.

use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel,
    PrimaryKeyTrait, QueryFilter, QueryResult, Statement, TryInsertResult,
    sqlx::{Column, Row},
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
    read: impl Fn(&[QueryResult]) -> Result<Vec<T>, DbErr>,
) -> Result<Vec<T>, Error> {
    Ok(read(&tx.query_all_raw(statement).await?)?)
}

/// Reads the rows of a hot list by the names of its columns: `read!(rows => Card { id, status })`. Where each stands is looked
/// up once an answer; SeaORM's own way puts each name together, and looks it up, for every cell.
macro_rules! read {
    ($rows:expr => $type:ident { $($field:ident),+ $(,)? }) => {{
        let [$($field),+] = $crate::rows::places($rows, [$(stringify!($field)),+])?;
        let mut read = Vec::with_capacity($rows.len());
        for row in $rows {
            read.push($type { $($field: row.try_get_by_index($field)?),+ });
        }
        Ok(read)
    }};
}

pub(crate) use read;

/// Where the columns of these names stand in an answer.
pub(crate) fn places<const N: usize>(rows: &[QueryResult], names: [&str; N]) -> Result<[usize; N], DbErr> {
    let mut places = [0; N];
    let Some(first) = rows.first() else { return Ok(places) };
    let columns = first.try_as_pg_row().map(Row::columns).unwrap_or_default();
    for (place, name) in places.iter_mut().zip(names) {
        let missing = || DbErr::Type(format!("the answer has no column {name}"));
        *place = columns.iter().position(|column| column.name() == name).ok_or_else(missing)?;
    }
    Ok(places)
}

/// Sets a field that is to be changed.
pub(crate) fn set_if<T: Clone + Into<sea_orm::Value>>(field: &mut sea_orm::ActiveValue<T>, to: &Option<T>) {
    if let Some(value) = to {
        *field = sea_orm::ActiveValue::Set(value.clone());
    }
}
