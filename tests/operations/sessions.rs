//! The operations on sessions and seats, and who may call them. The six outcomes of an operation are those of the
//! visitor, the stranger, the former player, the player, the Seer and the service.

use serde_json::json;
use sparc::service::{
    Operations, RollsPageSize,
    sessions::{ExpectedVersion, LobbyFilter, NewSession, SessionChanges, Visibility},
};

use super::operation::{EVERYBODY_MAY_CALL, Operation, USERS_AND_SERVICE_MAY_CALL, USERS_MAY_CALL, operation};

/// Only the Seer and the service may call the operation. The session is public, so the stranger can see it and gets
/// `not_a_seer`.
const SEER_AND_SERVICE_MAY_CALL_IN_PUBLIC_SESSION: [&str; 6] =
    ["not_signed_in", "not_a_seer", "not_a_seer", "not_a_seer", "done", "done"];

/// Only the Seer and the service may call the operation. The session is private, so the stranger cannot see it and gets
/// `not_found`.
const SEER_AND_SERVICE_MAY_CALL_IN_PRIVATE_SESSION: [&str; 6] =
    ["not_signed_in", "not_found", "not_a_seer", "not_a_seer", "done", "done"];

/// The character is the stranger's, so only the stranger can join with it. (The player already has a seat, with another
/// character.)
const ONLY_THE_STRANGER_JOINS: [&str; 6] =
    ["not_signed_in", "done", "character_not_yours", "character_not_yours", "character_not_yours", "not_signed_in"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("sessions.create", USERS_MAY_CALL, |tx, fixture| {
            tx.sessions().create(NewSession { adventure_id: fixture.adventure, ..Default::default() })
        }),
        operation!("sessions.edit", SEER_AND_SERVICE_MAY_CALL_IN_PUBLIC_SESSION, |tx, fixture| {
            let changes = SessionChanges { visibility: Some(Visibility::Private), ..Default::default() };
            tx.sessions().edit(fixture.waiting_session, changes)
        }),
        operation!("sessions.get", ["not_found", "not_found", "done", "done", "done", "done"], |tx, fixture| {
            tx.sessions().get(fixture.private_session)
        }),
        operation!("sessions.details", ["not_found", "not_found", "done", "done", "done", "done"], |tx, fixture| {
            tx.sessions().details(fixture.private_session)
        }),
        operation!("sessions.lobby", EVERYBODY_MAY_CALL, |tx, fixture| async {
            tx.sessions().lobby(&LobbyFilter::default(), None).await
        }),
        operation!("sessions.by_code", USERS_AND_SERVICE_MAY_CALL, |tx, fixture| async {
            tx.sessions().by_code(&fixture.join_code(fixture.private_session).await).await
        }),
        operation!("sessions.join", ONLY_THE_STRANGER_JOINS, |tx, fixture| async {
            tx.sessions().join(&fixture.join_code(fixture.private_session).await, fixture.stranger.character_id).await
        }),
        operation!("sessions.join_by_id", ONLY_THE_STRANGER_JOINS, |tx, fixture| tx
            .sessions()
            .join_by_id(fixture.waiting_session, fixture.stranger.character_id)),
        operation!(
            "sessions.leave",
            ["not_signed_in", "not_found", "done", "done", "not_seated", "not_signed_in"],
            |tx, fixture| tx.sessions().leave(fixture.active_session)
        ),
        operation!(
            "sessions.rejoin",
            ["not_signed_in", "not_seated", "done", "character_not_yours", "not_seated", "not_signed_in"],
            |tx, fixture| tx.sessions().rejoin(fixture.waiting_session, fixture.former_player.character_id)
        ),
        operation!(
            "sessions.change_character",
            ["not_signed_in", "not_seated", "character_not_yours", "done", "not_seated", "not_signed_in"],
            |tx, fixture| tx.sessions().change_character(fixture.waiting_session, fixture.spare_character)
        ),
        // A user can seat only themselves, so the outcome is `done` for the stranger, whose account and character the
        // call names. The service can seat anybody.
        operation!(
            "sessions.seat_player",
            ["not_signed_in", "done", "not_your_choice", "not_your_choice", "not_your_choice", "done"],
            |tx, fixture| tx.sessions().seat_player(
                fixture.waiting_session,
                fixture.stranger.user_id,
                fixture.stranger.character_id
            )
        ),
        // The outcome is also `done` for the player, who removes themselves.
        operation!(
            "sessions.remove_player",
            ["not_signed_in", "not_found", "not_a_seer", "done", "done", "done"],
            |tx, fixture| tx.sessions().remove_player(fixture.active_session, fixture.player.user_id)
        ),
        operation!(
            "sessions.readmit",
            ["not_signed_in", "not_found", "player_removed", "not_a_seer", "done", "done"],
            |tx, fixture| tx.sessions().readmit(fixture.starting_soon_session, fixture.former_player.user_id)
        ),
        operation!("sessions.replace_code", SEER_AND_SERVICE_MAY_CALL_IN_PUBLIC_SESSION, |tx, fixture| tx
            .sessions()
            .replace_code(fixture.waiting_session)),
        operation!("sessions.announce_start", SEER_AND_SERVICE_MAY_CALL_IN_PUBLIC_SESSION, |tx, fixture| tx
            .sessions()
            .announce_start(fixture.waiting_session)),
        // The Seer has removed `former_player` from this session, so `former_player`, like the stranger, does not see
        // it.
        operation!(
            "sessions.withdraw_announcement",
            ["not_signed_in", "not_found", "not_found", "not_a_seer", "done", "done"],
            |tx, fixture| tx.sessions().withdraw_announcement(fixture.starting_soon_session)
        ),
        operation!("sessions.start", SEER_AND_SERVICE_MAY_CALL_IN_PUBLIC_SESSION, |tx, fixture| tx
            .sessions()
            .start(fixture.waiting_session)),
        operation!("sessions.pause", SEER_AND_SERVICE_MAY_CALL_IN_PRIVATE_SESSION, |tx, fixture| tx
            .sessions()
            .pause(fixture.active_session)),
        operation!("sessions.resume", SEER_AND_SERVICE_MAY_CALL_IN_PRIVATE_SESSION, |tx, fixture| tx
            .sessions()
            .resume(fixture.paused_session)),
        operation!("sessions.complete", SEER_AND_SERVICE_MAY_CALL_IN_PRIVATE_SESSION, |tx, fixture| tx
            .sessions()
            .complete(fixture.active_session)),
        operation!("sessions.cancel", SEER_AND_SERVICE_MAY_CALL_IN_PUBLIC_SESSION, |tx, fixture| tx
            .sessions()
            .cancel(fixture.waiting_session)),
        operation!("sessions.set_scene", SEER_AND_SERVICE_MAY_CALL_IN_PRIVATE_SESSION, |tx, fixture| {
            tx.sessions().set_scene(fixture.active_session, Some("ford"))
        }),
        operation!("sessions.set_encounter", SEER_AND_SERVICE_MAY_CALL_IN_PRIVATE_SESSION, |tx, fixture| {
            tx.sessions().set_encounter(fixture.active_session, Some("wade"))
        }),
        operation!("sessions.set_game_state", SEER_AND_SERVICE_MAY_CALL_IN_PRIVATE_SESSION, |tx, fixture| {
            tx.sessions().set_game_state(fixture.active_session, json!({ "torches": 3 }), ExpectedVersion::Version(0))
        }),
        operation!("sessions.participation", USERS_MAY_CALL, |tx, fixture| tx
            .sessions()
            .participation(fixture.private_session)),
        operation!("sessions.my_live", USERS_MAY_CALL, |tx, fixture| tx.sessions().my_live(None)),
        operation!("sessions.my_past", USERS_MAY_CALL, |tx, fixture| tx.sessions().my_past(None)),
        operation!(
            "sessions.get_archived",
            ["not_found", "not_found", "done", "done", "done", "done"],
            |tx, fixture| { tx.sessions().get_archived(fixture.archived_session) }
        ),
        operation!("sessions.archived_rolls", USERS_AND_SERVICE_MAY_CALL, |tx, fixture| {
            tx.sessions().archived_rolls(fixture.archived_session, RollsPageSize::default(), None)
        }),
    ]
}
