//! A primary and its replicas: their pools, what the monitor (`monitor.rs`) has found out about each of them, and their
//! status.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use sea_orm::{
    DbErr,
    sqlx::{self, Connection, postgres::PgConnectOptions},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    Error, Identity,
    connect::{Opener, server_address},
    pool::{Pool, PoolOptions},
    position::{LogPosition, ReadRequirement, ReadRequirementsByIdentity},
    tracked_server::PositionTracking,
    wire::query_scalar,
};

/// Timeout for beginning a transaction on a replica, after which another server is tried. It is reduced to a third of
/// the statement deadline, if that is shorter. Also the timeout of each attempt of [`Cluster::query_scalar`].
pub(super) const SERVER_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// The servers of one database, with the pools of one login.
pub(crate) struct Cluster {
    pub(super) members: Vec<Member>,
    /// Index in `members` of the server last known to accept writes.
    pub(super) primary: watch::Sender<usize>,
    /// The newest timeline of any primary so far. A primary on an older timeline has been replaced.
    pub(super) newest_timeline: Arc<AtomicU32>,
    /// The number of reads so far. It selects the replica for the next read, so that the replicas take turns.
    pub(super) read_count: AtomicUsize,
    pub(super) read_requirements: Arc<ReadRequirementsByIdentity>,
    /// Asks the monitor to check the servers soon.
    pub(super) monitor_wake: Arc<Notify>,
    pub(super) is_closed: AtomicBool,
    pub(super) acquire_timeout: Duration,
    /// The monitor's task.
    pub(super) monitor: std::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// One of the servers of a cluster.
pub(super) struct Member {
    pub(super) address: String,
    pub(super) opener: Arc<Opener>,
    pub(super) pool: Pool,
    /// Whether it is a replica to which reads are sent.
    pub(super) serves_reads: AtomicBool,
    /// Whether it answered the last check, and with the system identifier of the other servers.
    pub(super) passed_last_check: AtomicBool,
    /// Whether it was a standby when it was last checked.
    pub(super) was_standby: AtomicBool,
    pub(super) position_tracking: Arc<PositionTracking>,
    /// Its log position when it was last checked, or a later one that it reported when a transaction began on it.
    pub(super) lsn: AtomicU64,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The monitor notices that the cluster has been dropped, and ends.
        self.monitor_wake.notify_one();
    }
}

/// The status of one of a handle's servers, from [`Database::server_statuses`](crate::Database::server_statuses).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Host and port, or the path of its Unix socket.
    pub address: String,
    /// What it is used for.
    pub role: ServerRole,
    /// The log position that it last reported. If the server is healthy, that was about half a second ago at most.
    /// `None` if no check has succeeded yet.
    pub position: Option<LogPosition>,
}

/// What a server is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerRole {
    /// It accepts writes.
    Primary,
    /// It is used for reads.
    Replica,
    /// It is not used: it is unreachable, lags behind the primary, or does not follow it.
    Unused,
}

impl Cluster {
    /// Creates the cluster with its pools, which open no connection yet. Until a check has found the primary, the first
    /// server in the list is assumed to be the primary.
    pub(super) fn new(
        server_options: Vec<PgConnectOptions>,
        pool_options: PoolOptions,
        read_requirements: Arc<ReadRequirementsByIdentity>,
    ) -> Result<Self, Error> {
        let newest_timeline = Arc::<AtomicU32>::default();
        let mut members = Vec::new();
        for options in server_options {
            let address = server_address(&options);
            let opener = Arc::new(Opener::new(options));
            members.push(Member {
                address,
                opener: opener.clone(),
                pool: Pool::managed(opener, pool_options)?,
                serves_reads: AtomicBool::new(false),
                passed_last_check: AtomicBool::new(false),
                was_standby: AtomicBool::new(false),
                position_tracking: Arc::new(PositionTracking::new(read_requirements.clone(), newest_timeline.clone())),
                lsn: AtomicU64::new(0),
            });
        }
        Ok(Self {
            members,
            primary: watch::Sender::new(0),
            newest_timeline,
            read_count: AtomicUsize::new(0),
            read_requirements,
            monitor_wake: Arc::default(),
            is_closed: AtomicBool::new(false),
            acquire_timeout: pool_options.acquire_timeout,
            monitor: std::sync::Mutex::default(),
        })
    }

