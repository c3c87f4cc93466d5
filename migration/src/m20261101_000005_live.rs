//! What everyone at the table sees at once: the realtime publication.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        crate::execute(manager, include_str!("../sql/live/up.sql")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        crate::execute(manager, include_str!("../sql/live/down.sql")).await
    }
}
