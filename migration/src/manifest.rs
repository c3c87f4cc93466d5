//! The manifest: every object of the schema, one per line. The committed manifest is compiled into the program.

use std::collections::BTreeMap;

use crate::printable::escape_unprintable;

/// The committed manifest: sorted lines `object: definition`, the same on every server version.
pub const MANIFEST: &str = include_str!("../manifest.txt");

/// The definition of each object, by the object's name.
pub(crate) type Definitions = BTreeMap<String, String>;

/// Parses the lines of a manifest.
pub(crate) fn parse(text: &str) -> Definitions {
    text.lines()
        .filter_map(|line| split_line(line).map(|(object, definition)| (object.to_owned(), definition.to_owned())))
        .collect()
}

/// Returns the object that a line of a manifest describes.
#[must_use]
pub fn object_of_line(line: &str) -> Option<&str> {
    split_line(line).map(|(object, _)| object)
}

/// Splits a line into object and definition, at the first `: ` outside double quotes.
fn split_line(line: &str) -> Option<(&str, &str)> {
    let mut is_quoted = false;
    for (position, c) in line.char_indices() {
        if c == '"' {
            is_quoted = !is_quoted;
        } else if !is_quoted && line[position..].starts_with(": ") {
            return Some((&line[..position], &line[position + 2..]));
        }
    }
    None
}

/// Returns the definitions of all objects in [`MANIFEST`]; in a unit test that uses the next release (`next_release`),
/// also those of the objects that its migration creates.
pub(crate) fn definitions() -> Definitions {
    let definitions = parse(MANIFEST);
    #[cfg(test)]
    let definitions = definitions.into_iter().chain(parse(crate::next_release::manifest_lines())).collect();
    definitions
}

/// Formats definitions as the lines of a manifest.
pub(crate) fn format_lines(definitions: &Definitions) -> String {
    let mut lines: Vec<String> = definitions
        .iter()
        .map(|(object, definition)| escape_unprintable(&format!("{object}: {definition}")) + "\n")
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// Returns the kind of an object. This is the first word of its name, with two exceptions: `row security`, and
/// `publication of` for a table's membership in the publication.
pub(crate) fn kind(object: &str) -> &str {
    if object.starts_with("row security ") {
        "row security"
    } else if object.starts_with("publication supabase_realtime of ") {
        "publication of"
    } else {
        object.split(' ').next().unwrap_or_default()
    }
}

/// Returns the name and the table of an object that belongs to a table, such as a column, constraint, index, trigger or
/// policy.
pub(crate) fn name_and_table(object: &str) -> Option<(&str, &str)> {
    // The statistics target of a column is `statistics of column NAME of TABLE`; extended statistics are `statistics
    // NAME on TABLE`. Inheritance is `child table NAME of TABLE` or `parent table NAME of TABLE`.
    let separator = match kind(object) {
        "column" | "setting" | "child" | "parent" => " of ",
        "statistics" if object.starts_with("statistics of column ") => " of ",
        _ => " on ",
    };
    let (_, rest) = object.split_once(' ')?;
    rest.rsplit_once(separator)
}

/// Returns the table that the object is or belongs to.
pub(crate) fn table_of(object: &str) -> Option<&str> {
    let after = |prefix: &str| object.strip_prefix(prefix);
    let table_of_grant = || after("grant on table ")?.rsplit_once(" to ").map(|(table, _)| table);
    let table_of_column_comment = || after("comment on column ")?.rsplit_once(" of ").map(|(_, table)| table);
    after("table ")
        .or_else(|| after("row security on "))
        .or_else(|| after("comment on table "))
        .or_else(|| after("publication supabase_realtime of "))
        .or_else(table_of_column_comment)
        .or_else(table_of_grant)
        .or_else(|| name_and_table(object).map(|(_, table)| table))
}

#[cfg(test)]
mod tests {
    use super::{MANIFEST, format_lines, name_and_table, parse, split_line};

    #[test]
    fn the_committed_manifest_is_sorted_and_every_line_is_parsed() {
        let lines = parse(MANIFEST);
        assert_eq!(lines.len(), MANIFEST.lines().count());
        assert_eq!(format_lines(&lines), MANIFEST);
    }

    #[test]
    fn a_quoted_name_may_contain_a_separator() {
        assert_eq!(
            split_line("policy \"Users: own\" on public.users: for select"),
            Some(("policy \"Users: own\" on public.users", "for select"))
        );
        assert_eq!(name_and_table("policy \"a on b\" on public.users"), Some(("\"a on b\"", "public.users")));
        assert_eq!(name_and_table("column id of public.users"), Some(("id", "public.users")));
        assert_eq!(name_and_table("column \"seen on\" of public.users"), Some(("\"seen on\"", "public.users")));
    }
}
