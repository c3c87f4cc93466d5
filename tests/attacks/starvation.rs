//! An account may keep or renew some locks for as long as it likes. These locks make nobody wait for ever: neither
//! other users, nor those who close an account (its personal data is removed) or delete it. Also: one user's statement
//! does not do much of the work that other users' statements left behind.

use super::{
    assert_invariants, attempt, close_account_sql, close_or_delete_account_sql, execute_and_commit, execute_in,
    new_public_session,
    populated_account::create_populated_account,
    sqlstates::{CHARACTER_NOT_YOURS, LOCK_NOT_AVAILABLE, ROLL_NOT_SAVEABLE},
};
use crate::world::{World, insert_attribute_check_sql, insert_heroic_save_sql, insert_seat_sql};

/// PostgreSQL grants a shared lock although somebody waits for an exclusive one. So overlapping transactions with
/// shared locks could make an exclusive lock wait for ever.
#[tokio::test]
async fn no_two_transactions_of_an_account_hold_shared_locks_at_once() {
    let world = World::new().await;
    let fixture = create_populated_account(&world).await;
    let lock_own_rows = [
        format!("SELECT FROM users WHERE id = '{}' FOR SHARE", fixture.account_id),
        format!("SELECT FROM characters WHERE id = '{}' FOR SHARE", fixture.seated_character_id),
        format!("SELECT FROM adventures WHERE id = '{}' FOR SHARE", fixture.published_adventure_id),
        format!("SELECT FROM creatures WHERE id = '{}' FOR SHARE", fixture.creature_id),
        format!("SELECT FROM sessions WHERE id = '{}' FOR SHARE", fixture.live_session.session_id),
        format!("SELECT FROM session_players WHERE session_id = '{}' FOR SHARE", fixture.live_session.session_id),
        format!("SELECT FROM session_players WHERE user_id = '{}' FOR SHARE", fixture.account_id),
        format!("SELECT FROM tutorial_progress WHERE user_id = '{}' FOR SHARE", fixture.account_id),
    ];
    // The foreign keys of inserted rows take shared locks as well. (The loop over lock modes changes nothing in these.)
    let inserts = [
        insert_attribute_check_sql(fixture.joined_session.session_id, fixture.seated_character_id),
        format!(
            "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.x')",
            fixture.joined_session.session_id
        ),
        format!("INSERT INTO sessions (adventure_id) VALUES ('{}')", fixture.published_adventure_id),
        insert_seat_sql(fixture.public_session_id, fixture.account_id, fixture.seated_character_id),
    ];
    for sql in lock_own_rows.iter().chain(&inserts) {
        for lock_mode in ["FOR SHARE", "FOR KEY SHARE"] {
            let sql = sql.replace("FOR SHARE", lock_mode);
            // Each statement also locks the account's row in `private.account_gates` exclusively. The second
            // transaction waits for that lock.
            let (first_transaction, second_transaction) = (fixture.caller.begin().await, fixture.caller.begin().await);
            assert!(execute_in(&first_transaction, &sql).await.is_ok(), "{sql}");
            execute_in(&second_transaction, "SET LOCAL lock_timeout = '100ms'").await.unwrap();
            let refusal = execute_in(&second_transaction, &lock_own_rows[0]).await.unwrap_err();
            assert_eq!(refusal.sqlstate, LOCK_NOT_AVAILABLE, "{sql}");
            second_transaction.rollback().await.unwrap();
            first_transaction.rollback().await.unwrap();
        }
    }
}

/// A player keeps their character and profile locked, by one transaction after another on two connections. Meanwhile
/// the Seer ends the session, or the Seer's account is closed.
#[tokio::test]
async fn a_session_ends_and_an_account_closes_while_a_player_keeps_locking_rows() {
    let world = World::new().await;
    for is_closing in [false, true] {
        let game = world.new_active_session(1).await;
        let player = &game.players[0];
        let lock_rows = format!(
            "SELECT pg_sleep(0.1) FROM (SELECT FROM characters WHERE id = '{}' FOR SHARE) AS character,
                    (SELECT FROM users WHERE id = '{}' FOR SHARE) AS profile",
            player.character_id, player.user_id
        );
        let should_stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let locking_tasks: Vec<_> = (0..2)
            .map(|_| {
                let (locker, lock_rows, should_stop) = (player.caller.clone(), lock_rows.clone(), should_stop.clone());
                tokio::spawn(async move {
                    while !should_stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let transaction = locker.begin().await;
                        execute_in(&transaction, &lock_rows).await.unwrap();
                        transaction.commit().await.unwrap();
                    }
                })
            })
            .collect();
        // From now on, one of the two tasks always waits for the other.
        world.owner().wait_until_backends_wait_for_locks(1).await;
        let (caller, end_session_or_close_account) = match is_closing {
            false => (
                game.seer.clone(),
                format!("UPDATE sessions SET status = 'completed' WHERE id = '{}'", game.session_id),
            ),
            true => (world.owner(), close_account_sql(game.seer.user_id())),
        };
        let transaction = caller.begin().await;
        execute_in(&transaction, "SET LOCAL statement_timeout = '20s'").await.unwrap();
        assert_eq!(execute_and_commit(transaction, &end_session_or_close_account).await, "done");
        should_stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for locking_task in locking_tasks {
            locking_task.await.unwrap();
        }
    }
    assert_invariants(&world).await;
}

