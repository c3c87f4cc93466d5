//! The bounds of columns: a value at the bound is accepted, one past it is refused. Also: values that must be unique,
//! and the exact storage of numbers inside a document. `counters.rs` tests the counters that limit how many rows an
//! account or an adventure may have, and the counters of archived rows. `maximum_sizes.rs` tests the maximum sizes of
//! texts and documents.

use serde_json::json;
use sparc::service::{
    Error, Operations,
    sessions::{ExpectedVersion, NewSession},
};

use crate::{
    sqlstates::{CHECK_VIOLATION, START_IN_PAST, UNIQUE_VIOLATION},
    world::{SqlCaller, SqlError, World},
};

/// Asserts that this check constraint refuses the statement.
pub async fn assert_check_violation(caller: &SqlCaller, sql: &str, constraint: &str) {
    assert_refused!(caller.execute(sql).await, CHECK_VIOLATION, constraint, "{sql}");
}

/// Asserts that the statement succeeds and writes one row.
pub async fn assert_accepted(caller: &SqlCaller, sql: &str) {
    assert_eq!(caller.execute(sql).await, Ok(1), "{sql}");
}

/// Asserts that an integer column of the only row of a table accepts `low` and `high`, and refuses `low - 1` and
/// (unless `high` is the greatest integer) `high + 1`.
pub async fn assert_column_bounds(caller: &SqlCaller, table: &str, column: &str, low: i32, high: i32) {
    let update_sql = |value: i32| format!("UPDATE {table} SET {column} = {value}");
    let constraint = format!("{table}_{column}_check");
    for value in [low, high] {
        assert_accepted(caller, &update_sql(value)).await;
    }
    assert_check_violation(caller, &update_sql(low - 1), &constraint).await;
    if high < i32::MAX {
        assert_check_violation(caller, &update_sql(high + 1), &constraint).await;
    }
}

/// Asserts that the statement which `statement_sql` returns for a number succeeds for `low` and `high`, and is refused
/// for `low - 1` and `high + 1`. The number is a value, or the length of a text.
async fn assert_statement_bounds(
    caller: &SqlCaller,
    low: u32,
    high: u32,
    constraint: &str,
    statement_sql: impl Fn(u32) -> String,
) {
    assert_check_violation(caller, &statement_sql(low - 1), constraint).await;
    assert_accepted(caller, &statement_sql(low)).await;
    assert_accepted(caller, &statement_sql(high)).await;
    assert_check_violation(caller, &statement_sql(high + 1), constraint).await;
}

/// Asserts that the name in the only row of a table may have from `low` to `high` characters, each of two bytes.
async fn assert_name_length_bounds(caller: &SqlCaller, table: &str, low: u32, high: u32) {
    let update_sql = |length| format!("UPDATE {table} SET name = repeat('é', {length})");
    assert_statement_bounds(caller, low, high, "valid_name", update_sql).await;
}

#[tokio::test]
async fn the_bounds_of_characters_hold() {
    let world = World::new().await;
    world.new_player().await;
    let owner = world.owner();
    for attribute in ["might", "grace", "wit", "heart"] {
        assert_column_bounds(&owner, "characters", attribute, 1, 6).await;
    }
    assert_column_bounds(&owner, "characters", "level", 1, 10).await;
    assert_column_bounds(&owner, "characters", "experience", 0, i32::MAX).await;
    // `max_hit_points` must not be less than `hit_points`. If `hit_points` is 0, this rule refuses none of the values
    // of `max_hit_points` that are tried below.
    assert_accepted(&owner, "UPDATE characters SET hit_points = 0").await;
    assert_column_bounds(&owner, "characters", "max_hit_points", 1, 10).await;
    assert_name_length_bounds(&owner, "characters", 2, 50).await;
}

#[tokio::test]
async fn the_bounds_of_adventures_hold() {
    let world = World::new().await;
    world.new_draft_adventure(world.new_account().await).await;
    let owner = world.owner();
    assert_column_bounds(&owner, "adventures", "estimated_duration", 1, i32::MAX).await;
    assert_column_bounds(&owner, "adventures", "times_played", 0, i32::MAX).await;
    // With these two columns as far apart as possible, each of the changes below violates only one constraint.
    assert_accepted(&owner, "UPDATE adventures SET min_players = 1, max_players = 6").await;
    for (assignments, constraint) in [
        ("min_players = 0", "adventures_min_players_check"),
        ("max_players = 7", "adventures_max_players_check"),
        ("min_players = 4, max_players = 3", "valid_player_range"),
    ] {
        assert_check_violation(&owner, &format!("UPDATE adventures SET {assignments}"), constraint).await;
    }
    assert_accepted(&owner, "UPDATE adventures SET min_players = 3, max_players = 3").await;
    assert_name_length_bounds(&owner, "adventures", 3, 100).await;
}

