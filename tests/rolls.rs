//! Rolls: the database rolls the dice and checks each row; who may roll for whom; and who sees rolls.

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use sparc::{
    entity::sea_orm_active_enums::{Attribute, RollType},
    service::{
        Difficulty, Operations,
        dice::{NewRoll, RollScope, Roller},
    },
};
use uuid::Uuid;

use crate::{
    sqlstates::{CHECK_VIOLATION, CREATURE_NOT_IN_ADVENTURE, NOT_ONE_ROLLER},
    world::{World, fetch_row_as_json, insert_attribute_check_sql},
};

#[tokio::test]
async fn a_roll_is_one_insert_and_the_database_fills_in_the_rest() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let sql = format!(
        "WITH rolled AS ({} RETURNING *) SELECT id FROM rolled",
        insert_attribute_check_sql(game.session_id, player.character_id)
    );
    let roll_id: Uuid = player.caller.fetch_value(&sql).await.unwrap();
    let roll_row = fetch_row_as_json(&player.caller, &format!("SELECT * FROM dice_rolls WHERE id = '{roll_id}'")).await;
    let results: Vec<i64> = roll_row["results"].as_array().unwrap().iter().map(|die| die.as_i64().unwrap()).collect();
    assert_eq!(results.len(), 5, "one die per point of the warrior's might");
    assert!(results.iter().all(|die| (1..=6).contains(die)));
    assert_eq!(roll_row["total"], results.iter().sum::<i64>());
    assert_eq!(roll_row["margin"], roll_row["modified_total"].as_i64().unwrap() - 10);
    assert!(roll_row["character_name"].as_str().unwrap().starts_with("Hero"));
    assert!(roll_row["animation_seed"].is_i64());
}

#[tokio::test]
async fn no_player_can_set_a_column_that_the_database_fills_in() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    for (column, value) in [
        ("results", "'{6,6,6,6,6}'"),
        ("total", "30"),
        ("modified_total", "30"),
        ("success", "true"),
        ("outcome", "'critical_success'"),
        ("margin", "20"),
        ("dice_count", "10"),
        ("character_name", "'Me'"),
        ("rolled_by", "gen_random_uuid()"),
        ("animation_seed", "1"),
        ("created_at", "now()"),
    ] {
        let sql = format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, {column})
             VALUES ('{}', '{}', 'might', 10, 'attack', {value})",
            game.session_id, player.character_id
        );
        assert_refused!(player.caller.execute(&sql).await, forbidden, "{column}");
    }
}

#[tokio::test]
async fn no_visitor_player_seer_or_service_can_update_or_delete_rolls() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    game.players[0]
        .caller
        .execute(&insert_attribute_check_sql(game.session_id, game.players[0].character_id))
        .await
        .unwrap();
    for caller in [&game.players[0].caller, &game.seer, &world.service(), &world.visitor()] {
        assert_refused!(caller.execute("UPDATE dice_rolls SET description = 'x'").await, forbidden);
        assert_refused!(caller.execute("DELETE FROM dice_rolls").await, forbidden);
    }
}

#[tokio::test]
async fn the_service_may_set_only_results_that_the_checks_accept() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let common_values = format!("'{}', '{}', 'might', 10, 'attack'", game.session_id, game.players[0].character_id);
    let insert_roll_sql = |columns: &str, values: &str| {
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, {columns})
             VALUES ({common_values}, {values})"
        )
    };
    assert_eq!(world.service().execute(&insert_roll_sql("results", "'{3,4,5}'")).await, Ok(1));
    // The results {3,4} give total 7, which fails against difficulty 10 with a margin of -3.
    for (columns, values, constraint) in [
        ("results", "'{}'", "dice_rolls_dice_count_check"),
        ("results, dice_count", "'{}', 1", "valid_results"),
        ("results, dice_count", "'{1,2}', 3", "valid_results"),
        ("results", "'{7}'", "valid_results"),
        ("results", "'{0}'", "valid_results"),
        ("results", "'{1,NULL}'", "valid_results"),
        ("results, dice_count", "'{{1,2},{3,4}}', 4", "valid_results"),
        ("results, dice_count", "'[0:1]={1,2}', 2", "valid_results"),
        ("results", "'{1,1,1,1,1,1,1,1,1,1,1}'", "dice_rolls_dice_count_check"),
        ("results, total", "'{3,4}', 8", "valid_total"),
        ("results, modified_total", "'{3,4}', 8", "valid_modified_total"),
        ("results, margin", "'{3,4}', 0", "valid_margin"),
        ("results, outcome", "'{3,4}', 'success'", "valid_outcome"),
        ("results, outcome", "'{6,6}', 'success'", "valid_outcome"),
        ("results, outcome", "'{1,1}', 'failure'", "valid_outcome"),
        ("results, success", "'{3,4}', true", "valid_success"),
        ("results, original_roll_id", "'{3,4}', gen_random_uuid()", "valid_heroic_save"),
    ] {
        assert_refused!(
            world.service().execute(&insert_roll_sql(columns, values)).await,
            CHECK_VIOLATION,
            constraint,
            "{columns} {values}"
        );
    }
}

