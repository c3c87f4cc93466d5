//! Initiative: its dice, its order and its ties.

use sea_orm::ConnectionTrait;
use sparc::{
    entity::sea_orm_active_enums::RollType,
    service::{
        Error, Operations,
        creatures::{NewCreature, Stats},
        dice::{NewInitiative, Roller},
    },
};
use uuid::Uuid;

use crate::world::{World, insert_character_sql, insert_seat_sql};

#[tokio::test]
async fn initiative_can_be_rolled_for_more_than_a_hundred_creatures() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sql = format!(
        "WITH created AS (INSERT INTO creatures (adventure_id, name)
         SELECT '{}', 'Rat ' || i FROM generate_series(1, 150) AS i RETURNING id) SELECT array_agg(id) FROM created",
        game.adventure_id
    );
    let creature_ids: Vec<Uuid> = world.owner().fetch_value(&sql).await.unwrap();
    let seer = world.sparc.as_user(game.seer.user_id());
    let id = Some(Uuid::new_v4());
    let initiative = NewInitiative { id, session_id: game.session_id, creature_ids };
    let turns = seer.dice().roll_initiative(initiative.clone()).await.unwrap();
    assert_eq!(turns.len(), 151, "150 creatures and the player");
    assert!(turns.is_sorted_by(|turn, next| turn.die >= next.die));
    assert_eq!(seer.dice().roll_initiative(initiative.clone()).await.unwrap(), turns, "repeated with the same id");
    let outcome_for_another_caller = world.sparc.as_service().dice().roll_initiative(initiative).await;
    assert_error!(outcome_for_another_caller, Error::IdConflict { what: "roll" });
}

#[tokio::test]
async fn initiative_is_one_die_and_ties_are_ordered_by_grace() {
    let world = World::new().await;
    let game = world.new_active_session(4).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let stats = Stats { grace: 10, ..Default::default() };
    let new_wolf = NewCreature { name: "Wolf".into(), stats, ..Default::default() };
    let wolf = seer.creatures().add(game.adventure_id, new_wolf).await.unwrap();
    for (grace, player) in (1..).zip(&game.players) {
        let sql = format!("UPDATE characters SET grace = {grace} WHERE id = '{}'", player.character_id);
        world.owner().execute(&sql).await.unwrap();
    }
    let grace_of = |roller: Roller| match roller {
        Roller::Creature(_) => 10,
        Roller::Character(id) => 1 + game.players.iter().position(|player| player.character_id == id).unwrap(),
    };
    let mut tie_count = 0;
    for _ in 0..40 {
        let initiative = NewInitiative { id: None, session_id: game.session_id, creature_ids: vec![wolf.id, wolf.id] };
        let turns = seer.dice().roll_initiative(initiative).await.unwrap();
        assert_eq!(turns.len(), 5, "a creature that is listed twice must roll once");
        assert!(turns.iter().all(|turn| turn.roll.dice_count == 1 && turn.roll.roll_type == RollType::Initiative));
        let order: Vec<_> = turns.iter().map(|turn| (turn.die, grace_of(turn.roller))).collect();
        assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
        tie_count += order.windows(2).filter(|neighbours| neighbours[0].0 == neighbours[1].0).count();
    }
    assert!(tie_count > 0, "the test must have produced at least one tie");
}

#[tokio::test]
async fn initiative_order_orders_only_visible_initiative_rolls_of_one_session() {
    let world = World::new().await;
    let (game, other_game) = (world.new_active_session(2).await, world.new_active_session(1).await);
    let seer = world.sparc.as_user(game.seer.user_id());
    let service = world.sparc.as_service();
    let new_initiative = |session_id| NewInitiative { id: None, session_id, creature_ids: Vec::new() };
    let turns = seer.dice().roll_initiative(new_initiative(game.session_id)).await.unwrap();
    let other_turns = service.dice().roll_initiative(new_initiative(other_game.session_id)).await.unwrap();
    let attack_id = world.new_attack_roll(game.session_id, game.players[0].character_id, "{1}", 3, 0).await;
    let select_order_sql = |ids: &[Uuid]| {
        let list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
        format!("SELECT unnest(private.initiative_order(ARRAY[{list}]::uuid[]))")
    };
    let roll_ids: Vec<Uuid> = turns.iter().map(|turn| turn.roll.id).collect();
    assert_eq!(game.seer.fetch_values::<Uuid>(&select_order_sql(&roll_ids)).await, Ok(roll_ids.clone()));
    assert_eq!(
        game.seer.fetch_values::<Uuid>(&select_order_sql(&[roll_ids[0], attack_id])).await,
        Ok(vec![roll_ids[0]]),
        "an attack must be left out"
    );
    let select_order_of_two_sessions = select_order_sql(&[roll_ids[0], other_turns[0].roll.id]);
    assert_eq!(
        world.service().fetch_values::<Uuid>(&select_order_of_two_sessions).await,
        Ok(Vec::new()),
        "rolls of two sessions have no order"
    );
    // To a caller who may not see a roll, the answer is the same as if the roll did not exist.
    for (seer, visible_roll_id) in [(&game.seer, roll_ids[0]), (&other_game.seer, other_turns[0].roll.id)] {
        assert_eq!(seer.fetch_values::<Uuid>(&select_order_of_two_sessions).await, Ok(vec![visible_roll_id]));
        let select_order_with_unknown = select_order_sql(&[visible_roll_id, Uuid::new_v4()]);
        assert_eq!(seer.fetch_values::<Uuid>(&select_order_with_unknown).await, Ok(vec![visible_roll_id]));
    }
    // The function reads private character sheets, so it must return nothing to a caller who cannot see the session.
    let count_ordered_rolls = format!("SELECT cardinality(ARRAY({}))", select_order_sql(&roll_ids));
    assert_eq!(world.new_user().await.fetch_value::<i32>(&count_ordered_rolls).await, Ok(0), "a stranger");
    assert_refused!(world.visitor().fetch_value::<i32>(&count_ordered_rolls).await, forbidden);
}

