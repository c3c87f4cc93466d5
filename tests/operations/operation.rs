//! The form in which each file about an aggregate lists its operations, their outcomes and their refusals.

use std::pin::Pin;

use sparc::service::{IdentityConnection, Transaction};

use super::{
    callers::{Caller, LISTED_CALLERS},
    fixture::Fixture,
};

/// A future that returns the outcome of a call: `done`, or the code of its error.
type OutcomeFuture<'a> = Pin<Box<dyn Future<Output = &'static str> + Send + 'a>>;

/// A function that calls an operation in the given transaction.
pub type Call = for<'a> fn(&'a Transaction, &'a Fixture) -> OutcomeFuture<'a>;

/// A function that calls an operation on the given connection, so that the operation begins and commits a transaction
/// of its own.
type CallInOwnTransaction = for<'a> fn(&'a IdentityConnection, &'a Fixture) -> OutcomeFuture<'a>;

/// An operation and its outcomes for the visitor, the stranger, the former player, the player, the Seer and the
/// service.
pub struct Operation {
    pub name: &'static str,
    pub outcomes: [&'static str; 6],
    pub call: Call,
    pub call_in_own_transaction: CallInOwnTransaction,
}

/// A refused call that differs from [`Operation::call`] in its arguments, in its caller (who need not be one of
/// [`LISTED_CALLERS`]) or in the calls before it.
pub struct Refusal {
    /// The name of the operation.
    pub operation: &'static str,
    pub caller: Caller,
    /// The code of the error that the caller gets.
    pub code: &'static str,
    pub call: Call,
}

impl Operation {
    /// Returns a listed caller whose outcome is `done`: preferably the player, and the visitor only if there is no
    /// other. Returns `None` if every listed outcome is an error.
    pub fn allowed_caller(&self) -> Option<Caller> {
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
        $crate::operations::operation::Operation {
            name: $name,
            outcomes: $outcomes,
            call: |$tx, $fixture| {
                let _ = $fixture;
                Box::pin(async move { $crate::world::outcome_code($call.await) })
            },
            call_in_own_transaction: |$tx, $fixture| {
                let _ = $fixture;
                Box::pin(async move { $crate::world::outcome_code($call.await) })
            },
        }
    };
}

/// Creates a [`Refusal`].
macro_rules! refusal {
    ($operation:literal, $caller:ident, $code:literal, |$tx:ident, $fixture:ident| $call:expr) => {
        $crate::operations::operation::Refusal {
            operation: $operation,
            caller: $crate::operations::callers::Caller::$caller,
            code: $code,
            call: |$tx, $fixture| {
                let _ = $fixture;
                Box::pin(async move { $crate::world::outcome_code($call.await) })
            },
        }
    };
}

pub(super) use {operation, refusal};

/// Everybody may call the operation.
pub const EVERYBODY_MAY_CALL: [&str; 6] = ["done", "done", "done", "done", "done", "done"];

/// Every signed-in user and the service may call the operation; some get an empty result.
pub const USERS_AND_SERVICE_MAY_CALL: [&str; 6] = ["not_signed_in", "done", "done", "done", "done", "done"];

/// Every user may call the operation, for their own account; the service is not a user.
pub const USERS_MAY_CALL: [&str; 6] = ["not_signed_in", "done", "done", "done", "done", "not_signed_in"];

/// Only the service may call the operation.
pub const SERVICE_MAY_CALL: [&str; 6] =
    ["not_signed_in", "not_allowed", "not_allowed", "not_allowed", "not_allowed", "done"];
