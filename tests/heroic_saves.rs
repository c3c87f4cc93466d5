//! Heroic saves: who may repeat a failed roll, when, and how often, even in concurrent requests.

use sparc::service::{Error, Operations};
use uuid::Uuid;

use crate::{
    sqlstates::{HEROIC_SAVE_NOT_NEEDED, HEROIC_SAVE_SPENT, HEROIC_SAVE_TOO_LATE, ROLL_NOT_SAVEABLE, UNIQUE_VIOLATION},
    world::{
        BoxedTask, SqlError, World, fetch_row_as_json, insert_attribute_check_sql, insert_heroic_save_sql, run_together,
    },
};

#[tokio::test]
async fn a_heroic_save_has_the_difficulty_of_the_failed_roll_and_the_dice_of_the_character() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let failed_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 18, 0).await;
    player.caller.execute(&insert_heroic_save_sql(game.session_id, player.character_id, failed_roll_id)).await.unwrap();
    let save = fetch_row_as_json(
        &world.owner(),
        "SELECT difficulty, dice_count, original_roll_id FROM dice_rolls WHERE roll_type = 'heroic_save'",
    )
    .await;
    // The INSERT in `insert_heroic_save_sql` says difficulty 10, but the original roll's 18 applies. The save rolls as
    // many dice as the character has might (5). The original roll has two only because the test has set its results.
    assert_eq!((save["difficulty"].as_i64(), save["dice_count"].as_i64()), (Some(18), Some(5)));
    assert_eq!(save["original_roll_id"], failed_roll_id.to_string());
    assert_eq!(world.owner().count("session_players WHERE heroic_saves_used = 1").await, 1);
}

#[tokio::test]
async fn a_heroic_save_of_an_initiative_roll_has_one_die_like_that_roll() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let insert_initiative = format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, results)
         VALUES ('{}', '{}', 'might', 3, 'initiative', '{{2}}') RETURNING id",
        game.session_id, player.character_id
    );
    let failed_roll_id: Uuid = world.owner().fetch_value(&insert_initiative).await.unwrap();
    player.caller.execute(&insert_heroic_save_sql(game.session_id, player.character_id, failed_roll_id)).await.unwrap();
    assert_eq!(world.owner().count("dice_rolls WHERE roll_type = 'heroic_save' AND dice_count = 1").await, 1);
}

#[tokio::test]
async fn a_heroic_save_is_refused_if_not_needed_or_too_late_or_repeated_or_for_another_players_roll() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let [player, other_player] = &game.players[..] else { panic!("two players are seated") };
    let insert_save = |original| insert_heroic_save_sql(game.session_id, player.character_id, original);
    let successful_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{6,5}", 10, 0).await;
    assert_refused!(
        player.caller.execute(&insert_save(successful_roll_id)).await,
        HEROIC_SAVE_NOT_NEEDED,
        "heroic_save_after_failure"
    );
    // A heroic save is possible within 30 seconds after the roll.
    let old_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 31).await;
    assert_refused!(
        player.caller.execute(&insert_save(old_roll_id)).await,
        HEROIC_SAVE_TOO_LATE,
        "heroic_save_in_time"
    );
    let other_players_roll_id = world.new_attack_roll(game.session_id, other_player.character_id, "{1,2}", 10, 0).await;
    assert_refused!(
        player.caller.execute(&insert_save(other_players_roll_id)).await,
        ROLL_NOT_SAVEABLE,
        "heroic_save_of_saveable_roll"
    );
    let failed_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
    assert_eq!(player.caller.execute(&insert_save(failed_roll_id)).await, Ok(1));
    // In a new encounter, the player has a heroic save again, so the next two refusals are about the rolls.
    world.update_session(&game, "current_encounter_id = 'next'").await;
    assert_refused!(
        player.caller.execute(&insert_save(failed_roll_id)).await,
        UNIQUE_VIOLATION,
        "idx_dice_rolls_original",
        "a roll must be saved only once"
    );
    let save_id: Uuid =
        world.owner().fetch_value("SELECT id FROM dice_rolls WHERE roll_type = 'heroic_save'").await.unwrap();
    assert_refused!(
        player.caller.execute(&insert_save(save_id)).await,
        ROLL_NOT_SAVEABLE,
        "heroic_save_of_saveable_roll",
        "a heroic save must not be saved itself"
    );
}

