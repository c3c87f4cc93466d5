//! A server: a private cluster, or the server of `DATABASE_URL`.

use std::{env, sync::Arc};

use migration::{Migrator, sea_orm_migration::MigratorTrait};
use sea_orm::ConnectionTrait;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{
    Binaries, Database, Error,
    cluster::Cluster,
    connect,
    database_url::{configured_url, on_local_server, with_database},
};

/// If this environment variable has a value and `DATABASE_URL` has none, [`Server::open`] starts a cluster whose
/// databases are laid out like Supabase projects. (This workspace calls Supabase *the platform*.)
const SUPABASE_VARIABLE: &str = "SPARC_PLATFORM";

/// The superuser of a cluster of Supabase projects.
const SUPABASE_SUPERUSER: &str = "supabase_admin";

/// SQL that gives a new database the layout of a Supabase project.
const SUPABASE_PROJECT_SQL: &str = include_str!("../../tests/platform.sql");

/// The SQL in this environment variable is run on every database that [`Server::create_migrated`] migrates, after the
/// migration. The mutation test (`src/bin/mutants`) removes or loosens a rule with it.
const MUTATION_VARIABLE: &str = "SPARC_SCHEMA_MUTATION";

/// A running server: a private cluster, or the server of `DATABASE_URL`. Clones share the server. A private cluster
/// stops when the last clone and the last [`Database`] on it have been dropped.
#[derive(Clone, Debug)]
pub struct Server {
    pub(crate) inner: Arc<Inner>,
}

/// What a new database contains before it is migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Nothing.
    Plain,
    /// The schemas and roles of a Supabase project.
    SupabaseProject,
}

