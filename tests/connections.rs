//! Connections from opening to closing: the pool that a handle (`Sparc`) opens, an application's existing pool, and
//! abandoned transactions and row streams.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, Statement, StreamTrait, TransactionTrait};
use sparc::{
    entity::characters,
    service::{Error, Operations, Options, Sparc, Transaction},
};
use uuid::Uuid;

use crate::world::{World, outcome_code};

fn statement(text: &str) -> Statement {
    Statement::from_string(DbBackend::Postgres, text)
}

async fn backend_pid(connection: &impl ConnectionTrait) -> i32 {
    connection.query_one_raw(statement("SELECT pg_backend_pid()")).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// Waits until the backend with that process id has ended.
async fn wait_for_end_of_backend(world: &World, pid: i32) {
    for _ in 0..400 {
        if world.owner().count(&format!("pg_stat_activity WHERE pid = {pid}")).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("backend {pid} does not end");
}

#[tokio::test]
async fn sequential_callers_share_one_of_several_idle_connections() {
    let world = World::new().await;
    let sparc = Sparc::connect(world.url()).await.unwrap();
    // Opens ten connections and leaves them idle.
    let open_transactions: Vec<_> =
        futures_util::future::join_all((0..10).map(|_| async { sparc.as_service().begin().await })).await;
    for tx in open_transactions {
        tx.unwrap().rollback().await.unwrap();
    }
    let mut backend_pids = HashSet::new();
    for _ in 0..10 {
        backend_pids.insert(backend_pid(&sparc.as_anon()).await);
    }
    assert_eq!(backend_pids.len(), 1);
    sparc.close().await.unwrap();
}

#[tokio::test]
async fn closing_the_handle_waits_for_open_transactions_and_acquires_no_more_connections() {
    let world = World::new().await;
    let sparc = Sparc::connect(world.url()).await.unwrap();
    let cloned_handle = sparc.clone();
    let user_id = world.new_account().await;
    let tx = sparc.as_user(user_id).begin().await.unwrap();
    let mut close_task = tokio::spawn(sparc.close());
    assert!(
        tokio::time::timeout(Duration::from_millis(100), &mut close_task).await.is_err(),
        "closing must wait for the open transaction"
    );
    assert_error!(cloned_handle.as_user(user_id).users().me().await, Error::PoolClosed);
    assert_eq!(tx.users().me().await.unwrap().id, user_id, "the open transaction must continue");
    tx.commit().await.unwrap();
    close_task.await.unwrap().unwrap();
    let error = cloned_handle.as_user(user_id).users().me().await.unwrap_err();
    assert!(matches!(error, Error::PoolClosed) && !error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn an_applications_existing_pool_is_used_and_its_connections_are_returned_clean() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    // A pool of one connection.
    let db = sparc::migration::connect(world.url()).await.unwrap();
    let sparc = Sparc::from_connection(db.clone());
    assert_eq!(sparc.as_user(user_id).users().me().await.unwrap().id, user_id);
    drop(sparc.as_user(user_id).begin().await.unwrap());
    let row = db.query_one_raw(statement("SELECT current_user = session_user")).await.unwrap().unwrap();
    assert!(row.try_get_by_index::<bool>(0).unwrap(), "no identity may be left on the pool's only connection");
    sparc.close().await.unwrap();
    let sparc_without_pool = Sparc::from_connection(DatabaseConnection::default());
    let error = sparc_without_pool.as_user(user_id).users().me().await.unwrap_err();
    assert!(
        matches!(error, Error::Misconfigured { .. }) && !error.is_retryable(),
        "a handle without a pool must be reported as a configuration error: {error:?}"
    );
}

#[tokio::test]
async fn dropping_a_transaction_where_no_runtime_can_roll_it_back_closes_its_connection() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    let sparc_over_existing_pool = Sparc::from_connection(sparc::migration::connect(world.url()).await.unwrap());
    let sparc_with_own_pool = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    for sparc in [sparc_with_own_pool, sparc_over_existing_pool] {
        let tx = sparc.as_user(user_id).begin().await.unwrap();
        set_bio(&tx, user_id, "uncommitted").await;
        let pid = backend_pid(&tx).await;
        std::thread::spawn(move || drop(tx)).join().expect("dropping outside of a runtime must not panic");
        wait_for_end_of_backend(&world, pid).await;

        // Drops the transaction in a runtime that shuts down before the rollback has finished.
        let tx = sparc.as_user(user_id).begin().await.unwrap();
        set_bio(&tx, user_id, "uncommitted").await;
        let pid = backend_pid(&tx).await;
        let drop_in_ending_runtime = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _entered = runtime.enter();
            drop(tx);
        };
        std::thread::spawn(drop_in_ending_runtime).join().unwrap();
        wait_for_end_of_backend(&world, pid).await;

        let tx = sparc.as_user(user_id).begin().await.unwrap();
        assert_eq!(read_bio(&tx).await, None, "the change must be rolled back");
        tx.commit().await.unwrap();
        sparc.close().await.unwrap();
    }
}

async fn set_bio(tx: &Transaction, user_id: Uuid, bio: &str) {
    let update = format!("UPDATE users SET bio = '{bio}' WHERE id = '{user_id}'");
    assert_eq!(tx.execute_raw(statement(&update)).await.unwrap().rows_affected(), 1);
}

async fn read_bio(tx: &Transaction) -> Option<String> {
    tx.users().me().await.unwrap().bio
}

#[tokio::test]
async fn a_dropped_nested_transaction_is_rolled_back_and_the_outer_one_continues() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let ada = sparc.as_user(user_id);
    let tx = ada.begin().await.unwrap();
    set_bio(&tx, user_id, "outer").await;
    let inner = tx.begin().await.unwrap();
    set_bio(&inner, user_id, "inner").await;
    let innermost = inner.begin().await.unwrap();
    set_bio(&innermost, user_id, "innermost").await;
    drop(innermost);
    assert_eq!(read_bio(&inner).await.as_deref(), Some("inner"));
    drop(inner);
    assert_eq!(read_bio(&tx).await.as_deref(), Some("outer"));
    let inner = tx.begin().await.unwrap();
    set_bio(&inner, user_id, "committed").await;
    inner.commit().await.unwrap();
    // A nested transaction that is dropped after a failed statement is rolled back too.
    let inner = tx.begin().await.unwrap();
    assert!(inner.execute_raw(statement("SELECT 1 / 0")).await.is_err());
    drop(inner);
    tx.commit().await.unwrap();
    assert_eq!(ada.users().me().await.unwrap().bio.as_deref(), Some("committed"));
    drop(ada.begin().await.unwrap());
    assert_eq!(
        ada.users().me().await.unwrap().bio.as_deref(),
        Some("committed"),
        "the only connection must return to the pool without an open transaction"
    );
}

