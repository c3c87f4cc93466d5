//! Attacks on the game itself. Statements over many rows do not deadlock. A heroic save (a second roll of a failed
//! roll, once per encounter) is used up only if its row is inserted. Statistics cannot be inflated. Old sessions cannot
//! fill the lobby (the list of public sessions that wait for players). A number in modifiers or stats is refused if
//! PostgreSQL would not print it as an integer (`5.0` is refused, `5e0` is not). Hit points stay within their bounds.

use sparc::service::{Operations, sessions::LobbyFilter};
use uuid::Uuid;

use super::{
    assert_invariants, attempt, dry_run, execute_in, new_public_session, query_number, sql_outcome,
    sqlstates::{
        CHECK_VIOLATION, DEADLOCK_DETECTED, HEROIC_SAVE_SPENT, SESSION_HAS_NO_PLAYER, START_IN_PAST, UNIQUE_VIOLATION,
    },
};
use crate::world::{Player, World, insert_heroic_save_sql, insert_seat_sql, run_together};

/// Creates sessions of two Seers for the same pairs of players, in opposite orders, and returns the Seers. So if each
/// Seer ends all their sessions in one statement, the two statements find the players in opposite orders. `status` is
/// the status that the sessions get: `waiting` or `active`.
async fn create_sessions_in_opposite_orders(world: &World, status: &str) -> [Uuid; 2] {
    let seers = [world.new_account().await, world.new_account().await];
    let adventures = [world.new_adventure(seers[0]).await, world.new_adventure(seers[1]).await];
    let mut players: Vec<Player> = Vec::new();
    for _ in 0..16 {
        players.push(world.new_player().await);
    }
    let mut pairs: Vec<&[Player]> = players.chunks(2).collect();
    for (seer, adventure) in seers.iter().zip(adventures) {
        for pair in &pairs {
            let session = new_public_session(world, *seer, adventure).await;
            for player in *pair {
                world.owner().execute(&insert_seat_sql(session, player.user_id, player.character_id)).await.unwrap();
            }
        }
        pairs.reverse();
    }
    if status == "active" {
        world.owner().execute("UPDATE sessions SET status = 'active'").await.unwrap();
    }
    seers
}

#[tokio::test]
async fn statements_over_many_rows_never_deadlock() {
    // In each round, both Seers end all their sessions. In all but the first, another statement runs at the same time.
    for third_statement in ["none", "leave all sessions", "close a player's account", "close a Seer's account"] {
        let world = World::new().await;
        let status = if third_statement == "leave all sessions" { "waiting" } else { "active" };
        let [first_seer, second_seer] = create_sessions_in_opposite_orders(&world, status).await;
        let owner = world.owner();
        let final_status = if status == "active" { "completed" } else { "cancelled" };
        let end_all_sql = |seer: Uuid| {
            format!("UPDATE sessions SET status = '{final_status}' WHERE seer_id = '{seer}' AND ended_at IS NULL")
        };
        let player_id: Uuid = owner.fetch_value("SELECT user_id FROM session_players LIMIT 1").await.unwrap();
        let mut statements = vec![
            (world.user(first_seer), end_all_sql(first_seer)),
            (world.user(second_seer), end_all_sql(second_seer)),
        ];
        match third_statement {
            "none" => {}
            "leave all sessions" => statements.push((
                world.user(player_id),
                format!("UPDATE session_players SET is_active = false WHERE user_id = '{player_id}' AND is_active"),
            )),
            "close a player's account" => {
                statements.push((world.user(player_id), format!("SELECT private.close_account('{player_id}')")))
            }
            _ => statements.push((world.user(first_seer), format!("SELECT private.close_account('{first_seer}')"))),
        }
        let tasks: Vec<_> =
            statements.into_iter().map(|(caller, sql)| async move { attempt(&caller, &sql).await }).collect();
        let outcomes = run_together(tasks).await;
        assert!(
            outcomes.iter().all(|outcome| outcome != DEADLOCK_DETECTED),
            "third statement: {third_statement}: {outcomes:?}"
        );
        assert_invariants(&world).await;
    }
}

