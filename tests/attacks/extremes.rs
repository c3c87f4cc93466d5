//! Extreme values in the columns that a client writes, and as arguments of functions, reveal nothing about rows that
//! the caller may not see.

use uuid::Uuid;

use super::{leaks::answer_to, query_number, sqlstates::CHECK_VIOLATION};
use crate::world::{SqlCaller, World};

/// Returns SQL expressions for the smallest, the largest and some unusual values of a type. For a type that is not
/// listed here, returns only NULL.
fn extreme_values(sql_type: &str) -> Vec<String> {
    let expressions: &[&str] = match sql_type {
        // Some values are near the limits, because whether the subtraction of such a value overflows depends on the
        // other operand.
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
    expressions.iter().map(|&expression| expression.to_owned()).collect()
}

/// Returns those columns of a table that users may write with the given privilege (INSERT or UPDATE), each with the
/// extreme values of its type and, for an enum, all labels.
async fn values_by_writable_column(world: &World, table: &str, privilege: &str) -> Vec<(String, Vec<String>)> {
    let sql = format!(
        "SELECT attname || '=' || format_type(atttypid, NULL) || '=' || coalesce(
           (SELECT string_agg(quote_literal(enumlabel), '|') FROM pg_enum WHERE enumtypid = atttypid), '')
         FROM pg_attribute WHERE attrelid = 'public.{table}'::regclass AND attnum > 0 AND NOT attisdropped
           AND has_column_privilege('authenticated', attrelid, attnum, '{privilege}') ORDER BY attnum"
    );
    let columns: Vec<String> = world.owner().fetch_values(&sql).await.unwrap();
    let parsed_columns = columns.iter().map(|column| {
        let mut parts = column.splitn(3, '=');
        let (name, sql_type, labels) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let enum_labels = labels.split('|').filter(|label| !label.is_empty()).map(str::to_owned);
        (name.to_owned(), extreme_values(sql_type).into_iter().chain(enum_labels).collect())
    });
    parsed_columns.collect()
}

