//! Where connections come from.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult};
use sea_orm::{
    ConnAcquireErr, DatabaseConnection, DatabaseConnectionType, DbErr, RuntimeErr,
    sqlx::{self, Connection, PgConnection, Postgres, pool::PoolConnection, postgres::PgConnectOptions},
};
use tokio::time::{sleep, timeout};

use crate::{Error, error::is_lost};

/// A connection idle for longer may have been closed by whatever stands between: it is pinged before it is given out.
const PING_AFTER_IDLE: Duration = Duration::from_secs(30);
/// A ping that is not answered by then is not waited for: another connection is as good.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// A ping that somebody asked for is waited for as long.
const PING_PATIENCE: Duration = Duration::from_secs(2);
/// A connection idle for longer is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// No connection is older: what a server keeps for one grows, and a cluster behind one address changes.
const MAX_LIFETIME: Duration = Duration::from_secs(1800);
/// How often idle connections are looked through.
const REAP_INTERVAL: Duration = Duration::from_secs(60);

type Managed = deadpool::managed::Pool<Connector>;

/// Connections for an identity to begin on.
#[derive(Clone)]
pub(crate) enum Pool {
    /// The handle's own. It hands out the connection that came back last, which is warm, and asks nothing of the server
    /// when one comes back: each is known to be at rest. (The driver's pool asks every time: a round trip per operation.)
    Managed { pool: Managed, acquire_timeout: Duration, reach: Arc<Reach> },
    /// One that the application had already.
    External(DatabaseConnection),
}

// What it holds knows the password.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed { pool, .. } => write!(f, "Pool({:?})", pool.status()),
            Self::External(_) => f.write_str("Pool"),
        }
    }
}

/// A connection until it is dropped, and goes back.
pub(crate) enum PooledConnection {
    Managed(Object<Connector>),
    External(PoolConnection<Postgres>),
}

impl Pool {
    /// At most so many connections, each waited for at most so long.
    pub(crate) fn managed(options: PgConnectOptions, max: u32, acquire_timeout: Duration) -> Result<Self, Error> {
        let mut config = PoolConfig::new(max as usize);
        config.queue_mode = QueueMode::Lifo;
        let connector = Connector { options, reach: Arc::default() };
        let reach = connector.reach.clone();
        let pool = Managed::builder(connector).config(config).build();
        let pool = pool.map_err(|error| Error::Misconfigured { reason: error.to_string() })?;
        let weak = pool.weak();
        tokio::spawn(async move {
            loop {
                sleep(REAP_INTERVAL).await;
                let Some(pool) = weak.upgrade().filter(|pool| !pool.is_closed()) else { break };
                close_all(pool.retain(|_, metrics| metrics.last_used() < IDLE_TIMEOUT).removed).await;
            }
        });
        Ok(Self::Managed { pool, acquire_timeout, reach })
    }

    /// How many connections may be found dead before one that was just made is tried.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Managed { pool, .. } => pool.status().max_size,
            Self::External(db) if is_postgres(db) => db.get_postgres_connection_pool().size() as usize,
            Self::External(_) => 0,
        }
    }

    pub(crate) async fn acquire(&self) -> Result<PooledConnection, DbErr> {
        match self {
            Self::Managed { pool, acquire_timeout, reach } => match timeout(*acquire_timeout, pool.get()).await {
                Ok(Ok(object)) => Ok(PooledConnection::Managed(object)),
                Ok(Err(PoolError::Backend(error))) => Err(connect_error(error)),
                Ok(Err(PoolError::Closed)) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
                // A pool that is too small waits for its users; here somebody waits for the server.
                Ok(Err(_)) | Err(_) if reach.is_waiting() => Err(no_answer().into()),
                Ok(Err(_)) | Err(_) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)),
            },
            Self::External(db) if is_postgres(db) => {
                let pool = db.get_postgres_connection_pool();
                match pool.acquire().await {
                    Ok(connection) => Ok(PooledConnection::External(connection)),
                    // That pool goes on trying a server that is away, and then says that none of its connections was free.
                    Err(sqlx::Error::PoolTimedOut) => Err(match probe(&pool.connect_options()).await {
                        Err(away) if is_lost(&away) => connect_error(away),
                        _ => connect_error(sqlx::Error::PoolTimedOut),
                    }),
                    Err(error) => Err(connect_error(error)),
                }
            }
            Self::External(_) => {
                let reason = "it must be a pool of PostgreSQL connections, as Database::connect makes it".to_owned();
                Err(Error::Misconfigured { reason }.into())
            }
        }
    }

    /// How the pool is used now.
    pub(crate) fn status(&self) -> PoolStatus {
        match self {
            Self::Managed { pool, .. } => {
                let status = pool.status();
                PoolStatus {
                    max_connections: status.max_size,
                    connections: status.size,
                    idle: status.available,
                    waiting: status.waiting,
                }
            }
            Self::External(db) if is_postgres(db) => {
                let pool = db.get_postgres_connection_pool();
                PoolStatus {
                    max_connections: pool.options().get_max_connections() as usize,
                    connections: pool.size() as usize,
                    idle: pool.num_idle(),
                    waiting: 0,
                }
            }
            Self::External(_) => PoolStatus::default(),
        }
    }

    /// Asks the server for an answer, over a connection of the pool.
    pub(crate) async fn ping(&self) -> Result<(), DbErr> {
        let mut dead = 0;
        loop {
            let mut pooled = self.acquire().await?;
            let is_last = pooled.is_new() || dead > self.size();
            // One that does not answer is dropped with the answer that may still come.
            let answer = timeout(PING_PATIENCE, pooled.connection().ping()).await;
            match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => {
                    pooled.discard();
                    if is_last || !is_lost(&error) {
                        return Err(connect_error(error));
                    }
                }
                Err(_) => {
                    pooled.discard();
                    if is_last {
                        return Err(no_answer().into());
                    }
                }
            }
            dead += 1;
        }
    }

    /// Closes the connections that nobody has: their server is gone, and they would be found dead one by one.
    pub(crate) fn drop_idle(&self) {
        if let Self::Managed { pool, .. } = self {
            drop(pool.retain(|_, _| false));
        }
    }

    /// Gives no more connections out, and waits for those that are out.
    pub(crate) async fn close(&self) -> Result<(), DbErr> {
        match self {
            Self::Managed { pool, .. } => {
                let idle = pool.retain(|_, _| false).removed;
                pool.close();
                close_all(idle).await;
                while pool.status().size > 0 {
                    sleep(Duration::from_millis(5)).await;
                }
                Ok(())
            }
            Self::External(db) => db.close_by_ref().await,
        }
    }
}

