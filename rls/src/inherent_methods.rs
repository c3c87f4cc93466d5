//! Gives [`IdentityConnection`] and [`Transaction`] those inherent methods of SeaORM's own types that an application
//! usually calls: `get_database_backend`, `ping`, `commit`, `rollback`, and those that take asynchronous closures. So
//! code that takes a `DatabaseConnection` or a `DatabaseTransaction`, and calls no other inherent method of it,
//! compiles after only the type's name is replaced, without another import.

use std::fmt::{Debug, Display};

use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, IsolationLevel, TransactionError, TransactionSession,
    TransactionTrait,
};

use crate::{IdentityConnection, Transaction, transaction_trait::commit_or_rollback};

macro_rules! impl_inherent_methods {
    ($target:ty) => {
        impl $target {
            /// Returns [`DbBackend::Postgres`].
            #[must_use]
            pub fn get_database_backend(&self) -> DbBackend {
                ConnectionTrait::get_database_backend(self)
            }

            /// Runs the asynchronous closure in a transaction, which is committed if the closure returns `Ok`, and
            /// rolled back otherwise.
            ///
            /// # Errors
            ///
            /// The error of the closure or of the connection.
            pub async fn transaction_async<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
            where
                F: for<'c> AsyncFnOnce(&'c Transaction) -> Result<T, E> + Send,
                T: Send,
                E: Display + Debug + Send,
            {
                self.transaction_with_config_async(callback, None, None).await
            }

            /// Runs the asynchronous closure in a transaction with an isolation level and an access mode.
            ///
            /// # Errors
            ///
            /// Those of [`transaction_async`](Self::transaction_async).
            pub async fn transaction_with_config_async<F, T, E>(
                &self,
                callback: F,
                isolation_level: Option<IsolationLevel>,
                access_mode: Option<AccessMode>,
            ) -> Result<T, TransactionError<E>>
            where
                F: for<'c> AsyncFnOnce(&'c Transaction) -> Result<T, E> + Send,
                T: Send,
                E: Display + Debug + Send,
            {
                let transaction = self.begin_with_config(isolation_level, access_mode).await?;
                let outcome = callback(&transaction).await;
                commit_or_rollback(transaction, outcome).await
            }
        }
    };
}

impl_inherent_methods!(IdentityConnection);
impl_inherent_methods!(Transaction);

impl IdentityConnection {
    /// Checks that the server (the primary, if there are replicas) answers and that this identity can run statements.
    ///
    /// # Errors
    ///
    /// Those of [`TransactionTrait::begin`].
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.begin().await?.rollback().await
    }
}

impl Transaction {
    /// Commits the transaction, and returns `Ok` only if the server has committed it. The changes of a nested
    /// transaction become changes of the outer one, and are saved only if the outer one is committed.
    ///
    /// # Errors
    ///
    /// [`Error::NestedTransactionOpen`](crate::Error::NestedTransactionOpen),
    /// [`Error::TransactionFailed`](crate::Error::TransactionFailed),
    /// [`Error::TransactionOver`](crate::Error::TransactionOver),
    /// [`Error::IdentityChanged`](crate::Error::IdentityChanged),
    /// [`Error::TransactionEndedByStatement`](crate::Error::TransactionEndedByStatement),
    /// [`Error::DeadlineExceeded`](crate::Error::DeadlineExceeded),
    /// [`Error::ConnectionLost`](crate::Error::ConnectionLost),
    /// [`Error::CommitUnknown`](crate::Error::CommitUnknown), and any error that the database raises at the commit.
    pub async fn commit(self) -> Result<(), DbErr> {
        TransactionSession::commit(self).await
    }

    /// Rolls the transaction back, including the transactions nested in it.
    ///
    /// # Errors
    ///
    /// [`Error::TransactionOver`](crate::Error::TransactionOver) if an outer transaction has ended,
    /// [`Error::TransactionEndedByStatement`](crate::Error::TransactionEndedByStatement) if a statement ended the
    /// transaction, [`Error::CommitUnknown`](crate::Error::CommitUnknown) if it is unknown whether a raw `COMMIT` took
    /// effect; for a nested transaction, also any error of the rollback to its savepoint.
    pub async fn rollback(self) -> Result<(), DbErr> {
        TransactionSession::rollback(self).await
    }
}
