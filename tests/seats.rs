//! Seats: who may take, leave and change one, how many a session may have, and who sees them. A *seat* is a row of
//! `session_players`: the place of a player in a session. A *live* session is one that has not ended.

use sea_orm::ConnectionTrait;
use sparc::service::{Error, Operations};

use crate::{
    sqlstates::{
        CHARACTER_NOT_YOURS, CHECK_VIOLATION, NOT_YOUR_CHOICE, PLAYER_REMOVED, SESSION_FULL, SESSION_OVER,
        SESSION_STARTED,
    },
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
async fn a_seat_must_have_a_character_of_its_player() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.update_session(&game, "is_public = true").await;
    let (player, other_player) = (world.new_player().await, world.new_player().await);
    let take_seat = insert_seat_sql(game.session_id, player.user_id, other_player.character_id);
    assert_refused!(player.caller.execute(&take_seat).await, CHARACTER_NOT_YOURS, "own_character");
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
async fn a_stranger_seats_no_other_user_and_no_user_inserts_an_inactive_seat() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.update_session(&game, "is_public = true").await;
    let (stranger, player) = (world.new_user().await, world.new_player().await);
    assert_refused!(
        stranger.execute(&insert_seat_sql(game.session_id, player.user_id, player.character_id)).await,
        forbidden
    );
    let insert_inactive_seat = format!(
        "INSERT INTO session_players (session_id, user_id, character_id, is_active) VALUES ('{}', '{}', '{}', false)",
        game.session_id, player.user_id, player.character_id
    );
    assert_refused!(
        player.caller.execute(&insert_inactive_seat).await,
        forbidden,
        "with an inactive seat, a user who never joined would count as a player who left"
    );
}

#[tokio::test]
async fn the_seer_removes_and_readmits_players_but_seats_nobody() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let stranger = world.new_player().await;
    assert_refused!(
        game.seer.execute(&insert_seat_sql(game.session_id, stranger.user_id, stranger.character_id)).await,
        forbidden
    );
    let [player, other_player] = &game.players[..] else { panic!("two players are seated") };
    let update_seat_sql =
        |assignments: &str| format!("UPDATE session_players SET {assignments} WHERE user_id = '{}'", player.user_id);
    assert_eq!(
        other_player.caller.execute(&update_seat_sql("is_active = false")).await,
        Ok(0),
        "a player must not be able to remove another"
    );
    // If the Seer makes a seat inactive, its player is removed.
    assert_eq!(game.seer.execute(&update_seat_sql("is_active = false")).await, Ok(1));
    for assignments in ["is_active = true", "removed_at = NULL", "removed_at = NULL, is_active = true"] {
        assert_refused!(
            player.caller.execute(&update_seat_sql(assignments)).await,
            PLAYER_REMOVED,
            "player_removed",
            "{assignments}"
        );
    }
    let select_code = format!("SELECT code::text FROM sessions WHERE id = '{}'", game.session_id);
    let code: String = world.owner().fetch_value(&select_code).await.unwrap();
    let join = format!("SELECT user_id FROM private.join_by_code('{code}', '{}')", player.character_id);
    assert_refused!(player.caller.fetch_value::<uuid::Uuid>(&join).await, PLAYER_REMOVED, "player_removed");
    assert_refused!(game.seer.execute(&update_seat_sql("is_active = true")).await, NOT_YOUR_CHOICE, "own_choice");
    // Clearing `removed_at` readmits the player.
    assert_eq!(game.seer.execute(&update_seat_sql("removed_at = NULL")).await, Ok(1));
    assert_refused!(
        game.seer.execute(&update_seat_sql("is_active = true")).await,
        NOT_YOUR_CHOICE,
        "own_choice",
        "the Seer may readmit a player, but not seat them"
    );
    assert_eq!(player.caller.execute(&update_seat_sql("is_active = true")).await, Ok(1));
}

#[tokio::test]
async fn a_player_who_already_left_can_be_removed() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let update_seat_sql =
        |assignments: &str| format!("UPDATE session_players SET {assignments} WHERE user_id = '{}'", player.user_id);
    assert_eq!(player.caller.execute(&update_seat_sql("is_active = false")).await, Ok(1));
    let removed_seats = "session_players WHERE removed_at IS NOT NULL";
    assert_eq!(world.owner().count(removed_seats).await, 0, "leaving must not count as a removal");
    assert_eq!(game.seer.execute(&update_seat_sql("removed_at = '2000-01-01'")).await, Ok(1));
    assert_eq!(
        world.owner().count("session_players WHERE removed_at > '2000-01-01'").await,
        1,
        "the database must set removed_at itself"
    );
    assert_refused!(
        player.caller.execute(&update_seat_sql("is_active = true")).await,
        PLAYER_REMOVED,
        "player_removed"
    );
}

