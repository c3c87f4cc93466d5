//! Refused calls of the operations on sessions and seats, besides those in `sessions.rs`: with other arguments, by
//! other callers, or after other calls.

use serde_json::json;
use sparc::service::{
    MaxPlayers, Operations, RollsPageSize,
    sessions::{ExpectedVersion, LobbyFilter, NewSession, SessionChanges},
};
use uuid::Uuid;

use super::operation::{Refusal, refusal};

pub fn refusals() -> Vec<Refusal> {
    let mut all = seat_and_join_code_refusals();
    all.extend(session_refusals());
    all
}

fn seat_and_join_code_refusals() -> Vec<Refusal> {
    vec![
        refusal!("sessions.by_code", Stranger, "no_such_code", |tx, fixture| async {
            tx.sessions().by_code(&"ZZZZZZ".parse()?).await
        }),
        refusal!("sessions.join", Stranger, "no_such_code", |tx, fixture| async {
            tx.sessions().join(&"ZZZZZZ".parse()?, fixture.stranger.character_id).await
        }),
        refusal!("sessions.join", Stranger, "session_full", |tx, fixture| async {
            tx.sessions().join(&fixture.join_code(fixture.full_session).await, fixture.stranger.character_id).await
        }),
        refusal!("sessions.join", Stranger, "session_over", |tx, fixture| async {
            tx.sessions().join(&fixture.join_code(fixture.completed_session).await, fixture.stranger.character_id).await
        }),
        refusal!("sessions.join", Stranger, "session_started", |tx, fixture| async {
            tx.sessions().join(&fixture.join_code(fixture.active_session).await, fixture.stranger.character_id).await
        }),
        refusal!("sessions.join", AccountAtLimits, "character_retired", |tx, fixture| async {
            tx.sessions()
                .join(&fixture.join_code(fixture.waiting_session).await, fixture.retired_character_of_account_at_limits)
                .await
        }),
        refusal!("sessions.join", Stranger, "not_found", |tx, fixture| async {
            tx.sessions().join(&fixture.join_code(fixture.waiting_session).await, Uuid::new_v4()).await
        }),
        refusal!("sessions.join", ClosedAccount, "account_closed", |tx, fixture| async {
            tx.sessions()
                .join(&fixture.join_code(fixture.waiting_session).await, fixture.living_character_of_closed_account)
                .await
        }),
        refusal!("sessions.join_by_id", Stranger, "not_allowed", |tx, fixture| {
            tx.sessions().join_by_id(fixture.private_session, fixture.stranger.character_id)
        }),
        refusal!("sessions.join_by_id", Stranger, "session_full", |tx, fixture| {
            tx.sessions().join_by_id(fixture.full_session, fixture.stranger.character_id)
        }),
        refusal!("sessions.join_by_id", FormerPlayer, "session_over", |tx, fixture| {
            tx.sessions().join_by_id(fixture.completed_session, fixture.former_player.character_id)
        }),
        refusal!("sessions.join_by_id", AccountAtLimits, "character_retired", |tx, fixture| {
            tx.sessions().join_by_id(fixture.waiting_session, fixture.retired_character_of_account_at_limits)
        }),
        refusal!("sessions.join_by_id", Stranger, "not_found", |tx, fixture| {
            tx.sessions().join_by_id(fixture.waiting_session, Uuid::new_v4())
        }),
        refusal!("sessions.join_by_id", ClosedAccount, "account_closed", |tx, fixture| {
            tx.sessions().join_by_id(fixture.waiting_session, fixture.living_character_of_closed_account)
        }),
        refusal!("sessions.join_by_id", Stranger, "session_started", |tx, fixture| async {
            tx.sessions().join_by_id(fixture.public_active_session, fixture.stranger.character_id).await
        }),
        refusal!("sessions.seat_player", Stranger, "not_allowed", |tx, fixture| {
            tx.sessions().seat_player(fixture.private_session, fixture.player.user_id, fixture.player.character_id)
        }),
        refusal!("sessions.leave", Player, "session_over", |tx, fixture| tx
            .sessions()
            .leave(fixture.completed_session)),
        refusal!("sessions.rejoin", FormerPlayer, "session_full", |tx, fixture| {
            tx.sessions().rejoin(fixture.full_session_left_by_former_player, fixture.former_player.character_id)
        }),
        refusal!("sessions.rejoin", FormerPlayer, "session_over", |tx, fixture| {
            tx.sessions().rejoin(fixture.completed_session, fixture.former_player.character_id)
        }),
        // The player is seated with another character.
        refusal!("sessions.rejoin", Player, "session_started", |tx, fixture| {
            tx.sessions().rejoin(fixture.active_session, fixture.spare_character)
        }),
        refusal!("sessions.rejoin", FormerPlayer, "not_found", |tx, fixture| {
            tx.sessions().rejoin(fixture.waiting_session, Uuid::new_v4())
        }),
        refusal!("sessions.rejoin", Player, "character_retired", |tx, fixture| async {
            tx.sessions().leave(fixture.waiting_session).await?;
            tx.sessions().rejoin(fixture.waiting_session, fixture.retired_character).await
        }),
        refusal!("sessions.rejoin", Stranger, "not_found", |tx, fixture| {
            tx.sessions().rejoin(fixture.private_session, fixture.stranger.character_id)
        }),
        refusal!("sessions.change_character", Stranger, "not_found", |tx, fixture| {
            tx.sessions().change_character(fixture.private_session, fixture.stranger.character_id)
        }),
        refusal!("sessions.rejoin", ClosedAccount, "account_closed", |tx, fixture| {
            tx.sessions().rejoin(fixture.session_with_one_seat_free, fixture.living_character_of_closed_account)
        }),
        refusal!("sessions.change_character", Player, "session_started", |tx, fixture| {
            tx.sessions().change_character(fixture.active_session, fixture.spare_character)
        }),
        refusal!("sessions.change_character", Player, "session_over", |tx, fixture| {
            tx.sessions().change_character(fixture.completed_session, fixture.spare_character)
        }),
        refusal!("sessions.change_character", Player, "character_retired", |tx, fixture| {
            tx.sessions().change_character(fixture.waiting_session, fixture.retired_character)
        }),
        refusal!("sessions.seat_player", Service, "session_full", |tx, fixture| {
            tx.sessions().seat_player(
                fixture.full_session_left_by_former_player,
                fixture.stranger.user_id,
                fixture.stranger.character_id,
            )
        }),
        refusal!("sessions.seat_player", Service, "session_over", |tx, fixture| {
            tx.sessions().seat_player(
                fixture.completed_session,
                fixture.stranger.user_id,
                fixture.stranger.character_id,
            )
        }),
        refusal!("sessions.seat_player", Service, "character_not_yours", |tx, fixture| {
            tx.sessions().seat_player(fixture.waiting_session, fixture.stranger.user_id, fixture.spare_character)
        }),
        refusal!("sessions.seat_player", Service, "character_retired", |tx, fixture| {
            tx.sessions().seat_player(
                fixture.waiting_session,
                fixture.account_at_limits,
                fixture.retired_character_of_account_at_limits,
            )
        }),
        refusal!("sessions.seat_player", Service, "not_found", |tx, fixture| {
            tx.sessions().seat_player(fixture.waiting_session, fixture.stranger.user_id, Uuid::new_v4())
        }),
        refusal!("sessions.seat_player", Service, "account_closed", |tx, fixture| {
            tx.sessions().seat_player(
                fixture.waiting_session,
                fixture.closed_account,
                fixture.living_character_of_closed_account,
            )
        }),
        refusal!("sessions.seat_player", Seer, "not_your_choice", |tx, fixture| {
            tx.sessions().seat_player(
                fixture.session_with_one_seat_free,
                fixture.former_player.user_id,
                fixture.former_player.character_id,
            )
        }),
        refusal!("sessions.seat_player", Stranger, "session_started", |tx, fixture| {
            tx.sessions().seat_player(
                fixture.public_active_session,
                fixture.stranger.user_id,
                fixture.stranger.character_id,
            )
        }),
        refusal!("sessions.seat_player", FormerPlayer, "player_removed", |tx, fixture| {
            tx.sessions().seat_player(
                fixture.starting_soon_session,
                fixture.former_player.user_id,
                fixture.former_player.character_id,
            )
        }),
        refusal!("sessions.seat_player", Service, "seat_limit_reached", |tx, fixture| {
            tx.sessions().seat_player(
                fixture.waiting_session,
                fixture.account_at_limits,
                fixture.character_at_seat_limit,
            )
        }),
        refusal!("sessions.join", AccountAtLimits, "seat_limit_reached", |tx, fixture| async {
            tx.sessions().join(&fixture.join_code(fixture.waiting_session).await, fixture.character_at_seat_limit).await
        }),
        refusal!("sessions.join_by_id", AccountAtLimits, "seat_limit_reached", |tx, fixture| {
            tx.sessions().join_by_id(fixture.waiting_session, fixture.character_at_seat_limit)
        }),
        refusal!("sessions.rejoin", AccountAtLimits, "seat_limit_reached", |tx, fixture| {
            tx.sessions().rejoin(fixture.session_left_by_account_at_limits, fixture.character_at_seat_limit)
        }),
        refusal!("sessions.join", FormerPlayer, "player_removed", |tx, fixture| async {
            tx.sessions()
                .join(&fixture.join_code(fixture.starting_soon_session).await, fixture.former_player.character_id)
                .await
        }),
        refusal!("sessions.join_by_id", FormerPlayer, "player_removed", |tx, fixture| {
            tx.sessions().join_by_id(fixture.starting_soon_session, fixture.former_player.character_id)
        }),
        refusal!("sessions.rejoin", FormerPlayer, "player_removed", |tx, fixture| {
            tx.sessions().rejoin(fixture.starting_soon_session, fixture.former_player.character_id)
        }),
        // In the sessions of the following calls of `join`, `join_by_id` and `seat_player`, the player has a seat. Each
        // call asks for another character, or its caller may not seat the player.
        refusal!("sessions.join", Player, "session_over", |tx, fixture| async {
            tx.sessions().join(&fixture.join_code(fixture.completed_session).await, fixture.spare_character).await
        }),
        refusal!("sessions.join", Player, "not_found", |tx, fixture| async {
            tx.sessions().join(&fixture.join_code(fixture.waiting_session).await, Uuid::new_v4()).await
        }),
        refusal!("sessions.join", Player, "session_started", |tx, fixture| async {
            tx.sessions().join(&fixture.join_code(fixture.active_session).await, fixture.spare_character).await
        }),
        refusal!("sessions.join_by_id", Player, "session_over", |tx, fixture| {
            tx.sessions().join_by_id(fixture.completed_session, fixture.spare_character)
        }),
        refusal!("sessions.join_by_id", Player, "not_found", |tx, fixture| {
            tx.sessions().join_by_id(fixture.waiting_session, Uuid::new_v4())
        }),
        refusal!("sessions.seat_player", Service, "session_over", |tx, fixture| {
            tx.sessions().seat_player(fixture.completed_session, fixture.player.user_id, fixture.spare_character)
        }),
        refusal!("sessions.seat_player", Service, "session_started", |tx, fixture| {
            tx.sessions().seat_player(fixture.active_session, fixture.player.user_id, fixture.spare_character)
        }),
        refusal!("sessions.seat_player", Service, "not_found", |tx, fixture| {
            tx.sessions().seat_player(fixture.waiting_session, fixture.player.user_id, Uuid::new_v4())
        }),
        refusal!("sessions.seat_player", Service, "character_not_yours", |tx, fixture| {
            tx.sessions().seat_player(fixture.waiting_session, fixture.player.user_id, fixture.stranger.character_id)
        }),
        refusal!("sessions.seat_player", Seer, "not_your_choice", |tx, fixture| {
            tx.sessions().seat_player(fixture.waiting_session, fixture.player.user_id, fixture.player.character_id)
        }),
        refusal!("sessions.seat_player", Stranger, "not_your_choice", |tx, fixture| {
            tx.sessions().seat_player(fixture.waiting_session, fixture.player.user_id, fixture.player.character_id)
        }),
        // The same call for the former player, who has left their seat in this session.
        refusal!("sessions.seat_player", Stranger, "not_your_choice", |tx, fixture| {
            tx.sessions().seat_player(
                fixture.waiting_session,
                fixture.former_player.user_id,
                fixture.former_player.character_id,
            )
        }),
        refusal!("sessions.replace_code", Seer, "session_over", |tx, fixture| tx
            .sessions()
            .replace_code(fixture.completed_session)),
        refusal!("sessions.replace_code", Seer, "not_found", |tx, fixture| tx.sessions().replace_code(Uuid::new_v4())),
        refusal!("sessions.replace_code", ClosedAccount, "account_closed", |tx, fixture| {
            tx.sessions().replace_code(fixture.waiting_session)
        }),
        refusal!("sessions.remove_player", Seer, "session_over", |tx, fixture| {
            tx.sessions().remove_player(fixture.completed_session, fixture.player.user_id)
        }),
        refusal!("sessions.remove_player", FormerPlayer, "player_removed", |tx, fixture| {
            tx.sessions().remove_player(fixture.starting_soon_session, fixture.former_player.user_id)
        }),
    ]
}

