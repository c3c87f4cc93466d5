//! A creation that is repeated with the same id returns the row that the first creation made. A different creation with
//! that id is a conflict.

use std::fmt::Debug;

use serde_json::json;
use sparc::{
    entity::sea_orm_active_enums::Attribute,
    service::{
        Difficulty, Error, IdentityConnection, Operations,
        adventures::{AdventureChanges, NewAdventure},
        characters::NewCharacter,
        creatures::{CreatureChanges, NewCreature},
        dice::{Modifier, NewInitiative, NewRoll, Roller},
        events::NewEvent,
        sessions::{NewSession, SessionChanges, Visibility},
        users::NewAccount,
    },
};
use uuid::Uuid;

use crate::world::{World, outcome_code, run_together};

/// Calls `create` twice in sequence with one id and eight times concurrently with another, and asserts that all calls
/// with the same id return the same result.
async fn assert_idempotent<T, F>(
    caller: &IdentityConnection,
    created_kind: &str,
    create: impl Fn(IdentityConnection, Uuid) -> F,
) where
    T: PartialEq + Debug + Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let id = Uuid::new_v4();
    let first_result = create(caller.clone(), id).await.unwrap();
    assert_eq!(create(caller.clone(), id).await.unwrap(), first_result, "{created_kind}, created twice in sequence");
    let id = Uuid::new_v4();
    let mut outcomes = run_together((0..8).map(|_| create(caller.clone(), id)).collect()).await.into_iter();
    let first_result = outcomes.next().unwrap().unwrap();
    for outcome in outcomes {
        assert_eq!(outcome.unwrap(), first_result, "{created_kind}, created concurrently");
    }
}

#[tokio::test]
async fn a_creation_repeated_with_the_same_id_returns_the_first_row() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (session_id, adventure_id, hero_id) = (game.session_id, game.adventure_id, game.players[0].character_id);
    let seer = world.sparc.as_user(game.seer.user_id());
    let ada = world.sparc.as_user(game.players[0].user_id);
    assert_idempotent(&seer, "adventure", move |caller, id| async move {
        caller.adventures().create(NewAdventure { id: Some(id), name: "Twice".into(), ..Default::default() }).await
    })
    .await;
    assert_idempotent(&seer, "creature", move |caller, id| async move {
        caller
            .creatures()
            .add(adventure_id, NewCreature { id: Some(id), name: "Wolf".into(), ..Default::default() })
            .await
    })
    .await;
    assert_idempotent(&seer, "session", move |caller, id| async move {
        caller.sessions().create(NewSession { id: Some(id), adventure_id, ..Default::default() }).await
    })
    .await;
    assert_idempotent(&ada, "character", move |caller, id| async move {
        caller.characters().create(NewCharacter { id: Some(id), name: id.to_string(), ..Default::default() }).await
    })
    .await;
    assert_idempotent(&ada, "roll", move |caller, id| async move {
        let check = NewRoll::attribute_check(session_id, Roller::Character(hero_id), Attribute::Might, Difficulty::MIN);
        caller.dice().roll(NewRoll { id: Some(id), ..check }).await
    })
    .await;
    assert_idempotent(&ada, "event", move |caller, id| async move {
        caller.events().send(NewEvent { id: Some(id), session_id, kind: "wave".into(), ..Default::default() }).await
    })
    .await;
    assert_idempotent(&seer, "initiative", move |caller, id| async move {
        caller.dice().roll_initiative(NewInitiative { id: Some(id), session_id, creature_ids: Vec::new() }).await
    })
    .await;
    assert_idempotent(&world.sparc.as_service(), "account", move |caller, id| async move {
        caller
            .users()
            .sign_up(NewAccount { id: Some(id), email: Some(format!("{id}@x.org")), display_name: None })
            .await
    })
    .await;
    assert_eq!(
        world.owner().count("dice_rolls").await,
        2 + 2 * 2,
        "two single rolls, and two initiatives of two rolls each"
    );
}

