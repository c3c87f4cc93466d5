//! Transactions for a library's own statements.
//!
//! In the transactions of this module, the identity is never verified after a statement. They are for a library with
//! operations of its own, which knows that none of its statements changes the database session or the identity. The
//! methods are in traits, so that a user of such a library does not call them by accident.

use std::{any::Any, sync::Arc, time::Duration};

use sea_orm::{DbErr, TransactionOptions};

use crate::{Identity, IdentityConnection, LogPosition, Transaction, UnguardedTransaction};

/// Transactions without verification, and what else a library needs for its own statements.
pub trait UnguardedExt {
    /// Returns the identity.
    fn identity(&self) -> &Identity;

    /// Returns a connection to the same database for another identity, for what a library does on its own behalf.
    fn as_identity(&self, identity: Identity) -> IdentityConnection;

    /// Returns the value that was given to [`Database::with_context`](crate::Database::with_context); `None` if there
    /// is none, or its type is not `T`.
    fn context<T: Any + Send + Sync>(&self) -> Option<Arc<T>>;

    /// Begins a transaction in which the identity is not verified after each statement. The deadline applies to each
    /// statement, as in [`with_deadline`](IdentityConnection::with_deadline). It replaces the connection's own
    /// deadline; with `None`, there is no deadline.
    fn begin_unguarded(
        &self,
        options: TransactionOptions,
        deadline: Option<Duration>,
    ) -> impl Future<Output = Result<UnguardedTransaction, DbErr>> + Send;

    /// Begins a `READ ONLY` transaction, on a replica that is fresh enough for the identity, or else on the primary.
    /// The deadline applies as in [`begin_unguarded`](Self::begin_unguarded). Without replicas, the transaction's
    /// commit and rollback normally return before the server has answered, but not if the transaction is `SERIALIZABLE`
    /// by the database's default.
    fn begin_read(
        &self,
        deadline: Option<Duration>,
    ) -> impl Future<Output = Result<UnguardedTransaction, DbErr>> + Send;

    /// Returns the log position of what the identity wrote or read through this connection's
    /// [`Database`](crate::Database) and its clones, including what was
    /// [recorded](Self::record_seen_log_position) for it; `None` without replicas. A position that was given to
    /// [`with_min_position`](IdentityConnection::with_min_position) is not considered.
    fn seen_log_position(&self) -> Option<LogPosition>;

    /// Records the log position of what another identity read on behalf of this one. The next read of this identity
    /// then shows at least as much.
    fn record_seen_log_position(&self, position: LogPosition);

    /// Runs a statement that cannot run in a transaction, such as `VACUUM`, as the login of the identity's pool, and
    /// without a deadline.
    fn execute_as_login(&self, sql: String) -> impl Future<Output = Result<(), DbErr>> + Send;
}

impl UnguardedExt for IdentityConnection {
    fn identity(&self) -> &Identity {
        Self::identity(self)
    }

    fn as_identity(&self, identity: Identity) -> IdentityConnection {
        self.database().as_identity(identity)
    }

    fn context<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.database().context.clone()?.downcast().ok()
    }

    async fn begin_unguarded(
        &self,
        options: TransactionOptions,
        deadline: Option<Duration>,
    ) -> Result<UnguardedTransaction, DbErr> {
        Self::begin_unguarded(self, options, deadline).await
    }

    async fn begin_read(&self, deadline: Option<Duration>) -> Result<UnguardedTransaction, DbErr> {
        Self::begin_read(self, deadline).await
    }

    fn seen_log_position(&self) -> Option<LogPosition> {
        Self::seen_log_position(self)
    }

    fn record_seen_log_position(&self, position: LogPosition) {
        self.database().record_seen_log_position(Self::identity(self), position);
    }

    async fn execute_as_login(&self, sql: String) -> Result<(), DbErr> {
        let database = self.database();
        crate::connection_to_release::execute_as_login(
            database.servers_by_identity_role.for_role(self.identity().role()).primary_pool(),
            sql,
        )
        .await
    }
}

/// Lets a library run its own statements in a caller's transaction, without verifying the identity after them.
pub trait AsUnguarded {
    /// Returns the same transaction, in the form in which the identity is not verified after a statement.
    fn unguarded(&self) -> &UnguardedTransaction;
}

impl AsUnguarded for Transaction {
    fn unguarded(&self) -> &UnguardedTransaction {
        self.unguarded_transaction()
    }
}