#[tokio::test]
async fn a_heroic_save_that_writes_no_row_is_not_used_up() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let player = &game.players[0];
    let character = player.character_id;
    let failed_roll = world.new_failed_roll(game.session_id, character).await;
    let other_failed_roll = world.new_failed_roll(game.session_id, character).await;
    let roll_of_fellow_player = world.new_failed_roll(game.session_id, game.players[1].character_id).await;
    let seat_with_unused_save = format!(
        "session_players WHERE session_id = '{}' AND user_id = '{}' AND heroic_saves_used = 0",
        game.session_id, player.user_id
    );
    let insert_save_sql = |id: Uuid, suffix: &str| {
        format!(
            "INSERT INTO dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type, original_roll_id)
             VALUES ('{id}', '{}', '{character}', 'might', 10, 'heroic_save', '{failed_roll}'){suffix}",
            game.session_id
        )
    };
    // With the id of an existing roll, no row is inserted.
    for id in [other_failed_roll, failed_roll, roll_of_fellow_player] {
        for (suffix, expected_outcome) in
            [(" ON CONFLICT DO NOTHING", "no row"), (" ON CONFLICT (id) DO NOTHING", "no row"), ("", UNIQUE_VIOLATION)]
        {
            assert_eq!(attempt(&player.caller, &insert_save_sql(id, suffix)).await, expected_outcome, "{suffix}");
            assert_eq!(world.owner().count(&seat_with_unused_save).await, 1, "{id}{suffix} must not use up the save");
        }
    }
    let insert_no_row = format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, original_roll_id)
         SELECT '{}', '{character}', 'might', 10, 'heroic_save', '{failed_roll}' WHERE false",
        game.session_id
    );
    assert_eq!(attempt(&player.caller, &insert_no_row).await, "no row");
    assert_eq!(world.owner().count(&seat_with_unused_save).await, 1);
    // A save whose transaction is rolled back, wholly or to a savepoint, is not used up either.
    assert_eq!(dry_run(&player.caller, &insert_save_sql(Uuid::new_v4(), "")).await, "done");
    assert_eq!(world.owner().count(&seat_with_unused_save).await, 1, "rolled back");
    let transaction = player.caller.begin().await;
    execute_in(&transaction, "SAVEPOINT before").await.unwrap();
    execute_in(&transaction, &insert_save_sql(Uuid::new_v4(), "")).await.unwrap();
    execute_in(&transaction, "ROLLBACK TO before").await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(world.owner().count(&seat_with_unused_save).await, 1);
    // The save can still be used, once.
    assert_eq!(attempt(&player.caller, &insert_save_sql(Uuid::new_v4(), " ON CONFLICT DO NOTHING")).await, "done");
    assert_eq!(world.owner().count(&seat_with_unused_save).await, 0);
    let insert_second_save =
        format!("{} ON CONFLICT DO NOTHING", insert_heroic_save_sql(game.session_id, character, other_failed_roll));
    assert_eq!(attempt(&player.caller, &insert_second_save).await, HEROIC_SAVE_SPENT);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn one_statement_cannot_make_two_heroic_saves() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let (failed_roll, other_failed_roll) = (
        world.new_failed_roll(game.session_id, player.character_id).await,
        world.new_failed_roll(game.session_id, player.character_id).await,
    );
    let skip_conflicts = " ON CONFLICT DO NOTHING";
    for (second_original, suffix, expected_outcome) in [
        (other_failed_roll, "", HEROIC_SAVE_SPENT),
        (other_failed_roll, skip_conflicts, HEROIC_SAVE_SPENT),
        (failed_roll, "", UNIQUE_VIOLATION),
        // The second row is skipped.
        (failed_roll, skip_conflicts, "done"),
    ] {
        let values_sql = |original: Uuid| {
            format!("('{}', '{}', 'might', 10, 'heroic_save', '{original}')", game.session_id, player.character_id)
        };
        let sql = format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, original_roll_id)
             VALUES {}, {}{suffix}",
            values_sql(failed_roll),
            values_sql(second_original)
        );
        let transaction = player.caller.begin().await;
        let outcome = execute_in(&transaction, &sql).await;
        assert!(matches!(outcome, Ok(1) | Err(_)), "one statement must make at most one save: {outcome:?}\n{sql}");
        assert_eq!(sql_outcome(outcome), expected_outcome, "{sql}");
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn sessions_without_players_do_not_count_as_played() {
    let world = World::new().await;
    let seer = world.new_player().await;
    let adventure = world.new_adventure(seer.user_id).await;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        sessions.push(new_public_session(&world, seer.user_id, adventure).await);
    }
    let set_status_sql = |status: &str| {
        format!("UPDATE sessions SET status = '{status}' WHERE seer_id = '{}' AND ended_at IS NULL", seer.user_id)
    };
    assert_eq!(attempt(&seer.caller, &set_status_sql("active")).await, SESSION_HAS_NO_PLAYER);
    assert_eq!(attempt(&seer.caller, &set_status_sql("starting_soon")).await, "done");
    assert_eq!(attempt(&seer.caller, &set_status_sql("active")).await, SESSION_HAS_NO_PLAYER);
    // A player who has left is not enough to start the session.
    let guest = world.new_player().await;
    let (session, other_sessions) = sessions.split_first().unwrap();
    assert_eq!(attempt(&guest.caller, &insert_seat_sql(*session, guest.user_id, guest.character_id)).await, "done");
    let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", guest.user_id);
    assert_eq!(attempt(&guest.caller, &leave).await, "done");
    let start = format!("UPDATE sessions SET status = 'active' WHERE id = '{session}'");
    assert_eq!(attempt(&seer.caller, &start).await, SESSION_HAS_NO_PLAYER);
    for session in other_sessions {
        // In these sessions, nobody but the Seer tries to take a seat. Whichever of these statements are accepted, the
        // session is not counted.
        attempt(&seer.caller, &insert_seat_sql(*session, seer.user_id, seer.character_id)).await;
        for status in ["active", "completed"] {
            attempt(&seer.caller, &format!("UPDATE sessions SET status = '{status}' WHERE id = '{session}'")).await;
        }
    }
    assert_eq!(
        query_number(&world, &format!("SELECT games_run + games_played FROM users WHERE id = '{}'", seer.user_id))
            .await,
        0
    );
    assert_eq!(query_number(&world, &format!("SELECT times_played FROM adventures WHERE id = '{adventure}'")).await, 0);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_session_that_is_completed_by_many_requests_at_once_is_counted_once() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let leaver = &game.players[1];
    let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", leaver.user_id);
    assert_eq!(attempt(&leaver.caller, &leave).await, "done");
    let complete = format!("UPDATE sessions SET status = 'completed' WHERE id = '{}'", game.session_id);
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (seer, sql) = (game.seer.clone(), complete.clone());
            async move { attempt(&seer, &sql).await }
        })
        .collect();
    run_together(tasks).await;
    let select_counter_sql =
        |account: Uuid, counter: &str| format!("SELECT {counter} FROM users WHERE id = '{account}'");
    assert_eq!(query_number(&world, &select_counter_sql(game.seer.user_id(), "games_run")).await, 1);
    for player in &game.players {
        assert_eq!(
            query_number(&world, &select_counter_sql(player.user_id, "games_played")).await,
            1,
            "the session counts for the player who left, too"
        );
    }
    let sql = format!("SELECT times_played FROM adventures WHERE id = '{}'", game.adventure_id);
    assert_eq!(query_number(&world, &sql).await, 1);
}

