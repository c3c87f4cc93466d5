//! Maintenance jobs: they work for a limited time, and can be repeated and run concurrently. All but the vacuum work in
//! batches. Also: how archived sessions are read.

use std::time::Duration;

use sea_orm::ConnectionTrait;
use sparc::service::{Error, Operations, RollsPageSize, Sparc, maintenance::JobOptions};
use uuid::Uuid;

use crate::world::{World, insert_attribute_check_sql, run_together};

fn with_batch_size(batch_size: u16) -> JobOptions {
    JobOptions { batch_size, ..Default::default() }
}

/// Creates events from two days ago. For this insert, disables the trigger that deletes old events after each insert.
pub async fn insert_old_events(world: &World, session_id: Uuid, count: u32) {
    let sql = format!(
        "ALTER TABLE session_events DISABLE TRIGGER cleanup_events_trigger;
         INSERT INTO session_events (session_id, event_type, created_at)
         SELECT '{session_id}', 'client.old', now() - INTERVAL '2 days' FROM generate_series(1, {count});
         ALTER TABLE session_events ENABLE TRIGGER cleanup_events_trigger"
    );
    world.pool.execute_unprepared(&sql).await.unwrap();
}

/// Creates sessions that were completed a year ago.
async fn insert_old_sessions(world: &World, count: u32) {
    let seer_id = world.new_account().await;
    let adventure_id = world.new_adventure(seer_id).await;
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id, status, ended_at)
         SELECT '{seer_id}', '{adventure_id}', 'completed', now() - INTERVAL '1 year' FROM generate_series(1, {count})"
    );
    world.owner().execute(&sql).await.unwrap();
}

/// Scans of `adventures`, `session_events` and `sessions` begin at an end of an index where rows are often deleted or
/// updated. For example, each insert of an event looks for the oldest events, and has to skip deleted ones until a
/// vacuum removes them.
#[tokio::test]
async fn tables_with_dead_rows_at_the_start_of_index_scans_have_settings_for_frequent_vacuums() {
    let world = World::new().await;
    let sql = "SELECT relname::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace
          AND reloptions @> ARRAY[
            'autovacuum_vacuum_threshold=5000', 'autovacuum_vacuum_scale_factor=0.002', 'vacuum_index_cleanup=on'
          ]
        ORDER BY relname";
    let tables: Vec<String> = world.owner().fetch_values(sql).await.unwrap();
    assert_eq!(tables, ["adventures", "session_events", "sessions"]);
}

#[tokio::test]
async fn old_events_are_deleted_in_batches_and_each_batch_is_reported() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    insert_old_events(&world, game.session_id, 25).await;
    let service = world.sparc.as_service();
    assert_eq!(service.maintenance().backlog().await.unwrap().old_events, 25);
    let mut progress = Vec::new();
    let report = service
        .maintenance()
        .delete_old_events(with_batch_size(10), |rows_so_far| progress.push(rows_so_far))
        .await
        .unwrap();
    assert_eq!((report.processed, report.reached_end, progress), (25, true, vec![10, 20, 25]));
    let second_report = service.maintenance().delete_old_events(with_batch_size(10), |_| ()).await.unwrap();
    assert_eq!((second_report.processed, second_report.reached_end), (0, true), "a second run must find nothing");
    assert_eq!(world.owner().count("session_events").await, 1, "the event of today (a player joined) must stay");
}

#[tokio::test]
async fn concurrent_runs_share_the_work() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    insert_old_events(&world, game.session_id, 400).await;
    insert_old_sessions(&world, 40).await;
    // While a run has not committed its batches, another run does the rest of the work.
    let open_run_transaction = world.owner().begin().await;
    open_run_transaction
        .execute_unprepared("SELECT private.delete_old_events(20), private.archive_sessions(5)")
        .await
        .unwrap();
    let service = world.sparc.as_service();
    let event_report = service.maintenance().delete_old_events(with_batch_size(20), |_| ()).await.unwrap();
    let session_report = service.maintenance().archive_sessions(with_batch_size(5), |_| ()).await.unwrap();
    assert_eq!((event_report.processed, session_report.processed), (380, 35));
    open_run_transaction.commit().await.unwrap();
    assert_eq!(world.owner().count("archived_sessions").await, 40);

    // Runs that begin at the same moment do all of the work, and each part of it once.
    insert_old_events(&world, game.session_id, 400).await;
    insert_old_sessions(&world, 40).await;
    let tasks = (0..4)
        .map(|_| {
            let service = world.sparc.as_service();
            async move {
                let event_report = service.maintenance().delete_old_events(with_batch_size(20), |_| ()).await.unwrap();
                let session_report = service.maintenance().archive_sessions(with_batch_size(5), |_| ()).await.unwrap();
                (event_report.processed, session_report.processed)
            }
        })
        .collect();
    let row_counts = run_together(tasks).await;
    assert_eq!(row_counts.iter().map(|(events, _)| events).sum::<u64>(), 400, "{row_counts:?}");
    assert_eq!(row_counts.iter().map(|(_, sessions)| sessions).sum::<u64>(), 40, "{row_counts:?}");
    assert_eq!(world.owner().count("archived_sessions").await, 80);
}

