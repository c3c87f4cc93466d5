//! What surrounds the body of every operation: a transaction, retries, and a span.

use std::{
    io,
    time::{Duration, Instant},
};

use scoped_futures::ScopedBoxFuture;
use sea_orm::{DbErr, RuntimeErr, sqlx};
use uuid::Uuid;

use crate::{
    Error, Executor,
    connection::{OperationTransaction, sealed::BegunOrJoinedTransaction},
    error::explain_bind_mismatch,
    identity::Identity,
};

/// Maximum number of attempts of an operation. If the last one fails with a deadlock, a serialization failure or a lost
/// connection, the caller gets that error.
const MAX_ATTEMPTS: u32 = 5;

/// How long an operation waits for the answer to its commit, even past the deadline, before it gives up. Without the
/// answer nobody knows whether the commit happened, and most answers come within this time.
const COMMIT_GRACE: Duration = Duration::from_secs(1);

/// Whether an operation only reads, or may also write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It only reads, without locking rows. So it may run on a replica that has replayed the write-ahead log up to what
    /// the caller has read or written. Without replicas, `commit` returns at once and completes in the background,
    /// unless the transaction is `SERIALIZABLE`.
    ReadOnly,
    /// It may write, so it runs on the primary.
    ReadWrite,
}

/// One run of an operation, with all its attempts.
#[derive(Debug)]
pub(crate) struct OperationRun {
    failed_attempts: u32,
    /// Whether the present attempt may run on a replica or in a `READ ONLY` transaction. `false` after the first
    /// failure.
    attempt_is_read_only: bool,
    may_retry_on_another_server: bool,
    started_at: Instant,
    /// How long the operation may take from `started_at`, with all its attempts. `None` if there is no limit.
    deadline: Option<Duration>,
    caller_is_visitor: bool,
}

impl OperationRun {
    pub(crate) fn new(executor: &impl Executor, access: Access) -> Self {
        let caller_is_visitor = executor.identity() == Identity::Anon;
        let may_retry_on_another_server = executor.may_retry_on_another_server();
        Self {
            failed_attempts: 0,
            attempt_is_read_only: access == Access::ReadOnly,
            may_retry_on_another_server,
            started_at: Instant::now(),
            deadline: executor.deadline(),
            caller_is_visitor,
        }
    }

    /// Returns the time until the deadline. `None` if there is no deadline.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_sub(self.started_at.elapsed()))
    }

    /// Runs the attempt within the remaining time. An attempt that takes longer is dropped, and its transaction is
    /// rolled back.
    pub(crate) async fn run_with_deadline<T>(
        &self,
        attempt: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match self.remaining() {
            None => attempt.await,
            Some(remaining) => tokio::time::timeout(remaining, attempt).await.unwrap_or(Err(Error::DeadlineExceeded)),
        }
    }

    /// Runs the commit within the remaining time or the grace period, whichever is longer. If the server has not
    /// answered by then, the outcome of a commit that may have written something is unknown.
    async fn run_commit_with_grace(&self, commit: impl Future<Output = Result<(), DbErr>>) -> Result<(), Error> {
        let Some(remaining) = self.remaining() else { return Ok(commit.await?) };
        let answer = tokio::time::timeout(remaining.max(COMMIT_GRACE), commit).await;
        answer
            .unwrap_or_else(|_| {
                if self.attempt_is_read_only {
                    // Nothing was written, so there is no outcome to know.
                    return Err(rls::Error::DeadlineExceeded.into());
                }
                let source = DbErr::Conn(RuntimeErr::Internal("the commit was not answered in time".to_owned()));
                Err(rls::Error::CommitUnknown(source).into())
            })
            .map_err(Error::from)
    }

    /// Ends the attempt's transaction: commits it if the body succeeded, and otherwise rolls it back. Leaves a caller's
    /// transaction open. Returns `None` if the operation is to be retried.
    ///
    /// An operation is retried only if the server rolled back all of it. It is not retried if the answer to the commit
    /// was lost, because the commit may have happened.
    pub(crate) async fn end_attempt<T>(
        &mut self,
        begun_or_joined: BegunOrJoinedTransaction,
        outcome: Result<T, Error>,
    ) -> Option<Result<T, Error>> {
        let transaction = match begun_or_joined {
            BegunOrJoinedTransaction::Begun(transaction) => transaction,
            BegunOrJoinedTransaction::Joined(joined) => {
                if outcome.is_ok() {
                    joined.mark_succeeded();
                }
                return Some(outcome.map_err(|error| self.explain(error)));
            }
        };
        let outcome = match outcome {
            Ok(value) => self.run_commit_with_grace(transaction.commit()).await.map(|()| value),
            Err(error) => {
                // The operation's error is returned. If the rollback fails, the pool closes the connection.
                let _ = transaction.rollback().await;
                Err(error)
            }
        };
        match outcome {
            Err(error) if self.wait_to_retry(&error).await => None,
            outcome => Some(outcome.map_err(|error| self.explain(error))),
        }
    }

    /// Returns whether to retry the operation: the failed attempt changed nothing, another attempt may succeed, and
    /// there are attempts and time left. If so, first counts the failed attempt and waits for the back-off.
    pub(crate) async fn wait_to_retry(&mut self, error: &Error) -> bool {
        // `Error::ReadOnly` means that the server is a replica, or has just been replaced as the primary; that none of
        // the servers accepts writes at the moment; or that the attempt ran in a `READ ONLY` transaction and called a
        // function that writes.
        let may_succeed = matches!(error, Error::Busy)
            // Not after a timeout: the attempt has already waited `acquire_timeout` for a server that did not answer.
            || matches!(error, Error::ConnectionLost(source) if !is_timeout(source))
            || (self.may_retry_on_another_server || self.attempt_is_read_only) && matches!(error, Error::ReadOnly);
        // The next attempt runs on the primary, in a transaction that may write.
        self.attempt_is_read_only = false;
        let has_time = self.remaining().is_none_or(|remaining| !remaining.is_zero());
        let can_retry = may_succeed && has_time && self.failed_attempts + 1 < MAX_ATTEMPTS;
        if can_retry {
            self.failed_attempts += 1;
            tokio::time::sleep(retry_backoff(self.failed_attempts)).await;
        }
        can_retry
    }

    /// Makes an error more precise. If the bound values do not match the statement, a pooler has executed another
    /// client's prepared statement of the same name, and the error becomes `Misconfigured`. A visitor who is not
    /// allowed to do something must sign in first.
    fn explain(&self, error: Error) -> Error {
        match explain_bind_mismatch(error) {
            Error::NotAllowed { .. } if self.caller_is_visitor => Error::NotSignedIn,
            error => error,
        }
    }

    /// Records the outcome, the retries and the duration in the current span.
    pub(crate) fn record_outcome<T>(&self, outcome: &Result<T, Error>) {
        let span = tracing::Span::current();
        span.record("retries", self.failed_attempts);
        span.record("duration_us", u64::try_from(self.started_at.elapsed().as_micros()).unwrap_or(u64::MAX));
        span.record("outcome", outcome.as_ref().map_or_else(Error::code, |_| "done"));
        tracing::debug!("ended");
    }
}

