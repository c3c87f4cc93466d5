//! The handle over the pools.

use std::{any::Any, borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use sea_orm::{
    DatabaseConnection, DbErr,
    sqlx::{self, ConnectOptions, Connection, PgConnection, Row, postgres::PgConnectOptions},
};

use crate::{
    Error, Identity, IdentityConnection, connect,
    connection::MapError,
    pool::{Pool, PoolStatus, connect_error},
    position::{Position, Positions},
    servers::{Cluster, ServerStatus, Servers, with_login_of},
    wire::PreparedStatements,
};

/// A database with row-level security: one handle over its pools, cheap to clone. It does nothing itself; it gives
/// identities, and what they ask is asked in their name.
///
/// A pool's login needs membership in the roles of the identities that use it, and nothing else.
#[derive(Clone, Debug)]
pub struct Database {
    pub(crate) pools: Pools,
    pub(crate) deadline: Option<Duration>,
    pub(crate) statements: PreparedStatements,
    pub(crate) map_error: MapError,
    pub(crate) context: Option<Arc<dyn Any + Send + Sync>>,
    /// What each identity has written or seen, where there are replicas.
    positions: Arc<Positions>,
}

/// The servers of each role: most share one login.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    shared: Servers,
    own: Arc<BTreeMap<Cow<'static, str>, Servers>>,
}

impl Pools {
    pub(crate) fn of(&self, role: &str) -> &Servers {
        self.own.get(role).unwrap_or(&self.shared)
    }

    pub(crate) fn has_own(&self, role: &str) -> bool {
        self.own.contains_key(role)
    }
}

impl Database {
    /// Over a pool that the application has already. Settings that its hooks make in a session do not outlive a raw
    /// statement there: give them in the address.
    #[must_use]
    pub fn from_connection(db: DatabaseConnection) -> Self {
        Self::new(Servers::One(Pool::External(db)), None, PreparedStatements::Cached, Arc::default())
    }

    /// Over a pool of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] where there is no connection, with the cause and what to do;
    /// [`Error::Misconfigured`] where the options allow none.
    pub async fn connect(url: &str, options: &Options) -> Result<Self, Error> {
        let statements =
            if options.prepared_statements { PreparedStatements::Cached } else { PreparedStatements::Deallocated };
        let positions = Arc::default();
        let (servers, _) = open(url, options, None, None, &positions).await?;
        Ok(Self::new(servers, options.deadline, statements, positions))
    }

    /// As [`connect`](Self::connect), with one question to the database on the way, as the login and before any identity: the
    /// first column, a text, of the one row that `question` gives. For whether the database is the one that the program
    /// needs.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and what the database says of the question.
    pub async fn connect_and_ask(
        url: &str,
        options: &Options,
        question: &'static str,
    ) -> Result<(Self, Option<String>), Error> {
        let statements =
            if options.prepared_statements { PreparedStatements::Cached } else { PreparedStatements::Deallocated };
        let positions = Arc::default();
        let (servers, answer) = open(url, options, Some(question), None, &positions).await?;
        Ok((Self::new(servers, options.deadline, statements, positions), answer))
    }

    fn new(
        shared: Servers,
        deadline: Option<Duration>,
        statements: PreparedStatements,
        positions: Arc<Positions>,
    ) -> Self {
        let pools = Pools { shared, own: Arc::default() };
        Self { pools, deadline, statements, map_error: |_, error| error, context: None, positions }
    }

    /// The same, with a pool of its own for the identities of one role, over another login. No text of anybody else's can
    /// take on that role then, if the first login is no member of it. Its replicas are those of the options, over that login.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn with_role_at(
        mut self,
        role: impl Into<Cow<'static, str>>,
        url: &str,
        options: &Options,
    ) -> Result<Self, Error> {
        let mut own = (*self.pools.own).clone();
        own.insert(role.into(), open(url, options, None, Some(url), &self.positions).await?.0);
        self.pools.own = Arc::new(own);
        Ok(self)
    }

    /// The same, with a say in what the callers of statements are told of the database's refusals.
    #[must_use]
    pub fn with_error_map(mut self, map_error: fn(&Identity, DbErr) -> DbErr) -> Self {
        self.map_error = map_error;
        self
    }

    /// The same, with something of the program's own beside it, which its operations find again from each identity
    /// ([`Unchecked::context`](crate::unchecked::Unchecked::context)): what is shared by all of them.
    #[must_use]
    pub fn with_context<T: Any + Send + Sync>(mut self, context: Arc<T>) -> Self {
        self.context = Some(context);
        self
    }

    pub(crate) fn note_seen(&self, identity: &Identity, position: Position) {
        self.positions.note(identity, position);
    }

    /// The database as that identity sees it.
    #[must_use]
    pub fn as_identity(&self, identity: Identity) -> IdentityConnection {
        IdentityConnection::new(self.clone(), identity)
    }

    /// The servers, where there are replicas: which of them is the primary, and who answers readers.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerStatus> {
        self.pools.shared.cluster().map(|cluster| cluster.status()).unwrap_or_default()
    }

    /// Asks each pool's server for an answer, without an identity: for a health check. A server that is away is told at
    /// once; one that does not answer, within seconds.
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

    /// How the pool of the identities of that role is used now, over the primary where there are replicas: for metrics.
    #[must_use]
    pub fn pool_status(&self, role: &str) -> PoolStatus {
        self.pools.of(role).primary().status()
    }

    /// Closes the pools. What is under way ends first.
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

