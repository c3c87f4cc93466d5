//! Limits on the number of rows that one statement inserts, and on the size of a JSON document.

use uuid::Uuid;

use super::{
    attempt, dry_run, execute_in, query_number, sql_outcome,
    sqlstates::{CHECK_VIOLATION, TOO_MANY_ROWS},
};
use crate::world::{SqlCaller, World};

#[tokio::test]
async fn one_statement_inserts_at_most_a_hundred_rows() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (player, session) = (&game.players[0], game.session_id);
    let draft_adventure = world.new_draft_adventure(game.seer.user_id()).await;
    let from_series_sql = |count: usize| format!("FROM generate_series(1, {count}) AS number");
    let insert_events_sql = |count| {
        format!(
            "INSERT INTO session_events (session_id, event_type) SELECT '{session}', 'client.wave' {}",
            from_series_sql(count)
        )
    };
    let insert_rolls_sql = |count| {
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
             SELECT '{session}', '{}', 'might'::attribute, 10, 'attack'::roll_type {}",
            player.character_id,
            from_series_sql(count)
        )
    };
    let insert_creatures_sql = |count| {
        format!(
            "INSERT INTO creatures (adventure_id, name) SELECT '{draft_adventure}', 'Rat ' || number {}",
            from_series_sql(count)
        )
    };
    let insert_adventures_sql = |count| {
        format!(
            "INSERT INTO adventures (creator_id, name) SELECT '{}', 'Draft ' || number {}",
            game.seer.user_id(),
            from_series_sql(count)
        )
    };
    for (caller, insert_sql) in [
        (&player.caller, &insert_events_sql as &(dyn Fn(usize) -> String + Sync)),
        (&player.caller, &insert_rolls_sql),
        (&game.seer, &insert_creatures_sql),
        (&game.seer, &insert_adventures_sql),
    ] {
        assert_eq!(dry_run(caller, &insert_sql(100)).await, "done", "{}", insert_sql(100));
        assert_eq!(dry_run(caller, &insert_sql(101)).await, TOO_MANY_ROWS, "{}", insert_sql(101));
        assert_eq!(dry_run(caller, &insert_sql(5000)).await, TOO_MANY_ROWS, "{}", insert_sql(5000));
        // Two parts of one statement, with sixty rows each.
        let insert_in_two_parts = format!(
            "WITH first AS ({} RETURNING id), second AS ({} RETURNING id) SELECT FROM first",
            insert_sql(60),
            insert_sql(60)
        );
        assert_eq!(dry_run(caller, &insert_in_two_parts).await, TOO_MANY_ROWS, "{insert_in_two_parts}");
        let insert_skipping_conflicts = format!("{} ON CONFLICT DO NOTHING", insert_sql(101));
        assert_eq!(dry_run(caller, &insert_skipping_conflicts).await, TOO_MANY_ROWS, "{insert_skipping_conflicts}");
    }
    let merge = format!(
        "MERGE INTO session_events AS event USING generate_series(1, 101) AS number ON false
         WHEN NOT MATCHED THEN INSERT (session_id, event_type) VALUES ('{session}', 'client.wave')"
    );
    assert_eq!(dry_run(&player.caller, &merge).await, TOO_MANY_ROWS);
    // The schema's owner is not limited.
    assert_eq!(sql_outcome(world.owner().execute(&insert_events_sql(500)).await), "done");
}

