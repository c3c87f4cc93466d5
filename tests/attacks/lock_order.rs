//! Two rules for the locks that the schema's functions take. A function whose decision must not be based on outdated
//! values of a row locks the row before it reads the values. And locks are taken so that statements neither deadlock
//! nor delay each other for ever: in a fixed order, or without waiting for one lock while another is held.
//!
//! *Closing* an account removes its personal data, gives up its seats in live sessions (those that have not ended), and
//! cancels the live sessions that it runs; the account can no longer write. The platform (Supabase) also deletes
//! accounts, which locks the same rows and some more.

use super::{
    assert_invariants, attempt, attempt_while_lock_holder_commits, close_account_sql, close_or_delete_account_sql,
    execute_and_commit, execute_in,
    populated_account::create_populated_account,
    query_number,
    sqlstates::{ACCOUNT_CLOSED, CHARACTER_RETIRED, LOCK_NOT_AVAILABLE, PLAYER_REMOVED},
};
use crate::world::{World, insert_attribute_check_sql, insert_character_sql, insert_seat_sql};

/// Another transaction has locked one of the rows that closing an account changes. While the closing waits for that
/// row, the transaction can lock all the others.
#[tokio::test]
async fn closing_holds_no_other_row_while_it_waits_for_one() {
    let world = World::new().await;
    for is_deletion in [false, true] {
        // The length of `rows` below.
        let row_count = if is_deletion { 9 } else { 8 };
        for locked_row_index in 0..row_count {
            let fixture = create_populated_account(&world).await;
            let (account, player) = (fixture.account_id, &fixture.live_session.players[0]);
            // A session of the account's that was cancelled before anybody took a seat. Closing the account does not
            // change it; deleting the account deletes it.
            let seatless_session = super::new_private_session(&world, account, fixture.published_adventure_id).await;
            let cancel = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{seatless_session}'");
            world.owner().execute(&cancel).await.unwrap();
            let insert_draft = format!("INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'A draft')");
            world.owner().execute(&insert_draft).await.unwrap();
            let mut rows = vec![
                format!(
                    "session_players WHERE session_id = '{}' AND user_id = '{account}'",
                    fixture.joined_session.session_id
                ),
                format!("sessions WHERE id = '{}'", fixture.joined_session.session_id),
                format!("sessions WHERE id = '{}'", fixture.live_session.session_id),
                format!("characters WHERE id = '{}'", fixture.seated_character_id),
                format!("characters WHERE id = '{}'", player.character_id),
                format!("users WHERE id = '{account}'"),
                format!("users WHERE id = '{}'", player.user_id),
                format!("adventures WHERE creator_id = '{account}' AND status = 'draft'"),
            ];
            if is_deletion {
                rows.push(format!("sessions WHERE id = '{seatless_session}'"));
            }
            assert_eq!(rows.len(), row_count);
            let lock_holder = world.owner().begin().await;
            let lock_sql = |row: &str| format!("SELECT FROM {row} FOR UPDATE NOWAIT");
            assert_eq!(execute_in(&lock_holder, &lock_sql(&rows[locked_row_index])).await, Ok(1));
            let closing_transaction = world.owner().begin().await;
            let sql = close_or_delete_account_sql(account, is_deletion);
            let closing_task = tokio::spawn(async move { execute_and_commit(closing_transaction, &sql).await });
            world.owner().wait_until_backends_wait_for_locks(1).await;
            for row in &rows {
                let outcome = execute_in(&lock_holder, &lock_sql(row)).await;
                assert_eq!(outcome, Ok(1), "deletion: {is_deletion}, waits for {}: {row}", rows[locked_row_index]);
            }
            lock_holder.rollback().await.unwrap();
            assert_eq!(closing_task.await.unwrap(), "done");
        }
    }
    assert_invariants(&world).await;
}

