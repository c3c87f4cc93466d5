//! Whether a table exists, and whether the role can read all its rows.

use sea_orm_migration::prelude::*;

use crate::query::{self, fetch_bool};

/// Returns whether the current role can read every row of the table. Returns `false` if the table does not exist, or if
/// row-level security applies to the role. The query finds the table in the catalog by its name, because
/// `'schema.table'::regclass` is an error for a role without USAGE on the schema.
pub(crate) async fn can_read_all_rows<C: ConnectionTrait>(db: &C, schema: &str, table: &str) -> Result<bool, DbErr> {
    fetch_bool(
        db,
        &format!(
            "SELECT EXISTS (
               SELECT
               FROM pg_catalog.pg_class
               JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
               WHERE nspname = {}
                 AND relname = {}
                 AND has_schema_privilege(pg_namespace.oid, 'USAGE')
                 AND has_table_privilege(pg_class.oid, 'SELECT')
                 AND NOT row_security_active(pg_class.oid)
             ) AS answer",
            query::literal(schema),
            query::literal(table)
        ),
    )
    .await
}

/// Returns whether `public.sparc_migrations`, the list of applied migrations, exists, as a table or as any other
/// relation.
pub(crate) async fn has_migrations_table<C: ConnectionTrait>(db: &C) -> Result<bool, DbErr> {
    fetch_bool(
        db,
        "SELECT EXISTS (
           SELECT
           FROM pg_catalog.pg_class
           JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
           WHERE nspname = 'public' AND relname = 'sparc_migrations'
         ) AS answer",
    )
    .await
}