#[tokio::test]
async fn a_player_who_removes_themselves_can_rejoin() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let me = world.sparc.as_user(player.user_id);
    let seat = me.sessions().remove_player(game.session_id, player.user_id).await.unwrap();
    assert!(!seat.is_active && seat.left_at.is_some());
    assert_eq!(seat.removed_at, None);
    assert!(me.sessions().rejoin(game.session_id, player.character_id).await.unwrap().is_active);
}

#[tokio::test]
async fn only_the_player_chooses_their_character_and_only_before_the_start() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let other_character_id = world.new_character(player.user_id).await;
    let set_character_id_sql = |character_id| {
        format!("UPDATE session_players SET character_id = '{character_id}' WHERE user_id = '{}'", player.user_id)
    };
    assert_refused!(game.seer.execute(&set_character_id_sql(other_character_id)).await, NOT_YOUR_CHOICE, "own_choice");
    assert_eq!(player.caller.execute(&set_character_id_sql(other_character_id)).await, Ok(1));
    world.update_session(&game, "status = 'active'").await;
    assert_refused!(
        player.caller.execute(&set_character_id_sql(player.character_id)).await,
        SESSION_STARTED,
        "session_not_started"
    );
}

#[tokio::test]
async fn max_players_cannot_fall_below_the_seats_taken() {
    let world = World::new().await;
    let game = world.new_session(3).await;
    let set_max_players_sql =
        |max_players| format!("UPDATE sessions SET max_players = {max_players} WHERE id = '{}'", game.session_id);
    assert_refused!(game.seer.execute(&set_max_players_sql(2)).await, CHECK_VIOLATION, "seats_within_limit");
    assert_eq!(game.seer.execute(&set_max_players_sql(3)).await, Ok(1));
}

#[tokio::test]
async fn a_signed_in_user_who_sees_a_session_sees_its_seats() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let seats = format!("session_players WHERE session_id = '{}'", game.session_id);
    let stranger = world.new_user().await;
    assert_eq!(stranger.count(&seats).await, 0, "a private session");
    assert_eq!(game.players[0].caller.count(&seats).await, 2);
    assert_eq!(game.seer.count(&seats).await, 2);
    world.update_session(&game, "is_public = true").await;
    assert_eq!(stranger.count(&seats).await, 2, "a public session");
    assert_refused!(world.visitor().fetch_values::<i64>(&format!("SELECT count(*) FROM {seats}")).await, forbidden);
}

#[tokio::test]
async fn no_user_deletes_a_seat_or_writes_its_heroic_saves_joined_at_or_left_at() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    for caller in [&game.players[0].caller, &game.seer] {
        for assignment in
            ["heroic_saves_used = 0", "joined_at = now()", "left_at = now()", "heroic_saves_encounter = 9"]
        {
            let sql = format!("UPDATE session_players SET {assignment}");
            assert_refused!(caller.execute(&sql).await, forbidden, "{assignment}");
        }
        assert_refused!(caller.execute("DELETE FROM session_players").await, forbidden);
    }
}

#[tokio::test]
async fn an_insert_of_a_seat_can_return_the_row() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.update_session(&game, "is_public = true").await;
    let player = world.new_player().await;
    let sql = format!("{} RETURNING user_id", insert_seat_sql(game.session_id, player.user_id, player.character_id));
    assert_eq!(player.caller.fetch_value::<uuid::Uuid>(&sql).await.unwrap(), player.user_id);
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
    // Then it finds that the player has rejoined with the first character, which can no longer be changed.
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
async fn even_an_inactive_seat_must_have_a_character_of_its_player() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let (player, other_player) = (&game.players[0], world.new_player().await);
    let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", player.user_id);
    player.caller.execute(&leave).await.unwrap();
    let change_character = format!(
        "UPDATE session_players SET character_id = '{}' WHERE user_id = '{}'",
        other_player.character_id, player.user_id
    );
    let insert_inactive_seat = format!(
        "INSERT INTO session_players (session_id, user_id, character_id, is_active)
         VALUES ('{}', '{}', '{}', false)",
        game.session_id, other_player.user_id, player.character_id
    );
    for (caller, sql) in [
        (&player.caller, &change_character),
        (&world.service(), &change_character),
        (&world.owner(), &change_character),
        (&world.service(), &insert_inactive_seat),
        (&world.owner(), &insert_inactive_seat),
    ] {
        assert_refused!(caller.execute(sql).await, CHARACTER_NOT_YOURS, "own_character", "{sql}");
    }
}

#[tokio::test]
async fn joining_by_code_takes_one_seat_and_lets_a_player_rejoin() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let join_code = world.join_code(game.session_id).await;
    let player = world.new_player().await;
    let me = world.sparc.as_user(player.user_id);
    for _ in 0..2 {
        let seat = me.sessions().join(&join_code, player.character_id).await.unwrap();
        assert!(seat.is_active && seat.session_id == game.session_id, "a repeated join must return the same seat");
    }
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
