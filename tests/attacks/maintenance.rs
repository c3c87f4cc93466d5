//! No session stays for ever: one job cancels abandoned sessions, and another archives ended ones.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, execute_in, new_private_session, query_number,
    sqlstates::{CHARACTER_SEATED, INSUFFICIENT_PRIVILEGE},
};
use crate::world::{World, insert_seat_sql};

async fn session_status(world: &World, session: Uuid) -> String {
    world.owner().fetch_value(&format!("SELECT status::text FROM sessions WHERE id = '{session}'")).await.unwrap()
}

#[tokio::test]
async fn cancelled_sessions_are_archived_like_completed_ones() {
    let world = World::new().await;
    // Sessions are archived 90 days after their end.
    for (final_status, days_ago, is_archived) in
        [("cancelled", 91, true), ("completed", 91, true), ("cancelled", 89, false), ("completed", 89, false)]
    {
        let game = world.new_active_session(2).await;
        world.update_session(&game, &format!("status = '{final_status}'")).await;
        world.update_session(&game, &format!("ended_at = now() - INTERVAL '{days_ago} days'")).await;
        attempt(&world.service(), "SELECT private.archive_sessions(100)").await;
        assert_eq!(
            world.owner().count(&format!("archived_sessions WHERE id = '{}'", game.session_id)).await == 1,
            is_archived,
            "{final_status}, {days_ago}"
        );
        assert_eq!(
            world.owner().count(&format!("sessions WHERE id = '{}'", game.session_id)).await == 0,
            is_archived,
            "{final_status}, {days_ago}"
        );
        let seats = format!("archived_session_players WHERE session_id = '{}'", game.session_id);
        assert_eq!(world.owner().count(&seats).await == 2, is_archived, "{final_status}, {days_ago}");
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
    // creation; if it has no scheduled start, a month after its creation. A session that has started is abandoned after
    // a month without events.
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
        let cancelled_by_call: i32 =
            world.service().fetch_value("SELECT private.cancel_abandoned_sessions(2)").await.unwrap();
        assert!(cancelled_by_call <= 2);
        cancelled_count += cancelled_by_call;
        if cancelled_by_call == 0 {
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
    let no_recent_event = "last_event_at = now() - INTERVAL '40 days', started_at = now() - INTERVAL '40 days'";
    world.update_session(&game, no_recent_event).await;
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
        for function in ["cancel_abandoned_sessions", "archive_sessions", "clean_events"] {
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
