//! Identities in a database whose rows belong to tenants. The setting `app.tenant` of an identity names the tenant.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, TryStreamExt};
use rls::{Database, Error, Identity, IdentityConnection, Options, unguarded::AsUnguarded};
use sea_orm::{
    ConnectionTrait, StreamTrait, TransactionTrait,
    sea_query::{Alias, Expr, ExprTrait, Query, UpdateStatement},
};
use tokio::{io::copy_bidirectional, net::TcpStream, sync::oneshot};

use crate::{outcome_code, proxies::listen_in_front_of, statement};

/// Creates a database whose rows belong to tenants. Returns the database, a handle of it with a pool of two
/// connections, and the role that all tenants share.
pub async fn create_tenant_database() -> (testdb::Database, Database, String) {
    let database = testdb::Server::open().await.unwrap().create_unmigrated().await.unwrap();
    let role = format!("tenant_{}", uuid::Uuid::new_v4().simple());
    let schema = format!(
        "CREATE ROLE {role};
         CREATE TABLE notes (tenant text DEFAULT current_setting('app.tenant'), text text NOT NULL);
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON notes TO {role} USING (tenant = current_setting('app.tenant', true));
         GRANT SELECT, INSERT ON notes TO {role};
         CREATE SEQUENCE note_numbers;
         GRANT USAGE ON SEQUENCE note_numbers TO {role}"
    );
    database.connect(1).await.unwrap().execute_unprepared(&schema).await.unwrap();
    let mut options = Options::default();
    options.max_connections = 2;
    let handle = Database::connect(database.url(), &options).await.unwrap();
    (database, handle, role)
}

/// Returns a connection with the identity of a tenant. The identity has a second setting, `app.admin`, which no policy
/// reads.
pub fn as_tenant(handle: &Database, role: &str, name: &str) -> IdentityConnection {
    handle.as_identity(Identity::new(role.to_owned()).with_setting("app.tenant", name).with_setting("app.admin", ""))
}

/// Connects to the database with a pool of one connection, so that each identity would see what the previous identity
/// left on the connection.
async fn connect_with_one_connection(database: &testdb::Database) -> Database {
    let mut options = Options::default();
    options.max_connections = 1;
    Database::connect(database.url(), &options).await.unwrap()
}

