//! The operations on accounts and profiles, and who may call them.

use sparc::service::{
    Operations,
    users::{Badge, NewAccount, ProfileChanges},
};
use uuid::Uuid;

use super::{Caller, EVERYBODY_MAY, Operation, Refusal, SERVICE_MAY, USERS_MAY, operation, outcome_code, refusal};

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("users.sign_up", SERVICE_MAY, |tx, scene| tx.users().sign_up(NewAccount::default())),
        operation!("users.profiles", EVERYBODY_MAY, |tx, scene| {
            tx.users().profiles(std::slice::from_ref(&scene.seer))
        }),
        operation!("users.profile", EVERYBODY_MAY, |tx, scene| { tx.users().profile(scene.seer) }),
        operation!("users.by_display_name", EVERYBODY_MAY, |tx, scene| tx.users().by_display_name("Morgan")),
        operation!("users.by_email", SERVICE_MAY, |tx, scene| async {
            tx.users().by_email(&format!("{}@example.org", scene.seer)).await
        }),
        operation!("users.is_email_taken", SERVICE_MAY, |tx, scene| tx.users().is_email_taken("ada@example.org")),
        operation!("users.me", USERS_MAY, |tx, scene| tx.users().me()),
        operation!("users.my_email", USERS_MAY, |tx, scene| tx.users().my_email()),
        operation!("users.statistics", USERS_MAY, |tx, scene| tx.users().statistics()),
        operation!("users.edit", USERS_MAY, |tx, scene| tx
            .users()
            .edit(ProfileChanges { bio: Some(Some("Here".into())), ..Default::default() })),
        operation!(
            "users.close_account",
            ["not_signed_in", "not_allowed", "not_allowed", "done", "not_allowed", "done"],
            |tx, scene| tx.users().close_account(scene.player.id)
        ),
        operation!("users.set_badge", SERVICE_MAY, |tx, scene| tx.users().set_badge(scene.player.id, Badge::Verified)),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("users.sign_up", Service, "id_conflict", |tx, scene| {
            tx.users().sign_up(NewAccount { id: Some(scene.seer), ..Default::default() })
        }),
        refusal!("users.profile", Visitor, "not_found", |tx, scene| tx.users().profile(Uuid::new_v4())),
        refusal!("users.by_email", Service, "not_found", |tx, scene| tx.users().by_email("nobody@example.org")),
        refusal!("users.edit", Player, "invalid_value", |tx, scene| {
            tx.users().edit(ProfileChanges { display_name: Some("Ada\0".into()), ..Default::default() })
        }),
        refusal!("users.edit", Closed, "account_closed", |tx, scene| {
            tx.users().edit(ProfileChanges { display_name: Some("Back".into()), ..Default::default() })
        }),
        refusal!("users.close_account", Service, "not_found", |tx, scene| tx.users().close_account(Uuid::new_v4())),
        refusal!("users.set_badge", Service, "not_found", |tx, scene| {
            tx.users().set_badge(Uuid::new_v4(), Badge::None)
        }),
    ]
}
