//! Seats: who may take one for whom, who may change it, and who sees it. (`joining.rs` tests how players join, leave
//! and rejoin.) A *seat* is a row of `session_players`: the place of a player in a session.

use sparc::service::Operations;

use crate::{
    sqlstates::{CHARACTER_NOT_YOURS, CHECK_VIOLATION, NOT_YOUR_CHOICE, PLAYER_REMOVED, SESSION_STARTED},
    world::{World, insert_seat_sql},
};

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
    let game = world.new_session(2).await;
    let stranger = world.new_player().await;
    // This is tried before the start, because after the start no user can take a new seat.
    assert_refused!(
        game.seer.execute(&insert_seat_sql(game.session_id, stranger.user_id, stranger.character_id)).await,
        forbidden
    );
    world.update_session(&game, "status = 'active'").await;
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
async fn no_user_deletes_a_seat_or_writes_its_times_or_its_heroic_saves() {
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
