//! Checks that must pass before anything is changed.

mod names;

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use crate::{
    MigrationError, manifest,
    migrations::{migration_names, name_of_tables_migration},
    query::{self, fetch_names, fetch_one},
    state::State,
};

use names::{check_job_names_are_free, check_names_are_free};
pub(crate) use names::{check_names_of_missing_objects_are_free, check_not_moved, check_not_renamed_or_moved};

/// Checks that the configuration of the server does not turn triggers off. `up` cannot correct that, because ALTER
/// SYSTEM does not run in a transaction. The call must come before `set_up_and_lock_sql` (in `script`) runs, which
/// overrides the setting for the transaction.
pub(crate) async fn check_server_enables_triggers<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    #[derive(FromQueryResult)]
    struct ServerSetting {
        setting: String,
        source: String,
    }
    let found: Vec<ServerSetting> = query::fetch_all(
        db,
        "SELECT setting, source
         FROM pg_catalog.pg_settings
         WHERE name = 'session_replication_role'
           AND setting <> 'origin'
           AND source IN ('configuration file', 'command line', 'environment variable')",
    )
    .await?;
    match found.into_iter().next() {
        None => Ok(()),
        Some(ServerSetting { setting, source }) => {
            Err(MigrationError::TriggersDisabledByServer { setting, source_of_setting: source }.into())
        }
    }
}

/// Checks that the server accepts writes, and that the role and the objects in the database permit the command.
pub(crate) async fn check_ready<C: ConnectionTrait>(db: &C, state: &State) -> Result<(), DbErr> {
    let properties: ConnectionProperties = fetch_one(
        db,
        "SELECT
           pg_is_in_recovery() AS server_is_standby,
           current_user::text AS role,
           (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS role_is_superuser",
    )
    .await?;
    if properties.server_is_standby {
        return Err(MigrationError::Standby.into());
    }
    let Some(applied) = &state.applied_migrations else {
        let missing = vec!["SELECT on table public.sparc_migrations (not restricted by row-level security)".to_owned()];
        return Err(MigrationError::MissingPrivileges { role: properties.role, missing }.into());
    };
    if applied.is_empty() {
        check_auth_schema(db).await?;
    }
    let has_pending_migrations = applied.len() < migration_names().len();
    if has_pending_migrations {
        check_migrations_table_before_up(state)?;
        // Once the tables are created, objects with the schema's names are the schema's own.
        if !applied.iter().any(|name| name == name_of_tables_migration()) {
            check_names_are_free(db, state).await?;
        }
        // The role would own what it creates.
        if ["anon", "authenticated", "service_role"].contains(&properties.role.as_str()) {
            return Err(MigrationError::ApiRoleMigrates { role: properties.role }.into());
        }
    }
    check_job_names_are_free(state)?;
    if !properties.role_is_superuser {
        let missing = fetch_names(db, include_str!("../../sql/missing_privileges.sql")).await?;
        if !missing.is_empty() {
            return Err(MigrationError::MissingPrivileges { role: properties.role, missing }.into());
        }
    }
    check_owners(db, state, properties.role).await?;
    if has_pending_migrations && state.has_damaged_record() {
        return Err(damaged_record_error(state).into());
    }
    Ok(())
}

fn damaged_record_error(state: &State) -> MigrationError {
    let database_version = match &state.record.version {
        Some(version) => format!("version {version} of this program"),
        None => "the version of this program that installed the schema".to_owned(),
    };
    MigrationError::DamagedRecordBeforeUpgrade { database_version }
}

/// Checks the same as [`check_migrations_table`], but for an `up` that has migrations to apply. Such an `up` does not
/// repair the table, so the error names another remedy.
fn check_migrations_table_before_up(state: &State) -> Result<(), MigrationError> {
    if check_migrations_table(state).is_ok() {
        return Ok(());
    }
    if !state.needs_upgrade() {
        return check_migrations_table_is_ours(state);
    }
    Err(match state.record.version.clone() {
        Some(database_version) => MigrationError::InvalidMigrationsTableBeforeUpgrade { database_version },
        // The repair by the earlier version repairs the table too.
        None => damaged_record_error(state),
    })
}

/// Checks that the object called `public.sparc_migrations`, if there is one, is the list of these migrations. Any other
/// object counts as one of another program. So this function must be called only while no migration is recorded as
/// applied: otherwise the object may be the list of these migrations, changed by hand.
pub(crate) fn check_migrations_table_is_ours(state: &State) -> Result<(), MigrationError> {
    if check_migrations_table(state).is_ok() {
        return Ok(());
    }
    let is_called_sparc_migrations = |object: &&str| object.split(' ').nth(1) == Some("public.sparc_migrations");
    let found = state.found_by_name().into_keys().filter(is_called_sparc_migrations).map(str::to_owned).collect();
    Err(MigrationError::NameCollision { found, includes_most_objects: false })
}

/// Checks that `public.sparc_migrations` lists every recorded migration, and, if an object has that name, that it is a
/// table with the columns that SeaORM expects.
pub(crate) fn check_migrations_table(state: &State) -> Result<(), MigrationError> {
    let found = state.found_by_name();
    let is_as_expected = |object: &String| {
        found.get(object.as_str()).is_some_and(|actual| Some(&actual.definition) == state.expected.get(object))
    };
    let mut columns = state
        .expected
        .keys()
        .filter(|object| object.ends_with(" of public.sparc_migrations") && object.starts_with("column "));
    let is_name_in_use = found.keys().any(|object| object.split(' ').nth(1) == Some("public.sparc_migrations"));
    if state.unlisted_migrations.is_empty()
        && (!is_name_in_use || (found.contains_key("table public.sparc_migrations") && columns.all(is_as_expected)))
    {
        Ok(())
    } else {
        Err(MigrationError::InvalidMigrationsTable)
    }
}

/// Checks that the PostgreSQL schema `auth`, if it exists, has the objects on which the game's schema depends.
async fn check_auth_schema<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
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
         ) AS required (name, is_present)
         WHERE NOT is_present AND to_regnamespace('auth') IS NOT NULL",
    )
    .await?;
    if missing.is_empty() {
        Ok(())
    } else {
        Err(MigrationError::IncompleteAuthSchema { missing: missing.join(" and ") }.into())
    }
}

