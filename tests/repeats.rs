//! A creation that is repeated with the same id returns the first result, in sequence and concurrently.

use std::fmt::Debug;

use serde_json::json;
use sparc::{
    entity::sea_orm_active_enums::Attribute,
    service::{
        Difficulty, Error, IdentityConnection, Operations,
        adventures::{AdventureChanges, NewAdventure},
        characters::NewCharacter,
        creatures::NewCreature,
        dice::{Modifier, NewInitiative, NewRoll, Roller},
        events::NewEvent,
        sessions::{ExpectedVersion, NewSession, SessionChanges, Visibility},
        users::NewAccount,
    },
};
use uuid::Uuid;

use crate::world::{World, run_together};

/// Creates twice in sequence with one id and eight times concurrently with another, and asserts one result per id.
async fn assert_repeatable<T, F>(who: &IdentityConnection, what: &str, create: impl Fn(IdentityConnection, Uuid) -> F)
where
    T: PartialEq + Debug + Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let id = Uuid::new_v4();
    let first = create(who.clone(), id).await.unwrap();
    assert_eq!(create(who.clone(), id).await.unwrap(), first, "{what}, created twice in sequence");
    let id = Uuid::new_v4();
    let mut created = run_together((0..8).map(|_| create(who.clone(), id)).collect()).await.into_iter();
    let first = created.next().unwrap().unwrap();
    for other in created {
        assert_eq!(other.unwrap(), first, "{what}, created concurrently");
    }
}

#[tokio::test]
async fn a_creation_repeated_with_the_same_id_returns_the_first_row() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (session, adventure, hero) = (game.session, game.adventure, game.players[0].character);
    let seer = world.sparc.as_user(game.seer.uuid());
    let ada = world.sparc.as_user(game.players[0].id);
    assert_repeatable(&seer, "adventure", move |who, id| async move {
        who.adventures().create(NewAdventure { id: Some(id), name: "Twice".into(), ..Default::default() }).await
    })
    .await;
    assert_repeatable(&seer, "creature", move |who, id| async move {
        who.creatures().add(adventure, NewCreature { id: Some(id), name: "Wolf".into(), ..Default::default() }).await
    })
    .await;
    assert_repeatable(&seer, "session", move |who, id| async move {
        who.sessions().create(NewSession { id: Some(id), adventure_id: adventure, ..Default::default() }).await
    })
    .await;
    assert_repeatable(&ada, "character", move |who, id| async move {
        who.characters().create(NewCharacter { id: Some(id), name: id.to_string(), ..Default::default() }).await
    })
    .await;
    assert_repeatable(&ada, "roll", move |who, id| async move {
        let check = NewRoll::check(session, Roller::Character(hero), Attribute::Might, Difficulty::MIN);
        who.dice().roll(NewRoll { id: Some(id), ..check }).await
    })
    .await;
    assert_repeatable(&ada, "event", move |who, id| async move {
        who.events()
            .send(NewEvent { id: Some(id), session_id: session, kind: "wave".into(), ..Default::default() })
            .await
    })
    .await;
    assert_repeatable(&seer, "initiative", move |who, id| async move {
        who.dice().initiative(NewInitiative { id: Some(id), session_id: session, creatures: Vec::new() }).await
    })
    .await;
    assert_repeatable(&world.sparc.as_service(), "account", move |who, id| async move {
        who.users().sign_up(NewAccount { id: Some(id), email: Some(format!("{id}@x.org")), display_name: None }).await
    })
    .await;
    assert_eq!(
        world.owner().count("dice_rolls").await,
        2 + 2 * 2,
        "two single rolls, and two initiatives of two rolls each"
    );
}

