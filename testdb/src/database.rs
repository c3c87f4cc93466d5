//! A database on a running server: how it is created, migrated, connected to and dropped.

use std::{io, sync::Arc};

use migration::{Migrator, sea_orm_migration::MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};
use uuid::Uuid;

use crate::{
    database_url::{configured_url, on_local_server, with_database},
    error::Error,
    instance::Instance,
    pool::connect,
};

/// A database, which this crate created or which `DATABASE_URL` names.
#[derive(Debug)]
pub struct Database {
    url: String,
    /// The database's name. Empty for the database of `DATABASE_URL`.
    name: String,
    /// The server of the database. As long as this value exists, a private cluster keeps running. `None` for the
    /// database of `DATABASE_URL`, and for a template, which is removed with its cluster.
    instance: Option<Arc<Instance>>,
    /// Whether dropping this value drops the database. This field has no effect if `instance` is `None`.
    is_temporary: bool,
}

impl Database {
    /// Returns the database of `DATABASE_URL` as it is, or, if the variable is not set, an empty database on a private
    /// cluster.
    ///
    /// # Errors
    ///
    /// The server binaries are missing, or the server does not start.
    pub async fn open() -> Result<Self, Error> {
        match configured_url() {
            Some(url) => Ok(Self { url, name: String::new(), instance: None, is_temporary: false }),
            None => Self::create(&Arc::new(Instance::start_plain(None).await?), None).await,
        }
    }

    /// Returns the database of [`Database::open`], migrated to the newest schema.
    ///
    /// # Errors
    ///
    /// As for [`Database::open`], or the migration fails.
    pub async fn open_and_migrate() -> Result<Self, Error> {
        let database = Self::open().await?;
        let migration_error = |error: DbErr| Error::Migration(migration::operator_message(&error));
        let connection =
            migration::connect(database.url()).await.map_err(|error| Error::Migration(error.to_string()))?;
        Migrator::up(&connection, None).await.map_err(migration_error)?;
        connection.close().await.map_err(migration_error)?;
        Ok(database)
    }

    /// Creates an empty database on the server, or a copy of the template. Dropping the returned value drops the
    /// database.
    pub(crate) async fn create(instance: &Arc<Instance>, template: Option<&Self>) -> Result<Self, Error> {
        let template_clause = template.map_or_else(String::new, |template| format!(" TEMPLATE {}", template.name));
        let name = format!("sparc_{}", Uuid::new_v4().simple());
        let connection = connect(&instance.url, 1).await?;
        connection.execute_unprepared(&format!("CREATE DATABASE {name}{template_clause}")).await?;
        connection.close().await?;
        let url = with_database(&instance.url, &name);
        Ok(Self { url, name, instance: Some(instance.clone()), is_temporary: true })
    }

    /// Returns the database as a template, which does not keep its private cluster running, and is not dropped before
    /// the cluster is removed.
    pub(crate) fn into_template(mut self) -> Self {
        self.instance = None;
        self
    }

    /// Returns the copy of this database on `standby`, which must be a standby of the database's server.
    pub(crate) fn replica_on(&self, standby: &Arc<Instance>) -> Result<Self, Error> {
        let url = on_local_server(&self.url, standby.private_cluster()?.port())?;
        Ok(Self { url, name: self.name.clone(), instance: Some(standby.clone()), is_temporary: false })
    }

    /// Returns the URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL with the superuser's login, if the server is a private cluster; otherwise the same as
    /// [`Database::url`].
    #[must_use]
    pub fn superuser_url(&self) -> String {
        match self.instance.as_ref().and_then(|instance| instance.cluster.as_ref()) {
            Some(cluster) => cluster.url(&self.name),
            None => self.url.clone(),
        }
    }

    /// Returns a pool of at most `max_connections` connections, which does not log statements.
    ///
    /// # Errors
    ///
    /// The server is down.
    pub async fn connect(&self, max_connections: u32) -> Result<DatabaseConnection, Error> {
        Ok(connect(&self.url, max_connections).await?)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some(instance) = self.instance.take().filter(|_| self.is_temporary) else {
            return;
        };
        // If no other value shares the private cluster, returning drops `instance`, which removes the cluster with all
        // its databases.
        if instance.cluster.is_some() && Arc::strong_count(&instance) == 1 {
            return;
        }
        let drop_statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // On a private cluster the superuser drops the database, because only a superuser may terminate the connections
        // of all roles, as FORCE does.
        let url = instance.cluster.as_ref().map_or(instance.url.clone(), |cluster| cluster.url("postgres"));
        // `drop` is not async, and the caller's runtime may be shutting down. So a new thread, with a runtime of its
        // own, drops the database.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let connection = connect(&url, 1).await.map_err(io::Error::other)?;
                connection.execute_unprepared(&drop_statement).await.map_err(io::Error::other)?;
                connection.close().await.map_err(io::Error::other)
            })
        });
        // An error is ignored. A private cluster is removed with all its databases later. On the server of
        // `DATABASE_URL`, a database that could not be dropped stays.
        let _ = thread.join();
    }
}
