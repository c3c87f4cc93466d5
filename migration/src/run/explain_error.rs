//! Finds out why the database rejected a command.

use sea_orm_migration::{SchemaManagerConnection, sea_orm::DbErr};

use super::transaction::in_read_only_transaction;
use crate::{MigrationError, db_error, query, repair::ObjectUnderRepair, script, violations};

/// Returns the query for the processes that hold locks on the schema's tables or the advisory lock of the migrators.
/// `pg_locks` shows the upper half of that lock's key in `classid` and the lower half in `objid`.
fn lock_holders_sql() -> String {
    format!(
        "SELECT DISTINCT format('process %s%s on %s', pid, coalesce(' of ' || usename, ''),
           CASE locktype WHEN 'advisory' THEN 'the lock of the migrators' ELSE nspname || '.' || relname END) AS name
         FROM pg_catalog.pg_locks
         LEFT JOIN pg_catalog.pg_stat_activity USING (pid)
         LEFT JOIN pg_catalog.pg_class ON pg_class.oid = relation
         LEFT JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
         WHERE granted
           AND pid <> pg_backend_pid()
           AND pg_locks.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
           AND ((nspname IN ('public', 'private', 'auth') AND relkind = 'r')
             OR (locktype = 'advisory' AND (classid::bigint << 32) + objid::bigint = {}))
         ORDER BY 1",
        script::LOCK_KEY
    )
}

/// Replaces the database's error with one that names the violating rows, the processes that hold locks, or the object
/// whose repair was rejected, if they can be found.
pub(super) async fn explain_error(
    db: &SchemaManagerConnection<'_>,
    object_under_repair: Option<ObjectUnderRepair>,
    error: DbErr,
) -> DbErr {
    if db_error::sqlstate(&error).as_deref() == Some(db_error::LOCK_NOT_AVAILABLE) {
        let holders = in_read_only_transaction(db, async |transaction| {
            query::fetch_names(transaction, &lock_holders_sql()).await
        });
        return match holders.await {
            Ok(holders) if !holders.is_empty() => MigrationError::Locked { holders: holders.join(", ") }.into(),
            _ => error,
        };
    }
    let Some(object_under_repair) = object_under_repair else { return error };
    if is_integrity_violation(&error) {
        let violation = in_read_only_transaction(db, async |transaction| {
            violations::violation_error(transaction, &object_under_repair).await
        });
        if let Ok(Some(violation)) = violation.await {
            return violation.into();
        }
    }
    match db_error::rejection_reason(&error) {
        Some(reason) => MigrationError::RepairRejected { object: object_under_repair.name, reason }.into(),
        None => error,
    }
}

fn is_integrity_violation(error: &DbErr) -> bool {
    // Class 23: integrity_constraint_violation.
    db_error::sqlstate(error).is_some_and(|code| code.starts_with("23"))
}
