//! The operations on sessions and seats, and who may call them.

use serde_json::json;
use sparc::service::{
    MaxPlayers, Operations, PageSize,
    sessions::{ExpectedVersion, LobbyFilter, NewSession, SessionChanges, Visibility},
};
use uuid::Uuid;

use super::{Caller, EVERYBODY_MAY, Operation, Refusal, SIGNED_IN_MAY, USERS_MAY, operation, outcome_code, refusal};

/// In a public session, which everybody can see, only the Seer and the service may.
const SEER_MAY: [&str; 6] = ["not_signed_in", "not_a_seer", "not_a_seer", "not_a_seer", "done", "done"];

/// In a private session, which the stranger cannot see, only the Seer and the service may.
const SEER_OF_PRIVATE_MAY: [&str; 6] = ["not_signed_in", "not_found", "not_a_seer", "not_a_seer", "done", "done"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("sessions.create", USERS_MAY, |tx, scene| {
            tx.sessions().create(NewSession { adventure_id: scene.adventure, ..Default::default() })
        }),
        operation!("sessions.edit", SEER_MAY, |tx, scene| {
            let changes = SessionChanges { visibility: Some(Visibility::Private), ..Default::default() };
            tx.sessions().edit(scene.waiting_session, changes)
        }),
        operation!("sessions.get", ["not_found", "not_found", "done", "done", "done", "done"], |tx, scene| {
            tx.sessions().get(scene.private_session)
        }),
        operation!("sessions.details", ["not_found", "not_found", "done", "done", "done", "done"], |tx, scene| {
            tx.sessions().details(scene.private_session)
        }),
        operation!("sessions.lobby", EVERYBODY_MAY, |tx, scene| async {
            tx.sessions().lobby(&LobbyFilter::default(), None).await
        }),
        operation!("sessions.by_code", SIGNED_IN_MAY, |tx, scene| async {
            tx.sessions().by_code(&scene.join_code(scene.private_session).await).await
        }),
        operation!(
            "sessions.join",
            ["not_signed_in", "done", "character_not_yours", "done", "character_not_yours", "not_signed_in"],
            |tx, scene| async {
                tx.sessions().join(&scene.join_code(scene.private_session).await, scene.stranger.character).await
            }
        ),
        operation!(
            "sessions.join_public",
            ["not_signed_in", "done", "character_not_yours", "done", "character_not_yours", "not_signed_in"],
            |tx, scene| tx.sessions().join_public(scene.waiting_session, scene.stranger.character)
        ),
        operation!(
            "sessions.leave",
            ["not_signed_in", "not_found", "done", "done", "not_seated", "not_signed_in"],
            |tx, scene| tx.sessions().leave(scene.active_session)
        ),
        operation!(
            "sessions.rejoin",
            ["not_signed_in", "not_seated", "done", "character_not_yours", "not_seated", "not_signed_in"],
            |tx, scene| tx.sessions().rejoin(scene.waiting_session, scene.leaver.character)
        ),
        operation!(
            "sessions.change_character",
            ["not_signed_in", "not_seated", "character_not_yours", "done", "not_seated", "not_signed_in"],
            |tx, scene| tx.sessions().change_character(scene.waiting_session, scene.spare_character)
        ),
        operation!(
            "sessions.seat",
            ["not_signed_in", "done", "not_your_choice", "not_your_choice", "not_your_choice", "done"],
            |tx, scene| tx.sessions().seat(scene.waiting_session, scene.stranger.id, scene.stranger.character)
        ),
        operation!(
            "sessions.remove",
            ["not_signed_in", "not_found", "not_a_seer", "done", "done", "done"],
            |tx, scene| tx.sessions().remove(scene.active_session, scene.player.id)
        ),
        operation!(
            "sessions.readmit",
            ["not_signed_in", "not_found", "player_removed", "not_a_seer", "done", "done"],
            |tx, scene| tx.sessions().readmit(scene.starting_soon_session, scene.leaver.id)
        ),
        operation!("sessions.renew_code", SEER_MAY, |tx, scene| tx.sessions().renew_code(scene.waiting_session)),
        operation!("sessions.announce", SEER_MAY, |tx, scene| tx.sessions().announce(scene.waiting_session)),
        // The Seer has removed `leaver` from this session, so `leaver` does not see it either.
        operation!(
            "sessions.withdraw",
            ["not_signed_in", "not_found", "not_found", "not_a_seer", "done", "done"],
            |tx, scene| tx.sessions().withdraw(scene.starting_soon_session)
        ),
        operation!("sessions.start", SEER_MAY, |tx, scene| tx.sessions().start(scene.waiting_session)),
        operation!("sessions.pause", SEER_OF_PRIVATE_MAY, |tx, scene| tx.sessions().pause(scene.active_session)),
        operation!("sessions.resume", SEER_OF_PRIVATE_MAY, |tx, scene| tx.sessions().resume(scene.paused_session)),
        operation!("sessions.complete", SEER_OF_PRIVATE_MAY, |tx, scene| tx.sessions().complete(scene.active_session)),
        operation!("sessions.cancel", SEER_MAY, |tx, scene| tx.sessions().cancel(scene.waiting_session)),
        operation!("sessions.set_scene", SEER_OF_PRIVATE_MAY, |tx, scene| {
            tx.sessions().set_scene(scene.active_session, Some("ford"))
        }),
        operation!("sessions.set_encounter", SEER_OF_PRIVATE_MAY, |tx, scene| {
            tx.sessions().set_encounter(scene.active_session, Some("wade"))
        }),
        operation!("sessions.set_game_state", SEER_OF_PRIVATE_MAY, |tx, scene| {
            tx.sessions().set_game_state(scene.active_session, json!({ "torches": 3 }), ExpectedVersion::Version(0))
        }),
        operation!("sessions.participation", USERS_MAY, |tx, scene| tx.sessions().participation(scene.private_session)),
        operation!("sessions.mine", USERS_MAY, |tx, scene| tx.sessions().mine(None)),
        operation!("sessions.past", USERS_MAY, |tx, scene| tx.sessions().past(None)),
        operation!("sessions.archived", ["not_found", "not_found", "done", "done", "done", "done"], |tx, scene| {
            tx.sessions().archived(scene.archived_session)
        }),
        operation!("sessions.archived_rolls", SIGNED_IN_MAY, |tx, scene| {
            tx.sessions().archived_rolls(scene.archived_session, PageSize::default(), None)
        }),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    let mut all = seat_refusals();
    all.extend(seer_refusals());
    all
}

