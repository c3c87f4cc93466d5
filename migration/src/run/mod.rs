//! The commands. Each one that changes the database does so in one transaction.

mod command;
mod dry_run;
mod explain_error;
mod inner_migrator;
mod inspect;
mod lock_wait;
mod transaction;
mod undo;
mod up;

use sea_orm_migration::{
    SchemaManagerConnection,
    sea_orm::{AccessMode, DatabaseTransaction, DbErr},
};

use crate::{preflight, repair::ObjectUnderRepair};
pub use command::{Command, SchemaChange};
pub use dry_run::dry_run;
use explain_error::explain_error;
pub use inspect::{INVARIANTS, Status, check, full_manifest_of, partial_manifest_of, status};
use lock_wait::run_and_name_blockers;
use transaction::{begin, deallocate_statements, rollback, set_up_and_lock};
pub use undo::count_accounts_losing_data;
use undo::{drop_migrations_table, undo};
use up::up;

/// Runs the command in one transaction, while no other migrator runs, and returns the changes.
///
/// # Errors
///
/// [`DbErr::Migration`] with the message of a [`MigrationError`](crate::MigrationError); otherwise the error of the
/// database. In both cases nothing is changed, unless the connection was lost during COMMIT: then the command may have
/// taken effect.
pub async fn run(db: &SchemaManagerConnection<'_>, command: Command) -> Result<Vec<SchemaChange>, DbErr> {
    let transaction = begin(db, AccessMode::ReadWrite).await?;
    let mut object_under_repair = None;
    let work = run_in_transaction(&transaction, command, &mut object_under_repair);
    match run_and_name_blockers(db, &transaction, work).await {
        Ok(changes) => {
            deallocate_statements(db, &transaction).await?;
            transaction.commit().await?;
            Ok(changes)
        }
        Err(error) => {
            // If the connection is lost, the server rolls back.
            let _ = rollback(db, transaction).await;
            Err(explain_error(db, object_under_repair, error).await)
        }
    }
}

/// Runs the command and returns the changes. After an error, `object_under_repair` is the object that the failed
/// statement was to repair.
async fn run_in_transaction(
    db: &DatabaseTransaction,
    command: Command,
    object_under_repair: &mut Option<ObjectUnderRepair>,
) -> Result<Vec<SchemaChange>, DbErr> {
    if matches!(command, Command::Up(_) | Command::Refresh) {
        preflight::check_server_enables_triggers(db).await?;
    }
    set_up_and_lock(db).await?;
    let mut changes = Vec::new();
    let max_undo_count = command.max_undo_count();
    if max_undo_count > 0 {
        undo(db, max_undo_count, command == Command::Reset, &mut changes).await?;
    }
    if command == Command::Reset {
        drop_migrations_table(db).await?;
    }
    match command {
        Command::Up(count) => up(db, count.unwrap_or(u32::MAX), object_under_repair, &mut changes).await?,
        Command::Refresh => up(db, u32::MAX, object_under_repair, &mut changes).await?,
        Command::Down(_) | Command::Reset => {}
    }
    Ok(changes)
}
