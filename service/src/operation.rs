//! What every operation has around its body: a transaction, retries, and a span.

use std::time::{Duration, Instant};

use sea_orm::DbErr;
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

/// The operations that only read, and lock nothing: where the handle has replicas, one that is fresh enough for the caller
/// runs them. `tests/operations/standby.rs` runs every operation on a standby, and says which of them belong here.
const READS: [&str; 33] = [
    "adventures.catalogue",
    "adventures.get",
    "adventures.mine",
    "characters.get",
    "characters.list",
    "characters.retired",
    "characters.seats",
    "creatures.get",
    "creatures.list",
    "dice.get",
    "dice.history",
    "dice.heroic_saves_remaining",
    "dice.statistics",
    "events.after",
    "events.newest",
    "events.page",
    "maintenance.backlog",
    "sessions.archived",
    "sessions.archived_rolls",
    "sessions.by_code",
    "sessions.details",
    "sessions.get",
    "sessions.lobby",
    "sessions.mine",
    "sessions.past",
    "tutorial.progress",
    "users.me",
    "users.my_email",
    "users.by_display_name",
    "users.profile",
    "users.profiles",
    "users.statistics",
    "users.by_email",
];

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
    pub(crate) fn of(caller: &impl Caller, operation: &str) -> Self {
        let is_visitor = caller.identity() == Identity::Anon;
        let has_replicas = caller.has_replicas();
        let reads = has_replicas && READS.contains(&operation);
        Self { failed: 0, reads, has_replicas, begun: Instant::now(), deadline: caller.deadline(), is_visitor }
    }

    /// Whether this attempt may run on a replica.
    pub(crate) fn reads(&self) -> bool {
        self.reads
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
                let source = DbErr::Custom("the commit was not answered in time".to_owned());
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

/// Runs a body as one operation: `operation!(caller, "aggregate.verb", session = id, |tx| { ... Ok(value) })`.
///
/// What stands between name and body are ids for its span, and nothing personal.
///
/// A macro, because a closure that is async, may be called again, borrows its arguments and gives a future that can be
/// sent between threads cannot be written as a bound.
macro_rules! operation {
    ($caller:expr, $name:literal, $($field:ident = $id:expr,)* |$tx:ident| $body:block) => {{
        #[allow(unused_imports)]
        use crate::connection::{OperationTransaction as _, sealed::Sealed as _};
        let span = tracing::info_span!(
            "sparc",
            operation = $name,
            identity = %crate::connection::sealed::Sealed::identity($caller),
            $($field = %$id,)*
            outcome = tracing::field::Empty,
            retries = tracing::field::Empty,
            duration_us = tracing::field::Empty,
        );
        tracing::Instrument::instrument(
            async {
                let mut attempts = crate::operation::Attempts::of($caller, $name);
                let outcome = loop {
                    let attempt = attempts.with_deadline(async {
                        let scope = crate::connection::sealed::Sealed::scope($caller, attempts.left(), attempts.reads()).await?;
                        let body = async {
                            let $tx = scope.transaction();
                            $body
                        }
                        .await;
                        Ok((scope, body))
                    });
                    let (scope, body) = match attempt.await {
                        Ok(ended) => ended,
                        Err(error) if attempts.may_begin_again(&error).await => continue,
                        Err(error) => break Err(error),
                    };
                    if let Some(outcome) = attempts.end(scope, body).await {
                        break outcome;
                    }
                };
                attempts.record(&outcome);
                outcome
            },
            span,
        )
        .await
    }};
}

pub(crate) use operation;
