//! Events as they happen, of one session or of many.

use std::{
    collections::{HashMap, hash_map::Entry},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use chrono::{DateTime, FixedOffset, Utc};
use entity::session_events::Model as Event;
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use rls::{supabase, unchecked::Unchecked};
use sea_orm::sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    Events, history_of,
    hub::{Hub, Place, Start},
    reader::{Position, Reader},
    refusal,
};
use crate::{
    Error, IdentityConnection,
    connection::{OperationTransaction, UncheckedTransaction},
    identity::Identity,
    operation::operation,
    rows,
    sql::Binds,
};

/// A session's events as they happen, in their order: [`Events::subscribe`]. After an error it is over.
///
/// It holds fifty events at most. Dropped, it holds nothing.
pub struct Subscription {
    events: BoxStream<'static, Result<Event, Error>>,
    session_id: Uuid,
    place: Place,
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

/// The events of many sessions as they happen, each session's in their order: [`Events::subscribe_many`].
///
/// An item is a session and its next event, or the error that ended that session's part; the others go on. The stream gives
/// `None` while it has no session, and goes on when one is added.
pub struct Subscriptions {
    caller: IdentityConnection,
    events: SelectAll<BoxStream<'static, (Option<u64>, Item)>>,
    sessions: HashMap<Uuid, Place>,
}

type Item = (Uuid, Result<Event, Error>);

impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}

impl Stream for Subscriptions {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            let Some((place, item)) = ready!(self.events.poll_next_unpin(context)) else { return Poll::Ready(None) };
            let current = self.sessions.get(&item.0).map(Place::id);
            // What is left of a session that was taken out, or begun anew.
            if place.is_some() && place != current {
                continue;
            }
            if item.1.is_err() && place == current {
                self.sessions.remove(&item.0);
            }
            return Poll::Ready(Some(item));
        }
    }
}

impl Subscriptions {
    /// Adds a session, from now on or after the event with that `seq`. One that is there already begins anew.
    ///
    /// # Errors
    ///
    /// As [`Events::subscribe`].
    pub async fn add(&mut self, session_id: Uuid, after: Option<i64>) -> Result<(), Error> {
        let added = Events { caller: &self.caller }.subscribe(session_id, after).await?;
        self.insert(added);
        Ok(())
    }

    /// Takes a session out; whether it was there. None of its events follows.
    pub fn remove(&mut self, session_id: Uuid) -> bool {
        let place = self.sessions.remove(&session_id);
        place.inspect(Place::leave).is_some()
    }

    /// The sessions that are listened to, in no order.
    pub fn sessions(&self) -> impl Iterator<Item = Uuid> {
        self.sessions.keys().copied()
    }

    fn insert(&mut self, Subscription { events, session_id, place }: Subscription) {
        let id = Some(place.id());
        match self.sessions.entry(session_id) {
            Entry::Occupied(mut before) => before.insert(place).leave(),
            Entry::Vacant(entry) => _ = entry.insert(place),
        }
        self.events.push(events.map(move |event| (id, (session_id, event))).boxed());
    }
}

impl Events<'_, IdentityConnection> {
    /// What happens in a session from now on, or after the event with that `seq` (0: all of the last day), as a stream: each
    /// event once, in order, whoever wrote it.
    ///
    /// A reader who is slow delays nobody and loses nothing: the stream reads when it is asked for an event. It outlasts
    /// restarts of the server and a full pool. A session that is over keeps it open: what follows is that it is archived.
    /// It ends with [`Error::AccountClosed`] or [`Error::NotAllowed`] when the caller loses access, [`Error::NotFound`] when
    /// the session is deleted or archived, [`Error::EventsExpired`] when events may be missing, because the reader was away for
    /// too long or because another server answers that does not have what was read, [`Error::PoolClosed`] when the handle is
    /// closed.
    ///
    /// Who may: the Seer, whoever has or had a seat, and the service. Three round trips, and four for each page that is not read
    /// for all subscribers of the session together. No event.
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
        let mut rows = operation!(self.caller, "events.subscribe", session = session_id, |tx| {
            rows_of(tx, &[(session_id, after)]).await
        })?;
        let row = rows.pop().ok_or(Error::NotFound { what: "session" })?;
        listen(self.caller, row.begin(after)?)
    }

    /// The same for many sessions in one stream, as a gateway needs it: `(session, after)` each. More are added and taken out
    /// while it runs. What [`subscribe`](Self::subscribe) refuses for one of them is that one's first and last item.
    ///
    /// Who may: as [`subscribe`](Self::subscribe). Three round trips however many there are, and four for each page that is not
    /// read for all subscribers of a session together. No event.
    ///
    /// # Errors
    ///
    /// [`Error::AccountClosed`], [`Error::NotSignedIn`].
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use service::{Operations, Sparc};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let night = testdb::DemoGame::start().await?;
    /// # let sparc = Sparc::connect(night.url()).await?;
    /// let mut events = sparc.as_service().events().subscribe_many([(night.session, Some(0))]).await?;
    /// match events.next().await {
    ///     Some((session, Ok(event))) => println!("{session}: {}", event.event_type),
    ///     Some((session, Err(error))) => println!("{session} is over: {error}"),
    ///     None => println!("no session is left"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe_many(
        self,
        sessions: impl IntoIterator<Item = (Uuid, Option<i64>)>,
    ) -> Result<Subscriptions, Error> {
        let after: HashMap<Uuid, Option<i64>> = sessions.into_iter().collect();
        let sessions: Vec<_> = after.iter().map(|(session_id, after)| (*session_id, *after)).collect();
        let rows = operation!(self.caller, "events.subscribe_many", |tx| { rows_of(tx, &sessions).await })?;
        let (caller, events) = (self.caller.clone(), SelectAll::new());
        let mut subscriptions = Subscriptions { caller, events, sessions: HashMap::new() };
        for row in rows {
            let session_id = row.session_id;
            match row.begin(after.get(&session_id).copied().flatten()) {
                Ok(begun) => subscriptions.insert(listen(self.caller, begun)?),
                Err(Error::AccountClosed) => return Err(Error::AccountClosed),
                Err(error) => {
                    let refused = stream::once(std::future::ready((None, (session_id, Err(error)))));
                    subscriptions.events.push(refused.boxed());
                }
            }
        }
        Ok(subscriptions)
    }
}

