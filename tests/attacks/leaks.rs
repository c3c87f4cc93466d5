//! A refusal reveals nothing to a stranger: it reads the same whatever rows exist.

use uuid::Uuid;

use super::close;
use crate::world::{Person, Refused, World, heroic_save, insert_character, roll, seat};

/// Runs a statement, rolls it back, and returns the number of rows or the text of the refusal.
pub(super) async fn answer_text(person: &Person, sql: &str) -> String {
    let transaction = person.begin().await;
    let outcome = super::exec_in(&transaction, sql).await;
    transaction.rollback().await.unwrap();
    match outcome {
        Ok(rows) => format!("{rows} rows"),
        Err(Refused { code, constraint, message }) => format!("{code} {constraint}: {message}"),
    }
}

/// Asserts that each person gets the same answer to all statements, and that it begins with `expected`.
async fn assert_same_answers(askers: &[&Person], what: &str, statements: &[(&str, String)], expected: &str) {
    for person in askers {
        let mut answers = Vec::new();
        for (case, sql) in statements {
            answers.push((*case, answer_text(person, sql).await));
        }
        for (case, words) in &answers {
            assert_eq!(words, &answers[0].1, "{what}: {case} differs from {}", answers[0].0);
            assert!(words.starts_with(expected), "{what}, {case}: {words}");
        }
    }
}

#[tokio::test]
async fn a_stranger_does_not_learn_how_full_a_private_session_is() {
    let world = World::new().await;
    let (empty, full) = (world.new_session(0).await, world.new_session(4).await);
    let (active, over, cancelled) =
        (world.new_active_session(1).await, world.new_active_session(1).await, world.new_session(0).await);
    world.set(&over, "status = 'completed'").await;
    world.set(&cancelled, "status = 'cancelled'").await;
    let closed = world.new_session(1).await;
    close(&world, closed.seer.uuid()).await;
    let me = world.new_player().await;
    let retired = world.new_character(me.id).await;
    world.owner().exec(&format!("UPDATE characters SET retired_at = now() WHERE id = '{retired}'")).await.unwrap();
    let other = world.new_player().await;
    for (with, character) in [
        ("own", me.character),
        ("retired", retired),
        ("another's", other.character),
        ("one that does not exist", Uuid::new_v4()),
    ] {
        let statements: Vec<(&str, String)> = [
            ("empty", empty.session),
            ("full", full.session),
            ("active", active.session),
            ("over", over.session),
            ("cancelled", cancelled.session),
            ("of a closed account", closed.session),
            ("nothing", Uuid::new_v4()),
        ]
        .into_iter()
        .map(|(case, session)| (case, seat(session, me.id, character)))
        .collect();
        assert_same_answers(&[&me.person], &format!("a seat with {with}"), &statements, "42501").await;
        let unless: Vec<(&str, String)> =
            statements.iter().map(|(case, sql)| (*case, format!("{sql} ON CONFLICT DO NOTHING"))).collect();
        assert_same_answers(&[&me.person], "a seat with ON CONFLICT", &unless, "42501").await;
    }
    // In the name of a user with a seat, without one, with a closed account, and of one who does not exist.
    let gone = world.new_player().await;
    close(&world, gone.id).await;
    let statements = [
        ("a user with a seat", seat(full.session, full.players[0].id, full.players[0].character)),
        ("a user without a seat", seat(full.session, other.id, other.character)),
        ("a closed account", seat(full.session, gone.id, gone.character)),
        ("a user that does not exist", seat(full.session, Uuid::new_v4(), Uuid::new_v4())),
    ];
    assert_same_answers(&[&me.person, &world.visitor()], "another's seat", &statements, "42501").await;
}

