//! What every operation has around its body: a transaction, retries, and a span.

use std::time::{Duration, Instant};

use scoped_futures::ScopedBoxFuture;
use sea_orm::{DbErr, RuntimeErr};
use uuid::Uuid;

use crate::{
    Caller, Error,
    connection::{UncheckedTransaction, sealed::Scope},
    identity::Identity,
};

/// How often an operation is begun before a deadlock, a serialization failure or a lost connection reaches the caller.
const MAX_ATTEMPTS: u32 = 5;

/// A commit that is under way is waited for so long beyond a deadline: most are answered, and then it is known.
const COMMIT_GRACE: Duration = Duration::from_secs(1);

/// What an operation does to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It only reads, and locks no rows: where the handle has replicas, one that is fresh enough for the caller may run it.
    Reads,
    Writes,
}

/// The attempts of one operation.
#[derive(Debug)]
pub(crate) struct Attempts {
    failed: u32,
    /// The next attempt may run on a replica.
    reads: bool,
    has_replicas: bool,
    begun: Instant,
    deadline: Option<Duration>,
    is_visitor: bool,
}

impl Attempts {
    pub(crate) fn of(caller: &impl Caller, access: Access) -> Self {
        let is_visitor = caller.identity() == Identity::Anon;
        let has_replicas = caller.has_replicas();
        let reads = has_replicas && access == Access::Reads;
        Self { failed: 0, reads, has_replicas, begun: Instant::now(), deadline: caller.deadline(), is_visitor }
    }

    /// The time that is left.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_sub(self.begun.elapsed()))
    }

    /// What ends in the time that is left. The rest is dropped, and its transaction with it.
    pub(crate) async fn with_deadline<T>(&self, attempt: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.left() {
            None => attempt.await,
            Some(left) => tokio::time::timeout(left, attempt).await.unwrap_or(Err(Error::DeadlineExceeded)),
        }
    }

    /// The commit, in the time that is left and a little more. Whoever hears nothing then does not know what became of it.
    async fn with_commit_grace(&self, commit: impl Future<Output = Result<(), DbErr>>) -> Result<(), Error> {
        let Some(left) = self.left() else { return Ok(commit.await?) };
        let answer = tokio::time::timeout(left.max(COMMIT_GRACE), commit).await;
        answer
            .unwrap_or_else(|_| {
                let source = DbErr::Conn(RuntimeErr::Internal("the commit was not answered in time".to_owned()));
                Err(rls::Error::CommitUnknown(source).into())
            })
            .map_err(Error::from)
    }

    /// Ends the transaction as the operation ended. `None`: begin again.
    ///
    /// Only what the server rolled back as a whole is begun again; an answer lost in the commit is not, because the
    /// commit may have happened.
    pub(crate) async fn end<T>(&mut self, scope: Scope, outcome: Result<T, Error>) -> Option<Result<T, Error>> {
        let transaction = match scope {
            Scope::Own(transaction) => transaction,
            Scope::Joined(joined) => {
                if outcome.is_ok() {
                    joined.succeeded();
                }
                return Some(outcome.map_err(|error| self.explain(error)));
            }
        };
        let outcome = match outcome {
            Ok(value) => self.with_commit_grace(transaction.commit()).await.map(|()| value),
            Err(error) => {
                // The refusal matters; a connection that cannot roll back is closed by the pool.
                let _ = transaction.rollback().await;
                Err(error)
            }
        };
        match outcome {
            Err(error) if self.may_begin_again(&error).await => None,
            outcome => Some(outcome.map_err(|error| self.explain(error))),
        }
    }

    /// Whether what failed may succeed when it is begun again: nothing of it is in the database, and the reason passes.
    pub(crate) async fn may_begin_again(&mut self, error: &Error) -> bool {
        // A server that takes no writes was just replaced as the primary, or it is a replica, where nothing is done again.
        let is_undone = matches!(error, Error::Busy | Error::ConnectionLost(_))
            || self.has_replicas && matches!(error, Error::ReadOnly);
        self.reads = false;
        let has_time = self.left().is_none_or(|left| !left.is_zero());
        let again = is_undone && has_time && self.failed + 1 < MAX_ATTEMPTS;
        if again {
            self.failed += 1;
            tokio::time::sleep(pause(self.failed)).await;
        }
        again
    }

    /// To a visitor, what is not allowed means: sign in.
    fn explain(&self, error: Error) -> Error {
        match error {
            Error::NotAllowed { .. } if self.is_visitor => Error::NotSignedIn,
            error => error,
        }
    }

    /// Writes down how it went.
    pub(crate) fn record<T>(&self, outcome: &Result<T, Error>) {
        let span = tracing::Span::current();
        span.record("retries", self.failed);
        span.record("duration_us", u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        span.record("outcome", outcome.as_ref().map_or_else(Error::code, |_| "done"));
        tracing::debug!("ended");
    }
}

