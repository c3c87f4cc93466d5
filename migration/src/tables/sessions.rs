//! `sessions`: one session is one game with a Seer and players (section "sessions" of the specification).

use sea_orm_migration::prelude::*;

use super::definition::{
    TableDefinition, counter, foreign_key, id_column, index, index_on, named_check, optional, required, timestamp_now,
};

/// The condition for a session that the lobby may show, with or without a free seat.
const LOBBY_CONDITION: &str = "is_public AND status IN ('waiting', 'starting_soon')";

/// Adds the columns of a session except its id. `archived_sessions` has the same columns.
pub(super) fn add_columns(table: &mut TableCreateStatement) {
    table
        .col(required("seer_id").uuid())
        .col(required("adventure_id").uuid())
        .col(required("code").char_len(6))
        .col(required("is_public").boolean().default(false))
        .col(required("max_players").integer().default(4))
        .col(optional("looking_for").text())
        .col(optional("scheduled_start").timestamp_with_time_zone())
        .col(required("status").custom("session_status").default("waiting"))
        .col(optional("current_scene_id").text())
        .col(optional("current_encounter_id").text())
        .col(required("game_state").json_binary().default("{}"))
        .col(optional("started_at").timestamp_with_time_zone())
        .col(optional("ended_at").timestamp_with_time_zone())
        .col(timestamp_now("created_at"))
        .col(timestamp_now("updated_at"))
        // Number of seats taken now. With this column, the lobby finds free seats without counting, and a check can
        // enforce the limit.
        .col(counter("seats_taken"))
        // Number of the current encounter, which goes up with each change of `current_encounter_id`. A heroic save
        // counts for the encounter with this number.
        .col(counter("encounter_number"))
        // Number of changes of the game state. A client's UPDATE can name the version that it overwrites.
        .col(counter("game_state_version"))
        // Time of the last event, or up to a day earlier, because a trigger updates it at most once a day. It is stored
        // here because events are deleted after a day.
        .col(timestamp_now("last_event_at"));
}

pub(super) fn definition() -> TableDefinition {
    let mut table = Table::create().table("sessions").col(id_column()).to_owned();
    add_columns(&mut table);
    table
        .check(named_check("sessions_max_players_check", "max_players BETWEEN 2 AND 6"))
        .check(named_check("valid_code", "code ~ '^[A-Z0-9]{6}$'"))
        .check(named_check("seats_within_limit", "seats_taken <= max_players"))
        .check(named_check(
            "times_of_status",
            "(status IN ('completed', 'cancelled')) = (ended_at IS NOT NULL)
             AND (started_at IS NOT NULL OR status NOT IN ('active', 'paused', 'completed'))",
        ))
        .index(Index::create().unique().name("sessions_code_key").col("code"))
        .foreign_key(&mut foreign_key("sessions", "seer_id", "users", ForeignKeyAction::NoAction))
        .foreign_key(&mut foreign_key("sessions", "adventure_id", "adventures", ForeignKeyAction::NoAction));
    TableDefinition {
        table,
        indexes: vec![
            index_on("idx_sessions_seer_id", "sessions", &["seer_id"]),
            index_on("idx_sessions_adventure_id", "sessions", &["adventure_id"]),
            index_on("idx_sessions_status", "sessions", &["status"]),
            // The next two indexes have the sort order of the lobby (soonest first, unscheduled last, newest first
            // among equals), so that a page needs no sort. The first of them is for clients of the API that do not
            // filter by free seats.
            lobby_index("idx_sessions_public_waiting").and_where(Expr::cust(LOBBY_CONDITION)).to_owned(),
            lobby_index("idx_sessions_free_seats")
                .and_where(Expr::cust(LOBBY_CONDITION))
                .and_where(Expr::cust("seats_taken < max_players"))
                .to_owned(),
            // With these two indexes, maintenance finds the sessions to archive, and the abandoned ones, without
            // reading the others.
            index_on("idx_sessions_ended", "sessions", &["ended_at"])
                .and_where(Expr::cust("status IN ('completed', 'cancelled')"))
                .to_owned(),
            index_on("idx_sessions_live", "sessions", &["id"])
                .and_where(Expr::cust("status IN ('waiting', 'starting_soon', 'active', 'paused')"))
                .to_owned(),
        ],
    }
}

/// Returns an index in the order of the lobby.
fn lobby_index(name: &'static str) -> IndexCreateStatement {
    index(name, "sessions").col("scheduled_start").col(("created_at", IndexOrder::Desc)).col("id").to_owned()
}
