//! One row at a time: made once however often it is asked for, found, changed; and many, read.

use std::marker::PhantomData;

use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ColumnTrait, DbErr, EntityTrait, IntoActiveModel, PrimaryKeyTrait,
    QueryFilter, RuntimeErr, Statement, TryInsertResult,
    sqlx::{self, Column as _, Decode, Postgres, Row, Type, postgres::PgRow},
};
use uuid::Uuid;

use crate::{Error, connection::UncheckedTransaction};

/// Inserts the row, or gives the one that its id has already if `is_same` says that it is what was meant.
///
/// A retry after a lost answer is safe. One round trip; two where the row is there. With two at once, the second waits for the first and finds it.
pub(crate) async fn once<A>(
    tx: &UncheckedTransaction,
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
    tx: &UncheckedTransaction,
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
pub(crate) async fn find<E>(tx: &UncheckedTransaction, id: Uuid, what: &'static str) -> Result<E::Model, Error>
where
    E: EntityTrait,
    <E::PrimaryKey as PrimaryKeyTrait>::ValueType: From<Uuid>,
{
    E::find_by_id(id).one(tx).await?.ok_or(Error::NotFound { what })
}

/// Changes the row of that id and gives it as it is then; none where the caller may not, or there is none. Nothing to
/// change gives it as it is. One round trip.
pub(crate) async fn change<A>(
    tx: &UncheckedTransaction,
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
    tx: &UncheckedTransaction,
    statement: Statement,
    read: impl Fn(&[PgRow]) -> Result<Vec<T>, DbErr>,
) -> Result<Vec<T>, Error> {
    Ok(read(&tx.fetch_all(statement).await?)?)
}

/// Reads the rows of a hot list by the names of its columns: `read!(rows => Card { id, status })`. Where each stands, and whether
/// it has the field's type, is looked up once an answer; SeaORM's own way does so for every cell.
macro_rules! read {
    ($rows:expr => $type:ident { $($field:ident),+ $(,)? }) => {{
        let rows: &[sea_orm::sqlx::postgres::PgRow] = $rows;
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        $(let $field = $crate::rows::Column::of(first, stringify!($field))?;)+
        rows.iter().map(|row| Ok($type { $($field: $field.read(row)?),+ })).collect()
    }};
}

/// The columns of a hot list, as its statement names them, and what reads its rows: `list!(COLUMNS, cards: Card { id, status })`.
macro_rules! list {
    ($columns:ident, $read:ident: $type:ident { $first:ident $(, $field:ident)* $(,)? }) => {
        const $columns: &str = concat!(stringify!($first) $(, ", ", stringify!($field))*);

        fn $read(rows: &[sea_orm::sqlx::postgres::PgRow]) -> Result<Vec<$type>, sea_orm::DbErr> {
            $crate::rows::read!(rows => $type { $first $(, $field)* })
        }
    };
}

pub(crate) use {list, read};

/// A column of an answer, of a type that it was looked whether it has.
pub(crate) struct Column<T>(usize, PhantomData<T>);

impl<T: Type<Postgres> + for<'r> Decode<'r, Postgres>> Column<T> {
    /// The column of that name.
    pub(crate) fn of(row: &PgRow, name: &str) -> Result<Self, DbErr> {
        let column = row.try_column(name).map_err(unreadable)?;
        if T::compatible(column.type_info()) {
            Ok(Self(column.ordinal(), PhantomData))
        } else {
            Err(DbErr::Type(format!("column {name} is of type {}, which is not the field's", column.type_info())))
        }
    }

    /// Its cell in a row of the answer.
    pub(crate) fn read(&self, row: &PgRow) -> Result<T, DbErr> {
        row.try_get_unchecked(self.0).map_err(unreadable)
    }
}

/// One cell.
pub(crate) fn cell<T: Type<Postgres> + for<'r> Decode<'r, Postgres>>(row: &PgRow, name: &str) -> Result<T, DbErr> {
    Column::of(row, name)?.read(row)
}

fn unreadable(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

/// Sets a field that is to be changed.
pub(crate) fn set_if<T: Clone + Into<sea_orm::Value>>(field: &mut sea_orm::ActiveValue<T>, to: &Option<T>) {
    if let Some(value) = to {
        *field = sea_orm::ActiveValue::Set(value.clone());
    }
}
