//! What every operation has around its story: a transaction, retries, and a span.

use std::time::Duration;

use sea_orm::TransactionSession;
use uuid::Uuid;

use crate::{
    Error,
    connection::{Transaction, sealed::Scope},
};

/// How often an operation is begun before a deadlock or serialization failure reaches the caller.
const ATTEMPTS: u32 = 5;

/// The attempts of one operation.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    failed: u32,
}

impl Attempts {
    /// Ends the transaction as the story ended. `None`: begin again.
    ///
    /// Only what the server rolled back as a whole is begun again; an answer lost in the commit is not, because the
    /// commit may have happened.
    pub(crate) async fn end<T>(&mut self, scope: Scope<'_>, outcome: Result<T, Error>) -> Option<Result<T, Error>> {
        let Scope::Own(transaction) = scope else {
            return Some(outcome);
        };
        let outcome = match outcome {
            Ok(value) => match transaction.commit().await {
                Ok(()) => Ok(value),
                Err(error) => Err(Error::from(error)),
            },
            Err(error) => {
                // The refusal matters; a connection that cannot roll back is closed by the pool.
                let _ = transaction.rollback().await;
                Err(error)
            }
        };
        match outcome {
            Err(error) if error.is_transient() && self.failed + 1 < ATTEMPTS => {
                self.failed += 1;
                tokio::time::sleep(pause(self.failed)).await;
                None
            }
            outcome => Some(outcome),
        }
    }

    /// Times it was begun again.
    pub(crate) fn retries(&self) -> u32 {
        self.failed
    }
}

/// Longer each time, and never the same for two who failed together.
fn pause(failed: u32) -> Duration {
    let (_, random) = Uuid::new_v4().as_u64_pair();
    Duration::from_millis(random % (10 << failed.min(6)) + 1)
}

impl Scope<'_> {
    pub(crate) fn transaction(&self) -> &Transaction {
        match self {
            Self::Own(transaction) => transaction,
            Self::Joined(transaction) => transaction,
        }
    }
}

/// Runs a story as one operation: `operation!(caller, "aggregate.verb", |tx| { ... Ok(value) })`.
///
/// A macro, because a closure that is async, may be called again, borrows its arguments and gives a future that can be
/// sent between threads cannot be written as a bound.
macro_rules! operation {
    ($caller:expr, $name:literal, |$tx:ident| $story:block) => {{
        let span = tracing::info_span!(
            "sparc",
            operation = $name,
            outcome = tracing::field::Empty,
            retries = tracing::field::Empty,
        );
        tracing::Instrument::instrument(
            async {
                let mut attempts = crate::operation::Attempts::default();
                let outcome = loop {
                    let scope = match $caller.scope().await {
                        Ok(scope) => scope,
                        Err(error) => break Err(error),
                    };
                    let story = async {
                        let $tx = scope.transaction();
                        $story
                    }
                    .await;
                    if let Some(outcome) = attempts.end(scope, story).await {
                        break outcome;
                    }
                };
                let span = tracing::Span::current();
                span.record("retries", attempts.retries());
                span.record(
                    "outcome",
                    match &outcome {
                        Ok(_) => "done",
                        Err(error) => crate::Error::code(error),
                    },
                );
                outcome
            },
            span,
        )
        .await
    }};
}

pub(crate) use operation;