#[tokio::test]
async fn no_seer_schedules_a_session_more_than_an_hour_in_the_past() {
    let world = World::new().await;
    let seer = world.new_user().await;
    let adventure = world.new_adventure(seer.user_id()).await;
    let insert_sql = |start: &str| {
        format!(
            "INSERT INTO sessions (seer_id, adventure_id, is_public, scheduled_start)
             VALUES ('{}', '{adventure}', true, {start})",
            seer.user_id()
        )
    };
    // Without the column `seer_id`, the caller becomes the Seer.
    let insert_without_seer_sql =
        |start: &str| format!("INSERT INTO sessions (adventure_id, scheduled_start) VALUES ('{adventure}', {start})");
    let session = new_public_session(&world, seer.user_id(), adventure).await;
    let update_sql = |start: &str| format!("UPDATE sessions SET scheduled_start = {start} WHERE id = '{session}'");
    for past in
        ["'2000-01-01'", "now() - INTERVAL '61 minutes'", "now() - INTERVAL '2 hours'", "now() - INTERVAL '1 year'"]
    {
        assert_eq!(dry_run(&seer, &insert_sql(past)).await, START_IN_PAST, "{past}");
        assert_eq!(dry_run(&seer, &insert_without_seer_sql(past)).await, START_IN_PAST, "{past}");
        assert_eq!(dry_run(&seer, &update_sql(past)).await, START_IN_PAST, "{past}");
    }
    for out_of_range in ["'-infinity'", "'infinity'", "'0044-03-15 BC'", "'294000-01-01'"] {
        for sql in [insert_sql(out_of_range), insert_without_seer_sql(out_of_range), update_sql(out_of_range)] {
            let outcome = dry_run(&seer, &sql).await;
            assert!([START_IN_PAST, CHECK_VIOLATION].contains(&outcome.as_str()), "{outcome}: {sql}");
        }
    }
    for valid in ["NULL", "now() - INTERVAL '59 minutes'", "now() + INTERVAL '1 day'"] {
        assert_eq!(dry_run(&seer, &insert_sql(valid)).await, "done", "{valid}");
        assert_eq!(dry_run(&seer, &insert_without_seer_sql(valid)).await, "done", "{valid}");
        assert_eq!(dry_run(&seer, &update_sql(valid)).await, "done", "{valid}");
    }
    // A session whose start has passed can still be edited, also by a statement that writes the same start again.
    let move_start_into_past =
        format!("UPDATE sessions SET scheduled_start = now() - INTERVAL '3 hours' WHERE id = '{session}'");
    world.owner().execute(&move_start_into_past).await.unwrap();
    for set in [
        "looking_for = 'A healer'",
        "scheduled_start = scheduled_start, looking_for = 'A healer'",
        "max_players = 5",
        "status = 'starting_soon'",
    ] {
        assert_eq!(dry_run(&seer, &format!("UPDATE sessions SET {set} WHERE id = '{session}'")).await, "done", "{set}");
    }
}