#[tokio::test]
async fn after_a_dropped_stream_its_transaction_and_its_connection_can_be_used() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let ada = sparc.as_user(user_id);
    let tx = ada.begin().await.unwrap();
    let select_rows = "SELECT i, current_user::text FROM generate_series(1, 100000) AS i";
    let mut stream = tx.stream_raw(statement(select_rows)).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    assert_eq!(tx.users().me().await.unwrap().id, user_id);
    // A stream may also be dropped before its first row.
    drop(tx.stream_raw(statement("SELECT 1")).await.unwrap());
    tx.commit().await.unwrap();
    let all_rows: Vec<_> = ada.stream_raw(statement(select_rows)).await.unwrap().try_collect().await.unwrap();
    let role_of_last_row: String = all_rows.last().unwrap().try_get_by_index(1).unwrap();
    assert_eq!((all_rows.len(), role_of_last_row.as_str()), (100_000, "authenticated"));
}

/// Terminates all connections of pools that a handle has opened, and returns their number. (The connections of an
/// application's existing pool have another application name.)
async fn terminate_sparc_connections(world: &World) -> i64 {
    let terminate = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'sparc'";
    world.owner().fetch_value(terminate).await.unwrap()
}

#[tokio::test]
async fn idle_connections_that_the_server_closed_are_replaced() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    for size in [1, 5, 9] {
        let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(size)).await.unwrap();
        let ada = sparc.as_user(user_id);
        for call_kind in 0..5 {
            // Opens all connections of the pool and leaves them idle.
            let transactions = futures_util::future::join_all((0..size).map(|_| ada.begin())).await;
            drop(transactions.into_iter().map(Result::unwrap).collect::<Vec<_>>());
            world.owner().assert_no_transaction_stays_idle().await;
            assert_eq!(terminate_sparc_connections(&world).await, i64::from(size));
            // An operation, an entity's query, a raw query, a transaction, a stream.
            match call_kind {
                0 => assert_eq!(ada.users().me().await.unwrap().id, user_id),
                1 => assert_eq!(characters::Entity::find().all(&ada).await.unwrap().len(), 0),
                2 => assert!(backend_pid(&ada).await > 0),
                3 => ada.begin().await.unwrap().commit().await.unwrap(),
                _ => {
                    let rows =
                        ada.stream_raw(statement("SELECT 1")).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
                    assert_eq!(rows.len(), 1);
                }
            }
        }
        sparc.close().await.unwrap();
    }
    // The connections of an application's existing pool are replaced too.
    let db = sparc::migration::connect(world.url()).await.unwrap();
    let ada = Sparc::from_connection(db).as_user(user_id);
    ada.users().me().await.unwrap();
    let terminate = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'sparc migration'";
    assert!(world.owner().fetch_value::<i64>(terminate).await.unwrap() > 0);
    assert_eq!(characters::Entity::find().all(&ada).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_connection_lost_in_a_callers_transaction_is_reported_as_lost_or_as_an_unknown_commit() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(2)).await.unwrap();
    let ada = sparc.as_user(user_id);
    let tx = ada.begin().await.unwrap();
    set_bio(&tx, user_id, "lost").await;
    assert_eq!(terminate_sparc_connections(&world).await, 1);
    let error = tx.users().me().await.unwrap_err();
    assert!(matches!(error, Error::ConnectionLost(_)) && error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("nothing was done"), "{error}");
    assert_error!(tx.users().me().await, Error::ConnectionLost(_));
    assert_error!(
        tx.commit().await.map_err(Error::from),
        Error::ConnectionLost(_),
        "no commit was sent, so the transaction is known to be rolled back"
    );
    let tx = ada.begin().await.unwrap();
    assert_eq!(read_bio(&tx).await, None);
    assert_eq!(terminate_sparc_connections(&world).await, 1);
    // The client has not noticed the loss yet, so it sends the commit, whose outcome is then unknown.
    let error = tx.commit().await.map_err(Error::from).unwrap_err();
    assert!(matches!(error, Error::CommitUnknown(_)) && !error.is_retryable(), "{error:?}");
    // A rollback succeeds, because the server rolls back a transaction whose connection is lost.
    let tx = ada.begin().await.unwrap();
    assert_eq!(terminate_sparc_connections(&world).await, 1);
    tx.rollback().await.unwrap();
    assert!(ada.users().me().await.is_ok());
}

