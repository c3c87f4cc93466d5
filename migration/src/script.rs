//! The whole schema as SQL, for `psql` and for `supabase/migrations`.

use std::collections::BTreeSet;

use crate::{manifest, migrations::migrations_sql, query, record, repeatable};

/// SQL that overrides settings of the database or the role that would change what statements mean, how values are
/// converted, or how the catalog prints definitions. It also disables the role's timeouts, which are meant for users'
/// requests, and limits the wait for a lock: while a statement waits, other clients' new statements on the same table
/// have to wait too.
pub(crate) const STANDARD_SETTINGS: &str = "SET LOCAL statement_timeout = 0;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL standard_conforming_strings = on;
SET LOCAL quote_all_identifiers = off;
SET LOCAL intervalstyle = postgres;
SET LOCAL datestyle = 'ISO, MDY';
SET LOCAL timezone = 'UTC';
SET LOCAL extra_float_digits = 1;
SET LOCAL lock_timeout = '10s';
SET LOCAL idle_in_transaction_session_timeout = 0;
DO $$ BEGIN
  IF current_setting('server_version_num')::integer >= 170000 THEN
    SET LOCAL transaction_timeout = 0;
  END IF;
END $$";

/// The key of the advisory lock that keeps migrators (this program, and the script that [`install_script`] returns)
/// from running at the same time. The number is arbitrary.
pub(crate) const LOCK_KEY: i64 = 358_434_263_618;

/// Returns the SQL with which a command that changes the database begins, after [`STANDARD_SETTINGS`]. It waits at most
/// ten minutes for another migrator to end.
///
/// If `session_replication_role` is `replica`, no trigger fires, not even those of foreign keys, so the SQL sets it to
/// `origin`. That fails unless the role is a superuser or has the privilege SET on this parameter.
pub(crate) fn set_up_and_lock_sql() -> String {
    format!(
        "SET LOCAL search_path = public;
SET LOCAL check_function_bodies = on;
SET LOCAL client_min_messages = warning;
DO $$ BEGIN
  IF current_setting('session_replication_role') <> 'origin' THEN
    SET LOCAL session_replication_role = origin;
  END IF;
END $$;
SET LOCAL lock_timeout = '10min';
DO $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock({LOCK_KEY}); END $$;
SET LOCAL lock_timeout = '10s'"
    )
}

/// Returns the SQL that applies the pending migrations and lists them in `sparc_migrations`.
pub(crate) fn apply_sql(pending: &[String]) -> Vec<String> {
    let mut sql = vec![
        "SET LOCAL search_path = public".to_owned(),
        "CREATE TABLE IF NOT EXISTS public.sparc_migrations (
  version character varying NOT NULL PRIMARY KEY,
  applied_at bigint NOT NULL
)"
        .to_owned(),
    ];
    for (name, statements) in migrations_sql().into_iter().filter(|(name, _)| pending.contains(name)) {
        sql.extend(statements);
        sql.push(format!(
            "INSERT INTO public.sparc_migrations (version, applied_at)
VALUES ({}, extract(epoch FROM now())::bigint)",
            query::literal(&name)
        ));
    }
    sql
}

/// Returns the SQL that installs the schema: [`apply_sql`], followed by [`finish_install_sql`].
pub(crate) fn install_sql(pending: &[String], jobs_were_scheduled: bool) -> Vec<String> {
    let mut sql = apply_sql(pending);
    sql.extend(finish_install_sql(jobs_were_scheduled));
    sql
}

/// Returns the SQL for everything after the tables: it creates the functions, triggers, policies, views and privileges
/// (the objects of [`repeatable`]), creates the profiles of existing accounts, schedules the jobs, and records the
/// version and the objects in `private.sparc_record`. Jobs that were scheduled before are left alone, because their
/// schedules are the operator's choice.
pub(crate) fn finish_install_sql(jobs_were_scheduled: bool) -> Vec<String> {
    let mut sql = repeatable::create_all_sql();
    sql.push(repeatable::BACKFILL.to_owned());
    if !jobs_were_scheduled {
        sql.push(repeatable::JOBS.to_owned());
    }
    sql.extend(record::write_record_sql());
    sql
}

