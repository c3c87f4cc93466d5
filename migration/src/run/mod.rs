//! The commands. Each is one transaction.

mod explain;
mod transaction;

use sea_orm_migration::{
    MigrationTrait, MigratorTrait, SchemaManagerConnection, async_trait,
    sea_orm::{self, AccessMode, ConnectionTrait, DatabaseTransaction, DbErr, DynIden, FromQueryResult},
};

use crate::{
    Migrator, PreflightError, Report,
    check::State,
    dependents,
    manifest::{self, CatalogObject},
    preflight, query, record, renames,
    repair::{self, Change, Plan, Subject},
    script,
};
use explain::explain;
use transaction::{begin, deallocate_statements};

/// A command of the migrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Apply this many pending migrations, or all of them. If none are pending, repair differences.
    Up(Option<u32>),
    /// Undo this many applied migrations, or all of them, the last applied first.
    Down(Option<u32>),
    /// Undo all migrations, and drop the list of migrations.
    Reset,
    /// Undo all migrations, then apply them again.
    Refresh,
}

/// One change to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The named migration was applied.
    Applied(String),
    /// The named migration was undone.
    Undone(String),
    /// All functions, triggers, policies and views were created; this is their number.
    Installed(usize),
    /// A renamed object (the first name) got its original name back (the second).
    Renamed(String, String),
    /// A missing object was created.
    Created(String),
    /// An object was altered to its definition in the manifest.
    Changed(String),
    /// An object that is no longer part of the schema was dropped.
    Dropped(String),
}

/// Returns the SQL with which each command that changes the database begins. It waits up to ten minutes for another
/// migrator; the command then reads the database as that migrator left it. Afterwards, a statement waits at most ten
/// seconds for the lock of a table, because every later statement on that table queues behind it.
fn settings_and_lock_sql() -> String {
    format!(
        "SET LOCAL search_path = public;
         SET LOCAL check_function_bodies = on;
         SET LOCAL client_min_messages = warning;
         SET LOCAL lock_timeout = '10min';
         SELECT pg_catalog.pg_advisory_xact_lock({});
         SET LOCAL lock_timeout = '10s'",
        script::LOCK_KEY
    )
}

/// Maximum number of rounds in which names are restored: one for PostgreSQL schemas, one for the names of what is in
/// them, one for the names of columns, and a last one that finds nothing to do.
const RENAME_ROUNDS: usize = 4;

/// Runs the command in one transaction, while no other migrator runs, and returns the changes.
///
/// # Errors
///
/// [`DbErr::Migration`] with the message of a [`PreflightError`]; otherwise the error of the database. In both cases
/// nothing is changed, unless the connection was lost during COMMIT: then the command may have taken effect.
pub async fn run(db: &SchemaManagerConnection<'_>, command: Command) -> Result<Vec<Step>, DbErr> {
    let transaction = begin(db, AccessMode::ReadWrite).await?;
    let mut subject = None;
    match run_in_transaction(&transaction, command, &mut subject).await {
        Ok(steps) => {
            deallocate_statements(db, &transaction).await?;
            transaction.commit().await?;
            Ok(steps)
        }
        Err(error) => {
            // If the connection is lost, the server rolls back.
            let _ = transaction.rollback().await;
            Err(explain(db, subject, error).await)
        }
    }
}

