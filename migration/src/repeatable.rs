//! The repeatable objects: functions, triggers, policies, views, privileges and jobs. They are defined only in the
//! files under `sql/`. When `up` installs the schema, it runs all statements of these files after the migrations. A
//! later `up` runs only the statements that create a function, trigger, policy or view that is missing or differs from
//! the manifest; it restores privileges from the manifest.

use crate::{
    manifest,
    statements::{Statement, Target, parse},
    tables,
};

/// The files of `sql/triggers/`, then those of `sql/policies/`, which also contain functions and views. A function
/// precedes the triggers, policies and views that call it. Functions may call functions that come later.
const FILES: [&str; 35] = [
    include_str!("../sql/triggers/callers.sql"),
    include_str!("../sql/triggers/shared.sql"),
    include_str!("../sql/triggers/documents.sql"),
    include_str!("../sql/triggers/users.sql"),
    include_str!("../sql/triggers/account_locks.sql"),
    include_str!("../sql/triggers/account_deletion.sql"),
    include_str!("../sql/triggers/characters.sql"),
    include_str!("../sql/triggers/adventures.sql"),
    include_str!("../sql/triggers/creatures.sql"),
    include_str!("../sql/triggers/join_codes.sql"),
    include_str!("../sql/triggers/sessions.sql"),
    include_str!("../sql/triggers/session_end.sql"),
    include_str!("../sql/triggers/session_players.sql"),
    include_str!("../sql/triggers/seat_counts.sql"),
    include_str!("../sql/triggers/dice_rolls.sql"),
    include_str!("../sql/triggers/session_events.sql"),
    include_str!("../sql/triggers/tutorial_progress.sql"),
    include_str!("../sql/triggers/archive.sql"),
    include_str!("../sql/triggers/request_digests.sql"),
    include_str!("../sql/triggers/statement_limits.sql"),
    include_str!("../sql/triggers/broadcast.sql"),
    include_str!("../sql/policies/users.sql"),
    include_str!("../sql/policies/characters.sql"),
    include_str!("../sql/policies/adventures.sql"),
    include_str!("../sql/policies/creatures.sql"),
    include_str!("../sql/policies/sessions.sql"),
    include_str!("../sql/policies/session_players.sql"),
    include_str!("../sql/policies/dice_rolls.sql"),
    include_str!("../sql/policies/session_events.sql"),
    include_str!("../sql/policies/tutorial_progress.sql"),
    include_str!("../sql/policies/archive.sql"),
    include_str!("../sql/policies/closed_accounts.sql"),
    include_str!("../sql/policies/statement_limits.sql"),
    include_str!("../sql/policies/broadcast.sql"),
    include_str!("../sql/policies/function_grants.sql"),
];

/// SQL that creates the publication `supabase_realtime` if it is missing, and adds four tables to it. It runs again
/// only if the publication is missing, because which tables stay in it is the operator's choice.
pub(crate) const PUBLICATION: &str = include_str!("../sql/publication/up.sql");

/// SQL that schedules the jobs if `pg_cron` is installed. Once it has scheduled them, `up` does not run it again,
/// because the operator decides when the jobs run.
pub(crate) const JOBS: &str = include_str!("../sql/jobs/schedule.sql");

/// SQL that brings the profiles (`public.users`) up to date with the accounts (`auth.users`): it creates the profiles
/// of accounts that existed before the schema or signed up while a trigger was missing, and it makes the changes in the
/// other profiles that a missing trigger did not make when their accounts changed.
pub(crate) const BACKFILL: &str = include_str!("../sql/backfill.sql");

/// SQL that inserts every account's row into `private.account_gates` (its *gate*) after a repair has created that table
/// again. Every write by the account's user locks this row.
pub(crate) const INSERT_GATES: &str = "INSERT INTO private.account_gates (account_id, is_open)
SELECT id, closed_at IS NULL
FROM public.users
ON CONFLICT DO NOTHING";

/// SQL that recomputes, from the rows, the counters on which limits depend, and, in `private.account_gates`, the flag
/// that says whether an account is open (may write). It also inserts the rows that `private.account_gates` lacks. It is
/// needed after rows were written with triggers disabled. Run it in one transaction, at a time when nobody writes, as a
/// role that may set `session_replication_role`.
pub const RECOUNT: &str = include_str!("../sql/recount.sql");

/// The roles to which default privileges may have granted something.
pub(crate) const PUBLIC_AND_API_ROLES: &str = "PUBLIC, anon, authenticated, service_role";