#[tokio::test]
async fn repeated_joins_rejoins_and_removals_take_effect_once() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    world.update_session(&game, "is_public = true").await;
    let player = world.new_player().await;
    let (me, service) = (world.sparc.as_user(player.user_id), world.sparc.as_service());
    let seer = world.sparc.as_user(game.seer.user_id());
    let (session_id, hero_id, user_id) = (game.session_id, player.character_id, player.user_id);
    // In half of the calls the player joins, and in the other half the service seats the player.
    let tasks = (0..8)
        .map(|index| {
            let (me, service) = (me.clone(), service.clone());
            async move {
                if index % 2 == 0 {
                    me.sessions().join_by_id(session_id, hero_id).await
                } else {
                    service.sessions().seat_player(session_id, user_id, hero_id).await
                }
            }
        })
        .collect();
    for outcome in run_together(tasks).await {
        assert!(outcome.unwrap().is_active);
    }
    assert_eq!(world.owner().fetch_value::<i32>("SELECT seats_taken FROM sessions").await, Ok(1));
    me.sessions().leave(session_id).await.unwrap();
    for _ in 0..2 {
        assert!(me.sessions().rejoin(session_id, hero_id).await.unwrap().is_active);
    }
    assert_eq!(
        world.owner().count("session_events WHERE event_type = 'player_joined'").await,
        2,
        "the join and the first rejoin"
    );
    for _ in 0..2 {
        assert!(!seer.sessions().remove_player(session_id, user_id).await.unwrap().is_active);
    }
    assert_eq!(
        world.owner().count("session_events WHERE event_type = 'player_left'").await,
        2,
        "leaving and the first removal"
    );
}

/// Asserts that a creation was refused because its id had been used by another caller or in a different request.
/// `difference` says how this creation differs from the first one.
pub fn assert_id_conflict<T: Debug>(difference: &str, outcome: Result<T, Error>) {
    assert_error!(outcome, Error::IdConflict { .. }, "{difference}");
}

