//! Who may subscribe to a session's events, how a stream ends when its caller loses access, and the caller's part in
//! the session (`participation`), on which access depends.

use futures_util::StreamExt;
use serde_json::json;
use sparc::service::{Operations, sessions::Participation};
use uuid::Uuid;

use super::{
    DELIVERY_TIMEOUT, callers_with_access, connect_sparc, event_seqs, next_event, read_to_error, read_until,
    subscribe_outcome_code, write_events,
};
use crate::world::{World, insert_seat_sql};

#[tokio::test]
async fn only_participants_and_the_service_may_subscribe() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    // Everybody sees a public session, but not its events.
    world.update_session(&game, "is_public = true").await;
    let (sparc, stranger) = (connect_sparc(&world).await, world.new_account().await);
    let missing_session = Uuid::new_v4();
    for after in [None, Some(0), Some(1)] {
        let subscribe = async |caller: sparc::service::IdentityConnection, session| {
            subscribe_outcome_code(caller.events().subscribe(session, after).await)
        };
        assert_eq!(subscribe(sparc.as_user(stranger), game.session_id).await, "not_allowed");
        assert_eq!(subscribe(sparc.as_user(stranger), missing_session).await, "not_allowed");
        assert_eq!(subscribe(sparc.as_user(Uuid::new_v4()), game.session_id).await, "unknown_account");
        assert_eq!(subscribe(sparc.as_anon(), game.session_id).await, "not_signed_in");
        assert_eq!(subscribe(sparc.as_service(), missing_session).await, "not_found");
    }
    for caller in callers_with_access(&sparc, &game) {
        assert_eq!(subscribe_outcome_code(caller.events().subscribe(game.session_id, Some(0)).await), "subscribed");
    }
    let mut former_players_stream =
        sparc.as_user(game.players[0].user_id).events().subscribe(game.session_id, None).await.unwrap();
    game.players[0].caller.execute("UPDATE session_players SET is_active = false").await.unwrap();
    assert_eq!(
        next_event(&mut former_players_stream).await.event_type,
        "player_left",
        "a player who left may still read the session's events, as row security allows"
    );
}

#[tokio::test]
async fn subscribing_and_reading_are_refused_in_the_same_way() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    world.update_session(&game, "is_public = true").await;
    let [stranger, closed_account] = [world.new_account().await, game.players[1].user_id];
    world.sparc.as_service().users().close_account(closed_account).await.unwrap();
    // Reads and subscribes as the caller, asserts that the outcome is the same, and returns its code.
    let read_and_subscribe_outcome = async |caller: sparc::service::IdentityConnection, session| {
        let after_code = caller.events().after(session, 0).await.map_or_else(|error| error.code(), |_| "done");
        let newest_code = caller.events().newest_seq(session).await.map_or_else(|error| error.code(), |_| "done");
        assert_eq!(after_code, newest_code);
        let subscribed_code = subscribe_outcome_code(caller.events().subscribe(session, None).await);
        assert_eq!(after_code.replace("done", "subscribed"), subscribed_code);
        after_code
    };
    let (missing_session, sparc) = (Uuid::new_v4(), &world.sparc);
    assert_eq!(read_and_subscribe_outcome(sparc.as_user(stranger), game.session_id).await, "not_allowed");
    assert_eq!(read_and_subscribe_outcome(sparc.as_user(game.seer.user_id()), missing_session).await, "not_allowed");
    assert_eq!(read_and_subscribe_outcome(sparc.as_user(closed_account), game.session_id).await, "account_closed");
    assert_eq!(read_and_subscribe_outcome(sparc.as_anon(), game.session_id).await, "not_signed_in");
    assert_eq!(read_and_subscribe_outcome(sparc.as_service(), missing_session).await, "not_found");
    for caller in [sparc.as_service(), sparc.as_user(game.seer.user_id()), sparc.as_user(game.players[0].user_id)] {
        assert_eq!(read_and_subscribe_outcome(caller, game.session_id).await, "done");
    }
}

