//! Implements SeaORM's [`TransactionTrait`] for [`IdentityConnection`] and [`Transaction`]: `begin`, and the methods
//! that run a closure in a transaction.

use std::pin::Pin;

use async_trait::async_trait;
use sea_orm::{
    AccessMode, DbErr, IsolationLevel, TransactionError, TransactionOptions, TransactionSession, TransactionTrait,
};

use crate::{IdentityConnection, Transaction};

/// Commits the transaction in which a closure has run, or rolls it back if the closure has returned an error.
pub(crate) async fn commit_or_rollback<T, E>(
    transaction: Transaction,
    outcome: Result<T, E>,
) -> Result<T, TransactionError<E>>
where
    E: std::fmt::Display + std::fmt::Debug,
{
    match outcome {
        Ok(value) => {
            TransactionSession::commit(transaction).await?;
            Ok(value)
        }
        Err(error) => {
            // The closure's error is returned, not that of the rollback. A rollback that fails needs no further action:
            // the connection is closed, a statement has already ended the transaction, or the outer transaction can
            // only be rolled back.
            let _ = TransactionSession::rollback(transaction).await;
            Err(TransactionError::Transaction(error))
        }
    }
}

/// Implements [`TransactionTrait`] for a connection or a transaction. `$begin` is its method that begins a transaction.
macro_rules! impl_transaction_trait {
    ($target:ty, $begin:ident) => {
        #[async_trait]
        impl TransactionTrait for $target {
            type Transaction = Transaction;

            async fn begin(&self) -> Result<Transaction, DbErr> {
                self.$begin(TransactionOptions::default()).await
            }

            async fn begin_with_config(
                &self,
                isolation_level: Option<IsolationLevel>,
                access_mode: Option<AccessMode>,
            ) -> Result<Transaction, DbErr> {
                self.$begin(TransactionOptions { isolation_level, access_mode, sqlite_transaction_mode: None }).await
            }

            async fn begin_with_options(&self, options: TransactionOptions) -> Result<Transaction, DbErr> {
                self.$begin(options).await
            }

            async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
            where
                F: for<'c> FnOnce(&'c Transaction) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
                T: Send,
                E: std::fmt::Display + std::fmt::Debug + Send,
            {
                self.transaction_with_config(callback, None, None).await
            }

            async fn transaction_with_config<F, T, E>(
                &self,
                callback: F,
                isolation_level: Option<IsolationLevel>,
                access_mode: Option<AccessMode>,
            ) -> Result<T, TransactionError<E>>
            where
                F: for<'c> FnOnce(&'c Transaction) -> Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>> + Send,
                T: Send,
                E: std::fmt::Display + std::fmt::Debug + Send,
            {
                let transaction = self.begin_with_config(isolation_level, access_mode).await?;
                let outcome = callback(&transaction).await;
                commit_or_rollback(transaction, outcome).await
            }
        }
    };
}

impl_transaction_trait!(IdentityConnection, begin_transaction);
impl_transaction_trait!(Transaction, begin_nested);
