//! What is dropped: by a repair, and by the commands that undo migrations.

use std::collections::BTreeSet;

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

use super::{columns, operator_grants, plan::Plan};
use crate::{
    catalog::CatalogObject,
    check::{Difference, Report},
    dependents,
    manifest::{self, name_and_table},
    repeatable,
    state::State,
};

impl Plan {
    /// Adds the statements that drop three kinds of objects: those that cannot be altered in place, those that are no
    /// longer part of the schema, and those that keep the type of a column from changing. With CASCADE, these
    /// statements also drop dependent objects. Also fills `operator_grants`, with the privileges on
    /// `bookkeeping_tables` too. Returns the dropped objects that are part of the schema, and so must be created again.
    pub(super) async fn plan_drops<C: ConnectionTrait>(
        &mut self,
        db: &C,
        state: &State,
        report: &Report,
        bookkeeping_tables: &[&CatalogObject],
    ) -> Result<BTreeSet<String>, DbErr> {
        let found_by_name = state.found_by_name();
        let mut to_drop: Vec<&CatalogObject> = report
            .differences
            .iter()
            .filter(|difference| difference.found.is_some() && must_be_dropped(difference))
            .filter_map(|difference| found_by_name.get(difference.object.as_str()).copied())
            .collect();
        // Only the owner of `auth.users` can drop a trigger on it. On Supabase that is not the role that migrates, so
        // the trigger is dropped with its function.
        if !state.environment.has_platform_stand_in {
            for object in &mut to_drop {
                if let Some(function) = function_of_trigger_on_accounts(object) {
                    *object = found_by_name.get(function.as_str()).copied().unwrap_or(*object);
                }
            }
            to_drop.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            to_drop.dedup_by(|one, other| one.name == other.name);
        }
        // The type of a column cannot change while policies, triggers or views use the column.
        let tables_with_type_changes: Vec<&str> = report
            .differences
            .iter()
            .filter(|difference| columns::changes_type(difference))
            .filter_map(|difference| manifest::table_of(&difference.object))
            .collect();
        let mut to_recreate = BTreeSet::new();
        for object in state.expected.keys() {
            let blocks_type_change = match manifest::kind(object) {
                "policy" | "trigger" => {
                    name_and_table(object).is_some_and(|(_, table)| tables_with_type_changes.contains(&table))
                }
                "view" => !tables_with_type_changes.is_empty(),
                _ => false,
            };
            if let (true, Some(found)) = (blocks_type_change, found_by_name.get(object.as_str())) {
                to_recreate.insert(object.clone());
                if !to_drop.iter().any(|other| other.name == *object) {
                    to_drop.push(found);
                }
            }
        }
        let to_drop_with_dependents = dependents::find_dropped_by_cascade(db, state, &to_drop).await?;
        // The views, functions and bookkeeping tables that are dropped and created again, whether they differ or not.
        // Dropping them also drops the privileges of operators' roles, which `operator_grants` restores.
        let grant_targets = to_drop
            .iter()
            .map(|found| found.name.as_str())
            .chain(to_drop_with_dependents.iter().map(String::as_str))
            .filter(|object| matches!(manifest::kind(object), "view" | "function"))
            .filter(|object| state.expected.contains_key(*object))
            .filter_map(|object| found_by_name.get(object).copied())
            .chain(bookkeeping_tables.iter().copied());
        self.operator_grants = operator_grants::plan_grants(db, state, &grant_targets.collect::<Vec<_>>()).await?;
        // Views and functions are dropped last, because policies, triggers and constraints may use them.
        for kinds in [["policy", "trigger"], ["constraint", "index"], ["view", "function"]] {
            for found in to_drop.iter().filter(|found| kinds.contains(&manifest::kind(&found.name))) {
                self.push_repair(drop_object_sql(found), &found.name, None);
            }
        }
        // Tables and columns need not be created again, because none is dropped here. If a table is among the
        // dependents (and with it all its columns), it only loses a part, such as the default of a column. None of the
        // schema's own defaults uses a function or view of the schema, so a default that is dropped was set by hand,
        // and `alter_column` restores the column.
        to_recreate.extend(to_drop_with_dependents.into_iter().filter(|object| {
            !matches!(manifest::kind(object), "table" | "column") && state.expected.contains_key(object)
        }));
        Ok(to_recreate)
    }
}

