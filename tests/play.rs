//! Playing through the service: initiative, hit points, the shared game state, join codes, statistics, and how
//! sessions, characters, creatures and accounts are edited.

use serde_json::json;
use sparc::{
    entity::sea_orm_active_enums::{Attribute, RollType, SessionStatus},
    service::{
        Difficulty, Error, Operations,
        characters::{Attributes, Item, NewCharacter},
        creatures::{Ability, CreatureChanges, NewCreature, Stats},
        dice::{NewInitiative, NewRoll, RollScope, Roller},
        sessions::{ExpectedVersion, SessionChanges, Visibility},
        users::{Badge, NewAccount, ProfileChanges},
    },
};
use uuid::Uuid;

use crate::world::{World, run_together};

#[tokio::test]
async fn initiative_is_one_die_and_ties_are_ordered_by_grace() {
    let world = World::new().await;
    let game = world.new_active_session(4).await;
    let seer = world.sparc.as_user(game.seer.uuid());
    let stats = Stats { grace: 10, ..Default::default() };
    let new_wolf = NewCreature { name: "Wolf".into(), stats, ..Default::default() };
    let wolf = seer.creatures().add(game.adventure, new_wolf).await.unwrap();
    for (grace, player) in (1..).zip(&game.players) {
        let sql = format!("UPDATE characters SET grace = {grace} WHERE id = '{}'", player.character);
        world.owner().exec(&sql).await.unwrap();
    }
    let grace_of = |roller: Roller| match roller {
        Roller::Creature(_) => 10,
        Roller::Character(id) => 1 + game.players.iter().position(|player| player.character == id).unwrap(),
    };
    let mut ties = 0;
    for _ in 0..40 {
        let initiative = NewInitiative { id: None, session_id: game.session, creatures: vec![wolf.id, wolf.id] };
        let turns = seer.dice().initiative(initiative).await.unwrap();
        assert_eq!(turns.len(), 5, "a creature that is listed twice must roll once");
        assert!(turns.iter().all(|turn| turn.roll.dice_count == 1 && turn.roll.roll_type == RollType::Initiative));
        let order: Vec<_> = turns.iter().map(|turn| (turn.die, grace_of(turn.roller))).collect();
        assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
        ties += order.windows(2).filter(|neighbours| neighbours[0].0 == neighbours[1].0).count();
    }
    assert!(ties > 0, "the test must have produced at least one tie");
    // `initiative_order` reads private character sheets, so it must return nothing to a caller who cannot see the
    // session.
    let rolls: Vec<Uuid> = world.owner().values("SELECT id FROM dice_rolls").await.unwrap();
    let list = rolls.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
    let stranger = world.new_user().await;
    let query = format!("SELECT cardinality(private.initiative_order(ARRAY[{list}]::uuid[]))");
    assert_eq!(stranger.value::<i32>(&query).await, Ok(0), "a stranger");
    assert_refused!(world.visitor().value::<i32>(&query).await, forbidden);
}

#[tokio::test]
async fn initiative_order_orders_only_initiative_rolls_of_one_session() {
    let world = World::new().await;
    let (game, other_game) = (world.new_active_session(2).await, world.new_active_session(1).await);
    let seer = world.sparc.as_user(game.seer.uuid());
    let service = world.sparc.as_service();
    let initiative = |session_id| NewInitiative { id: None, session_id, creatures: Vec::new() };
    let turns = seer.dice().initiative(initiative(game.session)).await.unwrap();
    let other_turns = service.dice().initiative(initiative(other_game.session)).await.unwrap();
    let attack = world.new_roll(game.session, game.players[0].character, "{1}", 3, 0).await;
    let order_of = |ids: &[Uuid]| {
        let list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
        format!("SELECT unnest(private.initiative_order(ARRAY[{list}]::uuid[]))")
    };
    let rolls: Vec<Uuid> = turns.iter().map(|turn| turn.roll.id).collect();
    assert_eq!(game.seer.values::<Uuid>(&order_of(&rolls)).await, Ok(rolls.clone()));
    assert_eq!(
        game.seer.values::<Uuid>(&order_of(&[rolls[0], attack])).await,
        Ok(vec![rolls[0]]),
        "an attack is left out"
    );
    let order_of_both = order_of(&[rolls[0], other_turns[0].roll.id]);
    assert_eq!(
        world.service().values::<Uuid>(&order_of_both).await,
        Ok(Vec::new()),
        "rolls of two sessions have no order"
    );
    // To a caller who may not see a roll, the answer is the same as if the roll did not exist.
    for (seer, roll) in [(&game.seer, rolls[0]), (&other_game.seer, other_turns[0].roll.id)] {
        assert_eq!(seer.values::<Uuid>(&order_of_both).await, Ok(vec![roll]));
        assert_eq!(seer.values::<Uuid>(&order_of(&[roll, Uuid::new_v4()])).await, Ok(vec![roll]));
    }
}

