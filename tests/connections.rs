//! What becomes of connections: the handle's own pool, one that a service had already, and transactions left behind.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, Statement, StreamTrait, TransactionTrait};
use sparc::entity::characters;
use sparc::service::{Error, IdentityConnection, Operations, Options, Sparc, Transaction};
use uuid::Uuid;

use crate::world::World;

fn sql(text: &str) -> Statement {
    Statement::from_string(DbBackend::Postgres, text)
}

async fn backend(who: &IdentityConnection) -> i32 {
    who.query_one_raw(sql("SELECT pg_backend_pid()")).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn who_comes_one_after_the_other_has_the_one_warm_connection() {
    let world = World::new().await;
    let sparc = Sparc::connect(world.url()).await.unwrap();
    // Ten are there, and rest.
    let held: Vec<_> =
        futures_util::future::join_all((0..10).map(|_| async { sparc.as_service().begin().await })).await;
    for tx in held {
        tx.unwrap().rollback().await.unwrap();
    }
    let mut backends = HashSet::new();
    for _ in 0..10 {
        backends.insert(backend(&sparc.as_anon()).await);
    }
    assert_eq!(backends.len(), 1);
    sparc.close().await.unwrap();
}

#[tokio::test]
async fn closing_waits_for_what_is_under_way_and_gives_no_more_out() {
    let world = World::new().await;
    let sparc = Sparc::connect(world.url()).await.unwrap();
    let other = sparc.clone();
    let id = world.account().await;
    let tx = sparc.as_user(id).begin().await.unwrap();
    let mut closing = tokio::spawn(sparc.close());
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut closing).await.is_err(), "it waits");
    assert!(matches!(other.as_user(id).users().me().await, Err(Error::PoolClosed)));
    assert_eq!(tx.users().me().await.unwrap().id, id, "what is under way goes on");
    tx.commit().await.unwrap();
    closing.await.unwrap().unwrap();
    let closed = other.as_user(id).users().me().await.unwrap_err();
    assert!(matches!(closed, Error::PoolClosed) && !closed.is_retryable());
}

#[tokio::test]
async fn a_pool_that_a_service_had_is_used_and_given_back() {
    let world = World::new().await;
    let id = world.account().await;
    let db = sparc::migration::connect(world.url()).await.unwrap();
    let sparc = Sparc::from_connection(db.clone());
    assert_eq!(sparc.as_user(id).users().me().await.unwrap().id, id);
    drop(sparc.as_user(id).begin().await.unwrap());
    let row = db.query_one_raw(sql("SELECT current_user = session_user")).await.unwrap().unwrap();
    assert!(row.try_get_by_index::<bool>(0).unwrap(), "nothing of an identity is left on it");
    sparc.close().await.unwrap();
    let nowhere = Sparc::from_connection(DatabaseConnection::default());
    let none = nowhere.as_user(id).users().me().await.unwrap_err();
    assert!(matches!(none, Error::Misconfigured { .. }) && !none.is_retryable(), "none at all is an error: {none:?}");
}

#[tokio::test]
async fn a_transaction_that_is_left_where_nothing_runs_takes_its_connection_with_it() {
    let world = World::new().await;
    let id = world.account().await;
    let given = Sparc::from_connection(sparc::migration::connect(world.url()).await.unwrap());
    let own = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    for sparc in [own, given] {
        let tx = sparc.as_user(id).begin().await.unwrap();
        rename(&tx, id, "left").await;
        std::thread::spawn(move || drop(tx)).join().expect("no panic outside of a runtime");

        // A runtime that ends before the rollback is done.
        let tx = sparc.as_user(id).begin().await.unwrap();
        rename(&tx, id, "left").await;
        let ending = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _inside = runtime.enter();
            drop(tx);
        };
        std::thread::spawn(ending).join().unwrap();

        let tx = sparc.as_user(id).begin().await.unwrap();
        assert_eq!(named(&tx).await, None, "undone, and not on the connection of the next one");
        tx.commit().await.unwrap();
        sparc.close().await.unwrap();
    }
}

async fn rename(tx: &Transaction, id: Uuid, name: &str) {
    let statement = format!("UPDATE users SET bio = '{name}' WHERE id = '{id}'");
    assert_eq!(tx.execute_raw(sql(&statement)).await.unwrap().rows_affected(), 1);
}

async fn named(tx: &Transaction) -> Option<String> {
    tx.users().me().await.unwrap().bio
}