/// A change of an account's e-mail address waits at most a second for a transaction in which another account gives up
/// the new address. It waits without limit for a transaction that has locked the account's own profile, for example by
/// inserting a row that refers to the profile.
#[tokio::test]
async fn a_change_of_email_address_waits_as_long_as_the_profile_is_locked() {
    let world = World::new().await;
    let user = world.new_user().await;
    let lock_holder = world.service().begin().await;
    let lock = format!("SELECT FROM users WHERE id = '{}' FOR KEY SHARE", user.user_id());
    assert_eq!(execute_in(&lock_holder, &lock).await, Ok(1));
    let updating_transaction = world.owner().begin().await;
    let change = format!("UPDATE auth.users SET email = 'moved@example.org' WHERE id = '{}'", user.user_id());
    let change_task = tokio::spawn(async move { execute_and_commit(updating_transaction, &change).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    // For the address, the change would wait one second at most. This sleep is longer.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    lock_holder.rollback().await.unwrap();
    assert_eq!(change_task.await.unwrap(), "done");
    let profile_with_new_address = format!("users WHERE id = '{}' AND email = 'moved@example.org'", user.user_id());
    assert_eq!(world.owner().count(&profile_with_new_address).await, 1);
}

/// A player's transaction retires their character. Before it commits, the service inserts a seat with the character.
#[tokio::test]
async fn inserting_a_seat_waits_for_an_uncommitted_change_of_its_character() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let player = world.new_player().await;
    let retiring_transaction = player.caller.begin().await;
    let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", player.character_id);
    assert_eq!(execute_in(&retiring_transaction, &retire).await, Ok(1));
    let sql = insert_seat_sql(game.session_id, player.user_id, player.character_id);
    assert_eq!(
        attempt_while_lock_holder_commits(&world, &world.service(), sql, retiring_transaction).await,
        CHARACTER_RETIRED
    );
}

/// The Seer removes a player, who enters the join code again before the removal is committed.
#[tokio::test]
async fn joining_by_code_waits_for_the_change_of_the_players_seat() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let removing_transaction = game.seer.begin().await;
    let remove = format!("UPDATE session_players SET is_active = false WHERE session_id = '{}'", game.session_id);
    assert_eq!(execute_in(&removing_transaction, &remove).await, Ok(1));
    let join_code: String = world
        .owner()
        .fetch_value(&format!("SELECT code::text FROM sessions WHERE id = '{}'", game.session_id))
        .await
        .unwrap();
    let join = format!("SELECT * FROM private.join_by_code('{join_code}', '{}')", player.character_id);
    assert_eq!(
        attempt_while_lock_holder_commits(&world, &player.caller, join, removing_transaction).await,
        PLAYER_REMOVED
    );
}

/// A stranger has created a session of a published adventure, in a transaction that is not yet committed. Meanwhile the
/// account of the adventure's creator is deleted.
#[tokio::test]
async fn a_new_session_of_an_adventure_does_not_delay_deleting_the_account_of_the_adventures_creator() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let adventure = world.new_adventure(creator.user_id()).await;
    let creating_transaction = world.new_user().await.begin().await;
    let insert_session = format!("INSERT INTO sessions (adventure_id) VALUES ('{adventure}')");
    assert_eq!(execute_in(&creating_transaction, &insert_session).await, Ok(1));
    let deletion_transaction = world.owner().begin().await;
    execute_in(&deletion_transaction, "SET LOCAL statement_timeout = '10s'").await.unwrap();
    let delete = format!("DELETE FROM auth.users WHERE id = '{}'", creator.user_id());
    assert_eq!(execute_and_commit(deletion_transaction, &delete).await, "done");
    creating_transaction.commit().await.unwrap();
    // The deletion keeps adventures that another transaction has locked, as the foreign key of the new session did.
    assert_eq!(query_number(&world, &format!("SELECT count(*) FROM adventures WHERE id = '{adventure}'")).await, 1);
    assert_invariants(&world).await;
}

