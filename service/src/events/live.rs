//! A session's events as they happen.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
    vec,
};

use entity::session_events::Model as Event;
use futures_util::{Stream, stream};
use rls::{supabase, unchecked::Unchecked};
use sea_orm::sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    COLUMNS, Events, events,
    poller::{Hub, Registration, backoff, may_pass, not_participant},
};
use crate::{
    Error, IdentityConnection, connection::UncheckedTransaction, identity::Identity, operation::operation, rows,
    sql::Binds,
};

/// Most events that a subscription holds.
const PAGE: i64 = 50;

/// Within half of a day, nothing that is kept for a day has gone.
const IS_SURELY_KEPT: Duration = Duration::from_secs(12 * 60 * 60);

/// A session's events as they happen, in their order: [`Events::subscribe`]. After an error it is over.
///
/// It holds fifty events at most. Dropped, it holds nothing.
pub struct Subscription {
    events: Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>,
    session_id: Uuid,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl Stream for Subscription {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(context)
    }
}

impl Events<'_, IdentityConnection> {
    /// What happens at a table from now on, or after the event with that `seq` (0: all of the last day), as a stream: each
    /// event once, in order, whoever wrote it.
    ///
    /// A reader who is slow delays nobody and loses nothing: the stream reads a page when it is asked for one. It outlasts
    /// restarts of the server. It ends with [`Error::AccountClosed`] or [`Error::NotAllowed`] when the caller loses access,
    /// [`Error::NotFound`] when the session is deleted or archived, [`Error::EventsExpired`] when its reader was away for so
    /// long that events may be missing, [`Error::PoolClosed`] when the handle is closed.
    ///
    /// Who may: the Seer, whoever has or had a seat, and the service. Three round trips, and three for each page. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anybody else, [`Error::AccountClosed`], [`Error::EventsExpired`] where that event is kept no
    /// longer: reload, and subscribe from now; [`Error::NotFound`] to the service, [`Error::NotSignedIn`].
    ///
    /// ```
    /// use futures_util::TryStreamExt;
    /// use service::{Operations, Sparc};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let night = testdb::DemoGame::start().await?;
    /// # let sparc = Sparc::connect(night.url()).await?;
    /// let mut events = sparc.as_user(night.player).events().subscribe(night.session, Some(0)).await?;
    /// if let Some(event) = events.try_next().await? {
    ///     println!("{} {}", event.event_type, event.payload);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe(self, session_id: Uuid, after: Option<i64>) -> Result<Subscription, Error> {
        let caller = self.caller;
        let position = operation!(caller, "events.subscribe", session = session_id, |tx| {
            match tx.caller() {
                Identity::Anon => return Err(Error::NotSignedIn),
                identity => begin(tx, session_id, after, identity == Identity::Service).await,
            }
        })?;
        let hub: Arc<Hub> = caller
            .context()
            .ok_or_else(|| Error::Misconfigured { reason: "the identity must be one of a Sparc handle".to_owned() })?;
        let service = || caller.switch_to(supabase::service());
        let registration = hub.register(service, session_id, caller.user_id(), caller.seen())?;
        let reader = Reader {
            caller: caller.clone(),
            session_id,
            registration,
            position,
            caught_up_at: Instant::now(),
            has_more: true,
            page: Vec::new().into_iter(),
        };
        let events = stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            let next = reader.next().await;
            // After an error all that it holds is let go.
            let rest = next.is_ok().then_some(reader);
            Some((next, rest))
        });
        Ok(Subscription { events: Box::pin(events), session_id })
    }
}

/// Where a subscription begins.
struct Start {
    may_listen: bool,
    newest: i64,
    is_kept: bool,
}

