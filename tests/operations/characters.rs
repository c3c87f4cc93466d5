//! The operations on characters, and who may call them.

use sparc::service::{
    Level, MaxHitPoints, Operations,
    characters::{Attributes, Item, NewCharacter, SpecialAbility},
};
use uuid::Uuid;

use super::{Caller, Operation, Refusal, SERVICE_MAY, SIGNED_IN_MAY, USERS_MAY, operation, outcome_code, refusal};

fn new_character(name: &str) -> NewCharacter {
    NewCharacter { name: name.into(), ..Default::default() }
}

/// The character's owner, the Seer of a session where it is seated, and the service may.
const OWNER_OR_SEER_MAY: [&str; 6] = ["not_signed_in", "not_found", "not_found", "done", "done", "done"];

/// The character's owner and the service may.
const OWNER_MAY: [&str; 6] = ["not_signed_in", "not_found", "not_found", "done", "not_found", "done"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("characters.create", USERS_MAY, |tx, scene| tx.characters().create(new_character("Brunhild"))),
        operation!("characters.list", USERS_MAY, |tx, scene| tx.characters().list()),
        operation!("characters.retired", USERS_MAY, |tx, scene| tx.characters().retired()),
        operation!("characters.get", OWNER_MAY, |tx, scene| tx.characters().get(scene.player.character)),
        operation!("characters.seats", SIGNED_IN_MAY, |tx, scene| tx.characters().seats(scene.player.character)),
        operation!("characters.rename", OWNER_MAY, |tx, scene| tx.characters().rename(scene.player.character, "Other")),
        operation!("characters.set_equipment", OWNER_MAY, |tx, scene| async {
            let rope = Item { name: "rope".into(), ..Default::default() };
            tx.characters().set_equipment(scene.player.character, &[rope]).await
        }),
        operation!("characters.set_special_ability", OWNER_MAY, |tx, scene| async {
            let song = SpecialAbility { name: "song".into(), ..Default::default() };
            tx.characters().set_special_ability(scene.player.character, &song).await
        }),
        operation!("characters.damage", OWNER_OR_SEER_MAY, |tx, scene| tx
            .characters()
            .damage(scene.player.character, 2)),
        operation!("characters.heal", OWNER_OR_SEER_MAY, |tx, scene| tx.characters().heal(scene.player.character, 2)),
        operation!("characters.rest", OWNER_OR_SEER_MAY, |tx, scene| tx.characters().rest(scene.player.character)),
        operation!("characters.retire", OWNER_MAY, |tx, scene| tx.characters().retire(scene.spare_character)),
        operation!("characters.unretire", OWNER_MAY, |tx, scene| tx.characters().unretire(scene.retired_character)),
        operation!("characters.delete", OWNER_MAY, |tx, scene| tx.characters().delete(scene.spare_character)),
        operation!("characters.award_experience", SERVICE_MAY, |tx, scene| {
            tx.characters().award_experience(scene.player.character, 100)
        }),
        operation!("characters.set_level", SERVICE_MAY, |tx, scene| {
            tx.characters().set_level(scene.player.character, Level::MAX)
        }),
        operation!("characters.set_max_hit_points", SERVICE_MAY, |tx, scene| {
            tx.characters().set_max_hit_points(scene.player.character, MaxHitPoints::MIN)
        }),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("characters.create", AtLimits, "character_limit_reached", |tx, scene| {
            tx.characters().create(new_character("The Eleventh"))
        }),
        refusal!("characters.create", Player, "character_name_taken", |tx, scene| async {
            tx.characters().create(new_character("Twin")).await?;
            tx.characters().create(new_character("Twin")).await
        }),
        refusal!("characters.create", Player, "id_conflict", |tx, scene| {
            tx.characters().create(NewCharacter { id: Some(scene.stranger.character), ..new_character("Thief") })
        }),
        refusal!("characters.create", Player, "id_conflict", |tx, scene| async {
            let id = Some(Uuid::new_v4());
            tx.characters().create(NewCharacter { id, ..new_character("Twice") }).await?;
            let attributes = Some(Attributes::new(6, 6, 6, 6)?);
            tx.characters().create(NewCharacter { id, attributes, ..new_character("Twice") }).await
        }),
        refusal!("characters.create", Player, "invalid_value", |tx, scene| tx.characters().create(new_character("x"))),
        refusal!("characters.create", Player, "invalid_value", |tx, scene| tx
            .characters()
            .create(new_character("N\0ul"))),
        refusal!("characters.create", Closed, "account_closed", |tx, scene| tx
            .characters()
            .create(new_character("Ghost"))),
        refusal!("characters.rename", Player, "character_name_taken", |tx, scene| async {
            tx.characters().create(new_character("Twin")).await?;
            tx.characters().rename(scene.spare_character, "Twin").await
        }),
        refusal!("characters.rename", Player, "invalid_value", |tx, scene| tx
            .characters()
            .rename(scene.spare_character, "")),
        refusal!("characters.set_equipment", Player, "invalid_value", |tx, scene| async {
            let item = Item { name: "x".repeat(65_536), ..Default::default() };
            tx.characters().set_equipment(scene.spare_character, &[item]).await
        }),
        refusal!("characters.set_special_ability", Player, "invalid_value", |tx, scene| async {
            let ability = SpecialAbility { name: "x".repeat(16_384), ..Default::default() };
            tx.characters().set_special_ability(scene.spare_character, &ability).await
        }),
        refusal!("characters.damage", Stranger, "not_found", |tx, scene| tx.characters().damage(Uuid::new_v4(), 1)),
        // The spare character has no seat, so no Seer may change it.
        refusal!("characters.damage", Seer, "not_found", |tx, scene| tx.characters().damage(scene.spare_character, 1)),
        refusal!("characters.retire", Player, "character_seated", |tx, scene| {
            tx.characters().retire(scene.player.character)
        }),
        refusal!("characters.retire", AtLimits, "retired_limit_reached", |tx, scene| {
            tx.characters().retire(scene.unseated_character_at_limits)
        }),
        refusal!("characters.retire", Service, "account_closed", |tx, scene| {
            tx.characters().retire(scene.living_character_of_closed_account)
        }),
        refusal!("characters.unretire", AtLimits, "character_limit_reached", |tx, scene| {
            tx.characters().unretire(scene.retired_character_at_limits)
        }),
        refusal!("characters.unretire", Closed, "account_closed", |tx, scene| {
            tx.characters().unretire(scene.retired_character_of_closed_account)
        }),
        refusal!("characters.delete", Player, "has_history", |tx, scene| {
            tx.characters().delete(scene.player.character)
        }),
        refusal!("characters.award_experience", Service, "not_found", |tx, scene| {
            tx.characters().award_experience(Uuid::new_v4(), 1)
        }),
        refusal!("characters.award_experience", Service, "invalid_value", |tx, scene| {
            tx.characters().award_experience(scene.most_experienced_character, 1)
        }),
        refusal!("characters.set_level", Service, "not_found", |tx, scene| {
            tx.characters().set_level(Uuid::new_v4(), Level::MIN)
        }),
        refusal!("characters.set_max_hit_points", Service, "not_found", |tx, scene| {
            tx.characters().set_max_hit_points(Uuid::new_v4(), MaxHitPoints::MIN)
        }),
    ]
}
