//! The repairs that `up` makes: the statements that bring the database to the state of the manifest.

use std::collections::BTreeSet;

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

use crate::{
    PreflightError,
    check::{Difference, Report, State},
    dependents,
    manifest::{self, CatalogObject, name_and_table},
    preflight, renames, repeatable,
};

mod access;
mod code;
mod columns;
mod operator_grants;
mod structure;

/// The statements, in order, and one change for each object that they concern.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) statements: Vec<Repair>,
    pub(crate) changes: Vec<Change>,
    /// Statements that restore the privileges of an operator's roles on objects that are dropped and created again.
    operator_grants: Vec<Repair>,
}

/// A statement, and the object that the error names if the database rejects it.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    pub(crate) sql: String,
    pub(crate) subject: Option<Subject>,
}

/// The object that a statement concerns. If `table` is set, rows of that table may violate the object's definition: see
/// [`crate::violations`].
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) object: String,
    pub(crate) table: Option<String>,
    pub(crate) definition: String,
}

/// What the repairs do to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created(String),
    Changed(String),
    Dropped(String),
}

/// The objects to create, and the differences to repair in place.
struct Work<'a> {
    state: &'a State,
    /// Includes the objects that are dropped to be created again.
    missing: BTreeSet<String>,
    changed: Vec<&'a Difference>,
}

impl Work<'_> {
    fn missing_of_kind(&self, kind: &'static str) -> impl Iterator<Item = &String> {
        self.missing.iter().filter(move |object| manifest::kind(object) == kind)
    }

    /// Returns every object that must match the manifest, with its definition there.
    fn to_repair(&self) -> impl Iterator<Item = (&str, &str)> {
        let changed =
            self.changed.iter().filter(|difference| difference.expected.is_some()).map(|difference| &difference.object);
        self.missing.iter().chain(changed).filter_map(|object| {
            let definition = self.state.expected.get(object)?;
            Some((object.as_str(), definition.as_str()))
        })
    }
}

impl Plan {
    /// Plans the repairs. It reads what depends on objects to be dropped, and changes nothing.
    pub(crate) async fn new<C: ConnectionTrait>(db: &C, state: &State, report: &Report) -> Result<Self, DbErr> {
        let unrepairable: Vec<String> = report
            .differences
            .iter()
            .filter(|difference| is_unrepairable(difference))
            .map(unrepairable_reason)
            .collect();
        if !unrepairable.is_empty() {
            return Err(PreflightError::NotRepairable { found: unrepairable }.into());
        }
        let swapped = renames::swapped_names(state);
        if !swapped.is_empty() {
            return Err(PreflightError::SwappedNames { found: swapped }.into());
        }
        let missing: Vec<&str> = report
            .differences
            .iter()
            .filter(|difference| difference.found.is_none())
            .map(|difference| difference.object.as_str())
            .collect();
        preflight::check_not_moved(db, state, &missing).await?;
        preflight::check_missing_names_are_free(db, state, &missing).await?;

        let mut plan = Self::default();
        let to_recreate = plan.drop_for_recreation(db, state, report).await?;
        let mut work = Work { state, missing: to_recreate, changed: Vec::new() };
        for difference in &report.differences {
            let object = difference.object.clone();
            plan.changes.push(match (&difference.found, &difference.expected) {
                (None, _) => Change::Created(object.clone()),
                (Some(_), None) if !object.starts_with("grant ") => Change::Dropped(object.clone()),
                _ => Change::Changed(object.clone()),
            });
            match (&difference.found, &difference.expected) {
                (None, Some(_)) => _ = work.missing.insert(object),
                (Some(_), Some(_)) if must_be_dropped(difference) => _ = work.missing.insert(object),
                _ => work.changed.push(difference),
            }
        }
        plan.recreate_bookkeeping_tables(&mut work);
        plan.add_lost_privileges(&mut work);
        plan.repair_structure(&work);
        plan.repair_code(&work);
        plan.repair_access(&work);
        plan.restore_comments(&work);
        plan.restore_rows(&work);
        let operator_grants = std::mem::take(&mut plan.operator_grants);
        plan.statements.extend(operator_grants);
        Ok(plan)
    }

