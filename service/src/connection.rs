//! An identity as a SeaORM connection: every statement in a short transaction of its own.

mod link;
mod pool;
mod transaction;
mod worn;

use std::{pin::Pin, time::Duration};

use async_trait::async_trait;
use futures_util::{Stream, StreamExt, stream};
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    StatementBuilder, StreamTrait, TransactionError, TransactionOptions, TransactionSession, TransactionTrait,
};
use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) use pool::Pool;
pub use transaction::Transaction;
pub(crate) use worn::Worn;

use crate::{Error, identity::Identity};
use transaction::transaction_trait;

/// The database as one identity sees it: made by [`Sparc::as_user`](crate::Sparc::as_user),
/// [`as_anon`](crate::Sparc::as_anon) and [`as_service`](crate::Sparc::as_service), cheap to clone.
///
/// It is a SeaORM connection: finds, inserts, updates, raw statements, loaders, paginators and streams run under row
/// security, each in a short transaction of its own (three round trips; four for a raw statement, after which is looked
/// whether the identity is still the same). Several together go through [`begin`](TransactionTrait::begin).
///
/// There is no way from it to the bare connection, nor to another identity:
///
/// ```compile_fail
/// # fn slip(ada: service::As) {
/// let bare = ada.pool;
/// # }
/// ```
///
/// ```compile_fail
/// # fn slip(mut ada: service::As, sparc: service::Sparc) {
/// ada.identity = sparc.as_service().identity;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct As {
    pool: Pool,
    identity: Identity,
    deadline: Option<Duration>,
    statements: Statements,
}

/// What becomes of the statements that the driver prepares by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Statements {
    /// They are kept on their connection.
    #[default]
    Kept,
    /// Each transaction begins without any: behind a pooler, the connection was somebody else's before.
    Forgotten,
}

impl As {
    pub(crate) fn new(pool: Pool, identity: Identity, deadline: Option<Duration>, statements: Statements) -> Self {
        Self { pool, identity, deadline, statements }
    }

    /// The user in whose name statements run; none for a visitor and for the service.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.identity.user()
    }

    /// The same identity, with so long for each operation and, in a transaction that it begins, for each statement.
    ///
    /// The server stops what takes longer (`statement_timeout`), and waiting for a connection counts. What did not end
    /// in time is [`Error::DeadlineExceeded`], and did nothing.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Runs, as the pool's login, what cannot run in a transaction.
    pub(crate) async fn as_login(&self, sql: String) -> Result<(), DbErr> {
        link::alone(&self.pool, sql).await
    }

    pub(crate) async fn begin_worn(&self, options: TransactionOptions, time: Option<Duration>) -> Result<Worn, DbErr> {
        Worn::begin(&self.pool, options, self.identity, time, self.statements).await
    }

    async fn begin_as(&self, options: TransactionOptions) -> Result<Transaction, DbErr> {
        Ok(Transaction::of(self.begin_worn(options, self.deadline).await?))
    }
}

transaction_trait!(As, begin_as);

/// A statement in a transaction of its own.
macro_rules! alone {
    ($self:ident, $method:ident, $statement:expr) => {{
        let transaction = $self.begin().await?;
        let outcome = transaction.$method($statement).await?;
        transaction.commit().await?;
        Ok(outcome)
    }};
}

#[async_trait]
impl ConnectionTrait for As {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        alone!(self, execute_raw, statement)
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        alone!(self, execute, statement)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        alone!(self, execute_unprepared, sql)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        alone!(self, query_one_raw, statement)
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        alone!(self, query_one, statement)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        alone!(self, query_all_raw, statement)
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        alone!(self, query_all, statement)
    }
}

/// Rows as they come, from a transaction that lives as long as the stream.
pub type RowStream<'a> = Pin<Box<dyn Stream<Item = Result<QueryResult, DbErr>> + Send + 'a>>;

/// What a task sends, as a stream.
fn received<'a>(read: mpsc::Receiver<Result<QueryResult, DbErr>>) -> RowStream<'a> {
    Box::pin(stream::unfold(read, |mut read| async {
        let row = read.recv().await?;
        Some((row, read))
    }))
}

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
            Ok(received(read))
        })
    }
}

/// Who has the operations: an identity, which gives each a transaction of its own, and a transaction, which they join.
/// Sealed: there are no others.
pub trait Caller: sealed::Sealed + Send + Sync {}

impl Caller for As {}
impl Caller for Transaction {}

pub(crate) mod sealed {
    use super::{As, Duration, Error, Identity, Transaction, TransactionOptions, Worn};

    /// A transaction to work in.
    #[derive(Debug)]
    pub enum Scope<'a> {
        /// Begun for one operation, ended with it.
        Own(Worn),
        /// The caller's, who ends it.
        Joined(&'a Transaction),
    }

    pub trait Sealed {
        fn identity(&self) -> Identity;

        /// How long an operation may take as a whole.
        fn deadline(&self) -> Option<Duration>;

        /// A transaction whose statements may take so long each.
        fn scope(&self, time: Option<Duration>) -> impl Future<Output = Result<Scope<'_>, Error>> + Send;
    }

    impl Sealed for As {
        fn identity(&self) -> Identity {
            self.identity
        }

        fn deadline(&self) -> Option<Duration> {
            self.deadline
        }

        async fn scope(&self, time: Option<Duration>) -> Result<Scope<'_>, Error> {
            Ok(Scope::Own(self.begin_worn(TransactionOptions::default(), time).await?))
        }
    }

    impl Sealed for Transaction {
        fn identity(&self) -> Identity {
            self.worn().identity()
        }

        // Its statements have theirs since it began.
        fn deadline(&self) -> Option<Duration> {
            None
        }

        async fn scope(&self, _: Option<Duration>) -> Result<Scope<'_>, Error> {
            self.verify().await?;
            Ok(Scope::Joined(self))
        }
    }
}
