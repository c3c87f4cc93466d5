//! `up` creates profiles for accounts that existed before the schema. If our triggers on `auth.users` were missing or
//! disabled, `up` also applies to the profiles what the triggers missed.

use sea_orm::ConnectionTrait;
use sparc::migration::{self, Migrator, SchemaChange, check, sea_orm_migration::MigratorTrait};

use super::{create_platform_database, create_unmigrated_database_without_platform, drift::up, query_lines};

#[tokio::test]
async fn each_existing_account_gets_a_profile() {
    let (_database, db) = create_unmigrated_database_without_platform().await;
    // The first migration creates the table of the accounts (`auth.users`), but neither that of the profiles (`users`)
    // nor our triggers.
    Migrator::up(&db, Some(1)).await.unwrap();
    db.execute_unprepared(
        "INSERT INTO auth.users (email, deleted_at)
         VALUES ('old@x.org', NULL), (NULL, NULL), ('old@x.org', NULL), ('gone@x.org', now())",
    )
    .await
    .unwrap();
    Migrator::up(&db, None).await.unwrap();
    // The profile of an account without an e-mail address is named `Adventurer`, that of a deleted one `Former player`.
    let names = query_lines(&db, "SELECT display_name FROM users ORDER BY 1").await;
    assert_eq!(names, ["Adventurer", "Former player", "old", "old"]);
    assert_eq!(
        query_lines(&db, "SELECT email FROM users WHERE email LIKE 'gone%'").await,
        Vec::<String>::new(),
        "the profile of a deleted account must not have its e-mail address"
    );
}

#[tokio::test]
async fn up_restores_the_triggers_on_accounts_applies_missed_changes_and_reopens_no_account() {
    let (_database, db) = create_unmigrated_database_without_platform().await;
    Migrator::up(&db, None).await.unwrap();
    // The account of `ben` is closed. Setting `deleted_at` to NULL again does not reopen it.
    db.execute_unprepared(
        "INSERT INTO auth.users (email) VALUES ('ada@x.org'), ('ben@x.org'), ('cas@x.org'), ('dan@x.org');
         UPDATE auth.users SET deleted_at = now() WHERE email = 'ben@x.org';
         UPDATE auth.users SET deleted_at = NULL WHERE deleted_at IS NOT NULL;
         DROP TRIGGER on_auth_user_created ON auth.users;
         DROP TRIGGER on_auth_user_changed ON auth.users;
         INSERT INTO auth.users (email) VALUES ('eve@x.org');
         UPDATE auth.users SET email = 'ada@new.org' WHERE email = 'ada@x.org';
         UPDATE auth.users SET deleted_at = now() WHERE email = 'cas@x.org'",
    )
    .await
    .unwrap();
    // The accounts that did not change while the triggers were missing: `dan`, and `ben`, whose account is closed.
    let unchanged_ids =
        query_lines(&db, "SELECT id::text FROM users WHERE display_name IN ('dan', 'Former player')").await;
    assert_eq!(unchanged_ids.len(), 2);
    let select_row_versions =
        format!("SELECT xmin::text FROM users WHERE id IN ('{}') ORDER BY id", unchanged_ids.join("', '"));
    let row_versions_before = query_lines(&db, &select_row_versions).await;
    Migrator::up(&db, None).await.unwrap();
    let report = check(&db).await.unwrap();
    assert!(report.is_clean(), "the triggers must be restored: {report:#?}");
    let select_profiles = "SELECT display_name || ' ' || CASE WHEN email LIKE '%.invalid' THEN '-' ELSE email END
        FROM users WHERE closed_at IS NULL ORDER BY 1";
    assert_eq!(query_lines(&db, select_profiles).await, ["ada ada@new.org", "dan dan@x.org", "eve eve@x.org"]);
    // The closed accounts are those of `ben` and `cas`. `private.account_gates` has a row for each account, which says
    // whether the account is open.
    let select_closed_profiles = "SELECT display_name FROM users
        JOIN private.account_gates AS gate ON gate.account_id = users.id AND NOT is_open";
    assert_eq!(query_lines(&db, select_closed_profiles).await, ["Former player", "Former player"]);
    assert_eq!(
        query_lines(&db, &select_row_versions).await,
        row_versions_before,
        "the profile of an account that did not change must not be written"
    );
}

