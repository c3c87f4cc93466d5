//! Reading, updating and idempotently inserting single rows, and fast decoding of many rows.

mod inserts;

use std::marker::PhantomData;

use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityName, EntityTrait,
    FromQueryResult, IdenStatic, IntoActiveModel, Iterable, PrimaryKeyTrait, QueryFilter, RuntimeErr, Statement, Value,
    sea_query::{Expr, SimpleExpr, sea_value_to_json_value},
    sqlx::{self, Column as _, Decode, Postgres, Row, Type, postgres::PgRow},
};
use uuid::Uuid;

pub(crate) use inserts::ExistenceCheck;

use crate::{
    Error,
    connection::{OperationTransaction, OperationTransactionExt},
};

/// How to tell whether an existing row with the requested id was created by the same request.
#[derive(Clone, Debug)]
pub(crate) enum RepeatCheck<C> {
    /// For rows that the requests of users never change: compares all columns that the request sets, and the column
    /// `author`, in which the database stores the row's author.
    ByColumnsAndAuthor {
        author: C,
        /// A column that the database may have changed since, and a condition that is true if it may have done so.
        changed_by_database: Option<(C, SimpleExpr)>,
    },
    /// For rows that may change: compares the digest of the original request, which the database keeps.
    ByDigest,
}

/// Inserts the row and returns it. If a row with the same id exists, and the same caller created that row with the same
/// request, returns that row. PostgreSQL compares the values, so that notations of the same number (12 and 12.0) are
/// equal. `what` is the kind of row, for the error if another request created the existing row. `build_row` is called
/// again if the row exists.
///
/// So a caller can repeat a call whose answer was lost, even if the creation would be refused by now. A call takes one
/// round trip, or two if the row exists. Of two concurrent calls for the same request, the second waits for the first
/// and returns the row that the first inserted.
pub(crate) async fn insert_or_get<A>(
    tx: &OperationTransaction,
    build_row: impl Fn() -> A,
    id_column: <A::Entity as EntityTrait>::Column,
    what: &'static str,
    repeat_check: RepeatCheck<<A::Entity as EntityTrait>::Column>,
) -> Result<<A::Entity as EntityTrait>::Model, Error>
where
    A: ActiveModelTrait + ActiveModelBehavior + Send + 'static,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
{
    if let Some(model) = insert_if_absent(tx, build_row(), [id_column], ExistenceCheck::ByLookUp).await? {
        return Ok(model);
    }
    let row = build_row();
    let query = A::Entity::find().filter(matches_values_of(&row, [id_column]));
    let query = match repeat_check {
        RepeatCheck::ByColumnsAndAuthor { author, changed_by_database } => {
            let (changed_column, change_condition) = changed_by_database.unzip();
            let is_unchanged = |column: &<A::Entity as EntityTrait>::Column| {
                changed_column.as_ref().is_none_or(|changed| changed.as_str() != column.as_str())
            };
            let query = query
                .filter(matches_values_of(&row, <A::Entity as EntityTrait>::Column::iter().filter(is_unchanged)))
                .filter(equals(author, tx.caller_identity().user_id().into()));
            match change_condition {
                Some(condition) => {
                    query.filter(Condition::any().add(matches_values_of(&row, changed_column)).add(condition))
                }
                None => query,
            }
        }
        RepeatCheck::ByDigest => {
            let table = A::Entity::default().table_name().to_owned();
            let is_same_request_sql = "private.is_same_request($1, $2)";
            let requested_row = requested_row_as_json(&row);
            query.filter(Expr::cust_with_values(is_same_request_sql, [Value::from(table), requested_row.into()]))
        }
    };
    query.one(tx).await?.ok_or(Error::IdConflict { what })
}

/// Returns the values that the row sets, as a JSON object. PostgreSQL converts them to the types of the columns.
fn requested_row_as_json<A: ActiveModelTrait>(row: &A) -> serde_json::Value {
    let columns = <A::Entity as EntityTrait>::Column::iter();
    let members = columns.filter_map(|column| {
        let value = match row.get(column).into_value()? {
            // SeaQuery's own conversion of a time keeps the quotes of the SQL literal.
            Value::ChronoDateTimeWithTimeZone(Some(time)) => serde_json::Value::String(time.to_rfc3339()),
            value => sea_value_to_json_value(&value),
        };
        Some((column.as_str().to_owned(), value))
    });
    serde_json::Value::Object(members.collect())
}

/// Returns the condition that each of these columns has the value that the row sets. Columns that the row does not set
/// are left out.
fn matches_values_of<A: ActiveModelTrait>(
    row: &A,
    columns: impl IntoIterator<Item = <A::Entity as EntityTrait>::Column>,
) -> Condition {
    columns
        .into_iter()
        .filter_map(|column| Some(equals(column, row.get(column).into_value()?)))
        .fold(Condition::all(), Condition::add)
}

/// Returns the condition that the column has this value, which may be NULL.
fn equals<C: ColumnTrait>(column: C, value: Value) -> SimpleExpr {
    if value == value.as_null() { column.is_null() } else { column.eq(value) }
}

