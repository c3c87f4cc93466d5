//! Finds renamed objects of the schema, whose names are restored. Otherwise an empty object would be created next to
//! the renamed one.
//!
//! A table or column is recognized by its comment, which a rename keeps; any other object by a definition that is
//! unique among its kind. If two objects match, neither is renamed.

use crate::{
    check::State,
    manifest::{self, CatalogObject},
};

/// An object that exists under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rename {
    /// The name in the manifest.
    pub(crate) object: String,
    /// The name in the database.
    pub(crate) renamed_to: String,
    /// The statement that restores the name or the PostgreSQL schema.
    pub(crate) sql: String,
}

/// Returns every renamed object of the schema that can be identified with certainty.
pub(crate) fn find(state: &State) -> Vec<Rename> {
    // If names were swapped, no comment is reliable. The repair reports the swapped names.
    if !swapped_names(state).is_empty() {
        return Vec::new();
    }
    let found = state.found_by_name();
    let is_missing = |object: &&String| !found.contains_key(object.as_str());
    let mut renames = Vec::new();
    for object in state.expected.keys().filter(is_missing) {
        let candidates: Vec<&CatalogObject> = match manifest::kind(object) {
            "schema" | "table" => candidates_by_comment(state, object, |_| true),
            "column" => {
                let table = manifest::table_of(object);
                candidates_by_comment(state, object, |candidate| manifest::table_of(candidate) == table)
            }
            "type" | "sequence" | "function" | "trigger" | "policy" | "constraint" => {
                candidates_by_definition(state, object)
            }
            _ => Vec::new(),
        };
        let [candidate] = candidates[..] else { continue };
        // If another object has taken the name, the preflight checks report it.
        let name = object.split_once(' ').map(|(_, name)| name);
        if matches!(manifest::kind(object), "table" | "sequence" | "type")
            && found.keys().any(|other| other.split_once(' ').map(|(_, name)| name) == name)
        {
            continue;
        }
        // If two missing objects have the same definition, the candidate could be either.
        let is_unique = state
            .expected
            .iter()
            .filter(|(other, _)| !found.contains_key(other.as_str()) && scope(other) == scope(object))
            .filter(|(_, definition)| **definition == state.expected[object])
            .count()
            == 1;
        let is_identified_by_comment = matches!(manifest::kind(object), "schema" | "table" | "column");
        let renamed_to = candidate.object.strip_prefix("comment on ").unwrap_or(&candidate.object);
        if let (true, Some(sql)) = (is_unique || is_identified_by_comment, restore_statement(object, renamed_to)) {
            renames.push(Rename { object: object.clone(), renamed_to: renamed_to.to_owned(), sql });
        }
    }
    renames
}

/// Finds tables and columns that have the name of one object of the schema and the comment of another, and objects of
/// the schema whose name another table or column has taken. A repair by name would change the wrong table or column.
pub(crate) fn swapped_names(state: &State) -> Vec<String> {
    let found = state.found_by_name();
    let has_own_comment = |object: &str| {
        let comment = format!("comment on {object}");
        found.get(comment.as_str()).map(|actual| &actual.definition) == state.expected.get(&comment)
    };
    let mut swapped = Vec::new();
    for object in state.expected.keys() {
        let Some(named) = object.strip_prefix("comment on ") else { continue };
        if has_own_comment(named) || !matches!(manifest::kind(named), "table" | "column") {
            continue;
        }
        if let Some(actual) = found.get(object.as_str()) {
            let other = state.expected.iter().find_map(|(other, comment)| {
                let other = other.strip_prefix("comment on ")?;
                let is_same_kind = manifest::kind(other) == manifest::kind(named)
                    && (manifest::kind(named) == "table" || manifest::table_of(other) == manifest::table_of(named));
                (is_same_kind && *comment == actual.definition && !has_own_comment(other)).then_some(other)
            });
            swapped.extend(other.map(|other| {
                let missing_note =
                    if found.contains_key(other) { String::new() } else { format!(", and {other} is missing") };
                format!("{named} is {other} according to its comment{missing_note}")
            }));
        }
        let is_in_table = |candidate: &str| {
            manifest::kind(named) == "table" || manifest::table_of(candidate) == manifest::table_of(named)
        };
        if let (true, [renamed]) = (found.contains_key(named), &candidates_by_comment(state, named, is_in_table)[..]) {
            let renamed = renamed.object.trim_start_matches("comment on ");
            let kind = manifest::kind(named);
            swapped.push(format!("{renamed} is {named} according to its comment, and another {kind} has that name"));
        }
    }
    swapped
}

