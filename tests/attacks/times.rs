//! The database refuses times before the year 2000 or after 2999. Of the times that users write, only `scheduled_start`
//! is stored as it was written; triggers replace the others. Clients can therefore parse every stored time.

use super::{attempt, dry_run, sqlstates::CHECK_VIOLATION};
use crate::world::{SqlCaller, World};

#[tokio::test]
async fn no_user_can_store_a_time_that_most_clients_cannot_parse() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (player, seer) = (&game.players[0], &game.seer);
    let adventure_id = game.adventure_id;
    let character_id = world.new_character(player.user_id).await;
    let user_without_progress = world.new_user().await;
    world
        .owner()
        .execute(&format!(
            "INSERT INTO tutorial_progress (user_id, path, current_step, completed_steps)
             SELECT '{}', 'player', steps[cardinality(steps)], steps[:cardinality(steps) - 1]
             FROM (SELECT private.tutorial_steps('player') AS steps) AS path",
            player.user_id
        ))
        .await
        .unwrap();
    // In this test, it does not matter whether a write succeeds, only which time is stored afterwards.
    //
    // First, the player and the Seer write the time of the player's removal, in an active session and in a completed
    // one.
    for status in ["active", "completed"] {
        let other_game = world.new_active_session(1).await;
        world.update_session(&other_game, &format!("status = '{status}'")).await;
        for caller in [&other_game.players[0].caller, &other_game.seer] {
            let write_time =
                format!("UPDATE session_players SET removed_at = $TIME WHERE session_id = '{}'", other_game.session_id);
            let write_time_and_deactivate = write_time.replace(" WHERE", ", is_active = false WHERE");
            for time in UNPARSABLE_TIMES {
                // If the database stored a time for the first `write_time`, the second one tries to change it.
                for sql in [&write_time, &write_time, &write_time_and_deactivate] {
                    attempt(caller, &sql.replace("$TIME", time)).await;
                    assert_plausible(&world, "session_players", "removed_at").await;
                }
            }
        }
    }
    // These writes are sorted by column, as `select_time_columns` sorts its result.
    let writes: [(&str, &SqlCaller, String); 5] = [
        (
            "characters.retired_at",
            &player.caller,
            format!("UPDATE characters SET retired_at = $TIME WHERE id = '{character_id}'"),
        ),
        (
            "session_players.removed_at",
            seer,
            format!("UPDATE session_players SET removed_at = $TIME WHERE session_id = '{}'", game.session_id),
        ),
        (
            "sessions.scheduled_start",
            seer,
            format!("UPDATE sessions SET scheduled_start = $TIME WHERE id = '{}'", game.session_id),
        ),
        (
            "sessions.scheduled_start",
            seer,
            format!("INSERT INTO sessions (adventure_id, scheduled_start) VALUES ('{adventure_id}', $TIME)"),
        ),
        (
            "tutorial_progress.completed_at",
            &player.caller,
            "UPDATE tutorial_progress SET completed_at = $TIME".to_owned(),
        ),
    ];
    // Selects the time columns that users may insert or update.
    let select_time_columns = "SELECT class.relname || '.' || attname FROM pg_attribute
         JOIN pg_class AS class ON class.oid = attrelid
         WHERE class.relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT attisdropped
           AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
           AND has_column_privilege('authenticated', class.oid, attnum, 'INSERT, UPDATE') ORDER BY 1";
    let mut tested_columns: Vec<&str> = writes.iter().map(|(column, ..)| *column).collect();
    tested_columns.dedup();
    assert_eq!(world.owner().fetch_values::<String>(select_time_columns).await.unwrap(), tested_columns);
    let complete_tutorial = "UPDATE tutorial_progress SET completed_at = now()";
    assert_eq!(dry_run(&player.caller, complete_tutorial).await, "done", "the player must be at the last step");
    let insert_tutorial_progress = "INSERT INTO tutorial_progress (path, current_step, completed_steps, completed_at)
                  VALUES ('seer', 'welcome', '{}', $TIME)"
        .to_owned();
    let borrowed_writes = writes.iter().map(|(column, caller, sql)| (*column, *caller, sql));
    for (qualified_column, caller, sql) in
        borrowed_writes.chain([("tutorial_progress.completed_at", &user_without_progress, &insert_tutorial_progress)])
    {
        for time in UNPARSABLE_TIMES {
            // Each write is sent twice, because the second UPDATE may find a time that the first one has stored.
            for _ in 0..2 {
                attempt(caller, &sql.replace("$TIME", time)).await;
                let (table, column) = qualified_column.split_once('.').unwrap();
                assert_plausible(&world, table, column).await;
            }
        }
    }
}