/// How a pool is used at a moment: [`Database::pool_status`](crate::Database::pool_status).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Most connections at once.
    pub max_connections: usize,
    /// Connections that are open, or being opened.
    pub connections: usize,
    /// Those of them that nobody uses.
    pub idle: usize,
    /// Calls that wait for a connection. Not known of a pool that the application had already: 0.
    pub waiting: usize,
}

fn is_postgres(db: &DatabaseConnection) -> bool {
    matches!(&db.inner, DatabaseConnectionType::SqlxPostgresPoolConnection(_))
}

pub(crate) fn connect_error(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}

impl PooledConnection {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Managed(object) => object,
            Self::External(connection) => connection,
        }
    }

    /// Whether it was made for this very use: if it does not work, no other will.
    pub(crate) fn is_new(&self) -> bool {
        match self {
            Self::Managed(object) => Object::metrics(object).recycled.is_none(),
            Self::External(_) => false,
        }
    }

    /// Does not go back.
    pub(crate) fn discard(self) {
        match self {
            Self::Managed(object) => drop(Object::take(object)),
            // Closed by a task, as the driver would, it needs a runtime.
            Self::External(connection) => drop(connection.detach()),
        }
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PooledConnection")
    }
}

/// Ends connections as a server likes it; one that does not answer is dropped with the others.
async fn close_all(connections: Vec<PgConnection>) {
    for connection in connections {
        let _ = timeout(PING_TIMEOUT, connection.close()).await;
    }
}

/// The server has as many connections as it allows: another one may leave.
const TOO_MANY_CONNECTIONS: &str = "53300";

/// Makes connections.
pub(crate) struct Connector {
    options: PgConnectOptions,
    reach: Arc<Reach>,
}

/// What is known of the way to the server.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// How many connections are being made: each of them waits for the server.
    waiting: AtomicUsize,
    /// Whether the last answer was that the server has as many connections as it allows.
    is_full: AtomicBool,
}

impl Reach {
    fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 && !self.is_full.load(Ordering::Relaxed)
    }
}

/// One connection that is being made.
struct Reaching<'a>(&'a Reach);

impl<'a> Reaching<'a> {
    fn new(reach: &'a Reach) -> Self {
        reach.waiting.fetch_add(1, Ordering::Relaxed);
        Self(reach)
    }
}

impl Drop for Reaching<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Manager for Connector {
    type Type = PgConnection;
    type Error = sqlx::Error;

    /// A server that is just starting, or has no place left, is asked again for as long as the pool waits. One that is
    /// away is not: whoever asks is told at once.
    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        let _reaching = Reaching::new(&self.reach);
        let mut pause = Duration::from_millis(10);
        loop {
            let connected = PgConnection::connect_with(&self.options).await;
            let code = connected.as_ref().err().and_then(|error| error.as_database_error()?.code());
            self.reach.is_full.store(code.as_deref() == Some(TOO_MANY_CONNECTIONS), Ordering::Relaxed);
            match connected {
                Err(error) if is_starting(&error) => sleep(pause).await,
                connected => return connected,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > MAX_LIFETIME {
            return Err(RecycleError::message("it is old"));
        }
        if metrics.last_used() > PING_AFTER_IDLE {
            timeout(PING_TIMEOUT, connection.ping())
                .await
                .map_err(|_| RecycleError::message("no answer to a ping"))??;
        }
        Ok(())
    }
}

fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_transient_in_connect_phase)
}

/// Whether the server answers, over a connection of its own.
async fn probe(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let probe = async { PgConnection::connect_with(options).await?.close().await };
    timeout(PING_TIMEOUT, probe).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

fn no_answer() -> Error {
    Error::ConnectionLost(DbErr::Conn(RuntimeErr::Internal("the server did not answer in time".to_owned())))
}
