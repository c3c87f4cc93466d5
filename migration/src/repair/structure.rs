//! Repairs of schemas, types, tables, sequences, owners, settings (storage parameters) and statistics targets.

use super::plan::{Defects, Plan};
use crate::{
    check::Difference,
    manifest::{self, name_and_table},
    owner::{OTHER_OWNER, SCHEMA_OWNER_SQL},
    tables,
};

impl Plan {
    pub(super) fn repair_structure(&mut self, defects: &Defects<'_>) {
        for object in defects.to_create_of_kind("schema") {
            self.push_repair(format!("CREATE {object}"), object, None);
        }
        for kind in ["type", "domain"] {
            for object in defects.to_create_of_kind(kind) {
                self.push_repair(format!("CREATE {object} AS {}", defects.state.expected[object]), object, None);
            }
        }
        for difference in defects.to_alter_or_drop.iter().filter(|difference| needs_owner_change(difference)) {
            self.push_repair(restore_owner_sql(&difference.object), &difference.object, None);
        }
        for difference in &defects.to_alter_or_drop {
            let (Some(actual), Some(expected)) = (&difference.found, &difference.expected) else { continue };
            if manifest::kind(&difference.object) == "type" {
                for change in enum_changes(actual, expected).unwrap_or_default() {
                    self.push_repair(format!("ALTER {} {change}", difference.object), &difference.object, None);
                }
            }
        }
        // Before tables are created, because a new table may refer to an unlogged one.
        self.set_tables_logged(defects);
        let tables_created_with_columns = self.create_tables(defects);
        for object in defects.to_create_of_kind("column") {
            self.add_column(defects, object, &tables_created_with_columns);
        }
        for difference in &defects.to_alter_or_drop {
            let (Some(actual), Some(expected)) = (&difference.found, &difference.expected) else { continue };
            match manifest::kind(&difference.object) {
                "column" => self.alter_column(&difference.object, actual, expected),
                "sequence" => self.alter_sequence(&difference.object, actual, expected),
                _ => {}
            }
        }
        for (object, value) in defects.to_restore().filter(|(object, _)| manifest::kind(object) == "setting") {
            if let Some((name, table)) = name_and_table(object) {
                self.push_repair(format!("ALTER TABLE {table} SET ({name} = {value})"), object, None);
            }
        }
        for (object, value) in defects.to_restore().filter(|(object, _)| manifest::kind(object) == "statistics") {
            let (column, target) = (object.strip_prefix("statistics of column "), value.strip_prefix("target "));
            if let (Some((column, table)), Some(target)) = (column.and_then(|rest| rest.rsplit_once(" of ")), target) {
                let sql = format!(
                    "ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS {target},
                       ALTER COLUMN {column} RESET (n_distinct, n_distinct_inherited)"
                );
                self.push_repair(sql, object, None);
            }
        }
    }

    /// Creates the missing tables, and returns those that are created with their columns. The others (those in the
    /// schemas `private` and `auth`, and `sparc_migrations`) are created without columns, which `add_column` adds.
    fn create_tables(&mut self, defects: &Defects<'_>) -> Vec<String> {
        if defects.to_create_of_kind("table").next().is_none() {
            return Vec::new();
        }
        // The check constraints of the tables call these functions.
        self.push(tables::CHECK_FUNCTIONS);
        self.push("SET LOCAL search_path = public");
        let mut created = Vec::new();
        for name in tables::TABLES {
            let object = format!("table public.{name}");
            if let Some(sql) = tables::create_table_sql(name).filter(|_| defects.to_create.contains(&object)) {
                self.push_repair(sql, &object, None);
                created.push(format!("public.{name}"));
            }
        }
        self.push("SET LOCAL search_path = pg_catalog");
        for object in defects.to_create_of_kind("table") {
            let is_created = |name: &str| created.iter().any(|table| table == name);
            if let Some(name) = object.strip_prefix("table ").filter(|name| !is_created(name)) {
                self.push_repair(format!("CREATE TABLE {name} ()"), object, None);
            }
        }
        created
    }

    /// Makes unlogged tables logged. A table must come after those to which it refers: `auth.users`, then the tables of
    /// schema `public` in the order of their creation, then those of schema `private`.
    fn set_tables_logged(&mut self, defects: &Defects<'_>) {
        let position = |object: &str| match object.strip_prefix("table public.") {
            Some(name) => tables::TABLES.iter().position(|table| *table == name).unwrap_or(tables::TABLES.len()) + 1,
            None if object.starts_with("table auth.") => 0,
            None => usize::MAX,
        };
        let is_unlogged = |difference: &&&Difference| {
            let unlogged = difference.found.as_ref().is_some_and(|found| found.contains(", unlogged"));
            unlogged && difference.expected.is_some() && manifest::kind(&difference.object) == "table"
        };
        let mut unlogged: Vec<&&Difference> = defects.to_alter_or_drop.iter().filter(is_unlogged).collect();
        unlogged.sort_by_key(|difference| position(&difference.object));
        for difference in unlogged {
            self.push_repair(format!("ALTER {} SET LOGGED", difference.object), &difference.object, None);
        }
    }

