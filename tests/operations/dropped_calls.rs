//! Each operation, called by one caller who may call it, is dropped at each point where it waits; the next caller then
//! uses the same connection.

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use sparc::service::{Error, IdentityConnection, Operations, Options, Sparc, Transaction};

use super::{callers::LISTED_CALLERS, fixture::Fixture, operations};
use crate::{faults::network::Proxy, random_programs::poll_then_drop};

/// Returns the role and the user of the transaction, as the server sees them.
async fn current_identity(tx: &Transaction) -> Result<(String, Option<uuid::Uuid>), Error> {
    let sql = "SELECT current_user::text, auth.uid()";
    let row = tx.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?.unwrap();
    Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
}

/// Asserts that the transaction still runs as its caller, or can only be rolled back.
async fn assert_same_identity_or_failed(tx: &Transaction, caller: &IdentityConnection, context: &str) {
    match current_identity(tx).await {
        Ok(identity) => assert_eq!(identity, (caller.identity().role().to_owned(), caller.user_id()), "{context}"),
        Err(error) => assert_eq!(error.code(), "transaction_failed", "{context}"),
    }
}

#[tokio::test]
async fn an_operation_dropped_at_any_point_does_not_affect_the_next_caller() {
    let fixture = Fixture::new().await;
    let hash_before = fixture.hash_rows().await;
    // The proxy runs in this thread, so no response arrives during a poll of the call: each time the call needs one,
    // the poll returns `Pending`, and the call can be dropped.
    let proxy = Proxy::start_for_world(&fixture.world).await;
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(1)).await.unwrap();
    let next_caller = sparc.as_user(fixture.stranger.user_id);
    let mut drop_points = 0;
    for operation in operations() {
        // The last caller in `LISTED_CALLERS` who may call the operation. Only `tutorial.complete` has none.
        let caller_index = operation.outcomes.iter().rposition(|outcome| *outcome == "done");
        let Some(caller) = caller_index.map(|index| fixture.as_caller(&sparc, LISTED_CALLERS[index])) else { continue };
        for extra_polls in 0.. {
            let context = format!("{} after {} polls", operation.name, extra_polls + 1);
            let tx = caller.begin().await.unwrap();
            let inner = tx.begin().await.unwrap();
            let inner_call_finished = poll_then_drop(extra_polls, (operation.call)(&inner, &fixture)).await.is_some();
            assert_same_identity_or_failed(&inner, &caller, &context).await;
            inner.rollback().await.unwrap();
            let identity = current_identity(&tx)
                .await
                .unwrap_or_else(|error| panic!("{context}, in the outer transaction: {error}"));
            assert_eq!(identity, (caller.identity().role().to_owned(), caller.user_id()), "{context}");
            // Drop the call again, now together with its transaction: the pool's only connection goes to the next
            // caller.
            let outer_call_finished = poll_then_drop(extra_polls, (operation.call)(&tx, &fixture)).await.is_some();
            drop(tx);
            let me =
                next_caller.users().me().await.unwrap_or_else(|error| panic!("{context}, the next caller: {error}"));
            assert_eq!(me.id, fixture.stranger.user_id, "{context}");
            if inner_call_finished && outer_call_finished {
                break;
            }
            drop_points += 1;
            assert!(extra_polls < 200, "{context}: the operation does not finish");
        }
    }
    println!("calls were dropped at {drop_points} points");
    assert!(drop_points > 100, "too few calls were dropped before they finished");
    assert_eq!(fixture.hash_rows().await, hash_before, "a dropped call must commit nothing");
    sparc.close().await.unwrap();
}