/// A place among the subscribers, and the stream that reads from there.
fn listen(caller: &IdentityConnection, begun: Begun) -> Result<Subscription, Error> {
    let hub: Arc<Hub> = caller
        .context()
        .ok_or_else(|| Error::Misconfigured { reason: "the identity must be one of a Sparc handle".to_owned() })?;
    let Begun { start, position } = begun;
    let registration =
        hub.register(|| caller.switch_to(supabase::service()), &start, caller.user_id(), caller.seen())?;
    let place = registration.place();
    let reader = Reader::new(caller.clone(), registration, &start, position);
    let events = stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        let next = reader.next().await?;
        // After an error all that it holds is let go.
        let rest = next.is_ok().then_some(reader);
        Some((next, rest))
    });
    Ok(Subscription { events: events.boxed(), session_id: start.session_id, place })
}

/// What a subscription that may begin begins with.
struct Begun {
    start: Start,
    position: Position,
}

/// Where a subscription would begin.
struct Row {
    session_id: Uuid,
    status: String,
    history: String,
    newest: Option<i64>,
    newest_id: Option<Uuid>,
    newest_at: Option<DateTime<FixedOffset>>,
    kept_id: Option<Uuid>,
    kept_at: Option<DateTime<FixedOffset>>,
}

impl Row {
    fn begin(self, after: Option<i64>) -> Result<Begun, Error> {
        if let Some(error) = refusal(&self.status) {
            return Err(error);
        }
        let known = |id: Option<Uuid>, at: Option<DateTime<FixedOffset>>| Some((id?, at?.with_timezone(&Utc)));
        let newest = self.newest.unwrap_or_default();
        let position = match (after, known(self.kept_id, self.kept_at)) {
            (None, _) => Position { seq: newest, event: known(self.newest_id, self.newest_at) },
            (Some(0), _) => Position::default(),
            (Some(seq), Some(kept)) => Position { seq, event: Some(kept) },
            (Some(_), None) => return Err(Error::EventsExpired),
        };
        let start = Start { session_id: self.session_id, history: self.history.into(), newest };
        Ok(Begun { start, position })
    }
}

/// Where a subscription to each of these sessions would begin, as the server says that takes writes: a standby shows late what
/// happens, and refuses.
async fn rows_of(tx: &UncheckedTransaction, sessions: &[(Uuid, Option<i64>)]) -> Result<Vec<Row>, Error> {
    if tx.caller() == Identity::Anon {
        return Err(Error::NotSignedIn);
    }
    let (ids, after): (Vec<Uuid>, Vec<i64>) =
        sessions.iter().map(|(id, after)| (*id, after.unwrap_or_default())).unzip();
    let mut binds = Binds::default();
    let (ids, after) = (binds.bind(ids), binds.bind(after));
    let sql = format!(
        "SELECT watched.session_id, private.my_listener_status(watched.session_id) AS status, \
           private.event_history() AS history, newest.seq AS newest, newest.id AS newest_id, \
           newest.created_at AS newest_at, kept.id AS kept_id, kept.created_at AS kept_at \
         FROM unnest({ids}::uuid[], {after}::bigint[]) AS watched(session_id, after) \
         LEFT JOIN LATERAL ( \
           SELECT seq, id, created_at FROM public.session_events \
           WHERE session_id = watched.session_id ORDER BY seq DESC LIMIT 1 \
         ) AS newest ON true \
         LEFT JOIN public.session_events AS kept \
           ON kept.session_id = watched.session_id AND kept.seq = watched.after \
           AND kept.created_at > now() - INTERVAL '24 hours'"
    );
    let read = |rows: &[PgRow]| {
        rows::decode_rows!(rows => Row {
            session_id, status, history, newest, newest_id, newest_at, kept_id, kept_at
        })
    };
    let mut rows = rows::fetch_all(tx, binds.statement(sql), read).await?;
    for row in &mut rows {
        row.history = history_of(tx, Some(std::mem::take(&mut row.history)))?;
    }
    Ok(rows)
}