/// The service seats a player whose account is being closed. The statement waits for the closing before it locks the
/// session, which is somebody else's.
#[tokio::test]
async fn the_service_waits_for_a_closing_before_it_locks_the_session() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let player = world.new_player().await;
    let closing_transaction = world.owner().begin().await;
    execute_in(&closing_transaction, &close_account_sql(player.user_id)).await.unwrap();
    let (service, insert_seat) =
        (world.service(), insert_seat_sql(game.session_id, player.user_id, player.character_id));
    let seating_task = tokio::spawn(async move { attempt(&service, &insert_seat).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    let lock = format!("SELECT FROM sessions WHERE id = '{}' FOR UPDATE NOWAIT", game.session_id);
    assert_eq!(attempt(&world.owner(), &lock).await, "done");
    closing_transaction.commit().await.unwrap();
    assert_eq!(seating_task.await.unwrap(), ACCOUNT_CLOSED);
    assert_invariants(&world).await;
}

/// The service inserts a row for an account that is being closed. The INSERT waits for the account's profile, which the
/// closing has locked. Then the INSERT is refused, because it would increase a counter of a closed account.
#[tokio::test]
async fn the_service_adds_nothing_to_an_account_that_is_being_closed() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let account = world.new_account().await;
    let closing_transaction = world.owner().begin().await;
    execute_in(&closing_transaction, &close_account_sql(account)).await.unwrap();
    let inserts = [
        insert_character_sql(uuid::Uuid::new_v4(), account),
        format!("INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'A draft')"),
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{account}', '{}')", game.adventure_id),
    ];
    let mut insert_tasks = Vec::new();
    for insert in inserts {
        let service = world.service();
        insert_tasks.push(tokio::spawn(async move { (attempt(&service, &insert).await, insert) }));
        world.owner().wait_until_backends_wait_for_locks(insert_tasks.len() as i64).await;
    }
    closing_transaction.commit().await.unwrap();
    for insert_task in insert_tasks {
        let (outcome, insert) = insert_task.await.unwrap();
        assert_eq!(outcome, ACCOUNT_CLOSED, "{insert}");
    }
    assert_invariants(&world).await;
}

/// The INSERT of an event waits for the transaction that inserted the session's previous event. So a reader that has
/// seen an event has missed no earlier event of the session.
#[tokio::test]
async fn an_event_of_the_service_waits_for_the_one_before_it() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let insert =
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'weather')", game.session_id);
    let first_transaction = world.service().begin().await;
    assert_eq!(execute_in(&first_transaction, &insert).await, Ok(1));
    assert_eq!(attempt_while_lock_holder_commits(&world, &world.service(), insert, first_transaction).await, "done");
}

/// The owner of the tables deletes a live session while somebody holds a lock on a row that the deletion changes.
#[tokio::test]
async fn the_deletion_of_a_live_session_fails_at_once_if_it_would_wait() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    for locked_row in [
        format!("session_players WHERE user_id = '{}'", player.user_id),
        format!("characters WHERE id = '{}'", player.character_id),
        format!("users WHERE id = '{}'", player.user_id),
        format!("users WHERE id = '{}'", game.seer.user_id()),
    ] {
        let lock_holder = world.owner().begin().await;
        assert_eq!(execute_in(&lock_holder, &format!("SELECT FROM {locked_row} FOR NO KEY UPDATE")).await, Ok(1));
        let deletion_transaction = world.owner().begin().await;
        execute_in(&deletion_transaction, "SET LOCAL statement_timeout = '10s'").await.unwrap();
        let delete = format!("DELETE FROM sessions WHERE id = '{}'", game.session_id);
        assert_eq!(execute_and_commit(deletion_transaction, &delete).await, LOCK_NOT_AVAILABLE, "{locked_row}");
        lock_holder.rollback().await.unwrap();
    }
    assert_invariants(&world).await;
}

