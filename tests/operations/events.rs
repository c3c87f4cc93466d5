//! The operations on events, and who may call them. The six outcomes of an operation are those of the visitor, the
//! stranger, the former player, the player, the Seer and the service.

use serde_json::json;
use sparc::service::{Operations, events::NewEvent};
use uuid::Uuid;

use super::operation::{Operation, Refusal, operation, refusal};

fn new_wave_event(session_id: Uuid) -> NewEvent {
    NewEvent { session_id, kind: "wave".into(), ..Default::default() }
}

/// Only participants, including those who left, and the service may call the operation.
const PARTICIPANTS_AND_SERVICE_MAY_CALL: [&str; 6] = ["not_signed_in", "not_allowed", "done", "done", "done", "done"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!(
            "events.send",
            ["not_signed_in", "not_allowed", "not_seated", "done", "done", "done"],
            |tx, fixture| tx.events().send(new_wave_event(fixture.active_session))
        ),
        operation!("events.after", PARTICIPANTS_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .events()
            .after(fixture.active_session, 0)),
        operation!("events.newest_seq", PARTICIPANTS_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .events()
            .newest_seq(fixture.active_session)),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        // An archived session has left the table `sessions`, so not even the service finds it.
        refusal!("events.after", Service, "not_found", |tx, fixture| tx.events().after(fixture.archived_session, 0)),
        refusal!("events.after", ClosedAccount, "account_closed", |tx, fixture| tx
            .events()
            .after(fixture.active_session, 0)),
        // No event has this number. The operation cannot distinguish this from an event that was deleted.
        refusal!("events.after", Player, "events_expired", |tx, fixture| tx
            .events()
            .after(fixture.active_session, i64::MAX)),
        refusal!("events.newest_seq", ClosedAccount, "account_closed", |tx, fixture| tx
            .events()
            .newest_seq(fixture.active_session)),
        refusal!("events.newest_seq", Service, "not_found", |tx, fixture| tx
            .events()
            .newest_seq(fixture.archived_session)),
        refusal!("events.send", Service, "not_found", |tx, fixture| tx.events().send(new_wave_event(Uuid::new_v4()))),
        refusal!("events.send", Player, "invalid_value", |tx, fixture| {
            tx.events().send(NewEvent { kind: String::new(), ..new_wave_event(fixture.active_session) })
        }),
        // With the prefix `client.`, this kind has 65 characters; 64 are allowed.
        refusal!("events.send", Player, "invalid_value", |tx, fixture| {
            tx.events().send(NewEvent { kind: "k".repeat(58), ..new_wave_event(fixture.active_session) })
        }),
        refusal!("events.send", Player, "invalid_value", |tx, fixture| {
            tx.events().send(NewEvent { payload: json!("\0"), ..new_wave_event(fixture.active_session) })
        }),
        refusal!("events.send", Player, "id_conflict", |tx, fixture| async {
            let id = Some(Uuid::new_v4());
            tx.events().send(NewEvent { id, ..new_wave_event(fixture.active_session) }).await?;
            tx.events().send(NewEvent { id, payload: json!(2), ..new_wave_event(fixture.active_session) }).await
        }),
    ]
}
