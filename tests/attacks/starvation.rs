//! An account may keep or renew some locks for as long as it likes. They do not make others wait for ever.

use super::{
    assert_invariants, attempt, close_or_delete, execute_and_commit, execute_in,
    full_account::create_full_account,
    open_session,
    sqlstates::{CHARACTER_NOT_YOURS, LOCK_NOT_AVAILABLE, ROLL_NOT_SAVEABLE},
};
use crate::world::{World, insert_heroic_save_sql, insert_roll_sql, insert_seat_sql};

/// PostgreSQL grants a shared lock although somebody waits for an exclusive one. So overlapping transactions with
/// shared locks could make an exclusive lock wait for ever.
#[tokio::test]
async fn no_two_transactions_of_an_account_hold_shared_locks_at_once() {
    let world = World::new().await;
    let fixture = create_full_account(&world).await;
    let lock_own_rows = [
        format!("SELECT FROM users WHERE id = '{}' FOR SHARE", fixture.account),
        format!("SELECT FROM characters WHERE id = '{}' FOR SHARE", fixture.hero),
        format!("SELECT FROM adventures WHERE id = '{}' FOR SHARE", fixture.published),
        format!("SELECT FROM creatures WHERE id = '{}' FOR SHARE", fixture.creature),
        format!("SELECT FROM sessions WHERE id = '{}' FOR SHARE", fixture.live.session_id),
        format!("SELECT FROM session_players WHERE session_id = '{}' FOR SHARE", fixture.live.session_id),
        format!("SELECT FROM session_players WHERE user_id = '{}' FOR SHARE", fixture.account),
        format!("SELECT FROM tutorial_progress WHERE user_id = '{}' FOR SHARE", fixture.account),
    ];
    // Foreign keys take shared locks as well.
    let inserts = [
        insert_roll_sql(fixture.joined.session_id, fixture.hero),
        format!(
            "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.x')",
            fixture.joined.session_id
        ),
        format!("INSERT INTO sessions (adventure_id) VALUES ('{}')", fixture.published),
        insert_seat_sql(fixture.public_session, fixture.account, fixture.hero),
    ];
    for sql in lock_own_rows.iter().chain(&inserts) {
        for lock in ["FOR SHARE", "FOR KEY SHARE"] {
            let sql = sql.replace("FOR SHARE", lock);
            let (first, second) = (fixture.person.begin().await, fixture.person.begin().await);
            assert!(execute_in(&first, &sql).await.is_ok(), "{sql}");
            execute_in(&second, "SET LOCAL lock_timeout = '100ms'").await.unwrap();
            assert_eq!(
                execute_in(&second, &lock_own_rows[0]).await.unwrap_err().code,
                LOCK_NOT_AVAILABLE,
                "lock_not_available: {sql}"
            );
            second.rollback().await.unwrap();
            first.rollback().await.unwrap();
        }
    }
}

/// A player keeps their character and profile locked, by one transaction after another. Meanwhile the Seer's session
/// ends, or the Seer's account closes.
#[tokio::test]
async fn a_session_ends_and_an_account_closes_while_a_player_keeps_locking_rows() {
    let world = World::new().await;
    for is_closing in [false, true] {
        let game = world.new_active_session(1).await;
        let player = &game.players[0];
        let lock_rows = format!(
            "SELECT pg_sleep(0.1) FROM (SELECT FROM characters WHERE id = '{}' FOR SHARE) AS hero,
                    (SELECT FROM users WHERE id = '{}' FOR SHARE) AS profile",
            player.character_id, player.user_id
        );
        let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let lockers: Vec<_> = (0..2)
            .map(|_| {
                let (person, lock_rows, is_over) = (player.person.clone(), lock_rows.clone(), is_over.clone());
                tokio::spawn(async move {
                    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        let transaction = person.begin().await;
                        execute_in(&transaction, &lock_rows).await.unwrap();
                        transaction.commit().await.unwrap();
                    }
                })
            })
            .collect();
        world.owner().wait_for_lock_waiters(1).await;
        let (person, end) = match is_closing {
            false => (
                game.seer.clone(),
                format!("UPDATE sessions SET status = 'completed' WHERE id = '{}'", game.session_id),
            ),
            true => (world.owner(), close_or_delete(game.seer.user_id(), false)),
        };
        let transaction = person.begin().await;
        execute_in(&transaction, "SET LOCAL statement_timeout = '20s'").await.unwrap();
        assert_eq!(execute_and_commit(transaction, &end).await, "done");
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        for locker in lockers {
            locker.await.unwrap();
        }
    }
    assert_invariants(&world).await;
}

