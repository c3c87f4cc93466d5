//! The catalogue's lists are walked also where a page looks far for what matches, and the details of a session ask once who may
//! see it: the newest access for databases of before.

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
