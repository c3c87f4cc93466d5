//! The archive, and the job that archives ended sessions. The id of an archived session or roll cannot be used again.

use sea_orm::IsolationLevel;
use sparc::{
    entity::sea_orm_active_enums::Attribute,
    service::{
        Difficulty, Error, Operations,
        dice::{NewRoll, Roller},
        sessions::NewSession,
    },
};
use uuid::Uuid;

use super::{
    assert_invariants, attempt, dry_run, execute_and_commit, execute_in,
    sqlstates::{SESSION_OVER, SESSION_STARTED, UNIQUE_VIOLATION},
};
use crate::world::{GameSession, SqlCaller, SqlError, World, insert_attribute_check_sql};

/// Ends a session and moves its end into the past. Sessions are archived 90 days after their end.
pub(super) async fn end_session(world: &World, game: &GameSession, status: &str, days_ago: u32) {
    world.update_session(game, &format!("status = '{status}'")).await;
    world.update_session(game, &format!("ended_at = now() - INTERVAL '{days_ago} days'")).await;
}

/// Archives one batch of at most `batch_size` sessions, and returns how many were archived.
pub(super) async fn archive_batch(world: &World, batch_size: i32) -> i32 {
    world.service().fetch_value(&format!("SELECT private.archive_sessions({batch_size})")).await.unwrap()
}

pub(super) async fn is_archived(world: &World, session: Uuid) -> bool {
    world.owner().count(&format!("archived_sessions WHERE id = '{session}'")).await == 1
}

/// Creates an archived session, and returns it and the id of its roll.
pub(super) async fn create_archived_session(world: &World) -> (GameSession, Uuid) {
    let game = world.new_active_session(1).await;
    let roll = world.new_attack_roll(game.session_id, game.players[0].character_id, "{1,2,3,4,5}", 10, 0).await;
    end_session(world, &game, "completed", 91).await;
    assert_eq!(archive_batch(world, 10).await, 1);
    (game, roll)
}

/// Asserts that the error for an archived session's id does not differ from that for the id of another existing row,
/// except in DETAIL: the unique index reports the key there to the service and the owner (not to users, because of row
/// security), and the trigger for archived ids reports nothing.
fn assert_same_error(error: SqlError, expected: SqlError, caller: &SqlCaller) {
    let without_detail = |error: SqlError| SqlError { detail: String::new(), ..error };
    if caller.id.is_some() {
        assert_eq!(error, expected);
    } else {
        assert_eq!(without_detail(error), without_detail(expected));
    }
}

#[tokio::test]
async fn reusing_the_id_of_an_archived_session_is_refused_as_a_duplicate_key() {
    let world = World::new().await;
    let (archived_game, _) = create_archived_session(&world).await;
    let live_game = world.new_session(0).await;
    let stranger = world.new_user().await;
    for caller in [&archived_game.seer, &stranger, &archived_game.players[0].caller, &world.service(), &world.owner()] {
        // The service and the owner, who have no user id, insert the stranger as the Seer.
        let seer = caller.id.unwrap_or(stranger.user_id());
        let insert_sql = |id: Uuid| {
            format!(
                "INSERT INTO sessions (id, seer_id, adventure_id) VALUES ('{id}', '{seer}', '{}')",
                archived_game.adventure_id
            )
        };
        let duplicate_key_error = caller.execute(&insert_sql(live_game.session_id)).await.unwrap_err();
        assert!(duplicate_key_error.has(UNIQUE_VIOLATION, "sessions_pkey"), "{duplicate_key_error:?}");
        let error_of_archived_id = caller.execute(&insert_sql(archived_game.session_id)).await.unwrap_err();
        assert_same_error(error_of_archived_id, duplicate_key_error, caller);
        let insert_skipping_conflicts = format!("{} ON CONFLICT DO NOTHING", insert_sql(archived_game.session_id));
        assert_eq!(attempt(caller, &insert_skipping_conflicts).await, UNIQUE_VIOLATION);
        let insert_two_rows = format!(
            "INSERT INTO sessions (id, seer_id, adventure_id)
             SELECT id, '{seer}', '{}' FROM unnest('{{{}, {}}}'::uuid[]) AS wanted (id)",
            archived_game.adventure_id,
            Uuid::new_v4(),
            archived_game.session_id
        );
        assert_eq!(attempt(caller, &insert_two_rows).await, UNIQUE_VIOLATION);
    }
    let session_with_reused_id = NewSession {
        id: Some(archived_game.session_id),
        adventure_id: archived_game.adventure_id,
        ..NewSession::default()
    };
    let outcome = world.sparc.as_user(archived_game.seer.user_id()).sessions().create(session_with_reused_id).await;
    assert_error!(outcome, Error::IdConflict { what: "session" });
    assert_invariants(&world).await;
}

