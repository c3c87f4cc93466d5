//! The operations on events, and who may call them.

use serde_json::json;
use sparc::service::{Operations, events::NewEvent};
use uuid::Uuid;

use super::{Caller, Operation, Refusal, operation, outcome_code, refusal};

fn wave(session_id: Uuid) -> NewEvent {
    NewEvent { session_id, kind: "wave".into(), ..Default::default() }
}

/// Participants, including those who left, and the service may.
const PARTICIPANTS_MAY: [&str; 6] = ["not_signed_in", "not_allowed", "done", "done", "done", "done"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!(
            "events.send",
            ["not_signed_in", "not_allowed", "not_seated", "done", "done", "done"],
            |tx, scene| tx.events().send(wave(scene.active_session))
        ),
        operation!("events.after", PARTICIPANTS_MAY, |tx, scene| tx.events().after(scene.active_session, 0)),
        operation!("events.newest", PARTICIPANTS_MAY, |tx, scene| tx.events().newest(scene.active_session)),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("events.after", Service, "not_found", |tx, scene| tx.events().after(scene.archived_session, 0)),
        refusal!("events.after", Closed, "account_closed", |tx, scene| tx.events().after(scene.active_session, 0)),
        refusal!("events.newest", Closed, "account_closed", |tx, scene| tx.events().newest(scene.active_session)),
        refusal!("events.newest", Service, "not_found", |tx, scene| tx.events().newest(scene.archived_session)),
        refusal!("events.send", Player, "invalid_value", |tx, scene| {
            tx.events().send(NewEvent { kind: String::new(), ..wave(scene.active_session) })
        }),
        refusal!("events.send", Player, "invalid_value", |tx, scene| {
            tx.events().send(NewEvent { kind: "k".repeat(58), ..wave(scene.active_session) })
        }),
        refusal!("events.send", Player, "invalid_value", |tx, scene| {
            tx.events().send(NewEvent { payload: json!("\0"), ..wave(scene.active_session) })
        }),
        refusal!("events.send", Player, "id_conflict", |tx, scene| async {
            let id = Some(Uuid::new_v4());
            tx.events().send(NewEvent { id, ..wave(scene.active_session) }).await?;
            tx.events().send(NewEvent { id, payload: json!(2), ..wave(scene.active_session) }).await
        }),
    ]
}
