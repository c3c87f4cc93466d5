//! A refused INSERT of an event does not wait for a lock on the session, and draws as many event numbers (`seq`) for an
//! existing session as for one that does not exist. Creating a session does not block updates of its adventure.

use uuid::Uuid;

use super::{attempt, execute_in, sqlstates::SERIALIZATION_FAILURE};
use crate::world::{World, insert_attribute_check_sql, insert_character_sql, insert_seat_sql};

#[tokio::test]
async fn a_refused_event_does_not_wait_for_its_session_and_draws_at_most_one_number() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (stranger, former_player) = (world.new_user().await, &game.players[1].caller);
    let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", former_player.user_id());
    assert_eq!(attempt(former_player, &leave).await, "done");
    let lock_holder = game.seer.begin().await;
    let lock_session = format!("UPDATE sessions SET looking_for = 'somebody' WHERE id = '{}'", game.session_id);
    execute_in(&lock_holder, &lock_session).await.unwrap();
    let select_last_event_number = "SELECT last_value::text FROM session_events_seq_seq";
    // The event types that each caller tries to send, as SQL literals. The participant does not try `'client.x'`:
    // participants may send types that begin with `client.`, and an event that is not refused waits for the lock.
    let participant = &game.players[0].caller;
    for (caller, event_types) in [
        (&stranger, &["'x'", "'dice_rolled'", "'Client.x'", "' client.x'", "'client'", "''", "NULL", "'client.x'"][..]),
        (former_player, &["'x'", "'dice_rolled'", "'Client.x'", "' client.x'", "'client'", "''", "NULL", "'client.x'"]),
        (participant, &["'x'", "'dice_rolled'", "'Client.x'", "' client.x'", "'client'", "''", "NULL"]),
    ] {
        for event_type in event_types {
            for suffix in ["", " ON CONFLICT DO NOTHING", " RETURNING seq"] {
                let mut numbers_drawn = Vec::new();
                // First the session that exists, then one that does not.
                for session_id in [game.session_id, Uuid::new_v4()] {
                    let number_before: String = world.owner().fetch_value(select_last_event_number).await.unwrap();
                    let transaction = caller.begin().await;
                    execute_in(&transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
                    let sql = format!(
                        "INSERT INTO session_events (session_id, event_type)
                         VALUES ('{session_id}', {event_type}){suffix}"
                    );
                    assert_refused!(execute_in(&transaction, &sql).await, forbidden, "{event_type}{suffix}");
                    transaction.rollback().await.unwrap();
                    let number_after: String = world.owner().fetch_value(select_last_event_number).await.unwrap();
                    numbers_drawn.push(number_after.parse::<i64>().unwrap() - number_before.parse::<i64>().unwrap());
                }
                assert_eq!(
                    numbers_drawn[0], numbers_drawn[1],
                    "{event_type}: for a session and for one that does not exist"
                );
                assert!(numbers_drawn[0] <= 1, "{event_type}: only the identity column `seq` draws a number");
            }
        }
    }
    lock_holder.rollback().await.unwrap();
    // What is allowed still works: participants send events, triggers write events of rolls and new seats, and a user
    // (the stranger, whose events were refused) creates a character.
    let send =
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.x')", game.session_id);
    assert_eq!(attempt(participant, &send).await, "done");
    assert_eq!(
        attempt(participant, &insert_attribute_check_sql(game.session_id, game.players[0].character_id)).await,
        "done"
    );
    let joined_game = world.new_session(0).await;
    world.update_session(&joined_game, "is_public = true").await;
    let character_id = world.new_character(stranger.user_id()).await;
    assert_eq!(
        attempt(&stranger, &insert_seat_sql(joined_game.session_id, stranger.user_id(), character_id)).await,
        "done"
    );
    for (session_id, event_type) in [(game.session_id, "dice_rolled"), (joined_game.session_id, "player_joined")] {
        let events = format!("session_events WHERE session_id = '{session_id}' AND event_type = '{event_type}'");
        assert!(world.owner().count(&events).await >= 1, "{event_type}");
    }
    assert_eq!(attempt(&stranger, &insert_character_sql(Uuid::new_v4(), stranger.user_id())).await, "done");
}

/// If creating a session kept a shared lock on its adventure (stronger than the KEY SHARE lock of the foreign key),
/// overlapping transactions that create sessions could make an UPDATE of the adventure wait for ever. So creating a
/// session keeps no such lock. At REPEATABLE READ, it fails if the adventure has changed since the snapshot.
#[tokio::test]
async fn creating_a_session_does_not_block_updates_of_its_adventure() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let stranger = world.new_user().await;
    for is_repeatable_read in [false, true] {
        let creating_transaction =
            if is_repeatable_read { stranger.begin_with_snapshot().await } else { stranger.begin().await };
        let insert_session = format!("INSERT INTO sessions (adventure_id) VALUES ('{}')", game.adventure_id);
        assert_eq!(execute_in(&creating_transaction, &insert_session).await, Ok(1));
        for change in ["times_played = times_played + 1", "status = 'draft'", "status = 'published'"] {
            let updating_transaction = world.owner().begin().await;
            execute_in(&updating_transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
            let sql = format!("UPDATE adventures SET {change} WHERE id = '{}'", game.adventure_id);
            assert_eq!(execute_in(&updating_transaction, &sql).await, Ok(1), "{change}");
            updating_transaction.commit().await.unwrap();
        }
        creating_transaction.commit().await.unwrap();
    }
    // This transaction takes its snapshot while the adventure is published; then the adventure becomes a draft. At
    // REPEATABLE READ, creating a session locks the adventure for a moment (in a block that is rolled back), and
    // PostgreSQL refuses to lock a row that has changed since the snapshot.
    let transaction_with_old_snapshot = stranger.begin_with_snapshot().await;
    let unpublish = format!("UPDATE adventures SET status = 'draft' WHERE id = '{}'", game.adventure_id);
    world.owner().execute(&unpublish).await.unwrap();
    let insert_session = format!("INSERT INTO sessions (adventure_id) VALUES ('{}')", game.adventure_id);
    assert_eq!(
        execute_in(&transaction_with_old_snapshot, &insert_session).await.unwrap_err().sqlstate,
        SERIALIZATION_FAILURE
    );
}