#[tokio::test]
async fn the_bounds_of_creatures_hold() {
    let world = World::new().await;
    let adventure_id = world.new_draft_adventure(world.new_account().await).await;
    let owner = world.owner();
    assert_accepted(&owner, &format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure_id}', 'W')"))
        .await;
    assert_column_bounds(&owner, "creatures", "hit_points", 0, 1000).await;
    assert_column_bounds(&owner, "creatures", "armor", 0, 100).await;
    assert_name_length_bounds(&owner, "creatures", 1, 100).await;
}

#[tokio::test]
async fn the_bounds_of_sessions_and_seats_hold() {
    let world = World::new().await;
    world.new_session(1).await;
    let owner = world.owner();
    assert_column_bounds(&owner, "sessions", "max_players", 2, 6).await;
    assert_column_bounds(&owner, "sessions", "encounter_number", 0, i32::MAX).await;
    assert_column_bounds(&owner, "session_players", "heroic_saves_used", 0, i32::MAX).await;
    assert_column_bounds(&owner, "session_players", "heroic_saves_encounter", 0, i32::MAX).await;
    assert_check_violation(&owner, "UPDATE sessions SET seats_taken = -1", "sessions_seats_taken_check").await;
    for code in ["abc234", "ABC23", "ABC23!", "ABC 23"] {
        assert_check_violation(&owner, &format!("UPDATE sessions SET code = '{code}'"), "valid_code").await;
    }
    // Generated codes contain neither 0 nor 1, but the constraint, which is that of the game's specification, permits
    // both.
    assert_accepted(&owner, "UPDATE sessions SET code = 'ABC019'").await;
}

#[tokio::test]
async fn the_bounds_of_rolls_and_events_hold() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let owner = world.owner();
    let insert_roll_sql = |difficulty| {
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
             VALUES ('{}', '{}', 'wit', {difficulty}, 'damage')",
            game.session_id, game.players[0].character_id
        )
    };
    assert_statement_bounds(&owner, 3, 18, "dice_rolls_difficulty_check", insert_roll_sql).await;
    let add_second_roller = "UPDATE dice_rolls SET creature_id = gen_random_uuid() WHERE character_id IS NOT NULL";
    assert_check_violation(&owner, add_second_roller, "valid_roller").await;
    assert_check_violation(&owner, "UPDATE dice_rolls SET modifiers = '[1]'", "valid_modifiers").await;
    let insert_event_sql = |event_type_sql: &str| {
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', {event_type_sql})", game.session_id)
    };
    let insert_event_with_type_length_sql = |length| insert_event_sql(&format!("repeat('x', {length})"));
    assert_statement_bounds(&owner, 1, 64, "valid_event_type", insert_event_with_type_length_sql).await;
    // Control characters and line separators.
    for code_point in ["1", "10", "13", "31", "127", "133", "8232", "8233"] {
        let sql = insert_event_sql(&format!("'client.a' || chr({code_point}) || 'b'"));
        assert_check_violation(&owner, &sql, "valid_event_type").await;
    }
}

#[tokio::test]
async fn games_played_and_games_run_are_not_negative() {
    let world = World::new().await;
    world.new_account().await;
    for counter in ["games_played", "games_run"] {
        assert_column_bounds(&world.owner(), "users", counter, 0, i32::MAX).await;
    }
}

#[tokio::test]
async fn a_duplicate_name_code_event_number_or_heroic_save_is_refused() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let owner = world.owner();
    let assert_unique_violation = |outcome: Result<u64, SqlError>, constraint: &str| {
        assert_refused!(outcome, UNIQUE_VIOLATION, constraint, "{constraint}");
    };
    // The account then has two characters, which the UPDATE would give the same name.
    world.new_character(game.players[0].user_id).await;
    let outcome = owner.execute("UPDATE characters SET name = 'Namesake'").await;
    assert_unique_violation(outcome, "unique_user_character_name");
    let insert_repeated_code = format!(
        "INSERT INTO sessions (seer_id, adventure_id, code)
         SELECT seer_id, adventure_id, code FROM sessions WHERE id = '{}'",
        game.session_id
    );
    assert_unique_violation(world.service().execute(&insert_repeated_code).await, "sessions_code_key");
    let roll_id = world.new_attack_roll(game.session_id, game.players[0].character_id, "{1,2}", 10, 0).await;
    // Triggers are disabled, so that the unique index itself refuses the row.
    let insert_two_heroic_saves = format!(
        "SET LOCAL session_replication_role = replica;
         INSERT INTO dice_rolls (session_id, character_id, character_name, attribute, dice_count, difficulty, roll_type,
           results, total, modified_total, success, outcome, margin, original_roll_id)
         SELECT session_id, character_id, character_name, attribute, dice_count, difficulty, 'heroic_save', results, total,
           modified_total, success, outcome, margin, id
         FROM dice_rolls, generate_series(1, 2) WHERE id = '{roll_id}'"
    );
    assert_unique_violation(world.superuser().await.execute(&insert_two_heroic_saves).await, "idx_dice_rolls_original");
    let insert_two_events = format!(
        "SET LOCAL session_replication_role = replica;
         INSERT INTO session_events (session_id, event_type, seq) OVERRIDING SYSTEM VALUE
         SELECT '{}', 'dice_rolled', 1 FROM generate_series(1, 2)",
        game.session_id
    );
    assert_unique_violation(world.superuser().await.execute(&insert_two_events).await, "idx_session_events_seq");
}