#[tokio::test]
async fn the_lobby_omits_sessions_that_are_more_than_six_hours_late() {
    let world = World::new().await;
    let seer = world.new_account().await;
    let adventure = world.new_adventure(seer).await;
    let mut sessions = Vec::new();
    for starts_in_hours in [-24 * 365, -7, -5, 1] {
        let session = new_public_session(&world, seer, adventure).await;
        let sql = format!(
            "UPDATE sessions SET scheduled_start = now() + INTERVAL '{starts_in_hours} hours' WHERE id = '{session}'"
        );
        world.owner().execute(&sql).await.unwrap();
        sessions.push(session);
    }
    for caller in [world.sparc.as_anon(), world.sparc.as_user(world.new_account().await)] {
        let page = caller.sessions().lobby(&LobbyFilter::default(), None).await.unwrap();
        let shown_ids: Vec<Uuid> = page.items.iter().map(|session| session.id).collect();
        assert_eq!(shown_ids, sessions[2..], "the two that are more than six hours late are left out");
    }
}

#[tokio::test]
async fn a_modifier_whose_value_would_not_be_printed_as_an_integer_is_refused() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let insert_roll_sql = |value: &str| {
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, modifiers)
             VALUES ('{}', '{}', 'might', 10, 'attack',
               '[{{\"type\": \"flat\", \"value\": {value}, \"source\": \"x\"}}]')",
            game.session_id, game.players[0].character_id
        )
    };
    // 11, -11 and 1e400 are integers, but out of range.
    for value in
        ["5.0", "5.00", "0.0", "-3.0", "50e-1", "5.5", "1e400", "\"5\"", "null", "true", "11", "-11", "[5]", "{}"]
    {
        for caller in [&game.players[0].caller, &world.service()] {
            let outcome = caller.execute(&insert_roll_sql(value)).await;
            assert_refused!(outcome, CHECK_VIOLATION, "valid_modifiers", "{value}");
        }
    }
    for value in ["5", "-5", "0", "-0", "10", "-10", "5e0", "1E1", "0.5e1"] {
        let outcome = attempt(&game.players[0].caller, &insert_roll_sql(value)).await;
        assert_eq!(outcome, "done", "{value}");
    }
    // PostgreSQL prints each of the accepted values as a plain integer, for example `0.5e1` as `5`.
    let non_integer_modifiers =
        "dice_rolls, jsonb_array_elements(modifiers) AS modifier WHERE modifier ->> 'value' !~ '^-?[0-9]+$'";
    assert_eq!(world.owner().count(non_integer_modifiers).await, 0, "every stored value must be printed as an integer");
}