/// Returns the first column of a query's first row, which must be a text.
async fn fetch_text(connection: &impl ConnectionTrait, sql: &str) -> String {
    connection.query_one_raw(statement(sql)).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

pub async fn count_notes(connection: &impl ConnectionTrait) -> usize {
    let select_notes = statement("SELECT text FROM notes");
    connection.query_all_raw(select_notes).await.unwrap().len()
}

#[tokio::test]
async fn each_tenant_sees_only_its_own_rows_whatever_its_name() {
    let (_database, handle, role) = create_tenant_database().await;
    for name in ["acme", "o'hara", r"back\slash", "'; RESET ROLE; --", ""] {
        let tenant = as_tenant(&handle, &role, name);
        tenant.execute_unprepared("INSERT INTO notes (text) VALUES ('hello')").await.unwrap();
        assert_eq!(count_notes(&tenant).await, 1, "{name}");
    }
    assert_eq!(count_notes(&as_tenant(&handle, &role, "globex")).await, 0);
}

#[tokio::test]
async fn a_closed_pool_begins_no_transaction() {
    let (_database, handle, role) = create_tenant_database().await;
    handle.close().await.unwrap();
    assert_eq!(outcome_code(as_tenant(&handle, &role, "acme").begin().await), "pool_closed");
}

#[tokio::test]
async fn all_pools_of_a_handle_already_refuse_transactions_while_closing_waits_for_a_connection() {
    let (database, handle, role) = create_tenant_database().await;
    let handle = handle.with_pool_for_role(role.clone(), database.url(), &Options::default()).await.unwrap();
    let owner_transaction = handle.as_identity(Identity::new("postgres")).begin().await.unwrap();
    assert!(handle.close().now_or_never().is_none(), "closing must wait for the open transaction");
    assert_eq!(outcome_code(as_tenant(&handle, &role, "acme").begin().await), "pool_closed");
    assert_eq!(outcome_code(handle.as_identity(Identity::new("postgres")).begin().await), "pool_closed");
    owner_transaction.commit().await.unwrap();
    handle.close().await.unwrap();
}

#[tokio::test]
async fn a_statement_that_changes_the_identity_fails_and_leaves_nothing_to_the_next_transaction() {
    let (database, _, role) = create_tenant_database().await;
    let handle = connect_with_one_connection(&database).await;
    // An identity that does not set what the statements change, so that it would see what they left.
    let without_settings = handle.as_identity(Identity::new(role.clone()));
    let (acme, globex) = (as_tenant(&handle, &role, "acme"), as_tenant(&handle, &role, "globex"));
    globex.execute_unprepared("INSERT INTO notes (text) VALUES ('hello')").await.unwrap();
    for change in
        ["SET LOCAL app.tenant = 'globex'", "SET app.tenant = 'globex'", "SET app.admin = 'yes'", "RESET ROLE"]
    {
        let tx = acme.begin().await.unwrap();
        assert_eq!(outcome_code(tx.execute_unprepared(change).await), "identity_changed", "{change}");
        assert_eq!(outcome_code(tx.commit().await), "identity_changed", "{change}");
        assert_eq!(outcome_code(acme.execute_unprepared(change).await), "identity_changed", "{change}");
        let select_leftovers = "SELECT concat(current_setting('app.tenant', true), current_setting('app.admin', true))";
        assert_eq!(fetch_text(&without_settings, select_leftovers).await, "", "{change}");
        assert_eq!(count_notes(&acme).await, 0, "{change}");
    }
}

#[tokio::test]
async fn nested_transactions_form_a_stack() {
    let (_database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme");
    let insert = "INSERT INTO notes (text) VALUES ('hello')";
    let outer = acme.begin().await.unwrap();
    outer.execute_unprepared(insert).await.unwrap();
    let inner = outer.begin().await.unwrap();
    inner.execute_unprepared(insert).await.unwrap();
    assert_eq!(outcome_code(outer.execute_unprepared(insert).await), "nested_transaction_open");
    assert_eq!(outcome_code(inner.execute_unprepared("SELECT 1 / 0").await), "database");
    assert_eq!(outcome_code(inner.commit().await), "transaction_failed");
    assert_eq!(count_notes(&outer).await, 1);
    outer.commit().await.unwrap();
    assert_eq!(count_notes(&acme).await, 1);
}

#[tokio::test]
async fn a_missing_role_or_a_disconnected_pool_is_reported_as_misconfigured() {
    let (_database, handle, _) = create_tenant_database().await;
    let as_missing_role = handle.as_identity(Identity::new("no_such_role"));
    assert_eq!(outcome_code(as_missing_role.execute_unprepared("SELECT 1").await), "misconfigured");
    let disconnected = Database::from_connection(sea_orm::DatabaseConnection::default());
    assert_eq!(outcome_code(disconnected.as_identity(Identity::new("any")).begin().await), "misconfigured");
}

#[tokio::test]
async fn a_setting_that_the_server_refuses_is_not_reported_as_a_missing_role() {
    let (_database, handle, role) = create_tenant_database().await;
    // The server refuses the first setting because its value is invalid (22023), and the second because only a
    // superuser may set it (42501). It refuses a role with the same SQLSTATEs: 22023 if the role does not exist, 42501
    // if the login may not assume it. Only the error about a role says that the login must be a member of it.
    for (name, value) in [("work_mem", "plenty"), ("session_replication_role", "replica")] {
        let identity = Identity::new(role.clone()).with_setting(name, value);
        let error = handle.as_identity(identity).begin().await.unwrap_err();
        assert!(error.to_string().contains(name) && !error.to_string().contains("member"), "{error}");
        assert_eq!(Error::from(error).code(), "misconfigured");
    }
}

#[tokio::test]
async fn a_transaction_is_not_taken_for_another_one_whatever_the_date_style_and_time_zone() {
    let (_database, handle, role) = create_tenant_database().await;
    let identity = as_tenant(&handle, &role, "acme").identity().clone();
    // The crate detects by the start time that a statement ran in another transaction. With these settings, PostgreSQL
    // prints a time with the zone IST (India), but before version 18 reads IST as Israel's. So a start time that was
    // sent back as text would not match.
    let identity = identity.with_setting("datestyle", "SQL, DMY").with_setting("timezone", "Asia/Kolkata");
    let acme = handle.as_identity(identity);
    assert_eq!(outcome_code(acme.execute_unprepared("INSERT INTO notes (text) VALUES ('hello')").await), "done");
    let transaction = acme.begin().await.unwrap();
    assert_eq!(count_notes(&transaction).await, 1);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn the_role_none_is_refused() {
    let (_database, handle, _) = create_tenant_database().await;
    // NUL characters are removed from the names of roles.
    for none in ["none", "no\0ne"] {
        let as_none = handle.as_identity(Identity::new(none));
        let select_notes = statement("SELECT text FROM notes");
        assert_eq!(outcome_code(as_none.query_all_raw(select_notes).await), "misconfigured");
        assert_eq!(outcome_code(as_none.begin().await), "misconfigured");
    }
}

#[tokio::test]
async fn a_begin_check_that_raises_insufficient_privilege_is_not_reported_as_a_missing_role() {
    let (database, handle, role) = create_tenant_database().await;
    let create_check = "CREATE FUNCTION refuse() RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN RAISE insufficient_privilege USING MESSAGE = 'the account is closed'; END $$";
    database.connect(1).await.unwrap().execute_unprepared(create_check).await.unwrap();
    let as_closed_account = handle.as_identity(Identity::new(role).with_begin_check("public.refuse()"));
    let error = as_closed_account.begin().await.unwrap_err();
    assert!(error.to_string().contains("the account is closed"), "{error}");
    assert_eq!(Error::from(error).code(), "database");
    let as_missing_role = handle.as_identity(Identity::new("no_such_role").with_begin_check("public.refuse()"));
    assert_eq!(outcome_code(as_missing_role.begin().await), "misconfigured");
}

#[tokio::test]
async fn the_second_value_of_a_setting_replaces_the_first_whatever_the_case_of_the_name() {
    let (_database, handle, role) = create_tenant_database().await;
    let globex = as_tenant(&handle, &role, "globex");
    let acme = handle.as_identity(globex.identity().clone().with_setting("App.Tenant", "acme"));
    acme.execute_unprepared("INSERT INTO notes (text) VALUES ('hello')").await.unwrap();
    assert_eq!(count_notes(&as_tenant(&handle, &role, "acme")).await, 1);
}

#[tokio::test]
async fn a_statement_that_the_server_cancels_at_the_deadline_fails_with_deadline_exceeded() {
    let (_database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme").with_deadline(Duration::from_secs(1));
    assert_eq!(outcome_code(acme.execute_unprepared("SELECT pg_sleep(20)").await), "deadline_exceeded");
    let tx = acme.begin().await.unwrap();
    assert_eq!(outcome_code(tx.execute_unprepared("SELECT pg_sleep(20)").await), "deadline_exceeded");
    assert_eq!(outcome_code(tx.commit().await), "transaction_failed");
}

#[tokio::test]
async fn a_connection_that_is_being_opened_while_the_pool_is_closed_is_not_handed_out() {
    let (database, _, role) = create_tenant_database().await;
    let (listener, url, server_address) = listen_in_front_of(&database).await;
    // `Database::connect` opens and closes the first connection. The second connection, for the transaction, reaches
    // the server only after the pool was closed.
    let (accepted_sender, accepted_receiver) = oneshot::channel();
    let (closed_sender, closed_receiver) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut first_client, _) = listener.accept().await.unwrap();
        let mut first_server = TcpStream::connect(&server_address).await.unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut first_client, &mut first_server).await });
        let (mut second_client, _) = listener.accept().await.unwrap();
        accepted_sender.send(()).unwrap();
        closed_receiver.await.unwrap();
        let mut second_server = TcpStream::connect(server_address).await.unwrap();
        let _ = copy_bidirectional(&mut second_client, &mut second_server).await;
    });
    let handle = Database::connect(&url, &Options::default()).await.unwrap();
    let acme = as_tenant(&handle, &role, "acme");
    let begin = tokio::spawn(async move { acme.begin().await.map(drop) });
    accepted_receiver.await.unwrap();
    handle.close().await.unwrap();
    closed_sender.send(()).unwrap();
    assert_eq!(outcome_code(begin.await.unwrap()), "pool_closed");
}

