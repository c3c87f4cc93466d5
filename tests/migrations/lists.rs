//! The list of migrations, `sparc_migrations`, damaged in every way.

use sea_orm::ConnectionTrait;
use sparc::migration::{self, Command, check, sea_orm_migration::IntoSchemaManagerConnection};

use super::{
    Migrator, catalog,
    drift::{migrated, up},
    empty, lines, refusal,
};
use sparc::migration::sea_orm_migration::MigratorTrait;

#[tokio::test]
async fn a_broken_list_is_repaired_before_anything_is_removed() {
    for sql in [
        "ALTER TABLE sparc_migrations DROP COLUMN version",
        "ALTER TABLE sparc_migrations DROP COLUMN applied_at",
        "ALTER TABLE sparc_migrations ALTER version TYPE char(90)",
        "ALTER TABLE sparc_migrations ALTER applied_at TYPE timestamptz USING to_timestamp(applied_at)",
        "ALTER TABLE sparc_migrations DROP CONSTRAINT sparc_migrations_pkey, ALTER version DROP NOT NULL",
        "DELETE FROM sparc_migrations",
        "DROP TABLE sparc_migrations",
        "ALTER TABLE sparc_migrations RENAME TO old_list",
    ] {
        let (_database, owner, _administrator) = migrated().await;
        let listed = "SELECT version::text FROM sparc_migrations ORDER BY 1";
        let before = lines(&owner, listed).await;
        owner.execute_unprepared(&format!("SET search_path = public; {sql}")).await.unwrap();
        assert!(!check(&owner).await.unwrap().is_clean(), "{sql}");
        let broken = catalog(&owner).await;
        for command in [Command::Down(Some(1)), Command::Reset, Command::Refresh] {
            if let Err(error) = migration::run(&(&owner).into_database_executor(), command).await {
                assert!(refusal(error).contains("run up"), "{sql}");
                assert_eq!(catalog(&owner).await, broken, "{sql}");
            } else {
                panic!("{sql}: {command:?} must not guess which migrations are applied");
            }
        }
        up(&owner).await;
        assert!(check(&owner).await.unwrap().is_clean(), "{sql}");
        assert_eq!(lines(&owner, listed).await, before, "{sql}");
        Migrator::reset(&owner).await.unwrap();
    }
}

#[tokio::test]
async fn rows_that_name_no_migration_are_reported() {
    for row in ["''", "'m20220101_000001_create_table'", "'; DROP TABLE users'"] {
        let (_database, owner, _administrator) = migrated().await;
        owner.execute_unprepared(&format!("INSERT INTO sparc_migrations VALUES ({row}, 1)")).await.unwrap();
        let sentence = refusal(check(&owner).await.unwrap_err());
        assert!(sentence.contains("does not know"), "{sentence}");
    }
}

#[tokio::test]
async fn without_list_and_record_every_command_refuses() {
    let (_database, owner, _administrator) = migrated().await;
    owner.execute_unprepared("DROP TABLE sparc_migrations, private.sparc_record").await.unwrap();
    let before = catalog(&owner).await;
    let sentence = refusal(migration::run(&(&owner).into_database_executor(), Command::Up(None)).await.unwrap_err());
    assert!(sentence.contains("no record that these migrations made it"), "{sentence}");
    assert!(sentence.contains(" more, and no record"), "only the first objects are named: {sentence}");
    assert!(sentence.contains("restore the rows of sparc_migrations"), "{sentence}");
    assert_eq!(catalog(&owner).await, before);
}

#[tokio::test]
async fn a_database_with_tables_of_another_program_is_left_alone() {
    let (_database, owner) = empty().await;
    owner.execute_unprepared("CREATE TABLE users (id integer); CREATE TABLE notes (id integer)").await.unwrap();
    let before = catalog(&owner).await;
    let sentence = refusal(migration::run(&(&owner).into_database_executor(), Command::Up(None)).await.unwrap_err());
    assert!(sentence.contains("already has table public.users, and no record"), "{sentence}");
    assert!(sentence.contains("use another database") && !sentence.contains("dump"), "{sentence}");
    assert_eq!(catalog(&owner).await, before);
}

#[tokio::test]
async fn a_partly_applied_schema_is_not_taken_for_complete() {
    let (_database, owner, _administrator) = migrated().await;
    Migrator::down(&owner, Some(1)).await.unwrap();
    assert_eq!(check(&owner).await.unwrap().pending.len(), 1);
    up(&owner).await;
    assert!(check(&owner).await.unwrap().is_clean());
}
