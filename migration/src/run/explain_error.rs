//! Finds out why the database rejected a statement that repairs an object.

use sea_orm_migration::{SchemaManagerConnection, sea_orm::DbErr};

use super::transaction::in_read_only_transaction;
use crate::{MigrationError, db_error, repair::ObjectUnderRepair, violations};

/// Replaces the error of a repair by one that names the violating rows, or says that a dropped column's values are
/// lost, or else names the object and the database's reason. Returns the error unchanged if no object was being
/// repaired, or if the statement was not the cause.
pub(super) async fn explain_error(
    db: &SchemaManagerConnection<'_>,
    object_under_repair: Option<ObjectUnderRepair>,
    error: DbErr,
) -> DbErr {
    let Some(object_under_repair) = object_under_repair else { return error };
    if is_integrity_violation(&error) {
        let find_violation = in_read_only_transaction(db, async |transaction| {
            violations::integrity_error(transaction, &object_under_repair).await
        });
        if let Ok(Some(integrity_error)) = find_violation.await {
            return integrity_error.into();
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
