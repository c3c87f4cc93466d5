//! The program's record of what it did in a database, in `private.sparc_record` and `public.sparc_migrations`. An
//! operator may have changed these tables by hand. Reading a changed table must not fail, because `check` reports
//! both changed columns and migrations that `sparc_migrations` no longer lists.

use std::collections::BTreeSet;

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use crate::{manifest, migrations::migration_names, query, table_access};

/// The version of the schema, which all patch releases share.
const SCHEMA_VERSION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// The rows of `private.sparc_record`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Whether the table exists and the role can read all its rows. If not, all other fields are empty.
    pub(crate) is_readable: bool,
    /// Version of the program that last migrated the database.
    pub(crate) version: Option<String>,
    /// Functions, triggers, policies and views that the program created, which a later version may drop.
    pub(crate) objects: BTreeSet<String>,
    /// The PostgreSQL schemas `auth` and `private`, if the program created them.
    pub(crate) schemas: BTreeSet<String>,
    /// Migrations that the program applied.
    pub(crate) migrations: Vec<String>,
    /// Whether the program has scheduled the jobs, which it does only once.
    pub(crate) jobs_were_scheduled: bool,
}

/// A row of either table. For `public.sparc_migrations`, `name` is the migration, and `value` is NULL.
#[derive(FromQueryResult)]
struct Row {
    name: Option<String>,
    value: Option<String>,
}

impl Record {
    pub(crate) async fn read<C: ConnectionTrait>(db: &C) -> Result<Self, DbErr> {
        if !table_access::can_read_all_rows(db, "private", "sparc_record").await? {
            return Ok(Self::default());
        }
        let mut record = Self { is_readable: true, ..Self::default() };
        // Each row is read as JSON, so that a missing column is not an error.
        let sql = "SELECT to_jsonb(row) ->> 'name' AS name, to_jsonb(row) ->> 'value' AS value
                    FROM private.sparc_record AS row";
        for row in query::fetch_all::<_, Row>(db, sql).await? {
            let (Some(name), Some(value)) = (row.name, row.value) else { continue };
            match name.as_str() {
                "version" => record.version = Some(value),
                "objects" => record.objects = value.lines().map(str::to_owned).collect(),
                "schemas" => record.schemas = value.lines().map(str::to_owned).collect(),
                "migrations" => record.migrations = value.lines().map(str::to_owned).collect(),
                "jobs" => record.jobs_were_scheduled = true,
                _ => {}
            }
        }
        Ok(record)
    }
}

/// What could be read of `public.sparc_migrations`.
pub(crate) enum AppliedMigrations {
    /// The role cannot read all rows of the table: it lacks a privilege, or row-level security applies to it.
    Unreadable,
    /// The names of the applied migrations.
    Listed(Vec<String>),
}

/// Reads `public.sparc_migrations`. The list is empty if the table or its column `version` does not exist.
pub(crate) async fn read_applied<C: ConnectionTrait>(db: &C) -> Result<AppliedMigrations, DbErr> {
    if !table_access::has_migrations_table(db).await? {
        return Ok(AppliedMigrations::Listed(Vec::new()));
    }
    if !table_access::can_read_all_rows(db, "public", "sparc_migrations").await? {
        return Ok(AppliedMigrations::Unreadable);
    }
    let sql = "SELECT btrim(to_jsonb(row) ->> 'version') AS name, NULL::text AS value
                FROM public.sparc_migrations AS row
                ORDER BY 1";
    let rows: Vec<Row> = query::fetch_all(db, sql).await?;
    Ok(AppliedMigrations::Listed(rows.into_iter().filter_map(|row| row.name).collect()))
}

/// Returns the comment on `public.sparc_migrations`. When the service connects, it reads the schema's version from this
/// comment.
fn version_comment() -> String {
    format!("Applied migrations of the SPARC schema {}", SCHEMA_VERSION)
}

/// Returns the SQL that records this program's version and what it has created. It must not run before the database has
/// this version's objects and jobs. It overwrites the list of objects that an earlier version created, so those that
/// this version no longer has must be dropped already. And it records that the jobs are scheduled, so no later `up`
/// schedules them.
pub(crate) fn write_record_sql() -> Vec<String> {
    let list_literal = |names: Vec<String>| query::literal(&names.join("\n"));
    vec![
        format!(
            "INSERT INTO private.sparc_record (name, value)
VALUES ('version', '{}'), ('objects', {})
ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            env!("CARGO_PKG_VERSION"),
            list_literal(objects_to_record())
        ),
        record_migrations_sql(),
        "INSERT INTO private.sparc_record (name, value)
SELECT 'schemas', string_agg(nspname, E'\\n' ORDER BY nspname)
FROM pg_catalog.pg_namespace
WHERE nspname IN ('auth', 'private')
  AND obj_description(oid, 'pg_namespace') LIKE 'made by sparc%'
HAVING count(*) > 0
ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            .to_owned(),
        // A role without USAGE on schema `cron` can neither see nor schedule jobs.
        "INSERT INTO private.sparc_record (name, value)
SELECT 'jobs', 'scheduled'
FROM pg_catalog.pg_namespace
WHERE nspname = 'cron'
  AND has_schema_privilege(oid, 'USAGE')
  AND EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron')
ON CONFLICT (name) DO NOTHING"
            .to_owned(),
        format!("COMMENT ON TABLE public.sparc_migrations IS '{}'", version_comment()),
    ]
}

/// Returns the SQL that records that all of this program's migrations are applied.
pub(crate) fn record_migrations_sql() -> String {
    format!(
        "INSERT INTO private.sparc_record (name, value)
VALUES ('migrations', {})
ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        query::literal(&migration_names().join("\n"))
    )
}

/// SQL that clears the recorded migrations, the program's version and the schema's version (the comment on
/// `public.sparc_migrations`) after some migrations were undone. So nobody takes the partial schema for a complete one,
/// and an earlier version whose migrations are just those that are still applied may complete it with its `up`. If the
/// tables of the game were dropped, the jobs were unscheduled with them. In that case the SQL also deletes the record
/// that the jobs were scheduled, so that the next `up` schedules them again.
pub(crate) const MARK_INCOMPLETE: &str = "DELETE FROM private.sparc_record WHERE name IN ('migrations', 'version');
DELETE FROM private.sparc_record WHERE name = 'jobs' AND pg_catalog.to_regclass('public.sessions') IS NULL;
COMMENT ON TABLE public.sparc_migrations IS NULL";

/// Returns the objects of this version that are recorded by name, because a later version may drop those that it no
/// longer has.
pub(crate) fn objects_to_record() -> Vec<String> {
    manifest::definitions().into_keys().filter(|object| is_recorded(object)).collect()
}

/// Whether an object of the schema is recorded by name: a function, trigger, policy or view. The functions in schema
/// `auth` are not recorded, because the first migration creates them, or they are Supabase's.
pub(crate) fn is_recorded(object: &str) -> bool {
    match manifest::kind(object) {
        "function" => !object.starts_with("function auth."),
        kind => matches!(kind, "trigger" | "policy" | "view"),
    }
}
