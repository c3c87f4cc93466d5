//! A refusal reveals nothing about rows that the caller may not see: its text is the same whether they exist or not.
//! Two exceptions are accepted (`tests/attacks/README.md`): a new row is refused if its id is in use, and a new seat is
//! refused with one error if its character does not exist, and with another if the character is somebody else's.

use uuid::Uuid;

use super::{
    close_account, execute_in, new_private_session,
    sqlstates::{ACCOUNT_CLOSED, CHARACTER_NOT_YOURS, INSUFFICIENT_PRIVILEGE, ROLL_NOT_SAVEABLE, UNKNOWN_JOIN_CODE},
};
use crate::world::{SqlCaller, SqlError, World, insert_character_sql, insert_heroic_save_sql, insert_seat_sql};

/// Runs a statement, rolls it back, and returns the number of rows or the text of the refusal.
pub(super) async fn answer_to(caller: &SqlCaller, sql: &str) -> String {
    let transaction = caller.begin().await;
    let outcome = execute_in(&transaction, sql).await;
    transaction.rollback().await.unwrap();
    match outcome {
        Ok(rows) => format!("{rows} rows"),
        Err(SqlError { sqlstate, constraint, message, detail, hint }) => {
            [format!("{sqlstate} {constraint}: {message}"), detail, hint].join("\n").trim_end().to_owned()
        }
    }
}

/// Asserts that each caller gets the same answer to all statements, and that the answer begins with `expected_prefix`.
/// Each statement is paired with the name of its case, such as `closed`; `label` says what the statements have in
/// common. (The answers of different callers may differ.)
pub(super) async fn assert_same_answers(
    callers: &[&SqlCaller],
    label: &str,
    statements: &[(&str, String)],
    expected_prefix: &str,
) {
    for caller in callers {
        let mut answers = Vec::new();
        for (case, sql) in statements {
            answers.push((*case, answer_to(caller, sql).await));
        }
        let (first_case, first_answer) = &answers[0];
        for (case, answer) in &answers {
            assert_eq!(answer, first_answer, "{label}: {case} differs from {first_case}");
            assert!(answer.starts_with(expected_prefix), "{label}, {case}: {answer}");
        }
    }
}

