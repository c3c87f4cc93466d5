//! Who may do what: policies, grants, column privileges, and the functions that they need.

use sea_orm_migration::prelude::*;

use crate::{functions, tables::TABLES};

#[derive(DeriveMigrationName)]
pub struct Migration;

const ACCESS: [&str; 12] = [
    include_str!("../sql/access/users.sql"),
    include_str!("../sql/access/characters.sql"),
    include_str!("../sql/access/adventures.sql"),
    include_str!("../sql/access/creatures.sql"),
    include_str!("../sql/access/sessions.sql"),
    include_str!("../sql/access/session_players.sql"),
    include_str!("../sql/access/dice_rolls.sql"),
    include_str!("../sql/access/session_events.sql"),
    include_str!("../sql/access/tutorial_progress.sql"),
    include_str!("../sql/access/archive.sql"),
    include_str!("../sql/access/closed_accounts.sql"),
    include_str!("../sql/access/broadcast.sql"),
];

/// Opens what is meant to be open, on tables that are closed.
pub(crate) async fn apply(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    for access in ACCESS {
        crate::execute(manager, access).await?;
    }
    crate::execute(manager, &functions::close(functions::ACCESS)).await?;
    crate::execute(manager, include_str!("../sql/access/functions.sql")).await
}

/// Closes the tables and takes the policies away; the functions stay.
pub(crate) async fn withdraw(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    crate::execute(manager, include_str!("../sql/access/down.sql")).await?;
    for table in TABLES {
        crate::execute(
            manager,
            &format!("REVOKE ALL ON TABLE public.{table} FROM PUBLIC, anon, authenticated, service_role"),
        )
        .await?;
    }
    Ok(())
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        apply(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        withdraw(manager).await?;
        crate::execute(manager, &functions::drop(functions::ACCESS)).await?;
        crate::execute(manager, "DROP VIEW IF EXISTS private.published_adventures, public.profiles").await?;
        // Helpers of the rules stay, closed again.
        crate::execute(manager, &functions::close(functions::RULES)).await
    }
}
