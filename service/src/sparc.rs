//! The handle to the game's database, and its options.

use std::{sync::Arc, time::Duration};

use rls::{Database, IdentityConnection, PoolStatus, supabase};
use sea_orm::DatabaseConnection;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::{Error, ServerStatus, error::explain_missing_privilege, events::Hub};

/// Reads the comment on the table of migrations (`sparc_migrations`). The comment ends with the version of the schema,
/// and every login may read it. No row means that there is no schema; an empty comment means that a migration has not
/// finished.
const READ_VERSION_COMMENT: &str = "SELECT coalesce(obj_description(pg_class.oid, 'pg_class'), '')::text
     FROM pg_catalog.pg_class
     JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
     WHERE nspname = 'public' AND relname = 'sparc_migrations'";

/// The oldest schema version that this crate can use. Releases that differ only in the patch number share a schema.
const MIN_SCHEMA_VERSION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));

/// Checks that the schema exists and is recent enough. `version_comment` is the result of [`READ_VERSION_COMMENT`]. A
/// newer schema is accepted, because migrations keep what an older service uses.
fn check_schema_version(version_comment: Option<&str>) -> Result<(), Error> {
    let parse_version = |version: &str| -> Option<(u64, u64)> {
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let version_comment = version_comment.ok_or(Error::SchemaMissing)?;
    let version = version_comment.rsplit(' ').next().unwrap_or_default().trim_end_matches('.');
    match parse_version(version) {
        Some(found) if Some(found) >= parse_version(MIN_SCHEMA_VERSION) => Ok(()),
        Some(_) => Err(Error::SchemaOutdated { found: format!("version {version}"), needed: MIN_SCHEMA_VERSION }),
        None => Err(Error::SchemaOutdated { found: "unfinished".to_owned(), needed: MIN_SCHEMA_VERSION }),
    }
}

/// A handle to the game's database, cheap to clone. [`as_user`](Self::as_user), [`as_claims`](Self::as_claims),
/// [`as_anon`](Self::as_anon) and [`as_service`](Self::as_service) return connections; each statement on such a
/// connection runs as the connection's identity.
///
/// Two logins (roles that may log in) are recommended: one for users, a member of the roles `anon` and `authenticated`,
/// and one for the service ([`Options::service_url`]), a member of `service_role`. A single login must be a member of
/// all three roles. The logins need no other privileges.
#[derive(Clone, Debug)]
pub struct Sparc {
    database: Database,
    /// The subscriptions to events.
    hub: Arc<Hub>,
}

impl Sparc {
    /// Creates a handle over a pool that the application already has, with the default deadline
    /// ([`Options::deadline`]). Does not check the version of the schema. Switches off the pool's statement log, which
    /// would contain the claims of tokens. Call this inside an async runtime and before the pool is in use; see
    /// [`rls::Database::from_connection`].
    #[must_use]
    pub fn from_connection(db: DatabaseConnection) -> Self {
        Self::new(Database::from_connection(db))
    }

    /// Connects, with a new pool and the default [`Options`].
    ///
    /// # Errors
    ///
    /// [`Error::ConnectFailed`] if no connection can be opened. Its message names the cause (wrong host or password,
    /// unknown database, no TLS, no server) in the same words as the program `migration`. [`Error::SchemaMissing`] if
    /// the database is not migrated, [`Error::SchemaOutdated`] if its schema is older than this crate needs, or a
    /// migration is not finished. [`Error::PoolExhausted`], [`Error::ConnectionLost`] or [`Error::Database`] if a
    /// connection is opened, but the version of the schema cannot be read.
    /// [`Error::Misconfigured`] if [`Options::max_connections`] is out of range.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::connect_with(url, Options::default()).await
    }

    /// Connects, with a new pool.
    ///
    /// # Errors
    ///
    /// Those of [`Sparc::connect`].
    pub async fn connect_with(url: &str, options: Options) -> Result<Self, Error> {
        let rls_options = options.rls_options();
        let (mut database, version_comment) =
            Database::connect_and_query_text(url, &rls_options, READ_VERSION_COMMENT).await?;
        check_schema_version(version_comment.as_deref())?;
        if let Some(service_url) = &options.service_url {
            database = database.with_pool_for_role(supabase::SERVICE_ROLE, service_url, &rls_options).await?;
        }
        Ok(Self::new(database))
    }

    fn new(database: Database) -> Self {
        // The context of a database is a value that each of its connections carries; `subscribe` finds the hub there.
        let hub = Arc::new(Hub::default());
        Self { database: database.with_error_mapper(explain_missing_privilege).with_context(hub.clone()), hub }
    }

    /// Returns a connection with the identity of a signed-in user: role `authenticated`.
    #[must_use]
    pub fn as_user(&self, id: Uuid) -> IdentityConnection {
        self.database.as_identity(with_account_check(supabase::user(id)))
    }

    /// Returns a connection with the identity of the user or visitor that a token describes. Policies can read all of
    /// the token's claims with `auth.jwt()`. The application must have verified the token's signature and expiry.
    /// `claims` is any value that serializes to a JSON object: a map, or the claims struct of a token library.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidClaims`] if `claims` does not serialize to an object, or a claim contains NUL. Two combinations
    /// of claims are accepted: the role `authenticated` with a UUID as `sub`, and the role `anon` without `sub`. Any
    /// other is [`Error::InvalidClaims`] too.
    pub fn as_claims(&self, claims: impl Serialize) -> Result<IdentityConnection, Error> {
        let Ok(Value::Object(claims)) = serde_json::to_value(claims) else {
            return Err(Error::InvalidClaims { rule: "claims must be a JSON object" });
        };
        let identity = supabase::from_claims(claims)?;
        let identity = if identity.user_id().is_some() { with_account_check(identity) } else { identity };
        Ok(self.database.as_identity(identity))
    }

    /// Returns a connection with the identity of a visitor, who has not signed in: role `anon`.
    #[must_use]
    pub fn as_anon(&self) -> IdentityConnection {
        self.database.as_identity(supabase::anon())
    }

    /// Returns a connection with the identity of the service itself: role `service_role`. It bypasses row-level
    /// security; constraints and triggers still apply.
    #[must_use]
    pub fn as_service(&self) -> IdentityConnection {
        self.database.as_identity(supabase::service())
    }

    /// Returns the status of each server: which one is the primary, and which are used for reads. Returns an empty list
    /// if no replicas are configured.
    #[must_use]
    pub fn server_statuses(&self) -> Vec<ServerStatus> {
        self.database.server_statuses()
    }

    /// Pings the server through each pool, for a health check. With replicas, pings the primary. Fails at once if the
    /// server is unreachable, and after a few seconds if it does not answer.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`], [`Error::PoolExhausted`], [`Error::PoolClosed`], [`Error::Misconfigured`].
    pub async fn ping(&self) -> Result<(), Error> {
        Ok(self.database.ping().await?)
    }

    /// Returns the status of the users' pool, for metrics. With replicas, that is the users' pool of the primary.
    #[must_use]
    pub fn user_pool_status(&self) -> PoolStatus {
        self.database.pool_status(supabase::AUTHENTICATED)
    }

    /// Returns the status of the service's pool, for metrics. It is the users' pool, unless the service has a separate
    /// login ([`Options::service_url`]).
    #[must_use]
    pub fn service_pool_status(&self) -> PoolStatus {
        self.database.pool_status(supabase::SERVICE_ROLE)
    }

    /// Closes the pools: they hand out no more connections, and this call waits until those in use have been returned.
    /// Subscriptions to events end with [`Error::PoolClosed`].
    ///
    /// # Errors
    ///
    /// [`Error::Database`], if the handle was created with [`from_connection`](Self::from_connection).
    pub async fn close(self) -> Result<(), Error> {
        self.hub.close();
        Ok(self.database.close().await?)
    }
}