#[tokio::test]
async fn an_extreme_start_date_is_refused_by_the_database() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.update_session(&game, "is_public = true").await;
    for date in ["infinity", "-infinity", "294276-12-31", "4713-01-01 BC", "1999-12-31", "3000-01-02"] {
        let set_date = format!("UPDATE sessions SET scheduled_start = '{date}'");
        let is_in_past = ["-infinity", "4713-01-01 BC", "1999-12-31"].contains(&date);
        // For the Seer, a trigger refuses a date in the past before the constraint is checked.
        let (sqlstate, constraint) =
            if is_in_past { (START_IN_PAST, "scheduled_in_future") } else { (CHECK_VIOLATION, "bounded_schedule") };
        assert_refused!(game.seer.execute(&set_date).await, sqlstate, constraint, "{date}");
        // The service may set a date in the past, but only in the years 2000 to 2999. All of these dates lie outside.
        assert_refused!(world.service().execute(&set_date).await, CHECK_VIOLATION, "bounded_schedule", "{date}");
    }
    game.seer.execute("UPDATE sessions SET scheduled_start = '2999-12-31'").await.unwrap();
    let lobby = world.sparc.as_anon().sessions().lobby(&Default::default(), None).await.unwrap();
    assert_eq!(lobby.items.len(), 1, "the Rust operations must be able to read the latest date that the test sets");
}

#[tokio::test]
async fn a_start_at_the_earliest_or_latest_time_of_chrono_is_an_invalid_value() {
    let world = World::new().await;
    let seer_id = world.new_account().await;
    let adventure_id = world.new_adventure(seer_id).await;
    let seer = world.sparc.as_user(seer_id);
    for extreme in [chrono::DateTime::<chrono::Utc>::MAX_UTC, chrono::DateTime::<chrono::Utc>::MIN_UTC] {
        let new_session = NewSession { adventure_id, scheduled_start: Some(extreme), ..Default::default() };
        assert_error!(seer.sessions().create(new_session).await, Error::InvalidValue { .. });
    }
}

#[tokio::test]
async fn numbers_in_a_document_are_returned_as_they_were_sent() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let mut rng = fastrand::Rng::with_seed(17);
    let mut numbers: Vec<serde_json::Value> = Vec::new();
    while numbers.len() < 2000 {
        let float = f64::from_bits(rng.u64(..));
        // The database refuses a document with a number beyond 1e308 or, except for 0, closer to 0 than 1e-308. This
        // test leaves out numbers close to these limits.
        if float.is_finite() && float.abs() > 1e-300 && float.abs() < 1e300 {
            numbers.push(json!(float));
        }
        numbers.push(json!(rng.f64()));
        numbers.push(json!(rng.u64(..)));
        numbers.push(json!(rng.i64(..)));
    }
    for sent_numbers in numbers.chunks(50) {
        let state = json!({ "numbers": sent_numbers });
        let updated_session =
            seer.sessions().set_game_state(game.session_id, state, ExpectedVersion::Any).await.unwrap();
        let stored_numbers = updated_session.game_state["numbers"].as_array().unwrap().clone();
        assert_eq!(stored_numbers.len(), sent_numbers.len());
        for (sent, stored) in sent_numbers.iter().zip(&stored_numbers) {
            let is_equal = match (sent.as_u64(), sent.as_i64()) {
                (None, None) => sent.as_f64() == stored.as_f64(),
                integer => integer == (stored.as_u64(), stored.as_i64()),
            };
            assert!(is_equal, "{sent} came back as {stored}");
        }
        // Sending the state back as it was returned must change nothing, not even the version.
        let session_after_repetition = seer
            .sessions()
            .set_game_state(game.session_id, updated_session.game_state.clone(), ExpectedVersion::Any)
            .await
            .unwrap();
        assert_eq!(
            (session_after_repetition.game_state_version, &session_after_repetition.game_state),
            (updated_session.game_state_version, &updated_session.game_state)
        );
    }
}
