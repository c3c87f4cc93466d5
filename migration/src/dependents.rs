//! Finds the objects that are dropped together with others, because they depend on them.

use sea_orm_migration::prelude::*;

use crate::{
    PreflightError,
    check::State,
    manifest::{self, CatalogObject},
    query,
};

/// Returns the names of the schema's objects that are dropped when `dropped` are, including `dropped` themselves.
/// Callers pass no columns: a column has its table's address, so its table would be taken for dropped.
///
/// # Errors
///
/// [`PreflightError::Dependents`] if this would also drop objects that are not part of the schema, but were added by
/// somebody who operates the database.
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
        state.found.iter().filter(|entry| entry.class.is_some() && state.is_ours(&entry.object)).collect();
    let sql = include_str!("../sql/manifest/dependents.sql")
        .replace("/* dropped */", &addresses_sql(dropped))
        .replace("/* ours */", &addresses_sql(&ours));
    let dependents: Vec<DependentObject> = query::fetch_all(db, &sql).await?;
    let mut not_ours: Vec<String> = dependents
        .iter()
        .filter(|dependent| !dependent.is_ours)
        .map(|dependent| dependent.description.clone())
        .collect();
    // A column that was added to one of the dropped tables. The catalog records no dependency for it, but it is dropped
    // with its table.
    let tables: Vec<&str> = dropped.iter().filter_map(|entry| entry.object.strip_prefix("table ")).collect();
    let is_added_column = |object: &str| manifest::kind(object) == "column" && !state.is_ours(object);
    not_ours.extend(state.found.iter().filter(|entry| is_added_column(&entry.object)).filter_map(|entry| {
        let (name, table) = manifest::name_and_table(&entry.object)?;
        tables.contains(&table).then(|| format!("column {name} of table {table}"))
    }));
    not_ours.sort_unstable();
    not_ours.dedup();
    if !not_ours.is_empty() {
        return Err(PreflightError::Dependents { found: not_ours }.into());
    }
    let addresses: Vec<(&str, i64)> =
        dependents.iter().map(|dependent| (dependent.class.as_str(), dependent.objid)).collect();
    Ok(ours
        .iter()
        .filter(|entry| addresses.contains(&(entry.class.as_deref().unwrap_or_default(), entry.objid)))
        .map(|entry| entry.object.clone())
        .collect())
}

/// An object that is dropped, with its address (its catalog and its oid there).
#[derive(sea_orm_migration::sea_orm::FromQueryResult)]
struct DependentObject {
    class: String,
    objid: i64,
    description: String,
    is_ours: bool,
}
