//! The operations on adventures, and who may call them. The six outcomes of an operation are those of the visitor, the
//! stranger, the former player, the player, the Seer and the service.

use sparc::service::{
    Operations,
    adventures::{AdventureChanges, AdventureContent, CatalogueFilter, CatalogueOrder, NewAdventure},
};
use uuid::Uuid;

use super::operation::{EVERYBODY_MAY_CALL, Operation, Refusal, SERVICE_MAY_CALL, USERS_MAY_CALL, operation, refusal};

fn new_adventure(name: &str) -> NewAdventure {
    NewAdventure { name: name.into(), ..Default::default() }
}

/// Only the adventure's creator (the Seer) and the service may call the operation. The adventure is a draft, so other
/// users cannot read it, and are refused with `not_found`.
const CREATOR_AND_SERVICE_MAY_CALL_ON_DRAFT: [&str; 6] =
    ["not_signed_in", "not_found", "not_found", "not_found", "done", "done"];

/// Only the adventure's creator (the Seer) and the service may call the operation. The adventure is published, so
/// other users can read it, and are refused with `adventure_not_yours` instead of `not_found`.
const CREATOR_AND_SERVICE_MAY_CALL_ON_PUBLISHED: [&str; 6] =
    ["not_signed_in", "adventure_not_yours", "adventure_not_yours", "adventure_not_yours", "done", "done"];