#[tokio::test]
async fn joining_seating_and_rejoining_twice_take_one_seat() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.set(&game, "is_public = true").await;
    let player = world.new_player().await;
    let (me, service) = (world.sparc.as_user(player.id), world.sparc.as_service());
    let seer = world.sparc.as_user(game.seer.uuid());
    let (session, hero, id) = (game.session, player.character, player.id);
    let tasks = (0..8)
        .map(|index| {
            let (me, service) = (me.clone(), service.clone());
            async move {
                if index % 2 == 0 {
                    me.sessions().join_public(session, hero).await
                } else {
                    service.sessions().seat(session, id, hero).await
                }
            }
        })
        .collect();
    for outcome in run_together(tasks).await {
        assert!(outcome.unwrap().is_active);
    }
    assert_eq!(world.owner().value::<i32>("SELECT seats_taken FROM sessions").await, Ok(1));
    me.sessions().leave(session).await.unwrap();
    for _ in 0..2 {
        assert!(me.sessions().rejoin(session, hero).await.unwrap().is_active);
    }
    assert_eq!(world.owner().count("session_events WHERE event_type = 'player_joined'").await, 2);
    for _ in 0..2 {
        assert!(!seer.sessions().remove(session, id).await.unwrap().is_active);
    }
    assert_eq!(world.owner().count("session_events WHERE event_type = 'player_left'").await, 2);
}

/// Asserts that a creation was refused because its id had been used by another user or in a request with other content.
/// A repetition of the original request is no conflict, even if the row has changed since.
pub async fn assert_id_conflict<T: Debug>(what: &str, outcome: Result<T, Error>) {
    assert_fails!(outcome, Error::IdConflict { .. }, "{what}");
}

#[tokio::test]
async fn the_same_id_with_anything_else_is_a_conflict() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (session, adventure) = (game.session, game.adventure);
    let (hero, other_hero) = (game.players[0].character, game.players[1].character);
    let seer = world.sparc.as_user(game.seer.uuid());
    let ada = world.sparc.as_user(game.players[0].id);
    let ben = world.sparc.as_user(game.players[1].id);
    let service = world.sparc.as_service();
    let uuid = Uuid::new_v4();
    let id = Some(uuid);

    let wave = NewEvent { id, session_id: session, kind: "wave".into(), payload: json!({"n": 1e16, "m": 0.1}) };
    ada.events().send(wave.clone()).await.unwrap();
    assert!(ada.events().send(wave.clone()).await.is_ok(), "numbers are compared by value, not by spelling");
    assert_id_conflict("the same event, sent by another player", ben.events().send(wave.clone()).await).await;
    assert_id_conflict("the same event, sent by the service", service.events().send(wave.clone()).await).await;
    assert_id_conflict("another payload", ada.events().send(NewEvent { payload: json!({}), ..wave.clone() }).await)
        .await;
    assert_id_conflict("another kind", ada.events().send(NewEvent { kind: "nod".into(), ..wave }).await).await;

    let roll = NewRoll::check(session, Roller::Character(hero), Attribute::Might, Difficulty::MIN);
    let roll = NewRoll { id, description: Some("A leap".into()), ..roll }.with(Modifier::flat(1, "high ground"));
    seer.dice().roll(roll.clone()).await.unwrap();
    assert!(seer.dice().roll(roll.clone()).await.is_ok());
    assert_id_conflict(
        "another roller",
        seer.dice().roll(NewRoll { roller: Roller::Character(other_hero), ..roll.clone() }).await,
    )
    .await;
    assert_id_conflict("other modifiers", seer.dice().roll(NewRoll { modifiers: Vec::new(), ..roll.clone() }).await)
        .await;
    assert_id_conflict("another description", seer.dice().roll(NewRoll { description: None, ..roll.clone() }).await)
        .await;
    assert_id_conflict(
        "another difficulty",
        seer.dice().roll(NewRoll { difficulty: Difficulty::MAX, ..roll.clone() }).await,
    )
    .await;
    let attribute = Attribute::Heart;
    assert_id_conflict("another attribute", seer.dice().roll(NewRoll { attribute, ..roll }).await).await;

    let new = NewSession { id, adventure_id: adventure, looking_for: Some("a healer".into()), ..Default::default() };
    seer.sessions().create(new.clone()).await.unwrap();
    assert!(seer.sessions().create(new.clone()).await.is_ok());
    assert_id_conflict("another Seer", ada.sessions().create(new.clone()).await).await;
    let visibility = Visibility::Public;
    assert_id_conflict("another visibility", seer.sessions().create(NewSession { visibility, ..new.clone() }).await)
        .await;
    assert_id_conflict("no looking_for", seer.sessions().create(NewSession { looking_for: None, ..new.clone() }).await)
        .await;
    let soon = Some(chrono::Utc::now() + chrono::TimeDelta::hours(1));
    assert_id_conflict(
        "another time",
        seer.sessions().create(NewSession { scheduled_start: soon, ..new.clone() }).await,
    )
    .await;
    let changes = SessionChanges { looking_for: Some(None), ..Default::default() };
    seer.sessions().edit(uuid, changes).await.unwrap();
    assert!(seer.sessions().create(new.clone()).await.is_ok(), "the original request must be recognized after an edit");
    assert_id_conflict("another Seer", ada.sessions().create(new).await).await;

    let new = NewAdventure { id, name: "The Mill".into(), description: Some("Quiet".into()), ..Default::default() };
    seer.adventures().create(new.clone()).await.unwrap();
    assert_id_conflict(
        "another name",
        seer.adventures().create(NewAdventure { name: "The Ford".into(), ..new.clone() }).await,
    )
    .await;
    assert_id_conflict(
        "another max_players",
        seer.adventures().create(NewAdventure { max_players: 6, ..new.clone() }).await,
    )
    .await;
    assert_id_conflict(
        "no description",
        seer.adventures().create(NewAdventure { description: None, ..new.clone() }).await,
    )
    .await;
    assert_id_conflict("another creator", ada.adventures().create(new.clone()).await).await;
    let name = Some("The Loud Mill".into());
    seer.adventures().edit(uuid, AdventureChanges { name, ..Default::default() }).await.unwrap();
    assert_eq!(
        seer.adventures().create(new).await.unwrap().name,
        "The Loud Mill",
        "the original request returns the renamed adventure"
    );

    let new = NewCharacter { id, name: "Brunhild".into(), ..Default::default() };
    ada.characters().create(new.clone()).await.unwrap();
    let equipment = vec![Default::default()];
    assert_id_conflict("other equipment", ada.characters().create(NewCharacter { equipment, ..new.clone() }).await)
        .await;
    assert_id_conflict("another player", ben.characters().create(new.clone()).await).await;
    ada.characters().rename(uuid, "Hild the Old").await.unwrap();
    assert_eq!(ada.characters().create(new).await.unwrap().name, "Hild the Old");

    let new = NewCreature { id, name: "Wolf".into(), ..Default::default() };
    seer.creatures().add(adventure, new.clone()).await.unwrap();
    assert_id_conflict(
        "other hit points",
        seer.creatures().add(adventure, NewCreature { hit_points: 9, ..new.clone() }).await,
    )
    .await;
    assert_id_conflict(
        "another name",
        seer.creatures().add(adventure, NewCreature { name: "Bear".into(), ..new }).await,
    )
    .await;

    let new = NewAccount { id, email: Some("ada@x.org".into()), display_name: Some("Ada".into()) };
    service.users().sign_up(new.clone()).await.unwrap();
    assert!(service.users().sign_up(new.clone()).await.is_ok());
    assert_id_conflict("no e-mail address", service.users().sign_up(NewAccount { email: None, ..new.clone() }).await)
        .await;
    assert_id_conflict("another name", service.users().sign_up(NewAccount { display_name: None, ..new }).await).await;
}

