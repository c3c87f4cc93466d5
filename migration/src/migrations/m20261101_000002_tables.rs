//! Types, tables and indexes. The API roles have no access to the tables until the files in `sql/policies` grant it.

use sea_orm_migration::prelude::*;

use crate::{query::execute_all, repeatable, statements, tables};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager.get_connection(), &up_sql()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager.get_connection(), &down_sql()).await
    }
}

/// Returns the SQL that creates the types, tables and indexes, and the functions that check constraints call. It also
/// enables row-level security on the tables, and adds four of them to the publication `supabase_realtime`.
pub(super) fn up_sql() -> Vec<String> {
    let mut sql = vec![
        tables::CHECK_FUNCTIONS.to_owned(),
        repeatable::revoke_on_created_sql(&statements::parse(tables::CHECK_FUNCTIONS)),
    ];
    sql.extend(tables::create_sql());
    sql.extend(
        [
            tables::GATES_AND_REPLICA_IDENTITY,
            tables::REQUEST_DIGESTS,
            tables::VALUE_LIMITS,
            tables::COMMENTS,
            tables::STORAGE_AND_STATISTICS,
            tables::ROW_SECURITY_AND_REVOKES,
            repeatable::PUBLICATION,
        ]
        .map(str::to_owned),
    );
    sql
}

/// Returns the SQL that unschedules the jobs (the command `up` schedules them after the migrations), removes what was
/// added to the publication, and drops the tables and types. The functions, triggers, policies and views have already
/// been dropped.
fn down_sql() -> Vec<String> {
    let mut sql = vec![repeatable::unschedule_jobs_sql(), include_str!("../../sql/publication/down.sql").to_owned()];
    sql.push("DROP TABLE IF EXISTS private.request_digests CASCADE".to_owned());
    sql.push("DROP TABLE IF EXISTS private.account_gates CASCADE".to_owned());
    sql.extend(tables::drop_sql());
    sql
}
