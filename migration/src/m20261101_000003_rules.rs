//! The rules that the tables keep, whoever writes: functions and triggers.

use sea_orm_migration::prelude::*;

use crate::functions;

#[derive(DeriveMigrationName)]
pub struct Migration;

/// One file a table, after what they share.
const RULES: [&str; 13] = [
    include_str!("../sql/rules/shared.sql"),
    include_str!("../sql/rules/users.sql"),
    include_str!("../sql/rules/characters.sql"),
    include_str!("../sql/rules/adventures.sql"),
    include_str!("../sql/rules/creatures.sql"),
    include_str!("../sql/rules/sessions.sql"),
    include_str!("../sql/rules/session_players.sql"),
    include_str!("../sql/rules/dice_rolls.sql"),
    include_str!("../sql/rules/session_events.sql"),
    include_str!("../sql/rules/tutorial_progress.sql"),
    include_str!("../sql/rules/archive.sql"),
    include_str!("../sql/rules/limits.sql"),
    include_str!("../sql/rules/broadcast.sql"),
];

/// Functions and triggers as they are today, whatever stood there before.
pub(crate) async fn apply(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    for rules in RULES {
        crate::execute(manager, rules).await?;
    }
    crate::execute(manager, &functions::close(functions::RULES)).await
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        apply(manager).await?;
        crate::execute(manager, include_str!("../sql/first_profiles.sql")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::begin(manager).await?;
        crate::execute(manager, &functions::drop(functions::RULES)).await
    }
}
