//! The operations on rolls, and who may call them.

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

fn check_by(scene: &Scene, character: Uuid) -> NewRoll {
    NewRoll { roller: Roller::Character(character), ..check(scene, scene.active_session) }
}

fn creature_attack(scene: &Scene, creature: Uuid) -> NewRoll {
    NewRoll::attack(scene.active_session, Roller::Creature(creature), Attribute::Might, Difficulty::MIN)
}

fn initiative(session_id: Uuid, creatures: Vec<Uuid>) -> NewInitiative {
    NewInitiative { id: None, session_id, creatures }
}

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("dice.roll", ["not_signed_in", "not_allowed", "not_seated", "done", "done", "done"], |tx, scene| tx
            .dice()
            .roll(check(scene, scene.active_session))),
        operation!(
            "dice.heroic_save",
            ["not_signed_in", "not_found", "not_seated", "done", "done", "done"],
            |tx, scene| tx.dice().heroic_save(scene.failed_roll)
        ),
        operation!(
            "dice.initiative",
            ["not_signed_in", "not_allowed", "not_a_seer", "not_a_seer", "done", "done"],
            |tx, scene| tx.dice().initiative(initiative(scene.active_session, vec![scene.creature]))
        ),
        operation!("dice.get", ["not_signed_in", "not_found", "done", "done", "done", "done"], |tx, scene| {
            tx.dice().get(scene.failed_roll)
        }),
        operation!("dice.history", SIGNED_IN_MAY, |tx, scene| async {
            tx.dice().history(RollScope::Session(scene.active_session), &HistoryFilter::default(), None).await
        }),
        operation!("dice.heroic_saves_remaining", SIGNED_IN_MAY, |tx, scene| tx
            .dice()
            .heroic_saves_remaining(scene.active_session)),
        operation!("dice.statistics", SIGNED_IN_MAY, |tx, scene| tx
            .dice()
            .statistics(RollScope::Character(scene.player.character))),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("dice.roll", Player, "session_not_active", |tx, scene| tx
            .dice()
            .roll(check(scene, scene.paused_session))),
        refusal!("dice.roll", Seer, "session_not_active", |tx, scene| tx
            .dice()
            .roll(check(scene, scene.waiting_session))),
        refusal!("dice.roll", Player, "session_not_active", |tx, scene| tx
            .dice()
            .roll(check(scene, scene.completed_session))),
        // A session that the caller cannot see is refused like one that does not exist.
        refusal!("dice.roll", Stranger, "not_allowed", |tx, scene| tx.dice().roll(check(scene, scene.paused_session))),
        refusal!("dice.roll", Stranger, "not_allowed", |tx, scene| tx.dice().roll(check(scene, Uuid::new_v4()))),
        refusal!("dice.roll", Player, "not_a_seer", |tx, scene| tx.dice().roll(creature_attack(scene, scene.creature))),
        refusal!("dice.roll", Player, "character_not_yours", |tx, scene| {
            tx.dice().roll(check_by(scene, scene.stranger.character))
        }),
        refusal!("dice.roll", Player, "character_not_yours", |tx, scene| {
            tx.dice().roll(check_by(scene, Uuid::new_v4()))
        }),
        refusal!("dice.roll", Seer, "character_not_yours", |tx, scene| {
            tx.dice().roll(check_by(scene, scene.stranger.character))
        }),
        refusal!("dice.roll", Seer, "character_not_yours", |tx, scene| {
            tx.dice().roll(check_by(scene, Uuid::new_v4()))
        }),
        refusal!("dice.roll", Player, "not_seated", |tx, scene| tx.dice().roll(check_by(scene, scene.spare_character))),
        refusal!("dice.roll", Player, "character_retired", |tx, scene| tx
            .dice()
            .roll(check_by(scene, scene.retired_character))),
        refusal!("dice.roll", Player, "invalid_value", |tx, scene| {
            tx.dice().roll(check(scene, scene.active_session).with(Modifier::flat(11, "a lie")))
        }),
        refusal!("dice.roll", Seer, "creature_not_in_adventure", |tx, scene| {
            tx.dice().roll(creature_attack(scene, scene.creature_of_draft))
        }),
        refusal!("dice.roll", Player, "id_conflict", |tx, scene| {
            tx.dice().roll(NewRoll { id: Some(scene.failed_roll), ..check(scene, scene.active_session) })
        }),
        refusal!("dice.heroic_save", Player, "heroic_save_spent", |tx, scene| tx
            .dice()
            .heroic_save(scene.unsaved_roll)),
        refusal!("dice.heroic_save", Player, "heroic_save_not_needed", |tx, scene| {
            tx.dice().heroic_save(scene.successful_roll)
        }),
        refusal!("dice.heroic_save", Player, "heroic_save_too_late", |tx, scene| tx
            .dice()
            .heroic_save(scene.late_roll)),
        refusal!("dice.heroic_save", Player, "roll_already_saved", |tx, scene| tx.dice().heroic_save(scene.saved_roll)),
        refusal!("dice.heroic_save", Seer, "roll_not_saveable", |tx, scene| async {
            let attack = tx.dice().roll(creature_attack(scene, scene.creature)).await?;
            tx.dice().heroic_save(attack.id).await
        }),
        refusal!("dice.heroic_save", Player, "not_a_seer", |tx, scene| tx.dice().heroic_save(scene.roll_of_creature)),
        refusal!("dice.heroic_save", Player, "character_retired", |tx, scene| tx
            .dice()
            .heroic_save(scene.roll_of_retired_character)),
        refusal!("dice.heroic_save", Seer, "character_not_yours", |tx, scene| async {
            tx.sessions().remove(scene.active_session, scene.player.id).await?;
            tx.dice().heroic_save(scene.failed_roll).await
        }),
        refusal!("dice.heroic_save", Seer, "session_not_active", |tx, scene| async {
            tx.sessions().pause(scene.active_session).await?;
            tx.dice().heroic_save(scene.failed_roll).await
        }),
        refusal!("dice.initiative", Seer, "session_not_active", |tx, scene| {
            tx.dice().initiative(initiative(scene.waiting_session, Vec::new()))
        }),
        // Initiative is rolled for the players and the given creatures; here there are neither.
        refusal!("dice.initiative", Seer, "not_found", |tx, scene| {
            tx.dice().initiative(initiative(scene.session_without_player, Vec::new()))
        }),
        refusal!("dice.initiative", Seer, "creature_not_in_adventure", |tx, scene| {
            tx.dice().initiative(initiative(scene.active_session, vec![scene.creature_of_draft]))
        }),
        refusal!("dice.initiative", Seer, "id_conflict", |tx, scene| async {
            let id = Some(Uuid::new_v4());
            tx.dice().initiative(NewInitiative { id, ..initiative(scene.active_session, Vec::new()) }).await?;
            tx.dice().initiative(NewInitiative { id, ..initiative(scene.session_with_save_used, Vec::new()) }).await
        }),
        refusal!("dice.history", Player, "bad_cursor", |tx, scene| async {
            let forged = "00".to_owned().into();
            tx.dice().history(RollScope::Session(scene.active_session), &HistoryFilter::default(), Some(&forged)).await
        }),
    ]
}
