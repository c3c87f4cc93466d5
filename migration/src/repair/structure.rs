//! Schemas, types, tables, sequences and settings.

use super::{Plan, Work};
use crate::{check::Difference, manifest, manifest::on_table, tables};

impl Plan {
    pub(super) fn structure(&mut self, work: &Work<'_>) {
        for object in work.missing_of("schema") {
            self.push_about(format!("CREATE {object}"), object, None);
        }
        for kind in ["type", "domain"] {
            for object in work.missing_of(kind) {
                self.push_about(format!("CREATE {object} AS {}", work.state.expected[object]), object, None);
            }
        }
        for difference in work.changed.iter().filter(|difference| is_anothers(difference)) {
            self.push_about(give_to_owner(&difference.object), &difference.object, None);
        }
        for difference in &work.changed {
            let (Some(is), Some(wanted)) = (&difference.found, &difference.expected) else { continue };
            if manifest::kind(&difference.object) == "type" {
                for change in enum_changes(is, wanted).unwrap_or_default() {
                    self.push_about(format!("ALTER {} {change}", difference.object), &difference.object, None);
                }
            }
        }
        let made = self.tables(work);
        for object in work.missing_of("column") {
            self.add_column(work, object, &made);
        }
        for difference in &work.changed {
            let (Some(is), Some(wanted)) = (&difference.found, &difference.expected) else { continue };
            match manifest::kind(&difference.object) {
                "column" => self.alter_column(&difference.object, is, wanted),
                "table" => self.alter_table(&difference.object, is),
                "sequence" => self.alter_sequence(&difference.object, is, wanted),
                _ => {}
            }
        }
        for (object, value) in work.wanted().filter(|(object, _)| manifest::kind(object) == "setting") {
            if let Some((name, table)) = on_table(object) {
                self.push_about(format!("ALTER TABLE {table} SET ({name} = {value})"), object, None);
            }
        }
    }

    /// Makes the tables that are missing, and names those that have their columns already.
    fn tables(&mut self, work: &Work<'_>) -> Vec<String> {
        if work.missing_of("table").next().is_none() {
            return Vec::new();
        }
        // Checks of the tables call them.
        self.push(tables::CHECK_FUNCTIONS);
        self.push("SET LOCAL search_path = public");
        let mut made = Vec::new();
        for name in tables::TABLES {
            let object = format!("table public.{name}");
            if let Some(sql) = tables::create_one(name).filter(|_| work.missing.contains(&object)) {
                self.push_about(sql, &object, None);
                made.push(format!("public.{name}"));
            }
        }
        self.push("SET LOCAL search_path = pg_catalog");
        for object in work.missing_of("table") {
            if let Some(name) = object.strip_prefix("table ").filter(|name| !made.iter().any(|made| made == name)) {
                self.push_about(format!("CREATE TABLE {name} ()"), object, None);
            }
        }
        made
    }

    fn alter_table(&mut self, object: &str, is: &str) {
        if is.contains(", unlogged") {
            self.push_about(format!("ALTER {object} SET LOGGED"), object, None);
        }
    }

    /// After its index is there.
    pub(super) fn replica_identity(&mut self, object: &str, wanted: &str) {
        let Some(table) = object.strip_prefix("table ") else { return };
        if let Some(identity) = wanted.strip_prefix("replica identity ") {
            let identity = identity.split(", ").next().unwrap_or(identity).replace("index ", "using index ");
            self.push_about(format!("ALTER TABLE {table} REPLICA IDENTITY {identity}"), object, None);
        }
    }

    fn alter_sequence(&mut self, object: &str, is: &str, wanted: &str) {
        // One that belongs to no column, or to another, goes with what its column is altered to.
        let (options, owner) = wanted.split_once(" of ").unwrap_or((wanted, ""));
        if !is.contains(&format!(" of {owner}")) {
            return;
        }
        let cycle = if options.ends_with(" cycle") { "" } else { " NO CYCLE" };
        self.push_about(format!("ALTER {object} AS {options}{cycle}"), object, None);
        if is.contains(", unlogged") {
            self.push_about(format!("ALTER {object} SET LOGGED"), object, None);
        }
    }
}

/// Renames and additions that make the values of a type those of the manifest; none where they cannot.
pub(super) fn enum_changes(is: &str, wanted: &str) -> Option<Vec<String>> {
    let (is, wanted) = (values(is), values(wanted));
    let mut changes = Vec::new();
    let mut now = is.clone();
    if is.len() == wanted.len() {
        for (value, name) in is.iter().zip(&wanted) {
            if value != name && !wanted.contains(value) && !is.contains(name) {
                changes.push(format!("RENAME VALUE {value} TO {name}"));
                now.iter_mut().filter(|other| *other == value).for_each(|other| *other = name);
            }
        }
    }
    let mut before: Option<&str> = None;
    for (at, value) in wanted.iter().enumerate() {
        if !now.contains(value) {
            // A type that somebody left without values has nothing to stand before or after.
            let place = match (before, now.first()) {
                (Some(before), _) => format!(" AFTER {before}"),
                (None, Some(first)) => format!(" BEFORE {first}"),
                (None, None) => String::new(),
            };
            changes.push(format!("ADD VALUE {value}{place}"));
            now.insert(at.min(now.len()), value);
        }
        before = Some(value);
    }
    (now == wanted).then_some(changes)
}

/// The values of `enum ('a', 'b')`, quoted as they are.
pub(super) fn values(definition: &str) -> Vec<&str> {
    let inside = definition.trim_start_matches("enum (").split(')').next().unwrap_or_default();
    inside.split(", ").filter(|value| !value.is_empty()).collect()
}

/// Whether another role owns the object than the one that owns the rest.
pub(super) fn is_anothers(difference: &Difference) -> bool {
    difference.found.as_deref().is_some_and(|found| found.contains(OTHERS))
        && difference.expected.as_deref().is_some_and(|expected| !expected.contains(OTHERS))
        // The sequence of an identity column is its table's owner's.
        && manifest::kind(&difference.object) != "sequence"
}

/// What the catalog query says of such an object.
const OTHERS: &str = "owned by another role";

/// The owner of most of our functions is the owner of all.
fn give_to_owner(object: &str) -> String {
    format!(
        "DO $$
BEGIN
  EXECUTE format(
    'ALTER {object} OWNER TO %I',
    coalesce(
      (SELECT pg_get_userbyid(mode() WITHIN GROUP (ORDER BY proowner)) FROM pg_proc WHERE pronamespace = to_regnamespace('private')),
      current_user
    )
  );
END
$$"
    )
}

#[cfg(test)]
mod tests {
    use super::{enum_changes, values};

    #[test]
    fn values_are_renamed_and_added_in_their_place() {
        assert_eq!(values("enum ('a', 'b')"), ["'a'", "'b'"]);
        let changes = |is, wanted| enum_changes(is, wanted);
        assert_eq!(changes("enum ('a', 'x')", "enum ('a', 'b')"), Some(vec!["RENAME VALUE 'x' TO 'b'".to_owned()]));
        assert_eq!(
            changes("enum ('b')", "enum ('a', 'b', 'c')"),
            Some(vec!["ADD VALUE 'a' BEFORE 'b'".to_owned(), "ADD VALUE 'c' AFTER 'b'".to_owned()])
        );
        assert_eq!(changes("enum ('a', 'b', 'luck')", "enum ('a', 'b')"), None);
        assert_eq!(changes("enum ('b', 'a')", "enum ('a', 'b')"), None, "their order is that of comparisons");
    }
}
