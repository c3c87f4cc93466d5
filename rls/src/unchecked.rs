//! For a program's own statements.
//!
//! A library that has operations of its own over an identity need not have each of their statements verified: it knows that
//! none of them changes the session or the identity. These traits give it a transaction in which nothing is. They are not
//! methods of the types, so that whoever is given an identity by such a library does not have them by accident.

use std::{any::Any, sync::Arc, time::Duration};

use sea_orm::{DbErr, TransactionOptions};

use crate::{Identity, IdentityConnection, Position, Transaction, UncheckedTransaction};

/// Transactions without verification.
pub trait Unchecked {
    /// Who is asking.
    fn identity(&self) -> &Identity;

    /// The same database as another identity, for what a library does in its own name.
    fn switch_to(&self, identity: Identity) -> IdentityConnection;

    /// What the program keeps beside the database, if it is of that type:
    /// [`Database::with_context`](crate::Database::with_context).
    fn context<T: Any + Send + Sync>(&self) -> Option<Arc<T>>;

    /// Begins a transaction whose statements may take so long each.
    fn begin_unchecked(
        &self,
        options: TransactionOptions,
        time: Option<Duration>,
    ) -> impl Future<Output = Result<UncheckedTransaction, DbErr>> + Send;

    /// The same for what only reads: on a replica that is fresh enough for the identity, where there is one.
    fn begin_read(&self, time: Option<Duration>) -> impl Future<Output = Result<UncheckedTransaction, DbErr>> + Send;

    /// What the identity wrote or read through this handle itself, whatever position it was given.
    fn seen(&self) -> Option<Position>;

    /// What the identity was shown that somebody else had read there for it: what it reads next is not less.
    fn note_seen(&self, position: Position);

    /// Runs, as the pool's login, what cannot run in a transaction.
    fn execute_as_login(&self, sql: String) -> impl Future<Output = Result<(), DbErr>> + Send;
}

impl Unchecked for IdentityConnection {
    fn identity(&self) -> &Identity {
        Self::identity(self)
    }

    fn switch_to(&self, identity: Identity) -> IdentityConnection {
        self.database().as_identity(identity)
    }

    fn context<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.database().context.clone()?.downcast().ok()
    }

    async fn begin_unchecked(
        &self,
        options: TransactionOptions,
        time: Option<Duration>,
    ) -> Result<UncheckedTransaction, DbErr> {
        Self::begin_unchecked(self, options, time).await
    }

    async fn begin_read(&self, time: Option<Duration>) -> Result<UncheckedTransaction, DbErr> {
        Self::begin_read(self, time).await
    }

    fn seen(&self) -> Option<Position> {
        Self::seen(self)
    }

    fn note_seen(&self, position: Position) {
        self.database().note_seen(Self::identity(self), position);
    }

    async fn execute_as_login(&self, sql: String) -> Result<(), DbErr> {
        let database = self.database();
        crate::wire::execute_as_login(database.pools.of(self.identity().role()).primary(), database.statements, sql)
            .await
    }
}

/// A caller's transaction for a program's own statements.
pub trait AsUnchecked {
    /// The same transaction, without verification.
    fn unchecked(&self) -> &UncheckedTransaction;
}

impl AsUnchecked for Transaction {
    fn unchecked(&self) -> &UncheckedTransaction {
        self.inner()
    }
}
