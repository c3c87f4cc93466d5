//! Heroic saves: who may repeat a failed roll, when, and how often, even in concurrent requests.

use sparc::service::{Error, Operations};
use uuid::Uuid;

use crate::{
    sqlstates::{HEROIC_SAVE_SPENT, ROLL_NOT_SAVEABLE, UNIQUE_VIOLATION},
    world::{
        BoxedTask, SqlError, World, insert_attribute_check_sql, insert_heroic_save_sql, row_as_json, run_together,
    },
};

#[tokio::test]
async fn a_heroic_save_repeats_a_failed_roll_with_the_same_parameters() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let failed = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 18, 0).await;
    player.caller.execute(&insert_heroic_save_sql(game.session_id, player.character_id, failed)).await.unwrap();
    let save = row_as_json(
        &world.owner(),
        "SELECT difficulty, dice_count, original_roll_id FROM dice_rolls WHERE roll_type = 'heroic_save'",
    )
    .await;
    // The INSERT of the save says difficulty 10, but the original roll's 18 applies. The number of dice is the
    // character's might; of the original roll, the test has set the two results itself.
    assert_eq!((save["difficulty"].as_i64(), save["dice_count"].as_i64()), (Some(18), Some(5)));
    assert_eq!(save["original_roll_id"], failed.to_string());
    assert_eq!(world.owner().count("session_players WHERE heroic_saves_used = 1").await, 1);
}

#[tokio::test]
async fn a_heroic_save_is_refused_if_unneeded_late_repeated_or_of_another_players_roll() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let [player, other_player] = &game.players[..] else { panic!("two players are seated") };
    let save = |original| insert_heroic_save_sql(game.session_id, player.character_id, original);
    let successful = world.new_attack_roll(game.session_id, player.character_id, "{6,5}", 10, 0).await;
    assert_refused!(player.caller.execute(&save(successful)).await, "SP012", "heroic_save_after_failure");
    let old = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 31).await;
    assert_refused!(player.caller.execute(&save(old)).await, "SP013", "heroic_save_in_time");
    let others_roll = world.new_attack_roll(game.session_id, other_player.character_id, "{1,2}", 10, 0).await;
    assert_refused!(player.caller.execute(&save(others_roll)).await, ROLL_NOT_SAVEABLE, "heroic_save_of_own_roll");
    let failed = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
    assert_eq!(player.caller.execute(&save(failed)).await, Ok(1));
    // In a new encounter, the player has a heroic save again.
    world.update_session(&game, "current_encounter_id = 'next'").await;
    assert_refused!(
        player.caller.execute(&save(failed)).await,
        UNIQUE_VIOLATION,
        "idx_dice_rolls_original",
        "a roll must be saved only once"
    );
    let save_id: Uuid =
        world.owner().fetch_value("SELECT id FROM dice_rolls WHERE roll_type = 'heroic_save'").await.unwrap();
    assert_refused!(
        player.caller.execute(&save(save_id)).await,
        ROLL_NOT_SAVEABLE,
        "heroic_save_of_own_roll",
        "a heroic save must not be saved itself"
    );
}

#[tokio::test]
async fn each_seat_has_one_heroic_save_per_encounter() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    for encounter in ["wolves", "bridge", "wolves"] {
        world.update_session(&game, &format!("current_encounter_id = '{encounter}'")).await;
        assert_eq!(world.owner().count("session_players WHERE heroic_saves_used = 0").await, 1);
        let first = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
        let second = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
        assert_eq!(
            player.caller.execute(&insert_heroic_save_sql(game.session_id, player.character_id, first)).await,
            Ok(1),
            "{encounter}"
        );
        assert_refused!(
            player.caller.execute(&insert_heroic_save_sql(game.session_id, player.character_id, second)).await,
            HEROIC_SAVE_SPENT,
            "heroic_save_once_an_encounter"
        );
    }
}

