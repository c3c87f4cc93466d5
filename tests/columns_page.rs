//! `docs/generated/columns.md` lists the columns of all tables in schema `public`, with their types and comments. The
//! page omits `sparc_migrations`, whose columns have no comments. (`schema_rules.rs` requires comments on all others.)

use crate::{generated_docs::write_or_assert_up_to_date, world::World};

#[tokio::test]
async fn the_generated_page_of_columns_is_up_to_date() {
    let lines: Vec<String> = World::new()
        .await
        .owner()
        .fetch_values(
            "-- Attribute number 0 stands for the table itself, and becomes the heading of its columns.
             SELECT CASE WHEN attnum = 0
                 THEN format(E'\\n## `%s`\\n\\n%s\\n\\n| column | type | means |\\n| --- | --- | --- |', relname, comment)
                 ELSE format('| `%s` | %s%s | %s |', attname, type, CASE WHEN attnotnull THEN '' ELSE ', may be NULL' END,
                   replace(comment, '|', '\\|'))
               END
             FROM (
               SELECT relname, 0 AS attnum, '' AS attname, '' AS type, true AS attnotnull,
                 obj_description(oid, 'pg_class') AS comment
               FROM pg_class
               WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
               UNION ALL
               SELECT relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, col_description(attrelid, attnum)
               FROM pg_attribute
               JOIN pg_class ON pg_class.oid = attrelid
               WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
             ) AS described
             WHERE relname <> 'sparc_migrations'
             ORDER BY relname, attnum",
        )
        .await
        .unwrap();
    let page = format!(
        "# Columns\n\nWritten by `tests/columns_page.rs` from the comments in `migration/sql/tables/comments.sql`; the API \
         returns rows with these columns. [schema.md](../schema.md) has the rules.\n{}\n",
        lines.join("\n")
    );
    write_or_assert_up_to_date("columns.md", &page, "columns");
}