/// A participant keeps their own seat, character or profile locked. The jobs skip the session and process the others.
#[tokio::test]
async fn a_lock_of_a_participant_does_not_stop_maintenance() {
    let world = World::new().await;
    for job in ["archive_sessions", "cancel_abandoned_sessions"] {
        let mut games = Vec::new();
        for _ in 0..5 {
            let game = world.new_active_session(1).await;
            if job == "archive_sessions" {
                world.update_session(&game, "status = 'completed'").await;
                world.update_session(&game, "ended_at = now() - INTERVAL '91 days'").await;
            } else {
                let abandoned = "last_event_at = now() - INTERVAL '40 days', started_at = now() - INTERVAL '40 days'";
                world.update_session(&game, abandoned).await;
            }
            games.push(game);
        }
        let player = &games[2].players[0];
        for lock in [
            format!("SELECT FROM session_players WHERE user_id = '{}' FOR UPDATE", player.user_id),
            format!("SELECT FROM characters WHERE id = '{}' FOR UPDATE", player.character_id),
            format!("SELECT FROM users WHERE id = '{}' FOR UPDATE", player.user_id),
        ] {
            let holder = player.person.begin().await;
            execute_in(&holder, &lock).await.unwrap();
            let running = world.service().begin().await;
            execute_in(&running, "SET LOCAL statement_timeout = '20s'").await.unwrap();
            execute_in(&running, &format!("SELECT private.{job}(100)")).await.unwrap();
            let count_remaining =
                "SELECT count(*)::text FROM sessions WHERE status = 'active' OR ended_at < now() - INTERVAL '1 day'";
            let row = sea_orm::ConnectionTrait::query_one_raw(
                &running,
                sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, count_remaining),
            )
            .await
            .unwrap()
            .unwrap();
            let remaining: String = row.try_get_by_index(0).unwrap();
            running.rollback().await.unwrap();
            holder.rollback().await.unwrap();
            // Cancelling a session changes no seat, so a locked seat does not matter.
            let is_skipped = job == "archive_sessions" || !lock.contains("session_players");
            assert_eq!(remaining, if is_skipped { "1" } else { "0" }, "{job}: {lock}");
        }
        assert_eq!(world.service().fetch_value::<i32>(&format!("SELECT private.{job}(100)")).await, Ok(5), "{job}");
    }
    assert_invariants(&world).await;
}

/// A stranger locks rows of their own: an ended session on the adventure, in which nobody else took part, or their seat
/// in it.
#[tokio::test]
async fn a_lock_in_an_empty_session_does_not_delay_a_closing() {
    let world = World::new().await;
    for is_deletion in [false, true] {
        for locked in ["session_players WHERE user_id", "sessions WHERE seer_id"] {
            let creator = world.new_user().await;
            let adventure = world.new_adventure(creator.user_id()).await;
            let stranger = world.new_player().await;
            let session = open_session(&world, stranger.user_id, adventure, true).await;
            assert_eq!(
                attempt(&stranger.person, &insert_seat_sql(session, stranger.user_id, stranger.character_id)).await,
                "done"
            );
            let cancel = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{session}'");
            assert_eq!(attempt(&stranger.person, &cancel).await, "done");
            let unpublish = format!("UPDATE adventures SET status = 'draft' WHERE id = '{adventure}'");
            assert_eq!(attempt(&creator, &unpublish).await, "done");
            let holder = stranger.person.begin().await;
            let lock = format!("SELECT FROM {locked} = '{}' FOR UPDATE", stranger.user_id);
            assert_eq!(execute_in(&holder, &lock).await, Ok(1));
            let closing = world.owner().begin().await;
            execute_in(&closing, "SET LOCAL statement_timeout = '5s'").await.unwrap();
            let sql = close_or_delete(creator.user_id(), is_deletion);
            assert_eq!(execute_and_commit(closing, &sql).await, "done", "{locked}");
            holder.rollback().await.unwrap();
        }
    }
    assert_invariants(&world).await;
}

