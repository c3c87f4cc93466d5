//! A server, which is a private cluster or the server of `DATABASE_URL`, and what creates databases on it.

use std::{env, sync::Arc};

use migration::{Migrator, sea_orm_migration::MigratorTrait};
use sea_orm::ConnectionTrait;
use tokio::sync::OnceCell;

use crate::{database::Database, database_url::configured_url, error::Error, instance::Instance, pool::connect};

/// If this environment variable has a value and `DATABASE_URL` has none, [`Server::open`] starts a cluster whose
/// databases are laid out like Supabase projects. (This workspace calls Supabase *the platform*.)
const SUPABASE_VARIABLE: &str = "SPARC_PLATFORM";

/// SQL that gives a new database the layout of a Supabase project.
const SUPABASE_PROJECT_SQL: &str = include_str!("../../tests/platform.sql");

/// The SQL in this environment variable is run on every database that [`Server::create_migrated`] migrates, after the
/// migration. The mutation test (`src/bin/mutants`) removes or loosens a rule with it.
const MUTATION_VARIABLE: &str = "SPARC_SCHEMA_MUTATION";

/// A running server: a private cluster, or the server of `DATABASE_URL`. Clones share the server. A private cluster
/// stops when the last clone and the last [`Database`] on it have been dropped.
#[derive(Clone, Debug)]
pub struct Server {
    instance: Arc<Instance>,
    /// The layout of each new database.
    layout: Layout,
    templates: Arc<Templates>,
}

/// What a new database contains before it is migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Nothing.
    Plain,
    /// The schemas and roles of a Supabase project.
    SupabaseProject,
}

/// The databases of which new ones are copies. Each is created when it is first needed.
#[derive(Debug, Default)]
struct Templates {
    /// A Supabase project without the schema of this workspace. New projects are copies of it.
    supabase: OnceCell<Database>,
    /// A database with the schema. New migrated databases are copies of it.
    migrated: OnceCell<Database>,
}

impl Server {
    /// If `DATABASE_URL` is set, returns its server and starts nothing. Otherwise starts a private cluster: with
    /// [`Server::start_supabase`] if `SPARC_PLATFORM` is set, or else with [`Server::start_plain`].
    ///
    /// # Errors
    ///
    /// The server binaries are missing, or the server does not start.
    pub async fn open() -> Result<Self, Error> {
        match configured_url() {
            Some(url) => Ok(Self::new(Instance { url, cluster: None }, Layout::Plain)),
            None if env::var_os(SUPABASE_VARIABLE).is_some_and(|value| !value.is_empty()) => {
                Self::start_supabase(None).await
            }
            None => Self::start_plain(None).await,
        }
    }

    /// Starts a private cluster whose databases are Supabase projects, even if `DATABASE_URL` is set. In such a
    /// project, `postgres` owns the database and is not a superuser, Supabase's schemas and roles exist, and default
    /// privileges grant Supabase's roles access to every new object. `settings` are additional settings of the server
    /// (`name=value`).
    ///
    /// # Errors
    ///
    /// The server binaries are missing, or the server does not start.
    pub async fn start_supabase(settings: Option<&[&str]>) -> Result<Self, Error> {
        Ok(Self::new(Instance::start_supabase(settings).await?, Layout::SupabaseProject))
    }

    /// Starts a private cluster whose new databases are empty, even if `DATABASE_URL` is set. `settings` are additional
    /// settings of the server (`name=value`).
    ///
    /// # Errors
    ///
    /// The server binaries are missing, or the server does not start.
    pub async fn start_plain(settings: Option<&[&str]>) -> Result<Self, Error> {
        Ok(Self::new(Instance::start_plain(settings).await?, Layout::Plain))
    }

    fn new(instance: Instance, layout: Layout) -> Self {
        Self { instance: Arc::new(instance), layout, templates: Arc::default() }
    }

    /// Kills a private server with `kill -9`, and starts it again, so that it recovers from its write-ahead log. Blocks
    /// until the server runs.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or does not start again.
    pub fn crash_and_restart(&self) -> Result<(), Error> {
        self.instance.private_cluster()?.send_command("crash")
    }

    /// Kills a private server with `kill -9`. Its data stays on the disk, for [`Server::start_again`].
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or does not run.
    pub fn kill(&self) -> Result<(), Error> {
        self.instance.private_cluster()?.send_command("kill")
    }

