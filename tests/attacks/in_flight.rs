//! When a statement begins, its caller is allowed to make a certain write. When the statement comes to that write, the
//! caller is no longer allowed to: another part of the statement, or a transaction that has committed meanwhile, has
//! ended the permission. Row security uses the statement's snapshot, so triggers check the permission again.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, attempt_while_lock_holder_commits, execute_and_commit, execute_in, sql_outcome,
    sqlstates::{
        CHARACTER_NOT_YOURS, CREATURE_NOT_IN_ADVENTURE, INSUFFICIENT_PRIVILEGE, SERIALIZATION_FAILURE, SESSION_OVER,
        SESSION_STARTED,
    },
};
use crate::world::{Player, World, insert_attribute_check_sql, insert_seat_sql};

/// Returns the statement with which a player leaves a session, or with which the Seer removes the player.
fn leave_or_remove_sql(session: Uuid, player: &Player) -> String {
    format!(
        "UPDATE session_players SET is_active = false WHERE session_id = '{session}' AND user_id = '{}'",
        player.user_id
    )
}

#[tokio::test]
async fn a_statement_that_gives_up_a_seat_and_sends_an_event_is_refused() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let player = &game.players[0];
    // An event with the deep payload would be refused even from a seated player, because of its depth. Here the reason
    // must be that the sender has no active seat.
    let deep_payload = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for payload in ["{}", &deep_payload] {
        let sql = format!(
            "WITH given_up_seat AS ({} RETURNING session_id)
             INSERT INTO session_events (session_id, event_type, payload)
             SELECT session_id, 'client.x', '{payload}' FROM given_up_seat",
            leave_or_remove_sql(game.session_id, player)
        );
        assert_refused!(player.caller.execute(&sql).await, forbidden, "{payload}");
    }
    assert_eq!(world.owner().count("session_events WHERE event_type = 'client.x'").await, 0);
    assert_eq!(
        attempt(&player.caller, &insert_attribute_check_sql(game.session_id, player.character_id)).await,
        "done",
        "the refused statements must not have taken the player's seat away"
    );
    assert_invariants(&world).await;
}

/// A player's INSERT of an event has taken its snapshot, and one of its expressions waits. Meanwhile the Seer removes
/// the player, or the player leaves.
#[tokio::test]
async fn a_player_who_is_removed_or_leaves_while_a_statement_waits_sends_no_event() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let player = &game.players[0];
    for leaves_voluntarily in [false, true] {
        let advisory_lock_holder = world.owner().begin().await;
        // The player's statement waits for this lock, whose key is arbitrary.
        execute_in(&advisory_lock_holder, "SELECT pg_advisory_xact_lock(4711)").await.unwrap();
        let sql = format!(
            "INSERT INTO session_events (session_id, event_type)
             SELECT '{}', 'client.late' FROM (SELECT pg_advisory_xact_lock(4711) OFFSET 0) AS wait",
            game.session_id
        );
        let transaction = player.caller.begin().await;
        let sending_task = tokio::spawn(async move { execute_and_commit(transaction, &sql).await });
        world.owner().wait_until_backends_wait_for_locks(1).await;
        let caller = if leaves_voluntarily { &player.caller } else { &game.seer };
        assert_eq!(attempt(caller, &leave_or_remove_sql(game.session_id, player)).await, "done");
        advisory_lock_holder.commit().await.unwrap();
        assert_eq!(sending_task.await.unwrap(), INSUFFICIENT_PRIVILEGE);
        let readmit = format!(
            "UPDATE session_players SET is_active = true, removed_at = NULL WHERE user_id = '{}'",
            player.user_id
        );
        world.owner().execute(&readmit).await.unwrap();
    }
    assert_eq!(world.owner().count("session_events WHERE event_type = 'client.late'").await, 0);
    assert_invariants(&world).await;
}

