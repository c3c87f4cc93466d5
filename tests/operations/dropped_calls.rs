//! Every call of an operation is dropped at each point where it waits, and the next caller uses the connection at once.

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use sparc::service::{Error, IdentityConnection, Operations, Options, Sparc, Transaction};

use super::{
    operations,
    scene::{CALLERS, Scene},
};
use crate::{faults::network::Proxy, programs::poll_then_drop};

/// Returns the role and user that the next statement runs as.
async fn current_identity(tx: &Transaction) -> Result<(String, Option<uuid::Uuid>), Error> {
    let sql = "SELECT current_user::text, auth.uid()";
    let row = tx.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?.unwrap();
    Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
}

/// Asserts that the transaction still runs as its caller, or can only be rolled back.
async fn assert_same_identity(tx: &Transaction, caller: &IdentityConnection, what: &str) {
    match current_identity(tx).await {
        Ok(identity) => assert_eq!(identity, (caller.identity().role().to_owned(), caller.user_id()), "{what}"),
        Err(error) => assert_eq!(error.code(), "transaction_failed", "{what}"),
    }
}

#[tokio::test]
async fn an_operation_dropped_at_any_point_does_not_affect_the_next_caller() {
    let scene = Scene::new().await;
    let before = scene.hash_rows().await;
    // The proxy runs in this thread, so no response arrives before the test waits for it.
    let proxy = Proxy::to_world(&scene.world).await;
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(1)).await.unwrap();
    let next_caller = sparc.as_user(scene.stranger.id);
    let mut dropped = 0;
    for operation in operations() {
        let caller = operation.outcomes.iter().rposition(|outcome| *outcome == "done");
        let Some(caller) = caller.map(|index| scene.identity(&sparc, CALLERS[index])) else { continue };
        for polls in 0.. {
            let what = format!("{} after {polls} polls", operation.name);
            let tx = caller.begin().await.unwrap();
            let inner = tx.begin().await.unwrap();
            let is_finished = poll_then_drop(polls, (operation.call)(&inner, &scene)).await.is_some();
            assert_same_identity(&inner, &caller, &what).await;
            inner.rollback().await.unwrap();
            let identity =
                current_identity(&tx).await.unwrap_or_else(|error| panic!("{what}, in the outer transaction: {error}"));
            assert_eq!(identity, (caller.identity().role().to_owned(), caller.user_id()), "{what}");
            // Drop the call again, now together with its transaction: the pool's only connection goes to the next
            // caller.
            let is_finished = poll_then_drop(polls, (operation.call)(&tx, &scene)).await.is_some() && is_finished;
            drop(tx);
            let me = next_caller.users().me().await.unwrap_or_else(|error| panic!("{what}, the next caller: {error}"));
            assert_eq!(me.id, scene.stranger.id, "{what}");
            if is_finished {
                break;
            }
            dropped += 1;
            assert!(polls < 200, "{what}: the operation does not finish");
        }
    }
    println!("{dropped} calls dropped");
    assert!(dropped > 100, "{dropped}");
    assert_eq!(scene.hash_rows().await, before, "nothing was committed");
    sparc.close().await.unwrap();
}
