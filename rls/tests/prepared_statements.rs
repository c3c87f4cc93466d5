//! The driver's prepared statements, which are cached on their connection.

use rls::{Database, Error, Identity, Options, unguarded::UnguardedExt};
use sea_orm::{ConnectionTrait, DbBackend, Statement, StreamTrait, TransactionTrait, Value};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    outcome_code,
    proxies::listen_in_front_of,
    statement,
    tenants::{as_tenant, create_tenant_database},
};

#[tokio::test]
async fn a_prepared_statement_is_not_reused_for_other_types_and_a_wrong_count_of_values_is_refused() {
    let (database, _, role) = create_tenant_database().await;
    let schema = format!("CREATE TABLE numbers (n bigint); GRANT SELECT, INSERT ON numbers TO {role}");
    database.connect(1).await.unwrap().execute_unprepared(&schema).await.unwrap();
    let mut options = Options::default();
    // One connection, so that all calls share one cache of prepared statements.
    options.max_connections = 1;
    let handle = Database::connect(database.url(), &options).await.unwrap();
    let (acme, globex) = (as_tenant(&handle, &role, "acme"), as_tenant(&handle, &role, "globex"));
    let with_values = |sql: &str, values: Vec<Value>| Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    let insert = |value: Value| acme.execute_raw(with_values("INSERT INTO numbers (n) VALUES ($1)", vec![value]));
    insert(5_i64.into()).await.unwrap();
    insert(6_i32.into()).await.unwrap();
    insert(7.0_f64.into()).await.unwrap();
    // A text of eight bytes, which the server would read as a bigint if the driver used the statement that it prepared
    // for a bigint.
    assert_eq!(outcome_code(insert("12345678".into()).await), "database", "a text is not a number");
    let sum = acme.query_one_raw(with_values("SELECT sum(n)::bigint FROM numbers", Vec::new())).await.unwrap().unwrap();
    assert_eq!(sum.try_get_by_index::<i64>(0).unwrap(), 5 + 6 + 7);

    let select_with_values = |count: i32| with_values("SELECT $1::integer", (0..count).map(Value::from).collect());
    assert_eq!(outcome_code(acme.query_all_raw(select_with_values(2)).await), "invalid_statement", "one too many");
    assert_eq!(outcome_code(acme.query_all_raw(select_with_values(0)).await), "invalid_statement", "one too few");
    assert_eq!(outcome_code(globex.query_all_raw(select_with_values(1)).await), "done", "after the refused ones");
}

