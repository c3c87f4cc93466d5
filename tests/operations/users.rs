//! The operations on accounts and profiles, and who may call them. The six outcomes of an operation are those of the
//! visitor, the stranger, the former player, the player, the Seer and the service.

use sparc::service::{
    Operations,
    users::{Badge, NewAccount, ProfileChanges},
};
use uuid::Uuid;

use super::operation::{EVERYBODY_MAY_CALL, Operation, Refusal, SERVICE_MAY_CALL, USERS_MAY_CALL, operation, refusal};

pub fn operations() -> Vec<Operation> {
    vec![
        operation!("users.sign_up", SERVICE_MAY_CALL, |tx, fixture| tx.users().sign_up(NewAccount::default())),
        operation!("users.profiles", EVERYBODY_MAY_CALL, |tx, fixture| {
            tx.users().profiles(std::slice::from_ref(&fixture.seer))
        }),
        operation!("users.profile", EVERYBODY_MAY_CALL, |tx, fixture| { tx.users().profile(fixture.seer) }),
        operation!("users.by_display_name", EVERYBODY_MAY_CALL, |tx, fixture| tx.users().by_display_name("Morgan")),
        operation!("users.by_email", SERVICE_MAY_CALL, |tx, fixture| async {
            tx.users().by_email(&format!("{}@example.org", fixture.seer)).await
        }),
        operation!("users.is_email_taken", SERVICE_MAY_CALL, |tx, fixture| tx
            .users()
            .is_email_taken("ada@example.org")),
        operation!("users.me", USERS_MAY_CALL, |tx, fixture| tx.users().me()),
        operation!("users.my_email", USERS_MAY_CALL, |tx, fixture| tx.users().my_email()),
        operation!("users.my_statistics", USERS_MAY_CALL, |tx, fixture| tx.users().my_statistics()),
        operation!("users.edit", USERS_MAY_CALL, |tx, fixture| tx
            .users()
            .edit(ProfileChanges { bio: Some(Some("Here".into())), ..Default::default() })),
        operation!(
            "users.close_account",
            ["not_signed_in", "not_allowed", "not_allowed", "done", "not_allowed", "done"],
            |tx, fixture| tx.users().close_account(fixture.player.user_id)
        ),
        operation!("users.set_badge", SERVICE_MAY_CALL, |tx, fixture| tx
            .users()
            .set_badge(fixture.player.user_id, Badge::Verified)),
    ]
}

pub fn refusals() -> Vec<Refusal> {
    vec![
        refusal!("users.sign_up", Service, "id_conflict", |tx, fixture| {
            tx.users().sign_up(NewAccount { id: Some(fixture.seer), ..Default::default() })
        }),
        refusal!("users.sign_up", Service, "invalid_value", |tx, fixture| {
            tx.users().sign_up(NewAccount { email: Some("a\0@example.org".into()), ..Default::default() })
        }),
        refusal!("users.by_display_name", Visitor, "invalid_value", |tx, fixture| tx.users().by_display_name("a\0")),
        refusal!("users.by_email", Service, "invalid_value", |tx, fixture| tx.users().by_email("a\0")),
        refusal!("users.is_email_taken", Service, "invalid_value", |tx, fixture| tx.users().is_email_taken("a\0")),
        refusal!("users.profile", Visitor, "not_found", |tx, fixture| tx.users().profile(Uuid::new_v4())),
        refusal!("users.by_email", Service, "not_found", |tx, fixture| tx.users().by_email("nobody@example.org")),
        refusal!("users.edit", Player, "invalid_value", |tx, fixture| {
            tx.users().edit(ProfileChanges { display_name: Some("Ada\0".into()), ..Default::default() })
        }),
        refusal!("users.edit", ClosedAccount, "account_closed", |tx, fixture| {
            tx.users().edit(ProfileChanges { display_name: Some("Back".into()), ..Default::default() })
        }),
        refusal!("users.close_account", Service, "not_found", |tx, fixture| tx.users().close_account(Uuid::new_v4())),
        refusal!("users.set_badge", Service, "not_found", |tx, fixture| {
            tx.users().set_badge(Uuid::new_v4(), Badge::None)
        }),
    ]
}
