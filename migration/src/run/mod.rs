//! The commands. Each one that changes the database does so in one transaction.

mod dry_run;
mod explain_error;
mod lock_wait;
mod transaction;

use std::{collections::BTreeSet, fmt};

use sea_orm_migration::{
    MigrationName, MigrationTrait, MigratorTrait, SchemaManagerConnection, async_trait,
    sea_orm::{self, AccessMode, ConnectionTrait, DatabaseTransaction, DbErr, DynIden, FromQueryResult},
};

use crate::{
    MigrationError, Migrator, Report,
    check::State,
    db_error, dependents, m20261101_000002_tables,
    manifest::{self, CatalogObject},
    preflight,
    printable::escape_unprintable,
    query,
    record::{self, AppliedMigrations, Record},
    renames,
    repair::{self, Change, ObjectUnderRepair, Plan},
    script,
};
pub use dry_run::dry_run;
use explain_error::explain_error;
use lock_wait::run_and_name_blockers;
use transaction::{begin, deallocate_statements, in_read_only_transaction, rollback};

/// A command of the migrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Apply this many pending migrations, or all of them. If none is pending afterwards, repair the differences from
    /// the manifest.
    Up(Option<u32>),
    /// Undo this many applied migrations, or all of them, the last applied first.
    Down(Option<u32>),
    /// Undo all migrations, and drop the list of migrations.
    Reset,
    /// Undo all migrations, then apply them again.
    Refresh,
}

impl Command {
    /// Returns the maximum number of migrations that the command undoes.
    fn max_undo_count(self) -> u32 {
        match self {
            Self::Down(count) => count.unwrap_or(u32::MAX),
            Self::Reset | Self::Refresh => u32::MAX,
            Self::Up(_) => 0,
        }
    }
}

/// One change to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaChange {
    /// The named migration was applied.
    Applied(String),
    /// The named migration was undone.
    Undone(String),
    /// All functions, triggers, policies and views, of which there are this many, were created.
    CreatedObjects(usize),
    /// A renamed object (the first name) got its original name back (the second).
    Renamed(String, String),
    /// A missing object was created.
    Created(String),
    /// An object was altered to its definition in the manifest.
    Changed(String),
    /// An object that is no longer part of the schema was dropped.
    Dropped(String),
}

impl fmt::Display for SchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match self {
            Self::Applied(name) => format!("applied {name}"),
            Self::Undone(name) => format!("undone  {name}"),
            Self::CreatedObjects(count) => {
                format!("created {count} functions, triggers, policies and views, and their privileges")
            }
            Self::Renamed(wrong_name, object) => format!("renamed {wrong_name} to {object}"),
            Self::Created(object) => format!("created {object}"),
            Self::Changed(object) => format!("changed {object}"),
            Self::Dropped(object) => format!("dropped {object}"),
        };
        f.write_str(&escape_unprintable(&line))
    }
}

/// Maximum number of rounds in which names are restored: the first for PostgreSQL schemas, the second for the objects
/// in them, the third for columns, and the last, which finds that no object has a wrong name.
const MAX_RENAME_ROUNDS: usize = 4;

/// Runs the command in one transaction, while no other migrator runs, and returns the changes.
///
/// # Errors
///
/// [`DbErr::Migration`] with the message of a [`MigrationError`]; otherwise the error of the database. In both cases
/// nothing is changed, unless the connection was lost during COMMIT: then the command may have taken effect.
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

/// Prepares the transaction of a command that changes the database, and waits until no other migrator runs.
async fn set_up_and_lock(db: &DatabaseTransaction) -> Result<(), DbErr> {
    db.execute_unprepared(&script::set_up_and_lock_sql()).await.map(drop).map_err(|error| {
        match db_error::sqlstate(&error).as_deref() {
            // The only statement that needs a privilege is the one that sets `session_replication_role` back to
            // `origin`. It runs only if the setting has another value, with which the schema's triggers do not fire.
            Some(db_error::INSUFFICIENT_PRIVILEGE) => MigrationError::TriggersDisabled.into(),
            _ => error,
        }
    })
}