/// Returns the identity of a user with a check that runs when each transaction begins. If the account is closed or does
/// not exist, the transaction is refused.
fn with_account_check(user_identity: rls::Identity) -> rls::Identity {
    user_identity.with_begin_check("private.require_open_account()")
}

/// Options of the handle and its connection pools.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The maximum number of connections of each pool. Each server has a pool for users and, if the service has a
    /// separate login ([`Options::service_url`]), another one for the service. The default is 10.
    pub max_connections: u32,
    /// The timeout for acquiring a connection. The default is 5 seconds.
    pub acquire_timeout: Duration,
    /// Whether prepared statements are cached on their connection. The default is `true`. Use `false` behind a pooler
    /// in transaction mode that does not track prepared statements (PgBouncer before 1.21, or without
    /// `max_prepared_statements`). With `false`, each transaction begins by deallocating what other clients have
    /// prepared, in the same round trip, and each statement takes a second round trip to be prepared.
    pub cache_prepared_statements: bool,
    /// The deadline of each operation as a whole, with its retries, and of each statement that the application runs
    /// itself ([`IdentityConnection::with_deadline`]). The default is 30 seconds; without a deadline, an operation
    /// would wait forever if the network silently drops packets. `None` means no deadline.
    pub deadline: Option<Duration>,
    /// The URL for [`Sparc::as_service`], with another login. Recommended: the users' login then need not be a member
    /// of `service_role`, so that no SQL that runs for a user can assume that role. The default is `None`: one login
    /// for both.
    pub service_url: Option<String>,
    /// URLs of streaming replicas, which run operations that only read. After a failover, the replica that was promoted
    /// is used as the primary. A caller always sees its own writes. The default is no replicas. See
    /// [`rls`](rls#replicas).
    pub replicas: Vec<String>,
}

/// Hides the URLs, because they contain passwords.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("cache_prepared_statements", &self.cache_prepared_statements)
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
            cache_prepared_statements: true,
            deadline: Some(Duration::from_secs(30)),
            service_url: None,
            replicas: Vec::new(),
        }
    }
}

impl Options {
    /// Sets the maximum number of connections of each pool.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets the timeout for acquiring a connection.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets the deadline of each operation.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Switches the caching of prepared statements off; see [`Options::cache_prepared_statements`].
    #[must_use]
    pub fn without_prepared_statement_cache(mut self) -> Self {
        self.cache_prepared_statements = false;
        self
    }

    /// Sets the URL of the service's login.
    #[must_use]
    pub fn service_url(mut self, url: impl Into<String>) -> Self {
        self.service_url = Some(url.into());
        self
    }

    /// Sets the URLs of streaming replicas, which run operations that only read.
    #[must_use]
    pub fn replicas(mut self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.replicas = urls.into_iter().map(Into::into).collect();
        self
    }

    fn rls_options(&self) -> rls::Options {
        let mut options = rls::Options::default();
        options.max_connections = self.max_connections;
        options.acquire_timeout = self.acquire_timeout;
        options.cache_prepared_statements = self.cache_prepared_statements;
        options.deadline = self.deadline;
        options.application_name = Some("sparc".to_owned());
        options.replicas = self.replicas.clone();
        options
    }
}
