//! Finds the rows that violate a constraint or a unique index. An error contains their number and the keys of the first
//! ones, never other values.

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use crate::{PreflightError, query, repair::Subject};

/// How many rows an error names by their keys.
const MAX_KEYS: i64 = 5;

/// The number of violating rows, and the keys of the first ones.
#[derive(FromQueryResult)]
struct RowsAndKeys {
    number: i64,
    keys: Option<String>,
}

/// Returns the error that names the rows. `None` if no row violates the definition.
pub(crate) async fn violation_error<C: ConnectionTrait>(
    db: &C,
    subject: &Subject,
) -> Result<Option<PreflightError>, DbErr> {
    let Some(table) = &subject.table else { return Ok(None) };
    if subject.object.starts_with("column ") && !subject.definition.starts_with("NOT NULL ") {
        return values_lost_error(db, subject, table).await;
    }
    let Some(condition) = violation_condition(table, &subject.definition) else { return Ok(None) };
    let key = key_expression(db, table).await?;
    let sql = format!(
        "SELECT count(*) AS number, string_agg(key, ', ') FILTER (WHERE nth <= {MAX_KEYS}) AS keys
         FROM (
           SELECT {key} AS key, row_number() OVER () AS nth
           FROM {table} AS row
           WHERE {condition}
         ) AS violating"
    );
    let rows: RowsAndKeys = query::fetch_one(db, &sql).await?;
    if rows.number == 0 {
        return Ok(None);
    }
    let and_others = if rows.number > MAX_KEYS { " and others" } else { "" };
    Ok(Some(PreflightError::ViolatingRows {
        object: subject.object.clone(),
        table: table.clone(),
        rows: format!("{} (key {}{and_others})", rows.number, rows.keys.unwrap_or_default()),
    }))
}

/// Returns the error for a NOT NULL column without a default that was dropped: the existing rows would have no value in
/// it. `None` if the column allows NULL or has a default.
async fn values_lost_error<C: ConnectionTrait>(
    db: &C,
    subject: &Subject,
    table: &str,
) -> Result<Option<PreflightError>, DbErr> {
    let lacks_value = subject.definition.contains(" not null") && !subject.definition.contains(" default ");
    if !lacks_value {
        return Ok(None);
    }
    let rows: RowsAndKeys =
        query::fetch_one(db, &format!("SELECT count(*) AS number, NULL::text AS keys FROM {table}")).await?;
    Ok(Some(PreflightError::ValuesLost { object: subject.object.clone(), rows: rows.number }))
}

/// Returns the expression for a row's primary key as text, or for its ctid if there is none.
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

/// Returns the condition for a row, called `row`, that violates the definition.
fn violation_condition(table: &str, definition: &str) -> Option<String> {
    if let Some(column) = definition.strip_prefix("NOT NULL ") {
        return Some(format!("row.{column} IS NULL"));
    }
    if let Some(check) = definition.strip_prefix("CHECK ") {
        return Some(format!("NOT {}", check.trim_end_matches(" NOT VALID")));
    }
    if let Some(foreign) = definition.strip_prefix("FOREIGN KEY (") {
        let (columns, rest) = foreign.split_once(") REFERENCES ")?;
        let (target, rest) = rest.split_once('(')?;
        let (keys, _) = rest.split_once(')')?;
        let pairs: Vec<String> = columns
            .split(", ")
            .zip(keys.split(", "))
            .map(|(column, key)| format!("target.{key} = row.{column}"))
            .collect();
        let present: Vec<String> = columns.split(", ").map(|column| format!("row.{column} IS NOT NULL")).collect();
        return Some(format!(
            "{} AND NOT EXISTS (SELECT FROM {target} AS target WHERE {})",
            present.join(" AND "),
            pairs.join(" AND ")
        ));
    }
    let (columns, partial) = if let Some(index) = definition.strip_prefix("CREATE UNIQUE INDEX ") {
        let (_, rest) = index.split_once(" (")?;
        match rest.split_once(") WHERE ") {
            Some((columns, partial)) => (columns, partial),
            None => (rest.strip_suffix(')')?, "true"),
        }
    } else {
        let list = definition.strip_prefix("UNIQUE (").or_else(|| definition.strip_prefix("PRIMARY KEY ("))?;
        (list.split(')').next()?, "true")
    };
    Some(format!(
        "({columns}) IN (SELECT {columns} FROM {table} WHERE {partial} GROUP BY {columns} HAVING count(*) > 1) AND {partial}"
    ))
}