fn seat_refusals() -> Vec<Refusal> {
    vec![
        refusal!("sessions.by_code", Stranger, "no_such_code", |tx, scene| async {
            tx.sessions().by_code(&"ZZZZZZ".parse()?).await
        }),
        refusal!("sessions.join", Stranger, "no_such_code", |tx, scene| async {
            tx.sessions().join(&"ZZZZZZ".parse()?, scene.stranger.character).await
        }),
        refusal!("sessions.join", Stranger, "session_full", |tx, scene| async {
            tx.sessions().join(&scene.join_code(scene.full_session).await, scene.stranger.character).await
        }),
        refusal!("sessions.join", Stranger, "session_over", |tx, scene| async {
            tx.sessions().join(&scene.join_code(scene.completed_session).await, scene.stranger.character).await
        }),
        refusal!("sessions.join", Stranger, "session_started", |tx, scene| async {
            tx.sessions().join(&scene.join_code(scene.active_session).await, scene.stranger.character).await
        }),
        refusal!("sessions.join", AtLimits, "character_retired", |tx, scene| async {
            tx.sessions().join(&scene.join_code(scene.waiting_session).await, scene.retired_character_at_limits).await
        }),
        refusal!("sessions.join", Stranger, "not_found", |tx, scene| async {
            tx.sessions().join(&scene.join_code(scene.waiting_session).await, Uuid::new_v4()).await
        }),
        refusal!("sessions.join", Closed, "account_closed", |tx, scene| async {
            tx.sessions()
                .join(&scene.join_code(scene.waiting_session).await, scene.living_character_of_closed_account)
                .await
        }),
        refusal!("sessions.join_public", Stranger, "not_allowed", |tx, scene| {
            tx.sessions().join_public(scene.private_session, scene.stranger.character)
        }),
        refusal!("sessions.join_public", Stranger, "session_full", |tx, scene| {
            tx.sessions().join_public(scene.full_session, scene.stranger.character)
        }),
        refusal!("sessions.join_public", Leaver, "session_over", |tx, scene| {
            tx.sessions().join_public(scene.completed_session, scene.leaver.character)
        }),
        refusal!("sessions.join_public", AtLimits, "character_retired", |tx, scene| {
            tx.sessions().join_public(scene.waiting_session, scene.retired_character_at_limits)
        }),
        refusal!("sessions.join_public", Stranger, "not_found", |tx, scene| {
            tx.sessions().join_public(scene.waiting_session, Uuid::new_v4())
        }),
        refusal!("sessions.join_public", Closed, "account_closed", |tx, scene| {
            tx.sessions().join_public(scene.waiting_session, scene.living_character_of_closed_account)
        }),
        refusal!("sessions.join_public", Stranger, "session_started", |tx, scene| async {
            tx.sessions().join_public(scene.public_active_session, scene.stranger.character).await
        }),
        refusal!("sessions.seat", Stranger, "not_allowed", |tx, scene| {
            tx.sessions().seat(scene.private_session, scene.player.id, scene.player.character)
        }),
        refusal!("sessions.leave", Player, "session_over", |tx, scene| tx.sessions().leave(scene.completed_session)),
        refusal!("sessions.rejoin", Leaver, "session_full", |tx, scene| {
            tx.sessions().rejoin(scene.session_with_no_seat_free, scene.leaver.character)
        }),
        refusal!("sessions.rejoin", Leaver, "session_over", |tx, scene| {
            tx.sessions().rejoin(scene.completed_session, scene.leaver.character)
        }),
        refusal!("sessions.rejoin", Leaver, "not_found", |tx, scene| {
            tx.sessions().rejoin(scene.waiting_session, Uuid::new_v4())
        }),
        refusal!("sessions.rejoin", Player, "character_retired", |tx, scene| async {
            tx.sessions().leave(scene.waiting_session).await?;
            tx.sessions().rejoin(scene.waiting_session, scene.retired_character).await
        }),
        refusal!("sessions.rejoin", Stranger, "not_found", |tx, scene| {
            tx.sessions().rejoin(scene.private_session, scene.stranger.character)
        }),
        refusal!("sessions.change_character", Stranger, "not_found", |tx, scene| {
            tx.sessions().change_character(scene.private_session, scene.stranger.character)
        }),
        refusal!("sessions.rejoin", Closed, "account_closed", |tx, scene| {
            tx.sessions().rejoin(scene.session_with_one_seat_free, scene.living_character_of_closed_account)
        }),
        refusal!("sessions.change_character", Player, "session_started", |tx, scene| {
            tx.sessions().change_character(scene.active_session, scene.spare_character)
        }),
        refusal!("sessions.change_character", Player, "session_over", |tx, scene| {
            tx.sessions().change_character(scene.completed_session, scene.spare_character)
        }),
        refusal!("sessions.change_character", Player, "character_retired", |tx, scene| {
            tx.sessions().change_character(scene.waiting_session, scene.retired_character)
        }),
        refusal!("sessions.seat", Service, "session_full", |tx, scene| {
            tx.sessions().seat(scene.session_with_no_seat_free, scene.stranger.id, scene.stranger.character)
        }),
        refusal!("sessions.seat", Service, "session_over", |tx, scene| {
            tx.sessions().seat(scene.completed_session, scene.stranger.id, scene.stranger.character)
        }),
        refusal!("sessions.seat", Service, "character_not_yours", |tx, scene| {
            tx.sessions().seat(scene.waiting_session, scene.stranger.id, scene.spare_character)
        }),
        refusal!("sessions.seat", Service, "character_retired", |tx, scene| {
            tx.sessions().seat(scene.waiting_session, scene.account_at_limits, scene.retired_character_at_limits)
        }),
        refusal!("sessions.seat", Service, "not_found", |tx, scene| {
            tx.sessions().seat(scene.waiting_session, scene.stranger.id, Uuid::new_v4())
        }),
        refusal!("sessions.seat", Service, "account_closed", |tx, scene| {
            tx.sessions().seat(scene.waiting_session, scene.closed_account, scene.living_character_of_closed_account)
        }),
        refusal!("sessions.seat", Seer, "not_your_choice", |tx, scene| {
            tx.sessions().seat(scene.session_with_one_seat_free, scene.leaver.id, scene.leaver.character)
        }),
        refusal!("sessions.seat", Stranger, "session_started", |tx, scene| {
            tx.sessions().seat(scene.public_active_session, scene.stranger.id, scene.stranger.character)
        }),
        refusal!("sessions.seat", Leaver, "player_removed", |tx, scene| {
            tx.sessions().seat(scene.starting_soon_session, scene.leaver.id, scene.leaver.character)
        }),
        refusal!("sessions.seat", Service, "seat_limit_reached", |tx, scene| {
            tx.sessions().seat(scene.waiting_session, scene.account_at_limits, scene.living_character_at_limits)
        }),
        refusal!("sessions.join", AtLimits, "seat_limit_reached", |tx, scene| async {
            tx.sessions().join(&scene.join_code(scene.waiting_session).await, scene.living_character_at_limits).await
        }),
        refusal!("sessions.join_public", AtLimits, "seat_limit_reached", |tx, scene| {
            tx.sessions().join_public(scene.waiting_session, scene.living_character_at_limits)
        }),
        refusal!("sessions.rejoin", AtLimits, "seat_limit_reached", |tx, scene| {
            tx.sessions().rejoin(scene.session_left_at_limits, scene.living_character_at_limits)
        }),
        refusal!("sessions.join", Leaver, "player_removed", |tx, scene| async {
            tx.sessions().join(&scene.join_code(scene.starting_soon_session).await, scene.leaver.character).await
        }),
        refusal!("sessions.join_public", Leaver, "player_removed", |tx, scene| {
            tx.sessions().join_public(scene.starting_soon_session, scene.leaver.character)
        }),
        refusal!("sessions.rejoin", Leaver, "player_removed", |tx, scene| {
            tx.sessions().rejoin(scene.starting_soon_session, scene.leaver.character)
        }),
        refusal!("sessions.renew_code", Seer, "session_over", |tx, scene| tx
            .sessions()
            .renew_code(scene.completed_session)),
        refusal!("sessions.renew_code", Seer, "not_found", |tx, scene| tx.sessions().renew_code(Uuid::new_v4())),
        refusal!("sessions.renew_code", Closed, "account_closed", |tx, scene| {
            tx.sessions().renew_code(scene.waiting_session)
        }),
        refusal!("sessions.remove", Seer, "session_over", |tx, scene| {
            tx.sessions().remove(scene.completed_session, scene.player.id)
        }),
    ]
}

