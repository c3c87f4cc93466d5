//! `tutorial_progress`: a user's progress in the tutorial (section "tutorial_progress" of the specification).

use sea_orm_migration::prelude::*;

use super::definition::{TableDefinition, foreign_key, index_on, named_check, optional, required, timestamp_now};

pub(super) fn definition() -> TableDefinition {
    TableDefinition {
        table: Table::create()
            .table("tutorial_progress")
            .col(required("user_id").uuid().primary_key())
            .col(optional("path").custom("tutorial_path"))
            .col(required("current_step").text().default("welcome"))
            .col(required("completed_steps").array(ColumnType::Text).default("{}"))
            .col(timestamp_now("started_at"))
            .col(optional("completed_at").timestamp_with_time_zone())
            .col(required("skipped").boolean().default(false))
            .col(timestamp_now("updated_at"))
            .check(named_check(
                "valid_step",
                "ARRAY[current_step] || completed_steps <@ ARRAY['welcome', 'character-basics', 'dice-rolling', \
                 'combat-practice', 'player-complete', 'running-sessions', 'seer-complete']",
            ))
            .foreign_key(&mut foreign_key("tutorial_progress", "user_id", "users", ForeignKeyAction::Cascade))
            .to_owned(),
        indexes: vec![
            index_on("idx_tutorial_completed", "tutorial_progress", &["completed_at"])
                .and_where(Expr::cust("completed_at IS NOT NULL"))
                .to_owned(),
        ],
    }
}
