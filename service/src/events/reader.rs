//! One subscription's place in the events of a session, and how it reads on from there.

use std::{
    time::{Duration, Instant},
    vec,
};

use chrono::{DateTime, TimeDelta, Utc};
use entity::session_events::Model as Event;
use rls::unchecked::Unchecked;
use sea_orm::sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    COLUMNS, events, history_of,
    hub::{History, Registration, Start},
    poller::{backoff, may_pass},
};
use crate::{Error, IdentityConnection, connection::UncheckedTransaction, operation::operation, rows, sql::Binds};

/// Most events that a subscription holds.
const PAGE: i64 = 50;

/// Within half of a day, nothing that is kept for a day has gone.
const IS_SURELY_KEPT: Duration = Duration::from_secs(12 * 60 * 60);

/// Longest time that a subscription waits without looking at the clock.
const WAIT: Duration = Duration::from_secs(60 * 60);

/// The last event that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Position {
    /// 0: none.
    pub(super) seq: i64,
    /// What it is known by, since another server may give its number to another event.
    pub(super) event: Option<(Uuid, DateTime<Utc>)>,
}

impl Position {
    pub(super) fn of(event: &Event) -> Self {
        Self { seq: event.seq, event: Some((event.id, event.created_at.to_utc())) }
    }

    /// Whether it is explained that the event is there no longer: it was deleted after its day.
    fn is_past(&self) -> bool {
        self.event.is_some_and(|(_, created_at)| Utc::now() - created_at > TimeDelta::hours(23))
    }
}

/// A subscription's place.
pub(super) struct Reader {
    caller: IdentityConnection,
    session_id: Uuid,
    registration: Registration,
    position: Position,
    /// Of the server that the position was read from.
    history: History,
    /// When there was nothing after the position.
    caught_up_at: Instant,
    /// Whether there may be more without a word from the poller.
    has_more: bool,
    page: vec::IntoIter<Event>,
}

impl Reader {
    pub(super) fn new(
        caller: IdentityConnection,
        registration: Registration,
        start: &Start,
        position: Position,
    ) -> Self {
        Self {
            caller,
            session_id: start.session_id,
            registration,
            position,
            history: start.history.clone(),
            caught_up_at: Instant::now(),
            has_more: start.newest > position.seq,
            page: Vec::new().into_iter(),
        }
    }

    /// The next event. None: the subscription was taken out.
    pub(super) async fn next(&mut self) -> Option<Result<Event, Error>> {
        let mut failures = 0;
        loop {
            let wake = self.registration.wake.borrow_and_update().clone();
            if let Some(ended) = wake.ended {
                return Some(Err(ended));
            }
            if self.registration.wake.has_changed().is_err() {
                return None;
            }
            if let Some(event) = self.page.next() {
                return Some(Ok(event));
            }
            let is_moved = wake.history.is_some_and(|history| history != self.history);
            if self.has_more || is_moved || wake.newest > self.position.seq {
                match self.read(wake.newest, wake.position).await {
                    Ok(()) => failures = 0,
                    Err(error) if may_pass(&error) => {
                        failures += 1;
                        // It also ends while it waits.
                        let _ = tokio::time::timeout(backoff(failures), self.registration.wake.changed()).await;
                    }
                    Err(error) => return Some(Err(error)),
                }
            } else {
                self.wait().await;
            }
        }
    }

    /// Waits for the poller's word. While there is none, there is nothing after the position.
    async fn wait(&mut self) {
        let is_told = tokio::time::timeout(WAIT, self.registration.wake.changed()).await.is_ok();
        if !is_told && let Some(polled_at) = self.registration.polled_at() {
            self.caught_up_at = self.caught_up_at.max(polled_at);
        }
    }

