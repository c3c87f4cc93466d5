//! The scheduled jobs, on a server with the extension `pg_cron`.

use sea_orm::{ConnectionTrait, DatabaseConnection};
use sparc::migration::{check, connect, sea_orm_migration::MigratorTrait};
use testdb::Server;

use super::{Migrator, create_unmigrated_database_without_platform, query_lines, refusal_message};

/// Starts a private server with `pg_cron`, and connects to the one database in which the extension can be created.
/// Returns `None` if the installed server binaries do not include `pg_cron`.
async fn start_server_with_pg_cron() -> Option<(Server, DatabaseConnection)> {
    // This database is only asked which extensions are available. The server with `pg_cron`, which is started below,
    // has the same binaries.
    let (_database, db) = create_unmigrated_database_without_platform().await;
    if query_lines(&db, "SELECT name::text FROM pg_available_extensions WHERE name = 'pg_cron'").await.is_empty() {
        eprintln!("skipped: pg_cron is not installed");
        return None;
    }
    let settings = ["shared_preload_libraries=pg_cron", "cron.database_name=postgres"];
    let server = Server::start_plain(Some(&settings)).await.unwrap();
    let db = connect(server.url()).await.unwrap();
    Some((server, db))
}

#[tokio::test]
async fn up_schedules_jobs_whose_commands_run_and_reset_removes_them() {
    let Some((_server, db)) = start_server_with_pg_cron().await else { return };
    db.execute_unprepared("CREATE EXTENSION pg_cron").await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    let select_jobs = "SELECT jobname || ': ' || schedule || ' ' || command FROM cron.job ORDER BY jobname";
    assert_eq!(
        query_lines(&db, select_jobs).await,
        [
            "archive-sessions: 0 0 1 * * SELECT private.archive_sessions(100000)",
            "cancel-abandoned-sessions: 30 2 * * * SELECT private.cancel_abandoned_sessions(100000)",
            "delete-old-events: 0 * * * * SELECT private.delete_old_events(100000)",
            "vacuum-analyze-dice-rolls: 10 3 * * * VACUUM ANALYZE public.dice_rolls",
            "vacuum-analyze-sessions: 0 3 * * * VACUUM ANALYZE public.sessions",
        ]
    );
    for command in query_lines(&db, "SELECT command FROM cron.job").await {
        db.execute_unprepared(&command).await.unwrap();
    }
    Migrator::reset(&db).await.unwrap();
    assert_eq!(query_lines(&db, select_jobs).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_first_up_with_pg_cron_schedules_the_jobs_and_later_ups_repair_only_their_commands() {
    let Some((_server, db)) = start_server_with_pg_cron().await else { return };
    Migrator::up(&db, None).await.unwrap();
    db.execute_unprepared("CREATE EXTENSION pg_cron").await.unwrap();
    let differences = check(&db).await.unwrap().differences;
    let objects: Vec<&str> = differences.iter().map(|difference| difference.object.as_str()).collect();
    assert_eq!(
        objects,
        [
            "job archive-sessions",
            "job cancel-abandoned-sessions",
            "job delete-old-events",
            "job vacuum-analyze-dice-rolls",
            "job vacuum-analyze-sessions",
        ]
    );
    Migrator::up(&db, None).await.unwrap();
    assert!(check(&db).await.unwrap().is_clean());
    let select_archive_job =
        "SELECT schedule || ' ' || active || ' ' || command FROM cron.job WHERE jobname = 'archive-sessions'";
    db.execute_unprepared(
        "SELECT cron.alter_job(jobid, schedule := '5 5 * * *', active := false, command := 'SELECT 1')
         FROM cron.job WHERE jobname = 'archive-sessions';
         SELECT cron.unschedule('delete-old-events')",
    )
    .await
    .unwrap();
    let report = check(&db).await.unwrap();
    let objects: Vec<&str> = report.differences.iter().map(|difference| difference.object.as_str()).collect();
    assert_eq!(
        objects,
        ["job archive-sessions"],
        "of these changes, only that of the command must be a difference: {report:?}"
    );
    assert!(report.hints.iter().any(|hint| hint.starts_with("job delete-old-events")), "{report:?}");
    Migrator::up(&db, None).await.unwrap();
    assert_eq!(query_lines(&db, select_archive_job).await, ["5 5 * * * false SELECT private.archive_sessions(100000)"]);
    assert_eq!(
        query_lines(&db, "SELECT jobname FROM cron.job WHERE jobname = 'delete-old-events'").await,
        Vec::<String>::new()
    );
    assert!(check(&db).await.unwrap().is_clean());

    // The last migration creates all tables of the game. So one step down removes them, and the jobs with them. The
    // next `up` schedules all jobs anew.
    Migrator::down(&db, Some(1)).await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    assert_eq!(query_lines(&db, select_archive_job).await, ["0 0 1 * * true SELECT private.archive_sessions(100000)"]);
    assert!(check(&db).await.unwrap().is_clean());
}

#[tokio::test]
async fn an_operators_job_with_one_of_our_names_is_a_name_collision() {
    let Some((_server, db)) = start_server_with_pg_cron().await else { return };
    db.execute_unprepared(
        "CREATE EXTENSION pg_cron; SELECT cron.schedule('archive-sessions', '1 2 3 * *', 'SELECT backup()')",
    )
    .await
    .unwrap();
    let select_jobs = "SELECT jobname || ': ' || schedule || ' ' || command FROM cron.job ORDER BY jobname";
    let message = refusal_message(Migrator::up(&db, None).await.unwrap_err());
    assert!(message.contains("job archive-sessions"), "{message}");
    assert_eq!(query_lines(&db, select_jobs).await, ["archive-sessions: 1 2 3 * * SELECT backup()"]);

    // The same happens if `pg_cron` is installed only after the first `up`.
    db.execute_unprepared("DROP EXTENSION pg_cron").await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    db.execute_unprepared(
        "CREATE EXTENSION pg_cron; SELECT cron.schedule('archive-sessions', '1 2 3 * *', 'SELECT backup()')",
    )
    .await
    .unwrap();
    let message = refusal_message(Migrator::up(&db, None).await.unwrap_err());
    assert!(message.contains("job archive-sessions"), "{message}");
    assert_eq!(query_lines(&db, select_jobs).await, ["archive-sessions: 1 2 3 * * SELECT backup()"]);
}

#[tokio::test]
async fn a_job_of_an_unprivileged_role_is_reported_by_check_taken_over_by_up_and_removed_by_reset() {
    let Some((_server, db)) = start_server_with_pg_cron().await else { return };
    db.execute_unprepared("CREATE EXTENSION pg_cron; CREATE ROLE stranger").await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    let job_change_sql = |role: &str| {
        format!(
            "SELECT cron.alter_job(jobid, schedule := '5 5 * * *', active := false)
             FROM cron.job WHERE jobname = 'delete-old-events';
             UPDATE cron.job SET username = '{role}' WHERE jobname = 'delete-old-events'"
        )
    };
    let select_job = "SELECT concat_ws(' ', username = current_user, schedule, active, command) FROM cron.job
        WHERE jobname = 'delete-old-events'";
    // There is no role `nobody`, and the role `stranger` has no privileges on our objects.
    for role in ["nobody", "stranger"] {
        db.execute_unprepared(&job_change_sql(role)).await.unwrap();
        let report = check(&db).await.unwrap();
        let objects: Vec<&str> = report.differences.iter().map(|difference| difference.object.as_str()).collect();
        assert_eq!(objects, ["job delete-old-events"], "{report:#?}");
        assert!(report.differences[0].to_string().contains(role), "{report:#?}");
        Migrator::up(&db, None).await.unwrap();
        assert_eq!(query_lines(&db, select_job).await, ["t 5 5 * * * f SELECT private.delete_old_events(100000)"]);
        assert!(check(&db).await.unwrap().is_clean());
    }
    db.execute_unprepared(&job_change_sql("nobody")).await.unwrap();
    Migrator::reset(&db).await.unwrap();
    assert_eq!(query_lines(&db, "SELECT jobname FROM cron.job").await, Vec::<String>::new());
}
