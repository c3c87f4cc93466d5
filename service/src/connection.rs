//! An identity as a SeaORM connection, and the transactions begun from it.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt, stream};
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, IsolationLevel,
    QueryResult, Statement, StatementBuilder, StreamTrait, TransactionError, TransactionOptions, TransactionSession,
    TransactionTrait,
};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    Error,
    identity::{Identity, refuse_escape},
};

/// The database as one identity sees it: made by [`Sparc::as_user`](crate::Sparc::as_user),
/// [`as_anon`](crate::Sparc::as_anon) and [`as_service`](crate::Sparc::as_service), cheap to clone.
///
/// It is a SeaORM connection: finds, inserts, updates, raw statements, loaders, paginators and streams run under row
/// security, each in a short transaction of its own. Several together go through [`begin`](TransactionTrait::begin).
#[derive(Clone, Debug)]
pub struct As {
    db: DatabaseConnection,
    identity: Identity,
}

/// A transaction that carries the identity it was begun with, and has the same operations. Dropped without
/// [`commit`](TransactionSession::commit), it is rolled back.
#[derive(Debug)]
pub struct Transaction {
    inner: DatabaseTransaction,
    identity: Identity,
}

impl As {
    pub(crate) fn new(db: DatabaseConnection, identity: Identity) -> Self {
        Self { db, identity }
    }

    /// The user in whose name statements run; none for a visitor and for the service.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.identity.user()
    }

    async fn wear(&self, inner: DatabaseTransaction) -> Result<Transaction, DbErr> {
        self.identity.wear(&inner).await?;
        Ok(Transaction { inner, identity: self.identity })
    }
}

impl Transaction {
    /// The user in whose name statements run; none for a visitor and for the service.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.identity.user()
    }

    /// Runs one statement as the server, and puts the identity back on: the one door for what a user may do through an
    /// operation but not by plain row access. Each use names its reason.
    ///
    /// A failure needs no putting back: the transaction is over.
    pub(crate) async fn elevated(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        Identity::Service.wear_role(&self.inner).await?;
        let done = self.inner.execute_raw(statement).await?;
        self.identity.wear_role(&self.inner).await?;
        Ok(done)
    }
}

#[async_trait]
impl ConnectionTrait for As {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let transaction = self.begin().await?;
        let done = transaction.execute_raw(statement).await?;
        transaction.commit().await?;
        Ok(done)
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        let transaction = self.begin().await?;
        let done = transaction.execute(statement).await?;
        transaction.commit().await?;
        Ok(done)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let transaction = self.begin().await?;
        let done = transaction.execute_unprepared(sql).await?;
        transaction.commit().await?;
        Ok(done)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let transaction = self.begin().await?;
        let row = transaction.query_one_raw(statement).await?;
        transaction.commit().await?;
        Ok(row)
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        let transaction = self.begin().await?;
        let row = transaction.query_one(statement).await?;
        transaction.commit().await?;
        Ok(row)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let transaction = self.begin().await?;
        let rows = transaction.query_all_raw(statement).await?;
        transaction.commit().await?;
        Ok(rows)
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        let transaction = self.begin().await?;
        let rows = transaction.query_all(statement).await?;
        transaction.commit().await?;
        Ok(rows)
    }
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        refuse_escape(&statement.sql)?;
        self.inner.execute_raw(statement).await
    }

    // What SeaORM builds cannot change the identity, and is not looked through.
    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        self.inner.execute(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        refuse_escape(sql)?;
        self.inner.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        refuse_escape(&statement.sql)?;
        self.inner.query_one_raw(statement).await
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        self.inner.query_one(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        refuse_escape(&statement.sql)?;
        self.inner.query_all_raw(statement).await
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        self.inner.query_all(statement).await
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

impl As {
    async fn begin_as(&self, options: TransactionOptions) -> Result<Transaction, DbErr> {
        let inner = self.db.begin_with_options(options).await?;
        self.wear(inner).await
    }
}

impl Transaction {
    /// A savepoint; the identity is on already.
    async fn begin_nested(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        Ok(Self { inner: self.inner.begin_with_options(options).await?, identity: self.identity })
    }
}

transaction_trait!(As, begin_as);
transaction_trait!(Transaction, begin_nested);

#[async_trait]
impl TransactionSession for Transaction {
    async fn commit(self) -> Result<(), DbErr> {
        self.inner.commit().await
    }

    async fn rollback(self) -> Result<(), DbErr> {
        self.inner.rollback().await
    }
}

/// Rows as they come, from a transaction that lives as long as the stream.
pub type RowStream<'a> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'a>>;

/// Rows that may wait for a slow reader before the server does.
const STREAM_BUFFER: usize = 64;

impl StreamTrait for As {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<RowStream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let transaction = self.begin().await?;
            // A stream that held its own transaction would borrow from itself: a task holds it, and ends with its
            // reader, or with the last row.
            let (rows, read) = mpsc::channel(STREAM_BUFFER);
            tokio::spawn(async move {
                let outcome = async {
                    let mut stream = transaction.stream_raw(statement).await?;
                    while let Some(row) = stream.next().await {
                        if rows.send(Ok(row?)).await.is_err() {
                            return Ok(false);
                        }
                    }
                    Ok::<_, DbErr>(true)
                }
                .await;
                let outcome = match outcome {
                    Ok(true) => transaction.commit().await,
                    Ok(false) => transaction.rollback().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = outcome {
                    // Nobody reads any more: nobody is left to tell.
                    let _ = rows.send(Err(error)).await;
                }
            });
            let rows = stream::unfold(read, |mut read| async {
                let row = read.recv().await?;
                Some((row, read))
            });
            Ok::<RowStream<'a>, DbErr>(Box::pin(rows))
        })
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
            refuse_escape(&statement.sql)?;
            let rows = self.inner.stream_raw(statement).await?;
            Ok::<RowStream<'a>, DbErr>(Box::pin(rows))
        })
    }
}

/// Who has the operations: an identity, which gives each a transaction of its own, and a transaction, which they join.
/// Sealed: there are no others.
pub trait Caller: sealed::Sealed + Send + Sync {}

impl Caller for As {}
impl Caller for Transaction {}

pub(crate) mod sealed {
    use super::{As, Error, Transaction, TransactionTrait};

    /// A transaction to work in.
    #[derive(Debug)]
    pub enum Scope<'a> {
        /// Begun for one operation, ended with it.
        Own(Transaction),
        /// The caller's, who ends it.
        Joined(&'a Transaction),
    }

    pub trait Sealed {
        fn scope(&self) -> impl Future<Output = Result<Scope<'_>, Error>> + Send;
    }

    impl Sealed for As {
        async fn scope(&self) -> Result<Scope<'_>, Error> {
            Ok(Scope::Own(self.begin().await?))
        }
    }

    impl Sealed for Transaction {
        async fn scope(&self) -> Result<Scope<'_>, Error> {
            Ok(Scope::Joined(self))
        }
    }
}
