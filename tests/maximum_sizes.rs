//! The maximum sizes of texts and documents, exact to the character or byte, and documents that are refused because
//! typical JSON parsers cannot read them.

use serde_json::json;
use sparc::service::{Error, Operations, events::NewEvent};

use crate::{
    bounds::{assert_accepted, assert_check_violation},
    sqlstates::STATEMENT_TOO_COMPLEX,
    world::{SqlCaller, World},
};

/// Asserts that the caller can write a text or URL of `maximum` characters, but not one that is a character longer.
/// Most of these characters take two bytes, so a limit in bytes would fail the test.
async fn assert_maximum_text_length(caller: &SqlCaller, table: &str, column: &str, maximum: usize, constraint: &str) {
    let prefix = if column.ends_with("_url") { "https://" } else { "" };
    let update_sql =
        |length: usize| format!("UPDATE {table} SET {column} = '{prefix}' || repeat('ä', {})", length - prefix.len());
    caller.execute(&update_sql(maximum)).await.unwrap();
    assert_check_violation(caller, &update_sql(maximum + 1), constraint).await;
}

/// Asserts that the caller can write a document of slightly less than `maximum` bytes, but not one of slightly more.
/// In the template, `FILL` stands for the text that gives the document its size; the rest of the document takes less
/// than 200 bytes.
async fn assert_maximum_document_size(
    caller: &SqlCaller,
    table: &str,
    column: &str,
    maximum: usize,
    constraint: &str,
    template: &str,
) {
    let update_sql = |length: usize| {
        let filled = template.replace("FILL", &format!("' || repeat('x', {length}) || '"));
        format!("UPDATE {table} SET {column} = ('{filled}')::jsonb")
    };
    caller.execute(&update_sql(maximum - 200)).await.unwrap();
    assert_check_violation(caller, &update_sql(maximum + 1), constraint).await;
}

