//! One primary and its replicas: on which of them a transaction begins. The monitor (`monitor.rs`) checks each server.
//! Its results may be half a second old, so every begin asks the server again, in the message that begins the
//! transaction.

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

/// Maximum wait for a replica that has not replayed what its caller wrote; then the transaction begins on the primary.
const MAX_REPLICA_WAIT: Duration = Duration::from_millis(25);
/// Timeout for beginning a transaction on a replica, at most a third of the deadline; then another server is tried.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two attempts to find a server that accepts writes.
const PRIMARY_PAUSE: Duration = Duration::from_millis(50);

/// Where a login's transactions run.
#[derive(Clone, Debug)]
pub(crate) enum Servers {
    /// One server, without replicas: positions and timelines are not tracked.
    One(Pool),
    Several(Arc<Cluster>),
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// It may write.
    Write,
    /// It only reads, on a server that has replayed the required position. With `is_one_snapshot`, all its statements
    /// see the snapshot of the first one.
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

    /// Checks that the server answers; with replicas, the primary.
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
                cluster.wake.notify_one();
                for member in &cluster.members {
                    member.pool.close().await?;
                }
                let monitor = cluster.monitor.lock().ok().and_then(|mut monitor| monitor.take());
                if let Some(monitor) = monitor {
                    // The monitor ends after the probe in progress.
                    let _ = monitor.await;
                }
                Ok(())
            }
        }
    }
}

/// The servers of one database, with one login.
pub(crate) struct Cluster {
    members: Vec<Member>,
    /// Index in `members` of the server that accepts writes, as far as known.
    primary: watch::Sender<usize>,
    /// The newest timeline of any primary so far. A primary on an older timeline has been replaced.
    timeline: AtomicU32,
    next: AtomicUsize,
    positions: Arc<Positions>,
    wake: Arc<Notify>,
    is_closed: AtomicBool,
    acquire_timeout: Duration,
    monitor: std::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// One of the servers.
struct Member {
    address: String,
    options: PgConnectOptions,
    pool: Pool,
    /// Whether reads are sent to it.
    is_serving: AtomicBool,
    is_reachable: AtomicBool,
    timeline: AtomicU32,
    /// Its log position when it was last checked.
    lsn: AtomicU64,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The monitor notices that the cluster has been dropped, and ends.
        self.wake.notify_one();
    }
}

/// The status of one of a handle's servers: [`Database::servers`](crate::Database::servers).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Host and port.
    pub address: String,
    /// What it is used for.
    pub role: ServerRole,
    /// Its log position when it was last checked, at most half a second ago if it is healthy.
    pub position: Option<Position>,
}

/// What a server is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerRole {
    /// It accepts writes.
    Primary,
    /// It is used for reads.
    Replica,
    /// It is not used: it is unreachable, lags, or does not follow the primary.
    Out,
}

impl Cluster {
    /// Connects to the servers at these addresses, at least one of which must answer. The first is assumed to be the
    /// primary until the primary is known.
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
            wake: Arc::default(),
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

    /// Returns the primary's answer to a query, or that of any other server while there is no primary.
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

    pub(crate) fn wake_monitor(&self) {
        self.wake.notify_one();
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

    /// Begins a transaction on a replica. `None` if no replica is fresh enough in time.
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
                    // The snapshot is taken before the server can be asked for its position.
                    && (!is_one_snapshot || member.lsn.load(Ordering::SeqCst) >= lsn)
            })
            .collect();
        if candidates.is_empty() {
            if timeline > newest {
                self.wake_monitor();
            }
            return None;
        }
        // In turn; replicas known to be fresh enough come first.
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
                    self.wake_monitor();
                    continue;
                }
                // It hangs, has no free connection, or refuses: another replica may work.
                Ok(_) | Err(_) => {
                    self.wake_monitor();
                    continue;
                }
            };
            // A replica that was promoted in the meantime has everything that it had replayed, and may be used.
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

    /// Begins a transaction on the server that accepts writes. While there is none, because it is being replaced, waits
    /// as for a connection.
    async fn begin_on_primary(self: &Arc<Self>, request: &Request<'_>) -> Result<Session, DbErr> {
        let begun = Instant::now();
        let mut primary = self.primary.subscribe();
        loop {
            let index = *primary.borrow_and_update();
            let member = &self.members[index];
            let begin = Session::begin(&member.pool, request, self.origin(index));
            let outcome = select! {
                outcome = begin => outcome,
                // Nothing was changed on the old primary.
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
            self.wake_monitor();
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

/// Waits until the session's server has replayed up to the position. Returns whether it has in time.
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

/// Which of several servers a transaction runs on.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    cluster: Arc<Cluster>,
    member: usize,
    /// It began on a standby, so nothing can be written in it, even after that standby is promoted.
    pub(crate) is_standby: bool,
    /// The server's timeline when it began.
    pub(crate) timeline: u32,
}

impl Origin {
    /// Records what the server returned at the begin. A standby does not return its timeline; the monitor knows it.
    pub(crate) fn begun(&mut self, place: Place) {
        self.is_standby = place.is_standby;
        if !place.is_standby {
            self.timeline = place.timeline;
        }
    }

    /// Returns the state of a commit that is about to be sent.
    pub(crate) fn commit(&self, identity: &Identity) -> Commit {
        let lost_before = self.cluster.positions.lost();
        Commit { origin: self.clone(), identity: identity.clone(), lost_before, is_answered: self.is_standby }
    }
}

/// A commit in progress. If it is dropped before the server answers, only the primary knows its outcome.
pub(crate) struct Commit {
    origin: Origin,
    identity: Identity,
    /// How many answers were lost before it was sent.
    lost_before: u64,
    is_answered: bool,
}

impl Commit {
    /// Records what the identity has seen, on a replica too, because the next replica must not show less.
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
            // It is committed at an unknown position, or its outcome is unknown.
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

/// Returns the address with the login and the database of another: a replica has the roles and databases of its
/// primary.
pub(crate) fn with_login_of(address: &PgConnectOptions, login: PgConnectOptions) -> PgConnectOptions {
    login.host(address.get_host()).port(address.get_port())
}
