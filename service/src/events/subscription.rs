//! Streams of events as they happen, of one session or of many.

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
use rls::{supabase, unguarded::UnguardedExt};
use sea_orm::sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    DATABASE_OID_SQL, Events, choose_history_id, event_access_error,
    hub::{Hub, SessionSnapshot, SubscriberHandle},
    poller,
    reader::Reader,
    stream_position::EventPosition,
};
use crate::{
    Error, IdentityConnection,
    binds::Binds,
    connection::{OperationTransaction, OperationTransactionExt},
    identity::Identity,
    operation::operation,
    rows,
};

/// A stream of a session's events, in order: [`Events::subscribe`]. It ends after an error.
///
/// The stream holds at most fifty events in memory. Dropping it ends the subscription.
pub struct Subscription {
    events: BoxStream<'static, Result<Event, Error>>,
    session_id: Uuid,
    last_seq: i64,
    handle: SubscriberHandle,
}

impl Subscription {
    /// Returns the `seq` to resume after. Once the stream has returned an event, this is the `seq` of the last one.
    /// Before that, it is the `seq` after which the stream started (0 for the beginning). A handler of server-sent
    /// events sends it as the id of its first message, so that a client that loses the connection before the first
    /// event resumes without a gap.
    #[must_use]
    pub fn last_seq(&self) -> i64 {
        self.last_seq
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("session_id", &self.session_id)
            .field("last_seq", &self.last_seq)
            .finish_non_exhaustive()
    }
}

impl Stream for Subscription {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.events.as_mut().poll_next(context);
        if let Poll::Ready(Some(Ok(event))) = &next {
            self.last_seq = event.seq;
        }
        next
    }
}

/// A stream of the events of many sessions, in order within each session: [`Events::subscribe_many`].
///
/// An item is the id of a session with its next event, or with the error that ended its subscription; the other
/// sessions continue. The stream returns `None` while it has no sessions, and continues when one is added.
pub struct Subscriptions {
    caller: IdentityConnection,
    /// The sessions to which the caller could not subscribe, with the errors that the stream has not returned yet.
    refusals: Vec<(Uuid, Error)>,
    /// Each item comes with the id of its subscriber.
    events: SelectAll<BoxStream<'static, (u64, SessionItem)>>,
    /// The subscriber of each session in the stream. (A *subscriber* of the hub is one subscription, not a user.)
    subscribers: HashMap<Uuid, SubscriberHandle>,
}

type SessionItem = (Uuid, Result<Event, Error>);

impl std::fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriptions").field("sessions", &self.subscribers.len()).finish_non_exhaustive()
    }
}

impl Stream for Subscriptions {
    type Item = SessionItem;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SessionItem>> {
        if let Some((session_id, error)) = self.refusals.pop() {
            return Poll::Ready(Some((session_id, Err(error))));
        }
        loop {
            let Some((subscriber_id, item)) = ready!(self.events.poll_next_unpin(context)) else {
                return Poll::Ready(None);
            };
            let (session_id, event) = &item;
            let current_id = self.subscribers.get(session_id).map(SubscriberHandle::id);
            // Skips an item whose subscription was removed or replaced.
            if Some(subscriber_id) != current_id {
                continue;
            }
            if event.is_err() {
                self.subscribers.remove(session_id);
            }
            return Poll::Ready(Some(item));
        }
    }
}

impl Subscriptions {
    /// Adds the events of a session, from now on or from after the event whose `seq` is `after_seq`. If the session is
    /// already included, its new subscription replaces the earlier one.
    ///
    /// # Errors
    ///
    /// The same as those of [`Events::subscribe`].
    pub async fn add(&mut self, session_id: Uuid, after_seq: Option<i64>) -> Result<(), Error> {
        let subscription = Events { executor: &self.caller }.subscribe(session_id, after_seq).await?;
        self.insert(subscription);
        Ok(())
    }

    /// Removes a session, and returns whether it was included. None of its events follow, and no error.
    pub fn remove(&mut self, session_id: Uuid) -> bool {
        self.forget_refusal(session_id);
        let handle = self.subscribers.remove(&session_id);
        handle.inspect(SubscriberHandle::remove).is_some()
    }

    /// Returns the ids of the sessions in the stream, in no particular order.
    pub fn session_ids(&self) -> impl Iterator<Item = Uuid> {
        self.subscribers.keys().copied()
    }

    /// Drops the error of an attempt to subscribe to the session, if the stream has not returned it yet.
    fn forget_refusal(&mut self, session_id: Uuid) {
        self.refusals.retain(|(refused_id, _)| *refused_id != session_id);
    }

    fn insert(&mut self, Subscription { events, session_id, handle, .. }: Subscription) {
        self.forget_refusal(session_id);
        let subscriber_id = handle.id();
        match self.subscribers.entry(session_id) {
            // `OccupiedEntry::insert` returns the handle of the earlier subscriber, which is then removed from the hub.
            Entry::Occupied(mut earlier) => earlier.insert(handle).remove(),
            Entry::Vacant(entry) => _ = entry.insert(handle),
        }
        self.events.push(events.map(move |event| (subscriber_id, (session_id, event))).boxed());
    }
}