#[tokio::test]
async fn ids_that_a_client_chooses_do_not_decide_ties_of_initiative() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let hero = game.players[0].character;
    let small_number = || Uuid::new_v4().as_u128() >> 64;
    let (mut ties, mut lower_id_first) = (0, 0);
    // In every pair, the first id is lower than the second. If ids decided ties, the same one would always be first.
    for _ in 0..150 {
        let ids = [Uuid::from_u128(small_number()), Uuid::from_u128(u128::MAX - small_number())];
        for id in ids {
            let insert = format!(
                "INSERT INTO dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type)
                 VALUES ('{id}', '{}', '{hero}', 'grace', 3, 'initiative')",
                game.session
            );
            game.seer.exec(&insert).await.unwrap();
        }
        let list = format!("ARRAY['{}', '{}']::uuid[]", ids[0], ids[1]);
        let totals = format!("SELECT count(DISTINCT total) FROM dice_rolls WHERE id = ANY ({list})");
        if game.seer.value::<i64>(&totals).await.unwrap() == 1 {
            ties += 1;
            let order = format!("SELECT unnest(private.initiative_order({list}))");
            lower_id_first += usize::from(game.seer.values::<Uuid>(&order).await.unwrap()[0] == ids[0]);
        }
    }
    assert!(0 < lower_id_first && lower_id_first < ties, "the lower id is first in {lower_id_first} of {ties} ties");
}

#[tokio::test]
async fn hit_points_stay_between_0_and_the_maximum_under_concurrent_changes() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let hero = game.players[0].character;
    let (ada, seer) = (world.sparc.as_user(game.players[0].id), world.sparc.as_user(game.seer.uuid()));
    assert_eq!(seer.characters().damage(hero, 2).await.unwrap().hit_points, 4);
    assert_eq!(ada.characters().heal(hero, 1).await.unwrap().hit_points, 5);
    assert_eq!(ada.characters().heal(hero, 200).await.unwrap().hit_points, 6);
    assert!(seer.characters().damage(hero, 255).await.unwrap().is_down());
    assert_eq!(ada.characters().rest(hero).await.unwrap().hit_points, 6);
    let tasks = (0..9)
        .map(|_| {
            let seer = seer.clone();
            async move { seer.characters().damage(hero, 1).await.map(|wounded| wounded.hit_points) }
        })
        .collect();
    let mut hit_points_left: Vec<i32> = run_together(tasks).await.into_iter().map(Result::unwrap).collect();
    hit_points_left.sort_unstable();
    assert_eq!(hit_points_left, [0, 0, 0, 0, 1, 2, 3, 4, 5], "no change may be lost or lead below 0");
    let tasks = (0..9)
        .map(|_| {
            let ada = ada.clone();
            async move { ada.characters().heal(hero, 1).await.map(|healed| healed.hit_points) }
        })
        .collect();
    let mut hit_points: Vec<i32> = run_together(tasks).await.into_iter().map(Result::unwrap).collect();
    hit_points.sort_unstable();
    assert_eq!(hit_points, [1, 2, 3, 4, 5, 6, 6, 6, 6], "no change may be lost or lead above the maximum");
    // A Seer may change only characters that are seated in their session, and only while the session is live.
    world.set(&game, "status = 'completed'").await;
    assert_fails!(seer.characters().damage(hero, 1).await, Error::NotFound { .. });
    let huge_damage = format!("SELECT hit_points FROM private.change_hit_points('{hero}', -2147483648)");
    assert_eq!(game.players[0].person.value::<i32>(&huge_damage).await, Ok(0), "the number must not overflow");
    let stranger = world.new_user().await;
    let by_stranger = format!("SELECT count(*) FROM private.change_hit_points('{hero}', 1)");
    assert_eq!(stranger.value::<i64>(&by_stranger).await, Ok(0));
}

