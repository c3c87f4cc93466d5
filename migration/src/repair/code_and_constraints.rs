//! Repairs of code (the functions, views, triggers and policies that the files under `sql/` create), of constraints and
//! indexes, and of replica identities. Functions and views are created first, then constraints and indexes. Then
//! replica identities are set, and last, triggers and policies are created.

use std::collections::BTreeSet;

use super::plan::{Defects, Plan};
use crate::{
    manifest::{self, name_and_table},
    repeatable,
    state::State,
    statements::{Statement, Target},
};

impl Plan {
    pub(super) fn repair_code_and_constraints(&mut self, defects: &Defects<'_>) {
        let to_restore: BTreeSet<&str> = defects.to_restore().map(|(object, _)| object).collect();
        let needs_policy_do_blocks =
            created_in_do_blocks(defects.state, "policy").any(|object| to_restore.contains(object));
        let needs_trigger_do_blocks =
            created_in_do_blocks(defects.state, "trigger").any(|object| to_restore.contains(object));
        let is_needed = |statement: &Statement| match statement.target {
            // Of the statements without a target (DO blocks, COMMENT, SET), only DO blocks contain these texts.
            Target::Other => {
                (needs_policy_do_blocks && statement.sql.contains("CREATE POLICY"))
                    || (needs_trigger_do_blocks && statement.sql.contains(" TRIGGER "))
            }
            _ => object_created_by(statement, &to_restore).is_some(),
        };
        let mut statements = repeatable::statements();
        if defects.state.environment.has_platform_stand_in {
            statements.extend(repeatable::platform_stand_in_statements());
        }
        let (functions_and_views, other_statements): (Vec<Statement>, Vec<Statement>) = statements
            .into_iter()
            .filter(is_needed)
            .partition(|statement| matches!(statement.target, Target::Function(_) | Target::View(_)));
        for statement in &functions_and_views {
            self.push_statement(statement, &to_restore);
        }
        self.create_constraints_and_indexes(defects);
        self.restore_replica_identities(defects);
        // A DO block creates all its policies, even if only one is missing, and may fail at one that exists.
        if needs_policy_do_blocks {
            for (name, table) in created_in_do_blocks(defects.state, "policy").filter_map(name_and_table) {
                self.push(format!("DROP POLICY IF EXISTS {name} ON {table}"));
            }
        }
        for statement in &other_statements {
            if let Target::Policy(name, table) = &statement.target {
                self.push(format!("DROP POLICY IF EXISTS \"{}\" ON {table}", name.replace('"', "\"\"")));
            }
            self.push_statement(statement, &to_restore);
        }
    }

    fn push_statement(&mut self, statement: &Statement, to_restore: &BTreeSet<&str>) {
        match object_created_by(statement, to_restore) {
            Some(object) => self.push_repair(statement.sql.to_owned(), object, None),
            None => self.push(statement.sql),
        }
    }

    /// Creates constraints and indexes: foreign keys last, because each needs a unique key or index in the table to
    /// which it refers.
    fn create_constraints_and_indexes(&mut self, defects: &Defects<'_>) {
        for (kind, is_foreign_key) in [("constraint", false), ("index", false), ("constraint", true)] {
            for (object, definition) in defects.to_restore().filter(|(object, _)| manifest::kind(object) == kind) {
                let Some((name, table)) = name_and_table(object) else { continue };
                let table_and_definition = Some((table, definition));
                if kind == "index" {
                    self.push_repair(definition.to_owned(), object, table_and_definition);
                } else if definition.starts_with("FOREIGN KEY") == is_foreign_key {
                    // A table that was just created already has some of its constraints.
                    let sql = format!(
                        "DO $do$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = '{table}'::regclass AND conname = {}) THEN
    ALTER TABLE {table} ADD CONSTRAINT {name} {definition};
  END IF;
END
$do$",
                        crate::query::literal(&name.trim_matches('"').replace("\"\"", "\""))
                    );
                    self.push_repair(sql, object, table_and_definition);
                }
            }
        }
    }

    /// Sets the replica identity of each table that is restored, and of each table whose replica identity is an index
    /// that is restored: when the index was dropped, the table lost its replica identity.
    fn restore_replica_identities(&mut self, defects: &Defects<'_>) {
        let must_set_replica_identity = |table_object: &str, definition: &str| {
            defects.to_restore().any(|(object, _)| {
                object == table_object
                    || matches!(manifest::kind(object), "constraint" | "index")
                        && name_and_table(object).is_some_and(|(name, table)| {
                            table_object.strip_prefix("table ") == Some(table)
                                && definition.contains(&format!("index {name}"))
                        })
            })
        };
        let tables = defects.state.expected.iter().filter(|(object, _)| object.starts_with("table "));
        for (object, definition) in tables.filter(|(object, definition)| must_set_replica_identity(object, definition))
        {
            self.set_replica_identity(object, definition);
        }
    }
}

/// Returns which of the objects the statement creates. If it creates a function, and several overloads of that function
/// are in `objects`, returns the first.
fn object_created_by<'a>(statement: &Statement, objects: &BTreeSet<&'a str>) -> Option<&'a str> {
    let find_on_table = |kind: &str, name: &str, table: &str| {
        let unquoted = format!("{kind} {name} on {table}");
        let quoted = format!("{kind} \"{name}\" on {table}");
        objects.get(unquoted.as_str()).or_else(|| objects.get(quoted.as_str())).copied()
    };
    match &statement.target {
        Target::Function(name) => {
            let prefix = format!("function {name}(");
            objects.iter().find(|object| object.starts_with(&prefix)).copied()
        }
        Target::View(name) => objects.get(format!("view {name}").as_str()).copied(),
        Target::Trigger(name, table) => find_on_table("trigger", name, table),
        Target::Policy(name, table) => find_on_table("policy", &name.replace('"', "\"\""), table),
        Target::Other | Target::GrantOrRevoke => None,
    }
}

/// Returns the schema's policies or triggers (`kind`) that DO blocks create. Most of these blocks create one for each
/// of several tables.
fn created_in_do_blocks<'a>(state: &'a State, kind: &'static str) -> impl Iterator<Item = &'a str> {
    let statements_outside_do_blocks: Vec<Statement> =
        repeatable::statements().into_iter().filter(|statement| statement.target != Target::Other).collect();
    state.expected.keys().map(String::as_str).filter(move |object| manifest::kind(object) == kind).filter(
        move |object| {
            !statements_outside_do_blocks
                .iter()
                .any(|statement| object_created_by(statement, &BTreeSet::from([*object])).is_some())
        },
    )
}
