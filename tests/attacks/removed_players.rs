//! A player whom the Seer removed cannot rejoin until the Seer readmits them.

use super::{
    assert_invariants, attempt, execute_and_commit,
    seats::{join_code, update_seat_sql},
    sqlstates::{
        INSUFFICIENT_PRIVILEGE, NOT_YOUR_CHOICE, PLAYER_REMOVED, SERIALIZATION_FAILURE, SESSION_STARTED,
        UNIQUE_VIOLATION,
    },
};
use crate::world::{World, insert_seat_sql};

#[tokio::test]
async fn a_removed_player_cannot_rejoin_until_the_seer_readmits_them() {
    let world = World::new().await;
    for status in ["waiting", "active", "paused"] {
        let game = world.new_session(2).await;
        world.update_session(&game, "is_public = true").await;
        let steps: &[&str] = match status {
            "waiting" => &[],
            "paused" => &["active", "paused"],
            _ => &[status],
        };
        for step in steps {
            world.update_session(&game, &format!("status = '{step}'")).await;
        }
        let player = &game.players[0];
        let other_character = world.new_character(player.user_id).await;
        let join_code = join_code(&world, game.session_id).await;
        let transaction_with_old_snapshot = player.caller.begin_with_snapshot().await;
        assert_eq!(
            attempt(&game.seer, &update_seat_sql(game.session_id, player.user_id, "is_active = false")).await,
            "done"
        );
        let update_seat = |set: &str| update_seat_sql(game.session_id, player.user_id, set);
        for sql in [
            update_seat("is_active = true"),
            update_seat("is_active = NOT is_active"),
            update_seat(&format!("is_active = true, character_id = '{other_character}'")),
            format!("SELECT * FROM private.join_by_code('{join_code}', '{}')", player.character_id),
            format!("SELECT * FROM private.join_by_code('{join_code}', '{other_character}')"),
        ] {
            assert_eq!(attempt(&player.caller, &sql).await, PLAYER_REMOVED, "{status}: {sql}");
        }
        for (sql, possible_sqlstates) in [
            (update_seat("removed_at = NULL"), &[PLAYER_REMOVED, INSUFFICIENT_PRIVILEGE, NOT_YOUR_CHOICE][..]),
            (
                update_seat("removed_at = NULL, is_active = true"),
                &[PLAYER_REMOVED, INSUFFICIENT_PRIVILEGE, NOT_YOUR_CHOICE],
            ),
            (
                format!(
                    "DELETE FROM session_players WHERE session_id = '{}' AND user_id = '{}'",
                    game.session_id, player.user_id
                ),
                &[INSUFFICIENT_PRIVILEGE],
            ),
            (
                insert_seat_sql(game.session_id, player.user_id, player.character_id),
                &[UNIQUE_VIOLATION, INSUFFICIENT_PRIVILEGE, PLAYER_REMOVED, SESSION_STARTED],
            ),
            (
                format!(
                    "{} ON CONFLICT (session_id, user_id) DO UPDATE SET is_active = true",
                    insert_seat_sql(game.session_id, player.user_id, player.character_id)
                ),
                &[INSUFFICIENT_PRIVILEGE, PLAYER_REMOVED, SESSION_STARTED],
            ),
            // An update of the existing seat by MERGE.
            (
                format!(
                    "MERGE INTO session_players AS seat USING (SELECT '{}'::uuid AS id) AS wanted
                     ON seat.session_id = wanted.id AND seat.user_id = '{}'
                     WHEN MATCHED THEN UPDATE SET is_active = true",
                    game.session_id, player.user_id
                ),
                &[PLAYER_REMOVED],
            ),
        ] {
            let outcome = attempt(&player.caller, &sql).await;
            assert!(possible_sqlstates.contains(&outcome.as_str()), "{status}, {outcome}: {sql}");
        }
        // The removal has changed the seat since the snapshot was taken.
        let outcome = execute_and_commit(transaction_with_old_snapshot, &update_seat("is_active = true")).await;
        assert_eq!(outcome, SERIALIZATION_FAILURE, "{status}");
        let active_seat = format!(
            "session_players WHERE session_id = '{}' AND user_id = '{}' AND is_active",
            game.session_id, player.user_id
        );
        assert_eq!(world.owner().count(&active_seat).await, 0, "{status}");
        // Other users cannot clear `removed_at`.
        for caller in [&game.players[1].caller, &world.new_user().await] {
            assert_ne!(attempt(caller, &update_seat("removed_at = NULL")).await, "done");
        }
        // The Seer can. Then the player can rejoin, by an update of the seat or with the join code.
        assert_eq!(attempt(&game.seer, &update_seat("removed_at = NULL")).await, "done");
        let rejoin = if status == "waiting" {
            update_seat("is_active = true")
        } else {
            format!("SELECT * FROM private.join_by_code('{join_code}', '{other_character}')")
        };
        assert_eq!(attempt(&player.caller, &rejoin).await, "done", "{status}");
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_player_who_left_can_rejoin_unless_the_seer_removes_them_afterwards() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let (rejoining_player, removed_player) = (&game.players[0], &game.players[1]);
    for player in [rejoining_player, removed_player] {
        assert_eq!(
            attempt(&player.caller, &update_seat_sql(game.session_id, player.user_id, "is_active = false")).await,
            "done"
        );
    }
    assert_eq!(
        attempt(
            &rejoining_player.caller,
            &update_seat_sql(game.session_id, rejoining_player.user_id, "is_active = true")
        )
        .await,
        "done"
    );
    // The Seer removes a player who has already left.
    let remove = update_seat_sql(game.session_id, removed_player.user_id, "is_active = false");
    assert_eq!(attempt(&game.seer, &remove).await, "done");
    assert_eq!(
        attempt(&removed_player.caller, &update_seat_sql(game.session_id, removed_player.user_id, "is_active = true"))
            .await,
        PLAYER_REMOVED
    );
}

#[tokio::test]
async fn only_the_seer_removes_a_player() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (player, fellow_player) = (&game.players[0], &game.players[1]);
    for set in ["is_active = false", "removed_at = now()"] {
        let remove = update_seat_sql(game.session_id, fellow_player.user_id, set);
        assert_ne!(attempt(&player.caller, &remove).await, "done", "{set}");
        assert_ne!(attempt(&world.new_user().await, &remove).await, "done", "{set}");
    }
    // Instead of a time that the Seer gives, a trigger stores the current time.
    let remove = update_seat_sql(game.session_id, player.user_id, "removed_at = '2000-01-01'");
    assert_eq!(attempt(&game.seer, &remove).await, "done");
    let seats_removed_today = "session_players WHERE removed_at BETWEEN now() - INTERVAL '1 day' AND now()";
    assert_eq!(world.owner().count(seats_removed_today).await, 1);
}
