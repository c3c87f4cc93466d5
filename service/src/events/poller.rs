//! Who listens to which session, and the one task of a handle that looks for them whether anything happened.
//!
//! It reads no event: it tells each subscriber up to which `seq` there is something to read, and whom it must send away.
//! So what it holds is a few words for each subscriber, however slowly they read.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rls::{Position, UncheckedTransaction, unchecked::Unchecked};
use sea_orm::{DbBackend, DbErr, Statement, sqlx::postgres::PgRow};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{Error, IdentityConnection, rows, sql::Binds};

/// Between two looks.
const TICK: Duration = Duration::from_millis(25);
/// Between two looks at who may still listen.
const ACCESS_INTERVAL: Duration = Duration::from_secs(2);
/// A number whose transaction is open for longer is looked for at every tenth tick only.
const EAGER: Duration = Duration::from_secs(5);
/// For one look, so that a network that swallows what is sent is left.
const ROUND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest pause after looks that failed.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// What a subscriber is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake {
    /// The newest event of the session that was seen.
    pub(crate) newest: i64,
    /// Where it was seen: a reader on another server waits until it is there.
    pub(crate) position: Option<Position>,
    pub(crate) ended: Option<Ended>,
}

/// Why a subscription is over.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    HandleClosed,
    AccountClosed,
    NotParticipant,
    NoSession,
    Misconfigured(String),
    Failed(String),
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::HandleClosed => Self::PoolClosed,
            Ended::AccountClosed => Self::AccountClosed,
            Ended::NotParticipant => not_participant(),
            Ended::NoSession => Self::NotFound { what: "session" },
            Ended::Misconfigured(reason) => Self::Misconfigured { reason },
            Ended::Failed(text) => Self::Database(DbErr::Custom(text)),
        }
    }
}

pub(crate) fn not_participant() -> Error {
    Error::NotAllowed { rule: "only the Seer and those who have or had a seat may listen to a session" }
}

/// Whether the same question may be answered a moment later: connections come back, servers start, standbys are promoted.
pub(crate) fn may_pass(error: &Error) -> bool {
    error.is_retryable() || matches!(error, Error::ReadOnly | Error::CommitUnknown(_))
}

/// How long to wait after so many failures in a row.
pub(crate) fn backoff(failures: u32) -> Duration {
    MAX_BACKOFF.min(TICK * (1 << failures.min(6)))
}

/// All subscriptions of a handle.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// There is a new subscriber, or none is left: the next look does not wait for its tick.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Uuid, Session>,
    last_id: u64,
    /// A session was added that no look has included yet.
    has_new: bool,
    /// The poller that runs.
    poller: Option<u64>,
    polled_at: Option<Instant>,
    /// What every subscriber had seen when they came: a server that is not as far does not know their seats.
    required: Option<Position>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Session {
    newest: i64,
    subscribers: HashMap<u64, Subscriber>,
}

#[derive(Debug)]
struct Subscriber {
    /// None: the service.
    account: Option<Uuid>,
    wake: watch::Sender<Wake>,
}

/// A subscription's place; gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    hub: Arc<Hub>,
    session: Uuid,
    id: u64,
    pub(crate) wake: watch::Receiver<Wake>,
}

impl Registration {
    /// When it was last seen that there is nothing newer than what was told.
    pub(crate) fn polled_at(&self) -> Option<Instant> {
        self.hub.lock().polled_at
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        if let Some(session) = state.sessions.get_mut(&self.session) {
            session.subscribers.remove(&self.id);
            if session.subscribers.is_empty() {
                state.sessions.remove(&self.session);
            }
        }
        if state.sessions.is_empty() {
            self.hub.changed.notify_one();
        }
    }
}