/// Checks that the role owns every table, view, sequence, function and type of the schema, or has the privileges of the
/// role that owns it, as a member of that role.
async fn check_owners<C: ConnectionTrait>(db: &C, state: &State, role: String) -> Result<(), DbErr> {
    let mut queries = Vec::new();
    for (catalog, owner_column) in [("pg_class", "relowner"), ("pg_proc", "proowner"), ("pg_type", "typowner")] {
        // An index belongs to the owner of its table.
        let oids: Vec<String> = state
            .found_objects
            .iter()
            .filter(|found| found.class.as_deref() == Some(catalog) && found.subid == 0 && state.is_ours(&found.name))
            .filter(|found| manifest::kind(&found.name) != "index")
            .map(|found| found.objid.to_string())
            .collect();
        if !oids.is_empty() {
            queries.push(format!(
                "SELECT
                   format(
                     '%s (of %s)', pg_describe_object('{catalog}'::regclass, oid, 0), pg_get_userbyid({owner_column})
                   ) AS name
                 FROM pg_catalog.{catalog}
                 WHERE oid IN ({}) AND NOT pg_has_role({owner_column}, 'USAGE')",
                oids.join(", ")
            ));
        }
    }
    if queries.is_empty() {
        return Ok(());
    }
    let found = fetch_names(db, &(queries.join(" UNION ALL ") + " ORDER BY 1")).await?;
    if found.is_empty() { Ok(()) } else { Err(MigrationError::NotOwner { role, found }.into()) }
}

/// Properties of the server, and of the role of this connection.
#[derive(FromQueryResult)]
struct ConnectionProperties {
    server_is_standby: bool,
    role: String,
    role_is_superuser: bool,
}
