//! Inputs of operations as a web handler reads them from a request: JSON documents, query strings and single texts.

use axum::extract::Query;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, from_value, json, to_value};
use sparc::service::{
    Cursor, Difficulty, JoinCode, RollsPageSize,
    adventures::{AdventureChanges, CatalogueFilter, NewAdventure},
    characters::NewCharacter,
    creatures::{CreatureChanges, NewCreature},
    dice::{HistoryFilter, NewInitiative, NewRoll},
    events::NewEvent,
    sessions::{ExpectedVersion, LobbyFilter, NewSession, SessionChanges},
    users::{NewAccount, ProfileChanges},
};
use uuid::Uuid;

/// Asserts that an input deserialized from the smallest document possible has the expected defaults, and that
/// serializing and deserializing the input does not change it.
macro_rules! assert_defaults {
    ($type:ty, $smallest_document:expr, $expected_document:expr) => {{
        let input: $type = from_value($smallest_document).unwrap();
        let serialized = to_value(&input).unwrap();
        assert_eq!(serialized, $expected_document, stringify!($type));
        let deserialized: $type = from_value(serialized.clone()).unwrap();
        assert_eq!(to_value(&deserialized).unwrap(), serialized, stringify!($type));
    }};
}

#[test]
fn inputs_are_read_from_json_and_absent_fields_have_the_documented_defaults() {
    let id = Uuid::from_u128(7);
    assert_defaults!(
        NewAdventure,
        json!({ "name": "The mill" }),
        json!({ "id": null, "name": "The mill", "description": null, "difficulty": "medium", "estimated_duration": 60,
                "min_players": 2, "max_players": 4, "thumbnail_url": null, "artwork_url": null,
                "content": to_value(NewAdventure::default().content).unwrap() })
    );
    assert_defaults!(
        NewSession,
        json!({ "adventure_id": id }),
        json!({ "id": null, "adventure_id": id, "visibility": "private", "max_players": 4, "looking_for": null,
                "scheduled_start": null })
    );
    let expected_character = to_value(NewCharacter { name: "Nim".into(), ..Default::default() }).unwrap();
    assert_defaults!(NewCharacter, json!({ "name": "Nim" }), expected_character);
    let expected_creature = to_value(NewCreature { name: "Eel".into(), ..Default::default() }).unwrap();
    assert_eq!((&expected_creature["hit_points"], &expected_creature["armor"]), (&json!(6), &json!(0)));
    assert_defaults!(NewCreature, json!({ "name": "Eel" }), expected_creature);
    assert_defaults!(
        NewEvent,
        json!({ "session_id": id, "kind": "say" }),
        json!({ "id": null, "session_id": id, "kind": "say", "payload": {} })
    );
    assert_defaults!(
        NewRoll,
        json!({ "session_id": id, "roller": { "character": id }, "attribute": "wit", "difficulty": 10, "kind": "attack" }),
        json!({ "id": null, "session_id": id, "roller": { "character": id }, "attribute": "wit", "difficulty": 10,
                "kind": "attack", "modifiers": [], "description": null })
    );
    assert_defaults!(
        NewInitiative,
        json!({ "session_id": id }),
        json!({ "id": null, "session_id": id, "creature_ids": [] })
    );
    assert_defaults!(NewAccount, json!({}), json!({ "id": null, "email": null, "display_name": null }));
    assert_eq!(from_value::<HistoryFilter>(json!({})).unwrap().page_size, RollsPageSize::default());
    assert!(from_value::<LobbyFilter>(json!({})).is_ok() && from_value::<CatalogueFilter>(json!({})).is_ok());
    assert_eq!(from_value::<ExpectedVersion>(json!({ "version": 3 })).unwrap(), ExpectedVersion::Version(3));
}

#[test]
fn absent_fields_of_an_edit_stay_unchanged_and_null_clears_nullable_fields() {
    let changes: ProfileChanges = from_value(json!({ "bio": null })).unwrap();
    assert_eq!((changes.display_name, changes.avatar_url, changes.bio), (None, None, Some(None)));
    let changes: SessionChanges = from_value(json!({ "looking_for": "a healer", "scheduled_start": null })).unwrap();
    assert_eq!(changes.looking_for, Some(Some("a healer".to_owned())));
    assert_eq!((changes.scheduled_start, changes.max_players), (Some(None), None));
    assert_eq!(
        to_value(AdventureChanges::default()).unwrap(),
        json!({}),
        "fields that do not change are not serialized"
    );
    let changes = CreatureChanges { description: Some(None), ..Default::default() };
    assert_eq!(to_value(changes).unwrap(), json!({ "description": null }));
    let error = from_value::<ProfileChanges>(json!({ "display_name": null })).unwrap_err().to_string();
    assert!(error.contains("null"), "a name must not be null: {error}");
}

