//! Every operation on a real standby: those that are declared as reads return there what they return on the primary,
//! and no others do.

use std::collections::BTreeSet;

use sparc::service::Sparc;

use super::{documented::sources, operations, rolled_back, scene::EVERYBODY, scene::Scene};
use crate::{
    documents::root,
    standby::{Cluster, current_lsn, wait_until_replayed},
};

/// Returns the operations that the service's sources declare as reads.
pub fn reads() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root().join("service/src"), &mut files);
    let declared = |file| {
        let source = std::fs::read_to_string(file).unwrap();
        let names = source.split("reads \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    files.into_iter().flat_map(declared).filter(|name| name != "aggregate.verb").collect()
}

#[tokio::test]
async fn operations_declared_as_reads_run_on_a_standby_and_no_others_do() {
    let Some(cluster) = Cluster::start().await else { return };
    let scene = Scene::of(cluster.world.reconnect().await).await;
    let copy = cluster.copies().await.remove(0);
    wait_until_replayed(&copy, &current_lsn(&scene.world).await).await;
    let standby = Sparc::connect(copy.url()).await.unwrap();
    let reads = reads();
    let mut wrong = Vec::new();
    for operation in operations() {
        let mut outcomes = Vec::new();
        for who in EVERYBODY {
            outcomes.push(rolled_back(&standby, &scene, who, operation.call).await);
        }
        let is_same = outcomes == operation.outcomes;
        if is_same != reads.contains(operation.name) {
            wrong.push(format!("{}: {outcomes:?}, on the primary {:?}", operation.name, operation.outcomes));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The read of a subscription's events is not a public method.
    let known: BTreeSet<String> = operations().into_iter().map(|operation| operation.name.to_owned()).collect();
    let unknown: Vec<_> = reads.difference(&known).collect();
    assert_eq!(unknown, ["events.page"]);
    standby.close().await.unwrap();
}
