//! Rolls.

use sparc::entity::sea_orm_active_enums::Attribute;
use sparc::service::{
    Difficulty, Operations,
    dice::{HistoryFilter, Modifier, NewInitiative, NewRoll, RollScope, Roller},
};
use uuid::Uuid;

use super::{Caller, Operation, Refusal, SIGNED_IN_MAY, operation, outcome_code, refusal, scene::Scene};

fn check(scene: &Scene, session: Uuid) -> NewRoll {
    NewRoll::check(session, Roller::Character(scene.player.character), Attribute::Might, Difficulty::MIN)
}

fn rolled_by(scene: &Scene, character: Uuid) -> NewRoll {
    NewRoll { roller: Roller::Character(character), ..check(scene, scene.active) }
}

fn claws(scene: &Scene, creature: Uuid) -> NewRoll {
    NewRoll::attack(scene.active, Roller::Creature(creature), Attribute::Might, Difficulty::MIN)
}

fn initiative(session_id: Uuid, creatures: Vec<Uuid>) -> NewInitiative {
    NewInitiative { id: None, session_id, creatures }
}

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("dice.roll", ["not_signed_in", "not_allowed", "not_seated", "done", "done", "done"], |tx, scene| tx
            .dice()
            .roll(check(scene, scene.active))),
        operation!(
            "dice.heroic_save",
            ["not_signed_in", "not_found", "not_seated", "done", "done", "done"],
            |tx, scene| tx.dice().heroic_save(scene.failed)
        ),
        operation!(
            "dice.initiative",
            ["not_signed_in", "not_allowed", "not_a_seer", "not_a_seer", "done", "done"],
            |tx, scene| tx.dice().initiative(initiative(scene.active, vec![scene.creature]))
        ),
        operation!("dice.get", ["not_signed_in", "not_found", "done", "done", "done", "done"], |tx, scene| {
            tx.dice().get(scene.failed)
        }),
        operation!("dice.history", SIGNED_IN_MAY, |tx, scene| async {
            tx.dice().history(RollScope::Session(scene.active), &HistoryFilter::default(), None).await
        }),
        operation!("dice.heroic_saves_remaining", SIGNED_IN_MAY, |tx, scene| tx
            .dice()
            .heroic_saves_remaining(scene.active)),
        operation!("dice.statistics", SIGNED_IN_MAY, |tx, scene| tx
            .dice()
            .statistics(RollScope::Character(scene.player.character))),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("dice.roll", Player, "session_not_active", |tx, scene| tx.dice().roll(check(scene, scene.paused))),
        refusal!("dice.roll", Seer, "session_not_active", |tx, scene| tx.dice().roll(check(scene, scene.waiting))),
        refusal!("dice.roll", Player, "session_not_active", |tx, scene| tx.dice().roll(check(scene, scene.completed))),
        // A session that the caller cannot see is refused like one that does not exist.
        refusal!("dice.roll", Stranger, "not_allowed", |tx, scene| tx.dice().roll(check(scene, scene.paused))),
        refusal!("dice.roll", Stranger, "not_allowed", |tx, scene| tx.dice().roll(check(scene, Uuid::new_v4()))),
        refusal!("dice.roll", Player, "not_a_seer", |tx, scene| tx.dice().roll(claws(scene, scene.creature))),
        refusal!("dice.roll", Player, "character_not_yours", |tx, scene| {
            tx.dice().roll(rolled_by(scene, scene.stranger.character))
        }),
        refusal!("dice.roll", Player, "character_not_yours", |tx, scene| {
            tx.dice().roll(rolled_by(scene, Uuid::new_v4()))
        }),
        refusal!("dice.roll", Seer, "character_not_yours", |tx, scene| {
            tx.dice().roll(rolled_by(scene, scene.stranger.character))
        }),
        refusal!("dice.roll", Seer, "character_not_yours", |tx, scene| {
            tx.dice().roll(rolled_by(scene, Uuid::new_v4()))
        }),
        refusal!("dice.roll", Player, "not_seated", |tx, scene| tx.dice().roll(rolled_by(scene, scene.spare))),
        refusal!("dice.roll", Player, "character_retired", |tx, scene| tx.dice().roll(rolled_by(scene, scene.retired))),
        refusal!("dice.roll", Player, "invalid_value", |tx, scene| {
            tx.dice().roll(check(scene, scene.active).with(Modifier::flat(11, "a lie")))
        }),
        refusal!("dice.roll", Seer, "creature_not_in_adventure", |tx, scene| {
            tx.dice().roll(claws(scene, scene.creature_of_draft))
        }),
        refusal!("dice.roll", Player, "id_conflict", |tx, scene| {
            tx.dice().roll(NewRoll { id: Some(scene.failed), ..check(scene, scene.active) })
        }),
        refusal!("dice.heroic_save", Player, "heroic_save_spent", |tx, scene| tx.dice().heroic_save(scene.unsaved)),
        refusal!("dice.heroic_save", Player, "heroic_save_not_needed", |tx, scene| {
            tx.dice().heroic_save(scene.succeeded)
        }),
        refusal!("dice.heroic_save", Player, "heroic_save_too_late", |tx, scene| tx.dice().heroic_save(scene.late)),
        refusal!("dice.heroic_save", Player, "roll_already_saved", |tx, scene| tx.dice().heroic_save(scene.saved)),
        refusal!("dice.heroic_save", Seer, "roll_not_saveable", |tx, scene| async {
            let claws = tx.dice().roll(claws(scene, scene.creature)).await?;
            tx.dice().heroic_save(claws.id).await
        }),
        refusal!("dice.initiative", Seer, "session_not_active", |tx, scene| {
            tx.dice().initiative(initiative(scene.waiting, Vec::new()))
        }),
        refusal!("dice.initiative", Seer, "not_found", |tx, scene| {
            tx.dice().initiative(initiative(scene.without_player, Vec::new()))
        }),
        refusal!("dice.initiative", Seer, "creature_not_in_adventure", |tx, scene| {
            tx.dice().initiative(initiative(scene.active, vec![scene.creature_of_draft]))
        }),
        refusal!("dice.initiative", Seer, "id_conflict", |tx, scene| async {
            let id = Some(Uuid::new_v4());
            tx.dice().initiative(NewInitiative { id, ..initiative(scene.active, Vec::new()) }).await?;
            tx.dice().initiative(NewInitiative { id, ..initiative(scene.save_used, Vec::new()) }).await
        }),
        refusal!("dice.history", Player, "bad_cursor", |tx, scene| async {
            let forged = "00".to_owned().into();
            tx.dice().history(RollScope::Session(scene.active), &HistoryFilter::default(), Some(&forged)).await
        }),
    ]
}
