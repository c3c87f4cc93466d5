//! A refusal tells a stranger nothing: the same words, whatever is behind them.

use uuid::Uuid;

use super::close;
use crate::world::{Person, Refused, World, heroic_save, insert_character, roll, seat};

/// What is told, with the ids that the asker gave taken out.
async fn words(person: &Person, sql: &str) -> String {
    let transaction = person.begin().await;
    let outcome = super::exec_in(&transaction, sql).await;
    transaction.rollback().await.unwrap();
    match outcome {
        Ok(rows) => format!("{rows} rows"),
        Err(Refused { code, constraint, message }) => format!("{code} {constraint}: {message}"),
    }
}

/// Everybody who has no part in it is told the same for each, and no more than that row security says no.
async fn all_the_same(askers: &[&Person], what: &str, asks: &[(&str, String)], expected: &str) {
    for person in askers {
        let mut answers = Vec::new();
        for (case, sql) in asks {
            answers.push((*case, words(person, sql).await));
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
    let (empty, full) = (world.session(0).await, world.session(4).await);
    let (active, over, cancelled) =
        (world.active_session(1).await, world.active_session(1).await, world.session(0).await);
    world.set(&over, "status = 'completed'").await;
    world.set(&cancelled, "status = 'cancelled'").await;
    let closed = world.session(1).await;
    close(&world, closed.seer.uuid()).await;
    let me = world.player().await;
    let retired = world.character(me.id).await;
    world.owner().exec(&format!("UPDATE characters SET retired_at = now() WHERE id = '{retired}'")).await.unwrap();
    let other = world.player().await;
    for (with, character) in
        [("own", me.character), ("retired", retired), ("another's", other.character), ("nobody's", Uuid::new_v4())]
    {
        let asks: Vec<(&str, String)> = [
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
        all_the_same(&[&me.person], &format!("a seat with {with}"), &asks, "42501").await;
        let unless: Vec<(&str, String)> =
            asks.iter().map(|(case, sql)| (*case, format!("{sql} ON CONFLICT DO NOTHING"))).collect();
        all_the_same(&[&me.person], "a seat unless there is one", &unless, "42501").await;
    }
    // In another's name, who sits there or does not, is closed or is not.
    let gone = world.player().await;
    close(&world, gone.id).await;
    let asks = [
        ("who sits", seat(full.session, full.players[0].id, full.players[0].character)),
        ("who does not", seat(full.session, other.id, other.character)),
        ("who is closed", seat(full.session, gone.id, gone.character)),
        ("nobody", seat(full.session, Uuid::new_v4(), Uuid::new_v4())),
    ];
    all_the_same(&[&me.person, &world.visitor()], "another's seat", &asks, "42501").await;
}

#[tokio::test]
async fn nobody_learns_which_rolls_of_others_there_are_or_were_saved() {
    let world = World::new().await;
    let (theirs, mine) = (world.active_session(2).await, world.active_session(1).await);
    let (they, other, me) = (&theirs.players[0], &theirs.players[1], &mine.players[0]);
    let saved = world.roll(theirs.session, they.character, "{1,2,1,2,1}", 18, 5).await;
    let unsaved = world.roll(theirs.session, other.character, "{1,2,1,2,1}", 18, 5).await;
    they.person.exec(&heroic_save(theirs.session, they.character, saved)).await.unwrap();
    for (session, character, what) in [
        (mine.session, me.character, "in the own session"),
        (theirs.session, me.character, "in theirs"),
        (theirs.session, they.character, "in theirs, with theirs"),
    ] {
        for end in ["", " ON CONFLICT DO NOTHING"] {
            let asks: Vec<(&str, String)> = [("saved", saved), ("unsaved", unsaved), ("nothing", Uuid::new_v4())]
                .into_iter()
                .map(|(case, original)| (case, heroic_save(session, character, original) + end))
                .collect();
            let expected = if session == mine.session { "SP015" } else { "42501" };
            all_the_same(&[&me.person], what, &asks, expected).await;
        }
    }
}

#[tokio::test]
async fn a_closed_account_does_not_learn_which_rows_of_others_exist() {
    let world = World::new().await;
    let (theirs, mine) = (world.active_session(2).await, world.active_session(1).await);
    world.set(&theirs, "is_public = true").await;
    let creature = |adventure: Uuid| {
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Rat') RETURNING id")
    };
    let of = |session: Uuid| format!("SELECT adventure_id FROM sessions WHERE id = '{session}'");
    let mut rows = Vec::new();
    for table in [&theirs, &mine] {
        let adventure: Uuid = world.owner().value(&of(table.session)).await.unwrap();
        let creature: Uuid = world.owner().value(&creature(adventure)).await.unwrap();
        let seer = table.seer.uuid();
        world.owner().exec(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{seer}')")).await.unwrap();
        let hero = world.character(seer).await;
        rows.push([
            ("users", "id", "bio = 'x'", seer),
            ("characters", "id", "name = 'Renamed'", hero),
            ("adventures", "id", "description = 'x'", adventure),
            ("creatures", "id", "name = 'Mouse'", creature),
            ("sessions", "id", "looking_for = 'x'", table.session),
            ("session_players", "session_id", "removed_at = now()", table.session),
            ("tutorial_progress", "user_id", "skipped = true", seer),
        ]);
    }
    close(&world, mine.seer.uuid()).await;
    let me = &mine.seer;
    for (of_theirs, of_mine) in rows[0].iter().zip(&rows[1]) {
        let (table, key, change, _) = *of_theirs;
        let asks = |id: Uuid| {
            let mut asks = vec![
                format!("UPDATE {table} SET {change} WHERE {key} = '{id}'"),
                format!("SELECT FROM {table} WHERE {key} = '{id}' FOR UPDATE"),
                format!("SELECT FROM {table} WHERE {key} = '{id}' FOR KEY SHARE"),
            ];
            if ["characters", "adventures", "creatures"].contains(&table) {
                asks.push(format!("DELETE FROM {table} WHERE {key} = '{id}'"));
            }
            asks
        };
        for (there, nowhere) in asks(of_theirs.3).iter().zip(asks(Uuid::new_v4())) {
            let answer = words(me, there).await;
            assert_eq!(answer, words(me, &nowhere).await, "{there}");
            // The way to own rows may come first, and then the account is closed whatever was asked for.
            assert!(answer == "0 rows" || answer.starts_with("SP019"), "{there}: {answer}");
        }
        // Its own, of which it knows, it does not write.
        for own in asks(of_mine.3) {
            assert!(words(me, &own).await.starts_with("SP019"), "{own}");
        }
    }
}

#[tokio::test]
async fn a_stranger_does_not_learn_how_many_characters_somebody_has() {
    let world = World::new().await;
    let (few, many, closed) = (world.player().await, world.account().await, world.player().await);
    for _ in 0..10 {
        world.character(many).await;
    }
    close(&world, closed.id).await;
    let name = format!("Hero {}", &few.character.to_string()[..8]);
    let asks = [
        ("few", insert_character(Uuid::new_v4(), few.id)),
        ("ten", insert_character(Uuid::new_v4(), many)),
        ("closed", insert_character(Uuid::new_v4(), closed.id)),
        ("nobody", insert_character(Uuid::new_v4(), Uuid::new_v4())),
        ("the same name", insert_character(Uuid::new_v4(), few.id).replace("'Hero ", &format!("'{name}' || '' || '"))),
        ("ten, unless", format!("{} ON CONFLICT DO NOTHING", insert_character(Uuid::new_v4(), many))),
    ];
    all_the_same(&[&world.new_user().await, &world.visitor()], "another's character", &asks[..4], "42501").await;
    let me = world.new_user().await;
    assert!(words(&me, &asks[5].1).await.starts_with("42501"));
    // Sessions, adventures, tutorials: the counters of others as well.
    let busy = world.new_user().await;
    let adventure = world.adventure(busy.uuid()).await;
    for _ in 0..20 {
        super::open_session(&world, busy.uuid(), adventure, false).await;
    }
    let session = |seer: Uuid| format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{seer}', '{adventure}')");
    let asks = [
        ("few", session(few.id)),
        ("twenty", session(busy.uuid())),
        ("closed", session(closed.id)),
        ("nobody", session(Uuid::new_v4())),
    ];
    all_the_same(&[&me, &world.visitor()], "another's session", &asks, "42501").await;
    let sql =
        format!("INSERT INTO adventures (creator_id, name) SELECT '{many}', 'Draft' FROM generate_series(1, 200)");
    world.owner().exec(&sql).await.unwrap();
    let draft = |creator: Uuid| format!("INSERT INTO adventures (creator_id, name) VALUES ('{creator}', 'A draft')");
    let asks = [
        ("few", draft(few.id)),
        ("many", draft(many)),
        ("closed", draft(closed.id)),
        ("nobody", draft(Uuid::new_v4())),
    ];
    all_the_same(&[&me, &world.visitor()], "another's adventure", &asks, "42501").await;
    world.owner().exec(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{many}')")).await.unwrap();
    let tutorial = |user: Uuid| format!("INSERT INTO tutorial_progress (user_id) VALUES ('{user}')");
    let asks = [
        ("none", tutorial(few.id)),
        ("begun", tutorial(many)),
        ("closed", tutorial(closed.id)),
        ("nobody", tutorial(Uuid::new_v4())),
    ];
    all_the_same(&[&me, &world.visitor()], "another's tutorial", &asks, "42501").await;
}

#[tokio::test]
async fn a_stranger_does_not_learn_whether_a_draft_exists() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let (draft, archived) = (world.draft(creator.uuid()).await, world.draft(creator.uuid()).await);
    world.owner().exec(&format!("UPDATE adventures SET status = 'archived' WHERE id = '{archived}'")).await.unwrap();
    let full = world.draft(creator.uuid()).await;
    let sql = format!("INSERT INTO creatures (adventure_id, name) SELECT '{full}', 'Rat' FROM generate_series(1, 200)");
    world.owner().exec(&sql).await.unwrap();
    let me = world.new_user().await;
    let each = |sql: &dyn Fn(Uuid) -> String| {
        [("draft", sql(draft)), ("archived", sql(archived)), ("full", sql(full)), ("nothing", sql(Uuid::new_v4()))]
    };
    let play = |adventure: Uuid| {
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", me.uuid())
    };
    all_the_same(&[&me], "a session on it", &each(&play), "SP009").await;
    let creature =
        |adventure: Uuid| format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'Mine')");
    all_the_same(&[&me, &world.visitor()], "a creature in it", &each(&creature), "42501").await;
    let bad = |adventure: Uuid| {
        format!("INSERT INTO creatures (adventure_id, name, stats) VALUES ('{adventure}', 'Mine', '[]')")
    };
    let answers: Vec<String> = {
        let mut answers = Vec::new();
        for (_, sql) in each(&bad) {
            answers.push(words(&me, &sql).await);
        }
        answers
    };
    assert!(answers.iter().all(|words| words == &answers[0]), "{answers:?}");
    let change = |adventure: Uuid| format!("UPDATE adventures SET name = 'Mine' WHERE id = '{adventure}'");
    all_the_same(&[&me], "a change of it", &each(&change), "0 rows").await;
    let delete = |adventure: Uuid| format!("DELETE FROM adventures WHERE id = '{adventure}'");
    all_the_same(&[&me], "its deletion", &each(&delete), "0 rows").await;
    // What is played there is hidden too.
    let game = world.session(1).await;
    let set = |session: Uuid| format!("UPDATE sessions SET max_players = 2 WHERE id = '{session}'");
    let asks = [("there", set(game.session)), ("nothing", set(Uuid::new_v4()))];
    all_the_same(&[&me], "a session of another's", &asks, "0 rows").await;
}

#[tokio::test]
async fn a_stranger_does_not_learn_what_was_rolled() {
    let world = World::new().await;
    let (active, waiting) = (world.active_session(2).await, world.session(1).await);
    let hero = active.players[0].character;
    let failed = world.roll(active.session, hero, "{1,2}", 10, -3600).await;
    let passed = world.roll(active.session, hero, "{6,6}", 10, -3600).await;
    let late = world.roll(active.session, hero, "{1,2}", 10, 3600).await;
    let spent = world.roll(active.session, active.players[1].character, "{1,2}", 10, -3600).await;
    let save = heroic_save(active.session, active.players[1].character, spent);
    assert_eq!(super::attempt(&active.players[1].person, &save).await, "done");
    let me = world.player().await;
    let sql =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf') RETURNING id", active.adventure);
    let creature: Uuid = world.owner().value(&sql).await.unwrap();

    let with = |original: Uuid| heroic_save(active.session, hero, original);
    let asks = [
        ("failed", with(failed)),
        ("passed", with(passed)),
        ("late", with(late)),
        ("saved", with(spent)),
        ("nothing", with(Uuid::new_v4())),
    ];
    all_the_same(&[&me.person, &world.visitor()], "another's save", &asks, "42501").await;
    let asks = [
        ("who sits", roll(active.session, hero)),
        ("who does not", roll(active.session, waiting.players[0].character)),
        ("one's own", roll(active.session, me.character)),
        ("nobody", roll(active.session, Uuid::new_v4())),
        ("waiting", roll(waiting.session, waiting.players[0].character)),
        ("nowhere", roll(Uuid::new_v4(), me.character)),
    ];
    all_the_same(&[&me.person, &world.visitor()], "a roll", &asks, "42501").await;
    let with = |creature: Uuid, session: Uuid| {
        format!(
            "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
             VALUES ('{session}', '{creature}', 'might', 10, 'attack')"
        )
    };
    let asks = [
        ("of the adventure", with(creature, active.session)),
        ("of another", with(creature, waiting.session)),
        ("nothing", with(Uuid::new_v4(), active.session)),
        ("nowhere", with(creature, Uuid::new_v4())),
    ];
    all_the_same(&[&me.person, &world.visitor()], "a creature's roll", &asks, "42501").await;
    // Who sits there is told who may, and nothing of the creature.
    let [there, _, nothing, _] = asks;
    all_the_same(&[&active.players[0].person], "a creature's roll", &[there, nothing], "42501").await;
    let event = |session: Uuid| {
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.wave')")
    };
    let asks =
        [("active", event(active.session)), ("waiting", event(waiting.session)), ("nothing", event(Uuid::new_v4()))];
    all_the_same(&[&me.person, &world.visitor()], "an event", &asks, "42501").await;
    let wound = |hero: Uuid| format!("SELECT * FROM private.change_hit_points('{hero}', -1)");
    let asks = [("there", wound(hero)), ("nothing", wound(Uuid::new_v4()))];
    all_the_same(&[&me.person], "a wound", &asks, "0 rows").await;
}

#[tokio::test]
async fn another_persons_character_is_told_from_none_by_nobody() {
    let world = World::new().await;
    let game = world.session(0).await;
    world.set(&game, "is_public = true").await;
    let (me, other, closed) = (world.player().await, world.player().await, world.player().await);
    let retired = world.character(other.id).await;
    world.owner().exec(&format!("UPDATE characters SET retired_at = now() WHERE id = '{retired}'")).await.unwrap();
    close(&world, closed.id).await;
    let asks = [
        ("living", seat(game.session, me.id, other.character)),
        ("retired", seat(game.session, me.id, retired)),
        ("of a closed account", seat(game.session, me.id, closed.character)),
    ];
    all_the_same(&[&me.person], "another's character in one's seat", &asks, "SP006").await;
    let code = |hero: Uuid, code: &str| format!("SELECT * FROM private.join_by_code('{code}', '{hero}')");
    let asks = [
        ("own", code(me.character, "ZZZZZZ")),
        ("another's", code(other.character, "ZZZZZZ")),
        ("nobody's", code(Uuid::new_v4(), "ZZZZZZ")),
    ];
    all_the_same(&[&me.person], "a code that is none", &asks, "SP020").await;
}
