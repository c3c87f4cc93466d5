//! A character's rolls, the best rated adventures and a table's events are walked from where a page begins: the newest access and
//! index, and without what is dead in between, for databases of before.

use sea_orm_migration::prelude::*;

use crate::m20261124_000007_renewal as renewal;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        renewal::renew(manager).await
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}