    /// Plans to drop what cannot be altered in place or is no longer part of the schema. Returns the objects of the
    /// schema that must be created again although they do not differ: they are dropped with another, or a column's type
    /// cannot change while they exist.
    async fn drop_for_recreation<C: ConnectionTrait>(
        &mut self,
        db: &C,
        state: &State,
        report: &Report,
    ) -> Result<BTreeSet<String>, DbErr> {
        let found = state.found_by_name();
        let mut dropped: Vec<&CatalogObject> = report
            .differences
            .iter()
            .filter(|difference| difference.found.is_some() && must_be_dropped(difference))
            .filter_map(|difference| found.get(difference.object.as_str()).copied())
            .collect();
        // The type of a column cannot change while policies, triggers or views use it.
        let retyped_tables: Vec<&str> = report
            .differences
            .iter()
            .filter(|difference| columns::changes_type(difference))
            .filter_map(|difference| manifest::table_of(&difference.object))
            .collect();
        let mut to_recreate = BTreeSet::new();
        for object in state.expected.keys() {
            let blocks_retype = match manifest::kind(object) {
                "policy" | "trigger" => {
                    name_and_table(object).is_some_and(|(_, table)| retyped_tables.contains(&table))
                }
                "view" => !retyped_tables.is_empty(),
                _ => false,
            };
            if let (true, Some(found)) = (blocks_retype, found.get(object.as_str())) {
                to_recreate.insert(object.clone());
                if !dropped.iter().any(|other| other.object == *object) {
                    dropped.push(found);
                }
            }
        }
        let cascaded = dependents::find_cascaded(db, state, &dropped).await?;
        let recreated = dropped
            .iter()
            .map(|found| found.object.as_str())
            .chain(cascaded.iter().map(String::as_str))
            .filter(|object| state.expected.contains_key(*object))
            .filter_map(|object| found.get(object).copied());
        self.operator_grants = operator_grants::restore_statements(db, &recreated.collect::<Vec<_>>()).await?;
        for kinds in [["policy", "trigger"], ["constraint", "index"], ["view", "function"]] {
            for found in dropped.iter().filter(|found| kinds.contains(&manifest::kind(&found.object))) {
                self.push_for(drop_statement(found), &found.object, None);
            }
        }
        to_recreate.extend(cascaded.into_iter().filter(|object| state.expected.contains_key(object)));
        Ok(to_recreate)
    }

    /// Creates the list of migrations or the record again if one of its columns is wrong. The list can be restored from
    /// the record, and the record from this program.
    fn recreate_bookkeeping_tables(&mut self, work: &mut Work<'_>) {
        for name in ["public.sparc_migrations", "private.sparc_record"] {
            let table = format!("table {name}");
            let is_of_table = |object: &str| manifest::table_of(object) == Some(name);
            let is_column = |object: &str| object.starts_with("column ") && is_of_table(object);
            let has_wrong_column = work.missing.iter().any(|object| is_column(object))
                || work.changed.iter().any(|difference| is_column(&difference.object));
            if has_wrong_column && !work.missing.contains(&table) {
                self.push_for(format!("DROP TABLE {name}"), &table, None);
                work.missing.extend(work.state.expected.keys().filter(|object| is_of_table(object)).cloned());
                work.changed.retain(|difference| !is_of_table(&difference.object));
            }
        }
    }

    /// Adds to the work the privileges that the repairs lose: an object that is created again has none, and one that
    /// changes its owner loses those of the old owner.
    fn add_lost_privileges(&mut self, work: &mut Work<'_>) {
        let loses_privileges = |name: &str| {
            let view = name.replacen("table ", "view ", 1);
            work.missing.contains(name)
                || work.missing.contains(&view)
                || work.changed.iter().any(|difference| {
                    structure::has_other_owner(difference) && [name, &view].contains(&&*difference.object)
                })
        };
        let privileges: Vec<String> = work
            .state
            .expected
            .keys()
            .filter(|object| {
                let rest = object.strip_prefix("grant on ").and_then(|rest| rest.rsplit_once(" to "));
                rest.is_some_and(|(name, _)| loses_privileges(name))
            })
            .cloned()
            .collect();
        work.missing.extend(privileges);
    }

    fn push(&mut self, sql: impl Into<String>) {
        self.statements.push(Repair { sql: sql.into(), subject: None });
    }

    /// Adds a statement about one object, with the object's table and definition if rows may violate the definition.
    fn push_for(&mut self, sql: String, object: &str, table_and_definition: Option<(&str, &str)>) {
        let (table, definition) = table_and_definition.unzip();
        let subject = Subject {
            object: object.to_owned(),
            table: table.map(str::to_owned),
            definition: definition.unwrap_or_default().to_owned(),
        };
        self.statements.push(Repair { sql, subject: Some(subject) });
    }

    /// Restores the comments on schemas, tables and columns.
    fn restore_comments(&mut self, work: &Work<'_>) {
        for (object, text) in work.to_repair().filter(|(object, _)| manifest::kind(object) == "comment") {
            let Some(named) = object.strip_prefix("comment on ") else { continue };
            let target = match (named.strip_prefix("column "), name_and_table(named)) {
                (Some(_), Some((column, table))) => format!("COLUMN {table}.{column}"),
                _ => named.to_owned(),
            };
            self.push_for(format!("COMMENT ON {target} IS {}", crate::query::literal(text)), object, None);
        }
    }