#[tokio::test]
async fn nobody_learns_which_rolls_of_others_exist_or_were_saved() {
    let world = World::new().await;
    let (theirs, mine) = (world.new_active_session(2).await, world.new_active_session(1).await);
    let (they, other, me) = (&theirs.players[0], &theirs.players[1], &mine.players[0]);
    let saved = world.new_roll(theirs.session, they.character, "{1,2,1,2,1}", 18, 5).await;
    let unsaved = world.new_roll(theirs.session, other.character, "{1,2,1,2,1}", 18, 5).await;
    they.person.exec(&heroic_save(theirs.session, they.character, saved)).await.unwrap();
    for (session, character, what) in [
        (mine.session, me.character, "in the caller's own session"),
        (theirs.session, me.character, "in theirs"),
        (theirs.session, they.character, "in theirs, with theirs"),
    ] {
        for end in ["", " ON CONFLICT DO NOTHING"] {
            let statements: Vec<(&str, String)> = [("saved", saved), ("unsaved", unsaved), ("nothing", Uuid::new_v4())]
                .into_iter()
                .map(|(case, original)| (case, heroic_save(session, character, original) + end))
                .collect();
            let expected = if session == mine.session { "SP015" } else { "42501" };
            assert_same_answers(&[&me.person], what, &statements, expected).await;
        }
    }
}

