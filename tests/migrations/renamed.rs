//! Renamed or moved objects: `up` restores their names and keeps their rows, or refuses with a message that says what
//! to do.

use sea_orm::ConnectionTrait;
use sparc::migration::{
    self, MANIFEST, SchemaChange, check,
    sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait},
};

use super::{
    Migrator,
    drift::{create_migrated_database, up, up_refusal},
    query_lines, read_catalog, refusal_message,
};

/// Each entry has three parts: SQL that renames or moves an object; the object's name in the manifest; its new name.
const RENAMES: &[(&str, &str, &str)] = &[
    ("ALTER TABLE creatures RENAME TO beasts", "table public.creatures", "table public.beasts"),
    ("ALTER TABLE users RENAME TO people", "table public.users", "table public.people"),
    ("ALTER TABLE dice_rolls SET SCHEMA private", "table public.dice_rolls", "table private.dice_rolls"),
    (
        "ALTER TABLE archived_sessions RENAME TO sessions_archive; ALTER TABLE sessions_archive SET SCHEMA private",
        "table public.archived_sessions",
        "table private.sessions_archive",
    ),
    ("ALTER TABLE private.account_gates RENAME TO gates", "table private.account_gates", "table private.gates"),
    ("ALTER TABLE users RENAME bio TO about", "column bio of public.users", "column about of public.users"),
    (
        "ALTER TABLE sessions RENAME code TO join_code",
        "column code of public.sessions",
        "column join_code of public.sessions",
    ),
    ("ALTER TYPE attribute RENAME TO trait", "type public.attribute", "type public.trait"),
    (
        "ALTER FUNCTION private.is_seer(uuid) SET SCHEMA public",
        "function private.is_seer(uuid)",
        "function public.is_seer(uuid)",
    ),
    ("ALTER TYPE session_status SET SCHEMA private", "type public.session_status", "type private.session_status"),
    (
        "ALTER SEQUENCE session_events_seq_seq RENAME TO event_numbers",
        "sequence public.session_events_seq_seq",
        "sequence public.event_numbers",
    ),
    (
        "ALTER TABLE users RENAME CONSTRAINT users_pkey TO people_pkey",
        "constraint users_pkey on public.users",
        "constraint people_pkey on public.users",
    ),
    (
        "ALTER TRIGGER roll_dice ON dice_rolls RENAME TO roll",
        "trigger roll_dice on public.dice_rolls",
        "trigger roll on public.dice_rolls",
    ),
    (
        "ALTER POLICY \"Users can update own profile\" ON users RENAME TO \"Own\"",
        "policy \"Users can update own profile\" on public.users",
        "policy \"Own\" on public.users",
    ),
    (
        "ALTER FUNCTION private.is_seer(uuid) RENAME TO runs",
        "function private.is_seer(uuid)",
        "function private.runs(uuid)",
    ),
    ("ALTER SCHEMA private RENAME TO hidden", "schema private", "schema hidden"),
];

#[tokio::test]
async fn check_reports_a_renamed_or_moved_object_and_up_restores_its_name() {
    for (sql, object, new_name) in RENAMES {
        let (_database, owner, _superuser) = create_migrated_database().await;
        let id = uuid::Uuid::new_v4();
        owner
            .execute_unprepared(&format!(
                "INSERT INTO auth.users (id, email) VALUES ('{id}', 'ada@x.org');
                 UPDATE public.users SET bio = 'kept'"
            ))
            .await
            .unwrap();
        owner.execute_unprepared(&format!("SET search_path = public; {sql}")).await.unwrap();
        let report = check(&owner).await.unwrap();
        let line = format!("renamed: {object}, to {new_name}");
        assert!(report.differences.iter().any(|difference| difference.to_string() == line), "{sql}: {report:#?}");
        let script = migration::dry_run(&(&owner).into_database_executor()).await.unwrap();
        assert!(script.contains(" RENAME ") || script.contains(" SET SCHEMA "), "{script}");
        let changes = up(&owner).await;
        assert!(
            changes.contains(&SchemaChange::Renamed((*new_name).to_owned(), (*object).to_owned())),
            "{sql}: {changes:#?}"
        );
        let report = check(&owner).await.unwrap();
        assert!(report.is_clean() && report.hints.is_empty(), "{sql}: {report:#?}");
        assert_eq!(migration::full_manifest_of(&owner).await.unwrap(), MANIFEST, "{sql}");
        // An account's *gate* is its row in `account_gates`. Every write by the account's user locks that row. `up` can
        // create a profile and a gate again from the account, but not the bio, so the bio shows that the row was kept.
        let select_rows = "SELECT display_name || ' ' || bio || ' ' || is_open FROM public.users
            JOIN private.account_gates AS gate ON gate.account_id = id";
        assert_eq!(query_lines(&owner, select_rows).await, ["ada kept true"], "{sql}: the rows must still be there");
    }
}