    /// Reads what is after the position, of which the poller saw up to `newest` on a server that was at `seen_at`: what it read
    /// for all, or a page.
    async fn read(&mut self, newest: i64, seen_at: Option<rls::Position>) -> Result<(), Error> {
        let is_late = self.caught_up_at.elapsed() > IS_SURELY_KEPT;
        let recent = self.registration.recent(&self.history, self.position.seq).filter(|_| !is_late);
        let (page, read_at) = match recent {
            Some((events, read_at)) => {
                self.has_more = false;
                if let Some(seen_at) = seen_at {
                    // Whoever hears of something and looks finds it, on whichever server.
                    self.caller.note_seen(seen_at);
                }
                (events, read_at)
            }
            None => {
                let read_at = Instant::now();
                // A server that is not as far would show a gap.
                let caller = self.caller.clone().at_least(seen_at);
                let page = page(&caller, self.session_id, self.position).await?;
                self.stay(&page, is_late)?;
                self.has_more = page.events.len() as i64 == PAGE;
                (page.events, read_at)
            }
        };
        if !self.has_more {
            self.caught_up_at = read_at;
        }
        match page.last() {
            Some(last) => self.position = Position::of(last),
            // What the poller saw was deleted since.
            None if newest > self.position.seq => self.position = Position { seq: newest, event: None },
            None => (),
        }
        self.page = page.into_iter();
        Ok(())
    }

    /// Whether what was read follows the position without a gap.
    fn stay(&mut self, page: &Page, is_late: bool) -> Result<(), Error> {
        let is_moved = *page.history != *self.history;
        let is_lost = is_moved && !page.is_there && !self.position.is_past();
        let is_expired = is_late && !page.is_kept;
        if self.position.seq > 0 && (is_lost || is_expired) {
            return Err(Error::EventsExpired);
        }
        if is_moved {
            self.history = page.history.as_str().into();
        }
        Ok(())
    }
}

/// The next events, and whether the one that they follow is there.
struct Page {
    events: Vec<Event>,
    history: String,
    is_there: bool,
    is_kept: bool,
}

/// Under the caller's row security.
async fn page(caller: &IdentityConnection, session_id: Uuid, after: Position) -> Result<Page, Error> {
    operation!(caller, reads "events.page", session = session_id, |tx| {
        let events = following(tx, session_id, after.seq, PAGE).await?;
        // Asked afterwards: as long as the last one is there, none that followed it has gone.
        struct Place {
            history: Option<String>,
            is_there: bool,
            is_kept: bool,
        }
        let mut binds = Binds::default();
        let (session, seq) = (binds.bind(session_id), binds.bind(after.seq));
        let id = binds.bind(after.event.map(|(id, _)| id).unwrap_or_default());
        let sql = format!(
            "SELECT CASE WHEN NOT pg_is_in_recovery() THEN private.event_history() END AS history, event.id IS NOT NULL AS is_there, \
               COALESCE(event.created_at > now() - INTERVAL '24 hours', false) AS is_kept \
             FROM (SELECT) AS one \
             LEFT JOIN public.session_events AS event \
               ON event.session_id = {session} AND event.seq = {seq} AND event.id = {id}"
        );
        let read = |rows: &[PgRow]| rows::decode_rows!(rows => Place { history, is_there, is_kept });
        let place = rows::fetch_all(tx, binds.statement(sql), read).await?.pop();
        let Some(Place { history, is_there, is_kept }) = place else { return Err(Error::EventsExpired) };
        Ok(Page { events, history: history_of(tx, history)?, is_there, is_kept })
    })
}

/// A session's events after that one, the oldest first, or an error to who may not listen.
pub(super) async fn following(
    tx: &UncheckedTransaction,
    session_id: Uuid,
    after: i64,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    let mut binds = Binds::default();
    let (session, seq, page) = (binds.bind(session_id), binds.bind(after), binds.bind(limit));
    let sql = format!(
        "SELECT {COLUMNS} FROM public.session_events \
         WHERE (SELECT private.require_listener({session})) AND session_id = {session} AND seq > {seq} \
         ORDER BY seq LIMIT {page}"
    );
    rows::fetch_all(tx, binds.statement(sql), events).await
}
