//! The poller: a task, one per `Sparc` handle, that reads the new events of all sessions that have subscribers.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, FixedOffset};
use entity::session_events::Model as Event;
use rls::{LogPosition, UnguardedTransaction, unguarded::UnguardedExt};
use sea_orm::{DbBackend, Statement, sqlx::postgres::PgRow};
use serde_json::Value;
use uuid::Uuid;

use super::{
    DATABASE_OID_SQL, choose_history_id, event_access_error,
    hub::{AccessCheck, HistoryId, Hub, PollerGuard, Refusal, WatchedSessions},
    recent::SessionUpdate,
};
use crate::{Error, IdentityConnection, binds::Binds, error::explain_bind_mismatch, rows};

/// Pause between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// Interval between two access checks of all subscribers.
const ACCESS_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// After the sequence of event numbers has advanced, some of the new events may not be visible yet. Until all
/// transactions that may have drawn a number have ended, polls keep reading events: every poll for this long, and then
/// only every tenth poll.
const EAGER_READING_TIME: Duration = Duration::from_secs(5);
/// Timeout of one poll. If the network silently drops packets, the poll fails after this time and is tried again.
const POLL_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum pause after failed polls, and between the attempts of a subscription's reader (`reader.rs`).
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// How long the hub keeps the recent events of a session after it got the newest of them.
const RECENT_RETENTION: Duration = Duration::from_secs(5);
/// Maximum number of events per session that one poll reads.
const POLL_PAGE_SIZE: i64 = 50;
/// Maximum size of the payloads, as they are stored, that one poll reads per session. Of the events after these, it
/// reads only the numbers, and the subscribers read those events themselves.
const MAX_PAGE_BYTES: i64 = 64 * 1024;

/// Returns whether polling or reading may succeed a moment later: connections recover, servers start, standbys are
/// promoted.
pub(super) fn is_transient(error: &Error) -> bool {
    error.is_retryable() || matches!(error, Error::ReadOnly | Error::CommitUnknown(_))
}

/// Returns the pause of the poller, or of a reader, after this number of consecutive failures.
pub(super) fn poll_backoff(failures: u32) -> Duration {
    MAX_BACKOFF.min(POLL_INTERVAL * (1 << failures.min(6)))
}

/// Polls until there are no subscribers. `service_connection` has the identity of the service.
pub(super) async fn run(guard: PollerGuard, service_connection: IdentityConnection) {
    let hub = &guard.hub;
    let service_connection = service_connection.with_deadline(POLL_TIMEOUT);
    let mut sequence = SequenceState::default();
    let mut access_checked_at = Instant::now();
    let mut failures = 0;
    while let Some(watched) = hub.begin_poll() {
        // The first subscriber of a session starts after the event that was then the newest. Later events may have been
        // written since.
        sequence.may_have_unread |= watched.has_newly_watched_session;
        let polled_at = Instant::now();
        let checks_all_subscribers = access_checked_at.elapsed() >= ACCESS_CHECK_INTERVAL;
        let connection = service_connection.clone().with_min_position(watched.required_log_position);
        let poll = async {
            let tx = UnguardedExt::begin_read(&connection, Some(POLL_TIMEOUT)).await?;
            let outcome = Poll { hub, tx: &tx, checks_all_subscribers }.run(&mut sequence, watched).await?;
            // The commit reports the server's log position. Later reads use only a server that has replayed the log up
            // to this position.
            tx.commit().await?;
            outcome.apply_to(hub, polled_at, connection.seen_log_position());
            Ok(())
        };
        let result = tokio::time::timeout(POLL_TIMEOUT, poll).await.unwrap_or(Err(Error::DeadlineExceeded));
        let pause = match result.map_err(explain_bind_mismatch) {
            Ok(()) => {
                if failures > 0 {
                    tracing::info!(target: "sparc::events", failures, "polling for events has succeeded again");
                }
                failures = 0;
                if checks_all_subscribers {
                    access_checked_at = polled_at;
                }
                if let Some(time) = polled_at.checked_sub(RECENT_RETENTION) {
                    hub.discard_events_read_before(time);
                }
                POLL_INTERVAL
            }
            Err(error) => {
                // The next poll must read what the failed one would have read.
                sequence = SequenceState::default();
                if !is_transient(&error) {
                    tracing::warn!(
                        target: "sparc::events",
                        code = error.code(),
                        "polling for events failed; all subscriptions end"
                    );
                    hub.end_all(&error);
                } else if failures == 0 {
                    tracing::warn!(
                        target: "sparc::events",
                        code = error.code(),
                        "polling for events failed; trying again"
                    );
                }
                failures += 1;
                poll_backoff(failures)
            }
        };
        let _ = tokio::time::timeout(pause, hub.poller_wake.notified()).await;
    }
}

