//! A database that differs from the manifest: `check` names every difference, and `up` repairs all of them, or refuses
//! and changes nothing.

use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};
use sparc::migration::{
    self, Command, MANIFEST, SchemaChange, check, connect,
    sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait},
};
use testdb::Database;

use super::{Migrator, query_lines, refusal_message};
use crate::world::server;

/// Creates a migrated database, and connects to it as its owner and as a superuser.
pub async fn create_migrated_database() -> (Database, DatabaseConnection, DatabaseConnection) {
    let database = server().await.create_migrated().await.unwrap();
    let owner = connect(database.url()).await.unwrap();
    let superuser = connect(&database.superuser_url()).await.unwrap();
    (database, owner, superuser)
}

/// Runs `up` and returns its changes.
pub async fn up(db: &DatabaseConnection) -> Vec<SchemaChange> {
    migration::run(&db.into_database_executor(), Command::Up(None)).await.unwrap()
}

/// Runs `up`, which must be refused, and returns the message.
pub async fn up_refusal(db: &DatabaseConnection) -> String {
    refusal_message(migration::run(&db.into_database_executor(), Command::Up(None)).await.unwrap_err())
}

#[tokio::test]
async fn many_differences_are_repaired_by_one_up_or_by_the_sql_of_a_dry_run() {
    for applies_script in [false, true] {
        let (_database, owner, superuser) = create_migrated_database().await;
        let breaking_sql = "SET search_path = public;
            DROP POLICY \"Users can update own profile\" ON users;
            ALTER TABLE characters DISABLE ROW LEVEL SECURITY;
            DROP TABLE tutorial_progress CASCADE;
            DROP INDEX idx_sessions_status;
            DROP VIEW private.published_adventures CASCADE;
            ALTER TABLE dice_rolls DISABLE TRIGGER USER;
            GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated;
            GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA private TO PUBLIC;
            ALTER TABLE users DROP COLUMN bio CASCADE";
        superuser.execute_unprepared(breaking_sql).await.unwrap();
        let catalog_before = super::read_catalog(&owner).await;
        let script = migration::dry_run(&(&owner).into_database_executor()).await.unwrap();
        assert_eq!(super::read_catalog(&owner).await, catalog_before, "a dry run must change nothing");
        if applies_script {
            owner.execute_unprepared(&script).await.unwrap_or_else(|error| panic!("{error}\n{script}"));
        } else {
            up(&owner).await;
        }
        let report = check(&owner).await.unwrap();
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(migration::full_manifest_of(&owner).await.unwrap(), MANIFEST);
        assert_eq!(migration::dry_run(&(&owner).into_database_executor()).await.unwrap(), "");
    }
}

#[tokio::test]
async fn both_up_and_the_sql_of_a_dry_run_record_the_version_if_nothing_else_differs() {
    for applies_script in [false, true] {
        let (_database, owner, _superuser) = create_migrated_database().await;
        let select_version = "SELECT value FROM private.sparc_record WHERE name = 'version'";
        let version = query_lines(&owner, select_version).await;
        let record_older_version = "UPDATE private.sparc_record SET value = '0.1.0' WHERE name = 'version'";
        owner.execute_unprepared(record_older_version).await.unwrap();
        if applies_script {
            let script = migration::dry_run(&(&owner).into_database_executor()).await.unwrap();
            assert_eq!(query_lines(&owner, select_version).await, ["0.1.0"], "a dry run must change nothing");
            owner.execute_unprepared(&script).await.unwrap_or_else(|error| panic!("{error}\n{script}"));
        } else {
            assert_eq!(up(&owner).await, []);
        }
        assert_eq!(query_lines(&owner, select_version).await, version);
        assert_eq!(migration::dry_run(&(&owner).into_database_executor()).await.unwrap(), "");
    }
}

/// Before this `up`, everyone may create objects in `public`, row security does not apply to `authenticated`, and the
/// publication `supabase_realtime` sends only inserts.
#[tokio::test]
async fn the_first_up_corrects_a_schema_a_role_and_a_publication_that_existed_before() {
    let server = testdb::Server::start_plain(None).await.unwrap();
    let database = server.create_unmigrated().await.unwrap();
    let db = connect(&database.superuser_url()).await.unwrap();
    db.execute_unprepared(
        "CREATE ROLE authenticated NOLOGIN BYPASSRLS; GRANT CREATE ON SCHEMA public TO PUBLIC;
         SET client_min_messages = error; CREATE PUBLICATION supabase_realtime WITH (publish = 'insert')",
    )
    .await
    .unwrap();
    let changes = up(&db).await;
    let report = check(&db).await.unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert!(changes.contains(&SchemaChange::Changed("role authenticated".into())), "{changes:#?}");
}

