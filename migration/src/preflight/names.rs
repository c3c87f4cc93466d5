//! Checks that the names of new objects are free, and that existing objects were not renamed or moved.

use std::collections::BTreeSet;

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use crate::{
    MigrationError,
    catalog::CatalogObject,
    manifest,
    owner::SCHEMA_OWNER_SQL,
    query::{self, fetch_names},
    renames,
    state::State,
};

/// Checks, before the schema is created, that no function, relation or type in the database has a name that an object
/// of the schema needs. On the tables of the platform (`auth.users`, `realtime.messages`), the names of triggers and
/// policies are checked too, because `up` would replace them. (The schema's own tables do not exist yet.)
pub(super) async fn check_names_are_free<C: ConnectionTrait>(db: &C, state: &State) -> Result<(), DbErr> {
    // This program's tables (`sparc_migrations` and `sparc_record`) and the stand-in for schema `auth` are created
    // before the others, so they may exist.
    let may_exist = |object: &str| object.contains(".sparc_") || object.contains(" auth.");
    let objects: Vec<&str> = state.expected.keys().map(String::as_str).filter(|object| !may_exist(object)).collect();
    let is_function = |object: &&str| manifest::kind(object) == "function";
    let functions: BTreeSet<String> = objects.iter().copied().filter(is_function).map(without_arguments).collect();
    let found_functions: BTreeSet<String> = state
        .found_objects
        .iter()
        .map(|found| found.name.as_str())
        .filter(is_function)
        .map(without_arguments)
        .filter(|function| functions.contains(function))
        .collect();
    let conflicts = find_conflicts(db, state, &objects).await?;
    let conflicting_objects: BTreeSet<String> = conflicts.into_iter().map(|conflict| conflict.found).collect();
    let is_on_platform_table = |object: &&str| {
        let table = manifest::table_of(object).unwrap_or_default();
        matches!(manifest::kind(object), "trigger" | "policy")
            && (table.starts_with("auth.") || table.starts_with("realtime."))
            && state.expected.contains_key(*object)
    };
    let on_platform_tables =
        state.found_objects.iter().map(|found| found.name.as_str()).filter(is_on_platform_table).map(str::to_owned);
    let found: Vec<String> = found_functions.into_iter().chain(conflicting_objects).chain(on_platform_tables).collect();
    if found.is_empty() {
        return Ok(());
    }
    let is_relation_or_type =
        |object: &&str| matches!(manifest::kind(object), "table" | "view" | "sequence" | "type" | "domain" | "index");
    let name_count = functions.len() + objects.into_iter().filter(is_relation_or_type).count();
    let includes_most_objects = found.len() * 2 > name_count;
    Err(MigrationError::NameCollision { found, includes_most_objects }.into())
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

/// Checks that no other object has the name of one of the missing objects, which the plan of `up` will create.
pub(crate) async fn check_names_of_missing_objects_are_free<C: ConnectionTrait>(
    db: &C,
    state: &State,
    missing: &[&str],
) -> Result<(), DbErr> {
    let conflicts = find_conflicts(db, state, missing).await?;
    if conflicts.is_empty() {
        return Ok(());
    }
    let missing: BTreeSet<String> = conflicts.iter().map(|conflict| conflict.object.to_owned()).collect();
    let found: BTreeSet<String> = conflicts.into_iter().map(|conflict| conflict.found).collect();
    Err(MigrationError::NameCollisionDuringRepair {
        missing: missing.into_iter().collect(),
        found: found.into_iter().collect(),
    }
    .into())
}

/// Another object has a name that an object of the schema needs.
struct Conflict<'a> {
    /// The schema's object.
    object: &'a str,
    /// The description of the other one.
    found: String,
}

/// An object that has one of the needed names: its qualified name, and how PostgreSQL describes it.
#[derive(FromQueryResult)]
struct NameHolder {
    name: String,
    description: String,
}

/// Returns the relations and types in the database that have a name which one of these objects of the schema needs. No
/// two relations (tables, views, sequences, indexes) of a PostgreSQL schema may have the same name, and no two types
/// (enums, domains, and the row types of tables and views).
async fn find_conflicts<'a, C: ConnectionTrait>(
    db: &C,
    state: &State,
    objects: &[&'a str],
) -> Result<Vec<Conflict<'a>>, DbErr> {
    // Each qualified name that must be free, with the object that needs it.
    let mut relations: Vec<(String, &str)> = Vec::new();
    let mut types: Vec<(String, &str)> = Vec::new();
    let mut row_types: Vec<(String, &str)> = Vec::new();
    for object in objects {
        let (_, name) = object.split_once(' ').unwrap_or_default();
        // For a primary key or a UNIQUE constraint, PostgreSQL also creates an index of the same name.
        let is_key = || {
            let definition = state.expected.get(*object).map_or("", String::as_str);
            definition.starts_with("PRIMARY KEY") || definition.starts_with("UNIQUE")
        };
        match manifest::kind(object) {
            "table" | "view" => {
                relations.push((name.to_owned(), object));
                row_types.push((name.to_owned(), object));
            }
            "sequence" => relations.push((name.to_owned(), object)),
            "type" | "domain" => types.push((name.to_owned(), object)),
            "index" => relations.extend(index_name(object).map(|name| (name, *object))),
            "constraint" if is_key() => relations.extend(index_name(object).map(|name| (name, *object))),
            _ => {}
        }
    }
    // `pg_describe_object` calls enums, domains and row types all "type", so the description says which of them are
    // domains and which are row types.
    let kind_note_sql =
        " || CASE typtype WHEN 'd' THEN ' (a domain)' WHEN 'c' THEN ' (the row type of a relation)' ELSE '' END";
    let mut conflicts = Vec::new();
    for (catalog, schema_column, name_column, note_sql, condition, names) in [
        ("pg_class", "relnamespace", "relname", "", "true", relations),
        ("pg_type", "typnamespace", "typname", kind_note_sql, "true", types),
        // Row types are left out: one with a needed name belongs to a relation of that name, which the first query
        // finds.
        ("pg_type", "typnamespace", "typname", kind_note_sql, "typtype <> 'c'", row_types),
    ] {
        if names.is_empty() {
            continue;
        }
        let name_holders: Vec<NameHolder> = query::fetch_all(
            db,
            &format!(
                "SELECT
                   format('%I.%I', nspname, {name_column}) AS name,
                   pg_describe_object('{catalog}'::regclass, {catalog}.oid, 0){note_sql} AS description
                 FROM pg_catalog.{catalog}
                 JOIN pg_catalog.pg_namespace ON pg_namespace.oid = {schema_column}
                 WHERE {condition} AND format('%I.%I', nspname, {name_column}) IN ({})
                 ORDER BY 1",
                query::literals(names.iter().map(|(name, _)| name.as_str()))
            ),
        )
        .await?;
        for holder in name_holders {
            let needed_by = names.iter().filter(|(name, _)| *name == holder.name);
            conflicts.extend(needed_by.map(|(_, object)| Conflict { object, found: holder.description.clone() }));
        }
    }
    Ok(conflicts)
}

/// Returns the qualified name of an index, or of a constraint's index. An index is in the PostgreSQL schema of its
/// table.
fn index_name(object: &str) -> Option<String> {
    let (name, table) = manifest::name_and_table(object)?;
    let (schema, _) = table.split_once('.')?;
    Some(format!("{schema}.{name}"))
}
