//! The operations on creatures, and who may call them. The six outcomes of an operation are those of the visitor, the
//! stranger, the former player, the player, the Seer and the service.

use sparc::service::{
    Operations,
    creatures::{CreatureChanges, NewCreature, Stats},
};
use uuid::Uuid;

use super::operation::{EVERYBODY_MAY_CALL, Operation, Refusal, operation, refusal};

fn new_creature(name: &str) -> NewCreature {
    NewCreature { name: name.into(), ..Default::default() }
}

/// Only the creator of the adventure (here, the caller called Seer) and the service may call the operation.
const CREATOR_AND_SERVICE_MAY_CALL: [&str; 6] =
    ["not_signed_in", "adventure_not_yours", "adventure_not_yours", "adventure_not_yours", "done", "done"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("creatures.add", CREATOR_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .creatures()
            .add(fixture.adventure, new_creature("Wolf"))),
        operation!("creatures.edit", CREATOR_AND_SERVICE_MAY_CALL, |tx, fixture| {
            tx.creatures().edit(fixture.creature, CreatureChanges { armor: Some(2), ..Default::default() })
        }),
        operation!("creatures.remove", CREATOR_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .creatures()
            .remove(fixture.creature)),
        operation!("creatures.get", EVERYBODY_MAY_CALL, |tx, fixture| tx.creatures().get(fixture.creature)),
        operation!("creatures.list", EVERYBODY_MAY_CALL, |tx, fixture| tx.creatures().list(fixture.adventure)),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("creatures.add", AccountAtLimits, "creature_limit_reached", |tx, fixture| {
            tx.creatures().add(fixture.adventure_at_limits, new_creature("Wolf"))
        }),
        refusal!("creatures.add", Seer, "invalid_value", |tx, fixture| tx
            .creatures()
            .add(fixture.adventure, new_creature(""))),
        refusal!("creatures.add", Seer, "invalid_value", |tx, fixture| {
            let stats = Stats { might: 11, ..Default::default() };
            tx.creatures().add(fixture.adventure, NewCreature { stats, ..new_creature("Giant") })
        }),
        // A user gets the same error for an adventure that they cannot see as for one that does not exist. The service,
        // which sees all adventures, learns that there is no such adventure.
        refusal!("creatures.add", Seer, "not_allowed", |tx, fixture| tx
            .creatures()
            .add(Uuid::new_v4(), new_creature("Wolf"))),
        refusal!("creatures.add", Service, "not_found", |tx, fixture| tx
            .creatures()
            .add(Uuid::new_v4(), new_creature("Wolf"))),
        refusal!("creatures.add", Stranger, "not_allowed", |tx, fixture| {
            tx.creatures().add(fixture.draft_adventure, new_creature("Wolf"))
        }),
        refusal!("creatures.remove", Stranger, "not_found", |tx, fixture| {
            tx.creatures().remove(fixture.creature_of_draft)
        }),
        refusal!("creatures.add", Seer, "id_conflict", |tx, fixture| {
            tx.creatures().add(fixture.adventure, NewCreature { id: Some(fixture.creature), ..new_creature("Wolf") })
        }),
        refusal!("creatures.edit", Seer, "invalid_value", |tx, fixture| {
            tx.creatures().edit(fixture.creature, CreatureChanges { hit_points: Some(1001), ..Default::default() })
        }),
        refusal!("creatures.edit", Stranger, "not_found", |tx, fixture| {
            tx.creatures().edit(fixture.creature_of_draft, CreatureChanges { armor: Some(2), ..Default::default() })
        }),
        refusal!("creatures.get", Stranger, "not_found", |tx, fixture| tx.creatures().get(fixture.creature_of_draft)),
    ]
}
