//! The handle of a database: its connection pools, and the options that they are opened with.

use std::{any::Any, borrow::Cow, iter, sync::Arc, time::Duration};

use futures_util::future::join_all;
use sea_orm::{
    DatabaseConnection, DbErr,
    sqlx::{self, ConnectOptions, Connection, postgres::PgConnectOptions},
};

use crate::{
    Error, Identity,
    connect::{self, Opener},
    pool::{Pool, PoolOptions, PoolStatus, conn_error},
    position::{LogPosition, ReadRequirementsByIdentity},
    servers::{Cluster, ServerStatus, Servers, ServersByIdentityRole},
    transaction::MapError,
    wire::{PreparedStatementMode, query_scalar},
};

/// A database with row-level security: one handle over its pools, cheap to clone. Statements run as an identity, on the
/// connections that [`as_identity`](Self::as_identity) returns.
///
/// A pool's login must be a member of the roles of the identities that use the pool. It needs no other privilege.
#[derive(Clone, Debug)]
pub struct Database {
    /// The servers, with their pools, for each database role of an identity.
    pub(crate) servers_by_identity_role: ServersByIdentityRole,
    /// The time limit of each statement, counted from its start. An [`IdentityConnection`](crate::IdentityConnection)
    /// can replace it.
    pub(crate) deadline: Option<Duration>,
    pub(crate) map_error: MapError,
    /// See [`with_context`](Self::with_context).
    pub(crate) context: Option<Arc<dyn Any + Send + Sync>>,
    /// The read requirement of each identity (what a server must have replayed before the identity may read from it);
    /// used only if there are replicas.
    read_requirements: Arc<ReadRequirementsByIdentity>,
}

impl Database {
    /// Creates a handle over a pool that the application already has, with the default deadline. After a
    /// transaction in which raw SQL has run, the database session is reset. This also undoes settings that the pool's
    /// hooks (such as `after_connect`) have made, so put those settings into the URL instead.
    ///
    /// The pool's statement log is switched off, also for the application's own statements, because it would contain
    /// the settings of identities, such as the claims of tokens. The pool's idle connections, which would still log,
    /// are closed. Call this before the pool is in use, and inside a runtime: outside of one, the log stays on.
    ///
    /// Behind a pooler in transaction mode, the pooler must track prepared statements. Nothing checks this here: with
    /// another pooler, a prepared statement of another client may run instead of the right one. (On a handle from
    /// [`connect`](Self::connect), `begin` fails before that happens; if [`Options::cache_prepared_statements`] is
    /// `false`, it cannot happen.)
    #[must_use]
    pub fn from_connection(db: DatabaseConnection) -> Self {
        let deadline = Options::default().deadline;
        Self::new(Servers::One(Pool::external(db)), deadline, Arc::default())
    }

    /// Connects, with a new pool; with replicas, with a new pool for each server.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if no connection can be opened, or, with replicas, if a server refuses the login or lacks the
    /// database, with the cause and the remedy; [`Error::Misconfigured`] if [`Options::max_connections`] is out of
    /// range.
    pub async fn connect(url: &str, options: &Options) -> Result<Self, Error> {
        let read_requirements = Arc::default();
        let (query, login_url) = (None, None);
        let (servers, _) = open_servers(url, options, query, login_url, &read_requirements).await?;
        Ok(Self::new(servers, options.deadline, read_requirements))
    }

    /// Connects as [`connect`](Self::connect) does, and runs one query as the login, without an identity, on a separate
    /// connection. The first column of the query must have the type text; its value in the first row is returned with
    /// the handle, or `None` if the value is NULL or there is no row. An application can use this to check that the
    /// database has the required schema.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect), and any error of the query; [`Error::PoolTimeout`] if the query is not
    /// answered within [`Options::acquire_timeout`].
    pub async fn connect_and_query_text(
        url: &str,
        options: &Options,
        query: &'static str,
    ) -> Result<(Self, Option<String>), Error> {
        let read_requirements = Arc::default();
        let login_url = None;
        let (servers, answer) = open_servers(url, options, Some(query), login_url, &read_requirements).await?;
        Ok((Self::new(servers, options.deadline, read_requirements), answer))
    }

    fn new(shared: Servers, deadline: Option<Duration>, read_requirements: Arc<ReadRequirementsByIdentity>) -> Self {
        let servers_by_identity_role = ServersByIdentityRole { shared, separate: Arc::default() };
        Self { servers_by_identity_role, deadline, map_error: |_, error| error, context: None, read_requirements }
    }

