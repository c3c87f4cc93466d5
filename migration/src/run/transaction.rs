//! Transactions of the commands: without the role's timeouts, on servers behind a pooler too.

use sea_orm_migration::{
    SchemaManagerConnection,
    sea_orm::{AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait},
};

use crate::{connect, script};

/// Timeouts of the role, which are for requests of users, do not apply to a command.
const NO_TIMEOUTS: &str = "SET LOCAL statement_timeout = 0;
     SET LOCAL idle_in_transaction_session_timeout = 0;
     SELECT set_config('transaction_timeout', '0', true)
     WHERE current_setting('server_version_num')::integer >= 170000";

/// Whether [`connect::connect`] opened the connection, so that it has no prepared statements of another program.
fn is_own(db: &SchemaManagerConnection<'_>) -> bool {
    match db {
        SchemaManagerConnection::Connection(pool) => {
            let options = pool.get_postgres_connection_pool().connect_options();
            options.get_application_name() == Some(connect::APPLICATION_NAME)
        }
        _ => false,
    }
}

/// Begins a transaction, or a nested one inside the caller's. Behind a pooler in transaction mode, the server
/// connection belonged to another client before, so prepared statements with the same names are deallocated.
pub(super) async fn begin(db: &SchemaManagerConnection<'_>, access: AccessMode) -> Result<DatabaseTransaction, DbErr> {
    let transaction = match db {
        SchemaManagerConnection::Connection(pool) => begin_in(pool, access).await?,
        SchemaManagerConnection::Transaction(transaction) => transaction.begin().await?,
        SchemaManagerConnection::OwnedTransaction(transaction) => transaction.begin().await?,
    };
    if is_own(db) {
        transaction.execute_unprepared("DEALLOCATE ALL").await?;
    }
    transaction.execute_unprepared(NO_TIMEOUTS).await?;
    transaction.execute_unprepared(script::PLAIN_SYNTAX).await?;
    Ok(transaction)
}

async fn begin_in(pool: &DatabaseConnection, access: AccessMode) -> Result<DatabaseTransaction, DbErr> {
    // Unprepared, because SeaORM's own method prepares a statement before those of others are deallocated. And first,
    // because the role's default may be read-only.
    let transaction = pool.begin().await?;
    let access = if access == AccessMode::ReadOnly { "READ ONLY" } else { "READ WRITE" };
    let isolation = format!("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, {access}");
    if transaction.execute_unprepared(&isolation).await.is_ok() {
        return Ok(transaction);
    }
    // A standby rejects such a transaction. The check that follows reports the standby.
    transaction.rollback().await?;
    pool.begin().await
}

/// Deallocates prepared statements, because the connection may belong to a pooler.
pub(super) async fn end(db: &SchemaManagerConnection<'_>, transaction: &DatabaseTransaction) -> Result<(), DbErr> {
    if is_own(db) {
        transaction.execute_unprepared("DEALLOCATE ALL").await?;
    }
    Ok(())
}
