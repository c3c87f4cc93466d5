//! A page of the catalogue begins behind the row that the one before ended with, however many are equal to it in what the list is
//! ordered by: the newest access for databases of before.

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
