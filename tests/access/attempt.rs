//! Attempts a statement, and tells what came of it.

use sea_orm::ConnectionTrait;

use crate::world::{SqlCaller, into_sql_error};

/// The outcome of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A row was read or written.
    Done,
    /// A missing privilege, a policy, a trigger or a function refused the attempt with SQLSTATE
    /// `insufficient_privilege`, or the statement matched no row: row security hid the row, or the caller has no such
    /// row (the service, for example, has no seat).
    NoAccess,
    /// A rule of the game refused the attempt, with one of the schema's own errors or a constraint violation.
    RefusedByRule,
}

/// Runs the statement, rolls it back, and returns the outcome.
pub async fn dry_run(caller: &SqlCaller, sql: &str) -> Outcome {
    let transaction = caller.begin().await;
    let outcome = match transaction.execute_unprepared(sql).await.map_err(into_sql_error) {
        Ok(result) if result.rows_affected() > 0 => Outcome::Done,
        Ok(_) => Outcome::NoAccess,
        Err(error) if error.is_insufficient_privilege() => Outcome::NoAccess,
        Err(error) => {
            // Only the schema's own errors (SP) and integrity constraint violations (23) are expected.
            assert!(error.sqlstate.starts_with("SP") || error.sqlstate.starts_with("23"), "{error:?}: {sql}");
            Outcome::RefusedByRule
        }
    };
    transaction.rollback().await.unwrap();
    outcome
}