/// A Seer's statement inserts two rolls. The first is for a creature. While an expression of the second row waits, the
/// creature is deleted and created again, with the same id, in another adventure.
#[tokio::test]
async fn a_roll_names_no_creature_that_has_moved_to_another_adventure() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let creator: Uuid = world
        .owner()
        .fetch_value(&format!("SELECT creator_id FROM adventures WHERE id = '{}'", game.adventure_id))
        .await
        .unwrap();
    let creature = Uuid::new_v4();
    let insert_creature = |adventure: Uuid| {
        format!("INSERT INTO creatures (id, adventure_id, name) VALUES ('{creature}', '{adventure}', 'Wolf')")
    };
    world.owner().execute(&insert_creature(game.adventure_id)).await.unwrap();
    let other_adventure = world.new_draft_adventure(creator).await;
    let advisory_lock_holder = world.owner().begin().await;
    // The Seer's statement waits for this lock, whose key is arbitrary.
    execute_in(&advisory_lock_holder, "SELECT pg_advisory_xact_lock(4711)").await.unwrap();
    let sql = format!(
        "INSERT INTO dice_rolls (session_id, creature_id, character_id, attribute, difficulty, roll_type, description)
         SELECT '{}', CASE WHEN row = 1 THEN '{creature}'::uuid END, CASE WHEN row = 2 THEN '{}'::uuid END,
                'might', 10, 'attack', CASE WHEN row = 2 THEN pg_temp.wait() END
         FROM generate_series(1, 2) AS row",
        game.session_id, game.players[0].character_id
    );
    let transaction = game.seer.begin().await;
    let create_wait_function = "CREATE FUNCTION pg_temp.wait() RETURNS text LANGUAGE plpgsql
                AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN 'waited'; END $$";
    execute_in(&transaction, create_wait_function).await.unwrap();
    let rolling_task = tokio::spawn(async move { execute_and_commit(transaction, &sql).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    world.owner().execute(&format!("DELETE FROM creatures WHERE id = '{creature}'")).await.unwrap();
    world.owner().execute(&insert_creature(other_adventure)).await.unwrap();
    advisory_lock_holder.commit().await.unwrap();
    assert_eq!(rolling_task.await.unwrap(), CREATURE_NOT_IN_ADVENTURE);
    assert_invariants(&world).await;
}

/// Until the session ends, a player who left may choose another character for the seat that they gave up.
#[tokio::test]
async fn a_player_who_left_changes_no_seat_of_a_session_that_ended_since_the_snapshot() {
    let world = World::new().await;
    for (has_ended, expected_outcome) in [(false, "done"), (true, SERIALIZATION_FAILURE)] {
        let game = world.new_session(1).await;
        let player = &game.players[0];
        let other_character = world.new_character(player.user_id).await;
        assert_eq!(attempt(&player.caller, &leave_or_remove_sql(game.session_id, player)).await, "done");
        let transaction_with_old_snapshot = player.caller.begin_with_snapshot().await;
        if has_ended {
            world.update_session(&game, "status = 'cancelled'").await;
        }
        let choose = format!(
            "UPDATE session_players SET character_id = '{other_character}' WHERE session_id = '{}' AND user_id = '{}'",
            game.session_id, player.user_id
        );
        assert_eq!(execute_and_commit(transaction_with_old_snapshot, &choose).await, expected_outcome);
        if has_ended {
            assert_eq!(sql_outcome(player.caller.execute(&choose).await), SESSION_OVER);
        }
    }
}

/// At READ COMMITTED, the statement waits for the transaction in which the Seer cancels the session.
#[tokio::test]
async fn a_player_who_left_changes_no_seat_of_a_session_that_ends_while_the_statement_waits() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let other_character = world.new_character(player.user_id).await;
    assert_eq!(attempt(&player.caller, &leave_or_remove_sql(game.session_id, player)).await, "done");
    let ending_transaction = game.seer.begin().await;
    let cancel = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{}'", game.session_id);
    assert_eq!(execute_in(&ending_transaction, &cancel).await, Ok(1));
    let choose = format!(
        "UPDATE session_players SET character_id = '{other_character}' WHERE session_id = '{}' AND user_id = '{}'",
        game.session_id, player.user_id
    );
    assert_eq!(
        attempt_while_lock_holder_commits(&world, &player.caller, choose, ending_transaction).await,
        SESSION_OVER
    );
    assert_invariants(&world).await;
}

/// In the snapshot of the player's INSERT, the session has not started. The INSERT waits for a transaction in which the
/// Seer starts the session.
#[tokio::test]
async fn nobody_takes_a_seat_in_a_session_that_starts_while_the_statement_waits() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    world.update_session(&game, "is_public = true").await;
    let player = world.new_player().await;
    let starting_transaction = game.seer.begin().await;
    let start = format!("UPDATE sessions SET status = 'active' WHERE id = '{}'", game.session_id);
    assert_eq!(execute_in(&starting_transaction, &start).await, Ok(1));
    let sql = insert_seat_sql(game.session_id, player.user_id, player.character_id);
    assert_eq!(
        attempt_while_lock_holder_commits(&world, &player.caller, sql, starting_transaction).await,
        SESSION_STARTED
    );
    assert_invariants(&world).await;
}

/// The service gives the character to another user while the player takes a seat with it.
#[tokio::test]
async fn nobody_takes_a_seat_with_a_character_that_changes_its_owner_while_the_statement_waits() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.update_session(&game, "is_public = true").await;
    let (player, new_owner) = (world.new_player().await, world.new_user().await);
    let giving_transaction = world.service().begin().await;
    let give =
        format!("UPDATE characters SET user_id = '{}' WHERE id = '{}'", new_owner.user_id(), player.character_id);
    assert_eq!(execute_in(&giving_transaction, &give).await, Ok(1));
    let sql = insert_seat_sql(game.session_id, player.user_id, player.character_id);
    let outcome = attempt_while_lock_holder_commits(&world, &player.caller, sql, giving_transaction).await;
    assert_eq!(outcome, CHARACTER_NOT_YOURS);
    assert_invariants(&world).await;
}