fn is_timeout(error: &DbErr) -> bool {
    matches!(rls::sqlx_error(error), Some(sqlx::Error::Io(source)) if source.kind() == io::ErrorKind::TimedOut)
}

/// Returns a random back-off, so that two operations that failed together do not collide again. It is at most 20 ms
/// after the first failure, and the maximum doubles with each further one.
fn retry_backoff(failed_attempts: u32) -> Duration {
    let (_, random) = Uuid::new_v4().as_u64_pair();
    Duration::from_millis(random % (10 << failed_attempts) + 1)
}

impl BegunOrJoinedTransaction {
    pub(crate) fn transaction(&self) -> &OperationTransaction {
        match self {
            Self::Begun(transaction) => transaction,
            Self::Joined(joined) => &joined.transaction,
        }
    }
}

/// Runs the body in a new transaction as the caller, and retries it after a transient error. If the executor is a
/// transaction, runs the body once, in that transaction.
///
/// Inner futures are boxed, so that the future of an operation is small: a program may hold many of them on one stack.
pub(crate) async fn run<'env, E: Executor, T>(
    executor: &E,
    access: Access,
    body: impl for<'t> Fn(&'t OperationTransaction) -> ScopedBoxFuture<'env, 't, Result<T, Error>>,
) -> Result<T, Error> {
    let mut operation_run = OperationRun::new(executor, access);
    let outcome = loop {
        let attempt = operation_run.run_with_deadline(async {
            let begun_or_joined =
                Box::pin(executor.begin_or_join(operation_run.remaining(), operation_run.attempt_is_read_only)).await?;
            let outcome = body(begun_or_joined.transaction()).await;
            Ok((begun_or_joined, outcome))
        });
        let (begun_or_joined, outcome) = match attempt.await {
            Ok(completed) => completed,
            Err(error) if operation_run.wait_to_retry(&error).await => continue,
            Err(error) => break Err(error),
        };
        if let Some(outcome) = Box::pin(operation_run.end_attempt(begun_or_joined, outcome)).await {
            break outcome;
        }
    };
    operation_run.record_outcome(&outcome);
    outcome
}

/// Runs a body as one operation: `operation!(executor, "aggregate.verb", session = id, |tx| { ... Ok(value) })`.
///
/// The string is the name of the operation's span. The fields between the name and the body are ids, which the span
/// records; they must not contain personal data.
///
/// An operation that only reads is declared with `reads`: `operation!(executor, reads "aggregate.verb", ...)`.
/// `tests/operations/standby.rs` runs each operation on a standby, and so checks these declarations.
macro_rules! operation {
    (@ $access:ident, $executor:expr, $name:literal, $($field:ident = $id:expr,)* |$tx:ident| $body:block) => {{
        #[allow(unused_imports)]
        use crate::connection::OperationTransactionExt as _;
        let span = tracing::info_span!(
            target: "sparc::operation",
            $name,
            operation = $name,
            identity = %crate::connection::sealed::Sealed::identity($executor),
            $($field = %$id,)*
            outcome = tracing::field::Empty,
            retries = tracing::field::Empty,
            duration_us = tracing::field::Empty,
        );
        let operation = crate::operation::run($executor, crate::operation::Access::$access, |tx| {
            scoped_futures::ScopedFutureExt::scope_boxed(async {
                let $tx = &*tx;
                $body
            })
        });
        tracing::Instrument::instrument(operation, span).await
    }};
    ($executor:expr, reads $name:literal, $($rest:tt)*) => {
        crate::operation::operation!(@ ReadOnly, $executor, $name, $($rest)*)
    };
    ($executor:expr, $name:literal, $($rest:tt)*) => {
        crate::operation::operation!(@ ReadWrite, $executor, $name, $($rest)*)
    };
}

pub(crate) use operation;
