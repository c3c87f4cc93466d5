//! Captures the statements that the service prepares. `pg_prepared_statements` lists only the statements of the
//! connection that reads it, so it is read on the service's own connection.

use sea_orm::{ConnectionTrait, DatabaseConnection};
use service::Sparc;
use testdb::{PreparedStatement, prepared_statements};

use crate::failure::Failure;

/// A handle of the service on a single connection, whose prepared statements can be read.
pub struct StatementCapture {
    pool: DatabaseConnection,
    /// The handle whose statements are captured.
    pub sparc: Sparc,
    /// The number of prepared statements that [`new_statements`](Self::new_statements) has returned so far.
    returned_count: usize,
}

impl StatementCapture {
    /// Creates a handle on `pool`, which must have only one connection.
    pub fn new(pool: DatabaseConnection) -> Self {
        Self { sparc: Sparc::from_connection(pool.clone()), pool, returned_count: 0 }
    }

    /// Closes the connection. Before that, makes the server flush the connection's pending statistics (such as index
    /// scans), so that no later measurement counts them.
    pub async fn close(self) -> Result<(), Failure> {
        // The server flushes them before it answers this statement. Otherwise it would flush them only while it ends
        // the connection, and the client does not wait for that.
        self.pool.execute_unprepared("SELECT pg_stat_force_next_flush()").await?;
        Ok(self.pool.close().await?)
    }

    /// Returns the last of the [new statements](Self::new_statements) that does more than change the role.
    pub async fn last_new_statement(&mut self) -> Result<PreparedStatement, Failure> {
        let new = self.new_statements().await?;
        new.into_iter()
            .rfind(|statement| !statement.changes_only_role())
            .ok_or(Failure::Message("no new statement was prepared".into()))
    }

    /// Returns all statements that were prepared since the previous call of this method or of
    /// [`last_new_statement`](Self::last_new_statement).
    pub async fn new_statements(&mut self) -> Result<Vec<PreparedStatement>, Failure> {
        let mut all = prepared_statements(&self.pool).await?;
        let new = all.split_off(self.returned_count.min(all.len()));
        self.returned_count += new.len();
        Ok(new)
    }
}