#[tokio::test]
async fn all_sixes_succeed_all_ones_fail_and_otherwise_the_total_must_reach_the_difficulty() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let character_id = game.players[0].character_id;
    for (results, difficulty, outcome, success) in [
        ("{6}", 18, "critical_success", true),
        ("{1,1,1,1}", 3, "critical_failure", false),
        ("{4,6}", 10, "success", true),
        ("{3,6}", 10, "failure", false),
    ] {
        let roll_id = world.new_attack_roll(game.session_id, character_id, results, difficulty, 0).await;
        let select_outcome = format!("SELECT outcome, success FROM dice_rolls WHERE id = '{roll_id}'");
        let roll_row = fetch_row_as_json(&world.owner(), &select_outcome).await;
        assert_eq!((roll_row["outcome"].as_str().unwrap(), roll_row["success"].as_bool().unwrap()), (outcome, success));
    }
}

#[tokio::test]
async fn the_attribute_and_the_modifiers_give_from_1_to_10_dice() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let insert_roll_and_count_dice = async |kind: &str, attribute: &str, modifiers: &str| {
        let sql = format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, modifiers)
             VALUES ('{}', '{}', '{attribute}', 10, '{kind}', '{modifiers}') RETURNING dice_count",
            game.session_id, player.character_id
        );
        player.caller.fetch_value::<i32>(&sql).await.unwrap()
    };
    let dice_modifiers_json = |value| format!(r#"[{{"type": "dice", "value": {value}, "source": "luck"}}]"#);
    // The character has might 5, grace 3 and wit 2.
    assert_eq!(insert_roll_and_count_dice("attack", "might", "[]").await, 5);
    assert_eq!(insert_roll_and_count_dice("attack", "grace", &dice_modifiers_json(2)).await, 5);
    // Five dice and ten more would be fifteen, but a roll has at most ten.
    let plus_ten = r#"[{"type":"dice","value":5,"source":"a"},{"type":"dice","value":5,"source":"b"}]"#;
    assert_eq!(insert_roll_and_count_dice("attack", "might", plus_ten).await, 10);
    assert_eq!(insert_roll_and_count_dice("attack", "wit", &dice_modifiers_json(-5)).await, 1);
    assert_eq!(
        insert_roll_and_count_dice("initiative", "might", &dice_modifiers_json(3)).await,
        1,
        "initiative must be one die"
    );
}