#[tokio::test]
async fn no_statement_evades_the_limit_on_inserted_rows() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (player, session) = (&game.players[0], game.session_id);
    let insert = "INSERT INTO session_events (session_id, event_type)";
    let row = format!("'{session}'::uuid, 'client.wave'");
    for sql in [
        // With each row, the statement clears two settings in which triggers keep values.
        format!(
            "{insert} SELECT {row} FROM generate_series(1, 101) AS number, LATERAL (
               SELECT set_config('sparc.session_of_events', '', true),
                      set_config('sparc.can_broadcast_until', '', true), number
             ) AS reset"
        ),
        // Five parts of one statement, with 21 rows each.
        format!(
            "WITH {} SELECT FROM part1",
            (1..6)
                .map(|part| format!("part{part} AS ({insert} SELECT {row} FROM generate_series(1, 21) RETURNING id)"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        // One part with SELECT and one with VALUES.
        format!(
            "WITH first AS ({insert} SELECT {row} FROM generate_series(1, 99)),
                  second AS ({insert} VALUES ({row}), ({row}))
             SELECT"
        ),
        // A prepared statement, run first with a hundred rows and then with 101.
        format!(
            "PREPARE many AS {insert} SELECT {row} FROM generate_series(1, $1::integer);
             EXECUTE many (100); EXECUTE many (101)"
        ),
        // The statement itself reads the server's counts from which the policy computes the number of events, and which
        // a user might try to influence.
        format!(
            "{insert} SELECT {row} FROM generate_series(1, 101)
             WHERE pg_stat_get_xact_blocks_fetched('session_events_seq_seq'::regclass) >= 0
               AND pg_stat_get_xact_tuples_inserted('session_events'::regclass) >= 0"
        ),
    ] {
        assert_eq!(dry_run(&player.caller, &sql).await, TOO_MANY_ROWS, "{sql}");
    }
    // The limit is per statement: several statements of a hundred rows each are accepted.
    let insert_hundred = format!("{insert} SELECT {row} FROM generate_series(1, 100)");
    assert_eq!(dry_run(&player.caller, &format!("{insert_hundred}; {insert_hundred}; {insert_hundred}")).await, "done");
}

#[tokio::test]
async fn too_many_rows_are_refused_before_all_are_inserted() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (player, seer) = (&game.players[0], game.seer.user_id());
    let draft_adventure = world.new_draft_adventure(seer).await;
    let adventure = world.new_adventure(seer).await;
    // 160 public sessions, of eight Seers, because each may have only twenty sessions that have not ended.
    for _ in 0..8 {
        let other_seer = world.new_account().await;
        let insert_sessions = format!(
            "INSERT INTO sessions (seer_id, adventure_id, is_public)
             SELECT '{other_seer}', '{adventure}', true FROM generate_series(1, 20)"
        );
        world.owner().execute(&insert_sessions).await.unwrap();
    }
    let from_numbers = "FROM generate_series(1, 5000) AS number";
    for (caller, table, sql) in [
        (
            &player.caller,
            "characters",
            format!(
                "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability)
                 SELECT '{}', 'Hero ' || number, 'warrior'::character_class, 5, 3, 2, 2, '{{}}'::jsonb {from_numbers}",
                player.user_id
            ),
        ),
        (
            &game.seer,
            "adventures",
            format!("INSERT INTO adventures (creator_id, name) SELECT '{seer}', 'Draft ' || number {from_numbers}"),
        ),
        (
            &game.seer,
            "creatures",
            format!(
                "INSERT INTO creatures (adventure_id, name) SELECT '{draft_adventure}', 'Rat ' || number {from_numbers}"
            ),
        ),
        (
            &game.seer,
            "sessions",
            format!("INSERT INTO sessions (seer_id, adventure_id) SELECT '{seer}', '{adventure}' {from_numbers}"),
        ),
        (
            &player.caller,
            "session_players",
            format!(
                "INSERT INTO session_players (session_id, user_id, character_id)
                 SELECT id, '{}', '{}' FROM sessions WHERE is_public AND status = 'waiting'",
                player.user_id, player.character_id
            ),
        ),
        (
            &player.caller,
            "dice_rolls",
            format!(
                "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
                 SELECT '{}', '{}', 'might'::attribute, 10, 'attack'::roll_type {from_numbers}",
                game.session_id, player.character_id
            ),
        ),
    ] {
        let transaction = caller.begin().await;
        let inserted_count_expression = format!("pg_stat_get_xact_tuples_inserted('public.{table}'::regclass)");
        // The count may include rows that this connection inserted before.
        let remember_count = format!(
            "SELECT set_config('test.inserted_before', {inserted_count_expression}::text, true);
             SAVEPOINT before"
        );
        execute_in(&transaction, &remember_count).await.unwrap();
        assert_eq!(sql_outcome(execute_in(&transaction, &sql).await), TOO_MANY_ROWS, "{sql}");
        execute_in(&transaction, "ROLLBACK TO before").await.unwrap();
        // The count still includes the rows that were rolled back. If the assertion holds, the outcome of the DO block
        // is "no row".
        let few_inserted_assertion = format!(
            "DO $$ BEGIN
               ASSERT {inserted_count_expression} - current_setting('test.inserted_before')::bigint BETWEEN 1 AND 100;
             END $$"
        );
        assert_eq!(sql_outcome(execute_in(&transaction, &few_inserted_assertion).await), "no row", "{table}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn too_many_events_are_refused_before_all_are_inserted() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (player, session) = (&game.players[0], game.session_id);
    let select_last_event_number = "SELECT last_value FROM session_events_seq_seq";
    let repeated_id = Uuid::new_v4();
    let insert_first_event = format!(
        "INSERT INTO session_events (id, session_id, event_type) VALUES ('{repeated_id}', '{session}', 'client.wave')"
    );
    assert_eq!(attempt(&player.caller, &insert_first_event).await, "done");
    for insert_many in [
        format!(
            "INSERT INTO session_events (session_id, event_type)
             SELECT '{session}', 'client.wave' FROM generate_series(1, 5000)"
        ),
        // A row whose id exists already is skipped, but only after a trigger has locked the session's row.
        format!(
            "INSERT INTO session_events (id, session_id, event_type)
             SELECT '{repeated_id}', '{session}', 'client.wave' FROM generate_series(1, 5000) ON CONFLICT DO NOTHING"
        ),
        format!(
            "INSERT INTO session_events (id, session_id, event_type)
             SELECT '{repeated_id}', '{session}', 'client.wave' FROM generate_series(1, 5000)
             ON CONFLICT (id) DO NOTHING"
        ),
    ] {
        let number_before = query_number(&world, select_last_event_number).await;
        assert_eq!(attempt(&player.caller, &insert_many).await, TOO_MANY_ROWS, "{insert_many}");
        // Each of at most 101 rows draws at most two numbers (by the identity column and by a trigger) before it is
        // refused or skipped.
        assert!(query_number(&world, select_last_event_number).await - number_before <= 202, "{insert_many}");
    }
}

/// Returns, for each column of JSON documents that users may write, a user who may write it, the constraint that limits
/// the document's size, and a statement with `$DOC$` in place of the document.
pub(super) async fn document_writes(world: &World) -> Vec<(SqlCaller, &'static str, String)> {
    let game = world.new_active_session(1).await;
    let (player, seer) = (&game.players[0], &game.seer);
    let draft_adventure = world.new_draft_adventure(seer.user_id()).await;
    let sql = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_adventure}', 'Rat') RETURNING id");
    let creature: Uuid = world.owner().fetch_value(&sql).await.unwrap();
    let update_sql =
        |table: &str, column: &str, id: Uuid| format!("UPDATE {table} SET {column} = $DOC$ WHERE id = '{id}'");
    vec![
        (player.caller.clone(), "bounded_equipment", update_sql("characters", "equipment", player.character_id)),
        (
            player.caller.clone(),
            "bounded_special_ability",
            update_sql("characters", "special_ability", player.character_id),
        ),
        (seer.clone(), "bounded_content", update_sql("adventures", "content", draft_adventure)),
        (seer.clone(), "bounded_abilities", update_sql("creatures", "abilities", creature)),
        (seer.clone(), "bounded_stats", update_sql("creatures", "stats", creature)),
        (seer.clone(), "bounded_game_state", update_sql("sessions", "game_state", game.session_id)),
        (
            player.caller.clone(),
            "bounded_payload",
            format!(
                "INSERT INTO session_events (session_id, event_type, payload) VALUES ('{}', 'client.big', $DOC$)",
                game.session_id
            ),
        ),
        (
            player.caller.clone(),
            "bounded_modifiers",
            format!(
                "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, modifiers)
                 VALUES ('{}', '{}', 'might', 10, 'attack', $DOC$)",
                game.session_id, player.character_id
            ),
        ),
    ]
}

#[tokio::test]
async fn the_size_of_a_document_is_checked_before_its_content() {
    let world = World::new().await;
    // All of these documents are too large. Some are also nested too deeply, or contain a number that clients cannot
    // read, but the refusal names the constraint on the size.
    let too_large = "(SELECT jsonb_agg(md5(number::text)) FROM generate_series(1, 60000) AS number)";
    let too_large_and_deep = format!("({too_large} || (repeat('[', 200) || repeat(']', 200))::jsonb)");
    let too_large_with_huge_number = format!("({too_large} || '[1e400]'::jsonb)");
    let too_large_and_deep_in_object = format!("jsonb_build_object('a', {too_large_and_deep})");
    for (caller, constraint, sql) in document_writes(&world).await {
        for document in [too_large, &too_large_and_deep, &too_large_with_huge_number, &too_large_and_deep_in_object] {
            assert_refused!(
                caller.execute(&sql.replace("$DOC$", document)).await,
                CHECK_VIOLATION,
                constraint,
                "{constraint}"
            );
        }
    }
}

#[tokio::test]
async fn refusing_a_document_that_is_too_large_takes_no_more_than_three_times_as_long_as_building_it() {
    let world = World::new().await;
    let (mut build_times, mut refusal_times) = (Vec::new(), Vec::new());
    let too_large = "(SELECT jsonb_agg(jsonb_build_array(number, number)) FROM generate_series(1, 300000) AS number)";
    let game = world.new_active_session(1).await;
    let sql = format!("UPDATE sessions SET game_state = {too_large} WHERE id = '{}'", game.session_id);
    for _ in 0..3 {
        let began = std::time::Instant::now();
        game.seer.execute(&format!("SELECT pg_column_size({too_large})")).await.unwrap();
        build_times.push(began.elapsed());
        let began = std::time::Instant::now();
        assert_eq!(attempt(&game.seer, &sql).await, CHECK_VIOLATION);
        refusal_times.push(began.elapsed());
    }
    let (build_time, refusal_time) = (build_times.iter().min().unwrap(), refusal_times.iter().min().unwrap());
    assert!(*refusal_time < *build_time * 3, "{refusal_time:?} to refuse the document, {build_time:?} to build it");
}
