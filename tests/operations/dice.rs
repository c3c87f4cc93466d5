//! The operations on rolls, and who may call them. The six outcomes of an operation are those of the visitor, the
//! stranger, the former player, the player, the Seer and the service.

use sparc::entity::sea_orm_active_enums::Attribute;
use sparc::service::{
    Difficulty, Operations,
    dice::{HistoryFilter, Modifier, NewInitiative, NewRoll, RollScope, Roller},
};
use uuid::Uuid;

use super::{
    fixture::Fixture,
    operation::{Operation, Refusal, USERS_AND_SERVICE_MAY_CALL, operation, refusal},
};

/// Returns an attribute check in the session, by the player's character.
fn attribute_check_in(fixture: &Fixture, session: Uuid) -> NewRoll {
    NewRoll::attribute_check(session, Roller::Character(fixture.player.character_id), Attribute::Might, Difficulty::MIN)
}

/// Returns an attribute check in `active_session`, by the given character.
fn attribute_check_by(fixture: &Fixture, character: Uuid) -> NewRoll {
    NewRoll { roller: Roller::Character(character), ..attribute_check_in(fixture, fixture.active_session) }
}

fn creature_attack(fixture: &Fixture, creature: Uuid) -> NewRoll {
    NewRoll::attack(fixture.active_session, Roller::Creature(creature), Attribute::Might, Difficulty::MIN)
}

fn initiative(session_id: Uuid, creatures: Vec<Uuid>) -> NewInitiative {
    NewInitiative { id: None, session_id, creature_ids: creatures }
}

