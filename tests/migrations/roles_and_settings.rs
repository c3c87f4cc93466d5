//! The API's roles, and settings that disable triggers. Roles belong to the cluster, and most of these settings are
//! made for a role or for the whole cluster. So these tests have servers of their own.

use sea_orm::{ConnectionTrait, DatabaseConnection};
use sparc::migration::{
    self, Difference, SchemaChange, check, connect,
    sea_orm_migration::{IntoSchemaManagerConnection, MigratorTrait},
};
use testdb::{Database, Server};

use super::{
    Migrator,
    drift::{up, up_refusal},
    query_lines, read_catalog, refusal_message,
    scripts::run_program,
};

/// Creates a migrated database on a plain PostgreSQL server of its own, and connects to it as the superuser, who owns
/// the database.
async fn create_migrated_database_on_own_server() -> (Server, Database, DatabaseConnection) {
    let server = Server::start_plain(None).await.unwrap();
    let database = server.create_unmigrated().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    (server, database, db)
}

#[tokio::test]
async fn an_api_role_that_was_changed_is_named_and_repaired() {
    let (_server, _database, db) = create_migrated_database_on_own_server().await;
    for (sql, object) in [
        ("ALTER ROLE anon BYPASSRLS", "role anon"),
        ("ALTER ROLE authenticated SUPERUSER", "role authenticated"),
        ("GRANT service_role TO authenticated", "role authenticated"),
        ("CREATE ROLE support BYPASSRLS; GRANT support TO anon", "role anon"),
        ("GRANT postgres TO anon", "role anon"),
        ("ALTER ROLE service_role NOBYPASSRLS", "role service_role"),
    ] {
        db.execute_unprepared(sql).await.unwrap();
        let report = check(&db).await.unwrap();
        // There may be more differences: privileges that come with the membership.
        assert!(report.differences.iter().any(|difference| difference.object == object), "{sql}: {report:#?}");
        let changes = up(&db).await;
        assert!(changes.contains(&SchemaChange::Changed(object.to_owned())), "{sql}: {changes:?}");
        assert!(check(&db).await.unwrap().is_clean(), "{sql}");
    }
}

#[tokio::test]
async fn a_setting_that_disables_triggers_is_named_and_reset() {
    let (_server, database, db) = create_migrated_database_on_own_server().await;
    let database_name = query_lines(&db, "SELECT quote_ident(current_database())").await.concat();
    db.execute_unprepared("CREATE ROLE users_login LOGIN; GRANT anon TO users_login; CREATE ROLE \"Other\"")
        .await
        .unwrap();
    for target in [
        format!("DATABASE {database_name}"),
        "ROLE ALL".to_owned(),
        format!("ROLE postgres IN DATABASE {database_name}"),
        "ROLE authenticated".to_owned(),
        "ROLE users_login".to_owned(),
    ] {
        db.execute_unprepared(&format!("ALTER {target} SET session_replication_role = 'Replica'")).await.unwrap();
        // A connection that is already open does not get the setting.
        let new_connection = connect(database.url()).await.unwrap();
        let report = check(&new_connection).await.unwrap();
        let objects: Vec<&str> = report.differences.iter().map(|difference| difference.object.as_str()).collect();
        assert_eq!(objects, ["session_replication_role"], "{target}");
        let script = migration::dry_run(&(&new_connection).into_database_executor()).await.unwrap();
        assert!(
            script.contains("SET LOCAL session_replication_role = origin")
                && script.contains("RESET session_replication_role"),
            "{script}"
        );
        let changes = up(&new_connection).await;
        assert_eq!(changes, [SchemaChange::Changed("session_replication_role".to_owned())], "{target}");
        assert!(check(&connect(database.url()).await.unwrap()).await.unwrap().is_clean(), "{target}");
    }
    // The role `Other` has nothing to do with the schema, so its setting is no difference.
    db.execute_unprepared("ALTER ROLE \"Other\" SET session_replication_role = replica").await.unwrap();
    assert!(check(&db).await.unwrap().is_clean());
}

/// Adds to a URL an option that sets the setting for the connection.
fn with_setting(url: &str, setting: &str, value: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-c{setting}%3D{value}")
}

