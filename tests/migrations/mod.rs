//! The migrations, called through the library (not through the command-line program): up and down, by one migrator and
//! by several at once, on plain PostgreSQL and on a Supabase-like project.
//!
//! *Our* objects are those of the schema. The *manifest* (`migration/manifest.txt`) lists all of them, with their
//! definitions. *An operator's* objects are what those who run the database have added. *The platform* is Supabase, and
//! *the API's roles* are `anon`, `authenticated` and `service_role`.

mod accounts;
mod added_objects;
mod breakages;
mod connecting;
mod conversions;
mod dependents;
mod drift;
mod lookalikes;
mod manifest_kinds;
mod migration_list;
mod name_collisions;
mod pg_cron;
mod poolers;
mod record;
mod renamed;
mod roles_and_settings;
mod scripts;
mod settings;
mod tls;
mod waiting;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait};
use sparc::{
    migration::{self, MANIFEST, Migrator, check, connect, sea_orm_migration::MigratorTrait},
    service::{Operations, Sparc, characters::NewCharacter},
};
use testdb::{Database, Server};

use crate::{
    faults::{env_number, network::Proxy},
    world::{run_together, server},
};

/// Creates a database without the schema, and connects to it.
pub async fn create_unmigrated_database() -> (Database, DatabaseConnection) {
    let database = server().await.create_unmigrated().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    (database, db)
}

/// Does the same as [`create_unmigrated_database`], but always on plain PostgreSQL, even if the other tests run on a
/// Supabase-like project.
async fn create_unmigrated_database_without_platform() -> (Database, DatabaseConnection) {
    static SERVER: tokio::sync::OnceCell<Server> = tokio::sync::OnceCell::const_new();
    let server = SERVER.get_or_init(|| async { Server::start_plain(None).await.unwrap() }).await;
    let database = server.create_unmigrated().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    (database, db)
}

/// Runs a query of one text column and returns its values.
pub async fn query_lines(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    db.query_all_raw(Statement::from_string(DbBackend::Postgres, sql))
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.try_get_by_index(0).unwrap())
        .collect()
}

/// Returns a description of the objects in a database, one text per object or column. `catalog.sql` says which kinds of
/// objects and which of their attributes it includes.
pub async fn read_catalog(db: &DatabaseConnection) -> Vec<String> {
    query_lines(db, include_str!("../catalog.sql")).await
}

/// Returns the message of a refusal by the migrator. Panics if the error is of another kind, or if the message is not
/// one line that ends with a period.
pub fn refusal_message(error: DbErr) -> String {
    let DbErr::Migration(message) = error else { panic!("not a refusal: {error}") };
    assert!(message.ends_with('.') && !message.contains('\n'), "must be one line that ends with a period: {message}");
    message
}

#[tokio::test]
async fn reset_leaves_nothing_and_up_refresh_and_fresh_create_exactly_the_same_schema_again() {
    let (_database, db) = create_unmigrated_database().await;
    let catalog_before = read_catalog(&db).await;
    Migrator::up(&db, None).await.unwrap();
    let migrated_catalog = read_catalog(&db).await;
    assert!(
        migrated_catalog.len() > catalog_before.len() + 300,
        "the migrated catalog must have more than 300 additional lines"
    );
    Migrator::reset(&db).await.unwrap();
    assert_eq!(read_catalog(&db).await, catalog_before);
    Migrator::up(&db, None).await.unwrap();
    assert_eq!(read_catalog(&db).await, migrated_catalog);
    Migrator::refresh(&db).await.unwrap();
    assert_eq!(read_catalog(&db).await, migrated_catalog);
    Migrator::fresh(&db).await.unwrap();
    assert_eq!(read_catalog(&db).await, migrated_catalog);
}

#[tokio::test]
async fn each_step_down_undoes_its_step_up() {
    let (_database, db) = create_unmigrated_database().await;
    // `down` keeps the list of applied migrations (the table `sparc_migrations`), which the first `up` creates.
    let without_list = |mut catalog: Vec<String>| {
        catalog.retain(|line| !line.contains("sparc_migrations"));
        catalog
    };
    let mut catalogs = vec![without_list(read_catalog(&db).await)];
    for _ in Migrator::migrations() {
        Migrator::up(&db, Some(1)).await.unwrap();
        catalogs.push(without_list(read_catalog(&db).await));
    }
    // The last catalog is the current one; each step down must restore the one before.
    catalogs.pop();
    while let Some(expected_catalog) = catalogs.pop() {
        Migrator::down(&db, Some(1)).await.unwrap();
        assert_eq!(without_list(read_catalog(&db).await), expected_catalog, "step {}", catalogs.len() + 1);
    }
}