#[tokio::test]
async fn of_four_concurrent_heroic_saves_one_succeeds() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    for round in 0..20 {
        world.update_session(&game, &format!("current_encounter_id = 'round {round}'")).await;
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let failed = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
            let (person, sql) =
                (player.caller.clone(), insert_heroic_save_sql(game.session_id, player.character_id, failed));
            tasks.push(async move { person.execute(&sql).await });
        }
        let outcomes = run_together(tasks).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    }
}

#[tokio::test]
async fn leaving_rolling_saving_and_new_encounters_do_not_deadlock() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    for round in 0..100 {
        // No seat has a save left until the new encounter restores it.
        world.owner().execute("UPDATE session_players SET heroic_saves_used = 1").await.unwrap();
        let mut tasks: Vec<BoxedTask<Result<u64, SqlError>>> = Vec::new();
        for player in &game.players {
            // The players leave in even rounds and rejoin in odd ones.
            let is_active = round % 2 == 1;
            let failed = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
            for (person, sql) in [
                (
                    &player.caller,
                    format!("UPDATE session_players SET is_active = {is_active} WHERE user_id = '{}'", player.user_id),
                ),
                (&player.caller, insert_heroic_save_sql(game.session_id, player.character_id, failed)),
                (&game.seer, insert_attribute_check_sql(game.session_id, player.character_id)),
            ] {
                let person = person.clone();
                tasks.push(Box::pin(async move { person.execute(&sql).await }));
            }
        }
        let seer = game.seer.clone();
        let sql =
            format!("UPDATE sessions SET current_encounter_id = 'round {round}' WHERE id = '{}'", game.session_id);
        tasks.push(Box::pin(async move { seer.execute(&sql).await }));
        for outcome in run_together(tasks).await {
            // Only two refusals are expected: of a roll for a player who has just left, and of a save that runs before
            // the new encounter (`SP011`).
            let is_allowed = outcome
                .as_ref()
                .map_or_else(|refused| refused.is_forbidden() || refused.code == HEROIC_SAVE_SPENT, |_| true);
            assert!(is_allowed, "round {round}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn each_refusal_of_a_heroic_save_has_its_own_error() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let me = world.sparc.as_user(player.user_id);
    let successful = world.new_attack_roll(game.session_id, player.character_id, "{6}", 10, 0).await;
    assert_error!(me.dice().heroic_save(successful).await, Error::HeroicSaveNotNeeded);
    let old = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 40).await;
    assert_error!(me.dice().heroic_save(old).await, Error::HeroicSaveTooLate);
    let failed = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
    let another_failed = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
    assert_eq!(me.dice().heroic_save(failed).await.unwrap().original_roll_id, Some(failed));
    assert_error!(me.dice().heroic_save(failed).await, Error::RollAlreadySaved);
    assert_error!(me.dice().heroic_save(another_failed).await, Error::HeroicSaveSpent);
    assert_error!(me.dice().heroic_save(Uuid::new_v4()).await, Error::NotFound { what: "roll" });
}

#[tokio::test]
async fn a_heroic_save_is_spent_and_restored_by_the_next_encounter() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let hero_id = game.players[0].character_id;
    let me = world.sparc.as_user(game.players[0].user_id);
    let saves = me.dice().heroic_saves_remaining(game.session_id).await.unwrap();
    assert!(saves.len() == 2 && saves.iter().all(|seat| seat.remaining == 1));
    let failed = world.new_attack_roll(game.session_id, hero_id, "{1,2}", 10, 0).await;
    me.dice().heroic_save(failed).await.unwrap();
    let saves = me.dice().heroic_saves_remaining(game.session_id).await.unwrap();
    assert_eq!(saves.iter().find(|seat| seat.character_id == hero_id).unwrap().remaining, 0);
    world.sparc.as_user(game.seer.user_id()).sessions().set_encounter(game.session_id, Some("next")).await.unwrap();
    assert!(me.dice().heroic_saves_remaining(game.session_id).await.unwrap().iter().all(|seat| seat.remaining == 1));
}