#[tokio::test]
async fn a_setting_that_postgresql_stores_in_another_form_is_verified_in_that_form() {
    let (_database, handle, role) = create_tenant_database().await;
    let identity = as_tenant(&handle, &role, "acme").identity().clone();
    let identity = identity.with_setting("lock_timeout", "5000").with_setting("TimeZone", "utc");
    let identity = identity.with_setting("statement_timeout", "1000").with_setting("search_path", "public, pg_temp");
    let acme = handle.as_identity(identity);
    let insert = "INSERT INTO notes (text) VALUES ('hello')";
    acme.execute_unprepared(insert).await.unwrap();
    let tx = acme.begin().await.unwrap();
    tx.execute_unprepared(insert).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count_notes(&acme).await, 2);
    for change in ["SET LOCAL lock_timeout = '1min'", "SET LOCAL TimeZone = 'Asia/Tokyo'", "SET search_path = ''"] {
        assert_eq!(outcome_code(acme.execute_unprepared(change).await), "identity_changed", "{change}");
    }
}

/// Returns the statement that updates a setting through PostgreSQL's view `pg_settings`, as SeaORM builds it.
fn update_of_pg_settings(name: &str, setting: &str) -> UpdateStatement {
    Query::update()
        .table(Alias::new("pg_settings"))
        .value(Alias::new("setting"), setting)
        .and_where(Expr::col(Alias::new("name")).eq(name))
        .to_owned()
}

