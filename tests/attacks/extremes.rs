//! Extreme values in the columns that a client writes, and as arguments of functions, reveal nothing about hidden rows.

use uuid::Uuid;

use super::{leaks::answer_text, query_number};
use crate::world::{Person, World};

/// Returns SQL expressions for the smallest, the largest and the most unusual values of a type.
fn extreme_values(sql_type: &str) -> Vec<String> {
    let literals: &[&str] = match sql_type {
        // Values near the limits too: whether a subtraction of one overflows depends on the other operand.
        "integer" => &["-2147483648", "-2147483641", "-2147483630", "2147483640", "2147483647", "0", "NULL"],
        "smallint" => &["-32768", "32767", "NULL"],
        "bigint" => &["-9223372036854775808", "9223372036854775807", "NULL"],
        "numeric" => &["'NaN'", "'Infinity'", "1e131071", "NULL"],
        "boolean" => &["true", "false", "NULL"],
        "uuid" => &["NULL", "'00000000-0000-0000-0000-000000000000'", "gen_random_uuid()"],
        "text" => &["''", "' '", "repeat('x', 100000)", r"E'\u0001\u202e'", "'heroic_save'", "NULL"],
        "text[]" => &["'{}'", "'{NULL}'", "'{{a,b},{c,d}}'", "array_fill('x'::text, '{100000}')", "NULL"],
        "timestamp with time zone" => &["'infinity'", "'-infinity'", "'294276-01-01'", "'4713-01-01 BC'", "NULL"],
        "jsonb" => &[
            "NULL",
            "'null'",
            "'{}'",
            "'[]'",
            "'[0e-16383]'",
            "'[1e400]'",
            "(repeat('[', 200) || repeat(']', 200))::jsonb",
            r#"'[{"type": "flat", "value": 2147483647, "source": "x"}]'"#,
            r#"'[{"type": "dice", "value": 5, "source": "x"}]'"#,
            r#"'{"might": 1e9, "grace": null}'"#,
            "jsonb_build_array(repeat('x', 2000000))",
        ],
        _ => &["NULL"],
    };
    literals.iter().map(|&literal| literal.to_owned()).collect()
}

/// Returns the name and the extreme values of each column of a table for which users have the privilege.
async fn writable_columns(world: &World, table: &str, privilege: &str) -> Vec<(String, Vec<String>)> {
    let sql = format!(
        "SELECT attname || '=' || format_type(atttypid, NULL) || '=' || coalesce(
           (SELECT string_agg(quote_literal(enumlabel), '|') FROM pg_enum WHERE enumtypid = atttypid), '')
         FROM pg_attribute WHERE attrelid = 'public.{table}'::regclass AND attnum > 0 AND NOT attisdropped
           AND has_column_privilege('authenticated', attrelid, attnum, '{privilege}') ORDER BY attnum"
    );
    let columns: Vec<String> = world.owner().values(&sql).await.unwrap();
    let parsed = columns.iter().map(|column| {
        let mut parts = column.splitn(3, '=');
        let (name, sql_type, labels) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let labels = labels.split('|').filter(|label| !label.is_empty()).map(str::to_owned);
        (name.to_owned(), extreme_values(sql_type).into_iter().chain(labels).collect())
    });
    parsed.collect()
}

