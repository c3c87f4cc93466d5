//! Where connections come from.

use std::{fmt, io, time::Duration};

use deadpool::managed::{Manager, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult};
use sea_orm::{
    ConnAcquireErr, DatabaseConnection, DatabaseConnectionType, DbErr, RuntimeErr,
    sqlx::{self, Connection, PgConnection, Postgres, pool::PoolConnection, postgres::PgConnectOptions},
};
use tokio::time::{sleep, timeout};

use crate::Error;

/// A connection idle for longer may have been closed by whatever stands between: it is pinged before it is given out.
const PING_AFTER_IDLE: Duration = Duration::from_secs(30);
/// A ping that is not answered by then is not waited for: another connection is as good.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
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
    Managed(Managed, Duration),
    /// One that the application had already.
    External(DatabaseConnection),
}

// What it holds knows the password.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed(pool, _) => write!(f, "Pool({:?})", pool.status()),
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
    pub(crate) fn managed(
        options: PgConnectOptions,
        max: u32,
        acquire_timeout: Duration,
        starting: WhenStarting,
    ) -> Result<Self, Error> {
        let mut config = PoolConfig::new(max as usize);
        config.queue_mode = QueueMode::Lifo;
        let pool = Managed::builder(Connector { options, starting }).config(config).build();
        let pool = pool.map_err(|error| Error::Misconfigured { reason: error.to_string() })?;
        let weak = pool.weak();
        tokio::spawn(async move {
            loop {
                sleep(REAP_INTERVAL).await;
                let Some(pool) = weak.upgrade().filter(|pool| !pool.is_closed()) else { break };
                close_all(pool.retain(|_, metrics| metrics.last_used() < IDLE_TIMEOUT).removed).await;
            }
        });
        Ok(Self::Managed(pool, acquire_timeout))
    }

    /// How many connections may be found dead before one that was just made is tried.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Managed(pool, _) => pool.status().max_size,
            Self::External(db) if is_postgres(db) => db.get_postgres_connection_pool().size() as usize,
            Self::External(_) => 0,
        }
    }

    pub(crate) async fn acquire(&self) -> Result<PooledConnection, DbErr> {
        match self {
            Self::Managed(pool, acquire_timeout) => match timeout(*acquire_timeout, pool.get()).await {
                Ok(Ok(object)) => Ok(PooledConnection::Managed(object)),
                Ok(Err(PoolError::Backend(error))) => Err(connect_error(error)),
                Ok(Err(PoolError::Closed)) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
                Ok(Err(_)) | Err(_) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)),
            },
            Self::External(db) if is_postgres(db) => match db.get_postgres_connection_pool().acquire().await {
                Ok(connection) => Ok(PooledConnection::External(connection)),
                Err(error) => Err(connect_error(error)),
            },
            Self::External(_) => {
                let reason = "it must be a pool of PostgreSQL connections, as Database::connect makes it".to_owned();
                Err(Error::Misconfigured { reason }.into())
            }
        }
    }

    /// Closes the connections that nobody has: their server is gone, and they would be found dead one by one.
    pub(crate) fn drop_idle(&self) {
        if let Self::Managed(pool, _) = self {
            drop(pool.retain(|_, _| false));
        }
    }

    /// Gives no more connections out, and waits for those that are out.
    pub(crate) async fn close(&self) -> Result<(), DbErr> {
        match self {
            Self::Managed(pool, _) => {
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

/// What to do about a server that is just starting, or has no place left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenStarting {
    /// It is asked again for as long as the pool waits.
    AskAgain,
    /// Another server may be there.
    Fail,
}

/// Makes connections.
pub(crate) struct Connector {
    options: PgConnectOptions,
    starting: WhenStarting,
}

impl Manager for Connector {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        let mut pause = Duration::from_millis(10);
        loop {
            match PgConnection::connect_with(&self.options).await {
                Err(error) if self.starting == WhenStarting::AskAgain && is_starting(&error) => sleep(pause).await,
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
    match error {
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}