#[tokio::test]
async fn reusing_the_id_of_an_archived_roll_is_refused_as_a_duplicate_key() {
    let world = World::new().await;
    let (archived_game, archived_roll) = create_archived_session(&world).await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let live_roll = world.new_attack_roll(game.session_id, player.character_id, "{1,2,3,4,5}", 10, 0).await;
    for caller in [&player.caller, &game.seer, &world.service(), &world.owner()] {
        let insert_sql = |id: Uuid| {
            format!(
                "INSERT INTO dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type)
                 VALUES ('{id}', '{}', '{}', 'might', 10, 'attack')",
                game.session_id, player.character_id
            )
        };
        let duplicate_key_error = caller.execute(&insert_sql(live_roll)).await.unwrap_err();
        assert!(duplicate_key_error.has(UNIQUE_VIOLATION, "dice_rolls_pkey"), "{duplicate_key_error:?}");
        let error_of_archived_id = caller.execute(&insert_sql(archived_roll)).await.unwrap_err();
        assert_same_error(error_of_archived_id, duplicate_key_error, caller);
        assert_eq!(
            attempt(caller, &format!("{} ON CONFLICT DO NOTHING", insert_sql(archived_roll))).await,
            UNIQUE_VIOLATION
        );
        // A roll may have the id of an archived session.
        assert_eq!(dry_run(caller, &insert_sql(archived_game.session_id)).await, "done");
    }
    let roller = Roller::Character(player.character_id);
    let attack = NewRoll::attack(game.session_id, roller, Attribute::Might, Difficulty::MIN);
    let roll_with_reused_id = NewRoll { id: Some(archived_roll), ..attack };
    let outcome = world.sparc.as_user(player.user_id).dice().roll(roll_with_reused_id).await;
    assert_error!(outcome, Error::IdConflict { what: "roll" });
    assert_invariants(&world).await;
}

#[tokio::test]
async fn reusing_the_id_of_an_archived_row_is_refused_in_an_older_snapshot_too() {
    let world = World::new().await;
    let (ended_game, live_game) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let player = &live_game.players[0];
    let archived_roll =
        world.new_attack_roll(ended_game.session_id, ended_game.players[0].character_id, "{1,2,3,4,5}", 10, 0).await;
    // Both sessions get the same Seer. If the ended session were another Seer's, its id would be refused for another
    // reason: in the snapshot it is still the id of a session that the caller does not run.
    world.update_session(&ended_game, &format!("seer_id = '{}'", live_game.seer.user_id())).await;
    end_session(&world, &ended_game, "completed", 91).await;
    let insert_session_sql = |id: Uuid| {
        format!(
            "INSERT INTO sessions (id, seer_id, adventure_id) VALUES ('{id}', '{}', '{}')",
            live_game.seer.user_id(),
            live_game.adventure_id
        )
    };
    let insert_roll_sql = |id: Uuid| {
        format!(
            "INSERT INTO dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type)
             VALUES ('{id}', '{}', '{}', 'might', 10, 'attack')",
            live_game.session_id, player.character_id
        )
    };
    let (mut inserts_with_archived_id, mut inserts_with_new_id) = (Vec::new(), Vec::new());
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        for (caller, sql_with_archived_id, sql_with_new_id) in [
            (&live_game.seer, insert_session_sql(ended_game.session_id), insert_session_sql(Uuid::new_v4())),
            (&player.caller, insert_roll_sql(archived_roll), insert_roll_sql(Uuid::new_v4())),
        ] {
            for (list, sql) in
                [(&mut inserts_with_archived_id, sql_with_archived_id), (&mut inserts_with_new_id, sql_with_new_id)]
            {
                let transaction = caller.begin_and_take_snapshot(level).await;
                list.push((transaction, sql, level));
            }
        }
    }
    assert_eq!(archive_batch(&world, 10).await, 1);
    for (transaction, sql, level) in inserts_with_archived_id {
        assert_eq!(execute_and_commit(transaction, &sql).await, UNIQUE_VIOLATION, "{level}: {sql}");
    }
    for (transaction, sql, level) in inserts_with_new_id {
        assert_eq!(execute_in(&transaction, &sql).await, Ok(1), "{level}: {sql}");
        transaction.rollback().await.unwrap();
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_session_with_a_removal_in_progress_is_archived_later() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let (removed_player, other_player) = (&game.players[0], &game.players[1]);
    let both_leave = format!("UPDATE session_players SET is_active = false WHERE session_id = '{}'", game.session_id);
    world.owner().execute(&both_leave).await.unwrap();
    // After the end of a session, its Seer can still remove a player who had left before the end.
    end_session(&world, &game, "completed", 91).await;
    let removal_transaction = game.seer.begin().await;
    let sql = format!(
        "UPDATE session_players SET removed_at = now() WHERE session_id = '{}' AND user_id = '{}'",
        game.session_id, removed_player.user_id
    );
    assert_eq!(execute_in(&removal_transaction, &sql).await, Ok(1));
    assert_eq!(archive_batch(&world, 10).await, 0, "the session is skipped");
    removal_transaction.commit().await.unwrap();
    assert_eq!(archive_batch(&world, 10).await, 1);
    assert_eq!(world.owner().count("archived_session_players WHERE removed_at IS NOT NULL").await, 1);
    let archived_session = format!("archived_sessions WHERE id = '{}'", game.session_id);
    // A removed player may no longer see the session, unlike a player who left.
    for (player, visible_count) in [(removed_player, 0), (other_player, 1)] {
        assert_eq!(player.caller.count(&archived_session).await, visible_count);
    }
}

