//! Opens the pool's connections, and checks them before they are used again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sea_orm::sqlx::{self, Connection, PgConnection};
use tokio::time::{sleep, timeout};

use crate::{connect::Opener, server_process::ServerProcess, sqlstate};

/// Timeout of the ping before an idle connection is used (if the ping times out, another connection is tried), of
/// [`probe`](super::probe), and of closing a connection. Also: if no attempt to open a connection has succeeded for
/// this time (or half of `acquire_timeout`, if that is less), a call that has waited for a connection in vain reports
/// that the server does not answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections older than this are closed instead of being used again, because the memory of a server process grows
/// over time, and because a host name may come to mean another server.
const MAX_LIFETIME: Duration = Duration::from_secs(1800);
/// Connections that were last acquired longer ago than this are pinged before use, because a firewall or proxy may have
/// closed them while they were idle.
const PING_AFTER_IDLE: Duration = Duration::from_secs(30);

/// A connection of the pool.
pub(crate) struct ServerConnection {
    pub(super) pg_connection: PgConnection,
    pub(super) process: ServerProcess,
    /// The value of [`ServerState::schema_change_count`] when the connection was opened.
    schema_change_count_at_open: usize,
}

/// Opens the pool's connections, and checks them before they are used again.
pub(crate) struct Connector {
    pub(super) opener: Arc<Opener>,
    pub(super) server_state: Arc<ServerState>,
}

/// When a call gives up, its attempt to open a connection ends, and the next call in the queue begins another one at
/// once. An attempt that begins within this time after another one has ended counts as a continuation of it.
const MAX_GAP_BEFORE_CONTINUATION: Duration = Duration::from_millis(100);

/// The attempts of the pool to open a connection.
#[derive(Debug, Default)]
struct OpeningAttempts {
    /// How many are in progress.
    count: usize,
    /// Since when attempts have followed one another without a gap, and none has succeeded.
    fruitless_since: Option<Instant>,
    last_ended_at: Option<Instant>,
}

/// What connections show about the server and the network.
#[derive(Debug, Default)]
pub(crate) struct ServerState {
    /// When the last ping without an answer was sent. The pool hands out the most recently returned connection first.
    /// So a connection that was last acquired before this ping has usually been idle for longer than the one that did
    /// not answer, and whatever dropped the latter (a firewall, the server) has probably dropped both.
    unanswered_ping_at: Mutex<Option<Instant>>,
    attempts: Mutex<OpeningAttempts>,
    /// Whether the last attempt to open a connection was refused with "too many connections". Reset when an attempt
    /// begins that does not continue an earlier one (see [`MAX_GAP_BEFORE_CONTINUATION`]).
    is_full: AtomicBool,
    /// How often a cached prepared statement turned out not to fit its table any more. Each connection that was opened
    /// before may have cached the statement too.
    schema_change_count: AtomicUsize,
}

impl ServerState {
    fn record_unanswered_ping(&self, sent_at: Instant) {
        let mut unanswered_ping_at = self.unanswered_ping_at.lock().unwrap_or_else(PoisonError::into_inner);
        *unanswered_ping_at = (*unanswered_ping_at).max(Some(sent_at));
    }

    /// Whether a connection that was last acquired at `last_acquired_at` is probably dead, because a later ping of
    /// another one was not answered. (A connection that was in use during that ping may be alive, and is replaced
    /// unnecessarily.)
    fn had_unanswered_ping_since(&self, last_acquired_at: Instant) -> bool {
        *self.unanswered_ping_at.lock().unwrap_or_else(PoisonError::into_inner) > Some(last_acquired_at)
    }