/// The owner of the tables exchanges two rows between two users, in two concurrent statements. Each statement changes
/// the counters of both profiles.
#[tokio::test]
async fn exchanging_sessions_adventures_or_characters_between_two_users_does_not_deadlock() {
    for (table, owner_column) in [("sessions", "seer_id"), ("adventures", "creator_id"), ("characters", "user_id")] {
        let world = World::new().await;
        let games = [world.new_session(0).await, world.new_session(0).await];
        let mut users = [games[0].seer.user_id(), games[1].seer.user_id()];
        users.sort();
        for user in users {
            world.new_draft_adventure(user).await;
            world.owner().execute(&insert_character_sql(uuid::Uuid::new_v4(), user)).await.unwrap();
        }
        // Profiles are locked in the order of their ids.
        let [low_user, high_user] = users;
        // This lock makes both statements wait, so that they run at the same time.
        let lock_holder = world.owner().begin().await;
        let lock = format!("SELECT FROM users WHERE id = '{high_user}' FOR NO KEY UPDATE");
        assert_eq!(execute_in(&lock_holder, &lock).await, Ok(1));
        let mut change_tasks = Vec::new();
        for (expected_waiters, old_user, new_user) in [(1, high_user, low_user), (2, low_user, high_user)] {
            let owner = world.owner();
            let sql = format!(
                "UPDATE {table} SET {owner_column} = '{new_user}'
                 WHERE id = (SELECT id FROM {table} WHERE {owner_column} = '{old_user}' ORDER BY id LIMIT 1)"
            );
            change_tasks.push(tokio::spawn(async move { attempt(&owner, &sql).await }));
            world.owner().wait_until_backends_wait_for_locks(expected_waiters).await;
        }
        lock_holder.rollback().await.unwrap();
        for change_task in change_tasks {
            assert_eq!(change_task.await.unwrap(), "done", "{table}");
        }
        assert_invariants(&world).await;
    }
}

/// One job archives ended sessions, and another cancels abandoned ones. For each session, a job must lock some rows. If
/// somebody else has locked one of these rows, the job skips the session without waiting. If the job waited for each
/// such session until its `lock_timeout` of 200 ms, the waits would add up.
#[tokio::test]
async fn jobs_skip_a_session_with_a_locked_row_without_waiting() {
    let world = World::new().await;
    for job in ["archive_sessions", "cancel_abandoned_sessions"] {
        let game = world.new_session(0).await;
        let (owner, player) = (world.owner(), world.new_player().await);
        let insert_creature =
            format!("INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf')", game.adventure_id);
        owner.execute(&insert_creature).await.unwrap();
        for _ in 0..15 {
            let session = super::new_private_session(&world, game.seer.user_id(), game.adventure_id).await;
            owner.execute(&insert_seat_sql(session, player.user_id, player.character_id)).await.unwrap();
            let where_session = format!("WHERE id = '{session}'");
            owner.execute(&format!("UPDATE sessions SET status = 'active' {where_session}")).await.unwrap();
            owner.execute(&insert_attribute_check_sql(session, player.character_id)).await.unwrap();
            let insert_roll = format!(
                "INSERT INTO dice_rolls (session_id, creature_id, attribute, difficulty, roll_type)
                 SELECT '{session}', id, 'might', 10, 'attack' FROM creatures WHERE adventure_id = '{}'",
                game.adventure_id
            );
            owner.execute(&insert_roll).await.unwrap();
            if job == "archive_sessions" {
                owner.execute(&format!("UPDATE sessions SET status = 'completed' {where_session}")).await.unwrap();
                owner
                    .execute(&format!("UPDATE sessions SET ended_at = now() - INTERVAL '91 days' {where_session}"))
                    .await
                    .unwrap();
            } else {
                let assignments_of_abandoned_session =
                    "last_event_at = now() - INTERVAL '40 days', started_at = now() - INTERVAL '40 days'";
                owner
                    .execute(&format!("UPDATE sessions SET {assignments_of_abandoned_session} {where_session}"))
                    .await
                    .unwrap();
            }
        }
        // Rows that the job must lock for the fifteen sessions.
        let mut needed_rows = vec![
            format!("sessions WHERE seer_id = '{}'", game.seer.user_id()),
            format!("users WHERE id = '{}'", game.seer.user_id()),
            format!("users WHERE id = '{}'", player.user_id),
            format!("characters WHERE id = '{}'", player.character_id),
        ];
        if job == "archive_sessions" {
            needed_rows.push(format!("session_players WHERE user_id = '{}'", player.user_id));
            needed_rows.push(format!("adventures WHERE id = '{}'", game.adventure_id));
            needed_rows.push(format!("creatures WHERE adventure_id = '{}'", game.adventure_id));
        }
        for locked_rows in needed_rows {
            let lock_holder = owner.begin().await;
            execute_in(&lock_holder, &format!("SELECT FROM {locked_rows} FOR UPDATE")).await.unwrap();
            let job_transaction = world.service().begin().await;
            // Fifteen waits of 200 ms would take three seconds.
            execute_in(&job_transaction, "SET LOCAL statement_timeout = '2500ms'").await.unwrap();
            let run_job = format!("CREATE TEMP TABLE job_result AS SELECT private.{job}(100) AS session_count");
            execute_in(&job_transaction, &run_job).await.unwrap();
            // This DELETE finds the row of `job_result` if the job has processed no session.
            let matching_rows = execute_in(&job_transaction, "DELETE FROM job_result WHERE session_count = 0").await;
            assert_eq!(matching_rows, Ok(1), "{job}: {locked_rows}");
            job_transaction.rollback().await.unwrap();
            lock_holder.rollback().await.unwrap();
        }
        assert_eq!(world.service().fetch_value::<i32>(&format!("SELECT private.{job}(100)")).await, Ok(15), "{job}");
    }
    assert_invariants(&world).await;
}