#[tokio::test]
async fn a_clean_up_skips_locked_rows() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    insert_old_events(&world, game.session_id, 10).await;
    let lock_transaction = world.owner().begin().await;
    let lock_oldest_event =
        "SELECT FROM session_events WHERE created_at < now() - INTERVAL '1 day' ORDER BY seq LIMIT 1 FOR UPDATE";
    lock_transaction.execute_unprepared(lock_oldest_event).await.unwrap();
    let clean_up_transaction = world.owner().begin().await;
    clean_up_transaction
        .execute_unprepared("SET LOCAL lock_timeout = '2s'; SELECT private.delete_old_events(100)")
        .await
        .unwrap();
    clean_up_transaction.commit().await.unwrap();
    lock_transaction.rollback().await.unwrap();
    assert_eq!(world.owner().count("session_events WHERE created_at < now() - INTERVAL '1 day'").await, 1);
}

#[tokio::test]
async fn a_job_with_a_zero_time_limit_runs_one_batch() {
    let world = World::new().await;
    insert_old_sessions(&world, 30).await;
    let service = world.sparc.as_service();
    let zero_time_limit = JobOptions { batch_size: 10, time_limit: Duration::ZERO };
    let report = service.maintenance().archive_sessions(zero_time_limit, |_| ()).await.unwrap();
    assert_eq!(
        (report.processed, report.reached_end),
        (10, false),
        "the job must run one batch and report that it is not finished"
    );
    assert_eq!(service.maintenance().backlog().await.unwrap().archivable_sessions, 20);
}

#[tokio::test]
async fn a_participant_can_read_an_archived_session_and_a_stranger_cannot() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let player = &game.players[0];
    for _ in 0..5 {
        world.owner().execute(&insert_attribute_check_sql(game.session_id, player.character_id)).await.unwrap();
    }
    world.update_session(&game, "status = 'completed'").await;
    // Ending the session sets `ended_at`, so the test dates it back afterwards.
    world.update_session(&game, "ended_at = now() - INTERVAL '1 year'").await;
    world.sparc.as_service().maintenance().archive_sessions(JobOptions::default(), |_| ()).await.unwrap();
    let ada = world.sparc.as_user(player.user_id);
    assert_error!(ada.sessions().get(game.session_id).await, Error::NotFound { .. });
    let archived_session = ada.sessions().get_archived(game.session_id).await.unwrap();
    assert_eq!((archived_session.session.id, archived_session.seats.len()), (game.session_id, 2));
    let page_size = RollsPageSize::new(2).unwrap();
    let (mut roll_ids, mut after) = (Vec::new(), None);
    loop {
        let page = ada.sessions().archived_rolls(game.session_id, page_size, after.as_ref()).await.unwrap();
        roll_ids.extend(page.items.into_iter().map(|roll| roll.id));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    roll_ids.sort();
    roll_ids.dedup();
    assert_eq!(roll_ids.len(), 5);
    assert_eq!(ada.sessions().my_past(None).await.unwrap().items[0].id, game.session_id);
    let stranger = world.sparc.as_user(world.new_account().await);
    assert_error!(stranger.sessions().get_archived(game.session_id).await, Error::NotFound { .. });
    assert!(stranger.sessions().archived_rolls(game.session_id, page_size, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn concurrent_vacuum_runs_succeed_and_vacuuming_needs_the_service_and_a_login_that_owns_the_tables() {
    let world = World::new().await;
    let tasks = (0..2)
        .map(|_| {
            let service = world.sparc.as_service();
            async move { service.maintenance().vacuum(JobOptions::default(), |_| ()).await.unwrap() }
        })
        .collect();
    for report in run_together(tasks).await {
        // This job counts its four tables, including those that it skips because the other run has locked them.
        assert_eq!((report.processed, report.reached_end), (4, true));
    }
    // Before its first vacuum, a table has -1 in `reltuples`.
    let vacuumed_tables = "pg_class
        WHERE relname IN ('sessions', 'session_players', 'session_events', 'dice_rolls') AND reltuples >= 0";
    assert_eq!(world.owner().count(vacuumed_tables).await, 4);
    let user = world.sparc.as_user(world.new_account().await);
    assert_eq!(user.maintenance().vacuum(JobOptions::default(), |_| ()).await.unwrap_err().code(), "not_allowed");
    assert_eq!(
        world.sparc.as_anon().maintenance().vacuum(JobOptions::default(), |_| ()).await.unwrap_err().code(),
        "not_signed_in"
    );

    // This login is a member of the three roles that the crate `service` assumes, but owns no table.
    let login = format!("plain_{}", Uuid::new_v4().simple());
    let create_role =
        format!("CREATE ROLE {login} LOGIN PASSWORD 'x'; GRANT anon, authenticated, service_role TO {login}");
    world.pool.execute_unprepared(&create_role).await.unwrap();
    let (scheme, login_and_address) = world.url().split_once("://").unwrap();
    let login_url = format!("{scheme}://{login}:x@{}", login_and_address.rsplit_once('@').unwrap().1);
    let sparc = Sparc::connect(&login_url).await.unwrap();
    let error = sparc.as_service().maintenance().vacuum(JobOptions::default(), |_| ()).await.unwrap_err();
    assert_eq!(error.code(), "not_allowed");
    assert!(
        sparc.as_service().maintenance().backlog().await.is_ok(),
        "reading the backlog must need only the three roles"
    );
    sparc.close().await.unwrap();
    world.pool.execute_unprepared(&format!("DROP ROLE {login}")).await.unwrap();
}