#[tokio::test]
async fn losing_access_ends_a_stream_with_an_error_but_not_the_streams_of_others() {
    let world = World::new().await;
    let game = world.new_active_session(3).await;
    let sparc = connect_sparc(&world).await;
    let [caller_with_account_to_close, caller_to_unseat, remaining_caller] =
        [0, 1, 2].map(|index| sparc.as_user(game.players[index].user_id));
    let subscribe = async |caller: &sparc::service::IdentityConnection| {
        caller.events().subscribe(game.session_id, None).await.unwrap()
    };
    let (mut closed_account_stream, mut unseated_stream) =
        (subscribe(&caller_with_account_to_close).await, subscribe(&caller_to_unseat).await);
    let (mut remaining_stream, mut service_stream) =
        (subscribe(&remaining_caller).await, subscribe(&sparc.as_service()).await);

    sparc.as_service().users().close_account(game.players[0].user_id).await.unwrap();
    assert_eq!(read_to_error(&mut closed_account_stream).await, "account_closed");
    assert_eq!(
        subscribe_outcome_code(caller_with_account_to_close.events().subscribe(game.session_id, None).await),
        "account_closed"
    );

    let sql = format!("DELETE FROM session_players WHERE user_id = '{}'", game.players[1].user_id);
    world.owner().execute(&sql).await.unwrap();
    assert_eq!(read_to_error(&mut unseated_stream).await, "not_allowed");

    write_events(&game.players[2].caller, game.session_id, 1).await;
    let newest_seq = *event_seqs(&world, game.session_id).await.last().unwrap();
    read_until(&mut remaining_stream, newest_seq).await;
    read_until(&mut service_stream, newest_seq).await;

    world.update_session(&game, "status = 'cancelled'").await;
    let sql = format!("DELETE FROM sessions WHERE id = '{}'", game.session_id);
    world.owner().execute(&sql).await.unwrap();
    // A stranger would get `not_allowed`, which does not tell whether a session exists. Subscribers know that it did.
    assert_eq!(read_to_error(&mut remaining_stream).await, "not_found");
    assert_eq!(read_to_error(&mut service_stream).await, "not_found");
}

/// A stream that has unread events does not wait for the poller: the stream reads them from the database. So it can
/// find out that its caller has lost access before the poller does.
#[tokio::test]
async fn a_stream_with_unread_events_ends_with_the_same_error_as_a_stream_that_waits() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let sparc = connect_sparc(&world).await;
    let subscribe_after_first_event = async |user_id| {
        let first_seq = event_seqs(&world, game.session_id).await[0];
        sparc.as_user(user_id).events().subscribe(game.session_id, Some(first_seq)).await.unwrap()
    };
    let mut unseated_stream = subscribe_after_first_event(game.players[0].user_id).await;
    let sql = format!("DELETE FROM session_players WHERE user_id = '{}'", game.players[0].user_id);
    world.owner().execute(&sql).await.unwrap();
    assert_eq!(read_to_error(&mut unseated_stream).await, "not_allowed");

    let mut streams = [
        subscribe_after_first_event(game.players[1].user_id).await,
        subscribe_after_first_event(game.seer.user_id()).await,
    ];
    world.update_session(&game, "status = 'cancelled'").await;
    let sql = format!("DELETE FROM sessions WHERE id = '{}'", game.session_id);
    world.owner().execute(&sql).await.unwrap();
    for stream in &mut streams {
        assert_eq!(read_to_error(stream).await, "not_found");
    }
}

