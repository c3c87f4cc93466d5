//! An identity as a SeaORM connection: each statement runs in a short transaction of its own.

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

/// Maps an error of a caller's statement to the error that the caller gets.
pub(crate) type MapError = fn(&Identity, DbErr) -> DbErr;

/// How often a statement is attempted if its connection is lost before the commit.
const MAX_ATTEMPTS: u32 = 3;

/// The database as one identity sees it. [`Database::as_identity`] creates it; it is cheap to clone.
///
/// It is a SeaORM connection: finds, inserts, updates, raw statements, loaders, paginators and streams run under
/// row-level security, each in a short transaction of its own (three round trips). To run several statements in one
/// transaction, use [`begin`](TransactionTrait::begin). It gives no access to the bare connection or to another
/// identity.
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

    /// Returns the identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the id of the user whose identity this is, if it has one.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.identity.user_id()
    }

    /// Returns the deadline of each statement.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Returns the same identity with a deadline for each statement, including those in transactions that it begins.
    ///
    /// The server cancels a statement that takes longer (`statement_timeout`). Waiting for a connection counts. A
    /// statement that misses its deadline returns [`Error::DeadlineExceeded`](crate::Error::DeadlineExceeded) and
    /// leaves nothing in the database.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The database behind this identity, for connections as another one.
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

/// Runs a statement in a transaction of its own. If the connection is lost before the commit, nothing is in the
/// database, and the statement is retried on another connection.
macro_rules! in_own_transaction {
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
        in_own_transaction!(self, |transaction| transaction.execute_raw(statement.clone()))
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        in_own_transaction!(self, |transaction| transaction.execute(statement))
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        in_own_transaction!(self, |transaction| transaction.execute_unprepared(sql))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        in_own_transaction!(self, |transaction| transaction.query_one_raw(statement.clone()))
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        in_own_transaction!(self, |transaction| transaction.query_one(statement))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        in_own_transaction!(self, |transaction| transaction.query_all_raw(statement.clone()))
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        in_own_transaction!(self, |transaction| transaction.query_all(statement))
    }
}

impl StreamTrait for IdentityConnection {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    /// Streams rows in a transaction of its own, which is committed after the last row and rolled back if the stream is
    /// dropped earlier. The deadline applies to the whole stream.
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
