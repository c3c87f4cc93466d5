//! The command `up`: it restores names, applies pending migrations, and repairs the differences from the manifest.

use sea_orm_migration::{
    MigratorTrait,
    sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr},
};

use super::{command::SchemaChange, inner_migrator::InnerMigrator};
use crate::{
    MigrationError,
    catalog::CatalogObject,
    preflight, query, record, renames,
    repair::{Change, ObjectUnderRepair, Plan},
    script,
    state::State,
    versions,
};

/// Maximum number of rounds in which names are restored: the first for PostgreSQL schemas, the second for the objects
/// in them, the third for columns, and the last, which finds that no object has a wrong name.
pub(super) const MAX_RENAME_ROUNDS: usize = 4;

/// Applies at most `max_count` pending migrations. If none is pending afterwards, repairs the differences. A new schema
/// has differences if roles, schema `public` or the publication existed before and were not as the manifest says. A
/// schema that an earlier version installed differs in the functions, triggers, policies and views that have changed.
pub(super) async fn up(
    db: &DatabaseTransaction,
    max_count: u32,
    object_under_repair: &mut Option<ObjectUnderRepair>,
    changes: &mut Vec<SchemaChange>,
) -> Result<(), DbErr> {
    let mut state = restore_names(db, object_under_repair, changes).await?;
    let pending = state.pending_migrations();
    if !pending.is_empty() {
        preflight::check_ready(db, &state).await?;
        db.execute_unprepared("SET LOCAL search_path = public").await?;
        let apply_count = max_count.min(u32::try_from(pending.len()).unwrap_or(u32::MAX));
        InnerMigrator::up(db, Some(apply_count)).await?;
        changes.extend(pending.iter().take(apply_count as usize).cloned().map(SchemaChange::Applied));
        if (apply_count as usize) < pending.len() {
            return Ok(());
        }
        if state.needs_upgrade() {
            // For now, only the migrations are recorded. The record must still list the objects of the earlier version,
            // so that the repairs drop those that this version no longer has.
            db.execute_unprepared(&record::record_migrations_sql()).await?;
            state = restore_names(db, object_under_repair, changes).await?;
        } else {
            query::execute_all(db, &script::finish_install_sql(state.record.jobs_were_scheduled)).await?;
            state = State::read(db).await?;
            let is_counted = |found: &&CatalogObject| state.is_ours(&found.name) && record::is_recorded(&found.name);
            changes.push(SchemaChange::CreatedObjects(state.found_objects.iter().filter(is_counted).count()));
        }
    }
    let report = state.report();
    if report.differences.is_empty() {
        return query::execute_all(db, &update_record_sql(&state)).await;
    }
    versions::check_not_migrated_by_newer_version(&state.record)?;
    preflight::check_ready(db, &state).await?;
    let plan = Plan::new(db, &state, &report).await?;
    for repair in &plan.statements {
        object_under_repair.clone_from(&repair.object);
        db.execute_unprepared(&repair.sql).await?;
    }
    *object_under_repair = None;
    query::execute_all(db, &record::write_record_sql()).await?;
    check_no_differences(db).await?;
    changes.extend(plan.changes.into_iter().map(|change| match change {
        Change::Created(object) => SchemaChange::Created(object),
        Change::Changed(object) => SchemaChange::Changed(object),
        Change::Dropped(object) => SchemaChange::Dropped(object),
    }));
    Ok(())
}

/// Restores the names of renamed objects, in several rounds, because a renamed column of a renamed table is found only
/// once the table has its name back. Returns the state afterwards.
async fn restore_names(
    db: &DatabaseTransaction,
    object_under_repair: &mut Option<ObjectUnderRepair>,
    changes: &mut Vec<SchemaChange>,
) -> Result<State, DbErr> {
    for _ in 0..MAX_RENAME_ROUNDS {
        let state = State::read(db).await?;
        let renames = if state.pending_migrations().is_empty() { renames::find(&state) } else { Vec::new() };
        if renames.is_empty() {
            return Ok(state);
        }
        versions::check_not_migrated_by_newer_version(&state.record)?;
        preflight::check_ready(db, &state).await?;
        for rename in renames {
            *object_under_repair =
                Some(ObjectUnderRepair { name: rename.object.clone(), table: None, definition: String::new() });
            db.execute_unprepared(&rename.sql).await?;
            changes.push(SchemaChange::Renamed(rename.renamed_to, rename.object));
        }
        *object_under_repair = None;
    }
    State::read(db).await
}

/// For a database without differences from the manifest: returns the SQL that records this program's version and
/// objects in `private.sparc_record`. Returns no statements if that table has them already, was written by a newer
/// version (whose schema is the same, because nothing differs), or is not readable.
pub(super) fn update_record_sql(state: &State) -> Vec<String> {
    let jobs_are_recorded = state.record.jobs_were_scheduled || !state.environment.has_cron;
    let is_up_to_date = state.record.version.as_deref() == Some(env!("CARGO_PKG_VERSION"))
        && record::objects_to_record().iter().all(|object| state.record.objects.contains(object))
        && jobs_are_recorded;
    let is_left_unchanged = !state.record.is_readable
        || is_up_to_date
        || versions::check_not_migrated_by_newer_version(&state.record).is_err();
    if is_left_unchanged { Vec::new() } else { record::write_record_sql() }
}

/// Checks that no differences remain.
async fn check_no_differences(db: &DatabaseTransaction) -> Result<(), DbErr> {
    let remaining = State::read(db).await?.report().differences;
    if remaining.is_empty() {
        return Ok(());
    }
    Err(MigrationError::NotRepairable { found: remaining.iter().map(ToString::to_string).collect() }.into())
}
