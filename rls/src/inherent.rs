//! The methods that SeaORM's own connection and transaction have besides its traits, so that code which takes a
//! `DatabaseConnection` or a `DatabaseTransaction` compiles when the type's name is replaced, without another import.

use std::fmt::{Debug, Display};

use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, IsolationLevel, TransactionError, TransactionSession,
    TransactionTrait,
};

use crate::{IdentityConnection, Transaction};

macro_rules! inherent {
    ($caller:ty) => {
        impl $caller {
            /// PostgreSQL.
            #[must_use]
            pub fn get_database_backend(&self) -> DbBackend {
                ConnectionTrait::get_database_backend(self)
            }

            /// Runs the asynchronous closure in a transaction, which is committed if it returns `Ok`, and rolled back
            /// otherwise.
            ///
            /// # Errors
            ///
            /// The closure's, or the connection's.
            pub async fn transaction_async<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
            where
                F: for<'c> AsyncFnOnce(&'c Transaction) -> Result<T, E> + Send,
                T: Send,
                E: Display + Debug + Send,
            {
                self.transaction_with_config_async(callback, None, None).await
            }

            /// The same, with an isolation level and an access mode.
            ///
            /// # Errors
            ///
            /// As [`transaction_async`](Self::transaction_async).
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
                crate::transaction::end(transaction, outcome).await
            }
        }
    };
}

inherent!(IdentityConnection);
inherent!(Transaction);

impl IdentityConnection {
    /// Asks the server for an answer in this identity's name: whether statements of it would run.
    ///
    /// # Errors
    ///
    /// As [`TransactionTrait::begin`].
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.begin().await?.rollback().await
    }
}

impl Transaction {
    /// Commits, or keeps what was done in a nested one. It says `Ok` only for what the server did.
    ///
    /// # Errors
    ///
    /// [`Error::NestedTransactionOpen`](crate::Error::NestedTransactionOpen),
    /// [`Error::TransactionFailed`](crate::Error::TransactionFailed),
    /// [`Error::TransactionOver`](crate::Error::TransactionOver), [`Error::IdentityChanged`](crate::Error::IdentityChanged),
    /// [`Error::TransactionEnded`](crate::Error::TransactionEnded), [`Error::CommitUnknown`](crate::Error::CommitUnknown),
    /// and what the database refuses at a commit.
    pub async fn commit(self) -> Result<(), DbErr> {
        TransactionSession::commit(self).await
    }

    /// Undoes it, and what is nested in it.
    ///
    /// # Errors
    ///
    /// [`Error::TransactionOver`](crate::Error::TransactionOver) where the one around it has ended.
    pub async fn rollback(self) -> Result<(), DbErr> {
        TransactionSession::rollback(self).await
    }
}
