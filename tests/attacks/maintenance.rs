//! No session stays for ever: one job cancels abandoned sessions, and another archives ended ones. A session that a job
//! cannot process does not stop the job.

use sparc::service::{Operations, maintenance::JobOptions};
use uuid::Uuid;

use super::{
    archive::{archive_batch, create_archived_session, end_session, is_archived},
    assert_invariants, attempt, execute_in, new_private_session, query_number,
    sqlstates::{
        CHARACTER_SEATED, DISK_FULL, INSUFFICIENT_PRIVILEGE, INTERNAL_ERROR, IO_ERROR, QUERY_CANCELED,
        SERIALIZATION_FAILURE,
    },
};
use crate::world::{World, insert_seat_sql};

async fn session_status(world: &World, session: Uuid) -> String {
    world.owner().fetch_value(&format!("SELECT status::text FROM sessions WHERE id = '{session}'")).await.unwrap()
}

#[tokio::test]
async fn cancelled_sessions_are_archived_like_completed_ones() {
    let world = World::new().await;
    // Sessions are archived 90 days after their end.
    for (final_status, days_ago, is_old_enough) in
        [("cancelled", 91, true), ("completed", 91, true), ("cancelled", 89, false), ("completed", 89, false)]
    {
        let game = world.new_active_session(2).await;
        world.update_session(&game, &format!("status = '{final_status}'")).await;
        world.update_session(&game, &format!("ended_at = now() - INTERVAL '{days_ago} days'")).await;
        attempt(&world.service(), "SELECT private.archive_sessions(100)").await;
        assert_eq!(
            world.owner().count(&format!("archived_sessions WHERE id = '{}'", game.session_id)).await == 1,
            is_old_enough,
            "{final_status}, {days_ago}"
        );
        assert_eq!(
            world.owner().count(&format!("sessions WHERE id = '{}'", game.session_id)).await == 0,
            is_old_enough,
            "{final_status}, {days_ago}"
        );
        let seats = format!("archived_session_players WHERE session_id = '{}'", game.session_id);
        assert_eq!(world.owner().count(&seats).await == 2, is_old_enough, "{final_status}, {days_ago}");
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn the_archiving_job_archives_completed_and_cancelled_sessions_in_batches() {
    let world = World::new().await;
    for index in 0..6 {
        let game = world.new_active_session(1).await;
        let final_status = if index % 2 == 0 { "cancelled" } else { "completed" };
        world.update_session(&game, &format!("status = '{final_status}'")).await;
        world.update_session(&game, &format!("ended_at = now() - INTERVAL '{} days'", 100 + index)).await;
    }
    let mut archived_counts = Vec::new();
    for _ in 0..4 {
        archived_counts.push(world.service().fetch_value::<i32>("SELECT private.archive_sessions(2)").await.unwrap());
    }
    assert_eq!(archived_counts, [2, 2, 2, 0], "six sessions, at most two by each call");
    assert_eq!(world.owner().count("archived_sessions WHERE status = 'cancelled'").await, 3);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn abandoned_sessions_are_cancelled() {
    let world = World::new().await;
    let mut cases = Vec::new();
    // A session that has not started is abandoned a week after its scheduled start, but at the latest a year after its
    // creation. If it has no scheduled start, it is abandoned a month after its creation. A session that has started is
    // abandoned after a month without events.
    for (initial_status, assignments, is_abandoned) in [
        ("waiting", "scheduled_start = now() - INTERVAL '8 days'", true),
        ("waiting", "scheduled_start = now() - INTERVAL '6 days'", false),
        ("waiting", "scheduled_start = now() + INTERVAL '60 days', created_at = now() - INTERVAL '60 days'", false),
        ("waiting", "scheduled_start = now() + INTERVAL '60 days', created_at = now() - INTERVAL '367 days'", true),
        ("waiting", "scheduled_start = now() + INTERVAL '60 days', created_at = now() - INTERVAL '360 days'", false),
        ("waiting", "created_at = now() - INTERVAL '32 days'", true),
        ("waiting", "created_at = now() - INTERVAL '27 days'", false),
        ("starting_soon", "created_at = now() - INTERVAL '32 days'", true),
        ("starting_soon", "scheduled_start = now() - INTERVAL '8 days'", true),
        (
            "active",
            "started_at = now() - INTERVAL '60 days', created_at = now() - INTERVAL '90 days',
             last_event_at = now() - INTERVAL '32 days'",
            true,
        ),
        (
            "active",
            "started_at = now() - INTERVAL '60 days', created_at = now() - INTERVAL '90 days',
             last_event_at = now() - INTERVAL '27 days'",
            false,
        ),
        (
            "paused",
            "started_at = now() - INTERVAL '60 days', created_at = now() - INTERVAL '90 days',
             last_event_at = now() - INTERVAL '32 days'",
            true,
        ),
        (
            "paused",
            "started_at = now() - INTERVAL '60 days', created_at = now() - INTERVAL '90 days',
             last_event_at = now() - INTERVAL '27 days'",
            false,
        ),
        // This session is still being played, although it was scheduled long ago.
        ("active", "scheduled_start = now() - INTERVAL '80 days', last_event_at = now() - INTERVAL '1 day'", false),
    ] {
        let game = world.new_session(2).await;
        let steps: &[&str] = match initial_status {
            "waiting" => &[],
            "paused" => &["active", "paused"],
            _ => &[initial_status],
        };
        for step in steps {
            world.update_session(&game, &format!("status = '{step}'")).await;
        }
        world.update_session(&game, assignments).await;
        cases.push((game, initial_status, assignments, is_abandoned));
    }
    // In batches of two, until none is left.
    let mut cancelled_count = 0;
    loop {
        let count_in_batch: i32 =
            world.service().fetch_value("SELECT private.cancel_abandoned_sessions(2)").await.unwrap();
        assert!(count_in_batch <= 2);
        cancelled_count += count_in_batch;
        if count_in_batch == 0 {
            break;
        }
    }
    let abandoned_count = cases.iter().filter(|(.., is_abandoned)| *is_abandoned).count();
    assert_eq!(usize::try_from(cancelled_count).unwrap(), abandoned_count);
    for (game, initial_status, assignments, is_abandoned) in &cases {
        let status = session_status(&world, game.session_id).await;
        assert_eq!(status, if *is_abandoned { "cancelled" } else { *initial_status }, "{assignments}");
        let player = &game.players[0];
        assert_eq!(
            query_number(&world, &format!("SELECT live_seats FROM users WHERE id = '{}'", player.user_id)).await,
            i64::from(!is_abandoned)
        );
        let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", player.character_id);
        assert_eq!(
            attempt(&player.caller, &retire).await,
            if *is_abandoned { "done" } else { CHARACTER_SEATED },
            "{assignments}"
        );
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_session_with_a_recent_event_is_not_abandoned() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    // Without the event below, the session would be abandoned.
    let assignments_of_abandoned_session =
        "last_event_at = now() - INTERVAL '40 days', started_at = now() - INTERVAL '40 days'";
    world.update_session(&game, assignments_of_abandoned_session).await;
    let insert_event =
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave')", game.session_id);
    assert_eq!(attempt(&game.players[0].caller, &insert_event).await, "done");
    assert_eq!(world.service().fetch_value::<i32>("SELECT private.cancel_abandoned_sessions(10)").await, Ok(0));
    assert_eq!(session_status(&world, game.session_id).await, "active");
}

#[tokio::test]
async fn neither_users_nor_visitors_may_run_maintenance() {
    let world = World::new().await;
    for caller in [world.new_user().await, world.visitor()] {
        for function in ["cancel_abandoned_sessions", "archive_sessions", "delete_old_events"] {
            assert_eq!(
                attempt(&caller, &format!("SELECT private.{function}(10)")).await,
                INSUFFICIENT_PRIVILEGE,
                "{function}"
            );
        }
    }
}

#[tokio::test]
async fn the_cancelling_job_skips_a_locked_session() {
    let world = World::new().await;
    let seer = world.new_account().await;
    let adventure = world.new_adventure(seer).await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session = new_private_session(&world, seer, adventure).await;
        let player = world.new_player().await;
        world.owner().execute(&insert_seat_sql(session, player.user_id, player.character_id)).await.unwrap();
        // A waiting session is abandoned a month after its creation.
        let make_abandoned =
            format!("UPDATE sessions SET created_at = now() - INTERVAL '60 days' WHERE id = '{session}'");
        assert_eq!(world.owner().execute(&make_abandoned).await, Ok(1));
        sessions.push(session);
    }
    let (locked_session, unlocked_session) = (sessions[0], sessions[1]);
    let lock_holder = world.owner().begin().await;
    execute_in(&lock_holder, &format!("SELECT FROM sessions WHERE id = '{locked_session}' FOR UPDATE")).await.unwrap();
    let sql = "SET LOCAL lock_timeout = '2s'; SELECT private.cancel_abandoned_sessions(10)";
    assert_eq!(attempt(&world.service(), sql).await, "done", "the job must not wait for the locked session");
    assert_eq!(session_status(&world, unlocked_session).await, "cancelled");
    lock_holder.rollback().await.unwrap();
    assert_eq!(session_status(&world, locked_session).await, "waiting");
    assert_eq!(world.service().fetch_value::<i32>("SELECT private.cancel_abandoned_sessions(10)").await, Ok(1));
}

#[tokio::test]
async fn a_session_that_cannot_be_archived_does_not_stop_the_job() {
    let world = World::new().await;
    // Two of the oldest sessions cannot be archived: one has a roll with the id of an archived roll, and the other
    // violates a check.
    let (_, archived_roll) = create_archived_session(&world).await;
    let game_with_reused_roll_id = world.new_active_session(1).await;
    let roll_values = format!(
        "'{archived_roll}', '{}', '{}', 'might', 10, 'attack'",
        game_with_reused_roll_id.session_id, game_with_reused_roll_id.players[0].character_id
    );
    // The trigger `Finish_roll` would refuse the reused id, so it is disabled.
    let reuse_id_and_add_check = format!(
        "ALTER TABLE dice_rolls DISABLE TRIGGER \"Finish_roll\";
         INSERT INTO dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type) VALUES ({roll_values});
         ALTER TABLE dice_rolls ENABLE TRIGGER \"Finish_roll\";
         ALTER TABLE archived_sessions ADD CHECK (looking_for <> 'nobody')"
    );
    world.superuser().await.execute(&reuse_id_and_add_check).await.unwrap();
    end_session(&world, &game_with_reused_roll_id, "completed", 120).await;
    let game_violating_check = world.new_active_session(1).await;
    world.update_session(&game_violating_check, "looking_for = 'nobody'").await;
    end_session(&world, &game_violating_check, "cancelled", 110).await;
    let mut archivable_sessions = Vec::new();
    for days in [115, 105, 100, 95] {
        let game = world.new_active_session(1).await;
        end_session(&world, &game, "completed", days).await;
        archivable_sessions.push(game.session_id);
    }

    // Sessions that cannot be archived do not count towards a batch, however small it is.
    let mut archived_counts = Vec::new();
    for batch_size in [1, 2, 2, 2] {
        archived_counts.push(archive_batch(&world, batch_size).await);
    }
    assert_eq!(archived_counts, [1, 2, 1, 0]);
    for session in archivable_sessions {
        assert!(is_archived(&world, session).await);
    }
    for session in [game_with_reused_roll_id.session_id, game_violating_check.session_id] {
        assert!(!is_archived(&world, session).await);
        let rows_of_session = |table: &str| format!("{table} WHERE session_id = '{session}'");
        assert_eq!(world.owner().count(&rows_of_session("session_players")).await, 1, "none of its rows was moved");
        assert_eq!(
            world.owner().count(&rows_of_session("archived_session_players")).await,
            0,
            "none of its rows was moved"
        );
    }
    let report = world.sparc.as_service().maintenance().archive_sessions(JobOptions::default(), |_| ()).await.unwrap();
    assert_eq!((report.processed, report.reached_end), (0, true));
    // As soon as a session no longer violates the check, it is archived.
    world.update_session(&game_violating_check, "looking_for = 'somebody'").await;
    assert_eq!(archive_batch(&world, 1).await, 1);
    assert!(is_archived(&world, game_violating_check.session_id).await);
}

#[tokio::test]
async fn an_error_of_the_server_ends_the_batch_but_a_session_that_violates_a_check_is_skipped() {
    let world = World::new().await;
    let add_check = "ALTER TABLE archived_sessions ADD CHECK (looking_for <> 'nobody')";
    world.superuser().await.execute(add_check).await.unwrap();
    let mut games = Vec::new();
    for days_ago in [110, 105, 100, 95, 92] {
        let game = world.new_active_session(1).await;
        if days_ago == 100 {
            // This session violates the check.
            world.update_session(&game, "looking_for = 'nobody'").await;
        }
        end_session(&world, &game, "completed", days_ago).await;
        games.push((days_ago, game.session_id));
    }
    // An error that is not due to one session (a serialization failure, a cancellation, a full disk and so on) ends the
    // batch, and nothing is archived. (A deadlock does not: see the next test.)
    let create_function = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no' USING ERRCODE = TG_ARGV[0]; END $$";
    world.superuser().await.execute(create_function).await.unwrap();
    for sqlstate in [SERIALIZATION_FAILURE, DISK_FULL, QUERY_CANCELED, IO_ERROR, INTERNAL_ERROR] {
        let create_trigger = format!(
            "CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON archived_sessions
             FOR EACH ROW EXECUTE FUNCTION fail('{sqlstate}')"
        );
        world.superuser().await.execute(&create_trigger).await.unwrap();
        assert_eq!(attempt(&world.service(), "SELECT private.archive_sessions(10)").await, sqlstate);
    }
    world.superuser().await.execute("DROP TRIGGER fail ON archived_sessions; DROP FUNCTION fail()").await.unwrap();
    assert_eq!(world.owner().count("archived_sessions").await, 0);

    assert_eq!(archive_batch(&world, 10).await, 4);
    for (days_ago, session) in games {
        assert_eq!(is_archived(&world, session).await, days_ago != 100, "{days_ago}");
    }
}

#[tokio::test]
async fn a_deadlock_does_not_stop_the_jobs() {
    for (job, table) in [("archive_sessions", "archived_sessions"), ("cancel_abandoned_sessions", "sessions")] {
        // If an attempt at several sessions fails, the job tries each half of them. If an attempt at a single session
        // ends in a deadlock, the job repeats it at most twice. Here the first `deadlock_count` attempts end in a
        // deadlock, so with a thousand none succeeds.
        for (session_count, deadlock_count, expected_count) in
            [(1, 1, 1), (1, 2, 1), (4, 3, 4), (1, 1000, 0), (4, 1000, 0)]
        {
            let world = World::new().await;
            for _ in 0..session_count {
                let game = world.new_session(1).await;
                if job == "archive_sessions" {
                    end_session(&world, &game, "cancelled", 100).await;
                } else {
                    // A waiting session counts as abandoned a month after its creation.
                    world.update_session(&game, "created_at = now() - INTERVAL '60 days'").await;
                }
            }
            let create_trigger = format!(
                "CREATE SEQUENCE public.attempts;
                 CREATE FUNCTION deadlock() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
                 BEGIN
                   IF nextval('public.attempts') <= {deadlock_count} THEN
                     RAISE EXCEPTION 'no' USING ERRCODE = 'deadlock_detected';
                   END IF;
                   RETURN NEW;
                 END $$;
                 CREATE TRIGGER deadlock BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION deadlock()"
            );
            world.superuser().await.execute(&create_trigger).await.unwrap();
            let processed_count: i32 = world.service().fetch_value(&format!("SELECT private.{job}(10)")).await.unwrap();
            assert_eq!(processed_count, expected_count, "{job}: {session_count} sessions, {deadlock_count} deadlocks");
        }
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_cancelled_does_not_stop_the_job() {
    let world = World::new().await;
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let seer = world.new_account().await;
        let adventure = world.new_adventure(seer).await;
        let session = new_private_session(&world, seer, adventure).await;
        let abandon = format!("UPDATE sessions SET created_at = now() - INTERVAL '60 days' WHERE id = '{session}'");
        world.owner().execute(&abandon).await.unwrap();
        sessions.push((session, seer));
    }
    // The job takes sessions in the order of their ids.
    sessions.sort();
    // The Seers of the first and the third session get a wrong counter of live sessions: 0. Loading data with triggers
    // disabled can leave such a counter. When a session ends, the counter would become negative, so these two
    // sessions cannot end.
    for index in [0, 2] {
        let (_, seer) = sessions[index];
        let set_wrong_counter = format!("UPDATE users SET live_sessions = 0 WHERE id = '{seer}'");
        world.owner().execute(&set_wrong_counter).await.unwrap();
    }
    let mut cancelled_counts = Vec::new();
    for batch_size in [1, 2, 2, 2] {
        let sql = format!("SELECT private.cancel_abandoned_sessions({batch_size})");
        cancelled_counts.push(world.service().fetch_value::<i32>(&sql).await.unwrap());
    }
    assert_eq!(cancelled_counts, [1, 2, 1, 0]);
    for (index, (session, _)) in sessions.iter().enumerate() {
        let cancelled_session = format!("sessions WHERE id = '{session}' AND status = 'cancelled'");
        let can_end = !matches!(index, 0 | 2);
        assert_eq!(world.owner().count(&cancelled_session).await == 1, can_end, "{index}");
    }
}