#[tokio::test]
async fn a_different_creation_with_the_same_id_is_a_conflict() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (session_id, adventure_id) = (game.session_id, game.adventure_id);
    let (hero_id, other_hero_id) = (game.players[0].character_id, game.players[1].character_id);
    let seer = world.sparc.as_user(game.seer.user_id());
    let ada = world.sparc.as_user(game.players[0].user_id);
    let ben = world.sparc.as_user(game.players[1].user_id);
    let service = world.sparc.as_service();
    // Rows of all kinds can have the same id, because an id is unique only within its table.
    let shared_id = Uuid::new_v4();
    let id = Some(shared_id);

    let new_wave_event = NewEvent { id, session_id, kind: "wave".into(), payload: json!({"n": 1e16, "m": 0.1}) };
    ada.events().send(new_wave_event.clone()).await.unwrap();
    // PostgreSQL stores 1e16 as 10000000000000000. The payload must be recognized as the same anyway.
    assert!(ada.events().send(new_wave_event.clone()).await.is_ok());
    assert_id_conflict("the same event, sent by another player", ben.events().send(new_wave_event.clone()).await);
    assert_id_conflict("the same event, sent by the service", service.events().send(new_wave_event.clone()).await);
    assert_id_conflict(
        "another payload",
        ada.events().send(NewEvent { payload: json!({}), ..new_wave_event.clone() }).await,
    );
    assert_id_conflict("another kind", ada.events().send(NewEvent { kind: "nod".into(), ..new_wave_event }).await);

    let roll = NewRoll::attribute_check(session_id, Roller::Character(hero_id), Attribute::Might, Difficulty::MIN);
    let roll = NewRoll { id, description: Some("A leap".into()), ..roll }.with(Modifier::flat(1, "high ground"));
    seer.dice().roll(roll.clone()).await.unwrap();
    assert!(seer.dice().roll(roll.clone()).await.is_ok());
    assert_id_conflict(
        "another roller",
        seer.dice().roll(NewRoll { roller: Roller::Character(other_hero_id), ..roll.clone() }).await,
    );
    assert_id_conflict("other modifiers", seer.dice().roll(NewRoll { modifiers: Vec::new(), ..roll.clone() }).await);
    assert_id_conflict("another description", seer.dice().roll(NewRoll { description: None, ..roll.clone() }).await);
    assert_id_conflict(
        "another difficulty",
        seer.dice().roll(NewRoll { difficulty: Difficulty::MAX, ..roll.clone() }).await,
    );
    let attribute = Attribute::Heart;
    assert_id_conflict("another attribute", seer.dice().roll(NewRoll { attribute, ..roll }).await);

    let new_session = NewSession { id, adventure_id, looking_for: Some("a healer".into()), ..Default::default() };
    seer.sessions().create(new_session.clone()).await.unwrap();
    assert!(seer.sessions().create(new_session.clone()).await.is_ok());
    assert_id_conflict("another Seer", ada.sessions().create(new_session.clone()).await);
    let visibility = Visibility::Public;
    assert_id_conflict(
        "another visibility",
        seer.sessions().create(NewSession { visibility, ..new_session.clone() }).await,
    );
    assert_id_conflict(
        "no looking_for",
        seer.sessions().create(NewSession { looking_for: None, ..new_session.clone() }).await,
    );
    let in_an_hour = Some(chrono::Utc::now() + chrono::TimeDelta::hours(1));
    assert_id_conflict(
        "another time",
        seer.sessions().create(NewSession { scheduled_start: in_an_hour, ..new_session.clone() }).await,
    );
    let clear_looking_for = SessionChanges { looking_for: Some(None), ..Default::default() };
    seer.sessions().edit(shared_id, clear_looking_for).await.unwrap();
    assert!(
        seer.sessions().create(new_session.clone()).await.is_ok(),
        "the original request must be recognized after an edit"
    );
    assert_id_conflict("another Seer, after the edit", ada.sessions().create(new_session).await);

    let mill = NewAdventure { id, name: "The Mill".into(), description: Some("Quiet".into()), ..Default::default() };
    seer.adventures().create(mill.clone()).await.unwrap();
    assert_id_conflict(
        "another name",
        seer.adventures().create(NewAdventure { name: "The Ford".into(), ..mill.clone() }).await,
    );
    assert_id_conflict(
        "another max_players",
        seer.adventures().create(NewAdventure { max_players: 6, ..mill.clone() }).await,
    );
    assert_id_conflict(
        "no description",
        seer.adventures().create(NewAdventure { description: None, ..mill.clone() }).await,
    );
    assert_id_conflict("another creator", ada.adventures().create(mill.clone()).await);
    let name = Some("The Loud Mill".into());
    seer.adventures().edit(shared_id, AdventureChanges { name, ..Default::default() }).await.unwrap();
    assert_eq!(
        seer.adventures().create(mill).await.unwrap().name,
        "The Loud Mill",
        "the original request must return the renamed adventure"
    );

    let brunhild = NewCharacter { id, name: "Brunhild".into(), ..Default::default() };
    ada.characters().create(brunhild.clone()).await.unwrap();
    let equipment = vec![Default::default()];
    assert_id_conflict(
        "other equipment",
        ada.characters().create(NewCharacter { equipment, ..brunhild.clone() }).await,
    );
    assert_id_conflict("another player", ben.characters().create(brunhild.clone()).await);
    ada.characters().rename(shared_id, "Hild the Old").await.unwrap();
    assert_eq!(ada.characters().create(brunhild).await.unwrap().name, "Hild the Old");

    let wolf = NewCreature { id, name: "Wolf".into(), ..Default::default() };
    seer.creatures().add(adventure_id, wolf.clone()).await.unwrap();
    assert_id_conflict(
        "other hit points",
        seer.creatures().add(adventure_id, NewCreature { hit_points: 9, ..wolf.clone() }).await,
    );
    assert_id_conflict(
        "another name",
        seer.creatures().add(adventure_id, NewCreature { name: "Bear".into(), ..wolf }).await,
    );

    let account = NewAccount { id, email: Some("ada@x.org".into()), display_name: Some("Ada".into()) };
    service.users().sign_up(account.clone()).await.unwrap();
    assert!(service.users().sign_up(account.clone()).await.is_ok());
    assert_id_conflict(
        "no e-mail address",
        service.users().sign_up(NewAccount { email: None, ..account.clone() }).await,
    );
    assert_id_conflict("no display name", service.users().sign_up(NewAccount { display_name: None, ..account }).await);
}

