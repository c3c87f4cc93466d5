//! Every bound of the tables, at its edge and one beyond.

use crate::world::{Person, World};

/// The statement is refused by that constraint.
async fn beyond(person: &Person, sql: &str, constraint: &str) {
    let no = person.exec(sql).await.expect_err(sql);
    assert!(no.is("23514", constraint), "{sql}: {no:?}");
}

async fn within(person: &Person, sql: &str) {
    assert_eq!(person.exec(sql).await, Ok(1), "{sql}");
}

/// A column, its least and its greatest.
async fn whole_number(person: &Person, table: &str, column: &str, low: i32, high: i32) {
    let set = |value: i32| format!("UPDATE {table} SET {column} = {value}");
    let constraint = format!("{table}_{column}_check");
    for value in [low, high] {
        within(person, &set(value)).await;
    }
    beyond(person, &set(low - 1), &constraint).await;
    if high < i32::MAX {
        beyond(person, &set(high + 1), &constraint).await;
    }
}

#[tokio::test]
async fn of_characters() {
    let world = World::new().await;
    world.player().await;
    let owner = world.owner();
    for attribute in ["might", "grace", "wit", "heart"] {
        whole_number(&owner, "characters", attribute, 1, 6).await;
    }
    whole_number(&owner, "characters", "level", 1, 10).await;
    whole_number(&owner, "characters", "experience", 0, i32::MAX).await;
    within(&owner, "UPDATE characters SET hit_points = 0").await;
    whole_number(&owner, "characters", "max_hit_points", 1, 10).await;
    for (length, fits) in [(1, false), (2, true), (50, true), (51, false)] {
        let sql = format!("UPDATE characters SET name = repeat('é', {length})");
        if fits { within(&owner, &sql).await } else { beyond(&owner, &sql, "valid_name").await }
    }
}

#[tokio::test]
async fn of_adventures() {
    let world = World::new().await;
    world.draft(world.account().await).await;
    let owner = world.owner();
    within(&owner, "UPDATE adventures SET min_players = 1, max_players = 6").await;
    whole_number(&owner, "adventures", "estimated_duration", 1, i32::MAX).await;
    whole_number(&owner, "adventures", "times_played", 0, i32::MAX).await;
    for (players, constraint) in [
        ("min_players = 0", "adventures_min_players_check"),
        ("max_players = 7", "adventures_max_players_check"),
        ("min_players = 4, max_players = 3", "valid_player_range"),
    ] {
        beyond(&owner, &format!("UPDATE adventures SET {players}"), constraint).await;
    }
    within(&owner, "UPDATE adventures SET min_players = 3, max_players = 3").await;
    for (length, fits) in [(2, false), (3, true), (100, true), (101, false)] {
        let sql = format!("UPDATE adventures SET name = repeat('é', {length})");
        if fits { within(&owner, &sql).await } else { beyond(&owner, &sql, "valid_name").await }
    }
}

#[tokio::test]
async fn of_creatures() {
    let world = World::new().await;
    let adventure = world.draft(world.account().await).await;
    let owner = world.owner();
    within(&owner, &format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'W')")).await;
    whole_number(&owner, "creatures", "hit_points", 0, 1000).await;
    whole_number(&owner, "creatures", "armor", 0, 100).await;
    for (length, fits) in [(0, false), (1, true), (100, true), (101, false)] {
        let sql = format!("UPDATE creatures SET name = repeat('é', {length})");
        if fits { within(&owner, &sql).await } else { beyond(&owner, &sql, "valid_name").await }
    }
}

#[tokio::test]
async fn of_sessions_and_seats() {
    let world = World::new().await;
    world.table(1).await;
    let owner = world.owner();
    whole_number(&owner, "sessions", "max_players", 2, 6).await;
    whole_number(&owner, "sessions", "encounters_begun", 0, i32::MAX).await;
    whole_number(&owner, "session_players", "heroic_saves_used", 0, i32::MAX).await;
    whole_number(&owner, "session_players", "heroic_saves_encounter", 0, i32::MAX).await;
    beyond(&owner, "UPDATE sessions SET seats_taken = -1", "sessions_seats_taken_check").await;
    for code in ["abc234", "ABC23", "ABC23!", "ABC 23"] {
        beyond(&owner, &format!("UPDATE sessions SET code = '{code}'"), "valid_code").await;
    }
    within(&owner, "UPDATE sessions SET code = 'ABC019'").await;
}

#[tokio::test]
async fn of_rolls_and_events() {
    let world = World::new().await;
    let table = world.active_table(1).await;
    let owner = world.owner();
    for (difficulty, fits) in [(2, false), (3, true), (18, true), (19, false)] {
        let sql = format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
             VALUES ('{}', '{}', 'wit', {difficulty}, 'damage')",
            table.session, table.players[0].character
        );
        if fits { within(&owner, &sql).await } else { beyond(&owner, &sql, "dice_rolls_difficulty_check").await }
    }
    let both = "UPDATE dice_rolls SET creature_id = gen_random_uuid() WHERE character_id IS NOT NULL";
    beyond(&owner, both, "valid_roller").await;
    beyond(&owner, "UPDATE dice_rolls SET modifiers = '[1]'", "valid_modifiers").await;
    for (length, fits) in [(0, false), (1, true), (64, true), (65, false)] {
        let sql = format!(
            "INSERT INTO session_events (session_id, event_type) VALUES ('{}', repeat('x', {length}))",
            table.session
        );
        if fits { within(&owner, &sql).await } else { beyond(&owner, &sql, "valid_event_type").await }
    }
}

#[tokio::test]
async fn of_counters() {
    let world = World::new().await;
    world.account().await;
    for counter in ["games_played", "games_run"] {
        whole_number(&world.owner(), "users", counter, 0, i32::MAX).await;
    }
}

#[tokio::test]
async fn of_what_there_is_once() {
    let world = World::new().await;
    let table = world.active_table(1).await;
    let owner = world.owner();
    let taken = |outcome: Result<u64, crate::world::Refused>, constraint: &str| {
        assert!(outcome.unwrap_err().is("23505", constraint), "{constraint}");
    };
    world.character(table.players[0].id).await;
    taken(owner.exec("UPDATE characters SET name = 'Namesake'").await, "unique_user_character_name");
    let again = format!(
        "INSERT INTO sessions (seer_id, adventure_id, code) SELECT seer_id, adventure_id, code FROM sessions WHERE id = '{}'",
        table.session
    );
    taken(world.service().exec(&again).await, "sessions_code_key");
    let first = world.roll(table.session, table.players[0].character, "{1,2}", 10, 0).await;
    // Past the trigger that asks first, as a restored dump would come.
    let saves = format!(
        "SET LOCAL session_replication_role = replica;
         INSERT INTO dice_rolls (session_id, character_id, character_name, attribute, dice_count, difficulty, roll_type,
           results, total, modified_total, success, outcome, margin, original_roll_id)
         SELECT session_id, character_id, character_name, attribute, dice_count, difficulty, 'heroic_save', results, total,
           modified_total, success, outcome, margin, id
         FROM dice_rolls, generate_series(1, 2) WHERE id = '{first}'"
    );
    taken(owner.exec(&saves).await, "idx_dice_rolls_original");
}