/// Returns every statement that creates repeatable objects, except the jobs and the objects of the stand-in, in the
/// order of their dependencies: the functions that CHECK constraints call come first.
pub(crate) fn statements() -> Vec<Statement> {
    [tables::CHECK_FUNCTIONS, tables::ROW_SECURITY_AND_REVOKES].into_iter().chain(FILES).flat_map(parse).collect()
}

/// Returns the statements that create the functions and privileges of the stand-in for Supabase's schema `auth`.
pub(crate) fn platform_stand_in_statements() -> Vec<Statement> {
    parse(include_str!("../sql/platform/auth.sql"))
}

/// Returns SQL that recomputes the same counters and gates as `recount.sql`. That file disables all triggers by setting
/// `session_replication_role`, which needs a superuser. This SQL disables the triggers one by one, which the owner of
/// the tables may do.
pub(crate) fn recount_sql() -> String {
    let recount = RECOUNT.replace("SET LOCAL session_replication_role = replica;", "");
    format!(
        "DO $do$
DECLARE
  enable_statements text[];
  statement text;
BEGIN
  SELECT coalesce(array_agg(format('ALTER TABLE %s ENABLE TRIGGER %I', tgrelid::regclass, tgname)), '{{}}')
  INTO enable_statements
  FROM pg_trigger
  WHERE NOT tgisinternal
    AND tgenabled = 'O'
    AND tgrelid = ANY (
      '{{public.users,public.characters,public.adventures,public.sessions,private.account_gates}}'::regclass[]
    );
  FOREACH statement IN ARRAY enable_statements LOOP
    EXECUTE replace(statement, ' ENABLE TRIGGER ', ' DISABLE TRIGGER ');
  END LOOP;
  EXECUTE $recount$
{recount}
  $recount$;
  FOREACH statement IN ARRAY enable_statements LOOP
    EXECUTE statement;
  END LOOP;
END
$do$"
    )
}

/// Returns each job's name and command, from the file that schedules them.
pub(crate) fn jobs() -> Vec<(String, String)> {
    JOBS.match_indices("cron.schedule(")
        .filter_map(|(start, call)| {
            // Splitting `'name', 'schedule', 'command'` at its quotes gives: nothing, name, comma, schedule, comma,
            // command.
            let mut pieces = JOBS[start + call.len()..].split('\'');
            let name = pieces.nth(1)?;
            // Skips three pieces after the name.
            let command = pieces.nth(3)?;
            Some((name.to_owned(), command.to_owned()))
        })
        .collect()
}

/// Returns the SQL that creates or replaces all functions, triggers, policies and views. The SQL then revokes the
/// privileges of PUBLIC and the API roles on functions, views and types, and grants privileges: on types those of the
/// manifest, on everything else those of the files.
pub(crate) fn create_all_sql() -> Vec<String> {
    let (privilege_statements, create_statements): (Vec<Statement>, Vec<Statement>) =
        statements().into_iter().partition(|statement| statement.target == Target::GrantOrRevoke);
    let mut sql = Vec::new();
    for statement in &create_statements {
        if let Target::Policy(name, table) = &statement.target {
            sql.push(format!("DROP POLICY IF EXISTS \"{}\" ON {table}", name.replace('"', "\"\"")));
        }
        sql.push(statement.sql.to_owned());
    }
    sql.push(revoke_on_created_sql(&create_statements));
    sql.extend(privileges_on_types_sql());
    sql.extend(privilege_statements.into_iter().map(|statement| statement.sql.to_owned()));
    sql
}

/// Returns the SQL that revokes what default privileges have granted to PUBLIC or the API roles on the functions and
/// views that the statements create.
pub(crate) fn revoke_on_created_sql(create_statements: &[Statement]) -> String {
    let mut function_name_literals = Vec::new();
    let mut sql = String::new();
    for statement in create_statements {
        match &statement.target {
            Target::Function(name) => function_name_literals.push(format!("'{name}'")),
            Target::View(name) => sql.push_str(&format!("REVOKE ALL ON {name} FROM {PUBLIC_AND_API_ROLES};\n")),
            _ => {}
        }
    }
    // Functions with different arguments may have the same name, which is listed once.
    function_name_literals.dedup();
    sql + &format!(
        "DO $$
DECLARE
  created_function regprocedure;
BEGIN
  FOR created_function IN
    SELECT pg_proc.oid
    FROM pg_catalog.pg_proc
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pronamespace
    WHERE format('%I.%I', nspname, proname) IN (
      {}
    )
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM {PUBLIC_AND_API_ROLES}', created_function);
  END LOOP;
END
$$",
        function_name_literals.join(",\n      ")
    )
}