/// The adventure is a draft. Only its creator (the Seer) may call the operation; not even the service may.
const ONLY_CREATOR_MAY_CALL_ON_DRAFT: [&str; 6] =
    ["not_signed_in", "not_found", "not_found", "not_found", "done", "not_signed_in"];

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("adventures.create", USERS_MAY_CALL, |tx, fixture| tx.adventures().create(new_adventure("New"))),
        operation!("adventures.edit", CREATOR_AND_SERVICE_MAY_CALL_ON_PUBLISHED, |tx, fixture| {
            let changes = AdventureChanges { estimated_duration: Some(90), ..Default::default() };
            tx.adventures().edit(fixture.adventure, changes)
        }),
        operation!("adventures.set_content", CREATOR_AND_SERVICE_MAY_CALL_ON_DRAFT, |tx, fixture| async {
            tx.adventures().set_content(fixture.draft_adventure, &AdventureContent::default()).await
        }),
        operation!("adventures.validate", ONLY_CREATOR_MAY_CALL_ON_DRAFT, |tx, fixture| tx
            .adventures()
            .validate(fixture.draft_adventure)),
        operation!("adventures.publish", ONLY_CREATOR_MAY_CALL_ON_DRAFT, |tx, fixture| tx
            .adventures()
            .publish(fixture.draft_adventure)),
        operation!("adventures.unpublish", CREATOR_AND_SERVICE_MAY_CALL_ON_PUBLISHED, |tx, fixture| tx
            .adventures()
            .unpublish(fixture.adventure)),
        operation!("adventures.archive", CREATOR_AND_SERVICE_MAY_CALL_ON_PUBLISHED, |tx, fixture| tx
            .adventures()
            .archive(fixture.adventure)),
        operation!("adventures.delete", CREATOR_AND_SERVICE_MAY_CALL_ON_DRAFT, |tx, fixture| tx
            .adventures()
            .delete(fixture.draft_adventure)),
        operation!("adventures.get", EVERYBODY_MAY_CALL, |tx, fixture| { tx.adventures().get(fixture.adventure) }),
        operation!("adventures.set_average_rating", SERVICE_MAY_CALL, |tx, fixture| {
            tx.adventures().set_average_rating(fixture.adventure, Some("4.25".parse().unwrap()))
        }),
        operation!("adventures.catalogue", EVERYBODY_MAY_CALL, |tx, fixture| async {
            tx.adventures().catalogue(&CatalogueFilter::default(), CatalogueOrder::Newest, None).await
        }),
        operation!("adventures.mine", USERS_MAY_CALL, |tx, fixture| tx.adventures().mine(None)),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("adventures.create", AccountAtLimits, "adventure_limit_reached", |tx, fixture| {
            tx.adventures().create(new_adventure("One Too Many"))
        }),
        // A name must have at least three characters.
        refusal!("adventures.create", Player, "invalid_value", |tx, fixture| tx
            .adventures()
            .create(new_adventure("xy"))),
        refusal!("adventures.create", Player, "invalid_value", |tx, fixture| {
            tx.adventures().create(NewAdventure { estimated_duration: 0, ..new_adventure("Short") })
        }),
        refusal!("adventures.create", Player, "invalid_value", |tx, fixture| {
            tx.adventures().create(NewAdventure { min_players: 4, max_players: 3, ..new_adventure("Odd") })
        }),
        refusal!("adventures.create", Player, "id_conflict", |tx, fixture| {
            tx.adventures().create(NewAdventure { id: Some(fixture.draft_adventure), ..new_adventure("Thief") })
        }),
        refusal!("adventures.edit", Seer, "invalid_value", |tx, fixture| {
            tx.adventures()
                .edit(fixture.draft_adventure, AdventureChanges { max_players: Some(7), ..Default::default() })
        }),
        refusal!("adventures.edit", Stranger, "not_found", |tx, fixture| {
            tx.adventures()
                .edit(fixture.draft_adventure, AdventureChanges { max_players: Some(6), ..Default::default() })
        }),
        refusal!("adventures.set_content", Seer, "adventure_published", |tx, fixture| async {
            let content = AdventureContent { start: Some("x".into()), ..Default::default() };
            tx.adventures().set_content(fixture.adventure, &content).await
        }),
        refusal!("adventures.set_content", Seer, "invalid_value", |tx, fixture| async {
            let content = AdventureContent { start: Some("x".repeat(1 << 20)), ..Default::default() };
            tx.adventures().set_content(fixture.draft_adventure, &content).await
        }),
        refusal!("adventures.set_content", Stranger, "adventure_not_yours", |tx, fixture| async {
            tx.adventures().set_content(fixture.adventure, &AdventureContent::default()).await
        }),
        refusal!("adventures.validate", Stranger, "adventure_not_yours", |tx, fixture| tx
            .adventures()
            .validate(fixture.adventure)),
        refusal!("adventures.publish", Seer, "adventure_invalid", |tx, fixture| tx
            .adventures()
            .publish(fixture.invalid_draft_adventure)),
        refusal!("adventures.unpublish", Stranger, "not_found", |tx, fixture| tx
            .adventures()
            .unpublish(fixture.draft_adventure)),
        refusal!("adventures.unpublish", Service, "account_closed", |tx, fixture| async {
            tx.users().close_account(fixture.seer).await?;
            tx.adventures().unpublish(fixture.adventure).await
        }),
        refusal!("adventures.archive", Stranger, "not_found", |tx, fixture| tx
            .adventures()
            .archive(fixture.draft_adventure)),
        refusal!("adventures.publish", Stranger, "adventure_not_yours", |tx, fixture| {
            tx.adventures().publish(fixture.adventure)
        }),
        refusal!("adventures.delete", Stranger, "adventure_not_yours", |tx, fixture| {
            tx.adventures().delete(fixture.adventure)
        }),
        refusal!("adventures.delete", Seer, "has_history", |tx, fixture| tx.adventures().delete(fixture.adventure)),
        refusal!("adventures.get", Stranger, "not_found", |tx, fixture| tx.adventures().get(fixture.draft_adventure)),
        refusal!("adventures.set_average_rating", Service, "not_found", |tx, fixture| {
            tx.adventures().set_average_rating(Uuid::new_v4(), None)
        }),
        refusal!("adventures.set_average_rating", Service, "invalid_value", |tx, fixture| {
            tx.adventures().set_average_rating(fixture.adventure, Some("10".parse().unwrap()))
        }),
        refusal!("adventures.catalogue", Visitor, "invalid_value", |tx, fixture| async {
            let filter = CatalogueFilter { search: Some("a\0".into()), ..Default::default() };
            tx.adventures().catalogue(&filter, CatalogueOrder::Newest, None).await
        }),
        refusal!("adventures.catalogue", Visitor, "bad_cursor", |tx, fixture| async {
            // A cursor is JSON in hexadecimal digits; `00` does not stand for JSON.
            let forged = "00".to_owned().into();
            tx.adventures().catalogue(&CatalogueFilter::default(), CatalogueOrder::Newest, Some(&forged)).await
        }),
        refusal!("adventures.mine", Seer, "bad_cursor", |tx, fixture| async {
            // These digits do stand for JSON, but the JSON is an empty array, which is not a cursor.
            let forged = "5b5d".to_owned().into();
            tx.adventures().mine(Some(&forged)).await
        }),
    ]
}
