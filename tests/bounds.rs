//! The bounds of columns that users and the service write: a value at the bound is accepted, one past it is refused.
//! The bounds of counters are tested in `counters.rs`, those of texts and documents in `maximum_sizes.rs`.

use sparc::service::{Error, Operations, sessions::NewSession};

use crate::world::{Person, World};

/// Asserts that the check constraint refuses the statement.
pub async fn assert_check_violation(person: &Person, sql: &str, constraint: &str) {
    assert_refused!(person.exec(sql).await, "23514", constraint, "{sql}");
}

pub async fn assert_accepted(person: &Person, sql: &str) {
    assert_eq!(person.exec(sql).await, Ok(1), "{sql}");
}

/// Asserts that an integer column accepts `low` and `high`, but neither `low - 1` nor `high + 1`.
pub async fn assert_integer_bounds(person: &Person, table: &str, column: &str, low: i32, high: i32) {
    let set = |value: i32| format!("UPDATE {table} SET {column} = {value}");
    let constraint = format!("{table}_{column}_check");
    for value in [low, high] {
        assert_accepted(person, &set(value)).await;
    }
    assert_check_violation(person, &set(low - 1), &constraint).await;
    if high < i32::MAX {
        assert_check_violation(person, &set(high + 1), &constraint).await;
    }
}

/// Asserts that the statement made from a number succeeds for `low` and `high`, and is refused for `low - 1` and
/// `high + 1`. The number is a value, or the length of a text.
async fn assert_number_bounds(
    person: &Person,
    low: u32,
    high: u32,
    constraint: &str,
    statement: impl Fn(u32) -> String,
) {
    assert_check_violation(person, &statement(low - 1), constraint).await;
    assert_accepted(person, &statement(low)).await;
    assert_accepted(person, &statement(high)).await;
    assert_check_violation(person, &statement(high + 1), constraint).await;
}

async fn assert_name_length(person: &Person, table: &str, low: u32, high: u32) {
    let set = |length| format!("UPDATE {table} SET name = repeat('é', {length})");
    assert_number_bounds(person, low, high, "valid_name", set).await;
}

#[tokio::test]
async fn the_bounds_of_characters_hold() {
    let world = World::new().await;
    world.new_player().await;
    let owner = world.owner();
    for attribute in ["might", "grace", "wit", "heart"] {
        assert_integer_bounds(&owner, "characters", attribute, 1, 6).await;
    }
    assert_integer_bounds(&owner, "characters", "level", 1, 10).await;
    assert_integer_bounds(&owner, "characters", "experience", 0, i32::MAX).await;
    assert_accepted(&owner, "UPDATE characters SET hit_points = 0").await;
    assert_integer_bounds(&owner, "characters", "max_hit_points", 1, 10).await;
    assert_name_length(&owner, "characters", 2, 50).await;
}

#[tokio::test]
async fn the_bounds_of_adventures_hold() {
    let world = World::new().await;
    world.new_draft(world.new_account().await).await;
    let owner = world.owner();
    assert_accepted(&owner, "UPDATE adventures SET min_players = 1, max_players = 6").await;
    assert_integer_bounds(&owner, "adventures", "estimated_duration", 1, i32::MAX).await;
    assert_integer_bounds(&owner, "adventures", "times_played", 0, i32::MAX).await;
    for (players, constraint) in [
        ("min_players = 0", "adventures_min_players_check"),
        ("max_players = 7", "adventures_max_players_check"),
        ("min_players = 4, max_players = 3", "valid_player_range"),
    ] {
        assert_check_violation(&owner, &format!("UPDATE adventures SET {players}"), constraint).await;
    }
    assert_accepted(&owner, "UPDATE adventures SET min_players = 3, max_players = 3").await;
    assert_name_length(&owner, "adventures", 3, 100).await;
}

#[tokio::test]
async fn the_bounds_of_creatures_hold() {
    let world = World::new().await;
    let adventure = world.new_draft(world.new_account().await).await;
    let owner = world.owner();
    assert_accepted(&owner, &format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'W')")).await;
    assert_integer_bounds(&owner, "creatures", "hit_points", 0, 1000).await;
    assert_integer_bounds(&owner, "creatures", "armor", 0, 100).await;
    assert_name_length(&owner, "creatures", 1, 100).await;
}

#[tokio::test]
async fn the_bounds_of_sessions_and_seats_hold() {
    let world = World::new().await;
    world.new_session(1).await;
    let owner = world.owner();
    assert_integer_bounds(&owner, "sessions", "max_players", 2, 6).await;
    assert_integer_bounds(&owner, "sessions", "encounters_begun", 0, i32::MAX).await;
    assert_integer_bounds(&owner, "session_players", "heroic_saves_used", 0, i32::MAX).await;
    assert_integer_bounds(&owner, "session_players", "heroic_saves_encounter", 0, i32::MAX).await;
    assert_check_violation(&owner, "UPDATE sessions SET seats_taken = -1", "sessions_seats_taken_check").await;
    for code in ["abc234", "ABC23", "ABC23!", "ABC 23"] {
        assert_check_violation(&owner, &format!("UPDATE sessions SET code = '{code}'"), "valid_code").await;
    }
    // Generated codes contain neither 0 nor 1, but the constraint of the specification permits both.
    assert_accepted(&owner, "UPDATE sessions SET code = 'ABC019'").await;
}