/// A row that a stranger (a user who takes no part in the session with the hidden rows) tries to insert, as names of
/// columns with SQL expressions. A *hidden* row is one that the stranger may not see. An expression such as `$session`
/// is a placeholder: [`variants`] replaces it with the id of a hidden row or with an unused id.
struct InsertAttempt {
    table: &'static str,
    row: Vec<(&'static str, String)>,
}

/// Returns rows for every table into which users may insert, grouped by table. Each row refers to a hidden row.
fn insert_attempts(stranger: Uuid, own_session: Uuid, own_character: Uuid) -> Vec<InsertAttempt> {
    let row_of = |pairs: &[(&'static str, &str)]| pairs.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    let roll_row = |session: &str, roller: (&'static str, &str)| {
        row_of(&[
            ("session_id", session),
            roller,
            ("attribute", "'might'"),
            ("difficulty", "10"),
            ("roll_type", "'attack'"),
        ])
    };
    let heroic_save_row = |session: &str, character: &str| {
        let mut row: Vec<(&'static str, String)> = roll_row(session, ("character_id", character));
        row.retain(|(name, _)| *name != "roll_type");
        row.extend([("roll_type", "'heroic_save'".to_owned()), ("original_roll_id", "$roll".to_owned())]);
        row
    };
    let [stranger, own_session, own_character] = [stranger, own_session, own_character].map(|id| format!("'{id}'"));
    let character_columns = [
        ("name", "'Hero'"),
        ("class", "'warrior'"),
        ("might", "5"),
        ("grace", "3"),
        ("wit", "2"),
        ("heart", "2"),
        ("special_ability", "'{}'"),
    ];
    vec![
        InsertAttempt { table: "dice_rolls", row: roll_row("$session", ("character_id", "$character")) },
        InsertAttempt { table: "dice_rolls", row: roll_row("$session", ("character_id", &own_character)) },
        InsertAttempt { table: "dice_rolls", row: roll_row("$session", ("creature_id", "$creature")) },
        InsertAttempt { table: "dice_rolls", row: roll_row(&own_session, ("character_id", "$character")) },
        InsertAttempt { table: "dice_rolls", row: roll_row(&own_session, ("creature_id", "$creature")) },
        InsertAttempt { table: "dice_rolls", row: heroic_save_row("$session", "$character") },
        InsertAttempt { table: "dice_rolls", row: heroic_save_row("$session", &own_character) },
        InsertAttempt {
            table: "session_players",
            row: row_of(&[("session_id", "$session"), ("user_id", &stranger), ("character_id", &own_character)]),
        },
        InsertAttempt {
            table: "session_players",
            row: row_of(&[("session_id", "$session"), ("user_id", "$user"), ("character_id", "$character")]),
        },
        InsertAttempt {
            table: "session_events",
            row: row_of(&[("session_id", "$session"), ("event_type", "'client.x'"), ("payload", "'{}'")]),
        },
        InsertAttempt { table: "characters", row: row_of(&[&[("user_id", "$user")], &character_columns[..]].concat()) },
        InsertAttempt { table: "adventures", row: row_of(&[("creator_id", "$user"), ("name", "'Ford'")]) },
        InsertAttempt { table: "creatures", row: row_of(&[("adventure_id", "$draft_adventure"), ("name", "'Rat'")]) },
        InsertAttempt { table: "sessions", row: row_of(&[("seer_id", "$user"), ("adventure_id", "$draft_adventure")]) },
        InsertAttempt {
            table: "sessions",
            row: row_of(&[("seer_id", &stranger), ("adventure_id", "$draft_adventure")]),
        },
        InsertAttempt { table: "tutorial_progress", row: row_of(&[("user_id", "$user")]) },
    ]
}

/// Creates rows that a stranger may not see, and returns their placeholders with their ids. (The profile of `$user` is
/// public, but the stranger may not change it.)
async fn create_hidden_rows(world: &World) -> Vec<(&'static str, Uuid)> {
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let (seer, owner) = (game.seer.user_id(), world.owner());
    let draft_adventure = world.new_draft_adventure(seer).await;
    world.update_session(&game, &format!("adventure_id = '{draft_adventure}'")).await;
    world.update_session(&game, "status = 'active'").await;
    let sql = format!(
        r#"INSERT INTO creatures (adventure_id, name, stats)
           VALUES ('{draft_adventure}', 'Wolf', '{{"might": 9, "grace": 9, "wit": 9, "heart": 9}}') RETURNING id"#
    );
    let creature = owner.fetch_value(&sql).await.unwrap();
    // A roll that failed five seconds ago, so that a heroic save could repeat it.
    let roll = world.new_attack_roll(game.session_id, player.character_id, "{1,2,1,2,1}", 18, 5).await;
    owner.execute(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{}')", player.user_id)).await.unwrap();
    vec![
        ("$session", game.session_id),
        ("$character", player.character_id),
        ("$creature", creature),
        ("$roll", roll),
        ("$user", player.user_id),
        ("$draft_adventure", draft_adventure),
    ]
}

/// Returns all variants of a statement: each placeholder is replaced by the id of its hidden row, or by an unused id.
fn variants(sql: &str, hidden_rows: &[(&'static str, Uuid)]) -> Vec<String> {
    let mut variants = vec![sql.to_owned()];
    for (placeholder, id) in hidden_rows.iter().filter(|(placeholder, _)| sql.contains(placeholder)) {
        let ids = [*id, Uuid::new_v4()];
        variants = variants.iter().flat_map(|sql| ids.map(|id| sql.replace(placeholder, &format!("'{id}'")))).collect();
    }
    variants
}

/// Asserts that all variants of a statement get the same answer, which is a refusal or no row.
async fn assert_variants_reveal_nothing(stranger: &SqlCaller, sql: &str, hidden_rows: &[(&'static str, Uuid)]) {
    let mut first_answer: Option<String> = None;
    for variant in variants(sql, hidden_rows) {
        let answer = answer_to(stranger, &variant).await;
        assert!(!answer.ends_with(" rows") || answer == "0 rows", "{variant}: {answer}");
        match &first_answer {
            Some(first_answer) => assert_eq!(&answer, first_answer, "{variant}"),
            None => first_answer = Some(answer),
        }
    }
}

#[tokio::test]
async fn extreme_values_in_an_insert_reveal_nothing_about_hidden_rows() {
    let world = World::new().await;
    let hidden_rows = create_hidden_rows(&world).await;
    let own_game = world.new_active_session(1).await;
    // The Seer of another session is a stranger to the hidden rows.
    let (stranger, own_character) = (&own_game.seer, world.new_character(own_game.seer.user_id()).await);
    let count_insertable_tables =
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                      AND has_any_column_privilege('authenticated', oid, 'INSERT')";
    let attempts = insert_attempts(stranger.user_id(), own_game.session_id, own_character);
    let mut tables: Vec<&str> = attempts.iter().map(|attempt| attempt.table).collect();
    tables.dedup();
    assert_eq!(
        query_number(&world, count_insertable_tables).await,
        i64::try_from(tables.len()).unwrap(),
        "a table is missing: {tables:?}"
    );
    for InsertAttempt { table, row } in attempts {
        for (column, values) in values_by_writable_column(&world, table, "INSERT").await {
            for value in values {
                let mut row = row.clone();
                row.retain(|(name, _)| *name != column);
                // Without a placeholder, the row would be the stranger's own, and the insert could succeed.
                if !row.iter().any(|(_, value)| value.starts_with('$')) {
                    continue;
                }
                let (mut names, mut expressions): (Vec<&str>, Vec<&str>) =
                    row.iter().map(|(name, value)| (*name, value.as_str())).unzip();
                names.push(&column);
                expressions.push(&value);
                let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), expressions.join(", "));
                assert_variants_reveal_nothing(stranger, &sql, &hidden_rows).await;
            }
        }
    }
}

#[tokio::test]
async fn extreme_values_in_an_update_reveal_nothing_about_hidden_rows() {
    let world = World::new().await;
    let hidden_rows = create_hidden_rows(&world).await;
    let stranger = world.new_user().await;
    let tables = [
        ("users", "id", "$user"),
        ("characters", "id", "$character"),
        ("adventures", "id", "$draft_adventure"),
        ("creatures", "id", "$creature"),
        ("sessions", "id", "$session"),
        ("session_players", "session_id", "$session"),
        ("tutorial_progress", "user_id", "$user"),
    ];
    let count_updatable_tables =
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
                     AND has_any_column_privilege('authenticated', oid, 'UPDATE')";
    assert_eq!(query_number(&world, count_updatable_tables).await, tables.len() as i64, "a table is missing");
    for (table, key, placeholder) in tables {
        for (column, values) in values_by_writable_column(&world, table, "UPDATE").await {
            for value in values {
                let sql = format!("UPDATE {table} SET {column} = {value} WHERE {key} = {placeholder}");
                assert_variants_reveal_nothing(&stranger, &sql, &hidden_rows).await;
            }
        }
    }
}

#[tokio::test]
async fn an_overflow_does_not_reveal_the_number_of_dice_of_a_hidden_character_or_creature() {
    let world = World::new().await;
    let hidden_rows = create_hidden_rows(&world).await;
    let stranger = world.new_user().await;
    // The total of ten dice is at most 60. If a difficulty near the smallest integer were subtracted from the total,
    // the difference would overflow for some totals and not for others, so the error would depend on the number of
    // dice. With a difficulty near the largest integer, the same would be true of a sum.
    for total in 1..=60 {
        for difficulty in [i32::MIN + total, i32::MAX - total] {
            for roller_column in ["character_id", "creature_id"] {
                let placeholder = if roller_column == "character_id" { "$character" } else { "$creature" };
                let sql = format!(
                    "INSERT INTO dice_rolls (session_id, {roller_column}, attribute, difficulty, roll_type)
                     VALUES ($session, {placeholder}, 'might', {difficulty}, 'attack')"
                );
                assert_variants_reveal_nothing(&stranger, &sql, &hidden_rows).await;
            }
        }
    }
    // A participant, on the other hand, learns which value is wrong: a difficulty must be from 3 to 18.
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    for difficulty in [i32::MIN, i32::MIN + 7, 2, 19, i32::MAX] {
        let insert_roll = format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, modifiers, difficulty, roll_type)
             VALUES ('{}', '{}', 'might', '[]', {difficulty}, 'attribute_check')",
            game.session_id, player.character_id
        );
        assert_refused!(
            player.caller.execute(&insert_roll).await,
            CHECK_VIOLATION,
            "dice_rolls_difficulty_check",
            "{difficulty}"
        );
    }
}

/// Returns expressions for an argument of a function. For a type that can contain an id, they include one expression
/// per hidden row, with that row's placeholder.
fn argument_expressions(sql_type: &str, hidden_rows: &[(&'static str, Uuid)]) -> Vec<String> {
    let expressions_with_each_id = |template: &str| {
        hidden_rows.iter().map(|(placeholder, _)| template.replace("ID", placeholder)).collect::<Vec<String>>()
    };
    match sql_type {
        "uuid" => [expressions_with_each_id("ID"), vec!["NULL::uuid".to_owned()]].concat(),
        "uuid[]" => [expressions_with_each_id("ARRAY[ID]::uuid[]"), vec!["'{}'::uuid[]".to_owned()]].concat(),
        "text" => [
            expressions_with_each_id("'session:' || ID::text"),
            ["'characters'", "'sessions'", "'adventures'", "'creatures'", "''"].map(str::to_owned).to_vec(),
        ]
        .concat(),
        "jsonb" => expressions_with_each_id(r#"jsonb_build_object('id', ID::text, 'name', 'x', 'might', 1)"#),
        _ => extreme_values(sql_type).into_iter().map(|expression| format!("{expression}::{sql_type}")).collect(),
    }
}

#[tokio::test]
async fn functions_that_users_may_call_reveal_nothing_about_hidden_rows() {
    let world = World::new().await;
    let hidden_rows = create_hidden_rows(&world).await;
    let stranger = world.new_user().await;
    // The query finds the SECURITY DEFINER functions that users may call; other functions read only what their caller
    // may see. Each result has three fields, separated by `=`: the function's name, its argument types (separated by
    // `;`) and its schema.
    let select_functions = "SELECT proname || '='
           || coalesce((SELECT string_agg(format_type(type_oid, NULL), ';' ORDER BY ordinal)
                        FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS argument (type_oid, ordinal)), '')
           || '=' || pronamespace::regnamespace::text
         FROM pg_proc WHERE pronamespace IN ('private'::regnamespace, 'public'::regnamespace)
           AND prosecdef AND has_function_privilege('authenticated', oid, 'EXECUTE') ORDER BY 1";
    let functions: Vec<String> = world.owner().fetch_values(select_functions).await.unwrap();
    assert!(functions.len() > 20, "the query must find the functions: {functions:?}");
    for function in functions {
        let parts: Vec<&str> = function.split('=').collect();
        let (name, types, schema) = (parts[0], parts[1], parts[2]);
        // All combinations of arguments.
        let mut argument_lists = vec![String::new()];
        for sql_type in types.split(';').filter(|sql_type| !sql_type.is_empty()) {
            let expressions = argument_expressions(sql_type, &hidden_rows);
            argument_lists = argument_lists
                .iter()
                .flat_map(|list| expressions.iter().map(move |argument| format!("{list}, {argument}")))
                .collect();
        }
        // A call without a placeholder does not depend on a hidden row.
        for list in argument_lists.iter().filter(|list| list.contains('$')) {
            let sql = format!(
                "SELECT coalesce(string_agg(answer::text, ','), 'nothing') FROM {schema}.{name}({}) AS answer",
                list.trim_start_matches(", ")
            );
            let mut first_answer: Option<String> = None;
            for variant in variants(&sql, &hidden_rows) {
                let answer = match stranger.fetch_value::<String>(&variant).await {
                    Ok(text) => text,
                    Err(refusal) => format!("{refusal:?}"),
                };
                match &first_answer {
                    Some(first_answer) => assert_eq!(&answer, first_answer, "{variant}"),
                    None => first_answer = Some(answer),
                }
            }
        }
    }
}
