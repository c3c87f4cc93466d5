//! Finds the objects that dropping others would also drop.

use sea_orm_migration::prelude::*;

use crate::{
    PreflightError,
    check::State,
    manifest::{self, CatalogObject},
    query,
};

/// Returns the names of the schema's objects that are dropped with `dropped`, these included. If objects of an operator
/// would be dropped too, returns an error that names them.
pub(crate) async fn check_cascade<C: ConnectionTrait>(
    db: &C,
    state: &State,
    dropped: &[&CatalogObject],
) -> Result<Vec<String>, DbErr> {
    if dropped.is_empty() {
        return Ok(Vec::new());
    }
    let values = |objects: &[&CatalogObject]| {
        let values: Vec<String> = objects
            .iter()
            .filter_map(|found| Some(format!("('{}'::regclass, {}::oid)", found.class.as_deref()?, found.objid)))
            .collect();
        values.join(", ")
    };
    let ours: Vec<&CatalogObject> =
        state.found.iter().filter(|found| found.class.is_some() && state.is_ours(&found.object)).collect();
    let sql = include_str!("../sql/manifest/dependents.sql")
        .replace("/* dropped */", &values(dropped))
        .replace("/* ours */", &values(&ours));
    let dependents: Vec<DependentObject> = query::fetch_all(db, &sql).await?;
    let mut not_ours: Vec<String> = dependents
        .iter()
        .filter(|dependent| !dependent.is_ours)
        .map(|dependent| dependent.description.clone())
        .collect();
    // The catalog records no dependency for an operator's column, which is dropped with its table.
    let tables: Vec<&str> = dropped.iter().filter_map(|found| found.object.strip_prefix("table ")).collect();
    let is_operators_column = |object: &str| manifest::kind(object) == "column" && !state.is_ours(object);
    not_ours.extend(state.found.iter().filter(|found| is_operators_column(&found.object)).filter_map(|found| {
        let (name, table) = manifest::name_and_table(&found.object)?;
        tables.contains(&table).then(|| format!("column {name} of table {table}"))
    }));
    not_ours.sort_unstable();
    not_ours.dedup();
    if !not_ours.is_empty() {
        return Err(PreflightError::Dependents { found: not_ours }.into());
    }
    let oids: Vec<(&str, i64)> =
        dependents.iter().map(|dependent| (dependent.class.as_str(), dependent.objid)).collect();
    Ok(ours
        .iter()
        .filter(|found| oids.contains(&(found.class.as_deref().unwrap_or_default(), found.objid)))
        .map(|found| found.object.clone())
        .collect())
}

#[derive(sea_orm_migration::sea_orm::FromQueryResult)]
struct DependentObject {
    class: String,
    objid: i64,
    description: String,
    is_ours: bool,
}
