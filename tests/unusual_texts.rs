//! Unusual texts in inputs that take a text: each text is either accepted (and, unless it is only searched for, stored
//! unchanged), or refused with an error that says what the text must be. Afterwards, every invariant of the database
//! holds. Two further tests are about escapes in JSON documents and about join codes as a person types them.

use std::pin::Pin;

use serde_json::json;
use sparc::{
    entity::sea_orm_active_enums::Attribute,
    service::{
        Difficulty, Error, IdentityConnection, JoinCode, Operations,
        adventures::{AdventureChanges, CatalogueFilter, CatalogueOrder, NewAdventure},
        characters::NewCharacter,
        creatures::NewCreature,
        dice::{Modifier, NewRoll, Roller},
        events::NewEvent,
        sessions::{ExpectedVersion, LobbyFilter, NewSession, SessionChanges},
        users::ProfileChanges,
    },
};
use uuid::Uuid;

use crate::{
    random_operations::broken_invariants,
    sqlstates::{INVALID_TEXT_REPRESENTATION, UNTRANSLATABLE_CHARACTER},
    world::World,
};

/// Returns unusual texts that a person or a client could send, each with a description.
fn unusual_texts() -> Vec<(&'static str, String)> {
    vec![
        ("empty", String::new()),
        ("spaces", "     ".to_owned()),
        ("NUL", "a\0b".to_owned()),
        ("an escaped NUL", "a\\u0000b".to_owned()),
        ("an escaped surrogate", "\\ud800".to_owned()),
        ("noncharacters and a byte order mark", "\u{ffff}\u{fdd0}\u{feff}".to_owned()),
        ("marks that reverse the text", "\u{202e}toor\u{202c}\u{2066}x\u{2069}".to_owned()),
        ("combining marks", format!("e{}", "\u{301}".repeat(40))),
        ("an emoji of several code points", "👩‍👩‍👧‍👦🧙🏽‍♀️!".to_owned()),
        ("lines and tabs", "a\r\n\tb\u{2028}c\u{85}".to_owned()),
        ("SQL", "'; DROP TABLE users; --".to_owned()),
        ("a placeholder", "$1 ? %s {} :name".to_owned()),
        ("JSON", r#"{"a": [1, "\"}"#.to_owned()),
        ("LIKE", r"100%_\%".to_owned()),
        ("a path", "../../etc/passwd".to_owned()),
        ("half a megabyte", "é".repeat(262_144)),
        ("more than a megabyte", "x".repeat(1_100_000)),
    ]
}

/// The rows that the operations are called on, and the connections of a player and of the session's Seer.
struct SessionFixture {
    player: IdentityConnection,
    seer: IdentityConnection,
    session_id: Uuid,
    adventure_id: Uuid,
    /// A draft adventure of the Seer.
    draft_id: Uuid,
    character_id: Uuid,
}

/// Resolves to the text as the operation stored it (`None` if the text was lost). If the operation only searches for
/// the text, resolves to the text itself.
type StoredTextFuture<'a> = Pin<Box<dyn Future<Output = Result<Option<String>, Error>> + Send + 'a>>;

/// A parameter of an operation.
struct TextInput {
    name: &'static str,
    /// The field that an error about the text must name.
    field: &'static str,
    /// Passes a text to the parameter.
    call: for<'a> fn(&'a SessionFixture, String) -> StoredTextFuture<'a>,
}

macro_rules! text_input {
    ($name:literal, $field:literal, |$fixture:ident, $text:ident| $call:expr) => {
        TextInput { name: $name, field: $field, call: |$fixture, $text| Box::pin(async move { Ok($call) }) }
    };
}

