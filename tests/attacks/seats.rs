//! Only players themselves take seats and choose their characters. Also: a Seer cannot affect a character that has no
//! seat in their session, and nobody takes a seat in a session that has just become private. (`removed_players.rs`
//! tests that a player whom the Seer removed cannot rejoin.)

use uuid::Uuid;

use super::{
    assert_invariants, attempt, close_account, execute_and_commit, execute_in, new_public_session, query_number,
    sqlstates::{CHARACTER_NOT_YOURS, INSUFFICIENT_PRIVILEGE, NOT_YOUR_CHOICE},
};
use crate::world::{GameSession, Player, World, insert_attribute_check_sql, insert_seat_sql};

/// Returns an UPDATE of a player's seat.
pub(super) fn update_seat_sql(session: Uuid, player: Uuid, set: &str) -> String {
    format!("UPDATE session_players SET {set} WHERE session_id = '{session}' AND user_id = '{player}'")
}

pub(super) async fn join_code(world: &World, session: Uuid) -> String {
    world.owner().fetch_value(&format!("SELECT code::text FROM sessions WHERE id = '{session}'")).await.unwrap()
}

/// Creates the session of an attacking Seer, and a victim: a player with a seat in another session. That session is
/// public, so the attacking Seer can read the ids of the victim and of the victim's character there.
async fn create_session_and_victim(world: &World) -> (GameSession, Player) {
    let (game, public_game) = (world.new_session(1).await, world.new_session(0).await);
    let victim = world.new_player().await;
    world.update_session(&public_game, "is_public = true").await;
    assert_eq!(
        attempt(&victim.caller, &insert_seat_sql(public_game.session_id, victim.user_id, victim.character_id)).await,
        "done"
    );
    let victims_seat = format!("session_players WHERE character_id = '{}'", victim.character_id);
    assert_eq!(game.seer.count(&victims_seat).await, 1, "everybody sees the seats of a public session");
    (game, victim)
}

#[tokio::test]
async fn nobody_seats_another_user() {
    let world = World::new().await;
    for is_public in [false, true] {
        let (game, victim) = create_session_and_victim(&world).await;
        let accomplice = &game.players[0];
        world.update_session(&game, &format!("is_public = {is_public}")).await;
        for status in ["waiting", "starting_soon", "active", "paused", "completed"] {
            if status != "waiting" {
                world.update_session(&game, &format!("status = '{status}'")).await;
            }
            for caller in [&game.seer, &accomplice.caller, &world.new_user().await, &world.visitor()] {
                let values = format!("('{}', '{}', '{}')", game.session_id, victim.user_id, victim.character_id);
                let target = "session_players (session_id, user_id, character_id)";
                for sql in [
                    insert_seat_sql(game.session_id, victim.user_id, victim.character_id),
                    format!("INSERT INTO {target} VALUES {values} ON CONFLICT DO NOTHING"),
                    format!(
                        "INSERT INTO {target} VALUES {values}
                         ON CONFLICT (session_id, user_id) DO UPDATE SET character_id = excluded.character_id"
                    ),
                    format!(
                        "INSERT INTO session_players (session_id, user_id, character_id, is_active)
                         VALUES ('{}', '{}', '{}', false)",
                        game.session_id, victim.user_id, victim.character_id
                    ),
                    format!(
                        "MERGE INTO session_players AS seat USING (SELECT '{}'::uuid AS id) AS wanted
                         ON seat.session_id = wanted.id AND seat.user_id = '{}'
                         WHEN NOT MATCHED THEN INSERT (session_id, user_id, character_id) VALUES {values}",
                        game.session_id, victim.user_id
                    ),
                    // Another player's seat, changed into the victim's.
                    update_seat_sql(game.session_id, accomplice.user_id, &format!("user_id = '{}'", victim.user_id)),
                ] {
                    assert_eq!(attempt(caller, &sql).await, INSUFFICIENT_PRIVILEGE, "{status}: {sql}");
                }
                // The victim's character in the accomplice's seat. Which refusal each caller gets does not matter here.
                let choose_victims_character = update_seat_sql(
                    game.session_id,
                    accomplice.user_id,
                    &format!("character_id = '{}'", victim.character_id),
                );
                assert_ne!(
                    attempt(caller, &choose_victims_character).await,
                    "done",
                    "{status}: {choose_victims_character}"
                );
            }
        }
        assert_eq!(
            query_number(&world, &format!("SELECT live_seats FROM users WHERE id = '{}'", victim.user_id)).await,
            1,
            "the victim has only the seat in the public session"
        );
    }
}