    /// Closes the pools of all servers at the same time, and waits until the monitor has ended.
    pub(super) async fn close(&self) -> Result<(), DbErr> {
        self.is_closed.store(true, Ordering::SeqCst);
        self.monitor_wake.notify_one();
        let outcomes = join_all(self.members.iter().map(|member| member.pool.close())).await;
        let monitor = self.monitor.lock().ok().and_then(|mut monitor| monitor.take());
        if let Some(monitor) = monitor {
            // The monitor ends after the check in progress.
            let _ = monitor.await;
        }
        outcomes.into_iter().collect()
    }

    /// Returns the requirement that follows from what this identity wrote or read.
    pub(crate) fn recorded_requirement(&self, identity: &Identity) -> ReadRequirement {
        self.read_requirements.get(identity)
    }

    /// Returns the primary's answer to a query, or that of another server if the query fails on the primary. If it
    /// fails on all servers, returns the primary's error.
    pub(crate) async fn query_scalar(&self, query: &'static str) -> Result<Option<String>, sqlx::Error> {
        let primary_index = self.primary_index();
        // The primary first, then the servers that passed the last check. (`false` sorts before `true`.)
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_key(|index| {
            (*index != primary_index, !self.members[*index].passed_last_check.load(Ordering::SeqCst))
        });
        let mut first_error = None;
        for index in order {
            match connect_and_query_text(&self.members[index].opener, query).await {
                Ok(answer) => return Ok(answer),
                Err(error) => _ = first_error.get_or_insert(error),
            }
        }
        Err(first_error.unwrap_or(sqlx::Error::PoolTimedOut))
    }

    pub(crate) fn wake_monitor(&self) {
        self.monitor_wake.notify_one();
    }

    pub(super) fn primary_index(&self) -> usize {
        *self.primary.borrow()
    }

    /// Returns the pool of the primary.
    pub(super) fn primary_pool(&self) -> &Pool {
        &self.members[self.primary_index()].pool
    }

    pub(crate) fn status(&self) -> Vec<ServerStatus> {
        let primary_index = self.primary_index();
        let status_of = |(index, member): (usize, &Member)| {
            // The server at `primary_index` need not accept writes: if no primary is known, it is the one that was the
            // primary last, or the first in the list.
            let accepts_writes = index == primary_index
                && member.passed_last_check.load(Ordering::SeqCst)
                && !member.was_standby.load(Ordering::SeqCst);
            let role = if accepts_writes {
                ServerRole::Primary
            } else if member.serves_reads.load(Ordering::SeqCst) {
                ServerRole::Replica
            } else {
                ServerRole::Unused
            };
            let (timeline, lsn) =
                (member.position_tracking.timeline.load(Ordering::SeqCst), member.lsn.load(Ordering::SeqCst));
            let position = (timeline > 0).then_some(LogPosition { timeline, lsn });
            ServerStatus { address: member.address.clone(), role, position }
        };
        self.members.iter().enumerate().map(status_of).collect()
    }
}

async fn connect_and_query_text(opener: &Opener, query: &'static str) -> Result<Option<String>, sqlx::Error> {
    let connect_and_query = async {
        let mut connection = opener.open().await?;
        let answer = query_scalar(&mut connection, query).await?;
        // The answer is valid even if closing the connection fails.
        let _ = connection.close().await;
        Ok(answer)
    };
    timeout(SERVER_ATTEMPT_TIMEOUT, connect_and_query).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
