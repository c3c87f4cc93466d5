//! The one task of a handle that looks whether anything happened in the sessions that somebody listens to.

use std::time::{Duration, Instant};

use chrono::{DateTime, FixedOffset};
use entity::session_events::Model as Event;
use rls::{Position, UncheckedTransaction, unchecked::Unchecked};
use sea_orm::{DbBackend, Statement, sqlx::postgres::PgRow};
use serde_json::Value;
use uuid::Uuid;

use super::{
    history_of,
    hub::{Checked, History, Hub, News, Running, Watched},
    refusal,
};
use crate::{Error, IdentityConnection, rows, sql::Binds};

/// Between two looks.
const TICK: Duration = Duration::from_millis(25);
/// Between two looks at who may still listen.
const ACCESS_INTERVAL: Duration = Duration::from_secs(2);
/// A number whose transaction is open for longer is looked for at every tenth tick only.
const EAGER: Duration = Duration::from_secs(5);
/// For one look, so that a network that swallows what is sent is left.
const ROUND_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause after looks that failed.
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// Events that were read for all subscribers of a session are kept for so long.
const KEEP_RECENT: Duration = Duration::from_secs(5);
/// Most events of a session that one look reads.
const PAGE: i64 = 50;
/// Most bytes of a session's events, as they are stored, that one look reads.
const PAGE_BYTES: i64 = 64 * 1024;

/// Whether the same question may be answered a moment later: connections come back, servers start, standbys are promoted.
pub(super) fn may_pass(error: &Error) -> bool {
    error.is_retryable() || matches!(error, Error::ReadOnly | Error::CommitUnknown(_))
}

/// How long to wait after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    MAX_BACKOFF.min(TICK * (1 << failures.min(6)))
}