#[tokio::test]
async fn nobody_learns_which_rolls_of_others_exist_or_were_repeated_by_a_heroic_save() {
    let world = World::new().await;
    // The player has a seat in `own_game` only, and knows ids of rows of `other_game`.
    let (other_game, own_game) = (world.new_active_session(2).await, world.new_active_session(1).await);
    let (saver, fellow_player, player) = (&other_game.players[0], &other_game.players[1], &own_game.players[0]);
    // Two rolls that failed five seconds ago, so that each could be repeated by a heroic save. Only the first one is.
    let roll_with_save = world.new_attack_roll(other_game.session_id, saver.character_id, "{1,2,1,2,1}", 18, 5).await;
    let roll_without_save =
        world.new_attack_roll(other_game.session_id, fellow_player.character_id, "{1,2,1,2,1}", 18, 5).await;
    saver
        .caller
        .execute(&insert_heroic_save_sql(other_game.session_id, saver.character_id, roll_with_save))
        .await
        .unwrap();
    for (session, character, label) in [
        (own_game.session_id, player.character_id, "in the session of the player's seat"),
        (other_game.session_id, player.character_id, "in another session"),
        (other_game.session_id, saver.character_id, "in another session, with the saver's character"),
    ] {
        for suffix in ["", " ON CONFLICT DO NOTHING"] {
            let originals = [
                ("one with a save", roll_with_save),
                ("one without a save", roll_without_save),
                ("one that does not exist", Uuid::new_v4()),
            ];
            let statements: Vec<(&str, String)> = originals
                .into_iter()
                .map(|(case, original)| (case, insert_heroic_save_sql(session, character, original) + suffix))
                .collect();
            let expected_code = if session == own_game.session_id { ROLL_NOT_SAVEABLE } else { INSUFFICIENT_PRIVILEGE };
            assert_same_answers(&[&player.caller], label, &statements, expected_code).await;
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
        for (sql_on_others_row, sql_on_no_row) in statements(others_id).iter().zip(statements(Uuid::new_v4())) {
            let answer = answer_to(caller, sql_on_others_row).await;
            assert_eq!(answer, answer_to(caller, &sql_on_no_row).await, "{sql_on_others_row}");
            // Where the account is checked before the row is looked for, the answer is that the account is closed.
            assert!(answer == "0 rows" || answer.starts_with(ACCOUNT_CLOSED), "{sql_on_others_row}: {answer}");
        }
        // The account may know about its own rows, but cannot write them.
        let (_, _, _, own_id) = *own_row;
        for sql_on_own_row in statements(own_id) {
            assert!(answer_to(caller, &sql_on_own_row).await.starts_with(ACCOUNT_CLOSED), "{sql_on_own_row}");
        }
    }
}

#[tokio::test]
async fn a_stranger_does_not_learn_how_many_rows_an_account_has() {
    let world = World::new().await;
    let (newcomer, account_at_limits, closed_player) =
        (world.new_player().await, world.new_account().await, world.new_player().await);
    // An account may have at most ten characters that are not retired.
    for _ in 0..10 {
        world.new_character(account_at_limits).await;
    }
    close_account(&world, closed_player.user_id).await;
    // `insert_character_sql` derives the name from the id.
    let name_of = |id: Uuid| format!("Hero {}", &id.to_string()[..8]);
    // A character that is to have the name of the newcomer's character.
    let namesake_id = Uuid::new_v4();
    let statements = [
        ("few", insert_character_sql(Uuid::new_v4(), newcomer.user_id)),
        ("ten", insert_character_sql(Uuid::new_v4(), account_at_limits)),
        ("closed", insert_character_sql(Uuid::new_v4(), closed_player.user_id)),
        ("a user that does not exist", insert_character_sql(Uuid::new_v4(), Uuid::new_v4())),
        (
            "the same name",
            insert_character_sql(namesake_id, newcomer.user_id)
                .replace(&name_of(namesake_id), &name_of(newcomer.character_id)),
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
    let insert_skipping_conflicts =
        format!("{} ON CONFLICT DO NOTHING", insert_character_sql(Uuid::new_v4(), account_at_limits));
    assert!(answer_to(&caller, &insert_skipping_conflicts).await.starts_with(INSUFFICIENT_PRIVILEGE));
    // The numbers of live sessions (20), of adventures (200) and of rows of `tutorial_progress` (1) of an account are
    // limited too.
    let seer_at_limit = world.new_user().await;
    let adventure = world.new_adventure(seer_at_limit.user_id()).await;
    for _ in 0..20 {
        new_private_session(&world, seer_at_limit.user_id(), adventure).await;
    }
    let insert_session =
        |seer: Uuid| format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{seer}', '{adventure}')");
    let statements = [
        ("few", insert_session(newcomer.user_id)),
        ("twenty", insert_session(seer_at_limit.user_id())),
        ("closed", insert_session(closed_player.user_id)),
        ("a user that does not exist", insert_session(Uuid::new_v4())),
    ];
    assert_same_answers(&[&caller, &world.visitor()], "another's session", &statements, INSUFFICIENT_PRIVILEGE).await;
    let sql = format!(
        "INSERT INTO adventures (creator_id, name)
         SELECT '{account_at_limits}', 'Draft' FROM generate_series(1, 200)"
    );
    world.owner().execute(&sql).await.unwrap();
    let insert_draft =
        |creator: Uuid| format!("INSERT INTO adventures (creator_id, name) VALUES ('{creator}', 'A draft')");
    let statements = [
        ("few", insert_draft(newcomer.user_id)),
        ("two hundred", insert_draft(account_at_limits)),
        ("closed", insert_draft(closed_player.user_id)),
        ("a user that does not exist", insert_draft(Uuid::new_v4())),
    ];
    assert_same_answers(&[&caller, &world.visitor()], "another's adventure", &statements, INSUFFICIENT_PRIVILEGE).await;
    let insert_tutorial_progress = |user: Uuid| format!("INSERT INTO tutorial_progress (user_id) VALUES ('{user}')");
    world.owner().execute(&insert_tutorial_progress(account_at_limits)).await.unwrap();
    let statements = [
        ("none", insert_tutorial_progress(newcomer.user_id)),
        ("begun", insert_tutorial_progress(account_at_limits)),
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

#[tokio::test]
async fn inserting_a_creature_into_another_users_adventure_does_not_reveal_which_ids_are_used() {
    let world = World::new().await;
    let (creator, stranger) = (world.new_user().await, world.new_user().await);
    let (published_adventure, draft_adventure) =
        (world.new_adventure(creator.user_id()).await, world.new_draft_adventure(creator.user_id()).await);
    let insert_hidden_creature =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_adventure}', 'Wolf') RETURNING id");
    let hidden_creature: Uuid = world.owner().fetch_value(&insert_hidden_creature).await.unwrap();
    for adventure in [published_adventure, draft_adventure] {
        let insert =
            |id: Uuid| format!("INSERT INTO creatures (id, adventure_id, name) VALUES ('{id}', '{adventure}', 'Wolf')");
        let refusal_of_unused_id = stranger.execute(&insert(Uuid::new_v4())).await.unwrap_err();
        assert_eq!(refusal_of_unused_id.sqlstate, INSUFFICIENT_PRIVILEGE);
        assert_eq!(stranger.execute(&insert(hidden_creature)).await.unwrap_err(), refusal_of_unused_id);
    }
}

#[tokio::test]
async fn the_planner_has_no_statistics_of_email_addresses_and_join_codes() {
    let world = World::new().await;
    let seer = world.new_user().await.user_id();
    new_private_session(&world, seer, world.new_adventure(seer).await).await;
    let superuser = world.superuser().await;
    superuser.execute("ANALYZE users, sessions").await.unwrap();
    let has_statistics = "EXISTS (SELECT FROM pg_statistic WHERE starelid = attrelid AND staattnum = attnum)";
    for (table, columns) in [("users", "email"), ("sessions", "code")] {
        let columns_without_statistics: String = superuser
            .fetch_value(&format!(
                "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
                 WHERE attrelid = 'public.{table}'::regclass AND attnum > 0 AND NOT attisdropped AND NOT {has_statistics}"
            ))
            .await
            .unwrap();
        assert_eq!(columns_without_statistics, columns, "{table}");
    }
}
