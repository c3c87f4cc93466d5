//! A transaction of a caller's, begun from an identity.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    StatementBuilder, StreamTrait, TransactionError, TransactionOptions, TransactionSession, TransactionTrait,
};
use uuid::Uuid;

use super::{RowStream, Worn};
use crate::{
    error::name_closed_columns,
    identity::{Identity, refuse_escape},
};

/// A transaction that carries the identity it was begun with, and has the same operations. Dropped without
/// [`commit`](TransactionSession::commit), it is rolled back.
///
/// A statement that would change the identity, or end the transaction, is refused before it is sent. What gets past
/// that look (a function that changes the role, say) is found before the next operation and before the commit, which
/// then fail with code `identity_changed`; nothing is committed. Nor is anything after a statement that failed.
#[derive(Debug)]
pub struct Transaction {
    worn: Worn,
    /// Whether something ran since the last look that may have changed the identity, or failed.
    unverified: AtomicBool,
}

impl Transaction {
    pub(super) fn of(worn: Worn) -> Self {
        Self { worn, unverified: AtomicBool::new(false) }
    }

    /// The user in whose name statements run; none for a visitor and for the service.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.worn.identity().user()
    }

    pub(crate) fn worn(&self) -> &Worn {
        &self.worn
    }

    /// Looks whether the identity is still the one that was put on, where there is reason to.
    pub(super) async fn verify(&self) -> Result<(), DbErr> {
        if self.unverified.load(Ordering::Relaxed) {
            self.worn.identity().verify(&self.worn).await?;
            self.unverified.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Something failed: PostgreSQL may have given the whole transaction up.
    pub(crate) fn doubt(&self) {
        self.unverified.store(true, Ordering::Relaxed);
    }

    /// Before a statement whose text is the caller's.
    fn look_through(&self, sql: &str) -> Result<(), DbErr> {
        refuse_escape(sql)?;
        self.doubt();
        Ok(())
    }

    /// A statement that SeaORM builds cannot change the identity but by an expression of the caller's in it.
    fn build<S: StatementBuilder>(&self, statement: &S) -> Result<Statement, DbErr> {
        let statement = DbBackend::Postgres.build(statement);
        refuse_escape(&statement.sql)?;
        Ok(statement)
    }

    fn told<T>(&self, outcome: Result<T, DbErr>) -> Result<T, DbErr> {
        outcome.map_err(|error| {
            self.doubt();
            match self.worn.identity() {
                Identity::User(_) => name_closed_columns(error),
                Identity::Anon | Identity::Service => error,
            }
        })
    }

    async fn begin_nested(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        self.verify().await?;
        Ok(Self::of(self.worn.nested(options).await?))
    }
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.look_through(&statement.sql)?;
        self.told(self.worn.execute_raw(statement).await)
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        let statement = self.build(statement)?;
        self.told(self.worn.execute_raw(statement).await)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.look_through(sql)?;
        self.told(self.worn.execute_unprepared(sql).await)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.look_through(&statement.sql)?;
        self.told(self.worn.query_one_raw(statement).await)
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        let statement = self.build(statement)?;
        self.told(self.worn.query_one_raw(statement).await)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.look_through(&statement.sql)?;
        self.told(self.worn.query_all_raw(statement).await)
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        let statement = self.build(statement)?;
        self.told(self.worn.query_all_raw(statement).await)
    }
}

impl StreamTrait for Transaction {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<RowStream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            self.look_through(&statement.sql)?;
            self.told(self.worn.stream(statement).await)
        })
    }
}

#[async_trait]
impl TransactionSession for Transaction {
    async fn commit(self) -> Result<(), DbErr> {
        // PostgreSQL answers the commit of a failed transaction with a rollback, which the driver takes for success.
        if let Err(error) = self.verify().await {
            let _ = self.worn.rollback().await;
            return Err(error);
        }
        self.worn.commit().await
    }

    async fn rollback(self) -> Result<(), DbErr> {
        self.worn.rollback().await
    }
}

/// The two ways to begin, and the closures over them, are the same for a connection and a transaction.
macro_rules! transaction_trait {
    ($caller:ty, $begin_inner:ident) => {
        #[async_trait]
        impl TransactionTrait for $caller {
            type Transaction = Transaction;

            async fn begin(&self) -> Result<Transaction, DbErr> {
                self.$begin_inner(TransactionOptions::default()).await
            }

            async fn begin_with_config(
                &self,
                isolation_level: Option<IsolationLevel>,
                access_mode: Option<AccessMode>,
            ) -> Result<Transaction, DbErr> {
                self.$begin_inner(TransactionOptions { isolation_level, access_mode, sqlite_transaction_mode: None })
                    .await
            }

            async fn begin_with_options(&self, options: TransactionOptions) -> Result<Transaction, DbErr> {
                self.$begin_inner(options).await
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
                match callback(&transaction).await {
                    Ok(value) => {
                        transaction.commit().await?;
                        Ok(value)
                    }
                    Err(error) => {
                        transaction.rollback().await?;
                        Err(TransactionError::Transaction(error))
                    }
                }
            }
        }
    };
}

pub(super) use transaction_trait;

transaction_trait!(Transaction, begin_nested);
