//! Finds objects of the schema that somebody has renamed, or moved to another PostgreSQL schema that the manifest
//! covers, so that `up` can restore their names. Otherwise `up` would create an empty table, for example, next to the
//! renamed one.
//!
//! A PostgreSQL schema, a table or a column is recognized by its comment, which a rename keeps; a type, sequence,
//! function, trigger, policy or primary key by its definition, if no other object of its kind has the same definition.
//! If two objects could be the missing one, neither counts as renamed. A renamed object of any other kind is not
//! recognized, so `up` creates the missing one next to it.
//!
//! Only an object that belongs to the schema's owner is recognized. Every role can read comments and definitions in the
//! catalog, so a role that may create a table could make it look like ours; and the functions in its defaults and
//! checks would then run with the privileges of the role that migrates. (The definition of a table, type, sequence or
//! function says whether another role owns it. The catalog query lists the comment of a PostgreSQL schema whose name is
//! not in the manifest only if that schema belongs to the same owner. A column, constraint, trigger or policy must be
//! on our table.)

use crate::{catalog::CatalogObject, manifest, owner::OTHER_OWNER, state::State};

/// An object that exists under another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rename {
    /// The object as the manifest names it.
    pub(crate) object: String,
    /// The object's present name, in the same form.
    pub(crate) renamed_to: String,
    /// The statement that restores the name, or moves the object back to its PostgreSQL schema.
    pub(crate) sql: String,
}

/// Returns every renamed or moved object of the schema that can be identified with certainty.
pub(crate) fn find(state: &State) -> Vec<Rename> {
    // If names were swapped, no comment is reliable. `Plan::new` (in `repair`) then returns an error that lists them.
    if !describe_swapped_names(state).is_empty() {
        return Vec::new();
    }
    let found = state.found_by_name();
    let is_missing = |object: &&String| !found.contains_key(object.as_str());
    let mut renames = Vec::new();
    for object in state.expected.keys().filter(is_missing) {
        let candidates: Vec<&CatalogObject> = match manifest::kind(object) {
            "schema" | "table" => comments_of_candidates(state, object, |_| true),
            "column" => {
                let table = manifest::table_of(object);
                comments_of_candidates(state, object, |candidate| manifest::table_of(candidate) == table)
            }
            "type" | "sequence" | "function" | "trigger" | "policy" | "constraint" => {
                candidates_by_definition(state, object)
            }
            _ => Vec::new(),
        };
        let [candidate] = candidates[..] else { continue };
        // If another object has taken the name, `check_names_of_missing_objects_are_free` (in `preflight`) reports that
        // later.
        let name = object.split_once(' ').map(|(_, name)| name);
        if matches!(manifest::kind(object), "table" | "sequence" | "type")
            && found.keys().any(|other| other.split_once(' ').map(|(_, name)| name) == name)
        {
            continue;
        }
        // If two missing objects have the same definition, the candidate could be either of them.
        let is_only_missing_one = state
            .expected
            .iter()
            .filter(|(other, _)| !found.contains_key(other.as_str()) && scope(other) == scope(object))
            .filter(|(_, definition)| **definition == state.expected[object])
            .count()
            == 1;
        let is_identified_by_comment = matches!(manifest::kind(object), "schema" | "table" | "column");
        let renamed_to = candidate.name.strip_prefix("comment on ").unwrap_or(&candidate.name);
        if let (true, Some(sql)) =
            (is_only_missing_one || is_identified_by_comment, restore_name_sql(object, renamed_to))
        {
            renames.push(Rename { object: object.clone(), renamed_to: renamed_to.to_owned(), sql });
        }
    }
    renames
}

/// Returns a phrase for each table or column whose name was swapped: it has the name of one object of the schema and
/// the comment of another, or was renamed while another table or column has its old name. A repair by name would change
/// the wrong table or column.
pub(crate) fn describe_swapped_names(state: &State) -> Vec<String> {
    let found = state.found_by_name();
    let has_own_comment = |object: &str| {
        let comment_object = format!("comment on {object}");
        found.get(comment_object.as_str()).map(|actual| &actual.definition) == state.expected.get(&comment_object)
    };
    let mut swapped = Vec::new();
    for comment_object in state.expected.keys() {
        let Some(object) = comment_object.strip_prefix("comment on ") else { continue };
        let kind = manifest::kind(object);
        if has_own_comment(object) || !matches!(kind, "table" | "column") {
            continue;
        }
        // Columns of different tables may have the same comment, so only columns of the same table are comparable.
        let is_comparable = |other: &str| kind == "table" || manifest::table_of(other) == manifest::table_of(object);
        if let Some(actual_comment) = found.get(comment_object.as_str()) {
            let object_by_comment = state.expected.iter().find_map(|(other_object, comment)| {
                let other = other_object.strip_prefix("comment on ")?;
                let is_same_kind = manifest::kind(other) == kind && is_comparable(other);
                (is_same_kind && *comment == actual_comment.definition && !has_own_comment(other)).then_some(other)
            });
            swapped.extend(object_by_comment.map(|other| {
                let missing_note =
                    if found.contains_key(other) { String::new() } else { format!(", and {other} is missing") };
                format!("{object} is {other} according to its comment{missing_note}")
            }));
        }
        if let (true, [renamed]) =
            (found.contains_key(object), &comments_of_candidates(state, object, is_comparable)[..])
        {
            let renamed = renamed.name.trim_start_matches("comment on ");
            swapped.push(format!("{renamed} is {object} according to its comment, and another {kind} has that name"));
        }
    }
    swapped
}

