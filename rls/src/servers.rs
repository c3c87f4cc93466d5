//! One primary and its replicas: which of them a transaction begins on. The monitor (`monitor.rs`) looks after each;
//! what it says may be half a second old, so that every begin asks its server again, in the message that it sends
//! anyway.

mod monitor;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::{
    DbErr,
    sqlx::{self, Connection, PgConnection, postgres::PgConnectOptions},
};
use tokio::{
    select,
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use crate::{
    Error, Identity,
    database::ask,
    error::is_connection_lost,
    pool::Pool,
    position::{Position, Positions, Required},
    session::{GRACE, Request, Session},
    wire::Place,
};

/// A replica that has not replayed what its caller wrote is waited for so long; then the primary is asked.
const MAX_REPLICA_WAIT: Duration = Duration::from_millis(25);
/// A replica that does not begin a transaction by then, or in a third of the deadline, is left to the monitor, and
/// another server is asked.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two looks for a server that takes writes.
const PRIMARY_PAUSE: Duration = Duration::from_millis(50);

/// Where a login's transactions run.
#[derive(Clone, Debug)]
pub(crate) enum Servers {
    /// One server, of which nothing is asked that it would not be asked alone.
    One(Pool),
    Several(Arc<Cluster>),
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// It may write.
    Write,
    /// It reads what the server must have replayed. With `is_one_snapshot`, all that it sees is as of its first
    /// statement.
    Read { required: Required, is_one_snapshot: bool },
}

impl Servers {
    pub(crate) async fn begin(&self, request: &Request<'_>, purpose: Purpose) -> Result<Session, DbErr> {
        let begin = async {
            match self {
                Self::One(pool) => Ok(Session::begin(pool, request, None).await?.0),
                Self::Several(cluster) => cluster.begin(request, purpose).await,
            }
        };
        match request.time {
            None => begin.await,
            Some(time) => {
                timeout(time.saturating_add(GRACE), begin).await.unwrap_or_else(|_| Err(Error::DeadlineExceeded.into()))
            }
        }
    }

    pub(crate) fn primary(&self) -> &Pool {
        match self {
            Self::One(pool) => pool,
            Self::Several(cluster) => &cluster.members[cluster.current()].pool,
        }
    }

    /// Whether somebody answers: the primary, where there are replicas.
    pub(crate) async fn ping(&self) -> Result<(), DbErr> {
        self.primary().ping().await
    }

    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::One(_) => None,
            Self::Several(cluster) => Some(cluster),
        }
    }

    pub(crate) async fn close(&self) -> Result<(), DbErr> {
        match self {
            Self::One(pool) => pool.close().await,
            Self::Several(cluster) => {
                cluster.is_closed.store(true, Ordering::SeqCst);
                cluster.kick.notify_one();
                for member in &cluster.members {
                    member.pool.close().await?;
                }
                let monitor = cluster.monitor.lock().ok().and_then(|mut monitor| monitor.take());
                if let Some(monitor) = monitor {
                    // It ends after the probe that is under way.
                    let _ = monitor.await;
                }
                Ok(())
            }
        }
    }
}

/// The servers of one database, over one login.
pub(crate) struct Cluster {
    members: Vec<Member>,
    /// Place in `members` of the server that takes writes, as far as is known.
    primary: watch::Sender<usize>,
    /// The newest timeline that a primary was seen on. One on an older timeline was replaced, whatever it says.
    timeline: AtomicU32,
    next: AtomicUsize,
    positions: Arc<Positions>,
    kick: Arc<Notify>,
    is_closed: AtomicBool,
    acquire_timeout: Duration,
    monitor: std::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// One of the servers.
struct Member {
    address: String,
    options: PgConnectOptions,
    pool: Pool,
    /// Whether readers are sent there.
    is_serving: AtomicBool,
    is_reachable: AtomicBool,
    timeline: AtomicU32,
    /// How far its log was when it last said so.
    lsn: AtomicU64,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The monitor sees that there is nothing left to look after.
        self.kick.notify_one();
    }
}

/// One of a handle's servers, as [`Database::servers`](crate::Database::servers) tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Host and port.
    pub address: String,
    /// What it is used for.
    pub role: ServerRole,
    /// How far its log was when it last said so, at most half a second ago where it is healthy.
    pub position: Option<Position>,
}

/// What a server is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerRole {
    /// It takes writes.
    Primary,
    /// It answers readers.
    Replica,
    /// Nothing: it is unreachable, lags, or does not follow the primary.
    Out,
}

