//! Calls every operation on a real standby: exactly the operations that are declared as reads have the same outcomes
//! there as on the primary.

use std::collections::BTreeSet;

use sparc::service::Sparc;

use super::{call_and_roll_back, callers::LISTED_CALLERS, documented::find_sources, fixture::Fixture, operations};
use crate::{
    generated_docs::workspace_root,
    standby::{Cluster, current_insert_lsn, wait_until_replayed},
};

/// Returns the names of the operations that the sources of the crate `service` declare as reads.
pub fn declared_reads() -> BTreeSet<String> {
    let mut files = Vec::new();
    find_sources(&workspace_root().join("service/src"), &mut files);
    let find_names = |file| {
        let source = std::fs::read_to_string(file).unwrap();
        let names = source.split("reads \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    // `aggregate.verb` is the example in the documentation of the macro `operation!`.
    files.into_iter().flat_map(find_names).filter(|name| name != "aggregate.verb").collect()
}

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