#[tokio::test]
async fn up_applies_sign_ups_and_deletions_that_the_triggers_missed() {
    for disabling_sql in [
        "DROP TRIGGER on_auth_user_created ON auth.users; DROP TRIGGER \"On_auth_user_deleted\" ON auth.users",
        "ALTER TABLE auth.users DISABLE TRIGGER USER",
        "CREATE OR REPLACE FUNCTION private.handle_new_user() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE OR REPLACE FUNCTION private.handle_deleted_user() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    ] {
        let (_database, db) = create_unmigrated_database_without_platform().await;
        Migrator::up(&db, None).await.unwrap();
        db.execute_unprepared(&format!(
            "INSERT INTO auth.users (email) VALUES ('ada@x.org'), ('ben@x.org'), ('cas@x.org'), ('dan@x.org');
             INSERT INTO adventures (creator_id, name, status, is_valid, published_at)
             SELECT id, 'The Mill', 'published', true, now() FROM users WHERE display_name = 'ada';
             INSERT INTO sessions (adventure_id, seer_id, code)
             SELECT adventures.id, users.id, 'ABCDEF' FROM adventures, users WHERE display_name = 'cas';
             INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability)
             SELECT id, 'Dorn', 'warrior', 5, 3, 2, 2, '{{}}' FROM users WHERE display_name = 'dan';
             INSERT INTO session_players (session_id, user_id, character_id)
             SELECT sessions.id, user_id, characters.id FROM sessions, characters;
             UPDATE sessions SET status = 'active';
             {disabling_sql};
             INSERT INTO auth.users (email) VALUES ('eve@x.org');
             DELETE FROM auth.users WHERE email IN ('ada@x.org', 'ben@x.org')"
        ))
        .await
        .unwrap();
        Migrator::up(&db, None).await.unwrap();
        // The profile of `ada` stays, because others play a session of the adventure that `ada` created. The profile of
        // `ben` is deleted.
        let select_profiles = "SELECT display_name || ' ' || (closed_at IS NOT NULL)::text FROM users ORDER BY 1";
        assert_eq!(
            query_lines(&db, select_profiles).await,
            ["Former player true", "cas false", "dan false", "eve false"],
            "after {disabling_sql}"
        );
        let violations = query_lines(&db, migration::INVARIANTS).await;
        assert_eq!(violations, Vec::<String>::new(), "after {disabling_sql}");
    }
}

/// While the triggers were disabled, a new account took the address of a deleted account, an older account took the
/// address that a newer account had given up, and two accounts exchanged their addresses.
#[tokio::test]
async fn up_stores_addresses_that_other_accounts_have_given_up() {
    let (_database, db) = create_unmigrated_database_without_platform().await;
    Migrator::up(&db, None).await.unwrap();
    db.execute_unprepared(
        "INSERT INTO auth.users (email, created_at)
         VALUES ('ada@x.org', '2026-01-01'), ('ben@x.org', '2026-01-02'), ('cas@x.org', '2026-01-03'),
           ('dan@x.org', '2026-01-04'), ('eve@x.org', '2026-01-05');
         ALTER TABLE auth.users DISABLE TRIGGER USER;
         DELETE FROM auth.users WHERE email = 'ada@x.org';
         INSERT INTO auth.users (email, created_at) VALUES ('ada@x.org', '2025-12-31');
         UPDATE auth.users SET email = 'cas@new.org' WHERE email = 'cas@x.org';
         UPDATE auth.users SET email = 'cas@x.org' WHERE email = 'ben@x.org';
         UPDATE auth.users SET email = CASE email WHEN 'dan@x.org' THEN 'eve@x.org' ELSE 'dan@x.org' END
         WHERE email IN ('dan@x.org', 'eve@x.org')",
    )
    .await
    .unwrap();
    Migrator::up(&db, None).await.unwrap();
    let select_wrong_addresses = "SELECT account.email || ' is stored as ' || coalesce(profile.email, 'nothing')
        FROM auth.users AS account LEFT JOIN users AS profile ON profile.account_id = account.id
        WHERE profile.email IS DISTINCT FROM account.email";
    assert_eq!(query_lines(&db, select_wrong_addresses).await, [""; 0]);
    assert_eq!(query_lines(&db, "SELECT count(*)::text FROM users").await, ["5"]);
}

/// On Supabase, the role that migrates may create triggers on `auth.users`, but not drop them, because it does not own
/// that table. So `up` drops the trigger's function, and with it the trigger, and then creates the function again if we
/// still define it. In the first case, we no longer define the function; in the second, we still do.
#[tokio::test]
async fn on_supabase_up_drops_a_trigger_on_auth_users_that_we_no_longer_define() {
    for (create_function, function, recorded) in [
        (
            "CREATE FUNCTION private.former() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "private.former()",
            "trigger former on auth.users\nfunction private.former()",
        ),
        ("SELECT", "private.touch_updated_at()", "trigger former on auth.users"),
    ] {
        let (_database, owner, superuser) = create_platform_database().await;
        Migrator::up(&owner, None).await.unwrap();
        owner
            .execute_unprepared(&format!(
                "{create_function};
                 CREATE TRIGGER former BEFORE INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION {function};
                 UPDATE private.sparc_record SET value = value || E'\n' || '{recorded}' WHERE name = 'objects'"
            ))
            .await
            .unwrap();
        let changes = up(&owner).await;
        assert!(changes.contains(&SchemaChange::Dropped("trigger former on auth.users".into())), "{changes:?}");
        assert!(check(&owner).await.unwrap().is_clean(), "{function}");
        let select_trigger = "SELECT tgname::text FROM pg_trigger WHERE tgname = 'former'";
        assert_eq!(query_lines(&superuser, select_trigger).await, Vec::<String>::new(), "{function}");
        assert_eq!(migration::full_manifest_of(&owner).await.unwrap(), migration::MANIFEST, "{function}");
    }
}
