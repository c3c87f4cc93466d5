//! Repairs of what the files under `sql/` create (functions, views, triggers, policies), and of constraints and
//! indexes, which come after functions and views and before triggers and policies.

use std::collections::BTreeSet;

use super::{Plan, Work};
use crate::{
    check::State,
    manifest::{self, name_and_table},
    repeatable,
    statements::{Statement, Target},
};

impl Plan {
    pub(super) fn repair_code(&mut self, work: &Work<'_>) {
        let to_repair: BTreeSet<&str> = work.to_repair().map(|(object, _)| object).collect();
        let is_policy_in_block = created_in_blocks(work.state, "policy").any(|object| to_repair.contains(object));
        let is_trigger_in_block = created_in_blocks(work.state, "trigger").any(|object| to_repair.contains(object));
        let is_needed = |statement: &Statement| match statement.target {
            Target::Other => {
                (is_policy_in_block && statement.sql.contains("CREATE POLICY"))
                    || (is_trigger_in_block && statement.sql.contains(" TRIGGER "))
            }
            _ => object_created_by(statement, &to_repair).is_some(),
        };
        let mut statements = repeatable::statements();
        if work.state.environment.has_stand_in {
            statements.extend(repeatable::stand_in_statements());
        }
        let (functions_and_views, triggers_and_policies): (Vec<Statement>, Vec<Statement>) = statements
            .into_iter()
            .filter(is_needed)
            .partition(|statement| matches!(statement.target, Target::Function(_) | Target::View(_)));
        for statement in &functions_and_views {
            self.push_statement(statement, &to_repair);
        }
        self.create_constraints_and_indexes(work);
        // A DO block creates all its policies, even those that exist.
        if is_policy_in_block {
            for (name, table) in created_in_blocks(work.state, "policy").filter_map(name_and_table) {
                self.push(format!("DROP POLICY IF EXISTS {name} ON {table}"));
            }
        }
        for statement in &triggers_and_policies {
            if let Target::Policy(name, table) = &statement.target {
                self.push(format!("DROP POLICY IF EXISTS \"{}\" ON {table}", name.replace('"', "\"\"")));
            }
            self.push_statement(statement, &to_repair);
        }
    }

    fn push_statement(&mut self, statement: &Statement, to_repair: &BTreeSet<&str>) {
        match object_created_by(statement, to_repair) {
            Some(object) => self.push_for(statement.sql.to_owned(), object, None),
            None => self.push(statement.sql),
        }
    }

    /// Creates keys first, then indexes, then foreign keys.
    fn create_constraints_and_indexes(&mut self, work: &Work<'_>) {
        for (kind, is_foreign_key) in [("constraint", false), ("index", false), ("constraint", true)] {
            for (object, definition) in work.to_repair().filter(|(object, _)| manifest::kind(object) == kind) {
                let Some((name, table)) = name_and_table(object) else { continue };
                let table_and_definition = Some((table, definition));
                if kind == "index" {
                    self.push_for(definition.to_owned(), object, table_and_definition);
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
                    self.push_for(sql, object, table_and_definition);
                }
            }
        }
        // A table loses its replica identity with the index that defines it.
        let is_recreated = |table: &str, identity: &str| {
            work.to_repair().any(|(object, _)| {
                object == table
                    || matches!(manifest::kind(object), "constraint" | "index")
                        && name_and_table(object).is_some_and(|(name, on)| {
                            table.strip_prefix("table ") == Some(on) && identity.contains(&format!("index {name}"))
                        })
            })
        };
        let tables = work.state.expected.iter().filter(|(object, _)| object.starts_with("table "));
        for (object, identity) in tables.filter(|(object, identity)| is_recreated(object, identity)) {
            self.set_replica_identity(object, identity);
        }
    }
}

/// Returns which of the objects the statement creates, or the first one if several functions have that name.
fn object_created_by<'a>(statement: &Statement, objects: &BTreeSet<&'a str>) -> Option<&'a str> {
    let find_on_table = |kind: &str, name: &str, table: &str| {
        let plain = format!("{kind} {name} on {table}");
        let quoted = format!("{kind} \"{name}\" on {table}");
        objects.get(plain.as_str()).or_else(|| objects.get(quoted.as_str())).copied()
    };
    match &statement.target {
        Target::Function(name) => {
            let prefix = format!("function {name}(");
            objects.iter().find(|object| object.starts_with(&prefix)).copied()
        }
        Target::View(name) => objects.get(format!("view {name}").as_str()).copied(),
        Target::Trigger(name, table) => find_on_table("trigger", name, table),
        Target::Policy(name, table) => find_on_table("policy", &name.replace('"', "\"\""), table),
        Target::Other | Target::Privilege => None,
    }
}

/// Returns the policies or triggers that no plain statement creates: a DO block creates them for many tables.
fn created_in_blocks<'a>(state: &'a State, kind: &'static str) -> impl Iterator<Item = &'a str> {
    let plain: Vec<Statement> =
        repeatable::statements().into_iter().filter(|statement| statement.target != Target::Other).collect();
    state.expected.keys().map(String::as_str).filter(move |object| manifest::kind(object) == kind).filter(
        move |object| !plain.iter().any(|statement| object_created_by(statement, &BTreeSet::from([*object])).is_some()),
    )
}
