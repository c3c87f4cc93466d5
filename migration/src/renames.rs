//! Objects of ours that somebody renamed: they are given their name back, instead of an empty one being made beside them.
//!
//! A table or column is known by its comment, which goes with it; everything else by a definition that nothing else of its kind
//! has. Where two objects could be meant, nothing is renamed.

use crate::{
    check::State,
    manifest::{self, Found},
};

/// An object that is there under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rename {
    /// As the manifest names it.
    pub(crate) object: String,
    /// As the database names it.
    pub(crate) now: String,
    /// Gives it its name back.
    pub(crate) sql: String,
}

/// Every object of ours that was renamed, as far as that is certain.
pub(crate) fn find(state: &State) -> Vec<Rename> {
    // Nothing is certain then, and the repair says so.
    if !mixed_up(state).is_empty() {
        return Vec::new();
    }
    let found = state.found();
    let is_missing = |object: &&String| !found.contains_key(object.as_str());
    let mut renames = Vec::new();
    for object in state.expected.keys().filter(is_missing) {
        let candidates: Vec<&Found> = match manifest::kind(object) {
            "schema" | "table" => by_comment(state, object, |_| true),
            "column" => {
                let table = manifest::table_of(object);
                by_comment(state, object, |candidate| manifest::table_of(candidate) == table)
            }
            "type" | "sequence" | "function" | "trigger" | "policy" | "constraint" => by_definition(state, object),
            _ => Vec::new(),
        };
        let [candidate] = candidates[..] else { continue };
        // Something else has the name meanwhile, and is named by what checks that.
        let name = object.split_once(' ').map(|(_, name)| name);
        if matches!(manifest::kind(object), "table" | "sequence" | "type")
            && found.keys().any(|other| other.split_once(' ').map(|(_, name)| name) == name)
        {
            continue;
        }
        // Two missing objects that look alike: either could be it.
        let is_unique = state
            .expected
            .iter()
            .filter(|(other, _)| !found.contains_key(other.as_str()) && place(other) == place(object))
            .filter(|(_, definition)| **definition == state.expected[object])
            .count()
            == 1;
        let is_by_comment = matches!(manifest::kind(object), "schema" | "table" | "column");
        let now = candidate.object.strip_prefix("comment on ").unwrap_or(&candidate.object);
        if let (true, Some(sql)) = (is_unique || is_by_comment, statement(object, now)) {
            renames.push(Rename { object: object.clone(), now: now.to_owned(), sql });
        }
    }
    renames
}

/// Tables and columns that bear the name of one of ours and the comment of another, which is missing: to repair them as what they are
/// called would mix up their rows.
pub(crate) fn mixed_up(state: &State) -> Vec<String> {
    let found = state.found();
    let mut mixed = Vec::new();
    for (object, comment) in &state.expected {
        let Some(named) = object.strip_prefix("comment on ") else { continue };
        let Some(there) = found.get(object.as_str()).filter(|there| there.definition != *comment) else { continue };
        let other = state.expected.iter().find_map(|(other, comment)| {
            let other = other.strip_prefix("comment on ")?;
            let is_like = manifest::kind(other) == manifest::kind(named)
                && (manifest::kind(named) == "table" || manifest::table_of(other) == manifest::table_of(named));
            (is_like && *comment == there.definition && !found.contains_key(other)).then_some(other)
        });
        mixed.extend(other.map(|other| format!("{named} is {other}, by its comment, which is missing")));
    }
    mixed
}

/// Objects of the kind, not ours by name, that bear the comment of the missing one.
fn by_comment<'a>(state: &'a State, object: &str, is_candidate: impl Fn(&str) -> bool) -> Vec<&'a Found> {
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

/// Objects of the kind and in the same place, not ours by name, with the definition of the missing one.
fn by_definition<'a>(state: &'a State, object: &str) -> Vec<&'a Found> {
    let definition = &state.expected[object];
    // Of constraints only a primary key stands in the way of another.
    if manifest::kind(object) == "constraint" && !definition.starts_with("PRIMARY KEY") {
        return Vec::new();
    }
    state
        .found
        .iter()
        .filter(|found| found.definition == *definition)
        .filter(|found| place(&found.object) == place(object) || is_moved(&found.object, object))
        .filter(|found| !state.is_ours(&found.object))
        .collect()
}

/// All of an object's name but the part that a rename changes.
fn place(object: &str) -> (&str, &str, &str) {
    let kind = manifest::kind(object);
    let (_, name) = object.split_once(' ').unwrap_or_default();
    if let Some((_, table)) = manifest::on_table(object) {
        return (kind, table, "");
    }
    let (qualified, arguments) = name.find('(').map_or((name, ""), |at| name.split_at(at));
    (kind, qualified.split_once('.').map_or("", |(schema, _)| schema), arguments)
}

/// Whether the two differ in the schema alone.
fn is_moved(found: &str, object: &str) -> bool {
    let bare = |object: &str| {
        let (_, name) = object.split_once(' ')?;
        let (qualified, arguments) = name.find('(').map_or((name, ""), |at| name.split_at(at));
        Some((qualified.split_once('.')?.1.to_owned(), arguments.to_owned()))
    };
    let kind = manifest::kind(object);
    matches!(kind, "type" | "function" | "sequence") && manifest::kind(found) == kind && bare(found) == bare(object)
}

fn statement(object: &str, now: &str) -> Option<String> {
    let (_, current) = now.split_once(' ')?;
    let (_, name) = object.split_once(' ')?;
    let kind = manifest::kind(object);
    if let (Some((current, table)), Some((name, _))) = (manifest::on_table(now), manifest::on_table(object)) {
        return Some(match kind {
            "column" | "constraint" => format!("ALTER TABLE {table} RENAME {kind} {current} TO {name}"),
            _ => format!("ALTER {kind} {current} ON {table} RENAME TO {name}"),
        });
    }
    if kind == "schema" {
        return Some(format!("ALTER SCHEMA {current} RENAME TO {name}"));
    }
    let bare = name.split('(').next()?.rsplit_once('.')?.1;
    let (schema, _) = current.split('(').next()?.split_once('.')?;
    if !name.starts_with(&format!("{schema}.")) {
        // Back into its schema first; its name is seen to after that.
        let target = name.split_once('.')?.0;
        return Some(format!("ALTER {kind} {current} SET SCHEMA {target}"));
    }
    Some(format!("ALTER {kind} {current} RENAME TO {bare}"))
}