impl Cluster {
    /// Over the servers of these addresses, of which one must be there. The first is the one that is taken for the
    /// primary until it is known.
    pub(crate) async fn connect(
        addresses: Vec<PgConnectOptions>,
        max_connections: u32,
        acquire_timeout: Duration,
        positions: Arc<Positions>,
    ) -> Result<Arc<Self>, Error> {
        let mut members = Vec::new();
        for options in &addresses {
            members.push(Member {
                address: format!("{}:{}", options.get_host(), options.get_port()),
                options: options.clone(),
                pool: Pool::managed(options.clone(), max_connections, acquire_timeout)?,
                is_serving: AtomicBool::new(false),
                is_reachable: AtomicBool::new(false),
                timeline: AtomicU32::new(0),
                lsn: AtomicU64::new(0),
            });
        }
        let cluster = Arc::new(Self {
            members,
            primary: watch::Sender::new(0),
            timeline: AtomicU32::new(0),
            next: AtomicUsize::new(0),
            positions,
            kick: Arc::default(),
            is_closed: AtomicBool::new(false),
            acquire_timeout,
            monitor: std::sync::Mutex::default(),
        });
        let monitor = monitor::start(&cluster, addresses).await?;
        if let Ok(mut place) = cluster.monitor.lock() {
            *place = Some(monitor);
        }
        Ok(cluster)
    }

    /// What an identity must see.
    pub(crate) fn required(&self, identity: &Identity) -> Required {
        self.positions.of(identity)
    }

    /// What the primary says to a question, or any other server while there is none.
    pub(crate) async fn ask(&self, question: &'static str) -> Result<Option<String>, sqlx::Error> {
        let current = self.current();
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_key(|index| (*index != current, !self.members[*index].is_reachable.load(Ordering::SeqCst)));
        let mut refused = None;
        for index in order {
            match open_and_ask(&self.members[index].options, question).await {
                Ok(answer) => return Ok(answer),
                Err(error) => _ = refused.get_or_insert(error),
            }
        }
        Err(refused.unwrap_or(sqlx::Error::PoolTimedOut))
    }

    pub(crate) fn kick(&self) {
        self.kick.notify_one();
    }

    fn current(&self) -> usize {
        *self.primary.borrow()
    }

    pub(crate) fn status(&self) -> Vec<ServerStatus> {
        let current = self.current();
        let status = |(index, member): (usize, &Member)| {
            let is_reachable = member.is_reachable.load(Ordering::SeqCst);
            let role = match (index == current && is_reachable, member.is_serving.load(Ordering::SeqCst)) {
                (true, false) => ServerRole::Primary,
                (false, true) => ServerRole::Replica,
                _ => ServerRole::Out,
            };
            let (timeline, lsn) = (member.timeline.load(Ordering::SeqCst), member.lsn.load(Ordering::SeqCst));
            let position = (timeline > 0).then_some(Position { timeline, lsn });
            ServerStatus { address: member.address.clone(), role, position }
        };
        self.members.iter().enumerate().map(status).collect()
    }

    async fn begin(self: &Arc<Self>, request: &Request<'_>, purpose: Purpose) -> Result<Session, DbErr> {
        if let Purpose::Read { required, is_one_snapshot } = purpose
            && let Some(session) = self.begin_on_replica(request, required, is_one_snapshot).await
        {
            return Ok(session);
        }
        self.begin_on_primary(request).await
    }

    fn origin(self: &Arc<Self>, member: usize) -> Option<Origin> {
        let timeline = self.members[member].timeline.load(Ordering::SeqCst);
        Some(Origin { cluster: self.clone(), member, is_standby: false, timeline })
    }

    /// None where no replica is fresh enough in time.
    async fn begin_on_replica(
        self: &Arc<Self>,
        request: &Request<'_>,
        required: Required,
        is_one_snapshot: bool,
    ) -> Option<Session> {
        if required.unknown.is_some() {
            return None;
        }
        let newest = self.timeline.load(Ordering::SeqCst);
        let (timeline, lsn) = required.position.map_or((0, 0), |position| (position.timeline, position.lsn));
        let mut candidates: Vec<usize> = (0..self.members.len())
            .filter(|index| {
                let member = &self.members[*index];
                member.is_serving.load(Ordering::SeqCst)
                    && member.timeline.load(Ordering::SeqCst) >= timeline.max(newest)
                    // A snapshot is taken before its server is asked how fresh it is.
                    && (!is_one_snapshot || member.lsn.load(Ordering::SeqCst) >= lsn)
            })
            .collect();
        if candidates.is_empty() {
            if timeline > newest {
                self.kick();
            }
            return None;
        }
        // In turn; those who are known to be fresh before the others.
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % candidates.len();
        candidates.rotate_left(turn);
        candidates.sort_by_key(|index| self.members[*index].lsn.load(Ordering::SeqCst) < lsn);
        for index in candidates.into_iter().take(2) {
            let member = &self.members[index];
            let begin = Session::begin(&member.pool, request, self.origin(index));
            let patience = request.time.map_or(REPLICA_TIMEOUT, |time| REPLICA_TIMEOUT.min(time / 3));
            let (session, place) = match timeout(patience, begin).await {
                Ok(Ok((session, Some(place)))) => (session, place),
                Ok(Err(error)) if is_connection_lost(&error) => {
                    member.is_serving.store(false, Ordering::SeqCst);
                    self.kick();
                    continue;
                }
                // It hangs, has no connection free, or refuses: the next one may not.
                Ok(_) | Err(_) => {
                    self.kick();
                    continue;
                }
            };
            // One that was promoted meanwhile has all that it had replayed.
            if !place.is_standby && place.timeline < newest {
                session.discard().await;
                continue;
            }
            if place.is_standby {
                member.lsn.fetch_max(place.lsn, Ordering::SeqCst);
            }
            if place.lsn >= lsn || !is_one_snapshot && caught_up(&session, lsn).await {
                return Some(session);
            }
            return None;
        }
        None
    }

