//! The handle.

use std::{sync::Arc, time::Duration};

use rls::{Database, IdentityConnection, PoolStatus, supabase};
use sea_orm::DatabaseConnection;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{Error, ServerStatus, error::name_closed_columns, events::Hub};

/// What the migrations say of the schema, which every login may read: none without a schema, nothing where they are
/// unfinished.
const SCHEMA: &str = "SELECT coalesce(obj_description(class.oid, 'pg_class'), '')::text
     FROM pg_catalog.pg_class AS class
     JOIN pg_catalog.pg_namespace AS space ON space.oid = class.relnamespace
     WHERE space.nspname = 'public' AND class.relname = 'sparc_migrations'";

/// The schema that this version needs. Releases that differ in the third number alone share one.
const NEEDED: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// Whether the schema is there and recent enough. A newer one will do: what a service used before stays.
fn check_schema(comment: Option<&str>) -> Result<(), Error> {
    let numbers = |version: &str| -> Option<(u64, u64)> {
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let version = comment.ok_or(Error::SchemaMissing)?.rsplit(' ').next().unwrap_or_default().trim_end_matches('.');
    match numbers(version) {
        Some(found) if Some(found) >= numbers(NEEDED) => Ok(()),
        Some(_) => Err(Error::SchemaOutdated { found: format!("that of version {version}"), needed: NEEDED }),
        None => Err(Error::SchemaOutdated { found: "unfinished".to_owned(), needed: NEEDED }),
    }
}

/// The game's database: one handle over a pool, cheap to clone. It does nothing itself; it gives identities, and what
/// they ask is asked in their name.
///
/// The pool's login needs membership in the roles `anon`, `authenticated` and `service_role`, and nothing else; better is a
/// login for users that is no member of `service_role`, and another for the service: [`Options::service_url`].
#[derive(Clone, Debug)]
pub struct Sparc {
    database: Database,
    hub: Arc<Hub>,
}

impl Sparc {
    /// Over a pool that the service has already.
    #[must_use]
    pub fn from_connection(db: DatabaseConnection) -> Self {
        Self::new(Database::from_connection(db))
    }

    /// Over a pool of its own, with the default [`Options`].
    ///
    /// # Errors
    ///
    /// [`Error::ConnectFailed`] where there is no connection: a wrong address or password, no such database, no TLS, nobody
    /// listening, each in its own words, which are those of the migration program. [`Error::SchemaMissing`] where the database is not
    /// migrated, [`Error::SchemaOutdated`] where it is older than this version. [`Error::Misconfigured`] where the options allow no
    /// connection.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, Options::default()).await
    }

    /// Over a pool of its own.
    ///
    /// # Errors
    ///
    /// As [`Sparc::connect`].
    pub async fn connect_with(url: &str, options: Options) -> Result<Self, Error> {
        let connect = options.of_connection();
        let (mut database, schema) = Database::connect_and_ask(url, &connect, SCHEMA).await?;
        check_schema(schema.as_deref())?;
        if let Some(service_url) = &options.service_url {
            database = database.with_role_at(supabase::SERVICE_ROLE, service_url, &connect).await?;
        }
        Ok(Self::new(database))
    }

    fn new(database: Database) -> Self {
        let hub = Arc::new(Hub::default());
        Self { database: database.with_error_map(name_closed_columns).with_context(hub.clone()), hub }
    }

    /// Connects as a signed-in user: role `authenticated`.
    #[must_use]
    pub fn as_user(&self, id: Uuid) -> IdentityConnection {
        self.database.as_identity(admitted(supabase::user(id)))
    }

    /// The user, or the visitor, of a token that was verified: with all its claims, which the database sees (`auth.jwt()`).
    /// Its signature and its expiry are the caller's to verify. `claims` is whatever serializes to their object: a map, or the
    /// struct that a library for tokens gives.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidClaims`] unless the role is `authenticated`, with a UUID as `sub`, or `anon`, without one.
    pub fn as_claims(&self, claims: impl Serialize) -> Result<IdentityConnection, Error> {
        let Ok(Value::Object(claims)) = serde_json::to_value(claims) else {
            return Err(Error::InvalidClaims { rule: "claims must be a JSON object" });
        };
        let identity = supabase::from_claims(claims)?;
        let identity = if identity.user_id().is_some() { admitted(identity) } else { identity };
        Ok(self.database.as_identity(identity))
    }

    /// Connects as a visitor who has not signed in: role `anon`.
    #[must_use]
    pub fn as_anon(&self) -> IdentityConnection {
        self.database.as_identity(supabase::anon())
    }

    /// Connects as the server itself: role `service_role`. Row security does not bind it; constraints and triggers do.
    #[must_use]
    pub fn as_service(&self) -> IdentityConnection {
        self.database.as_identity(supabase::service())
    }

    /// The servers, where there are replicas: which of them is the primary, and who answers readers.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerStatus> {
        self.database.servers()
    }

    /// Asks the server for an answer: for a health check. A server that is away is told at once; one that does not answer,
    /// within seconds.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`], [`Error::PoolExhausted`], [`Error::PoolClosed`], [`Error::Misconfigured`].
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(self.database.ping().await?)
    }

    /// How the pool for users is used now: for metrics.
    #[must_use]
    pub fn pool_status(&self) -> PoolStatus {
        self.database.pool_status(supabase::AUTHENTICATED)
    }

    /// How the pool for the service is used now: the same one, unless it has a login of its own
    /// ([`Options::service_url`]).
    #[must_use]
    pub fn service_pool_status(&self) -> PoolStatus {
        self.database.pool_status(supabase::SERVICE_ROLE)
    }

    /// Closes the pool. What is under way ends first; a subscription to events ends with [`Error::PoolClosed`].
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn close(self) -> Result<(), Error> {
        self.hub.close();
        Ok(self.database.close().await?)
    }
}

