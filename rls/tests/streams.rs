//! Streams of rows.

use std::time::Duration;

use futures_util::TryStreamExt;
use rls::{Database, Error, Options, unguarded::AsUnguarded};
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, Statement, StreamTrait, TransactionTrait, Value, sea_query::ArrayType,
};
use tokio::time::{sleep, timeout};

use crate::{
    outcome_code,
    raw_commits::create_database_with_commit_delay,
    statement,
    tenants::{as_tenant, count_notes, create_tenant_database},
};

/// Runs a statement as a stream, reads the stream to its end, and returns the number of rows.
async fn count_streamed(connection: &impl StreamTrait, sql: &str) -> Result<usize, DbErr> {
    let rows = connection.stream_raw(statement(sql)).await?;
    Ok(rows.try_collect::<Vec<_>>().await?.len())
}

#[tokio::test]
async fn a_temporary_table_that_a_streamed_statement_created_is_dropped_before_another_identity_gets_the_connection() {
    let (database, _, role) = create_tenant_database().await;
    let mut options = Options::default();
    // One connection, so that the other identity gets the connection with the temporary table.
    options.max_connections = 1;
    let handle = Database::connect(database.url(), &options).await.unwrap();
    let (acme, globex) = (as_tenant(&handle, &role, "acme"), as_tenant(&handle, &role, "globex"));
    acme.execute_unprepared("INSERT INTO notes (text) VALUES ('secret')").await.unwrap();
    let tx = acme.begin().await.unwrap();
    count_streamed(&tx, "SELECT text INTO TEMPORARY mine FROM notes").await.unwrap();
    assert_eq!(count_streamed(&tx, "SELECT text FROM mine").await.unwrap(), 1);
    tx.commit().await.unwrap();
    let select = statement("SELECT text FROM mine");
    assert_eq!(outcome_code(globex.query_all_raw(select).await), "database");
}