#[tokio::test]
async fn numbers_are_returned_as_they_were_stored() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.uuid());
    let mut rng = fastrand::Rng::with_seed(17);
    let mut numbers: Vec<serde_json::Value> = Vec::new();
    while numbers.len() < 2000 {
        let float = f64::from_bits(rng.u64(..));
        // The database refuses documents with numbers that are close to the limits of a double, so they are left out.
        if float.is_finite() && float.abs() > 1e-300 && float.abs() < 1e300 {
            numbers.push(json!(float));
        }
        numbers.push(json!(rng.f64()));
        numbers.push(json!(rng.u64(..)));
        numbers.push(json!(rng.i64(..)));
    }
    for sent_numbers in numbers.chunks(50) {
        let state = json!({ "numbers": sent_numbers });
        let updated = seer.sessions().set_game_state(game.session, state, ExpectedVersion::Any).await.unwrap();
        let stored = updated.game_state["numbers"].as_array().unwrap().clone();
        for (sent, stored) in sent_numbers.iter().zip(&stored) {
            let same = match (sent.as_u64(), sent.as_i64()) {
                (None, None) => sent.as_f64() == stored.as_f64(),
                whole => whole == (stored.as_u64(), stored.as_i64()),
            };
            assert!(same, "{sent} came back as {stored}");
        }
        // Sending the state back as it was returned must change nothing, so the version must stay the same.
        let again = seer
            .sessions()
            .set_game_state(game.session, updated.game_state.clone(), ExpectedVersion::Any)
            .await
            .unwrap();
        assert_eq!((again.game_state_version, &again.game_state), (updated.game_state_version, &updated.game_state));
    }
}