#[tokio::test]
async fn each_pool_treats_prepared_statements_as_its_own_options_say() {
    let (database, handle, role) = create_tenant_database().await;
    let without_caching = Options::default().without_prepared_statement_cache();
    let handle = handle.with_pool_for_role(role.clone(), database.url(), &without_caching).await.unwrap();
    let tenant_transaction = as_tenant(&handle, &role, "acme").begin().await.unwrap();
    let owner_transaction = handle.as_identity(Identity::new("postgres")).begin().await.unwrap();
    let select_begin_texts = "SELECT query FROM pg_stat_activity
        WHERE state = 'idle in transaction' AND datname = current_database() ORDER BY query LIKE '%DEALLOCATE ALL%'";
    let observer = database.connect(1).await.unwrap();
    let rows = observer.query_all_raw(statement(select_begin_texts)).await.unwrap();
    let begin_texts: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    let [owner_begin, tenant_begin] = &begin_texts[..] else {
        panic!("there must be two open transactions: {begin_texts:?}")
    };
    assert!(owner_begin.starts_with("BEGIN; ") && !owner_begin.contains("DEALLOCATE ALL"), "{owner_begin}");
    assert!(tenant_begin.starts_with("BEGIN; DEALLOCATE ALL; "), "{tenant_begin}");
    owner_transaction.rollback().await.unwrap();
    tenant_transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn a_statement_that_no_longer_fits_its_table_is_prepared_again() {
    let (database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme");
    let owner = database.connect(1).await.unwrap();
    let query_notes = || acme.query_all_raw(statement("SELECT * FROM notes"));
    // Both connections of the pool cache the statement.
    let (first, second) = tokio::join!(acme.begin(), acme.begin());
    for tx in [first.unwrap(), second.unwrap()] {
        tx.query_all_raw(statement("SELECT * FROM notes")).await.unwrap();
        tx.commit().await.unwrap();
    }
    owner.execute_unprepared("ALTER TABLE notes ADD COLUMN author text").await.unwrap();
    assert_eq!(outcome_code(query_notes().await), "done", "a single statement is retried");

    let mapping_handle = handle.clone().with_error_mapper(|_, _| Error::InvalidClaims { rule: "mapped" }.into());
    let mapping_acme = as_tenant(&mapping_handle, &role, "acme");
    for is_streamed in [false, true] {
        owner
            .execute_unprepared(&format!("ALTER TABLE notes ADD COLUMN is_streamed_{is_streamed} text"))
            .await
            .unwrap();
        let select_all = statement("SELECT * FROM notes");
        let code = if is_streamed {
            outcome_code(mapping_acme.stream_raw(select_all).await)
        } else {
            outcome_code(mapping_acme.query_all_raw(select_all).await)
        };
        assert_eq!(code, "done", "retries must not depend on the mapped error (streamed: {is_streamed})");
    }

    owner.execute_unprepared("ALTER TABLE notes ADD COLUMN editor text").await.unwrap();
    let tx = acme.begin().await.unwrap();
    assert_eq!(outcome_code(tx.query_all_raw(statement("SELECT * FROM notes")).await), "database");
    drop(tx);
    let tx = acme.begin().await.unwrap();
    assert_eq!(outcome_code(tx.query_all_raw(statement("SELECT * FROM notes")).await), "done", "the next transaction");
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn after_a_read_transaction_has_failed_on_an_outdated_statement_the_next_one_prepares_it_again() {
    let (database, _, role) = create_tenant_database().await;
    let mut options = Options::default();
    options.max_connections = 1;
    let handle = Database::connect(database.url(), &options).await.unwrap();
    let acme = as_tenant(&handle, &role, "acme");
    let owner = database.connect(1).await.unwrap();
    let select_all = || statement("SELECT * FROM notes");
    let tx = acme.begin_read(None).await.unwrap();
    tx.query_all_raw(select_all()).await.unwrap();
    tx.commit().await.unwrap();
    for (column, ends_by_commit) in [("author", false), ("editor", true)] {
        owner.execute_unprepared(&format!("ALTER TABLE notes ADD COLUMN {column} text")).await.unwrap();
        let tx = acme.begin_read(None).await.unwrap();
        assert_eq!(outcome_code(tx.query_all_raw(select_all()).await), "database", "{column}");
        let _ = if ends_by_commit { tx.commit().await } else { tx.rollback().await };
        let tx = acme.begin_read(None).await.unwrap();
        assert_eq!(outcome_code(tx.query_all_raw(select_all()).await), "done", "{column}");
        tx.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn an_outdated_statement_is_prepared_again_although_the_other_connection_is_busy() {
    let (database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme");
    let owner = database.connect(1).await.unwrap();
    let select_all = || statement("SELECT * FROM notes");
    let transactions = [acme.begin().await.unwrap(), acme.begin().await.unwrap()];
    for tx in &transactions {
        tx.query_all_raw(select_all()).await.unwrap();
    }
    let [first, second] = transactions;
    first.commit().await.unwrap();
    second.commit().await.unwrap();
    // This transaction occupies one of the two connections. The statement prepared on that connection is about to
    // become outdated. The transaction holds no lock on the table, so ALTER TABLE does not wait for it.
    let busy = acme.begin().await.unwrap();
    owner.execute_unprepared("ALTER TABLE notes ADD COLUMN author text").await.unwrap();
    assert_eq!(outcome_code(acme.query_all_raw(select_all()).await), "done");
    busy.commit().await.unwrap();
    for _ in 0..3 {
        let tx = acme.begin().await.unwrap();
        assert_eq!(outcome_code(tx.query_all_raw(select_all()).await), "done");
        tx.commit().await.unwrap();
    }
}

/// Starts a proxy that handles prepared statements as a pooler that tracks them does: it gives them names of its own,
/// and keeps those that the client closes, so that the server process has statements that the client does not know.
/// Returns the URL of the database through the proxy.
async fn start_tracking_pooler(database: &testdb::Database) -> String {
    let (listener, url, server_address) = listen_in_front_of(database).await;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server_address).await.unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    rename_statements(&mut buffer[..length]);
                    if to_server.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        }
    });
    url
}

/// Changes the names of the driver's statements in all messages, to names with the pooler's prefix. In a Close message,
/// the new name is one that no statement has. PostgreSQL ignores such a message, so the statement stays.
fn rename_statements(messages: &mut [u8]) {
    const DRIVERS_PREFIX: &[u8] = b"sqlx_s_";
    for index in 0..messages.len().saturating_sub(DRIVERS_PREFIX.len()) {
        if messages[index..].starts_with(DRIVERS_PREFIX) {
            // The message Close: its type, its length in four bytes, `S` for a statement, and the name.
            let is_close = index >= 6 && messages[index - 6] == b'C' && messages[index - 1] == b'S';
            let prefix = if is_close { b"closed_" } else { b"pgcat_s" };
            messages[index..index + DRIVERS_PREFIX.len()].copy_from_slice(prefix);
        }
    }
}

#[tokio::test]
async fn behind_a_tracking_pooler_queries_keep_the_connection_and_its_statements_and_prepare_replaces_it() {
    let (database, _, role) = create_tenant_database().await;
    let mut options = Options::default();
    options.max_connections = 1;
    let url = start_tracking_pooler(&database).await;
    // The driver closes the oldest statement as soon as it has prepared a third one.
    let handle = Database::connect(&format!("{url}?statement-cache-capacity=2"), &options).await.unwrap();
    let acme = as_tenant(&handle, &role, "acme");
    let fetch_number = async |sql: &str| {
        let row = acme.query_one_raw(statement(sql)).await.unwrap().unwrap();
        row.try_get_by_index::<i32>(0).unwrap()
    };
    let select_process_id = "SELECT pg_backend_pid()";
    let process_id = fetch_number(select_process_id).await;
    for number in 1..5 {
        assert_eq!(fetch_number(&format!("SELECT {number}")).await, number);
    }
    let tx = acme.begin().await.unwrap();
    for _ in 0..3 {
        tx.query_one_raw(statement("SELECT 4")).await.unwrap();
    }
    tx.commit().await.unwrap();
    let count_prepared = "SELECT count(*)::integer FROM pg_prepared_statements WHERE statement = 'SELECT 4'";
    assert_eq!(fetch_number(count_prepared).await, 1, "the statement must not be prepared again");
    assert_eq!(fetch_number(select_process_id).await, process_id, "the connection must be the same");
    assert_eq!(outcome_code(acme.execute_unprepared("PREPARE mine AS SELECT 1").await), "done");
    assert_ne!(
        fetch_number(select_process_id).await,
        process_id,
        "after the caller's own PREPARE, the connection must be replaced"
    );
}