#[test]
fn an_error_names_the_unknown_missing_or_invalid_field() {
    let error_for = |document: Value| from_value::<NewSession>(document).unwrap_err().to_string();
    assert!(error_for(json!({ "adventure_id": Uuid::nil(), "seats": 4 })).contains("seats"));
    assert!(error_for(json!({})).contains("adventure_id"));
    assert!(error_for(json!({ "adventure_id": Uuid::nil(), "max_players": 7 })).contains("max_players"));
    assert!(from_value::<LobbyFilter>(json!({ "colour": "red" })).unwrap_err().to_string().contains("colour"));
}

#[test]
fn difficulties_and_join_codes_are_parsed_from_text_and_displayed() {
    // The difficulty of a roll, 3 to 18. (That of an adventure is a word, such as `medium`.)
    assert_eq!("10".parse::<Difficulty>().unwrap().to_string(), "10");
    for text in ["2", "19", "ten", "", "1e1"] {
        assert_eq!(text.parse::<Difficulty>().unwrap_err().code(), "invalid_value", "{text}");
    }
    assert_eq!("abc 234".parse::<JoinCode>().unwrap().to_string(), "ABC234");
}

/// The query parameters of a handler that returns a list: the filter and the cursor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParameters<F> {
    #[serde(flatten)]
    filter: F,
    after: Option<Cursor>,
}

/// Parses a query string as a handler with `axum::extract::Query` does.
fn parse_query_string<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let uri = format!("/list?{text}").parse().unwrap();
    Query::try_from_uri(&uri).map(|Query(query)| query).map_err(|rejection| rejection.body_text())
}

#[test]
fn filters_are_read_from_query_strings_with_and_without_a_cursor_and_from_json() {
    for cursor_parameter in ["", "&after=xyz"] {
        let text = format!("difficulty=hard&max_minutes=90&min_free_seats=2&search=mill+pond{cursor_parameter}");
        let lobby: ListParameters<LobbyFilter> = parse_query_string(&text).unwrap();
        assert_eq!((lobby.filter.max_minutes, lobby.filter.min_free_seats), (Some(90), Some(2)));
        assert_eq!(
            (lobby.filter.search.as_deref(), lobby.after.is_some()),
            (Some("mill pond"), !cursor_parameter.is_empty())
        );
        let catalogue: ListParameters<CatalogueFilter> =
            parse_query_string(&format!("min_minutes=30&max_minutes=60&player_count=4{cursor_parameter}")).unwrap();
        let CatalogueFilter { min_minutes, max_minutes, player_count, .. } = catalogue.filter;
        assert_eq!((min_minutes, max_minutes, player_count), (Some(30), Some(60), Some(4)));
        let history: ListParameters<HistoryFilter> =
            parse_query_string(&format!("kind=attack&page_size=200{cursor_parameter}")).unwrap();
        assert_eq!(history.filter.page_size.get(), 200);
        assert_eq!(
            parse_query_string::<ListParameters<HistoryFilter>>(cursor_parameter).unwrap().filter.page_size,
            RollsPageSize::default()
        );
    }
    assert_eq!(parse_query_string::<LobbyFilter>("min_free_seats=2&max_minutes=90").unwrap().min_free_seats, Some(2));
    assert_eq!(parse_query_string::<HistoryFilter>("page_size=7").unwrap().page_size.get(), 7);
    for (text, expected_words) in [
        ("min_free_seats=two", "whole number"),
        ("min_free_seats=3000000000", "whole number"),
        ("max_minutes=1.5", "whole number"),
        ("colour=red", "colour"),
    ] {
        for error in [
            parse_query_string::<ListParameters<LobbyFilter>>(text).unwrap_err(),
            parse_query_string::<LobbyFilter>(text).unwrap_err(),
        ] {
            assert!(error.contains(expected_words), "{text}: {error}");
        }
    }
    for size in ["0", "201", "many", "-1"] {
        let error = parse_query_string::<ListParameters<HistoryFilter>>(&format!("page_size={size}")).unwrap_err();
        assert!(error.contains("page_size") || error.contains("whole number"), "{size}: {error}");
    }
    // In a query string, every value is a string. In JSON, numbers are numbers, and a field that is `null` does not
    // filter.
    let document = json!({ "min_free_seats": 2, "max_minutes": null });
    assert_eq!(from_value::<LobbyFilter>(document).unwrap().min_free_seats, Some(2));
    for invalid in [json!(3_000_000_000_i64), json!(-3_000_000_000_i64), json!(1.5), json!(true), json!([2])] {
        let error = from_value::<LobbyFilter>(json!({ "min_free_seats": invalid })).unwrap_err().to_string();
        assert!(error.contains("whole number"), "{error}");
    }
}
