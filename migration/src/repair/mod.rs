//! The repairs that `up` makes: the statements that bring the database to the state of the manifest.

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

use crate::{
    MigrationError,
    catalog::CatalogObject,
    check::Report,
    manifest::{self, name_and_table},
    preflight, query, renames, repeatable,
    state::State,
};

mod access;
mod code_and_constraints;
mod columns;
mod drops;
mod operator_grants;
mod plan;
mod structure;
mod unrepairable;

pub(crate) use drops::{drop_functions_views_and_policies_sql, revoke_access_to_tables_sql};
use plan::Defects;
pub(crate) use plan::{Change, ObjectUnderRepair, Plan};

impl Plan {
    /// Plans the repairs, and changes nothing. It queries the database, and returns an error if a difference cannot be
    /// repaired, if the name of a missing object is taken, or if a DROP would affect an object that an operator has
    /// added.
    pub(crate) async fn new<C: ConnectionTrait>(db: &C, state: &State, report: &Report) -> Result<Self, DbErr> {
        let unrepairable: Vec<String> =
            report.differences.iter().filter_map(unrepairable::describe_if_unrepairable).collect();
        if !unrepairable.is_empty() {
            return Err(MigrationError::NotRepairable { found: unrepairable }.into());
        }
        let swapped = renames::describe_swapped_names(state);
        if !swapped.is_empty() {
            return Err(MigrationError::SwappedNames { found: swapped }.into());
        }
        let missing: Vec<&str> = report
            .differences
            .iter()
            .filter(|difference| difference.found.is_none())
            .map(|difference| difference.object.as_str())
            .collect();
        preflight::check_not_moved(db, state, &missing).await?;
        preflight::check_names_of_missing_objects_are_free(db, state, &missing).await?;

        let mut plan = Self::default();
        let bookkeeping_tables = bookkeeping_tables_to_recreate(state, report);
        let to_recreate = plan.plan_drops(db, state, report, &bookkeeping_tables).await?;
        let mut defects = Defects { state, to_create: to_recreate, to_alter_or_drop: Vec::new() };
        for difference in &report.differences {
            let object = difference.object.clone();
            plan.changes.push(match (&difference.found, &difference.expected) {
                (None, _) => Change::Created(object.clone()),
                (Some(_), None) if !object.starts_with("grant ") => Change::Dropped(object.clone()),
                _ => Change::Changed(object.clone()),
            });
            match (&difference.found, &difference.expected) {
                (None, Some(_)) => _ = defects.to_create.insert(object),
                (Some(_), Some(_)) if drops::must_be_dropped(difference) => _ = defects.to_create.insert(object),
                _ => defects.to_alter_or_drop.push(difference),
            }
        }
        plan.repair_session_replication_role(&defects);
        plan.restore_privileges_of_owners(&defects);
        plan.recreate_bookkeeping_tables(&mut defects, &bookkeeping_tables);
        plan.add_lost_privileges(&mut defects);
        plan.repair_structure(&defects);
        plan.repair_code_and_constraints(&defects);
        plan.repair_access(&defects);
        plan.restore_comments(&defects);
        plan.restore_rows(&defects);
        let operator_grants = std::mem::take(&mut plan.operator_grants);
        plan.statements.extend(operator_grants);
        Ok(plan)
    }

    /// Drops the tables, so that they are created again.
    fn recreate_bookkeeping_tables(&mut self, defects: &mut Defects<'_>, bookkeeping_tables: &[&CatalogObject]) {
        for table in bookkeeping_tables {
            let is_of_table = |object: &str| manifest::table_of(object) == manifest::table_of(&table.name);
            self.push_repair(format!("DROP {}", table.name), &table.name, None);
            defects.to_create.extend(defects.state.expected.keys().filter(|object| is_of_table(object)).cloned());
            defects.to_alter_or_drop.retain(|difference| !is_of_table(&difference.object));
        }
    }

