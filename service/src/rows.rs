//! One row at a time: made once however often it is asked for, found, changed; and many, read.

use std::marker::PhantomData;

use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ColumnTrait, Condition, DbErr, EntityName, EntityTrait, IdenStatic,
    IntoActiveModel, Iterable, PrimaryKeyTrait, QueryFilter, RuntimeErr, Statement, TryInsertResult, Value,
    sea_query::{Expr, SimpleExpr, sea_value_to_json_value},
    sqlx::{self, Column as _, Decode, Postgres, Row, Type, postgres::PgRow},
};
use uuid::Uuid;

use crate::{
    Error,
    connection::{OperationTransaction, UncheckedTransaction},
};

/// How a row of that id is known to be the answer to the same request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Repeat<C> {
    /// It never changes: by all its columns that were asked for, and by who asked, which the database writes down in that
    /// column.
    Unchanged(C),
    /// It may have changed: by what was asked when it was created, of which the database keeps a digest.
    Remembered,
}

/// Inserts the row, or gives the one that its id has already, if it was created by the same request of the same caller.
/// PostgreSQL compares the values, so that a number is the same however it is written.
///
/// A retry after a lost answer is safe. One round trip; two where the row is there. With two at once, the second waits for
/// the first and finds it.
pub(crate) async fn insert_or_get<A>(
    tx: &UncheckedTransaction,
    row: impl Fn() -> A,
    id: <A::Entity as EntityTrait>::Column,
    what: &'static str,
    repeat: Repeat<<A::Entity as EntityTrait>::Column>,
) -> Result<<A::Entity as EntityTrait>::Model, Error>
where
    A: ActiveModelTrait + ActiveModelBehavior + Send,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
{
    if let Some(model) = insert_if_absent(tx, row(), [id]).await? {
        return Ok(model);
    }
    let row = row();
    let there = A::Entity::find().filter(equal(&row, [id]));
    let there = match repeat {
        Repeat::Unchanged(asker) => there
            .filter(equal(&row, <A::Entity as EntityTrait>::Column::iter()))
            .filter(is(asker, tx.caller().user().into())),
        Repeat::Remembered => {
            let table = A::Entity::default().table_name().to_owned();
            let same = "private.is_same_request($1, $2)";
            there.filter(Expr::cust_with_values(same, [Value::from(table), asked(&row).into()]))
        }
    };
    there.one(tx).await?.ok_or(Error::IdConflict { what })
}

/// What the row sets, as a document that PostgreSQL reads by the types of the columns.
fn asked<A: ActiveModelTrait>(row: &A) -> serde_json::Value {
    let columns = <A::Entity as EntityTrait>::Column::iter();
    let set = columns.filter_map(|column| {
        let value = match row.get(column).into_value()? {
            // SeaQuery's own conversion writes it with the quotes of a literal.
            Value::ChronoDateTimeWithTimeZone(Some(time)) => serde_json::Value::String(time.to_rfc3339()),
            value => sea_value_to_json_value(&value),
        };
        Some((column.as_str().to_owned(), value))
    });
    serde_json::Value::Object(set.collect())
}

/// Those of the columns that the row sets, as it sets them.
fn equal<A: ActiveModelTrait>(
    row: &A,
    columns: impl IntoIterator<Item = <A::Entity as EntityTrait>::Column>,
) -> Condition {
    columns
        .into_iter()
        .filter_map(|column| Some(is(column, row.get(column).into_value()?)))
        .fold(Condition::all(), Condition::add)
}

fn is<C: ColumnTrait>(column: C, value: Value) -> SimpleExpr {
    if value == value.as_null() { column.is_null() } else { column.eq(value) }
}

/// Inserts the row unless one with the same key is there: `INSERT ... ON CONFLICT (key) DO NOTHING RETURNING *`.
pub(crate) async fn insert_if_absent<A>(
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
pub(crate) async fn update_returning<A>(
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
pub(crate) async fn fetch_all<T>(
    tx: &UncheckedTransaction,
    statement: Statement,
    read: impl Fn(&[PgRow]) -> Result<Vec<T>, DbErr>,
) -> Result<Vec<T>, Error> {
    Ok(read(&tx.fetch_all(statement).await?)?)
}

/// Reads the rows of a hot list by the names of its columns: `decode_rows!(rows => Card { id, status })`. Where each stands, and whether
/// it has the field's type, is looked up once an answer; SeaORM's own way does so for every cell.
macro_rules! decode_rows {
    ($rows:expr => $type:ident { $($field:ident),+ $(,)? }) => {{
        let rows: &[sea_orm::sqlx::postgres::PgRow] = $rows;
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        $(let $field = $crate::rows::Column::of(first, stringify!($field))?;)+
        rows.iter().map(|row| Ok($type { $($field: $field.read(row)?),+ })).collect()
    }};
}

/// The columns of a hot list, as its statement names them, and what reads its rows: `row_decoder!(COLUMNS, cards: Card { id, status })`.
macro_rules! row_decoder {
    ($columns:ident, $read:ident: $type:ident { $first:ident $(, $field:ident)* $(,)? }) => {
        const $columns: &str = concat!(stringify!($first) $(, ", ", stringify!($field))*);

        fn $read(rows: &[sea_orm::sqlx::postgres::PgRow]) -> Result<Vec<$type>, sea_orm::DbErr> {
            $crate::rows::decode_rows!(rows => $type { $first $(, $field)* })
        }
    };
}

pub(crate) use {decode_rows, row_decoder};

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
