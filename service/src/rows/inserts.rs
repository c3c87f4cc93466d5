//! Insert statements. Their SQL is cached: rows that set the same columns have the same SQL, which SeaORM would build
//! again for each row, from about a hundred small strings.

use std::{
    any::TypeId,
    collections::HashMap,
    sync::{LazyLock, PoisonError, RwLock},
};

use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ColumnTrait, DbBackend, EntityName, EntityTrait, IdenStatic,
    IntoActiveModel, Iterable, QueryTrait, Statement, Value, Values,
    sea_query::{Expr, ExprTrait, OptionEnum, Query, SelectStatement},
};

/// What determines the SQL: the table, as the type of its active model; the columns that the row sets; the key columns;
/// and whether an existing row is looked up first. Both sets of columns are bit sets, in which bit `n` is the
/// entity's column `n`.
type CacheKey = (TypeId, u128, u128, ExistenceCheck);

/// How an insert finds out whether a row with the same key exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ExistenceCheck {
    /// By the conflict. Policies and triggers run before the conflict is found, and can refuse the new row.
    ByConflict,
    /// By a look-up before the insert, in the same statement. If it finds the existing row, no policy or trigger runs
    /// for the new one. It does not find a row that the caller cannot see; the conflict then shows that the row exists.
    ByLookUp,
}

static SQL_CACHE: LazyLock<RwLock<HashMap<CacheKey, String>>> = LazyLock::new(RwLock::default);

/// Returns the statement `INSERT ... ON CONFLICT (key_columns) DO NOTHING RETURNING ...` for the row. The statement
/// returns all columns of the table.
pub(super) fn insert_statement<A>(
    mut row: A,
    key_columns: impl IntoIterator<Item = <A::Entity as EntityTrait>::Column> + Clone,
    existence_check: ExistenceCheck,
) -> Statement
where
    A: ActiveModelTrait + ActiveModelBehavior + 'static,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
{
    let columns = <A::Entity as EntityTrait>::Column::iter;
    let (mut set_column_bits, mut key_column_bits) = (0_u128, 0_u128);
    // A `u128` has room for 128 columns. The SQL for a table with more of them is not cached.
    let is_cacheable = columns().count() <= 128;
    for (index, column) in columns().take(128).enumerate() {
        let bit = 1 << index;
        if !row.is_not_set(column) {
            set_column_bits |= bit;
        }
        if key_columns.clone().into_iter().any(|key_column| key_column.as_str() == column.as_str()) {
            key_column_bits |= bit;
        }
    }
    let cache_key = (TypeId::of::<A>(), set_column_bits, key_column_bits, existence_check);
    let cached = SQL_CACHE.read().unwrap_or_else(PoisonError::into_inner).get(&cache_key).cloned();
    if let Some(sql) = cached.filter(|_| is_cacheable) {
        return Statement { sql, values: Some(Values(take_values(&mut row))), db_backend: DbBackend::Postgres };
    }
    let mut query = A::Entity::insert(row.clone()).on_conflict_do_nothing_on(key_columns.clone()).into_query();
    if existence_check == ExistenceCheck::ByLookUp {
        // `select_from` fails only if the number of values differs from the insert's number of columns. Here, both are
        // the number of columns that the row sets.
        let _ = query.select_from(select_unless_visible(&row, key_columns));
    }
    let returned_columns = columns().map(|column| column.select_as(column.into_returning_expr(DbBackend::Postgres)));
    query.returning(Query::returning().exprs(returned_columns));
    let statement = DbBackend::Postgres.build(&query);
    // The SQL fits other rows only if its parameters are the values of the columns that the row sets, in the order of
    // the columns.
    if is_cacheable && statement.values.as_ref().is_some_and(|values| values.0 == take_values(&mut row)) {
        SQL_CACHE.write().unwrap_or_else(PoisonError::into_inner).insert(cache_key, statement.sql.clone());
    }
    statement
}

/// Returns `SELECT values WHERE NOT EXISTS (...)`, which returns the row's values unless the caller sees a row with the
/// same key.
fn select_unless_visible<A: ActiveModelTrait>(
    row: &A,
    key_columns: impl IntoIterator<Item = <A::Entity as EntityTrait>::Column>,
) -> SelectStatement {
    let set_columns: Vec<_> =
        <A::Entity as EntityTrait>::Column::iter().filter(|column| !row.is_not_set(*column)).collect();
    let mut visible_row_query = Query::select();
    visible_row_query.expr(Expr::cust("1")).from(A::Entity::default().table_ref());
    for key_column in key_columns {
        // The condition uses the placeholder of the column's value again, so that the bound values stay those of the
        // row. A key column that the row does not set is compared with NULL, so no existing row is found.
        let index = set_columns.iter().position(|column| column.as_str() == key_column.as_str());
        let placeholder = index.map_or_else(|| "NULL".to_owned(), |index| format!("${}", index + 1));
        visible_row_query.and_where(Expr::col(key_column.as_column_ref()).eq(Expr::cust(placeholder)));
    }
    let values = set_columns.iter().filter_map(|column| {
        let value = row.get(*column).into_value()?;
        Some(column.save_as(Expr::val(value)))
    });
    let mut values_query = Query::select();
    values_query.exprs(values).and_where(Expr::not_exists(visible_row_query));
    values_query
}

