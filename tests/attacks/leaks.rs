//! A refusal reveals nothing about rows that the caller may not see: its text is the same whether they exist or not.

use uuid::Uuid;

use super::{
    attempt, close_account, execute_in, new_private_session,
    sqlstates::{
        ACCOUNT_CLOSED, ADVENTURE_NOT_PLAYABLE, CHARACTER_NOT_YOURS, INSUFFICIENT_PRIVILEGE, NULL_VALUE_NOT_ALLOWED,
        ROLL_NOT_SAVEABLE, UNKNOWN_JOIN_CODE,
    },
};
use crate::world::{
    SqlCaller, SqlError, World, insert_attribute_check_sql, insert_character_sql, insert_heroic_save_sql,
    insert_seat_sql,
};

/// Runs a statement, rolls it back, and returns the number of rows or the text of the refusal.
pub(super) async fn answer_text(caller: &SqlCaller, sql: &str) -> String {
    let transaction = caller.begin().await;
    let outcome = execute_in(&transaction, sql).await;
    transaction.rollback().await.unwrap();
    match outcome {
        Ok(rows) => format!("{rows} rows"),
        Err(SqlError { code, constraint, message }) => format!("{code} {constraint}: {message}"),
    }
}

/// Asserts that each caller gets the same answer to all statements, and that the answer begins with `expected`. `what`
/// says what the statements attempt. With each statement comes the case by which it differs from the others. (The
/// answers of different callers may differ.)
async fn assert_same_answers(callers: &[&SqlCaller], what: &str, statements: &[(&str, String)], expected: &str) {
    for caller in callers {
        let mut answers = Vec::new();
        for (case, sql) in statements {
            answers.push((*case, answer_text(caller, sql).await));
        }
        let (first_case, first_answer) = &answers[0];
        for (case, answer) in &answers {
            assert_eq!(answer, first_answer, "{what}: {case} differs from {first_case}");
            assert!(answer.starts_with(expected), "{what}, {case}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_stranger_does_not_learn_how_full_a_private_session_is() {
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
        let skipping_conflicts: Vec<(&str, String)> =
            statements.iter().map(|(case, sql)| (*case, format!("{sql} ON CONFLICT DO NOTHING"))).collect();
        assert_same_answers(
            &[&stranger.caller],
            "a seat with ON CONFLICT",
            &skipping_conflicts,
            INSUFFICIENT_PRIVILEGE,
        )
        .await;
    }
    // A seat in another user's name.
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
async fn nobody_learns_which_rolls_of_others_exist_or_were_saved() {
    let world = World::new().await;
    // The player has a seat in `own_game` only, and knows ids of rows of `other_game`.
    let (other_game, own_game) = (world.new_active_session(2).await, world.new_active_session(1).await);
    let (saver, savers_fellow, player) = (&other_game.players[0], &other_game.players[1], &own_game.players[0]);
    // Two rolls that failed five seconds ago, so that they can be saved.
    let saved_roll = world.new_attack_roll(other_game.session_id, saver.character_id, "{1,2,1,2,1}", 18, 5).await;
    let unsaved_roll =
        world.new_attack_roll(other_game.session_id, savers_fellow.character_id, "{1,2,1,2,1}", 18, 5).await;
    saver.caller.execute(&insert_heroic_save_sql(other_game.session_id, saver.character_id, saved_roll)).await.unwrap();
    for (session, character, what) in [
        (own_game.session_id, player.character_id, "in the session of the player's seat"),
        (other_game.session_id, player.character_id, "in another session"),
        (other_game.session_id, saver.character_id, "in another session, with the saver's character"),
    ] {
        for suffix in ["", " ON CONFLICT DO NOTHING"] {
            let originals =
                [("saved", saved_roll), ("unsaved", unsaved_roll), ("one that does not exist", Uuid::new_v4())];
            let statements: Vec<(&str, String)> = originals
                .into_iter()
                .map(|(case, original)| (case, insert_heroic_save_sql(session, character, original) + suffix))
                .collect();
            let expected = if session == own_game.session_id { ROLL_NOT_SAVEABLE } else { INSUFFICIENT_PRIVILEGE };
            assert_same_answers(&[&player.caller], what, &statements, expected).await;
        }
    }
}

#[tokio::test]
async fn a_closed_account_does_not_learn_which_rows_of_others_exist() {
    let world = World::new().await;
    let (other_game, own_game) = (world.new_active_session(2).await, world.new_active_session(1).await);
    world.update_session(&other_game, "is_public = true").await;
    let insert_creature = |adventure: Uuid| {
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Rat') RETURNING id")
    };
    // First the rows of the other Seer, then the caller's own.
    let mut rows_of_seers = Vec::new();
    for game in [&other_game, &own_game] {
        let creature: Uuid = world.owner().fetch_value(&insert_creature(game.adventure_id)).await.unwrap();
        let seer = game.seer.user_id();
        world.owner().execute(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{seer}')")).await.unwrap();
        let character = world.new_character(seer).await;
        rows_of_seers.push([
            ("users", "id", "bio = 'x'", seer),
            ("characters", "id", "name = 'Renamed'", character),
            ("adventures", "id", "description = 'x'", game.adventure_id),
            ("creatures", "id", "name = 'Mouse'", creature),
            ("sessions", "id", "looking_for = 'x'", game.session_id),
            ("session_players", "session_id", "removed_at = now()", game.session_id),
            ("tutorial_progress", "user_id", "skipped = true", seer),
        ]);
    }
    close_account(&world, own_game.seer.user_id()).await;
    let caller = &own_game.seer;
    for (others_row, own_row) in rows_of_seers[0].iter().zip(&rows_of_seers[1]) {
        let (table, key, change, others_id) = *others_row;
        let statements = |id: Uuid| {
            let mut statements = vec![
                format!("UPDATE {table} SET {change} WHERE {key} = '{id}'"),
                format!("SELECT FROM {table} WHERE {key} = '{id}' FOR UPDATE"),
                format!("SELECT FROM {table} WHERE {key} = '{id}' FOR KEY SHARE"),
            ];
            if ["characters", "adventures", "creatures"].contains(&table) {
                statements.push(format!("DELETE FROM {table} WHERE {key} = '{id}'"));
            }
            statements
        };
        for (on_others_row, on_no_row) in statements(others_id).iter().zip(statements(Uuid::new_v4())) {
            let answer = answer_text(caller, on_others_row).await;
            assert_eq!(answer, answer_text(caller, &on_no_row).await, "{on_others_row}");
            // Where the account is checked before the row is looked for, the answer is that the account is closed.
            assert!(answer == "0 rows" || answer.starts_with(ACCOUNT_CLOSED), "{on_others_row}: {answer}");
        }
        // The account may know about its own rows, but cannot write them.
        let (_, _, _, own_id) = *own_row;
        for on_own_row in statements(own_id) {
            assert!(answer_text(caller, &on_own_row).await.starts_with(ACCOUNT_CLOSED), "{on_own_row}");
        }
    }
}

#[tokio::test]
async fn a_stranger_does_not_learn_how_many_rows_an_account_has() {
    let world = World::new().await;
    let (newcomer, full_account, closed_player) =
        (world.new_player().await, world.new_account().await, world.new_player().await);
    // Ten is the limit on living characters.
    for _ in 0..10 {
        world.new_character(full_account).await;
    }
    close_account(&world, closed_player.user_id).await;
    // `insert_character_sql` derives the name from the id.
    let name_of = |id: Uuid| format!("Hero {}", &id.to_string()[..8]);
    let id_with_same_name = Uuid::new_v4();
    let statements = [
        ("few", insert_character_sql(Uuid::new_v4(), newcomer.user_id)),
        ("ten", insert_character_sql(Uuid::new_v4(), full_account)),
        ("closed", insert_character_sql(Uuid::new_v4(), closed_player.user_id)),
        ("a user that does not exist", insert_character_sql(Uuid::new_v4(), Uuid::new_v4())),
        (
            "the same name",
            insert_character_sql(id_with_same_name, newcomer.user_id)
                .replace(&name_of(id_with_same_name), &name_of(newcomer.character_id)),
        ),
    ];
    assert_same_answers(
        &[&world.new_user().await, &world.visitor()],
        "another's character",
        &statements,
        INSUFFICIENT_PRIVILEGE,
    )
    .await;
    let caller = world.new_user().await;
    let skipping_conflicts = format!("{} ON CONFLICT DO NOTHING", insert_character_sql(Uuid::new_v4(), full_account));
    assert!(answer_text(&caller, &skipping_conflicts).await.starts_with(INSUFFICIENT_PRIVILEGE));
    // The numbers of live sessions (20), of adventures (200) and of rows of `tutorial_progress` (1) of an account are
    // limited too.
    let busy_seer = world.new_user().await;
    let adventure = world.new_adventure(busy_seer.user_id()).await;
    for _ in 0..20 {
        new_private_session(&world, busy_seer.user_id(), adventure).await;
    }
    let insert_session =
        |seer: Uuid| format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{seer}', '{adventure}')");
    let statements = [
        ("few", insert_session(newcomer.user_id)),
        ("twenty", insert_session(busy_seer.user_id())),
        ("closed", insert_session(closed_player.user_id)),
        ("a user that does not exist", insert_session(Uuid::new_v4())),
    ];
    assert_same_answers(&[&caller, &world.visitor()], "another's session", &statements, INSUFFICIENT_PRIVILEGE).await;
    let sql = format!(
        "INSERT INTO adventures (creator_id, name)
         SELECT '{full_account}', 'Draft' FROM generate_series(1, 200)"
    );
    world.owner().execute(&sql).await.unwrap();
    let insert_draft =
        |creator: Uuid| format!("INSERT INTO adventures (creator_id, name) VALUES ('{creator}', 'A draft')");
    let statements = [
        ("few", insert_draft(newcomer.user_id)),
        ("two hundred", insert_draft(full_account)),
        ("closed", insert_draft(closed_player.user_id)),
        ("a user that does not exist", insert_draft(Uuid::new_v4())),
    ];
    assert_same_answers(&[&caller, &world.visitor()], "another's adventure", &statements, INSUFFICIENT_PRIVILEGE).await;
    world.owner().execute(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{full_account}')")).await.unwrap();
    let insert_tutorial_progress = |user: Uuid| format!("INSERT INTO tutorial_progress (user_id) VALUES ('{user}')");
    let statements = [
        ("none", insert_tutorial_progress(newcomer.user_id)),
        ("begun", insert_tutorial_progress(full_account)),
        ("closed", insert_tutorial_progress(closed_player.user_id)),
        ("a user that does not exist", insert_tutorial_progress(Uuid::new_v4())),
    ];
    assert_same_answers(
        &[&caller, &world.visitor()],
        "another's tutorial progress",
        &statements,
        INSUFFICIENT_PRIVILEGE,
    )
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
    // Two hundred creatures are the limit.
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
    let insert_session = |adventure: Uuid| {
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", caller.user_id())
    };
    assert_same_answers(&[&caller], "a session on it", &sql_per_case(&insert_session), ADVENTURE_NOT_PLAYABLE).await;
    let insert_creature =
        |adventure: Uuid| format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Mine')");
    assert_same_answers(
        &[&caller, &world.visitor()],
        "a creature in it",
        &sql_per_case(&insert_creature),
        INSUFFICIENT_PRIVILEGE,
    )
    .await;
    let insert_invalid_creature = |adventure: Uuid| {
        format!("INSERT INTO creatures (adventure_id, name, stats) VALUES ('{adventure}', 'Mine', '[]')")
    };
    // Both the invalid creature and the caller are reasons to refuse. Which of them the refusal names is not tested.
    let mut answers = Vec::new();
    for (_, sql) in sql_per_case(&insert_invalid_creature) {
        answers.push(answer_text(&caller, &sql).await);
    }
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    let change = |adventure: Uuid| format!("UPDATE adventures SET name = 'Mine' WHERE id = '{adventure}'");
    assert_same_answers(&[&caller], "a change of it", &sql_per_case(&change), "0 rows").await;
    let delete = |adventure: Uuid| format!("DELETE FROM adventures WHERE id = '{adventure}'");
    assert_same_answers(&[&caller], "its deletion", &sql_per_case(&delete), "0 rows").await;
    // A private session looks like one that does not exist.
    let game = world.new_session(1).await;
    let resize = |session: Uuid| format!("UPDATE sessions SET max_players = 2 WHERE id = '{session}'");
    let statements = [("existing", resize(game.session_id)), ("one that does not exist", resize(Uuid::new_v4()))];
    assert_same_answers(&[&caller], "another's session", &statements, "0 rows").await;
}

#[tokio::test]
async fn a_stranger_does_not_learn_what_exists_in_a_private_session() {
    let world = World::new().await;
    let (active_game, waiting_game) = (world.new_active_session(2).await, world.new_session(1).await);
    let character = active_game.players[0].character_id;
    // Only a roll of the last 30 seconds can be saved. The failed and the passed rolls are dated an hour ahead (-3600
    // seconds ago), so that they are not too old whenever the saves come. The late one is an hour old.
    let failed_roll = world.new_failed_roll(active_game.session_id, character).await;
    let passed_roll = world.new_attack_roll(active_game.session_id, character, "{6,6}", 10, -3600).await;
    let late_roll = world.new_attack_roll(active_game.session_id, character, "{1,2}", 10, 3600).await;
    let saved_roll = world.new_failed_roll(active_game.session_id, active_game.players[1].character_id).await;
    let save = insert_heroic_save_sql(active_game.session_id, active_game.players[1].character_id, saved_roll);
    assert_eq!(attempt(&active_game.players[1].caller, &save).await, "done");
    let stranger = world.new_player().await;
    let sql = format!(
        "INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf') RETURNING id",
        active_game.adventure_id
    );
    let creature: Uuid = world.owner().fetch_value(&sql).await.unwrap();

    let insert_save_of = |original: Uuid| insert_heroic_save_sql(active_game.session_id, character, original);
    let statements = [
        ("failed", insert_save_of(failed_roll)),
        ("passed", insert_save_of(passed_roll)),
        ("late", insert_save_of(late_roll)),
        ("saved", insert_save_of(saved_roll)),
        ("one that does not exist", insert_save_of(Uuid::new_v4())),
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
        ("waiting", insert_attribute_check_sql(waiting_game.session_id, waiting_game.players[0].character_id)),
        ("a session that does not exist", insert_attribute_check_sql(Uuid::new_v4(), stranger.character_id)),
    ];
    assert_same_answers(&[&stranger.caller, &world.visitor()], "a roll", &statements, INSUFFICIENT_PRIVILEGE).await;
    let insert_creatures_roll = |creature: Uuid, session: Uuid| {
        format!(
            "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
             VALUES ('{session}', '{creature}', 'might', 10, 'attack')"
        )
    };
    let statements = [
        ("a creature of the adventure", insert_creatures_roll(creature, active_game.session_id)),
        ("a creature of another session's adventure", insert_creatures_roll(creature, waiting_game.session_id)),
        ("a creature that does not exist", insert_creatures_roll(Uuid::new_v4(), active_game.session_id)),
        ("a session that does not exist", insert_creatures_roll(creature, Uuid::new_v4())),
    ];
    assert_same_answers(
        &[&stranger.caller, &world.visitor()],
        "a creature's roll",
        &statements,
        INSUFFICIENT_PRIVILEGE,
    )
    .await;
    // A participant learns only that they may not roll for creatures, and nothing about the creature.
    let [existing_creature, _, missing_creature, _] = statements;
    assert_same_answers(
        &[&active_game.players[0].caller],
        "a creature's roll",
        &[existing_creature, missing_creature],
        INSUFFICIENT_PRIVILEGE,
    )
    .await;
    let insert_event = |session: Uuid| {
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.wave')")
    };
    let statements = [
        ("active", insert_event(active_game.session_id)),
        ("waiting", insert_event(waiting_game.session_id)),
        ("one that does not exist", insert_event(Uuid::new_v4())),
    ];
    assert_same_answers(&[&stranger.caller, &world.visitor()], "an event", &statements, INSUFFICIENT_PRIVILEGE).await;
    let wound = |character: Uuid| format!("SELECT * FROM private.change_hit_points('{character}', -1)");
    let statements = [("existing", wound(character)), ("one that does not exist", wound(Uuid::new_v4()))];
    assert_same_answers(&[&stranger.caller], "a wound", &statements, "0 rows").await;
}

#[tokio::test]
async fn joining_reveals_nothing_about_characters_of_others() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.update_session(&game, "is_public = true").await;
    let (player, other_player, closed_player) =
        (world.new_player().await, world.new_player().await, world.new_player().await);
    let retired_character = world.new_character(other_player.user_id).await;
    world
        .owner()
        .execute(&format!("UPDATE characters SET retired_at = now() WHERE id = '{retired_character}'"))
        .await
        .unwrap();
    close_account(&world, closed_player.user_id).await;
    let statements = [
        ("living", insert_seat_sql(game.session_id, player.user_id, other_player.character_id)),
        ("retired", insert_seat_sql(game.session_id, player.user_id, retired_character)),
        ("of a closed account", insert_seat_sql(game.session_id, player.user_id, closed_player.character_id)),
    ];
    assert_same_answers(&[&player.caller], "a seat with another's character", &statements, CHARACTER_NOT_YOURS).await;
    let join = |character: Uuid, code: &str| format!("SELECT * FROM private.join_by_code('{code}', '{character}')");
    let statements = [
        ("own", join(player.character_id, "ZZZZZZ")),
        ("another's", join(other_player.character_id, "ZZZZZZ")),
        ("one that does not exist", join(Uuid::new_v4(), "ZZZZZZ")),
    ];
    assert_same_answers(&[&player.caller], "an unknown code", &statements, UNKNOWN_JOIN_CODE).await;
}

/// Whoever has the code of a private session learns its id only by joining it.
#[tokio::test]
async fn joining_by_code_without_a_character_does_not_reveal_the_id_of_the_session() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let join_code: String = world
        .owner()
        .fetch_value(&format!("SELECT code::text FROM sessions WHERE id = '{}'", game.session_id))
        .await
        .unwrap();
    let caller = world.new_user().await;
    let statements = [
        ("a private session", format!("SELECT * FROM private.join_by_code('{join_code}', NULL)")),
        ("no session", "SELECT * FROM private.join_by_code('ZZZZZZ', NULL)".to_owned()),
    ];
    assert_same_answers(&[&caller], "a code without a character", &statements, NULL_VALUE_NOT_ALLOWED).await;
}

#[tokio::test]
async fn a_creature_for_anothers_adventure_does_not_reveal_which_ids_are_used() {
    let world = World::new().await;
    let (creator, stranger) = (world.new_user().await, world.new_user().await);
    let (published_adventure, draft_adventure) =
        (world.new_adventure(creator.user_id()).await, world.new_draft_adventure(creator.user_id()).await);
    let insert_hidden =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_adventure}', 'Wolf') RETURNING id");
    let hidden_creature: Uuid = world.owner().fetch_value(&insert_hidden).await.unwrap();
    for adventure in [published_adventure, draft_adventure] {
        let insert =
            |id: Uuid| format!("INSERT INTO creatures (id, adventure_id, name) VALUES ('{id}', '{adventure}', 'Wolf')");
        let refusal_of_unused_id = stranger.execute(&insert(Uuid::new_v4())).await.unwrap_err();
        assert_eq!(refusal_of_unused_id.code, INSUFFICIENT_PRIVILEGE);
        assert_eq!(stranger.execute(&insert(hidden_creature)).await.unwrap_err(), refusal_of_unused_id);
    }
}