#[tokio::test]
async fn connection_options_that_disable_triggers_are_reported_by_check_and_overridden_by_up_and_the_install_script() {
    let (server, database, db) = create_migrated_database_on_own_server().await;
    let unmigrated_database = server.create_unmigrated().await.unwrap();
    let with_option = |url: &str| with_setting(url, "session_replication_role", "replica");
    let connection = connect(&with_option(database.url())).await.unwrap();
    assert!(!check(&connection).await.unwrap().is_clean());
    // For its own transaction, `up` enables the triggers.
    Migrator::up(&connection, None).await.unwrap();
    assert!(check(&db).await.unwrap().is_clean());

    // The install script enables the triggers for its own transaction, too. It would succeed without them, because it
    // inserts no rows of the game. So the test checks the setting itself, before the script commits.
    let assert_enabled = "DO $$ BEGIN ASSERT current_setting('session_replication_role') = 'origin'; END $$";
    let script = migration::install_script();
    let script = format!("{}{assert_enabled};\nCOMMIT;\n", script.strip_suffix("COMMIT;\n").unwrap());
    let url = with_option(unmigrated_database.url());
    let Some(outcome) = run_program("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", &url], &script) else {
        return;
    };
    outcome.unwrap();
    assert!(check(&connect(unmigrated_database.url()).await.unwrap()).await.unwrap().is_clean());
}

/// The configuration of this server disables triggers. Only the connection that migrates has an option that enables
/// them.
#[tokio::test]
async fn up_refuses_if_the_configuration_of_the_server_disables_triggers() {
    let server = Server::start_plain(Some(&["session_replication_role=replica"])).await.unwrap();
    let database = server.create_unmigrated().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    let assert_up_and_dry_run_refuse = async || {
        let error = migration::dry_run(&(&db).into_database_executor()).await.unwrap_err();
        for message in [up_refusal(&db).await, refusal_message(error)] {
            assert!(message.contains("(command line)") && message.contains("ALTER SYSTEM RESET"), "{message}");
        }
    };
    assert_up_and_dry_run_refuse().await;
    let enabling_connection =
        connect(&with_setting(database.url(), "session_replication_role", "origin")).await.unwrap();
    Migrator::up(&enabling_connection, None).await.unwrap();
    let report = check(&db).await.unwrap();
    let objects: Vec<&str> = report.differences.iter().map(|difference| difference.object.as_str()).collect();
    assert_eq!(objects, ["session_replication_role"]);
    assert_up_and_dry_run_refuse().await;
    Migrator::reset(&db).await.unwrap();
}

#[tokio::test]
async fn up_revokes_what_the_manifest_does_not_grant_to_api_roles_but_keeps_harmless_memberships() {
    let (_server, _database, db) = create_migrated_database_on_own_server().await;
    let database_name = query_lines(&db, "SELECT quote_ident(current_database())").await.concat();
    db.execute_unprepared("CREATE ROLE harmless; GRANT harmless TO anon, authenticated, service_role").await.unwrap();
    assert!(check(&db).await.unwrap().is_clean());
    for (sql, object) in [
        ("GRANT pg_read_all_data TO anon", "role anon"),
        ("GRANT pg_write_all_data, pg_execute_server_program TO service_role", "role service_role"),
        ("GRANT anon TO authenticated", "role authenticated"),
        ("CREATE ROLE reader; GRANT SELECT ON public.users TO reader; GRANT reader TO anon", "role anon"),
        ("CREATE ROLE caller; GRANT EXECUTE ON FUNCTION private.is_seer TO caller; GRANT caller TO anon", "role anon"),
        (
            "CREATE ROLE \"Group 1\"; GRANT reader TO \"Group 1\"; GRANT \"Group 1\" TO authenticated",
            "role authenticated",
        ),
        ("CREATE ROLE named; CREATE POLICY named ON public.users TO named; GRANT named TO anon", "role anon"),
        ("ALTER ROLE authenticated CREATEROLE", "role authenticated"),
        ("ALTER ROLE authenticated CREATEDB REPLICATION", "role authenticated"),
        ("ALTER ROLE anon LOGIN", "role anon"),
        ("ALTER ROLE service_role LOGIN SUPERUSER NOBYPASSRLS", "role service_role"),
        ("GRANT CREATE ON DATABASE {database} TO anon", "role anon"),
        ("GRANT CREATE ON DATABASE {database} TO PUBLIC", "role service_role"),
        ("CREATE ROLE maker; GRANT CREATE ON DATABASE {database} TO maker; GRANT maker TO anon", "role anon"),
        ("GRANT SET ON PARAMETER session_replication_role TO authenticated", "role authenticated"),
        ("GRANT CREATE ON SCHEMA extensions TO anon", "role anon"),
        ("GRANT ALL ON SCHEMA extensions TO PUBLIC", "role authenticated"),
    ] {
        let sql = sql.replace("{database}", &database_name);
        db.execute_unprepared(&sql).await.unwrap();
        let report = check(&db).await.unwrap();
        assert!(report.differences.iter().any(|difference| difference.object == object), "{sql}: {report:#?}");
        let changes = up(&db).await;
        assert!(changes.contains(&SchemaChange::Changed(object.to_owned())), "{sql}: {changes:?}");
        let report = check(&db).await.unwrap();
        assert!(report.is_clean(), "{sql}: {report:#?}");
    }
    let count_memberships = "SELECT count(*)::text FROM pg_auth_members WHERE roleid = 'harmless'::regrole";
    assert_eq!(query_lines(&db, count_memberships).await, ["3"]);
}

