//! Every operation on a real standby: those that are declared to read answer there as everywhere, and no others do.

use std::collections::BTreeSet;

use sparc::service::Sparc;

use super::{operations, rolled_back, scene::EVERYBODY, scene::Scene};
use crate::{
    documents::root,
    standby::{Three, until_replayed, written},
};

/// The operations that `service/src/operation.rs` declares to read.
pub fn reads() -> BTreeSet<String> {
    let source = std::fs::read_to_string(root().join("service/src/operation.rs")).unwrap();
    let list = source.split_once("const READS:").unwrap().1.split_once("];").unwrap().0;
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn operations_that_read_answer_on_a_standby_and_no_others_do() {
    let Some(three) = Three::start().await else { return };
    let scene = Scene::of(three.world.again().await).await;
    let copy = three.copies().await.remove(0);
    until_replayed(&copy, &written(&scene.world).await).await;
    let standby = Sparc::connect(copy.url()).await.unwrap();
    let reads = reads();
    let mut wrong = Vec::new();
    for operation in operations() {
        let mut told = Vec::new();
        for who in EVERYBODY {
            told.push(rolled_back(&standby, &scene, who, operation.ask).await);
        }
        let answers = told == operation.told;
        if answers != reads.contains(operation.name) {
            wrong.push(format!("{}: {told:?}, on the primary {:?}", operation.name, operation.told));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // One that reads the events of a subscription is no method.
    let known: BTreeSet<String> = operations().into_iter().map(|operation| operation.name.to_owned()).collect();
    let unknown: Vec<_> = reads.difference(&known).collect();
    assert_eq!(unknown, ["events.page"]);
    standby.close().await.unwrap();
}
