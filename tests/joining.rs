//! Joining a session, leaving it and rejoining it. A *seat* is the place of a player in a session: a row of
//! `session_players`.

use sea_orm::ConnectionTrait;
use sparc::service::{Error, Operations};

use crate::{
    sqlstates::{SESSION_FULL, SESSION_OVER, SESSION_STARTED},
    world::{World, insert_seat_sql, run_together},
};

#[tokio::test]
async fn the_last_two_seats_go_to_two_of_sixteen_players() {
    let world = World::new().await;
    let mut players = Vec::new();
    for _ in 0..16 {
        players.push(world.new_player().await);
    }
    for _ in 0..100 {
        // An account may hold at most twenty seats in live sessions, so the session of the previous round is cancelled.
        world.owner().execute("UPDATE sessions SET status = 'cancelled' WHERE status = 'waiting'").await.unwrap();
        let game = world.new_session(2).await;
        world.update_session(&game, "is_public = true").await;
        let tasks = players
            .iter()
            .map(|player| {
                let (caller, take_seat) =
                    (player.caller.clone(), insert_seat_sql(game.session_id, player.user_id, player.character_id));
                async move { caller.execute(&take_seat).await }
            })
            .collect();
        let outcomes = run_together(tasks).await;
        let refusals: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert_eq!(refusals.len(), 14, "all but two players must be refused");
        assert!(
            refusals
                .iter()
                .all(|error| error.has(SESSION_FULL, "session_capacity") && error.message == "Session is full"),
            "{refusals:?}"
        );
        let active_seats = format!("session_players WHERE session_id = '{}' AND is_active", game.session_id);
        assert_eq!(world.owner().count(&active_seats).await, 4);
        let select_seats_taken = format!("SELECT seats_taken FROM sessions WHERE id = '{}'", game.session_id);
        assert_eq!(
            world.owner().fetch_value::<i32>(&select_seats_taken).await.unwrap(),
            4,
            "the counter must equal the number of active seats"
        );
    }
}

#[tokio::test]
async fn a_player_who_left_cannot_rejoin_a_full_session() {
    let world = World::new().await;
    let game = world.new_session(4).await;
    world.update_session(&game, "is_public = true").await;
    let player = &game.players[0];
    let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", player.user_id);
    let rejoin = format!("UPDATE session_players SET is_active = true WHERE user_id = '{}'", player.user_id);
    assert_eq!(player.caller.execute(&leave).await, Ok(1));
    let newcomer = world.new_player().await;
    newcomer.caller.execute(&insert_seat_sql(game.session_id, newcomer.user_id, newcomer.character_id)).await.unwrap();
    assert_refused!(player.caller.execute(&rejoin).await, SESSION_FULL, "session_capacity");
}

#[tokio::test]
async fn a_player_can_leave_and_rejoin_an_active_session() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let player = &game.players[0];
    let set_is_active_sql =
        |is_active| format!("UPDATE session_players SET is_active = {is_active} WHERE user_id = '{}'", player.user_id);
    player.caller.execute(&set_is_active_sql(false)).await.unwrap();
    let seat_with_left_at = format!("session_players WHERE user_id = '{}' AND left_at IS NOT NULL", player.user_id);
    assert_eq!(world.owner().count(&seat_with_left_at).await, 1, "leaving must set left_at");
    assert_eq!(player.caller.execute(&set_is_active_sql(true)).await, Ok(1));
    assert_eq!(world.owner().count(&seat_with_left_at).await, 0, "rejoining must clear left_at");
}

#[tokio::test]
async fn completed_and_cancelled_sessions_accept_no_player() {
    let world = World::new().await;
    for status in ["completed", "cancelled"] {
        let game = world.new_active_session(1).await;
        let player = &game.players[0];
        let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", player.user_id);
        player.caller.execute(&leave).await.unwrap();
        world.update_session(&game, &format!("status = '{status}'")).await;
        let rejoin = format!("UPDATE session_players SET is_active = true WHERE user_id = '{}'", player.user_id);
        assert_refused!(player.caller.execute(&rejoin).await, SESSION_OVER, "session_not_ended");
        let newcomer = world.new_player().await;
        assert_refused!(
            game.seer.execute(&insert_seat_sql(game.session_id, newcomer.user_id, newcomer.character_id)).await,
            forbidden,
            "no user may seat another user"
        );
        let select_code = format!("SELECT code::text FROM sessions WHERE id = '{}'", game.session_id);
        let code: String = world.owner().fetch_value(&select_code).await.unwrap();
        let join = format!("SELECT user_id FROM private.join_by_code('{code}', '{}')", newcomer.character_id);
        assert_refused!(newcomer.caller.fetch_value::<uuid::Uuid>(&join).await, SESSION_OVER, "session_not_ended");
        let take_seat = insert_seat_sql(game.session_id, newcomer.user_id, newcomer.character_id);
        assert_refused!(world.service().execute(&take_seat).await, SESSION_OVER, "session_not_ended");
    }
}