#[tokio::test]
async fn modifiers_must_have_a_valid_form_and_valid_values() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let insert_roll_sql = |modifiers: &str| {
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, modifiers)
             VALUES ('{}', '{}', 'might', 10, 'attack', '{modifiers}')",
            game.session_id, player.character_id
        )
    };
    let modifiers_json = |kind: &str, value: &str, source: &str| {
        format!(r#"[{{"type": "{kind}", "value": {value}, "source": "{source}"}}]"#)
    };
    for valid in [
        modifiers_json("flat", "10", "bless"),
        modifiers_json("flat", "-10", "curse"),
        modifiers_json("dice", "5", "x"),
        modifiers_json("dice", "-5", "x"),
        "[]".into(),
    ] {
        assert_eq!(player.caller.execute(&insert_roll_sql(&valid)).await, Ok(1), "{valid}");
    }
    let eleven_modifiers = format!("[{}]", [r#"{"type":"flat","value":1,"source":"x"}"#; 11].join(","));
    for invalid in [
        modifiers_json("flat", "11", "x"),
        modifiers_json("flat", "-11", "x"),
        modifiers_json("dice", "6", "x"),
        modifiers_json("dice", "-6", "x"),
        modifiers_json("flat", "1.5", "x"),
        modifiers_json("flat", "1", ""),
        modifiers_json("flat", "1", "  "),
        modifiers_json("luck", "1", "x"),
        modifiers_json("flat", "\"1\"", "x"),
        modifiers_json("flat", "1e400", "x"),
        eleven_modifiers,
        "{}".into(),
        "[1]".into(),
        "null".into(),
        r#"[{"type":"flat","value":1}]"#.into(),
    ] {
        assert_refused!(
            player.caller.execute(&insert_roll_sql(&invalid)).await,
            CHECK_VIOLATION,
            "valid_modifiers",
            "{invalid}"
        );
    }
}

#[tokio::test]
async fn a_player_rolls_only_for_their_seated_character_in_an_active_session() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let [player, other_player] = &game.players[..] else { panic!("two players are seated") };
    assert_eq!(player.caller.execute(&insert_attribute_check_sql(game.session_id, player.character_id)).await, Ok(1));
    assert_refused!(
        player.caller.execute(&insert_attribute_check_sql(game.session_id, other_player.character_id)).await,
        forbidden,
        "the character of another participant"
    );
    let unseated_character_id = world.new_character(player.user_id).await;
    assert_refused!(
        player.caller.execute(&insert_attribute_check_sql(game.session_id, unseated_character_id)).await,
        forbidden,
        "a character without a seat"
    );
    let stranger = world.new_player().await;
    assert_refused!(
        stranger.caller.execute(&insert_attribute_check_sql(game.session_id, stranger.character_id)).await,
        forbidden
    );
    assert_refused!(
        world.visitor().execute(&insert_attribute_check_sql(game.session_id, player.character_id)).await,
        forbidden
    );
    player.caller.execute("UPDATE session_players SET is_active = false").await.unwrap();
    assert_refused!(
        player.caller.execute(&insert_attribute_check_sql(game.session_id, player.character_id)).await,
        forbidden,
        "a player who left"
    );
    for status in ["paused", "completed"] {
        world.update_session(&game, &format!("status = '{status}'")).await;
        assert_refused!(
            other_player.caller.execute(&insert_attribute_check_sql(game.session_id, other_player.character_id)).await,
            forbidden,
            "{status}"
        );
    }
}

#[tokio::test]
async fn the_seer_rolls_for_creatures_and_for_characters_that_are_seated_or_belong_to_the_seer() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let own_character_id = world.new_character(game.seer.user_id()).await;
    assert_eq!(
        game.seer.execute(&insert_attribute_check_sql(game.session_id, game.players[0].character_id)).await,
        Ok(1)
    );
    assert_eq!(game.seer.execute(&insert_attribute_check_sql(game.session_id, own_character_id)).await, Ok(1));
    let insert_wolf_sql =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf') RETURNING id", game.adventure_id);
    let wolf_id: Uuid = world.owner().fetch_value(&insert_wolf_sql).await.unwrap();
    let insert_attack_sql = format!(
        "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
         VALUES ('{}', '{wolf_id}', 'might', 10, 'attack')",
        game.session_id
    );
    assert_eq!(game.seer.execute(&insert_attack_sql).await, Ok(1));
    let stranger = world.new_player().await;
    assert_refused!(
        game.seer.execute(&insert_attribute_check_sql(game.session_id, stranger.character_id)).await,
        forbidden
    );
}

#[tokio::test]
async fn creatures_roll_with_their_own_stats_and_their_rolls_outlive_them() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let insert_wolf_sql = |adventure_id| {
        format!(
            r#"INSERT INTO creatures (adventure_id, name, stats)
               VALUES ('{adventure_id}', 'Wolf', '{{"might": 7, "grace": 3, "wit": 1, "heart": 2}}') RETURNING id"#
        )
    };
    let wolf_id: Uuid = world.owner().fetch_value(&insert_wolf_sql(game.adventure_id)).await.unwrap();
    let other_adventure_id = world.new_adventure(game.seer.user_id()).await;
    let wolf_id_of_other_adventure: Uuid =
        world.owner().fetch_value(&insert_wolf_sql(other_adventure_id)).await.unwrap();
    let insert_attack_sql = |creature_id: Uuid| {
        format!(
            "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
             VALUES ('{}', '{creature_id}', 'might', 10, 'attack')",
            game.session_id
        )
    };
    game.seer.execute(&insert_attack_sql(wolf_id)).await.unwrap();
    let roll_row = fetch_row_as_json(&world.owner(), "SELECT character_name, dice_count FROM dice_rolls").await;
    assert_eq!((roll_row["character_name"].as_str(), roll_row["dice_count"].as_i64()), (Some("Wolf"), Some(7)));
    assert_refused!(
        game.seer.execute(&insert_attack_sql(wolf_id_of_other_adventure)).await,
        CREATURE_NOT_IN_ADVENTURE,
        "creature_of_adventure"
    );
    assert_refused!(
        game.players[0].caller.execute(&insert_attack_sql(wolf_id)).await,
        forbidden,
        "only the Seer may roll for a creature"
    );
    let insert_attack_with_two_rollers = format!(
        "INSERT INTO dice_rolls (session_id, creature_id, character_id, attribute, difficulty, roll_type)
         VALUES ('{}', '{wolf_id}', '{}', 'might', 10, 'attack')",
        game.session_id, game.players[0].character_id
    );
    assert_refused!(game.seer.execute(&insert_attack_with_two_rollers).await, NOT_ONE_ROLLER, "one_roller");
    game.seer.execute(&format!("DELETE FROM creatures WHERE id = '{wolf_id}'")).await.unwrap();
    assert_eq!(world.owner().count("dice_rolls WHERE creature_id IS NULL AND character_name = 'Wolf'").await, 1);
}