impl Hub {
    /// Adds a subscriber, and starts the poller with the first.
    pub(crate) fn register(
        self: &Arc<Self>,
        service: impl FnOnce() -> IdentityConnection,
        session: Uuid,
        account: Option<Uuid>,
        position: Option<Position>,
    ) -> Result<Registration, Error> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Error::PoolClosed);
        }
        state.required = state.required.max(position);
        state.last_id += 1;
        let id = state.last_id;
        let entry = state.sessions.entry(session).or_default();
        let is_new = entry.subscribers.is_empty();
        let (sender, wake) = watch::channel(Wake { newest: entry.newest, position, ended: None });
        entry.subscribers.insert(id, Subscriber { account, wake: sender });
        state.has_new |= is_new;
        if state.poller.is_none() {
            state.poller = Some(id);
            tokio::spawn(run(Running { hub: self.clone(), id }, service().with_deadline(ROUND_TIMEOUT)));
        } else if is_new {
            self.changed.notify_one();
        }
        Ok(Registration { hub: self.clone(), session, id, wake })
    }

    /// Ends all subscriptions: the handle is closed.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.end_all(&Ended::HandleClosed);
        self.changed.notify_one();
    }

    /// Nothing that holds the lock can fail half way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to look for. None: nobody listens, and the poller is over.
    fn work(&self) -> Option<(Vec<Uuid>, Vec<i64>, bool)> {
        let mut state = self.lock();
        if state.sessions.is_empty() {
            state.poller = None;
            return None;
        }
        let has_new = std::mem::take(&mut state.has_new);
        let (sessions, seen) = state.sessions.iter().map(|(id, session)| (*id, session.newest)).unzip();
        Some((sessions, seen, has_new))
    }

    /// Who listens, to these sessions alone or to all.
    fn listeners(&self, only: Option<&[News]>) -> (Vec<Uuid>, Vec<Uuid>) {
        let state = self.lock();
        let is_wanted = |id: &Uuid| only.is_none_or(|news| news.iter().any(|one| one.session_id == *id));
        let pairs: BTreeSet<(Uuid, Uuid)> = state
            .sessions
            .iter()
            .filter(|(id, _)| is_wanted(id))
            .flat_map(|(id, session)| session.subscribers.values().map(|one| (*id, one.account.unwrap_or_default())))
            .collect();
        pairs.into_iter().unzip()
    }

    /// Sends away whoever may not listen any longer, then tells the others what is new.
    fn announce(&self, refused: Vec<Refused>, news: Vec<News>, position: Option<Position>) {
        let mut state = self.lock();
        for Refused { session_id, account, is_there, is_closed } in refused {
            let ended = match (is_there, is_closed) {
                (false, _) => Ended::NoSession,
                (true, true) => Ended::AccountClosed,
                (true, false) => Ended::NotParticipant,
            };
            let Some(session) = state.sessions.get_mut(&session_id) else { continue };
            session.subscribers.retain(|_, one| {
                let stays = one.account.unwrap_or_default() != account;
                if !stays {
                    one.wake.send_modify(|wake| wake.ended = Some(ended.clone()));
                }
                stays
            });
            if session.subscribers.is_empty() {
                state.sessions.remove(&session_id);
            }
        }
        for News { session_id, seq } in news {
            if let Some(session) = state.sessions.get_mut(&session_id) {
                session.newest = session.newest.max(seq);
                for one in session.subscribers.values() {
                    one.wake.send_modify(|wake| {
                        wake.newest = wake.newest.max(seq);
                        wake.position = wake.position.max(position);
                    });
                }
            }
        }
    }
}

impl State {
    fn end_all(&mut self, ended: &Ended) {
        for (_, session) in self.sessions.drain() {
            for one in session.subscribers.into_values() {
                one.wake.send_modify(|wake| wake.ended = Some(ended.clone()));
            }
        }
    }
}

/// The poller that runs. However it ends, nobody waits for it in vain.
struct Running {
    hub: Arc<Hub>,
    id: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        if state.poller == Some(self.id) {
            state.poller = None;
            state.end_all(&Ended::Failed("the runtime that looked for events has stopped; subscribe again".to_owned()));
        }
    }
}

async fn run(running: Running, service: IdentityConnection) {
    let hub = &running.hub;
    let mut clock = Clock::default();
    let mut access_checked = Instant::now();
    let mut failures = 0;
    while let Some((sessions, seen, has_new)) = hub.work() {
        clock.must_look |= has_new;
        let begun = Instant::now();
        let checks_all = access_checked.elapsed() >= ACCESS_INTERVAL;
        let required = hub.lock().required;
        let service = service.clone().at_least(required);
        let round = async {
            let tx = Unchecked::begin_read(&service, Some(ROUND_TIMEOUT)).await?;
            let (mut refused, news) = look(hub, &tx, &mut clock, sessions, seen, checks_all).await?;
            tx.commit().await?;
            if hub.lock().required != required {
                // Somebody came whose seat this server may not know yet: the next look is at one that does.
                refused.clear();
            }
            hub.announce(refused, news, service.seen());
            Ok(())
        };
        let outcome = tokio::time::timeout(ROUND_TIMEOUT, round).await.unwrap_or(Err(Error::DeadlineExceeded));
        let pause = match outcome {
            Ok(()) => {
                failures = 0;
                hub.lock().polled_at = Some(begun);
                if checks_all {
                    access_checked = begun;
                }
                TICK
            }
            Err(error) => {
                // What the look would have found is looked for again.
                clock = Clock::default();
                if !may_pass(&error) {
                    tracing::warn!(code = error.code(), "looking for events failed; their subscriptions end");
                    hub.lock().end_all(&match error {
                        Error::PoolClosed => Ended::HandleClosed,
                        Error::Misconfigured { reason } => Ended::Misconfigured(reason),
                        error => Ended::Failed(error.to_string()),
                    });
                }
                failures += 1;
                backoff(failures)
            }
        };
        let _ = tokio::time::timeout(pause, hub.changed.notified()).await;
    }
}

/// What is known of the numbers that were drawn.
struct Clock {
    drawn: Option<i64>,
    drawn_at: Instant,
    /// Whether a number may have been drawn that no look has seen.
    must_look: bool,
    /// Once no transaction before this one is left, all that was drawn is visible.
    horizon: Option<i64>,
    ticks: u32,
}