#[tokio::test]
async fn ids_that_a_client_chooses_do_not_decide_ties_of_initiative() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let hero_id = game.players[0].character_id;
    let random_64_bits = || Uuid::new_v4().as_u128() >> 64;
    let (mut tie_count, mut lower_id_first_count) = (0, 0);
    // In every pair, the first id is lower than the second. If ids decided ties, the lower id would be first in all
    // ties or in none.
    for _ in 0..150 {
        let ids = [Uuid::from_u128(random_64_bits()), Uuid::from_u128(u128::MAX - random_64_bits())];
        for id in ids {
            let insert_roll = format!(
                "INSERT INTO dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type)
                 VALUES ('{id}', '{}', '{hero_id}', 'grace', 3, 'initiative')",
                game.session_id
            );
            game.seer.execute(&insert_roll).await.unwrap();
        }
        let id_array = format!("ARRAY['{}', '{}']::uuid[]", ids[0], ids[1]);
        let count_distinct_totals = format!("SELECT count(DISTINCT total) FROM dice_rolls WHERE id = ANY ({id_array})");
        if game.seer.fetch_value::<i64>(&count_distinct_totals).await.unwrap() == 1 {
            tie_count += 1;
            let select_order = format!("SELECT unnest(private.initiative_order({id_array}))");
            let order = game.seer.fetch_values::<Uuid>(&select_order).await.unwrap();
            lower_id_first_count += usize::from(order[0] == ids[0]);
        }
    }
    assert!(
        0 < lower_id_first_count && lower_id_first_count < tie_count,
        "the lower id is first in {lower_id_first_count} of {tie_count} ties"
    );
}

#[tokio::test]
async fn a_player_cannot_roll_initiative_even_if_only_their_own_character_is_seated() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let new_initiative = NewInitiative { session_id: game.session_id, ..Default::default() };
    let player = world.sparc.as_user(game.players[0].user_id);
    assert_error!(player.dice().roll_initiative(new_initiative.clone()).await, Error::NotSessionSeer);
    assert_eq!(world.owner().count("dice_rolls").await, 0);
    let seer = world.sparc.as_user(game.seer.user_id());
    assert_eq!(seer.dice().roll_initiative(new_initiative).await.unwrap().len(), 1);
}

/// A player leaves while the Seer's request waits between reading the seats and rolling. The database refuses to roll
/// for that player's character, and the operation reads the seats again.
#[tokio::test]
async fn initiative_is_rolled_for_the_others_if_a_player_leaves_at_the_same_time() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let owner = world.owner();
    let lock_holder = owner.begin().await;
    lock_holder.execute_unprepared("LOCK TABLE dice_rolls IN EXCLUSIVE MODE").await.unwrap();
    let seer = world.sparc.as_user(game.seer.user_id());
    let new_initiative = NewInitiative { session_id: game.session_id, ..Default::default() };
    let leave_and_unlock = async {
        owner.wait_until_backends_wait_for_locks(1).await;
        world.sparc.as_user(game.players[1].user_id).sessions().leave(game.session_id).await.unwrap();
        lock_holder.commit().await.unwrap();
    };
    let (turns, ()) = tokio::join!(seer.dice().roll_initiative(new_initiative), leave_and_unlock);
    let rollers: Vec<Roller> = turns.unwrap().iter().map(|turn| turn.roller).collect();
    assert_eq!(rollers, [Roller::Character(game.players[0].character_id)]);
    assert_eq!(owner.count("dice_rolls").await, 1);
}

/// A player may choose the id of a new character, so also an id that a creature has: if an adventure is published,
/// everyone can read the ids of its creatures.
#[tokio::test]
async fn a_character_with_the_id_of_a_creature_does_not_prevent_initiative() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let insert_wolf =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf') RETURNING id", game.adventure_id);
    let wolf_id: Uuid = world.owner().fetch_value(&insert_wolf).await.unwrap();
    let player_id = world.new_account().await;
    world.owner().execute(&insert_character_sql(wolf_id, player_id)).await.unwrap();
    world.owner().execute(&insert_seat_sql(game.session_id, player_id, wolf_id)).await.unwrap();
    world.update_session(&game, "status = 'active'").await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let initiative =
        NewInitiative { id: Some(Uuid::new_v4()), session_id: game.session_id, creature_ids: vec![wolf_id] };
    let turns = seer.dice().roll_initiative(initiative.clone()).await.unwrap();
    assert_eq!(turns.len(), 2);
    assert_eq!(seer.dice().roll_initiative(initiative).await.unwrap(), turns, "repeated with the same id");
}

#[tokio::test]
async fn repeating_initiative_after_the_end_of_the_session_returns_the_rolls() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let initiative = NewInitiative { id: Some(Uuid::new_v4()), session_id: game.session_id, ..Default::default() };
    let turns = seer.dice().roll_initiative(initiative.clone()).await.unwrap();
    world.update_session(&game, "status = 'completed'").await;
    assert_eq!(seer.dice().roll_initiative(initiative).await.unwrap(), turns);
    let another = NewInitiative { session_id: game.session_id, ..Default::default() };
    assert_error!(seer.dice().roll_initiative(another).await, Error::SessionNotActive);
}
