//! The jobs that keep the tables tidy, where pg_cron is there to run them.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        crate::execute(manager, include_str!("../sql/upkeep/up.sql")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        crate::execute(manager, include_str!("../sql/upkeep/down.sql")).await
    }
}