/// A participant keeps their own seat, character or profile locked. The jobs that archive ended sessions and cancel
/// abandoned ones skip the participant's session if they need the locked row, and process the others.
#[tokio::test]
async fn a_lock_of_a_participant_does_not_stop_maintenance() {
    let world = World::new().await;
    for job in ["archive_sessions", "cancel_abandoned_sessions"] {
        let mut games = Vec::new();
        for _ in 0..5 {
            let game = world.new_active_session(1).await;
            // A session is archived 90 days after its end, and counts as abandoned after a month without events.
            if job == "archive_sessions" {
                world.update_session(&game, "status = 'completed'").await;
                world.update_session(&game, "ended_at = now() - INTERVAL '91 days'").await;
            } else {
                let assignments_of_abandoned_session =
                    "last_event_at = now() - INTERVAL '40 days', started_at = now() - INTERVAL '40 days'";
                world.update_session(&game, assignments_of_abandoned_session).await;
            }
            games.push(game);
        }
        // The participant who keeps a row locked, in one of the five sessions.
        let player = &games[2].players[0];
        for lock_row in [
            format!("SELECT FROM session_players WHERE user_id = '{}' FOR UPDATE", player.user_id),
            format!("SELECT FROM characters WHERE id = '{}' FOR UPDATE", player.character_id),
            format!("SELECT FROM users WHERE id = '{}' FOR UPDATE", player.user_id),
        ] {
            let lock_holder = player.caller.begin().await;
            execute_in(&lock_holder, &lock_row).await.unwrap();
            let job_transaction = world.service().begin().await;
            execute_in(&job_transaction, "SET LOCAL statement_timeout = '20s'").await.unwrap();
            execute_in(&job_transaction, &format!("SELECT private.{job}(100)")).await.unwrap();
            // This counts the sessions that the job has skipped. A session that the job has cancelled ended just now,
            // and one that the job has archived is no longer in the table.
            let count_skipped_sessions =
                "SELECT count(*)::text FROM sessions WHERE status = 'active' OR ended_at < now() - INTERVAL '1 day'";
            let row = sea_orm::ConnectionTrait::query_one_raw(
                &job_transaction,
                sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, count_skipped_sessions),
            )
            .await
            .unwrap()
            .unwrap();
            let skipped_count: String = row.try_get_by_index(0).unwrap();
            job_transaction.rollback().await.unwrap();
            lock_holder.rollback().await.unwrap();
            // Cancelling a session changes no seat, so the job cancels a session in spite of a locked seat.
            let is_skipped = job == "archive_sessions" || !lock_row.contains("session_players");
            assert_eq!(skipped_count, if is_skipped { "1" } else { "0" }, "{job}: {lock_row}");
        }
        assert_eq!(world.service().fetch_value::<i32>(&format!("SELECT private.{job}(100)")).await, Ok(5), "{job}");
    }
    assert_invariants(&world).await;
}

/// An account that is to be closed or deleted has an adventure, and a stranger has created a session with it. The
/// session has ended, and nobody but the stranger took part in it. The stranger locks the session, or their own seat in
/// it.
#[tokio::test]
async fn a_lock_in_an_ended_session_with_only_one_participant_does_not_delay_a_closing() {
    let world = World::new().await;
    for is_deletion in [false, true] {
        for (locked_table, user_column) in [("session_players", "user_id"), ("sessions", "seer_id")] {
            let creator = world.new_user().await;
            let adventure = world.new_adventure(creator.user_id()).await;
            let stranger = world.new_player().await;
            let session = new_public_session(&world, stranger.user_id, adventure).await;
            assert_eq!(
                attempt(&stranger.caller, &insert_seat_sql(session, stranger.user_id, stranger.character_id)).await,
                "done"
            );
            let cancel = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{session}'");
            assert_eq!(attempt(&stranger.caller, &cancel).await, "done");
            // Closing an account does not touch its published adventures. It deletes drafts like this one, but only if
            // nobody else has locked the draft's sessions or seats.
            let unpublish = format!("UPDATE adventures SET status = 'draft' WHERE id = '{adventure}'");
            assert_eq!(attempt(&creator, &unpublish).await, "done");
            let lock_holder = stranger.caller.begin().await;
            let lock_row =
                format!("SELECT FROM {locked_table} WHERE {user_column} = '{}' FOR UPDATE", stranger.user_id);
            assert_eq!(execute_in(&lock_holder, &lock_row).await, Ok(1));
            let closing_transaction = world.owner().begin().await;
            execute_in(&closing_transaction, "SET LOCAL statement_timeout = '5s'").await.unwrap();
            let sql = close_or_delete_account_sql(creator.user_id(), is_deletion);
            assert_eq!(execute_and_commit(closing_transaction, &sql).await, "done", "{locked_table}");
            lock_holder.rollback().await.unwrap();
        }
    }
    assert_invariants(&world).await;
}