#[tokio::test]
async fn a_nested_transaction_that_is_left_is_undone_and_the_outer_one_goes_on() {
    let world = World::new().await;
    let id = world.account().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let ada = sparc.as_user(id);
    let tx = ada.begin().await.unwrap();
    rename(&tx, id, "outer").await;
    let inner = tx.begin().await.unwrap();
    rename(&inner, id, "inner").await;
    let innermost = inner.begin().await.unwrap();
    rename(&innermost, id, "innermost").await;
    drop(innermost);
    assert_eq!(named(&inner).await.as_deref(), Some("inner"));
    drop(inner);
    assert_eq!(named(&tx).await.as_deref(), Some("outer"));
    let inner = tx.begin().await.unwrap();
    rename(&inner, id, "kept").await;
    inner.commit().await.unwrap();
    // One that is left in a failed state, too.
    let inner = tx.begin().await.unwrap();
    assert!(inner.execute_raw(sql("SELECT 1 / 0")).await.is_err());
    drop(inner);
    tx.commit().await.unwrap();
    assert_eq!(ada.users().me().await.unwrap().bio.as_deref(), Some("kept"));
    drop(ada.begin().await.unwrap());
    assert_eq!(ada.users().me().await.unwrap().bio.as_deref(), Some("kept"), "the one connection comes back at rest");
}

#[tokio::test]
async fn a_stream_that_is_left_ends_before_the_transaction_goes_on() {
    let world = World::new().await;
    let id = world.account().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let ada = sparc.as_user(id);
    let tx = ada.begin().await.unwrap();
    let rows = "SELECT i, current_user::text FROM generate_series(1, 100000) AS i";
    let mut stream = tx.stream_raw(sql(rows)).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    assert_eq!(tx.users().me().await.unwrap().id, id);
    drop(tx.stream_raw(sql("SELECT pg_sleep(0), current_user::text")).await.unwrap());
    tx.commit().await.unwrap();
    let all: Vec<_> = ada.stream_raw(sql(rows)).await.unwrap().try_collect().await.unwrap();
    let last: String = all.last().unwrap().try_get_by_index(1).unwrap();
    assert_eq!((all.len(), last.as_str()), (100_000, "authenticated"));
}

/// Ends all connections of the service but ours.
async fn end_idle(world: &World) -> i64 {
    let end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'sparc'";
    world.owner().value(end).await.unwrap()
}

#[tokio::test]
async fn connections_that_the_server_ended_while_they_were_idle_are_replaced() {
    let world = World::new().await;
    let id = world.account().await;
    for size in [1, 5, 9] {
        let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(size)).await.unwrap();
        let ada = sparc.as_user(id);
        for way in 0..5 {
            let held = futures_util::future::join_all((0..size).map(|_| ada.begin())).await;
            drop(held.into_iter().map(Result::unwrap).collect::<Vec<_>>());
            world.owner().wait_for_rollbacks().await;
            assert_eq!(end_idle(&world).await, i64::from(size));
            match way {
                0 => assert_eq!(ada.users().me().await.unwrap().id, id),
                1 => assert_eq!(characters::Entity::find().all(&ada).await.unwrap().len(), 0),
                2 => assert!(backend(&ada).await > 0),
                3 => ada.begin().await.unwrap().commit().await.unwrap(),
                _ => {
                    let rows = ada.stream_raw(sql("SELECT 1")).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
                    assert_eq!(rows.len(), 1);
                }
            }
        }
        sparc.close().await.unwrap();
    }
    // And of a pool that the service had already.
    let db = sparc::migration::connect(world.url()).await.unwrap();
    let ada = Sparc::from_connection(db).as_user(id);
    ada.users().me().await.unwrap();
    let end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'sparc migration'";
    assert!(world.owner().value::<i64>(end).await.unwrap() > 0);
    assert_eq!(characters::Entity::find().all(&ada).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_connection_lost_in_a_callers_transaction_left_nothing() {
    let world = World::new().await;
    let id = world.account().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(2)).await.unwrap();
    let ada = sparc.as_user(id);
    let tx = ada.begin().await.unwrap();
    rename(&tx, id, "lost").await;
    assert_eq!(end_idle(&world).await, 1);
    let lost = tx.users().me().await.unwrap_err();
    assert!(matches!(lost, Error::ConnectionLost(_)) && lost.is_retryable(), "{lost:?}");
    assert!(lost.to_string().contains("nothing was done"), "{lost}");
    assert!(matches!(tx.users().me().await, Err(Error::ConnectionLost(_))));
    assert!(matches!(tx.commit().await.map_err(Error::from), Err(Error::ConnectionLost(_))), "no commit was sent");
    let tx = ada.begin().await.unwrap();
    assert_eq!(named(&tx).await, None);
    end_idle(&world).await;
    // A commit that was sent is another matter; a rollback is not.
    let outcome = tx.commit().await.map_err(Error::from).unwrap_err();
    assert!(matches!(outcome, Error::CommitUnknown(_)) && !outcome.is_retryable(), "{outcome:?}");
    let tx = ada.begin().await.unwrap();
    end_idle(&world).await;
    tx.rollback().await.unwrap();
    assert!(ada.users().me().await.is_ok());
}