#[tokio::test]
async fn the_bounds_of_rolls_and_events_hold() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let owner = world.owner();
    let roll = |difficulty| {
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
             VALUES ('{}', '{}', 'wit', {difficulty}, 'damage')",
            game.session, game.players[0].character
        )
    };
    assert_number_bounds(&owner, 3, 18, "dice_rolls_difficulty_check", roll).await;
    let two_rollers = "UPDATE dice_rolls SET creature_id = gen_random_uuid() WHERE character_id IS NOT NULL";
    assert_check_violation(&owner, two_rollers, "valid_roller").await;
    assert_check_violation(&owner, "UPDATE dice_rolls SET modifiers = '[1]'", "valid_modifiers").await;
    let event =
        |kind: &str| format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', {kind})", game.session);
    assert_number_bounds(&owner, 1, 64, "valid_event_type", |length| event(&format!("repeat('x', {length})"))).await;
    for code in ["1", "10", "13", "31", "127", "133", "8232", "8233"] {
        let sql = event(&format!("'client.a' || chr({code}) || 'b'"));
        assert_check_violation(&owner, &sql, "valid_event_type").await;
    }
}

#[tokio::test]
async fn games_played_and_games_run_are_not_negative() {
    let world = World::new().await;
    world.new_account().await;
    for counter in ["games_played", "games_run"] {
        assert_integer_bounds(&world.owner(), "users", counter, 0, i32::MAX).await;
    }
}

#[tokio::test]
async fn unique_values_cannot_be_repeated() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let owner = world.owner();
    let assert_taken = |outcome: Result<u64, crate::world::Refused>, constraint: &str| {
        assert_refused!(outcome, "23505", constraint, "{constraint}");
    };
    world.new_character(game.players[0].id).await;
    assert_taken(owner.exec("UPDATE characters SET name = 'Namesake'").await, "unique_user_character_name");
    let again = format!(
        "INSERT INTO sessions (seer_id, adventure_id, code) SELECT seer_id, adventure_id, code FROM sessions WHERE id = '{}'",
        game.session
    );
    assert_taken(world.service().exec(&again).await, "sessions_code_key");
    let first = world.new_roll(game.session, game.players[0].character, "{1,2}", 10, 0).await;
    // Triggers are disabled, as when a dump is restored, so that the unique index itself refuses the row.
    let saves = format!(
        "SET LOCAL session_replication_role = replica;
         INSERT INTO dice_rolls (session_id, character_id, character_name, attribute, dice_count, difficulty, roll_type,
           results, total, modified_total, success, outcome, margin, original_roll_id)
         SELECT session_id, character_id, character_name, attribute, dice_count, difficulty, 'heroic_save', results, total,
           modified_total, success, outcome, margin, id
         FROM dice_rolls, generate_series(1, 2) WHERE id = '{first}'"
    );
    assert_taken(world.administrator().await.exec(&saves).await, "idx_dice_rolls_original");
    let events = format!(
        "SET LOCAL session_replication_role = replica;
         INSERT INTO session_events (session_id, event_type, seq) OVERRIDING SYSTEM VALUE
         SELECT '{}', 'dice_rolled', 1 FROM generate_series(1, 2)",
        game.session
    );
    assert_taken(world.administrator().await.exec(&events).await, "idx_session_events_seq");
}

#[tokio::test]
async fn an_extreme_date_is_refused() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.set(&game, "is_public = true").await;
    for date in ["infinity", "-infinity", "294276-12-31", "4713-01-01 BC", "1999-12-31", "3000-01-02"] {
        let change = format!("UPDATE sessions SET scheduled_start = '{date}'");
        // For the Seer, a trigger refuses a date in the past before the constraint is checked.
        if !date.contains("-infinity") && !date.contains("BC") && !date.starts_with("1999") {
            assert_refused!(game.seer.exec(&change).await, "23514", "bounded_schedule", "{date}");
        } else {
            assert_refused!(game.seer.exec(&change).await, "SP030", "scheduled_in_future", "{date}");
        }
        let refused = world.service().exec(&change).await;
        assert_refused!(refused, "23514", "bounded_schedule", "{date}");
    }
    game.seer.exec("UPDATE sessions SET scheduled_start = '2999-12-31'").await.unwrap();
    assert_eq!(world.sparc.as_anon().sessions().lobby(&Default::default(), None).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn dates_that_the_service_accepts_are_bounded() {
    let world = World::new().await;
    let seer = world.new_account().await;
    let adventure_id = world.new_adventure(seer).await;
    let me = world.sparc.as_user(seer);
    for extreme in [chrono::DateTime::<chrono::Utc>::MAX_UTC, chrono::DateTime::<chrono::Utc>::MIN_UTC] {
        let new = NewSession { adventure_id, scheduled_start: Some(extreme), ..Default::default() };
        let refused = me.sessions().create(new).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidValue { .. }), "{refused:?}");
    }
}