/// Returns inputs of the service's operations. The test passes each text to each of them.
fn text_inputs() -> Vec<TextInput> {
    vec![
        text_input!("users.edit display_name", "display_name", |fixture, text| {
            fixture
                .player
                .users()
                .edit(ProfileChanges { display_name: Some(text), ..Default::default() })
                .await?
                .display_name
                .into()
        }),
        text_input!("users.edit bio", "bio", |fixture, text| {
            fixture.player.users().edit(ProfileChanges { bio: Some(Some(text)), ..Default::default() }).await?.bio
        }),
        text_input!("users.edit avatar_url", "avatar_url", |fixture, text| {
            fixture
                .player
                .users()
                .edit(ProfileChanges { avatar_url: Some(Some(text)), ..Default::default() })
                .await?
                .avatar_url
        }),
        text_input!("users.by_display_name", "display_name", |fixture, text| fixture
            .player
            .users()
            .by_display_name(&text)
            .await
            .map(|_| Some(text))?),
        text_input!("characters.create name", "name", |fixture, text| {
            let hero = fixture.player.characters().create(NewCharacter { name: text, ..Default::default() }).await?;
            fixture.player.characters().delete(hero.id).await?;
            Some(hero.name)
        }),
        text_input!("characters.rename", "name", |fixture, text| Some(
            fixture.player.characters().rename(fixture.character_id, &text).await?.name
        )),
        text_input!("adventures.create name", "name", |fixture, text| {
            Some(fixture.seer.adventures().create(NewAdventure { name: text, ..Default::default() }).await?.name)
        }),
        text_input!("adventures.edit name", "name", |fixture, text| {
            let changes = AdventureChanges { name: Some(text), ..Default::default() };
            fixture.seer.adventures().edit(fixture.draft_id, changes).await?.name.into()
        }),
        text_input!("adventures.edit description", "description", |fixture, text| {
            let changes = AdventureChanges { description: Some(Some(text)), ..Default::default() };
            fixture.seer.adventures().edit(fixture.draft_id, changes).await?.description
        }),
        text_input!("adventures.catalogue search", "search", |fixture, text| {
            let filter = CatalogueFilter { search: Some(text), ..Default::default() };
            let page = fixture.player.adventures().catalogue(&filter, CatalogueOrder::default(), None).await;
            page.map(|_| filter.search)?
        }),
        text_input!("creatures.add name", "name", |fixture, text| {
            Some(
                fixture
                    .seer
                    .creatures()
                    .add(fixture.adventure_id, NewCreature { name: text, ..Default::default() })
                    .await?
                    .name,
            )
        }),
        text_input!("creatures.add description", "description", |fixture, text| {
            let wolf = NewCreature { name: "Wolf".to_owned(), description: Some(text), ..Default::default() };
            fixture.seer.creatures().add(fixture.adventure_id, wolf).await?.description
        }),
        text_input!("sessions.create looking_for", "looking_for", |fixture, text| {
            let adventure_id = fixture.adventure_id;
            let session = NewSession { adventure_id, looking_for: Some(text), ..Default::default() };
            fixture.seer.sessions().create(session).await?.looking_for
        }),
        text_input!("sessions.edit looking_for", "looking_for", |fixture, text| {
            let changes = SessionChanges { looking_for: Some(Some(text)), ..Default::default() };
            fixture.seer.sessions().edit(fixture.session_id, changes).await?.looking_for
        }),
        text_input!("sessions.set_scene", "scene_id", |fixture, text| fixture
            .seer
            .sessions()
            .set_scene(fixture.session_id, Some(&text))
            .await?
            .current_scene_id),
        text_input!("sessions.set_encounter", "encounter_id", |fixture, text| {
            fixture.seer.sessions().set_encounter(fixture.session_id, Some(&text)).await?.current_encounter_id
        }),
        text_input!("sessions.set_game_state", "game_state", |fixture, text| {
            let state = json!({ "text": text });
            let session =
                fixture.seer.sessions().set_game_state(fixture.session_id, state, ExpectedVersion::Any).await?;
            session.game_state["text"].as_str().map(str::to_owned)
        }),
        text_input!("sessions.lobby search", "search", |fixture, text| {
            let filter = LobbyFilter { search: Some(text), ..Default::default() };
            fixture.player.sessions().lobby(&filter, None).await.map(|_| filter.search)?
        }),
        text_input!("dice.roll description", "description", |fixture, text| {
            let roll = NewRoll::attribute_check(
                fixture.session_id,
                Roller::Character(fixture.character_id),
                Attribute::Wit,
                Difficulty::MIN,
            );
            fixture.player.dice().roll(NewRoll { description: Some(text), ..roll }).await?.description
        }),
        text_input!("dice.roll source of a modifier", "modifiers", |fixture, text| {
            let roll = NewRoll::attribute_check(
                fixture.session_id,
                Roller::Character(fixture.character_id),
                Attribute::Wit,
                Difficulty::MIN,
            );
            let made_roll = fixture.player.dice().roll(roll.with(Modifier::flat(1, &text))).await?;
            made_roll.modifiers[0]["source"].as_str().map(str::to_owned)
        }),
        text_input!("events.send kind", "kind", |fixture, text| {
            let event = NewEvent { session_id: fixture.session_id, kind: text, ..Default::default() };
            fixture.player.events().send(event).await?.event_type.strip_prefix("client.").map(str::to_owned)
        }),
        text_input!("events.send payload", "payload", |fixture, text| {
            let payload = json!({ "text": text });
            let session_id = fixture.session_id;
            let event = NewEvent { session_id, kind: "say".to_owned(), payload, ..Default::default() };
            fixture.player.events().send(event).await?.payload["text"].as_str().map(str::to_owned)
        }),
    ]
}

