//! Finds what a DROP ... CASCADE of some objects would drop or change: these objects, and those that depend on them.

use sea_orm_migration::prelude::*;

use crate::{MigrationError, catalog::CatalogObject, manifest, query, state::State};

/// Returns the names of the schema's objects that a DROP ... CASCADE of `to_drop` drops: the objects in `to_drop`, and
/// those that depend on them. An object that would lose only a part is returned as a whole: for example, if a table
/// would lose the default of a column, the table and all its columns are returned. `to_drop` must contain no columns: a
/// column has the catalog and oid of its table, so the whole table would seem to be dropped.
///
/// # Errors
///
/// [`MigrationError::Dependents`] if objects that an operator has added would be dropped or lose a part, too.
pub(crate) async fn find_dropped_by_cascade<C: ConnectionTrait>(
    db: &C,
    state: &State,
    to_drop: &[&CatalogObject],
) -> Result<Vec<String>, DbErr> {
    if to_drop.is_empty() {
        return Ok(Vec::new());
    }
    // An object's address is its catalog and its oid.
    let addresses_sql = |entries: &[&CatalogObject]| {
        let addresses: Vec<String> = entries
            .iter()
            .filter_map(|entry| Some(format!("('{}'::regclass, {}::oid)", entry.class.as_deref()?, entry.objid)))
            .collect();
        addresses.join(", ")
    };
    let ours: Vec<&CatalogObject> =
        state.found_objects.iter().filter(|entry| entry.class.is_some() && state.is_ours(&entry.name)).collect();
    let sql = include_str!("../sql/manifest/dependents.sql")
        .replace("/* to_drop */", &addresses_sql(to_drop))
        .replace("/* ours */", &addresses_sql(&ours));
    let affected: Vec<AffectedObject> = query::fetch_all(db, &sql).await?;
    let mut not_ours: Vec<String> =
        affected.iter().filter(|found| !found.is_ours).map(|found| found.description.clone()).collect();
    // Columns that an operator has added to the tables to drop. The query does not find them, because the catalog
    // records no dependency of a column on its table.
    let tables_to_drop: Vec<&str> = to_drop.iter().filter_map(|entry| entry.name.strip_prefix("table ")).collect();
    let is_added_column = |object: &str| manifest::kind(object) == "column" && !state.is_ours(object);
    not_ours.extend(state.found_objects.iter().filter(|entry| is_added_column(&entry.name)).filter_map(|entry| {
        let (name, table) = manifest::name_and_table(&entry.name)?;
        tables_to_drop.contains(&table).then(|| format!("column {name} of table {table}"))
    }));
    not_ours.sort_unstable();
    not_ours.dedup();
    if !not_ours.is_empty() {
        return Err(MigrationError::Dependents { found: not_ours }.into());
    }
    let affected_addresses: Vec<(&str, i64)> =
        affected.iter().map(|found| (found.class.as_str(), found.objid)).collect();
    Ok(ours
        .iter()
        .filter(|entry| affected_addresses.contains(&(entry.class.as_deref().unwrap_or_default(), entry.objid)))
        .map(|entry| entry.name.clone())
        .collect())
}

/// An object that would be dropped or lose a part: one in `to_drop`, or one that depends on an object in `to_drop`.
#[derive(sea_orm_migration::sea_orm::FromQueryResult)]
struct AffectedObject {
    /// The system catalog that contains it.
    class: String,
    /// Its oid in that catalog.
    objid: i64,
    /// As PostgreSQL describes it.
    description: String,
    /// Whether it is an object of the schema.
    is_ours: bool,
}