/// What the poller knows of the numbers that were drawn (with `nextval`) from the sequence of `session_events.seq`.
/// Each event has a number, which its transaction draws before the event is visible to others. Each poll begins with a
/// [`ProgressReading`].
struct SequenceState {
    /// The last number drawn (on a standby, the log position that was replayed), according to the latest progress
    /// reading. `None` before the first reading.
    last_drawn_or_replayed: Option<i64>,
    /// Time of the first progress reading that had this number.
    first_seen_at: Instant,
    /// Whether there may be an event that no poll has read, although its number was drawn.
    may_have_unread: bool,
    /// A transaction id: the transactions that drew the numbers up to `last_drawn_or_replayed` have lower ids. Once no
    /// transaction with a lower id is running, each event up to `last_drawn_or_replayed` is visible, or was rolled
    /// back. `None` until a second reading has the same number.
    drawn_before_transaction: Option<i64>,
    /// The number of polls. [`must_read_early`](Self::must_read_early) uses it to choose every tenth poll.
    poll_count: u32,
}

impl Default for SequenceState {
    fn default() -> Self {
        Self {
            last_drawn_or_replayed: None,
            first_seen_at: Instant::now(),
            may_have_unread: true,
            drawn_before_transaction: None,
            poll_count: 0,
        }
    }
}

/// The result of `private.event_number_progress`, which shows whether new events were written.
struct ProgressReading {
    /// The last number drawn from the sequence. On a standby, it is instead the replayed log position, which advances
    /// with each event.
    last_drawn_or_replayed: i64,
    /// Id of the oldest transaction that is running. 0 on a standby, where everything up to `last_drawn_or_replayed` is
    /// visible.
    oldest_transaction: i64,
    /// Id of the next transaction that begins. 0 on a standby.
    next_transaction: i64,
    /// The result of `private.event_history_id` (see `super::choose_history_id`). `None` on a standby.
    event_history_id: Option<String>,
    database_oid: i64,
}

impl SequenceState {
    /// Updates the state with a progress reading. Returns whether it is certain that each event whose number was drawn
    /// is visible or was rolled back.
    fn update_and_check_visibility(&mut self, reading: &ProgressReading) -> bool {
        self.poll_count = self.poll_count.wrapping_add(1);
        if self.last_drawn_or_replayed != Some(reading.last_drawn_or_replayed) {
            *self = Self {
                last_drawn_or_replayed: Some(reading.last_drawn_or_replayed),
                poll_count: self.poll_count,
                ..Self::default()
            };
            return false;
        }
        // An earlier progress reading already had this number. So the transaction that drew it has an id below
        // `next_transaction`.
        let drawn_before_transaction = *self.drawn_before_transaction.get_or_insert(reading.next_transaction);
        reading.oldest_transaction >= drawn_before_transaction
    }

    /// Returns whether this poll must read events even if some of the new ones may not be visible yet.
    fn must_read_early(&self) -> bool {
        self.may_have_unread
            && (self.first_seen_at.elapsed() < EAGER_READING_TIME || self.poll_count.is_multiple_of(10))
    }
}

/// The outcome of a poll.
enum PollOutcome {
    /// The history that the server has (see `choose_history_id`) is not the hub's current one, or the hub has none yet.
    NewHistory { access_check: AccessCheck, history_id: HistoryId, newest_seqs: HashMap<Uuid, i64> },
    /// The sequence was set back. Subscribers would miss new events, whose numbers are not above those already read.
    SequenceSetBack,
    /// The new events, and the subscribers that may no longer read events. There may be none of either.
    Updates { access_check: AccessCheck, updates: Vec<SessionUpdate> },
    /// `private.event_number_progress` returned no row.
    NoProgressReading,
}

impl PollOutcome {
    fn apply_to(self, hub: &Hub, polled_at: Instant, log_position: Option<LogPosition>) {
        match self {
            Self::NewHistory { access_check, history_id, newest_seqs } => {
                hub.switch_to_history(access_check, &history_id, &newest_seqs, log_position);
            }
            Self::SequenceSetBack => hub.end_all(&Error::EventsExpired),
            Self::Updates { access_check, updates } => hub.publish(polled_at, access_check, updates, log_position),
            Self::NoProgressReading => (),
        }
    }
}