#[tokio::test]
async fn an_operators_own_object_is_reported_as_a_hint_and_stays() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    // The table `support` and the function `support()` are attached to no object of ours and are not in schema
    // `private`, so `check` mentions neither them nor the grant. The last statement drops an object of ours, so that
    // `up` has something to repair.
    owner
        .execute_unprepared(
            "SET search_path = public;
             CREATE POLICY \"Support reads\" ON users FOR SELECT TO anon USING (false);
             CREATE INDEX support_bio ON users (bio);
             ALTER TABLE users ADD COLUMN support_note text;
             CREATE FUNCTION private.support() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE FUNCTION support() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER support BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION support();
             CREATE RULE support AS ON DELETE TO creatures WHERE OLD.armor > 100 DO INSTEAD NOTHING;
             ALTER TABLE users SET (fillfactor = 90);
             ALTER TABLE users ALTER bio SET STATISTICS 500;
             CREATE STATISTICS support (dependencies) ON seer_id, adventure_id FROM sessions;
             CREATE SEQUENCE private.support_seq;
             CREATE TRIGGER support INSTEAD OF INSERT ON profiles FOR EACH ROW EXECUTE FUNCTION support();
             CREATE RULE support AS ON DELETE TO profiles DO INSTEAD NOTHING;
             CREATE TABLE support_users (note text) INHERITS (users);
             CREATE TABLE support_parent (bio text);
             ALTER TABLE users INHERIT support_parent;
             CREATE TABLE support (id int);
             GRANT SELECT ON support TO anon;
             DROP POLICY \"Users can update own profile\" ON users",
        )
        .await
        .unwrap();
    let report = check(&owner).await.unwrap();
    let objects: Vec<&str> = report.differences.iter().map(|difference| difference.object.as_str()).collect();
    assert_eq!(objects, ["policy \"Users can update own profile\" on public.users"]);
    let hinted_objects = [
        "policy \"Support reads\" on public.users",
        "index support_bio on public.users",
        "column support_note of public.users",
        "trigger support on public.users",
        "function private.support()",
        "rule support on public.creatures",
        "setting fillfactor of public.users",
        "statistics of column bio of public.users",
        "statistics public.support on public.sessions",
        "sequence private.support_seq",
        "trigger support on public.profiles",
        "rule support on public.profiles",
        "child table public.support_users of public.users",
        "parent table public.support_parent of public.users",
    ];
    for object in hinted_objects {
        assert!(report.hints.iter().any(|hint| hint.starts_with(object)), "{object}: {report:#?}");
    }
    assert_eq!(report.hints.len(), hinted_objects.len(), "no other object must be mentioned: {report:#?}");
    up(&owner).await;
    assert_eq!(check(&owner).await.unwrap().hints, report.hints, "every object must still exist");
    assert!(check(&owner).await.unwrap().is_clean());
    let select_unmentioned = "SELECT concat_ws(' ', to_regprocedure('public.support()'),
                  has_table_privilege('anon', 'public.support', 'SELECT'))";
    assert_eq!(query_lines(&owner, select_unmentioned).await, ["support() t"], "these must still exist too");
}

#[tokio::test]
async fn an_operators_grants_on_a_recreated_view_or_function_stay() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    // `pg_monitor` stands for any role of the operator's.
    owner
        .execute_unprepared(
            "SET search_path = public;
             GRANT SELECT ON profiles TO pg_monitor;
             GRANT UPDATE (bio) ON profiles TO pg_monitor WITH GRANT OPTION;
             ALTER VIEW profiles SET (security_invoker = off);
             DROP FUNCTION get_session_details(uuid);
             CREATE FUNCTION get_session_details(uuid) RETURNS int LANGUAGE sql AS 'SELECT 1';
             GRANT EXECUTE ON FUNCTION get_session_details(uuid) TO pg_monitor",
        )
        .await
        .unwrap();
    up(&owner).await;
    assert!(check(&owner).await.unwrap().is_clean());
    let select_privileges = "SELECT concat_ws(' ',
                  has_table_privilege('pg_monitor', 'public.profiles', 'SELECT'),
                  has_column_privilege('pg_monitor', 'public.profiles', 'bio', 'UPDATE WITH GRANT OPTION'),
                  has_column_privilege('pg_monitor', 'public.profiles', 'id', 'UPDATE'),
                  has_function_privilege('pg_monitor', 'public.get_session_details(uuid)', 'EXECUTE'))";
    assert_eq!(query_lines(&owner, select_privileges).await, ["t t f t"]);
}

