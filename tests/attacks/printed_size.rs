//! JSON documents that are small when they are stored and large when they are printed, because a short number such as
//! `0e-16383` prints thousands of digits.

use uuid::Uuid;

use super::{inserted_rows_and_sizes::document_writes, sqlstates::CHECK_VIOLATION};
use crate::world::World;

/// Returns an SQL literal of a document that contains the given JSON value, for the column whose size the constraint
/// limits. The rest of the document is valid.
fn document_literal(size_constraint: &str, value: &str) -> String {
    match size_constraint {
        "bounded_modifiers" => format!(r#"'[{{"type": "flat", "value": 1, "source": "x", "z": {value}}}]'"#),
        _ => format!(r#"'{{"might": 1, "grace": 1, "wit": 1, "heart": 1, "z": {value}}}'"#),
    }
}

/// Returns a constraint's limit on the stored size of a document, in bytes.
async fn stored_size_limit(world: &World, constraint: &str) -> usize {
    let sql = format!(
        "SELECT substring(pg_get_constraintdef(oid) FROM '<= ([0-9]+)')::integer FROM pg_constraint
         WHERE conname = '{constraint}'"
    );
    let bytes: i32 = world.owner().fetch_value(&sql).await.unwrap();
    usize::try_from(bytes).unwrap()
}

#[tokio::test]
async fn numbers_that_are_too_large_too_small_or_too_long_are_refused_in_every_document() {
    let world = World::new().await;
    // No number may be beyond 1e308, and no number but 0 may be closer to 0 than 1e-308. A zero may have at most 308
    // decimals, and any other number at most 325.
    let numbers = [
        "0e-16383".to_owned(),
        "-0e-16383".to_owned(),
        "0e-309".to_owned(),
        "1e-16383".to_owned(),
        "-1e-309".to_owned(),
        "9.9999999999999999e-309".to_owned(),
        format!("1.{}", "0".repeat(326)),
        "12345e-16383".to_owned(),
        format!("0.{}", "0".repeat(309)),
        format!("7.{}", "0".repeat(400)),
        format!("7{}e-400", "0".repeat(400)),
        "1e309".to_owned(),
        "-2e308".to_owned(),
        "1e131071".to_owned(),
    ];
    for (caller, size_constraint, sql) in document_writes(&world).await {
        for number in &numbers {
            let repeated = format!("[{}{number}]", format!("{number}, ").repeat(20));
            let after_long_text = format!(r#"["{}", {number}]"#, "x".repeat(1000));
            let (in_array, in_object) = (format!("[[{number}]]"), format!(r#"{{"a": {{"b": {number}}}}}"#));
            for value in [number, &in_array, &in_object, &repeated, &after_long_text] {
                let document = document_literal(size_constraint, value);
                assert_refused!(
                    caller.execute(&sql.replace("$DOC$", &document)).await,
                    CHECK_VIOLATION,
                    "client_parsable_document",
                    "{size_constraint}, {document}"
                );
            }
        }
        for number in ["0", "-0", "0e-308", "1e308", "-1e308", "1e-308", "0.1", "1e-5", "12345678901234567890.5", "1E2"]
        {
            let document = document_literal(size_constraint, number);
            assert_eq!(caller.execute(&sql.replace("$DOC$", &document)).await, Ok(1), "{size_constraint}, {document}");
        }
    }
}

#[tokio::test]
async fn a_document_of_long_numbers_that_prints_more_than_eight_times_its_limit_is_refused() {
    let world = World::new().await;
    for (caller, size_constraint, sql) in document_writes(&world).await {
        let limit = stored_size_limit(&world, size_constraint).await;
        for number in ["1e308", "-1e300", "1e-308", "0e-308", "1e200"] {
            // Each of these numbers prints at least 200 digits, so limit / 20 of them print more than ten times the
            // limit.
            let value = format!("[{}1]", format!("{number}, ").repeat(limit / 20));
            assert_refused!(
                caller.execute(&sql.replace("$DOC$", &document_literal(size_constraint, &value))).await,
                CHECK_VIOLATION,
                "client_parsable_document",
                "{size_constraint}, {number}"
            );
        }
        // Ordinary numbers, and texts in which every character is escaped, print less than eight times the limit.
        for value in ["12.5, ".repeat(limit / 40), r#""\u0001\u0002\"", "#.repeat(limit / 40)] {
            let document = document_literal(size_constraint, &format!("[{value}1]"));
            assert_eq!(caller.execute(&sql.replace("$DOC$", &document)).await, Ok(1), "{size_constraint}");
        }
    }
}

#[tokio::test]
async fn the_printed_size_of_every_document_that_a_client_writes_is_limited() {
    let world = World::new().await;
    // The two booleans say whether clients may set the column in an INSERT and in an UPDATE. Each column of this list
    // needs an entry in `document_writes`. If that entry is an UPDATE and the first boolean is true, the column also
    // needs an INSERT below.
    let select_document_columns = "SELECT class.relname || '.' || attname
           || ' ' || has_column_privilege('authenticated', class.oid, attnum, 'INSERT')::text
           || ' ' || has_column_privilege('authenticated', class.oid, attnum, 'UPDATE')::text
         FROM pg_attribute JOIN pg_class AS class ON class.oid = attrelid
         WHERE class.relnamespace = 'public'::regnamespace AND relkind = 'r'
           AND atttypid IN ('jsonb'::regtype, 'json'::regtype)
           AND has_column_privilege('authenticated', class.oid, attnum, 'INSERT, UPDATE')
         ORDER BY 1";
    assert_eq!(
        world.owner().fetch_values::<String>(select_document_columns).await.unwrap(),
        [
            "adventures.content true true",
            "characters.equipment true true",
            "characters.special_ability true true",
            "creatures.abilities true true",
            "creatures.stats true true",
            "dice_rolls.modifiers true false",
            "session_events.payload true false",
            "sessions.game_state false true",
        ]
    );
    let user = world.new_user().await;
    let draft_adventure = world.new_draft_adventure(user.user_id()).await;
    let document = r#"{"might": 1, "grace": 1, "wit": 1, "heart": 1, "z": [0e-16383]}"#;
    let insert_character_prefix =
        "INSERT INTO characters (id, name, class, might, grace, wit, heart, equipment, special_ability)
                VALUES (gen_random_uuid(), 'Hero', 'warrior', 5, 3, 2, 2, ";
    for (sql, table) in [
        (format!("{insert_character_prefix} '{document}', '{{}}')"), "characters"),
        (format!("{insert_character_prefix} '{{}}', '{document}')"), "characters"),
        (format!("INSERT INTO adventures (name, content) VALUES ('Ford', '{document}')"), "adventures"),
        (
            format!(
                "INSERT INTO creatures (adventure_id, name, stats) VALUES ('{draft_adventure}', 'Rat', '{document}')"
            ),
            "creatures",
        ),
        (
            format!(
                "INSERT INTO creatures (adventure_id, name, abilities)
                 VALUES ('{draft_adventure}', 'Rat', '{document}')"
            ),
            "creatures",
        ),
    ] {
        for suffix in ["", " ON CONFLICT DO NOTHING"] {
            assert_refused!(
                user.execute(&format!("{sql}{suffix}")).await,
                CHECK_VIOLATION,
                "client_parsable_document",
                "{table}"
            );
        }
    }
    assert_owner_cannot_store_long_numbers(&world, draft_adventure).await;
    let adventures = format!("adventures WHERE creator_id = '{}'", user.user_id());
    assert_eq!(world.owner().count(&adventures).await, 1, "only the draft");
}

/// Asserts that the limits on numbers also apply to the schema's owner, and to an UPDATE of a column that users may set
/// only in an INSERT.
async fn assert_owner_cannot_store_long_numbers(world: &World, draft_adventure: Uuid) {
    let game = world.new_active_session(1).await;
    let roll = world.new_attack_roll(game.session_id, game.players[0].character_id, "{1,2,1,2,1}", 18, 5).await;
    let modifiers = r#"[{"type": "flat", "value": 0, "source": "x", "z": 0e-16383}]"#;
    for sql in [
        format!("UPDATE dice_rolls SET modifiers = '{modifiers}' WHERE id = '{roll}'"),
        format!("UPDATE adventures SET content = '[1e-16383]' WHERE id = '{draft_adventure}'"),
        format!("UPDATE sessions SET game_state = '[0e-16383]' WHERE id = '{}'", game.session_id),
    ] {
        assert_refused!(world.owner().execute(&sql).await, CHECK_VIOLATION, "client_parsable_document", "{sql}");
    }
}
