//! `sessions`: one table, one night (PRD, "sessions").

use super::*;

/// A session that the lobby may show, whether or not it has a seat free.
const OPEN: &str = "is_public AND status IN ('waiting', 'starting_soon')";

/// The columns that a session has, alive and in the archive.
pub(super) fn columns(table: &mut TableCreateStatement) {
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
        // Seats held now: the lobby knows a free seat without counting, and a check holds the limit.
        .col(counter("seats_taken"))
        // Encounters begun so far: a heroic save counts for the one in which it was made.
        .col(counter("encounters_begun"))
        // Times the game state was changed: who writes it over says which one.
        .col(counter("game_state_version"))
        // When something last happened, accurate to a day: events themselves are deleted after one.
        .col(timestamp_now("last_event_at"));
}

pub(super) fn definition() -> TableDefinition {
    let mut table = Table::create().table("sessions").col(id()).to_owned();
    columns(&mut table);
    table
        .check(named("sessions_max_players_check", "max_players BETWEEN 2 AND 6"))
        .check(named("valid_code", "code ~ '^[A-Z0-9]{6}$'"))
        .check(named("seats_within_limit", "seats_taken <= max_players"))
        .index(Index::create().unique().name("sessions_code_key").col("code"))
        .foreign_key(&mut foreign_key("sessions", "seer_id", "users", ForeignKeyAction::NoAction))
        .foreign_key(&mut foreign_key("sessions", "adventure_id", "adventures", ForeignKeyAction::NoAction));
    TableDefinition {
        table,
        indexes: vec![
            index_on("idx_sessions_seer_id", "sessions", &["seer_id"]),
            index_on("idx_sessions_adventure_id", "sessions", &["adventure_id"]),
            index_on("idx_sessions_status", "sessions", &["status"]),
            // In the order in which a lobby is read (soonest first, undated last, newest first among equals): a page
            // is a walk, not a sort. Clients of the API, who do not count seats, are served by the first.
            lobby_order("idx_sessions_public_waiting").and_where(Expr::cust(OPEN)).to_owned(),
            lobby_order("idx_sessions_free_seats")
                .and_where(Expr::cust(OPEN))
                .and_where(Expr::cust("seats_taken < max_players"))
                .to_owned(),
            // Maintenance finds what it archives, and what was abandoned, without reading the rest.
            index_on("idx_sessions_ended", "sessions", &["ended_at"])
                .and_where(Expr::cust("status IN ('completed', 'cancelled')"))
                .to_owned(),
            index_on("idx_sessions_live", "sessions", &["id"])
                .and_where(Expr::cust("status IN ('waiting', 'starting_soon', 'active', 'paused')"))
                .to_owned(),
        ],
    }
}

fn lobby_order(name: &'static str) -> IndexCreateStatement {
    index(name, "sessions").col("scheduled_start").col(("created_at", IndexOrder::Desc)).col("id").to_owned()
}
