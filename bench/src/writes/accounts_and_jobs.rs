//! The statements of a sign-up, and of the jobs that delete old events and archive sessions.

use std::time::Duration;

use sea_orm::TransactionTrait;
use service::{Operations, maintenance::JobOptions, users::NewAccount};

use crate::{
    argument_sets::ArgumentSet,
    capture::StatementCapture,
    failure::Failure,
    measure::StatementPair,
    workload::{Execution, Role, Workload},
};

/// Inserts a thousand expired events, without triggers; the measured job deletes them. They have the payloads of
/// existing events, so each is too large for the free space that is left on existing pages. So all of them go to new
/// pages together, like events that are written one after another. With empty payloads, they would be scattered over
/// the free space of a thousand pages.
const INSERT_OLD_EVENTS: &str = "SET LOCAL session_replication_role = replica;
    INSERT INTO session_events (session_id, event_type, payload, created_at)
    SELECT session_id, event_type, payload, now() - INTERVAL '1 day' - INTERVAL '1 minute' * row_number() OVER ()
    FROM (SELECT session_id, event_type, payload FROM session_events LIMIT 1000) AS existing;
    SET LOCAL session_replication_role = origin";

/// Captures a sign-up, and the jobs that delete old events and archive sessions.
pub(super) async fn capture_sign_up_and_jobs(
    capture: &mut StatementCapture,
    argument_sets: &[ArgumentSet],
) -> Result<Vec<StatementPair>, Failure> {
    let service_connection = capture.sparc.as_service();
    let tx = service_connection.begin().await?;
    tx.users().sign_up(NewAccount { email: Some("new@mail.example".to_owned()), ..Default::default() }).await?;
    tx.rollback().await?;
    // The operation inserts the account, and then reads the profile, which a trigger on the account's table has
    // inserted. Only the INSERT of the account is measured.
    let our_sign_up_statement =
        capture.new_statements().await?.into_iter().find(|prepared| prepared.sql.contains("INSERT INTO auth.users"));
    let our_sign_up_statement =
        our_sign_up_statement.ok_or(Failure::Message("no sign-up statement was captured".into()))?;
    let tx = service_connection.begin().await?;
    tx.maintenance().delete_old_events(JobOptions::default(), |_| ()).await?;
    tx.rollback().await?;
    let our_delete_events_statement = capture.last_new_statement().await?;
    let tx = service_connection.begin().await?;
    // Only the text of the statement is needed, so the job archives only one session: its batch size is one, and with a
    // time limit of zero it ends after one batch.
    let one_batch = JobOptions { batch_size: 1, time_limit: Duration::ZERO };
    tx.maintenance().archive_sessions(one_batch, |_| ()).await?;
    tx.rollback().await?;
    let our_archive_statement = capture.last_new_statement().await?;

    // These statements use no values of the argument sets, so all argument sets have the same execution.
    let workload_with_equal_executions = |name: &str, sql: String, setup_sql: &str, timed_sql: String| Workload {
        prepared: vec![(name.to_owned(), sql)],
        executions: argument_sets
            .iter()
            .map(|_| Execution { setup_sql: setup_sql.to_owned(), timed_sql: timed_sql.clone(), ..Default::default() })
            .collect(),
    };
    let insert_account_sql = "INSERT INTO auth.users (id, email, raw_user_meta_data) VALUES ($1, $2, $3)";
    // Each EXECUTE makes a new e-mail address: the statement runs many times in one transaction, and the addresses must
    // be unique.
    let account_values = "gen_random_uuid(), gen_random_uuid() || '@mail.example', '{\"display_name\": \"Newcomer\"}'";
    let delete_events_sql = "DELETE FROM session_events WHERE created_at < NOW() - INTERVAL '24 hours'";
    let copy_sessions_sql = "INSERT INTO archived_sessions SELECT * FROM sessions
        WHERE status = 'completed' AND ended_at < NOW() - INTERVAL '90 days'";
    let delete_sessions_sql =
        "DELETE FROM sessions WHERE status = 'completed' AND ended_at < NOW() - INTERVAL '90 days'";
    // The 1000 in the `EXECUTE ours(1000)` of the two jobs is the size of a batch.
    Ok(vec![
        StatementPair {
            name: "a sign-up",
            role: Role::Service,
            is_repeatable: true,
            specification: workload_with_equal_executions(
                "account",
                insert_account_sql.to_owned(),
                "",
                format!("EXECUTE account({account_values})"),
            ),
            ours: workload_with_equal_executions(
                "ours",
                our_sign_up_statement.sql,
                "",
                format!("EXECUTE ours({account_values})"),
            ),
        },
        StatementPair {
            name: "deleting a thousand old events",
            role: Role::Service,
            is_repeatable: false,
            specification: workload_with_equal_executions(
                "clean",
                delete_events_sql.to_owned(),
                INSERT_OLD_EVENTS,
                "EXECUTE clean".to_owned(),
            ),
            ours: workload_with_equal_executions(
                "ours",
                our_delete_events_statement.sql,
                INSERT_OLD_EVENTS,
                "EXECUTE ours(1000)".to_owned(),
            ),
        },
        StatementPair {
            name: "archiving a thousand sessions",
            role: Role::Owner,
            is_repeatable: false,
            specification: Workload {
                prepared: vec![
                    ("copy_sessions".to_owned(), copy_sessions_sql.to_owned()),
                    ("delete_sessions".to_owned(), delete_sessions_sql.to_owned()),
                ],
                // One execution is enough, because it uses no values of the argument sets either.
                executions: vec![Execution {
                    timed_sql: "EXECUTE copy_sessions; EXECUTE delete_sessions".to_owned(),
                    ..Default::default()
                }],
            },
            ours: workload_with_equal_executions(
                "ours",
                our_archive_statement.sql,
                "",
                "EXECUTE ours(1000)".to_owned(),
            ),
        },
    ])
}
