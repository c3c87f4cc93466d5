//! The same id again: the first result, whether one after the other or at once.

use std::fmt::Debug;

use sparc::{
    entity::sea_orm_active_enums::Attribute,
    service::{
        Difficulty, Error, IdentityConnection, Operations,
        adventures::NewAdventure,
        characters::NewCharacter,
        creatures::NewCreature,
        dice::{NewInitiative, NewRoll, Roller},
        events::NewEvent,
        sessions::NewSession,
        users::NewAccount,
    },
};
use uuid::Uuid;

use crate::world::{World, at_once};

/// Twice in turn, and eight times at once, each with an id of its own.
async fn repeated<T, F>(who: &IdentityConnection, what: &str, create: impl Fn(IdentityConnection, Uuid) -> F)
where
    T: PartialEq + Debug + Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let id = Uuid::new_v4();
    let first = create(who.clone(), id).await.unwrap();
    assert_eq!(create(who.clone(), id).await.unwrap(), first, "{what} twice");
    let id = Uuid::new_v4();
    let mut made = at_once((0..8).map(|_| create(who.clone(), id)).collect()).await.into_iter();
    let first = made.next().unwrap().unwrap();
    for other in made {
        assert_eq!(other.unwrap(), first, "{what} at once");
    }
}

#[tokio::test]
async fn whatever_is_created_twice_is_created_once() {
    let world = World::new().await;
    let table = world.active_table(2).await;
    let (session, adventure, hero) = (table.session, table.adventure, table.players[0].character);
    let seer = world.sparc.as_user(table.seer.uuid());
    let ada = world.sparc.as_user(table.players[0].id);
    repeated(&seer, "adventure", move |who, id| async move {
        who.adventures().create(NewAdventure { id: Some(id), name: "Twice".into(), ..Default::default() }).await
    })
    .await;
    repeated(&seer, "creature", move |who, id| async move {
        who.creatures().add(adventure, NewCreature { id: Some(id), name: "Wolf".into(), ..Default::default() }).await
    })
    .await;
    repeated(&seer, "session", move |who, id| async move {
        who.sessions().create(NewSession { id: Some(id), adventure_id: adventure, ..Default::default() }).await
    })
    .await;
    repeated(&ada, "character", move |who, id| async move {
        who.characters().create(NewCharacter { id: Some(id), name: id.to_string(), ..Default::default() }).await
    })
    .await;
    repeated(&ada, "roll", move |who, id| async move {
        let check = NewRoll::check(session, Roller::Character(hero), Attribute::Might, Difficulty::MIN);
        who.dice().roll(NewRoll { id: Some(id), ..check }).await
    })
    .await;
    repeated(&ada, "event", move |who, id| async move {
        who.events()
            .send(NewEvent { id: Some(id), session_id: session, kind: "wave".into(), ..Default::default() })
            .await
    })
    .await;
    repeated(&seer, "initiative", move |who, id| async move {
        who.dice().initiative(NewInitiative { id: Some(id), session_id: session, creatures: Vec::new() }).await
    })
    .await;
    repeated(&world.sparc.as_service(), "account", move |who, id| async move {
        who.users().sign_up(NewAccount { id: Some(id), email: Some(format!("{id}@x.org")), display_name: None }).await
    })
    .await;
    assert_eq!(world.owner().count("dice_rolls").await, 2 + 2 * 2, "two rolls, and two initiatives of two");
}

#[tokio::test]
async fn joining_seating_and_coming_back_twice_take_one_seat() {
    let world = World::new().await;
    let table = world.table(0).await;
    world.set(&table, "is_public = true").await;
    let player = world.player().await;
    let (me, service) = (world.sparc.as_user(player.id), world.sparc.as_service());
    let seer = world.sparc.as_user(table.seer.uuid());
    let (session, hero, id) = (table.session, player.character, player.id);
    let all = (0..8)
        .map(|place| {
            let (me, service) = (me.clone(), service.clone());
            async move {
                if place % 2 == 0 {
                    me.sessions().join_public(session, hero).await
                } else {
                    service.sessions().seat(session, id, hero).await
                }
            }
        })
        .collect();
    for outcome in at_once(all).await {
        assert!(outcome.unwrap().is_active);
    }
    assert_eq!(world.owner().value::<i32>("SELECT seats_taken FROM sessions").await, Ok(1));
    me.sessions().leave(session).await.unwrap();
    for _ in 0..2 {
        assert!(me.sessions().come_back(session, hero).await.unwrap().is_active);
    }
    assert_eq!(world.owner().count("session_events WHERE event_type = 'player_joined'").await, 2);
    for _ in 0..2 {
        assert!(!seer.sessions().remove(session, id).await.unwrap().is_active);
    }
    assert_eq!(world.owner().count("session_events WHERE event_type = 'player_left'").await, 2);
}