/// Inserts the row and returns it, or returns `None` if a row with the same key exists: `INSERT ... ON CONFLICT
/// (key_columns) DO NOTHING RETURNING ...`. With [`ExistenceCheck::ByLookUp`], no policy or trigger refuses the new row
/// if the caller sees the existing one.
pub(crate) async fn insert_if_absent<A>(
    tx: &OperationTransaction,
    row: A,
    key_columns: impl IntoIterator<Item = <A::Entity as EntityTrait>::Column> + Clone,
    existence_check: ExistenceCheck,
) -> Result<Option<<A::Entity as EntityTrait>::Model>, Error>
where
    A: ActiveModelTrait + ActiveModelBehavior + Send + 'static,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
{
    let inserted = tx.query_one_raw(inserts::insert_statement(row, key_columns, existence_check)).await?;
    Ok(inserted.map(|row| FromQueryResult::from_query_result(&row, "")).transpose()?)
}

/// Returns the row with this id, or [`Error::NotFound`] if there is none that the caller may see. `what` is the kind of
/// row, for the error.
pub(crate) async fn require<E>(tx: &OperationTransaction, id: Uuid, what: &'static str) -> Result<E::Model, Error>
where
    E: EntityTrait,
    <E::PrimaryKey as PrimaryKeyTrait>::ValueType: From<Uuid>,
{
    E::find_by_id(id).one(tx).await?.ok_or(Error::NotFound { what })
}

/// Updates the row with this id to the values that `row` sets, and returns it. Returns `None` if there is no such row,
/// or the caller may not update it. If `row` sets no column, only reads the row. One round trip.
pub(crate) async fn update_returning<A>(
    tx: &OperationTransaction,
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
    let updated = A::Entity::update_many().set(row).filter(id_column.eq(id)).exec_with_returning(tx).await?;
    Ok(updated.into_iter().next())
}

/// Runs a statement and returns its decoded rows.
pub(crate) async fn fetch_all<T>(
    tx: &OperationTransaction,
    statement: Statement,
    decode: impl Fn(&[PgRow]) -> Result<Vec<T>, DbErr>,
) -> Result<Vec<T>, Error> {
    Ok(decode(&tx.fetch_all(statement).await?)?)
}

/// Decodes the rows of a frequently read list by column name: `decode_rows!(rows => Summary { id, status })`. The index
/// and type of each column are resolved once per result; SeaORM would resolve them for every value. The macro must be
/// the whole body of a function or closure, because it contains a `return` for a result without rows.
macro_rules! decode_rows {
    ($rows:expr => $type:ident { $($field:ident),+ $(,)? }) => {{
        let rows: &[sea_orm::sqlx::postgres::PgRow] = $rows;
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        $(let $field = $crate::rows::ResultColumn::find(first, stringify!($field))?;)+
        rows.iter().map(|row| Ok($type { $($field: $field.read(row)?),+ })).collect()
    }};
}

/// Defines, for a frequently read list, a constant with the columns that its statement selects, and a function that
/// decodes the rows: `row_decoder!(SUMMARY_COLUMNS, decode_summaries: Summary { id, status })`.
macro_rules! row_decoder {
    ($columns:ident, $decode:ident: $type:ident { $first:ident $(, $field:ident)* $(,)? }) => {
        const $columns: &str = concat!(stringify!($first) $(, ", ", stringify!($field))*);

        fn $decode(rows: &[sea_orm::sqlx::postgres::PgRow]) -> Result<Vec<$type>, sea_orm::DbErr> {
            $crate::rows::decode_rows!(rows => $type { $first $(, $field)* })
        }
    };
}

pub(crate) use {decode_rows, row_decoder};

/// A column of a result, whose type has been checked.
pub(crate) struct ResultColumn<T> {
    index: usize,
    value_type: PhantomData<T>,
}

impl<T: Type<Postgres> + for<'r> Decode<'r, Postgres>> ResultColumn<T> {
    /// Finds the column with this name and checks its type.
    pub(crate) fn find(row: &PgRow, name: &str) -> Result<Self, DbErr> {
        let column = row.try_column(name).map_err(query_error)?;
        if T::compatible(column.type_info()) {
            Ok(Self { index: column.ordinal(), value_type: PhantomData })
        } else {
            Err(DbErr::Type(format!("column {name} has type {}, which does not match the field", column.type_info())))
        }
    }

    /// Decodes the column's value in a row of the same result.
    pub(crate) fn read(&self, row: &PgRow) -> Result<T, DbErr> {
        row.try_get_unchecked(self.index).map_err(query_error)
    }
}

/// Decodes the value of one column of a row.
pub(crate) fn decode_cell<T: Type<Postgres> + for<'r> Decode<'r, Postgres>>(
    row: &PgRow,
    name: &str,
) -> Result<T, DbErr> {
    ResultColumn::find(row, name)?.read(row)
}

fn query_error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

/// Sets a field if there is a new value for it.
pub(crate) fn set_if_some<T: Clone + Into<sea_orm::Value>>(field: &mut sea_orm::ActiveValue<T>, new_value: &Option<T>) {
    if let Some(value) = new_value {
        *field = sea_orm::ActiveValue::Set(value.clone());
    }
}
