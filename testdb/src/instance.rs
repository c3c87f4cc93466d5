//! A running PostgreSQL server as its databases need it: with its URL and, if it is private, its cluster.

use sea_orm::ConnectionTrait;

use crate::{binaries::Binaries, cluster::Cluster, database_url::on_local_server, error::Error, pool::connect};

/// The superuser of a cluster of Supabase projects.
const SUPABASE_SUPERUSER: &str = "supabase_admin";

/// A running PostgreSQL server. A private cluster stops when this value is dropped.
#[derive(Debug)]
pub(crate) struct Instance {
    /// The URL of the database to which the connections for `CREATE DATABASE` are opened.
    pub(crate) url: String,
    /// `None` if the server is that of `DATABASE_URL`.
    pub(crate) cluster: Option<Cluster>,
}

impl Instance {
    /// Starts a private cluster whose superuser is `postgres`. `settings` are additional settings (`name=value`).
    pub(crate) async fn start_plain(settings: Option<&[&str]>) -> Result<Self, Error> {
        let cluster = start_cluster("postgres", settings).await?;
        Ok(Self { url: cluster.url("postgres"), cluster: Some(cluster) })
    }

    /// Starts a private cluster with the superuser of Supabase, and with a role `postgres` that is not a superuser.
    /// `settings` are additional settings (`name=value`).
    pub(crate) async fn start_supabase(settings: Option<&[&str]>) -> Result<Self, Error> {
        let cluster = start_cluster(SUPABASE_SUPERUSER, settings).await?;
        let connection = connect(&cluster.url("postgres"), 1).await?;
        let create_postgres_role = format!(
            "CREATE ROLE postgres LOGIN PASSWORD '{}' BYPASSRLS CREATEROLE CREATEDB REPLICATION",
            cluster.password()
        );
        connection.execute_unprepared(&create_postgres_role).await?;
        connection.close().await?;
        Ok(Self { url: cluster.url_for_role("postgres", "postgres"), cluster: Some(cluster) })
    }

    /// Starts a standby that streams from this private cluster. `settings` are additional settings of the standby
    /// (`name=value`).
    pub(crate) fn start_standby(&self, settings: &[&str]) -> Result<Self, Error> {
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let cluster = self.private_cluster()?.start_standby(&Binaries::find_or_fetch()?, &settings)?;
        Ok(Self { url: on_local_server(&self.url, cluster.port())?, cluster: Some(cluster) })
    }

    /// Returns the private cluster. Fails if the server is that of `DATABASE_URL`.
    pub(crate) fn private_cluster(&self) -> Result<&Cluster, Error> {
        self.cluster
            .as_ref()
            .ok_or_else(|| Error::Control("it is not a private cluster; unset DATABASE_URL.".to_owned()))
    }
}

async fn start_cluster(superuser: &'static str, settings: Option<&[&str]>) -> Result<Cluster, Error> {
    let settings: Vec<String> = settings.unwrap_or_default().iter().map(ToString::to_string).collect();
    tokio::task::spawn_blocking(move || Cluster::start(&Binaries::find_or_fetch()?, superuser, &settings))
        .await
        .map_err(|error| Error::Start(error.to_string()))?
}