    /// Adds to `to_create` the privileges that the repairs remove: an object that is created again has no
    /// privileges, and a change of the owner removes those of the old owner.
    fn add_lost_privileges(&mut self, defects: &mut Defects<'_>) {
        let loses_privileges = |name: &str| {
            // In the manifest, a privilege on a view is a `grant on table`, because GRANT calls views tables.
            let view = name.replacen("table ", "view ", 1);
            defects.to_create.contains(name)
                || defects.to_create.contains(&view)
                || defects.to_alter_or_drop.iter().any(|difference| {
                    structure::needs_owner_change(difference) && [name, &view].contains(&&*difference.object)
                })
        };
        let privileges: Vec<String> = defects
            .state
            .expected
            .keys()
            .filter(|object| {
                let name_and_role = object.strip_prefix("grant on ").and_then(|rest| rest.rsplit_once(" to "));
                name_and_role.is_some_and(|(name, _)| loses_privileges(name))
            })
            .cloned()
            .collect();
        defects.to_create.extend(privileges);
    }

    /// Restores the comments on schemas, tables and columns.
    fn restore_comments(&mut self, defects: &Defects<'_>) {
        for (object, text) in defects.to_restore().filter(|(object, _)| manifest::kind(object) == "comment") {
            let Some(commented) = object.strip_prefix("comment on ") else { continue };
            let target = match (commented.strip_prefix("column "), name_and_table(commented)) {
                (Some(_), Some((column, table))) => format!("COLUMN {table}.{column}"),
                _ => commented.to_owned(),
            };
            self.push_repair(format!("COMMENT ON {target} IS {}", query::literal(text)), object, None);
        }
    }

    /// Restores what may be wrong because objects were missing: the list of migrations, the accounts' rows in
    /// `private.account_gates`, the accounts' profiles, and the counters on which limits depend.
    fn restore_rows(&mut self, defects: &Defects<'_>) {
        if defects.to_create.contains("table public.sparc_migrations")
            || defects.to_create.iter().any(|object| object.starts_with("migration "))
        {
            for name in defects.state.applied_migrations.iter().flatten() {
                self.push(format!(
                    "INSERT INTO public.sparc_migrations (version, applied_at)
VALUES ({}, extract(epoch FROM now())::bigint)
ON CONFLICT DO NOTHING",
                    query::literal(name)
                ));
            }
        }
        if defects.to_create.contains("table private.account_gates") {
            self.push(repeatable::INSERT_GATES);
        }
        // Accounts may have signed up, changed or been deleted while a trigger was missing, disabled or ineffective.
        let syncs_profiles_with_accounts = |object: &str| match manifest::kind(object) {
            "trigger" => object.ends_with(" on auth.users"),
            "function" => object.starts_with("function private.handle_"),
            _ => false,
        };
        if defects.to_restore().any(|(object, _)| syncs_profiles_with_accounts(object)) {
            self.push(repeatable::BACKFILL);
        }
        // A column that was created again may be a counter, which must count the existing rows.
        let may_have_counter = |object: &String| {
            matches!(manifest::kind(object), "table" | "column")
                && manifest::table_of(object).is_some_and(|table| table.starts_with("public."))
                && !object.ends_with("public.sparc_migrations")
        };
        if defects.to_create.iter().any(may_have_counter) {
            self.push_repair(
                repeatable::recount_sql(),
                "the counters on which limits depend (migration/sql/recount.sql)",
                None,
            );
        }
    }
}

/// Returns the tables among `sparc_migrations` and `sparc_record` of which a column is missing or differs. They are
/// dropped and created again: the rows of `sparc_migrations` can be restored from `sparc_record`, and those of
/// `sparc_record` from this program.
fn bookkeeping_tables_to_recreate<'a>(state: &'a State, report: &Report) -> Vec<&'a CatalogObject> {
    let is_bookkeeping_table =
        |object: &str| ["table public.sparc_migrations", "table private.sparc_record"].contains(&object);
    let has_column_defect = |table: &CatalogObject| {
        report.differences.iter().any(|difference| {
            difference.object.starts_with("column ")
                && manifest::table_of(&difference.object) == manifest::table_of(&table.name)
        })
    };
    state.found_objects.iter().filter(|found| is_bookkeeping_table(&found.name) && has_column_defect(found)).collect()
}