#[tokio::test]
async fn a_renamed_table_with_a_renamed_column_is_one_difference_and_the_sql_of_a_dry_run_repairs_it() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    owner
        .execute_unprepared(
            "SET search_path = public; ALTER TABLE creatures RENAME TO beasts; ALTER TABLE beasts RENAME armor TO hide",
        )
        .await
        .unwrap();
    let report = check(&owner).await.unwrap();
    assert_eq!(report.differences.len(), 1, "{report:#?}");
    let catalog_before = read_catalog(&owner).await;
    let script = migration::dry_run(&(&owner).into_database_executor()).await.unwrap();
    assert_eq!(read_catalog(&owner).await, catalog_before, "a dry run must change nothing");
    owner.execute_unprepared(&script).await.unwrap_or_else(|error| panic!("{error}\n{script}"));
    assert!(check(&owner).await.unwrap().is_clean());
}

#[tokio::test]
async fn a_renamed_enum_value_is_renamed_back() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    owner.execute_unprepared("ALTER TYPE adventure_status RENAME VALUE 'published' TO 'public'").await.unwrap();
    let report = check(&owner).await.unwrap();
    assert!(
        report.differences.iter().any(|difference| difference.object == "type public.adventure_status"),
        "{report:#?}"
    );
    up(&owner).await;
    assert!(check(&owner).await.unwrap().is_clean());
    assert_eq!(migration::full_manifest_of(&owner).await.unwrap(), MANIFEST);
}

/// A column that was added after ours was dropped looks like our column under a new name. It lacks the comment of our
/// column, so `up` must not rename it.
#[tokio::test]
async fn an_operators_column_is_not_taken_for_our_dropped_column() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    owner
        .execute_unprepared("ALTER TABLE users DROP COLUMN bio CASCADE; ALTER TABLE users ADD COLUMN note text")
        .await
        .unwrap();
    let changes = up(&owner).await;
    assert!(changes.contains(&SchemaChange::Created("column bio of public.users".into())), "{changes:?}");
    assert!(check(&owner).await.unwrap().hints.iter().any(|hint| hint.starts_with("column note of public.users")));
}

