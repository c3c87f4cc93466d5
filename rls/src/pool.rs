//! The connection pool of one server and one login.

mod connector;
mod pooled_connection;

use std::{
    fmt, io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use deadpool::managed::{Object, PoolConfig, PoolError, QueueMode};
use sea_orm::{
    ConnAcquireErr, DatabaseConnection, DatabaseConnectionType, DbErr, RuntimeErr,
    sqlx::{self, ConnectOptions, Connection as _, PgConnection, postgres::PgConnectOptions},
};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

use connector::{ANSWER_TIMEOUT, Connector, ServerConnection, ServerState};
pub(crate) use pooled_connection::PooledConnection;

use crate::{
    Error,
    connect::Opener,
    error::breaks_connection,
    wire::{Connection as _, PreparedStatementMode},
};

/// Timeout of a health check's ping.
const HEALTH_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections that were last acquired longer ago than this are closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How often connections that have exceeded [`IDLE_TIMEOUT`] are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(60);

/// The maximum size of a pool: as many connections as a PostgreSQL server can have.
const MAX_POOL_SIZE: u32 = 262_143;

type ManagedPool = deadpool::managed::Pool<Connector>;

/// The options of a managed pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolOptions {
    pub(crate) max_connections: u32,
    pub(crate) acquire_timeout: Duration,
    pub(crate) prepared_statement_mode: PreparedStatementMode,
}

/// Where connections come from.
#[derive(Clone)]
pub(crate) enum Pool {
    /// A pool that this crate has created. It hands out the connection that was returned last, whose caches are the
    /// warmest. A connection is idle and clean before it is returned, so returning it sends nothing to the server. (The
    /// driver's own pool pings each connection that is returned, which costs a round trip per operation.)
    Managed { pool: ManagedPool, options: PoolOptions, server_state: Arc<ServerState> },
    /// A pool that the application already had.
    External(DatabaseConnection),
}

/// Shows no connect options, because they include the password.
impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managed { pool, .. } => write!(f, "Pool({:?})", pool.status()),
            Self::External(_) => f.write_str("Pool"),
        }
    }
}

impl Pool {
    /// Creates a pool, and a task that closes the idle connections that have exceeded [`IDLE_TIMEOUT`].
    pub(crate) fn managed(opener: Arc<Opener>, options: PoolOptions) -> Result<Self, Error> {
        if !(1..=MAX_POOL_SIZE).contains(&options.max_connections) {
            let reason = format!("max_connections must be from 1 to {MAX_POOL_SIZE}, not {}", options.max_connections);
            return Err(Error::Misconfigured { reason });
        }
        let mut config = PoolConfig::new(options.max_connections as usize);
        config.queue_mode = QueueMode::Lifo;
        let connector = Connector { opener, server_state: Arc::default() };
        let server_state = connector.server_state.clone();
        let pool = ManagedPool::builder(connector).config(config).build();
        let pool = pool.map_err(|error| Error::Misconfigured { reason: error.to_string() })?;
        let weak_pool = pool.weak();
        tokio::spawn(async move {
            loop {
                sleep(REAP_INTERVAL).await;
                let Some(pool) = weak_pool.upgrade().filter(|pool| !pool.is_closed()) else { break };
                close_all(pool.retain(|_, metrics| metrics.last_used() < IDLE_TIMEOUT).removed).await;
            }
        });
        Ok(Self::Managed { pool, options, server_state })
    }

    /// Returns how long a call may wait for a connection; `None` for a pool of another database system.
    pub(crate) fn acquire_timeout(&self) -> Option<Duration> {
        match self {
            Self::Managed { options, .. } => Some(options.acquire_timeout),
            Self::External(db) if is_postgres(db) => {
                Some(db.get_postgres_connection_pool().options().get_acquire_timeout())
            }
            Self::External(_) => None,
        }
    }

    pub(crate) fn prepared_statement_mode(&self) -> PreparedStatementMode {
        match self {
            Self::Managed { options, .. } => options.prepared_statement_mode,
            Self::External(_) => PreparedStatementMode::Cached,
        }
    }

    /// Wraps a pool that the application already had, and switches off the pool's statement log: the messages that
    /// begin transactions contain the settings of identities, among them the claims of tokens. The idle connections,
    /// which would still log, are closed. This is done once for each pool, and only inside a runtime.
    pub(crate) fn external(db: DatabaseConnection) -> Self {
        /// The options of the pools whose log is switched off.
        static OPTIONS_WITHOUT_LOG: Mutex<Vec<Weak<PgConnectOptions>>> = Mutex::new(Vec::new());
        if is_postgres(&db) && Handle::try_current().is_ok() {
            let pool = db.get_postgres_connection_pool();
            let mut options_without_log = OPTIONS_WITHOUT_LOG.lock().unwrap_or_else(PoisonError::into_inner);
            options_without_log.retain(|pg_options| pg_options.strong_count() > 0);
            let pg_options = Arc::downgrade(&pool.connect_options());
            if !options_without_log.iter().any(|known| known.ptr_eq(&pg_options)) {
                pool.set_connect_options((*pool.connect_options()).clone().disable_statement_logging());
                options_without_log.push(Arc::downgrade(&pool.connect_options()));
                while let Some(mut connection) = pool.try_acquire() {
                    connection.close_on_drop();
                }
            }
        }
        Self::External(db)
    }

