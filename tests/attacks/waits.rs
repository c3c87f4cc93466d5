//! Nobody waits for a row, or makes the database work for one, that row security hides from them.

use uuid::Uuid;

use super::{attempt, exec_in};
use crate::world::{World, insert_character, roll, seat};

#[tokio::test]
async fn the_event_of_a_stranger_waits_for_no_session_and_draws_no_number() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (stranger, former) = (world.new_user().await, &game.players[1].person);
    let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", former.uuid());
    assert_eq!(attempt(former, &leave).await, "done");
    let writer = game.seer.begin().await;
    let change = format!("UPDATE sessions SET looking_for = 'somebody' WHERE id = '{}'", game.session);
    exec_in(&writer, &change).await.unwrap();
    let drawn = "SELECT last_value::text FROM session_events_seq_seq";
    // Only an event that its sender may send waits for the lock.
    let participant = &game.players[0].person;
    for (person, kinds) in [
        (&stranger, &["'x'", "'dice_rolled'", "'Client.x'", "' client.x'", "'client'", "''", "NULL", "'client.x'"][..]),
        (former, &["'x'", "'dice_rolled'", "'Client.x'", "''", "NULL", "'client.x'"]),
        (participant, &["'x'", "'dice_rolled'", "'Client.x'", "''", "NULL"]),
    ] {
        for kind in kinds {
            for end in ["", " ON CONFLICT DO NOTHING", " RETURNING seq"] {
                let mut costs = Vec::new();
                for session in [game.session, Uuid::new_v4()] {
                    let before: String = world.owner().value(drawn).await.unwrap();
                    let transaction = person.begin().await;
                    exec_in(&transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
                    let sql = format!(
                        "INSERT INTO session_events (session_id, event_type) VALUES ('{session}', {kind}){end}"
                    );
                    assert_refused!(exec_in(&transaction, &sql).await, forbidden, "{kind}{end}");
                    transaction.rollback().await.unwrap();
                    let after: String = world.owner().value(drawn).await.unwrap();
                    costs.push(after.parse::<i64>().unwrap() - before.parse::<i64>().unwrap());
                }
                assert_eq!(costs[0], costs[1], "{kind}: numbers drawn for a session and for none");
                assert!(costs[0] <= 1, "{kind}: only the column's default draws a number");
            }
        }
    }
    writer.rollback().await.unwrap();
    // Participants can still send events, and rolls and seats still write theirs.
    let send = format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.x')", game.session);
    assert_eq!(attempt(participant, &send).await, "done");
    assert_eq!(attempt(participant, &roll(game.session, game.players[0].character)).await, "done");
    let joined = world.new_session(0).await;
    world.set(&joined, "is_public = true").await;
    let hero = world.new_character(stranger.uuid()).await;
    assert_eq!(attempt(&stranger, &seat(joined.session, stranger.uuid(), hero)).await, "done");
    for (session, kind) in [(game.session, "dice_rolled"), (joined.session, "player_joined")] {
        let events = format!("session_events WHERE session_id = '{session}' AND event_type = '{kind}' AND seq > 0");
        assert!(world.owner().count(&events).await >= 1, "{kind}");
    }
    assert_eq!(attempt(&stranger, &insert_character(Uuid::new_v4(), stranger.uuid())).await, "done");
}

/// Locks that two transactions share alternately would keep a stronger one waiting for ever.
#[tokio::test]
async fn a_session_that_is_being_opened_keeps_nobody_from_the_adventure() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let other = world.new_user().await;
    for snapshot in [false, true] {
        let opening = if snapshot { other.begin_with_snapshot().await } else { other.begin().await };
        let open = format!("INSERT INTO sessions (adventure_id) VALUES ('{}')", game.adventure);
        assert_eq!(exec_in(&opening, &open).await, Ok(1));
        for change in ["times_played = times_played + 1", "status = 'draft'", "status = 'published'"] {
            let owner = world.owner().begin().await;
            exec_in(&owner, "SET LOCAL lock_timeout = '1s'").await.unwrap();
            let sql = format!("UPDATE adventures SET {change} WHERE id = '{}'", game.adventure);
            assert_eq!(exec_in(&owner, &sql).await, Ok(1), "{change}");
            owner.commit().await.unwrap();
        }
        opening.commit().await.unwrap();
    }
    // An adventure that was unpublished since the snapshot is still refused.
    let late = other.begin_with_snapshot().await;
    exec_in(&late, "SELECT now()").await.unwrap();
    let draft = format!("UPDATE adventures SET status = 'draft' WHERE id = '{}'", game.adventure);
    world.owner().exec(&draft).await.unwrap();
    let open = format!("INSERT INTO sessions (adventure_id) VALUES ('{}')", game.adventure);
    assert_eq!(exec_in(&late, &open).await.unwrap_err().code, "40001");
}
