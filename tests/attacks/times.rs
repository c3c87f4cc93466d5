//! Times that a client writes: none that another client cannot parse, and none that is invented.

use super::attempt;
use crate::world::{Person, World};

#[tokio::test]
async fn every_time_that_a_client_writes_is_bounded_or_the_servers() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (player, seer) = (&game.players[0], &game.seer);
    let columns = "SELECT class.relname || '.' || attname FROM pg_attribute
         JOIN pg_class AS class ON class.oid = attrelid
         WHERE class.relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT attisdropped
           AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
           AND has_column_privilege('authenticated', class.oid, attnum, 'INSERT, UPDATE') ORDER BY 1";
    let over = world.new_active_session(1).await;
    let adventure = game.adventure;
    let character = world.new_character(player.id).await;
    let path = "path, current_step, completed_steps, completed_at";
    let steps = "'seer', 'welcome', '{}'";
    let user = world.new_user().await;
    world.owner().exec(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{}')", player.id)).await.unwrap();
    for end in ["active", "completed"] {
        world.set(&over, &format!("status = '{end}'")).await;
        for person in [&over.seer, &over.players[0].person] {
            let removal =
                format!("UPDATE session_players SET removed_at = $TIME WHERE session_id = '{}'", over.session);
            let both = removal.replace(" WHERE", ", is_active = false WHERE");
            for time in TIMES {
                // Twice: the first writes the time of a removal, the second would replace it.
                for sql in [&removal, &removal, &both] {
                    attempt(person, &sql.replace("$TIME", time)).await;
                    assert_plausible(&world, "session_players", "removed_at").await;
                }
            }
        }
    }
    let written: [(&str, &Person, String); 5] = [
        (
            "characters.retired_at",
            &player.person,
            format!("UPDATE characters SET retired_at = $TIME WHERE id = '{character}'"),
        ),
        (
            "session_players.removed_at",
            seer,
            format!("UPDATE session_players SET removed_at = $TIME WHERE session_id = '{}'", game.session),
        ),
        (
            "sessions.scheduled_start",
            seer,
            format!("UPDATE sessions SET scheduled_start = $TIME WHERE id = '{}'", game.session),
        ),
        (
            "sessions.scheduled_start",
            seer,
            format!("INSERT INTO sessions (adventure_id, scheduled_start) VALUES ('{adventure}', $TIME)"),
        ),
        (
            "tutorial_progress.completed_at",
            &player.person,
            "UPDATE tutorial_progress SET completed_at = $TIME".to_owned(),
        ),
    ];
    let mut known: Vec<&str> = written.iter().map(|(column, ..)| *column).collect();
    known.dedup();
    assert_eq!(world.owner().values::<String>(columns).await.unwrap(), known);
    let insert = format!("INSERT INTO tutorial_progress ({path}) VALUES ({steps}, $TIME)");
    let all = written.iter().map(|(column, person, sql)| (*column, *person, sql));
    for (column, person, sql) in all.chain([("tutorial_progress.completed_at", &user, &insert)]) {
        for time in TIMES {
            for _ in 0..2 {
                attempt(person, &sql.replace("$TIME", time)).await;
                let (table, column) = column.split_once('.').unwrap();
                assert_plausible(&world, table, column).await;
            }
        }
    }
}

/// What PostgreSQL accepts as a time and most clients do not.
const TIMES: [&str; 4] = ["'infinity'", "'-infinity'", "'294276-01-01'", "'4713-01-01 BC'"];

/// Asserts that a column has neither a time that a client cannot parse nor an invented one.
async fn assert_plausible(world: &World, table: &str, column: &str) {
    let invented =
        format!("{table} WHERE {column} NOT BETWEEN now() - INTERVAL '1 day' AND now() + INTERVAL '1000 years'");
    assert_eq!(world.owner().count(&invented).await, 0, "{table}.{column}");
}

#[tokio::test]
async fn a_removal_keeps_its_time() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let set = |what: &str| format!("UPDATE session_players SET {what} WHERE session_id = '{}'", game.session);
    let removed_at = format!("SELECT removed_at::text FROM session_players WHERE session_id = '{}'", game.session);
    assert_eq!(attempt(&game.seer, &set("is_active = false")).await, "done");
    let first: String = world.owner().value(&removed_at).await.unwrap();
    for what in ["removed_at = 'infinity'", "removed_at = now()", "removed_at = '-infinity', is_active = false"] {
        for person in [&game.seer, &world.service()] {
            assert_eq!(attempt(person, &set(what)).await, "done");
            assert_eq!(world.owner().value::<String>(&removed_at).await.unwrap(), first, "{what}");
        }
    }
    assert_eq!(attempt(&game.seer, &set("removed_at = NULL")).await, "done");
    assert_eq!(attempt(&player.person, &set("is_active = true")).await, "done");
}