impl Default for Clock {
    fn default() -> Self {
        Self { drawn: None, drawn_at: Instant::now(), must_look: true, horizon: None, ticks: 0 }
    }
}

/// What a look at the clock says.
struct Reading {
    drawn: i64,
    oldest_transaction: i64,
    next_transaction: i64,
}

impl Clock {
    /// Takes a reading; whether nothing drawn so far is invisible any more.
    fn read(&mut self, now: &Reading) -> bool {
        self.ticks = self.ticks.wrapping_add(1);
        if self.drawn != Some(now.drawn) {
            *self = Self { drawn: Some(now.drawn), ticks: self.ticks, ..Self::default() };
            return false;
        }
        // This reading's transaction began after the number had been read, so that whoever drew it is before `next`.
        let horizon = *self.horizon.get_or_insert(now.next_transaction);
        now.oldest_transaction >= horizon
    }

    fn is_due(&self) -> bool {
        self.must_look && (self.drawn_at.elapsed() < EAGER || self.ticks.is_multiple_of(10))
    }
}

struct News {
    session_id: Uuid,
    seq: i64,
}

struct Refused {
    session_id: Uuid,
    account: Uuid,
    is_there: bool,
    is_closed: bool,
}

/// On a standby the sequence's value is that of its last record in the log, many numbers ahead. What it has replayed is a
/// clock as well, and all of that is visible.
const CLOCK: &str = "SELECT drawn, oldest_transaction, next_transaction FROM private.event_clock() \
     WHERE NOT pg_is_in_recovery() \
     UNION ALL SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint, 0::bigint, 0::bigint WHERE pg_is_in_recovery()";

async fn look(
    hub: &Hub,
    tx: &UncheckedTransaction,
    clock: &mut Clock,
    sessions: Vec<Uuid>,
    seen: Vec<i64>,
    checks_all: bool,
) -> Result<(Vec<Refused>, Vec<News>), Error> {
    let readings = |rows: &[PgRow]| rows::decode_rows!(rows => Reading { drawn, oldest_transaction, next_transaction });
    let reading = rows::fetch_all(tx, Statement::from_string(DbBackend::Postgres, CLOCK), readings).await?;
    let is_settled = reading.first().is_some_and(|reading| clock.read(reading));
    let looks = clock.is_due() || is_settled && clock.must_look;
    let news = if looks { newest(tx, sessions, seen).await? } else { Vec::new() };
    if looks && is_settled {
        clock.must_look = false;
    }
    let refused = if checks_all || !news.is_empty() {
        let (sessions, accounts) = hub.listeners(if checks_all { None } else { Some(&news) });
        refused(tx, sessions, accounts).await?
    } else {
        Vec::new()
    };
    Ok((refused, news))
}

/// The newest event of each session that has one after what was seen. Whoever writes one holds its session until the
/// commit, so that there is none before it that is not visible yet.
async fn newest(tx: &UncheckedTransaction, sessions: Vec<Uuid>, seen: Vec<i64>) -> Result<Vec<News>, Error> {
    let mut binds = Binds::default();
    let (sessions, seen) = (binds.bind(sessions), binds.bind(seen));
    let sql = format!(
        "SELECT watched.session_id, newest.seq \
         FROM unnest({sessions}::uuid[], {seen}::bigint[]) AS watched(session_id, seen) \
         CROSS JOIN LATERAL ( \
           SELECT event.seq FROM public.session_events AS event \
           WHERE event.session_id = watched.session_id AND event.seq > watched.seen \
           ORDER BY event.seq DESC LIMIT 1 \
         ) AS newest"
    );
    rows::fetch_all(tx, binds.statement(sql), |rows| rows::decode_rows!(rows => News { session_id, seq })).await
}

/// Those who may not listen any longer. The service, which has no account, may as long as there is a session.
async fn refused(tx: &UncheckedTransaction, sessions: Vec<Uuid>, accounts: Vec<Uuid>) -> Result<Vec<Refused>, Error> {
    let mut binds = Binds::default();
    let (sessions, accounts, service) = (binds.bind(sessions), binds.bind(accounts), binds.bind(Uuid::nil()));
    let sql = format!(
        "SELECT watched.session_id, watched.account, session.id IS NOT NULL AS is_there, \
           profile.id IS NULL OR profile.closed_at IS NOT NULL AS is_closed \
         FROM unnest({sessions}::uuid[], {accounts}::uuid[]) AS watched(session_id, account) \
         LEFT JOIN public.sessions AS session ON session.id = watched.session_id \
         LEFT JOIN public.users AS profile ON profile.id = watched.account \
         WHERE session.id IS NULL \
           OR watched.account <> {service} \
           AND (profile.id IS NULL OR profile.closed_at IS NOT NULL \
             OR session.seer_id <> watched.account \
             AND NOT EXISTS ( \
               SELECT FROM public.session_players AS seat \
               WHERE seat.session_id = watched.session_id AND seat.user_id = watched.account))"
    );
    let read = |rows: &[PgRow]| rows::decode_rows!(rows => Refused { session_id, account, is_there, is_closed });
    rows::fetch_all(tx, binds.statement(sql), read).await
}
