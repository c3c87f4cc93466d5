//! A database on a [`Server`].

use std::{io, sync::Arc};

use migration::{Migrator, sea_orm_migration::MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};

use crate::{Error, Server, connect, database_url::configured_url};

/// A database, which this crate created or which `DATABASE_URL` names.
#[derive(Debug)]
pub struct Database {
    pub(crate) url: String,
    /// The database's name. Empty for the database of `DATABASE_URL`.
    pub(crate) name: String,
    /// The server of the database. As long as this value exists, a private cluster keeps running. `None` for the
    /// database of `DATABASE_URL`, and for a template, which is removed with its cluster.
    pub(crate) server: Option<Server>,
    /// Whether dropping this value drops the database. This field has no effect if `server` is `None`.
    pub(crate) is_temporary: bool,
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
            Some(url) => Ok(Self { url, name: String::new(), server: None, is_temporary: false }),
            None => Server::start_plain(None).await?.create_unmigrated().await,
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

    /// Returns the URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL with the superuser's login, if the server is a private cluster; otherwise the same as
    /// [`Database::url`].
    #[must_use]
    pub fn superuser_url(&self) -> String {
        match self.server.as_ref().and_then(|server| server.inner.cluster.as_ref()) {
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
        let Some(server) = self.server.take().filter(|_| self.is_temporary) else {
            return;
        };
        // If no other value shares the private cluster, returning drops `server`, which removes the cluster with all
        // its databases.
        if server.inner.cluster.is_some() && Arc::strong_count(&server.inner) == 1 {
            return;
        }
        let drop_statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // On a private cluster the superuser drops the database, because only a superuser may terminate the connections
        // of all roles, as FORCE does.
        let url = server.inner.cluster.as_ref().map_or(server.inner.url.clone(), |cluster| cluster.url("postgres"));
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