#[tokio::test]
async fn changing_an_active_seat_of_an_ended_session_is_refused_without_waiting_for_the_session() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.update_session(&game, "status = 'completed'").await;
    // This is the lock that archiving takes on the session. If a change of a seat waited for it, the change would hold
    // the lock of the seat meanwhile, so archiving would find the seat locked and skip the session.
    let session_lock_holder = world.owner().begin().await;
    execute_in(&session_lock_holder, &format!("SELECT FROM sessions WHERE id = '{}' FOR UPDATE", game.session_id))
        .await
        .unwrap();
    let player = &game.players[0];
    for (caller, set) in [(&player.caller, "is_active = false"), (&game.seer, "removed_at = now()")] {
        let transaction = caller.begin().await;
        execute_in(&transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
        let sql = format!("UPDATE session_players SET {set} WHERE session_id = '{}'", game.session_id);
        assert_refused!(execute_in(&transaction, &sql).await, SESSION_OVER, "session_not_ended", "{set}");
    }
}

#[tokio::test]
async fn joining_by_code_after_the_start_or_the_end_is_refused_without_locking_the_session() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let stranger = world.new_player().await;
    let join_code: String = world
        .owner()
        .fetch_value(&format!("SELECT code::text FROM sessions WHERE id = '{}'", game.session_id))
        .await
        .unwrap();
    let join = format!("SELECT * FROM private.join_by_code('{join_code}', '{}')", stranger.character_id);
    for (status, sqlstate, constraint) in [
        ("active", SESSION_STARTED, "session_not_started"),
        ("paused", SESSION_STARTED, "session_not_started"),
        ("completed", SESSION_OVER, "session_not_ended"),
    ] {
        if status != "active" {
            world.update_session(&game, &format!("status = '{status}'")).await;
        }
        let lock_holder = world.owner().begin().await;
        execute_in(&lock_holder, &format!("SELECT FROM sessions WHERE id = '{}' FOR UPDATE", game.session_id))
            .await
            .unwrap();
        let joining_transaction = stranger.caller.begin().await;
        execute_in(&joining_transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
        assert_refused!(execute_in(&joining_transaction, &join).await, sqlstate, constraint, "{status}");
    }
}

#[tokio::test]
async fn a_session_with_a_roll_of_an_account_that_no_longer_exists_is_archived() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let former_seer = game.seer.user_id();
    game.seer.execute(&insert_attribute_check_sql(game.session_id, game.players[0].character_id)).await.unwrap();
    // The session and its adventure are handed to another user, so only the roll and its event still name the former
    // Seer.
    let new_seer = world.new_user().await.user_id();
    world.update_session(&game, &format!("seer_id = '{new_seer}'")).await;
    let owner = world.owner();
    owner
        .execute(&format!("UPDATE adventures SET creator_id = '{new_seer}' WHERE id = '{}'", game.adventure_id))
        .await
        .unwrap();
    owner.execute(&format!("DELETE FROM auth.users WHERE id = '{former_seer}'")).await.unwrap();
    assert_eq!(owner.count(&format!("users WHERE id = '{former_seer}'")).await, 0);
    assert_eq!(owner.count(&format!("dice_rolls WHERE rolled_by = '{former_seer}'")).await, 1);
    end_session(&world, &game, "completed", 91).await;
    assert_eq!(archive_batch(&world, 10).await, 1);
    assert!(is_archived(&world, game.session_id).await);
    assert_invariants(&world).await;
}
