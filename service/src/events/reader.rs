//! The reader of one subscription: it takes events from the hub, or reads pages of its own from the database.

use std::{
    time::{Duration, Instant},
    vec,
};

use entity::session_events::Model as Event;
use rls::{supabase, unguarded::UnguardedExt};
use sea_orm::{DbErr, RuntimeErr, sqlx::postgres::PgRow};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    DATABASE_OID_SQL, EVENT_COLUMNS, choose_history_id, decode_events, event_access_error,
    hub::{Notification, Registration, SessionSnapshot},
    poller::{is_transient, poll_backoff},
    stream_position::{EventPage, EventPosition, SUBSCRIPTION_PAGE_SIZE, StreamPosition},
};
use crate::{Error, IdentityConnection, binds::Binds, connection::OperationTransaction, operation::operation, rows};

/// Maximum time that a subscription waits for a notification before its [`Reader`] records that it has caught up.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);

/// Reads the events of one subscription.
pub(super) struct Reader {
    caller: IdentityConnection,
    session_id: Uuid,
    registration: Registration,
    position: StreamPosition,
    /// Events that were read but not returned yet.
    pending: vec::IntoIter<Event>,
}

impl Reader {
    pub(super) fn new(
        caller: IdentityConnection,
        registration: Registration,
        snapshot: &SessionSnapshot,
        event_position: EventPosition,
    ) -> Self {
        Self {
            caller,
            session_id: snapshot.session_id,
            registration,
            position: StreamPosition::new(snapshot, event_position, Instant::now()),
            pending: Vec::new().into_iter(),
        }
    }

    /// Waits for the next event and returns it. `None` if the subscription was removed.
    pub(super) async fn next(&mut self) -> Option<Result<Event, Error>> {
        // The number of consecutive reads that failed or returned nothing, and must be repeated.
        let mut futile_reads = 0;
        loop {
            let notification = match self.registration.newest_notification() {
                Ok(notification) => notification,
                Err(end_error) => return end_error.map(Err),
            };
            if let Some(event) = self.pending.next() {
                return Some(Ok(event));
            }
            if !self.position.must_read(&notification) {
                self.wait_for_notification().await;
                continue;
            }
            match self.fill_pending(&notification).await {
                // The page is empty, and the hub does not know the history that the page was read from. There is
                // nothing to return until the poller has found that history too, or this reader reads from the history
                // that the hub knows.
                Ok(()) if self.pending.as_slice().is_empty() && self.position.must_read(&notification) => (),
                Ok(()) => {
                    futile_reads = 0;
                    continue;
                }
                Err(error) if is_transient(&error) => (),
                Err(error) => return Some(Err(error)),
            }
            futile_reads += 1;
            // A notification ends the pause early: the subscription may have ended.
            let notified = self.registration.notifications.changed();
            let _ = tokio::time::timeout(poll_backoff(futile_reads), notified).await;
        }
    }

    /// Waits for a notification from the poller. If none comes within [`MAX_WAIT`], the last poll found no event after
    /// the position, and this function records that.
    async fn wait_for_notification(&mut self) {
        let was_notified = tokio::time::timeout(MAX_WAIT, self.registration.notifications.changed()).await.is_ok();
        if !was_notified && let Some(polled_at) = self.registration.polled_at() {
            self.position.record_caught_up(polled_at);
        }
    }

    /// Fills `pending` with events after the position: those that the poller has read for all subscribers or, if the
    /// hub does not have all of them, a page that this reader reads itself.
    async fn fill_pending(&mut self, notification: &Notification) -> Result<(), Error> {
        let read_at = Instant::now();
        let (history_id, after_seq) = (self.position.history_id(), self.position.event_position().seq);
        // The poller does not notice if events were deleted before it could read them. So its events are used only if
        // it is certain that none were.
        let recent = if self.position.was_caught_up_recently(read_at) {
            self.registration.recent_events(history_id, after_seq)
        } else {
            None
        };
        let events = match recent {
            Some(recent) => {
                self.position.advance_to_recent(&recent);
                if let Some(log_position) = recent.log_position {
                    // A caller that then reads the session's state sees these events, whichever server answers.
                    self.caller.record_seen_log_position(log_position);
                }
                recent.events
            }
            None => {
                // A server that has not replayed the log up to this `log_position` may lack the newest events, and the
                // stream would move past them.
                let caller = self.caller.clone().with_min_position(notification.log_position);
                let page = self.read_page_in_task(caller).await?;
                self.position.advance_to_page(&page, read_at, notification)?;
                page.events
            }
        };
        self.pending = events.into_iter();
        Ok(())
    }