#[tokio::test]
async fn an_object_of_another_kind_that_has_a_name_of_ours_is_reported_and_stays() {
    for (sql, expected, found) in [
        (
            "DROP TABLE creatures CASCADE; CREATE VIEW creatures AS SELECT 1 AS id",
            "table public.creatures",
            "view public.creatures",
        ),
        (
            "DROP INDEX idx_sessions_status; CREATE SEQUENCE idx_sessions_status",
            "index idx_sessions_status on public.sessions",
            "sequence public.idx_sessions_status",
        ),
        // Without its comment, the renamed table is not recognized as ours, so `up` would create `creatures` anew. But
        // an index of the renamed table still has the name that the primary key of the new table needs.
        (
            "COMMENT ON TABLE creatures IS NULL; ALTER TABLE creatures RENAME TO old_creatures",
            "constraint creatures_pkey on public.creatures",
            "index public.creatures_pkey",
        ),
        (
            "ALTER TABLE sparc_migrations RENAME TO old_list; CREATE VIEW sparc_migrations AS SELECT * FROM old_list",
            "table public.sparc_migrations",
            "view public.sparc_migrations",
        ),
        // The name belongs to another kind of type: to a domain instead of an enum.
        (
            "DROP TYPE tutorial_path CASCADE; CREATE DOMAIN tutorial_path AS text",
            "type public.tutorial_path",
            "type public.tutorial_path",
        ),
    ] {
        let (_database, owner, _superuser) = create_migrated_database().await;
        owner.execute_unprepared(&format!("SET search_path = public; {sql}")).await.unwrap();
        let report = check(&owner).await.unwrap();
        assert!(!report.is_clean(), "{sql}");
        let catalog_before = read_catalog(&owner).await;
        let message = up_refusal(&owner).await;
        assert!(
            message.contains(expected) && message.contains(found) && message.contains("rename or drop that"),
            "{sql}: {message}"
        );
        assert_eq!(read_catalog(&owner).await, catalog_before, "{sql}");
    }
}

#[tokio::test]
async fn up_refuses_if_an_object_of_ours_has_the_name_of_another_or_a_table_is_in_a_schema_that_is_not_ours() {
    for (sql, expected) in [
        (
            "ALTER TABLE users RENAME display_name TO name; ALTER TABLE users RENAME bio TO display_name",
            "column display_name of public.users is column bio of public.users",
        ),
        (
            "ALTER TABLE characters RENAME TO people; ALTER TABLE creatures RENAME TO characters",
            "table public.characters is table public.creatures",
        ),
        ("CREATE SCHEMA backup; ALTER TABLE creatures SET SCHEMA backup", "table backup.creatures"),
        (
            "ALTER SCHEMA public RENAME TO before; CREATE SCHEMA public; GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC",
            "table before.users",
        ),
    ] {
        let (_database, owner, superuser) = create_migrated_database().await;
        let connection = if sql.contains("SCHEMA public") { &superuser } else { &owner };
        connection.execute_unprepared(&format!("SET search_path = public; {sql}")).await.unwrap();
        assert!(!check(&owner).await.unwrap().is_clean(), "{sql}");
        let catalog_before = read_catalog(&owner).await;
        let message = up_refusal(&owner).await;
        assert!(message.contains(expected), "{sql}: {message}");
        assert_eq!(read_catalog(&owner).await, catalog_before, "{sql}");
    }
}

#[tokio::test]
async fn a_renamed_object_whose_old_name_is_taken_is_reported_and_nothing_changes() {
    for (sql, expected) in [
        (
            "ALTER TABLE users RENAME TO people; CREATE TABLE users (id int)",
            "table public.people is table public.users according to its comment, and another table has that name",
        ),
        (
            "ALTER TABLE users RENAME bio TO about; ALTER TABLE users ADD COLUMN bio text",
            "column about of public.users is column bio of public.users according to its comment",
        ),
        (
            "ALTER TABLE users RENAME bio TO x; ALTER TABLE users RENAME avatar_url TO bio;
             ALTER TABLE users RENAME x TO avatar_url",
            "column bio of public.users is column avatar_url of public.users according to its comment",
        ),
    ] {
        let (_database, owner, _superuser) = create_migrated_database().await;
        owner.execute_unprepared(&format!("SET search_path = public; {sql}")).await.unwrap();
        assert!(!check(&owner).await.unwrap().is_clean(), "{sql}");
        let catalog_before = read_catalog(&owner).await;
        for attempt in [Migrator::up(&owner, None).await, Migrator::reset(&owner).await] {
            let message = refusal_message(attempt.unwrap_err());
            assert!(message.contains(expected), "{sql}: {message}");
        }
        assert_eq!(read_catalog(&owner).await, catalog_before, "{sql}");
    }
}
