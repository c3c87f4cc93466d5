//! What the closing of an account waits for, and what waits for it. Closing an account removes its personal data. The
//! platform (Supabase) closes and deletes accounts; a user can close only their own.

use super::{
    assert_invariants, attempt, close_account_sql, close_or_delete_account_sql,
    deadlocks::insert_event_sql,
    delete_account_sql, execute_and_commit, execute_in, is_account_closed, new_private_session,
    populated_account::create_populated_account,
    sqlstates::{ACCOUNT_CLOSED, DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, SERIALIZATION_FAILURE},
};
use crate::world::{World, insert_attribute_check_sql, insert_seat_sql};

/// The insertion of an event also deletes events that are older than 24 hours. Here it deletes the event which says
/// that a player joined another session. While the inserting transaction is open, that player's account is closed or
/// deleted.
#[tokio::test]
async fn closing_does_not_wait_for_the_clean_up_of_old_events() {
    for is_deletion in [false, true] {
        let world = World::new().await;
        let game = world.new_session(1).await;
        let player = &game.players[0];
        let unrelated_game = world.new_session(0).await;
        let make_events_old = "UPDATE session_events SET created_at = now() - INTERVAL '2 days'";
        assert_eq!(world.owner().execute(make_events_old).await, Ok(1), "only the event of joining exists");
        let cleaning_transaction = unrelated_game.seer.begin().await;
        execute_in(&cleaning_transaction, &insert_event_sql(unrelated_game.session_id)).await.unwrap();
        let sql =
            format!("SET LOCAL lock_timeout = '10s'; {}", close_or_delete_account_sql(player.user_id, is_deletion));
        assert_eq!(attempt(&world.owner(), &sql).await, "done");
        cleaning_transaction.commit().await.unwrap();
        assert!(is_account_closed(&world, player.user_id).await);
        let events_with_name =
            "session_events WHERE payload ->> 'user_id' = (SELECT id::text FROM users WHERE closed_at IS NOT NULL)
                     AND payload ->> 'display_name' <> 'Former player'";
        assert_eq!(world.owner().count(events_with_name).await, 0);
        assert_invariants(&world).await;
    }
}

/// A user has a write in progress, and the closing of the user's account waits for it. Then the user makes other
/// writes. If these overtook the closing, a user who keeps writing would delay the closing for ever.
#[tokio::test]
async fn no_write_overtakes_a_closing_that_waits() {
    let world = World::new().await;
    for is_deletion in [false, true] {
        for is_repeatable_read in [false, true] {
            let fixture = create_populated_account(&world).await;
            let rename =
                format!("UPDATE adventures SET name = 'Renamed' WHERE id = '{}'", fixture.published_adventure_id);
            let first_write_transaction = fixture.caller.begin().await;
            execute_in(&first_write_transaction, &rename).await.unwrap();
            let closing_transaction = world.owner().begin().await;
            let sql = close_or_delete_account_sql(fixture.account_id, is_deletion);
            let closing_task = tokio::spawn(async move { execute_and_commit(closing_transaction, &sql).await });
            world.owner().wait_until_backends_wait_for_locks(1).await;
            let writes = [
                format!("UPDATE users SET bio = 'Here.' WHERE id = '{}'", fixture.account_id),
                format!("UPDATE characters SET equipment = '[1]' WHERE user_id = '{}'", fixture.account_id),
                format!("INSERT INTO adventures (creator_id, name) VALUES ('{}', 'A draft')", fixture.account_id),
                format!(
                    "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.x')",
                    fixture.joined_session.session_id
                ),
                insert_attribute_check_sql(fixture.joined_session.session_id, fixture.seated_character_id),
            ];
            let mut write_tasks = Vec::new();
            for write in writes {
                let transaction = match is_repeatable_read {
                    true => fixture.caller.begin_with_snapshot().await,
                    false => fixture.caller.begin().await,
                };
                write_tasks.push(tokio::spawn(async move {
                    let outcome = execute_and_commit(transaction, &write).await;
                    (outcome, write)
                }));
                // The closing is one more backend that waits.
                world.owner().wait_until_backends_wait_for_locks(1 + write_tasks.len() as i64).await;
            }
            first_write_transaction.commit().await.unwrap();
            assert_eq!(closing_task.await.unwrap(), "done");
            for write_task in write_tasks {
                let (outcome, sql) = write_task.await.unwrap();
                assert_eq!(outcome, if is_repeatable_read { SERIALIZATION_FAILURE } else { ACCOUNT_CLOSED }, "{sql}");
            }
        }
    }
    assert_invariants(&world).await;
}