async fn begin(
    tx: &UncheckedTransaction,
    session_id: Uuid,
    after: Option<i64>,
    is_service: bool,
) -> Result<i64, Error> {
    let mut binds = Binds::default();
    let (session, seq) = (binds.bind(session_id), binds.bind(after.unwrap_or_default()));
    let may_listen = if is_service {
        format!("EXISTS (SELECT FROM public.sessions WHERE id = {session})")
    } else {
        format!("private.require_open_account() AND {session} = ANY (private.my_session_ids())")
    };
    let sql = format!(
        "SELECT {may_listen} AS may_listen, \
           COALESCE((SELECT max(seq) FROM public.session_events WHERE session_id = {session}), 0) AS newest, \
           EXISTS (SELECT FROM public.session_events WHERE session_id = {session} AND seq = {seq}) AS is_kept"
    );
    let read = |rows: &[PgRow]| rows::decode_rows!(rows => Start { may_listen, newest, is_kept });
    let start = rows::fetch_all(tx, binds.statement(sql), read).await?;
    match (start.first(), after) {
        (Some(start), after) if start.may_listen => match after {
            None => Ok(start.newest),
            Some(0) => Ok(0),
            Some(seq) if start.is_kept => Ok(seq),
            Some(_) => Err(Error::EventsExpired),
        },
        _ if is_service => Err(Error::NotFound { what: "session" }),
        _ => Err(not_participant()),
    }
}

/// One subscription's place in the session's story.
struct Reader {
    caller: IdentityConnection,
    session_id: Uuid,
    registration: Registration,
    /// The last event that was read.
    position: i64,
    /// When there was nothing after it.
    caught_up_at: Instant,
    /// Whether there may be more without a word from the poller.
    has_more: bool,
    page: vec::IntoIter<Event>,
}

impl Reader {
    async fn next(&mut self) -> Result<Event, Error> {
        let mut failures = 0;
        loop {
            let newest = {
                let wake = self.registration.wake.borrow_and_update();
                if let Some(ended) = &wake.ended {
                    return Err(ended.clone().into());
                }
                wake.newest
            };
            if let Some(event) = self.page.next() {
                return Ok(event);
            }
            if self.has_more || newest > self.position {
                match self.read(newest).await {
                    Ok(()) => failures = 0,
                    Err(error) if may_pass(&error) => {
                        failures += 1;
                        let pause = backoff(failures);
                        // It also ends while it waits.
                        let _ = tokio::time::timeout(pause, self.registration.wake.changed()).await;
                    }
                    Err(error) => return Err(error),
                }
            } else {
                self.wait().await?;
            }
        }
    }

    /// Waits for the poller's word. While there is none, there is nothing after the position.
    async fn wait(&mut self) -> Result<(), Error> {
        match tokio::time::timeout(IS_SURELY_KEPT / 12, self.registration.wake.changed()).await {
            Ok(changed) => changed.map_err(|_| Error::PoolClosed),
            Err(_) => {
                if let Some(polled_at) = self.registration.polled_at() {
                    self.caught_up_at = self.caught_up_at.max(polled_at);
                }
                Ok(())
            }
        }
    }

    /// Reads what is after the position, of which the poller saw up to `newest`.
    async fn read(&mut self, newest: i64) -> Result<(), Error> {
        let begun = Instant::now();
        // Where the poller saw them: a server that is not as far would show a gap.
        let seen_at = self.registration.wake.borrow().position;
        let caller = self.caller.clone().at_least(seen_at);
        let must_be_kept = self.caught_up_at.elapsed() > IS_SURELY_KEPT;
        let page = page(&caller, self.session_id, self.position, must_be_kept).await?;
        self.has_more = page.len() as i64 == PAGE;
        if !self.has_more {
            self.caught_up_at = begun;
        }
        let Some(last) = page.last() else {
            // What the poller saw was deleted since.
            self.position = self.position.max(newest);
            return Ok(());
        };
        self.position = last.seq;
        self.page = page.into_iter();
        Ok(())
    }
}

/// The next events, under the caller's row security.
async fn page(
    caller: &IdentityConnection,
    session_id: Uuid,
    after: i64,
    must_be_kept: bool,
) -> Result<Vec<Event>, Error> {
    operation!(caller, reads "events.page", session = session_id, |tx| {
        let mut binds = Binds::default();
        let (session, seq, page) = (binds.bind(session_id), binds.bind(after), binds.bind(PAGE));
        let sql = format!(
            "SELECT {COLUMNS} FROM public.session_events \
             WHERE session_id = {session} AND seq > {seq} ORDER BY seq LIMIT {page}"
        );
        let page = rows::fetch_all(tx, binds.statement(sql), events).await?;
        // Asked afterwards: as long as the last one is there, none that followed it has gone.
        if must_be_kept {
            begin(tx, session_id, Some(after), tx.caller() == Identity::Service).await?;
        }
        Ok(page)
    })
}
