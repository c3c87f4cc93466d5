//! The operations on adventures, and who may call them.

use sparc::service::{
    Operations,
    adventures::{AdventureChanges, AdventureContent, CatalogueFilter, CatalogueOrder, NewAdventure},
};
use uuid::Uuid;

use super::{Caller, EVERYBODY_MAY, Operation, Refusal, SERVICE_MAY, USERS_MAY, operation, outcome_code, refusal};

fn new_adventure(name: &str) -> NewAdventure {
    NewAdventure { name: name.into(), ..Default::default() }
}

/// With a draft of the Seer's, which others cannot read, only its creator and the service may.
const CREATOR_OF_DRAFT_MAY: [&str; 6] = ["not_signed_in", "not_found", "not_found", "not_found", "done", "done"];

/// With a published adventure of the Seer's, which everybody can read, only its creator and the service may.
const CREATOR_OF_PUBLISHED_MAY: [&str; 6] =
    ["not_signed_in", "adventure_not_yours", "adventure_not_yours", "adventure_not_yours", "done", "done"];

/// With a draft of the Seer's, only its creator may, and not the service.
const ONLY_CREATOR_MAY: [&str; 6] = ["not_signed_in", "not_found", "not_found", "not_found", "done", "not_signed_in"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("adventures.create", USERS_MAY, |tx, scene| tx.adventures().create(new_adventure("New"))),
        operation!("adventures.edit", CREATOR_OF_PUBLISHED_MAY, |tx, scene| {
            let changes = AdventureChanges { estimated_duration: Some(90), ..Default::default() };
            tx.adventures().edit(scene.adventure, changes)
        }),
        operation!("adventures.set_content", CREATOR_OF_DRAFT_MAY, |tx, scene| async {
            tx.adventures().set_content(scene.draft, &AdventureContent::default()).await
        }),
        operation!("adventures.validate", ONLY_CREATOR_MAY, |tx, scene| tx.adventures().validate(scene.draft)),
        operation!("adventures.publish", ONLY_CREATOR_MAY, |tx, scene| tx.adventures().publish(scene.draft)),
        operation!("adventures.unpublish", CREATOR_OF_PUBLISHED_MAY, |tx, scene| tx
            .adventures()
            .unpublish(scene.adventure)),
        operation!("adventures.archive", CREATOR_OF_PUBLISHED_MAY, |tx, scene| tx
            .adventures()
            .archive(scene.adventure)),
        operation!("adventures.delete", CREATOR_OF_DRAFT_MAY, |tx, scene| tx.adventures().delete(scene.draft)),
        operation!("adventures.get", ["done", "done", "done", "done", "done", "done"], |tx, scene| {
            tx.adventures().get(scene.adventure)
        }),
        operation!("adventures.set_rating", SERVICE_MAY, |tx, scene| {
            tx.adventures().set_rating(scene.adventure, Some("4.25".parse().unwrap()))
        }),
        operation!("adventures.catalogue", EVERYBODY_MAY, |tx, scene| async {
            tx.adventures().catalogue(&CatalogueFilter::default(), CatalogueOrder::Newest, None).await
        }),
        operation!("adventures.mine", USERS_MAY, |tx, scene| tx.adventures().mine(None)),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("adventures.create", AtLimits, "adventure_limit_reached", |tx, scene| {
            tx.adventures().create(new_adventure("One Too Many"))
        }),
        refusal!("adventures.create", Player, "invalid_value", |tx, scene| tx.adventures().create(new_adventure("xy"))),
        refusal!("adventures.create", Player, "invalid_value", |tx, scene| {
            tx.adventures().create(NewAdventure { estimated_duration: 0, ..new_adventure("Short") })
        }),
        refusal!("adventures.create", Player, "invalid_value", |tx, scene| {
            tx.adventures().create(NewAdventure { min_players: 4, max_players: 3, ..new_adventure("Odd") })
        }),
        refusal!("adventures.create", Player, "id_conflict", |tx, scene| {
            tx.adventures().create(NewAdventure { id: Some(scene.draft), ..new_adventure("Thief") })
        }),
        refusal!("adventures.edit", Seer, "invalid_value", |tx, scene| {
            tx.adventures().edit(scene.draft, AdventureChanges { max_players: Some(7), ..Default::default() })
        }),
        refusal!("adventures.edit", Stranger, "not_found", |tx, scene| {
            tx.adventures().edit(scene.draft, AdventureChanges { max_players: Some(6), ..Default::default() })
        }),
        refusal!("adventures.set_content", Seer, "adventure_published", |tx, scene| async {
            let content = AdventureContent { start: Some("x".into()), ..Default::default() };
            tx.adventures().set_content(scene.adventure, &content).await
        }),
        refusal!("adventures.set_content", Seer, "invalid_value", |tx, scene| async {
            let content = AdventureContent { start: Some("x".repeat(1 << 20)), ..Default::default() };
            tx.adventures().set_content(scene.draft, &content).await
        }),
        refusal!("adventures.set_content", Stranger, "adventure_not_yours", |tx, scene| async {
            tx.adventures().set_content(scene.adventure, &AdventureContent::default()).await
        }),
        refusal!("adventures.validate", Stranger, "adventure_not_yours", |tx, scene| tx
            .adventures()
            .validate(scene.adventure)),
        refusal!("adventures.publish", Seer, "adventure_invalid", |tx, scene| tx
            .adventures()
            .publish(scene.invalid_draft)),
        refusal!("adventures.unpublish", Stranger, "not_found", |tx, scene| tx.adventures().unpublish(scene.draft)),
        refusal!("adventures.archive", Stranger, "not_found", |tx, scene| tx.adventures().archive(scene.draft)),
        refusal!("adventures.publish", Stranger, "adventure_not_yours", |tx, scene| {
            tx.adventures().publish(scene.adventure)
        }),
        refusal!("adventures.delete", Stranger, "adventure_not_yours", |tx, scene| {
            tx.adventures().delete(scene.adventure)
        }),
        refusal!("adventures.delete", Seer, "has_history", |tx, scene| tx.adventures().delete(scene.adventure)),
        refusal!("adventures.get", Stranger, "not_found", |tx, scene| tx.adventures().get(scene.draft)),
        refusal!("adventures.set_rating", Service, "not_found", |tx, scene| {
            tx.adventures().set_rating(Uuid::new_v4(), None)
        }),
        refusal!("adventures.set_rating", Service, "invalid_value", |tx, scene| {
            tx.adventures().set_rating(scene.adventure, Some("10".parse().unwrap()))
        }),
        refusal!("adventures.catalogue", Visitor, "bad_cursor", |tx, scene| async {
            let forged = "00".to_owned().into();
            tx.adventures().catalogue(&CatalogueFilter::default(), CatalogueOrder::Newest, Some(&forged)).await
        }),
        refusal!("adventures.mine", Seer, "bad_cursor", |tx, scene| async {
            let forged = "5b5d".to_owned().into();
            tx.adventures().mine(Some(&forged)).await
        }),
    ]
}