    /// Returns the same handle, with a separate pool for the identities of one role. The connections of that pool use
    /// the login of `url`. If the login of the shared pool is not a member of that role, no SQL on the shared pool can
    /// assume the role. The replicas of the separate pool are those of `options`, with the login of `url`. The deadline
    /// is that of the handle, not that of `options`.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    pub async fn with_pool_for_role(
        mut self,
        role: impl Into<Cow<'static, str>>,
        url: &str,
        options: &Options,
    ) -> Result<Self, Error> {
        let (query, login_url) = (None, Some(url));
        let (servers, _) = open_servers(url, options, query, login_url, &self.read_requirements).await?;
        let mut separate = (*self.servers_by_identity_role.separate).clone();
        separate.insert(role.into(), servers);
        self.servers_by_identity_role.separate = Arc::new(separate);
        Ok(self)
    }

    /// Returns the same handle, with this deadline for each statement instead of the present one; see
    /// [`Options::deadline`].
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }

    /// Returns the same handle, with a function that maps the error of a caller's statement to the error that the
    /// caller gets. Errors of `begin` and of commits are not mapped, except the error of the commit that follows the
    /// last row of a stream outside a transaction. Retries depend on the error before it is mapped.
    #[must_use]
    pub fn with_error_mapper(mut self, map_error: fn(&Identity, DbErr) -> DbErr) -> Self {
        self.map_error = map_error;
        self
    }

    /// Returns the same handle, with a value of the application's own that all identities share. The application's
    /// operations get it from an identity's connection with
    /// [`UnguardedExt::context`](crate::unguarded::UnguardedExt::context).
    #[must_use]
    pub fn with_context<T: Any + Send + Sync>(mut self, context: Arc<T>) -> Self {
        self.context = Some(context);
        self
    }

    pub(crate) fn record_seen_log_position(&self, identity: &Identity, position: LogPosition) {
        self.read_requirements.record(identity, position);
    }

    /// Returns the status of each server: which one is the primary, and which are used for reads. Without replicas, the
    /// list is empty.
    #[must_use]
    pub fn server_statuses(&self) -> Vec<ServerStatus> {
        self.servers_by_identity_role.shared.cluster().map(|cluster| cluster.status()).unwrap_or_default()
    }

    /// Pings the server through each pool, without an identity, for a health check; with replicas, pings only the
    /// primary. If the server is unreachable, this is reported immediately; if it does not answer, after a few seconds.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`], [`Error::PoolTimeout`], [`Error::PoolClosed`], [`Error::Misconfigured`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.servers_by_identity_role.shared.ping().await?;
        for servers in self.servers_by_identity_role.separate.values() {
            servers.ping().await?;
        }
        Ok(())
    }

    /// Returns the status of the pool that identities of this role use, for metrics. With replicas, it is the status of
    /// the pool for the primary.
    #[must_use]
    pub fn pool_status(&self, role: &str) -> PoolStatus {
        self.servers_by_identity_role.for_role(role).primary_pool().status()
    }

    /// Closes the pools, all at the same time: they hand out no more connections, and the call waits until those in use
    /// have been returned. If the call is dropped while it waits, the pools stay closed.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], from a pool that the application already had.
    pub async fn close(&self) -> Result<(), Error> {
        let ServersByIdentityRole { shared, separate } = &self.servers_by_identity_role;
        let outcomes = join_all(iter::once(shared).chain(separate.values()).map(Servers::close)).await;
        Ok(outcomes.into_iter().collect::<Result<(), _>>()?)
    }
}

