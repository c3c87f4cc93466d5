//! Migrating through a pooler in transaction mode: the commands work although the server connections hold prepared
//! statements of other clients, and the commands leave no prepared statements of their own behind.

use sea_orm::ConnectionTrait;
use sparc::migration::{
    self, Command, check, connect,
    sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait},
};

use super::{Migrator, create_unmigrated_database};
use crate::pooler::{start_pooler, start_pooler_with_connections};

#[tokio::test]
async fn every_command_works_through_a_pooler_in_transaction_mode() {
    let (database, direct) = create_unmigrated_database().await;
    let Some(pooler) = start_pooler(database.url()).await else {
        eprintln!("skipped: this machine has no pgbouncer");
        return;
    };
    // Prepare statements with the driver's names on server connections that the pooler later gives to other clients.
    let other_client = sea_orm::Database::connect(&pooler.url).await.unwrap();
    for number in 1..=40 {
        // An error is ignored, because the driver may already have used the first names for this client.
        let _ = other_client.execute_unprepared(&format!("PREPARE sqlx_s_{number} AS SELECT {number}")).await;
    }
    let db = connect(&pooler.url).await.unwrap();
    for _ in 0..3 {
        Migrator::up(&db, None).await.unwrap();
        assert!(check(&db).await.unwrap().is_clean());
        assert_eq!(migration::status(&(&db).into_database_executor()).await.unwrap().report.differences, []);
        direct.execute_unprepared("DROP POLICY \"Users can update own profile\" ON public.users").await.unwrap();
        assert_ne!(migration::dry_run(&(&db).into_database_executor()).await.unwrap(), "");
        assert_eq!(migration::run(&(&db).into_database_executor(), Command::Up(None)).await.unwrap().len(), 1);
        migration::full_manifest_of(&db).await.unwrap();
        Migrator::fresh(&db).await.unwrap();
        Migrator::down(&db, Some(1)).await.unwrap();
        Migrator::reset(&db).await.unwrap();
    }
    other_client.close().await.unwrap();
    db.close().await.unwrap();
}

/// The pooler has one server connection, so that the next client surely gets the one that the command used.
#[tokio::test]
async fn neither_a_failed_command_nor_a_dry_run_leaves_prepared_statements_on_the_server_connection() {
    let (database, direct) = create_unmigrated_database().await;
    let Some(pooler) = start_pooler_with_connections(database.url(), 1).await else {
        eprintln!("skipped: this machine has no pgbouncer");
        return;
    };
    Migrator::up(&direct, None).await.unwrap();
    for sql in [
        "ALTER TABLE public.users DROP CONSTRAINT bounded_bio",
        "INSERT INTO auth.users (id, email) VALUES (gen_random_uuid(), 'ada@example.com')",
        "UPDATE public.users SET bio = repeat('a', 2001)", // prevents the repair of the constraint
        // Prevents `down`. A dry run first restores the name, in a transaction that it then rolls back.
        "ALTER TABLE public.creatures RENAME TO monsters",
    ] {
        direct.execute_unprepared(sql).await.unwrap();
    }
    let db = connect(&pooler.url).await.unwrap();
    let other_client = sea_orm::Database::connect(&pooler.url).await.unwrap();
    for (command, reason) in [(Command::Down(None), "public.monsters"), (Command::Up(None), "bounded_bio")] {
        let error = migration::run(&(&db).into_database_executor(), command).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        other_client.execute_unprepared(ASSERT_NONE_PREPARED).await.unwrap();
    }
    assert_ne!(migration::dry_run(&(&db).into_database_executor()).await.unwrap(), "");
    other_client.execute_unprepared(ASSERT_NONE_PREPARED).await.unwrap();
    other_client.close().await.unwrap();
    db.close().await.unwrap();
}

/// A statement that fails if the server connection has prepared statements.
const ASSERT_NONE_PREPARED: &str =
    "DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM pg_prepared_statements), 'prepared statements were left'; END $$";