#[tokio::test]
async fn every_text_is_stored_unchanged_or_refused_with_the_name_of_its_field() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let fixture = SessionFixture {
        player: world.sparc.as_user(player.user_id),
        seer: world.sparc.as_user(game.seer.user_id()),
        session_id: game.session_id,
        adventure_id: game.adventure_id,
        draft_id: world.new_draft_adventure(game.seer.user_id()).await,
        character_id: player.character_id,
    };
    let (mut accepted_count, mut refused_count, mut violations) = (0, 0, Vec::new());
    for (description, text) in unusual_texts() {
        for TextInput { name: input, field: expected_field, call } in text_inputs() {
            match call(&fixture, text.clone()).await {
                Ok(stored) if stored.as_ref() == Some(&text) => accepted_count += 1,
                Ok(_) => violations.push(format!("{input}: {description} was changed")),
                // PostgreSQL does not say in which value it found a NUL.
                Err(Error::InvalidValue { field: "text", rule }) if text.contains('\0') && !rule.is_empty() => {
                    refused_count += 1;
                }
                Err(Error::InvalidValue { field, rule }) if field == expected_field && !rule.is_empty() => {
                    refused_count += 1;
                }
                Err(Error::InvalidValue { field, rule }) => {
                    violations
                        .push(format!("{input}: {description}: the error has the field {field:?}, rule {rule:?}"));
                }
                Err(error) => violations.push(format!("{input}: {description}: {}", error.code())),
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert!(
        accepted_count > 200 && refused_count > 50,
        "more than 200 calls must be accepted ({accepted_count}) and more than 50 refused ({refused_count})"
    );
    assert_eq!(broken_invariants(&world).await, [""; 0]);
}

#[tokio::test]
async fn an_escaped_lone_surrogate_or_nul_in_json_is_refused() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let ada = &game.players[0].caller;
    for document in [r#"{"text": "\ud800"}"#, r#"{"text": "\udc00\ud800"}"#, r#"{"text": "\u0000"}"#] {
        let sql = format!(
            "INSERT INTO session_events (session_id, event_type, payload) VALUES ('{}', 'client.x', '{document}')",
            game.session_id
        );
        let error = ada.execute(&sql).await.unwrap_err();
        assert!(
            [INVALID_TEXT_REPRESENTATION, UNTRANSLATABLE_CHARACTER].contains(&error.sqlstate.as_str()),
            "{error:?}"
        );
    }
    assert_eq!(world.owner().count("session_events WHERE event_type = 'client.x'").await, 0);
}

#[test]
fn a_join_code_is_accepted_as_a_person_would_type_it_and_other_texts_are_refused() {
    let expected: JoinCode = "ABC234".parse().unwrap();
    for typed in ["abc234", " ABC234 ", "abc 234", "ABC-234", "\tAbC234\n"] {
        assert_eq!(typed.parse::<JoinCode>().ok(), Some(expected.clone()), "{typed:?}");
    }
    // The first three letters of the fifth text are Cyrillic.
    for typed in ["", "ABC23", "ABC2345", "ABC23!", "АВС234", "ABC\u{0}23", &"A".repeat(1_000_000)] {
        assert_error!(typed.parse::<JoinCode>(), Error::InvalidValue { field: "code", .. }, "{:.10}", typed);
    }
}
