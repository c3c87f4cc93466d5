//! `session_players`: the seats of a session (section "session_players" of the specification).

use sea_orm_migration::prelude::*;

use super::definition::{
    TableDefinition, counter, foreign_key, index_on, named_check, optional, required, timestamp_now,
};

/// Adds the primary key of a seat, two named checks, and every column but `replica_identity`.
/// `archived_session_players` has the same primary key, checks and columns.
pub(super) fn add_columns_and_constraints(table: &mut TableCreateStatement) {
    table
        .col(required("session_id").uuid())
        .col(required("user_id").uuid())
        .col(required("character_id").uuid())
        .col(required("is_active").boolean().default(true))
        .col(counter("heroic_saves_used"))
        .col(timestamp_now("joined_at"))
        .col(optional("left_at").timestamp_with_time_zone())
        // The number of the encounter in which the saves of `heroic_saves_used` were made: the value that
        // `sessions.encounter_number` had then.
        .col(counter("heroic_saves_encounter"))
        // Set while the player may not rejoin, because the Seer removed them. Only the Seer or the service clears it.
        .col(optional("removed_at").timestamp_with_time_zone())
        .check(named_check("removed_is_inactive", "removed_at IS NULL OR NOT is_active"))
        .check(named_check("left_is_inactive", "is_active = (left_at IS NULL)"))
        .primary_key(Index::create().col("session_id").col("user_id"));
}

pub(super) fn definition() -> TableDefinition {
    let mut table = Table::create().table("session_players").to_owned();
    add_columns_and_constraints(&mut table);
    table
        // The replica identity: the value that subscribers to a publication of this table receive for each deleted row.
        // The primary key would reveal to them which user held the seat.
        .col(required("replica_identity").uuid().default(Expr::cust("gen_random_uuid()")))
        .index(Index::create().unique().name("session_players_replica_identity_key").col("replica_identity"))
        .foreign_key(&mut foreign_key("session_players", "session_id", "sessions", ForeignKeyAction::Cascade))
        .foreign_key(&mut foreign_key("session_players", "user_id", "users", ForeignKeyAction::NoAction))
        .foreign_key(&mut foreign_key("session_players", "character_id", "characters", ForeignKeyAction::NoAction));
    TableDefinition {
        table,
        indexes: vec![
            index_on("idx_session_players_character", "session_players", &["character_id"]),
            // For the foreign key, and for the list of a user's own sessions as an index-only scan.
            index_on("idx_session_players_user", "session_players", &["user_id", "session_id"]),
            index_on("idx_session_players_active", "session_players", &["session_id"])
                .and_where(Expr::cust("is_active"))
                .to_owned(),
        ],
    }
}