/// Reads the state of the database, in a read-only transaction.
pub(crate) async fn read_state(db: &SchemaManagerConnection<'_>) -> Result<State, DbErr> {
    in_read_only_transaction(db, async |transaction| State::read(transaction).await).await
}

/// Returns the number of accounts whose data the command would delete. 0 if the command keeps the tables of the game,
/// if `public.sparc_migrations` does not exist, or if the role can read all rows of neither `public.users` nor
/// `auth.users`.
///
/// # Errors
///
/// The error of the database.
pub async fn count_accounts_losing_data(db: &SchemaManagerConnection<'_>, command: Command) -> Result<i64, DbErr> {
    #[derive(FromQueryResult)]
    struct Row {
        account_count: i64,
    }
    let max_undo_count = command.max_undo_count();
    if max_undo_count == 0 {
        return Ok(0);
    }
    in_read_only_transaction(db, async |transaction| {
        if !preflight::has_migrations_table(transaction).await?
            || count_migrations_after_tables(transaction).await? >= max_undo_count
        {
            return Ok(0);
        }
        // The larger of the counts of `public.users` and `auth.users`, because the role may be able to read only one.
        let mut account_count = 0;
        for schema in ["public", "auth"] {
            if preflight::can_read_all_rows(transaction, schema, "users").await? {
                let sql = format!("SELECT count(*) AS account_count FROM {schema}.users");
                let row: Row = query::fetch_one(transaction, &sql).await?;
                account_count = account_count.max(row.account_count);
            }
        }
        Ok(account_count)
    })
    .await
}

