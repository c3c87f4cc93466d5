//! A user sends the same write twice, on two connections. The answer to the second write must not depend on whether the
//! transaction of the first write is still open or has ended when the second transaction begins.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use crate::world::{
    SqlCaller, World, insert_attribute_check_sql, insert_character_sql, insert_heroic_save_sql, insert_seat_sql,
    into_sql_error,
};

/// Returns writes that users may send twice, by a second click or from a second device, each with the user who sends
/// it. The writes do not depend on each other.
async fn repeated_writes(world: &World) -> Vec<(SqlCaller, String)> {
    let owner = world.owner();
    let mut writes = Vec::new();
    let character = Uuid::new_v4();
    let player = world.new_player().await;
    writes.push((player.caller.clone(), insert_character_sql(character, player.user_id)));
    writes.push((player.caller.clone(), format!("DELETE FROM characters WHERE id = '{}'", player.character_id)));

    // An account may have ten characters, so only the first of two insertions of a tenth succeeds.
    let user_with_nine_characters = world.new_user().await;
    for _ in 0..9 {
        world.new_character(user_with_nine_characters.user_id()).await;
    }
    let insert_tenth = format!(
        "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability)
         VALUES ('{0}', 'Tenth ' || gen_random_uuid(), 'warrior', 5, 3, 2, 2, '{{}}')",
        user_with_nine_characters.user_id()
    );
    writes.push((user_with_nine_characters, insert_tenth));

    let player = world.new_player().await;
    writes.push((
        player.caller.clone(),
        format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", player.character_id),
    ));
    let player = world.new_player().await;
    writes.push((player.caller.clone(), format!("UPDATE users SET bio = 'Plays.' WHERE id = '{}'", player.user_id)));
    let player = world.new_player().await;
    writes.push((
        player.caller.clone(),
        format!("INSERT INTO tutorial_progress (user_id) VALUES ('{}')", player.user_id),
    ));

    // The fourth and last seat of a session: first of a public one, then, by the join code, of a private one.
    let game = world.new_session(3).await;
    owner.execute(&format!("UPDATE sessions SET is_public = true WHERE id = '{}'", game.session_id)).await.unwrap();
    let player = world.new_player().await;
    writes.push((player.caller.clone(), insert_seat_sql(game.session_id, player.user_id, player.character_id)));
    let game = world.new_session(3).await;
    let join_code: String =
        owner.fetch_value(&format!("SELECT code::text FROM sessions WHERE id = '{}'", game.session_id)).await.unwrap();
    let player = world.new_player().await;
    writes.push((
        player.caller.clone(),
        format!("SELECT * FROM private.join_by_code('{join_code}', '{}')", player.character_id),
    ));
    let update_seat_sql = |session: Uuid, player: Uuid, set: &str| {
        format!("UPDATE session_players SET {set} WHERE session_id = '{session}' AND user_id = '{player}'")
    };
    let game = world.new_active_session(2).await;
    let player = &game.players[0];
    writes.push((player.caller.clone(), update_seat_sql(game.session_id, player.user_id, "is_active = false")));
    // The second of two such updates would give the seat back to the player, which the Seer may not do.
    let game = world.new_active_session(2).await;
    writes.push((
        game.seer.clone(),
        update_seat_sql(game.session_id, game.players[0].user_id, "is_active = NOT is_active"),
    ));

    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    writes.push((player.caller.clone(), insert_attribute_check_sql(game.session_id, player.character_id)));
    let failed_roll_id = world.new_failed_roll(game.session_id, player.character_id).await;
    writes.push((player.caller.clone(), insert_heroic_save_sql(game.session_id, player.character_id, failed_roll_id)));
    let insert_event =
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave')", game.session_id);
    writes.push((player.caller.clone(), insert_event));
    writes.push((
        player.caller.clone(),
        format!("SELECT * FROM private.change_hit_points('{}', -1)", player.character_id),
    ));

    for (is_waiting_session, set) in
        [(true, "status = 'active'"), (true, "status = 'cancelled'"), (false, "status = 'completed'")]
    {
        let game = if is_waiting_session { world.new_session(1).await } else { world.new_active_session(1).await };
        writes.push((game.seer.clone(), format!("UPDATE sessions SET {set} WHERE id = '{}'", game.session_id)));
    }
    let seer = world.new_user().await;
    let draft_adventure = world.new_draft_adventure(seer.user_id()).await;
    writes.push((seer.clone(), format!("DELETE FROM adventures WHERE id = '{draft_adventure}'")));
    let seer = world.new_user().await;
    let insert_session = format!(
        "INSERT INTO sessions (id, seer_id, adventure_id) VALUES ('{}', '{}', '{}')",
        Uuid::new_v4(),
        seer.user_id(),
        world.new_adventure(seer.user_id()).await
    );
    writes.push((seer, insert_session));
    let player = world.new_player().await;
    writes.push((player.caller.clone(), format!("SELECT private.close_account('{}')", player.user_id)));
    writes
}

/// Returns the number of affected rows, such as `1 rows`, or the SQLSTATE of the refusal.
fn rows_or_sqlstate(outcome: Result<sea_orm::ExecResult, sea_orm::DbErr>) -> String {
    outcome
        .map_err(into_sql_error)
        .map_or_else(|refusal| refusal.sqlstate, |result| format!("{} rows", result.rows_affected()))
}

#[tokio::test]
async fn overlapping_transactions_of_a_user_get_the_same_answers_as_consecutive_ones() {
    let world = World::new().await;
    for first_commits in [true, false] {
        // Two sets of the same writes, on different rows.
        let (consecutive_writes, overlapping_writes) = (repeated_writes(&world).await, repeated_writes(&world).await);
        for ((caller, sql), (overlapping_caller, overlapping_sql)) in
            consecutive_writes.into_iter().zip(overlapping_writes)
        {
            // The second transaction begins after the first one has ended.
            let first_transaction = caller.begin().await;
            let first_outcome = rows_or_sqlstate(first_transaction.execute_unprepared(&sql).await);
            if first_commits { first_transaction.commit().await } else { first_transaction.rollback().await }.unwrap();
            let expected = rows_or_sqlstate(caller.begin().await.execute_unprepared(&sql).await);
            // The same two transactions, but the second one begins while the first one is open.
            let first_transaction = overlapping_caller.begin().await;
            assert_eq!(
                rows_or_sqlstate(first_transaction.execute_unprepared(&overlapping_sql).await),
                first_outcome,
                "{sql}"
            );
            let second_task = tokio::spawn({
                let (caller, sql) = (overlapping_caller.clone(), overlapping_sql.clone());
                async move {
                    let second_transaction = caller.begin().await;
                    let outcome = rows_or_sqlstate(second_transaction.execute_unprepared(&sql).await);
                    second_transaction.rollback().await.unwrap();
                    outcome
                }
            });
            // Waits until the second statement waits for a lock or has finished, so that the two transactions overlap.
            let lock_waiters = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            while !second_task.is_finished() && world.owner().count(lock_waiters).await == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            if first_commits { first_transaction.commit().await } else { first_transaction.rollback().await }.unwrap();
            assert_eq!(second_task.await.unwrap(), expected, "first transaction commits: {first_commits}: {sql}");
        }
    }
}
