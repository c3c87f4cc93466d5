//! Checks that must pass before anything is changed, and the messages if they do not.

use sea_orm_migration::{MigratorTrait, prelude::*, sea_orm::FromQueryResult};

use crate::{
    Migrator,
    check::State,
    manifest::{self, Lines},
    query::{self, fetch_bool, fetch_names, fetch_one},
    record, renames,
};

/// The reason why a command changed nothing: one sentence with the cause and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreflightError {
    /// The server is older than version 15.
    #[error("PostgreSQL {found} is too old: upgrade the server to version 15 or newer.")]
    ServerTooOld {
        /// The server's version.
        found: String,
    },
    /// The server is a standby, which accepts no writes.
    #[error("This server is a read-only standby: give the address of the primary.")]
    Standby,
    /// The role lacks privileges.
    #[error(
        "Role \"{role}\" lacks {}: grant what is missing, or connect as a role that has it.",
        missing.join(" and ")
    )]
    MissingPrivileges {
        /// The role that migrates.
        role: String,
        /// Each privilege and its object.
        missing: Vec<String>,
    },
    /// Objects with the schema's names exist that these migrations did not create, or whose record was lost.
    #[error(
        "The database already has {}, and no record that these migrations made it: use another database, or rename or \
         drop what is there.",
        found.join(", ")
    )]
    NameCollision {
        /// The qualified name of each object.
        found: Vec<String>,
    },
    /// Other objects have the names of missing ones.
    #[error(
        "{} is missing and cannot be created, because its name is taken by {}: rename or drop that, and run up again; nothing was \
         changed.",
        wanted.join(", "),
        found.join(", ")
    )]
    NameTaken {
        /// Each missing object.
        wanted: Vec<String>,
        /// Each object that has such a name, as PostgreSQL describes it.
        found: Vec<String>,
    },
    /// Tables or columns have each other's names.
    #[error(
        "Names were mixed up: {}. Restore each name by hand (ALTER TABLE ... RENAME), and run up again; nothing was \
         changed.",
        found.join("; ")
    )]
    MixedUp {
        /// Each object, and what it is according to its comment.
        found: Vec<String>,
    },
    /// Missing tables seem to be in another schema.
    #[error(
        "Tables of the schema seem to have been moved: {}. Move them back (ALTER TABLE ... SET SCHEMA), or, if they are \
         copies, drop their comments, and run up again; nothing was changed.",
        found.join(", ")
    )]
    MovedAway {
        /// Each table, as PostgreSQL describes it.
        found: Vec<String>,
    },
    /// Objects are renamed, so that their names do not tell what is to be dropped.
    #[error(
        "Objects of the schema were renamed: {}. Run up, which restores their names, and then this command; nothing was \
         changed.",
        found.join(", ")
    )]
    Renamed {
        /// Each object's name in the schema and its present name.
        found: Vec<String>,
    },
    /// `sparc_migrations` is no longer the list of migrations.
    #[error(
        "public.sparc_migrations is not the list of applied migrations (columns version and applied_at, one row for each \
         migration): run up, which creates it again, and then this command; nothing was changed."
    )]
    BrokenList,
    /// The database has migrations of a newer version of this program.
    #[error(
        "The database was migrated by {database} of this program, with {}, which version {} does not know: run \
         {database}, or give the address of another database.",
        found.join(", "),
        env!("CARGO_PKG_VERSION")
    )]
    UnknownMigrations {
        /// The name of each migration that this program does not have.
        found: Vec<String>,
        /// The version that the database records.
        database: String,
    },
    /// The schema is that of a newer version of this program, and this one would downgrade it.
    #[error(
        "The database was migrated by version {database} of this program, and differs from version {}: run version \
         {database} or newer; nothing was changed.",
        env!("CARGO_PKG_VERSION")
    )]
    NewerVersion {
        /// The version that the database records.
        database: String,
    },
    /// A schema `auth` exists that is not the platform's.
    #[error("Schema \"auth\" exists without {missing}: use a Supabase database, or one without a schema \"auth\".")]
    IncompleteAuthSchema {
        /// What the platform has and this database lacks.
        missing: String,
    },
    /// Another role owns objects of the schema.
    #[error(
        "Role \"{role}\" is not a member of the role that owns {}: connect as their owner, or let an administrator make \
         \"{role}\" the owner (ALTER ... OWNER TO).",
        found.join(", ")
    )]
    OtherOwner {
        /// The role that migrates.
        role: String,
        /// Each object, with its owner.
        found: Vec<String>,
    },
    /// An operator's objects would be dropped together with the schema's.
    #[error(
        "These objects are not part of the schema and depend on what would be dropped: {}. Drop or change them first; \
         nothing was changed.",
        found.join(", ")
    )]
    Dependents {
        /// Each object, as PostgreSQL describes it.
        found: Vec<String>,
    },
    /// Another database session holds a lock.
    #[error(
        "Another database session holds a lock that this command needs ({holders}): end its transaction, and run the command \
         again; nothing was changed."
    )]
    Locked {
        /// Each process, with the locked table.
        holders: String,
    },
    /// There are differences that `up` cannot repair.
    #[error("up cannot repair this: {}. Correct it by hand, and run up again; nothing was changed.", found.join("; "))]
    NotRepairable {
        /// Each difference.
        found: Vec<String>,
    },
    /// The database rejected a repair.
    #[error(
        "up cannot repair {object}, because the database rejects it ({reason}): correct that by hand, and run up again; \
         nothing was changed."
    )]
    RepairRefused {
        /// The object.
        object: String,
        /// The database's message.
        reason: String,
    },
    /// A column was dropped together with its values.
    #[error(
        "{object} is missing, and with it the values of {rows} rows, which must not be NULL: restore them from a backup, or \
         add the column with its values by hand, and run up again; nothing was changed."
    )]
    ValuesLost {
        /// The column.
        object: String,
        /// The number of rows of the table.
        rows: i64,
    },
    /// Rows violate a missing constraint or unique index.
    #[error(
        "{object} cannot be created again, because rows of {table} violate it: {rows}. Correct those rows, and run up again; \
         nothing was changed."
    )]
    RowsInTheWay {
        /// The constraint or index.
        object: String,
        /// Its table.
        table: String,
        /// The number of these rows, and the keys of the first five.
        rows: String,
    },
}