    /// Records that a cached prepared statement no longer fits its table. No connection that was opened before is used
    /// again.
    pub(super) fn record_schema_change(&self) {
        self.schema_change_count.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the pool has tried to open a connection for at least this time without success (an attempt is still in
    /// progress), because the server does not answer, or is starting or shutting down. Returns `false` if the reason is
    /// that the server has no connections left. The time must not be short: a call that timed out may have waited for a
    /// free place in the pool until a moment ago, so that its attempt has only begun.
    pub(super) fn server_has_been_unavailable_for(&self, time: Duration) -> bool {
        let attempts = self.attempts();
        let is_long = attempts.fruitless_since.is_some_and(|since| since.elapsed() >= time);
        attempts.count > 0 && is_long && !self.is_full.load(Ordering::Relaxed)
    }

    fn attempts(&self) -> MutexGuard<'_, OpeningAttempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One attempt to open a connection.
struct OpeningAttempt<'a> {
    server_state: &'a ServerState,
    has_succeeded: bool,
}

impl<'a> OpeningAttempt<'a> {
    fn begin(server_state: &'a ServerState) -> Self {
        let mut attempts = server_state.attempts();
        let is_continuation = attempts.count > 0
            || attempts.last_ended_at.is_some_and(|ended_at| ended_at.elapsed() <= MAX_GAP_BEFORE_CONTINUATION);
        if !is_continuation {
            server_state.is_full.store(false, Ordering::Relaxed);
        }
        if !is_continuation || attempts.fruitless_since.is_none() {
            attempts.fruitless_since = Some(Instant::now());
        }
        attempts.count += 1;
        Self { server_state, has_succeeded: false }
    }
}

impl Drop for OpeningAttempt<'_> {
    fn drop(&mut self) {
        let mut attempts = self.server_state.attempts();
        let now = Instant::now();
        attempts.count -= 1;
        attempts.last_ended_at = Some(now);
        if self.has_succeeded {
            attempts.fruitless_since = (attempts.count > 0).then_some(now);
        }
    }
}

impl Manager for Connector {
    type Type = ServerConnection;
    type Error = sqlx::Error;

    /// Retries while the server is starting or shutting down, or has no connections left; the pool's timeout ends this.
    /// An unreachable server is reported at once.
    async fn create(&self) -> Result<ServerConnection, sqlx::Error> {
        let mut attempt = OpeningAttempt::begin(&self.server_state);
        let mut pause = Duration::from_millis(10);
        loop {
            let schema_change_count_at_open = self.server_state.schema_change_count.load(Ordering::SeqCst);
            let connected = self.opener.open().await;
            let code = connected.as_ref().err().and_then(|error| error.as_database_error()?.code());
            self.server_state.is_full.store(code.as_deref() == Some(sqlstate::TOO_MANY_CONNECTIONS), Ordering::Relaxed);
            match connected {
                Err(error) if is_temporary_refusal(&error) => sleep(pause).await,
                connected => {
                    attempt.has_succeeded = connected.is_ok();
                    return connected.map(|pg_connection| ServerConnection {
                        pg_connection,
                        process: ServerProcess::default(),
                        schema_change_count_at_open,
                    });
                }
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Checks whether an idle connection may be used again.
    async fn recycle(&self, connection: &mut ServerConnection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > MAX_LIFETIME {
            return Err(RecycleError::message("maximum lifetime exceeded"));
        }
        if connection.schema_change_count_at_open != self.server_state.schema_change_count.load(Ordering::SeqCst) {
            return Err(RecycleError::message("opened before a table changed"));
        }
        if metrics.last_used() > PING_AFTER_IDLE {
            if self.server_state.had_unanswered_ping_since(metrics.recycled.unwrap_or(metrics.created)) {
                return Err(RecycleError::message("idle for longer than a connection that did not answer"));
            }
            let sent_at = Instant::now();
            let Ok(answer) = timeout(ANSWER_TIMEOUT, connection.pg_connection.ping()).await else {
                self.server_state.record_unanswered_ping(sent_at);
                return Err(RecycleError::message("no answer to a ping"));
            };
            answer?;
        }
        Ok(())
    }
}

/// Whether the server refuses connections only for now: it is starting or shutting down, or has no connections left.
fn is_temporary_refusal(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_transient_in_connect_phase)
}