/// The poller, which checks whether the subscribers still have access, uses the nil id for the service, which has no
/// account.
#[tokio::test]
async fn an_account_with_the_nil_id_is_not_taken_for_the_service() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (sparc, nil_id) = (connect_sparc(&world).await, Uuid::nil());
    world.owner().execute(&format!("INSERT INTO auth.users (id) VALUES ('{nil_id}')")).await.unwrap();
    let character_id = world.new_character(nil_id).await;
    world.owner().execute(&insert_seat_sql(game.session_id, nil_id, character_id)).await.unwrap();
    let mut nil_stream = sparc.as_user(nil_id).events().subscribe(game.session_id, None).await.unwrap();
    let mut service_stream = sparc.as_service().events().subscribe(game.session_id, None).await.unwrap();
    let seer = sparc.as_user(game.seer.user_id());
    seer.sessions().remove_player(game.session_id, nil_id).await.unwrap();
    assert_eq!(read_to_error(&mut nil_stream).await, "not_allowed");
    write_events(&game.seer, game.session_id, 1).await;
    read_until(&mut service_stream, *event_seqs(&world, game.session_id).await.last().unwrap()).await;
}

#[tokio::test]
async fn events_after_the_closing_of_an_account_are_not_delivered_to_it() {
    let world = World::new().await;
    let sparc = connect_sparc(&world).await;
    // It is a matter of chance how many events the poller (the task that reads new events for all streams) has read
    // when the account is closed, so there are three attempts.
    for _ in 0..3 {
        let game = world.new_active_session(2).await;
        let mut closed_account_stream =
            sparc.as_user(game.players[0].user_id).events().subscribe(game.session_id, None).await.unwrap();
        let mut service_stream = sparc.as_service().events().subscribe(game.session_id, None).await.unwrap();
        world.sparc.as_service().users().close_account(game.players[0].user_id).await.unwrap();
        let newest_seq_at_closing = *event_seqs(&world, game.session_id).await.last().unwrap();
        write_events(&game.players[1].caller, game.session_id, 1).await;
        while let Some(Ok(event)) =
            tokio::time::timeout(DELIVERY_TIMEOUT, closed_account_stream.next()).await.expect("the stream must end")
        {
            assert!(event.seq <= newest_seq_at_closing, "an event that was written after the closing was delivered");
        }
        read_until(&mut service_stream, *event_seqs(&world, game.session_id).await.last().unwrap()).await;
    }
}

#[tokio::test]
async fn participation_returns_the_callers_part_in_a_session() {
    let world = World::new().await;
    let game = world.new_session(3).await;
    let [player, former_player, removed_player] = [0, 1, 2].map(|index| &game.players[index]);
    world.update_session(&game, "is_public = true").await;
    let participation = async |id| world.sparc.as_user(id).sessions().participation(game.session_id).await.unwrap();
    let leave = "UPDATE session_players SET is_active = false WHERE user_id =";
    world.owner().execute(&format!("{leave} '{}'", former_player.user_id)).await.unwrap();
    let seer = world.sparc.as_user(game.seer.user_id());
    seer.sessions().remove_player(game.session_id, removed_player.user_id).await.unwrap();
    assert_eq!(participation(game.seer.user_id()).await, Participation::Seer);
    assert_eq!(participation(player.user_id).await, Participation::Player);
    assert_eq!(participation(former_player.user_id).await, Participation::Left);
    assert_eq!(participation(removed_player.user_id).await, Participation::Removed);
    assert_eq!(
        participation(world.new_account().await).await,
        Participation::None,
        "seeing a session does not make the caller a participant"
    );
    let in_missing_session = seer.sessions().participation(Uuid::new_v4()).await.unwrap();
    assert_eq!(in_missing_session, Participation::None);
    assert!(!in_missing_session.may_read_events());
    assert!(!participation(removed_player.user_id).await.may_read_events());
    // A player who left may still read the session's events.
    assert!(participation(former_player.user_id).await.may_read_events());
    assert_eq!(json!(participation(former_player.user_id).await), json!("left"));
    let outcome = world.sparc.as_anon().sessions().participation(game.session_id).await;
    assert_eq!(outcome.unwrap_err().code(), "not_signed_in");
}
