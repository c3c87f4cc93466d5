//! Any text that a person may type, in every place that takes a text: it is stored unchanged, or refused by an error
//! that names the field and what is wrong with it, and nothing is partly written.

use std::pin::Pin;

use serde_json::json;
use sparc::{
    entity::sea_orm_active_enums::Attribute,
    service::{
        Difficulty, Error, IdentityConnection, JoinCode, Operations,
        adventures::{AdventureChanges, NewAdventure},
        characters::NewCharacter,
        creatures::NewCreature,
        dice::{Modifier, NewRoll, Roller},
        events::NewEvent,
        sessions::{ExpectedVersion, LobbyFilter, NewSession, SessionChanges},
        users::ProfileChanges,
    },
};
use uuid::Uuid;

use crate::{random_operations::broken_invariants, world::World};

/// Texts, each with a description.
fn texts() -> Vec<(&'static str, String)> {
    vec![
        ("empty", String::new()),
        ("spaces", "     ".to_owned()),
        ("NUL", "a\0b".to_owned()),
        ("an escaped NUL", "a\\u0000b".to_owned()),
        ("an escaped surrogate", "\\ud800".to_owned()),
        ("no character", "\u{ffff}\u{fdd0}\u{feff}".to_owned()),
        ("marks that reverse the text", "\u{202e}toor\u{202c}\u{2066}x\u{2069}".to_owned()),
        ("combining marks", format!("e{}", "\u{301}".repeat(40))),
        ("an emoji of many", "👩‍👩‍👧‍👦🧙🏽‍♀️!".to_owned()),
        ("lines and tabs", "a\r\n\tb\u{2028}c\u{85}".to_owned()),
        ("SQL", "'; DROP TABLE users; --".to_owned()),
        ("a placeholder", "$1 ? %s {} :name".to_owned()),
        ("JSON", r#"{"a": [1, "\"}"#.to_owned()),
        ("LIKE", r"100%_\%".to_owned()),
        ("a path", "../../etc/passwd".to_owned()),
        ("half a megabyte", "é".repeat(262_144)),
        ("a megabyte and more", "x".repeat(1_100_000)),
    ]
}

struct Scene {
    me: IdentityConnection,
    seer: IdentityConnection,
    session: Uuid,
    adventure: Uuid,
    draft: Uuid,
    hero: Uuid,
}

/// The stored text, if the operation returns it.
type Kept<'a> = Pin<Box<dyn Future<Output = Result<Option<String>, Error>> + Send + 'a>>;

type Place = (&'static str, for<'a> fn(&'a Scene, String) -> Kept<'a>);

macro_rules! place {
    ($name:literal, |$scene:ident, $text:ident| $ask:expr) => {
        ($name, |$scene, $text| Box::pin(async move { Ok($ask) }))
    };
}

/// Every place where the service takes a person's text.
fn places() -> Vec<Place> {
    vec![
        place!("users.edit display_name", |s, text| {
            s.me.users()
                .edit(ProfileChanges { display_name: Some(text), ..Default::default() })
                .await?
                .display_name
                .into()
        }),
        place!("users.edit bio", |s, text| {
            s.me.users().edit(ProfileChanges { bio: Some(Some(text)), ..Default::default() }).await?.bio
        }),
        place!("users.edit avatar_url", |s, text| {
            s.me.users().edit(ProfileChanges { avatar_url: Some(Some(text)), ..Default::default() }).await?.avatar_url
        }),
        place!("users.by_display_name", |s, text| s.me.users().by_display_name(&text).await.map(|_| None)?),
        place!("characters.create name", |s, text| {
            let created = s.me.characters().create(NewCharacter { name: text, ..Default::default() }).await?;
            s.me.characters().delete(created.id).await?;
            Some(created.name)
        }),
        place!("characters.rename", |s, text| Some(s.me.characters().rename(s.hero, &text).await?.name)),
        place!("adventures.create name", |s, text| {
            Some(s.seer.adventures().create(NewAdventure { name: text, ..Default::default() }).await?.name)
        }),
        place!("adventures.edit description", |s, text| {
            let changes = AdventureChanges { description: Some(Some(text)), ..Default::default() };
            s.seer.adventures().edit(s.draft, changes).await?.description
        }),
        place!("creatures.add name", |s, text| {
            Some(s.seer.creatures().add(s.adventure, NewCreature { name: text, ..Default::default() }).await?.name)
        }),
        place!("creatures.add description", |s, text| {
            let new = NewCreature { name: "Wolf".to_owned(), description: Some(text), ..Default::default() };
            s.seer.creatures().add(s.adventure, new).await?.description
        }),
        place!("sessions.create looking_for", |s, text| {
            let new = NewSession { adventure_id: s.adventure, looking_for: Some(text), ..Default::default() };
            s.seer.sessions().create(new).await?.looking_for
        }),
        place!("sessions.edit looking_for", |s, text| {
            let changes = SessionChanges { looking_for: Some(Some(text)), ..Default::default() };
            s.seer.sessions().edit(s.session, changes).await?.looking_for
        }),
        place!("sessions.set_scene", |s, text| s
            .seer
            .sessions()
            .set_scene(s.session, Some(&text))
            .await?
            .current_scene_id),
        place!("sessions.set_encounter", |s, text| {
            s.seer.sessions().set_encounter(s.session, Some(&text)).await?.current_encounter_id
        }),
        place!("sessions.set_game_state", |s, text| {
            let state = json!({ "text": text });
            let kept = s.seer.sessions().set_game_state(s.session, state, ExpectedVersion::Any).await?.game_state;
            kept["text"].as_str().map(str::to_owned)
        }),
        place!("sessions.lobby search", |s, text| {
            let filter = LobbyFilter { search: Some(text), ..Default::default() };
            s.me.sessions().lobby(&filter, None).await.map(|_| None)?
        }),
        place!("dice.roll description", |s, text| {
            let roll = NewRoll::check(s.session, Roller::Character(s.hero), Attribute::Wit, Difficulty::MIN);
            s.me.dice().roll(NewRoll { description: Some(text), ..roll }).await?.description
        }),
        place!("dice.roll source of a modifier", |s, text| {
            let roll = NewRoll::check(s.session, Roller::Character(s.hero), Attribute::Wit, Difficulty::MIN);
            let rolled = s.me.dice().roll(roll.with(Modifier::flat(1, &text))).await?;
            rolled.modifiers[0]["source"].as_str().map(str::to_owned)
        }),
        place!("events.send kind", |s, text| {
            let event = NewEvent { session_id: s.session, kind: text, ..Default::default() };
            s.me.events().send(event).await?.event_type.strip_prefix("client.").map(str::to_owned)
        }),
        place!("events.send payload", |s, text| {
            let payload = json!({ "text": text });
            let event = NewEvent { session_id: s.session, kind: "say".to_owned(), payload, ..Default::default() };
            s.me.events().send(event).await?.payload["text"].as_str().map(str::to_owned)
        }),
    ]
}

#[tokio::test]
async fn every_text_is_stored_unchanged_or_refused_with_the_name_of_its_field() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let scene = Scene {
        me: world.sparc.as_user(player.id),
        seer: world.sparc.as_user(game.seer.uuid()),
        session: game.session,
        adventure: game.adventure,
        draft: world.new_draft(game.seer.uuid()).await,
        hero: player.character,
    };
    let (mut kept, mut refused, mut wrong) = (0, 0, Vec::new());
    for (what, text) in texts() {
        for (name, ask) in places() {
            match ask(&scene, text.clone()).await {
                Ok(back) if back.as_ref().is_none_or(|back| *back == text) => kept += 1,
                Ok(_) => wrong.push(format!("{name}: {what} was changed")),
                Err(Error::InvalidValue { field, rule }) if !field.is_empty() && !rule.is_empty() => refused += 1,
                Err(error) => wrong.push(format!("{name}: {what}: {}", error.code())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{kept} stored, {refused} refused");
    assert!(kept > 200 && refused > 50);
    assert_eq!(broken_invariants(&world).await, [""; 0]);
}

#[tokio::test]
async fn a_lone_surrogate_which_a_rust_string_cannot_hold_is_refused() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let ada = &game.players[0].person;
    for text in [r#"{"text": "\ud800"}"#, r#"{"text": "\udc00\ud800"}"#, r#"{"text": "\u0000"}"#] {
        let sql = format!(
            "INSERT INTO session_events (session_id, event_type, payload) VALUES ('{}', 'client.x', '{text}')",
            game.session
        );
        let refused = ada.exec(&sql).await.unwrap_err();
        assert!(["22P02", "22P05"].contains(&refused.code.as_str()), "{refused:?}");
    }
    assert_eq!(world.owner().count("session_events WHERE event_type = 'client.x'").await, 0);
}

#[test]
fn a_code_is_accepted_as_a_person_would_type_it() {
    let meant: JoinCode = "ABC234".parse().unwrap();
    for typed in ["abc234", " ABC234 ", "abc 234", "ABC-234", "\tAbC234\n"] {
        assert_eq!(typed.parse::<JoinCode>().ok(), Some(meant.clone()), "{typed:?}");
    }
    for typed in ["", "ABC23", "ABC2345", "ABC23!", "АВС234", "ABC\u{0}23", &"A".repeat(1_000_000)] {
        assert_fails!(typed.parse::<JoinCode>(), Error::InvalidValue { field: "code", .. }, "{:.10}", typed);
    }
}