#[tokio::test]
async fn devices_of_one_seer_do_not_overwrite_each_others_game_state() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.uuid());
    let tasks = (0..8)
        .map(|device| {
            let (seer, session) = (seer.clone(), game.session);
            async move {
                seer.sessions().set_game_state(session, json!({ "device": device }), ExpectedVersion::Version(0)).await
            }
        })
        .collect();
    let outcomes = run_together(tasks).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::GameStateChanged))).count(), 7);
    let session = seer.sessions().get(game.session).await.unwrap();
    assert_eq!(session.game_state_version, 1);
    let unchanged =
        seer.sessions().set_game_state(game.session, session.game_state, ExpectedVersion::Version(1)).await.unwrap();
    assert_eq!(unchanged.game_state_version, 1, "the same state must not change the version");
    let overwritten = seer.sessions().set_game_state(game.session, json!({}), ExpectedVersion::Any).await.unwrap();
    assert_eq!(overwritten.game_state_version, 2);
    let ada = world.sparc.as_user(game.players[0].id);
    let events = ada.events().after(game.session, 0).await.unwrap();
    let states: Vec<_> = events.iter().filter(|event| event.event_type == "game_state").collect();
    assert_eq!(states.len(), 2);
    assert_eq!(states[1].payload, json!({ "game_state": {}, "version": 2 }));
    assert_eq!(ada.events().newest(game.session).await.unwrap(), events.last().unwrap().seq);
    // Nobody can set the version directly, not even the service.
    assert_refused!(world.service().exec("UPDATE sessions SET game_state_version = 9").await, forbidden);
    assert_refused!(game.seer.exec("UPDATE sessions SET game_state_version = 9").await, forbidden);
}

#[tokio::test]
async fn a_join_code_shows_its_session_before_the_player_joins() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let code = world.owner().value::<String>("SELECT code::text FROM sessions").await.unwrap().parse().unwrap();
    let stranger = world.sparc.as_user(world.new_account().await);
    let summary = stranger.sessions().by_code(&code).await.unwrap();
    assert_eq!((summary.id, summary.status, summary.seats_taken), (game.session, SessionStatus::Waiting, 1));
    assert_eq!(summary.adventure.unwrap().name, "The Drowned Ford");
    assert!(
        stranger.sessions().get(game.session).await.is_err(),
        "knowing the code must not give access to the whole session"
    );
    assert_refused!(world.visitor().exec("SELECT private.session_by_code('AAAAAA')").await, forbidden);
}

#[tokio::test]
async fn details_name_the_seer_to_everyone_who_sees_the_session() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let seer = world.sparc.as_user(game.seer.uuid());
    let player = world.sparc.as_user(game.players[0].person.uuid());
    let (visitor, service) = (world.sparc.as_anon(), world.sparc.as_service());
    let rename = ProfileChanges { display_name: Some("Morgan".into()), ..Default::default() };
    seer.users().edit(rename).await.unwrap();
    seer.sessions()
        .edit(game.session, SessionChanges { visibility: Some(Visibility::Public), ..Default::default() })
        .await
        .unwrap();
    for caller in [&seer, &player, &visitor, &service] {
        assert_eq!(caller.sessions().details(game.session).await.unwrap().seer_name, "Morgan", "{caller:?}");
    }
    seer.users().close_account(game.seer.uuid()).await.unwrap();
    assert_eq!(player.sessions().details(game.session).await.unwrap().seer_name, "Former player");
}

#[tokio::test]
async fn a_session_is_edited_announced_started_paused_resumed_and_completed() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let seer = world.sparc.as_user(game.seer.uuid());
    let changes = SessionChanges {
        visibility: Some(Visibility::Public),
        looking_for: Some(Some("a healer".into())),
        scheduled_start: Some("2030-01-01T19:00:00Z".parse().ok()),
        ..Default::default()
    };
    let edited = seer.sessions().edit(game.session, changes).await.unwrap();
    assert!(edited.is_public && edited.scheduled_start.is_some());
    let clear_looking_for = SessionChanges { looking_for: Some(None), ..Default::default() };
    assert_eq!(seer.sessions().edit(game.session, clear_looking_for).await.unwrap().looking_for, None);
    let unchanged = seer.sessions().edit(game.session, SessionChanges::default()).await.unwrap();
    assert!(unchanged.scheduled_start.is_some());
    let sessions = || seer.sessions();
    assert_eq!(sessions().announce(game.session).await.unwrap().status, SessionStatus::StartingSoon);
    assert_eq!(sessions().withdraw(game.session).await.unwrap().status, SessionStatus::Waiting);
    assert_fails!(sessions().resume(game.session).await, Error::IllegalTransition { .. }, "the session never began");
    let started = sessions().start(game.session).await.unwrap().started_at;
    assert_eq!(sessions().start(game.session).await.unwrap().started_at, started, "idempotent");
    assert_eq!(sessions().pause(game.session).await.unwrap().status, SessionStatus::Paused);
    assert_fails!(
        sessions().start(game.session).await,
        Error::IllegalTransition { .. },
        "a paused session is resumed, not started"
    );
    assert_eq!(sessions().resume(game.session).await.unwrap().started_at, started);
    sessions().complete(game.session).await.unwrap();
    let seer_statistics = seer.users().statistics().await.unwrap();
    assert_eq!(
        (seer_statistics.games_run, seer_statistics.adventures_played, seer_statistics.adventures_published),
        (1, 1, 1)
    );
    let player_statistics = world.sparc.as_user(game.players[0].id).users().statistics().await.unwrap();
    assert_eq!((player_statistics.games_played, player_statistics.characters), (1, 1));
}

