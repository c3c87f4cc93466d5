//! A refusal does not reveal whether a private session or a draft adventure exists, nor what belongs to it.

use uuid::Uuid;

use super::{
    attempt, close_account,
    leaks::{answer_to, assert_same_answers},
    sqlstates::{ADVENTURE_NOT_PLAYABLE, INSUFFICIENT_PRIVILEGE, NULL_VALUE_NOT_ALLOWED},
};
use crate::world::{World, insert_attribute_check_sql, insert_heroic_save_sql, insert_seat_sql};

#[tokio::test]
async fn a_refused_seat_reveals_nothing_about_a_private_session() {
    let world = World::new().await;
    let (empty_game, full_game) = (world.new_session(0).await, world.new_session(4).await);
    let (active_game, completed_game, cancelled_game) =
        (world.new_active_session(1).await, world.new_active_session(1).await, world.new_session(0).await);
    world.update_session(&completed_game, "status = 'completed'").await;
    world.update_session(&cancelled_game, "status = 'cancelled'").await;
    let game_of_closed_account = world.new_session(1).await;
    close_account(&world, game_of_closed_account.seer.user_id()).await;
    let stranger = world.new_player().await;
    let retired_character = world.new_character(stranger.user_id).await;
    world
        .owner()
        .execute(&format!("UPDATE characters SET retired_at = now() WHERE id = '{retired_character}'"))
        .await
        .unwrap();
    let other_player = world.new_player().await;
    for (description, character) in [
        ("their own character", stranger.character_id),
        ("their own retired character", retired_character),
        ("another user's character", other_player.character_id),
        ("a character that does not exist", Uuid::new_v4()),
    ] {
        let statements: Vec<(&str, String)> = [
            ("empty", empty_game.session_id),
            ("full", full_game.session_id),
            ("active", active_game.session_id),
            ("completed", completed_game.session_id),
            ("cancelled", cancelled_game.session_id),
            ("of a closed account", game_of_closed_account.session_id),
            ("one that does not exist", Uuid::new_v4()),
        ]
        .into_iter()
        .map(|(case, session)| (case, insert_seat_sql(session, stranger.user_id, character)))
        .collect();
        assert_same_answers(
            &[&stranger.caller],
            &format!("a seat with {description}"),
            &statements,
            INSUFFICIENT_PRIVILEGE,
        )
        .await;
        let inserts_skipping_conflicts: Vec<(&str, String)> =
            statements.iter().map(|(case, sql)| (*case, format!("{sql} ON CONFLICT DO NOTHING"))).collect();
        assert_same_answers(
            &[&stranger.caller],
            "a seat with ON CONFLICT",
            &inserts_skipping_conflicts,
            INSUFFICIENT_PRIVILEGE,
        )
        .await;
    }
    // These statements try to take a seat in another user's name.
    let closed_player = world.new_player().await;
    close_account(&world, closed_player.user_id).await;
    let statements = [
        (
            "a user with a seat",
            insert_seat_sql(full_game.session_id, full_game.players[0].user_id, full_game.players[0].character_id),
        ),
        (
            "a user without a seat",
            insert_seat_sql(full_game.session_id, other_player.user_id, other_player.character_id),
        ),
        ("a closed account", insert_seat_sql(full_game.session_id, closed_player.user_id, closed_player.character_id)),
        ("a user that does not exist", insert_seat_sql(full_game.session_id, Uuid::new_v4(), Uuid::new_v4())),
    ];
    assert_same_answers(&[&stranger.caller, &world.visitor()], "another's seat", &statements, INSUFFICIENT_PRIVILEGE)
        .await;
}