/// Whether the object cannot be altered or replaced in place, or is no longer part of the schema. The kinds in the
/// first arm are not dropped: a DROP of a table or a column would lose rows or values (only
/// `recreate_bookkeeping_tables` drops tables, because their rows can be restored), and the others are restored without
/// a DROP.
pub(super) fn must_be_dropped(difference: &Difference) -> bool {
    let arguments_and_result = |definition: &str| definition.split(" language ").next().unwrap_or_default().to_owned();
    match (manifest::kind(&difference.object), &difference.found, &difference.expected) {
        (
            "grant"
            | "row security"
            | "job"
            | "publication"
            | "publication of"
            | "column"
            | "table"
            | "type"
            | "domain"
            | "schema"
            | "sequence"
            | "setting"
            | "comment"
            | "role"
            | "session_replication_role",
            ..,
        ) => false,
        (_, Some(_), None) => true,
        ("function", Some(actual), Some(expected)) => arguments_and_result(actual) != arguments_and_result(expected),
        ("view" | "index" | "constraint", Some(_), Some(_)) => true,
        // Triggers on `auth.users` are replaced, because only that table's owner can drop them, and on Supabase the
        // role that migrates is not its owner.
        ("trigger", Some(_), Some(_)) => !difference.object.ends_with(" on auth.users"),
        _ => false,
    }
}

/// Returns the function that a trigger on `auth.users` executes, as the manifest names it. `None` for other objects. A
/// trigger's function has no arguments.
fn function_of_trigger_on_accounts(object: &CatalogObject) -> Option<String> {
    if !(object.name.starts_with("trigger ") && object.name.ends_with(" on auth.users")) {
        return None;
    }
    let (_, call) = object.definition.rsplit_once(" EXECUTE FUNCTION ")?;
    Some(format!("function {}()", call.split('(').next()?))
}

/// Returns a DROP with IF EXISTS, because the CASCADE of an earlier DROP may have dropped the object.
fn drop_object_sql(found: &CatalogObject) -> String {
    let (kind, target) = found.name.split_once(' ').unwrap_or_default();
    match (kind, name_and_table(&found.name)) {
        // Foreign keys that refer to the constraint are dropped too; `up` creates them again.
        ("constraint", Some((name, table))) => format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name} CASCADE"),
        ("index", Some((name, table))) => {
            let schema = table.split('.').next().unwrap_or("public");
            format!("DROP INDEX IF EXISTS {schema}.{name}")
        }
        ("trigger" | "policy", Some(_)) => format!("DROP {kind} IF EXISTS {target}"),
        ("view", _) if found.definition.starts_with("materialized") => {
            format!("DROP MATERIALIZED VIEW IF EXISTS {target} CASCADE")
        }
        // The schema's policies, triggers and checks that call the function are dropped too; `up` creates them again.
        ("function", _) => format!("DROP ROUTINE IF EXISTS {target} CASCADE"),
        _ => format!("DROP {kind} IF EXISTS {target} CASCADE"),
    }
}

/// Returns the SQL that drops the schema's policies, views and functions. Triggers are dropped with the functions.
pub(crate) fn drop_functions_views_and_policies_sql(state: &State) -> Vec<String> {
    let mut sql = Vec::new();
    for kind in ["policy", "view", "function"] {
        for found in
            state.found_objects.iter().filter(|found| manifest::kind(&found.name) == kind && state.is_ours(&found.name))
        {
            // The functions in `auth` belong to the first migration, which drops them when it is undone.
            if !found.name.starts_with("function auth.") {
                sql.push(drop_object_sql(found));
            }
        }
    }
    sql
}

/// Returns the SQL that revokes the privileges of PUBLIC and the API roles on the schema's tables in `public`. It is
/// for commands that drop the functions but keep the tables. Then the triggers, policies and CHECK constraints that
/// call the functions are dropped too, so nobody may have access until the next `up` creates all of them again and
/// grants the privileges.
pub(crate) fn revoke_access_to_tables_sql(state: &State) -> Vec<String> {
    let is_our_public_table = |object: &str| object.starts_with("table public.") && state.is_ours(object);
    state
        .found_objects
        .iter()
        .filter(|found| is_our_public_table(&found.name))
        .map(|found| format!("REVOKE ALL ON {} FROM {}", found.name, repeatable::PUBLIC_AND_API_ROLES))
        .collect()
}