#[tokio::test]
async fn a_characters_statistics_count_the_rolls_that_the_caller_may_see() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (ada, hero) = (&game.players[0], game.players[0].character);
    for (results, difficulty) in [("{6,6}", 10), ("{1,1}", 10), ("{3,4}", 5), ("{3,4}", 9)] {
        world.new_roll(game.session, hero, results, difficulty, 0).await;
    }
    let check = NewRoll::check(game.session, Roller::Character(hero), Attribute::Wit, Difficulty::MIN);
    let me = world.sparc.as_user(ada.id);
    me.dice().roll(check).await.unwrap();
    let statistics = me.dice().statistics(RollScope::Character(hero)).await.unwrap();
    assert_eq!(statistics.rolls, 5);
    let attacks = statistics.by_kind.iter().find(|kind| kind.kind == RollType::Attack).unwrap();
    assert_eq!((attacks.rolls, attacks.successes, attacks.critical_successes, attacks.critical_failures), (4, 2, 1, 1));
    assert!((attacks.mean_total - 7.0).abs() < 1e-9);
    assert_eq!(statistics.by_kind.iter().map(|kind| kind.rolls).sum::<i64>(), statistics.rolls);
    let stranger = world.sparc.as_user(world.new_account().await);
    let no_rolls = stranger.dice().statistics(RollScope::Session(game.session)).await.unwrap();
    assert_eq!((no_rolls.rolls, no_rolls.mean_total, no_rolls.by_kind.len()), (0, None, 0));
}

#[tokio::test]
async fn a_heroic_save_is_spent_and_restored_by_the_next_encounter() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let hero = game.players[0].character;
    let me = world.sparc.as_user(game.players[0].id);
    let saves = me.dice().heroic_saves_remaining(game.session).await.unwrap();
    assert!(saves.len() == 2 && saves.iter().all(|seat| seat.remaining == 1));
    let failed = world.new_roll(game.session, hero, "{1,2}", 10, 0).await;
    me.dice().heroic_save(failed).await.unwrap();
    let saves = me.dice().heroic_saves_remaining(game.session).await.unwrap();
    assert_eq!(saves.iter().find(|seat| seat.character_id == hero).unwrap().remaining, 0);
    world.sparc.as_user(game.seer.uuid()).sessions().set_encounter(game.session, Some("next")).await.unwrap();
    assert!(me.dice().heroic_saves_remaining(game.session).await.unwrap().iter().all(|seat| seat.remaining == 1));
}

#[tokio::test]
async fn a_player_edits_a_character_and_only_the_service_changes_its_progression() {
    let world = World::new().await;
    let id = world.new_account().await;
    let (me, service) = (world.sparc.as_user(id), world.sparc.as_service());
    let attributes = Some(Attributes::new(6, 1, 1, 1).unwrap());
    let brunhild = NewCharacter { name: "Brunhild".into(), attributes, ..Default::default() };
    let hero = me.characters().create(brunhild).await.unwrap();
    let mut rope = Item { name: "rope".into(), ..Default::default() };
    rope.extra.insert("length".into(), json!(30));
    let equipped = me.characters().set_equipment(hero.id, &[rope]).await.unwrap();
    assert_eq!(equipped.equipment, json!([{ "name": "rope", "length": 30 }]), "unknown fields must be stored");
    assert_eq!(me.characters().rename(hero.id, "Hilde").await.unwrap().name, "Hilde");
    for change in ["experience = 50", "level = 2", "max_hit_points = 10"] {
        let sql = format!("UPDATE characters SET {change} WHERE id = '{}'", hero.id);
        assert_refused!(world.user(id).exec(&sql).await, forbidden, "{change}");
    }
    assert_eq!(service.characters().award_experience(hero.id, 50).await.unwrap().experience, 50);
    assert_eq!(service.characters().award_experience(hero.id, 50).await.unwrap().experience, 100);
    let weakened = service.characters().set_max_hit_points(hero.id, 3.try_into().unwrap()).await.unwrap();
    assert_eq!((weakened.max_hit_points, weakened.hit_points), (3, 3));
    assert_eq!(service.characters().set_level(hero.id, 2.try_into().unwrap()).await.unwrap().level, 2);
    me.characters().retire(hero.id).await.unwrap();
    assert!(me.characters().list().await.unwrap().is_empty());
    assert_eq!(me.characters().retired().await.unwrap().len(), 1);
    assert!(me.characters().unretire(hero.id).await.unwrap().retired_at.is_none());
    me.characters().delete(hero.id).await.unwrap();
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let seats = world.sparc.as_user(player.id).characters().seats(player.character).await.unwrap();
    assert_eq!((seats.len(), seats[0].session_id, seats[0].is_active), (1, game.session, true));
}

