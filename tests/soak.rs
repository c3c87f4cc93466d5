//! Many users call random operations in the same sessions at once. A transaction that fails because of a deadlock is
//! retried, so no caller gets the deadlock as an error, and every invariant holds at the end.
//!
//! For a longer run, with 64 clients for five minutes: `SPARC_SOAK=300 cargo test --release --test integration soak`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use sparc::service::{Options, Sparc};

use crate::{
    random_operations::{RandomOperations, broken_invariants, unexpected_errors},
    world::{World, run_together},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_users_who_call_random_operations_break_no_invariant_and_get_no_unexpected_error() {
    let seconds = std::env::var("SPARC_SOAK").map_or(3, |seconds| seconds.parse().unwrap());
    let client_count = if seconds > 10 { 64 } else { 16 };
    let world = World::new().await;
    let user_count = 40;
    let operations = Arc::new(RandomOperations::new(&world, user_count).await);
    let options = Options::default().max_connections(client_count).acquire_timeout(Duration::from_secs(60));
    let sparc = Sparc::connect_with(world.url(), options).await.unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..client_count)
        .map(|client_index| {
            let (sparc, operations) = (sparc.clone(), operations.clone());
            async move {
                let mut rng = Rng::with_seed(u64::from(client_index));
                let mut counts_by_code = BTreeMap::<&'static str, usize>::new();
                while Instant::now() < end {
                    let outcome = operations.call_random_operation(&sparc, &mut rng).await;
                    *counts_by_code.entry(outcome.map_or_else(|error| error.code(), |_| "done")).or_default() += 1;
                }
                counts_by_code
            }
        })
        .collect();
    let mut counts_by_code = BTreeMap::new();
    for counts_of_client in run_together(tasks).await {
        for (code, times) in counts_of_client {
            *counts_by_code.entry(code).or_default() += times;
        }
    }
    sparc.close().await.unwrap();
    println!("{seconds} s, {} operations: {counts_by_code:?}", counts_by_code.values().sum::<usize>());
    assert_eq!(unexpected_errors(&counts_by_code, &[]), [""; 0], "{counts_by_code:?}");
    assert!(
        counts_by_code["done"] > counts_by_code.values().sum::<usize>() / 10,
        "more than a tenth of the operations must succeed: {counts_by_code:?}"
    );
    assert_eq!(broken_invariants(&world).await, [""; 0]);
    let deadlocks: i64 = world
        .owner()
        .fetch_value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        .await
        .unwrap();
    println!("{deadlocks} deadlocks, none returned to a caller as an error");
}