/// A transaction that keeps many old events locked costs other clean-ups at most one batch.
#[tokio::test]
async fn a_clean_up_reads_no_more_than_twice_its_batch() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let insert = format!(
        "INSERT INTO session_events (session_id, event_type, created_at)
         SELECT '{}', 'client.old', now() - INTERVAL '2 days' + nth * INTERVAL '1 second' FROM generate_series(1, 60) AS nth",
        game.session_id
    );
    let disable_clean_up = "ALTER TABLE session_events DISABLE TRIGGER cleanup_events_trigger";
    world.owner().execute(disable_clean_up).await.unwrap();
    world.owner().execute(&insert).await.unwrap();
    let lock_oldest = |count: u32| {
        format!(
            "SELECT FROM session_events WHERE event_type = 'client.old' ORDER BY created_at LIMIT {count} FOR UPDATE"
        )
    };
    for (locked, deleted) in [(0, 10), (10, 10), (15, 5), (20, 0), (40, 0)] {
        let holder = world.owner().begin().await;
        execute_in(&holder, &lock_oldest(locked)).await.unwrap();
        let cleaning = world.owner().begin().await;
        execute_in(&cleaning, "CREATE TEMP TABLE cleaned ON COMMIT DROP AS SELECT private.clean_events(10) AS deleted")
            .await
            .unwrap();
        let matches = execute_in(&cleaning, &format!("DELETE FROM cleaned WHERE deleted = {deleted}")).await;
        assert_eq!(matches, Ok(1), "with {locked} events locked");
        cleaning.rollback().await.unwrap();
        holder.rollback().await.unwrap();
    }
}

/// A unique index allows one save per roll. If a fellow player could insert a save of the player's roll, and kept that
/// transaction open, the player's own save would wait until its thirty seconds are over.
#[tokio::test]
async fn a_fellow_player_does_not_delay_a_heroic_save() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let failed = world.new_roll(game.session_id, game.players[0].character_id, "{1,2}", 10, 0).await;
    let barrier = world.owner().begin().await;
    // An arbitrary key, for which the fellow player's statement would wait.
    execute_in(&barrier, "SELECT pg_advisory_xact_lock(4711)").await.unwrap();
    let fellow = &game.players[1];
    let transaction = fellow.person.begin().await;
    let wait = "CREATE FUNCTION pg_temp.wait() RETURNS text LANGUAGE plpgsql
                AS $$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN 'waited'; END $$";
    execute_in(&transaction, wait).await.unwrap();
    execute_in(&transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
    let sql =
        format!("{} RETURNING pg_temp.wait()", insert_heroic_save_sql(game.session_id, fellow.character_id, failed));
    assert_eq!(execute_in(&transaction, &sql).await.unwrap_err().code, ROLL_NOT_SAVEABLE);
    let save = insert_heroic_save_sql(game.session_id, game.players[0].character_id, failed);
    assert_eq!(attempt(&game.players[0].person, &save).await, "done");
    assert_invariants(&world).await;
}