/// A row that a stranger tries to insert. `$NAME` stands for the id of a hidden row, and for an id that no row has.
struct InsertAttempt {
    table: &'static str,
    row: Vec<(&'static str, String)>,
}

fn insert_attempts(me: Uuid, my_session: Uuid, my_hero: Uuid) -> Vec<InsertAttempt> {
    let owned = |pairs: &[(&'static str, &str)]| pairs.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    let roll = |session: &str, roller: (&'static str, &str)| {
        owned(&[
            ("session_id", session),
            roller,
            ("attribute", "'might'"),
            ("difficulty", "10"),
            ("roll_type", "'attack'"),
        ])
    };
    let save = |session: &str, hero: &str| {
        let mut row: Vec<(&'static str, String)> = roll(session, ("character_id", hero));
        row.pop();
        row.extend([("roll_type", "'heroic_save'".to_owned()), ("original_roll_id", "$roll".to_owned())]);
        row
    };
    let (me, mine, hero) = (format!("'{me}'"), format!("'{my_session}'"), format!("'{my_hero}'"));
    let sheet = [
        ("name", "'Hero'"),
        ("class", "'warrior'"),
        ("might", "5"),
        ("grace", "3"),
        ("wit", "2"),
        ("heart", "2"),
        ("special_ability", "'{}'"),
    ];
    vec![
        InsertAttempt { table: "dice_rolls", row: roll("$session", ("character_id", "$hero")) },
        InsertAttempt { table: "dice_rolls", row: roll("$session", ("character_id", &hero)) },
        InsertAttempt { table: "dice_rolls", row: roll("$session", ("creature_id", "$creature")) },
        InsertAttempt { table: "dice_rolls", row: roll(&mine, ("character_id", "$hero")) },
        InsertAttempt { table: "dice_rolls", row: roll(&mine, ("creature_id", "$creature")) },
        InsertAttempt { table: "dice_rolls", row: save("$session", "$hero") },
        InsertAttempt { table: "dice_rolls", row: save("$session", &hero) },
        InsertAttempt {
            table: "session_players",
            row: owned(&[("session_id", "$session"), ("user_id", &me), ("character_id", &hero)]),
        },
        InsertAttempt {
            table: "session_players",
            row: owned(&[("session_id", "$session"), ("user_id", "$user"), ("character_id", "$hero")]),
        },
        InsertAttempt {
            table: "session_events",
            row: owned(&[("session_id", "$session"), ("event_type", "'client.x'"), ("payload", "'{}'")]),
        },
        InsertAttempt { table: "characters", row: owned(&[&[("user_id", "$user")], &sheet[..]].concat()) },
        InsertAttempt { table: "adventures", row: owned(&[("creator_id", "$user"), ("name", "'Ford'")]) },
        InsertAttempt { table: "creatures", row: owned(&[("adventure_id", "$draft"), ("name", "'Rat'")]) },
        InsertAttempt { table: "sessions", row: owned(&[("seer_id", "$user"), ("adventure_id", "$draft")]) },
        InsertAttempt { table: "sessions", row: owned(&[("seer_id", &me), ("adventure_id", "$draft")]) },
        InsertAttempt { table: "tutorial_progress", row: owned(&[("user_id", "$user")]) },
    ]
}

/// Creates the hidden rows, and returns their ids with the names of their placeholders.
async fn create_hidden_rows(world: &World) -> Vec<(&'static str, Uuid)> {
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let (seer, owner) = (game.seer.uuid(), world.owner());
    let draft = world.new_draft(seer).await;
    owner.exec(&format!("UPDATE sessions SET adventure_id = '{draft}' WHERE id = '{}'", game.session)).await.unwrap();
    let sql = format!(
        r#"INSERT INTO creatures (adventure_id, name, stats)
           VALUES ('{draft}', 'Wolf', '{{"might": 9, "grace": 9, "wit": 9, "heart": 9}}') RETURNING id"#
    );
    let creature = owner.value(&sql).await.unwrap();
    let roll = world.new_roll(game.session, player.character, "{1,2,1,2,1}", 18, 5).await;
    owner.exec(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{}')", player.id)).await.unwrap();
    vec![
        ("$session", game.session),
        ("$hero", player.character),
        ("$creature", creature),
        ("$roll", roll),
        ("$user", player.id),
        ("$draft", draft),
    ]
}

/// Returns all variants of the statement in which each placeholder is replaced by the hidden row's id, or by an id that
/// no row has.
fn variants(sql: &str, hidden: &[(&'static str, Uuid)]) -> Vec<String> {
    let mut variants = vec![sql.to_owned()];
    for (name, id) in hidden.iter().filter(|(name, _)| sql.contains(name)) {
        let ids = [*id, Uuid::new_v4()];
        variants = variants.iter().flat_map(|sql| ids.map(|id| sql.replace(name, &format!("'{id}'")))).collect();
    }
    variants
}

/// Asserts that all variants of a statement get the same answer, which is a refusal or no row.
async fn assert_same_answer(me: &Person, sql: &str, hidden: &[(&'static str, Uuid)]) {
    let mut first: Option<String> = None;
    for variant in variants(sql, hidden) {
        let answer = answer_text(me, &variant).await;
        assert!(!answer.ends_with(" rows") || answer == "0 rows", "{variant}: {answer}");
        match &first {
            Some(first) => assert_eq!(&answer, first, "{variant}"),
            None => first = Some(answer),
        }
    }
}

#[tokio::test]
async fn extreme_values_in_an_insert_reveal_nothing_about_hidden_rows() {
    let world = World::new().await;
    let hidden = create_hidden_rows(&world).await;
    let mine = world.new_active_session(1).await;
    let (me, hero) = (&mine.seer, world.new_character(mine.seer.uuid()).await);
    let insertable_tables =
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                      AND has_any_column_privilege('authenticated', oid, 'INSERT')";
    let attempts = insert_attempts(me.uuid(), mine.session, hero);
    let mut tables: Vec<&str> = attempts.iter().map(|attempt| attempt.table).collect();
    tables.dedup();
    assert_eq!(
        query_number(&world, insertable_tables).await,
        i64::try_from(tables.len()).unwrap(),
        "a table is missing: {tables:?}"
    );
    for InsertAttempt { table, row } in attempts {
        for (column, values) in writable_columns(&world, table, "INSERT").await {
            for value in values {
                let mut row = row.clone();
                row.retain(|(name, _)| *name != column);
                // Without a placeholder, the row would be the caller's own, and the insert would succeed.
                if !row.iter().any(|(_, value)| value.starts_with('$')) {
                    continue;
                }
                let (mut names, mut expressions): (Vec<&str>, Vec<&str>) =
                    row.iter().map(|(name, value)| (*name, value.as_str())).unzip();
                names.push(&column);
                expressions.push(&value);
                let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), expressions.join(", "));
                assert_same_answer(me, &sql, &hidden).await;
            }
        }
    }
}

#[tokio::test]
async fn extreme_values_in_an_update_reveal_nothing_about_hidden_rows() {
    let world = World::new().await;
    let hidden = create_hidden_rows(&world).await;
    let me = world.new_user().await;
    let keys = [
        ("users", "id", "$user"),
        ("characters", "id", "$hero"),
        ("adventures", "id", "$draft"),
        ("creatures", "id", "$creature"),
        ("sessions", "id", "$session"),
        ("session_players", "session_id", "$session"),
        ("tutorial_progress", "user_id", "$user"),
    ];
    let updatable_tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                     AND has_any_column_privilege('authenticated', oid, 'UPDATE')";
    assert_eq!(query_number(&world, updatable_tables).await, 7, "a table is missing");
    for (table, key, placeholder) in keys {
        for (column, values) in writable_columns(&world, table, "UPDATE").await {
            for value in values {
                let sql = format!("UPDATE {table} SET {column} = {value} WHERE {key} = {placeholder}");
                assert_same_answer(&me, &sql, &hidden).await;
            }
        }
    }
}

#[tokio::test]
async fn the_number_of_dice_of_a_hidden_character_never_changes_an_answer() {
    let world = World::new().await;
    let hidden = create_hidden_rows(&world).await;
    let me = world.new_user().await;
    // Every total of up to ten dice, near both ends of the integer range.
    for total in 1..=60 {
        for difficulty in [i32::MIN + total, i32::MAX - total] {
            for roller in ["character_id", "creature_id"] {
                let id = if roller == "character_id" { "$hero" } else { "$creature" };
                let sql = format!(
                    "INSERT INTO dice_rolls (session_id, {roller}, attribute, difficulty, roll_type)
                     VALUES ($session, {id}, 'might', {difficulty}, 'attack')"
                );
                assert_same_answer(&me, &sql, &hidden).await;
            }
        }
    }
    // A participant, on the other hand, learns which value is wrong.
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    for difficulty in [i32::MIN, i32::MIN + 7, 2, 19, i32::MAX] {
        let roll = crate::world::insert_roll(game.session, player.character)
            .replace("difficulty", "modifiers, difficulty")
            .replace("'might', 10", &format!("'might', '[]', {difficulty}"));
        assert!(roll.contains(&difficulty.to_string()), "{roll}");
        assert_refused!(player.person.exec(&roll).await, "23514", "dice_rolls_difficulty_check", "{difficulty}");
    }
}

/// Returns expressions for an argument of a function. `$NAME` stands for the id of a hidden row, and for an id that no
/// row has.
fn arguments(sql_type: &str, hidden: &[(&'static str, Uuid)]) -> Vec<String> {
    let with_each_id =
        |template: &str| hidden.iter().map(|(name, _)| template.replace("ID", name)).collect::<Vec<String>>();
    match sql_type {
        "uuid" => [with_each_id("ID"), vec!["NULL::uuid".to_owned()]].concat(),
        "uuid[]" => [with_each_id("ARRAY[ID]::uuid[]"), vec!["'{}'::uuid[]".to_owned()]].concat(),
        "text" => [
            with_each_id("'session:' || ID::text"),
            ["'characters'", "'sessions'", "'adventures'", "'creatures'", "''"].map(str::to_owned).to_vec(),
        ]
        .concat(),
        "jsonb" => with_each_id(r#"jsonb_build_object('id', ID::text, 'name', 'x', 'might', 1)"#),
        _ => extreme_values(sql_type).into_iter().map(|literal| format!("{literal}::{sql_type}")).collect(),
    }
}

#[tokio::test]
async fn functions_that_users_may_call_reveal_nothing_about_hidden_rows() {
    let world = World::new().await;
    let hidden = create_hidden_rows(&world).await;
    let me = world.new_user().await;
    let callable = "SELECT proname || '=' || pg_get_function_identity_arguments(oid) || '='
           || coalesce((SELECT string_agg(format_type(type_oid, NULL), ';' ORDER BY ordinal)
                        FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS argument (type_oid, ordinal)), '')
           || '=' || pronamespace::regnamespace::text
         FROM pg_proc WHERE pronamespace IN ('private'::regnamespace, 'public'::regnamespace)
           AND prosecdef AND has_function_privilege('authenticated', oid, 'EXECUTE') ORDER BY 1";
    let functions: Vec<String> = world.owner().values(callable).await.unwrap();
    assert!(functions.len() > 20, "{functions:?}");
    for function in functions {
        let parts: Vec<&str> = function.split('=').collect();
        let (name, types, schema) = (parts[0], parts[2], parts[3]);
        let mut calls = vec![String::new()];
        for sql_type in types.split(';').filter(|sql_type| !sql_type.is_empty()) {
            let expressions = arguments(sql_type, &hidden);
            calls = calls
                .iter()
                .flat_map(|call| expressions.iter().map(move |argument| format!("{call}, {argument}")))
                .collect();
        }
        for call in calls.iter().filter(|call| call.contains('$')) {
            let sql = format!(
                "SELECT coalesce(string_agg(answer::text, ','), 'nothing') FROM {schema}.{name}({}) AS answer",
                call.trim_start_matches(", ")
            );
            let mut first: Option<String> = None;
            for variant in variants(&sql, &hidden) {
                let answer = match me.value::<String>(&variant).await {
                    Ok(text) => text,
                    Err(refused) => format!("{refused:?}"),
                };
                match &first {
                    Some(first) => assert_eq!(&answer, first, "{variant}"),
                    None => first = Some(answer),
                }
            }
        }
    }
}
