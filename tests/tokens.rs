//! Access tokens (JWTs): the claims that the database sees, invalid claims, and the calls of closed and unknown
//! accounts.

use sea_orm::{ConnectionTrait, DbBackend, EntityTrait, Statement, TransactionTrait};
use serde_json::{Value, json};
use sparc::{
    entity::characters,
    service::{
        Error, IdentityConnection, Operations,
        characters::NewCharacter,
        events::NewEvent,
        users::{NewAccount, ProfileChanges},
    },
};
use uuid::Uuid;

use crate::world::{World, outcome_code};

/// Makes calls of every kind: operations that read or write, a query of an entity, raw SQL and a transaction. Returns
/// the name of each call with its outcome: `done` or the code of its error.
async fn call_everything(caller: &IdentityConnection, session_id: Uuid) -> Vec<(&'static str, &'static str)> {
    let sql = Statement::from_string(DbBackend::Postgres, "SELECT 1");
    vec![
        ("me", outcome_code(caller.users().me().await)),
        ("my_email", outcome_code(caller.users().my_email().await)),
        ("my_statistics", outcome_code(caller.users().my_statistics().await)),
        ("edit", outcome_code(caller.users().edit(ProfileChanges { bio: Some(None), ..Default::default() }).await)),
        ("profile", outcome_code(caller.users().profile(Uuid::new_v4()).await)),
        ("characters", outcome_code(caller.characters().living().await)),
        (
            "create",
            outcome_code(
                caller.characters().create(NewCharacter { name: "Brunhild".into(), ..Default::default() }).await,
            ),
        ),
        ("mine", outcome_code(caller.sessions().my_live(None).await)),
        ("session", outcome_code(caller.sessions().get(session_id).await)),
        ("leave", outcome_code(caller.sessions().leave(session_id).await)),
        ("tutorial", outcome_code(caller.tutorial().progress().await)),
        ("skip", outcome_code(caller.tutorial().skip().await)),
        ("events", outcome_code(caller.events().after(session_id, 0).await)),
        ("newest", outcome_code(caller.events().newest_seq(session_id).await)),
        ("subscribe", outcome_code(caller.events().subscribe(session_id, None).await)),
        (
            "send",
            outcome_code(caller.events().send(NewEvent { session_id, kind: "x".into(), ..Default::default() }).await),
        ),
        ("entity", outcome_code(characters::Entity::find().all(caller).await.map_err(Error::from))),
        ("raw", outcome_code(caller.query_all_raw(sql).await.map_err(Error::from))),
        ("transaction", outcome_code(caller.begin().await.map_err(Error::from))),
    ]
}

#[tokio::test]
async fn every_call_of_a_closed_or_unknown_account_is_refused() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let closed_account_id = game.players[0].user_id;
    world.sparc.as_service().users().close_account(closed_account_id).await.unwrap();
    for (call, code) in call_everything(&world.sparc.as_user(closed_account_id), game.session_id).await {
        assert_eq!(code, "account_closed", "{call}");
    }
    for (call, code) in call_everything(&world.sparc.as_user(Uuid::new_v4()), game.session_id).await {
        assert_eq!(code, "unknown_account", "{call}");
    }
    let seer = world.sparc.as_user(game.seer.user_id());
    let outcomes_of_open_account = call_everything(&seer, game.session_id).await;
    assert!(outcomes_of_open_account.contains(&("me", "done")), "{outcomes_of_open_account:?}");
    for (call, code) in outcomes_of_open_account {
        assert!(!["account_closed", "unknown_account"].contains(&code), "{call} of an open account: {code}");
    }
    assert_eq!((Error::UnknownAccount.http_status(), Error::AccountClosed.http_status()), (401, 403));
    // After sign-up, the account is known.
    let new_account = NewAccount { id: Some(Uuid::new_v4()), ..Default::default() };
    let ada = world.sparc.as_user(new_account.id.unwrap());
    assert_eq!(outcome_code(ada.users().me().await), "unknown_account");
    world.sparc.as_service().users().sign_up(new_account).await.unwrap();
    assert_eq!(outcome_code(ada.users().me().await), "done");
}

#[tokio::test]
async fn the_database_sees_the_claims_of_a_token_and_invalid_claims_are_refused() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    // The claim `session_id` is Supabase's id of a login, not the id of a session of the game. Its value has characters
    // that must be escaped in SQL.
    let claims = json!({
        "role": "authenticated", "sub": user_id, "aal": "aal2", "session_id": "s'1\\", "app_metadata": { "roles": ["judge"] }
    });
    let ada = world.sparc.as_claims(&claims).unwrap();
    assert_eq!(ada.user_id(), Some(user_id));
    assert_eq!(ada.users().me().await.unwrap().id, user_id);
    let query = Statement::from_string(DbBackend::Postgres, "SELECT auth.jwt(), auth.uid(), current_user::text");
    let row = ada.query_one_raw(query).await.unwrap().unwrap();
    assert_eq!(row.try_get_by_index::<Value>(0).unwrap(), claims);
    assert_eq!(row.try_get_by_index::<Uuid>(1).unwrap(), user_id);
    assert_eq!(row.try_get_by_index::<String>(2).unwrap(), "authenticated");

    // Claims may be of any type that serializes to an object.
    let claims_of = |id: Uuid| std::collections::BTreeMap::from([("role", json!("authenticated")), ("sub", json!(id))]);
    assert!(world.sparc.as_claims(claims_of(user_id)).is_ok());
    let unknown_account = world.sparc.as_claims(claims_of(Uuid::new_v4())).unwrap();
    assert_eq!(outcome_code(unknown_account.users().me().await), "unknown_account");
    let visitor = world.sparc.as_claims(json!({ "role": "anon", "iss": "us" })).unwrap();
    assert_eq!(outcome_code(visitor.users().me().await), "not_signed_in");
    for claims in [
        json!({ "role": "authenticated", "sub": null }),
        json!({ "role": "service_role", "sub": user_id }),
        json!({ "role": "postgres", "sub": user_id }),
        json!({ "sub": user_id }),
        json!("authenticated"),
    ] {
        assert_eq!(outcome_code(world.sparc.as_claims(&claims)), "invalid_claims", "{claims}");
    }
}
