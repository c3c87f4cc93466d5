//! Characters: at most ten unretired ones per account, default attributes, retirement, deletion, hit points, and who
//! may see and change which columns.

use serde_json::json;
use sparc::{
    entity::sea_orm_active_enums::{CharacterClass, SessionStatus},
    service::{
        Error, Operations,
        characters::{Attributes, Item, NewCharacter},
    },
};
use uuid::Uuid;

use crate::{
    sqlstates::{CHARACTER_LIMIT_REACHED, CHARACTER_RETIRED, CHARACTER_SEATED, CHECK_VIOLATION, FOREIGN_KEY_VIOLATION},
    world::{BoxedTask, World, insert_character_sql, insert_seat_sql, run_together},
};

#[tokio::test]
async fn one_of_eight_concurrent_inserts_of_a_tenth_character_succeeds() {
    let world = World::new().await;
    for _ in 0..100 {
        let user_id = world.new_account().await;
        let insert_nine: Vec<String> = (0..9).map(|_| insert_character_sql(Uuid::new_v4(), user_id)).collect();
        world.owner().execute(&insert_nine.join(";")).await.unwrap();
        let tasks = (0..8)
            .map(|_| {
                let caller = world.user(user_id);
                async move { caller.execute(&insert_character_sql(Uuid::new_v4(), user_id)).await }
            })
            .collect();
        let refusals: Vec<_> = run_together(tasks).await.into_iter().filter_map(Result::err).collect();
        assert_eq!(refusals.len(), 7);
        assert!(
            refusals.iter().all(|error| error.has(CHARACTER_LIMIT_REACHED, "character_limit")
                && error.message == "Character limit reached (maximum 10)"),
            "{refusals:?}"
        );
    }
}

#[tokio::test]
async fn a_character_that_is_given_away_counts_towards_the_limit_of_its_new_owner() {
    let world = World::new().await;
    let (giver, new_owner_id) = (world.new_player().await, world.new_account().await);
    for _ in 0..10 {
        world.new_character(new_owner_id).await;
    }
    let give_away = format!("UPDATE characters SET user_id = '{new_owner_id}' WHERE id = '{}'", giver.character_id);
    assert_refused!(world.service().execute(&give_away).await, CHARACTER_LIMIT_REACHED, "character_limit");
}

#[tokio::test]
async fn a_retired_character_does_not_count_towards_the_limit_until_it_is_unretired() {
    let world = World::new().await;
    let user = world.new_user().await;
    let character_id = world.new_character(user.user_id()).await;
    for _ in 0..9 {
        world.new_character(user.user_id()).await;
    }
    let set_retired_at = |value| format!("UPDATE characters SET retired_at = {value} WHERE id = '{character_id}'");
    assert_eq!(user.execute(&set_retired_at("'2000-01-01'")).await, Ok(1));
    let character_with_past_retired_at =
        format!("characters WHERE id = '{character_id}' AND retired_at < '2020-01-01'");
    assert_eq!(user.count(&character_with_past_retired_at).await, 0, "the database must set retired_at");
    user.execute(&insert_character_sql(Uuid::new_v4(), user.user_id())).await.unwrap();
    assert_refused!(user.execute(&set_retired_at("NULL")).await, CHARACTER_LIMIT_REACHED, "character_limit");
}

#[tokio::test]
async fn a_retired_character_takes_no_seat() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    // Nobody needs a join code for a seat in a public session.
    world.update_session(&game, "is_public = true").await;
    let player = world.new_player().await;
    player.caller.execute("UPDATE characters SET retired_at = now()").await.unwrap();
    assert_refused!(
        player.caller.execute(&insert_seat_sql(game.session_id, player.user_id, player.character_id)).await,
        CHARACTER_RETIRED,
        "living_character"
    );
}

#[tokio::test]
async fn a_character_seated_in_a_live_session_neither_retires_nor_changes_owner() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let other_account_id = world.new_account().await;
    let player = &game.players[0];
    assert_refused!(
        player.caller.execute("UPDATE characters SET retired_at = now()").await,
        CHARACTER_SEATED,
        "character_not_seated"
    );
    let give_away =
        format!("UPDATE characters SET user_id = '{other_account_id}' WHERE id = '{}'", player.character_id);
    assert_refused!(world.service().execute(&give_away).await, CHARACTER_SEATED, "character_not_seated");
    world.update_session(&game, "status = 'cancelled'").await;
    assert_eq!(player.caller.execute("UPDATE characters SET retired_at = now()").await, Ok(1));
}