#[tokio::test]
async fn a_seer_cannot_affect_a_character_without_a_seat_in_their_session() {
    let world = World::new().await;
    let (game, victim) = create_session_and_victim(&world).await;
    world.update_session(&game, "status = 'active'").await;
    for caller in [&game.seer, &game.players[0].caller] {
        assert_eq!(
            attempt(caller, &insert_attribute_check_sql(game.session_id, victim.character_id)).await,
            INSUFFICIENT_PRIVILEGE
        );
        let wound = format!("SELECT * FROM private.change_hit_points('{}', -9)", victim.character_id);
        assert_eq!(attempt(caller, &wound).await, "no row");
        for set in ["hit_points = 0", "name = 'Mine'", "retired_at = now()"] {
            let sql = format!("UPDATE characters SET {set} WHERE id = '{}'", victim.character_id);
            assert_eq!(attempt(caller, &sql).await, "no row");
        }
        assert_eq!(caller.count(&format!("characters WHERE id = '{}'", victim.character_id)).await, 0);
    }
    // Nor can a Seer affect a character whose player has left the session.
    let leaver = &game.players[0];
    assert_eq!(
        attempt(&leaver.caller, &update_seat_sql(game.session_id, leaver.user_id, "is_active = false")).await,
        "done"
    );
    let wound = format!("SELECT * FROM private.change_hit_points('{}', -9)", leaver.character_id);
    assert_eq!(attempt(&game.seer, &wound).await, "no row");
    assert_eq!(
        attempt(&game.seer, &insert_attribute_check_sql(game.session_id, leaver.character_id)).await,
        INSUFFICIENT_PRIVILEGE
    );
    // The attempts have left nothing that keeps the victim's account from being closed.
    close_account(&world, victim.user_id).await;
    assert_invariants(&world).await;
}

#[tokio::test]
async fn no_player_takes_a_seat_with_another_users_character() {
    let world = World::new().await;
    let (game, victim) = create_session_and_victim(&world).await;
    world.update_session(&game, "is_public = true").await;
    let stranger = world.new_player().await;
    let sql = insert_seat_sql(game.session_id, stranger.user_id, victim.character_id);
    assert_eq!(attempt(&stranger.caller, &sql).await, CHARACTER_NOT_YOURS);
    let join_code = join_code(&world, game.session_id).await;
    let join_as = |character: Uuid| format!("SELECT * FROM private.join_by_code('{join_code}', '{character}')");
    assert_eq!(attempt(&stranger.caller, &join_as(victim.character_id)).await, CHARACTER_NOT_YOURS);
    assert_eq!(attempt(&stranger.caller, &join_as(stranger.character_id)).await, "done");
    let change =
        update_seat_sql(game.session_id, stranger.user_id, &format!("character_id = '{}'", victim.character_id));
    assert_eq!(attempt(&stranger.caller, &change).await, CHARACTER_NOT_YOURS);
}

#[tokio::test]
async fn a_seer_never_chooses_a_players_character() {
    let world = World::new().await;
    for is_removed in [false, true] {
        let game = world.new_session(1).await;
        let player = &game.players[0];
        let other_character = world.new_character(player.user_id).await;
        let update_seat = |set: String| update_seat_sql(game.session_id, player.user_id, &set);
        let character_assignment = format!("character_id = '{other_character}'");
        if is_removed {
            assert_eq!(attempt(&game.seer, &update_seat("is_active = false".to_owned())).await, "done");
        }
        for set in [
            character_assignment.clone(),
            format!("{character_assignment}, is_active = false"),
            format!("{character_assignment}, is_active = true"),
            format!("{character_assignment}, is_active = NOT is_active"),
            format!("{character_assignment}, removed_at = NULL"),
            "character_id = (SELECT gen_random_uuid())".to_owned(),
        ] {
            let outcome = attempt(&game.seer, &update_seat(set.clone())).await;
            assert!([NOT_YOUR_CHOICE, INSUFFICIENT_PRIVILEGE].contains(&outcome.as_str()), "{outcome}: {set}");
        }
        // Statements that name the session but not the player.
        let update_all_seats =
            format!("UPDATE session_players SET {character_assignment} WHERE session_id = '{}'", game.session_id);
        assert_eq!(attempt(&game.seer, &update_all_seats).await, NOT_YOUR_CHOICE);
        let merge_all_seats = format!(
            "MERGE INTO session_players AS seat USING (SELECT '{}'::uuid AS id) AS wanted ON seat.session_id = wanted.id
             WHEN MATCHED THEN UPDATE SET {character_assignment}",
            game.session_id
        );
        assert_eq!(attempt(&game.seer, &merge_all_seats).await, NOT_YOUR_CHOICE);
    }
    // The Seer removes the player, chooses a character and makes the seat active again, in one transaction or in three.
    for is_one_transaction in [true, false] {
        let game = world.new_session(1).await;
        let player = &game.players[0];
        let other_character = world.new_character(player.user_id).await;
        let steps = [
            "is_active = false".to_owned(),
            format!("character_id = '{other_character}'"),
            "is_active = true".to_owned(),
        ];
        let steps: Vec<String> =
            steps.iter().map(|set| update_seat_sql(game.session_id, player.user_id, set)).collect();
        if is_one_transaction {
            assert_eq!(attempt(&game.seer, &steps.join("; ")).await, NOT_YOUR_CHOICE);
        } else {
            let mut outcomes = Vec::new();
            for step in &steps {
                outcomes.push(attempt(&game.seer, step).await);
            }
            assert_eq!(outcomes, ["done", NOT_YOUR_CHOICE, NOT_YOUR_CHOICE]);
        }
        let seats_with_other_character =
            format!("session_players WHERE session_id = '{}' AND character_id = '{other_character}'", game.session_id);
        assert_eq!(world.owner().count(&seats_with_other_character).await, 0);
    }
}