#[tokio::test]
async fn only_a_stream_that_is_read_to_its_end_in_time_commits_what_its_statement_wrote() {
    let (_database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme");
    let insert = "INSERT INTO notes (text) SELECT 'hello' FROM generate_series(1, 3) RETURNING text";
    let mut rows = acme.stream_raw(statement(insert)).await.unwrap();
    assert!(rows.try_next().await.unwrap().is_some());
    // Long enough for the server to send all rows.
    sleep(Duration::from_millis(200)).await;
    drop(rows);
    // Long enough for the rollback.
    sleep(Duration::from_millis(200)).await;
    assert_eq!(count_notes(&acme).await, 0);
    assert_eq!(count_streamed(&acme, insert).await.unwrap(), 3);
    assert_eq!(count_notes(&acme).await, 3);
    // No row of the next stream is read until the deadline (one second) and its grace period (another second) have
    // passed.
    let acme_with_deadline = acme.clone().with_deadline(Duration::from_secs(1));
    let mut unread_rows = acme_with_deadline.stream_raw(statement(insert)).await.unwrap();
    sleep(Duration::from_millis(2500)).await;
    let read_to_end = async {
        while unread_rows.try_next().await?.is_some() {}
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
        assert_eq!(tx.unguarded().may_have_written(), may_write, "{sql}");
    }
}

#[tokio::test]
async fn an_error_of_a_streamed_statement_is_mapped_like_that_of_any_other_statement() {
    let (_database, handle, role) = create_tenant_database().await;
    let handle = handle.with_error_mapper(|_, _| Error::InvalidClaims { rule: "mapped" }.into());
    let acme = as_tenant(&handle, &role, "acme");
    // Only a superuser may read this table.
    let denied_query = "SELECT rolname FROM pg_authid";
    assert_eq!(outcome_code(acme.query_all_raw(statement(denied_query)).await), "invalid_claims");
    assert_eq!(outcome_code(count_streamed(&acme, denied_query).await), "invalid_claims");
    assert_eq!(outcome_code(count_streamed(&acme.begin().await.unwrap(), denied_query).await), "invalid_claims");
    // This query fails in its third row.
    let failing_query = || statement("SELECT 1 / (2 - n) FROM generate_series(0, 3) AS n");
    let tx = acme.begin().await.unwrap();
    for (mut rows, place) in [
        (acme.stream_raw(failing_query()).await.unwrap(), "outside of a transaction"),
        (tx.stream_raw(failing_query()).await.unwrap(), "in a transaction"),
    ] {
        assert!(rows.try_next().await.unwrap().is_some() && rows.try_next().await.unwrap().is_some(), "{place}");
        assert_eq!(outcome_code(rows.try_next().await), "invalid_claims", "{place}");
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_sent_is_refused_by_streams_and_other_calls_and_nothing_is_written() {
    let (_database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme");
    let int_array = |items: Vec<Value>| Value::Array(ArrayType::Int, Some(Box::new(items)));
    for value in [
        u64::MAX.into(),
        int_array(vec![Value::Int(Some(1)), Value::Int(None)]),
        int_array(vec![Value::BigInt(Some(1))]),
        Value::Array(ArrayType::BigUnsigned, Some(Box::new(vec![u64::MAX.into()]))),
    ] {
        let insert = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "INSERT INTO notes (text) SELECT 'hello' WHERE $1 IS NOT NULL RETURNING text",
            [value.clone()],
        );
        assert_eq!(outcome_code(acme.query_all_raw(insert.clone()).await), "invalid_statement", "{value:?}");
        assert_eq!(outcome_code(acme.stream_raw(insert.clone()).await), "invalid_statement", "{value:?}, streamed");
        let tx = acme.begin().await.unwrap();
        assert_eq!(
            outcome_code(tx.stream_raw(insert.clone()).await),
            "invalid_statement",
            "{value:?}, in a transaction"
        );
        let outcome_as_role = tx.unguarded().execute_as_role(role.clone().into(), insert).await;
        assert_eq!(outcome_code(outcome_as_role), "invalid_statement", "{value:?}, as a role");
        tx.commit().await.unwrap();
    }
    assert_eq!(count_notes(&acme).await, 0);
}

#[tokio::test]
async fn a_statement_that_fails_before_its_first_row_fails_the_call_that_begins_the_stream() {
    let (_database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme");
    let failing_statement = || statement("SELECT 1 / n FROM generate_series(0, 3) AS n");
    assert_eq!(outcome_code(acme.stream_raw(failing_statement()).await), "database");
    let tx = acme.begin().await.unwrap();
    assert_eq!(outcome_code(tx.stream_raw(failing_statement()).await), "database");
    assert_eq!(outcome_code(tx.commit().await), "transaction_failed");
    // This one fails in its third row.
    let mut rows = acme.stream_raw(statement("SELECT 1 / (2 - n) FROM generate_series(0, 3) AS n")).await.unwrap();
    assert!(rows.try_next().await.unwrap().is_some());
    assert!(rows.try_next().await.unwrap().is_some());
    assert_eq!(outcome_code(rows.try_next().await), "database");
    assert!(rows.try_next().await.unwrap().is_none(), "after its error, a stream is over");
}

#[tokio::test]
async fn what_a_streamed_view_has_written_is_rolled_back_if_the_stream_is_dropped() {
    let (database, handle, role) = create_tenant_database().await;
    let schema = format!(
        "CREATE FUNCTION note() RETURNS text LANGUAGE sql AS
           $$ INSERT INTO public.notes (text) VALUES ('hello') RETURNING text $$;
         CREATE VIEW writing AS SELECT note() AS text FROM generate_series(1, 3);
         GRANT SELECT ON writing TO {role}"
    );
    database.connect(1).await.unwrap().execute_unprepared(&schema).await.unwrap();
    let acme = as_tenant(&handle, &role, "acme");
    let select = r#"SELECT "text" FROM "writing""#;
    let mut rows = acme.stream_raw(statement(select)).await.unwrap();
    assert!(rows.try_next().await.unwrap().is_some());
    drop(rows);
    // The pool has two connections, so these two transactions can begin only once the stream's transaction has ended.
    let transactions = [acme.begin().await.unwrap(), acme.begin().await.unwrap()];
    drop(transactions);
    assert_eq!(count_notes(&acme).await, 0);
    assert_eq!(count_streamed(&acme, select).await.unwrap(), 3);
    assert_eq!(count_notes(&acme).await, 3);
}

#[tokio::test]
async fn a_stream_in_a_transaction_verifies_the_identity_after_its_last_row() {
    let (_database, handle, role) = create_tenant_database().await;
    let tx = as_tenant(&handle, &role, "acme").begin().await.unwrap();
    let change = "SELECT set_config('app.tenant', 'globex', true) FROM generate_series(1, 2)";
    let mut rows = tx.stream_raw(statement(change)).await.unwrap();
    assert!(rows.try_next().await.unwrap().is_some());
    assert!(rows.try_next().await.unwrap().is_some());
    assert_eq!(outcome_code(rows.try_next().await), "identity_changed");
    drop(rows);
    assert_eq!(outcome_code(tx.commit().await), "identity_changed");
}

#[test]
fn a_stream_whose_runtime_shuts_down_ends_with_an_error() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_database, handle, role) = runtime.block_on(create_tenant_database());
    let acme = as_tenant(&handle, &role, "acme");
    let many_rows = statement("SELECT n FROM generate_series(1, 100000) AS n");
    let mut rows = runtime.block_on(acme.stream_raw(many_rows)).unwrap();
    runtime.shutdown_timeout(Duration::from_secs(5));
    let other_runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = other_runtime.block_on(async {
        while rows.try_next().await?.is_some() {}
        Ok::<_, DbErr>(())
    });
    assert_eq!(outcome_code(outcome), "connection_lost");
}

#[tokio::test]
async fn a_streamed_select_that_wrote_nothing_frees_its_connection_as_soon_as_its_last_row_has_been_sent() {
    let (_database, handle, role) = create_tenant_database().await;
    let acme = as_tenant(&handle, &role, "acme");
    acme.execute_unprepared("INSERT INTO notes (text) VALUES ('hello')").await.unwrap();
    let select = || statement(r#"SELECT "text" FROM "notes""#);
    // As many streams as the pool has connections, none of them read yet.
    let mut unread_streams = [acme.stream_raw(select()).await.unwrap(), acme.stream_raw(select()).await.unwrap()];
    assert_eq!(count_notes(&acme).await, 1);
    for rows in &mut unread_streams {
        assert!(rows.try_next().await.unwrap().is_some());
        assert!(rows.try_next().await.unwrap().is_none());
    }
}

#[test]
fn a_stream_whose_runtime_shuts_down_during_its_commit_has_an_unknown_outcome() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_database, acme) = runtime.block_on(create_database_with_commit_delay(1.5));
    let insert = statement("INSERT INTO notes (text) VALUES ('hello') RETURNING text");
    let mut rows = runtime.block_on(acme.stream_raw(insert)).unwrap();
    runtime.block_on(async {
        assert!(rows.try_next().await.unwrap().is_some());
        // Long enough for the COMMIT to be sent, but not for its answer to arrive.
        sleep(Duration::from_millis(500)).await;
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let other_runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(outcome_code(other_runtime.block_on(rows.try_next())), "commit_unknown");
}

#[test]
fn a_streamed_raw_commit_whose_runtime_shuts_down_has_an_unknown_outcome() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_database, acme) = runtime.block_on(create_database_with_commit_delay(1.5));
    let tx = runtime.block_on(acme.begin()).unwrap();
    runtime.block_on(tx.execute_unprepared("INSERT INTO notes (text) VALUES ('hello')")).unwrap();
    let mut commit = tx.stream_raw(statement("COMMIT"));
    // Long enough for the COMMIT to be sent, but not for its answer to arrive.
    let answer = runtime.block_on(async { timeout(Duration::from_millis(500), &mut commit).await.map(drop) });
    assert!(answer.is_err(), "the COMMIT must still be running");
    runtime.shutdown_timeout(Duration::from_secs(5));
    let other_runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(outcome_code(other_runtime.block_on(commit)), "commit_unknown");
}
