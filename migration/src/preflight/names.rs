//! Checks that the names of new objects are free, and that existing objects were not renamed or moved.

use std::collections::BTreeSet;

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use crate::{
    MigrationError,
    check::State,
    manifest::{self, CatalogObject, Definitions},
    query::{self, fetch_names},
    renames,
    repair::SCHEMA_OWNER_SQL,
};

/// Checks, before the schema is created, that no relation, type or function in the database has a name that the schema
/// needs for one of its own.
pub(super) fn check_names_are_free(state: &State) -> Result<(), MigrationError> {
    let definitions: Definitions = manifest::definitions();
    let ours: BTreeSet<String> = definitions
        .keys()
        .filter(|object| !object.contains(" auth."))
        .filter_map(|object| name_in_namespace(object))
        .collect();
    let mut found: Vec<String> = state
        .found_objects
        .iter()
        .filter(|object| name_in_namespace(&object.name).is_some_and(|name| ours.contains(&name)))
        .map(|object| without_arguments(&object.name))
        .collect();
    found.dedup();
    let includes_most_objects = found.len() * 2 > ours.len();
    if found.is_empty() { Ok(()) } else { Err(MigrationError::NameCollision { found, includes_most_objects }) }
}

/// Returns the object's name with the namespace in which it must be unique: tables, views and sequences share one, and
/// so do types and domains. Returns `None` for other objects. Most of these belong to an object that has a name in a
/// namespace; roles, schemas and the publication may exist already; and [`check_job_names_are_free`] checks the jobs.
fn name_in_namespace(object: &str) -> Option<String> {
    let namespace = match manifest::kind(object) {
        // This program's tables (`sparc_migrations` and `sparc_record`) are created before the others, so they may
        // exist.
        "table" | "view" | "sequence" if !object.contains(".sparc_") => "relation",
        "type" | "domain" => "type",
        "function" => "function",
        _ => return None,
    };
    let (_, name) = object.split_once(' ')?;
    Some(format!("{namespace} {}", without_arguments(name)))
}

/// Checks that no job of somebody else has the name of one of this program's jobs, because `pg_cron` would overwrite
/// that job. Once this program has scheduled its jobs, the names are its own, and nothing is checked.
pub(super) fn check_job_names_are_free(state: &State) -> Result<(), MigrationError> {
    if state.record.jobs_were_scheduled {
        return Ok(());
    }
    // `found_objects` contains only jobs that have the name of one of this program's jobs.
    let is_job_with_other_definition = |found: &&CatalogObject| {
        manifest::kind(&found.name) == "job" && state.expected.get(&found.name) != Some(&found.definition)
    };
    let found: Vec<String> =
        state.found_objects.iter().filter(is_job_with_other_definition).map(|found| found.name.clone()).collect();
    if found.is_empty() { Ok(()) } else { Err(MigrationError::NameCollision { found, includes_most_objects: false }) }
}

fn without_arguments(object: &str) -> String {
    object.split('(').next().unwrap_or_default().to_owned()
}

/// Checks, before the schema's objects are dropped by their names, that none was renamed or moved to another PostgreSQL
/// schema.
pub(crate) async fn check_not_renamed_or_moved<C: ConnectionTrait>(db: &C, state: &State) -> Result<(), DbErr> {
    // While migrations are pending, objects are missing that were neither renamed nor moved.
    if !state.pending_migrations().is_empty() {
        return Ok(());
    }
    let swapped = renames::describe_swapped_names(state);
    if !swapped.is_empty() {
        return Err(MigrationError::SwappedNames { found: swapped }.into());
    }
    let renamed: Vec<String> =
        renames::find(state).into_iter().map(|rename| format!("{}, to {}", rename.object, rename.renamed_to)).collect();
    if !renamed.is_empty() {
        return Err(MigrationError::RenamedObjects { found: renamed }.into());
    }
    let found = state.found_by_name();
    let missing: Vec<&str> =
        state.expected.keys().map(String::as_str).filter(|object| !found.contains_key(object)).collect();
    check_not_moved(db, state, &missing).await
}