#[tokio::test]
async fn after_the_first_up_the_operator_chooses_the_tables_of_the_publication() {
    // The publication `supabase_realtime` lists the tables whose changes Supabase's Realtime sends to clients.
    let (_database, owner, _superuser) = create_migrated_database().await;
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
    let select_members =
        "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'supabase_realtime' ORDER BY 1";
    assert_eq!(query_lines(&owner, select_members).await, ["dice_rolls", "session_events", "session_players", "users"]);
}

#[tokio::test]
async fn an_object_that_we_created_but_no_longer_define_is_dropped() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    // `private.sparc_record` lists the objects that `up` has created.
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
    let changes = up(&owner).await;
    assert!(changes.contains(&SchemaChange::Dropped("function private.former()".into())), "{changes:?}");
    assert!(changes.contains(&SchemaChange::Dropped("policy former on public.users".into())), "{changes:?}");
    assert!(check(&owner).await.unwrap().is_clean());
    // Once dropped, the function is no longer in `private.sparc_record`, so a new one of that name belongs to the
    // operator.
    owner.execute_unprepared("CREATE FUNCTION private.former() RETURNS int LANGUAGE sql AS 'SELECT 2'").await.unwrap();
    assert_eq!(up(&owner).await, []);
}

#[tokio::test]
async fn rows_that_violate_a_missing_constraint_are_named_by_their_keys() {
    for (alteration, assignment, object) in [
        ("DROP CONSTRAINT bounded_bio", "bio = repeat('x', 3000)", "constraint bounded_bio on public.users"),
        ("DROP CONSTRAINT users_email_key", "email = 'same@x.org'", "constraint users_email_key on public.users"),
        (
            "ALTER COLUMN display_name DROP NOT NULL",
            "display_name = NULL",
            "NOT NULL of column display_name of public.users",
        ),
    ] {
        let (_database, owner, superuser) = create_migrated_database().await;
        let account_ids = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        for (number, id) in account_ids.iter().enumerate() {
            let insert = format!("INSERT INTO auth.users (id, email) VALUES ('{id}', 'a{number}@x.org')");
            owner.execute_unprepared(&insert).await.unwrap();
        }
        superuser
            .execute_unprepared(&format!(
                "SET session_replication_role = replica; ALTER TABLE public.users {alteration}; UPDATE public.users SET {assignment};
                 DROP POLICY \"Users can update own profile\" ON public.users"
            ))
            .await
            .unwrap();
        let catalog_before = super::read_catalog(&owner).await;
        let message = up_refusal(&owner).await;
        assert!(message.starts_with(&format!("{object} cannot be restored, because rows of ")), "{message}");
        assert!(account_ids.iter().all(|id| message.contains(&id.to_string())), "{message}");
        assert!(!message.contains("x.org"), "must contain only keys: {message}");
        assert_eq!(super::read_catalog(&owner).await, catalog_before, "a refused up must change nothing");
    }
}

#[tokio::test]
async fn a_difference_that_cannot_be_repaired_is_named_and_nothing_changes() {
    let (_database, owner, _superuser) = create_migrated_database().await;
    owner
        .execute_unprepared(
            // PostgreSQL cannot remove a value of an enum. `up` could repair the policy, but must not repair one
            // difference and leave the other.
            "ALTER TYPE attribute ADD VALUE 'luck'; DROP POLICY \"Users can update own profile\" ON users",
        )
        .await
        .unwrap();
    let catalog_before = super::read_catalog(&owner).await;
    let message = up_refusal(&owner).await;
    assert!(message.contains("type public.attribute") && message.contains("luck"), "{message}");
    assert_eq!(super::read_catalog(&owner).await, catalog_before);
}

