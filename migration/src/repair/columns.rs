//! Repairs of columns.

use super::plan::{Defects, Plan};
use crate::{
    check::Difference,
    manifest::{self, name_and_table},
    query,
    repeatable::PUBLIC_AND_API_ROLES,
};

impl Plan {
    /// Adds the column. The plan creates some of the missing tables with their columns (`tables_created_with_columns`),
    /// and the others without. If the column's table was created with its columns, the column may exist already.
    pub(super) fn add_column(&mut self, defects: &Defects<'_>, object: &str, tables_created_with_columns: &[String]) {
        let Some((name, table)) = name_and_table(object) else { return };
        let may_exist = tables_created_with_columns.iter().any(|created_table| created_table == table);
        let if_not_exists = if may_exist { " IF NOT EXISTS" } else { "" };
        let definition = &defects.state.expected[object];
        self.push_repair(
            format!("ALTER TABLE {table} ADD COLUMN{if_not_exists} {name} {definition}"),
            object,
            Some((table, definition)),
        );
    }

    pub(super) fn alter_column(&mut self, object: &str, actual: &str, expected: &str) {
        let Some((name, table)) = name_and_table(object) else { return };
        let (actual, expected) = (ColumnDefinition::parse(actual), ColumnDefinition::parse(expected));
        let alter = format!("ALTER TABLE {table} ALTER COLUMN {name}");
        // `definition` is given only if existing rows may violate it.
        let mut push = |sql: String, definition: Option<&str>| {
            self.push_repair(sql, object, Some((table, definition.unwrap_or_default())));
        };
        let type_differs = actual.data_type != expected.data_type;
        if type_differs {
            for sql in refuse_changed_values_sql(table, name, actual.data_type, expected.data_type) {
                push(sql, None);
            }
        }
        // PostgreSQL refuses to convert the values of a generated column, and restricts the types of identity columns.
        // So IDENTITY or the expression is dropped before the type is changed.
        if actual.generated != expected.generated && actual.generated.is_some() {
            let property = if actual.generated.is_some_and(|actual| actual.ends_with("as identity")) {
                "IDENTITY"
            } else {
                "EXPRESSION"
            };
            push(format!("{alter} DROP {property} IF EXISTS"), None);
        }
        if type_differs {
            if actual.default.is_some() {
                push(format!("{alter} DROP DEFAULT"), None);
            }
            push(format!("{alter} TYPE {} USING {name}::{}", expected.data_type, expected.data_type), None);
        }
        if (actual.storage, actual.compression) != (expected.storage, expected.compression) || type_differs {
            push(set_storage_sql(&alter, table, name, expected.storage, expected.compression), None);
        }
        if actual.default != expected.default || type_differs {
            match expected.default {
                Some(default) => push(format!("{alter} SET DEFAULT {default}"), None),
                None if actual.generated.is_none() => push(format!("{alter} DROP DEFAULT"), None),
                // A generated column has no default that can be dropped.
                None => {}
            }
        }
        if actual.not_null != expected.not_null {
            if expected.not_null {
                push(format!("{alter} SET NOT NULL"), Some(&format!("NOT NULL {name}")));
            } else {
                push(format!("{alter} DROP NOT NULL"), None);
            }
        }
        if let Some(generated) = expected.generated.filter(|_| actual.generated != expected.generated) {
            let is_identity = generated.ends_with("as identity");
            if is_identity {
                // A sequence that nothing uses any more, for example from a `serial` column, may still have the name
                // that PostgreSQL gives to the sequence of the identity column.
                push(format!("DROP SEQUENCE IF EXISTS {table}_{name}_seq"), None);
            }
            push(format!("{alter} ADD {generated}"), None);
            if is_identity {
                // On Supabase, default privileges grant the API roles access to every new sequence.
                push(format!("REVOKE ALL ON SEQUENCE {table}_{name}_seq FROM {PUBLIC_AND_API_ROLES}"), None);
                // The new sequence starts after the numbers in the column.
                let sequence = format!("pg_get_serial_sequence('{table}', '{name}')");
                push(format!("SELECT setval({sequence}, coalesce(max({name}), 0) + 1, false) FROM {table}"), None);
            }
        }
    }
}

/// Returns whether the repair changes a column's type.
pub(super) fn changes_type(difference: &Difference) -> bool {
    let (Some(actual), Some(expected)) = (&difference.found, &difference.expected) else { return false };
    manifest::kind(&difference.object) == "column"
        && ColumnDefinition::parse(actual).data_type != ColumnDefinition::parse(expected).data_type
}

/// Returns two statements. The second fails if the conversion of the column to another type would change a value. An
/// explicit cast does not fail then: it cuts texts off and rounds numbers without an error. Returns no statements if a
/// conversion between these types never changes a value.
fn refuse_changed_values_sql(table: &str, name: &str, actual: &str, expected: &str) -> Vec<String> {
    let Some(condition) = changed_value_condition(name, without_collation(actual), without_collation(expected)) else {
        return Vec::new();
    };
    vec![
        // If row-level security is forced on the owner, it would hide rows from the count, so it is forced no longer.
        // The lock of this statement keeps others from writing until the type is changed.
        format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"),
        format!(
            "DO $do$
DECLARE
  changed_count bigint;
BEGIN
  SELECT count(*) INTO changed_count FROM {table} WHERE {condition};
  IF changed_count > 0 THEN
    RAISE EXCEPTION 'the values of % would change, %',
      changed_count || CASE changed_count WHEN 1 THEN ' row' ELSE ' rows' END, {}
      USING ERRCODE = 'data_exception', DETAIL = {};
  END IF;
END
$do$",
            query::literal(&format!("from {actual} to {expected}")),
            query::literal(&format!("SELECT * FROM {table} WHERE {condition} lists them")),
        ),
    ]
}