#[tokio::test]
async fn after_an_edit_only_the_original_request_still_returns_the_row() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let ada = world.sparc.as_user(game.players[0].user_id);
    // Rows of all kinds can have the same id, because an id is unique only within its table.
    let shared_id = Uuid::new_v4();
    let id = Some(shared_id);

    let hero = NewCharacter { id, name: "Brunhild".into(), ..Default::default() };
    let hero_id = ada.characters().create(hero.clone()).await.unwrap().id;
    ada.characters().rename(hero_id, "Gunhild").await.unwrap();
    assert_eq!(ada.characters().create(hero.clone()).await.unwrap().name, "Gunhild");
    for name in ["Gunhild", "Nim"] {
        assert_id_conflict(
            &format!("the name {name}"),
            ada.characters().create(NewCharacter { name: name.into(), ..hero.clone() }).await,
        );
    }
    assert_id_conflict("the same character, created by another user", seer.characters().create(hero).await);

    let draft = NewAdventure { id, name: "The Quiet Mill".into(), ..Default::default() };
    seer.adventures().create(draft.clone()).await.unwrap();
    let lengthen = AdventureChanges { estimated_duration: Some(90), ..Default::default() };
    seer.adventures().edit(shared_id, lengthen).await.unwrap();
    assert_eq!(seer.adventures().create(draft.clone()).await.unwrap().estimated_duration, 90);
    assert_id_conflict(
        "the adventure as edited",
        seer.adventures().create(NewAdventure { estimated_duration: 90, ..draft.clone() }).await,
    );

    let wolf = NewCreature { id, name: "Wolf".into(), ..Default::default() };
    seer.creatures().add(game.adventure_id, wolf.clone()).await.unwrap();
    let add_armor = CreatureChanges { armor: Some(2), ..Default::default() };
    seer.creatures().edit(shared_id, add_armor).await.unwrap();
    assert_eq!(seer.creatures().add(game.adventure_id, wolf.clone()).await.unwrap().armor, 2);
    assert_id_conflict(
        "the creature as edited",
        seer.creatures().add(game.adventure_id, NewCreature { armor: 2, ..wolf }).await,
    );

    // This time has nanoseconds, and PostgreSQL stores microseconds. The repeated request must be recognized anyway.
    let start = chrono::Utc::now() + chrono::Duration::nanoseconds(86_400_000_000_789);
    let new_session =
        NewSession { id, adventure_id: game.adventure_id, scheduled_start: Some(start), ..Default::default() };
    seer.sessions().create(new_session.clone()).await.unwrap();
    let make_public = SessionChanges { visibility: Some(Visibility::Public), ..Default::default() };
    seer.sessions().edit(shared_id, make_public).await.unwrap();
    assert!(seer.sessions().create(new_session.clone()).await.unwrap().is_public);
    assert_id_conflict(
        "the session as edited",
        seer.sessions().create(NewSession { visibility: Visibility::Public, ..new_session }).await,
    );

    // Once the row is deleted, its id can be used again.
    ada.characters().delete(hero_id).await.unwrap();
    assert!(ada.characters().create(NewCharacter { id, name: "Nim".into(), ..Default::default() }).await.is_ok());
}

#[tokio::test]
async fn a_repeated_roll_returns_the_first_only_to_the_caller_who_made_it() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let check = NewRoll::attribute_check(
        game.session_id,
        Roller::Character(player.character_id),
        Attribute::Might,
        Difficulty::MIN,
    );
    let check = NewRoll { id: Some(Uuid::new_v4()), ..check };
    let ada = world.sparc.as_user(player.user_id);
    let first_roll = ada.dice().roll(check.clone()).await.unwrap();
    assert_eq!(first_roll.rolled_by, Some(player.user_id));
    assert_eq!(ada.dice().roll(check.clone()).await.unwrap(), first_roll);
    // The Seer may also roll for the character, but did not make the roll with this id.
    let seer = world.sparc.as_user(game.seer.user_id());
    assert_eq!(outcome_code(seer.dice().roll(check.clone()).await), "id_conflict");
    assert_eq!(outcome_code(world.sparc.as_service().dice().roll(check).await), "id_conflict");
}

#[tokio::test]
async fn concurrent_creations_with_one_id_return_one_row_even_at_the_limit() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    // An account may have ten characters, so only one of the creations below fits.
    for _ in 0..9 {
        world.new_character(user_id).await;
    }
    let hero = NewCharacter { id: Some(Uuid::new_v4()), name: "The Tenth".into(), ..Default::default() };
    let tasks = (0..8)
        .map(|_| {
            let (me, hero) = (world.sparc.as_user(user_id), hero.clone());
            async move { me.characters().create(hero).await.map(|created| created.id) }
        })
        .collect();
    for outcome in run_together(tasks).await {
        assert_eq!(outcome.unwrap(), hero.id.unwrap());
    }
}
