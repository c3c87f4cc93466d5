//! A connection that is no longer in use: how its transaction ends, and how its database session is cleaned, before the
//! connection returns to its pool.

use sea_orm::{DbErr, sqlx};

use crate::{
    pool::Pool,
    runtime::timeout,
    wire::{Answer, Connection, PreparedStatementMode, ROLLBACK_TIMEOUT, exec_error, has_only_driver_statements},
};

/// A connection that is no longer in use. It returns to its pool once its transaction has ended and its database
/// session is clean. If that fails, if there is no runtime, or if the runtime shuts down first, the connection is
/// closed.
pub(crate) struct ReleasedConnection<C: Connection> {
    pub(crate) connection: Option<C>,
    pub(crate) ending: Ending,
    /// How the cleaning of the database session treats prepared statements; `None` if there is nothing to clean.
    pub(crate) cleaning: Option<PreparedStatementMode>,
}

/// How the transaction of a released connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has ended.
    Done,
    /// COMMIT or ROLLBACK was sent and is not yet answered.
    Sent,
    /// It is open and has only read, and is to be committed.
    Commit,
    /// It may be open, and is to be rolled back.
    Rollback,
}

impl<C: Connection> ReleasedConnection<C> {
    /// Ends the transaction, cleans the database session, and returns the connection to its pool; or closes it.
    pub(crate) async fn return_to_pool(mut self) {
        let Some(connection) = &mut self.connection else { return };
        let (ending, cleaning) = (self.ending, self.cleaning);
        // Returns whether the connection is now idle and clean.
        let end_and_clean = async {
            let server_error = connection.drain().await?;
            if ending == Ending::Sent && server_error.is_some() {
                // The error may be that of an earlier statement, so it is unknown whether the transaction is open.
                return Ok(false);
            }
            let mut answer = Answer::default();
            let end_sql = match ending {
                Ending::Commit => Some("COMMIT"),
                Ending::Rollback => Some("ROLLBACK"),
                Ending::Done | Ending::Sent => None,
            };
            if let Some(end_sql) = end_sql {
                connection.simple_query(end_sql.to_owned(), &mut answer).await?;
            }
            let Some(prepared_statement_mode) = cleaning else { return Ok::<_, sqlx::Error>(true) };
            connection.simple_query(prepared_statement_mode.clean_session_sql(), &mut answer).await?;
            Ok(has_only_driver_statements(connection, &answer, prepared_statement_mode))
        };
        if matches!(timeout(ROLLBACK_TIMEOUT, end_and_clean).await, Ok(Ok(true)))
            && let Some(connection) = self.connection.take()
        {
            connection.release();
        }
    }
}

impl<C: Connection> Drop for ReleasedConnection<C> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.discard();
        }
    }
}

/// Runs a statement that cannot run in a transaction, as the pool's login, and cleans the database session afterwards.
pub(crate) async fn execute_as_login(
    pool: &Pool,
    prepared_statement_mode: PreparedStatementMode,
    sql: String,
) -> Result<(), DbErr> {
    let connection = Some(pool.acquire().await?);
    // If the statement fails, or the call is cancelled, the drop of `released` closes the connection.
    let mut released = ReleasedConnection { connection, ending: Ending::Done, cleaning: Some(prepared_statement_mode) };
    if let Some(connection) = &mut released.connection {
        connection.simple_query(sql, &mut Answer::default()).await.map_err(exec_error)?;
    }
    released.return_to_pool().await;
    Ok(())
}
