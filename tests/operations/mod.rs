//! Every operation of the crate `service`, called by every kind of caller: who may call it, and which error the others
//! get. In the tests of this file, each call runs in a transaction of the caller's that is rolled back, so all calls
//! run on the same rows. The operations that cannot run in a transaction are tested elsewhere (`OUTSIDE_TRANSACTIONS`
//! in `documented.rs`). A *visitor* has not signed in, a *stranger* is a user who has no part in the session, and *the
//! service*, as a caller, is the role `service_role`.

use std::{collections::BTreeSet, pin::Pin};

use sea_orm::TransactionTrait;
use sparc::service::{Error, IdentityConnection, Sparc, Transaction};

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
mod round_trips;
mod session_refusals;
mod sessions;
mod standby;
mod tutorial;
mod users;

use callers::{Caller, LISTED_CALLERS};
use fixture::Fixture;

use crate::world::{is_platform_layout_requested, outcome_code};

/// A future that returns the outcome of a call: `done`, or the code of its error.
type OutcomeFuture<'a> = Pin<Box<dyn Future<Output = &'static str> + Send + 'a>>;

/// A function that calls an operation in the given transaction.
type Call = for<'a> fn(&'a Transaction, &'a Fixture) -> OutcomeFuture<'a>;

/// A function that calls an operation on the given connection, so that the operation begins and commits a transaction
/// of its own.
type CallInOwnTransaction = for<'a> fn(&'a IdentityConnection, &'a Fixture) -> OutcomeFuture<'a>;

/// An operation and its outcomes for the visitor, the stranger, the former player, the player, the Seer and the
/// service.
struct Operation {
    name: &'static str,
    outcomes: [&'static str; 6],
    call: Call,
    call_in_own_transaction: CallInOwnTransaction,
}

/// A refused call that differs from [`Operation::call`] in its arguments, in its caller (who need not be one of
/// [`LISTED_CALLERS`]) or in the calls before it.
struct Refusal {
    /// The name of the operation.
    operation: &'static str,
    caller: Caller,
    /// The code of the error that the caller gets.
    code: &'static str,
    call: Call,
}

impl Operation {
    /// Returns a listed caller whose outcome is `done`: preferably the player, and the visitor only if there is no
    /// other. Returns `None` if every listed outcome is an error.
    fn allowed_caller(&self) -> Option<Caller> {
        const PREFERENCE: [Caller; 6] =
            [Caller::Player, Caller::Seer, Caller::Service, Caller::FormerPlayer, Caller::Stranger, Caller::Visitor];
        let is_allowed = |caller: &Caller| {
            LISTED_CALLERS.iter().zip(self.outcomes).any(|(listed, outcome)| listed == caller && outcome == "done")
        };
        PREFERENCE.into_iter().find(is_allowed)
    }
}

/// Creates an [`Operation`]. `$call` is expanded twice, because `$tx` is a transaction in the first of the two
/// functions and a connection in the second.
macro_rules! operation {
    ($name:literal, $outcomes:expr, |$tx:ident, $fixture:ident| $call:expr) => {
        Operation {
            name: $name,
            outcomes: $outcomes,
            call: |$tx, $fixture| {
                let _ = $fixture;
                Box::pin(async move { outcome_code($call.await) })
            },
            call_in_own_transaction: |$tx, $fixture| {
                let _ = $fixture;
                Box::pin(async move { outcome_code($call.await) })
            },
        }
    };
}

/// Creates a [`Refusal`].
macro_rules! refusal {
    ($operation:literal, $caller:ident, $code:literal, |$tx:ident, $fixture:ident| $call:expr) => {
        Refusal {
            operation: $operation,
            caller: Caller::$caller,
            code: $code,
            call: |$tx, $fixture| {
                let _ = $fixture;
                Box::pin(async move { outcome_code($call.await) })
            },
        }
    };
}

use {operation, refusal};

/// Everybody may call the operation.
const EVERYBODY_MAY_CALL: [&str; 6] = ["done", "done", "done", "done", "done", "done"];

/// Every signed-in user and the service may call the operation; some get an empty result.
const USERS_AND_SERVICE_MAY_CALL: [&str; 6] = ["not_signed_in", "done", "done", "done", "done", "done"];

/// Every user may call the operation, for their own account; the service is not a user.
const USERS_MAY_CALL: [&str; 6] = ["not_signed_in", "done", "done", "done", "done", "not_signed_in"];

/// Only the service may call the operation.
const SERVICE_MAY_CALL: [&str; 6] =
    ["not_signed_in", "not_allowed", "not_allowed", "not_allowed", "not_allowed", "done"];

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