#[tokio::test]
async fn a_private_session_cannot_be_joined_without_its_code() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let player = world.new_player().await;
    assert_refused!(
        player.caller.execute(&insert_seat_sql(game.session_id, player.user_id, player.character_id)).await,
        forbidden
    );
}

#[tokio::test]
async fn a_stranger_cannot_join_a_public_session_that_has_started() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.update_session(&game, "is_public = true").await;
    let stranger = world.new_player().await;
    assert_refused!(
        stranger.caller.execute(&insert_seat_sql(game.session_id, stranger.user_id, stranger.character_id)).await,
        forbidden
    );
}

#[tokio::test]
async fn rejoining_concurrently_with_two_characters_takes_one_seat() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let other_character_id = world.new_character(player.user_id).await;
    // A session needs a seated player to become active, and the first player leaves before that.
    let other_player = world.new_player().await;
    world
        .owner()
        .execute(&insert_seat_sql(game.session_id, other_player.user_id, other_player.character_id))
        .await
        .unwrap();
    let where_own_seat = format!("WHERE session_id = '{}' AND user_id = '{}'", game.session_id, player.user_id);
    player.caller.execute(&format!("UPDATE session_players SET is_active = false {where_own_seat}")).await.unwrap();
    world.update_session(&game, "status = 'active'").await;
    let rejoin_transaction = player.caller.begin().await;
    let rejoin = format!("UPDATE session_players SET is_active = true {where_own_seat}");
    rejoin_transaction.execute_unprepared(&rejoin).await.unwrap();
    let select_code = format!("SELECT code::text FROM sessions WHERE id = '{}'", game.session_id);
    let code: String = world.owner().fetch_value(&select_code).await.unwrap();
    let caller = player.caller.clone();
    let join = format!("SELECT character_id FROM private.join_by_code('{code}', '{other_character_id}')");
    let join_task = tokio::spawn(async move { caller.fetch_value::<uuid::Uuid>(&join).await });
    // Both statements lock the player's row in `private.account_gates` first. So `join_by_code` waits for the rejoin.
    // Then it finds that the player holds the seat with the first character. Since the session has started, the player
    // cannot change to another character.
    world.owner().wait_until_backends_wait_for_locks(1).await;
    rejoin_transaction.commit().await.unwrap();
    assert_refused!(join_task.await.unwrap(), SESSION_STARTED, "session_not_started");
    assert_eq!(
        world
            .owner()
            .count(&format!("session_players WHERE character_id = '{}' AND is_active", player.character_id))
            .await,
        1,
        "the seat must keep the character with which the player rejoined"
    );
    let active_seats = format!("session_players WHERE session_id = '{}' AND is_active", game.session_id);
    assert_eq!(world.owner().count(&active_seats).await, 2, "each player must have one seat");
    let select_seats_taken = format!("SELECT seats_taken FROM sessions WHERE id = '{}'", game.session_id);
    assert_eq!(world.owner().fetch_value::<i32>(&select_seats_taken).await, Ok(2));
}

#[tokio::test]
async fn joining_by_code_takes_one_seat_and_lets_a_player_rejoin() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let join_code = world.join_code(game.session_id).await;
    let player = world.new_player().await;
    let me = world.sparc.as_user(player.user_id);
    let seat = me.sessions().join(&join_code, player.character_id).await.unwrap();
    assert!(seat.is_active && seat.session_id == game.session_id);
    let repeated_join = me.sessions().join(&join_code, player.character_id).await.unwrap();
    assert_eq!(repeated_join, seat, "a repeated join must return the same seat");
    let select_seats_taken = format!("SELECT seats_taken FROM sessions WHERE id = '{}'", game.session_id);
    assert_eq!(world.owner().fetch_value::<i32>(&select_seats_taken).await, Ok(1), "a repeated join must take no seat");
    me.sessions().leave(game.session_id).await.unwrap();
    // A session needs a seated player to become active.
    let other_player = world.new_player().await;
    let take_seat = insert_seat_sql(game.session_id, other_player.user_id, other_player.character_id);
    world.owner().execute(&take_seat).await.unwrap();
    world.update_session(&game, "status = 'active'").await;
    assert!(
        me.sessions().join(&join_code, player.character_id).await.unwrap().is_active,
        "a player who left may rejoin after the start"
    );
    let latecomer = world.new_player().await;
    let outcome = world.sparc.as_user(latecomer.user_id).sessions().join(&join_code, latecomer.character_id).await;
    assert_error!(outcome, Error::SessionStarted);
    world.update_session(&game, "status = 'completed'").await;
    let outcome = world.sparc.as_user(latecomer.user_id).sessions().join(&join_code, latecomer.character_id).await;
    assert_error!(outcome, Error::SessionOver);
    let outcome = me.sessions().join(&"ZZZZZZ".parse().unwrap(), player.character_id).await;
    assert_error!(outcome, Error::UnknownJoinCode);
    let outcome = world.sparc.as_anon().sessions().join(&join_code, player.character_id).await;
    assert_error!(outcome, Error::NotSignedIn);
}
