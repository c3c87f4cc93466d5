//! The archive: sessions that ended long ago, with their seats and rolls. The specification's monthly job moves them
//! here; the columns are this project's decision. Each table has the foreign keys of the table from which its rows
//! come, so that archived rows never refer to rows that no longer exist. (A seat or roll in the archive refers to the
//! session in the archive.)

use sea_orm_migration::prelude::*;

use super::definition::{TableDefinition, foreign_key, index_on, required, timestamp_now};

pub(super) fn sessions() -> TableDefinition {
    let mut table = Table::create().table("archived_sessions").col(required("id").uuid().primary_key()).to_owned();
    super::sessions::add_columns(&mut table);
    table.col(timestamp_now("archived_at"));
    for (column, target) in [("seer_id", "users"), ("adventure_id", "adventures")] {
        table.foreign_key(&mut foreign_key("archived_sessions", column, target, ForeignKeyAction::NoAction));
    }
    TableDefinition {
        table,
        indexes: vec![
            index_on("idx_archived_sessions_seer", "archived_sessions", &["seer_id"]),
            index_on("idx_archived_sessions_adventure", "archived_sessions", &["adventure_id"]),
        ],
    }
}

pub(super) fn session_players() -> TableDefinition {
    let mut table = Table::create().table("archived_session_players").to_owned();
    super::session_players::add_columns_and_constraints(&mut table);
    table.foreign_key(&mut foreign_key(
        "archived_session_players",
        "session_id",
        "archived_sessions",
        ForeignKeyAction::Cascade,
    ));
    for (column, target) in [("user_id", "users"), ("character_id", "characters")] {
        table.foreign_key(&mut foreign_key("archived_session_players", column, target, ForeignKeyAction::NoAction));
    }
    TableDefinition {
        table,
        indexes: vec![
            index_on("idx_archived_session_players_character", "archived_session_players", &["character_id"]),
            index_on("idx_archived_session_players_user", "archived_session_players", &["user_id", "session_id"]),
        ],
    }
}

pub(super) fn dice_rolls() -> TableDefinition {
    let mut table = Table::create().table("archived_dice_rolls").col(required("id").uuid().primary_key()).to_owned();
    super::dice_rolls::add_columns(&mut table);
    for (column, target, on_delete) in [
        ("session_id", "archived_sessions", ForeignKeyAction::Cascade),
        ("character_id", "characters", ForeignKeyAction::NoAction),
        ("creature_id", "creatures", ForeignKeyAction::SetNull),
        ("original_roll_id", "archived_dice_rolls", ForeignKeyAction::NoAction),
    ] {
        table.foreign_key(&mut foreign_key("archived_dice_rolls", column, target, on_delete));
    }
    TableDefinition {
        table,
        indexes: vec![
            index_on("idx_archived_dice_rolls_session", "archived_dice_rolls", &["session_id", "created_at"]),
            index_on("idx_archived_dice_rolls_character", "archived_dice_rolls", &["character_id"]),
            index_on("idx_archived_dice_rolls_creature", "archived_dice_rolls", &["creature_id"]),
            index_on("idx_archived_dice_rolls_original", "archived_dice_rolls", &["original_roll_id"]),
        ],
    }
}