impl Events<'_, IdentityConnection> {
    /// Subscribes to the events of a session, from now on or from after the event whose `seq` is `after_seq` (0 for all
    /// events of the last day). The stream returns each event once, in order.
    ///
    /// A slow reader delays nobody, because the stream reads from the database only when it is polled. The stream
    /// continues across restarts of the server and when the pool is exhausted. It stays open after the session has
    /// ended, until the session is archived or deleted. It ends with
    ///
    /// - [`Error::AccountClosed`] or [`Error::NotAllowed`] when the caller loses access,
    /// - [`Error::NotFound`] when the session is archived or deleted,
    /// - [`Error::EventsExpired`] when events may be missing, because too much time passed without a poll of the
    ///   stream, or because another server answers and lacks events that this stream has already returned,
    /// - [`Error::PoolClosed`] when the [`Sparc`](crate::Sparc) handle is closed,
    /// - any other error that a further attempt would not avoid.
    ///
    /// Who may: the Seer, players (even after leaving) and the service. Three round trips, and four more for each
    /// page of events that the stream must read itself. No event. The `Sparc` handle reads recent events once, for all
    /// its streams.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for anyone else, [`Error::AccountClosed`], [`Error::EventsExpired`] if the event whose
    /// `seq` is `after_seq` is no longer kept (subscribe again with `None`, and then reload the session);
    /// [`Error::NotFound`] for the service if there is no such session, [`Error::NotSignedIn`].
    ///
    /// ```
    /// use futures_util::TryStreamExt;
    /// use service::{Operations, Sparc};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let demo = testdb::DemoGame::start().await?;
    /// # let sparc = Sparc::connect(demo.url()).await?;
    /// let mut events = sparc.as_user(demo.player).events().subscribe(demo.session, Some(0)).await?;
    /// if let Some(event) = events.try_next().await? {
    ///     println!("{} {}", event.event_type, event.payload);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe(self, session_id: Uuid, after_seq: Option<i64>) -> Result<Subscription, Error> {
        let mut rows = operation!(self.executor, "events.subscribe", session = session_id, |tx| {
            read_start_rows(tx, &[(session_id, after_seq)]).await
        })?;
        let row = rows.pop().ok_or(Error::NotFound { what: "session" })?;
        open_subscription(self.executor, row.into_start_point(after_seq)?)
    }

    /// Subscribes to many sessions in one stream, for a program that relays events to many clients. `sessions` has
    /// pairs of a session and the `after_seq` of [`subscribe`](Self::subscribe). Sessions can be added and removed
    /// later. If `subscribe` would refuse one of them, the error is that session's first and last item.
    ///
    /// Who may: a user and the service, for each session as in `subscribe`. Three round trips for any number of
    /// sessions, and four more for each page of events that a stream must read itself. No event.
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
    /// # let demo = testdb::DemoGame::start().await?;
    /// # let sparc = Sparc::connect(demo.url()).await?;
    /// let mut events = sparc.as_service().events().subscribe_many([(demo.session, Some(0))]).await?;
    /// match events.next().await {
    ///     Some((session, Ok(event))) => println!("{session}: {}", event.event_type),
    ///     Some((session, Err(error))) => println!("no more events of {session}: {error}"),
    ///     None => println!("the stream has no sessions"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe_many(
        self,
        sessions: impl IntoIterator<Item = (Uuid, Option<i64>)>,
    ) -> Result<Subscriptions, Error> {
        let after_seq_by_session: HashMap<Uuid, Option<i64>> = sessions.into_iter().collect();
        let sessions: Vec<_> =
            after_seq_by_session.iter().map(|(session_id, after_seq)| (*session_id, *after_seq)).collect();
        let rows = operation!(self.executor, "events.subscribe_many", |tx| { read_start_rows(tx, &sessions).await })?;
        let (caller, events) = (self.executor.clone(), SelectAll::new());
        let mut subscriptions = Subscriptions { caller, refusals: Vec::new(), events, subscribers: HashMap::new() };
        for row in rows {
            let session_id = row.session_id;
            match row.into_start_point(after_seq_by_session.get(&session_id).copied().flatten()) {
                Ok(start_point) => subscriptions.insert(open_subscription(self.executor, start_point)?),
                Err(Error::AccountClosed) => return Err(Error::AccountClosed),
                Err(error) => subscriptions.refusals.push((session_id, error)),
            }
        }
        Ok(subscriptions)
    }
}