#[tokio::test]
async fn texts_and_documents_that_a_client_writes_have_a_maximum_size() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (ada, seer) = (&game.players[0].caller, &game.seer);
    assert_maximum_text_length(ada, "users", "display_name", 100, "bounded_display_name").await;
    // The same constraint refuses an empty name.
    assert_check_violation(ada, "UPDATE users SET display_name = ''", "bounded_display_name").await;
    assert_maximum_text_length(ada, "users", "avatar_url", 2000, "bounded_avatar_url").await;
    assert_maximum_text_length(ada, "users", "bio", 2000, "bounded_bio").await;
    assert_maximum_document_size(ada, "characters", "equipment", 65_536, "bounded_equipment", r#"["FILL"]"#).await;
    assert_maximum_document_size(
        ada,
        "characters",
        "special_ability",
        16_384,
        "bounded_special_ability",
        r#"{"name": "FILL"}"#,
    )
    .await;
    seer.execute("INSERT INTO adventures (creator_id, name) SELECT auth.uid(), 'A draft'").await.unwrap();
    let draft_id: uuid::Uuid = seer.fetch_value("SELECT id FROM adventures WHERE status = 'draft'").await.unwrap();
    seer.execute(&format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_id}', 'Wolf')")).await.unwrap();
    assert_maximum_text_length(seer, "adventures", "description", 10_000, "bounded_description").await;
    assert_maximum_text_length(seer, "adventures", "thumbnail_url", 2000, "bounded_thumbnail_url").await;
    assert_maximum_text_length(seer, "adventures", "artwork_url", 2000, "bounded_artwork_url").await;
    // The content of a published adventure cannot be changed, so the session's adventure becomes a draft.
    seer.execute("UPDATE adventures SET status = 'draft'").await.unwrap();
    assert_maximum_document_size(seer, "adventures", "content", 1_048_576, "bounded_content", r#"{"notes": "FILL"}"#)
        .await;
    assert_maximum_text_length(seer, "creatures", "description", 5000, "bounded_description").await;
    let stats = r#"{"might": 1, "grace": 1, "wit": 1, "heart": 1, "more": "FILL"}"#;
    assert_maximum_document_size(seer, "creatures", "stats", 16_384, "bounded_stats", stats).await;
    assert_maximum_document_size(seer, "creatures", "abilities", 65_536, "bounded_abilities", r#"["FILL"]"#).await;
    assert_maximum_text_length(seer, "sessions", "looking_for", 500, "bounded_looking_for").await;
    assert_maximum_text_length(seer, "sessions", "current_scene_id", 200, "bounded_scene").await;
    assert_maximum_text_length(seer, "sessions", "current_encounter_id", 200, "bounded_encounter").await;
    assert_maximum_document_size(seer, "sessions", "game_state", 262_144, "bounded_game_state", r#"{"x": "FILL"}"#)
        .await;

    let ada_connection = world.sparc.as_user(game.players[0].user_id);
    // The payload of an event may have at most 16,384 bytes.
    let send = |length: usize| {
        let payload = json!({ "x": "x".repeat(length) });
        ada_connection.events().send(NewEvent {
            session_id: game.session_id,
            kind: "big".into(),
            payload,
            ..Default::default()
        })
    };
    send(16_000).await.unwrap();
    assert_error!(send(17_000).await, Error::InvalidValue { field: "payload", .. });
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let set_nested = format!("UPDATE sessions SET game_state = '{nested}'");
    assert_eq!(
        seer.execute(&set_nested).await.unwrap_err().sqlstate,
        STATEMENT_TOO_COMPLEX,
        "the server's stack limits the nesting"
    );
    // The modifiers of a roll may have at most 8,192 bytes, and its description at most 500 characters.
    let insert_roll_sql = |modifier_length: usize, description_length: usize| {
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, modifiers, description)
             VALUES ('{}', '{}', 'might', 3, 'attack',
               jsonb_build_array(
                 jsonb_build_object('type', 'flat', 'value', 1, 'source', 'x', 'm', repeat('x', {modifier_length}))
               ),
               repeat('x', {description_length}))",
            game.session_id, game.players[0].character_id
        )
    };
    ada.execute(&insert_roll_sql(8000, 500)).await.unwrap();
    assert_check_violation(ada, &insert_roll_sql(9000, 450), "bounded_modifiers").await;
    assert_check_violation(ada, &insert_roll_sql(100, 501), "bounded_description").await;
}

#[tokio::test]
async fn documents_that_typical_clients_cannot_parse_are_refused() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let (ada, seer) = (&game.players[0].caller, &game.seer);
    // The content of a published adventure cannot be changed, so the session's adventure becomes a draft.
    seer.execute("UPDATE adventures SET status = 'draft'").await.unwrap();
    seer.execute(&format!("INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf')", game.adventure_id))
        .await
        .unwrap();
    // The parsers of typical clients accept at most a hundred levels of nesting, and their numbers are doubles.
    let nested_list = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let nested_object = |levels: usize| format!("{}1{}", r#"{"a": "#.repeat(levels), "}".repeat(levels));
    for (caller, table, column) in [
        (ada, "characters", "equipment"),
        (ada, "characters", "special_ability"),
        (seer, "adventures", "content"),
        (seer, "creatures", "abilities"),
        (seer, "sessions", "game_state"),
    ] {
        for parsable in [nested_object(100), nested_list(100)] {
            caller.execute(&format!("UPDATE {table} SET {column} = '{parsable}'")).await.unwrap();
        }
        for unparsable in
            [nested_list(101), nested_object(101), r#"{"a": {"b": 1e400}}"#.to_owned(), "[-1e309]".to_owned()]
        {
            assert_check_violation(
                caller,
                &format!("UPDATE {table} SET {column} = '{unparsable}'"),
                "client_parsable_document",
            )
            .await;
        }
    }
    let stats = r#"{"might": 1, "grace": 1, "wit": 1, "heart": 1, "more": 1e400}"#;
    assert_check_violation(seer, &format!("UPDATE creatures SET stats = '{stats}'"), "client_parsable_document").await;
    let insert_event_sql = |payload: &str| {
        format!(
            "INSERT INTO session_events (session_id, event_type, payload) VALUES ('{}', 'client.x', '{payload}')",
            game.session_id
        )
    };
    assert_check_violation(ada, &insert_event_sql(&nested_list(101)), "client_parsable_document").await;
    assert_check_violation(ada, &insert_event_sql("1e400"), "client_parsable_document").await;
    ada.execute(&insert_event_sql(&nested_list(100))).await.unwrap();
    let modifiers = r#"[{"type": "flat", "value": 1, "source": "x", "more": 1e400}]"#;
    let insert_roll = crate::world::insert_attribute_check_sql(game.session_id, game.players[0].character_id)
        .replace("roll_type)", "roll_type, modifiers)")
        .replace("'attribute_check')", &format!("'attribute_check', '{modifiers}')"));
    assert_check_violation(ada, &insert_roll, "client_parsable_document").await;

    // The crate `service` can parse the documents that are stored now.
    let ada_connection = world.sparc.as_user(game.players[0].user_id);
    ada_connection.events().after(game.session_id, 0).await.unwrap();
    let details = ada_connection.sessions().details(game.session_id).await.unwrap();
    assert!(
        details.adventure.unwrap().content.is_none(),
        "content that is a list must be ignored, and must not make the call fail"
    );
    ada_connection.characters().living().await.unwrap();
    world.sparc.as_user(seer.user_id()).adventures().get(game.adventure_id).await.unwrap();
}

#[tokio::test]
async fn the_maximum_size_of_a_document_is_exact_to_the_byte() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let owner = world.owner();
    let insert_creature =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf')", game.adventure_id);
    owner.execute(&insert_creature).await.unwrap();
    let insert_event =
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.x')", game.session_id);
    owner.execute(&insert_event).await.unwrap();
    // Each UPDATE below must change one row, so each table may have only one.
    owner.execute("DELETE FROM session_events WHERE event_type <> 'client.x'").await.unwrap();
    // The content of a published adventure cannot be changed, so the session's adventure becomes a draft.
    owner.execute("UPDATE adventures SET status = 'draft'").await.unwrap();
    for (table, column, maximum, minimal_document) in [
        ("adventures", "content", 1_048_576, "{}"),
        ("characters", "equipment", 65_536, "[]"),
        ("characters", "special_ability", 16_384, "{}"),
        ("creatures", "abilities", 65_536, "[]"),
        ("creatures", "stats", 16_384, r#"{"might": 1, "grace": 1, "wit": 1, "heart": 1}"#),
        ("session_events", "payload", 16_384, "{}"),
        ("sessions", "game_state", 262_144, "{}"),
    ] {
        // Returns an SQL expression for a document with a text of the given length.
        let document_sql = |length: &str| match minimal_document {
            "[]" => format!("jsonb_build_array(repeat('x', {length}))"),
            _ => format!("'{minimal_document}'::jsonb || jsonb_build_object('padding', repeat('x', {length}))"),
        };
        let select_overhead = format!("SELECT pg_column_size({}) - 1000", document_sql("1000"));
        let overhead: i32 = owner.fetch_value(&select_overhead).await.unwrap();
        let update_sql =
            |size: i32| format!("UPDATE {table} SET {column} = {}", document_sql(&(size - overhead).to_string()));
        assert_accepted(&owner, &update_sql(maximum)).await;
        assert_check_violation(&owner, &update_sql(maximum + 1), &format!("bounded_{column}")).await;
    }
}

#[tokio::test]
async fn the_maximum_size_of_modifiers_is_exact_to_the_byte() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let owner = world.owner();
    // Unknown keys of a modifier are accepted, and they count towards the size of the document.
    let modifiers_sql = |length: i32| {
        format!(
            "jsonb_build_array(
               jsonb_build_object('type', 'flat', 'value', 1, 'source', 'x', 'padding', repeat('x', {length}))
             )"
        )
    };
    let insert_roll_sql = |length: i32| {
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, modifiers)
             VALUES ('{}', '{}', 'might', 10, 'attack', {})",
            game.session_id,
            game.players[0].character_id,
            modifiers_sql(length)
        )
    };
    let overhead: i32 =
        owner.fetch_value(&format!("SELECT pg_column_size({}) - 1000", modifiers_sql(1000))).await.unwrap();
    assert_accepted(&owner, &insert_roll_sql(8192 - overhead)).await;
    assert_check_violation(&owner, &insert_roll_sql(8193 - overhead), "bounded_modifiers").await;
}