/// One poll, in a read-only transaction of the service.
struct Poll<'a> {
    hub: &'a Hub,
    tx: &'a UnguardedTransaction,
    /// Whether to check the access of all subscribers, or only of those in sessions that have new events.
    checks_all_subscribers: bool,
}

impl Poll<'_> {
    async fn run(&self, sequence: &mut SequenceState, watched: WatchedSessions) -> Result<PollOutcome, Error> {
        let Some(reading) = self.read_progress().await? else { return Ok(PollOutcome::NoProgressReading) };
        let is_standby = reading.event_history_id.is_none();
        let history_id = choose_history_id(self.tx, reading.database_oid, reading.event_history_id.clone())?;
        let last_subscriber_id = watched.last_subscriber_id;
        if watched.history_id.as_deref() != Some(&history_id) {
            *sequence = SequenceState::default();
            let newest_seqs = self.read_newest_seqs(watched.session_ids).await?;
            let access_check = self.check_access(&[], last_subscriber_id).await?;
            return Ok(PollOutcome::NewHistory { access_check, history_id: history_id.into(), newest_seqs });
        }
        if !is_standby && watched.newest_seqs.iter().any(|newest_seq| *newest_seq > reading.last_drawn_or_replayed) {
            return Ok(PollOutcome::SequenceSetBack);
        }
        let all_drawn_are_visible = sequence.update_and_check_visibility(&reading);
        let must_read_events = sequence.must_read_early() || (all_drawn_are_visible && sequence.may_have_unread);
        let (updates, reached_end) =
            if must_read_events { self.read_events(watched).await? } else { (Vec::new(), true) };
        if must_read_events && all_drawn_are_visible && reached_end {
            sequence.may_have_unread = false;
        }
        let access_check = self.check_access(&updates, last_subscriber_id).await?;
        Ok(PollOutcome::Updates { access_check, updates })
    }

    async fn read_progress(&self) -> Result<Option<ProgressReading>, Error> {
        let sql = format!(
            "SELECT last_drawn_or_replayed, oldest_transaction, next_transaction, history_id AS event_history_id, \
               {DATABASE_OID_SQL} AS database_oid \
             FROM private.event_number_progress()"
        );
        let decode = |rows: &[PgRow]| {
            rows::decode_rows!(rows => ProgressReading {
                last_drawn_or_replayed, oldest_transaction, next_transaction, event_history_id, database_oid
            })
        };
        Ok(rows::fetch_all(self.tx, Statement::from_string(DbBackend::Postgres, sql), decode).await?.pop())
    }

    /// Reads the `seq` of the newest event of each session that has one. The writer of an event locks its session until
    /// the commit, so no event with a lower `seq` can become visible later.
    async fn read_newest_seqs(&self, session_ids: Vec<Uuid>) -> Result<HashMap<Uuid, i64>, Error> {
        struct NewestRow {
            session_id: Uuid,
            newest_seq: i64,
        }
        let mut binds = Binds::default();
        let session_ids = binds.bind(session_ids);
        let sql = format!(
            "SELECT watched.session_id, event.seq AS newest_seq \
             FROM unnest({session_ids}::uuid[]) AS watched(session_id) \
             CROSS JOIN LATERAL ( \
               SELECT seq FROM public.session_events \
               WHERE session_id = watched.session_id ORDER BY seq DESC LIMIT 1 \
             ) AS event"
        );
        let decode = |rows: &[PgRow]| rows::decode_rows!(rows => NewestRow { session_id, newest_seq });
        let newest_rows = rows::fetch_all(self.tx, binds.into_statement(sql), decode).await?;
        Ok(newest_rows.into_iter().map(|row| (row.session_id, row.newest_seq)).collect())
    }

    /// Reads the new events of each session. Also returns whether no session has more visible events than were read:
    /// each had less than a full page.
    async fn read_events(&self, watched: WatchedSessions) -> Result<(Vec<SessionUpdate>, bool), Error> {
        let mut binds = Binds::default();
        let (session_ids, after_seqs) = (binds.bind(watched.session_ids), binds.bind(watched.newest_seqs));
        let (page_size, max_bytes) = (binds.bind(POLL_PAGE_SIZE), binds.bind(MAX_PAGE_BYTES));
        let sql = format!(
            "SELECT event.session_id, watched.after_seq, event.id, event.event_type, event.created_at, \
               event.seq, event.sender_id, event.fits, \
               CASE WHEN event.fits THEN event.payload ELSE 'null' END AS payload \
             FROM unnest({session_ids}::uuid[], {after_seqs}::bigint[]) AS watched(session_id, after_seq) \
             CROSS JOIN LATERAL ( \
               SELECT page.*, sum(pg_column_size(page.payload)) OVER (ORDER BY page.seq) <= {max_bytes} AS fits \
               FROM ( \
                 SELECT * FROM public.session_events AS new_event \
                 WHERE new_event.session_id = watched.session_id AND new_event.seq > watched.after_seq \
                 ORDER BY new_event.seq LIMIT {page_size} \
               ) AS page \
             ) AS event \
             ORDER BY event.session_id, event.seq"
        );
        let decode = |rows: &[PgRow]| {
            rows::decode_rows!(rows => EventRow {
                session_id, after_seq, id, event_type, payload, created_at, seq, sender_id, fits
            })
        };
        let event_rows = rows::fetch_all(self.tx, binds.into_statement(sql), decode).await?;
        let mut updates: Vec<SessionUpdate> = Vec::new();
        for session_rows in event_rows.chunk_by(EventRow::has_same_session) {
            let Some(last) = session_rows.last() else { continue };
            let events = session_rows.iter().filter(|row| row.fits).map(EventRow::to_event).collect();
            updates.push(SessionUpdate {
                session_id: last.session_id,
                after_seq: last.after_seq,
                newest_seq: last.seq,
                reached_end: (session_rows.len() as i64) < POLL_PAGE_SIZE,
                events,
            });
        }
        let reached_end = updates.iter().all(|update| update.reached_end);
        Ok((updates, reached_end))
    }

    /// Checks which subscribers with ids up to `last_subscriber_id` may still read events: all of them, if this poll
    /// checks all, and otherwise those of the updated sessions.
    async fn check_access(&self, updates: &[SessionUpdate], last_subscriber_id: u64) -> Result<AccessCheck, Error> {
        struct RefusedRow {
            session_id: Uuid,
            account_id: Option<Uuid>,
            status: String,
        }
        if !self.checks_all_subscribers && updates.is_empty() {
            return Ok(AccessCheck::default());
        }
        let updates = (!self.checks_all_subscribers).then_some(updates);
        let sessions_and_accounts = self.hub.subscriber_accounts(updates, last_subscriber_id);
        // The service has no account. SeaORM cannot bind an array that contains NULL, so `is_service_flags` says which
        // of the `account_ids` to ignore.
        let (session_ids, account_ids): (Vec<Uuid>, Vec<Option<Uuid>>) = sessions_and_accounts.into_iter().unzip();
        let is_service_flags: Vec<bool> = account_ids.iter().map(Option::is_none).collect();
        let account_ids: Vec<Uuid> = account_ids.into_iter().map(Option::unwrap_or_default).collect();
        let mut binds = Binds::default();
        let (session_ids, account_ids) = (binds.bind(session_ids), binds.bind(account_ids));
        let is_service_flags = binds.bind(is_service_flags);
        let sql = format!(
            "SELECT subscriber.session_id, subscriber.account_id, status \
             FROM ( \
               SELECT session_id, CASE WHEN NOT is_service THEN account_id END AS account_id \
               FROM unnest({session_ids}::uuid[], {account_ids}::uuid[], {is_service_flags}::boolean[]) \
                 AS watched(session_id, account_id, is_service) \
             ) AS subscriber \
             CROSS JOIN LATERAL private.event_access(subscriber.session_id, subscriber.account_id) AS status \
             WHERE status <> 'may_read'"
        );
        let decode = |rows: &[PgRow]| rows::decode_rows!(rows => RefusedRow { session_id, account_id, status });
        let refused_rows = rows::fetch_all(self.tx, binds.into_statement(sql), decode).await?;
        let refusals = refused_rows.into_iter().filter_map(|RefusedRow { session_id, account_id, status }| {
            Some(Refusal { session_id, account_id, error: event_access_error(&status)? })
        });
        Ok(AccessCheck { last_checked_subscriber_id: last_subscriber_id, refusals: refusals.collect() })
    }
}

/// A new event of a session. `fits` is false if the payloads of the session's new events up to this one together exceed
/// [`MAX_PAGE_BYTES`]; this event's payload was then not read.
struct EventRow {
    session_id: Uuid,
    /// The newest `seq` of the session known before the poll.
    after_seq: i64,
    id: Uuid,
    event_type: String,
    payload: Value,
    created_at: DateTime<FixedOffset>,
    seq: i64,
    sender_id: Option<Uuid>,
    fits: bool,
}

impl EventRow {
    fn has_same_session(&self, other: &Self) -> bool {
        self.session_id == other.session_id
    }

    fn to_event(&self) -> Event {
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