    /// Returns how many connections the pool can have.
    pub(crate) fn max_connections(&self) -> usize {
        match self {
            Self::Managed { pool, .. } => pool.status().max_size,
            Self::External(db) if is_postgres(db) => {
                db.get_postgres_connection_pool().options().get_max_connections() as usize
            }
            Self::External(_) => 0,
        }
    }

    /// Returns a connection of the pool, opening one if necessary.
    pub(crate) async fn acquire(&self) -> Result<PooledConnection, DbErr> {
        match self {
            Self::Managed { pool, options, server_state } => {
                // `get` is dropped only after the match, so that a connection that it is opening still counts in
                // `server_has_been_unavailable_for`.
                let mut get = pin!(pool.get());
                match timeout(options.acquire_timeout, get.as_mut()).await {
                    // The pool was closed while the connection was being opened. `close` does not wait for such a
                    // connection.
                    Ok(Ok(object)) if pool.is_closed() => {
                        drop(Object::take(object));
                        Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))
                    }
                    Ok(Ok(object)) => Ok(PooledConnection::Managed(object)),
                    Ok(Err(PoolError::Backend(error))) => Err(conn_error(error)),
                    Ok(Err(PoolError::Closed)) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
                    // The call has waited for too long. If the server does not answer, that is why. Otherwise (the next
                    // arm) the pool is too small or the server has no connections left, so calls wait for other calls.
                    Ok(Err(_)) | Err(_)
                        if server_state
                            .server_has_been_unavailable_for(ANSWER_TIMEOUT.min(options.acquire_timeout / 2)) =>
                    {
                        Err(no_answer_error().into())
                    }
                    Ok(Err(_)) | Err(_) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)),
                }
            }
            Self::External(db) if is_postgres(db) => {
                let pool = db.get_postgres_connection_pool();
                match pool.acquire().await {
                    Ok(connection) => Ok(PooledConnection::External(connection, Handle::current())),
                    // If the server is unreachable, the driver's pool retries until its timeout, and then reports that
                    // no connection was free. The pool reports the same if the server does not answer. A separate
                    // connection shows what the cause is.
                    Err(sqlx::Error::PoolTimedOut) => Err(match probe(&pool.connect_options()).await {
                        Err(unreachable) if breaks_connection(&unreachable) => conn_error(unreachable),
                        _ => conn_error(sqlx::Error::PoolTimedOut),
                    }),
                    Err(error) => Err(conn_error(error)),
                }
            }
            Self::External(_) => {
                let reason = "it must be a pool of PostgreSQL connections, such as sea_orm::Database::connect returns"
                    .to_owned();
                Err(Error::Misconfigured { reason }.into())
            }
        }
    }

    /// Returns the pool's status.
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

    /// Pings the server over a connection of the pool.
    pub(crate) async fn ping(&self) -> Result<(), DbErr> {
        let mut dead_connection_count = 0;
        loop {
            let mut connection = self.acquire().await?;
            let is_last_attempt = connection.is_new() || dead_connection_count > self.max_connections();
            let answer = timeout(HEALTH_CHECK_TIMEOUT, connection.pg_connection_mut().ping()).await;
            match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => {
                    connection.discard();
                    if is_last_attempt || !breaks_connection(&error) {
                        return Err(conn_error(error));
                    }
                }
                Err(_) => {
                    // The answer may still arrive on this connection.
                    connection.discard();
                    if is_last_attempt {
                        return Err(no_answer_error().into());
                    }
                    // If the idle connections stayed, they would be tried one by one, each until the timeout.
                    self.drop_idle_connections();
                }
            }
            dead_connection_count += 1;
        }
    }

    /// Closes the idle connections, except those of a pool that the application already had. This is for a server that
    /// is gone or has been replaced: otherwise callers would try the connections one by one.
    pub(crate) fn drop_idle_connections(&self) {
        if let Self::Managed { pool, .. } = self {
            drop(pool.retain(|_, _| false));
        }
    }

    /// Closes the pool: it hands out no more connections, and `close` waits until those in use are returned.
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

/// The status of a pool at one moment, from [`Database::pool_status`](crate::Database::pool_status).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The maximum number of connections.
    pub max_connections: usize,
    /// Connections that are open; for a pool that the application already had, also those that are being opened.
    pub connections: usize,
    /// Connections that are idle.
    pub idle: usize,
    /// Calls that wait for a connection to become free or to be opened. Always 0 for a pool that the application
    /// already had, because such a pool does not report this number.
    pub waiting: usize,
}

fn is_postgres(db: &DatabaseConnection) -> bool {
    matches!(&db.inner, DatabaseConnectionType::SqlxPostgresPoolConnection(_))
}

pub(crate) fn conn_error(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}

/// Closes connections with the protocol's Terminate message. A connection that cannot be closed in time is dropped.
async fn close_all(connections: Vec<ServerConnection>) {
    for connection in connections {
        let _ = timeout(ANSWER_TIMEOUT, connection.pg_connection.close()).await;
    }
}

/// Checks over a separate connection whether the server answers.
async fn probe(pg_options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let connect_and_close = async { PgConnection::connect_with(pg_options).await?.close().await };
    timeout(ANSWER_TIMEOUT, connect_and_close).await.unwrap_or_else(|_| Err(sqlx_no_answer_error()))
}

/// The driver's error for a server that does not answer.
fn sqlx_no_answer_error() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time"))
}

fn no_answer_error() -> Error {
    Error::ConnectionLost(conn_error(sqlx_no_answer_error()))
}