#[tokio::test]
async fn every_table_in_schema_public_has_row_security_after_each_step_up() {
    let (_database, db) = create_unmigrated_database().await;
    let select_tables_without_row_security = "SELECT relname::text
                FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT relrowsecurity";
    for _ in Migrator::migrations() {
        Migrator::up(&db, Some(1)).await.unwrap();
        assert_eq!(query_lines(&db, select_tables_without_row_security).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn eight_concurrent_ups_all_succeed() {
    let (database, db) = create_unmigrated_database().await;
    let tasks = (0..8)
        .map(|_| {
            let url = database.url().to_owned();
            async move { Migrator::up(&connect(&url).await.unwrap(), None).await.map_err(|error| error.to_string()) }
        })
        .collect();
    let outcomes = run_together(tasks).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(
        query_lines(&db, "SELECT version::text FROM sparc_migrations").await.len(),
        Migrator::migrations().len()
    );
}

/// Each round uses a new database. The first round cuts the connection after 4 chunks of data from the server (there is
/// about one chunk per response), and each further round after 16 more than the round before. In the last round, `up`
/// ends before the cut.
///
/// To try a cut after each chunk from the fourth on, set the step to 1 instead of 16:
/// `SPARC_UP_CUT_STEP=1 cargo test --test integration after_its_connection_was_cut`.
#[tokio::test]
async fn rerunning_up_after_its_connection_was_cut_creates_the_same_schema() {
    let migrated_database = server().await.create_migrated().await.unwrap();
    let migrated_catalog = read_catalog(&connect(migrated_database.url()).await.unwrap()).await;
    let chunk_limit_step = env_number("SPARC_UP_CUT_STEP", 16);
    let mut chunk_limit = 4;
    let mut cuts = 0;
    loop {
        let (database, db) = create_unmigrated_database().await;
        let proxy = Proxy::start_for_url(database.url()).await;
        proxy.cut_after(chunk_limit);
        let ended_before_cut = match connect(&proxy.url).await {
            Ok(proxied_db) => Migrator::up(&proxied_db, None).await.is_ok(),
            Err(_) => false,
        };
        Migrator::up(&db, None).await.unwrap();
        assert_eq!(read_catalog(&db).await, migrated_catalog, "cut after {chunk_limit} chunks");
        if ended_before_cut {
            break;
        }
        cuts += 1;
        chunk_limit += chunk_limit_step;
    }
    println!("cut {cuts} times; not cut with a limit of {chunk_limit} chunks");
    assert!(cuts > 3, "too few rounds cut the connection");
}

#[tokio::test]
async fn a_migration_in_the_callers_transaction_is_rolled_back_with_it() {
    let (_database, db) = create_unmigrated_database().await;
    let catalog_before = read_catalog(&db).await;
    let transaction = db.begin().await.unwrap();
    Migrator::up(&transaction, None).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(read_catalog(&db).await, catalog_before);
}

#[tokio::test]
async fn up_down_and_reset_refuse_if_the_list_of_applied_migrations_has_an_unknown_migration() {
    let (_database, db) = create_unmigrated_database().await;
    Migrator::up(&db, None).await.unwrap();
    db.execute_unprepared("INSERT INTO sparc_migrations VALUES ('m29991231_000001_future', 1)").await.unwrap();
    let catalog_before = read_catalog(&db).await;
    for attempt in [Migrator::up(&db, None).await, Migrator::down(&db, None).await, Migrator::reset(&db).await] {
        assert!(refusal_message(attempt.unwrap_err()).contains("m29991231_000001_future"));
    }
    assert_eq!(read_catalog(&db).await, catalog_before);
}

#[tokio::test]
async fn up_names_the_privileges_that_the_role_lacks() {
    let (database, db) = create_unmigrated_database().await;
    let role = format!("unprivileged_{}", uuid::Uuid::new_v4().simple());
    db.execute_unprepared(&format!("CREATE ROLE {role} LOGIN PASSWORD 'x'")).await.unwrap();
    let unprivileged = connect(&url_with_login(database.url(), &role, "x")).await.unwrap();
    let catalog_before = read_catalog(&db).await;
    let message = refusal_message(Migrator::up(&unprivileged, None).await.unwrap_err());
    assert!(message.contains("CREATE on database") && message.contains("CREATE on schema public"), "{message}");
    assert_eq!(read_catalog(&db).await, catalog_before);
    unprivileged.close().await.unwrap();
    db.execute_unprepared(&format!("DROP ROLE {role}")).await.unwrap();
}

/// The role `owner` has the privileges that, according to `docs/operations.md`, suffice for the first `up` on
/// PostgreSQL 16 and newer. On PostgreSQL 15 the role is a superuser, because no lesser role suffices.
#[tokio::test]
async fn an_owner_who_created_the_apis_roles_can_assume_them() {
    let server = Server::start_plain(None).await.unwrap();
    let database = server.create_unmigrated().await.unwrap();
    let superuser = connect(database.url()).await.unwrap();
    let version = query_lines(&superuser, "SELECT current_setting('server_version_num')").await;
    let attributes = if version[0].as_str() < "160000" { "SUPERUSER" } else { "CREATEROLE BYPASSRLS" };
    let database_name = query_lines(&superuser, "SELECT current_database()::text").await.remove(0);
    let grant_sql =
        format!("GRANT CREATE ON DATABASE \"{database_name}\" TO owner; GRANT CREATE ON SCHEMA public TO owner");
    superuser
        .execute_unprepared(&format!("CREATE ROLE owner LOGIN PASSWORD 'x' {attributes}; {grant_sql}"))
        .await
        .unwrap();
    // `anon` and the other two roles do not exist yet, so `up` creates them.
    let select_anon_role = "SELECT rolname::text FROM pg_roles WHERE rolname = 'anon'";
    assert_eq!(query_lines(&superuser, select_anon_role).await, Vec::<String>::new());
    let owner = connect(&url_with_login(database.url(), "owner", "x")).await.unwrap();
    Migrator::up(&owner, None).await.unwrap();
    for role in ["anon", "authenticated", "service_role"] {
        let transaction = owner.begin().await.unwrap();
        transaction.execute_unprepared(&format!("SET LOCAL ROLE {role}")).await.unwrap();
        transaction.rollback().await.unwrap();
    }
    assert!(check(&owner).await.unwrap().differences.is_empty());
}

#[tokio::test]
async fn a_schema_named_auth_that_is_not_the_platforms_is_refused() {
    let (_database, db) = create_unmigrated_database_without_platform().await;
    db.execute_unprepared("CREATE SCHEMA auth").await.unwrap();
    assert!(refusal_message(Migrator::up(&db, None).await.unwrap_err()).contains("table auth.users"));
}

/// Returns a server, shared by all tests, whose databases are Supabase-like projects.
pub async fn platform_server() -> &'static Server {
    static SERVER: tokio::sync::OnceCell<Server> = tokio::sync::OnceCell::const_new();
    SERVER.get_or_init(|| async { Server::start_supabase(None).await.unwrap() }).await
}

/// Creates a Supabase-like project without the schema. Connects to it twice: as its owner, who is not a superuser, and
/// as its superuser.
pub async fn create_platform_database() -> (Database, DatabaseConnection, DatabaseConnection) {
    let database = platform_server().await.create_unmigrated().await.unwrap();
    let superuser = connect(&database.superuser_url()).await.unwrap();
    let owner = connect(database.url()).await.unwrap();
    (database, owner, superuser)
}

/// Returns the URL with the given role and password in place of its own.
pub fn url_with_login(url: &str, role: &str, password: &str) -> String {
    let (_, rest) = url.split_once('@').unwrap();
    format!("postgres://{role}:{password}@{rest}")
}

#[tokio::test]
async fn the_owner_of_a_supabase_project_migrates_it_and_reset_removes_only_our_objects() {
    let (_database, owner, superuser) = create_platform_database().await;
    let catalog_before = read_catalog(&superuser).await;
    Migrator::up(&owner, None).await.unwrap();
    let migrated_catalog = read_catalog(&superuser).await;
    Migrator::reset(&owner).await.unwrap();
    assert_eq!(read_catalog(&superuser).await, catalog_before, "the platform's own objects must be unchanged");
    Migrator::up(&owner, None).await.unwrap();
    assert_eq!(read_catalog(&superuser).await, migrated_catalog);
}

#[tokio::test]
async fn the_owner_of_a_supabase_project_can_check_and_repair() {
    for (sql, object) in [
        (
            "DROP POLICY \"Participants follow their sessions\" ON realtime.messages",
            "policy \"Participants follow their sessions\" on realtime.messages",
        ),
        (
            "ALTER POLICY \"Participants track their presence\" ON realtime.messages WITH CHECK (true)",
            "policy \"Participants track their presence\" on realtime.messages",
        ),
        ("DROP TRIGGER on_auth_user_created ON auth.users", "trigger on_auth_user_created on auth.users"),
        ("ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_created", "trigger on_auth_user_created on auth.users"),
        ("GRANT ALL ON ALL TABLES IN SCHEMA public TO anon", "grant on table public.users to anon"),
    ] {
        let (_database, owner, superuser) = create_platform_database().await;
        Migrator::up(&owner, None).await.unwrap();
        assert!(check(&owner).await.unwrap().is_clean());
        superuser.execute_unprepared(sql).await.unwrap();
        let report = check(&owner).await.unwrap();
        assert!(report.differences.iter().any(|difference| difference.object == object), "{sql}: {report:#?}");
        Migrator::up(&owner, None).await.unwrap();
        assert!(check(&owner).await.unwrap().is_clean(), "{sql}");
        assert_eq!(migration::full_manifest_of(&owner).await.unwrap(), MANIFEST, "{sql}");
    }
}

#[tokio::test]
async fn the_platforms_default_privileges_give_no_access() {
    let (_database, owner, superuser) = create_platform_database().await;
    Migrator::up(&owner, None).await.unwrap();
    let (_plain_database, plain) = create_unmigrated_database_without_platform().await;
    Migrator::up(&plain, None).await.unwrap();
    // Plain PostgreSQL has no such default privileges. So if both databases have the same grants, the platform's
    // default privileges give no access. A cast to `regrole` turns PUBLIC into `-`.
    let select_grants = "SELECT object || ' ' || grantee || ' ' || string_agg(privilege, ',' ORDER BY privilege)
         FROM (
           SELECT relname::text, grantee::regrole::text, privilege_type
           FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'public'::regnamespace
           UNION ALL
           SELECT attrelid::regclass || '.' || attname, grantee::regrole::text, privilege_type
           FROM pg_attribute, aclexplode(attacl) WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
           UNION ALL
           SELECT oid::regprocedure::text, grantee::regrole::text, privilege_type
           FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
           WHERE pronamespace IN ('public'::regnamespace, 'private'::regnamespace)
         ) AS acl (object, grantee, privilege)
         WHERE grantee IN ('anon', 'authenticated', 'service_role', '-')
         GROUP BY object, grantee ORDER BY 1";
    assert_eq!(query_lines(&superuser, select_grants).await, query_lines(&plain, select_grants).await);
}

#[tokio::test]
async fn the_operations_work_on_a_supabase_project() {
    let (database, owner, superuser) = create_platform_database().await;
    Migrator::up(&owner, None).await.unwrap();
    let ada_id = uuid::Uuid::new_v4();
    // In a project, the role of the platform's Auth server writes the accounts.
    superuser
        .execute_unprepared(&format!(
            "SET ROLE supabase_auth_admin;
             INSERT INTO auth.users (id, email) VALUES ('{ada_id}', 'ada@x.org'); RESET ROLE"
        ))
        .await
        .unwrap();
    let sparc = Sparc::connect(database.url()).await.unwrap();
    let ada = sparc.as_user(ada_id);
    assert_eq!(ada.users().me().await.unwrap().display_name, "ada");
    let brunhild = NewCharacter { name: "Brunhild".into(), ..Default::default() };
    ada.characters().create(brunhild).await.unwrap();
    assert_eq!(ada.characters().living().await.unwrap().len(), 1);
    let refusal = sparc.as_service().users().sign_up(Default::default()).await.unwrap_err();
    assert_eq!(refusal.code(), "not_allowed", "in a project, only the platform signs users up");

    ada.users().close_account(ada_id).await.unwrap();
    assert_eq!(ada.users().me().await.unwrap_err().code(), "account_closed");
    assert_eq!(sparc.as_anon().users().profile(ada_id).await.unwrap().display_name, "Former player");
    let select_closed_account =
        format!("SELECT id::text FROM auth.users WHERE id = '{ada_id}' AND deleted_at IS NOT NULL AND email IS NULL");
    assert_eq!(query_lines(&superuser, &select_closed_account).await.len(), 1);
    // Closing an account also works if the platform does not let the project's owner write accounts.
    let ben_id = uuid::Uuid::new_v4();
    superuser
        .execute_unprepared(&format!(
            "INSERT INTO auth.users (id, email) VALUES ('{ben_id}', 'ben@x.org');
             SET ROLE supabase_auth_admin; REVOKE UPDATE ON auth.users FROM postgres; RESET ROLE"
        ))
        .await
        .unwrap();
    sparc.as_service().users().close_account(ben_id).await.unwrap();
    assert_eq!(sparc.as_anon().users().profile(ben_id).await.unwrap().display_name, "Former player");
    sparc.close().await.unwrap();
}
