//! Checks that must pass before anything is changed.

mod error;
mod names;

use sea_orm_migration::{MigratorTrait, prelude::*, sea_orm::FromQueryResult};

use crate::{
    Migrator,
    check::State,
    manifest,
    query::{self, fetch_bool, fetch_names, fetch_one},
    record,
};

pub use error::PreflightError;
use names::check_names_are_free;
pub(crate) use names::{check_in_place, check_names_of_missing, check_not_elsewhere};

/// Returns whether the current role can read every row of the table: `false` if the table does not exist, or if
/// row-level security applies. It reads only the catalog, because a role without USAGE on the schema may not even name
/// the table.
pub(crate) async fn can_read<C: ConnectionTrait>(db: &C, schema: &str, table: &str) -> Result<bool, DbErr> {
    fetch_bool(
        db,
        &format!(
            "SELECT EXISTS (
               SELECT
               FROM pg_catalog.pg_class AS class
               JOIN pg_catalog.pg_namespace AS space ON space.oid = relnamespace
               WHERE nspname = {}
                 AND relname = {}
                 AND has_schema_privilege(space.oid, 'USAGE')
                 AND has_table_privilege(class.oid, 'SELECT')
                 AND NOT row_security_active(class.oid)
             ) AS answer",
            query::literal(schema),
            query::literal(table)
        ),
    )
    .await
}

/// Returns whether the list of applied migrations exists.
pub(crate) async fn has_migrations_table<C: ConnectionTrait>(db: &C) -> Result<bool, DbErr> {
    fetch_bool(
        db,
        "SELECT EXISTS (
           SELECT
           FROM pg_catalog.pg_class
           JOIN pg_catalog.pg_namespace AS space ON space.oid = relnamespace
           WHERE nspname = 'public' AND relname = 'sparc_migrations'
         ) AS answer",
    )
    .await
}

/// Checks that this program has every applied migration.
pub(crate) fn check_known(applied: &[String], version: Option<&str>) -> Result<(), PreflightError> {
    let known = record::migration_names();
    let found: Vec<String> = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    if found.is_empty() {
        return Ok(());
    }
    let database = version
        .filter(|version| *version != env!("CARGO_PKG_VERSION"))
        .map_or("a newer version".to_owned(), |version| format!("version {version}"));
    Err(PreflightError::UnknownMigrations { found, database })
}

/// Checks that no newer version of this program has migrated the database.
pub(crate) fn check_not_newer(state: &State) -> Result<(), PreflightError> {
    let numbers = |version: &str| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    match &state.record.version {
        Some(database) if numbers(database) > numbers(env!("CARGO_PKG_VERSION")) => {
            Err(PreflightError::NewerVersion { database: database.clone() })
        }
        _ => Ok(()),
    }
}

/// Checks that the server and the role permit the changes.
pub(crate) async fn check_ready<C: ConnectionTrait>(db: &C, state: &State) -> Result<(), DbErr> {
    let server: Server = fetch_one(
        db,
        "SELECT
           current_setting('server_version_num')::integer AS number,
           current_setting('server_version') AS version,
           pg_is_in_recovery() AS standby,
           current_user::text AS role,
           (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS superuser",
    )
    .await?;
    if server.number < 150_000 {
        return Err(PreflightError::ServerTooOld { found: server.version }.into());
    }
    if server.standby {
        return Err(PreflightError::Standby.into());
    }
    let Some(applied) = &state.applied else {
        let missing = vec!["SELECT on table public.sparc_migrations (not restricted by row-level security)".to_owned()];
        return Err(PreflightError::MissingPrivileges { role: server.role, missing }.into());
    };
    if applied.is_empty() {
        check_platform(db).await?;
    }
    if applied.len() < Migrator::migrations().len() {
        check_list(state)?;
        check_names_are_free(state)?;
    }
    if !server.superuser {
        let missing = fetch_names(db, include_str!("../../sql/missing_privileges.sql")).await?;
        if !missing.is_empty() {
            return Err(PreflightError::MissingPrivileges { role: server.role, missing }.into());
        }
    }
    check_owner(db, state, server.role).await
}

/// Checks that the list of migrations is complete, and has the columns that SeaORM expects.
pub(crate) fn check_list(state: &State) -> Result<(), PreflightError> {
    let found = state.found_by_name();
    let is_as_expected = |object: &String| {
        found.get(object.as_str()).is_some_and(|actual| Some(&actual.definition) == state.expected.get(object))
    };
    let mut columns = state
        .expected
        .keys()
        .filter(|object| object.ends_with(" of public.sparc_migrations") && object.starts_with("column "));
    let exists = found.keys().any(|object| object.split(' ').nth(1) == Some("public.sparc_migrations"));
    if state.unlisted.is_empty()
        && (!exists || (found.contains_key("table public.sparc_migrations") && columns.all(is_as_expected)))
    {
        Ok(())
    } else {
        Err(PreflightError::InvalidMigrationsTable)
    }
}

async fn check_platform<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    let missing = fetch_names(
        db,
        "SELECT name
         FROM (
           VALUES
             ('table auth.users', EXISTS (
                SELECT
                FROM pg_catalog.pg_class
                WHERE relnamespace = to_regnamespace('auth') AND relname = 'users'
             )),
             ('function auth.uid()', EXISTS (
                SELECT
                FROM pg_catalog.pg_proc
                WHERE pronamespace = to_regnamespace('auth') AND proname = 'uid'
             ))
         ) AS needed (name, is_there)
         WHERE NOT is_there AND to_regnamespace('auth') IS NOT NULL",
    )
    .await?;
    if missing.is_empty() {
        Ok(())
    } else {
        Err(PreflightError::IncompleteAuthSchema { missing: missing.join(" and ") }.into())
    }
}

/// Checks that the role may alter every object of the schema.
async fn check_owner<C: ConnectionTrait>(db: &C, state: &State, role: String) -> Result<(), DbErr> {
    let mut queries = Vec::new();
    for (class, owner) in [("pg_class", "relowner"), ("pg_proc", "proowner"), ("pg_type", "typowner")] {
        let oids: Vec<String> = state
            .found
            .iter()
            .filter(|found| found.class.as_deref() == Some(class) && found.subid == 0 && state.is_ours(&found.object))
            .filter(|found| manifest::kind(&found.object) != "index")
            .map(|found| found.objid.to_string())
            .collect();
        if !oids.is_empty() {
            queries.push(format!(
                "SELECT pg_describe_object('{class}'::regclass, oid, 0) || ' (of ' || pg_get_userbyid({owner}) || ')' AS name
                 FROM pg_catalog.{class}
                 WHERE oid IN ({}) AND NOT pg_has_role({owner}, 'USAGE')",
                oids.join(", ")
            ));
        }
    }
    if queries.is_empty() {
        return Ok(());
    }
    let found = fetch_names(db, &(queries.join(" UNION ALL ") + " ORDER BY 1")).await?;
    if found.is_empty() { Ok(()) } else { Err(PreflightError::OtherOwner { role, found }.into()) }
}

#[derive(FromQueryResult)]
struct Server {
    number: i32,
    version: String,
    standby: bool,
    role: String,
    superuser: bool,
}