#[tokio::test]
async fn each_seat_has_one_heroic_save_per_encounter() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    // The third encounter is a new one, although its id was used before.
    for encounter in ["wolves", "bridge", "wolves"] {
        world.update_session(&game, &format!("current_encounter_id = '{encounter}'")).await;
        assert_eq!(world.owner().count("session_players WHERE heroic_saves_used = 0").await, 1);
        let first_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
        let second_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
        assert_eq!(
            player.caller.execute(&insert_heroic_save_sql(game.session_id, player.character_id, first_roll_id)).await,
            Ok(1),
            "{encounter}"
        );
        assert_refused!(
            player.caller.execute(&insert_heroic_save_sql(game.session_id, player.character_id, second_roll_id)).await,
            HEROIC_SAVE_SPENT,
            "heroic_save_once_an_encounter"
        );
    }
}

#[tokio::test]
async fn one_of_four_concurrent_heroic_saves_succeeds() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    for round in 0..20 {
        world.update_session(&game, &format!("current_encounter_id = 'round {round}'")).await;
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let failed_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
            let (caller, insert_save) =
                (player.caller.clone(), insert_heroic_save_sql(game.session_id, player.character_id, failed_roll_id));
            tasks.push(async move { caller.execute(&insert_save).await });
        }
        let outcomes = run_together(tasks).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    }
}

#[tokio::test]
async fn concurrent_leaves_rolls_heroic_saves_and_new_encounters_do_not_deadlock() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    for round in 0..100 {
        // Every seat has a used save, so the new encounter writes each seat whose row no other transaction has locked.
        world.owner().execute("UPDATE session_players SET heroic_saves_used = 1").await.unwrap();
        let mut tasks: Vec<BoxedTask<Result<u64, SqlError>>> = Vec::new();
        for player in &game.players {
            // The players leave in even rounds and rejoin in odd ones.
            let rejoins = round % 2 == 1;
            let failed_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
            for (caller, sql) in [
                (
                    &player.caller,
                    format!("UPDATE session_players SET is_active = {rejoins} WHERE user_id = '{}'", player.user_id),
                ),
                (&player.caller, insert_heroic_save_sql(game.session_id, player.character_id, failed_roll_id)),
                (&game.seer, insert_attribute_check_sql(game.session_id, player.character_id)),
            ] {
                let caller = caller.clone();
                tasks.push(Box::pin(async move { caller.execute(&sql).await }));
            }
        }
        let seer = game.seer.clone();
        let begin_encounter =
            format!("UPDATE sessions SET current_encounter_id = 'round {round}' WHERE id = '{}'", game.session_id);
        tasks.push(Box::pin(async move { seer.execute(&begin_encounter).await }));
        for outcome in run_together(tasks).await {
            // A refusal may have two reasons: the player does not hold the seat at the moment, or its save is used.
            let is_allowed = outcome.as_ref().map_or_else(
                |refusal| refusal.is_insufficient_privilege() || refusal.sqlstate == HEROIC_SAVE_SPENT,
                |_| true,
            );
            assert!(is_allowed, "round {round}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn refusals_of_a_heroic_save_have_errors_of_their_own() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let me = world.sparc.as_user(player.user_id);
    let successful_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{6}", 10, 0).await;
    assert_error!(me.dice().use_heroic_save(successful_roll_id).await, Error::HeroicSaveNotNeeded);
    let old_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 40).await;
    assert_error!(me.dice().use_heroic_save(old_roll_id).await, Error::HeroicSaveTooLate);
    let failed_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
    let another_failed_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
    assert_eq!(me.dice().use_heroic_save(failed_roll_id).await.unwrap().original_roll_id, Some(failed_roll_id));
    assert_error!(me.dice().use_heroic_save(failed_roll_id).await, Error::RollAlreadySaved);
    assert_error!(me.dice().use_heroic_save(another_failed_roll_id).await, Error::HeroicSaveSpent);
    assert_error!(me.dice().use_heroic_save(Uuid::new_v4()).await, Error::NotFound { what: "roll" });
}

#[tokio::test]
async fn a_spent_heroic_save_is_restored_by_the_next_encounter() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let hero_id = game.players[0].character_id;
    let me = world.sparc.as_user(game.players[0].user_id);
    let seats = me.dice().heroic_saves_remaining(game.session_id).await.unwrap();
    assert!(seats.len() == 2 && seats.iter().all(|seat| seat.remaining == 1));
    let failed_roll_id = world.new_attack_roll(game.session_id, hero_id, "{1,2}", 10, 0).await;
    me.dice().use_heroic_save(failed_roll_id).await.unwrap();
    let seats = me.dice().heroic_saves_remaining(game.session_id).await.unwrap();
    assert_eq!(seats.iter().find(|seat| seat.character_id == hero_id).unwrap().remaining, 0);
    world.sparc.as_user(game.seer.user_id()).sessions().set_encounter(game.session_id, Some("next")).await.unwrap();
    let seats = me.dice().heroic_saves_remaining(game.session_id).await.unwrap();
    assert!(seats.len() == 2 && seats.iter().all(|seat| seat.remaining == 1));
}

