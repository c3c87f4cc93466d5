//! Objects that an operator (a person, not PostgreSQL's operator) has added. A command that would have to drop such an
//! object fails with an error that names the object. Objects that need not be dropped are left alone.

use sea_orm::ConnectionTrait;
use sparc::migration::{check, sea_orm_migration::MigratorTrait};

use super::{Migrator, create_unmigrated_database, query_lines, read_catalog, refusal_message};

#[tokio::test]
async fn a_command_that_would_drop_an_operators_objects_names_each_of_them_and_changes_nothing() {
    let (_database, db) = create_unmigrated_database().await;
    Migrator::up(&db, None).await.unwrap();
    db.execute_unprepared(
        "SET search_path = public;
         CREATE FUNCTION strongest(attribute) RETURNS text LANGUAGE sql AS 'SELECT $1::text';
         CREATE FUNCTION all_of(attribute[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE VIEW names AS SELECT display_name FROM users;
         CREATE VIEW more_names AS SELECT * FROM names;
         CREATE TABLE tickets (id int PRIMARY KEY, user_id uuid REFERENCES users, kind attribute);
         CREATE POLICY \"Support reads\" ON users FOR SELECT TO anon USING (false);
         CREATE INDEX support_bio ON users (bio);
         ALTER TABLE users ADD COLUMN support_note text;
         CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER noted BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION noted();
         CREATE PUBLICATION reporting FOR TABLE users",
    )
    .await
    .unwrap();
    let catalog_before = read_catalog(&db).await;
    for attempt in [
        Migrator::reset(&db).await,
        Migrator::fresh(&db).await,
        Migrator::refresh(&db).await,
        Migrator::down(&db, Some(1)).await,
    ] {
        let message = refusal_message(attempt.unwrap_err());
        for object in [
            "function public.strongest(public.attribute)",
            "function public.all_of(public.attribute[])",
            "view public.names",
            "view public.more_names",
            "tickets_user_id_fkey on table public.tickets",
            ", table public.tickets", // an entry of its own, not the end of the foreign key's entry
            "policy Support reads on table public.users",
            "index public.support_bio",
            "column support_note of table public.users",
            "trigger noted on table public.users",
            "publication reporting",
        ] {
            assert!(message.contains(object), "{object}: {message}");
        }
        assert!(
            !message.contains("pg_toast") && !message.contains("pg_temp"),
            "PostgreSQL's internal objects must not be named: {message}"
        );
        assert_eq!(read_catalog(&db).await, catalog_before);
    }
    db.execute_unprepared(
        "SET search_path = public;
         DROP FUNCTION strongest, all_of; DROP VIEW more_names, names; DROP TABLE tickets;
         DROP POLICY \"Support reads\" ON users; DROP INDEX support_bio; ALTER TABLE users DROP COLUMN support_note;
         DROP FUNCTION noted CASCADE; DROP PUBLICATION reporting",
    )
    .await
    .unwrap();
    Migrator::reset(&db).await.unwrap();
}

#[tokio::test]
async fn up_refuses_a_repair_that_would_drop_an_operators_object() {
    let (_database, db) = create_unmigrated_database().await;
    Migrator::up(&db, None).await.unwrap();
    db.execute_unprepared(
        "DROP VIEW private.published_adventures CASCADE;
         CREATE VIEW private.published_adventures AS SELECT id FROM public.adventures;
         CREATE VIEW public.catalogue AS SELECT * FROM private.published_adventures",
    )
    .await
    .unwrap();
    // `up` would restore our view by dropping the changed one, and with it the operator's `catalogue`.
    let catalog_before = read_catalog(&db).await;
    assert!(refusal_message(Migrator::up(&db, None).await.unwrap_err()).contains("view public.catalogue"));
    assert_eq!(read_catalog(&db).await, catalog_before);
}

#[tokio::test]
async fn a_services_own_seaorm_migrations_are_independent_of_ours() {
    let (_database, db) = create_unmigrated_database().await;
    db.execute_unprepared(
        "CREATE TABLE seaql_migrations (version varchar PRIMARY KEY, applied_at bigint NOT NULL);
         INSERT INTO seaql_migrations VALUES ('m20220101_000001_create_table', 1);
         CREATE TABLE cake (id int)",
    )
    .await
    .unwrap();
    let catalog_before = read_catalog(&db).await;
    Migrator::up(&db, None).await.unwrap();
    assert!(check(&db).await.unwrap().is_clean());
    assert_eq!(Migrator::get_applied_migrations(&db).await.unwrap().len(), Migrator::migrations().len());
    Migrator::reset(&db).await.unwrap();
    assert_eq!(read_catalog(&db).await, catalog_before);
    assert_eq!(query_lines(&db, "SELECT version::text FROM seaql_migrations").await, ["m20220101_000001_create_table"]);
}

#[tokio::test]
async fn an_operators_table_stays_in_the_publication() {
    let (_database, db) = create_unmigrated_database().await;
    let catalog_before = read_catalog(&db).await;
    Migrator::up(&db, None).await.unwrap();
    let select_published = "SELECT tablename::text FROM pg_publication_tables
        WHERE pubname = 'supabase_realtime' ORDER BY 1";
    let our_tables = query_lines(&db, select_published).await;
    db.execute_unprepared("CREATE TABLE chat (id int); ALTER PUBLICATION supabase_realtime ADD TABLE chat")
        .await
        .unwrap();
    Migrator::refresh(&db).await.unwrap();
    let mut all_tables = [vec!["chat".to_owned()], our_tables].concat();
    all_tables.sort_unstable();
    assert_eq!(query_lines(&db, select_published).await, all_tables);
    Migrator::reset(&db).await.unwrap();
    assert_eq!(query_lines(&db, select_published).await, ["chat"]);
    // Without an operator's table, `reset` drops the publication if the publication's comment still says that `up`
    // created it.
    Migrator::up(&db, None).await.unwrap();
    db.execute_unprepared("DROP TABLE chat").await.unwrap();
    Migrator::reset(&db).await.unwrap();
    assert_eq!(read_catalog(&db).await, catalog_before);
}

#[tokio::test]
async fn an_objects_name_with_control_characters_cannot_forge_a_line_of_output() {
    let (_database, db) = create_unmigrated_database().await;
    Migrator::up(&db, None).await.unwrap();
    let name = "\"x\nthe database has the schema of this version\n\u{1b}[2K\"";
    db.execute_unprepared(&format!(
        "CREATE FUNCTION private.{name}() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE VIEW public.{name} AS SELECT id FROM public.users;
         CREATE TABLE private.{name} (id int)"
    ))
    .await
    .unwrap();
    let report = check(&db).await.unwrap();
    let lines: Vec<String> =
        report.hints.iter().cloned().chain(report.differences.iter().map(ToString::to_string)).collect();
    assert!(lines.iter().any(|line| line.contains(r"x\nthe database has")), "{lines:#?}");
    assert!(!lines.concat().contains(char::is_control), "{lines:#?}");
    let message = refusal_message(Migrator::reset(&db).await.unwrap_err());
    assert!(message.contains(r"x\nthe database has") && !message.contains(char::is_control), "{message}");
    let manifest = sparc::migration::full_manifest_of(&db).await.unwrap();
    assert!(!manifest.lines().any(|line| line.starts_with("the database")), "{manifest}");
}

#[tokio::test]
async fn reset_restores_the_privileges_on_an_existing_schema_named_private() {
    let (_database, owner) = create_unmigrated_database().await;
    owner
        .execute_unprepared(
            "DO $$
             DECLARE
               role_name text;
             BEGIN
               FOREACH role_name IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
                 -- Another test on this server may create the same role at the same time.
                 BEGIN
                   EXECUTE 'CREATE ROLE ' || role_name;
                 EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
                 END;
               END LOOP;
             END
             $$;
             CREATE SCHEMA private;
             GRANT USAGE ON SCHEMA private TO authenticated, pg_monitor;
             GRANT CREATE ON SCHEMA private TO PUBLIC;
             GRANT ALL ON SCHEMA private TO service_role WITH GRANT OPTION",
        )
        .await
        .unwrap();
    let select_privileges = "SELECT concat_ws(' ', grantee::regrole, privilege_type, is_grantable)
        FROM pg_namespace, aclexplode(nspacl)
        WHERE nspname = 'private' AND grantee <> nspowner
        ORDER BY 1";
    let privileges_before = query_lines(&owner, select_privileges).await;
    assert!(privileges_before.iter().any(|line| line == "- CREATE f"), "{privileges_before:?}");
    Migrator::up(&owner, None).await.unwrap();
    assert!(check(&owner).await.unwrap().is_clean());
    let privileges = query_lines(&owner, select_privileges).await;
    assert!(!privileges.iter().any(|line| line == "- CREATE f"), "`up` must revoke CREATE from PUBLIC: {privileges:?}");
    Migrator::reset(&owner).await.unwrap();
    assert_eq!(query_lines(&owner, select_privileges).await, privileges_before);
}