/// A Seer's transaction completes a session, and so locks the session's adventure, a draft. Then the account of the
/// draft's creator is closed or deleted, which has to wait for the lock on the draft. Then the Seer's transaction
/// cancels another session, in which the creator has a seat.
#[tokio::test]
async fn closing_an_account_locks_no_session_while_it_waits_for_the_lock_on_a_draft() {
    let world = World::new().await;
    let superuser = world.superuser().await;
    for is_deletion in [false, true] {
        let game = world.new_active_session(1).await;
        let creator = world.new_account().await;
        let set_creator = format!("UPDATE adventures SET creator_id = '{creator}' WHERE id = '{}'", game.adventure_id);
        world.owner().execute(&set_creator).await.unwrap();
        let session_with_creator = new_private_session(&world, game.seer.user_id(), game.adventure_id).await;
        let character = world.new_character(creator).await;
        world.owner().execute(&insert_seat_sql(session_with_creator, creator, character)).await.unwrap();
        let unpublish = format!("UPDATE adventures SET status = 'draft' WHERE id = '{}'", game.adventure_id);
        world.owner().execute(&unpublish).await.unwrap();
        let seers_transaction = game.seer.begin().await;
        let complete = format!("UPDATE sessions SET status = 'completed' WHERE id = '{}'", game.session_id);
        execute_in(&seers_transaction, &complete).await.unwrap();
        let closing_transaction = superuser.begin().await;
        // If the closing detected a deadlock, it would just try again, and this test would not notice. With this
        // timeout, the Seer's statement, which has the default of 1 s, would detect the deadlock first, and fail.
        execute_in(&closing_transaction, "SET LOCAL deadlock_timeout = '60s'").await.unwrap();
        let sql = close_or_delete_account_sql(creator, is_deletion);
        let closing_task = tokio::spawn(async move { execute_and_commit(closing_transaction, &sql).await });
        world.owner().wait_until_backends_wait_for_locks(1).await;
        // If the closing had already locked the session with the creator's seat, or that seat, it would deadlock with
        // this transaction.
        execute_in(&seers_transaction, "SET LOCAL lock_timeout = '5s'").await.unwrap();
        let cancel = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{session_with_creator}'");
        assert_eq!(execute_and_commit(seers_transaction, &cancel).await, "done");
        assert_eq!(closing_task.await.unwrap(), "done");
    }
    assert_invariants(&world).await;
}

/// A user's transaction has written, and so holds a lock on the account's row in `private.account_gates`. Then the
/// platform deletes the account: the deletion locks the account's row in `auth.users`, and waits for the row in
/// `private.account_gates`. Then the user's transaction closes the account.
#[tokio::test]
async fn closing_ones_own_account_fails_at_once_while_a_deletion_waits_for_the_caller() {
    let world = World::new().await;
    let user = world.new_user().await;
    let writing_transaction = user.begin().await;
    execute_in(&writing_transaction, &format!("UPDATE users SET bio = 'Here.' WHERE id = '{}'", user.user_id()))
        .await
        .unwrap();
    let deletion_transaction = world.owner().begin().await;
    let sql = delete_account_sql(user.user_id());
    let deletion_task = tokio::spawn(async move { execute_and_commit(deletion_transaction, &sql).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    for _ in 0..3 {
        execute_in(&writing_transaction, "SAVEPOINT before").await.unwrap();
        let close = format!("SELECT private.close_account('{}')", user.user_id());
        assert_eq!(execute_in(&writing_transaction, &close).await.unwrap_err().sqlstate, SERIALIZATION_FAILURE);
        execute_in(&writing_transaction, "ROLLBACK TO before").await.unwrap();
    }
    // When a transaction updates a profile a second time, PostgreSQL checks the profile's foreign key again, although
    // the key stays the same. The check waits for the account's row in `auth.users`. However often that wait ends in a
    // deadlock error for this transaction, the deletion does not fail.
    for _ in 0..3 {
        execute_in(&writing_transaction, "SAVEPOINT before").await.unwrap();
        let update_bio = format!("UPDATE users SET bio = 'Still here.' WHERE id = '{}'", user.user_id());
        assert_eq!(execute_in(&writing_transaction, &update_bio).await.unwrap_err().sqlstate, DEADLOCK_DETECTED);
        execute_in(&writing_transaction, "ROLLBACK TO before").await.unwrap();
    }
    writing_transaction.commit().await.unwrap();
    assert_eq!(deletion_task.await.unwrap(), "done");
}

/// A transaction that has written holds locks for which the closing of its user's account waits. So the transaction's
/// next write must not wait for the closing.
#[tokio::test]
async fn a_transaction_that_has_written_goes_on_while_a_closing_waits_for_it() {
    let world = World::new().await;
    let fixture = create_populated_account(&world).await;
    let update_bio = format!("UPDATE users SET bio = 'Here.' WHERE id = '{}'", fixture.account_id);
    let update_characters = format!("UPDATE characters SET equipment = '[1]' WHERE user_id = '{}'", fixture.account_id);
    let writing_transaction = fixture.caller.begin().await;
    execute_in(&writing_transaction, "SET LOCAL lock_timeout = '10s'").await.unwrap();
    execute_in(&writing_transaction, &update_bio).await.unwrap();
    let closing_transaction = world.superuser().await.begin().await;
    // If there were a deadlock, the user's statement would detect it, and would fail.
    execute_in(&closing_transaction, "SET LOCAL deadlock_timeout = '60s'").await.unwrap();
    let sql = close_account_sql(fixture.account_id);
    let closing_task = tokio::spawn(async move { execute_and_commit(closing_transaction, &sql).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    execute_in(&writing_transaction, &update_characters).await.unwrap();
    assert_eq!(execute_and_commit(writing_transaction, &update_bio).await, "done");
    assert_eq!(closing_task.await.unwrap(), "done");
    assert!(is_account_closed(&world, fixture.account_id).await);
}

/// A transaction that has locked a whole table makes the closing wait. The caller's `lock_timeout` limits that wait:
/// the closing then fails with `lock_not_available`.
#[tokio::test]
async fn closing_gives_up_waiting_for_a_locked_table_at_the_callers_lock_timeout() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    for table in ["characters", "sessions", "users"] {
        let lock_holder = world.owner().begin().await;
        execute_in(&lock_holder, &format!("LOCK TABLE {table}")).await.unwrap();
        let close = format!("SET LOCAL lock_timeout = '200ms'; SELECT private.close_account('{}')", player.user_id);
        assert_eq!(attempt(&world.service(), &close).await, LOCK_NOT_AVAILABLE, "{table}");
        lock_holder.rollback().await.unwrap();
    }
    assert!(!is_account_closed(&world, player.user_id).await);
}