/// Takes out of the row the values that it sets. A value of an enum becomes text, which the statement casts to the
/// enum's type.
fn take_values<A: ActiveModelTrait>(row: &mut A) -> Vec<Value> {
    let to_parameter = |value| match value {
        Value::Enum(OptionEnum::Some(value)) => Value::String(Some(value.value.into_owned())),
        Value::Enum(OptionEnum::None(_)) => Value::String(None),
        value => value,
    };
    <A::Entity as EntityTrait>::Column::iter()
        .filter_map(|column| row.take(column).into_value().map(to_parameter))
        .collect()
}

#[cfg(test)]
mod tests {
    use entity::{characters, dice_rolls, sea_orm_active_enums::Attribute};
    use sea_orm::{ActiveModelTrait, DbBackend, EntityTrait, IntoActiveModel, QueryTrait, Set};
    use uuid::Uuid;

    use super::{ExistenceCheck, insert_statement};

    /// Returns the SQL that SeaORM builds, without `RETURNING`, and the debug text of its values.
    fn build_with_seaorm<A: ActiveModelTrait>(
        row: A,
        key_column: <A::Entity as EntityTrait>::Column,
    ) -> (String, String)
    where
        <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
    {
        let statement = A::Entity::insert(row).on_conflict_do_nothing_on([key_column]).into_query();
        let statement = DbBackend::Postgres.build(&statement);
        (statement.sql, format!("{:?}", statement.values))
    }

    #[test]
    fn an_insert_statement_has_the_sql_and_values_that_seaorm_builds() {
        let long_row = |attribute, description: Option<&str>| dice_rolls::ActiveModel {
            id: Set(Uuid::new_v4()),
            attribute: Set(attribute),
            creature_id: Set(None),
            description: Set(description.map(str::to_owned)),
            ..Default::default()
        };
        let short_row = || dice_rolls::ActiveModel { id: Set(Uuid::new_v4()), ..Default::default() };
        let mut sql_lengths = Vec::new();
        // The last two rows set the same columns as the first two, so their SQL comes from the cache.
        for row in [long_row(Attribute::Might, Some("a")), short_row(), long_row(Attribute::Wit, None), short_row()] {
            let (sql, values_text) = build_with_seaorm(row.clone(), dice_rolls::Column::Id);
            let statement = insert_statement(row, [dice_rolls::Column::Id], ExistenceCheck::ByConflict);
            assert_eq!(statement.sql.split(" RETURNING ").next(), Some(&*sql));
            assert_eq!(format!("{:?}", statement.values), values_text);
            assert!(statement.sql.contains(" RETURNING \"id\""), "{}", statement.sql);
            sql_lengths.push(statement.sql.len());
        }
        assert!(
            sql_lengths[0] == sql_lengths[2] && sql_lengths[1] == sql_lengths[3] && sql_lengths[0] > sql_lengths[1],
            "{sql_lengths:?}"
        );
        // Another key column or another table needs other SQL.
        let row = short_row();
        let (sql, _) = build_with_seaorm(row.clone(), dice_rolls::Column::SessionId);
        let statement = insert_statement(row, [dice_rolls::Column::SessionId], ExistenceCheck::ByConflict);
        assert_eq!(statement.sql.split(" RETURNING ").next(), Some(&*sql));
        let character_row = characters::ActiveModel { id: Set(Uuid::new_v4()), ..Default::default() };
        let (sql, _) = build_with_seaorm(character_row.clone(), characters::Column::Id);
        let statement = insert_statement(character_row, [characters::Column::Id], ExistenceCheck::ByConflict);
        assert_eq!(statement.sql.split(" RETURNING ").next(), Some(&*sql));
    }

    #[test]
    fn an_insert_with_a_look_up_has_one_more_condition_but_no_more_values() {
        let new_row = || dice_rolls::ActiveModel {
            id: Set(Uuid::new_v4()),
            attribute: Set(Attribute::Might),
            description: Set(None),
            ..Default::default()
        };
        // The SQL of the second row comes from the cache.
        for row in [new_row(), new_row()] {
            let (_, values_text) = build_with_seaorm(row.clone(), dice_rolls::Column::Id);
            let statement = insert_statement(row, [dice_rolls::Column::Id], ExistenceCheck::ByLookUp);
            assert_eq!(
                statement.sql.split(" RETURNING ").next(),
                Some(
                    "INSERT INTO \"public\".\"dice_rolls\" (\"id\", \"attribute\", \"description\") \
                     SELECT $1, $2::\"attribute\", $3 \
                     WHERE NOT EXISTS(SELECT 1 FROM \"public\".\"dice_rolls\" WHERE \"dice_rolls\".\"id\" = ($1)) \
                     ON CONFLICT (\"id\") DO NOTHING"
                )
            );
            assert_eq!(format!("{:?}", statement.values), values_text);
        }
    }
}
