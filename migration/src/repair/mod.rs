//! The repairs that `up` makes: the statements that bring the database to the state of the manifest.

use std::collections::BTreeSet;

use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

use crate::{
    MigrationError,
    check::{Difference, Report, State},
    dependents,
    manifest::{self, CatalogObject, name_and_table},
    preflight, renames, repeatable,
};

mod access;
mod code_and_constraints;
mod columns;
mod operator_grants;
mod structure;
mod unrepairable;

pub(crate) use structure::{OTHER_OWNER, SCHEMA_OWNER_SQL};

/// The statements that repair all differences. The methods of this type change nothing in the database: they only add
/// statements to the plan, although some of them query the database.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In the order in which they must run.
    pub(crate) statements: Vec<Repair>,
    /// One change for each object that differs.
    pub(crate) changes: Vec<Change>,
    /// Statements that restore the privileges of operators' roles on objects that are dropped and created again.
    operator_grants: Vec<Repair>,
}

/// A statement of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Repair {
    pub(crate) sql: String,
    /// The object that the error message names if the database rejects the statement.
    pub(crate) object: Option<ObjectUnderRepair>,
}

/// The object that a statement repairs.
#[derive(Clone, Debug)]
pub(crate) struct ObjectUnderRepair {
    /// Its name in the manifest; for the recount of counters, a description.
    pub(crate) name: String,
    /// The table whose rows may violate the object's definition: see [`crate::violations`].
    pub(crate) table: Option<String>,
    /// Its definition in the manifest, or `NOT NULL` and the column's name if the statement makes a column NOT NULL.
    /// Empty if no rows can violate it.
    pub(crate) definition: String,
}

/// What the repairs do to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created(String),
    Changed(String),
    Dropped(String),
}

/// What the plan must repair, grouped by the kind of repair.
struct Defects<'a> {
    state: &'a State,
    /// The missing objects, those that the plan drops and creates again, and the privileges that its statements remove.
    to_create: BTreeSet<String>,
    /// The other differences: objects to alter, privileges to revoke, and objects that the plan only drops.
    to_alter_or_drop: Vec<&'a Difference>,
}

