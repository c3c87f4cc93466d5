//! Functions, triggers, policies, views and privileges: the files under `sql/`, which are the only copy.

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

use crate::{
    statements::{Statement, Target, parse},
    tables,
};

/// Functions and triggers, one file per table after the shared ones; then policies and grants.
const FILES: [&str; 28] = [
    include_str!("../sql/triggers/shared.sql"),
    include_str!("../sql/triggers/users.sql"),
    include_str!("../sql/triggers/characters.sql"),
    include_str!("../sql/triggers/adventures.sql"),
    include_str!("../sql/triggers/creatures.sql"),
    include_str!("../sql/triggers/sessions.sql"),
    include_str!("../sql/triggers/session_players.sql"),
    include_str!("../sql/triggers/dice_rolls.sql"),
    include_str!("../sql/triggers/session_events.sql"),
    include_str!("../sql/triggers/tutorial_progress.sql"),
    include_str!("../sql/triggers/archive.sql"),
    include_str!("../sql/triggers/requests.sql"),
    include_str!("../sql/triggers/limits.sql"),
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
    include_str!("../sql/policies/limits.sql"),
    include_str!("../sql/policies/broadcast.sql"),
    include_str!("../sql/policies/functions.sql"),
];

/// Adds four tables to the platform's publication, once; afterwards membership is the operator's choice.
pub(crate) const PUBLICATION: &str = include_str!("../sql/publication/up.sql");

/// Schedules the jobs where `pg_cron` is installed, once; afterwards the schedules are the operator's choice.
pub(crate) const JOBS: &str = include_str!("../sql/jobs/up.sql");

/// Backfills profiles of accounts that existed before the schema, or that signed up while a trigger was missing.
pub(crate) const BACKFILL: &str = include_str!("../sql/backfill.sql");

/// A gate for each account, where the table of gates is new.
pub(crate) const GATES_OF_ACCOUNTS: &str = "INSERT INTO private.account_gates (account_id, is_open)
SELECT id, closed_at IS NULL
FROM public.users
ON CONFLICT DO NOTHING";

const API_ROLES: &str = "PUBLIC, anon, authenticated, service_role";

/// Every statement of these files, in order of dependency: functions that check constraints call come first.
pub(crate) fn statements() -> Vec<Statement> {
    [tables::CHECK_FUNCTIONS, tables::REVOKED_DEFAULTS].into_iter().chain(FILES).flat_map(parse).collect()
}

/// Every statement that makes the stand-in for the platform's `auth`, besides its table.
pub(crate) fn stand_in() -> Vec<Statement> {
    parse(include_str!("../sql/platform/auth.sql"))
}

/// SQL that sets every counter right as the owner of the tables: triggers are off meanwhile, which otherwise a superuser alone can say
/// of a session.
pub(crate) fn recount() -> String {
    let counting = crate::RECOUNT.replace("SET LOCAL session_replication_role = replica;", "");
    format!(
        "DO $do$
DECLARE
  enabled text[];
  statement text;
BEGIN
  SELECT coalesce(array_agg(format('ALTER TABLE %s ENABLE TRIGGER %I', tgrelid::regclass, tgname)), '{{}}')
  INTO enabled
  FROM pg_trigger
  WHERE NOT tgisinternal
    AND tgenabled = 'O'
    AND tgrelid = ANY ('{{public.users,public.characters,public.adventures,public.sessions,private.account_gates}}'::regclass[]);
  FOREACH statement IN ARRAY enabled LOOP
    EXECUTE replace(statement, ' ENABLE TRIGGER ', ' DISABLE TRIGGER ');
  END LOOP;
  EXECUTE $recount$
{counting}
  $recount$;
  FOREACH statement IN ARRAY enabled LOOP
    EXECUTE statement;
  END LOOP;
END
$do$"
    )
}

