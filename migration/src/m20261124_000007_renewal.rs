//! Brings a database that an earlier version migrated up to what a new one gets: columns and indexes that it lacks, and
//! the newest rules and access. The files under `sql/` always say the newest; on a new database this changes nothing.
//!
//! Whoever changes a rule or a policy edits its file, and adds a migration like this one at the end of the list, so that
//! databases which are migrated already get it too.

use sea_orm_migration::prelude::*;

use crate::{m20261101_000003_rules as rules, m20261101_000004_access as access, tables};

#[derive(DeriveMigrationName)]
pub struct Migration;

/// Brings everything to what the files say.
pub(crate) async fn renew(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    crate::begin(manager).await?;
    crate::execute(manager, include_str!("../sql/tables/renew.sql")).await?;
    crate::execute(manager, tables::CHECKS).await?;
    crate::execute(manager, tables::BOUNDS).await?;
    crate::execute(manager, tables::VACUUM).await?;
    access::withdraw(manager).await?;
    rules::apply(manager).await?;
    access::apply(manager).await
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        renew(manager).await
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}