#[tokio::test]
async fn a_closed_account_does_not_learn_which_rows_of_others_exist() {
    let world = World::new().await;
    let (theirs, mine) = (world.new_active_session(2).await, world.new_active_session(1).await);
    world.set(&theirs, "is_public = true").await;
    let creature = |adventure: Uuid| {
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Rat') RETURNING id")
    };
    let of = |session: Uuid| format!("SELECT adventure_id FROM sessions WHERE id = '{session}'");
    let mut rows = Vec::new();
    for game in [&theirs, &mine] {
        let adventure: Uuid = world.owner().value(&of(game.session)).await.unwrap();
        let creature: Uuid = world.owner().value(&creature(adventure)).await.unwrap();
        let seer = game.seer.uuid();
        world.owner().exec(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{seer}')")).await.unwrap();
        let hero = world.new_character(seer).await;
        rows.push([
            ("users", "id", "bio = 'x'", seer),
            ("characters", "id", "name = 'Renamed'", hero),
            ("adventures", "id", "description = 'x'", adventure),
            ("creatures", "id", "name = 'Mouse'", creature),
            ("sessions", "id", "looking_for = 'x'", game.session),
            ("session_players", "session_id", "removed_at = now()", game.session),
            ("tutorial_progress", "user_id", "skipped = true", seer),
        ]);
    }
    close(&world, mine.seer.uuid()).await;
    let me = &mine.seer;
    for (of_theirs, of_mine) in rows[0].iter().zip(&rows[1]) {
        let (table, key, change, _) = *of_theirs;
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
        for (there, nowhere) in statements(of_theirs.3).iter().zip(statements(Uuid::new_v4())) {
            let answer = answer_text(me, there).await;
            assert_eq!(answer, answer_text(me, &nowhere).await, "{there}");
            // The check of the account may come before the check of the row, and then the answer is that it is closed.
            assert!(answer == "0 rows" || answer.starts_with("SP019"), "{there}: {answer}");
        }
        // The account knows of its own rows, but cannot write them.
        for own in statements(of_mine.3) {
            assert!(answer_text(me, &own).await.starts_with("SP019"), "{own}");
        }
    }
}

#[tokio::test]
async fn a_stranger_does_not_learn_how_many_characters_an_account_has() {
    let world = World::new().await;
    let (few, many, closed) = (world.new_player().await, world.new_account().await, world.new_player().await);
    for _ in 0..10 {
        world.new_character(many).await;
    }
    close(&world, closed.id).await;
    let name = format!("Hero {}", &few.character.to_string()[..8]);
    let statements = [
        ("few", insert_character(Uuid::new_v4(), few.id)),
        ("ten", insert_character(Uuid::new_v4(), many)),
        ("closed", insert_character(Uuid::new_v4(), closed.id)),
        ("a user that does not exist", insert_character(Uuid::new_v4(), Uuid::new_v4())),
        ("the same name", insert_character(Uuid::new_v4(), few.id).replace("'Hero ", &format!("'{name}' || '' || '"))),
        ("ten, unless", format!("{} ON CONFLICT DO NOTHING", insert_character(Uuid::new_v4(), many))),
    ];
    assert_same_answers(&[&world.new_user().await, &world.visitor()], "another's character", &statements[..4], "42501")
        .await;
    let me = world.new_user().await;
    assert!(answer_text(&me, &statements[5].1).await.starts_with("42501"));
    // Sessions, adventures and tutorials count rows per account too.
    let busy = world.new_user().await;
    let adventure = world.new_adventure(busy.uuid()).await;
    for _ in 0..20 {
        super::open_session(&world, busy.uuid(), adventure, false).await;
    }
    let session = |seer: Uuid| format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{seer}', '{adventure}')");
    let statements = [
        ("few", session(few.id)),
        ("twenty", session(busy.uuid())),
        ("closed", session(closed.id)),
        ("a user that does not exist", session(Uuid::new_v4())),
    ];
    assert_same_answers(&[&me, &world.visitor()], "another's session", &statements, "42501").await;
    let sql =
        format!("INSERT INTO adventures (creator_id, name) SELECT '{many}', 'Draft' FROM generate_series(1, 200)");
    world.owner().exec(&sql).await.unwrap();
    let draft = |creator: Uuid| format!("INSERT INTO adventures (creator_id, name) VALUES ('{creator}', 'A draft')");
    let statements = [
        ("few", draft(few.id)),
        ("many", draft(many)),
        ("closed", draft(closed.id)),
        ("a user that does not exist", draft(Uuid::new_v4())),
    ];
    assert_same_answers(&[&me, &world.visitor()], "another's adventure", &statements, "42501").await;
    world.owner().exec(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{many}')")).await.unwrap();
    let tutorial = |user: Uuid| format!("INSERT INTO tutorial_progress (user_id) VALUES ('{user}')");
    let statements = [
        ("none", tutorial(few.id)),
        ("begun", tutorial(many)),
        ("closed", tutorial(closed.id)),
        ("a user that does not exist", tutorial(Uuid::new_v4())),
    ];
    assert_same_answers(&[&me, &world.visitor()], "another's tutorial", &statements, "42501").await;
}

#[tokio::test]
async fn a_stranger_does_not_learn_whether_a_draft_exists() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let (draft, archived) = (world.new_draft(creator.uuid()).await, world.new_draft(creator.uuid()).await);
    world.owner().exec(&format!("UPDATE adventures SET status = 'archived' WHERE id = '{archived}'")).await.unwrap();
    let full = world.new_draft(creator.uuid()).await;
    let sql = format!("INSERT INTO creatures (adventure_id, name) SELECT '{full}', 'Rat' FROM generate_series(1, 200)");
    world.owner().exec(&sql).await.unwrap();
    let me = world.new_user().await;
    let each = |sql: &dyn Fn(Uuid) -> String| {
        [("draft", sql(draft)), ("archived", sql(archived)), ("full", sql(full)), ("nothing", sql(Uuid::new_v4()))]
    };
    let play = |adventure: Uuid| {
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", me.uuid())
    };
    assert_same_answers(&[&me], "a session on it", &each(&play), "SP009").await;
    let creature =
        |adventure: Uuid| format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Mine')");
    assert_same_answers(&[&me, &world.visitor()], "a creature in it", &each(&creature), "42501").await;
    let bad = |adventure: Uuid| {
        format!("INSERT INTO creatures (adventure_id, name, stats) VALUES ('{adventure}', 'Mine', '[]')")
    };
    let answers: Vec<String> = {
        let mut answers = Vec::new();
        for (_, sql) in each(&bad) {
            answers.push(answer_text(&me, &sql).await);
        }
        answers
    };
    assert!(answers.iter().all(|words| words == &answers[0]), "{answers:?}");
    let change = |adventure: Uuid| format!("UPDATE adventures SET name = 'Mine' WHERE id = '{adventure}'");
    assert_same_answers(&[&me], "a change of it", &each(&change), "0 rows").await;
    let delete = |adventure: Uuid| format!("DELETE FROM adventures WHERE id = '{adventure}'");
    assert_same_answers(&[&me], "its deletion", &each(&delete), "0 rows").await;
    // Sessions with that adventure are hidden too.
    let game = world.new_session(1).await;
    let set = |session: Uuid| format!("UPDATE sessions SET max_players = 2 WHERE id = '{session}'");
    let statements = [("there", set(game.session)), ("nothing", set(Uuid::new_v4()))];
    assert_same_answers(&[&me], "a session of another's", &statements, "0 rows").await;
}

#[tokio::test]
async fn a_stranger_does_not_learn_what_was_rolled() {
    let world = World::new().await;
    let (active, waiting) = (world.new_active_session(2).await, world.new_session(1).await);
    let hero = active.players[0].character;
    let failed = world.new_roll(active.session, hero, "{1,2}", 10, -3600).await;
    let passed = world.new_roll(active.session, hero, "{6,6}", 10, -3600).await;
    let late = world.new_roll(active.session, hero, "{1,2}", 10, 3600).await;
    let spent = world.new_roll(active.session, active.players[1].character, "{1,2}", 10, -3600).await;
    let save = heroic_save(active.session, active.players[1].character, spent);
    assert_eq!(super::attempt(&active.players[1].person, &save).await, "done");
    let me = world.new_player().await;
    let sql =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf') RETURNING id", active.adventure);
    let creature: Uuid = world.owner().value(&sql).await.unwrap();

    let with = |original: Uuid| heroic_save(active.session, hero, original);
    let statements = [
        ("failed", with(failed)),
        ("passed", with(passed)),
        ("late", with(late)),
        ("saved", with(spent)),
        ("nothing", with(Uuid::new_v4())),
    ];
    assert_same_answers(&[&me.person, &world.visitor()], "another's save", &statements, "42501").await;
    let statements = [
        ("a character with a seat", roll(active.session, hero)),
        ("a character of another session", roll(active.session, waiting.players[0].character)),
        ("their own character", roll(active.session, me.character)),
        ("a user that does not exist", roll(active.session, Uuid::new_v4())),
        ("waiting", roll(waiting.session, waiting.players[0].character)),
        ("nowhere", roll(Uuid::new_v4(), me.character)),
    ];
    assert_same_answers(&[&me.person, &world.visitor()], "a roll", &statements, "42501").await;
    let with = |creature: Uuid, session: Uuid| {
        format!(
            "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
             VALUES ('{session}', '{creature}', 'might', 10, 'attack')"
        )
    };
    let statements = [
        ("of the adventure", with(creature, active.session)),
        ("of another", with(creature, waiting.session)),
        ("nothing", with(Uuid::new_v4(), active.session)),
        ("nowhere", with(creature, Uuid::new_v4())),
    ];
    assert_same_answers(&[&me.person, &world.visitor()], "a creature's roll", &statements, "42501").await;
    // A participant learns who may, and nothing about the creature.
    let [there, _, nothing, _] = statements;
    assert_same_answers(&[&active.players[0].person], "a creature's roll", &[there, nothing], "42501").await;
    let event = |session: Uuid| {
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.wave')")
    };
    let statements =
        [("active", event(active.session)), ("waiting", event(waiting.session)), ("nothing", event(Uuid::new_v4()))];
    assert_same_answers(&[&me.person, &world.visitor()], "an event", &statements, "42501").await;
    let wound = |hero: Uuid| format!("SELECT * FROM private.change_hit_points('{hero}', -1)");
    let statements = [("there", wound(hero)), ("nothing", wound(Uuid::new_v4()))];
    assert_same_answers(&[&me.person], "a wound", &statements, "0 rows").await;
}

#[tokio::test]
async fn another_persons_character_looks_like_one_that_does_not_exist() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.set(&game, "is_public = true").await;
    let (me, other, closed) = (world.new_player().await, world.new_player().await, world.new_player().await);
    let retired = world.new_character(other.id).await;
    world.owner().exec(&format!("UPDATE characters SET retired_at = now() WHERE id = '{retired}'")).await.unwrap();
    close(&world, closed.id).await;
    let statements = [
        ("living", seat(game.session, me.id, other.character)),
        ("retired", seat(game.session, me.id, retired)),
        ("of a closed account", seat(game.session, me.id, closed.character)),
    ];
    assert_same_answers(&[&me.person], "another's character in one's seat", &statements, "SP006").await;
    let code = |hero: Uuid, code: &str| format!("SELECT * FROM private.join_by_code('{code}', '{hero}')");
    let statements = [
        ("own", code(me.character, "ZZZZZZ")),
        ("another's", code(other.character, "ZZZZZZ")),
        ("one that does not exist", code(Uuid::new_v4(), "ZZZZZZ")),
    ];
    assert_same_answers(&[&me.person], "a code that is none", &statements, "SP020").await;
}