/// Each statement that inserts events also deletes a batch of events that are older than 24 hours (the *clean-up*). The
/// clean-up reads at most twice as many events as it may delete, the oldest ones, and skips those that another
/// transaction has locked.
#[tokio::test]
async fn a_clean_up_reads_no_more_than_twice_its_batch() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let insert = format!(
        "INSERT INTO session_events (session_id, event_type, created_at)
         SELECT '{}', 'client.old', now() - INTERVAL '2 days' + nth * INTERVAL '1 second'
         FROM generate_series(1, 60) AS nth",
        game.session_id
    );
    // The insert must not delete the old events itself.
    let disable_clean_up = "ALTER TABLE session_events DISABLE TRIGGER cleanup_events_trigger";
    world.owner().execute(disable_clean_up).await.unwrap();
    world.owner().execute(&insert).await.unwrap();
    let lock_oldest_events = |count: u32| {
        format!(
            "SELECT FROM session_events WHERE event_type = 'client.old' ORDER BY created_at LIMIT {count} FOR UPDATE"
        )
    };
    // A batch of ten reads the twenty oldest events, and deletes up to ten of those that are not locked.
    for (locked_count, deleted_count) in [(0, 10), (10, 10), (15, 5), (20, 0), (40, 0)] {
        let lock_holder = world.owner().begin().await;
        execute_in(&lock_holder, &lock_oldest_events(locked_count)).await.unwrap();
        let cleaning_transaction = world.owner().begin().await;
        execute_in(
            &cleaning_transaction,
            "CREATE TEMP TABLE cleaned ON COMMIT DROP AS SELECT private.delete_old_events(10) AS deleted",
        )
        .await
        .unwrap();
        // This finds the row if the clean-up has deleted the expected number of events.
        let matching_rows =
            execute_in(&cleaning_transaction, &format!("DELETE FROM cleaned WHERE deleted = {deleted_count}")).await;
        assert_eq!(matching_rows, Ok(1), "with {locked_count} events locked");
        cleaning_transaction.rollback().await.unwrap();
        lock_holder.rollback().await.unwrap();
    }
}

/// A unique index allows one heroic save per roll. If a fellow player could insert a save of another player's roll, and
/// kept the transaction of this insert open, the other player's own save would wait until the thirty seconds in which a
/// roll can be saved are over.
#[tokio::test]
async fn a_fellow_player_does_not_delay_a_heroic_save() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let failed_roll = world.new_attack_roll(game.session_id, game.players[0].character_id, "{1,2}", 10, 0).await;
    // If the fellow player's save were inserted, its RETURNING would wait for this lock, and the statement would be
    // refused with another SQLSTATE after `lock_timeout`. The key is arbitrary.
    let advisory_lock_holder = world.owner().begin().await;
    execute_in(&advisory_lock_holder, "SELECT pg_advisory_xact_lock(4711)").await.unwrap();
    let fellow_player = &game.players[1];
    let fellow_players_transaction = fellow_player.caller.begin().await;
    let create_wait_function = "CREATE FUNCTION pg_temp.wait() RETURNS text LANGUAGE plpgsql
                AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN 'waited'; END $$";
    execute_in(&fellow_players_transaction, create_wait_function).await.unwrap();
    execute_in(&fellow_players_transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
    let sql = format!(
        "{} RETURNING pg_temp.wait()",
        insert_heroic_save_sql(game.session_id, fellow_player.character_id, failed_roll)
    );
    assert_eq!(execute_in(&fellow_players_transaction, &sql).await.unwrap_err().sqlstate, ROLL_NOT_SAVEABLE);
    // The refusal has aborted the fellow player's transaction, so it holds no locks.
    let save = insert_heroic_save_sql(game.session_id, game.players[0].character_id, failed_roll);
    assert_eq!(attempt(&game.players[0].caller, &save).await, "done");
    assert_invariants(&world).await;
}