impl Defects<'_> {
    fn to_create_of_kind(&self, kind: &'static str) -> impl Iterator<Item = &String> {
        self.to_create.iter().filter(move |object| manifest::kind(object) == kind)
    }

    /// Returns every object to create or alter that is in the manifest, with its definition there.
    fn to_restore(&self) -> impl Iterator<Item = (&str, &str)> {
        let to_alter = self
            .to_alter_or_drop
            .iter()
            .filter(|difference| difference.expected.is_some())
            .map(|difference| &difference.object);
        self.to_create.iter().chain(to_alter).filter_map(|object| {
            let definition = self.state.expected.get(object)?;
            Some((object.as_str(), definition.as_str()))
        })
    }
}

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
        let to_recreate = plan.plan_drops(db, state, report).await?;
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
                (Some(_), Some(_)) if must_be_dropped(difference) => _ = defects.to_create.insert(object),
                _ => defects.to_alter_or_drop.push(difference),
            }
        }
        plan.repair_session_replication_role(&defects);
        plan.restore_privileges_of_owners(&defects);
        plan.recreate_bookkeeping_tables(&mut defects);
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

    /// Adds the statements that drop three kinds of objects: those that cannot be altered in place, those that are no
    /// longer part of the schema, and those that keep the type of a column from changing. With CASCADE, these
    /// statements also drop dependent objects. Also fills `operator_grants`. Returns the dropped objects that are part
    /// of the schema, and so must be created again.
    async fn plan_drops<C: ConnectionTrait>(
        &mut self,
        db: &C,
        state: &State,
        report: &Report,
    ) -> Result<BTreeSet<String>, DbErr> {
        let found_by_name = state.found_by_name();
        let mut to_drop: Vec<&CatalogObject> = report
            .differences
            .iter()
            .filter(|difference| difference.found.is_some() && must_be_dropped(difference))
            .filter_map(|difference| found_by_name.get(difference.object.as_str()).copied())
            .collect();
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
        let to_drop_with_dependents = dependents::find_all_to_drop(db, state, &to_drop).await?;
        // Everything that is dropped and created again, whether it differs or not.
        let all_to_recreate = to_drop
            .iter()
            .map(|found| found.name.as_str())
            .chain(to_drop_with_dependents.iter().map(String::as_str))
            .filter(|object| state.expected.contains_key(*object))
            .filter_map(|object| found_by_name.get(object).copied());
        self.operator_grants = operator_grants::plan_grants(db, &all_to_recreate.collect::<Vec<_>>()).await?;
        // Views and functions are dropped last, because policies, triggers and constraints may use them.
        for kinds in [["policy", "trigger"], ["constraint", "index"], ["view", "function"]] {
            for found in to_drop.iter().filter(|found| kinds.contains(&manifest::kind(&found.name))) {
                self.push_repair(drop_object_sql(found), &found.name, None);
            }
        }
        // No table is dropped. A table among the dependents only loses a part, such as the default of a column.
        to_recreate.extend(
            to_drop_with_dependents
                .into_iter()
                .filter(|object| manifest::kind(object) != "table" && state.expected.contains_key(object)),
        );
        Ok(to_recreate)
    }

    /// If a column of `sparc_migrations` or `sparc_record` is missing or differs, drops that table, so that it is
    /// created again. The rows of `sparc_migrations` can be restored from `sparc_record`, and those of `sparc_record`
    /// from this program.
    fn recreate_bookkeeping_tables(&mut self, defects: &mut Defects<'_>) {
        for name in ["public.sparc_migrations", "private.sparc_record"] {
            let table = format!("table {name}");
            let is_of_table = |object: &str| manifest::table_of(object) == Some(name);
            let is_column = |object: &str| object.starts_with("column ") && is_of_table(object);
            let has_column_defect = defects.to_create.iter().any(|object| is_column(object))
                || defects.to_alter_or_drop.iter().any(|difference| is_column(&difference.object));
            if has_column_defect && !defects.to_create.contains(&table) {
                self.push_repair(format!("DROP TABLE {name}"), &table, None);
                defects.to_create.extend(defects.state.expected.keys().filter(|object| is_of_table(object)).cloned());
                defects.to_alter_or_drop.retain(|difference| !is_of_table(&difference.object));
            }
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

    /// Adds a statement that repairs no single object. If the database rejects the statement, no object is named.
    fn push(&mut self, sql: impl Into<String>) {
        self.statements.push(Repair { sql: sql.into(), object: None });
    }

    /// Adds a statement that repairs one object, which is named if the database rejects the statement. If existing rows
    /// may violate the object's definition, as with constraints and unique indexes, `table_and_definition` must be
    /// given, so that the error message can name those rows.
    fn push_repair(&mut self, sql: String, object: &str, table_and_definition: Option<(&str, &str)>) {
        let (table, definition) = table_and_definition.unzip();
        let object_under_repair = ObjectUnderRepair {
            name: object.to_owned(),
            table: table.map(str::to_owned),
            definition: definition.unwrap_or_default().to_owned(),
        };
        self.statements.push(Repair { sql, object: Some(object_under_repair) });
    }

    /// Restores the comments on schemas, tables and columns.
    fn restore_comments(&mut self, defects: &Defects<'_>) {
        for (object, text) in defects.to_restore().filter(|(object, _)| manifest::kind(object) == "comment") {
            let Some(commented) = object.strip_prefix("comment on ") else { continue };
            let target = match (commented.strip_prefix("column "), name_and_table(commented)) {
                (Some(_), Some((column, table))) => format!("COLUMN {table}.{column}"),
                _ => commented.to_owned(),
            };
            self.push_repair(format!("COMMENT ON {target} IS {}", crate::query::literal(text)), object, None);
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
                    crate::query::literal(name)
                ));
            }
        }
        if defects.to_create.contains("table private.account_gates") {
            self.push(repeatable::CREATE_GATES);
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

/// Whether the object cannot be altered or replaced in place, or is no longer part of the schema. The kinds in the
/// first arm are not dropped: a DROP of a table or a column would lose rows or values (only
/// `recreate_bookkeeping_tables` drops tables, because their rows can be restored), and the others are restored without
/// a DROP.
fn must_be_dropped(difference: &Difference) -> bool {
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

/// Returns the SQL that drops the schema's views and functions, and its policies on `realtime.messages`. Other policies
/// are dropped with their tables, or with the functions that they call; triggers are dropped with the functions.
pub(crate) fn drop_repeatable_objects_sql(state: &State) -> Vec<String> {
    let mut sql = Vec::new();
    for kind in ["policy", "view", "function"] {
        for found in
            state.found_objects.iter().filter(|found| manifest::kind(&found.name) == kind && state.is_ours(&found.name))
        {
            let is_on_realtime = found.name.ends_with(" on realtime.messages");
            // The functions in `auth` belong to the first migration, which drops them when it is undone.
            if (kind == "policy" && !is_on_realtime) || found.name.starts_with("function auth.") {
                continue;
            }
            sql.push(drop_object_sql(found));
        }
    }
    sql
}