#[tokio::test]
async fn a_pool_that_is_too_small_is_reported_as_exhausted() {
    let world = World::new().await;
    let options = Options::default().max_connections(1).acquire_timeout(Duration::from_millis(200));
    let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
    let open_transaction = sparc.as_anon().begin().await.unwrap();
    let status = sparc.user_pool_status();
    assert_eq!((status.max_connections, status.connections, status.idle), (1, 1, 0));
    assert_eq!(outcome_code(sparc.as_anon().users().profiles(&[]).await), "pool_exhausted");
    open_transaction.rollback().await.unwrap();
    assert_eq!(outcome_code(sparc.as_anon().users().profiles(&[]).await), "done");
    // The connection of a read stays in use until the server has answered its commit. `ping` needs the same connection,
    // so it waits until then.
    sparc.ping().await.unwrap();
    let status = sparc.user_pool_status();
    assert_eq!((status.connections, status.idle, status.waiting), (1, 1, 0));
    assert_eq!(sparc.service_pool_status(), status, "users and the service share one pool");
    sparc.close().await.unwrap();
}

#[tokio::test]
async fn connections_set_their_application_name() {
    let world = World::new().await;
    let sparc = Sparc::connect(world.url()).await.unwrap();
    let select_name = statement("SELECT current_setting('application_name')");
    let row = sparc.as_anon().query_one_raw(select_name).await.unwrap().unwrap();
    assert_eq!(row.try_get_by_index::<String>(0).unwrap(), "sparc");
    sparc.close().await.unwrap();
}