/// Checks that no missing table was moved to another PostgreSQL schema. A moved table is recognized by its comment and
/// its owner.
pub(crate) async fn check_not_moved<C: ConnectionTrait>(db: &C, state: &State, missing: &[&str]) -> Result<(), DbErr> {
    let comments: Vec<&str> = missing
        .iter()
        .filter(|object| manifest::kind(object) == "table")
        .filter_map(|object| state.expected.get(&format!("comment on {object}")))
        .map(String::as_str)
        .collect();
    if comments.is_empty() {
        return Ok(());
    }
    let found = fetch_names(
        db,
        &format!(
            "SELECT pg_describe_object('pg_class'::regclass, pg_class.oid, 0) AS name
             FROM pg_catalog.pg_class
             JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
             WHERE relkind IN ('r', 'p')
               AND nspname NOT IN ('public', 'private')
               AND obj_description(pg_class.oid, 'pg_class') IN ({})
               AND relowner = {SCHEMA_OWNER_SQL}
             ORDER BY 1",
            query::literals(comments)
        ),
    )
    .await?;
    if found.is_empty() { Ok(()) } else { Err(MigrationError::MovedTables { found }.into()) }
}

/// An object that has the name of a missing object of the schema.
#[derive(FromQueryResult)]
struct ConflictingObject {
    name: String,
    description: String,
}

/// Checks that no other object has the name of one of the missing objects, which the plan of `up` will create.
pub(crate) async fn check_names_of_missing_objects_are_free<C: ConnectionTrait>(
    db: &C,
    state: &State,
    missing: &[&str],
) -> Result<(), DbErr> {
    // Each qualified name that must be free, with the missing object that needs it.
    let mut relations: Vec<(String, &str)> = Vec::new();
    let mut types: Vec<(String, &str)> = Vec::new();
    for object in missing {
        let (_, name) = object.split_once(' ').unwrap_or_default();
        // For a primary key or a UNIQUE constraint, PostgreSQL also creates an index of the same name.
        let is_key = || {
            let definition = state.expected.get(*object).map_or("", String::as_str);
            definition.starts_with("PRIMARY KEY") || definition.starts_with("UNIQUE")
        };
        match manifest::kind(object) {
            "table" | "view" | "sequence" => relations.push((name.to_owned(), object)),
            "type" | "domain" => types.push((name.to_owned(), object)),
            "index" => relations.extend(index_name(object).map(|name| (name, *object))),
            "constraint" if is_key() => relations.extend(index_name(object).map(|name| (name, *object))),
            _ => {}
        }
    }
    let (mut missing_with_taken_name, mut found) = (Vec::new(), Vec::new());
    for (catalog, schema_column, name_column, objects) in
        [("pg_class", "relnamespace", "relname", relations), ("pg_type", "typnamespace", "typname", types)]
    {
        if objects.is_empty() {
            continue;
        }
        // `pg_describe_object` calls enums, domains and row types all "type", so the description says which of them are
        // domains and which are row types.
        let kind_note_sql = if catalog == "pg_type" {
            " || CASE typtype WHEN 'd' THEN ' (a domain)' WHEN 'c' THEN ' (the row type of a relation)' ELSE '' END"
        } else {
            ""
        };
        let conflicting_objects: Vec<ConflictingObject> = query::fetch_all(
            db,
            &format!(
                "SELECT
                   format('%I.%I', nspname, {name_column}) AS name,
                   pg_describe_object('{catalog}'::regclass, {catalog}.oid, 0){kind_note_sql} AS description
                 FROM pg_catalog.{catalog}
                 JOIN pg_catalog.pg_namespace ON pg_namespace.oid = {schema_column}
                 WHERE format('%I.%I', nspname, {name_column}) IN ({})
                 ORDER BY 1",
                query::literals(objects.iter().map(|(name, _)| name.as_str()))
            ),
        )
        .await?;
        for conflicting_object in conflicting_objects {
            missing_with_taken_name.extend(
                objects
                    .iter()
                    .filter(|(name, _)| *name == conflicting_object.name)
                    .map(|(_, object)| (*object).to_owned()),
            );
            found.push(conflicting_object.description);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(MigrationError::NameTaken { missing: missing_with_taken_name, found }.into())
}

/// Returns the qualified name of an index, or of a constraint's index. An index is in the PostgreSQL schema of its
/// table.
fn index_name(object: &str) -> Option<String> {
    let (name, table) = manifest::name_and_table(object)?;
    let (schema, _) = table.split_once('.')?;
    Some(format!("{schema}.{name}"))
}
