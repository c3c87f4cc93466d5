//! Concurrent calls, in most tests 2, 8 and 32 at once: limits hold and names stay unique, exactly one of several
//! conflicting changes takes effect, and several creations with the same id create one row.

use std::{collections::BTreeMap, sync::Arc};

use sea_orm::ConnectionTrait;
use sparc::{
    entity::sea_orm_active_enums::{Attribute, RollType, TutorialPath},
    service::{
        Difficulty, Error, Operations,
        characters::NewCharacter,
        dice::{NewRoll, Roller},
        sessions::{ExpectedVersion, NewSession},
        users::NewAccount,
    },
};
use uuid::Uuid;

use crate::{
    random_operations::broken_invariants,
    sqlstates::LOCK_NOT_AVAILABLE,
    world::{World, insert_heroic_save_sql, run_together},
};

/// The numbers of calls that a test makes at once: first two concurrent calls, then eight, then 32.
const CALL_COUNTS: [usize; 3] = [2, 8, 32];

/// Makes `call_count` concurrent calls, and returns how often each outcome occurred: `done`, or the code of an error.
async fn call_concurrently<T, F>(call_count: usize, call: impl Fn(usize) -> F) -> BTreeMap<&'static str, usize>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let mut outcomes = BTreeMap::new();
    for outcome in run_together((0..call_count).map(call).collect()).await {
        *outcomes.entry(outcome.map_or_else(|error| error.code(), |_| "done")).or_default() += 1;
    }
    outcomes
}

/// Returns what [`call_concurrently`] returns after `success_count` successes and `refusal_count` refusals with the
/// error code `refusal_code`.
fn expected_outcomes(
    success_count: usize,
    refusal_code: &'static str,
    refusal_count: usize,
) -> BTreeMap<&'static str, usize> {
    [("done", success_count), (refusal_code, refusal_count)].into_iter().filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn the_limits_of_characters_and_seats_hold_for_concurrent_calls() {
    let world = World::new().await;
    for call_count in CALL_COUNTS {
        // The account has nine characters and may have ten, so exactly one call must succeed.
        let account_id = world.new_account().await;
        for _ in 0..9 {
            world.new_character(account_id).await;
        }
        let player = world.sparc.as_user(account_id);
        let outcomes = call_concurrently(call_count, |number| {
            let player = player.clone();
            async move {
                let name = format!("Hero {number}");
                player.characters().create(NewCharacter { name, ..Default::default() }).await
            }
        })
        .await;
        assert_eq!(outcomes, expected_outcomes(1, "character_limit_reached", call_count - 1));

        // The session has four seats. Half of the players join by its code, and half by its id, which is enough to join
        // a public session.
        let game = world.new_session(0).await;
        world.update_session(&game, "is_public = true").await;
        let (session_id, join_code) = (game.session_id, world.join_code(game.session_id).await);
        let mut players = Vec::new();
        for _ in 0..call_count {
            let player = world.new_player().await;
            players.push((world.sparc.as_user(player.user_id), player.character_id));
        }
        let outcomes = call_concurrently(call_count, |number| {
            let ((player, hero_id), join_code) = (players[number].clone(), join_code.clone());
            async move {
                match number % 2 {
                    0 => player.sessions().join(&join_code, hero_id).await,
                    _ => player.sessions().join_by_id(session_id, hero_id).await,
                }
            }
        })
        .await;
        let seated_count = call_count.min(4);
        assert_eq!(outcomes, expected_outcomes(seated_count, "session_full", call_count - seated_count));
    }
    assert_eq!(broken_invariants(&world).await, [""; 0]);
}

#[tokio::test]
async fn exactly_one_of_several_conflicting_calls_takes_effect() {
    let world = World::new().await;
    for call_count in CALL_COUNTS {
        let game = world.new_active_session(1).await;
        let (session_id, hero_id) = (game.session_id, game.players[0].character_id);
        // A heroic save can repeat a failed roll until 30 seconds after the roll. This roll is dated a minute ahead, so
        // that the time does not run out while the calls run.
        let failed_roll_id = world.new_attack_roll(session_id, hero_id, "{1,2}", 10, -60).await;
        let player = world.sparc.as_user(game.players[0].user_id);
        let outcomes = call_concurrently(call_count, |_| {
            let player = player.clone();
            async move { player.dice().use_heroic_save(failed_roll_id).await }
        })
        .await;
        assert_eq!(outcomes["done"], 1, "{outcomes:?}");
        assert!(
            outcomes.keys().all(|code| ["done", "roll_already_saved", "heroic_save_spent"].contains(code)),
            "{outcomes:?}"
        );

        // Two characters of one account cannot have the same name.
        let outcomes =
            call_concurrently(call_count, |_| {
                let player = player.clone();
                async move {
                    player.characters().create(NewCharacter { name: "Twin".to_owned(), ..Default::default() }).await
                }
            })
            .await;
        assert_eq!(outcomes, expected_outcomes(1, "character_name_taken", call_count - 1));

        // All calls expect version 0 of the game state, so only the first can replace the state.
        let seer = world.sparc.as_user(game.seer.user_id());
        let outcomes = call_concurrently(call_count, |number| {
            let seer = seer.clone();
            async move {
                let state = serde_json::json!({ "screen": number });
                seer.sessions().set_game_state(session_id, state, ExpectedVersion::Version(0)).await
            }
        })
        .await;
        assert_eq!(outcomes, expected_outcomes(1, "game_state_changed", call_count - 1));

        // A session ends only once. A call also succeeds if the session already has the status that the call asks for.
        let outcomes = call_concurrently(call_count, |number| {
            let seer = seer.clone();
            async move {
                match number % 2 {
                    0 => seer.sessions().complete(session_id).await,
                    _ => seer.sessions().cancel(session_id).await,
                }
            }
        })
        .await;
        assert!(
            outcomes["done"] >= 1 && outcomes.keys().all(|code| ["done", "illegal_transition"].contains(code)),
            "{outcomes:?}"
        );
        let end_events = format!(
            "session_events WHERE session_id = '{session_id}' AND payload ->> 'to' IN ('completed', 'cancelled')"
        );
        assert_eq!(world.owner().count(&end_events).await, 1, "the session must end exactly once");
    }
    assert_eq!(broken_invariants(&world).await, [""; 0]);
}

