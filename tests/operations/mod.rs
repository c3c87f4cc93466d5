//! Every operation of the crate `service`, called by every kind of caller: who may call it, and which error the others
//! get. In the tests of this file, each call runs in a transaction of the caller's that is rolled back, so all calls
//! run on the same rows. The operations that cannot run in a transaction are tested elsewhere (`OUTSIDE_TRANSACTIONS`
//! in `documented.rs`). A *visitor* has not signed in, a *stranger* is a user who has no part in the session, and *the
//! service*, as a caller, is the role `service_role`.

use std::collections::BTreeSet;

use sea_orm::TransactionTrait;
use sparc::service::{Error, Sparc};

mod adventures;
mod callers;
mod characters;
mod creatures;
mod dice;
mod documented;
mod dropped_calls;
mod early_returns;
mod events;
mod fixture;
mod maintenance;
mod operation;
mod round_trips;
mod session_refusals;
mod sessions;
mod sources;
mod standby;
mod tutorial;
mod users;

use callers::{Caller, LISTED_CALLERS};
use fixture::Fixture;
use operation::{Call, Operation, Refusal};

use crate::world::is_platform_layout_requested;

fn operations() -> Vec<Operation> {
    let mut all = users::operations();
    all.extend(characters::operations());
    all.extend(adventures::operations());
    all.extend(creatures::operations());
    all.extend(sessions::operations());
    all.extend(dice::operations());
    all.extend(events::operations());
    all.extend(tutorial::operations());
    all.extend(maintenance::operations());
    all
}

fn refusals() -> Vec<Refusal> {
    let mut all = users::refusals();
    all.extend(characters::refusals());
    all.extend(adventures::refusals());
    all.extend(creatures::refusals());
    all.extend(session_refusals::refusals());
    all.extend(dice::refusals());
    all.extend(events::refusals());
    all.extend(tutorial::refusals());
    all
}

/// Begins a transaction as the caller, makes the call in it, rolls the transaction back, and returns the outcome of the
/// call. If the transaction cannot begin, makes no call and returns the code of that error. The transaction of a
/// [`Caller::ClosedAccount`] never begins.
async fn call_and_roll_back(sparc: &Sparc, fixture: &Fixture, caller: Caller, call: Call) -> &'static str {
    let tx = match fixture.as_caller(sparc, caller).begin().await {
        Ok(tx) => tx,
        Err(error) => return Error::from(error).code(),
    };
    let outcome = call(&tx, fixture).await;
    tx.rollback().await.unwrap();
    outcome
}

#[tokio::test]
async fn each_caller_gets_the_listed_outcome_and_a_rollback_undoes_everything() {
    let fixture = Fixture::new().await;
    let hash_before = fixture.hash_rows().await;
    let mut mismatches = Vec::new();
    for operation in operations() {
        let mut outcomes = Vec::new();
        for caller in LISTED_CALLERS {
            outcomes.push(call_and_roll_back(&fixture.world.sparc, &fixture, caller, operation.call).await);
        }
        if outcomes != operation.outcomes {
            mismatches.push(format!("{}: {:?}\n    instead of {:?}", operation.name, outcomes, operation.outcomes));
        }
    }
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
    assert_eq!(fixture.hash_rows().await, hash_before);
}

#[tokio::test]
async fn every_refusal_has_the_listed_code_and_a_rollback_undoes_everything() {
    let fixture = Fixture::new().await;
    let hash_before = fixture.hash_rows().await;
    let mut mismatches = Vec::new();
    // On a Supabase-like project, the platform (Supabase) signs users up, not the service, so the refusals of
    // `users.sign_up` have another code there, and are left out.
    let has_listed_code = |refusal: &Refusal| !is_platform_layout_requested() || refusal.operation != "users.sign_up";
    for refusal in refusals().into_iter().filter(has_listed_code) {
        let outcome = call_and_roll_back(&fixture.world.sparc, &fixture, refusal.caller, refusal.call).await;
        if outcome != refusal.code {
            let Refusal { operation, caller, code, .. } = refusal;
            mismatches.push(format!("{operation} as {caller:?}: {outcome} instead of {code}"));
        }
    }
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
    assert_eq!(fixture.hash_rows().await, hash_before);
}

/// Returns the name of each operation with each outcome that the tests above expect.
fn expected_outcomes() -> BTreeSet<(&'static str, &'static str)> {
    let outcomes =
        operations().into_iter().flat_map(|operation| operation.outcomes.map(|outcome| (operation.name, outcome)));
    outcomes.chain(refusals().into_iter().map(|refusal| (refusal.operation, refusal.code))).collect()
}
