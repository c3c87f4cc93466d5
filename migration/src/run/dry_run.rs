//! The SQL that `up` would run.

use sea_orm_migration::{
    SchemaManagerConnection,
    sea_orm::{AccessMode, ConnectionTrait, DatabaseTransaction, DbErr},
};

use super::{
    explain_error::explain_error,
    lock_wait::run_and_name_blockers,
    transaction::{begin, in_read_only_transaction, rollback, set_up_and_lock},
    up::{MAX_RENAME_ROUNDS, update_record_sql},
};
use crate::{
    migrations::name_of_tables_migration,
    preflight, query, record, renames,
    repair::{ObjectUnderRepair, Plan},
    script,
    state::State,
    versions,
};

/// Returns the SQL that `up` would run, as one transaction for `psql`, or an empty string if there is nothing to do.
/// The SQL that installs a new schema lacks the repairs of differences that `up` would find afterwards.
///
/// Nothing is changed, and usually nothing is locked. But if objects were renamed, or if migrations are pending in a
/// database that has the tables, then the call restores the names or applies the migrations, to find the other
/// differences, in a transaction that it rolls back.
///
/// # Errors
///
/// Those of [`run`](super::run).
pub async fn dry_run(db: &SchemaManagerConnection<'_>) -> Result<String, DbErr> {
    let planning = in_read_only_transaction(db, async |transaction| {
        preflight::check_server_enables_triggers(transaction).await?;
        let state = State::read(transaction).await?;
        let has_renamed_objects = state.pending_migrations().is_empty() && !renames::find(&state).is_empty();
        let must_rehearse = has_renamed_objects || has_tables_and_pending_migrations(&state);
        Ok(if must_rehearse { None } else { Some(plan_up(transaction, &state).await?) })
    });
    if let Some(statements) = planning.await? {
        return Ok(if statements.is_empty() { String::new() } else { script::wrap_in_transaction(&statements) });
    }
    let transaction = begin(db, AccessMode::ReadWrite).await?;
    let mut object_under_repair = None;
    let work = rehearse_up(&transaction, &mut object_under_repair);
    let outcome = run_and_name_blockers(db, &transaction, work).await;
    let rollback_result = rollback(db, transaction).await;
    match outcome {
        Ok(statements) => rollback_result.map(|()| script::wrap_in_transaction(&statements)),
        Err(error) => Err(explain_error(db, object_under_repair, error).await),
    }
}

/// Whether migrations are pending in a database that has the tables: an earlier version installed the schema, or the
/// last migrations were undone.
fn has_tables_and_pending_migrations(state: &State) -> bool {
    let pending = state.pending_migrations();
    !pending.is_empty() && !pending.iter().any(|name| name == name_of_tables_migration())
}

/// Returns the SQL that `up` would run on a database in this state. The state must be one in which no object is
/// renamed, and in which migrations are pending only if the database lacks the tables. From any other state,
/// [`rehearse_up`] first brings the database into such a state.
async fn plan_up(db: &DatabaseTransaction, state: &State) -> Result<Vec<String>, DbErr> {
    let report = state.report();
    if !report.pending.is_empty() {
        preflight::check_ready(db, state).await?;
        return Ok(script::install_sql(&report.pending, state.record.jobs_were_scheduled));
    }
    if report.differences.is_empty() {
        return Ok(update_record_sql(state));
    }
    versions::check_not_migrated_by_newer_version(&state.record)?;
    preflight::check_ready(db, state).await?;
    let plan = Plan::new(db, state, &report).await?;
    let mut sql = vec!["SET LOCAL search_path = pg_catalog".to_owned()];
    sql.extend(plan.statements.into_iter().map(|repair| repair.sql));
    sql.extend(record::write_record_sql());
    Ok(sql)
}

/// Applies the pending migrations to a database that has the tables, and restores the names of renamed objects. The
/// caller rolls the transaction back. Returns all the SQL that `up` would run, which begins with the statements that
/// were run here. After an error, `object_under_repair` is the object that the failed statement was to repair.
async fn rehearse_up(
    db: &DatabaseTransaction,
    object_under_repair: &mut Option<ObjectUnderRepair>,
) -> Result<Vec<String>, DbErr> {
    set_up_and_lock(db).await?;
    let mut sql = Vec::new();
    let state = State::read(db).await?;
    if has_tables_and_pending_migrations(&state) {
        preflight::check_ready(db, &state).await?;
        sql = script::apply_sql(&state.pending_migrations());
        if state.needs_upgrade() {
            sql.push(record::record_migrations_sql());
        } else {
            sql.extend(script::finish_install_sql(state.record.jobs_were_scheduled));
        }
        query::execute_all(db, &sql).await?;
    }
    for _ in 0..MAX_RENAME_ROUNDS {
        let state = State::read(db).await?;
        let renames = renames::find(&state);
        if renames.is_empty() {
            break;
        }
        versions::check_not_migrated_by_newer_version(&state.record)?;
        preflight::check_ready(db, &state).await?;
        for rename in renames {
            *object_under_repair =
                Some(ObjectUnderRepair { name: rename.object, table: None, definition: String::new() });
            db.execute_unprepared(&rename.sql).await?;
            sql.push(rename.sql);
        }
        *object_under_repair = None;
    }
    let state = State::read(db).await?;
    sql.extend(plan_up(db, &state).await?);
    Ok(sql)
}