#[tokio::test]
async fn an_update_of_pg_settings_that_changes_the_identity_fails_and_any_other_is_undone() {
    let (database, _, role) = create_tenant_database().await;
    let handle = connect_with_one_connection(&database).await;
    let globex = as_tenant(&handle, &role, "globex");
    let identity = as_tenant(&handle, &role, "acme").identity().clone();
    let acme = handle.as_identity(identity.with_setting("lock_timeout", "5s"));
    let change_of_identity = update_of_pg_settings("lock_timeout", "1min");
    assert_eq!(outcome_code(acme.execute(&change_of_identity).await), "identity_changed");
    let tx = acme.begin().await.unwrap();
    assert_eq!(outcome_code(tx.execute(&change_of_identity).await), "identity_changed");
    drop(tx);
    let show_time_zone = "SELECT current_setting('TimeZone')";
    let clean_time_zone = fetch_text(&globex, show_time_zone).await;
    let other_change = update_of_pg_settings("TimeZone", "Asia/Tokyo");
    assert_eq!(outcome_code(acme.execute(&other_change).await), "done");
    assert_eq!(fetch_text(&globex, show_time_zone).await, clean_time_zone);
    let tx = acme.begin().await.unwrap();
    assert_eq!(outcome_code(tx.execute(&other_change).await), "done");
    tx.commit().await.unwrap();
    assert_eq!(fetch_text(&globex, show_time_zone).await, clean_time_zone);
    // In a stream, the text of raw SQL is examined like that of a statement that SeaORM built: `stream_raw` runs both.
    let tx = acme.begin().await.unwrap();
    let raw_change = "UPDATE PG_SETTINGS SET setting = 'Asia/Tokyo' WHERE name = 'TimeZone'";
    let rows = tx.stream_raw(statement(raw_change)).await.unwrap();
    rows.try_collect::<Vec<_>>().await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(fetch_text(&globex, show_time_zone).await, clean_time_zone);
}

#[tokio::test]
async fn a_change_of_identity_by_a_view_that_raw_sql_created_is_noticed_at_the_commit() {
    let (_database, handle, role) = create_tenant_database().await;
    let (acme, globex) = (as_tenant(&handle, &role, "acme"), as_tenant(&handle, &role, "globex"));
    let tx = acme.begin().await.unwrap();
    let create_view = "CREATE TEMPORARY VIEW switch AS SELECT set_config('app.tenant', 'globex', true) AS tenant";
    tx.execute_unprepared(create_view).await.unwrap();
    let read_view = Query::select().column(Alias::new("tenant")).from(Alias::new("switch")).to_owned();
    assert_eq!(outcome_code(tx.query_all(&read_view).await), "done");
    let insert = Query::insert()
        .into_table(Alias::new("notes"))
        .columns([Alias::new("text")])
        .values_panic(["hello".into()])
        .to_owned();
    assert_eq!(outcome_code(tx.execute(&insert).await), "done");
    assert_eq!(outcome_code(tx.commit().await), "identity_changed");
    assert_eq!(count_notes(&globex).await, 0);
}

