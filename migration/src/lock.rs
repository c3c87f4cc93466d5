//! One migrator at a time on one database.
//!
//! The lock is held by a transaction on a connection of its own, so that it works through a pooler in transaction mode
//! and with a pool of one connection. It goes with that connection, however the program ends.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{
        DatabaseConnection, RuntimeErr,
        sqlx::{self, Connection, Executor, PgConnection},
    },
};

/// Held by the one program that migrates. The number is arbitrary and ours alone ("SPARC" in ASCII).
const TURN: &str = "SET LOCAL statement_timeout = 0;
     SET LOCAL lock_timeout = 0;
     SET LOCAL idle_in_transaction_session_timeout = 0;
     SELECT pg_advisory_xact_lock(358434263618)";

/// Held by each migration's own transaction. A killed program gives its turn back at once, while the server may still
/// be busy with its last statement: who has the turn waits for this one too before looking at what is applied.
pub(crate) const WORK: &str = "SELECT pg_advisory_xact_lock(358434263619)";

pub(crate) struct Lock(PgConnection);

impl Lock {
    pub(crate) async fn take(pool: &DatabaseConnection) -> Result<Self, DbErr> {
        let options = pool.get_postgres_connection_pool().connect_options();
        let mut connection = PgConnection::connect_with(&options).await.map_err(error)?;
        for statement in ["BEGIN", TURN, "SAVEPOINT work", WORK, "ROLLBACK TO work"] {
            connection.execute(statement).await.map_err(error)?;
        }
        Ok(Self(connection))
    }

    pub(crate) async fn release(self) {
        // The server gives the lock back when the connection ends, whether or not it says goodbye.
        let _ = self.0.close().await;
    }
}

/// The same inside a transaction of the caller's, until it ends.
pub(crate) async fn take_in<C: ConnectionTrait>(transaction: &C) -> Result<(), DbErr> {
    transaction.execute_unprepared(TURN).await?;
    transaction.execute_unprepared(WORK).await?;
    Ok(())
}

fn error(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}
