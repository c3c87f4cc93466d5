//! The handle.

use std::time::Duration;

use sea_orm::{
    DatabaseConnection, DbErr, RuntimeErr,
    sqlx::{self, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions},
};
use uuid::Uuid;

use crate::{
    Error,
    connection::{As, Pool, Statements},
    identity::Identity,
};

/// The game's database: one handle over a pool, cheap to clone. It does nothing itself; it gives identities, and what
/// they ask is asked in their name.
///
/// The pool's login needs membership in the roles `anon`, `authenticated` and `service_role`, and nothing else.
#[derive(Clone, Debug)]
pub struct Sparc {
    pool: Pool,
    deadline: Option<Duration>,
    statements: Statements,
}

impl Sparc {
    /// Over a pool that the service has already.
    #[must_use]
    pub fn new(db: DatabaseConnection) -> Self {
        Self { pool: Pool::Given(db), deadline: None, statements: Statements::Kept }
    }

    /// Over a pool of its own, with the default [`Options`].
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`] where nobody listens, [`Error::PoolExhausted`] where nothing answers in time,
    /// [`Error::Database`] where the server does not let us in.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, Options::default()).await
    }

    /// Over a pool of its own.
    ///
    /// # Errors
    ///
    /// As [`Sparc::connect`].
    pub async fn connect_with(url: &str, options: Options) -> Result<Self, Error> {
        // Not through SeaORM's own options, whose trace says the address with the password in it.
        let mut connect: PgConnectOptions = url.parse().map_err(sqlx_error)?;
        connect = connect.disable_statement_logging();
        if !options.named_statements {
            // The driver names them all the same, and remembers none: each transaction begins by forgetting.
            connect = connect.statement_cache_capacity(0);
        }
        // A pool would go on knocking until its time is up; one connection says at once what is wrong.
        let knock = async { PgConnection::connect_with(&connect).await?.close().await };
        tokio::time::timeout(options.acquire_timeout, knock)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
            .map_err(sqlx_error)?;
        let pool = Pool::of(connect, options.max_connections, options.acquire_timeout)?;
        let statements = if options.named_statements { Statements::Kept } else { Statements::Forgotten };
        Ok(Self { pool, deadline: options.deadline, statements })
    }

    /// As the user of that account: role `authenticated`.
    #[must_use]
    pub fn as_user(&self, id: Uuid) -> As {
        As::new(self.pool.clone(), Identity::User(id), self.deadline, self.statements)
    }

    /// As a visitor who has not signed in: role `anon`.
    #[must_use]
    pub fn as_anon(&self) -> As {
        As::new(self.pool.clone(), Identity::Anon, self.deadline, self.statements)
    }

    /// As the server itself: role `service_role`. Row security does not bind it; constraints and triggers do.
    #[must_use]
    pub fn as_service(&self) -> As {
        As::new(self.pool.clone(), Identity::Service, self.deadline, self.statements)
    }

    /// Ends the pool. What is under way ends first.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.pool.close().await?)
    }
}

/// How to connect.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Most connections at once. Ten by default.
    pub max_connections: u32,
    /// How long an operation waits for one. Five seconds by default.
    pub acquire_timeout: Duration,
    /// Whether prepared statements are kept on their connection. On by default; off behind a pooler in transaction mode
    /// that does not follow them (PgBouncer before 1.21): each transaction then begins by forgetting what others prepared,
    /// in the same round trip, and each of its statements takes a second one to be prepared.
    pub named_statements: bool,
    /// How long an operation may take, as [`As::with_deadline`]. Half a minute by default: a network that swallows what is
    /// sent would else be waited for for ever. `None`: no bound.
    pub deadline: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(5),
            named_statements: true,
            deadline: Some(Duration::from_secs(30)),
        }
    }
}

impl Options {
    /// At most so many connections.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// So long to wait for a connection.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// So long for each operation.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// No named statements, for a pooler in transaction mode.
    #[must_use]
    pub fn without_named_statements(mut self) -> Self {
        self.named_statements = false;
        self
    }
}

fn sqlx_error(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}
