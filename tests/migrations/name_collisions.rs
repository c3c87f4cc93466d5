//! Before the first migration, objects of another program have names that the schema needs.

use sea_orm::{ConnectionTrait, DatabaseConnection};
use sparc::migration::{connect, install_script, sea_orm_migration::MigratorTrait};

use super::{Migrator, create_unmigrated_database, read_catalog, refusal_message};

/// Statements of another program, each with what the message says about the object.
const COLLISIONS: [(&str, &str); 13] = [
    ("CREATE TABLE users (id int)", "table public.users"),
    ("CREATE TABLE characters (id int) PARTITION BY LIST (id)", "table public.characters"),
    ("CREATE VIEW sessions AS SELECT 1 AS id", "view public.sessions"),
    ("CREATE VIEW profiles AS SELECT 1 AS id", "view public.profiles"),
    ("CREATE MATERIALIZED VIEW adventures AS SELECT 1 AS id", "materialized view public.adventures"),
    ("CREATE SEQUENCE creatures", "sequence public.creatures"),
    ("CREATE TYPE dice_rolls AS (x int)", "composite type public.dice_rolls"),
    ("CREATE TYPE tutorial_progress AS ENUM ('x')", "type public.tutorial_progress"),
    ("CREATE TYPE attribute AS ENUM ('x')", "type public.attribute"),
    ("CREATE DOMAIN roll_type AS text", "type public.roll_type (a domain)"),
    ("CREATE TABLE session_status (id int)", "type public.session_status (the row type of a relation)"),
    ("CREATE TABLE t (id int); CREATE INDEX idx_dice_rolls_original ON t (id)", "index public.idx_dice_rolls_original"),
    (
        "CREATE SCHEMA IF NOT EXISTS private; CREATE TABLE private.request_digests (id int)",
        "table private.request_digests",
    ),
];

/// Returns the error with which the script for psql fails.
async fn script_refusal(db: &DatabaseConnection) -> String {
    let error = db.execute_unprepared(&install_script()).await.unwrap_err();
    db.execute_unprepared("ROLLBACK").await.unwrap();
    error.to_string()
}

#[tokio::test]
async fn up_fresh_refresh_and_the_script_refuse_if_objects_of_another_program_have_our_names() {
    for (sql, object) in COLLISIONS {
        let (_database, db) = create_unmigrated_database().await;
        db.execute_unprepared(sql).await.unwrap();
        let catalog_before = read_catalog(&db).await;
        for attempt in [Migrator::up(&db, None).await, Migrator::fresh(&db).await, Migrator::refresh(&db).await] {
            let message = refusal_message(attempt.unwrap_err());
            let expected = format!("The database already has {object}, and no record");
            assert!(message.starts_with(&expected), "{sql}: {message}");
        }
        let refusal = script_refusal(&db).await;
        assert!(refusal.contains("already"), "{sql}: {refusal}");
        assert_eq!(read_catalog(&db).await, catalog_before, "{sql}");
    }
}

/// `up` creates triggers with CREATE OR REPLACE, and drops each policy before it creates the policy. So it would
/// replace a trigger or policy of another program that has the same name. A project may well have such a trigger:
/// Supabase's documentation has one with the name `on_auth_user_created`.
#[tokio::test]
async fn up_and_the_script_refuse_if_a_trigger_or_policy_on_a_table_of_the_platform_has_one_of_our_names() {
    let server = testdb::Server::start_supabase(None).await.unwrap();
    for (sql, object) in [
        (
            "CREATE FUNCTION create_profile() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER on_auth_user_created AFTER INSERT ON auth.users
             FOR EACH ROW EXECUTE FUNCTION create_profile()",
            "trigger on_auth_user_created on auth.users",
        ),
        (
            "CREATE POLICY \"Participants follow their sessions\" ON realtime.messages USING (true)",
            "policy \"Participants follow their sessions\" on realtime.messages",
        ),
    ] {
        let database = server.create_unmigrated().await.unwrap();
        let db = connect(database.url()).await.unwrap();
        let superuser = connect(&database.superuser_url()).await.unwrap();
        superuser.execute_unprepared(sql).await.unwrap();
        let catalog_before = read_catalog(&superuser).await;
        for attempt in [Migrator::up(&db, None).await, Migrator::fresh(&db).await] {
            let message = refusal_message(attempt.unwrap_err());
            assert!(message.starts_with(&format!("The database already has {object}, and no record")), "{message}");
        }
        let (_, name) = object.split_once(' ').unwrap();
        let refusal = script_refusal(&db).await;
        assert!(refusal.contains(&format!("the database already has trigger or policy {name}: ")), "{refusal}");
        assert_eq!(read_catalog(&superuser).await, catalog_before, "{object}");
    }
}

/// `up` creates functions with CREATE OR REPLACE, so it would overwrite a function with the same argument types. It
/// refuses a function with the same name, whatever its arguments.
#[tokio::test]
async fn up_and_the_script_refuse_if_a_function_of_another_program_has_one_of_our_names() {
    let (_database, db) = create_unmigrated_database().await;
    db.execute_unprepared("CREATE FUNCTION get_session_details(x int) RETURNS int LANGUAGE sql AS 'SELECT x'")
        .await
        .unwrap();
    let catalog_before = read_catalog(&db).await;
    let message = refusal_message(Migrator::up(&db, None).await.unwrap_err());
    assert!(message.contains("function public.get_session_details"), "{message}");
    let refusal = script_refusal(&db).await;
    assert!(refusal.contains("already has function get_session_details(integer)"), "{refusal}");
    assert_eq!(read_catalog(&db).await, catalog_before);
}
