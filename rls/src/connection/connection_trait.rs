//! Implements SeaORM's [`ConnectionTrait`] and [`StreamTrait`] for [`IdentityConnection`]: each statement runs in a
//! transaction of its own.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement, StatementBuilder, StreamTrait};

use super::{IdentityConnection, attempts::Attempts};
use crate::{RowStream, statement_kind::may_run_read_only};

impl IdentityConnection {
    /// Maps the error of a caller's statement.
    fn map_error(&self, error: DbErr) -> DbErr {
        (self.database.map_error)(&self.identity, error)
    }

    /// Whether raw SQL may run on a replica. Without replicas, raw SQL always runs in a transaction that may write.
    fn may_run_raw_on_replica(&self, statement: &Statement) -> bool {
        self.has_replicas() && may_run_read_only(&statement.sql)
    }
}

/// Runs a statement in a transaction of its own, and returns from the calling method. If an attempt fails for a reason
/// that [`Attempts::decide_retry`] accepts, such as a connection lost before the commit, the statement is retried in a
/// new transaction.
macro_rules! run_in_own_transaction {
    ($self:ident, runs_read_only = $runs_read_only:expr, |$transaction:ident| $run:expr) => {{
        let mut attempts = Attempts::new($self, $runs_read_only);
        loop {
            let mut is_statement_error = false;
            let run = async {
                let $transaction = attempts.begin().await?;
                let outcome = $run.await;
                is_statement_error = outcome.is_err();
                let outcome = outcome?;
                $transaction.commit().await?;
                Ok::<_, DbErr>(outcome)
            };
            match run.await {
                Err(error) if attempts.decide_retry(&error) => {}
                Err(error) if is_statement_error => return Err($self.map_error(error)),
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
        run_in_own_transaction!(self, runs_read_only = false, |transaction| transaction.execute_raw(statement.clone()))
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        run_in_own_transaction!(self, runs_read_only = false, |transaction| transaction.execute(statement))
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        run_in_own_transaction!(self, runs_read_only = false, |transaction| transaction.execute_unprepared(sql))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        run_in_own_transaction!(self, runs_read_only = self.may_run_raw_on_replica(&statement), |transaction| {
            transaction.query_one_raw(statement.clone())
        })
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        let statement = DbBackend::Postgres.build(statement);
        run_in_own_transaction!(self, runs_read_only = may_run_read_only(&statement.sql), |transaction| transaction
            .query_one_built(statement.clone()))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        run_in_own_transaction!(self, runs_read_only = self.may_run_raw_on_replica(&statement), |transaction| {
            transaction.query_all_raw(statement.clone())
        })
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        let statement = DbBackend::Postgres.build(statement);
        run_in_own_transaction!(self, runs_read_only = may_run_read_only(&statement.sql), |transaction| transaction
            .query_all_built(statement.clone()))
    }
}

impl StreamTrait for IdentityConnection {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    /// Streams the rows of a statement in a transaction of its own, which is committed after the last row. What the
    /// statement wrote is rolled back if the stream is dropped before its last row was read. The deadline applies to
    /// the whole stream. A statement that fails before its first row is retried like any other.
    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<RowStream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let mut attempts = Attempts::new(self, self.may_run_raw_on_replica(&statement));
            loop {
                let mut has_begun = false;
                let begin_and_stream = async {
                    let transaction = attempts.begin().await?;
                    has_begun = true;
                    transaction.stream_and_commit(statement.clone()).await
                };
                match begin_and_stream.await {
                    Err(error) if attempts.decide_retry(&error) => {}
                    Err(error) if has_begun => return Err(self.map_error(error)),
                    Err(error) => return Err(error),
                    Ok(rows) => {
                        let rows: RowStream<'a> = Box::pin(rows.map_err(|error| self.map_error(error)));
                        return Ok(rows);
                    }
                }
            }
        })
    }
}