    /// Restores the rows and counters that were lost with dropped objects.
    fn restore_rows(&mut self, work: &Work<'_>) {
        if work.missing.contains("table public.sparc_migrations")
            || work.missing.iter().any(|object| object.starts_with("migration "))
        {
            for name in work.state.applied.iter().flatten() {
                self.push(format!(
                    "INSERT INTO public.sparc_migrations (version, applied_at)
VALUES ({}, extract(epoch FROM now())::bigint)
ON CONFLICT DO NOTHING",
                    crate::query::literal(name)
                ));
            }
        }
        if work.missing.contains("table private.account_gates") {
            self.push(repeatable::CREATE_GATES);
        }
        // Accounts may have signed up, changed or been deleted while a trigger was missing, disabled or ineffective.
        let observes_accounts = |object: &str| match manifest::kind(object) {
            "trigger" => object.ends_with(" on auth.users"),
            "function" => object.starts_with("function private.handle_"),
            _ => false,
        };
        if work.to_repair().any(|(object, _)| observes_accounts(object)) {
            self.push(repeatable::BACKFILL);
        }
        // A counter that was created again must count the existing rows.
        let may_have_counter = |object: &String| {
            matches!(manifest::kind(object), "table" | "column")
                && manifest::table_of(object).is_some_and(|table| table.starts_with("public."))
                && !object.ends_with("public.sparc_migrations")
        };
        if work.missing.iter().any(may_have_counter) {
            self.push_for(repeatable::recount_sql(), "the counters of limits (migration/sql/recount.sql)", None);
        }
    }
}

/// Whether no statement can repair the difference without losing rows.
fn is_unrepairable(difference: &Difference) -> bool {
    let (Some(actual), Some(expected)) = (&difference.found, &difference.expected) else { return false };
    match manifest::kind(&difference.object) {
        "type" => !structure::has_other_owner(difference) && structure::enum_changes(actual, expected).is_none(),
        "domain" => !structure::has_other_owner(difference),
        _ => false,
    }
}

fn unrepairable_reason(difference: &Difference) -> String {
    match manifest::kind(&difference.object) {
        "type" => format!(
            "{difference} (PostgreSQL can neither remove an enum value nor change the order: rename the type, create it with \
             the values of the manifest, and change the columns to it)"
        ),
        _ => difference.to_string(),
    }
}

/// Whether the object cannot be replaced in place, or is no longer part of the schema. Kinds that hold rows are never
/// dropped, and kinds that are restored without a DROP need not be.
fn must_be_dropped(difference: &Difference) -> bool {
    let signature = |definition: &str| definition.split(" language ").next().unwrap_or_default().to_owned();
    match (manifest::kind(&difference.object), &difference.found, &difference.expected) {
        (
            "grant" | "row security" | "job" | "publication" | "publication of" | "column" | "table" | "type"
            | "domain" | "schema" | "sequence" | "setting" | "comment" | "role",
            ..,
        ) => false,
        (_, Some(_), None) => true,
        ("function", Some(actual), Some(expected)) => signature(actual) != signature(expected),
        ("view" | "index" | "constraint", Some(_), Some(_)) => true,
        // Triggers on a platform's accounts are replaced, because only the owner of the table can drop them.
        ("trigger", Some(_), Some(_)) => !difference.object.ends_with(" on auth.users"),
        _ => false,
    }
}

fn drop_statement(found: &CatalogObject) -> String {
    let (kind, rest) = found.object.split_once(' ').unwrap_or_default();
    match (kind, name_and_table(&found.object)) {
        // Foreign keys that reference it are dropped too, and created again.
        ("constraint", Some((name, table))) => format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name} CASCADE"),
        ("index", Some((name, table))) => {
            let schema = table.split('.').next().unwrap_or("public");
            format!("DROP INDEX IF EXISTS {schema}.{name}")
        }
        ("trigger" | "policy", Some(_)) => format!("DROP {kind} IF EXISTS {rest}"),
        ("view", _) if found.definition.starts_with("materialized") => {
            format!("DROP MATERIALIZED VIEW IF EXISTS {rest} CASCADE")
        }
        // The schema's policies, triggers and checks that use it are dropped too; `up` creates them again.
        ("function", _) => format!("DROP ROUTINE IF EXISTS {rest} CASCADE"),
        _ => format!("DROP {kind} IF EXISTS {rest} CASCADE"),
    }
}

/// Returns the SQL that drops the schema's views and functions, and its policies on `realtime.messages`. Its other
/// policies are dropped with their tables.
pub(crate) fn drop_views_and_functions_sql(state: &State) -> Vec<String> {
    let mut sql = Vec::new();
    for kind in ["policy", "view", "function"] {
        for found in
            state.found.iter().filter(|found| manifest::kind(&found.object) == kind && state.is_ours(&found.object))
        {
            let is_on_realtime = found.object.ends_with(" on realtime.messages");
            if (kind == "policy" && !is_on_realtime) || found.object.starts_with("function auth.") {
                continue;
            }
            // IF EXISTS, because it may have been dropped with an earlier one.
            sql.push(drop_statement(found));
        }
    }
    sql
}