#[tokio::test]
async fn retiring_and_taking_a_seat_concurrently_seats_no_retired_character() {
    let world = World::new().await;
    for _ in 0..20 {
        let game = world.new_session(0).await;
        world.update_session(&game, "is_public = true").await;
        let player = world.new_player().await;
        let (seat_taker, retirer) = (player.caller.clone(), player.caller.clone());
        let take_seat = insert_seat_sql(game.session_id, player.user_id, player.character_id);
        let tasks: Vec<BoxedTask<bool>> = vec![
            Box::pin(async move { seat_taker.execute(&take_seat).await.is_ok() }),
            Box::pin(async move { retirer.execute("UPDATE characters SET retired_at = now()").await.is_ok() }),
        ];
        let successes = run_together(tasks).await;
        assert_eq!(successes.iter().filter(|success| **success).count(), 1, "exactly one of the two must succeed");
    }
}

#[tokio::test]
async fn only_a_character_without_history_can_be_deleted() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.update_session(&game, "status = 'completed'").await;
    let player = &game.players[0];
    let unplayed_id = world.new_character(player.user_id).await;
    let delete = |id| format!("DELETE FROM characters WHERE id = '{id}'");
    assert_eq!(player.caller.execute(&delete(player.character_id)).await.unwrap_err().sqlstate, FOREIGN_KEY_VIOLATION);
    assert_eq!(player.caller.execute(&delete(unplayed_id)).await, Ok(1));
}

#[tokio::test]
async fn a_player_sets_only_the_granted_columns_of_a_character() {
    let world = World::new().await;
    let player = world.new_player().await;
    for change in [
        "class = 'wizard'",
        "might = 6",
        "grace = 6",
        "wit = 6",
        "heart = 6",
        "level = 10",
        "experience = 999",
        "max_hit_points = 10",
        "last_played_at = now()",
        "created_at = now()",
        "updated_at = now()",
        "user_id = gen_random_uuid()",
        "id = gen_random_uuid()",
    ] {
        assert_refused!(player.caller.execute(&format!("UPDATE characters SET {change}")).await, forbidden, "{change}");
    }
    for change in ["name = 'Renamed'", "equipment = '[]'", "special_ability = '{}'", "hit_points = 0"] {
        assert_eq!(player.caller.execute(&format!("UPDATE characters SET {change}")).await, Ok(1), "{change}");
    }
    for column in ["level", "experience", "max_hit_points", "hit_points"] {
        let sql = format!(
            "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability, {column})
             VALUES ('{}', 'Forged', 'rogue', 1, 1, 1, 1, '{{}}', 5)",
            player.user_id
        );
        assert_refused!(player.caller.execute(&sql).await, forbidden, "{column}");
    }
}

#[tokio::test]
async fn hit_points_must_be_from_0_to_the_maximum() {
    let world = World::new().await;
    let player = world.new_player().await;
    let update = |assignment: &str| format!("UPDATE characters SET {assignment}");
    // The maximum of a new character is 6.
    assert_refused!(
        player.caller.execute(&update("hit_points = 7")).await,
        CHECK_VIOLATION,
        "characters_hit_points_check"
    );
    assert_refused!(
        player.caller.execute(&update("hit_points = -1")).await,
        CHECK_VIOLATION,
        "characters_hit_points_check"
    );
    world.service().execute(&update("max_hit_points = 10")).await.unwrap();
    assert_eq!(player.caller.execute(&update("hit_points = 10")).await, Ok(1));
}

#[tokio::test]
async fn only_its_owner_sees_and_changes_a_character() {
    let world = World::new().await;
    let (player, stranger) = (world.new_player().await, world.new_user().await);
    assert_eq!(player.caller.count("characters").await, 1);
    assert_eq!(stranger.count("characters").await, 0);
    assert_eq!(stranger.execute("UPDATE characters SET name = 'Mine'").await, Ok(0));
    assert_eq!(stranger.execute("DELETE FROM characters").await, Ok(0));
    let insert_for_player = insert_character_sql(Uuid::new_v4(), player.user_id);
    assert_refused!(stranger.execute(&insert_for_player).await, forbidden);
    assert_refused!(world.visitor().execute("SELECT FROM characters").await, forbidden);
    // RETURNING needs the SELECT policy, which must already show the owner the new row.
    let insert_returning_name = format!("{} RETURNING name", insert_character_sql(Uuid::new_v4(), player.user_id));
    assert!(player.caller.fetch_value::<String>(&insert_returning_name).await.unwrap().starts_with("Hero"));
}