fn session_refusals() -> Vec<Refusal> {
    vec![
        refusal!("sessions.create", Stranger, "adventure_not_playable", |tx, fixture| {
            tx.sessions().create(NewSession { adventure_id: fixture.draft_adventure, ..Default::default() })
        }),
        refusal!("sessions.create", AccountAtLimits, "session_limit_reached", |tx, fixture| {
            tx.sessions().create(NewSession { adventure_id: fixture.adventure, ..Default::default() })
        }),
        refusal!("sessions.create", Stranger, "id_conflict", |tx, fixture| {
            let id = Some(fixture.waiting_session);
            tx.sessions().create(NewSession { id, adventure_id: fixture.adventure, ..Default::default() })
        }),
        refusal!("sessions.create", Stranger, "invalid_value", |tx, fixture| {
            let looking_for = Some("a\0".into());
            tx.sessions().create(NewSession { looking_for, adventure_id: fixture.adventure, ..Default::default() })
        }),
        refusal!("sessions.create", ClosedAccount, "account_closed", |tx, fixture| {
            tx.sessions().create(NewSession { adventure_id: fixture.adventure, ..Default::default() })
        }),
        refusal!("sessions.edit", Seer, "seats_are_taken", |tx, fixture| {
            tx.sessions().edit(
                fixture.session_with_one_seat_free,
                SessionChanges { max_players: Some(MaxPlayers::MIN), ..Default::default() },
            )
        }),
        refusal!("sessions.edit", Seer, "session_over", |tx, fixture| {
            tx.sessions().edit(
                fixture.completed_session,
                SessionChanges { max_players: Some(MaxPlayers::MAX), ..Default::default() },
            )
        }),
        refusal!("sessions.edit", Seer, "not_found", |tx, fixture| {
            tx.sessions().edit(Uuid::new_v4(), SessionChanges { looking_for: Some(None), ..Default::default() })
        }),
        refusal!("sessions.edit", Seer, "invalid_value", |tx, fixture| {
            let looking_for = Some(Some("a\0".into()));
            tx.sessions().edit(fixture.waiting_session, SessionChanges { looking_for, ..Default::default() })
        }),
        refusal!("sessions.lobby", Visitor, "invalid_value", |tx, fixture| async {
            let filter = LobbyFilter { search: Some("a\0".into()), ..Default::default() };
            tx.sessions().lobby(&filter, None).await
        }),
        refusal!("sessions.lobby", Visitor, "bad_cursor", |tx, fixture| async {
            // A cursor is JSON in hexadecimal digits; these stand for an empty object.
            let forged = "7b7d".to_owned().into();
            tx.sessions().lobby(&LobbyFilter::default(), Some(&forged)).await
        }),
        refusal!("sessions.announce_start", Seer, "illegal_transition", |tx, fixture| tx
            .sessions()
            .announce_start(fixture.completed_session)),
        refusal!("sessions.announce_start", Seer, "not_found", |tx, fixture| tx
            .sessions()
            .announce_start(Uuid::new_v4())),
        refusal!("sessions.withdraw_announcement", Seer, "illegal_transition", |tx, fixture| tx
            .sessions()
            .withdraw_announcement(fixture.active_session)),
        refusal!("sessions.start", Seer, "illegal_transition", |tx, fixture| tx
            .sessions()
            .start(fixture.paused_session)),
        refusal!("sessions.start", Seer, "not_found", |tx, fixture| tx.sessions().start(Uuid::new_v4())),
        refusal!("sessions.start", Seer, "session_has_no_player", |tx, fixture| async {
            tx.sessions().remove_player(fixture.waiting_session, fixture.player.user_id).await?;
            tx.sessions().start(fixture.waiting_session).await
        }),
        refusal!("sessions.pause", Seer, "illegal_transition", |tx, fixture| tx
            .sessions()
            .pause(fixture.waiting_session)),
        refusal!("sessions.resume", Seer, "illegal_transition", |tx, fixture| tx
            .sessions()
            .resume(fixture.waiting_session)),
        refusal!("sessions.resume", Seer, "session_has_no_player", |tx, fixture| async {
            tx.sessions().pause(fixture.session_without_player).await?;
            tx.sessions().resume(fixture.session_without_player).await
        }),
        refusal!("sessions.complete", Seer, "illegal_transition", |tx, fixture| tx
            .sessions()
            .complete(fixture.waiting_session)),
        refusal!("sessions.cancel", Seer, "illegal_transition", |tx, fixture| tx
            .sessions()
            .cancel(fixture.completed_session)),
        refusal!("sessions.cancel", Seer, "not_found", |tx, fixture| tx.sessions().cancel(Uuid::new_v4())),
        refusal!("sessions.set_scene", Seer, "not_found", |tx, fixture| tx.sessions().set_scene(Uuid::new_v4(), None)),
        refusal!("sessions.set_scene", Seer, "session_over", |tx, fixture| {
            tx.sessions().set_scene(fixture.completed_session, Some("epilogue"))
        }),
        refusal!("sessions.set_scene", Seer, "invalid_value", |tx, fixture| async {
            tx.sessions().set_scene(fixture.active_session, Some(&"x".repeat(201))).await
        }),
        refusal!("sessions.set_encounter", Seer, "invalid_value", |tx, fixture| async {
            tx.sessions().set_encounter(fixture.active_session, Some(&"x".repeat(201))).await
        }),
        refusal!("sessions.set_encounter", Seer, "session_over", |tx, fixture| {
            tx.sessions().set_encounter(fixture.completed_session, Some("revenge"))
        }),
        refusal!("sessions.set_game_state", Seer, "session_over", |tx, fixture| {
            tx.sessions().set_game_state(fixture.completed_session, json!({ "torches": 3 }), ExpectedVersion::Any)
        }),
        refusal!("sessions.set_game_state", Seer, "game_state_changed", |tx, fixture| {
            tx.sessions().set_game_state(fixture.active_session, json!({ "torches": 3 }), ExpectedVersion::Version(7))
        }),
        refusal!("sessions.set_game_state", Player, "not_a_seer", |tx, fixture| {
            tx.sessions().set_game_state(fixture.active_session, json!({ "torches": 3 }), ExpectedVersion::Any)
        }),
        refusal!("sessions.set_game_state", Seer, "invalid_value", |tx, fixture| {
            tx.sessions().set_game_state(fixture.active_session, json!({ "nul": "\0" }), ExpectedVersion::Any)
        }),
        // A cursor is JSON in hexadecimal digits; `00` does not stand for JSON.
        refusal!("sessions.my_live", Seer, "bad_cursor", |tx, fixture| async {
            tx.sessions().my_live(Some(&"00".to_owned().into())).await
        }),
        refusal!("sessions.my_past", Seer, "bad_cursor", |tx, fixture| async {
            tx.sessions().my_past(Some(&"00".to_owned().into())).await
        }),
        refusal!("sessions.archived_rolls", Seer, "bad_cursor", |tx, fixture| async {
            let forged = "00".to_owned().into();
            tx.sessions().archived_rolls(fixture.archived_session, RollsPageSize::MAX, Some(&forged)).await
        }),
    ]
}