/// Returns the SQL that `up` would run, as one transaction for `psql`, or an empty string if there is nothing to do.
/// Nothing is changed. Nothing is locked either, unless objects were renamed: then their names are restored, in a
/// transaction that is rolled back, to find the other differences.
///
/// # Errors
///
/// Those of [`run`].
pub async fn dry_run(db: &SchemaManagerConnection<'_>) -> Result<String, DbErr> {
    let transaction = begin(db, AccessMode::ReadOnly).await?;
    let state = State::read(&transaction).await?;
    let renames = if state.pending().is_empty() { renames::find(&state) } else { Vec::new() };
    if renames.is_empty() {
        let statements = plan_up(&transaction, &state, &mut None).await?;
        deallocate_statements(db, &transaction).await?;
        transaction.rollback().await?;
        return Ok(if statements.is_empty() { String::new() } else { script::wrap_in_transaction(&statements) });
    }
    transaction.rollback().await?;
    let transaction = begin(db, AccessMode::ReadWrite).await?;
    let mut subject = None;
    let outcome = plan_up_after_renames(&transaction, &mut subject).await;
    deallocate_statements(db, &transaction).await.ok();
    transaction.rollback().await?;
    match outcome {
        Ok(statements) => Ok(script::wrap_in_transaction(&statements)),
        Err(error) => Err(explain(db, subject, error).await),
    }
}

/// Returns the SQL that `up` would run on a database in this state.
async fn plan_up(db: &DatabaseTransaction, state: &State, subject: &mut Option<Subject>) -> Result<Vec<String>, DbErr> {
    *subject = None;
    let report = state.report();
    if !report.pending.is_empty() {
        preflight::check_ready(db, state).await?;
        return Ok(script::install_sql(&report.pending));
    }
    if report.differences.is_empty() {
        return Ok(Vec::new());
    }
    preflight::check_not_migrated_by_newer(state)?;
    preflight::check_ready(db, state).await?;
    let plan = Plan::new(db, state, &report).await?;
    let mut sql = vec!["SET LOCAL search_path = pg_catalog".to_owned()];
    sql.extend(plan.statements.into_iter().map(|repair| repair.sql));
    sql.extend(record::record_sql());
    Ok(sql)
}

/// Restores the names of renamed objects, and returns the SQL that `up` would run, the renames included. After an
/// error, `subject` is the object that the failed statement concerns.
async fn plan_up_after_renames(db: &DatabaseTransaction, subject: &mut Option<Subject>) -> Result<Vec<String>, DbErr> {
    db.execute_unprepared(&settings_and_lock_sql()).await?;
    let mut sql = Vec::new();
    for _ in 0..RENAME_ROUNDS {
        let state = State::read(db).await?;
        let renames = renames::find(&state);
        if renames.is_empty() {
            break;
        }
        preflight::check_not_migrated_by_newer(&state)?;
        preflight::check_ready(db, &state).await?;
        for rename in renames {
            *subject = Some(Subject { object: rename.object, table: None, definition: String::new() });
            db.execute_unprepared(&rename.sql).await?;
            sql.push(rename.sql);
        }
    }
    let state = State::read(db).await?;
    sql.extend(plan_up(db, &state, subject).await?);
    Ok(sql)
}

/// Reads the state of the database, in a read-only transaction.
pub(crate) async fn read_state(db: &SchemaManagerConnection<'_>) -> Result<State, DbErr> {
    let transaction = begin(db, AccessMode::ReadOnly).await?;
    let state = State::read(&transaction).await?;
    deallocate_statements(db, &transaction).await?;
    transaction.rollback().await?;
    Ok(state)
}

/// Returns the number of accounts in the database, whose data `down` would delete.
///
/// # Errors
///
/// The error of the database.
pub async fn count_accounts(db: &SchemaManagerConnection<'_>) -> Result<i64, DbErr> {
    #[derive(FromQueryResult)]
    struct Row {
        accounts: i64,
    }
    let transaction = begin(db, AccessMode::ReadOnly).await?;
    let mut accounts = 0;
    let has_migrations_table = preflight::has_migrations_table(&transaction).await?;
    for schema in ["public", "auth"] {
        if has_migrations_table && preflight::can_read(&transaction, schema, "users").await? {
            let row: Row =
                query::fetch_one(&transaction, &format!("SELECT count(*) AS accounts FROM {schema}.users")).await?;
            accounts = accounts.max(row.accounts);
        }
    }
    deallocate_statements(db, &transaction).await?;
    transaction.rollback().await?;
    Ok(accounts)
}