    /// Starts a private server that [`Server::kill`] has killed. Blocks until the server runs.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or does not start.
    pub fn start_again(&self) -> Result<(), Error> {
        self.instance.private_cluster()?.send_command("start")
    }

    /// Starts a standby that streams from this private server. `settings` are additional settings of the standby
    /// (`name=value`). Blocks until the standby runs. The standby is removed when the last clone of the returned value
    /// and the last [`Database`] on the standby have been dropped.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, `pg_basebackup` is missing, or the standby does not start.
    pub fn start_standby(&self, settings: &[&str]) -> Result<Self, Error> {
        Ok(Self::new(self.instance.start_standby(settings)?, self.layout))
    }

    /// Promotes this standby. Blocks until it accepts writes.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or not a standby.
    pub fn promote(&self) -> Result<(), Error> {
        self.instance.private_cluster()?.send_command("promote")
    }

    /// Makes this standby stream from `primary`, as is necessary when another standby has been promoted.
    ///
    /// # Errors
    ///
    /// One of the servers is not a private cluster, or does not answer.
    pub async fn follow(&self, primary: &Self) -> Result<(), Error> {
        self.alter_system("primary_conninfo", &primary.instance.private_cluster()?.url("postgres")).await
    }

    /// Changes a setting of a private server, and reloads its configuration. A setting that was given on the command
    /// line when the server was started does not change, because the command line takes precedence.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or does not answer.
    pub async fn alter_system(&self, setting: &str, value: &str) -> Result<(), Error> {
        let connection = connect(&self.instance.private_cluster()?.url("postgres"), 1).await?;
        connection.execute_unprepared(&format!("ALTER SYSTEM SET {setting} = '{value}'")).await?;
        connection.execute_unprepared("SELECT pg_reload_conf()").await?;
        Ok(connection.close().await?)
    }

    /// Returns this server's copy of the database. This server must be a standby of the database's server.
    ///
    /// # Errors
    ///
    /// This server is not a private cluster.
    pub fn replica_of(&self, database: &Database) -> Result<Database, Error> {
        database.replica_on(&self.instance)
    }

    /// Returns the URL of the database `postgres` of a private cluster, or else `DATABASE_URL`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.instance.url
    }

    /// Creates an empty database or, on a server that [`Server::start_supabase`] started, a new Supabase project.
    /// Dropping the returned value drops the database.
    ///
    /// # Errors
    ///
    /// The role lacks the privilege to create databases, or the server is down.
    pub async fn create_unmigrated(&self) -> Result<Database, Error> {
        if self.layout == Layout::Plain {
            return Database::create(&self.instance, None).await;
        }
        let project = self
            .templates
            .supabase
            .get_or_try_init(|| async {
                let project = Database::create(&self.instance, None).await?;
                let connection = connect(&project.superuser_url(), 1).await?;
                connection.execute_unprepared(SUPABASE_PROJECT_SQL).await?;
                connection.close().await?;
                Ok::<_, Error>(project.into_template())
            })
            .await?;
        Database::create(&self.instance, Some(project)).await
    }

    /// Creates a database with the whole schema. Dropping the returned value drops the database.
    ///
    /// On a private cluster, one database is migrated as a template, and the others are copies of it. On the server of
    /// `DATABASE_URL`, each database is migrated, so that no template stays behind.
    ///
    /// # Errors
    ///
    /// As for [`Server::create_unmigrated`], or the migration fails.
    pub async fn create_migrated(&self) -> Result<Database, Error> {
        if self.instance.cluster.is_none() {
            return self.create_and_migrate().await;
        }
        let template = self
            .templates
            .migrated
            .get_or_try_init(|| async { Ok::<_, Error>(self.create_and_migrate().await?.into_template()) })
            .await?;
        Database::create(&self.instance, Some(template)).await
    }

    /// Creates a database, migrates it, and runs the SQL of [`MUTATION_VARIABLE`] on it, if the variable is set.
    async fn create_and_migrate(&self) -> Result<Database, Error> {
        let database = self.create_unmigrated().await?;
        let connection = database.connect(1).await?;
        Migrator::up(&connection, None).await?;
        if let Some(mutation) = env::var_os(MUTATION_VARIABLE).and_then(|sql| sql.into_string().ok()) {
            connection.execute_unprepared(&mutation).await?;
        }
        connection.close().await?;
        Ok(database)
    }
}
