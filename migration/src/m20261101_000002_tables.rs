//! Types, tables and indexes. The API roles have no access to the tables until `sql/policies` grants it.

use sea_orm_migration::prelude::*;

use crate::{
    rules::{self, execute_all},
    statements, tables,
};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager.get_connection(), &up()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager.get_connection(), &down()).await
    }
}

pub(crate) fn up() -> Vec<String> {
    let mut sql =
        vec![tables::CHECK_FUNCTIONS.to_owned(), rules::revoke_defaults(&statements::parse(tables::CHECK_FUNCTIONS))];
    sql.extend(tables::create());
    sql.extend(
        [
            tables::GATES,
            tables::REQUESTS,
            tables::SIZE_LIMITS,
            tables::COMMENTS,
            tables::VACUUM_SETTINGS,
            tables::REVOKED_DEFAULTS,
            rules::PUBLICATION,
        ]
        .map(str::to_owned),
    );
    sql
}

fn down() -> Vec<String> {
    let mut sql = vec![rules::unschedule(), include_str!("../sql/publication/down.sql").to_owned()];
    sql.push("DROP TABLE IF EXISTS private.requests CASCADE".to_owned());
    sql.push("DROP TABLE IF EXISTS private.account_gates CASCADE".to_owned());
    sql.extend(tables::drop());
    sql
}
