//! A connection that is no longer in use: how its transaction ends, and how its database session is cleaned, before the
//! connection returns to its pool.

use sea_orm::{DbErr, sqlx};

use crate::{
    pool::Pool,
    runtime::timeout,
    wire::{
        Connection, PreparedStatementMode, ROLLBACK_TIMEOUT, SimpleQueryResponse, exec_error,
        has_only_the_drivers_prepared_statements,
    },
};

/// A connection that is no longer in use. It returns to its pool once its transaction has ended and its database
/// session is clean. If that fails, if there is no runtime, or if the runtime shuts down first, the connection is
/// closed.
pub(crate) struct ConnectionToRelease<C: Connection> {
    pub(crate) connection: Option<C>,
    pub(crate) ending: Ending,
    /// How the cleaning of the database session treats prepared statements; `None` if there is nothing to clean.
    pub(crate) cleaning_mode: Option<PreparedStatementMode>,
}

/// How the transaction of a [`ConnectionToRelease`] ends.
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

impl<C: Connection> ConnectionToRelease<C> {
    /// Ends the transaction, cleans the database session, and returns the connection to its pool; or closes it.
    pub(crate) async fn return_to_pool(mut self) {
        let Some(connection) = &mut self.connection else { return };
        let (ending, cleaning_mode) = (self.ending, self.cleaning_mode);
        // Returns whether the connection is now idle and clean.
        let end_and_clean = async {
            let server_error = connection.drain().await?;
            if ending == Ending::Sent && server_error.is_some() {
                // The error may be that of an earlier statement, so it is unknown whether the transaction is open.
                return Ok(false);
            }
            let mut sql = match ending {
                Ending::Commit => "COMMIT; ".to_owned(),
                Ending::Rollback => "ROLLBACK; ".to_owned(),
                Ending::Done | Ending::Sent => String::new(),
            };
            // The cleaning is in the same message, because a pooler may give the server connection to another client
            // after the end of the transaction.
            sql.extend(cleaning_mode.map(PreparedStatementMode::clean_session_sql));
            let mut response = SimpleQueryResponse::default();
            if !sql.is_empty() {
                connection.simple_query(sql, &mut response).await?;
            }
            Ok::<_, sqlx::Error>(
                cleaning_mode.is_none_or(|mode| has_only_the_drivers_prepared_statements(connection, &response, mode)),
            )
        };
        if matches!(timeout(ROLLBACK_TIMEOUT, end_and_clean).await, Ok(Ok(true)))
            && let Some(connection) = self.connection.take()
        {
            connection.release();
        }
    }
}

impl<C: Connection> Drop for ConnectionToRelease<C> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.discard();
        }
    }
}

/// Runs a statement that cannot run in a transaction, as the pool's login, and cleans the database session afterwards.
pub(crate) async fn execute_as_login(pool: &Pool, sql: String) -> Result<(), DbErr> {
    let connection = Some(pool.acquire().await?);
    // If the statement fails, or the call is cancelled, the drop of `connection_to_release` closes the connection.
    let cleaning_mode = Some(pool.prepared_statement_mode());
    let mut connection_to_release = ConnectionToRelease { connection, ending: Ending::Done, cleaning_mode };
    if let Some(connection) = &mut connection_to_release.connection {
        connection.simple_query(sql, &mut SimpleQueryResponse::default()).await.map_err(exec_error)?;
    }
    connection_to_release.return_to_pool().await;
    Ok(())
}