/// What the clones of a [`Server`] share.
#[derive(Debug)]
pub(crate) struct Inner {
    /// The URL of the database to which the connections for `CREATE DATABASE` are opened.
    pub(crate) url: String,
    /// `None` if the server is that of `DATABASE_URL`.
    pub(crate) cluster: Option<Cluster>,
    /// The layout of each new database.
    layout: Layout,
    /// A Supabase project without the schema of this workspace. New projects are copies of it.
    supabase_template: OnceCell<Database>,
    /// A database with the schema. New migrated databases are copies of it.
    migrated_template: OnceCell<Database>,
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
            Some(url) => Ok(Self::new(url, None, Layout::Plain)),
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
        let cluster = start_cluster(SUPABASE_SUPERUSER, settings).await?;
        let connection = connect(&cluster.url("postgres"), 1).await?;
        let create_postgres_role = format!(
            "CREATE ROLE postgres LOGIN PASSWORD '{}' BYPASSRLS CREATEROLE CREATEDB REPLICATION",
            cluster.password()
        );
        connection.execute_unprepared(&create_postgres_role).await?;
        connection.close().await?;
        Ok(Self::new(cluster.url_for_role("postgres", "postgres"), Some(cluster), Layout::SupabaseProject))
    }

    /// Starts a private cluster whose new databases are empty, even if `DATABASE_URL` is set. `settings` are additional
    /// settings of the server (`name=value`).
    ///
    /// # Errors
    ///
    /// The server binaries are missing, or the server does not start.
    pub async fn start_plain(settings: Option<&[&str]>) -> Result<Self, Error> {
        let cluster = start_cluster("postgres", settings).await?;
        Ok(Self::new(cluster.url("postgres"), Some(cluster), Layout::Plain))
    }

    fn new(url: String, cluster: Option<Cluster>, layout: Layout) -> Self {
        Self {
            inner: Arc::new(Inner {
                url,
                cluster,
                layout,
                supabase_template: OnceCell::new(),
                migrated_template: OnceCell::new(),
            }),
        }
    }

    /// Kills a private server with `kill -9`, and starts it again, so that it recovers from its write-ahead log. Blocks
    /// until the server runs.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or does not start again.
    pub fn crash_and_restart(&self) -> Result<(), Error> {
        self.private_cluster()?.send_command("crash")
    }

    /// Kills a private server with `kill -9`. Its data stays on the disk, for [`Server::start_again`].
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or does not run.
    pub fn kill(&self) -> Result<(), Error> {
        self.private_cluster()?.send_command("kill")
    }

    /// Starts a private server that [`Server::kill`] has killed. Blocks until the server runs.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or does not start.
    pub fn start_again(&self) -> Result<(), Error> {
        self.private_cluster()?.send_command("start")
    }

    /// Starts a standby that streams from this private server. `settings` are additional settings of the standby
    /// (`name=value`). Blocks until the standby runs. The standby is removed when the last clone of the returned value
    /// and the last [`Database`] on the standby have been dropped.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, `pg_basebackup` is missing, or the standby does not start.
    pub fn start_standby(&self, settings: &[&str]) -> Result<Self, Error> {
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let cluster = self.private_cluster()?.start_standby(&Binaries::find_or_fetch()?, &settings)?;
        Ok(Self::new(on_local_server(&self.inner.url, cluster.port())?, Some(cluster), self.inner.layout))
    }

    /// Promotes this standby. Blocks until it accepts writes.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or not a standby.
    pub fn promote(&self) -> Result<(), Error> {
        self.private_cluster()?.send_command("promote")
    }

    /// Makes this standby stream from `primary`, as is necessary when another standby has been promoted.
    ///
    /// # Errors
    ///
    /// One of the servers is not a private cluster, or does not answer.
    pub async fn follow(&self, primary: &Self) -> Result<(), Error> {
        self.alter_system("primary_conninfo", &primary.private_cluster()?.url("postgres")).await
    }

    /// Changes a setting of a private server, and reloads its configuration. A setting that was given on the command
    /// line when the server was started does not change, because the command line takes precedence.
    ///
    /// # Errors
    ///
    /// The server is not a private cluster, or does not answer.
    pub async fn alter_system(&self, setting: &str, value: &str) -> Result<(), Error> {
        let connection = connect(&self.private_cluster()?.url("postgres"), 1).await?;
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
        let url = on_local_server(&database.url, self.private_cluster()?.port())?;
        Ok(Database { url, name: database.name.clone(), server: Some(self.clone()), is_temporary: false })
    }

    fn private_cluster(&self) -> Result<&Cluster, Error> {
        self.inner
            .cluster
            .as_ref()
            .ok_or_else(|| Error::Control("it is not a private cluster; unset DATABASE_URL.".to_owned()))
    }

    /// Returns the URL of the database `postgres` of a private cluster, or else `DATABASE_URL`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// Creates an empty database or, on a server that [`Server::start_supabase`] started, a new Supabase project.
    /// Dropping the returned value drops the database.
    ///
    /// # Errors
    ///
    /// The role lacks the privilege to create databases, or the server is down.
    pub async fn create_unmigrated(&self) -> Result<Database, Error> {
        if self.inner.layout == Layout::Plain {
            return self.create_database(None).await;
        }
        let project = self
            .inner
            .supabase_template
            .get_or_try_init(|| async {
                let mut project = self.create_database(None).await?;
                let connection = connect(&project.superuser_url(), 1).await?;
                connection.execute_unprepared(SUPABASE_PROJECT_SQL).await?;
                connection.close().await?;
                // The server holds the template. If the template also held the server, neither would ever be dropped.
                project.server = None;
                Ok::<_, Error>(project)
            })
            .await?;
        self.create_database(Some(project)).await
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
        if self.inner.cluster.is_none() {
            return self.create_and_migrate().await;
        }
        let template = self
            .inner
            .migrated_template
            .get_or_try_init(|| async {
                let mut template = self.create_and_migrate().await?;
                // The server holds the template. If the template also held the server, neither would ever be dropped.
                template.server = None;
                Ok::<_, Error>(template)
            })
            .await?;
        self.create_database(Some(template)).await
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

    /// Creates an empty database, or a copy of the template.
    async fn create_database(&self, template: Option<&Database>) -> Result<Database, Error> {
        let template_clause = template.map_or_else(String::new, |template| format!(" TEMPLATE {}", template.name));
        let name = format!("sparc_{}", Uuid::new_v4().simple());
        let connection = connect(&self.inner.url, 1).await?;
        connection.execute_unprepared(&format!("CREATE DATABASE {name}{template_clause}")).await?;
        connection.close().await?;
        Ok(Database {
            url: with_database(&self.inner.url, &name),
            name,
            server: Some(self.clone()),
            is_temporary: true,
        })
    }
}

async fn start_cluster(superuser: &'static str, settings: Option<&[&str]>) -> Result<Cluster, Error> {
    let settings: Vec<String> = settings.unwrap_or_default().iter().map(ToString::to_string).collect();
    tokio::task::spawn_blocking(move || Cluster::start(&Binaries::find_or_fetch()?, superuser, &settings))
        .await
        .map_err(|error| Error::Start(error.to_string()))?
}