/// Returns the SQL condition that is true for a row in which the conversion would change the value of the column.
/// `None` if a conversion between these types never changes a value. A `timestamp` that becomes a `timestamp with time
/// zone` is read as UTC (`STANDARD_SETTINGS` in `script` sets that time zone), so converting it back gives the same
/// value.
///
/// When a text becomes another type, PostgreSQL rejects a text that it cannot read as that type. So nothing needs to be
/// compared, except for two groups of types, to which PostgreSQL rounds without an error. A timestamp keeps only
/// microseconds, so the text must have no further digits. And for a type with a precision or scale, such as
/// `numeric(3,2)`, the rounded value is compared with the value of the bare type (`numeric`).
fn changed_value_condition(name: &str, actual: &str, expected: &str) -> Option<String> {
    let is_text = |data_type: &str| data_type.starts_with("text") || data_type.starts_with("character");
    let converted = format!("{name}::{expected}");
    if actual == expected {
        None
    } else if is_text(expected) || actual == "jsonb" {
        Some(format!("{converted}::text IS DISTINCT FROM {name}::text"))
    } else if is_text(actual) && expected.starts_with("timestamp") {
        Some(format!(r"{name} ~ '\.\d{{6}}\d*[1-9]'"))
    } else if is_text(actual) {
        // PostgreSQL rounds only if the type has a precision or scale.
        let (bare_type, _) = expected.split_once('(')?;
        Some(format!("{converted} IS DISTINCT FROM {name}::{bare_type}"))
    } else if actual == "json" {
        // `jsonb` keeps the value, and `json` has no equality.
        None
    } else {
        Some(format!("{converted}::{actual} IS DISTINCT FROM {name}"))
    }
}

fn without_collation(data_type: &str) -> &str {
    split_at_separator(data_type, " collate ").0
}

/// Returns a DO block that sets storage and compression. `alter` (`ALTER TABLE ... ALTER COLUMN ...`) is the beginning
/// of each statement that the block executes. If `storage` is `None`, the block looks up the default storage of the
/// type, because SET STORAGE DEFAULT does not exist in PostgreSQL 15.
fn set_storage_sql(alter: &str, table: &str, name: &str, storage: Option<&str>, compression: Option<&str>) -> String {
    let storage = storage.map_or(
        "(CASE typstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END)"
            .to_owned(),
        |storage| format!("'{storage}'"),
    );
    let compression = compression.unwrap_or("default");
    format!(
        "DO $$
DECLARE
  storage text;
BEGIN
  SELECT {storage}
  INTO storage
  FROM pg_attribute
  JOIN pg_type ON pg_type.oid = atttypid
  WHERE attrelid = '{table}'::regclass AND attname = '{}';
  EXECUTE '{alter} SET STORAGE ' || storage;
  -- Types whose default storage is PLAIN cannot be compressed.
  IF storage <> 'PLAIN' THEN
    EXECUTE '{alter} SET COMPRESSION {compression}';
  END IF;
END
$$",
        name.trim_matches('"')
    )
}

/// The parts of a column's definition in the manifest.
#[derive(Debug, PartialEq, Eq)]
struct ColumnDefinition<'a> {
    /// Type and collation.
    data_type: &'a str,
    storage: Option<&'a str>,
    compression: Option<&'a str>,
    not_null: bool,
    default: Option<&'a str>,
    /// The clause that begins with `generated`. It ends with `as identity` if the column is an identity column.
    generated: Option<&'a str>,
}

impl<'a> ColumnDefinition<'a> {
    fn parse(definition: &'a str) -> Self {
        let (rest, default) = match definition.split_once(" default ") {
            Some((rest, default)) if !rest.contains(" generated ") => (rest, Some(default)),
            _ => (definition, None),
        };
        let (rest, generated) = match rest.find(" generated ") {
            Some(space) => (&rest[..space], Some(&rest[space + 1..])),
            None => (rest, None),
        };
        let (rest, not_null) = match rest.strip_suffix(" not null") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (rest, compression) = split_at_separator(rest, " compression ");
        let (data_type, storage) = split_at_separator(rest, " storage ");
        Self { data_type, storage, compression, not_null, default, generated }
    }
}

/// Returns the texts before and after the first separator, or the whole text if it does not contain the separator.
fn split_at_separator<'a>(text: &'a str, separator: &str) -> (&'a str, Option<&'a str>) {
    text.split_once(separator).map_or((text, None), |(before, after)| (before, Some(after)))
}

#[cfg(test)]
mod tests {
    use super::ColumnDefinition;

    #[test]
    fn a_column_definition_is_parsed() {
        let column = ColumnDefinition::parse("timestamp with time zone not null default now()");
        assert_eq!(
            (column.data_type, column.not_null, column.default),
            ("timestamp with time zone", true, Some("now()"))
        );
        let column = ColumnDefinition::parse("bigint not null generated by default as identity");
        assert_eq!(
            (column.data_type, column.not_null, column.generated),
            ("bigint", true, Some("generated by default as identity"))
        );
        let column = ColumnDefinition::parse("text collate \"C\" storage external compression lz4 not null");
        assert_eq!(
            (column.data_type, column.storage, column.compression, column.not_null),
            ("text collate \"C\"", Some("external"), Some("lz4"), true)
        );
    }
}