#[tokio::test]
async fn a_removed_player_learns_nothing_of_the_next_encounter_and_has_a_save_again_when_readmitted() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let player = &game.players[0];
    let (me, seer) = (world.sparc.as_user(player.user_id), world.sparc.as_user(game.seer.user_id()));
    let failed_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
    me.dice().use_heroic_save(failed_roll_id).await.unwrap();
    seer.sessions().remove_player(game.session_id, player.user_id).await.unwrap();
    // `xmin`, the transaction that wrote the row last, shows whether the next encounter writes the player's seat.
    let select_own_seat = "SELECT heroic_saves_used || ' ' || xmin::text FROM session_players";
    let seat_before: String = player.caller.fetch_value(select_own_seat).await.unwrap();
    seer.sessions().set_encounter(game.session_id, Some("next")).await.unwrap();
    assert_eq!(player.caller.fetch_value::<String>(select_own_seat).await.unwrap(), seat_before);
    seer.sessions().readmit(game.session_id, player.user_id).await.unwrap();
    me.sessions().rejoin(game.session_id, player.character_id).await.unwrap();
    let seats = me.dice().heroic_saves_remaining(game.session_id).await.unwrap();
    assert!(seats.len() == 2 && seats.iter().all(|seat| seat.remaining == 1));
}

/// The service may insert heroic saves that were made earlier, with their results and times.
#[tokio::test]
async fn a_recorded_heroic_save_was_made_within_thirty_seconds_after_its_roll() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let character_id = game.players[0].character_id;
    let failed_roll_id = world.new_attack_roll(game.session_id, character_id, "{1,2}", 10, 100).await;
    let record_save_sql = |seconds_ago: i32| {
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, original_roll_id,
               results, created_at)
             VALUES ('{}', '{character_id}', 'might', 10, 'heroic_save', '{failed_roll_id}', '{{6,6}}',
               now() - INTERVAL '{seconds_ago} seconds')",
            game.session_id
        )
    };
    // Before the roll, and more than thirty seconds after it.
    for seconds_ago in [130, 60] {
        let outcome = world.service().execute(&record_save_sql(seconds_ago)).await;
        assert_refused!(outcome, HEROIC_SAVE_TOO_LATE, "heroic_save_in_time", "{seconds_ago}");
    }
    assert_eq!(world.service().execute(&record_save_sql(90)).await, Ok(1));
}