#[tokio::test]
async fn a_creature_whose_attributes_would_not_be_printed_as_integers_is_refused() {
    let world = World::new().await;
    let seer = world.new_user().await;
    let draft_adventure = world.new_draft_adventure(seer.user_id()).await;
    // 0 and 11 are integers, but out of range.
    for value in ["5.0", "50e-1", "5.5", "0", "11", "\"5\""] {
        let sql = format!(
            "INSERT INTO creatures (adventure_id, name, stats)
             VALUES ('{draft_adventure}', 'Rat', '{{\"might\": {value}, \"grace\": 1, \"wit\": 1, \"heart\": 1}}')"
        );
        assert_eq!(dry_run(&seer, &sql).await, CHECK_VIOLATION, "{value}");
    }
}

#[tokio::test]
async fn a_change_of_hit_points_by_zero_or_null_does_nothing_and_other_changes_are_clamped() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let select_hit_points = format!("SELECT hit_points FROM characters WHERE id = '{}'", player.character_id);
    let wound = format!("SELECT * FROM private.change_hit_points('{}', -4)", player.character_id);
    assert_eq!(attempt(&player.caller, &wound).await, "done");
    let hit_points_before = query_number(&world, &select_hit_points).await;
    for caller in [&player.caller, &game.seer, &world.service()] {
        for change in ["NULL", "NULL::integer", "(SELECT NULL::integer)", "0"] {
            let sql = format!("SELECT * FROM private.change_hit_points('{}', {change})", player.character_id);
            let outcome = attempt(caller, &sql).await;
            assert_eq!(query_number(&world, &select_hit_points).await, hit_points_before, "{change}: {outcome}");
        }
    }
    // A change by the largest or smallest integer is accepted, and the hit points are clamped.
    for (change, expected_hit_points) in [("2147483647", "max_hit_points"), ("-2147483648", "0")] {
        let sql = format!("SELECT * FROM private.change_hit_points('{}', {change})", player.character_id);
        assert_eq!(attempt(&game.seer, &sql).await, "done");
        let clamped_character =
            format!("characters WHERE id = '{}' AND hit_points = {expected_hit_points}", player.character_id);
        assert_eq!(world.owner().count(&clamped_character).await, 1, "{change}");
    }
}