/// Returns the number of applied migrations that follow the one that creates the tables of the game. If the role cannot
/// read the list of migrations, returns 0, so that the operator is warned.
async fn count_migrations_after_tables(db: &DatabaseTransaction) -> Result<u32, DbErr> {
    let AppliedMigrations::Listed(listed) = record::read_applied(db).await? else { return Ok(0) };
    let mut applied: BTreeSet<String> = listed.into_iter().collect();
    applied.extend(Record::read(db).await?.migrations);
    let tables_migration = m20261101_000002_tables::Migration;
    let later_count = applied.iter().filter(|name| name.as_str() > tables_migration.name()).count();
    Ok(u32::try_from(later_count).unwrap_or(u32::MAX))
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

/// Applies at most `max_count` pending migrations. If none is pending afterwards, repairs the differences. A new schema
/// has differences if roles, schema `public` or the publication existed before and were not as the manifest says. A
/// schema that an earlier version installed differs in the functions, triggers, policies and views that have changed.
async fn up(
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
    preflight::check_not_migrated_by_newer_version(&state)?;
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
        preflight::check_not_migrated_by_newer_version(&state)?;
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
fn update_record_sql(state: &State) -> Vec<String> {
    let jobs_are_recorded = state.record.jobs_were_scheduled || !state.environment.has_cron;
    let is_up_to_date = state.record.version.as_deref() == Some(env!("CARGO_PKG_VERSION"))
        && record::objects_to_record().iter().all(|object| state.record.objects.contains(object))
        && jobs_are_recorded;
    let is_left_unchanged =
        !state.record.is_readable || is_up_to_date || preflight::check_not_migrated_by_newer_version(state).is_err();
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

/// Undoes the last `count` applied migrations. Keeps the migrations table, `public.sparc_migrations`;
/// `will_drop_migrations_table` says whether the command drops that table afterwards. If so, the error about dependent
/// objects also names those that depend on that table.
async fn undo(
    db: &DatabaseTransaction,
    count: u32,
    will_drop_migrations_table: bool,
    changes: &mut Vec<SchemaChange>,
) -> Result<(), DbErr> {
    let state = State::read(db).await?;
    let Some(applied) = state.applied_migrations.clone() else {
        // The role cannot read the migrations table. `check_ready` returns the error that says so.
        return preflight::check_ready(db, &state).await;
    };
    let to_undo: Vec<String> = applied.iter().rev().take(count as usize).cloned().collect();
    if to_undo.is_empty() {
        return Ok(());
    }
    preflight::check_ready(db, &state).await?;
    preflight::check_migrations_table(&state)?;
    preflight::check_not_renamed_or_moved(db, &state).await?;
    // What the first migration created (the stand-in for schema `auth`, and the table `private.sparc_record`) stays
    // unless all migrations are undone.
    let keeps_first_migration = to_undo.len() < applied.len();
    let is_of_first_migration = |found: &CatalogObject| {
        found.name.contains(" auth.") && !found.name.starts_with("trigger ") || found.name.contains(".sparc_")
    };
    let is_kept_schema = |object: &str| {
        let is_created_by_us =
            object == "schema auth" || (object == "schema private" && state.environment.private_schema_is_ours);
        object.starts_with("schema ") && (keeps_first_migration || !is_created_by_us)
    };
    let drops_tables = to_undo.iter().any(|name| *name == m20261101_000002_tables::Migration.name());
    // What the command will drop, without columns, because `find_dropped_by_cascade` accepts none, and without the
    // publication and the jobs, on which no other object can depend.
    let to_drop: Vec<&CatalogObject> = state
        .found_objects
        .iter()
        .filter(|found| state.is_ours(&found.name) && !is_kept_schema(&found.name))
        .filter(|found| !matches!(manifest::kind(&found.name), "publication" | "publication of" | "job" | "column"))
        .filter(|found| !(keeps_first_migration && is_of_first_migration(found)))
        .filter(|found| {
            will_drop_migrations_table || manifest::table_of(&found.name) != Some("public.sparc_migrations")
        })
        .filter(|found| drops_tables || record::is_recorded(&found.name))
        .collect();
    // Only the check is needed: the call fails if an operator's object depends on one that will be dropped.
    dependents::find_dropped_by_cascade(db, &state, &to_drop).await?;
    db.execute_unprepared("SET LOCAL search_path = public").await?;
    query::execute_all(db, &repair::drop_functions_views_and_policies_sql(&state)).await?;
    if !drops_tables {
        query::execute_all(db, &repair::revoke_access_to_tables_sql(&state)).await?;
    }
    InnerMigrator::down(db, Some(u32::try_from(to_undo.len()).unwrap_or(u32::MAX))).await?;
    if keeps_first_migration {
        db.execute_unprepared(record::MARK_INCOMPLETE).await?;
    }
    changes.extend(to_undo.into_iter().map(SchemaChange::Undone));
    Ok(())
}

/// Drops the migrations table, `public.sparc_migrations`, once all migrations are undone. Returns an error if the
/// object of that name is not this schema's migrations table, or if an operator's object depends on the table.
async fn drop_migrations_table(db: &DatabaseTransaction) -> Result<(), DbErr> {
    let state = State::read(db).await?;
    preflight::check_migrations_table_is_ours(&state)?;
    let Some(table) = state.found_objects.iter().find(|found| found.name == "table public.sparc_migrations") else {
        return Ok(());
    };
    dependents::find_dropped_by_cascade(db, &state, &[table]).await?;
    db.execute_unprepared("SET LOCAL search_path = public").await?;
    InnerMigrator::uninstall(db).await
}

/// The migrations of [`Migrator`], with SeaORM's own `up`, `down` and `uninstall`, which run in the command's
/// transaction.
struct InnerMigrator;

#[async_trait::async_trait]
impl MigratorTrait for InnerMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        record::migrations()
    }

    fn migration_table_name() -> DynIden {
        Migrator::migration_table_name()
    }
}

/// What the command `status` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The name of each migration, and whether it is applied.
    pub migrations: Vec<(String, bool)>,
    /// The result of [`crate::check`].
    pub report: Report,
}

/// Reads which migrations are applied, and compares the database with the manifest.
///
/// # Errors
///
/// Those of [`crate::check`].
pub async fn status(db: &SchemaManagerConnection<'_>) -> Result<Status, DbErr> {
    let state = read_state(db).await?;
    let pending = state.pending_migrations();
    let migrations =
        record::migration_names().into_iter().map(|name| (name.clone(), !pending.contains(&name))).collect();
    Ok(Status { migrations, report: state.report() })
}