/// The foreign key of a new seat locks the character. If the seat were not refused before that, the statement would
/// then wait for the session, which an accomplice, the Seer, keeps locked.
#[tokio::test]
async fn a_seat_with_another_users_character_does_not_lock_the_character() {
    let world = World::new().await;
    let (game, stranger, victim) = (world.new_session(0).await, world.new_player().await, world.new_player().await);
    world.update_session(&game, "is_public = true").await;
    let accomplice = game.seer.begin().await;
    execute_in(&accomplice, &format!("UPDATE sessions SET looking_for = 'x' WHERE id = '{}'", game.session_id))
        .await
        .unwrap();
    let transaction = stranger.person.begin().await;
    execute_in(&transaction, "SET LOCAL lock_timeout = '1s'").await.unwrap();
    let seat = insert_seat_sql(game.session_id, stranger.user_id, victim.character_id);
    assert_eq!(execute_in(&transaction, &seat).await.unwrap_err().code, CHARACTER_NOT_YOURS);
    accomplice.rollback().await.unwrap();
}

/// A transaction that closes an account gives up its e-mail address, and may stay open.
#[tokio::test]
async fn a_sign_up_does_not_wait_for_an_address_that_is_being_given_up() {
    let world = World::new().await;
    let (former, new) = (world.new_account().await, uuid::Uuid::new_v4());
    let address = format!("(SELECT email FROM users WHERE id = '{former}')");
    let closing = world.user(former).begin().await;
    execute_in(&closing, &format!("SELECT private.close_account('{former}')")).await.unwrap();
    let sign_up = world.owner().begin().await;
    execute_in(&sign_up, "SET LOCAL statement_timeout = '20s'").await.unwrap();
    // The former account's row in `auth.users` still has the address, and Supabase accepts a second account with it
    // only from single sign-on. So this calls the function that a sign-up calls.
    let sql = format!("SELECT private.create_profile('{new}', {address}, '{{}}')");
    execute_in(
        &sign_up,
        &format!("INSERT INTO auth.users (id) VALUES ('{new}'); DELETE FROM users WHERE id = '{new}'"),
    )
    .await
    .unwrap();
    assert_eq!(execute_and_commit(sign_up, &sql).await, "done");
    closing.commit().await.unwrap();
    let stored: String =
        world.owner().fetch_value(&format!("SELECT email FROM users WHERE id = '{new}'")).await.unwrap();
    assert_eq!(stored, format!("{new}@no-email.invalid"));
}

/// A migration or an operator's CREATE INDEX may lock the table of profiles for longer than the second that a sign-up
/// waits for an e-mail address.
#[tokio::test]
async fn a_sign_up_waits_while_the_table_of_profiles_is_locked() {
    let world = World::new().await;
    let locking = world.owner().begin().await;
    execute_in(&locking, "LOCK TABLE users IN SHARE MODE").await.unwrap();
    let new = uuid::Uuid::new_v4();
    let sign_up = world.owner().begin().await;
    let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{new}', '{new}@example.com')");
    let signing_up = tokio::spawn(async move { execute_and_commit(sign_up, &sql).await });
    let has_waited_longer =
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND waitstart < now() - INTERVAL '1500 ms')";
    while !world.owner().fetch_value::<bool>(has_waited_longer).await.unwrap() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    locking.rollback().await.unwrap();
    assert_eq!(signing_up.await.unwrap(), "done");
    let with_address = format!("users WHERE id = '{new}' AND email = '{new}@example.com'");
    assert_eq!(world.owner().count(&with_address).await, 1);
    assert_invariants(&world).await;
}

/// If a GIN index collected pending entries, those that one user's statements leave would be inserted by somebody
/// else's statement.
#[tokio::test]
async fn no_index_collects_pending_entries() {
    let world = World::new().await;
    let gin_indexes =
        "pg_class JOIN pg_am ON pg_am.oid = relam WHERE amname = 'gin' AND relnamespace = 'public'::regnamespace";
    assert_eq!(world.owner().count(gin_indexes).await, 1);
    let without_pending = format!("{gin_indexes} AND 'fastupdate=off' = ANY (reloptions)");
    assert_eq!(world.owner().count(&without_pending).await, 1);
}