#[tokio::test]
async fn up_without_differences_neither_waits_for_locks_nor_blocks_others() {
    let (_database, owner, superuser) = create_migrated_database().await;
    // This transaction lets others only read the tables, so `up` would wait if it locked any table for writing.
    let locking_transaction = superuser.begin().await.unwrap();
    for table in query_lines(
        &owner,
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    )
    .await
    {
        locking_transaction
            .execute_unprepared(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
            .await
            .unwrap();
    }
    assert_eq!(up(&owner).await, []);
    locking_transaction.rollback().await.unwrap();

    // Here `up` runs in a transaction of the test, so that its locks can be listed before they are released. The
    // advisory lock of `up` keeps out only other migrations.
    let transaction = owner.begin().await.unwrap();
    Migrator::up(&transaction, None).await.unwrap();
    let select_locks = "SELECT DISTINCT mode || ' on ' || coalesce(relation::regclass::text, locktype)
                FROM pg_locks
                WHERE pid = pg_backend_pid() AND mode NOT IN ('AccessShareLock') AND locktype NOT IN ('virtualxid', 'advisory')";
    let rows = transaction
        .query_all_raw(sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, select_locks))
        .await
        .unwrap();
    let locks: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    assert_eq!(locks, Vec::<String>::new(), "only the locks of a reader are allowed");
}

#[tokio::test]
async fn up_gives_up_waiting_for_a_lock_and_changes_nothing() {
    let (_database, owner, superuser) = create_migrated_database().await;
    owner.execute_unprepared("DROP TRIGGER set_updated_at ON users").await.unwrap();
    let catalog_before = super::read_catalog(&owner).await;
    let locking_transaction = superuser.begin().await.unwrap();
    locking_transaction.execute_unprepared("LOCK TABLE public.users IN ROW EXCLUSIVE MODE").await.unwrap();
    let error = migration::run(&(&owner).into_database_executor(), Command::Up(None)).await.unwrap_err();
    let message = migration::operator_message(&error);
    assert!(message.contains("lock") && message.contains("public.users"), "{message}");
    locking_transaction.rollback().await.unwrap();
    assert_eq!(super::read_catalog(&owner).await, catalog_before);
    assert_eq!(up(&owner).await, [SchemaChange::Created("trigger set_updated_at on public.users".into())]);
}

#[tokio::test]
async fn a_role_that_can_only_read_the_catalog_can_run_check_but_not_up() {
    let (database, owner, superuser) = create_migrated_database().await;
    let role = format!("reader_{}", uuid::Uuid::new_v4().simple());
    superuser.execute_unprepared(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).await.unwrap();
    owner.execute_unprepared("DROP POLICY \"Users can update own profile\" ON users").await.unwrap();
    let reader = connect(&super::url_with_login(database.url(), &role, "x")).await.unwrap();
    let report = check(&reader).await.unwrap();
    assert_eq!(report.differences.len(), 1, "{report:#?}");
    let catalog_before = super::read_catalog(&owner).await;
    let message = refusal_message(Migrator::up(&reader, None).await.unwrap_err());
    assert!(message.contains(&role) && message.contains("sparc_migrations"), "{message}");
    assert_eq!(super::read_catalog(&owner).await, catalog_before);
    reader.close().await.unwrap();
    superuser.execute_unprepared(&format!("DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn a_table_that_another_role_owns_is_reported() {
    let (database, _owner, superuser) = create_migrated_database().await;
    let other_owner = format!("other_{}", uuid::Uuid::new_v4().simple());
    superuser
        .execute_unprepared(&format!(
            "CREATE ROLE {other_owner}; GRANT CREATE ON SCHEMA public TO {other_owner};
             ALTER TABLE public.creatures OWNER TO {other_owner}"
        ))
        .await
        .unwrap();
    // *Another role* is one that does not own our other objects. Whether a table is reported must not depend on who
    // runs `check`, so here a role that owns nothing runs it.
    let reader_role = format!("reader_{}", uuid::Uuid::new_v4().simple());
    superuser
        .execute_unprepared(&format!(
            "CREATE ROLE {reader_role} LOGIN PASSWORD 'x' BYPASSRLS;
             GRANT SELECT ON ALL TABLES IN SCHEMA public, private TO {reader_role};
             GRANT USAGE ON SCHEMA private TO {reader_role}"
        ))
        .await
        .unwrap();
    let reader = connect(&super::url_with_login(database.url(), &reader_role, "x")).await.unwrap();
    let report = check(&reader).await.unwrap();
    let difference =
        report.differences.iter().find(|difference| difference.object == "table public.creatures").unwrap();
    assert!(difference.found.as_deref().unwrap().contains("owned by another role"), "{report:#?}");
    reader.close().await.unwrap();
    superuser
        .execute_unprepared(&format!(
            "DROP OWNED BY {reader_role}; ALTER TABLE public.creatures OWNER TO CURRENT_USER;
             DROP OWNED BY {other_owner};
             DROP ROLE {other_owner}, {reader_role}"
        ))
        .await
        .unwrap();
}
