//! An identity as a SeaORM connection: every statement in a short transaction of its own.

use std::{pin::Pin, time::Duration};

use async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    StatementBuilder, StreamTrait, TransactionError, TransactionOptions, TransactionTrait,
};
use uuid::Uuid;

use crate::{
    Identity, RowStream, Transaction, UncheckedTransaction,
    database::Database,
    error::is_connection_lost,
    session::{OUTERMOST, Session},
    transaction::{modes, transaction_trait},
};

/// What makes of a refusal of a caller's statement what the caller is told.
pub(crate) type MapError = fn(&Identity, DbErr) -> DbErr;

/// How often a statement is tried whose connection was lost before its commit.
const MAX_ATTEMPTS: u32 = 3;

/// The database as one identity sees it: made by [`Database::as_identity`], cheap to clone.
///
/// It is a SeaORM connection: finds, inserts, updates, raw statements, loaders, paginators and streams run under row
/// security, each in a short transaction of its own (three round trips). Several together go through
/// [`begin`](TransactionTrait::begin). There is no way from it to the bare connection, nor to another identity.
#[derive(Clone, Debug)]
pub struct IdentityConnection {
    database: Database,
    identity: Identity,
    deadline: Option<Duration>,
}

impl IdentityConnection {
    pub(crate) fn new(database: Database, identity: Identity) -> Self {
        let deadline = database.deadline;
        Self { database, identity, deadline }
    }

    /// Who is asking.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The user in whose name statements run, if the identity has one.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.identity.user_id()
    }

    /// How long a statement may take.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The same identity, with a deadline for each statement, also in a transaction that it begins.
    ///
    /// The server stops what takes longer (`statement_timeout`), and waiting for a connection counts. What did not end in
    /// time is [`Error::DeadlineExceeded`](crate::Error::DeadlineExceeded), and left nothing in the database.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same database as another identity.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    pub(crate) async fn begin_unchecked(
        &self,
        options: TransactionOptions,
        time: Option<Duration>,
    ) -> Result<UncheckedTransaction, DbErr> {
        let pool = self.database.pools.of(self.identity.role());
        let statements = self.database.statements;
        let session = Session::begin(pool, self.identity.clone(), &modes(&options), time, statements).await?;
        Ok(UncheckedTransaction::new(session, OUTERMOST, self.database.pools.clone()))
    }

    async fn begin_checked(&self, options: TransactionOptions) -> Result<Transaction, DbErr> {
        let unchecked = self.begin_unchecked(options, self.deadline).await?;
        Ok(Transaction::new(unchecked, self.database.map_error))
    }
}

transaction_trait!(IdentityConnection, begin_checked);

/// A statement in a transaction of its own. One whose connection was lost before its commit left nothing in the database,
/// and is tried on another.
macro_rules! alone {
    ($self:ident, |$transaction:ident| $run:expr) => {{
        let mut attempt = 1;
        loop {
            let outcome = async {
                let $transaction = $self.begin().await?.for_one_statement();
                let outcome = $run.await?;
                $transaction.commit().await?;
                Ok::<_, DbErr>(outcome)
            };
            match outcome.await {
                Err(error) if is_connection_lost(&error) && attempt < MAX_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }};
}

#[async_trait]
impl ConnectionTrait for IdentityConnection {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        alone!(self, |transaction| transaction.execute_raw(statement.clone()))
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        alone!(self, |transaction| transaction.execute(statement))
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        alone!(self, |transaction| transaction.execute_unprepared(sql))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        alone!(self, |transaction| transaction.query_one_raw(statement.clone()))
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        alone!(self, |transaction| transaction.query_one(statement))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        alone!(self, |transaction| transaction.query_all_raw(statement.clone()))
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        alone!(self, |transaction| transaction.query_all(statement))
    }
}

impl StreamTrait for IdentityConnection {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    /// A stream in a transaction of its own, which is committed after the last row and rolled back where the stream is
    /// dropped before. The deadline is for the whole of it.
    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<RowStream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let transaction = self.begin().await?.for_one_statement();
            let rows = transaction.stream_owned(statement).await?;
            Ok(rows)
        })
    }
}