#[tokio::test]
async fn an_api_role_that_owns_the_database_or_an_object_is_named_and_up_refuses() {
    let (server, _database, _db) = create_migrated_database_on_own_server().await;
    for (sql, object, phrase) in [
        (GIVE_OBJECTS_TO_ANON, "role anon", "owns the objects of the schema"),
        ("ALTER SCHEMA extensions OWNER TO authenticated", "role authenticated", "owns schema extensions"),
        ("ALTER SCHEMA public OWNER TO anon", "role anon", "owns schema public"),
        ("ALTER DATABASE {database} OWNER TO service_role", "role service_role", "owns the database"),
        (
            "ALTER PUBLICATION supabase_realtime OWNER TO service_role",
            "role service_role",
            "owns publication supabase_realtime",
        ),
    ] {
        let database = server.create_migrated().await.unwrap();
        let db = connect(&database.superuser_url()).await.unwrap();
        let database_name = query_lines(&db, "SELECT quote_ident(current_database())").await.concat();
        let sql = sql.replace("{database}", &database_name);
        db.execute_unprepared(&sql).await.unwrap();
        let catalog_before = read_catalog(&db).await;
        let report = check(&db).await.unwrap();
        let names_object = |difference: &Difference| {
            difference.object == object && difference.found.as_ref().is_some_and(|found| found.contains(phrase))
        };
        assert!(report.differences.iter().any(names_object), "{sql}: {report:#?}");
        let message = up_refusal(&db).await;
        assert!(message.contains(object) && message.contains(phrase), "{message}");
        assert_eq!(read_catalog(&db).await, catalog_before);
    }
}

/// Makes `anon` the owner of all tables, views and functions in `public` and `private`.
const GIVE_OBJECTS_TO_ANON: &str = "DO $$
     DECLARE
       target text;
     BEGIN
       FOR target IN
         SELECT format('TABLE %s', oid::regclass)
         FROM pg_class
         WHERE relnamespace IN ('public'::regnamespace, 'private'::regnamespace) AND relkind IN ('r', 'v')
         UNION ALL
         SELECT format('ROUTINE %s', oid::regprocedure)
         FROM pg_proc
         WHERE pronamespace IN ('public'::regnamespace, 'private'::regnamespace)
       LOOP
         EXECUTE format('ALTER %s OWNER TO anon', target);
       END LOOP;
     END
     $$";

#[tokio::test]
async fn an_api_role_may_not_install_the_schema() {
    let server = Server::start_plain(None).await.unwrap();
    let database = server.create_unmigrated().await.unwrap();
    connect(database.url()).await.unwrap().execute_unprepared("CREATE ROLE service_role SUPERUSER").await.unwrap();
    let db = connect(&with_setting(database.url(), "role", "service_role")).await.unwrap();
    let message = refusal_message(Migrator::up(&db, None).await.unwrap_err());
    assert!(message.contains("\"service_role\""), "{message}");
}