#[tokio::test]
async fn only_participants_see_rolls() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    world.update_session(&game, "is_public = true").await;
    game.players[0]
        .caller
        .execute(&insert_attribute_check_sql(game.session_id, game.players[0].character_id))
        .await
        .unwrap();
    assert_eq!(game.players[1].caller.count("dice_rolls").await, 1);
    assert_eq!(game.seer.count("dice_rolls").await, 1);
    assert_eq!(
        world.new_user().await.count("dice_rolls").await,
        0,
        "a stranger must see no rolls, not even those of a public session"
    );
    assert_refused!(world.visitor().execute("SELECT FROM dice_rolls").await, forbidden);
}

#[tokio::test]
async fn random_numbers_returns_an_empty_array_at_once_if_its_arguments_allow_no_number() {
    let world = World::new().await;
    let transaction = world.owner().begin().await;
    transaction.execute_unprepared("SET LOCAL statement_timeout = '2s'").await.unwrap();
    // Each number is made from one byte, so the bound must be from 1 to 256.
    for (bound, number_count) in [("NULL", "6"), ("6", "NULL"), ("257", "6"), ("0", "6"), ("-257", "6"), ("6", "0")] {
        let query = format!("SELECT cardinality(private.random_numbers({bound}, {number_count}))");
        let row = transaction.query_one_raw(Statement::from_string(DbBackend::Postgres, query)).await;
        let length = row.unwrap().unwrap().try_get_by_index::<i32>(0).unwrap();
        assert_eq!(length, 0, "{number_count} numbers below {bound}");
    }
}

#[tokio::test]
async fn a_characters_statistics_count_the_rolls_that_the_caller_may_see() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (ada, hero_id) = (&game.players[0], game.players[0].character_id);
    // The totals are 12, 2, 7 and 7. Against these difficulties, the first and the third succeed.
    for (results, difficulty) in [("{6,6}", 10), ("{1,1}", 10), ("{3,4}", 5), ("{3,4}", 9)] {
        world.new_attack_roll(game.session_id, hero_id, results, difficulty, 0).await;
    }
    let check = NewRoll::attribute_check(game.session_id, Roller::Character(hero_id), Attribute::Wit, Difficulty::MIN);
    let me = world.sparc.as_user(ada.user_id);
    me.dice().roll(check).await.unwrap();
    let statistics = me.dice().statistics(RollScope::Character(hero_id)).await.unwrap();
    assert_eq!(statistics.rolls, 5);
    let attacks = statistics.by_kind.iter().find(|kind| kind.kind == RollType::Attack).unwrap();
    assert_eq!((attacks.rolls, attacks.successes, attacks.critical_successes, attacks.critical_failures), (4, 2, 1, 1));
    assert!((attacks.mean_modified_total - 7.0).abs() < 1e-9);
    assert_eq!(statistics.by_kind.iter().map(|kind| kind.rolls).sum::<i64>(), statistics.rolls);
    // Ada's character also rolls in a session of another Seer. Each Seer sees only the rolls of their own session.
    let other_game = world.new_active_session(1).await;
    world.new_attack_roll(other_game.session_id, hero_id, "{6,6}", 10, 0).await;
    for (caller, roll_count) in [(&game.seer, 5), (&other_game.seer, 1)] {
        let seer = world.sparc.as_user(caller.user_id());
        assert_eq!(seer.dice().statistics(RollScope::Character(hero_id)).await.unwrap().rolls, roll_count);
    }
    let stranger = world.sparc.as_user(world.new_account().await);
    for scope in [RollScope::Session(game.session_id), RollScope::Character(hero_id)] {
        let empty_statistics = stranger.dice().statistics(scope).await.unwrap();
        assert_eq!(
            (empty_statistics.rolls, empty_statistics.mean_modified_total, empty_statistics.by_kind.len()),
            (0, None, 0),
            "{scope:?}"
        );
    }
}