impl From<PreflightError> for DbErr {
    fn from(error: PreflightError) -> Self {
        DbErr::Migration(error.to_string())
    }
}

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

/// Returns whether any migration was ever applied to this database.
pub(crate) async fn has_record<C: ConnectionTrait>(db: &C) -> Result<bool, DbErr> {
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
    let known = record::known();
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
        let missing = fetch_names(db, include_str!("../sql/missing_privileges.sql")).await?;
        if !missing.is_empty() {
            return Err(PreflightError::MissingPrivileges { role: server.role, missing }.into());
        }
    }
    check_owner(db, state, server.role).await
}

/// Checks that the schema's objects have their names and are in their schemas, so that what is to be dropped is found.
pub(crate) async fn check_in_place<C: ConnectionTrait>(db: &C, state: &State) -> Result<(), DbErr> {
    if !state.pending().is_empty() {
        return Ok(());
    }
    let mixed = renames::swapped_names(state);
    if !mixed.is_empty() {
        return Err(PreflightError::MixedUp { found: mixed }.into());
    }
    let renamed: Vec<String> =
        renames::find(state).into_iter().map(|rename| format!("{}, to {}", rename.object, rename.now)).collect();
    if !renamed.is_empty() {
        return Err(PreflightError::Renamed { found: renamed }.into());
    }
    let found = state.found();
    let missing: Vec<&str> =
        state.expected.keys().map(String::as_str).filter(|object| !found.contains_key(object)).collect();
    check_not_elsewhere(db, state, &missing).await
}

/// Checks that no missing table is in another schema, where it would be recognized by its comment.
pub(crate) async fn check_not_elsewhere<C: ConnectionTrait>(
    db: &C,
    state: &State,
    missing: &[&str],
) -> Result<(), DbErr> {
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
             ORDER BY 1",
            query::literals(comments)
        ),
    )
    .await?;
    if found.is_empty() { Ok(()) } else { Err(PreflightError::MovedAway { found }.into()) }
}

