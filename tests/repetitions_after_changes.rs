//! A creation that is repeated with the same id returns the existing row, even if the database would now refuse a new
//! row.

use sparc::{
    entity::{dice_rolls, sea_orm_active_enums::Attribute},
    service::{
        Difficulty, Operations,
        dice::{NewRoll, Roller},
        events::NewEvent,
        sessions::NewSession,
    },
};
use uuid::Uuid;

use crate::{
    idempotency::assert_id_conflict,
    world::{World, outcome_code},
};

#[tokio::test]
async fn a_repeated_roll_or_event_returns_the_existing_one_after_the_session_or_the_seat_has_changed() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (session_id, player) = (game.session_id, &game.players[0]);
    let roller = Roller::Character(player.character_id);
    let new_roll = || NewRoll {
        id: Some(Uuid::new_v4()),
        ..NewRoll::attribute_check(session_id, roller, Attribute::Might, Difficulty::MIN)
    };
    let new_event = || NewEvent { id: Some(Uuid::new_v4()), session_id, kind: "wave".into(), ..Default::default() };
    let (ada, seer) = (world.sparc.as_user(player.user_id), world.sparc.as_user(game.seer.user_id()));
    let (roll, event) = (new_roll(), new_event());
    let first_roll = ada.dice().roll(roll.clone()).await.unwrap();
    let first_event = ada.events().send(event.clone()).await.unwrap();
    let assert_only_exact_repetitions_succeed = async |change: &str| {
        assert_eq!(ada.dice().roll(roll.clone()).await.unwrap(), first_roll, "{change}");
        assert_eq!(ada.events().send(event.clone()).await.unwrap(), first_event, "{change}");
        let other_roll = NewRoll { difficulty: Difficulty::MAX, ..roll.clone() };
        assert_id_conflict(&format!("{change}: another difficulty"), ada.dice().roll(other_roll).await);
        assert_id_conflict(&format!("{change}: another sender"), seer.events().send(event.clone()).await);
    };

    seer.sessions().pause(session_id).await.unwrap();
    assert_only_exact_repetitions_succeed("paused").await;
    assert_eq!(outcome_code(ada.dice().roll(new_roll()).await), "session_not_active");
    seer.sessions().resume(session_id).await.unwrap();
    ada.sessions().leave(session_id).await.unwrap();
    assert_only_exact_repetitions_succeed("left").await;
    assert_eq!(outcome_code(ada.dice().roll(new_roll()).await), "not_seated");
    assert_eq!(outcome_code(ada.events().send(new_event()).await), "not_seated");
    seer.sessions().complete(session_id).await.unwrap();
    assert_only_exact_repetitions_succeed("completed").await;
    assert_eq!(outcome_code(ada.dice().roll(new_roll()).await), "session_not_active");
}

#[tokio::test]
async fn a_repeated_roll_of_a_creature_returns_the_existing_one_after_the_creature_was_deleted() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let insert_creatures = format!(
        "INSERT INTO creatures (adventure_id, name) SELECT '{}', 'Wolf' FROM generate_series(1, 2)",
        game.adventure_id
    );
    world.owner().execute(&insert_creatures).await.unwrap();
    let creatures: Vec<Uuid> = world.owner().fetch_values("SELECT id FROM creatures").await.unwrap();
    let roll = NewRoll {
        id: Some(Uuid::new_v4()),
        ..NewRoll::attribute_check(game.session_id, Roller::Creature(creatures[0]), Attribute::Might, Difficulty::MIN)
    };
    let first_roll = seer.dice().roll(roll.clone()).await.unwrap();
    world.owner().execute(&format!("DELETE FROM creatures WHERE id = '{}'", creatures[0])).await.unwrap();
    let expected = dice_rolls::Model { creature_id: None, ..first_roll };
    assert_eq!(seer.dice().roll(roll.clone()).await.unwrap(), expected);
    for (difference, other_roll) in [
        ("another creature", NewRoll { roller: Roller::Creature(creatures[1]), ..roll.clone() }),
        ("a character", NewRoll { roller: Roller::Character(game.players[0].character_id), ..roll.clone() }),
        ("another difficulty", NewRoll { difficulty: Difficulty::MAX, ..roll.clone() }),
    ] {
        assert_id_conflict(difference, seer.dice().roll(other_roll).await);
    }
}

#[tokio::test]
async fn a_repeated_creation_returns_the_existing_session_after_its_adventure_was_unpublished() {
    let world = World::new().await;
    let creator_id = world.new_account().await;
    let adventure_id = world.new_adventure(creator_id).await;
    let seer = world.sparc.as_user(world.new_account().await);
    let new_session = || NewSession { id: Some(Uuid::new_v4()), adventure_id, ..Default::default() };
    let session = new_session();
    let created = seer.sessions().create(session.clone()).await.unwrap();
    world.sparc.as_user(creator_id).adventures().unpublish(adventure_id).await.unwrap();
    assert_eq!(seer.sessions().create(session).await.unwrap(), created);
    assert_eq!(outcome_code(seer.sessions().create(new_session()).await), "adventure_not_playable");
}