#[tokio::test]
async fn a_seer_cannot_reactivate_a_players_seat() {
    let world = World::new().await;
    for left_voluntarily in [true, false] {
        let game = world.new_session(1).await;
        let player = &game.players[0];
        let caller = if left_voluntarily { &player.caller } else { &game.seer };
        assert_eq!(
            attempt(caller, &update_seat_sql(game.session_id, player.user_id, "is_active = false")).await,
            "done"
        );
        for set in ["is_active = true", "is_active = NOT is_active", "is_active = true, removed_at = NULL"] {
            assert_eq!(
                attempt(&game.seer, &update_seat_sql(game.session_id, player.user_id, set)).await,
                NOT_YOUR_CHOICE,
                "{set}"
            );
        }
        // Nor can the Seer make the seat active again after the session has started. (A session can start only with a
        // seated player.)
        let seated_player = world.new_player().await;
        world
            .owner()
            .execute(&insert_seat_sql(game.session_id, seated_player.user_id, seated_player.character_id))
            .await
            .unwrap();
        world.update_session(&game, "status = 'active'").await;
        assert_eq!(
            attempt(&game.seer, &update_seat_sql(game.session_id, player.user_id, "is_active = true")).await,
            NOT_YOUR_CHOICE
        );
    }
}

#[tokio::test]
async fn a_seer_cannot_seat_another_users_character_in_their_sessions() {
    let world = World::new().await;
    let (game, victim) = create_session_and_victim(&world).await;
    let seer = game.seer.user_id();
    for _ in 0..10 {
        new_public_session(&world, seer, game.adventure_id).await;
    }
    let seat_victim = format!(
        "INSERT INTO session_players (session_id, user_id, character_id)
         SELECT id, '{}', '{}' FROM sessions WHERE seer_id = '{seer}'",
        victim.user_id, victim.character_id
    );
    assert_eq!(attempt(&game.seer, &seat_victim).await, INSUFFICIENT_PRIVILEGE);
    // So the victim has only the seat that they took, and can retire the character after leaving it.
    let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", victim.character_id);
    let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", victim.user_id);
    assert_eq!(attempt(&victim.caller, &leave).await, "done");
    assert_eq!(attempt(&victim.caller, &retire).await, "done");
}

#[tokio::test]
async fn nobody_takes_a_seat_in_a_session_that_became_private_meanwhile() {
    let world = World::new().await;
    let (game, player) = (world.new_session(0).await, world.new_player().await);
    world.update_session(&game, "is_public = true").await;
    let privacy_transaction = game.seer.begin().await;
    let make_private = format!("UPDATE sessions SET is_public = false WHERE id = '{}'", game.session_id);
    execute_in(&privacy_transaction, &make_private).await.unwrap();
    let joining_transaction = player.caller.begin().await;
    let sql = insert_seat_sql(game.session_id, player.user_id, player.character_id);
    let joining_task = tokio::spawn(async move { execute_and_commit(joining_transaction, &sql).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    privacy_transaction.commit().await.unwrap();
    assert_eq!(joining_task.await.unwrap(), INSUFFICIENT_PRIVILEGE);
    assert_invariants(&world).await;
}
