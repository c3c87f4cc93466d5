//! Types, tables and indexes; closed to everyone until policies and grants open them.

use sea_orm_migration::prelude::*;

use crate::{functions, tables};

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        crate::execute(manager, tables::CHECKS).await?;
        crate::execute(manager, &functions::close(functions::CHECKS)).await?;
        tables::create(manager).await?;
        crate::execute(manager, include_str!("../sql/tables/gates.sql")).await?;
        crate::execute(manager, tables::BOUNDS).await?;
        crate::execute(manager, tables::VACUUM).await?;
        crate::execute(manager, include_str!("../sql/tables/comments.sql")).await?;
        crate::execute(manager, include_str!("../sql/tables/close.sql")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        crate::execute(manager, "DROP TABLE private.account_gates").await?;
        tables::drop(manager).await?;
        crate::execute(manager, &functions::drop(functions::CHECKS)).await
    }
}
