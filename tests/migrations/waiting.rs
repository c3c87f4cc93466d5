//! Commands that wait for a lock that another connection holds: they give up after a while, and name the server process
//! of that connection. A script that psql runs gives up too, but does not name the process.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, TransactionTrait};
use sparc::migration::{
    self, Command, check, connect,
    sea_orm_migration::{IntoSchemaManagerConnection, sea_orm::DbErr},
};

use super::{create_unmigrated_database, drift::create_migrated_database, query_lines, scripts::run_program};

/// Returns the message that the operator reads when a command fails. Panics if the command succeeded.
fn failure_message<T>(outcome: Result<T, DbErr>) -> String {
    migration::operator_message(&outcome.err().expect("the command must give up"))
}

#[tokio::test]
async fn commands_that_only_read_give_up_waiting_for_a_locked_table_and_name_the_holder() {
    let (_database, owner, superuser) = create_migrated_database().await;
    let holder = superuser.begin().await.unwrap();
    holder.execute_unprepared("LOCK TABLE public.users").await.unwrap();
    let executor = (&owner).into_database_executor();
    let limit = Duration::from_secs(60);
    for outcome in [
        tokio::time::timeout(limit, async { check(&owner).await.map(|_| ()) }).await,
        tokio::time::timeout(limit, async { migration::status(&executor).await.map(|_| ()) }).await,
        tokio::time::timeout(limit, async {
            migration::count_accounts_losing_data(&executor, migration::Command::Reset).await.map(|_| ())
        })
        .await,
        tokio::time::timeout(limit, async { migration::dry_run(&executor).await.map(|_| ()) }).await,
    ] {
        let message = failure_message(outcome.expect("the command must not wait without bound"));
        assert!(
            message.contains("lock") && message.contains("process ") && message.contains(" on public.users"),
            "{message}"
        );
    }
    holder.rollback().await.unwrap();
    assert!(check(&owner).await.unwrap().is_clean());
}

#[tokio::test]
async fn only_the_process_that_blocks_the_command_is_named() {
    let (database, owner, superuser) = create_migrated_database().await;
    owner.execute_unprepared("DROP TRIGGER set_updated_at ON public.users").await.unwrap();
    // This transaction only reads `users`. The lock that it takes as if it wrote (ROW EXCLUSIVE) is on another table.
    // So it does not block the command.
    let innocent_connection = connect(&database.superuser_url()).await.unwrap();
    let innocent = innocent_connection.begin().await.unwrap();
    innocent
        .execute_unprepared(
            "SELECT count(*) FROM public.characters; LOCK TABLE public.sessions IN ROW EXCLUSIVE MODE;
             SELECT count(*) FROM public.users",
        )
        .await
        .unwrap();
    let holder = superuser.begin().await.unwrap();
    holder.execute_unprepared("LOCK TABLE public.users IN ROW EXCLUSIVE MODE").await.unwrap();
    let select_pid = "SELECT pg_backend_pid()::text AS pid";
    let statement = |sql: &str| sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, sql);
    let holder_pid: String =
        holder.query_one_raw(statement(select_pid)).await.unwrap().unwrap().try_get("", "pid").unwrap();
    let innocent_pid: String =
        innocent.query_one_raw(statement(select_pid)).await.unwrap().unwrap().try_get("", "pid").unwrap();
    let message = failure_message(migration::run(&(&owner).into_database_executor(), Command::Up(None)).await);
    assert!(message.contains(&format!("process {holder_pid} ")) && message.contains("on public.users"), "{message}");
    assert!(!message.contains(&format!("process {innocent_pid} ")), "{message}");
    holder.rollback().await.unwrap();
    innocent.rollback().await.unwrap();
}

#[tokio::test]
async fn a_script_gives_up_waiting_for_a_locked_table() {
    let (database, owner, superuser) = create_migrated_database().await;
    owner.execute_unprepared("DROP TRIGGER set_updated_at ON public.users").await.unwrap();
    let script = migration::dry_run(&(&owner).into_database_executor()).await.unwrap();
    let holder = superuser.begin().await.unwrap();
    holder.execute_unprepared("LOCK TABLE public.users IN ROW EXCLUSIVE MODE").await.unwrap();
    let started_at = Instant::now();
    let url = database.url().to_owned();
    let psql_task = tokio::task::spawn_blocking(move || {
        // The option `-c` only limits how long the test can take: a script that did not set `lock_timeout` itself would
        // wait for 60 seconds.
        run_program(
            "psql",
            &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", "SET lock_timeout = '60s'", "-f", "-", &url],
            &script,
        )
    });
    let Some(outcome) = psql_task.await.unwrap() else { return };
    assert!(outcome.unwrap_err().contains("lock timeout"));
    assert!(started_at.elapsed() < Duration::from_secs(40), "waited for {:?}", started_at.elapsed());
    holder.rollback().await.unwrap();
    assert!(migration::install_script().contains("SET LOCAL lock_timeout = '10s'"));
    let (_database, db) = create_unmigrated_database().await;
    assert_eq!(
        query_lines(&db, "SHOW lock_timeout").await,
        ["0"],
        "neither the server nor `connect` may limit the wait, so that the limit comes from the command or the script"
    );
}
