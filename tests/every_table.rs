//! Rules for every table that users can write, checked in PostgreSQL's catalog, so that no new table breaks them. The
//! tables and columns to which a rule does not apply are listed with the reason.

use crate::{interleavings::has_interleaving_cases, schema_rules::assert_no_rows, world::World};

/// The beginning of a query, with a CTE `writes (table_id, table_name, command)`: a row for each table and each command
/// that users may execute on it.
const WITH_WRITES: &str = "WITH writes AS (
    SELECT class.oid AS table_id, relname::text AS table_name, command
    FROM pg_class AS class, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) AS command
    WHERE relnamespace = 'public'::regnamespace
      AND relkind IN ('r', 'p')
      AND CASE command
        WHEN 'DELETE' THEN has_table_privilege('authenticated', class.oid, command)
        ELSE has_any_column_privilege('authenticated', class.oid, command)
      END
  )";

/// Returns an SQL condition on a row of `writes`: the table has a restrictive policy for the command, and the policy
/// calls the given function in schema `private`.
fn has_restrictive_policy_sql(function: &str) -> String {
    format!(
        "EXISTS (
           SELECT FROM pg_policies
           WHERE schemaname = 'public'
             AND tablename = writes.table_name
             AND permissive = 'RESTRICTIVE'
             AND cmd IN (command, 'ALL')
             AND roles && ARRAY['authenticated', 'public']::name[]
             AND concat(qual, with_check) ~ 'private\\.{function}\\('
         )"
    )
}

#[tokio::test]
async fn every_table_that_users_write_refuses_closed_accounts() {
    let refuses_closed_accounts = has_restrictive_policy_sql("require_and_lock_open_account");
    assert_no_rows(&format!(
        "{WITH_WRITES} SELECT command || ' ' || table_name FROM writes WHERE NOT {refuses_closed_accounts}"
    ))
    .await;
}

#[tokio::test]
async fn every_table_limits_the_rows_that_one_statement_writes() {
    let limits_rows = has_restrictive_policy_sql("refuse_too_many_rows");
    // Each user has one row in these tables, so they need no such policy.
    let has_one_row_per_user = "table_name IN ('users', 'tutorial_progress')";
    assert_no_rows(&format!(
        "{WITH_WRITES}
         SELECT command || ' ' || table_name FROM writes WHERE NOT {has_one_row_per_user} AND NOT {limits_rows}"
    ))
    .await;
    // The policies miss two kinds of statements. If a statement has several data-modifying parts (`WITH`), the policies
    // count the rows of each part separately. And they miss a deletion that finds all its rows before it deletes the
    // first. So a trigger counts all rows at the end of the statement, and checks again that the account is open.
    assert_no_rows(&format!(
        "{WITH_WRITES}
         SELECT command || ' ' || table_name
         FROM writes
         WHERE NOT EXISTS (
             SELECT
             FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
             WHERE tgrelid = table_id
               AND tgenabled = 'O'
               -- The trigger fires once per statement, and for this command.
               AND tgtype & 1 = 0
               AND tgtype & CASE command WHEN 'INSERT' THEN 4 WHEN 'DELETE' THEN 8 ELSE 16 END <> 0
               AND coalesce(tgnewtable, tgoldtable) IN ('affected_rows', 'deleted_rows')
               AND prosrc ~ 'private\\.refuse_too_many_rows\\('
               -- An expression of the statement may have closed the account since the policies were evaluated.
               AND prosrc ~ 'private\\.require_open_account\\(\\) FROM (affected|deleted)_rows'
           )"
    ))
    .await;
}

#[tokio::test]
async fn every_text_and_document_and_array_that_users_write_has_a_size_limit() {
    assert_no_rows(
        "SELECT class.relname || '.' || attname
         FROM pg_attribute JOIN pg_class AS class ON class.oid = attrelid
         WHERE relnamespace = 'public'::regnamespace
           AND relkind IN ('r', 'p')
           AND attnum > 0
           AND NOT attisdropped
           AND has_column_privilege('authenticated', class.oid, attnum, 'INSERT, UPDATE')
           -- These types have no limit of their own; varchar(n) and char(n) have one.
           AND (
             atttypid IN ('text'::regtype, 'jsonb'::regtype, 'json'::regtype, 'bytea'::regtype)
             OR atttypid IN ('varchar'::regtype, 'bpchar'::regtype) AND atttypmod = -1
             OR EXISTS (SELECT FROM pg_type WHERE pg_type.oid = atttypid AND typcategory = 'A')
           )
           -- A check that limits another column, or that only sets a minimum, does not count.
           AND NOT EXISTS (
             SELECT FROM pg_constraint
             WHERE conrelid = class.oid
               AND contype = 'c'
               AND convalidated
               AND pg_get_constraintdef(pg_constraint.oid)
                 ~ format('(char_length|pg_column_size|octet_length|cardinality)\\(%s\\) <=', attname)
           )
           -- These columns need no limit: they contain only known steps, and a trigger refuses a list with duplicates.
           AND class.relname || '.' || attname NOT IN (
             'tutorial_progress.current_step', 'tutorial_progress.completed_steps'
           )",
    )
    .await;
}

#[tokio::test]
async fn every_write_granted_to_users_has_interleaving_cases() {
    let writes: Vec<String> = World::new()
        .await
        .owner()
        .fetch_values(&format!("{WITH_WRITES} SELECT command || ' ' || table_name FROM writes ORDER BY 1"))
        .await
        .unwrap();
    assert!(!writes.is_empty());
    let writes_without_cases: Vec<&String> = writes
        .iter()
        .filter(|write| {
            let (command, table) = write.split_once(' ').unwrap();
            !has_interleaving_cases(command, table)
        })
        .collect();
    assert!(
        writes_without_cases.is_empty(),
        "for each of these writes, tests/interleavings/ lacks a user's statement or, for UPDATE and DELETE, an entry \
         in LOCKABLE_TABLES: {writes_without_cases:#?}"
    );
}
