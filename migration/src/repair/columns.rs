//! Repairs of columns.

use super::{Plan, Work};
use crate::{check::Difference, manifest, manifest::name_and_table};

impl Plan {
    pub(super) fn add_column(&mut self, work: &Work<'_>, object: &str, tables_with_columns: &[String]) {
        let Some((name, table)) = name_and_table(object) else { return };
        let has_columns = tables_with_columns.iter().any(|complete| complete == table);
        let if_not_exists = if has_columns { " IF NOT EXISTS" } else { "" };
        let definition = &work.state.expected[object];
        self.push_for(
            format!("ALTER TABLE {table} ADD COLUMN{if_not_exists} {name} {definition}"),
            object,
            Some((table, definition)),
        );
    }

    pub(super) fn alter_column(&mut self, object: &str, actual: &str, expected: &str) {
        let Some((name, table)) = name_and_table(object) else { return };
        let (actual, expected) = (Column::parse(actual), Column::parse(expected));
        let alter = format!("ALTER TABLE {table} ALTER COLUMN {name}");
        let mut push = |sql: String, definition: Option<&str>| {
            self.push_for(sql, object, Some((table, definition.unwrap_or_default())));
        };
        let is_retyped = actual.data_type != expected.data_type;
        if is_retyped {
            if actual.default.is_some() {
                push(format!("{alter} DROP DEFAULT"), None);
            }
            push(format!("{alter} TYPE {} USING {name}::{}", expected.data_type, expected.data_type), None);
        }
        if (actual.storage, actual.compression) != (expected.storage, expected.compression) || is_retyped {
            push(storage_statement(&alter, table, name, expected.storage, expected.compression), None);
        }
        if actual.generated != expected.generated && actual.generated.is_some() {
            let property = if actual.generated.is_some_and(|actual| actual.ends_with("as identity")) {
                "IDENTITY"
            } else {
                "EXPRESSION"
            };
            push(format!("{alter} DROP {property} IF EXISTS"), None);
        }
        if actual.default != expected.default || is_retyped {
            match expected.default {
                Some(default) => push(format!("{alter} SET DEFAULT {default}"), None),
                None if actual.generated.is_none() => push(format!("{alter} DROP DEFAULT"), None),
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
                // A sequence with the name of the new one may be left over, for example from a `serial` column; nothing
                // uses it any more.
                push(format!("DROP SEQUENCE IF EXISTS {table}_{name}_seq"), None);
            }
            push(format!("{alter} ADD {generated}"), None);
            if is_identity {
                // On a platform, default privileges grant every new sequence to the API roles.
                let grantees = "PUBLIC, anon, authenticated, service_role";
                push(format!("REVOKE ALL ON SEQUENCE {table}_{name}_seq FROM {grantees}"), None);
                // The new sequence starts after the existing numbers.
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
        && Column::parse(actual).data_type != Column::parse(expected).data_type
}

/// Returns the statement that sets storage and compression. It looks up the type's default storage, for which
/// PostgreSQL 15 has no keyword.
fn storage_statement(alter: &str, table: &str, name: &str, storage: Option<&str>, compression: Option<&str>) -> String {
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
  -- Types whose default is PLAIN cannot be compressed.
  IF storage <> 'PLAIN' THEN
    EXECUTE '{alter} SET COMPRESSION {compression}';
  END IF;
END
$$",
        name.trim_matches('"')
    )
}

/// The parts of a column's definition.
#[derive(Debug, PartialEq, Eq)]
struct Column<'a> {
    /// Type and collation.
    data_type: &'a str,
    storage: Option<&'a str>,
    compression: Option<&'a str>,
    not_null: bool,
    default: Option<&'a str>,
    /// The clause from `generated` on: of an identity column (ends with `as identity`) or of a computed one.
    generated: Option<&'a str>,
}

impl<'a> Column<'a> {
    fn parse(definition: &'a str) -> Self {
        let (rest, default) = match definition.split_once(" default ") {
            Some((rest, default)) if !rest.contains(" generated ") => (rest, Some(default)),
            _ => (definition, None),
        };
        let (rest, generated) = match rest.find(" generated ") {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        let (rest, not_null) = match rest.strip_suffix(" not null") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (rest, compression) = split_off(rest, " compression ");
        let (data_type, storage) = split_off(rest, " storage ");
        Self { data_type, storage, compression, not_null, default, generated }
    }
}

/// Splits at the separator, if the text contains it.
fn split_off<'a>(text: &'a str, separator: &str) -> (&'a str, Option<&'a str>) {
    text.split_once(separator).map_or((text, None), |(before, after)| (before, Some(after)))
}

#[cfg(test)]
mod tests {
    use super::Column;

    #[test]
    fn a_column_definition_is_parsed() {
        let column = Column::parse("timestamp with time zone not null default now()");
        assert_eq!(
            (column.data_type, column.not_null, column.default),
            ("timestamp with time zone", true, Some("now()"))
        );
        let column = Column::parse("bigint not null generated by default as identity");
        assert_eq!(
            (column.data_type, column.not_null, column.generated),
            ("bigint", true, Some("generated by default as identity"))
        );
        let column = Column::parse("text collate \"C\" storage external compression lz4 not null");
        assert_eq!(
            (column.data_type, column.storage, column.compression, column.not_null),
            ("text collate \"C\"", Some("external"), Some("lz4"), true)
        );
    }
}