/// Returns the comments of objects of the same kind that have the missing object's comment and a name that is not in
/// the manifest.
fn candidates_by_comment<'a>(
    state: &'a State,
    object: &str,
    is_candidate: impl Fn(&str) -> bool,
) -> Vec<&'a CatalogObject> {
    let Some(comment) = state.expected.get(&format!("comment on {object}")) else { return Vec::new() };
    let kind = manifest::kind(object);
    state
        .found
        .iter()
        .filter(|found| found.definition == *comment && !state.expected.contains_key(&found.object))
        .filter(|found| {
            found.object.strip_prefix("comment on ").is_some_and(|named| {
                manifest::kind(named) == kind && !state.expected.contains_key(named) && is_candidate(named)
            })
        })
        .collect()
}

/// Returns objects of the same kind that have the missing object's definition and are not part of the schema. Each has
/// the same scope as the missing object, or a name that differs only in the PostgreSQL schema.
fn candidates_by_definition<'a>(state: &'a State, object: &str) -> Vec<&'a CatalogObject> {
    let definition = &state.expected[object];
    // A renamed primary key prevents the creation of another; any other renamed constraint does not.
    if manifest::kind(object) == "constraint" && !definition.starts_with("PRIMARY KEY") {
        return Vec::new();
    }
    state
        .found
        .iter()
        .filter(|found| found.definition == *definition)
        .filter(|found| scope(&found.object) == scope(object) || is_moved(&found.object, object))
        .filter(|found| !state.is_ours(&found.object))
        .collect()
}

/// Returns the parts of an object's name that a rename does not change.
fn scope(object: &str) -> (&str, &str, &str) {
    let kind = manifest::kind(object);
    let (_, name) = object.split_once(' ').unwrap_or_default();
    if let Some((_, table)) = manifest::name_and_table(object) {
        return (kind, table, "");
    }
    let (qualified, arguments) = name.find('(').map_or((name, ""), |at| name.split_at(at));
    (kind, qualified.split_once('.').map_or("", |(schema, _)| schema), arguments)
}

/// Whether the two objects' names differ only in the PostgreSQL schema.
fn is_moved(found: &str, object: &str) -> bool {
    let unqualified = |object: &str| {
        let (_, name) = object.split_once(' ')?;
        let (qualified, arguments) = name.find('(').map_or((name, ""), |at| name.split_at(at));
        Some((qualified.split_once('.')?.1.to_owned(), arguments.to_owned()))
    };
    let kind = manifest::kind(object);
    matches!(kind, "type" | "function" | "sequence")
        && manifest::kind(found) == kind
        && unqualified(found) == unqualified(object)
}

/// Returns the statement that restores the name, or first the PostgreSQL schema.
fn restore_statement(object: &str, renamed_to: &str) -> Option<String> {
    let (_, current) = renamed_to.split_once(' ')?;
    let (_, name) = object.split_once(' ')?;
    let kind = manifest::kind(object);
    if let (Some((current, table)), Some((name, _))) =
        (manifest::name_and_table(renamed_to), manifest::name_and_table(object))
    {
        return Some(match kind {
            "column" | "constraint" => format!("ALTER TABLE {table} RENAME {kind} {current} TO {name}"),
            _ => format!("ALTER {kind} {current} ON {table} RENAME TO {name}"),
        });
    }
    if kind == "schema" {
        return Some(format!("ALTER SCHEMA {current} RENAME TO {name}"));
    }
    let unqualified = name.split('(').next()?.rsplit_once('.')?.1;
    let (schema, _) = current.split('(').next()?.split_once('.')?;
    if !name.starts_with(&format!("{schema}.")) {
        // This round restores the PostgreSQL schema, and the next one the name.
        let target = name.split_once('.')?.0;
        return Some(format!("ALTER {kind} {current} SET SCHEMA {target}"));
    }
    Some(format!("ALTER {kind} {current} RENAME TO {unqualified}"))
}