/// Returns the SQL that sets the privileges on the schema's types to those of the manifest, whatever default privileges
/// granted or revoked when the types were created.
fn privileges_on_types_sql() -> Vec<String> {
    privileges_of_manifest_sql(|object| matches!(manifest::kind(object), "type" | "domain"))
}

/// Returns the SQL that sets the privileges on schema `private` to those of the manifest. If the stand-in for schema
/// `auth` was created, the SQL does the same for that schema and its functions.
pub(crate) fn privileges_on_schemas_sql() -> Vec<String> {
    let mut sql = privileges_of_manifest_sql(|object| object == "schema private");
    let stand_in_sql =
        privileges_of_manifest_sql(|object| object == "schema auth" || object.starts_with("function auth."));
    sql.push(format!(
        "DO $$
BEGIN
  IF obj_description(to_regnamespace('auth'), 'pg_namespace') LIKE 'made by sparc%' THEN
    {};
  END IF;
END
$$",
        stand_in_sql.join(";\n    ")
    ));
    sql
}

/// Returns the SQL that sets the privileges on the selected objects to those of the manifest.
fn privileges_of_manifest_sql(is_selected: impl Fn(&str) -> bool) -> Vec<String> {
    let definitions = manifest::definitions();
    let mut sql = Vec::new();
    for object in definitions.keys().filter(|object| is_selected(object)) {
        sql.push(format!("REVOKE ALL ON {object} FROM {PUBLIC_AND_API_ROLES}"));
        let prefix = format!("grant on {object} to ");
        let grants =
            definitions.iter().filter_map(|(grant, privileges)| Some((grant.strip_prefix(&prefix)?, privileges)));
        sql.extend(grants.map(|(role, privileges)| format!("GRANT {privileges} ON {object} TO {role}")));
    }
    sql
}

/// Returns the SQL that unschedules the jobs.
pub(crate) fn unschedule_jobs_sql() -> String {
    let names: Vec<String> = jobs().into_iter().map(|(name, _)| format!("'{name}'")).collect();
    format!(
        "DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron') THEN
    -- Jobs are unscheduled by id, because only the user who scheduled a job can unschedule it by name.
    PERFORM cron.unschedule(jobid)
    FROM cron.job
    WHERE jobname IN ({})
      AND database = current_database();
  END IF;
END
$$",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{FILES, jobs, platform_stand_in_statements, statements};
    use crate::{manifest, statements::Target};

    #[test]
    fn every_file_of_triggers_and_policies_is_included() {
        let mut file_count = 0;
        for folder in ["triggers", "policies"] {
            for file in std::fs::read_dir(format!("{}/sql/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
                let path = file.unwrap().path();
                assert!(FILES.contains(&std::fs::read_to_string(&path).unwrap().as_str()), "{}", path.display());
                file_count += 1;
            }
        }
        assert_eq!(FILES.len(), file_count);
    }

    #[test]
    fn every_job_of_the_file_is_found() {
        let jobs = jobs();
        assert!(jobs.iter().any(|(name, command)| name == "archive-sessions" && command.contains("archive_sessions")));
        assert_eq!(jobs.len(), super::JOBS.matches("cron.schedule(").count());
    }

    /// The repair finds a function or view only if a statement of its own creates it. A DO block may create triggers
    /// and policies.
    #[test]
    fn each_function_and_view_has_its_own_statement() {
        let count_by_name = |objects: Vec<String>| {
            let mut counts = BTreeMap::new();
            objects.into_iter().for_each(|object| *counts.entry(object).or_insert(0) += 1);
            counts
        };
        // Functions with the same name differ in their arguments, which `Target` does not have.
        let without_arguments = |object: String| object.split('(').next().unwrap_or_default().to_owned();
        let in_manifest = manifest::definitions().into_keys();
        let expected = in_manifest.filter(|object| matches!(manifest::kind(object), "function" | "view"));
        let created = statements().into_iter().chain(platform_stand_in_statements()).filter_map(|statement| {
            match statement.target {
                Target::Function(name) => Some(format!("function {name}")),
                Target::View(name) => Some(format!("view {name}")),
                _ => None,
            }
        });
        let created = count_by_name(created.collect());
        for (name, count) in count_by_name(expected.map(without_arguments).collect()) {
            assert_eq!(created.get(&name), Some(&count), "statements that create {name}");
        }
    }
}
