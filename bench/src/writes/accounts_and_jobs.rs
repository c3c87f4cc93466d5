//! A sign-up, and the jobs.

use std::time::Duration;

use sea_orm::TransactionTrait;
use service::{Operations, maintenance::JobOptions, users::NewAccount};

use super::INSERT_OLD_EVENTS;
use crate::{
    Failure,
    capture::StatementCapture,
    measure::StatementPair,
    samples::Sample,
    workload::{Execution, Role, Workload},
};

/// Captures a sign-up, and the jobs that delete old events and archive sessions.
pub(super) async fn capture_sign_up_and_jobs(
    capture: &mut StatementCapture,
    samples: &[Sample],
) -> Result<Vec<StatementPair>, Failure> {
    let service = capture.sparc.as_service();
    let tx = service.begin().await?;
    tx.users().sign_up(NewAccount { email: Some("new@mail.example".to_owned()), ..Default::default() }).await?;
    tx.rollback().await?;
    // A sign-up inserts the account, for which a trigger writes the profile, and then reads the profile. Only the
    // INSERT is measured.
    let sign_up =
        capture.new_statements().await?.into_iter().find(|prepared| prepared.sql.contains("INSERT INTO auth.users"));
    let sign_up = sign_up.ok_or(Failure::Message("no sign-up statement was captured".into()))?;
    let tx = service.begin().await?;
    tx.maintenance().clean_events(JobOptions::default(), |_| ()).await?;
    tx.rollback().await?;
    let clean_events = capture.last_statement().await?;
    let tx = service.begin().await?;
    // Only the text of the statement is needed, so the job archives only one session: its batch has one, and with a
    // time limit of zero it ends after one batch.
    let one_batch = JobOptions { batch_size: 1, time_limit: Duration::ZERO };
    tx.maintenance().archive_sessions(one_batch, |_| ()).await?;
    tx.rollback().await?;
    let archive = capture.last_statement().await?;

    // These statements need no values of the samples: each sample has the same execution.
    let sample_independent_workload = |name: &str, sql: String, setup_sql: &str, timed_sql: String| Workload {
        prepared: vec![(name.to_owned(), sql)],
        executions: samples
            .iter()
            .map(|_| Execution { setup_sql: setup_sql.to_owned(), timed_sql: timed_sql.clone(), ..Default::default() })
            .collect(),
    };
    let insert_account = "INSERT INTO auth.users (id, email, raw_user_meta_data) VALUES ($1, $2, $3)";
    // E-mail addresses must be unique, because the statement runs many times in one transaction.
    let account_values = "gen_random_uuid(), gen_random_uuid() || '@mail.example', '{\"display_name\": \"Newcomer\"}'";
    // For the two jobs, `EXECUTE ours(1000)` below passes the size of a batch.
    let delete_events = "DELETE FROM session_events WHERE created_at < NOW() - INTERVAL '24 hours'";
    let copy_sessions = "INSERT INTO archived_sessions SELECT * FROM sessions
        WHERE status = 'completed' AND ended_at < NOW() - INTERVAL '90 days'";
    let delete_sessions = "DELETE FROM sessions WHERE status = 'completed' AND ended_at < NOW() - INTERVAL '90 days'";
    Ok(vec![
        StatementPair {
            name: "a sign-up",
            role: Role::Service,
            is_repeatable: true,
            specification: sample_independent_workload(
                "account",
                insert_account.to_owned(),
                "",
                format!("EXECUTE account({account_values})"),
            ),
            ours: sample_independent_workload("ours", sign_up.sql, "", format!("EXECUTE ours({account_values})")),
        },
        StatementPair {
            name: "deleting a thousand old events",
            role: Role::Service,
            is_repeatable: false,
            specification: sample_independent_workload(
                "clean",
                delete_events.to_owned(),
                INSERT_OLD_EVENTS,
                "EXECUTE clean".to_owned(),
            ),
            ours: sample_independent_workload(
                "ours",
                clean_events.sql,
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
                    ("copy_sessions".to_owned(), copy_sessions.to_owned()),
                    ("delete_sessions".to_owned(), delete_sessions.to_owned()),
                ],
                executions: vec![Execution {
                    timed_sql: "EXECUTE copy_sessions; EXECUTE delete_sessions".to_owned(),
                    ..Default::default()
                }],
            },
            ours: sample_independent_workload("ours", archive.sql, "", "EXECUTE ours(1000)".to_owned()),
        },
    ])
}