/// Times, as SQL literals, that PostgreSQL accepts and most clients cannot parse.
const UNPARSABLE_TIMES: [&str; 4] = ["'infinity'", "'-infinity'", "'294276-01-01'", "'4713-01-01 BC'"];

/// Asserts that every time in a column lies between yesterday and a thousand years from now.
async fn assert_plausible(world: &World, table: &str, column: &str) {
    let implausible_rows =
        format!("{table} WHERE {column} NOT BETWEEN now() - INTERVAL '1 day' AND now() + INTERVAL '1000 years'");
    assert_eq!(world.owner().count(&implausible_rows).await, 0, "{table}.{column}");
}

/// Not only users write times: the service may write most time columns. A time that the service has written must
/// not make a reader fail.
#[tokio::test]
async fn the_checks_of_every_table_refuse_times_that_clients_cannot_parse() {
    let world = World::new().await;
    let owner = world.owner();
    // For each time column, a query that returns whether its table's checks on times accept a row in which this column
    // has the time `TIME` and the others are NULL.
    let queries: Vec<String> = owner
        .fetch_values(
            "SELECT format(
               'SELECT (%s) IS NOT FALSE FROM jsonb_populate_record(NULL::public.%I, jsonb_build_object(%L, (TIME)::timestamptz))',
               string_agg(format('(%s)', pg_get_expr(conbin, conrelid)), ' AND '), relname, attname
             )
             FROM pg_attribute
             JOIN pg_class AS class ON class.oid = attrelid
             LEFT JOIN pg_constraint ON conrelid = class.oid AND conname IN ('bounded_schedule', 'bounded_times')
             WHERE class.relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'sparc_migrations'
               AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
             GROUP BY relname, attname ORDER BY relname, attname",
        )
        .await
        .unwrap();
    assert!(queries.len() > 30, "{queries:?}");
    for query in queries {
        for time in UNPARSABLE_TIMES {
            assert!(!owner.fetch_value::<bool>(&query.replace("TIME", time)).await.unwrap(), "{time}: {query}");
        }
        assert!(owner.fetch_value::<bool>(&query.replace("TIME", "now()")).await.unwrap(), "{query}");
    }
    let game = world.new_session(0).await;
    for assignment in ["created_at = 'infinity'", "started_at = '294276-01-01'"] {
        let update = format!("UPDATE sessions SET {assignment} WHERE id = '{}'", game.session_id);
        assert_refused!(world.service().execute(&update).await, CHECK_VIOLATION, "bounded_times", "{assignment}");
    }
}

#[tokio::test]
async fn the_time_of_a_removal_can_be_cleared_but_not_changed() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let update_seat_sql = |assignments: &str| {
        format!("UPDATE session_players SET {assignments} WHERE session_id = '{}'", game.session_id)
    };
    let select_removed_at =
        format!("SELECT removed_at::text FROM session_players WHERE session_id = '{}'", game.session_id);
    // With this update the Seer removes the player, and a trigger sets `removed_at`.
    assert_eq!(attempt(&game.seer, &update_seat_sql("is_active = false")).await, "done");
    let time_of_removal: String = world.owner().fetch_value(&select_removed_at).await.unwrap();
    for assignments in ["removed_at = 'infinity'", "removed_at = now()", "removed_at = '-infinity', is_active = false"]
    {
        for caller in [&game.seer, &world.service()] {
            assert_eq!(attempt(caller, &update_seat_sql(assignments)).await, "done");
            assert_eq!(
                world.owner().fetch_value::<String>(&select_removed_at).await.unwrap(),
                time_of_removal,
                "{assignments}"
            );
        }
    }
    // Once the Seer has cleared the time, the player can rejoin.
    assert_eq!(attempt(&game.seer, &update_seat_sql("removed_at = NULL")).await, "done");
    assert_eq!(attempt(&player.caller, &update_seat_sql("is_active = true")).await, "done");
}
