//! The servers of a database: one server, or a cluster of a primary and its replicas (`cluster.rs`). In a cluster,
//! `begin.rs` chooses the server on which a transaction begins, and the monitor (`monitor.rs`) checks each server. The
//! monitor's results may be half a second old, so the message that begins a transaction asks the chosen server again.

mod begin;
mod cluster;
mod monitor;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

pub(crate) use begin::Purpose;
pub(crate) use cluster::Cluster;
pub use cluster::{ServerRole, ServerStatus};
use sea_orm::{DbErr, sqlx::postgres::PgConnectOptions};
use tokio::time::timeout;

use crate::{
    Error,
    pool::{Pool, PoolOptions},
    position::ReadRequirementsByIdentity,
    shared_transaction::{DEADLINE_GRACE, SharedTransaction},
    transaction_state::BeginRequest,
};

/// The servers and their pools, by the database role of the identity. Roles that have no separate pools use `shared`.
#[derive(Clone, Debug)]
pub(crate) struct ServersByIdentityRole {
    pub(crate) shared: Servers,
    pub(crate) separate: Arc<BTreeMap<Cow<'static, str>, Servers>>,
}

impl ServersByIdentityRole {
    pub(crate) fn for_role(&self, role: &str) -> &Servers {
        self.separate.get(role).unwrap_or(&self.shared)
    }

    pub(crate) fn has_separate_pool(&self, role: &str) -> bool {
        self.separate.contains_key(role)
    }
}

/// The servers of one database, each with a pool whose connections use the same login (the database user in the URL).
#[derive(Clone, Debug)]
pub(crate) enum Servers {
    /// One server, without replicas: log positions and timelines are not tracked.
    One(Pool),
    /// A primary and its replicas.
    Several(Arc<Cluster>),
}

impl Servers {
    pub(crate) async fn begin(&self, request: &BeginRequest<'_>, purpose: Purpose) -> Result<SharedTransaction, DbErr> {
        let begin = async {
            match self {
                Self::One(pool) => Ok(SharedTransaction::begin(pool, request, None).await?.0),
                Self::Several(cluster) => cluster.begin(request, purpose).await,
            }
        };
        match request.statement_deadline {
            None => begin.await,
            Some(deadline) => timeout(deadline.saturating_add(DEADLINE_GRACE), begin)
                .await
                .unwrap_or_else(|_| Err(Error::DeadlineExceeded.into())),
        }
    }

    /// Returns the pool of the primary, or of the one server.
    pub(crate) fn primary_pool(&self) -> &Pool {
        match self {
            Self::One(pool) => pool,
            Self::Several(cluster) => cluster.primary_pool(),
        }
    }

    /// Checks that the server answers; with replicas, that the primary does.
    pub(crate) async fn ping(&self) -> Result<(), DbErr> {
        self.primary_pool().ping().await
    }

    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::One(_) => None,
            Self::Several(cluster) => Some(cluster),
        }
    }

    /// Closes the pools of all servers at the same time.
    pub(crate) async fn close(&self) -> Result<(), DbErr> {
        match self {
            Self::One(pool) => pool.close().await,
            Self::Several(cluster) => cluster.close().await,
        }
    }
}

impl Cluster {
    /// Connects to the servers, at least one of which must answer, and starts the monitor.
    pub(crate) async fn connect(
        server_options: Vec<PgConnectOptions>,
        pool_options: PoolOptions,
        read_requirements: Arc<ReadRequirementsByIdentity>,
    ) -> Result<Arc<Self>, Error> {
        let cluster = Arc::new(Self::new(server_options, pool_options, read_requirements)?);
        let monitor = monitor::start(&cluster).await?;
        if let Ok(mut slot) = cluster.monitor.lock() {
            *slot = Some(monitor);
        }
        Ok(cluster)
    }
}