#[tokio::test]
async fn a_stranger_does_not_learn_whether_a_draft_or_a_private_session_exists() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let draft_adventure = world.new_draft_adventure(creator.user_id()).await;
    let archived_adventure = world.new_draft_adventure(creator.user_id()).await;
    world
        .owner()
        .execute(&format!("UPDATE adventures SET status = 'archived' WHERE id = '{archived_adventure}'"))
        .await
        .unwrap();
    // An adventure may have at most two hundred creatures.
    let full_adventure = world.new_draft_adventure(creator.user_id()).await;
    let sql = format!(
        "INSERT INTO creatures (adventure_id, name)
         SELECT '{full_adventure}', 'Rat' FROM generate_series(1, 200)"
    );
    world.owner().execute(&sql).await.unwrap();
    let caller = world.new_user().await;
    let sql_per_case = |sql_for: &dyn Fn(Uuid) -> String| {
        [
            ("draft", sql_for(draft_adventure)),
            ("archived", sql_for(archived_adventure)),
            ("full", sql_for(full_adventure)),
            ("one that does not exist", sql_for(Uuid::new_v4())),
        ]
    };
    let insert_session_sql = |adventure: Uuid| {
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", caller.user_id())
    };
    assert_same_answers(
        &[&caller],
        "a session of the adventure",
        &sql_per_case(&insert_session_sql),
        ADVENTURE_NOT_PLAYABLE,
    )
    .await;
    let insert_creature_sql =
        |adventure: Uuid| format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Mine')");
    assert_same_answers(
        &[&caller, &world.visitor()],
        "a creature in the adventure",
        &sql_per_case(&insert_creature_sql),
        INSUFFICIENT_PRIVILEGE,
    )
    .await;
    let insert_invalid_creature_sql = |adventure: Uuid| {
        format!("INSERT INTO creatures (adventure_id, name, stats) VALUES ('{adventure}', 'Mine', '[]')")
    };
    // There are two reasons to refuse: the creature is invalid, and the adventure is not the caller's. Which of them
    // the refusal names is not tested.
    let mut answers = Vec::new();
    for (_, sql) in sql_per_case(&insert_invalid_creature_sql) {
        answers.push(answer_to(&caller, &sql).await);
    }
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    let rename_sql = |adventure: Uuid| format!("UPDATE adventures SET name = 'Mine' WHERE id = '{adventure}'");
    assert_same_answers(&[&caller], "a change of the adventure", &sql_per_case(&rename_sql), "0 rows").await;
    let delete_sql = |adventure: Uuid| format!("DELETE FROM adventures WHERE id = '{adventure}'");
    assert_same_answers(&[&caller], "the deletion of the adventure", &sql_per_case(&delete_sql), "0 rows").await;
    // A private session looks like one that does not exist.
    let game = world.new_session(1).await;
    let resize_sql = |session: Uuid| format!("UPDATE sessions SET max_players = 2 WHERE id = '{session}'");
    let statements =
        [("existing", resize_sql(game.session_id)), ("one that does not exist", resize_sql(Uuid::new_v4()))];
    assert_same_answers(&[&caller], "another's session", &statements, "0 rows").await;
}

