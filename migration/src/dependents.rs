//! Finds other objects that would be dropped together with the schema's.

use sea_orm_migration::prelude::*;

use crate::{
    PreflightError,
    check::State,
    manifest::{self, CatalogObject},
    query,
};

/// Returns the names of the schema's objects that depend on `dropped`. If an operator's objects depend on them, returns
/// an error that names all of those.
pub(crate) async fn of<C: ConnectionTrait>(
    db: &C,
    state: &State,
    dropped: &[&CatalogObject],
) -> Result<Vec<String>, DbErr> {
    if dropped.is_empty() {
        return Ok(Vec::new());
    }
    let rows = |objects: &[&CatalogObject]| {
        let rows: Vec<String> = objects
            .iter()
            .filter_map(|found| Some(format!("('{}'::regclass, {}::oid)", found.class.as_deref()?, found.objid)))
            .collect();
        rows.join(", ")
    };
    let ours: Vec<&CatalogObject> =
        state.found.iter().filter(|found| found.class.is_some() && state.is_ours(&found.object)).collect();
    let sql = include_str!("../sql/manifest/dependents.sql")
        .replace("/* dropped */", &rows(dropped))
        .replace("/* ours */", &rows(&ours));
    let reached: Vec<Reached> = query::fetch_all(db, &sql).await?;
    let mut foreign: Vec<String> =
        reached.iter().filter(|reached| !reached.is_ours).map(|reached| reached.description.clone()).collect();
    // The catalog records no dependency for an operator's column, which is dropped with its table.
    let tables: Vec<&str> = dropped.iter().filter_map(|found| found.object.strip_prefix("table ")).collect();
    foreign.extend(state.found.iter().filter(|found| !state.is_ours(&found.object)).filter_map(|found| {
        let (name, table) = manifest::on_table(found.object.strip_prefix("column ").map(|_| found.object.as_str())?)?;
        tables.contains(&table).then(|| format!("column {name} of table {table}"))
    }));
    foreign.sort_unstable();
    foreign.dedup();
    if !foreign.is_empty() {
        return Err(PreflightError::Dependents { found: foreign }.into());
    }
    let oids: Vec<(&str, i64)> = reached.iter().map(|reached| (reached.class.as_str(), reached.objid)).collect();
    Ok(ours
        .iter()
        .filter(|found| oids.contains(&(found.class.as_deref().unwrap_or_default(), found.objid)))
        .map(|found| found.object.clone())
        .collect())
}

#[derive(sea_orm_migration::sea_orm::FromQueryResult)]
struct Reached {
    class: String,
    objid: i64,
    description: String,
    is_ours: bool,
}
