//! The statements that the service sends, taken from the connection on which it prepared them.

use sea_orm::DatabaseConnection;
use service::Sparc;
use testdb::{Prepared, prepared};

use crate::Failure;

/// A service over one connection that is looked at.
pub struct Capturing {
    pool: DatabaseConnection,
    /// The service.
    pub sparc: Sparc,
    known: usize,
}

impl Capturing {
    /// Over a pool of one connection.
    pub fn of(pool: DatabaseConnection) -> Self {
        Self { sparc: Sparc::from_connection(pool.clone()), pool, known: 0 }
    }

    /// Ends the connection, and with it what it has not told the server's statistics yet.
    pub async fn close(self) -> Result<(), Failure> {
        Ok(self.pool.close().await?)
    }

    /// The statement that the last operation prepared.
    pub async fn newest(&mut self) -> Result<Prepared, Failure> {
        let all = self.since().await?;
        all.into_iter()
            .rfind(|statement| !statement.is_identity())
            .ok_or(Failure::Said("nothing new was prepared".into()))
    }

    /// All that were prepared since the last look.
    pub async fn since(&mut self) -> Result<Vec<Prepared>, Failure> {
        let mut all = prepared(&self.pool).await?;
        let new = all.split_off(self.known.min(all.len()));
        self.known += new.len();
        Ok(new)
    }
}
