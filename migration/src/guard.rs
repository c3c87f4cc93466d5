//! What must be so before anything is changed, and the sentence that says so when it is not.

use sea_orm_migration::{
    MigratorTrait,
    prelude::*,
    sea_orm::{DbBackend, FromQueryResult, Statement},
};

use crate::{
    Story, functions,
    tables::{TABLES, TYPES},
};

/// Why the database is not touched, as one sentence with what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A server before 15.
    #[error("PostgreSQL {found} is too old: the schema needs version 15 or newer, so upgrade the server.")]
    ServerTooOld {
        /// Version of the server.
        found: String,
    },
    /// A standby, which nobody can write to.
    #[error("This server is a read-only standby: give the address of the primary.")]
    Standby,
    /// Rights that the role does not have.
    #[error(
        "Role \"{role}\" lacks {}: grant that, or migrate as a role that has it.",
        missing.join(" and ")
    )]
    MissingRights {
        /// The role that migrates.
        role: String,
        /// Each right, as PostgreSQL calls it, and on what.
        missing: Vec<String>,
    },
    /// Objects of our names that somebody else made.
    #[error(
        "The database holds {} already, not made by these migrations: migrate another database, or rename or drop what \
         is there.",
        found.join(", ")
    )]
    NotOurs {
        /// Each object, qualified.
        found: Vec<String>,
    },
    /// Migrations of another program, or of a newer version of this one.
    #[error(
        "The database was migrated by another program or a newer version of this one ({} unknown here): run that \
         version, or give the address of another database.",
        found.join(", ")
    )]
    UnknownMigrations {
        /// Each name that is not in this program.
        found: Vec<String>,
    },
    /// A schema `auth` that is not the platform's.
    #[error(
        "Schema \"auth\" is there without {missing}: migrate a Supabase database, or one without a schema \"auth\"."
    )]
    HalfAPlatform {
        /// What the platform has and this database has not.
        missing: String,
    },
}

impl From<Refusal> for DbErr {
    fn from(refusal: Refusal) -> Self {
        DbErr::Migration(refusal.to_string())
    }
}

/// Whether somebody else made a platform here.
pub(crate) async fn has_auth<C: ConnectionTrait>(db: &C) -> Result<bool, DbErr> {
    ask(db, "SELECT to_regnamespace('auth') IS NOT NULL AS answer").await
}

/// No migration is applied that this program does not know.
pub async fn check_known<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    if !has_migrations(db).await? {
        return Ok(());
    }
    let known: Vec<String> = Story::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let found: Vec<String> = list(db, "SELECT version::text AS name FROM seaql_migrations ORDER BY 1")
        .await?
        .into_iter()
        .filter(|name| !known.contains(name))
        .collect();
    if found.is_empty() { Ok(()) } else { Err(Refusal::UnknownMigrations { found }.into()) }
}

/// Whatever is still to be applied can be applied here, by this role.
pub(crate) async fn check_ready<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    let server: Server = one(
        db,
        "SELECT
           current_setting('server_version_num')::integer AS number,
           current_setting('server_version') AS version,
           pg_is_in_recovery() AS standby,
           current_user::text AS role,
           (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser",
    )
    .await?;
    if server.number < 150_000 {
        return Err(Refusal::ServerTooOld { found: server.version }.into());
    }
    if server.standby {
        return Err(Refusal::Standby.into());
    }

    let applied = if has_migrations(db).await? {
        list(db, "SELECT version::text AS name FROM seaql_migrations").await?
    } else {
        Vec::new()
    };
    if applied.len() == Story::migrations().len() {
        return Ok(());
    }
    if applied.is_empty() {
        check_platform(db).await?;
    }
    if applied.len() < 2 {
        check_names_are_free(db).await?;
    }
    if !server.superuser {
        let missing = list(db, include_str!("../sql/missing_rights.sql")).await?;
        if !missing.is_empty() {
            return Err(Refusal::MissingRights { role: server.role, missing }.into());
        }
    }
    Ok(())
}

async fn check_platform<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    if !has_auth(db).await? {
        return Ok(());
    }
    let missing = list(
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
         WHERE NOT is_there",
    )
    .await?;
    if missing.is_empty() { Ok(()) } else { Err(Refusal::HalfAPlatform { missing: missing.join(" and ") }.into()) }
}

/// Tables, types and functions of our names are not there before we make them.
async fn check_names_are_free<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    let functions: Vec<&str> = [functions::CHECKS, functions::RULES, functions::ACCESS]
        .concat()
        .iter()
        .filter_map(|signature| signature.split('(').next())
        .collect();
    let found = list(
        db,
        &format!(
            "SELECT 'table public.' || relname AS name
             FROM pg_catalog.pg_class
             WHERE relnamespace = 'public'::regnamespace AND relname IN ({tables})
             UNION ALL
             SELECT 'type public.' || typname
             FROM pg_catalog.pg_type
             WHERE typnamespace = 'public'::regnamespace AND typname IN ({types})
             UNION ALL
             SELECT 'function ' || nspname || '.' || proname
             FROM pg_catalog.pg_proc
             JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pronamespace
             WHERE nspname || '.' || proname IN ({functions})
             ORDER BY 1",
            tables = quoted(&TABLES),
            types = quoted(&TYPES),
            functions = quoted(&functions),
        ),
    )
    .await?;
    if found.is_empty() { Ok(()) } else { Err(Refusal::NotOurs { found }.into()) }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

async fn has_migrations<C: ConnectionTrait>(db: &C) -> Result<bool, DbErr> {
    ask(db, "SELECT to_regclass('seaql_migrations') IS NOT NULL AS answer").await
}

#[derive(FromQueryResult)]
struct Server {
    number: i32,
    version: String,
    standby: bool,
    role: String,
    superuser: bool,
}

#[derive(FromQueryResult)]
struct Answer {
    answer: bool,
}

#[derive(FromQueryResult)]
struct Name {
    name: String,
}

async fn ask<C: ConnectionTrait>(db: &C, sql: &str) -> Result<bool, DbErr> {
    Ok(one::<C, Answer>(db, sql).await?.answer)
}

async fn one<C: ConnectionTrait, T: FromQueryResult>(db: &C, sql: &str) -> Result<T, DbErr> {
    T::find_by_statement(Statement::from_string(DbBackend::Postgres, sql))
        .one(db)
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("a catalog query gave no row".to_owned()))
}

async fn list<C: ConnectionTrait>(db: &C, sql: &str) -> Result<Vec<String>, DbErr> {
    Ok(Name::find_by_statement(Statement::from_string(DbBackend::Postgres, sql))
        .all(db)
        .await?
        .into_iter()
        .map(|row| row.name)
        .collect())
}