#[tokio::test]
async fn a_rating_must_be_from_0_to_5() {
    let world = World::new().await;
    let adventure = world.new_adventure(world.new_account().await).await;
    let service = world.sparc.as_service();
    for wrong in ["-9.99", "-0.01", "5.01", "9.99", "1000"] {
        let refused = service.adventures().set_rating(adventure, Some(wrong.parse().unwrap())).await;
        assert_fails!(refused, Error::InvalidValue { field: "average_rating", .. }, "{wrong}");
    }
    for right in ["0", "4.99", "5", "5.00"] {
        assert!(service.adventures().set_rating(adventure, Some(right.parse().unwrap())).await.is_ok(), "{right}");
    }
    assert!(service.adventures().set_rating(adventure, None).await.is_ok());
}

#[tokio::test]
async fn after_an_edit_only_the_original_request_still_returns_the_row() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.uuid());
    let ada = world.sparc.as_user(game.players[0].id);
    let uuid = Uuid::new_v4();
    let id = Some(uuid);

    let hero = NewCharacter { id, name: "Brunhild".into(), ..Default::default() };
    let first = ada.characters().create(hero.clone()).await.unwrap().id;
    ada.characters().rename(first, "Gunhild").await.unwrap();
    assert_eq!(ada.characters().create(hero.clone()).await.unwrap().name, "Gunhild");
    for name in ["Gunhild", "Nim"] {
        assert_id_conflict(name, ada.characters().create(NewCharacter { name: name.into(), ..hero.clone() }).await)
            .await;
    }
    assert_id_conflict("the same character, created by another user", seer.characters().create(hero).await).await;

    let draft = NewAdventure { id, name: "The Quiet Mill".into(), ..Default::default() };
    seer.adventures().create(draft.clone()).await.unwrap();
    let longer = AdventureChanges { estimated_duration: Some(90), ..Default::default() };
    seer.adventures().edit(uuid, longer).await.unwrap();
    assert_eq!(seer.adventures().create(draft.clone()).await.unwrap().estimated_duration, 90);
    assert_id_conflict(
        "the content that the row has after the edit",
        seer.adventures().create(NewAdventure { estimated_duration: 90, ..draft.clone() }).await,
    )
    .await;

    let wolf = NewCreature { id, name: "Wolf".into(), ..Default::default() };
    seer.creatures().add(game.adventure, wolf.clone()).await.unwrap();
    let armed = sparc::service::creatures::CreatureChanges { armor: Some(2), ..Default::default() };
    seer.creatures().edit(uuid, armed).await.unwrap();
    assert_eq!(seer.creatures().add(game.adventure, wolf.clone()).await.unwrap().armor, 2);
    assert_id_conflict(
        "the creature as edited",
        seer.creatures().add(game.adventure, NewCreature { armor: 2, ..wolf }).await,
    )
    .await;

    // This timestamp has nanoseconds, and PostgreSQL stores microseconds. The request must be recognized all the same.
    let start = chrono::Utc::now() + chrono::Duration::nanoseconds(86_400_000_000_789);
    let new = NewSession { id, adventure_id: game.adventure, scheduled_start: Some(start), ..Default::default() };
    seer.sessions().create(new.clone()).await.unwrap();
    let public = SessionChanges { visibility: Some(Visibility::Public), ..Default::default() };
    seer.sessions().edit(uuid, public).await.unwrap();
    assert!(seer.sessions().create(new.clone()).await.unwrap().is_public);
    assert_id_conflict(
        "the session as edited",
        seer.sessions().create(NewSession { visibility: Visibility::Public, ..new }).await,
    )
    .await;

    // Once the row is deleted, its id can be used again.
    ada.characters().delete(first).await.unwrap();
    assert!(ada.characters().create(NewCharacter { id, name: "Nim".into(), ..Default::default() }).await.is_ok());
}
