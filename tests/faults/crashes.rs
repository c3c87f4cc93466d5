//! The whole server is killed, or single backends are terminated: no acknowledged row is lost.
//!
//! `SPARC_CRASHES` sets the number of crashes, and `SPARC_TERMINATIONS` how often a test tries to terminate a backend.
//! For a longer run: `SPARC_CRASHES=50 SPARC_TERMINATIONS=500 cargo test --test integration faults::crashes`.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use sparc::service::{Options, Sparc};
use testdb::Server;

use super::{Load, assert_all_transactions_end, assert_call_succeeds, assert_nothing_lost, env_number};
use crate::{
    random_operations::{RandomOperations, broken_invariants, unexpected_errors},
    world::World,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_rows_survive_a_crash() {
    let crash_count = env_number("SPARC_CRASHES", 2);
    // The servers of other tests run with these settings off, and could lose acknowledged rows in a crash.
    let settings = ["fsync=on", "synchronous_commit=on", "full_page_writes=on"];
    let server = Server::start_plain(Some(&settings)).await.unwrap();
    let world = World::new_on(&server).await;
    let operations = Arc::new(RandomOperations::new(&world, 20).await);
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(8)).await.unwrap();
    let mut rng = Rng::with_seed(6);
    let load = Load::start(&sparc, &operations, 8);
    for _ in 0..crash_count {
        tokio::time::sleep(Duration::from_millis(rng.u64(100..600))).await;
        let server = server.clone();
        tokio::task::spawn_blocking(move || server.crash_and_restart()).await.unwrap().unwrap();
        assert_call_succeeds(&sparc).await;
        let reconnected_world = world.with_new_pool().await;
        assert_eq!(broken_invariants(&reconnected_world).await, [""; 0]);
    }
    let outcomes = load.stop().await;
    let world = world.with_new_pool().await;
    assert_nothing_lost(&world, &outcomes.acknowledged).await;
    assert_eq!(broken_invariants(&world).await, [""; 0]);
    assert_all_transactions_end(&world).await;
    println!(
        "{crash_count} crashes, all {} acknowledged rows found; calls by outcome: {:?}",
        outcomes.acknowledged.len(),
        outcomes.counts_by_code
    );
    assert_eq!(
        unexpected_errors(&outcomes.counts_by_code, &["connection_lost", "commit_unknown", "pool_exhausted"]),
        [""; 0]
    );
    assert!(outcomes.counts_by_code["done"] > 0);
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminating_random_backends_loses_no_acknowledged_row() {
    let attempt_count = env_number("SPARC_TERMINATIONS", 30);
    let world = World::new().await;
    let operations = Arc::new(RandomOperations::new(&world, 20).await);
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(8)).await.unwrap();
    let load = Load::start(&sparc, &operations, 8);
    // Terminates one backend, if possible one in a transaction, but not the one that runs this statement.
    let terminate_one = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM (
                 SELECT pid FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
                 ORDER BY xact_start IS NULL, random() LIMIT 1
               ) AS one";
    let owner = world.owner();
    let mut terminated_count = 0;
    for _ in 0..attempt_count {
        tokio::time::sleep(Duration::from_millis(30)).await;
        terminated_count += owner.fetch_value::<i64>(terminate_one).await.unwrap();
    }
    let outcomes = load.stop().await;
    let reconnected_world = world.with_new_pool().await;
    assert_nothing_lost(&reconnected_world, &outcomes.acknowledged).await;
    assert_eq!(broken_invariants(&reconnected_world).await, [""; 0]);
    assert_all_transactions_end(&reconnected_world).await;
    println!("{terminated_count} backends terminated; calls by outcome: {:?}", outcomes.counts_by_code);
    assert_eq!(unexpected_errors(&outcomes.counts_by_code, &["connection_lost", "commit_unknown"]), [""; 0]);
    assert!(terminated_count > 0, "no backend was terminated");
    assert_call_succeeds(&sparc).await;
    sparc.close().await.unwrap();
}