    /// On the server that takes writes. Where it changes, or is just being replaced, it is waited for as for a
    /// connection.
    async fn begin_on_primary(self: &Arc<Self>, request: &Request<'_>) -> Result<Session, DbErr> {
        let begun = Instant::now();
        let mut primary = self.primary.subscribe();
        loop {
            let index = *primary.borrow_and_update();
            let member = &self.members[index];
            let begin = Session::begin(&member.pool, request, self.origin(index));
            let outcome = select! {
                outcome = begin => outcome,
                // Nothing was done on the old one.
                Ok(()) = primary.changed() => continue,
            };
            let refused = match outcome {
                Ok((session, Some(place))) => {
                    let newest = self.timeline.load(Ordering::SeqCst);
                    if !place.is_standby && place.timeline >= newest {
                        self.timeline.fetch_max(place.timeline, Ordering::SeqCst);
                        return Ok(session);
                    }
                    session.discard().await;
                    member.pool.drop_idle();
                    Error::NoPrimary.into()
                }
                Ok((session, None)) => {
                    session.discard().await;
                    Error::NoPrimary.into()
                }
                Err(error) if is_connection_lost(&error) => error,
                Err(error) => return Err(error),
            };
            self.kick();
            if begun.elapsed() >= self.acquire_timeout {
                return Err(refused);
            }
            select! {
                _ = primary.changed() => {}
                () = sleep(PRIMARY_PAUSE) => {}
            }
        }
    }
}

async fn open_and_ask(options: &PgConnectOptions, question: &'static str) -> Result<Option<String>, sqlx::Error> {
    let asking = async {
        let mut connection = PgConnection::connect_with(options).await?;
        let answer = ask(&mut connection, question).await?;
        connection.close().await?;
        Ok(answer)
    };
    timeout(REPLICA_TIMEOUT, asking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Whether the session's server replays up to there in time.
async fn caught_up(session: &Session, lsn: u64) -> bool {
    let waiting = async {
        let mut pause = Duration::from_millis(1);
        loop {
            sleep(pause).await;
            match session.place().await {
                Ok(Some(place)) if place.lsn >= lsn => return true,
                Ok(Some(_)) => pause *= 2,
                Ok(None) | Err(_) => return false,
            }
        }
    };
    timeout(MAX_REPLICA_WAIT, waiting).await.unwrap_or(false)
}

/// Which of several servers a transaction is on.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    cluster: Arc<Cluster>,
    member: usize,
    /// It is on a standby, so that nothing can be written in it, also once that is promoted.
    pub(crate) is_standby: bool,
    /// The timeline that it was on when it began.
    pub(crate) timeline: u32,
}

impl Origin {
    /// What the server said at the beginning. A standby does not say its timeline: the monitor did.
    pub(crate) fn begun(&mut self, place: Place) {
        self.is_standby = place.is_standby;
        if !place.is_standby {
            self.timeline = place.timeline;
        }
    }

    /// Before a commit is sent.
    pub(crate) fn commit(&self, identity: &Identity) -> Commit {
        let lost_before = self.cluster.positions.lost();
        Commit { origin: self.clone(), identity: identity.clone(), lost_before, is_answered: self.is_standby }
    }
}

/// A commit that is under way. Dropped before it is answered, only the primary knows what became of it.
pub(crate) struct Commit {
    origin: Origin,
    identity: Identity,
    /// How many answers were lost before it was sent.
    lost_before: u64,
    is_answered: bool,
}

impl Commit {
    /// What the identity has seen is remembered, on a replica too: the next one must not show less.
    pub(crate) fn answered(mut self, is_committed: bool, place: Option<Place>, is_lost: bool) {
        let Origin { cluster, member, .. } = &self.origin;
        match place {
            Some(place) if is_committed && place.is_standby => {
                let timeline = cluster.members[*member].timeline.load(Ordering::SeqCst);
                cluster.positions.note(&self.identity, Position { timeline, lsn: place.lsn });
            }
            Some(place) if is_committed => {
                cluster.timeline.fetch_max(place.timeline, Ordering::SeqCst);
                let position = Position { timeline: place.timeline, lsn: place.lsn };
                cluster.positions.note_from_primary(&self.identity, position, self.lost_before);
            }
            // Committed, and not told up to where; or not known.
            _ if is_committed || is_lost => return,
            _ => {}
        }
        self.is_answered = true;
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if !self.is_answered {
            self.origin.cluster.positions.note_unknown(&self.identity);
        }
    }
}

/// The address with the login and the database of another: a replica has the roles and databases of its primary.
pub(crate) fn with_login_of(address: &PgConnectOptions, login: PgConnectOptions) -> PgConnectOptions {
    login.host(address.get_host()).port(address.get_port())
}
