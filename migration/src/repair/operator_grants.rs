//! Plans how to restore the privileges that operators' roles have on objects that are dropped and created again (views,
//! functions, and the tables `sparc_migrations` and `sparc_record`). An operator is a person who runs the database; an
//! operator's role is any role but the owner of the objects and the API's roles.

use sea_orm_migration::{prelude::*, sea_orm::FromQueryResult};

use super::plan::{ObjectUnderRepair, Repair};
use crate::{catalog::CatalogObject, query, state::State};

/// A GRANT to an operator's role.
#[derive(FromQueryResult)]
struct Grant {
    /// The name of the object in the manifest.
    object: String,
    /// The column, if the privilege is on a column.
    column_name: Option<String>,
    sql: String,
}

/// Returns the statements that restore the privileges of operators' roles on `to_recreate`, which are views, functions
/// and tables.
pub(super) async fn plan_grants<C: ConnectionTrait>(
    db: &C,
    state: &State,
    to_recreate: &[&CatalogObject],
) -> Result<Vec<Repair>, DbErr> {
    let rows_sql: Vec<String> = to_recreate
        .iter()
        .filter_map(|catalog_object| {
            let (kind, name) = catalog_object.name.split_once(' ')?;
            let target = match kind {
                "view" | "table" => format!("TABLE {name}"),
                "function" => format!("ROUTINE {name}"),
                _ => return None,
            };
            Some(format!(
                "({}, {}, {}::oid)",
                query::literal(&catalog_object.name),
                query::literal(&target),
                catalog_object.objid
            ))
        })
        .collect();
    if rows_sql.is_empty() {
        return Ok(Vec::new());
    }
    let sql = include_str!("../../sql/manifest/operator_grants.sql").replace("/* to_recreate */", &rows_sql.join(", "));
    let grants: Vec<Grant> = query::fetch_all(db, &sql).await?;
    // A table is created again without the columns that are not part of the schema. (The manifest does not list the
    // columns of views.)
    let is_on_lost_column = |grant: &Grant| match (grant.object.strip_prefix("table "), &grant.column_name) {
        (Some(table), Some(column)) => !state.expected.contains_key(&format!("column {column} of {table}")),
        _ => false,
    };
    Ok(grants
        .into_iter()
        .filter(|grant| !is_on_lost_column(grant))
        .map(|grant| Repair {
            sql: grant.sql,
            object: Some(ObjectUnderRepair { name: grant.object, table: None, definition: String::new() }),
        })
        .collect())
}