    /// Sets the table's replica identity. If the replica identity is an index, the index must exist already.
    pub(super) fn set_replica_identity(&mut self, object: &str, expected: &str) {
        let Some(table) = object.strip_prefix("table ") else { return };
        if let Some(identity) = expected.strip_prefix("replica identity ") {
            let identity = identity.split(", ").next().unwrap_or(identity).replace("index ", "using index ");
            self.push_repair(format!("ALTER TABLE {table} REPLICA IDENTITY {identity}"), object, None);
        }
    }

    fn alter_sequence(&mut self, object: &str, actual: &str, expected: &str) {
        // If the sequence does not belong to the expected column, the repair of that column creates the sequence again.
        let (options, column) = expected.split_once(" of ").unwrap_or((expected, ""));
        if !actual.contains(&format!(" of {column}")) {
            return;
        }
        let no_cycle = if options.ends_with(" cycle") { "" } else { " NO CYCLE" };
        self.push_repair(format!("ALTER {object} AS {options}{no_cycle}"), object, None);
        if actual.contains(", unlogged") {
            self.push_repair(format!("ALTER {object} SET LOGGED"), object, None);
        }
    }
}

/// Returns the clauses of ALTER TYPE that change an enum's values to those of the manifest by renames and additions.
/// `None` if that is impossible.
pub(super) fn enum_changes(actual: &str, expected: &str) -> Option<Vec<String>> {
    let (actual, expected) = (enum_values(actual), enum_values(expected));
    let mut changes = Vec::new();
    // The values after the changes so far.
    let mut current = actual.clone();
    if actual.len() == expected.len() {
        for (old, new) in actual.iter().zip(&expected) {
            if old != new && !expected.contains(old) && !actual.contains(new) {
                changes.push(format!("RENAME VALUE {old} TO {new}"));
                current.iter_mut().filter(|value| *value == old).for_each(|value| *value = new);
            }
        }
    }
    let mut previous: Option<&str> = None;
    for (index, value) in expected.iter().enumerate() {
        if !current.contains(value) {
            // BEFORE and AFTER must name a value that the enum has by then.
            let position = match (previous, current.first()) {
                (Some(previous), _) => format!(" AFTER {previous}"),
                (None, Some(first)) => format!(" BEFORE {first}"),
                (None, None) => String::new(),
            };
            changes.push(format!("ADD VALUE {value}{position}"));
            current.insert(index.min(current.len()), value);
        }
        previous = Some(value);
    }
    (current == expected).then_some(changes)
}

/// Returns the values of `enum ('a', 'b')`, with their quotes.
pub(super) fn enum_values(definition: &str) -> Vec<&str> {
    let inside = definition.trim_start_matches("enum (").split(')').next().unwrap_or_default();
    inside.split(", ").filter(|value| !value.is_empty()).collect()
}

/// Returns whether the repair must change the object's owner, because another role owns the schema's other objects.
pub(super) fn needs_owner_change(difference: &Difference) -> bool {
    difference.found.as_deref().is_some_and(|found| found.contains(OTHER_OWNER))
        && difference.expected.as_deref().is_some_and(|expected| !expected.contains(OTHER_OWNER))
        // The sequence of an identity column belongs to its table's owner, so it changes owners with the table.
        && manifest::kind(&difference.object) != "sequence"
}

/// Returns the statement that changes the owner to that of the schema's other objects.
fn restore_owner_sql(object: &str) -> String {
    format!(
        "DO $$
BEGIN
  EXECUTE format('ALTER {object} OWNER TO %I', pg_get_userbyid({SCHEMA_OWNER_SQL}));
END
$$"
    )
}

#[cfg(test)]
mod tests {
    use super::{enum_changes, enum_values};

    #[test]
    fn enum_values_are_renamed_and_added_but_not_removed_or_reordered() {
        assert_eq!(enum_values("enum ('a', 'b')"), ["'a'", "'b'"]);
        let changes = |actual, expected| enum_changes(actual, expected);
        assert_eq!(changes("enum ('a', 'x')", "enum ('a', 'b')"), Some(vec!["RENAME VALUE 'x' TO 'b'".to_owned()]));
        assert_eq!(
            changes("enum ('b')", "enum ('a', 'b', 'c')"),
            Some(vec!["ADD VALUE 'a' BEFORE 'b'".to_owned(), "ADD VALUE 'c' AFTER 'b'".to_owned()])
        );
        assert_eq!(changes("enum ('a', 'b', 'luck')", "enum ('a', 'b')"), None);
        assert_eq!(changes("enum ('b', 'a')", "enum ('a', 'b')"), None, "the order cannot change");
    }
}
