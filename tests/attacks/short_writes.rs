//! Many short writes on several connections, which keep rows locked almost without a pause, delay nobody for ever:
//! neither those who close or delete an account nor players who leave.

use std::time::Duration;

use tokio::{task::JoinHandle, time::timeout};
use uuid::Uuid;

use super::{close_or_delete_account_sql, is_account_closed};
use crate::world::{GameSession, SqlCaller, World, insert_seat_sql};

/// Creates four sessions, each with a Seer and a player of its own, and also seats the given player in all of them.
async fn create_four_sessions(world: &World, player: Uuid, character: Uuid) -> Vec<GameSession> {
    let mut games = Vec::new();
    for _ in 0..4 {
        let game = world.new_session(1).await;
        world.owner().execute(&insert_seat_sql(game.session_id, player, character)).await.unwrap();
        games.push(game);
    }
    games
}

/// Spawns two tasks that repeat a statement, each on its own connection, until they are aborted. If the statement takes
/// some time, the rows that it locks are almost never free.
fn spawn_repeating(caller: &SqlCaller, sql: &str) -> Vec<JoinHandle<()>> {
    let repeat = |caller: SqlCaller, sql: String| async move {
        loop {
            caller.execute(&sql).await.unwrap();
        }
    };
    (0..2).map(|_| tokio::spawn(repeat(caller.clone(), sql.to_owned()))).collect()
}

#[tokio::test]
async fn short_writes_do_not_delay_closing_or_deleting_an_account_for_ever() {
    // Events lock the sessions; a Seer's change of a seat locks the seat.
    for (locked_rows, is_deletion) in [("sessions", false), ("sessions", true), ("seats", false), ("seats", true)] {
        let world = World::new().await;
        let player = world.new_player().await;
        let games = create_four_sessions(&world, player.user_id, player.character_id).await;
        let mut write_tasks = Vec::new();
        for game in &games {
            let sql = match locked_rows {
                "sessions" => format!(
                    "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave')
                     RETURNING pg_sleep(0.09)",
                    game.session_id
                ),
                // This statement changes no value, but locks the seat.
                _ => format!(
                    "UPDATE session_players SET removed_at = removed_at
                     WHERE session_id = '{}' AND user_id = '{}' RETURNING pg_sleep(0.09)",
                    game.session_id, player.user_id
                ),
            };
            // `pg_sleep` keeps the locks of each run for 90 ms. This first run makes sure that the statement succeeds.
            game.seer.execute(&sql).await.unwrap();
            write_tasks.extend(spawn_repeating(&game.seer, &sql));
        }
        let sql = close_or_delete_account_sql(player.user_id, is_deletion);
        let closing_outcome = timeout(Duration::from_secs(60), world.owner().execute(&sql)).await;
        assert_eq!(closing_outcome.expect("the writes must not delay the closing for ever"), Ok(1), "{locked_rows}");
        for write_task in write_tasks {
            assert!(!write_task.is_finished(), "the writes must go on while the account is being closed");
            write_task.abort();
        }
        // After a deletion, too, there is a closed profile: it stays, because the account's seats are part of the
        // Seers' history.
        assert!(is_account_closed(&world, player.user_id).await);
    }
}

#[tokio::test]
async fn short_writes_do_not_keep_players_from_leaving_several_sessions() {
    let world = World::new().await;
    let player = world.new_player().await;
    let games = create_four_sessions(&world, player.user_id, player.character_id).await;
    let mut write_tasks = Vec::new();
    for game in &games {
        let sql = format!(
            "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave') RETURNING pg_sleep(0.09)",
            game.session_id
        );
        game.seer.execute(&sql).await.unwrap();
        write_tasks.extend(spawn_repeating(&game.seer, &sql));
    }
    let sql = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", player.user_id);
    let leaving_outcome = timeout(Duration::from_secs(60), player.caller.execute(&sql)).await;
    assert_eq!(leaving_outcome.expect("the writes must not delay the player for ever"), Ok(4));
    for write_task in write_tasks {
        assert!(!write_task.is_finished(), "the writes must go on while the player leaves");
        write_task.abort();
    }
}