/// Looks until nobody listens.
pub(super) async fn run(running: Running, service: IdentityConnection) {
    let hub = &running.hub;
    let service = service.with_deadline(ROUND_TIMEOUT);
    let mut clock = Clock::default();
    let mut access_checked = Instant::now();
    let mut failures = 0;
    while let Some(watched) = hub.watched() {
        clock.must_look |= watched.has_new;
        let begun = Instant::now();
        let checks_all = access_checked.elapsed() >= ACCESS_INTERVAL;
        let service = service.clone().at_least(watched.required);
        let round = async {
            let tx = Unchecked::begin_read(&service, Some(ROUND_TIMEOUT)).await?;
            let seen = Look { hub, tx: &tx, checks_all }.run(&mut clock, watched).await?;
            // Committed, it says where the server was: what comes next is read from one that is as far.
            tx.commit().await?;
            seen.tell(hub, begun, service.seen());
            Ok(())
        };
        let outcome = tokio::time::timeout(ROUND_TIMEOUT, round).await.unwrap_or(Err(Error::DeadlineExceeded));
        let pause = match outcome {
            Ok(()) => {
                if failures > 0 {
                    tracing::info!(target: "sparc::events", failures, "looking for events again");
                }
                failures = 0;
                if checks_all {
                    access_checked = begun;
                }
                if let Some(time) = begun.checked_sub(KEEP_RECENT) {
                    hub.forget_before(time);
                }
                TICK
            }
            Err(error) => {
                // What the look would have found is looked for again.
                clock = Clock::default();
                if !may_pass(&error) {
                    tracing::warn!(target: "sparc::events", code = error.code(), "looking for events failed; their subscriptions end");
                    hub.end_all(&error);
                } else if failures == 0 {
                    tracing::warn!(target: "sparc::events", code = error.code(), "looking for events failed; trying again");
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
    /// A standby says none.
    history: Option<String>,
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

const CLOCK: &str = "SELECT drawn, oldest_transaction, next_transaction, history FROM private.event_clock()";

/// What a look has seen.
enum Seen {
    /// Another server answers, or the first.
    Renewed {
        history: History,
        newest: Vec<News>,
    },
    /// A number that was given to an event is given again: whoever resumes after one would miss others.
    Behind,
    News {
        checked: Checked,
        news: Vec<News>,
    },
    Nothing,
}

impl Seen {
    fn tell(self, hub: &Hub, begun: Instant, position: Option<Position>) {
        match self {
            Self::Renewed { history, newest } => hub.renew(&history, newest, position),
            Self::Behind => hub.end_all(&Error::EventsExpired),
            Self::News { checked, news } => hub.announce(begun, checked, news, position),
            Self::Nothing => (),
        }
    }
}

/// One look, in a transaction as the service that only reads.
struct Look<'a> {
    hub: &'a Hub,
    tx: &'a UncheckedTransaction,
    checks_all: bool,
}

impl Look<'_> {
    async fn run(&self, clock: &mut Clock, watched: Watched) -> Result<Seen, Error> {
        let readings = |rows: &[PgRow]| rows::decode_rows!(rows => Reading { drawn, oldest_transaction, next_transaction, history });
        let statement = Statement::from_string(DbBackend::Postgres, CLOCK);
        let Some(reading) = rows::fetch_all(self.tx, statement, readings).await?.pop() else {
            return Ok(Seen::Nothing);
        };
        let is_standby = reading.history.is_none();
        let history = history_of(self.tx, reading.history.clone())?;
        if watched.history.as_deref() != Some(&history) {
            *clock = Clock::default();
            let newest = self.newest(watched.sessions).await?;
            return Ok(Seen::Renewed { history: history.into(), newest });
        }
        if !is_standby && watched.seen.iter().any(|seen| *seen > reading.drawn) {
            return Ok(Seen::Behind);
        }
        let up_to = watched.last_id;
        let is_settled = clock.read(&reading);
        let looks = clock.is_due() || is_settled && clock.must_look;
        let (news, is_all) = if looks { self.events(watched).await? } else { (Vec::new(), true) };
        if looks && is_settled && is_all {
            clock.must_look = false;
        }
        let checked = if self.checks_all || !news.is_empty() {
            self.check(if self.checks_all { None } else { Some(&news) }, up_to).await?
        } else {
            Checked::default()
        };
        Ok(Seen::News { checked, news })
    }

    /// The newest event of each session that has one. Whoever writes one holds its session until the commit, so that there
    /// is none before it that is not visible yet.
    async fn newest(&self, sessions: Vec<Uuid>) -> Result<Vec<News>, Error> {
        struct Newest {
            session_id: Uuid,
            newest: i64,
        }
        let mut binds = Binds::default();
        let sessions = binds.bind(sessions);
        let sql = format!(
            "SELECT watched.session_id, event.seq AS newest \
             FROM unnest({sessions}::uuid[]) AS watched(session_id) \
             CROSS JOIN LATERAL ( \
               SELECT seq FROM public.session_events \
               WHERE session_id = watched.session_id ORDER BY seq DESC LIMIT 1 \
             ) AS event"
        );
        let read = |rows: &[PgRow]| rows::decode_rows!(rows => Newest { session_id, newest });
        let newest = rows::fetch_all(self.tx, binds.statement(sql), read).await?;
        let news = |Newest { session_id, newest }| News { session_id, after: 0, newest, events: Vec::new() };
        Ok(newest.into_iter().map(news).collect())
    }

    /// The events of each session after those that were seen, and whether they are all.
    async fn events(&self, watched: Watched) -> Result<(Vec<News>, bool), Error> {
        let mut binds = Binds::default();
        let (sessions, seen) = (binds.bind(watched.sessions), binds.bind(watched.seen));
        let (page, bytes) = (binds.bind(PAGE), binds.bind(PAGE_BYTES));
        let sql = format!(
            "SELECT event.session_id, watched.seen, event.id, event.event_type, event.created_at, event.seq, event.sender_id, event.fits, \
               CASE WHEN event.fits THEN event.payload ELSE 'null' END AS payload \
             FROM unnest({sessions}::uuid[], {seen}::bigint[]) AS watched(session_id, seen) \
             CROSS JOIN LATERAL ( \
               SELECT page.*, sum(pg_column_size(page.payload)) OVER (ORDER BY page.seq) <= {bytes} AS fits \
               FROM ( \
                 SELECT * FROM public.session_events AS event \
                 WHERE event.session_id = watched.session_id AND event.seq > watched.seen \
                 ORDER BY event.seq LIMIT {page} \
               ) AS page \
             ) AS event \
             ORDER BY event.session_id, event.seq"
        );
        let read = |rows: &[PgRow]| rows::decode_rows!(rows => Found { session_id, seen, id, event_type, payload, created_at, seq, sender_id, fits });
        let mut news: Vec<News> = Vec::new();
        let mut is_all = true;
        for found in rows::fetch_all(self.tx, binds.statement(sql), read).await?.chunk_by(Found::is_together) {
            let Some(last) = found.last() else { continue };
            let events = found.iter().filter(|one| one.fits).map(Found::event).collect();
            news.push(News { session_id: last.session_id, after: last.seen, newest: last.seq, events });
            is_all &= (found.len() as i64) < PAGE;
        }
        Ok((news, is_all))
    }

    /// Who may still listen, to these sessions alone or to all: of those whose seats the server knows.
    async fn check(&self, only: Option<&[News]>, up_to: u64) -> Result<Checked, Error> {
        struct Refused {
            session_id: Uuid,
            account: Uuid,
            status: String,
        }
        let listeners = self.hub.listeners(only, up_to);
        let (sessions, accounts): (Vec<Uuid>, Vec<Uuid>) =
            listeners.into_iter().map(|(session, account)| (session, account.unwrap_or_default())).unzip();
        let mut binds = Binds::default();
        let (sessions, accounts, service) = (binds.bind(sessions), binds.bind(accounts), binds.bind(Uuid::nil()));
        let sql = format!(
            "SELECT watched.session_id, watched.account, status \
             FROM unnest({sessions}::uuid[], {accounts}::uuid[]) AS watched(session_id, account) \
             CROSS JOIN LATERAL private.listener_status(watched.session_id, nullif(watched.account, {service})) AS status \
             WHERE status <> 'listens'"
        );
        let read = |rows: &[PgRow]| rows::decode_rows!(rows => Refused { session_id, account, status });
        let refused = rows::fetch_all(self.tx, binds.statement(sql), read).await?;
        let refused = refused.into_iter().filter_map(|Refused { session_id, account, status }| {
            Some((session_id, Some(account).filter(|account| !account.is_nil()), refusal(&status)?))
        });
        Ok(Checked { up_to, refused: refused.collect() })
    }
}

/// An event; without its payload where that is too large to be read for all.
struct Found {
    session_id: Uuid,
    seen: i64,
    id: Uuid,
    event_type: String,
    payload: Value,
    created_at: DateTime<FixedOffset>,
    seq: i64,
    sender_id: Option<Uuid>,
    fits: bool,
}

impl Found {
    fn is_together(&self, other: &Self) -> bool {
        self.session_id == other.session_id
    }

    fn event(&self) -> Event {
        Event {
            id: self.id,
            session_id: self.session_id,
            event_type: self.event_type.clone(),
            payload: self.payload.clone(),
            created_at: self.created_at,
            seq: self.seq,
            sender_id: self.sender_id,
        }
    }
}