/// The servers; and what they say to a question, if there is one.
async fn open(
    url: &str,
    options: &Options,
    question: Option<&'static str>,
    login: Option<&str>,
    positions: &Arc<Positions>,
) -> Result<(Servers, Option<String>), Error> {
    let connect = address(url, options)?;
    if !options.replicas.is_empty() {
        let mut addresses = vec![connect];
        for replica in &options.replicas {
            let replica = address(replica, options)?;
            addresses.push(match login {
                None => replica,
                Some(login) => with_login_of(&replica, address(login, options)?),
            });
        }
        let (max_connections, acquire_timeout) = (options.max_connections, options.acquire_timeout);
        let cluster = Cluster::connect(addresses, max_connections, acquire_timeout, positions.clone()).await?;
        let answer = match question {
            Some(question) => in_time(options, cluster.ask(question)).await?,
            None => None,
        };
        return Ok((Servers::Several(cluster), answer));
    }
    // A pool would go on trying until its time is up; one connection says at once what is wrong.
    let (mut probe, connect) = connect::open(&connect, options.acquire_timeout).await?;
    let asking = async {
        let answer = match question {
            Some(question) => ask(&mut probe, question).await?,
            None => None,
        };
        probe.close().await?;
        Ok(answer)
    };
    let answer = in_time(options, asking).await?;
    Ok((Servers::One(Pool::managed(connect, options.max_connections, options.acquire_timeout)?), answer))
}

async fn in_time<T>(options: &Options, asking: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    let asked = tokio::time::timeout(options.acquire_timeout, asking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    Ok(asked.map_err(connect_error)?)
}

/// The first column of the one row that the question gives. It is not prepared: the connection may be a pooler's.
pub(crate) async fn ask(connection: &mut PgConnection, question: &'static str) -> Result<Option<String>, sqlx::Error> {
    match sqlx::raw_sql(question).fetch_optional(connection).await? {
        Some(row) => row.try_get(0),
        None => Ok(None),
    }
}

fn address(url: &str, options: &Options) -> Result<PgConnectOptions, Error> {
    // Not through SeaORM's own options, whose trace says the address with the password in it.
    let mut connect = connect::options(url)?.disable_statement_logging();
    if let (Some(name), None) = (&options.application_name, connect.get_application_name()) {
        connect = connect.application_name(name);
    }
    if !options.prepared_statements {
        // The driver names them all the same, and remembers none: each transaction begins by forgetting.
        connect = connect.statement_cache_capacity(0);
    }
    Ok(connect)
}

/// How to connect.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Most connections at once. Ten by default.
    pub max_connections: u32,
    /// How long a statement waits for a connection. Five seconds by default.
    pub acquire_timeout: Duration,
    /// Whether prepared statements are kept on their connection. On by default; off behind a pooler in transaction mode
    /// that does not follow them (PgBouncer before 1.21): each transaction then begins by deallocating what others
    /// prepared, in the same round trip, and each of its statements takes a second one to be prepared.
    pub prepared_statements: bool,
    /// How long a statement may take, as [`IdentityConnection::with_deadline`]. Half a minute by default: a network that
    /// swallows what is sent would else be waited for for ever. `None`: no bound.
    pub deadline: Option<Duration>,
    /// `application_name`, where the address names none.
    pub application_name: Option<String>,
    /// Addresses of streaming replicas of the same cluster, which answer readers; any of the addresses may become the
    /// primary. None by default. See the [front page](crate#replicas).
    pub replicas: Vec<String>,
}

/// An address has a password in it.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("prepared_statements", &self.prepared_statements)
            .field("deadline", &self.deadline)
            .field("application_name", &self.application_name)
            .field("replicas", &self.replicas.len())
            .finish()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            prepared_statements: true,
            deadline: Some(Duration::from_secs(30)),
            application_name: None,
            replicas: Vec::new(),
        }
    }
}
