//! A database that is no longer what the program carries: each kind of line broken, named by `check`, repaired by `up`.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use sparc::migration::{
    self, Command, MANIFEST, Step, check, connect,
    sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait},
};
use testdb::Database;

use super::{Migrator, lines, refusal};
use crate::world::server;

/// A migrated database, its owner's connection and an administrator's.
async fn migrated() -> (Database, DatabaseConnection, DatabaseConnection) {
    let database = server().await.migrated().await.unwrap();
    let owner = connect(database.url()).await.unwrap();
    let administrator = connect(&database.administrator_url()).await.unwrap();
    (database, owner, administrator)
}

async fn up(db: &DatabaseConnection) -> Vec<Step> {
    migration::run(&db.into_database_executor(), Command::Up(None)).await.unwrap()
}

/// What is done to the database, and the object that it is done to.
const BROKEN: &[(&str, &str)] = &[
    ("DROP TABLE creatures CASCADE", "table public.creatures"),
    ("DROP TABLE private.account_gates CASCADE", "table private.account_gates"),
    ("DROP TABLE private.sparc_record CASCADE", "table private.sparc_record"),
    ("ALTER TABLE creatures OWNER TO authenticated", "table public.creatures"),
    ("ALTER FUNCTION private.is_seer(uuid) OWNER TO authenticated", "function private.is_seer(uuid)"),
    ("ALTER TYPE attribute OWNER TO authenticated", "type public.attribute"),
    ("ALTER TABLE session_players REPLICA IDENTITY DEFAULT", "table public.session_players"),
    ("ALTER TABLE characters REPLICA IDENTITY FULL", "table public.characters"),
    ("ALTER TABLE archived_dice_rolls SET UNLOGGED", "table public.archived_dice_rolls"),
    ("ALTER TABLE users DROP COLUMN bio CASCADE", "column bio of public.users"),
    ("ALTER TABLE sessions ALTER max_players DROP DEFAULT", "column max_players of public.sessions"),
    ("ALTER TABLE sessions ALTER code DROP NOT NULL", "column code of public.sessions"),
    ("ALTER TABLE sessions ALTER looking_for SET NOT NULL", "column looking_for of public.sessions"),
    ("ALTER TABLE characters ALTER level TYPE bigint", "column level of public.characters"),
    ("ALTER TABLE session_events ALTER seq DROP IDENTITY", "column seq of public.session_events"),
    ("ALTER TABLE users DROP CONSTRAINT bounded_bio", "constraint bounded_bio on public.users"),
    ("ALTER TABLE sessions DROP CONSTRAINT sessions_code_key", "constraint sessions_code_key on public.sessions"),
    ("ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE", "constraint users_pkey on public.users"),
    (
        "ALTER TABLE creatures DROP CONSTRAINT creatures_adventure_id_fkey,
           ADD CONSTRAINT creatures_adventure_id_fkey FOREIGN KEY (adventure_id) REFERENCES adventures",
        "constraint creatures_adventure_id_fkey on public.creatures",
    ),
    (
        "ALTER TABLE users DROP CONSTRAINT bounded_bio, ADD CONSTRAINT bounded_bio CHECK (char_length(bio) < 9)",
        "constraint bounded_bio on public.users",
    ),
    ("DROP INDEX idx_sessions_status", "index idx_sessions_status on public.sessions"),
    (
        "DROP INDEX idx_sessions_status; CREATE INDEX idx_sessions_status ON sessions (status DESC)",
        "index idx_sessions_status on public.sessions",
    ),
    (
        "ALTER TYPE attribute RENAME TO old; CREATE TYPE attribute AS ENUM ('might', 'grace', 'heart');
         ALTER TABLE dice_rolls DROP COLUMN attribute CASCADE; ALTER TABLE archived_dice_rolls DROP COLUMN attribute;
         DROP TYPE old CASCADE",
        "type public.attribute",
    ),
    ("DROP TYPE tutorial_path CASCADE", "type public.tutorial_path"),
    ("DROP FUNCTION private.roll_dice() CASCADE", "function private.roll_dice()"),
    ("ALTER FUNCTION private.is_seer(uuid) SECURITY INVOKER", "function private.is_seer(uuid)"),
    ("ALTER FUNCTION private.is_seer(uuid) SET search_path = public", "function private.is_seer(uuid)"),
    (
        "CREATE OR REPLACE FUNCTION private.is_seer(wanted uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "function private.is_seer(uuid)",
    ),
    (
        "DROP FUNCTION private.is_seer(uuid) CASCADE;
         CREATE FUNCTION private.is_seer(anything uuid) RETURNS text LANGUAGE sql AS 'SELECT anything::text'",
        "function private.is_seer(uuid)",
    ),
    ("DROP TRIGGER set_updated_at ON users", "trigger set_updated_at on public.users"),
    ("ALTER TABLE dice_rolls DISABLE TRIGGER roll_dice", "trigger roll_dice on public.dice_rolls"),
    ("ALTER TABLE dice_rolls ENABLE REPLICA TRIGGER roll_dice", "trigger roll_dice on public.dice_rolls"),
    ("DROP TRIGGER on_auth_user_created ON auth.users", "trigger on_auth_user_created on auth.users"),
    ("ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created", "trigger on_auth_user_created on auth.users"),
    (
        "CREATE OR REPLACE TRIGGER set_updated_at AFTER UPDATE ON users
         FOR EACH ROW EXECUTE FUNCTION private.touch_updated_at()",
        "trigger set_updated_at on public.users",
    ),
    (
        "DROP POLICY \"Users can update own profile\" ON users",
        "policy \"Users can update own profile\" on public.users",
    ),
    (
        "ALTER POLICY \"Users can update own profile\" ON users USING (true)",
        "policy \"Users can update own profile\" on public.users",
    ),
    (
        "ALTER POLICY \"Users can update own profile\" ON users TO anon",
        "policy \"Users can update own profile\" on public.users",
    ),
    ("ALTER TABLE characters DISABLE ROW LEVEL SECURITY", "row security on public.characters"),
    ("ALTER TABLE characters FORCE ROW LEVEL SECURITY", "row security on public.characters"),
    ("GRANT SELECT (email) ON users TO anon", "grant on table public.users to anon"),
    ("GRANT TRUNCATE ON sessions TO anon", "grant on table public.sessions to anon"),
    ("GRANT ALL ON sessions TO PUBLIC", "grant on table public.sessions to PUBLIC"),
    ("GRANT SELECT ON sessions TO anon WITH GRANT OPTION", "grant on table public.sessions to anon"),
    ("REVOKE SELECT ON adventures FROM anon", "grant on table public.adventures to anon"),
    ("GRANT ALL ON SEQUENCE session_events_seq_seq TO anon", "grant on sequence public.session_events_seq_seq to anon"),
    (
        "GRANT EXECUTE ON FUNCTION private.archive_sessions(integer) TO PUBLIC",
        "grant on function private.archive_sessions(integer) to PUBLIC",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION private.is_seer(uuid) FROM authenticated",
        "grant on function private.is_seer(uuid) to authenticated",
    ),
    ("GRANT CREATE ON SCHEMA private TO authenticated", "grant on schema private to authenticated"),
    ("REVOKE USAGE ON SCHEMA private FROM anon", "grant on schema private to anon"),
    ("GRANT SELECT ON sparc_migrations TO anon", "grant on table public.sparc_migrations to anon"),
    ("DROP VIEW private.published_adventures CASCADE", "view private.published_adventures"),
    ("ALTER VIEW private.published_adventures RESET (security_invoker)", "view private.published_adventures"),
    (
        "CREATE OR REPLACE VIEW private.published_adventures WITH (security_invoker = true) AS
         SELECT id, creator_id, name, description, thumbnail_url, difficulty, estimated_duration, min_players, max_players,
                status, published_at, is_valid, times_played, average_rating, created_at
         FROM adventures",
        "view private.published_adventures",
    ),
    ("DROP PUBLICATION supabase_realtime", "publication supabase_realtime"),
    ("ALTER PUBLICATION supabase_realtime SET (publish = 'insert')", "publication supabase_realtime"),
    ("DROP PUBLICATION supabase_realtime", "publication supabase_realtime of public.sessions"),
    (
        "DROP TABLE session_events CASCADE",
        "sequence public.session_events_seq_seq",
    ),
    ("DROP SCHEMA private CASCADE", "schema private"),
];