fn seer_refusals() -> Vec<Refusal> {
    vec![
        refusal!("sessions.create", Stranger, "adventure_not_playable", |tx, scene| {
            tx.sessions().create(NewSession { adventure_id: scene.draft, ..Default::default() })
        }),
        refusal!("sessions.create", AtLimits, "session_limit_reached", |tx, scene| {
            tx.sessions().create(NewSession { adventure_id: scene.adventure, ..Default::default() })
        }),
        refusal!("sessions.create", Stranger, "id_conflict", |tx, scene| {
            let id = Some(scene.waiting_session);
            tx.sessions().create(NewSession { id, adventure_id: scene.adventure, ..Default::default() })
        }),
        refusal!("sessions.create", Stranger, "invalid_value", |tx, scene| {
            let looking_for = Some("a\0".into());
            tx.sessions().create(NewSession { looking_for, adventure_id: scene.adventure, ..Default::default() })
        }),
        refusal!("sessions.create", Closed, "account_closed", |tx, scene| {
            tx.sessions().create(NewSession { adventure_id: scene.adventure, ..Default::default() })
        }),
        refusal!("sessions.edit", Seer, "seats_are_taken", |tx, scene| {
            tx.sessions().edit(
                scene.session_with_one_seat_free,
                SessionChanges { max_players: Some(MaxPlayers::MIN), ..Default::default() },
            )
        }),
        refusal!("sessions.edit", Seer, "session_over", |tx, scene| {
            tx.sessions().edit(
                scene.completed_session,
                SessionChanges { max_players: Some(MaxPlayers::MAX), ..Default::default() },
            )
        }),
        refusal!("sessions.edit", Seer, "not_found", |tx, scene| {
            tx.sessions().edit(Uuid::new_v4(), SessionChanges { looking_for: Some(None), ..Default::default() })
        }),
        refusal!("sessions.edit", Seer, "invalid_value", |tx, scene| {
            let looking_for = Some(Some("a\0".into()));
            tx.sessions().edit(scene.waiting_session, SessionChanges { looking_for, ..Default::default() })
        }),
        refusal!("sessions.lobby", Visitor, "bad_cursor", |tx, scene| async {
            let forged = "7b7d".to_owned().into();
            tx.sessions().lobby(&LobbyFilter::default(), Some(&forged)).await
        }),
        refusal!("sessions.announce", Seer, "illegal_transition", |tx, scene| tx
            .sessions()
            .announce(scene.completed_session)),
        refusal!("sessions.announce", Seer, "not_found", |tx, scene| tx.sessions().announce(Uuid::new_v4())),
        refusal!("sessions.withdraw", Seer, "illegal_transition", |tx, scene| tx
            .sessions()
            .withdraw(scene.active_session)),
        refusal!("sessions.start", Seer, "illegal_transition", |tx, scene| tx.sessions().start(scene.paused_session)),
        refusal!("sessions.start", Seer, "not_found", |tx, scene| tx.sessions().start(Uuid::new_v4())),
        refusal!("sessions.start", Seer, "session_has_no_player", |tx, scene| async {
            tx.sessions().remove(scene.waiting_session, scene.player.id).await?;
            tx.sessions().start(scene.waiting_session).await
        }),
        refusal!("sessions.pause", Seer, "illegal_transition", |tx, scene| tx.sessions().pause(scene.waiting_session)),
        refusal!("sessions.resume", Seer, "illegal_transition", |tx, scene| tx
            .sessions()
            .resume(scene.waiting_session)),
        refusal!("sessions.resume", Seer, "session_has_no_player", |tx, scene| async {
            tx.sessions().pause(scene.session_without_player).await?;
            tx.sessions().resume(scene.session_without_player).await
        }),
        refusal!("sessions.complete", Seer, "illegal_transition", |tx, scene| tx
            .sessions()
            .complete(scene.waiting_session)),
        refusal!("sessions.cancel", Seer, "illegal_transition", |tx, scene| tx
            .sessions()
            .cancel(scene.completed_session)),
        refusal!("sessions.cancel", Seer, "not_found", |tx, scene| tx.sessions().cancel(Uuid::new_v4())),
        refusal!("sessions.set_scene", Seer, "not_found", |tx, scene| tx.sessions().set_scene(Uuid::new_v4(), None)),
        refusal!("sessions.set_scene", Seer, "session_over", |tx, scene| {
            tx.sessions().set_scene(scene.completed_session, Some("epilogue"))
        }),
        refusal!("sessions.set_scene", Seer, "invalid_value", |tx, scene| async {
            tx.sessions().set_scene(scene.active_session, Some(&"x".repeat(201))).await
        }),
        refusal!("sessions.set_encounter", Seer, "invalid_value", |tx, scene| async {
            tx.sessions().set_encounter(scene.active_session, Some(&"x".repeat(201))).await
        }),
        refusal!("sessions.set_encounter", Seer, "session_over", |tx, scene| {
            tx.sessions().set_encounter(scene.completed_session, Some("revenge"))
        }),
        refusal!("sessions.set_game_state", Seer, "session_over", |tx, scene| {
            tx.sessions().set_game_state(scene.completed_session, json!({ "torches": 3 }), ExpectedVersion::Any)
        }),
        refusal!("sessions.set_game_state", Seer, "game_state_changed", |tx, scene| {
            tx.sessions().set_game_state(scene.active_session, json!({ "torches": 3 }), ExpectedVersion::Version(7))
        }),
        refusal!("sessions.set_game_state", Player, "not_a_seer", |tx, scene| {
            tx.sessions().set_game_state(scene.active_session, json!({ "torches": 3 }), ExpectedVersion::Any)
        }),
        refusal!("sessions.set_game_state", Seer, "invalid_value", |tx, scene| {
            tx.sessions().set_game_state(scene.active_session, json!({ "nul": "\0" }), ExpectedVersion::Any)
        }),
        refusal!("sessions.mine", Seer, "bad_cursor", |tx, scene| async {
            tx.sessions().mine(Some(&"00".to_owned().into())).await
        }),
        refusal!("sessions.past", Seer, "bad_cursor", |tx, scene| async {
            tx.sessions().past(Some(&"00".to_owned().into())).await
        }),
        refusal!("sessions.archived_rolls", Seer, "bad_cursor", |tx, scene| async {
            let forged = "00".to_owned().into();
            tx.sessions().archived_rolls(scene.archived_session, PageSize::MAX, Some(&forged)).await
        }),
    ]
}