/// Formats statements as a script for `psql`: one transaction, which first waits until no other migrator runs.
pub(crate) fn wrap_in_transaction(statements: &[String]) -> String {
    let mut text = format!("BEGIN;\n\n{STANDARD_SETTINGS};\n\n{};\n\n", set_up_and_lock_sql());
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

/// Returns the whole schema as one script, for `psql -f` or as a file of `supabase/migrations`. The script records what
/// it applied, so that `up`, `check` and `status` accept the result, and fails on a database that already has the
/// schema, or an object of another program that the script would replace.
#[must_use]
pub fn install_script() -> String {
    let names: Vec<String> = migrations_sql().into_iter().map(|(name, _)| name).collect();
    let mut statements = vec![check_before_install_sql()];
    statements.extend(install_sql(&names, false));
    format!(
        "-- The SPARC schema, generated by version {} of `cargo run -p migration -- sql`, for psql and \
         supabase/migrations.\n\n{}",
        env!("CARGO_PKG_VERSION"),
        wrap_in_transaction(&statements)
    )
}

/// Returns SQL that fails if the schema is already installed, or if the script would replace an object of another
/// program. (Where a table, sequence or type has one of the schema's names, the statement that creates ours fails.)
fn check_before_install_sql() -> String {
    let definitions = manifest::definitions();
    let names_of = |kind: &str| {
        let objects = definitions.keys().filter(|object| manifest::kind(object) == kind);
        objects.map(|object| object.split_once(' ').unwrap_or_default().1).collect::<Vec<_>>()
    };
    let functions = names_of("function").into_iter().filter(|name| !name.starts_with("auth."));
    let functions: BTreeSet<&str> = functions.filter_map(|name| name.split('(').next()).collect();
    let on_platform_tables: Vec<&str> = ["trigger", "policy"]
        .into_iter()
        .flat_map(names_of)
        .filter(|name| name.contains(" on auth.") || name.contains(" on realtime."))
        .collect();
    format!(
        "DO $$
DECLARE
  existing_objects text;
BEGIN
  IF to_regclass('public.sparc_migrations') IS NOT NULL THEN
    RAISE EXCEPTION 'the database has the schema already; to update it, \
                     run the migration program (cargo run -p migration -- up)';
  END IF;
  SELECT string_agg(object, ', ' ORDER BY object)
  INTO existing_objects
  FROM (
    SELECT 'function ' || oid::regprocedure
    FROM pg_proc
    WHERE format('%s.%I', pronamespace::regnamespace, proname) IN ({})
    UNION ALL
    SELECT 'view ' || oid::regclass
    FROM pg_class
    WHERE relkind = 'v' AND format('%s.%I', relnamespace::regnamespace, relname) IN ({})
    UNION ALL
    SELECT 'trigger or policy ' || name
    FROM (
      SELECT tgname, tgrelid FROM pg_trigger WHERE NOT tgisinternal UNION ALL SELECT polname, polrelid FROM pg_policy
    ) AS on_table (object_name, table_oid)
    JOIN pg_class ON pg_class.oid = table_oid
    CROSS JOIN LATERAL format('%I on %s.%I', object_name, relnamespace::regnamespace, relname) AS name
    WHERE name IN ({})
  ) AS objects (object);
  IF existing_objects IS NOT NULL THEN
    RAISE EXCEPTION 'the database already has %: rename or drop that', existing_objects;
  END IF;
END
$$",
        query::literals(functions),
        query::literals(names_of("view")),
        query::literals(on_platform_tables)
    )
}

#[cfg(test)]
mod tests {
    use super::finish_install_sql;
    use crate::migrations::{migration_names, migrations_sql};

    #[test]
    fn the_script_contains_every_migration() {
        let names: Vec<String> = migrations_sql().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            migration_names(),
            "add the SQL of each migration to `migrations_sql` in `src/migrations/sql.rs`"
        );
    }

    #[test]
    fn jobs_that_were_scheduled_before_are_not_scheduled_again() {
        let schedules = |sql: Vec<String>| sql.iter().any(|statement| statement.contains("cron.schedule("));
        assert!(schedules(finish_install_sql(false)));
        assert!(!schedules(finish_install_sql(true)));
    }
}