/// Runs the command and returns the changes. After an error, `subject` is the object that the failed statement
/// concerns.
async fn run_in_transaction(
    db: &DatabaseTransaction,
    command: Command,
    subject: &mut Option<Subject>,
) -> Result<Vec<Step>, DbErr> {
    db.execute_unprepared(&settings_and_lock_sql()).await?;
    let mut steps = Vec::new();
    let steps_down = match command {
        Command::Down(count) => count.unwrap_or(u32::MAX),
        Command::Reset | Command::Refresh => u32::MAX,
        Command::Up(_) => 0,
    };
    if steps_down > 0 {
        undo(db, steps_down, &mut steps).await?;
    }
    if command == Command::Reset {
        db.execute_unprepared("SET LOCAL search_path = public").await?;
        InnerMigrator::uninstall(db).await?;
    }
    match command {
        Command::Up(count) => up(db, count.unwrap_or(u32::MAX), subject, &mut steps).await?,
        Command::Refresh => up(db, u32::MAX, subject, &mut steps).await?,
        Command::Down(_) | Command::Reset => {}
    }
    Ok(steps)
}

/// Applies at most `count` pending migrations, or repairs differences if none are pending.
async fn up(
    db: &DatabaseTransaction,
    count: u32,
    subject: &mut Option<Subject>,
    steps: &mut Vec<Step>,
) -> Result<(), DbErr> {
    let state = restore_names(db, subject, steps).await?;
    let pending = state.pending();
    if !pending.is_empty() {
        preflight::check_ready(db, &state).await?;
        db.execute_unprepared("SET LOCAL search_path = public").await?;
        let count = count.min(u32::try_from(pending.len()).unwrap_or(u32::MAX));
        InnerMigrator::up(db, Some(count)).await?;
        steps.extend(pending.iter().take(count as usize).cloned().map(Step::Applied));
        if count as usize == pending.len() {
            query::execute_all(db, &script::after_tables_sql()).await?;
            steps.push(Step::Installed(record::repeatable_objects().len()));
        }
        return Ok(());
    }
    let report = state.report();
    if report.differences.is_empty() {
        return record_version(db, &state).await;
    }
    preflight::check_not_migrated_by_newer(&state)?;
    preflight::check_ready(db, &state).await?;
    let plan = Plan::new(db, &state, &report).await?;
    for repair in &plan.statements {
        subject.clone_from(&repair.subject);
        db.execute_unprepared(&repair.sql).await?;
    }
    *subject = None;
    query::execute_all(db, &record::record_sql()).await?;
    check_no_differences(db).await?;
    steps.extend(plan.changes.into_iter().map(|change| match change {
        Change::Created(object) => Step::Created(object),
        Change::Changed(object) => Step::Changed(object),
        Change::Dropped(object) => Step::Dropped(object),
    }));
    Ok(())
}

/// Restores the names of renamed objects in several rounds: a renamed column of a renamed table is found once the table
/// has its name back. Returns the state afterwards.
async fn restore_names(
    db: &DatabaseTransaction,
    subject: &mut Option<Subject>,
    steps: &mut Vec<Step>,
) -> Result<State, DbErr> {
    for _ in 0..RENAME_ROUNDS {
        let state = State::read(db).await?;
        let renames = if state.pending().is_empty() { renames::find(&state) } else { Vec::new() };
        if renames.is_empty() {
            return Ok(state);
        }
        preflight::check_not_migrated_by_newer(&state)?;
        preflight::check_ready(db, &state).await?;
        for rename in renames {
            *subject = Some(Subject { object: rename.object.clone(), table: None, definition: String::new() });
            db.execute_unprepared(&rename.sql).await?;
            steps.push(Step::Renamed(rename.renamed_to, rename.object));
        }
        *subject = None;
    }
    State::read(db).await
}

