//! Captures the statements that the service sends. PostgreSQL lists the prepared statements of a connection, so they
//! are read on the connection on which the service prepared them.

use sea_orm::DatabaseConnection;
use service::Sparc;
use testdb::{PreparedStatement, prepared_statements};

use crate::Failure;

/// A service on a single connection, whose prepared statements can be read.
pub struct StatementCapture {
    pool: DatabaseConnection,
    /// The service.
    pub sparc: Sparc,
    /// The number of prepared statements that have been returned so far.
    returned_statements: usize,
}

impl StatementCapture {
    /// Creates a service on `pool`, which must have only one connection.
    pub fn new(pool: DatabaseConnection) -> Self {
        Self { sparc: Sparc::from_connection(pool.clone()), pool, returned_statements: 0 }
    }

    /// Closes the connection, so that the server records its pending statistics.
    pub async fn close(self) -> Result<(), Failure> {
        Ok(self.pool.close().await?)
    }

    /// Returns the last statement prepared since the previous call, other than the one that sets the identity.
    pub async fn last_statement(&mut self) -> Result<PreparedStatement, Failure> {
        let all = self.new_statements().await?;
        all.into_iter()
            .rfind(|statement| !statement.sets_identity())
            .ok_or(Failure::Message("no new statement was prepared".into()))
    }

    /// Returns all statements prepared since the previous call.
    pub async fn new_statements(&mut self) -> Result<Vec<PreparedStatement>, Failure> {
        let mut all = prepared_statements(&self.pool).await?;
        let new = all.split_off(self.returned_statements.min(all.len()));
        self.returned_statements += new.len();
        Ok(new)
    }
}