/// Returns the comments in the database that are equal to the object's comment in the manifest. Each is on an object of
/// the same kind that belongs to the schema's owner, whose name is not in the manifest, and for which `is_candidate` is
/// true.
fn comments_of_candidates<'a>(
    state: &'a State,
    object: &str,
    is_candidate: impl Fn(&str) -> bool,
) -> Vec<&'a CatalogObject> {
    let Some(comment) = state.expected.get(&format!("comment on {object}")) else { return Vec::new() };
    let kind = manifest::kind(object);
    let is_table_of_other_role = |commented: &str| {
        kind == "table"
            && state.found_objects.iter().any(|found| found.name == commented && found.definition.contains(OTHER_OWNER))
    };
    state
        .found_objects
        .iter()
        .filter(|found| found.definition == *comment && !state.expected.contains_key(&found.name))
        .filter(|found| {
            found.name.strip_prefix("comment on ").is_some_and(|commented| {
                manifest::kind(commented) == kind
                    && !state.expected.contains_key(commented)
                    && !is_table_of_other_role(commented)
                    && is_candidate(commented)
            })
        })
        .collect()
}

/// Returns the objects of the same kind that have the missing object's definition and are not part of the schema. Each
/// has the same [`scope`] as the missing object, or was only moved to another PostgreSQL schema.
fn candidates_by_definition<'a>(state: &'a State, object: &str) -> Vec<&'a CatalogObject> {
    let definition = &state.expected[object];
    // A renamed primary key must get its name back, because a table cannot have two. Any other renamed constraint
    // stays, and `up` creates the missing one next to it.
    if manifest::kind(object) == "constraint" && !definition.starts_with("PRIMARY KEY") {
        return Vec::new();
    }
    state
        .found_objects
        .iter()
        .filter(|found| found.definition == *definition)
        .filter(|found| scope(&found.name) == scope(object) || differ_only_in_schema(&found.name, object))
        .filter(|found| !state.is_ours(&found.name))
        .collect()
}

/// Returns the parts of an object's name that ALTER ... RENAME does not change: its kind, its table or PostgreSQL
/// schema, and a function's argument types.
fn scope(object: &str) -> (&str, &str, &str) {
    let kind = manifest::kind(object);
    let (_, name) = object.split_once(' ').unwrap_or_default();
    if let Some((_, table)) = manifest::name_and_table(object) {
        return (kind, table, "");
    }
    let (qualified, arguments) = name.find('(').map_or((name, ""), |start| name.split_at(start));
    (kind, qualified.split_once('.').map_or("", |(schema, _)| schema), arguments)
}

/// Whether the two objects' names differ only in the PostgreSQL schema.
fn differ_only_in_schema(found: &str, object: &str) -> bool {
    let unqualified = |object: &str| {
        let (_, name) = object.split_once(' ')?;
        let (qualified, arguments) = name.find('(').map_or((name, ""), |start| name.split_at(start));
        Some((qualified.split_once('.')?.1.to_owned(), arguments.to_owned()))
    };
    let kind = manifest::kind(object);
    matches!(kind, "type" | "function" | "sequence")
        && manifest::kind(found) == kind
        && unqualified(found) == unqualified(object)
}

/// Returns the statement that restores the name. If the object is in another PostgreSQL schema, returns the one that
/// moves it back.
fn restore_name_sql(object: &str, renamed_to: &str) -> Option<String> {
    let (_, current_name) = renamed_to.split_once(' ')?;
    let (_, name) = object.split_once(' ')?;
    let kind = manifest::kind(object);
    if let (Some((current_name, table)), Some((name, _))) =
        (manifest::name_and_table(renamed_to), manifest::name_and_table(object))
    {
        return Some(match kind {
            "column" | "constraint" => format!("ALTER TABLE {table} RENAME {kind} {current_name} TO {name}"),
            _ => format!("ALTER {kind} {current_name} ON {table} RENAME TO {name}"),
        });
    }
    if kind == "schema" {
        return Some(format!("ALTER SCHEMA {current_name} RENAME TO {name}"));
    }
    let unqualified = name.split('(').next()?.rsplit_once('.')?.1;
    let (current_schema, _) = current_name.split('(').next()?.split_once('.')?;
    if !name.starts_with(&format!("{current_schema}.")) {
        // If the name differs too, the next round of renames restores it (`MAX_RENAME_ROUNDS` in `run::up`).
        let schema = name.split_once('.')?.0;
        return Some(format!("ALTER {kind} {current_name} SET SCHEMA {schema}"));
    }
    Some(format!("ALTER {kind} {current_name} RENAME TO {unqualified}"))
}