/// Each job's name and command, as the file that schedules them says.
pub(crate) fn jobs() -> Vec<(String, String)> {
    JOBS.match_indices("cron.schedule(")
        .filter_map(|(at, call)| {
            let mut texts = JOBS[at + call.len()..].split('\'');
            // 'name', 'schedule', 'command': every second piece is a text.
            Some((texts.nth(1)?.to_owned(), texts.nth(3)?.to_owned()))
        })
        .collect()
}

/// SQL that creates or replaces everything, revokes all privileges on it, and then grants what the files say.
pub(crate) fn install() -> Vec<String> {
    let (privileges, made): (Vec<Statement>, Vec<Statement>) =
        statements().into_iter().partition(|statement| statement.target == Target::Privilege);
    let mut sql = Vec::new();
    for statement in &made {
        if let Target::Policy(name, table) = &statement.target {
            sql.push(format!("DROP POLICY IF EXISTS \"{}\" ON {table}", name.replace('"', "\"\"")));
        }
        sql.push(statement.sql.to_owned());
    }
    sql.push(revoke_defaults(&made));
    sql.extend(privileges.into_iter().map(|statement| statement.sql.to_owned()));
    sql
}

/// Revokes what default privileges give PUBLIC or the API's roles on every new function and view.
pub(crate) fn revoke_defaults(made: &[Statement]) -> String {
    let mut functions = Vec::new();
    let mut sql = String::new();
    for statement in made {
        match &statement.target {
            Target::Function(name) => functions.push(format!("'{name}'")),
            Target::View(name) => sql.push_str(&format!("REVOKE ALL ON {name} FROM {API_ROLES};\n")),
            _ => {}
        }
    }
    functions.dedup();
    sql + &format!(
        "DO $$
DECLARE
  made regprocedure;
BEGIN
  FOR made IN
    SELECT proc.oid
    FROM pg_catalog.pg_proc AS proc
    JOIN pg_catalog.pg_namespace AS space ON space.oid = proc.pronamespace
    WHERE format('%I.%I', space.nspname, proc.proname) IN (
      {}
    )
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM {API_ROLES}', made);
  END LOOP;
END
$$",
        functions.join(",\n      ")
    )
}

/// Unschedules the jobs.
pub(crate) fn unschedule() -> String {
    let names: Vec<String> = jobs().into_iter().map(|(name, _)| format!("'{name}'")).collect();
    format!(
        "DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron') THEN
    PERFORM cron.unschedule(jobname)
    FROM cron.job
    WHERE jobname IN ({})
      AND database = current_database();
  END IF;
END
$$",
        names.join(", ")
    )
}

/// Runs one statement after the other.
pub(crate) async fn execute_all<C: ConnectionTrait>(db: &C, statements: &[String]) -> Result<(), DbErr> {
    for sql in statements {
        db.execute_unprepared(sql).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{FILES, jobs, statements};
    use crate::statements::Target;

    #[test]
    fn every_file_of_rules_is_read() {
        let count: usize = ["triggers", "policies"]
            .iter()
            .map(|folder| {
                let path = format!("{}/sql/{folder}", env!("CARGO_MANIFEST_DIR"));
                std::fs::read_dir(path).into_iter().flatten().count()
            })
            .sum();
        assert_eq!(FILES.len(), count);
    }

    #[test]
    fn every_job_of_the_file_is_known() {
        let jobs = jobs();
        assert!(jobs.iter().any(|(name, command)| name == "archive-sessions" && command.contains("archive_sessions")));
        assert_eq!(jobs.len(), super::JOBS.matches("cron.schedule(").count());
    }

    /// A block may make triggers and policies; functions and views are found by the statement that makes them.
    #[test]
    fn functions_are_made_by_plain_statements() {
        for statement in statements() {
            if statement.target == Target::Other {
                let sql = statement.sql.to_uppercase();
                assert!(!sql.contains("FUNCTION PRIVATE.") || !sql.contains("RETURNS"), "{}", statement.sql);
            }
        }
    }
}