/// The foreign key of a new seat locks the character. If a seat with a victim's character were not refused before that,
/// the statement would keep the character locked while it waits for the session, which an accomplice, the Seer, keeps
/// locked.
#[tokio::test]
async fn a_seat_with_another_users_character_is_refused_without_waiting() {
    let world = World::new().await;
    let (game, stranger, victim) = (world.new_session(0).await, world.new_player().await, world.new_player().await);
    world.update_session(&game, "is_public = true").await;
    let accomplices_transaction = game.seer.begin().await;
    let lock_session = format!("UPDATE sessions SET looking_for = 'x' WHERE id = '{}'", game.session_id);
    execute_in(&accomplices_transaction, &lock_session).await.unwrap();
    let strangers_transaction = stranger.caller.begin().await;
    execute_in(&strangers_transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
    let take_seat = insert_seat_sql(game.session_id, stranger.user_id, victim.character_id);
    assert_eq!(execute_in(&strangers_transaction, &take_seat).await.unwrap_err().sqlstate, CHARACTER_NOT_YOURS);
    accomplices_transaction.rollback().await.unwrap();
}

/// A transaction that closes an account gives up the account's e-mail address, and may stay open. A sign-up with that
/// address waits for a second. The new account then gets the address that is made of its own id instead.
#[tokio::test]
async fn a_sign_up_waits_only_briefly_for_an_address_that_is_being_given_up() {
    let world = World::new().await;
    let (closing_account, new_account) = (world.new_account().await, uuid::Uuid::new_v4());
    let address = format!("(SELECT email FROM users WHERE id = '{closing_account}')");
    let closing_transaction = world.user(closing_account).begin().await;
    execute_in(&closing_transaction, &format!("SELECT private.close_account('{closing_account}')")).await.unwrap();
    let sign_up_transaction = world.owner().begin().await;
    execute_in(&sign_up_transaction, "SET LOCAL statement_timeout = '20s'").await.unwrap();
    // Until the closing is committed, the account's row in `auth.users` still has the address, and Supabase accepts a
    // second account with it only from single sign-on. So this test calls the function that a sign-up calls.
    let create_or_reopen_profile =
        format!("SELECT private.create_or_reopen_profile('{new_account}', {address}, '{{}}')");
    let create_account_without_profile =
        format!("INSERT INTO auth.users (id) VALUES ('{new_account}'); DELETE FROM users WHERE id = '{new_account}'");
    execute_in(&sign_up_transaction, &create_account_without_profile).await.unwrap();
    assert_eq!(execute_and_commit(sign_up_transaction, &create_or_reopen_profile).await, "done");
    closing_transaction.commit().await.unwrap();
    let stored_address: String =
        world.owner().fetch_value(&format!("SELECT email FROM users WHERE id = '{new_account}'")).await.unwrap();
    assert_eq!(stored_address, format!("{new_account}@no-email.invalid"));
}

/// A migration or an operator's CREATE INDEX may lock the table of profiles for longer than the second that a sign-up
/// waits for an e-mail address. The sign-up must then wait for the table, and the new account must get its address.
#[tokio::test]
async fn a_sign_up_waits_while_the_table_of_profiles_is_locked() {
    let world = World::new().await;
    let table_lock_holder = world.owner().begin().await;
    execute_in(&table_lock_holder, "LOCK TABLE users IN SHARE MODE").await.unwrap();
    let account = uuid::Uuid::new_v4();
    let sign_up_transaction = world.owner().begin().await;
    let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{account}', '{account}@example.com')");
    let sign_up_task = tokio::spawn(async move { execute_and_commit(sign_up_transaction, &sql).await });
    // `pg_locks` also shows the locks in the databases of other tests.
    let select_has_long_lock_wait = "SELECT EXISTS (
           SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
           WHERE datname = current_database() AND NOT granted AND waitstart < now() - INTERVAL '1500 ms'
         )";
    while !world.owner().fetch_value::<bool>(select_has_long_lock_wait).await.unwrap() {
        assert!(!sign_up_task.is_finished(), "the sign-up must wait for the table");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    table_lock_holder.rollback().await.unwrap();
    assert_eq!(sign_up_task.await.unwrap(), "done");
    let profile_with_address = format!("users WHERE id = '{account}' AND email = '{account}@example.com'");
    assert_eq!(world.owner().count(&profile_with_address).await, 1);
    assert_invariants(&world).await;
}

/// If a GIN index collected pending entries, somebody else's statement might have to insert the entries that one user's
/// statements left behind.
#[tokio::test]
async fn no_index_collects_pending_entries() {
    let world = World::new().await;
    let gin_indexes =
        "pg_class JOIN pg_am ON pg_am.oid = relam WHERE amname = 'gin' AND relnamespace = 'public'::regnamespace";
    assert_eq!(world.owner().count(gin_indexes).await, 1, "the schema has one GIN index");
    let gin_indexes_without_pending_entries = format!("{gin_indexes} AND 'fastupdate=off' = ANY (reloptions)");
    assert_eq!(world.owner().count(&gin_indexes_without_pending_entries).await, 1);
}
