//! A connection of a pool, and how statements are sent over it.

use std::fmt;

use deadpool::managed::Object;
use futures_util::stream::BoxStream;
use sea_orm::sqlx::{
    self, Connection as _, PgConnection, Postgres,
    pool::PoolConnection,
    postgres::{PgQueryResult, PgRow},
};
use tokio::runtime::Handle;

use super::connector::Connector;
use crate::{
    error::breaks_connection,
    server_process::ServerProcess,
    wire::{Connection, PgQuery, SimpleQueryResponse, simple_query},
};

/// A connection that returns to its pool when it is dropped.
pub(crate) enum PooledConnection {
    Managed(Object<Connector>),
    /// A connection, and the runtime in which it was acquired. The driver's pool spawns a task when the connection is
    /// dropped, and the drop may happen outside that runtime.
    External(PoolConnection<Postgres>, Handle),
}

impl PooledConnection {
    pub(crate) fn pg_connection_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Managed(object) => &mut object.pg_connection,
            Self::External(connection, _) => connection,
        }
    }

    fn pg_connection(&self) -> &PgConnection {
        match self {
            Self::Managed(object) => &object.pg_connection,
            Self::External(connection, _) => connection,
        }
    }

    /// Whether the connection was opened for this call. If a new connection fails, another one would too. A pool that
    /// the application already had does not show which of its connections are new; for those, this is `false`.
    pub(crate) fn is_new(&self) -> bool {
        match self {
            Self::Managed(object) => Object::metrics(object).recycled.is_none(),
            Self::External(..) => false,
        }
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PooledConnection")
    }
}

impl Connection for PooledConnection {
    async fn simple_query(&mut self, sql: String, response: &mut SimpleQueryResponse) -> Result<(), sqlx::Error> {
        simple_query(self.pg_connection_mut(), sql, response).await
    }

    async fn execute(&mut self, query: PgQuery) -> Result<PgQueryResult, sqlx::Error> {
        query.execute(self.pg_connection_mut()).await
    }

    type Row = PgRow;

    fn fetch(&mut self, query: PgQuery) -> BoxStream<'_, Result<PgRow, sqlx::Error>> {
        query.fetch(self.pg_connection_mut())
    }

    async fn drain(&mut self) -> Result<Option<sqlx::Error>, sqlx::Error> {
        let pg_connection = self.pg_connection_mut();
        let mut server_error = None;
        loop {
            // `flush` also reads the responses to everything that was sent, up to the first error.
            match pg_connection.flush().await {
                Ok(()) => return Ok(server_error),
                Err(error) if breaks_connection(&error) => return Err(error),
                Err(error) => server_error = Some(error),
            }
        }
    }

    fn cached_statement_count(&self) -> Option<i64> {
        i64::try_from(self.pg_connection().cached_statements_size()).ok()
    }

    async fn clear_cached_statements(&mut self) -> Result<(), sqlx::Error> {
        self.pg_connection_mut().clear_cached_statements().await
    }

    fn server_process(&mut self) -> Option<&mut ServerProcess> {
        match self {
            Self::Managed(object) => Some(&mut object.process),
            Self::External(..) => None,
        }
    }

    fn release(self) {
        if let Self::External(connection, runtime) = self {
            let _entered = runtime.enter();
            drop(connection);
        }
    }

    /// Discards the connection because a cached prepared statement no longer fits its table. The pool will never again
    /// use a connection that was opened before this call. (A pool that the application already had will.)
    fn discard_as_outdated(self) {
        if let Self::Managed(object) = &self
            && let Some(pool) = Object::pool(object)
        {
            pool.manager().server_state.record_schema_change();
        }
        self.discard();
    }

    fn discard(self) {
        match self {
            Self::Managed(object) => drop(Object::take(object)),
            Self::External(connection, runtime) => {
                let _entered = runtime.enter();
                drop(connection.detach());
            }
        }
    }
}
