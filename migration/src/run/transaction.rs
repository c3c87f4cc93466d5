//! The transactions in which commands run. The role's timeouts do not apply to them, and they work through a pooler in
//! transaction mode.

use sea_orm_migration::{
    SchemaManagerConnection,
    sea_orm::{AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait},
};

use super::lock_wait::run_and_name_blockers;
use crate::{MigrationError, connect, db_error, script};

/// Whether [`connect::connect`] opened the connection; the connection's application name shows that. If so, the caller
/// keeps no prepared statements on the connection.
fn was_opened_by_connect(db: &SchemaManagerConnection<'_>) -> bool {
    match db {
        SchemaManagerConnection::Connection(pool) => {
            let options = pool.get_postgres_connection_pool().connect_options();
            options.get_application_name() == Some(connect::APPLICATION_NAME)
        }
        _ => false,
    }
}

/// Begins a transaction with the [`script::STANDARD_SETTINGS`]. If `db` is itself a transaction, begins a nested one,
/// on which `access` has no effect.
///
/// A pooler in transaction mode may provide a server connection on which another client has left prepared statements
/// with the names that SQLx uses. So all prepared statements are deallocated, unless some may be the caller's own.
pub(super) async fn begin(db: &SchemaManagerConnection<'_>, access: AccessMode) -> Result<DatabaseTransaction, DbErr> {
    let transaction = match db {
        SchemaManagerConnection::Connection(pool) => begin_top_level(pool, access).await?,
        SchemaManagerConnection::Transaction(transaction) => transaction.begin().await?,
        SchemaManagerConnection::OwnedTransaction(transaction) => transaction.begin().await?,
    };
    if was_opened_by_connect(db) {
        transaction.execute_unprepared("DEALLOCATE ALL").await?;
    }
    transaction.execute_unprepared(script::STANDARD_SETTINGS).await?;
    Ok(transaction)
}

async fn begin_top_level(pool: &DatabaseConnection, access: AccessMode) -> Result<DatabaseTransaction, DbErr> {
    // SeaORM's `begin_with_config` would prepare a statement before those of other clients are deallocated. The
    // isolation level and the access mode are set first of all, because PostgreSQL accepts an isolation level only
    // before the first query.
    let transaction = pool.begin().await?;
    let access = if access == AccessMode::ReadOnly { "READ ONLY" } else { "READ WRITE" };
    let set_modes_sql = format!("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, {access}");
    if transaction.execute_unprepared(&set_modes_sql).await.is_ok() {
        return Ok(transaction);
    }
    // A standby rejects READ WRITE. `check_ready` reports later that the server is a standby.
    transaction.rollback().await?;
    pool.begin().await
}

/// Prepares the transaction of a command that changes the database, and waits until no other migrator runs.
pub(super) async fn set_up_and_lock(db: &DatabaseTransaction) -> Result<(), DbErr> {
    db.execute_unprepared(&script::set_up_and_lock_sql()).await.map(drop).map_err(|error| {
        match db_error::sqlstate(&error).as_deref() {
            // The only statement that needs a privilege is the one that sets `session_replication_role` back to
            // `origin`. It runs only if the setting has another value, with which the schema's triggers do not fire.
            Some(db_error::INSUFFICIENT_PRIVILEGE) => MigrationError::TriggersDisabled.into(),
            _ => error,
        }
    })
}

/// Deallocates all prepared statements, unless some may be the caller's own: a pooler may give the server connection to
/// another client afterwards.
pub(super) async fn deallocate_statements(
    db: &SchemaManagerConnection<'_>,
    transaction: &DatabaseTransaction,
) -> Result<(), DbErr> {
    if was_opened_by_connect(db) {
        transaction.execute_unprepared("DEALLOCATE ALL").await?;
    }
    Ok(())
}

/// Rolls back, and deallocates all prepared statements, unless some may be the caller's own.
pub(super) async fn rollback(db: &SchemaManagerConnection<'_>, transaction: DatabaseTransaction) -> Result<(), DbErr> {
    if was_opened_by_connect(db) {
        // After an error the server accepts nothing but ROLLBACK. The same message also begins a new transaction, so
        // that the pooler does not give the server connection away before the driver has rolled back too.
        transaction.execute_unprepared("ROLLBACK; BEGIN; DEALLOCATE ALL").await?;
    }
    transaction.rollback().await
}

/// Runs `work` in a read-only transaction, and rolls it back. If `db` is itself a transaction, the one for `work` is
/// nested in it, and is read-only only if the outer one is.
pub(super) async fn in_read_only_transaction<T>(
    db: &SchemaManagerConnection<'_>,
    work: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T, DbErr>,
) -> Result<T, DbErr> {
    let transaction = begin(db, AccessMode::ReadOnly).await?;
    let outcome = run_and_name_blockers(db, &transaction, work(&transaction)).await;
    let rollback_result = rollback(db, transaction).await;
    // If the connection was lost, the first error says why.
    let value = outcome?;
    rollback_result?;
    Ok(value)
}