/// A user's transaction is refused where the account is closed or not there.
fn admitted(user: rls::Identity) -> rls::Identity {
    user.with_admission("private.require_account()")
}

/// How to connect.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Most connections at once. Ten by default.
    pub max_connections: u32,
    /// How long an operation waits for one. Five seconds by default.
    pub acquire_timeout: Duration,
    /// Whether prepared statements are kept on their connection. On by default; off behind a pooler in transaction mode
    /// that does not follow them (PgBouncer before 1.21): each transaction then begins by forgetting what others prepared,
    /// in the same round trip, and each of its statements takes a second one to be prepared.
    pub prepared_statements: bool,
    /// How long an operation may take, as [`IdentityConnection::with_deadline`]. Half a minute by default: a network that swallows what is
    /// sent would else be waited for for ever. `None`: no bound.
    pub deadline: Option<Duration>,
    /// Address for [`Sparc::as_service`], over another login. Recommended: the login of the first address is then no member
    /// of `service_role`, so that no statement's text can become the server. None by default: one login does both.
    pub service_url: Option<String>,
    /// Addresses of streaming replicas, which answer whoever only reads; after a failover, the one that was promoted is the
    /// primary. A caller always sees what they wrote. None by default. See [`rls`](rls#replicas).
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
            .field("service_url", &self.service_url.as_ref().map(|_| "…"))
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
            service_url: None,
            replicas: Vec::new(),
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

    /// No prepared statements, for a pooler in transaction mode.
    #[must_use]
    pub fn without_prepared_statements(mut self) -> Self {
        self.prepared_statements = false;
        self
    }

    /// Another login for the service.
    #[must_use]
    pub fn service_url(mut self, url: impl Into<String>) -> Self {
        self.service_url = Some(url.into());
        self
    }

    /// Streaming replicas for whoever only reads.
    #[must_use]
    pub fn replicas(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.replicas = urls.into_iter().map(Into::into).collect();
        self
    }

    fn of_connection(&self) -> rls::Options {
        let mut options = rls::Options::default();
        options.max_connections = self.max_connections;
        options.acquire_timeout = self.acquire_timeout;
        options.prepared_statements = self.prepared_statements;
        options.deadline = self.deadline;
        options.application_name = Some("sparc".to_owned());
        options.replicas = self.replicas.clone();
        options
    }
}