#[tokio::test]
async fn a_listen_that_raw_sql_commits_is_undone_before_the_next_identity() {
    let (database, _, role) = create_tenant_database().await;
    let handle = connect_with_one_connection(&database).await;
    let (acme, globex) = (as_tenant(&handle, &role, "acme"), as_tenant(&handle, &role, "globex"));
    let tx = acme.begin().await.unwrap();
    tx.execute_unprepared("LISTEN mine").await.unwrap();
    assert_eq!(outcome_code(tx.execute_unprepared("COMMIT").await), "transaction_ended");
    drop(tx);
    let select_channels = statement("SELECT pg_listening_channels()");
    assert!(globex.query_all_raw(select_channels).await.unwrap().is_empty());
}

#[tokio::test]
async fn may_have_written_is_false_only_if_the_sql_or_its_result_shows_that_nothing_was_written() {
    let (database, handle, role) = create_tenant_database().await;
    let schema = format!(
        "GRANT UPDATE ON notes TO {role};
         CREATE FUNCTION note() RETURNS text LANGUAGE sql AS
           $$ INSERT INTO public.notes (text) VALUES ('hello') RETURNING text $$"
    );
    database.connect(1).await.unwrap().execute_unprepared(&schema).await.unwrap();
    let tx = as_tenant(&handle, &role, "acme").begin().await.unwrap();
    for (sql, may_have_written) in [
        ("SELECT text FROM notes WHERE text = 'x'", false),
        ("SELECT text FROM notes FOR UPDATE", false),
        ("SELECT public.note()", true),
        ("SELECT * FROM public.note()", true),
        ("WITH new AS (INSERT INTO notes (text) VALUES ('x') RETURNING text) SELECT text FROM new", true),
        (r#"UPDATE "notes" SET "text" = 'y' WHERE "text" = 'nobody' RETURNING "text""#, false),
        (r#"UPDATE "notes" SET "text" = 'y' WHERE "text" = 'x' RETURNING "text""#, true),
        // Without RETURNING, the result does not show whether a row was updated.
        (r#"UPDATE "notes" SET "text" = 'y' WHERE "text" = 'nobody'"#, true),
    ] {
        let operation = tx.unguarded().operation_handle();
        operation.fetch_all(statement(sql)).await.unwrap();
        assert_eq!(operation.may_have_written(), may_have_written, "{sql}");
    }
}

#[tokio::test]
async fn a_setting_that_would_replace_the_role_is_refused() {
    let (_database, handle, role) = create_tenant_database().await;
    for (name, value) in [("role", "none"), ("ROLE", "postgres"), ("ro\0le", "none"), ("session_authorization", "x")] {
        let identity = Identity::new(role.clone()).with_setting(name, value);
        let outcome = handle.as_identity(identity).execute_unprepared("SELECT 1").await;
        assert_eq!(outcome_code(outcome), "misconfigured", "{name}");
    }
}

#[tokio::test]
async fn a_pool_of_no_connections_or_of_more_than_any_server_can_have_is_refused() {
    let (database, ..) = create_tenant_database().await;
    for max_connections in [0, 262_144, u32::MAX] {
        let mut options = Options::default();
        options.max_connections = max_connections;
        let error = Database::connect(database.url(), &options).await.unwrap_err();
        assert_eq!(error.code(), "misconfigured", "{max_connections}");
    }
}

#[tokio::test]
async fn a_statement_full_of_comments_is_examined_in_linear_time() {
    let (_database, handle, role) = create_tenant_database().await;
    let comments = "/* ".repeat(1_000_000);
    let started_at = Instant::now();
    let outcome = as_tenant(&handle, &role, "acme").execute_unprepared(&comments).await;
    assert_eq!(outcome_code(outcome), "database", "an unterminated comment");
    // A quadratic search would take minutes.
    assert!(started_at.elapsed() < Duration::from_secs(10), "{:?}", started_at.elapsed());
}
