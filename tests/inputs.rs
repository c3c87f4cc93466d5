//! Inputs as JSON: what a web handler takes from a request and passes to an operation.

use axum::extract::Query;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, from_value, json, to_value};
use sparc::service::{
    Cursor, Difficulty, JoinCode, PageSize,
    adventures::{AdventureChanges, CatalogueFilter, NewAdventure},
    characters::NewCharacter,
    creatures::{CreatureChanges, NewCreature},
    dice::{HistoryFilter, NewInitiative, NewRoll},
    events::NewEvent,
    sessions::{ExpectedVersion, LobbyFilter, NewSession, SessionChanges},
    users::{NewAccount, ProfileChanges},
};
use uuid::Uuid;

/// Asserts that the smallest valid document of an input type is read with the expected defaults, and that writing and
/// reading the input again does not change it.
macro_rules! round_trip {
    ($type:ty, $smallest:expr, $expected:expr) => {{
        let read: $type = from_value($smallest).unwrap();
        let written = to_value(&read).unwrap();
        assert_eq!(written, $expected, stringify!($type));
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
    assert!(from_value::<LobbyFilter>(json!({})).is_ok() && from_value::<CatalogueFilter>(json!({})).is_ok());
    assert_eq!(from_value::<ExpectedVersion>(json!({ "version": 3 })).unwrap(), ExpectedVersion::Version(3));
}

#[test]
fn in_changes_an_absent_field_keeps_its_value_and_null_clears_it() {
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

/// The query parameters of a handler that returns a list: the filter and the cursor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParameters<F> {
    #[serde(flatten)]
    filter: F,
    after: Option<Cursor>,
}

fn query<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let address = format!("/list?{text}").parse().unwrap();
    Query::try_from_uri(&address).map(|Query(query)| query).map_err(|refused| refused.body_text())
}

#[test]
fn filters_are_read_from_query_strings_with_and_without_a_cursor() {
    for cursor in ["", "&after=xyz"] {
        let text = format!("difficulty=hard&max_minutes=90&free_seats=2&search=mill+pond{cursor}");
        let lobby: ListParameters<LobbyFilter> = query(&text).unwrap();
        assert_eq!((lobby.filter.max_minutes, lobby.filter.free_seats), (Some(90), Some(2)));
        assert_eq!((lobby.filter.search.as_deref(), lobby.after.is_some()), (Some("mill pond"), !cursor.is_empty()));
        let catalogue: ListParameters<CatalogueFilter> =
            query(&format!("min_minutes=30&max_minutes=60&players=4{cursor}")).unwrap();
        let CatalogueFilter { min_minutes, max_minutes, players, .. } = catalogue.filter;
        assert_eq!((min_minutes, max_minutes, players), (Some(30), Some(60), Some(4)));
        let history: ListParameters<HistoryFilter> = query(&format!("kind=attack&page_size=200{cursor}")).unwrap();
        assert_eq!(history.filter.page_size.get(), 200);
        assert_eq!(query::<ListParameters<HistoryFilter>>(cursor).unwrap().filter.page_size, PageSize::default());
    }
    assert_eq!(query::<LobbyFilter>("free_seats=2&max_minutes=90").unwrap().free_seats, Some(2));
    assert_eq!(query::<HistoryFilter>("page_size=7").unwrap().page_size.get(), 7);
    for (wrong, named) in [
        ("free_seats=two", "whole number"),
        ("free_seats=3000000000", "whole number"),
        ("max_minutes=1.5", "whole number"),
        ("colour=red", "colour"),
    ] {
        for refused in
            [query::<ListParameters<LobbyFilter>>(wrong).unwrap_err(), query::<LobbyFilter>(wrong).unwrap_err()]
        {
            assert!(refused.contains(named), "{wrong}: {refused}");
        }
    }
    for size in ["0", "201", "many", "-1"] {
        let wrong = query::<ListParameters<HistoryFilter>>(&format!("page_size={size}")).unwrap_err();
        assert!(wrong.contains("page_size") || wrong.contains("whole number"), "{size}: {wrong}");
    }
    // In a query string every value is text. In JSON a number is not, and `null` means no filter.
    let document = json!({ "free_seats": 2, "max_minutes": null });
    assert_eq!(from_value::<LobbyFilter>(document).unwrap().free_seats, Some(2));
    for wrong in [json!(3_000_000_000_i64), json!(-3_000_000_000_i64), json!(1.5), json!(true), json!([2])] {
        let refused = from_value::<LobbyFilter>(json!({ "free_seats": wrong })).unwrap_err().to_string();
        assert!(refused.contains("whole number"), "{refused}");
    }
}