    /// Reads the page after the position, in a task, so that a stream that nobody polls meanwhile does not keep a
    /// connection.
    async fn read_page_in_task(&self, caller: IdentityConnection) -> Result<EventPage, Error> {
        let (session_id, position) = (self.session_id, self.position.event_position());
        let page_read_permits = self.registration.page_read_permits();
        let read = async move {
            // The semaphore is never closed, so `acquire` never fails.
            let _permit = page_read_permits.acquire().await;
            match read_page(&caller, session_id, position).await {
                Err(refusal @ Error::NotAllowed { .. }) => Err(explain_refusal(&caller, session_id, refusal).await),
                outcome => outcome,
            }
        };
        tokio::spawn(read.in_current_span()).await.unwrap_or_else(|_| {
            let reason = "the task that reads the events has stopped".to_owned();
            Err(Error::ConnectionLost(DbErr::Conn(RuntimeErr::Internal(reason))))
        })
    }
}

/// Reads a page as the caller, under row-level security.
async fn read_page(caller: &IdentityConnection, session_id: Uuid, position: EventPosition) -> Result<EventPage, Error> {
    operation!(caller, reads "events.page", session = session_id, |tx| {
        let events = read_events_after(tx, session_id, position.seq, SUBSCRIPTION_PAGE_SIZE).await?;
        // The event at the position is looked up after the page was read. If it still exists then, no later event had
        // been deleted when the page was read.
        struct PositionRow {
            event_history_id: Option<String>,
            database_oid: i64,
            position_event_exists: bool,
            position_event_is_recent: bool,
        }
        let mut binds = Binds::default();
        let (session, seq) = (binds.bind(session_id), binds.bind(position.seq));
        let id = binds.bind(position.id_and_time.map(|(id, _)| id).unwrap_or_default());
        let sql = format!(
            "SELECT CASE WHEN NOT pg_is_in_recovery() THEN private.event_history_id() END AS event_history_id, \
               {DATABASE_OID_SQL} AS database_oid, \
               event.id IS NOT NULL AS position_event_exists, \
               COALESCE(event.created_at > now() - INTERVAL '24 hours', false) AS position_event_is_recent \
             FROM (SELECT) AS one_row \
             LEFT JOIN public.session_events AS event \
               ON event.session_id = {session} AND event.seq = {seq} AND event.id = {id}"
        );
        let decode = |rows: &[PgRow]| {
            rows::decode_rows!(rows => PositionRow {
                event_history_id, database_oid, position_event_exists, position_event_is_recent
            })
        };
        let row = rows::fetch_all(tx, binds.into_statement(sql), decode).await?.pop();
        let Some(PositionRow { event_history_id, database_oid, position_event_exists, position_event_is_recent }) = row
        else {
            return Err(Error::EventsExpired);
        };
        let history_id = choose_history_id(tx, database_oid, event_history_id)?;
        Ok(EventPage { events, history_id, position_event_exists, position_event_is_recent })
    })
}

/// Returns the reason of a refusal to read events. The database refuses a user in the same way whether the session does
/// not exist or the user may not read its events. But a subscriber knew the session already, and may learn the reason.
/// So this function asks as the service, as the poller does. It asks the primary, because a standby may still have the
/// session.
async fn explain_refusal(caller: &IdentityConnection, session_id: Uuid, refusal: Error) -> Error {
    let Some(account_id) = caller.user_id() else { return refusal };
    let service = caller.as_identity(supabase::service());
    let outcome = operation!(&service, "events.access", session = session_id, |tx| {
        let mut binds = Binds::default();
        let (session, account) = (binds.bind(session_id), binds.bind(account_id));
        let sql = format!("SELECT private.event_access({session}, {account}) AS status");
        let decode = |rows: &[PgRow]| rows.iter().map(|row| rows::decode_cell::<String>(row, "status")).collect();
        Ok(rows::fetch_all(tx, binds.into_statement(sql), decode).await?.pop())
    });
    match outcome {
        Ok(status) => status.and_then(|status| event_access_error(&status)).unwrap_or(refusal),
        Err(error) => error,
    }
}

/// Reads a session's events after a `seq`, the oldest first. If `after_seq` is 0, omits events older than a day, even
/// those that have not been deleted yet. Returns an error if the caller may not read the session's events.
async fn read_events_after(
    tx: &OperationTransaction,
    session_id: Uuid,
    after_seq: i64,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    let mut binds = Binds::default();
    let (session, seq, limit) = (binds.bind(session_id), binds.bind(after_seq), binds.bind(limit));
    let sql = format!(
        "SELECT {EVENT_COLUMNS} FROM public.session_events \
         WHERE (SELECT private.require_event_access({session})) AND session_id = {session} AND seq > {seq} \
           AND ({seq} > 0 OR created_at > now() - INTERVAL '24 hours') \
         ORDER BY seq LIMIT {limit}"
    );
    rows::fetch_all(tx, binds.into_statement(sql), decode_events).await
}