pub fn operations() -> Vec<Operation> {
    vec![
        operation!(
            "dice.roll",
            ["not_signed_in", "not_allowed", "not_seated", "done", "done", "done"],
            |tx, fixture| tx.dice().roll(attribute_check_in(fixture, fixture.active_session))
        ),
        operation!(
            "dice.use_heroic_save",
            ["not_signed_in", "not_found", "not_seated", "done", "done", "done"],
            |tx, fixture| tx.dice().use_heroic_save(fixture.failed_roll)
        ),
        operation!(
            "dice.roll_initiative",
            ["not_signed_in", "not_allowed", "not_a_seer", "not_a_seer", "done", "done"],
            |tx, fixture| tx.dice().roll_initiative(initiative(fixture.active_session, vec![fixture.creature]))
        ),
        operation!("dice.get", ["not_signed_in", "not_found", "done", "done", "done", "done"], |tx, fixture| {
            tx.dice().get(fixture.failed_roll)
        }),
        operation!("dice.history", USERS_AND_SERVICE_MAY_CALL, |tx, fixture| async {
            tx.dice().history(RollScope::Session(fixture.active_session), &HistoryFilter::default(), None).await
        }),
        operation!("dice.heroic_saves_remaining", USERS_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .dice()
            .heroic_saves_remaining(fixture.active_session)),
        operation!("dice.statistics", USERS_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .dice()
            .statistics(RollScope::Character(fixture.player.character_id))),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("dice.roll", Player, "session_not_active", |tx, fixture| tx
            .dice()
            .roll(attribute_check_in(fixture, fixture.paused_session))),
        refusal!("dice.roll", Seer, "session_not_active", |tx, fixture| tx
            .dice()
            .roll(attribute_check_in(fixture, fixture.waiting_session))),
        refusal!("dice.roll", Player, "session_not_active", |tx, fixture| tx
            .dice()
            .roll(attribute_check_in(fixture, fixture.completed_session))),
        // A session that the caller cannot see is refused like one that does not exist.
        refusal!("dice.roll", Stranger, "not_allowed", |tx, fixture| tx
            .dice()
            .roll(attribute_check_in(fixture, fixture.paused_session))),
        refusal!("dice.roll", Stranger, "not_allowed", |tx, fixture| tx
            .dice()
            .roll(attribute_check_in(fixture, Uuid::new_v4()))),
        refusal!("dice.roll", Player, "not_a_seer", |tx, fixture| tx
            .dice()
            .roll(creature_attack(fixture, fixture.creature))),
        refusal!("dice.roll", Player, "character_not_yours", |tx, fixture| {
            tx.dice().roll(attribute_check_by(fixture, fixture.stranger.character_id))
        }),
        refusal!("dice.roll", Player, "character_not_yours", |tx, fixture| {
            tx.dice().roll(attribute_check_by(fixture, Uuid::new_v4()))
        }),
        refusal!("dice.roll", Seer, "character_not_yours", |tx, fixture| {
            tx.dice().roll(attribute_check_by(fixture, fixture.stranger.character_id))
        }),
        refusal!("dice.roll", Seer, "character_not_yours", |tx, fixture| {
            tx.dice().roll(attribute_check_by(fixture, Uuid::new_v4()))
        }),
        refusal!("dice.roll", Player, "not_seated", |tx, fixture| tx
            .dice()
            .roll(attribute_check_by(fixture, fixture.spare_character))),
        refusal!("dice.roll", Player, "character_retired", |tx, fixture| tx
            .dice()
            .roll(attribute_check_by(fixture, fixture.retired_character))),
        refusal!("dice.roll", Service, "not_found", |tx, fixture| tx
            .dice()
            .roll(attribute_check_in(fixture, Uuid::new_v4()))),
        refusal!("dice.roll", Service, "not_found", |tx, fixture| tx
            .dice()
            .roll(attribute_check_by(fixture, Uuid::new_v4()))),
        // A flat modifier is at most 10.
        refusal!("dice.roll", Player, "invalid_value", |tx, fixture| {
            tx.dice().roll(attribute_check_in(fixture, fixture.active_session).with(Modifier::flat(11, "a lie")))
        }),
        refusal!("dice.roll", Seer, "creature_not_in_adventure", |tx, fixture| {
            tx.dice().roll(creature_attack(fixture, fixture.creature_of_draft))
        }),
        refusal!("dice.roll", Player, "id_conflict", |tx, fixture| {
            tx.dice()
                .roll(NewRoll { id: Some(fixture.failed_roll), ..attribute_check_in(fixture, fixture.active_session) })
        }),
        refusal!("dice.use_heroic_save", Player, "heroic_save_spent", |tx, fixture| tx
            .dice()
            .use_heroic_save(fixture.failed_roll_without_save_left)),
        refusal!("dice.use_heroic_save", Player, "heroic_save_not_needed", |tx, fixture| {
            tx.dice().use_heroic_save(fixture.successful_roll)
        }),
        refusal!("dice.use_heroic_save", Player, "heroic_save_too_late", |tx, fixture| tx
            .dice()
            .use_heroic_save(fixture.expired_roll)),
        refusal!("dice.use_heroic_save", Player, "roll_already_saved", |tx, fixture| tx
            .dice()
            .use_heroic_save(fixture.repeated_roll)),
        refusal!("dice.use_heroic_save", Seer, "roll_not_saveable", |tx, fixture| async {
            let attack = tx.dice().roll(creature_attack(fixture, fixture.creature)).await?;
            tx.dice().use_heroic_save(attack.id).await
        }),
        refusal!("dice.use_heroic_save", Player, "not_a_seer", |tx, fixture| tx
            .dice()
            .use_heroic_save(fixture.roll_of_creature)),
        refusal!("dice.use_heroic_save", Player, "character_retired", |tx, fixture| tx
            .dice()
            .use_heroic_save(fixture.roll_of_retired_character)),
        // Once its player has been removed, the character has no seat, so the Seer may no longer roll for it.
        refusal!("dice.use_heroic_save", Seer, "character_not_yours", |tx, fixture| async {
            tx.sessions().remove_player(fixture.active_session, fixture.player.user_id).await?;
            tx.dice().use_heroic_save(fixture.failed_roll).await
        }),
        refusal!("dice.use_heroic_save", Seer, "session_not_active", |tx, fixture| async {
            tx.sessions().pause(fixture.active_session).await?;
            tx.dice().use_heroic_save(fixture.failed_roll).await
        }),
        refusal!("dice.roll_initiative", Seer, "session_not_active", |tx, fixture| {
            tx.dice().roll_initiative(initiative(fixture.waiting_session, Vec::new()))
        }),
        // Initiative is rolled for the players and the given creatures; here there are neither.
        refusal!("dice.roll_initiative", Seer, "not_found", |tx, fixture| {
            tx.dice().roll_initiative(initiative(fixture.session_without_player, Vec::new()))
        }),
        refusal!("dice.roll_initiative", Seer, "creature_not_in_adventure", |tx, fixture| {
            tx.dice().roll_initiative(initiative(fixture.active_session, vec![fixture.creature_of_draft]))
        }),
        refusal!("dice.roll_initiative", Seer, "id_conflict", |tx, fixture| async {
            let id = Some(Uuid::new_v4());
            tx.dice().roll_initiative(NewInitiative { id, ..initiative(fixture.active_session, Vec::new()) }).await?;
            tx.dice()
                .roll_initiative(NewInitiative { id, ..initiative(fixture.session_with_save_used, Vec::new()) })
                .await
        }),
        refusal!("dice.history", Player, "invalid_value", |tx, fixture| async {
            let filter = HistoryFilter { from: Some(chrono::DateTime::<chrono::Utc>::MIN_UTC), ..Default::default() };
            tx.dice().history(RollScope::Session(fixture.active_session), &filter, None).await
        }),
        refusal!("dice.history", Player, "bad_cursor", |tx, fixture| async {
            // A cursor is JSON in hexadecimal digits; `00` does not stand for JSON.
            let forged = "00".to_owned().into();
            tx.dice()
                .history(RollScope::Session(fixture.active_session), &HistoryFilter::default(), Some(&forged))
                .await
        }),
    ]
}