#[tokio::test]
async fn hit_points_stay_between_0_and_the_maximum_under_concurrent_changes() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    // The character has 6 hit points, which is the maximum of a new one.
    let hero_id = game.players[0].character_id;
    let (player, seer) = (world.sparc.as_user(game.players[0].user_id), world.sparc.as_user(game.seer.user_id()));
    assert_eq!(seer.characters().damage(hero_id, 2).await.unwrap().hit_points, 4);
    assert_eq!(player.characters().heal(hero_id, 1).await.unwrap().hit_points, 5);
    assert_eq!(player.characters().heal(hero_id, 200).await.unwrap().hit_points, 6);
    assert!(seer.characters().damage(hero_id, 255).await.unwrap().is_down());
    assert_eq!(player.characters().rest(hero_id).await.unwrap().hit_points, 6);
    let tasks = (0..9)
        .map(|_| {
            let seer = seer.clone();
            async move { seer.characters().damage(hero_id, 1).await.map(|wounded| wounded.hit_points) }
        })
        .collect();
    let mut hit_points_left: Vec<i32> = run_together(tasks).await.into_iter().map(Result::unwrap).collect();
    hit_points_left.sort_unstable();
    assert_eq!(hit_points_left, [0, 0, 0, 0, 1, 2, 3, 4, 5], "no change may be lost or lead below 0");
    let tasks = (0..9)
        .map(|_| {
            let player = player.clone();
            async move { player.characters().heal(hero_id, 1).await.map(|healed| healed.hit_points) }
        })
        .collect();
    let mut hit_points: Vec<i32> = run_together(tasks).await.into_iter().map(Result::unwrap).collect();
    hit_points.sort_unstable();
    assert_eq!(hit_points, [1, 2, 3, 4, 5, 6, 6, 6, 6], "no change may be lost or lead above the maximum");
    // A Seer may change the hit points of a character that has a seat in the Seer's own session, but only while that
    // session is active or paused.
    world.update_session(&game, "status = 'completed'").await;
    assert_error!(seer.characters().damage(hero_id, 1).await, Error::NotFound { .. });
    // The player may change the hit points at any time. Plain SQL is used here, because the service accepts no number
    // as large as this one.
    let deal_huge_damage = format!("SELECT hit_points FROM private.change_hit_points('{hero_id}', -2147483648)");
    assert_eq!(
        game.players[0].caller.fetch_value::<i32>(&deal_huge_damage).await,
        Ok(0),
        "the number must not overflow"
    );
    let stranger = world.new_user().await;
    let count_changed_characters = format!("SELECT count(*) FROM private.change_hit_points('{hero_id}', 1)");
    assert_eq!(stranger.fetch_value::<i64>(&count_changed_characters).await, Ok(0));
}

#[tokio::test]
async fn a_player_edits_a_character_and_only_the_service_changes_its_progression() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    let (me, service) = (world.sparc.as_user(user_id), world.sparc.as_service());
    let attributes = Some(Attributes::new(6, 1, 1, 1).unwrap());
    let brunhild = NewCharacter { name: "Brunhild".into(), attributes, ..Default::default() };
    let hero = me.characters().create(brunhild).await.unwrap();
    let mut rope = Item { name: "rope".into(), ..Default::default() };
    rope.extra.insert("length".into(), json!(30));
    let equipped_hero = me.characters().set_equipment(hero.id, &[rope]).await.unwrap();
    assert_eq!(equipped_hero.equipment, json!([{ "name": "rope", "length": 30 }]), "unknown fields must be stored");
    assert_eq!(me.characters().rename(hero.id, "Hilde").await.unwrap().name, "Hilde");
    for change in ["experience = 50", "level = 2", "max_hit_points = 10"] {
        let sql = format!("UPDATE characters SET {change} WHERE id = '{}'", hero.id);
        assert_refused!(world.user(user_id).execute(&sql).await, forbidden, "{change}");
    }
    assert_eq!(service.characters().award_experience(hero.id, 50).await.unwrap().experience, 50);
    assert_eq!(service.characters().award_experience(hero.id, 50).await.unwrap().experience, 100);
    let weakened_hero = service.characters().set_max_hit_points(hero.id, 3.try_into().unwrap()).await.unwrap();
    assert_eq!((weakened_hero.max_hit_points, weakened_hero.hit_points), (3, 3));
    assert_eq!(service.characters().set_level(hero.id, 2.try_into().unwrap()).await.unwrap().level, 2);
    me.characters().retire(hero.id).await.unwrap();
    assert!(me.characters().living().await.unwrap().is_empty());
    assert_eq!(me.characters().retired().await.unwrap().len(), 1);
    assert!(me.characters().unretire(hero.id).await.unwrap().retired_at.is_none());
    me.characters().delete(hero.id).await.unwrap();
}

#[tokio::test]
async fn a_player_lists_the_seats_of_a_character() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let seats = world.sparc.as_user(player.user_id).characters().seats(player.character_id).await.unwrap();
    let [seat] = seats.as_slice() else { panic!("the character must have one seat: {seats:?}") };
    assert_eq!((seat.session_id, seat.session_status, seat.is_active), (game.session_id, SessionStatus::Waiting, true));
}

#[tokio::test]
async fn a_new_character_has_the_default_attributes_of_its_class() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let hero = NewCharacter { name: "Nim".into(), class: CharacterClass::Rogue, ..Default::default() };
    let hero = ada.characters().create(hero).await.unwrap();
    assert_eq!((hero.might, hero.grace, hero.wit, hero.heart), (2, 5, 3, 2));
}