#[tokio::test]
async fn each_kind_of_line_is_named_when_it_breaks_and_repaired() {
    for (sql, object) in BROKEN {
        let (_database, owner, administrator) = migrated().await;
        // What an administrator makes is not the owner's, and what is the platform's only an administrator changes.
        let breaker = if sql.contains("auth.users") || sql.contains("OWNER TO") { &administrator } else { &owner };
        breaker
            .execute_unprepared(&format!("SET search_path = public; {sql}"))
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        let report = check(&owner).await.unwrap();
        let difference = report.differences.iter().find(|difference| difference.object == *object);
        assert!(difference.is_some(), "{sql}: {report:#?}");
        let steps = up(&owner).await;
        assert!(
            steps.iter().any(|step| matches!(step, Step::Created(it) | Step::Changed(it) if it == object)),
            "{sql}: {steps:#?}"
        );
        let left = check(&owner).await.unwrap();
        assert!(left.is_clean(), "{sql}: {left:#?}");
        let now = migration::manifest(&owner).await.unwrap();
        assert_eq!(now.lines().zip(MANIFEST.lines()).find(|(now, line)| now != line), None, "{sql}");
        assert_eq!(up(&owner).await, [], "{sql}");
    }
}

/// Jobs are tried where `pg_cron` is; a table of ours has every other kind.
#[test]
fn every_kind_of_line_is_broken_by_some_test() {
    let kind = |object: &str| {
        let words: Vec<&str> = object.split(' ').take(3).collect();
        match words[0] {
            "grant" => format!("grant on {}", words[2]),
            "publication" => format!("publication{}", if words.len() > 2 { " of" } else { "" }),
            "row" => "row security".to_owned(),
            other => other.to_owned(),
        }
    };
    let broken: BTreeSet<String> = BROKEN.iter().map(|(_, object)| kind(object)).collect();
    let carried: BTreeSet<String> =
        MANIFEST.lines().filter_map(migration::object).map(kind).filter(|kind| kind != "job").collect();
    assert_eq!(carried.difference(&broken).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test]
async fn everything_broken_at_once_is_repaired_at_once_by_the_sql_of_a_dry_run_too() {
    for by_hand in [false, true] {
        let (_database, owner, administrator) = migrated().await;
        let broken = "SET search_path = public;
            DROP POLICY \"Users can update own profile\" ON users;
            ALTER TABLE characters DISABLE ROW LEVEL SECURITY;
            DROP TABLE tutorial_progress CASCADE;
            DROP INDEX idx_sessions_status;
            DROP VIEW private.published_adventures CASCADE;
            ALTER TABLE dice_rolls DISABLE TRIGGER USER;
            GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated;
            GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA private TO PUBLIC;
            ALTER TABLE users DROP COLUMN bio CASCADE";
        administrator.execute_unprepared(broken).await.unwrap();
        let before = super::catalog(&owner).await;
        let sql = migration::dry_run(&(&owner).into_database_executor()).await.unwrap();
        assert_eq!(super::catalog(&owner).await, before, "a dry run changes nothing");
        if by_hand {
            owner.execute_unprepared(&sql).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        } else {
            up(&owner).await;
        }
        let report = check(&owner).await.unwrap();
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(migration::manifest(&owner).await.unwrap(), MANIFEST);
        assert_eq!(migration::dry_run(&(&owner).into_database_executor()).await.unwrap(), "");
    }
}

#[tokio::test]
async fn what_an_operator_made_is_a_hint_and_stays() {
    let (_database, owner, _administrator) = migrated().await;
    owner
        .execute_unprepared(
            "SET search_path = public;
             CREATE POLICY \"Support reads\" ON users FOR SELECT TO anon USING (false);
             CREATE INDEX support_bio ON users (bio);
             ALTER TABLE users ADD COLUMN support_note text;
             CREATE FUNCTION private.support() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE FUNCTION support() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER support BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION support();
             CREATE TABLE support (id int);
             GRANT SELECT ON support TO anon;
             DROP POLICY \"Users can update own profile\" ON users",
        )
        .await
        .unwrap();
    let report = check(&owner).await.unwrap();
    let named: Vec<&str> = report.differences.iter().map(|difference| difference.object.as_str()).collect();
    assert_eq!(named, ["policy \"Users can update own profile\" on public.users"]);
    for object in [
        "policy \"Support reads\" on public.users",
        "index support_bio on public.users",
        "column support_note of public.users",
        "trigger support on public.users",
        "function private.support()",
    ] {
        assert!(report.hints.iter().any(|hint| hint.starts_with(object)), "{object}: {report:#?}");
    }
    up(&owner).await;
    assert_eq!(check(&owner).await.unwrap().hints, report.hints, "all of it is still there");
    assert!(check(&owner).await.unwrap().is_clean());
}

#[tokio::test]
async fn membership_of_the_publication_is_the_operators_after_the_first_up() {
    let (_database, owner, _administrator) = migrated().await;
    owner
        .execute_unprepared(
            "ALTER PUBLICATION supabase_realtime DROP TABLE public.sessions;
             ALTER PUBLICATION supabase_realtime ADD TABLE public.users",
        )
        .await
        .unwrap();
    let report = check(&owner).await.unwrap();
    assert!(report.is_clean() && report.hints.iter().any(|hint| hint.contains("public.sessions")), "{report:#?}");
    assert_eq!(up(&owner).await, []);
    let members = "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'supabase_realtime' ORDER BY 1";
    assert_eq!(lines(&owner, members).await, ["dice_rolls", "session_events", "session_players", "users"]);
}

#[tokio::test]
async fn an_object_that_the_files_no_longer_have_is_dropped_if_we_made_it() {
    let (_database, owner, _administrator) = migrated().await;
    owner
        .execute_unprepared(
            "CREATE FUNCTION private.former() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE POLICY former ON public.users FOR SELECT TO anon USING (private.former() = 1);
             UPDATE private.sparc_record
             SET value = value || E'\\nfunction private.former()\\npolicy former on public.users'
             WHERE name = 'objects'",
        )
        .await
        .unwrap();
    assert_eq!(check(&owner).await.unwrap().differences.len(), 2);
    let steps = up(&owner).await;
    assert!(steps.contains(&Step::Dropped("function private.former()".into())), "{steps:?}");
    assert!(steps.contains(&Step::Dropped("policy former on public.users".into())), "{steps:?}");
    assert!(check(&owner).await.unwrap().is_clean());
    // Once dropped, it is forgotten: what somebody makes under that name is theirs.
    owner.execute_unprepared("CREATE FUNCTION private.former() RETURNS int LANGUAGE sql AS 'SELECT 2'").await.unwrap();
    assert_eq!(up(&owner).await, []);
}

#[tokio::test]
async fn rows_in_the_way_of_a_constraint_are_named_by_their_keys() {
    for (break_it, row, object) in [
        ("DROP CONSTRAINT bounded_bio", "bio = repeat('x', 3000)", "constraint bounded_bio on public.users"),
        ("DROP CONSTRAINT users_email_key", "email = 'same@x.org'", "constraint users_email_key on public.users"),
        ("ALTER COLUMN display_name DROP NOT NULL", "display_name = NULL", "column display_name of public.users"),
    ] {
        let (_database, owner, administrator) = migrated().await;
        let accounts = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        for (number, id) in accounts.iter().enumerate() {
            let insert = format!("INSERT INTO auth.users (id, email) VALUES ('{id}', 'a{number}@x.org')");
            owner.execute_unprepared(&insert).await.unwrap();
        }
        administrator
            .execute_unprepared(&format!(
                "SET session_replication_role = replica; ALTER TABLE public.users {break_it}; UPDATE public.users SET {row};
                 DROP POLICY \"Users can update own profile\" ON public.users"
            ))
            .await
            .unwrap();
        let before = super::catalog(&owner).await;
        let sentence =
            refusal(migration::run(&(&owner).into_database_executor(), Command::Up(None)).await.unwrap_err());
        assert!(sentence.contains(object), "{sentence}");
        assert!(accounts.iter().all(|id| sentence.contains(&id.to_string())), "{sentence}");
        assert!(!sentence.contains("x.org"), "keys alone: {sentence}");
        assert_eq!(super::catalog(&owner).await, before, "nothing was changed");
    }
}

#[tokio::test]
async fn what_cannot_be_repaired_is_named_and_nothing_changes() {
    let (_database, owner, _administrator) = migrated().await;
    owner
        .execute_unprepared(
            "ALTER TYPE attribute ADD VALUE 'luck'; DROP POLICY \"Users can update own profile\" ON users",
        )
        .await
        .unwrap();
    let before = super::catalog(&owner).await;
    let sentence = refusal(migration::run(&(&owner).into_database_executor(), Command::Up(None)).await.unwrap_err());
    assert!(sentence.contains("type public.attribute") && sentence.contains("luck"), "{sentence}");
    assert_eq!(super::catalog(&owner).await, before);
}

#[tokio::test]
async fn up_on_an_up_to_date_database_waits_for_nobody_and_holds_up_nobody() {
    let (_database, owner, administrator) = migrated().await;
    // A transaction that holds whatever a player could hold, and one that would wait for any lock on a table.
    let players = administrator.begin().await.unwrap();
    for table in lines(
        &owner,
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    )
    .await
    {
        players.execute_unprepared(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")).await.unwrap();
    }
    assert_eq!(up(&owner).await, []);
    players.rollback().await.unwrap();

    // What it holds until it ends: in a transaction of ours, that can be seen.
    let transaction = owner.begin().await.unwrap();
    Migrator::up(&transaction, None).await.unwrap();
    let held = "SELECT DISTINCT mode || ' on ' || coalesce(relation::regclass::text, locktype)
                FROM pg_locks
                WHERE pid = pg_backend_pid() AND mode NOT IN ('AccessShareLock') AND locktype NOT IN ('virtualxid', 'advisory')";
    let rows =
        transaction.query_all_raw(sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, held)).await.unwrap();
    let modes: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    assert_eq!(modes, Vec::<String>::new(), "nothing but what any reader holds");
}

#[tokio::test]
async fn a_lock_that_is_held_ends_the_waiting_with_nothing_changed() {
    let (_database, owner, administrator) = migrated().await;
    owner.execute_unprepared("DROP TRIGGER set_updated_at ON users").await.unwrap();
    let before = super::catalog(&owner).await;
    let player = administrator.begin().await.unwrap();
    player.execute_unprepared("LOCK TABLE public.users IN ROW EXCLUSIVE MODE").await.unwrap();
    let error = migration::run(&(&owner).into_database_executor(), Command::Up(None)).await.unwrap_err();
    let sentence = migration::user_message(&error);
    assert!(sentence.contains("lock") && sentence.contains("public.users"), "{sentence}");
    player.rollback().await.unwrap();
    assert_eq!(super::catalog(&owner).await, before);
    assert_eq!(up(&owner).await, [Step::Created("trigger set_updated_at on public.users".into())]);
}

#[tokio::test]
async fn a_role_that_reads_the_catalog_alone_can_check() {
    let (database, owner, administrator) = migrated().await;
    let role = format!("reader_{}", uuid::Uuid::new_v4().simple());
    administrator.execute_unprepared(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).await.unwrap();
    owner.execute_unprepared("DROP POLICY \"Users can update own profile\" ON users").await.unwrap();
    let reader = connect(&super::login(database.url(), &role, "x")).await.unwrap();
    let report = check(&reader).await.unwrap();
    assert_eq!(report.differences.len(), 1, "{report:#?}");
    let before = super::catalog(&owner).await;
    let sentence = refusal(Migrator::up(&reader, None).await.unwrap_err());
    assert!(sentence.contains(&role) && sentence.contains("sparc_migrations"), "{sentence}");
    assert_eq!(super::catalog(&owner).await, before);
    reader.close().await.unwrap();
    administrator.execute_unprepared(&format!("DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn a_table_that_another_role_owns_is_named_with_its_owner() {
    let (database, _owner, administrator) = migrated().await;
    let role = format!("other_{}", uuid::Uuid::new_v4().simple());
    administrator
        .execute_unprepared(&format!(
            "CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}; ALTER TABLE public.creatures OWNER TO {role}"
        ))
        .await
        .unwrap();
    let plain = format!("plain_{}", uuid::Uuid::new_v4().simple());
    administrator
        .execute_unprepared(&format!(
            "CREATE ROLE {plain} LOGIN PASSWORD 'x' BYPASSRLS; GRANT SELECT ON ALL TABLES IN SCHEMA public, private TO {plain};
             GRANT USAGE ON SCHEMA private TO {plain}"
        ))
        .await
        .unwrap();
    let db = connect(&super::login(database.url(), &plain, "x")).await.unwrap();
    let report = check(&db).await.unwrap();
    let table = report.differences.iter().find(|difference| difference.object == "table public.creatures").unwrap();
    assert!(table.found.as_deref().unwrap().contains("owned by another role"), "{report:#?}");
    db.close().await.unwrap();
    administrator
        .execute_unprepared(&format!("DROP OWNED BY {plain}; ALTER TABLE public.creatures OWNER TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}, {plain}"))
        .await
        .unwrap();
}
