//! The statements of inserts. SeaORM builds the same text for each row of a table with the same columns, from a hundred
//! small strings; so each text is built once.

use std::{
    any::TypeId,
    collections::HashMap,
    sync::{LazyLock, PoisonError, RwLock},
};

use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ColumnTrait, DbBackend, EntityTrait, IdenStatic, IntoActiveModel, Iterable,
    QueryTrait, Statement, Value, Values,
    sea_query::{OptionEnum, Query},
};

/// What determines a text: the table, the columns that the row sets, and those of the conflict, as sets of places.
type Key = (TypeId, u128, u128);

static TEXTS: LazyLock<RwLock<HashMap<Key, String>>> = LazyLock::new(RwLock::default);

/// Returns `INSERT ... ON CONFLICT (key) DO NOTHING RETURNING *` of the row.
pub(super) fn insert_unless_there<A>(
    mut row: A,
    key: impl IntoIterator<Item = <A::Entity as EntityTrait>::Column> + Clone,
) -> Statement
where
    A: ActiveModelTrait + ActiveModelBehavior + 'static,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
{
    let columns = <A::Entity as EntityTrait>::Column::iter;
    let (mut set, mut conflict) = (0_u128, 0_u128);
    // Of a wider table, texts are not kept.
    let is_kept = columns().count() <= 128;
    for (place, column) in columns().take(128).enumerate() {
        let bit = 1 << place;
        if !row.is_not_set(column) {
            set |= bit;
        }
        if key.clone().into_iter().any(|one| one.as_str() == column.as_str()) {
            conflict |= bit;
        }
    }
    let found = (TypeId::of::<A>(), set, conflict);
    let known = TEXTS.read().unwrap_or_else(PoisonError::into_inner).get(&found).cloned();
    if let Some(sql) = known.filter(|_| is_kept) {
        return Statement { sql, values: Some(Values(values_of(&mut row))), db_backend: DbBackend::Postgres };
    }
    let mut query = A::Entity::insert(row.clone()).on_conflict_do_nothing_on(key).into_query();
    let returning = columns().map(|column| column.select_as(column.into_returning_expr(DbBackend::Postgres)));
    query.returning(Query::returning().exprs(returning));
    let statement = DbBackend::Postgres.build(&query);
    // The text is another row's only if its parameters are the values of the columns, in their order.
    if is_kept && statement.values.as_ref().is_some_and(|values| values.0 == values_of(&mut row)) {
        TEXTS.write().unwrap_or_else(PoisonError::into_inner).insert(found, statement.sql.clone());
    }
    statement
}

/// Takes the values that the row sets. One of an enum is sent as text, and the statement has its type.
fn values_of<A: ActiveModelTrait>(row: &mut A) -> Vec<Value> {
    let sent = |value| match value {
        Value::Enum(OptionEnum::Some(value)) => Value::String(Some(value.value.into_owned())),
        Value::Enum(OptionEnum::None(_)) => Value::String(None),
        value => value,
    };
    <A::Entity as EntityTrait>::Column::iter().filter_map(|column| row.take(column).into_value().map(sent)).collect()
}

#[cfg(test)]
mod tests {
    use entity::{characters, dice_rolls, sea_orm_active_enums::Attribute};
    use sea_orm::{ActiveModelTrait, DbBackend, EntityTrait, IntoActiveModel, QueryTrait, Set};
    use uuid::Uuid;

    use super::insert_unless_there;

    /// What SeaORM builds, up to the columns that are returned.
    fn built<A: ActiveModelTrait>(row: A, key: <A::Entity as EntityTrait>::Column) -> (String, String)
    where
        <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
    {
        let statement = A::Entity::insert(row).on_conflict_do_nothing_on([key]).into_query();
        let statement = DbBackend::Postgres.build(&statement);
        (statement.sql, format!("{:?}", statement.values))
    }

    #[test]
    fn each_row_has_the_text_and_the_values_that_seaorm_builds_for_it() {
        let full = |attribute, description: Option<&str>| dice_rolls::ActiveModel {
            id: Set(Uuid::new_v4()),
            attribute: Set(attribute),
            creature_id: Set(None),
            description: Set(description.map(str::to_owned)),
            ..Default::default()
        };
        let short = || dice_rolls::ActiveModel { id: Set(Uuid::new_v4()), ..Default::default() };
        let mut lengths = Vec::new();
        for row in [full(Attribute::Might, Some("a")), short(), full(Attribute::Wit, None), short()] {
            let (sql, values) = built(row.clone(), dice_rolls::Column::Id);
            let kept = insert_unless_there(row, [dice_rolls::Column::Id]);
            assert_eq!(kept.sql.split(" RETURNING ").next(), Some(&*sql));
            assert_eq!(format!("{:?}", kept.values), values);
            assert!(kept.sql.contains(" RETURNING \"id\""), "{}", kept.sql);
            lengths.push(kept.sql.len());
        }
        assert!(lengths[0] == lengths[2] && lengths[1] == lengths[3] && lengths[0] > lengths[1], "{lengths:?}");
        // Another conflict and another table are other texts.
        let row = short();
        let (sql, _) = built(row.clone(), dice_rolls::Column::SessionId);
        let other = insert_unless_there(row, [dice_rolls::Column::SessionId]).sql;
        assert_eq!(other.split(" RETURNING ").next(), Some(&*sql));
        let hero = characters::ActiveModel { id: Set(Uuid::new_v4()), ..Default::default() };
        let (sql, _) = built(hero.clone(), characters::Column::Id);
        let hero = insert_unless_there(hero, [characters::Column::Id]).sql;
        assert_eq!(hero.split(" RETURNING ").next(), Some(&*sql));
    }
}
