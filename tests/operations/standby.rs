//! Calls every operation on a real standby: exactly the operations that are declared as reads have the same outcomes
//! there as on the primary.

use std::collections::BTreeSet;

use sparc::service::Sparc;

use super::{call_and_roll_back, callers::LISTED_CALLERS, fixture::Fixture, operations, sources::declared_reads};
use crate::standby::{Cluster, current_insert_lsn, wait_until_replayed};

#[tokio::test]
async fn operations_declared_as_reads_run_on_a_standby_and_no_others_do() {
    let Some(cluster) = Cluster::start().await else { return };
    let fixture = Fixture::new_in(cluster.world.with_new_pool().await).await;
    let replica = cluster.standby_worlds().await.remove(0);
    wait_until_replayed(&replica, &current_insert_lsn(&fixture.world).await).await;
    let standby_sparc = Sparc::connect(replica.url()).await.unwrap();
    let reads = declared_reads();
    let mut mismatches = Vec::new();
    for operation in operations() {
        let mut outcomes = Vec::new();
        for caller in LISTED_CALLERS {
            outcomes.push(call_and_roll_back(&standby_sparc, &fixture, caller, operation.call).await);
        }
        let is_same_as_on_primary = outcomes == operation.outcomes;
        if is_same_as_on_primary != reads.contains(operation.name) {
            mismatches.push(format!("{}: {outcomes:?}, on the primary {:?}", operation.name, operation.outcomes));
        }
    }
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
    // One declared read is not an operation that a caller can call: a subscription reads its events with `events.page`.
    let callable: BTreeSet<String> = operations().into_iter().map(|operation| operation.name.to_owned()).collect();
    let internal: Vec<_> = reads.difference(&callable).collect();
    assert_eq!(internal, ["events.page"]);
    standby_sparc.close().await.unwrap();
}