/// Checks that no other object has the name of one that is to be created.
pub(crate) async fn check_names_of_missing<C: ConnectionTrait>(
    db: &C,
    state: &State,
    missing: &[&str],
) -> Result<(), DbErr> {
    let mut relations: Vec<(String, &str)> = Vec::new();
    let mut types: Vec<(String, &str)> = Vec::new();
    for object in missing {
        let (_, name) = object.split_once(' ').unwrap_or_default();
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
    let (mut wanted, mut found) = (Vec::new(), Vec::new());
    for (catalog, schema, name, objects) in
        [("pg_class", "relnamespace", "relname", relations), ("pg_type", "typnamespace", "typname", types)]
    {
        // PostgreSQL describes types and domains alike as types, so the message adds the kind.
        let note = if catalog == "pg_type" {
            " || CASE typtype WHEN 'd' THEN ' (a domain)' WHEN 'c' THEN ' (the rows of a relation)' ELSE '' END"
        } else {
            ""
        };
        if objects.is_empty() {
            continue;
        }
        #[derive(FromQueryResult)]
        struct Taken {
            name: String,
            description: String,
        }
        let taken: Vec<Taken> = query::fetch_all(
            db,
            &format!(
                "SELECT format('%I.%I', nspname, {name}) AS name, pg_describe_object('{catalog}'::regclass, {catalog}.oid, 0){note} AS description
                 FROM pg_catalog.{catalog}
                 JOIN pg_catalog.pg_namespace ON pg_namespace.oid = {schema}
                 WHERE format('%I.%I', nspname, {name}) IN ({})
                 ORDER BY 1",
                query::literals(objects.iter().map(|(name, _)| name.as_str()))
            ),
        )
        .await?;
        for taken in taken {
            wanted
                .extend(objects.iter().filter(|(name, _)| *name == taken.name).map(|(_, object)| (*object).to_owned()));
            found.push(taken.description);
        }
    }
    if found.is_empty() { Ok(()) } else { Err(PreflightError::NameTaken { wanted, found }.into()) }
}

/// Returns the qualified name of an index or of a constraint's index. It is in the schema of its table.
fn index_name(object: &str) -> Option<String> {
    let (name, table) = manifest::on_table(object)?;
    Some(format!("{}.{name}", table.split_once('.')?.0))
}

/// Checks that the list of migrations has the form that SeaORM expects.
pub(crate) fn check_list(state: &State) -> Result<(), PreflightError> {
    let found = state.found();
    let is_there = |object: &String| {
        found.get(object.as_str()).is_some_and(|there| Some(&there.definition) == state.expected.get(object))
    };
    let mut columns = state
        .expected
        .keys()
        .filter(|object| object.ends_with(" of public.sparc_migrations") && object.starts_with("column "));
    let exists = found.keys().any(|object| object.split(' ').nth(1) == Some("public.sparc_migrations"));
    if state.unlisted.is_empty()
        && (!exists || (found.contains_key("table public.sparc_migrations") && columns.all(is_there)))
    {
        Ok(())
    } else {
        Err(PreflightError::BrokenList)
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

/// Checks that no tables, views, types or functions with the schema's names exist before it is created.
fn check_names_are_free(state: &State) -> Result<(), PreflightError> {
    let names = |lines: Vec<&str>| -> Vec<String> {
        let is_top =
            |object: &&str| matches!(manifest::kind(object), "table" | "view" | "type" | "domain" | "function");
        // The record itself is created before the first migration.
        lines.into_iter().filter(is_top).filter(|object| !object.contains(".sparc_")).map(without_arguments).collect()
    };
    let committed: Lines = manifest::committed();
    let ours = names(committed.keys().map(String::as_str).filter(|object| !object.contains(" auth.")).collect());
    let mut found = names(state.found.iter().map(|found| found.object.as_str()).collect());
    found.retain(|name| ours.contains(name));
    if found.is_empty() { Ok(()) } else { Err(PreflightError::NameCollision { found }) }
}

fn without_arguments(object: &str) -> String {
    object.split('(').next().unwrap_or_default().to_owned()
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
