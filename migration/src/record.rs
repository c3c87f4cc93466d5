//! What the program remembers of a database, in `private.sparc_record` and `public.sparc_migrations`. Both are read with care: an
//! operator may have changed them by hand, and then `check` says so.

use std::collections::BTreeSet;

use sea_orm_migration::{
    MigratorTrait,
    prelude::*,
    sea_orm::{self, FromQueryResult},
};

use crate::{Migrator, manifest, preflight, query, script};

/// What the program remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Whether the role may read it.
    pub(crate) is_readable: bool,
    /// Version of the program that migrated last.
    pub(crate) version: Option<String>,
    /// Objects that it made, which a later version may drop.
    pub(crate) objects: BTreeSet<String>,
    /// Schemas that it made, which `down` drops.
    pub(crate) schemas: BTreeSet<String>,
    /// Migrations that it applied.
    pub(crate) migrations: Vec<String>,
    /// Whether the jobs were scheduled once.
    pub(crate) has_jobs: bool,
}

#[derive(FromQueryResult)]
struct Row {
    name: Option<String>,
    value: Option<String>,
}

impl Record {
    pub(crate) async fn read<C: ConnectionTrait>(db: &C) -> Result<Self, DbErr> {
        if !preflight::can_read(db, "private", "sparc_record").await? {
            return Ok(Self::default());
        }
        let mut record = Self { is_readable: true, ..Self::default() };
        // As JSON: a column that is gone is no error.
        let rows = "SELECT to_jsonb(row) ->> 'name' AS name, to_jsonb(row) ->> 'value' AS value
                    FROM private.sparc_record AS row";
        for row in query::all::<_, Row>(db, rows).await? {
            let (Some(name), Some(value)) = (row.name, row.value) else { continue };
            match name.as_str() {
                "version" => record.version = Some(value),
                "objects" => record.objects = value.lines().map(str::to_owned).collect(),
                "schemas" => record.schemas = value.lines().map(str::to_owned).collect(),
                "migrations" => record.migrations = value.lines().map(str::to_owned).collect(),
                "jobs" => record.has_jobs = true,
                _ => {}
            }
        }
        Ok(record)
    }
}

/// The list of applied migrations, as the database has it.
pub(crate) enum Applied {
    /// The role may not read it.
    Unreadable,
    /// Each version that is listed.
    Listed(Vec<String>),
}

/// Reads `public.sparc_migrations`; empty where there is none, or where it has no such column.
pub(crate) async fn applied<C: ConnectionTrait>(db: &C) -> Result<Applied, DbErr> {
    if !preflight::has_record(db).await? {
        return Ok(Applied::Listed(Vec::new()));
    }
    if !preflight::can_read(db, "public", "sparc_migrations").await? {
        return Ok(Applied::Unreadable);
    }
    let rows = "SELECT btrim(to_jsonb(row) ->> 'version') AS name, NULL::text AS value
                FROM public.sparc_migrations AS row
                ORDER BY 1";
    let rows: Vec<Row> = query::all(db, rows).await?;
    Ok(Applied::Listed(rows.into_iter().filter_map(|row| row.name).collect()))
}

/// Names of this program's migrations, in their order.
pub(crate) fn known() -> Vec<String> {
    Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect()
}

/// What the service reads when it connects: which schema this is.
pub(crate) fn schema_comment() -> String {
    format!("Applied migrations of the SPARC schema {}", script::SCHEMA_VERSION)
}

/// SQL that remembers what was made.
pub(crate) fn remember() -> Vec<String> {
    let lines = |texts: Vec<String>| query::literal(&texts.join("\n"));
    vec![
        format!(
            "INSERT INTO private.sparc_record (name, value)
VALUES ('version', '{}'), ('objects', {}), ('migrations', {})
ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            env!("CARGO_PKG_VERSION"),
            lines(objects()),
            lines(known())
        ),
        "INSERT INTO private.sparc_record (name, value)
SELECT 'schemas', string_agg(nspname, E'\\n' ORDER BY nspname)
FROM pg_catalog.pg_namespace
WHERE nspname IN ('auth', 'private')
  AND obj_description(oid, 'pg_namespace') LIKE 'made by sparc%'
HAVING count(*) > 0
ON CONFLICT (name) DO UPDATE SET value = excluded.value"
            .to_owned(),
        "INSERT INTO private.sparc_record (name, value)
SELECT 'jobs', 'scheduled'
FROM pg_catalog.pg_extension
WHERE extname = 'pg_cron'
ON CONFLICT (name) DO NOTHING"
            .to_owned(),
        format!("COMMENT ON TABLE public.sparc_migrations IS '{}'", schema_comment()),
    ]
}

/// SQL for a schema that is only applied in part: nothing is to be taken for complete.
pub(crate) const FORGET: &str = "DELETE FROM private.sparc_record WHERE name = 'migrations';
COMMENT ON TABLE public.sparc_migrations IS NULL";

/// What a later version may drop when it no longer has it.
pub(crate) fn objects() -> Vec<String> {
    let is_rule = |object: &String| matches!(manifest::kind(object), "function" | "trigger" | "policy" | "view");
    manifest::carried().into_keys().filter(is_rule).collect()
}
