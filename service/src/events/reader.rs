//! The reader of one subscription: its position in a session's events, and how it continues from there.

use std::{
    time::{Duration, Instant},
    vec,
};

use chrono::{DateTime, TimeDelta, Utc};
use entity::session_events::Model as Event;
use rls::unverified::UnverifiedExt;
use sea_orm::{DbErr, RuntimeErr, sqlx::postgres::PgRow};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    EVENT_COLUMNS, choose_history_id, decode_events,
    hub::{HistoryId, Registration, SessionSnapshot},
    poller::{is_transient, poll_backoff},
};
use crate::{Error, IdentityConnection, binds::Binds, connection::OperationTransaction, operation::operation, rows};

/// Maximum number of events that a subscription holds.
const SUBSCRIPTION_PAGE_SIZE: i64 = 50;

/// For this long after `caught_up_at`, no event after the position can have been deleted. Events are kept for 24 hours;
/// half of that leaves a wide margin.
const SAFE_IDLE_TIME: Duration = Duration::from_secs(12 * 60 * 60);

/// Maximum time that a subscription waits for a notification before its [`Reader`] updates `caught_up_at`.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);

/// A position in a session's events: the event after which reading continues.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct EventPosition {
    /// 0 if reading starts at the first event.
    pub(super) seq: i64,
    /// The id of the event, and the time at which it was created. The id is needed because another server may have
    /// given the same `seq` to a different event. `None` if reading starts at the first event, or if the event
    /// was deleted before it could be read.
    pub(super) id_and_time: Option<(Uuid, DateTime<Utc>)>,
}

impl EventPosition {
    pub(super) fn from_event(event: &Event) -> Self {
        Self { seq: event.seq, id_and_time: Some((event.id, event.created_at.to_utc())) }
    }

    /// Returns whether the clean-up may have deleted the event because of its age. Events are deleted after 24 hours;
    /// one hour less allows for a difference between the clocks. `false` if the event's time is unknown.
    fn event_may_have_expired(&self) -> bool {
        self.id_and_time.is_some_and(|(_, created_at)| Utc::now() - created_at > TimeDelta::hours(23))
    }
}

/// Reads the events of one subscription.
pub(super) struct Reader {
    caller: IdentityConnection,
    session_id: Uuid,
    registration: Registration,
    position: EventPosition,
    /// The history in which the position was read.
    history_id: HistoryId,
    /// The last time at which it was certain that no event after the position was missing: the start of the
    /// subscription, or a later time at which no event followed the position.
    caught_up_at: Instant,
    /// Whether there may be more events to read, even without a further notification from the poller.
    has_more: bool,
    /// Events that were read but not returned yet.
    pending: vec::IntoIter<Event>,
}

impl Reader {
    pub(super) fn new(
        caller: IdentityConnection,
        registration: Registration,
        snapshot: &SessionSnapshot,
        position: EventPosition,
    ) -> Self {
        Self {
            caller,
            session_id: snapshot.session_id,
            registration,
            position,
            history_id: snapshot.history_id.clone(),
            caught_up_at: Instant::now(),
            has_more: snapshot.newest_seq > position.seq,
            pending: Vec::new().into_iter(),
        }
    }

    /// Waits for the next event and returns it. `None` if the subscription was removed.
    pub(super) async fn next(&mut self) -> Option<Result<Event, Error>> {
        let mut failures = 0;
        loop {
            let notification = self.registration.notifications.borrow_and_update().clone();
            if let Some(error) = notification.end_error {
                return Some(Err(error));
            }
            // An error means that the hub has dropped the sender.
            if self.registration.notifications.has_changed().is_err() {
                return None;
            }
            if let Some(event) = self.pending.next() {
                return Some(Ok(event));
            }
            let history_changed = notification.history_id.is_some_and(|history| history != self.history_id);
            if self.has_more || history_changed || notification.newest_seq > self.position.seq {
                match self.fill_pending(notification.newest_seq, notification.log_position).await {
                    Ok(()) => failures = 0,
                    Err(error) if is_transient(&error) => {
                        failures += 1;
                        // A notification ends the pause early: the subscription may have ended.
                        let notified = self.registration.notifications.changed();
                        let _ = tokio::time::timeout(poll_backoff(failures), notified).await;
                    }
                    Err(error) => return Some(Err(error)),
                }
            } else {
                self.wait_for_notification().await;
            }
        }
    }

    /// Waits for a notification from the poller. If none comes, no event followed the position at the last poll.
    async fn wait_for_notification(&mut self) {
        let was_notified = tokio::time::timeout(MAX_WAIT, self.registration.notifications.changed()).await.is_ok();
        if !was_notified && let Some(polled_at) = self.registration.polled_at() {
            self.caught_up_at = self.caught_up_at.max(polled_at);
        }
    }

