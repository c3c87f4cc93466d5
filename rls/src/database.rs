//! The handle over the pools.

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
}

/// The pool of each role: most share one.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    shared: Pool,
    own: Arc<BTreeMap<Cow<'static, str>, Pool>>,
}

impl Pools {
    pub(crate) fn of(&self, role: &str) -> &Pool {
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
        Self::new(Pool::External(db), None, PreparedStatements::Cached)
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
        Ok(Self::new(open(url, options, None).await?.0, options.deadline, statements))
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
        let (pool, answer) = open(url, options, Some(question)).await?;
        Ok((Self::new(pool, options.deadline, statements), answer))
    }

    fn new(shared: Pool, deadline: Option<Duration>, statements: PreparedStatements) -> Self {
        let pools = Pools { shared, own: Arc::default() };
        Self { pools, deadline, statements, map_error: |_, error| error, context: None }
    }

    /// The same, with a pool of its own for the identities of one role, over another login. No text of anybody else's can
    /// take on that role then, if the first login is no member of it.
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
        own.insert(role.into(), open(url, options, None).await?.0);
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

    /// The database as that identity sees it.
    #[must_use]
    pub fn as_identity(&self, identity: Identity) -> IdentityConnection {
        IdentityConnection::new(self.clone(), identity)
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

    /// How the pool of the identities of that role is used now: for metrics.
    #[must_use]
    pub fn pool_status(&self, role: &str) -> PoolStatus {
        self.pools.of(role).status()
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

async fn open(url: &str, options: &Options, question: Option<&'static str>) -> Result<(Pool, Option<String>), Error> {
    // Not through SeaORM's own options, whose trace says the address with the password in it.
    let mut connect = connect::options(url)?.disable_statement_logging();
    if let (Some(name), None) = (&options.application_name, connect.get_application_name()) {
        connect = connect.application_name(name);
    }
    if !options.prepared_statements {
        // The driver names them all the same, and remembers none: each transaction begins by forgetting.
        connect = connect.statement_cache_capacity(0);
    }
    // A pool would go on trying until its time is up; one connection says at once what is wrong.
    let (mut probe, connect) = connect::open(&connect, options.acquire_timeout).await?;
    let ask = async {
        let answer = match question {
            // Unprepared: the connection may be a pooler's.
            Some(question) => match sqlx::raw_sql(question).fetch_optional(&mut probe).await? {
                Some(row) => row.try_get(0)?,
                None => None,
            },
            None => None,
        };
        probe.close().await?;
        Ok(answer)
    };
    let asked = tokio::time::timeout(options.acquire_timeout, ask).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    let answer = asked.map_err(connect_error)?;
    Ok((Pool::managed(connect, options.max_connections, options.acquire_timeout)?, answer))
}

/// How to connect.
#[derive(Clone, Debug)]
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
