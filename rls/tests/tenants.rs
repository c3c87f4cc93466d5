//! Identities in a database whose rows belong to tenants. The setting `app.tenant` of an identity names the tenant.

#![allow(missing_docs)]

mod proxies;

use std::time::Duration;

use futures_util::TryStreamExt;
use rls::{Database, Error, Identity, IdentityConnection, Options, unchecked::AsUnchecked};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, StreamTrait, TransactionTrait, Value};
use tokio::{io::copy_bidirectional, net::TcpStream, sync::oneshot, time::sleep};

use proxies::listen_in_front_of;

/// Creates a database whose rows belong to tenants. Returns the database, a handle of it with a pool of two
/// connections, and the role that all tenants share.
async fn create_tenant_database() -> (testdb::Database, Database, String) {
    let database = testdb::Server::open().await.unwrap().create_empty().await.unwrap();
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

/// Returns the database as a tenant sees it. The identity has a second setting, `app.admin`, which no policy reads.
fn as_tenant(handle: &Database, role: &str, name: &str) -> IdentityConnection {
    handle.as_identity(Identity::new(role.to_owned()).with_setting("app.tenant", name).with_setting("app.admin", ""))
}

async fn count_notes(connection: &impl ConnectionTrait) -> usize {
    let select_notes = Statement::from_string(DbBackend::Postgres, "SELECT text FROM notes");
    connection.query_all_raw(select_notes).await.unwrap().len()
}

/// Returns the code of the error, or "done".
fn outcome_code<T>(outcome: Result<T, DbErr>) -> &'static str {
    outcome.map_or_else(|error| Error::from(error).code(), |_| "done")
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
async fn a_statement_that_changes_the_identity_fails_and_leaves_nothing_to_the_next_transaction() {
    let (_database, handle, role) = create_tenant_database().await;
    let (acme, globex) = (as_tenant(&handle, &role, "acme"), as_tenant(&handle, &role, "globex"));
    globex.execute_unprepared("INSERT INTO notes (text) VALUES ('hello')").await.unwrap();
    for change in
        ["SET LOCAL app.tenant = 'globex'", "SET app.tenant = 'globex'", "SET app.admin = 'yes'", "RESET ROLE"]
    {
        let tx = acme.begin().await.unwrap();
        assert_eq!(outcome_code(tx.execute_unprepared(change).await), "identity_changed", "{change}");
        assert_eq!(outcome_code(tx.commit().await), "identity_changed", "{change}");
        assert_eq!(outcome_code(acme.execute_unprepared(change).await), "identity_changed", "{change}");
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
async fn a_missing_role_or_a_pool_without_postgresql_is_reported_as_misconfigured() {
    let (_database, handle, _) = create_tenant_database().await;
    let as_missing_role = handle.as_identity(Identity::new("no_such_role"));
    assert_eq!(outcome_code(as_missing_role.execute_unprepared("SELECT 1").await), "misconfigured");
    let disconnected = Database::from_connection(sea_orm::DatabaseConnection::default());
    assert_eq!(outcome_code(disconnected.as_identity(Identity::new("any")).begin().await), "misconfigured");
}

#[tokio::test]
async fn a_setting_that_the_server_refuses_is_not_reported_as_a_missing_role() {
    let (_database, handle, role) = create_tenant_database().await;
    // The first value is invalid, and only a superuser may set the second setting. The server refuses a role that does
    // not exist, or that the login may not assume, with the same two SQLSTATEs.
    for (name, value) in [("work_mem", "plenty"), ("session_replication_role", "replica")] {
        let identity = Identity::new(role.clone()).with_setting(name, value);
        let error = handle.as_identity(identity).begin().await.unwrap_err();
        assert!(error.to_string().contains(name) && !error.to_string().contains("member"), "{error}");
        assert_eq!(Error::from(error).code(), "misconfigured");
    }
}

#[tokio::test]
async fn a_transaction_is_recognized_whatever_the_date_style_and_time_zone() {
    let (_database, handle, role) = create_tenant_database().await;
    let identity = as_tenant(&handle, &role, "acme").identity().clone();
    // With these settings, PostgreSQL prints the time zone as IST, which it reads as that of Israel. So if a start time
    // were sent back as text, it would be taken for that of another transaction.
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
        let select_notes = Statement::from_string(DbBackend::Postgres, "SELECT text FROM notes");
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
async fn a_prepared_statement_is_not_reused_if_the_count_or_types_of_the_values_differ() {
    let (database, _, role) = create_tenant_database().await;
    let schema = format!("CREATE TABLE numbers (n bigint); GRANT SELECT, INSERT ON numbers TO {role}");
    database.connect(1).await.unwrap().execute_unprepared(&schema).await.unwrap();
    let mut options = Options::default();
    // One connection, so that all statements meet the same prepared statements.
    options.max_connections = 1;
    let handle = Database::connect(database.url(), &options).await.unwrap();
    let (acme, globex) = (as_tenant(&handle, &role, "acme"), as_tenant(&handle, &role, "globex"));
    let statement = |sql: &str, values: Vec<Value>| Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    let insert = |value: Value| acme.execute_raw(statement("INSERT INTO numbers (n) VALUES ($1)", vec![value]));
    insert(5_i64.into()).await.unwrap();
    insert(6_i32.into()).await.unwrap();
    insert(7.0_f64.into()).await.unwrap();
    // A text of eight bytes, which the server would read as a bigint if the driver did not send another statement.
    assert_eq!(outcome_code(insert("12345678".into()).await), "database", "a text is not a number");
    let sum = acme.query_one_raw(statement("SELECT sum(n)::bigint FROM numbers", Vec::new())).await.unwrap().unwrap();
    assert_eq!(sum.try_get_by_index::<i64>(0).unwrap(), 5 + 6 + 7);

    let select_with_values = |count: i32| statement("SELECT $1::integer", (0..count).map(Value::from).collect());
    assert_eq!(outcome_code(acme.query_all_raw(select_with_values(2)).await), "invalid_statement", "one too many");
    assert_eq!(outcome_code(acme.query_all_raw(select_with_values(0)).await), "invalid_statement", "one too few");
    assert_eq!(outcome_code(globex.query_all_raw(select_with_values(1)).await), "done", "after the refused ones");
}

/// Reads the stream of a statement's rows to its end, and returns their number.
async fn count_streamed(connection: &impl StreamTrait, sql: &str) -> Result<usize, DbErr> {
    let rows = connection.stream_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    Ok(rows.try_collect::<Vec<_>>().await?.len())
}

#[tokio::test]
async fn a_temporary_table_that_a_streamed_statement_created_is_dropped_before_the_next_identity() {
    let (_database, handle, role) = create_tenant_database().await;
    let (acme, globex) = (as_tenant(&handle, &role, "acme"), as_tenant(&handle, &role, "globex"));
    acme.execute_unprepared("INSERT INTO notes (text) VALUES ('secret')").await.unwrap();
    let tx = acme.begin().await.unwrap();
    count_streamed(&tx, "SELECT text INTO TEMPORARY mine FROM notes").await.unwrap();
    assert_eq!(count_streamed(&tx, "SELECT text FROM mine").await.unwrap(), 1);
    tx.commit().await.unwrap();
    let select = Statement::from_string(DbBackend::Postgres, "SELECT text FROM mine");
    assert_eq!(outcome_code(globex.query_all_raw(select).await), "database");
}

#[tokio::test]
async fn only_a_stream_that_is_read_to_its_end_in_time_saves_what_its_statement_wrote() {
    let (_database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme");
    let insert = "INSERT INTO notes (text) SELECT 'hello' FROM generate_series(1, 3) RETURNING text";
    let mut rows = acme.stream_raw(Statement::from_string(DbBackend::Postgres, insert)).await.unwrap();
    assert!(rows.try_next().await.unwrap().is_some());
    // Long enough for the server to send all rows.
    sleep(Duration::from_millis(200)).await;
    drop(rows);
    // Long enough for the rollback.
    sleep(Duration::from_millis(200)).await;
    assert_eq!(count_notes(&acme).await, 0);
    assert_eq!(count_streamed(&acme, insert).await.unwrap(), 3);
    assert_eq!(count_notes(&acme).await, 3);
    // The rows are not read before the deadline, which is enforced a second after it has passed.
    let acme_with_deadline = acme.clone().with_deadline(Duration::from_secs(1));
    let mut unread = acme_with_deadline.stream_raw(Statement::from_string(DbBackend::Postgres, insert)).await.unwrap();
    sleep(Duration::from_millis(2500)).await;
    let read_to_end = async {
        while unread.try_next().await?.is_some() {}
        Ok(())
    };
    assert_eq!(outcome_code(read_to_end.await), "deadline_exceeded");
    assert_eq!(count_notes(&acme).await, 3);
}

#[tokio::test]
async fn only_a_stream_that_may_write_counts_as_a_write() {
    let (_database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme");
    for (sql, may_write) in [
        ("SELECT text FROM notes", false),
        ("INSERT INTO notes (text) VALUES ('hello') RETURNING text", true),
        ("SELECT nextval('note_numbers')", true),
    ] {
        let tx = acme.begin().await.unwrap();
        count_streamed(&tx, sql).await.unwrap();
        assert_eq!(tx.unchecked().may_have_written(), may_write, "{sql}");
    }
}

#[tokio::test]
async fn an_error_in_a_stream_is_mapped_like_that_of_any_other_statement() {
    let (_database, handle, role) = create_tenant_database().await;
    let handle = handle.with_error_mapper(|_, _| Error::InvalidClaims { rule: "mapped" }.into());
    let acme = as_tenant(&handle, &role, "acme");
    // Only a superuser may read this table.
    let denied_query = "SELECT rolname FROM pg_authid";
    assert_eq!(
        outcome_code(acme.query_all_raw(Statement::from_string(DbBackend::Postgres, denied_query)).await),
        "invalid_claims"
    );
    assert_eq!(outcome_code(count_streamed(&acme, denied_query).await), "invalid_claims");
    assert_eq!(outcome_code(count_streamed(&acme.begin().await.unwrap(), denied_query).await), "invalid_claims");
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

#[tokio::test]
async fn a_listen_that_raw_sql_commits_is_undone_before_the_next_identity() {
    let (_database, handle, role) = create_tenant_database().await;
    let (acme, globex) = (as_tenant(&handle, &role, "acme"), as_tenant(&handle, &role, "globex"));
    let tx = acme.begin().await.unwrap();
    tx.execute_unprepared("LISTEN mine").await.unwrap();
    assert_eq!(outcome_code(tx.execute_unprepared("COMMIT").await), "transaction_ended");
    drop(tx);
    let select_channels = Statement::from_string(DbBackend::Postgres, "SELECT pg_listening_channels()");
    // More often than the pool has connections, so that each of them is asked.
    for _ in 0..4 {
        assert!(globex.query_all_raw(select_channels.clone()).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn only_a_statement_that_writes_or_calls_a_function_may_have_written() {
    let (database, handle, role) = create_tenant_database().await;
    let schema = format!(
        "GRANT UPDATE ON notes TO {role};
         CREATE FUNCTION note() RETURNS text LANGUAGE sql AS
           $$ INSERT INTO public.notes (text) VALUES ('hello') RETURNING text $$"
    );
    database.connect(1).await.unwrap().execute_unprepared(&schema).await.unwrap();
    let tx = as_tenant(&handle, &role, "acme").begin().await.unwrap();
    for (sql, may_write) in [
        ("SELECT text FROM notes WHERE text = 'x'", false),
        ("SELECT text FROM notes FOR UPDATE", false),
        ("SELECT public.note()", true),
        ("SELECT * FROM public.note()", true),
        ("WITH new AS (INSERT INTO notes (text) VALUES ('x') RETURNING text) SELECT text FROM new", true),
    ] {
        let operation = tx.unchecked().for_operation();
        operation.fetch_all(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
        assert_eq!(operation.may_have_written(), may_write, "{sql}");
    }
}

#[tokio::test]
async fn each_pool_treats_prepared_statements_as_its_own_options_say() {
    let (database, shared_pool, role) = create_tenant_database().await;
    let without_caching = Options::default().without_prepared_statements();
    let handle = shared_pool.with_pool_for_role(role.clone(), database.url(), &without_caching).await.unwrap();
    let tenant_transaction = as_tenant(&handle, &role, "acme").begin().await.unwrap();
    let owner_transaction = handle.as_identity(Identity::new("postgres")).begin().await.unwrap();
    let select_messages = "SELECT query FROM pg_stat_activity
        WHERE state = 'idle in transaction' AND datname = current_database() ORDER BY query LIKE '%DEALLOCATE ALL%'";
    let observer = database.connect(1).await.unwrap();
    let rows = observer.query_all_raw(Statement::from_string(DbBackend::Postgres, select_messages)).await.unwrap();
    let messages: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    let [owner_message, tenant_message] = &messages[..] else { panic!("two open transactions: {messages:?}") };
    assert!(owner_message.starts_with("BEGIN; ") && !owner_message.contains("DEALLOCATE ALL"), "{owner_message}");
    assert!(tenant_message.starts_with("BEGIN; DEALLOCATE ALL; "), "{tenant_message}");
    owner_transaction.rollback().await.unwrap();
    tenant_transaction.rollback().await.unwrap();
}