/// Records this program's version and objects, unless the record has them already, belongs to a newer version (whose
/// schema is the same, because nothing differs), or is not readable.
async fn record_version(db: &DatabaseTransaction, state: &State) -> Result<(), DbErr> {
    let is_up_to_date = !state.record.is_readable
        || preflight::check_not_migrated_by_newer(state).is_err()
        || (state.record.version.as_deref() == Some(env!("CARGO_PKG_VERSION"))
            && record::repeatable_objects().iter().all(|object| state.record.objects.contains(object)));
    if is_up_to_date { Ok(()) } else { query::execute_all(db, &record::record_sql()).await }
}

/// Checks that no differences remain.
async fn check_no_differences(db: &DatabaseTransaction) -> Result<(), DbErr> {
    let remaining = State::read(db).await?.report().differences;
    if remaining.is_empty() {
        return Ok(());
    }
    Err(PreflightError::NotRepairable { found: remaining.iter().map(ToString::to_string).collect() }.into())
}

/// Undoes the last `count` applied migrations.
async fn undo(db: &DatabaseTransaction, count: u32, steps: &mut Vec<Step>) -> Result<(), DbErr> {
    let state = State::read(db).await?;
    let Some(applied) = state.applied.clone() else {
        // `check_ready` fails then, and names the missing privilege.
        return preflight::check_ready(db, &state).await;
    };
    let undone: Vec<String> = applied.iter().rev().take(count as usize).cloned().collect();
    if undone.is_empty() {
        return Ok(());
    }
    preflight::check_ready(db, &state).await?;
    preflight::check_migrations_table(&state)?;
    preflight::check_not_renamed_or_moved(db, &state).await?;
    let keeps_platform = undone.len() < applied.len();
    let belongs_to_platform = |found: &CatalogObject| {
        found.object.contains(" auth.") && !found.object.starts_with("trigger ") || found.object.contains(".sparc_")
    };
    let is_kept_schema = |object: &str| {
        let is_ours = object == "schema auth" || (object == "schema private" && state.environment.creates_private);
        object.starts_with("schema ") && (keeps_platform || !is_ours)
    };
    let dropped: Vec<&CatalogObject> = state
        .found
        .iter()
        .filter(|found| state.is_ours(&found.object) && !is_kept_schema(&found.object))
        .filter(|found| !matches!(manifest::kind(&found.object), "publication" | "publication of" | "job" | "column"))
        .filter(|found| !(keeps_platform && belongs_to_platform(found)))
        .collect();
    dependents::find_cascaded(db, &state, &dropped).await?;
    db.execute_unprepared("SET LOCAL search_path = public").await?;
    query::execute_all(db, &repair::drop_views_and_functions_sql(&state)).await?;
    InnerMigrator::down(db, Some(u32::try_from(undone.len()).unwrap_or(u32::MAX))).await?;
    if keeps_platform {
        db.execute_unprepared(record::FORGET_MIGRATIONS).await?;
    }
    steps.extend(undone.into_iter().map(Step::Undone));
    Ok(())
}

/// The same migrations with SeaORM's own `up`, `down` and `uninstall`, which run inside this module's transaction.
struct InnerMigrator;

#[async_trait::async_trait]
impl MigratorTrait for InnerMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Migrator::migrations()
    }

    fn migration_table_name() -> DynIden {
        Migrator::migration_table_name()
    }
}

/// The applied migrations, and the differences.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The name of each migration, and whether it is applied.
    pub migrations: Vec<(String, bool)>,
    /// The report of a check.
    pub report: Report,
}

/// Reads which migrations are applied, and the differences.
///
/// # Errors
///
/// Those of [`crate::check`].
pub async fn status(db: &SchemaManagerConnection<'_>) -> Result<Status, DbErr> {
    let state = read_state(db).await?;
    let pending = state.pending();
    let migrations = Migrator::migrations()
        .iter()
        .map(|migration| (migration.name().to_owned(), !pending.contains(&migration.name().to_owned())))
        .collect();
    Ok(Status { migrations, report: state.report() })
}