    /// Fills `pending` with events after the position: those that the poller has read for all subscribers or, if the
    /// hub does not have all of them, a page that this reader reads itself. `log_position` is the position in
    /// the write-ahead log at which the poller read the events up to `newest_seq`; `None` without replicas.
    async fn fill_pending(&mut self, newest_seq: i64, log_position: Option<rls::LogPosition>) -> Result<(), Error> {
        let was_idle_too_long = self.caught_up_at.elapsed() > SAFE_IDLE_TIME;
        let recent =
            self.registration.recent_events(&self.history_id, self.position.seq).filter(|_| !was_idle_too_long);
        let (events, read_at) = match recent {
            Some((events, read_at)) => {
                self.has_more = false;
                if let Some(log_position) = log_position {
                    // A caller that then reads the session's state sees these events, whichever server answers.
                    self.caller.record_seen_log_position(log_position);
                }
                (events, read_at)
            }
            None => {
                let read_at = Instant::now();
                // A server that has not replayed the log up to `log_position` may lack the newest events, and the
                // position would be moved past them (see below).
                let caller = self.caller.clone().with_min_position(log_position);
                let page = self.read_page_in_task(caller).await?;
                self.check_and_adopt_history(&page, was_idle_too_long)?;
                self.has_more = page.events.len() as i64 == SUBSCRIPTION_PAGE_SIZE;
                (page.events, read_at)
            }
        };
        if !self.has_more {
            self.caught_up_at = read_at;
        }
        match events.last() {
            Some(last) => self.position = EventPosition::from_event(last),
            // The events up to `newest_seq` have been deleted since the poller read them.
            None if newest_seq > self.position.seq => {
                self.position = EventPosition { seq: newest_seq, id_and_time: None };
            }
            None => (),
        }
        self.pending = events.into_iter();
        Ok(())
    }

    /// Reads the page after the position, in a task, so that a stream that nobody polls meanwhile does not keep a
    /// connection.
    async fn read_page_in_task(&self, caller: IdentityConnection) -> Result<EventPage, Error> {
        let (session_id, position) = (self.session_id, self.position);
        let page_reads = self.registration.page_reads();
        let read = async move {
            // The semaphore is never closed, so `acquire` never fails.
            let _permit = page_reads.acquire().await;
            read_page(&caller, session_id, position).await
        };
        tokio::spawn(read.in_current_span()).await.unwrap_or_else(|_| {
            let reason = "the task that reads the events has stopped".to_owned();
            Err(Error::ConnectionLost(DbErr::Conn(RuntimeErr::Internal(reason))))
        })
    }

    /// Continues in the history in which the page was read. Returns an error if events may be missing between the
    /// position and the page.
    fn check_and_adopt_history(&mut self, page: &EventPage, was_idle_too_long: bool) -> Result<(), Error> {
        let history_changed = *page.history_id != *self.history_id;
        let server_lacks_event =
            history_changed && !page.position_event_exists && !self.position.event_may_have_expired();
        let later_events_may_be_deleted = was_idle_too_long && !page.position_event_is_recent;
        if self.position.seq > 0 && (server_lacks_event || later_events_may_be_deleted) {
            return Err(Error::EventsExpired);
        }
        if history_changed {
            self.history_id = page.history_id.as_str().into();
        }
        Ok(())
    }
}

/// A page of events after a position, and the state of the event at that position.
struct EventPage {
    events: Vec<Event>,
    history_id: String,
    /// Whether the event at the position still exists.
    position_event_exists: bool,
    /// Whether the event at the position exists and is less than a day old.
    position_event_is_recent: bool,
}

/// Reads a page as the caller, under row-level security.
async fn read_page(caller: &IdentityConnection, session_id: Uuid, position: EventPosition) -> Result<EventPage, Error> {
    operation!(caller, reads "events.page", session = session_id, |tx| {
        let events = read_events_after(tx, session_id, position.seq, SUBSCRIPTION_PAGE_SIZE).await?;
        // The event at the position is looked up after the page was read. If it still exists then, no later event had
        // been deleted when the page was read.
        struct PositionRow {
            event_history_id: Option<String>,
            position_event_exists: bool,
            position_event_is_recent: bool,
        }
        let mut binds = Binds::default();
        let (session, seq) = (binds.bind(session_id), binds.bind(position.seq));
        let id = binds.bind(position.id_and_time.map(|(id, _)| id).unwrap_or_default());
        let sql = format!(
            "SELECT CASE WHEN NOT pg_is_in_recovery() THEN private.event_history_id() END AS event_history_id, \
               event.id IS NOT NULL AS position_event_exists, \
               COALESCE(event.created_at > now() - INTERVAL '24 hours', false) AS position_event_is_recent \
             FROM (SELECT) AS one_row \
             LEFT JOIN public.session_events AS event \
               ON event.session_id = {session} AND event.seq = {seq} AND event.id = {id}"
        );
        let decode = |rows: &[PgRow]| {
            rows::decode_rows!(rows => PositionRow {
                event_history_id, position_event_exists, position_event_is_recent
            })
        };
        let row = rows::fetch_all(tx, binds.into_statement(sql), decode).await?.pop();
        let Some(PositionRow { event_history_id, position_event_exists, position_event_is_recent }) = row else {
            return Err(Error::EventsExpired);
        };
        let history_id = choose_history_id(tx, event_history_id)?;
        Ok(EventPage { events, history_id, position_event_exists, position_event_is_recent })
    })
}

/// Reads a session's events after a `seq`, the oldest first. If `after_seq` is 0, omits events older than a day,
/// even those that have not been deleted yet. Returns an error if the caller may not listen to the session.
pub(super) async fn read_events_after(
    tx: &OperationTransaction,
    session_id: Uuid,
    after_seq: i64,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    let mut binds = Binds::default();
    let (session, seq, limit) = (binds.bind(session_id), binds.bind(after_seq), binds.bind(limit));
    let sql = format!(
        "SELECT {EVENT_COLUMNS} FROM public.session_events \
         WHERE (SELECT private.require_listener({session})) AND session_id = {session} AND seq > {seq} \
           AND ({seq} > 0 OR created_at > now() - INTERVAL '24 hours') \
         ORDER BY seq LIMIT {limit}"
    );
    rows::fetch_all(tx, binds.into_statement(sql), decode_events).await
}
