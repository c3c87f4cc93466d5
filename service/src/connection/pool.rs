//! Where connections come from.

use std::{fmt, io, time::Duration};

use deadpool::managed::{Manager, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, RecycleResult};
use sea_orm::{
    ConnAcquireErr, DatabaseConnection, DatabaseConnectionType, DbErr, RuntimeErr,
    sqlx::{self, Connection, PgConnection, Postgres, pool::PoolConnection, postgres::PgConnectOptions},
};
use tokio::time::{sleep, timeout};

/// Idle for longer, a connection may have been closed by whatever stands between: it is asked before it is given out.
const LONG_IDLE: Duration = Duration::from_secs(30);
/// Idle for longer, it is not needed.
const TOO_LONG_IDLE: Duration = Duration::from_secs(600);
/// No connection is older: what a server keeps for one grows, and a cluster behind one address changes.
const OLD_AGE: Duration = Duration::from_secs(1800);
/// How often those that are not needed are looked for.
const ROUND: Duration = Duration::from_secs(60);

type Own = deadpool::managed::Pool<Connector>;

/// Connections for an identity to begin on.
#[derive(Clone)]
pub(crate) enum Pool {
    /// The handle's own. It hands out the connection that came back last, which is warm, and asks nothing of the server when one
    /// comes back: each is known to be at rest. (The driver's pool asks every time, a round trip of each operation.)
    Own(Own, Duration),
    /// One that the service had already.
    Given(DatabaseConnection),
}

// What it holds knows the password.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(pool, _) => write!(f, "Pool({:?})", pool.status()),
            Self::Given(_) => f.write_str("Pool"),
        }
    }
}

/// A connection until it is dropped, and goes back.
pub(crate) enum Taken {
    /// From the handle's own pool.
    Own(Object<Connector>),
    /// From the service's.
    Given(PoolConnection<Postgres>),
}

impl Pool {
    /// At most so many connections, each waited for at most so long.
    pub(crate) fn of(options: PgConnectOptions, most: u32, patience: Duration) -> Result<Self, DbErr> {
        let mut config = PoolConfig::new(most as usize);
        config.queue_mode = QueueMode::Lifo;
        let pool = Own::builder(Connector(options)).config(config).build();
        let pool = pool.map_err(|error| DbErr::Conn(RuntimeErr::Internal(error.to_string())))?;
        let weak = pool.weak();
        tokio::spawn(async move {
            loop {
                sleep(ROUND).await;
                let Some(pool) = weak.upgrade().filter(|pool| !pool.is_closed()) else { break };
                farewell(pool.retain(|_, metrics| metrics.last_used() < TOO_LONG_IDLE).removed).await;
            }
        });
        Ok(Self::Own(pool, patience))
    }

    pub(crate) async fn take(&self) -> Result<Taken, DbErr> {
        match self {
            Self::Own(pool, patience) => match timeout(*patience, pool.get()).await {
                Ok(Ok(object)) => Ok(Taken::Own(object)),
                Ok(Err(PoolError::Backend(error))) => Err(DbErr::Conn(RuntimeErr::SqlxError(error.into()))),
                Ok(Err(PoolError::Closed)) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
                Ok(Err(_)) | Err(_) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)),
            },
            Self::Given(db) => {
                let DatabaseConnectionType::SqlxPostgresPoolConnection(_) = &db.inner else {
                    return Err(DbErr::Conn(RuntimeErr::Internal("no pool of PostgreSQL connections".to_owned())));
                };
                match db.get_postgres_connection_pool().acquire().await {
                    Ok(connection) => Ok(Taken::Given(connection)),
                    Err(sqlx::Error::PoolTimedOut) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)),
                    Err(sqlx::Error::PoolClosed) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
                    Err(error) => Err(DbErr::Conn(RuntimeErr::SqlxError(error.into()))),
                }
            }
        }
    }

    /// Gives no more out, and waits for those that are out.
    pub(crate) async fn close(self) -> Result<(), DbErr> {
        match self {
            Self::Own(pool, _) => {
                let idle = pool.retain(|_, _| false).removed;
                pool.close();
                farewell(idle).await;
                while pool.status().size > 0 {
                    sleep(Duration::from_millis(5)).await;
                }
                Ok(())
            }
            Self::Given(db) => db.close().await,
        }
    }
}

impl Taken {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        match self {
            Self::Own(object) => object,
            Self::Given(connection) => connection,
        }
    }

    /// Does not go back.
    pub(crate) fn discard(self) {
        match self {
            Self::Own(object) => drop(Object::take(object)),
            // Closed by a task, as the driver would, it needs a runtime.
            Self::Given(connection) => drop(connection.detach()),
        }
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Taken")
    }
}

/// Ends connections as a server likes it; one that does not answer is dropped with the others.
async fn farewell(connections: Vec<PgConnection>) {
    for connection in connections {
        let _ = timeout(Duration::from_secs(1), connection.close()).await;
    }
}

/// Makes connections.
pub(crate) struct Connector(PgConnectOptions);

impl Manager for Connector {
    type Type = PgConnection;
    type Error = sqlx::Error;

    /// A server that is just starting, or has no place left, is asked again for as long as the pool waits.
    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        let mut pause = Duration::from_millis(10);
        loop {
            match PgConnection::connect_with(&self.0).await {
                Err(error) if is_starting(&error) => sleep(pause).await,
                connected => return connected,
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > OLD_AGE {
            return Err(RecycleError::message("it is old"));
        }
        if metrics.last_used() > LONG_IDLE {
            connection.ping().await?;
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
