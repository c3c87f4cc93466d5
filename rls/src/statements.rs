//! Runs statements in a frame (the transaction, or a savepoint in it). After statements that contain SQL of the caller,
//! the identity is verified.

use sea_orm::{
    DbErr, ExecResult, Statement,
    sqlx::postgres::{PgQueryResult, PgRow},
};

use crate::{
    runtime::{AtomicBool, Ordering},
    shared_transaction::{Call, SharedTransaction, Verification},
    statement_kind::{WriteKind, returns_written_rows, write_kind},
    wire::{Connection, check_values, driver_query, exec_error, query_error},
};

/// Runs one statement in a frame, with exclusive access to the connection. `$verification` says when the identity is
/// verified.
macro_rules! run_statement {
    (
        $shared:expr, $frame_id:expr, $statement:expr, $verification:expr, $to_db_err:ident,
        |$query:ident, $connection:ident| $run:expr
    ) => {{
        let statement: StatementToRun = $statement;
        check_values(&statement.statement)?;
        // Whether the statement may commit the transaction. If so, the outcome of the transaction is unknown at the
        // deadline.
        let may_be_raw_commit = AtomicBool::new(false);
        let run = async {
            let mut call = $shared.begin_call($frame_id).await?;
            let write_kind = write_kind(&statement.statement.sql);
            let returns_written_rows = returns_written_rows(&statement.statement.sql);
            if write_kind != WriteKind::None {
                $shared.count_write();
            }
            if $verification != Verification::Skipped {
                call.expect_session_changes();
                may_be_raw_commit.store(call.record_if_raw_commit(&statement.statement), Ordering::SeqCst);
            }
            let $query = driver_query(statement.statement, statement.is_cacheable);
            let $connection = call.connection()?;
            let outcome = $run.await;
            let result = call.record_outcome_for_caller(outcome, $to_db_err)?;
            if write_kind == WriteKind::Rows && result.affected_no_row(returns_written_rows) {
                $shared.uncount_write();
            }
            if $verification == Verification::Immediate {
                call.verify().await?;
            }
            Ok(result)
        };
        $shared.within_deadline_of_statement(&may_be_raw_commit, run).await
    }};
}

/// A statement, and whether the driver may cache it as a prepared statement.
pub(crate) struct StatementToRun {
    pub(crate) statement: Statement,
    pub(crate) is_cacheable: bool,
}

impl From<Statement> for StatementToRun {
    fn from(statement: Statement) -> Self {
        Self { statement, is_cacheable: true }
    }
}

/// The result of a statement, which may show that the statement has affected no row.
trait StatementResult {
    /// Whether the result shows that no row was affected. `returns_written_rows` is whether the statement returns each
    /// row that it affects.
    fn affected_no_row(&self, returns_written_rows: bool) -> bool;
}

impl StatementResult for PgQueryResult {
    fn affected_no_row(&self, _returns_written_rows: bool) -> bool {
        self.rows_affected() == 0
    }
}

impl StatementResult for Option<PgRow> {
    fn affected_no_row(&self, returns_written_rows: bool) -> bool {
        returns_written_rows && self.is_none()
    }
}

impl StatementResult for Vec<PgRow> {
    fn affected_no_row(&self, returns_written_rows: bool) -> bool {
        returns_written_rows && self.is_empty()
    }
}

impl<C: Connection> SharedTransaction<C> {
    pub(crate) async fn execute(
        &self,
        frame_id: u64,
        statement: impl Into<StatementToRun>,
        verification: Verification,
    ) -> Result<ExecResult, DbErr> {
        run_statement!(self, frame_id, statement.into(), verification, exec_error, |query, connection| connection
            .execute(query))
        .map(Into::into)
    }

    /// Runs one statement in another role and restores the role, with exclusive access to the connection. Of the two
    /// `set_role_statements`, the first sets the other role, and the second restores the identity's role. After a
    /// failure the role need not be restored: the frame can only be rolled back, which restores the role.
    pub(crate) async fn execute_as_role(
        &self,
        frame_id: u64,
        set_role_statements: [Statement; 2],
        statement: Statement,
    ) -> Result<ExecResult, DbErr> {
        check_values(&statement)?;
        let [set_role, restore_role] = set_role_statements;
        let run = async {
            let mut call = self.begin_call(frame_id).await?;
            self.count_write();
            call.execute(set_role).await?;
            let result = call.execute(statement).await?;
            call.execute(restore_role).await?;
            call.complete();
            Ok(result)
        };
        self.within_deadline(run).await
    }
}

impl SharedTransaction {
    pub(crate) async fn fetch_optional(
        &self,
        frame_id: u64,
        statement: Statement,
        verification: Verification,
    ) -> Result<Option<PgRow>, DbErr> {
        run_statement!(self, frame_id, statement.into(), verification, query_error, |query, connection| query
            .fetch_optional(connection.pg_connection_mut()))
    }

    pub(crate) async fn fetch_all(
        &self,
        frame_id: u64,
        statement: Statement,
        verification: Verification,
    ) -> Result<Vec<PgRow>, DbErr> {
        run_statement!(self, frame_id, statement.into(), verification, query_error, |query, connection| query
            .fetch_all(connection.pg_connection_mut()))
    }
}

impl<C: Connection> Call<C> {
    /// Runs one of several statements of a call. The call remains in progress until [`complete`](Call::complete).
    async fn execute(&mut self, statement: Statement) -> Result<ExecResult, DbErr> {
        let outcome = self.connection()?.execute(driver_query(statement, true)).await;
        match self.record_outcome(outcome) {
            Ok(result) => {
                self.expect_more_statements();
                Ok(result.into())
            }
            Err(error) => {
                // `record_outcome` does not mark the frame as failed after every kind of error. Here it must be marked
                // in any case, because the remaining statements of the call do not run.
                self.mark_failed();
                Err(exec_error(error))
            }
        }
    }
}