#[tokio::test]
async fn a_creature_is_edited_and_deleted_and_its_rolls_stay() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let seer = world.sparc.as_user(game.seer.uuid());
    let bite = Ability { name: "Bite".into(), ..Default::default() };
    let new_wolf = NewCreature { name: "Wolf".into(), abilities: vec![bite], armor: 1, ..Default::default() };
    let wolf = seer.creatures().add(game.adventure, new_wolf).await.unwrap();
    let attack = NewRoll::attack(game.session, Roller::Creature(wolf.id), Attribute::Might, Difficulty::MIN);
    let roll = seer.dice().roll(attack).await.unwrap();
    let changes =
        CreatureChanges { hit_points: Some(12), description: Some(Some("grey".into())), ..Default::default() };
    let edited = seer.creatures().edit(wolf.id, changes).await.unwrap();
    assert_eq!((edited.hit_points, edited.armor, edited.name.as_str()), (12, 1, "Wolf"));
    assert_eq!(seer.creatures().list(game.adventure).await.unwrap(), [edited]);
    seer.creatures().remove(wolf.id).await.unwrap();
    let roll_after_removal = seer.dice().get(roll.id).await.unwrap();
    assert_eq!((roll_after_removal.creature_id, roll_after_removal.character_name.as_str()), (None, "Wolf"));
}

#[tokio::test]
async fn closing_an_account_removes_its_personal_data_and_only_its_owner_or_the_service_may_do_so() {
    let world = World::new().await;
    let service = world.sparc.as_service();
    let account =
        NewAccount { email: Some("ada@x.org".into()), display_name: Some("Ada Lovelace".into()), ..Default::default() };
    let id = service.users().sign_up(account).await.unwrap().id;
    let ada = world.sparc.as_user(id);
    let changes = ProfileChanges {
        avatar_url: Some(Some("https://x.org/ada.png".into())),
        bio: Some(Some("Counts".into())),
        ..Default::default()
    };
    ada.users().edit(changes).await.unwrap();
    assert!(service.users().set_badge(id, Badge::Verified).await.unwrap().is_verified);
    assert_eq!(service.users().by_email("ada@x.org").await.unwrap().id, id);
    assert_eq!(world.sparc.as_anon().users().by_display_name("Ada Lovelace").await.unwrap().len(), 1);
    ada.users().close_account(id).await.unwrap();
    assert_fails!(ada.users().close_account(id).await, Error::AccountClosed);
    service.users().close_account(id).await.unwrap();
    let profile = service.users().profile(id).await.unwrap();
    assert_eq!((profile.display_name.as_str(), profile.avatar_url, profile.bio), ("Former player", None, None));
    let email = format!("SELECT email FROM users WHERE id = '{id}'");
    assert_eq!(world.owner().value::<String>(&email).await, Ok(format!("{id}@deleted.invalid")));
    let accounts_with_personal_data = "auth.users WHERE raw_user_meta_data::text LIKE '%Ada%' OR email IS NOT NULL";
    assert_eq!(world.owner().count(accounts_with_personal_data).await, 0);
    assert_fails!(ada.characters().create(NewCharacter::default()).await, Error::AccountClosed);
    let other_account = world.new_account().await;
    let close_other = format!("SELECT private.close_account('{other_account}')");
    assert_refused!(world.new_user().await.exec(&close_other).await, forbidden);
    assert_refused!(world.visitor().exec(&close_other).await, forbidden);
}