/// Registers a subscriber, and returns its stream.
fn open_subscription(caller: &IdentityConnection, start_point: StartPoint) -> Result<Subscription, Error> {
    let hub: Arc<Hub> = caller
        .context()
        .ok_or_else(|| Error::Misconfigured { reason: "the identity must come from a Sparc handle".to_owned() })?;
    let StartPoint { snapshot, position } = start_point;
    let start_poller = |guard| _ = tokio::spawn(poller::run(guard, caller.as_identity(supabase::service())));
    let registration = hub.register(start_poller, &snapshot, caller.user_id(), caller.seen_log_position())?;
    let handle = registration.handle();
    let last_seq = position.seq;
    let reader = Reader::new(caller.clone(), registration, &snapshot, position);
    let events = stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        let next = reader.next().await?;
        // After an error the reader is dropped, which ends the registration.
        let state = next.is_ok().then_some(reader);
        Some((next, state))
    });
    Ok(Subscription { events: events.boxed(), session_id: snapshot.session_id, last_seq, handle })
}

/// Where a permitted subscription starts: its session, and the position after which it reads.
struct StartPoint {
    snapshot: SessionSnapshot,
    position: EventPosition,
}

/// What the database says about a session when a subscription starts. The fields `newest_*` are about the session's
/// newest event, `after_*` about the event to start after, if it is still kept. They are `None` if there is no such
/// event.
struct StartRow {
    session_id: Uuid,
    /// The result of `private.my_event_access`.
    status: String,
    /// The result of `private.event_history_id`, and then, once [`read_start_rows`] has returned, the identifier of the
    /// history of events (see `super::choose_history_id`). In another history, the same `seq` may belong to another
    /// event.
    history_id: String,
    database_oid: i64,
    newest_seq: Option<i64>,
    newest_id: Option<Uuid>,
    newest_at: Option<DateTime<FixedOffset>>,
    after_id: Option<Uuid>,
    after_at: Option<DateTime<FixedOffset>>,
}

impl StartRow {
    /// Returns where a subscription starts: after the event whose `seq` is `after_seq`, or from now on. Returns an
    /// error if the caller may not read the session's events, or if that event is no longer kept.
    fn into_start_point(self, after_seq: Option<i64>) -> Result<StartPoint, Error> {
        if let Some(error) = event_access_error(&self.status) {
            return Err(error);
        }
        let to_id_and_time = |id: Option<Uuid>, at: Option<DateTime<FixedOffset>>| Some((id?, at?.with_timezone(&Utc)));
        let newest_seq = self.newest_seq.unwrap_or_default();
        let position = match (after_seq, to_id_and_time(self.after_id, self.after_at)) {
            (None, _) => EventPosition { seq: newest_seq, id_and_time: to_id_and_time(self.newest_id, self.newest_at) },
            (Some(0), _) => EventPosition::default(),
            (Some(seq), Some(id_and_time)) => EventPosition { seq, id_and_time: Some(id_and_time) },
            (Some(_), None) => return Err(Error::EventsExpired),
        };
        let snapshot = SessionSnapshot { session_id: self.session_id, history_id: self.history_id.into(), newest_seq };
        Ok(StartPoint { snapshot, position })
    }
}

/// Reads the start rows of subscriptions to these sessions, each with the `seq` to start after. Reads from the primary:
/// on a standby, `private.event_history_id` raises an error, because a standby shows events late.
async fn read_start_rows(tx: &OperationTransaction, sessions: &[(Uuid, Option<i64>)]) -> Result<Vec<StartRow>, Error> {
    if tx.caller_identity() == Identity::Anon {
        return Err(Error::NotSignedIn);
    }
    let (session_ids, after_seqs): (Vec<Uuid>, Vec<i64>) =
        sessions.iter().map(|(session_id, after_seq)| (*session_id, after_seq.unwrap_or_default())).unzip();
    let mut binds = Binds::default();
    let (session_ids, after_seqs) = (binds.bind(session_ids), binds.bind(after_seqs));
    let sql = format!(
        "SELECT watched.session_id, private.my_event_access(watched.session_id) AS status, \
           private.event_history_id() AS history_id, {DATABASE_OID_SQL} AS database_oid, \
           newest.seq AS newest_seq, newest.id AS newest_id, newest.created_at AS newest_at, \
           after_event.id AS after_id, after_event.created_at AS after_at \
         FROM unnest({session_ids}::uuid[], {after_seqs}::bigint[]) AS watched(session_id, after_seq) \
         LEFT JOIN LATERAL ( \
           SELECT seq, id, created_at FROM public.session_events \
           WHERE session_id = watched.session_id ORDER BY seq DESC LIMIT 1 \
         ) AS newest ON true \
         LEFT JOIN public.session_events AS after_event \
           ON after_event.session_id = watched.session_id AND after_event.seq = watched.after_seq \
           AND after_event.created_at > now() - INTERVAL '24 hours'"
    );
    let decode = |rows: &[PgRow]| {
        rows::decode_rows!(rows => StartRow {
            session_id, status, history_id, database_oid, newest_seq, newest_id, newest_at, after_id, after_at
        })
    };
    let mut rows = rows::fetch_all(tx, binds.into_statement(sql), decode).await?;
    for row in &mut rows {
        row.history_id = choose_history_id(tx, row.database_oid, Some(std::mem::take(&mut row.history_id)))?;
    }
    Ok(rows)
}