/// Somebody is deleting an ended session in which the account that is being closed has a seat.
#[tokio::test]
async fn closing_ones_own_account_does_not_wait_for_the_deletion_of_an_ended_session() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.update_session(&game, "status = 'completed'").await;
    let player = &game.players[0];
    // This is the lock that a deletion takes.
    let lock_holder = world.owner().begin().await;
    let lock = format!("SELECT FROM sessions WHERE id = '{}' FOR UPDATE", game.session_id);
    assert_eq!(execute_in(&lock_holder, &lock).await, Ok(1));
    let closing_transaction = player.caller.begin().await;
    execute_in(&closing_transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
    assert_eq!(
        execute_and_commit(closing_transaction, &format!("SELECT private.close_account('{}')", player.user_id)).await,
        "done"
    );
    lock_holder.rollback().await.unwrap();
    assert_invariants(&world).await;
}

/// Deleting an adventure deletes its ended sessions without players. Here the session that the deletion finds first is
/// free, and the other one is locked.
#[tokio::test]
async fn the_deletion_of_an_adventure_holds_no_session_while_it_waits_for_another() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let adventure = world.new_adventure(creator.user_id()).await;
    let [high_id, low_id] = ["f0000000-0000-4000-8000-000000000000", "10000000-0000-4000-8000-000000000000"];
    for id in [high_id, low_id] {
        let insert = format!(
            "INSERT INTO sessions (id, seer_id, adventure_id, status)
             VALUES ('{id}', '{}', '{adventure}', 'cancelled')",
            creator.user_id()
        );
        world.owner().execute(&insert).await.unwrap();
    }
    let lock_sql = |id: &str| format!("SELECT FROM sessions WHERE id = '{id}' FOR UPDATE NOWAIT");
    let lock_holder = world.owner().begin().await;
    assert_eq!(execute_in(&lock_holder, &lock_sql(low_id)).await, Ok(1));
    // Without index scans, the deletion finds the sessions in the order in which they are stored.
    let deletion_transaction = world.owner().begin().await;
    execute_in(&deletion_transaction, "SET LOCAL enable_indexscan = off").await.unwrap();
    let delete = format!("DELETE FROM adventures WHERE id = '{adventure}'");
    let deletion_task = tokio::spawn(async move { execute_and_commit(deletion_transaction, &delete).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    assert_eq!(
        execute_in(&lock_holder, &lock_sql(high_id)).await,
        Ok(1),
        "while the deletion waits for one session, it must not hold the other"
    );
    lock_holder.rollback().await.unwrap();
    assert_eq!(deletion_task.await.unwrap(), "done");
}
