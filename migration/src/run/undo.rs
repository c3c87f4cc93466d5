//! Undoing migrations, for `down`, `reset` and `refresh`, and the number of accounts that lose their data by it.

use std::collections::BTreeSet;

use sea_orm_migration::{
    MigratorTrait, SchemaManagerConnection,
    sea_orm::{self, ConnectionTrait, DatabaseTransaction, DbErr, FromQueryResult},
};

use super::{
    command::{Command, SchemaChange},
    inner_migrator::InnerMigrator,
    transaction::in_read_only_transaction,
};
use crate::{
    catalog::CatalogObject,
    dependents, manifest,
    migrations::name_of_tables_migration,
    preflight, query,
    record::{self, AppliedMigrations, Record},
    repair,
    state::State,
    table_access,
};

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
        if !table_access::has_migrations_table(transaction).await?
            || count_migrations_after_tables(transaction).await? >= max_undo_count
        {
            return Ok(0);
        }
        // The larger of the counts of `public.users` and `auth.users`, because the role may be able to read only one.
        let mut account_count = 0;
        for schema in ["public", "auth"] {
            if table_access::can_read_all_rows(transaction, schema, "users").await? {
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
    let later_count = applied.iter().filter(|name| name.as_str() > name_of_tables_migration()).count();
    Ok(u32::try_from(later_count).unwrap_or(u32::MAX))
}

/// Undoes the last `count` applied migrations. Keeps the migrations table, `public.sparc_migrations`;
/// `will_drop_migrations_table` says whether the command drops that table afterwards. If so, the error about dependent
/// objects also names those that depend on that table.
pub(super) async fn undo(
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
    let drops_tables = to_undo.iter().any(|name| name == name_of_tables_migration());
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
pub(super) async fn drop_migrations_table(db: &DatabaseTransaction) -> Result<(), DbErr> {
    let state = State::read(db).await?;
    preflight::check_migrations_table_is_ours(&state)?;
    let Some(table) = state.found_objects.iter().find(|found| found.name == "table public.sparc_migrations") else {
        return Ok(());
    };
    dependents::find_dropped_by_cascade(db, &state, &[table]).await?;
    db.execute_unprepared("SET LOCAL search_path = public").await?;
    InnerMigrator::uninstall(db).await
}
