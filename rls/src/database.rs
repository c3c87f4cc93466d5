//! The handle over the connection pools.

use std::{any::Any, borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use sea_orm::{
    DatabaseConnection, DbErr,
    sqlx::{self, ConnectOptions, Connection, Row},
};

use crate::{
    Error, Identity, IdentityConnection, connect,
    connection::MapError,
    pool::{Pool, PoolStatus, connect_error},
    wire::PreparedStatements,
};

/// A database with row-level security: one handle over its pools, cheap to clone. It runs no statements itself; it
/// hands out identities, and each statement runs as one of them.
///
/// A pool's login must be a member of the roles of the identities that use the pool. It needs nothing else.
#[derive(Clone, Debug)]
pub struct Database {
    pub(crate) pools: Pools,
    pub(crate) deadline: Option<Duration>,
    pub(crate) statements: PreparedStatements,
    pub(crate) map_error: MapError,
    pub(crate) context: Option<Arc<dyn Any + Send + Sync>>,
}

/// The pool of each role. Most roles share one.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    shared: Pool,
    own: Arc<BTreeMap<Cow<'static, str>, Pool>>,
}

impl Pools {
    pub(crate) fn of(&self, role: &str) -> &Pool {
        self.own.get(role).unwrap_or(&self.shared)
    }

    pub(crate) fn has_separate(&self, role: &str) -> bool {
        self.own.contains_key(role)
    }
}

impl Database {
    /// Creates a handle over a pool that the application already has. Session settings made by that pool's hooks do not
    /// outlive a raw statement; put them into the URL instead.
    #[must_use]
    pub fn from_connection(db: DatabaseConnection) -> Self {
        Self::new(Pool::External(db), None, PreparedStatements::Cached)
    }

    /// Connects, with a new pool.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if no connection can be opened, with the cause and the remedy;
    /// [`Error::Misconfigured`] if the options allow no connections.
    pub async fn connect(url: &str, options: &Options) -> Result<Self, Error> {
        let statements =
            if options.prepared_statements { PreparedStatements::Cached } else { PreparedStatements::Deallocated };
        Ok(Self::new(open(url, options, None).await?.0, options.deadline, statements))
    }

    /// Connects as [`connect`](Self::connect) does, and runs one query as the login, without an identity, on the
    /// connection that is opened first. Returns the first column, of type text, of the row that `query` returns. A
    /// program uses it to check that the database is the one that it needs.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect), and any error of the query.
    pub async fn connect_and_ask(
        url: &str,
        options: &Options,
        query: &'static str,
    ) -> Result<(Self, Option<String>), Error> {
        let statements =
            if options.prepared_statements { PreparedStatements::Cached } else { PreparedStatements::Deallocated };
        let (pool, answer) = open(url, options, Some(query)).await?;
        Ok((Self::new(pool, options.deadline, statements), answer))
    }

    fn new(shared: Pool, deadline: Option<Duration>, statements: PreparedStatements) -> Self {
        let pools = Pools { shared, own: Arc::default() };
        Self { pools, deadline, statements, map_error: |_, error| error, context: None }
    }

    /// Returns the same handle, with a separate pool over another login for the identities of one role. If the first
    /// login is not a member of that role, no SQL text on the shared pool can assume it.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    pub async fn with_role_at(
        mut self,
        role: impl Into<Cow<'static, str>>,
        url: &str,
        options: &Options,
    ) -> Result<Self, Error> {
        let mut own = (*self.pools.own).clone();
        own.insert(role.into(), open(url, options, None).await?.0);
        self.pools.own = Arc::new(own);
        Ok(self)
    }

    /// Returns the same handle, with a function that maps errors of the database to the errors that callers get.
    #[must_use]
    pub fn with_error_map(mut self, map_error: fn(&Identity, DbErr) -> DbErr) -> Self {
        self.map_error = map_error;
        self
    }

    /// Returns the same handle, with a value of the program that is shared by all identities. Its operations get it
    /// from an identity with [`Unchecked::context`](crate::unchecked::Unchecked::context).
    #[must_use]
    pub fn with_context<T: Any + Send + Sync>(mut self, context: Arc<T>) -> Self {
        self.context = Some(context);
        self
    }

    /// Returns the database as that identity sees it.
    #[must_use]
    pub fn as_identity(&self, identity: Identity) -> IdentityConnection {
        IdentityConnection::new(self.clone(), identity)
    }

    /// Pings the server through each pool, without an identity, for a health check. It reports an unreachable server at
    /// once, and one that does not answer within seconds.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`], [`Error::PoolTimeout`], [`Error::PoolClosed`], [`Error::Misconfigured`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.pools.shared.ping().await?;
        for pool in self.pools.own.values() {
            pool.ping().await?;
        }
        Ok(())
    }

    /// Returns the status of the pool that identities of this role use, for metrics.
    #[must_use]
    pub fn pool_status(&self, role: &str) -> PoolStatus {
        self.pools.of(role).status()
    }

    /// Closes the pools, after everything in progress has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn close(&self) -> Result<(), Error> {
        self.pools.shared.close().await?;
        for pool in self.pools.own.values() {
            pool.close().await?;
        }
        Ok(())
    }
}

async fn open(url: &str, options: &Options, query: Option<&'static str>) -> Result<(Pool, Option<String>), Error> {
    // SeaORM's own options are not used: their trace output contains the URL with the password.
    let mut connect = connect::options(url)?.disable_statement_logging();
    if let (Some(name), None) = (&options.application_name, connect.get_application_name()) {
        connect = connect.application_name(name);
    }
    if !options.prepared_statements {
        // The driver names prepared statements even without a cache, and then does not remember them. So each
        // transaction begins with DEALLOCATE ALL.
        connect = connect.statement_cache_capacity(0);
    }
    // A pool would retry until its timeout; a single connection reports at once what is wrong.
    let (mut probe, connect) = connect::open(&connect, options.acquire_timeout).await?;
    let run_query = async {
        let answer = match query {
            // Unprepared, because a pooler may be in between.
            Some(query) => match sqlx::raw_sql(query).fetch_optional(&mut probe).await? {
                Some(row) => row.try_get(0)?,
                None => None,
            },
            None => None,
        };
        probe.close().await?;
        Ok(answer)
    };
    let outcome =
        tokio::time::timeout(options.acquire_timeout, run_query).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    let answer = outcome.map_err(connect_error)?;
    Ok((Pool::managed(connect, options.max_connections, options.acquire_timeout)?, answer))
}

/// Options of the connection pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The maximum number of connections. The default is 10.
    pub max_connections: u32,
    /// The timeout for acquiring a connection. The default is 5 seconds.
    pub acquire_timeout: Duration,
    /// Whether prepared statements are cached on their connection. The default is `true`. Use `false` behind a pooler
    /// in transaction mode that does not track them (PgBouncer before 1.21): each transaction then begins by
    /// deallocating what others have prepared, in the same round trip, and each statement takes a second round trip to
    /// be prepared.
    pub prepared_statements: bool,
    /// The deadline of each statement, as in [`IdentityConnection::with_deadline`]. The default is 30 seconds; without
    /// a deadline, a statement would wait forever if the network silently drops packets. `None` means no deadline.
    pub deadline: Option<Duration>,
    /// The `application_name`, unless the URL has one.
    pub application_name: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            prepared_statements: true,
            deadline: Some(Duration::from_secs(30)),
            application_name: None,
        }
    }
}
