//! The list of applied migrations, `sparc_migrations`, if it is damaged, incomplete or missing, or if a table of
//! another program has its name. (`up` can repair the list, because `private.sparc_record` records the migrations too.)

use sea_orm::ConnectionTrait;
use sparc::migration::{
    self, Command, check,
    sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait},
};

use super::{
    Migrator, create_unmigrated_database,
    drift::{create_migrated_database, up, up_refusal},
    query_lines, read_catalog, refusal_message,
};

#[tokio::test]
async fn down_reset_and_refresh_refuse_a_broken_list_and_up_repairs_it() {
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
        let (_database, owner, _superuser) = create_migrated_database().await;
        let select_versions = "SELECT version::text FROM sparc_migrations ORDER BY 1";
        let versions_before = query_lines(&owner, select_versions).await;
        owner.execute_unprepared(&format!("SET search_path = public; {sql}")).await.unwrap();
        assert!(!check(&owner).await.unwrap().is_clean(), "{sql}");
        let broken_catalog = read_catalog(&owner).await;
        for command in [Command::Down(Some(1)), Command::Reset, Command::Refresh] {
            if let Err(error) = migration::run(&(&owner).into_database_executor(), command).await {
                assert!(refusal_message(error).contains("run `up`"), "{sql}");
                assert_eq!(read_catalog(&owner).await, broken_catalog, "{sql}");
            } else {
                panic!("{sql}: {command:?} must refuse to guess which migrations are applied");
            }
        }
        up(&owner).await;
        assert!(check(&owner).await.unwrap().is_clean(), "{sql}");
        assert_eq!(query_lines(&owner, select_versions).await, versions_before, "{sql}");
        Migrator::reset(&owner).await.unwrap();
    }
}

#[tokio::test]
async fn check_refuses_rows_that_name_an_unknown_migration() {
    for version_literal in ["''", "'m20220101_000001_create_table'", "'; DROP TABLE users'"] {
        let (_database, owner, _superuser) = create_migrated_database().await;
        owner.execute_unprepared(&format!("INSERT INTO sparc_migrations VALUES ({version_literal}, 1)")).await.unwrap();
        let message = refusal_message(check(&owner).await.unwrap_err());
        assert!(message.contains("does not know"), "{message}");
    }
}

#[tokio::test]
async fn up_refuses_to_take_over_our_tables_if_both_sparc_migrations_and_sparc_record_are_missing() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    owner.execute_unprepared("DROP TABLE sparc_migrations, private.sparc_record").await.unwrap();
    let catalog_before = read_catalog(&owner).await;
    let message = up_refusal(&owner).await;
    assert!(message.contains("no record that these migrations made it"), "{message}");
    assert!(message.contains(" more, and no record"), "the message must name only the first objects: {message}");
    assert!(message.contains("restore the rows of sparc_migrations"), "{message}");
    assert_eq!(read_catalog(&owner).await, catalog_before);
}

#[tokio::test]
async fn a_database_with_tables_of_another_program_is_left_alone() {
    let (_database, owner) = create_unmigrated_database().await;
    owner.execute_unprepared("CREATE TABLE users (id integer); CREATE TABLE notes (id integer)").await.unwrap();
    let catalog_before = read_catalog(&owner).await;
    let message = up_refusal(&owner).await;
    assert!(message.contains("already has table public.users, and no record"), "{message}");
    assert!(message.contains("use another database"), "{message}");
    assert!(!message.contains("dump"), "another program's tables cannot come from a dump of our schema: {message}");
    assert_eq!(read_catalog(&owner).await, catalog_before);
}

#[tokio::test]
async fn up_refuses_if_a_table_of_another_program_has_the_name_of_the_list() {
    let (_database, owner) = create_unmigrated_database().await;
    owner.execute_unprepared("CREATE TABLE sparc_migrations (id integer)").await.unwrap();
    let message = up_refusal(&owner).await;
    assert!(message.contains("already has table public.sparc_migrations, and no record"), "{message}");
}

#[tokio::test]
async fn reset_refuses_to_drop_an_object_of_another_program_that_has_the_name_of_the_list() {
    for sql in ["CREATE TABLE sparc_migrations (id integer)", "CREATE VIEW sparc_migrations AS SELECT 1 AS id"] {
        let (_database, owner) = create_unmigrated_database().await;
        owner.execute_unprepared(sql).await.unwrap();
        let catalog_before = read_catalog(&owner).await;
        let message = refusal_message(Migrator::reset(&owner).await.unwrap_err());
        assert!(message.contains("public.sparc_migrations, and no record"), "{sql}: {message}");
        assert_eq!(read_catalog(&owner).await, catalog_before, "{sql}");
    }
}

/// A complete `down` keeps the list, and `reset` drops it.
#[tokio::test]
async fn only_reset_refuses_because_of_an_operators_view_on_the_list() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    owner.execute_unprepared("CREATE VIEW applied AS SELECT version FROM sparc_migrations").await.unwrap();
    let assert_reset_refused = async || {
        let catalog_before = read_catalog(&owner).await;
        let message = refusal_message(Migrator::reset(&owner).await.unwrap_err());
        assert!(message.contains("view public.applied"), "{message}");
        assert_eq!(read_catalog(&owner).await, catalog_before);
    };
    assert_reset_refused().await;
    Migrator::down(&owner, None).await.unwrap();
    assert_eq!(query_lines(&owner, "SELECT version::text FROM applied").await, Vec::<String>::new());
    assert_reset_refused().await;
    Migrator::up(&owner, None).await.unwrap();
    Migrator::refresh(&owner).await.unwrap();
    assert_eq!(query_lines(&owner, "SELECT version::text FROM applied").await.len(), Migrator::migrations().len());
    owner.execute_unprepared("DROP VIEW applied").await.unwrap();
    Migrator::reset(&owner).await.unwrap();
}

#[tokio::test]
async fn a_partly_applied_schema_is_not_taken_for_complete() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    Migrator::down(&owner, Some(1)).await.unwrap();
    assert_eq!(check(&owner).await.unwrap().pending.len(), 1);
    up(&owner).await;
    assert!(check(&owner).await.unwrap().is_clean());
}
