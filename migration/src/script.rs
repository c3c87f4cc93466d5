//! The whole schema as SQL, for `psql` and for `supabase/migrations`.

use sea_orm_migration::MigrationName;

use crate::{m20261101_000001_platform as platform, m20261101_000002_tables as tables, query, record, rules};

/// Patch releases share a schema.
pub(crate) const SCHEMA_VERSION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// Settings of a database or a role that would change the meaning of the statements, or how the catalog prints
/// definitions.
pub(crate) const PLAIN_SYNTAX: &str = "SET LOCAL standard_conforming_strings = on;
SET LOCAL quote_all_identifiers = off;
SET LOCAL intervalstyle = postgres;
SET LOCAL datestyle = 'ISO, MDY'";

/// Returns the SQL of each migration, by name.
fn structure() -> Vec<(String, Vec<String>)> {
    vec![(platform::Migration.name().to_owned(), platform::up()), (tables::Migration.name().to_owned(), tables::up())]
}

/// Returns the SQL that applies the pending migrations, creates all rules, and records both.
pub(crate) fn install(pending: &[String]) -> Vec<String> {
    let mut sql = vec![
        "SET LOCAL search_path = public".to_owned(),
        "CREATE TABLE IF NOT EXISTS public.sparc_migrations (
  version character varying NOT NULL PRIMARY KEY,
  applied_at bigint NOT NULL
)"
        .to_owned(),
    ];
    for (name, statements) in structure().into_iter().filter(|(name, _)| pending.contains(name)) {
        sql.extend(statements);
        sql.push(format!(
            "INSERT INTO public.sparc_migrations (version, applied_at)
VALUES ({}, extract(epoch FROM now())::bigint)",
            query::literal(&name)
        ));
    }
    sql.extend(rules());
    sql
}

/// Returns the SQL for everything after the tables: rules, backfill, jobs, and the record.
pub(crate) fn rules() -> Vec<String> {
    let mut sql = rules::install();
    sql.extend([rules::BACKFILL.to_owned(), rules::JOBS.to_owned()]);
    sql.extend(record::record_sql());
    sql
}

/// Formats statements as one transaction for `psql`.
pub(crate) fn transaction(statements: &[String]) -> String {
    // The program's lock, because both may run at the same time.
    let mut text = format!(
        "BEGIN;\n\n{PLAIN_SYNTAX};\n\nDO $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(358434263618); END $$;\n\n"
    );
    for statement in statements {
        let statement = statement.trim_end().trim_end_matches(';');
        text.push_str(statement);
        // A comment at the end of the last line would hide the semicolon.
        text.push_str(if statement.lines().last().is_some_and(|line| line.contains("--")) {
            "\n;\n\n"
        } else {
            ";\n\n"
        });
    }
    text.push_str("COMMIT;\n");
    text
}

/// Returns the whole schema as one script, for `psql -f` or as a file of `supabase/migrations`. It records what it
/// applied, so that `up`, `check` and `status` accept the result, and fails on a database that already has the schema.
#[must_use]
pub fn sql() -> String {
    let names: Vec<String> = structure().into_iter().map(|(name, _)| name).collect();
    let guard = "DO $$
BEGIN
  IF to_regclass('public.sparc_migrations') IS NOT NULL THEN
    RAISE EXCEPTION 'the database has the schema already: bring it up to date with the program (cargo run -p migration -- up)';
  END IF;
END
$$";
    let mut statements = vec![guard.to_owned()];
    statements.extend(install(&names));
    format!(
        "-- The SPARC schema, version {}: made by `cargo run -p migration -- sql`, for psql and supabase/migrations.\n\n{}",
        env!("CARGO_PKG_VERSION"),
        transaction(&statements)
    )
}
