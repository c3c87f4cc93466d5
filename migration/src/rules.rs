//! The rules: functions, triggers, policies, views and privileges, as the files under `sql/` have them, and nowhere else.

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

use crate::{
    statements::{Statement, Target, parse},
    tables,
};

/// One file per table, after what they share; then who may do what.
const FILES: [&str; 27] = [
    include_str!("../sql/rules/shared.sql"),
    include_str!("../sql/rules/users.sql"),
    include_str!("../sql/rules/characters.sql"),
    include_str!("../sql/rules/adventures.sql"),
    include_str!("../sql/rules/creatures.sql"),
    include_str!("../sql/rules/sessions.sql"),
    include_str!("../sql/rules/session_players.sql"),
    include_str!("../sql/rules/dice_rolls.sql"),
    include_str!("../sql/rules/session_events.sql"),
    include_str!("../sql/rules/tutorial_progress.sql"),
    include_str!("../sql/rules/archive.sql"),
    include_str!("../sql/rules/limits.sql"),
    include_str!("../sql/rules/broadcast.sql"),
    include_str!("../sql/access/users.sql"),
    include_str!("../sql/access/characters.sql"),
    include_str!("../sql/access/adventures.sql"),
    include_str!("../sql/access/creatures.sql"),
    include_str!("../sql/access/sessions.sql"),
    include_str!("../sql/access/session_players.sql"),
    include_str!("../sql/access/dice_rolls.sql"),
    include_str!("../sql/access/session_events.sql"),
    include_str!("../sql/access/tutorial_progress.sql"),
    include_str!("../sql/access/archive.sql"),
    include_str!("../sql/access/closed_accounts.sql"),
    include_str!("../sql/access/limits.sql"),
    include_str!("../sql/access/broadcast.sql"),
    include_str!("../sql/access/functions.sql"),
];

/// Adds the four tables to the platform's publication; once, and then membership is the operator's.
pub(crate) const PUBLICATION: &str = include_str!("../sql/live/up.sql");

/// Schedules the jobs where `pg_cron` is installed; once, and then the schedules are the operator's.
pub(crate) const JOBS: &str = include_str!("../sql/upkeep/up.sql");

/// Profiles for accounts that were there before us, or that signed up while no trigger made them one.
pub(crate) const BACKFILL: &str = include_str!("../sql/first_profiles.sql");

const API_ROLES: &str = "PUBLIC, anon, authenticated, service_role";

/// Every statement of the rules, in the order in which they need each other: pure functions that checks call come first.
pub(crate) fn statements() -> Vec<Statement> {
    [tables::CHECKS, tables::CLOSE].into_iter().chain(FILES).flat_map(parse).collect()
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

/// SQL that makes all rules, on tables that have none or older ones: everything is created or replaced, closed, and then
/// opened as the files say.
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
    sql.push(close(&made));
    sql.extend(privileges.into_iter().map(|statement| statement.sql.to_owned()));
    sql
}

/// Default privileges give every new function and view to PUBLIC or to the API's roles.
pub(crate) fn close(made: &[Statement]) -> String {
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

/// Takes the jobs off their schedule again.
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
        let count: usize = ["rules", "access"]
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