#[tokio::test]
async fn concurrent_creations_with_one_id_create_one_row() {
    let world = World::new().await;
    for call_count in CALL_COUNTS {
        let game = world.new_active_session(1).await;
        let (session_id, adventure_id, hero_id) = (game.session_id, game.adventure_id, game.players[0].character_id);
        let (player, seer) = (world.sparc.as_user(game.players[0].user_id), world.sparc.as_user(game.seer.user_id()));
        let service = world.sparc.as_service();
        let id = Uuid::new_v4();
        // A creation that is repeated with the same id returns the row that the first creation created.
        let all_successes = expected_outcomes(call_count, "", 0);
        let outcomes = call_concurrently(call_count, |_| {
            let player = player.clone();
            async move {
                let roll = NewRoll::new(
                    RollType::Attack,
                    session_id,
                    Roller::Character(hero_id),
                    Attribute::Wit,
                    Difficulty::MIN,
                );
                player.dice().roll(NewRoll { id: Some(id), ..roll }).await
            }
        })
        .await;
        assert_eq!(outcomes, all_successes, "roll");
        let outcomes = call_concurrently(call_count, |_| {
            let seer = seer.clone();
            async move { seer.sessions().create(NewSession { id: Some(id), adventure_id, ..Default::default() }).await }
        })
        .await;
        assert_eq!(outcomes, all_successes, "session");
        let outcomes = call_concurrently(call_count, |_| {
            let service = service.clone();
            async move { service.users().sign_up(NewAccount { id: Some(id), ..Default::default() }).await }
        })
        .await;
        assert_eq!(outcomes, all_successes, "account");
        // Progress in the tutorial has no id of its own: each user has at most one row.
        let outcomes = call_concurrently(call_count, |_| {
            let player = player.clone();
            async move { player.tutorial().begin(TutorialPath::Player).await }
        })
        .await;
        assert_eq!(outcomes, all_successes, "tutorial");
        for created_rows in [
            format!("dice_rolls WHERE session_id = '{session_id}'"),
            format!("sessions WHERE seer_id = '{}' AND id <> '{session_id}'", game.seer.user_id()),
            format!("users WHERE id = '{id}'"),
            format!("tutorial_progress WHERE user_id = '{}'", game.players[0].user_id),
        ] {
            assert_eq!(world.owner().count(&created_rows).await, 1, "{created_rows}");
        }
    }
}

#[tokio::test]
async fn a_new_encounter_waits_for_an_uncommitted_heroic_save() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    // This trigger makes a heroic save wait for an advisory lock, after the save has locked the row of the character's
    // seat. The key 42 is arbitrary.
    world
        .owner()
        .execute(
            "CREATE FUNCTION private.wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$;
             CREATE TRIGGER wait BEFORE UPDATE OF heroic_saves_used ON session_players
             FOR EACH ROW EXECUTE FUNCTION private.wait()",
        )
        .await
        .unwrap();
    let lock_transaction = world.owner().begin().await;
    lock_transaction.execute_unprepared("SELECT pg_advisory_xact_lock(42)").await.unwrap();
    let failed_roll_id = world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
    let (caller, insert_save_sql) =
        (player.caller.clone(), insert_heroic_save_sql(game.session_id, player.character_id, failed_roll_id));
    let save_task = tokio::spawn(async move { caller.execute(&insert_save_sql).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    let begin_encounter_sql = format!(
        "SET LOCAL lock_timeout = '200ms'; UPDATE sessions SET current_encounter_id = 'ford' WHERE id = '{}'",
        game.session_id
    );
    assert_eq!(
        world.owner().execute(&begin_encounter_sql).await.unwrap_err().sqlstate,
        LOCK_NOT_AVAILABLE,
        "the new encounter must wait for the save"
    );
    lock_transaction.rollback().await.unwrap();
    assert_eq!(save_task.await.unwrap(), Ok(1));
    world.update_session(&game, "current_encounter_id = 'ford'").await;
    // The new encounter restored the heroic save that had just been used.
    assert_eq!(world.owner().count("session_players WHERE heroic_saves_used = 0").await, 1);
}

#[tokio::test]
async fn two_of_sixteen_concurrent_joins_succeed_and_fourteen_get_session_full() {
    let world = World::new().await;
    // Two of the four seats are taken.
    let game = world.new_session(2).await;
    let join_code = Arc::new(world.join_code(game.session_id).await);
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let player = world.new_player().await;
        let (me, join_code) = (world.sparc.as_user(player.user_id), join_code.clone());
        tasks.push(async move { me.sessions().join(&join_code, player.character_id).await });
    }
    let outcomes = run_together(tasks).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    assert_eq!(
        outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::SessionFull))).count(),
        14,
        "{outcomes:?}"
    );
}