/// Opens the pools of the servers, and returns the database's answer to the query, if a query is given. With
/// `login_url`, the connections to the replicas use the login of that URL.
async fn open_servers(
    url: &str,
    options: &Options,
    query: Option<&'static str>,
    login_url: Option<&str>,
    read_requirements: &Arc<ReadRequirementsByIdentity>,
) -> Result<(Servers, Option<String>), Error> {
    let pg_options = connect_options(url, options)?;
    if !options.replicas.is_empty() {
        let mut server_options = vec![pg_options];
        for replica_url in &options.replicas {
            server_options.push(match login_url {
                None => connect_options(replica_url, options)?,
                Some(login_url) => connect_options(&connect::with_address_of(replica_url, login_url)?, options)?,
            });
        }
        let cluster = Cluster::connect(server_options, options.pool_options(), read_requirements.clone()).await?;
        let answer = match query {
            Some(query) => within_acquire_timeout(options, cluster.query_scalar(query)).await?,
            None => None,
        };
        return Ok((Servers::Several(cluster), answer));
    }
    // The pool opens no connection before the first call. So a connection outside the pool shows now whether the server
    // can be reached.
    let (mut probe_connection, _) = connect::open(&pg_options, options.acquire_timeout).await?;
    let query_and_close = async {
        let answer = match query {
            Some(query) => query_scalar(&mut probe_connection, query).await?,
            None => None,
        };
        probe_connection.close().await?;
        Ok(answer)
    };
    let answer = within_acquire_timeout(options, query_and_close).await?;
    Ok((Servers::One(Pool::managed(Arc::new(Opener::new(pg_options)), options.pool_options())?), answer))
}

async fn within_acquire_timeout<T>(
    options: &Options,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Error> {
    let outcome = tokio::time::timeout(options.acquire_timeout, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    Ok(outcome.map_err(conn_error)?)
}

/// Returns the connect options of the URL, changed as `options` requires.
fn connect_options(url: &str, options: &Options) -> Result<PgConnectOptions, Error> {
    // SeaORM's own options are not used: their trace output contains the URL with the password.
    let mut pg_options = connect::options(url)?.disable_statement_logging();
    if let (Some(name), None) = (&options.application_name, pg_options.get_application_name()) {
        pg_options = pg_options.application_name(name);
    }
    if !options.cache_prepared_statements {
        // Each transaction begins with DEALLOCATE ALL, because the driver names its prepared statements even without a
        // cache, and another client of the pooler may have left statements with the same names. The driver must not
        // reuse a statement that DEALLOCATE ALL has removed, so its cache is switched off.
        pg_options = pg_options.statement_cache_capacity(0);
    }
    Ok(pg_options)
}

/// Options for connecting to a database.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The maximum number of connections of a pool, from 1 to 262,143. The default is 10. With replicas, each server
    /// has a pool of its own.
    pub max_connections: u32,
    /// The timeout for acquiring a connection, for each attempt to open the first one, and, with replicas, for finding
    /// a server that accepts writes. The default is 5 seconds.
    pub acquire_timeout: Duration,
    /// Whether prepared statements are cached on their connection. The default is `true`. Use `false` behind a pooler
    /// in transaction mode that does not track prepared statements (PgBouncer before 1.21): each transaction then
    /// begins by deallocating the statements of other clients, in the same round trip, and each statement takes a
    /// second round trip to be prepared.
    pub cache_prepared_statements: bool,
    /// The deadline of each statement, as in
    /// [`IdentityConnection::with_deadline`](crate::IdentityConnection::with_deadline). The default is 30 seconds;
    /// without a deadline, a statement would wait forever if the network silently drops packets. `None` means no
    /// deadline.
    pub deadline: Option<Duration>,
    /// The `application_name`, unless the URL or the environment variable `PGAPPNAME` gives one.
    pub application_name: Option<String>,
    /// URLs of the server's streaming replicas, which are used for reads; any of the servers may become the primary.
    /// Empty by default. See the [front page](crate#replicas).
    pub replicas: Vec<String>,
}

/// Omits the URLs, which may contain a password.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("cache_prepared_statements", &self.cache_prepared_statements)
            .field("deadline", &self.deadline)
            .field("application_name", &self.application_name)
            .field("replicas", &self.replicas.len())
            .finish()
    }
}

impl Options {
    /// Switches the caching of prepared statements off (see
    /// [`cache_prepared_statements`](Self::cache_prepared_statements)), for a pooler in transaction mode that does not
    /// track prepared statements.
    #[must_use]
    pub fn without_prepared_statement_cache(mut self) -> Self {
        self.cache_prepared_statements = false;
        self
    }

    fn pool_options(&self) -> PoolOptions {
        let prepared_statement_mode = if self.cache_prepared_statements {
            PreparedStatementMode::Cached
        } else {
            PreparedStatementMode::PerTransaction
        };
        let (max_connections, acquire_timeout) = (self.max_connections, self.acquire_timeout);
        PoolOptions { max_connections, acquire_timeout, prepared_statement_mode }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            cache_prepared_statements: true,
            deadline: Some(Duration::from_secs(30)),
            application_name: None,
            replicas: Vec::new(),
        }
    }
}
