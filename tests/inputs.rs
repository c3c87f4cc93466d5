//! Inputs as JSON: what a web handler takes from a request and passes to an operation.

use serde_json::{Value, from_value, json, to_value};
use sparc::service::{
    Difficulty, JoinCode, PageSize,
    adventures::{AdventureChanges, CatalogueFilter, NewAdventure},
    characters::NewCharacter,
    creatures::{CreatureChanges, NewCreature},
    dice::{HistoryFilter, NewInitiative, NewRoll},
    events::NewEvent,
    sessions::{ExpectedVersion, LobbyFilter, NewSession, SessionChanges},
    users::{NewAccount, ProfileChanges},
};
use uuid::Uuid;

/// Deserializes the smallest document of an input, serializes the result, and asserts that this deserializes to the
/// same.
macro_rules! round_trip {
    ($type:ty, $smallest:expr, $written:expr) => {{
        let read: $type = from_value($smallest).unwrap();
        let written = to_value(&read).unwrap();
        assert_eq!(written, $written, stringify!($type));
        let again: $type = from_value(written.clone()).unwrap();
        assert_eq!(to_value(&again).unwrap(), written, stringify!($type));
    }};
}

#[test]
fn an_absent_field_has_the_documented_default() {
    let id = Uuid::from_u128(7);
    round_trip!(
        NewAdventure,
        json!({ "name": "The mill" }),
        json!({ "id": null, "name": "The mill", "description": null, "difficulty": "medium", "estimated_duration": 60,
                "min_players": 2, "max_players": 4, "thumbnail_url": null, "artwork_url": null,
                "content": to_value(NewAdventure::default().content).unwrap() })
    );
    round_trip!(
        NewSession,
        json!({ "adventure_id": id }),
        json!({ "id": null, "adventure_id": id, "visibility": "private", "max_players": 4, "looking_for": null,
                "scheduled_start": null })
    );
    let character = to_value(NewCharacter { name: "Nim".into(), ..Default::default() }).unwrap();
    round_trip!(NewCharacter, json!({ "name": "Nim" }), character);
    let creature = to_value(NewCreature { name: "Eel".into(), ..Default::default() }).unwrap();
    assert_eq!((&creature["hit_points"], &creature["armor"]), (&json!(6), &json!(0)));
    round_trip!(NewCreature, json!({ "name": "Eel" }), creature);
    round_trip!(
        NewEvent,
        json!({ "session_id": id, "kind": "say" }),
        json!({ "id": null, "session_id": id, "kind": "say", "payload": {} })
    );
    round_trip!(
        NewRoll,
        json!({ "session_id": id, "roller": { "character": id }, "attribute": "wit", "difficulty": 10, "kind": "attack" }),
        json!({ "id": null, "session_id": id, "roller": { "character": id }, "attribute": "wit", "difficulty": 10,
                "kind": "attack", "modifiers": [], "description": null })
    );
    round_trip!(NewInitiative, json!({ "session_id": id }), json!({ "id": null, "session_id": id, "creatures": [] }));
    round_trip!(NewAccount, json!({}), json!({ "id": null, "email": null, "display_name": null }));
    assert_eq!(from_value::<HistoryFilter>(json!({})).unwrap().page_size, PageSize::default());
    for filter in [from_value::<LobbyFilter>(json!({})).is_ok(), from_value::<CatalogueFilter>(json!({})).is_ok()] {
        assert!(filter);
    }
    assert_eq!(from_value::<ExpectedVersion>(json!({ "version": 3 })).unwrap(), ExpectedVersion::Version(3));
}

#[test]
fn in_a_change_an_absent_field_stays_and_null_empties_it() {
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
    let emptied = CreatureChanges { description: Some(None), ..Default::default() };
    assert_eq!(to_value(emptied).unwrap(), json!({ "description": null }));
    let wrong = from_value::<ProfileChanges>(json!({ "display_name": null })).unwrap_err().to_string();
    assert!(wrong.contains("null"), "a name must not be null: {wrong}");
}

#[test]
fn an_unknown_or_missing_field_is_named() {
    let wrong = |document: Value| from_value::<NewSession>(document).unwrap_err().to_string();
    assert!(wrong(json!({ "adventure_id": Uuid::nil(), "seats": 4 })).contains("seats"));
    assert!(wrong(json!({})).contains("adventure_id"));
    assert!(wrong(json!({ "adventure_id": Uuid::nil(), "max_players": 7 })).contains("max_players"));
    assert!(from_value::<LobbyFilter>(json!({ "colour": "red" })).unwrap_err().to_string().contains("colour"));
}

#[test]
fn numbers_and_codes_are_parsed_from_text_and_displayed() {
    assert_eq!("10".parse::<Difficulty>().unwrap().to_string(), "10");
    for text in ["2", "19", "ten", "", "1e1"] {
        assert_eq!(text.parse::<Difficulty>().unwrap_err().code(), "invalid_value", "{text}");
    }
    assert_eq!("abc 234".parse::<JoinCode>().unwrap().to_string(), "ABC234");
}
