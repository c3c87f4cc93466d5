//! Finds the objects that a DROP ... CASCADE of given objects would also drop, because they depend on these.

use sea_orm_migration::prelude::*;

use crate::{
    PreflightError,
    check::State,
    manifest::{self, CatalogObject},
    query,
};

/// Returns the names of the schema's objects that a DROP ... CASCADE of `dropped` drops: `dropped`, and what depends on
/// them. `dropped` must contain no columns, because a column has the same catalog and oid as its table, which would
/// seem to be dropped.
///
/// # Errors
///
/// [`PreflightError::Dependents`] if objects that an operator has added would be dropped too.
pub(crate) async fn find_cascaded<C: ConnectionTrait>(
    db: &C,
    state: &State,
    dropped: &[&CatalogObject],
) -> Result<Vec<String>, DbErr> {
    if dropped.is_empty() {
        return Ok(Vec::new());
    }
    let addresses_sql = |entries: &[&CatalogObject]| {
        let addresses: Vec<String> = entries
            .iter()
            .filter_map(|entry| Some(format!("('{}'::regclass, {}::oid)", entry.class.as_deref()?, entry.objid)))
            .collect();
        addresses.join(", ")
    };
    let ours: Vec<&CatalogObject> =
        state.found_objects.iter().filter(|entry| entry.class.is_some() && state.is_ours(&entry.object)).collect();
    let sql = include_str!("../sql/manifest/dependents.sql")
        .replace("/* dropped */", &addresses_sql(dropped))
        .replace("/* ours */", &addresses_sql(&ours));
    let all_dropped: Vec<DroppedObject> = query::fetch_all(db, &sql).await?;
    let mut not_ours: Vec<String> =
        all_dropped.iter().filter(|found| !found.is_ours).map(|found| found.description.clone()).collect();
    // Columns that were added to the dropped tables. The catalog records no dependency of a column on its table.
    let dropped_tables: Vec<&str> = dropped.iter().filter_map(|entry| entry.object.strip_prefix("table ")).collect();
    let is_added_column = |object: &str| manifest::kind(object) == "column" && !state.is_ours(object);
    not_ours.extend(state.found_objects.iter().filter(|entry| is_added_column(&entry.object)).filter_map(|entry| {
        let (name, table) = manifest::name_and_table(&entry.object)?;
        dropped_tables.contains(&table).then(|| format!("column {name} of table {table}"))
    }));
    not_ours.sort_unstable();
    not_ours.dedup();
    if !not_ours.is_empty() {
        return Err(PreflightError::Dependents { found: not_ours }.into());
    }
    let dropped_addresses: Vec<(&str, i64)> =
        all_dropped.iter().map(|found| (found.class.as_str(), found.objid)).collect();
    Ok(ours
        .iter()
        .filter(|entry| dropped_addresses.contains(&(entry.class.as_deref().unwrap_or_default(), entry.objid)))
        .map(|entry| entry.object.clone())
        .collect())
}

/// An object that would be dropped: a given one, or one that depends on it.
#[derive(sea_orm_migration::sea_orm::FromQueryResult)]
struct DroppedObject {
    /// The system catalog that contains it.
    class: String,
    /// Its oid in that catalog.
    objid: i64,
    /// As PostgreSQL describes it.
    description: String,
    /// Whether it is an object of the schema.
    is_ours: bool,
}
