//! Finds the rows that prevent the repair of a constraint, a unique index, NOT NULL or a dropped column. The error
//! contains the number of these rows and, unless a column was dropped, the keys of at most five. It never contains
//! other values.

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use crate::{MigrationError, query, repair::ObjectUnderRepair};

/// Maximum number of rows whose keys an error contains.
const MAX_KEYS: i64 = 5;

/// The number of rows, and the keys of at most [`MAX_KEYS`] of them.
#[derive(FromQueryResult)]
struct RowSummary {
    row_count: i64,
    keys: Option<String>,
}

/// Returns the reason why a repair of the object was rejected, if rows are the reason: the error that lists the rows
/// violating the object's definition, or the error that a dropped column cannot be added again without values for it.
pub(crate) async fn integrity_error<C: ConnectionTrait>(
    db: &C,
    object_under_repair: &ObjectUnderRepair,
) -> Result<Option<MigrationError>, DbErr> {
    let Some(table) = &object_under_repair.table else { return Ok(None) };
    if object_under_repair.name.starts_with("column ") && !object_under_repair.definition.starts_with("NOT NULL ") {
        return missing_values_error(db, object_under_repair, table).await;
    }
    let Some(condition) = violation_condition(table, &object_under_repair.definition) else { return Ok(None) };
    let key = key_expression(db, table).await?;
    let sql = format!(
        "SELECT count(*) AS row_count, string_agg(key, ', ') FILTER (WHERE row_number <= {MAX_KEYS}) AS keys
         FROM (
           SELECT {key} AS key, row_number() OVER () AS row_number
           FROM {table} AS row
           WHERE {condition}
         ) AS violating_row"
    );
    let summary: RowSummary = query::fetch_one(db, &sql).await?;
    if summary.row_count == 0 {
        return Ok(None);
    }
    let and_others = if summary.row_count > MAX_KEYS { " and others" } else { "" };
    Ok(Some(MigrationError::ViolatingRows {
        object: if object_under_repair.definition.starts_with("NOT NULL ") {
            format!("NOT NULL of {}", object_under_repair.name)
        } else {
            object_under_repair.name.clone()
        },
        table: table.clone(),
        rows: format!("{} (key {}{and_others})", summary.row_count, summary.keys.unwrap_or_default()),
    }))
}

/// Returns the error for a dropped column that is NOT NULL and has no default: it could not be added again, because the
/// existing rows would have no value for it. `None` for other columns.
async fn missing_values_error<C: ConnectionTrait>(
    db: &C,
    object_under_repair: &ObjectUnderRepair,
    table: &str,
) -> Result<Option<MigrationError>, DbErr> {
    let needs_values =
        object_under_repair.definition.contains(" not null") && !object_under_repair.definition.contains(" default ");
    if !needs_values {
        return Ok(None);
    }
    let summary: RowSummary =
        query::fetch_one(db, &format!("SELECT count(*) AS row_count, NULL::text AS keys FROM {table}")).await?;
    Ok(Some(MigrationError::ValuesLost { object: object_under_repair.name.clone(), row_count: summary.row_count }))
}

/// Returns an SQL expression whose value is the primary key, as text, of a row called `row`, or the row's ctid if the
/// table has no primary key.
async fn key_expression<C: ConnectionTrait>(db: &C, table: &str) -> Result<String, DbErr> {
    let columns = query::fetch_names(
        db,
        &format!(
            "SELECT format('row.%I', attname) AS name
             FROM pg_catalog.pg_index
             JOIN pg_catalog.pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
             WHERE indrelid = {}::regclass AND indisprimary
             ORDER BY attnum",
            query::literal(table)
        ),
    )
    .await?;
    Ok(if columns.is_empty() { "row.ctid::text".to_owned() } else { format!("concat_ws('/', {})", columns.join(", ")) })
}

/// Returns the SQL condition that is true for a row, called `row`, that violates the definition. `None` if rows cannot
/// violate a definition of this kind.
fn violation_condition(table: &str, definition: &str) -> Option<String> {
    if let Some(column) = definition.strip_prefix("NOT NULL ") {
        return Some(format!("row.{column} IS NULL"));
    }
    if let Some(check) = definition.strip_prefix("CHECK ") {
        return Some(format!("NOT {}", check.trim_end_matches(" NOT VALID")));
    }
    if let Some(foreign_key) = definition.strip_prefix("FOREIGN KEY (") {
        let (columns, rest) = foreign_key.split_once(") REFERENCES ")?;
        let (referenced_table, rest) = rest.split_once('(')?;
        let (referenced_columns, _) = rest.split_once(')')?;
        let equalities: Vec<String> = columns
            .split(", ")
            .zip(referenced_columns.split(", "))
            .map(|(column, referenced_column)| format!("referenced.{referenced_column} = row.{column}"))
            .collect();
        let not_nulls: Vec<String> = columns.split(", ").map(|column| format!("row.{column} IS NOT NULL")).collect();
        return Some(format!(
            "{} AND NOT EXISTS (SELECT FROM {referenced_table} AS referenced WHERE {})",
            not_nulls.join(" AND "),
            equalities.join(" AND ")
        ));
    }
    let (columns, predicate) = if let Some(index) = definition.strip_prefix("CREATE UNIQUE INDEX ") {
        let (_, rest) = index.split_once(" (")?;
        match rest.split_once(") WHERE ") {
            Some((columns, predicate)) => (columns, predicate),
            None => (rest.strip_suffix(')')?, "true"),
        }
    } else {
        let list = definition.strip_prefix("UNIQUE (").or_else(|| definition.strip_prefix("PRIMARY KEY ("))?;
        (list.split(')').next()?, "true")
    };
    Some(format!(
        "({columns}) IN (SELECT {columns} FROM {table} WHERE {predicate} GROUP BY {columns} HAVING count(*) > 1)
         AND {predicate}"
    ))
}
