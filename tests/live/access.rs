//! Who may subscribe, and what ends the stream of a caller who no longer may.

use futures_util::StreamExt;
use serde_json::json;
use sparc::service::{Operations, sessions::Participation};
use uuid::Uuid;

use super::{BOUND, code, end, everybody, new_handle, next, numbers, up_to, write};
use crate::world::World;

#[tokio::test]
async fn nobody_else_may_subscribe() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.set(&game, "is_public = true").await;
    let (sparc, stranger) = (new_handle(&world).await, world.new_account().await);
    let nowhere = Uuid::new_v4();
    for after in [None, Some(0), Some(1)] {
        let subscribe = async |caller: sparc::service::IdentityConnection, session| {
            code(caller.events().subscribe(session, after).await)
        };
        assert_eq!(subscribe(sparc.as_user(stranger), game.session).await, "not_allowed");
        assert_eq!(subscribe(sparc.as_user(stranger), nowhere).await, "not_allowed");
        assert_eq!(subscribe(sparc.as_user(Uuid::new_v4()), game.session).await, "unknown_account");
        assert_eq!(subscribe(sparc.as_anon(), game.session).await, "not_signed_in");
        assert_eq!(subscribe(sparc.as_service(), nowhere).await, "not_found");
    }
    for caller in everybody(&sparc, &game) {
        assert_eq!(code(caller.events().subscribe(game.session, Some(0)).await), "subscribed");
    }
    let mut left = sparc.as_user(game.players[0].id).events().subscribe(game.session, None).await.unwrap();
    game.players[0].person.exec("UPDATE session_players SET is_active = false").await.unwrap();
    assert_eq!(
        next(&mut left).await.event_type,
        "player_left",
        "a player who left still reads events, as in the table"
    );
}

#[tokio::test]
async fn subscribing_and_reading_are_refused_in_the_same_way() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    world.set(&game, "is_public = true").await;
    let [stranger, closed] = [world.new_account().await, game.players[1].id];
    world.sparc.as_service().users().close_account(closed).await.unwrap();
    let outcome = async |caller: sparc::service::IdentityConnection, session| {
        let after = caller.events().after(session, 0).await.map_or_else(|error| error.code(), |_| "done");
        let newest = caller.events().newest(session).await.map_or_else(|error| error.code(), |_| "done");
        assert_eq!(after, newest);
        assert_eq!(after.replace("done", "subscribed"), code(caller.events().subscribe(session, None).await));
        after
    };
    let (nowhere, sparc) = (Uuid::new_v4(), &world.sparc);
    assert_eq!(outcome(sparc.as_user(stranger), game.session).await, "not_allowed");
    assert_eq!(outcome(sparc.as_user(game.seer.uuid()), nowhere).await, "not_allowed");
    assert_eq!(outcome(sparc.as_user(closed), game.session).await, "account_closed");
    assert_eq!(outcome(sparc.as_anon(), game.session).await, "not_signed_in");
    assert_eq!(outcome(sparc.as_service(), nowhere).await, "not_found");
    for caller in [sparc.as_service(), sparc.as_user(game.seer.uuid()), sparc.as_user(game.players[0].id)] {
        assert_eq!(outcome(caller, game.session).await, "done");
    }
}

#[tokio::test]
async fn losing_access_ends_a_stream_with_an_error_and_leaves_the_others() {
    let world = World::new().await;
    let game = world.new_active_session(3).await;
    let sparc = new_handle(&world).await;
    let [closing, unseated, staying] = [0, 1, 2].map(|place| sparc.as_user(game.players[place].id));
    let subscribe = async |caller: &sparc::service::IdentityConnection| {
        caller.events().subscribe(game.session, None).await.unwrap()
    };
    let (mut closed, mut gone) = (subscribe(&closing).await, subscribe(&unseated).await);
    let (mut stays, mut service) = (subscribe(&staying).await, subscribe(&sparc.as_service()).await);

    sparc.as_service().users().close_account(game.players[0].id).await.unwrap();
    assert_eq!(end(&mut closed).await, "account_closed");
    assert_eq!(code(closing.events().subscribe(game.session, None).await), "account_closed");

    let sql = format!("DELETE FROM session_players WHERE user_id = '{}'", game.players[1].id);
    world.owner().exec(&sql).await.unwrap();
    assert_eq!(end(&mut gone).await, "not_allowed");

    write(&game.players[2].person, game.session, 1).await;
    let newest = *numbers(&world, game.session).await.last().unwrap();
    up_to(&mut stays, newest).await;
    up_to(&mut service, newest).await;

    world.set(&game, "status = 'cancelled'").await;
    let sql = format!("DELETE FROM sessions WHERE id = '{}'", game.session);
    world.owner().exec(&sql).await.unwrap();
    assert_eq!(end(&mut stays).await, "not_found");
    assert_eq!(end(&mut service).await, "not_found");
}

#[tokio::test]
async fn events_after_the_closing_of_an_account_are_not_delivered_to_it() {
    let world = World::new().await;
    let sparc = new_handle(&world).await;
    for _ in 0..3 {
        let game = world.new_active_session(2).await;
        let mut closed = sparc.as_user(game.players[0].id).events().subscribe(game.session, None).await.unwrap();
        let mut others = sparc.as_service().events().subscribe(game.session, None).await.unwrap();
        world.sparc.as_service().users().close_account(game.players[0].id).await.unwrap();
        let last = *numbers(&world, game.session).await.last().unwrap();
        write(&game.players[1].person, game.session, 1).await;
        while let Some(Ok(event)) = tokio::time::timeout(BOUND, closed.next()).await.expect("the stream does not end") {
            assert!(event.seq <= last, "an event from after the closing was delivered");
        }
        up_to(&mut others, *numbers(&world, game.session).await.last().unwrap()).await;
    }
}

#[tokio::test]
async fn participation_returns_the_callers_part_in_a_session() {
    let world = World::new().await;
    let game = world.new_session(3).await;
    let [player, left, removed] = [0, 1, 2].map(|place| &game.players[place]);
    world.set(&game, "is_public = true").await;
    let of = async |id| world.sparc.as_user(id).sessions().participation(game.session).await.unwrap();
    let leave = "UPDATE session_players SET is_active = false WHERE user_id =";
    world.owner().exec(&format!("{leave} '{}'", left.id)).await.unwrap();
    let seer = world.sparc.as_user(game.seer.uuid());
    seer.sessions().remove(game.session, removed.id).await.unwrap();
    assert_eq!(of(game.seer.uuid()).await, Participation::Seer);
    assert_eq!(of(player.id).await, Participation::Player);
    assert_eq!(of(left.id).await, Participation::Left);
    assert_eq!(of(removed.id).await, Participation::Removed);
    assert_eq!(
        of(world.new_account().await).await,
        Participation::None,
        "seeing a session does not make the caller a participant"
    );
    let nowhere = seer.sessions().participation(Uuid::new_v4()).await.unwrap();
    assert_eq!(nowhere, Participation::None);
    assert!(!nowhere.is_participant() && !of(removed.id).await.is_participant() && of(left.id).await.is_participant());
    assert_eq!(json!(of(left.id).await), json!("left"));
    let outcome = world.sparc.as_anon().sessions().participation(game.session).await;
    assert_eq!(outcome.unwrap_err().code(), "not_signed_in");
}