/// Longer each time, and never the same for two who failed together.
fn pause(failed: u32) -> Duration {
    let (_, random) = Uuid::new_v4().as_u64_pair();
    Duration::from_millis(random % (10 << failed.min(6)) + 1)
}

impl Scope {
    pub(crate) fn transaction(&self) -> &UncheckedTransaction {
        match self {
            Self::Own(transaction) => transaction,
            Self::Joined(joined) => &joined.transaction,
        }
    }
}

/// Runs the body in a transaction of the caller's, and again while what failed may pass.
pub(crate) async fn run<'env, C: Caller, T>(
    caller: &C,
    access: Access,
    body: impl for<'t> Fn(&'t UncheckedTransaction) -> ScopedBoxFuture<'env, 't, Result<T, Error>>,
) -> Result<T, Error> {
    let mut attempts = Attempts::of(caller, access);
    let outcome = loop {
        let attempt = attempts.with_deadline(async {
            let scope = caller.scope(attempts.left(), attempts.reads).await?;
            let outcome = body(scope.transaction()).await;
            Ok((scope, outcome))
        });
        let (scope, outcome) = match attempt.await {
            Ok(ended) => ended,
            Err(error) if attempts.may_begin_again(&error).await => continue,
            Err(error) => break Err(error),
        };
        if let Some(outcome) = attempts.end(scope, outcome).await {
            break outcome;
        }
    };
    attempts.record(&outcome);
    outcome
}

/// Runs a body as one operation: `operation!(caller, "aggregate.verb", session = id, |tx| { ... Ok(value) })`.
///
/// Its span bears that name; what stands between name and body are ids for it, and nothing personal. One that only reads says
/// so, `operation!(caller, reads "aggregate.verb", ...)`, and `tests/operations/standby.rs` tries on a standby whether it does.
macro_rules! operation {
    (@ $access:ident, $caller:expr, $name:literal, $($field:ident = $id:expr,)* |$tx:ident| $body:block) => {{
        #[allow(unused_imports)]
        use crate::connection::OperationTransaction as _;
        let span = tracing::info_span!(
            target: "sparc::operation",
            $name,
            operation = $name,
            identity = %crate::connection::sealed::Sealed::identity($caller),
            $($field = %$id,)*
            outcome = tracing::field::Empty,
            retries = tracing::field::Empty,
            duration_us = tracing::field::Empty,
        );
        let work = crate::operation::run($caller, crate::operation::Access::$access, |tx| {
            scoped_futures::ScopedFutureExt::scope_boxed(async {
                let $tx = &*tx;
                $body
            })
        });
        tracing::Instrument::instrument(work, span).await
    }};
    ($caller:expr, reads $name:literal, $($rest:tt)*) => {
        crate::operation::operation!(@ Reads, $caller, $name, $($rest)*)
    };
    ($caller:expr, $name:literal, $($rest:tt)*) => {
        crate::operation::operation!(@ Writes, $caller, $name, $($rest)*)
    };
}

pub(crate) use operation;
