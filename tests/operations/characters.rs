//! The operations on characters, and who may call them. The six outcomes of an operation are those of the visitor, the
//! stranger, the former player, the player, the Seer and the service.

use sparc::service::{
    Level, MaxHitPoints, Operations,
    characters::{Attributes, Item, NewCharacter, SpecialAbility},
};
use uuid::Uuid;

use super::operation::{
    Operation, Refusal, SERVICE_MAY_CALL, USERS_AND_SERVICE_MAY_CALL, USERS_MAY_CALL, operation, refusal,
};

fn new_character(name: &str) -> NewCharacter {
    NewCharacter { name: name.into(), ..Default::default() }
}

/// The character's owner, the Seer of a session where it is seated, and the service may call the operation.
const OWNER_SEER_AND_SERVICE_MAY_CALL: [&str; 6] = ["not_signed_in", "not_found", "not_found", "done", "done", "done"];

/// The character's owner and the service may call the operation.
const OWNER_AND_SERVICE_MAY_CALL: [&str; 6] = ["not_signed_in", "not_found", "not_found", "done", "not_found", "done"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("characters.create", USERS_MAY_CALL, |tx, fixture| tx
            .characters()
            .create(new_character("Brunhild"))),
        operation!("characters.living", USERS_MAY_CALL, |tx, fixture| tx.characters().living()),
        operation!("characters.retired", USERS_MAY_CALL, |tx, fixture| tx.characters().retired()),
        operation!("characters.get", OWNER_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .characters()
            .get(fixture.player.character_id)),
        operation!("characters.seats", USERS_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .characters()
            .seats(fixture.player.character_id)),
        operation!("characters.rename", OWNER_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .characters()
            .rename(fixture.player.character_id, "Other")),
        operation!("characters.set_equipment", OWNER_AND_SERVICE_MAY_CALL, |tx, fixture| async {
            let rope = Item { name: "rope".into(), ..Default::default() };
            tx.characters().set_equipment(fixture.player.character_id, &[rope]).await
        }),
        operation!("characters.set_special_ability", OWNER_AND_SERVICE_MAY_CALL, |tx, fixture| async {
            let song = SpecialAbility { name: "song".into(), ..Default::default() };
            tx.characters().set_special_ability(fixture.player.character_id, &song).await
        }),
        operation!("characters.damage", OWNER_SEER_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .characters()
            .damage(fixture.player.character_id, 2)),
        operation!("characters.heal", OWNER_SEER_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .characters()
            .heal(fixture.player.character_id, 2)),
        operation!("characters.rest", OWNER_SEER_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .characters()
            .rest(fixture.player.character_id)),
        operation!("characters.retire", OWNER_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .characters()
            .retire(fixture.spare_character)),
        operation!("characters.unretire", OWNER_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .characters()
            .unretire(fixture.retired_character)),
        operation!("characters.delete", OWNER_AND_SERVICE_MAY_CALL, |tx, fixture| tx
            .characters()
            .delete(fixture.spare_character)),
        operation!("characters.award_experience", SERVICE_MAY_CALL, |tx, fixture| {
            tx.characters().award_experience(fixture.player.character_id, 100)
        }),
        operation!("characters.set_level", SERVICE_MAY_CALL, |tx, fixture| {
            tx.characters().set_level(fixture.player.character_id, Level::MAX)
        }),
        operation!("characters.set_max_hit_points", SERVICE_MAY_CALL, |tx, fixture| {
            tx.characters().set_max_hit_points(fixture.player.character_id, MaxHitPoints::MIN)
        }),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("characters.create", AccountAtLimits, "character_limit_reached", |tx, fixture| {
            tx.characters().create(new_character("The Eleventh"))
        }),
        refusal!("characters.create", Player, "character_name_taken", |tx, fixture| async {
            tx.characters().create(new_character("Twin")).await?;
            tx.characters().create(new_character("Twin")).await
        }),
        refusal!("characters.create", Player, "id_conflict", |tx, fixture| {
            tx.characters().create(NewCharacter { id: Some(fixture.stranger.character_id), ..new_character("Thief") })
        }),
        refusal!("characters.create", Player, "id_conflict", |tx, fixture| async {
            // The second call has other attributes, so it is not a repetition of the first one.
            let id = Some(Uuid::new_v4());
            tx.characters().create(NewCharacter { id, ..new_character("Twice") }).await?;
            let attributes = Some(Attributes::new(6, 6, 6, 6)?);
            tx.characters().create(NewCharacter { id, attributes, ..new_character("Twice") }).await
        }),
        // A name must have at least two characters.
        refusal!("characters.create", Player, "invalid_value", |tx, fixture| tx
            .characters()
            .create(new_character("x"))),
        refusal!("characters.create", Player, "invalid_value", |tx, fixture| tx
            .characters()
            .create(new_character("N\0ul"))),
        refusal!("characters.create", ClosedAccount, "account_closed", |tx, fixture| tx
            .characters()
            .create(new_character("Ghost"))),
        refusal!("characters.rename", Player, "character_name_taken", |tx, fixture| async {
            tx.characters().create(new_character("Twin")).await?;
            tx.characters().rename(fixture.spare_character, "Twin").await
        }),
        refusal!("characters.rename", Player, "invalid_value", |tx, fixture| tx
            .characters()
            .rename(fixture.spare_character, "")),
        refusal!("characters.set_equipment", Player, "invalid_value", |tx, fixture| async {
            let item = Item { name: "x".repeat(65_536), ..Default::default() };
            tx.characters().set_equipment(fixture.spare_character, &[item]).await
        }),
        refusal!("characters.set_special_ability", Player, "invalid_value", |tx, fixture| async {
            let ability = SpecialAbility { name: "x".repeat(16_384), ..Default::default() };
            tx.characters().set_special_ability(fixture.spare_character, &ability).await
        }),
        refusal!("characters.damage", Stranger, "not_found", |tx, fixture| tx.characters().damage(Uuid::new_v4(), 1)),
        // The spare character has no seat, so no Seer may change it.
        refusal!("characters.damage", Seer, "not_found", |tx, fixture| tx
            .characters()
            .damage(fixture.spare_character, 1)),
        refusal!("characters.retire", Player, "character_seated", |tx, fixture| {
            tx.characters().retire(fixture.player.character_id)
        }),
        refusal!("characters.retire", AccountAtLimits, "retired_limit_reached", |tx, fixture| {
            tx.characters().retire(fixture.unseated_character_of_account_at_limits)
        }),
        refusal!("characters.retire", Service, "account_closed", |tx, fixture| {
            tx.characters().retire(fixture.living_character_of_closed_account)
        }),
        refusal!("characters.unretire", AccountAtLimits, "character_limit_reached", |tx, fixture| {
            tx.characters().unretire(fixture.retired_character_of_account_at_limits)
        }),
        refusal!("characters.unretire", ClosedAccount, "account_closed", |tx, fixture| {
            tx.characters().unretire(fixture.retired_character_of_closed_account)
        }),
        refusal!("characters.delete", Player, "has_history", |tx, fixture| {
            tx.characters().delete(fixture.player.character_id)
        }),
        refusal!("characters.award_experience", Service, "not_found", |tx, fixture| {
            tx.characters().award_experience(Uuid::new_v4(), 1)
        }),
        refusal!("characters.award_experience", Service, "invalid_value", |tx, fixture| {
            tx.characters().award_experience(fixture.most_experienced_character, 1)
        }),
        refusal!("characters.set_level", Service, "not_found", |tx, fixture| {
            tx.characters().set_level(Uuid::new_v4(), Level::MIN)
        }),
        refusal!("characters.set_max_hit_points", Service, "not_found", |tx, fixture| {
            tx.characters().set_max_hit_points(Uuid::new_v4(), MaxHitPoints::MIN)
        }),
    ]
}