#[tokio::test]
async fn a_stranger_does_not_learn_what_exists_in_a_private_session() {
    let world = World::new().await;
    let (active_game, waiting_game) = (world.new_active_session(2).await, world.new_session(1).await);
    let character = active_game.players[0].character_id;
    // A heroic save can repeat only a roll of the last 30 seconds. The failed and the successful rolls are dated an
    // hour ahead (-3600 seconds ago), so that they are not too old, however late the saves come. The expired one is an
    // hour old.
    let failed_roll = world.new_failed_roll(active_game.session_id, character).await;
    let successful_roll = world.new_attack_roll(active_game.session_id, character, "{6,6}", 10, -3600).await;
    let expired_roll = world.new_attack_roll(active_game.session_id, character, "{1,2}", 10, 3600).await;
    let roll_with_save = world.new_failed_roll(active_game.session_id, active_game.players[1].character_id).await;
    let save = insert_heroic_save_sql(active_game.session_id, active_game.players[1].character_id, roll_with_save);
    assert_eq!(attempt(&active_game.players[1].caller, &save).await, "done");
    let stranger = world.new_player().await;
    let sql = format!(
        "INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf') RETURNING id",
        active_game.adventure_id
    );
    let creature: Uuid = world.owner().fetch_value(&sql).await.unwrap();

    let insert_save_sql = |original: Uuid| insert_heroic_save_sql(active_game.session_id, character, original);
    let statements = [
        ("failed", insert_save_sql(failed_roll)),
        ("successful", insert_save_sql(successful_roll)),
        ("expired", insert_save_sql(expired_roll)),
        ("one with a save", insert_save_sql(roll_with_save)),
        ("one that does not exist", insert_save_sql(Uuid::new_v4())),
    ];
    assert_same_answers(&[&stranger.caller, &world.visitor()], "another's save", &statements, INSUFFICIENT_PRIVILEGE)
        .await;
    let statements = [
        ("a character with a seat", insert_attribute_check_sql(active_game.session_id, character)),
        (
            "a character of another session",
            insert_attribute_check_sql(active_game.session_id, waiting_game.players[0].character_id),
        ),
        ("their own character", insert_attribute_check_sql(active_game.session_id, stranger.character_id)),
        ("a character that does not exist", insert_attribute_check_sql(active_game.session_id, Uuid::new_v4())),
        (
            "a waiting session",
            insert_attribute_check_sql(waiting_game.session_id, waiting_game.players[0].character_id),
        ),
        ("a session that does not exist", insert_attribute_check_sql(Uuid::new_v4(), stranger.character_id)),
    ];
    assert_same_answers(&[&stranger.caller, &world.visitor()], "a roll", &statements, INSUFFICIENT_PRIVILEGE).await;
    let insert_creature_roll_sql = |creature: Uuid, session: Uuid| {
        format!(
            "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
             VALUES ('{session}', '{creature}', 'might', 10, 'attack')"
        )
    };
    let statements = [
        ("a creature of the adventure", insert_creature_roll_sql(creature, active_game.session_id)),
        ("a creature of another session's adventure", insert_creature_roll_sql(creature, waiting_game.session_id)),
        ("a creature that does not exist", insert_creature_roll_sql(Uuid::new_v4(), active_game.session_id)),
        ("a session that does not exist", insert_creature_roll_sql(creature, Uuid::new_v4())),
    ];
    assert_same_answers(
        &[&stranger.caller, &world.visitor()],
        "a creature's roll",
        &statements,
        INSUFFICIENT_PRIVILEGE,
    )
    .await;
    // A participant learns only that they may not roll for creatures, and nothing about the creature.
    let [roll_of_existing_creature, _, roll_of_missing_creature, _] = statements;
    assert_same_answers(
        &[&active_game.players[0].caller],
        "a creature's roll",
        &[roll_of_existing_creature, roll_of_missing_creature],
        INSUFFICIENT_PRIVILEGE,
    )
    .await;
    let insert_event_sql = |session: Uuid| {
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.wave')")
    };
    let statements = [
        ("active", insert_event_sql(active_game.session_id)),
        ("waiting", insert_event_sql(waiting_game.session_id)),
        ("one that does not exist", insert_event_sql(Uuid::new_v4())),
    ];
    assert_same_answers(&[&stranger.caller, &world.visitor()], "an event", &statements, INSUFFICIENT_PRIVILEGE).await;
    let wound_sql = |character: Uuid| format!("SELECT * FROM private.change_hit_points('{character}', -1)");
    let statements = [("existing", wound_sql(character)), ("one that does not exist", wound_sql(Uuid::new_v4()))];
    assert_same_answers(&[&stranger.caller], "a wound", &statements, "0 rows").await;
}

/// The error for a character that is NULL does not contain the id of the session. (While a session waits for players,
/// `private.session_by_code` returns its id to every user who has its code, but afterwards only to its participants. So
/// the sessions of this test have started or ended.)
#[tokio::test]
async fn joining_by_code_without_a_character_does_not_reveal_the_id_of_the_session() {
    let world = World::new().await;
    let (ended_game, active_game) = (world.new_session(1).await, world.new_active_session(1).await);
    world.update_session(&ended_game, "status = 'cancelled'").await;
    let (ended_code, active_code) =
        (world.join_code(ended_game.session_id).await, world.join_code(active_game.session_id).await);
    let caller = world.new_user().await;
    let statements = [
        ("an ended private session", format!("SELECT * FROM private.join_by_code('{ended_code}', NULL)")),
        ("an active private session", format!("SELECT * FROM private.join_by_code('{active_code}', NULL)")),
        ("no session", "SELECT * FROM private.join_by_code('ZZZZZZ', NULL)".to_owned()),
    ];
    assert_same_answers(&[&caller], "a code without a character", &statements, NULL_VALUE_NOT_ALLOWED).await;
}
