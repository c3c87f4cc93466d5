//! Events: triggers and participants write them, and they are deleted after a day. Within a session, events become
//! visible in the order of their numbers (`seq`). Also: sessions that ended long ago are archived.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::Value;

use crate::{
    sqlstates::{GENERATED_ALWAYS, LOCK_NOT_AVAILABLE},
    world::{BoxedTask, World, fetch_row_as_json, insert_attribute_check_sql, run_together},
};

/// Returns the types of a session's events, in their order.
async fn event_types(world: &World, session_id: uuid::Uuid) -> Vec<String> {
    let sql = format!("SELECT event_type FROM session_events WHERE session_id = '{session_id}' ORDER BY seq");
    world.owner().fetch_values(&sql).await.unwrap()
}

#[tokio::test]
async fn joining_leaving_rolling_and_changing_the_session_write_events() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    for change in [
        "status = 'active'",
        "current_scene_id = 'ford'",
        "current_encounter_id = 'wolves'",
        "game_state = '{\"a\": 1}'",
    ] {
        world.update_session(&game, change).await;
    }
    let player = &game.players[0];
    player.caller.execute(&insert_attribute_check_sql(game.session_id, player.character_id)).await.unwrap();
    player.caller.execute("UPDATE session_players SET is_active = false").await.unwrap();
    assert_eq!(
        event_types(&world, game.session_id).await,
        [
            "player_joined",
            "session_status",
            "scene_changed",
            "encounter_changed",
            "game_state",
            "dice_rolled",
            "player_left"
        ]
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_that_events_report_writes_no_event() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.update_session(&game, "status = 'active', current_scene_id = NULL, looking_for = 'x'").await;
    assert_eq!(event_types(&world, game.session_id).await, ["player_joined", "session_status"]);
}

#[tokio::test]
async fn a_payload_has_the_keys_that_a_client_needs() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    player.caller.execute(&insert_attribute_check_sql(game.session_id, player.character_id)).await.unwrap();
    let payload = |event_type: &str| {
        let caller = player.caller.clone();
        let sql = format!("SELECT payload FROM session_events WHERE event_type = '{event_type}'");
        async move { caller.fetch_value::<Value>(&sql).await.unwrap() }
    };
    let joined_payload = payload("player_joined").await;
    assert_eq!(joined_payload["user_id"], player.user_id.to_string());
    for key in ["display_name", "character_id", "character_name", "character_class", "seats_taken", "max_players"] {
        assert!(!joined_payload[key].is_null(), "{key}");
    }
    let status_payload = payload("session_status").await;
    assert_eq!((status_payload["from"].as_str(), status_payload["to"].as_str()), (Some("waiting"), Some("active")));
    let roll_payload = payload("dice_rolled").await;
    for key in [
        "roll_id",
        "character_name",
        "results",
        "total",
        "modified_total",
        "outcome",
        "success",
        "margin",
        "animation_seed",
    ] {
        assert!(!roll_payload[key].is_null(), "{key}");
    }
}

#[tokio::test]
async fn only_participants_send_events_and_only_of_types_that_begin_with_client() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    // Everyone may see a public session, but not send events in it.
    world.update_session(&game, "is_public = true").await;
    let insert_event = |event_type: &str| {
        format!(
            "INSERT INTO session_events (session_id, event_type, payload) VALUES ('{}', '{event_type}', '{{}}')",
            game.session_id
        )
    };
    let player = &game.players[0].caller;
    assert_eq!(player.execute(&insert_event("client.wave")).await, Ok(1));
    assert_eq!(game.seer.execute(&insert_event("client.wave")).await, Ok(1));
    for event_type in ["dice_rolled", "session_status", "clientx", "client"] {
        assert_refused!(player.execute(&insert_event(event_type)).await, forbidden, "{event_type}");
        assert_refused!(game.seer.execute(&insert_event(event_type)).await, forbidden, "{event_type}");
    }
    assert_refused!(world.new_user().await.execute(&insert_event("client.wave")).await, forbidden);
    assert_refused!(world.visitor().execute(&insert_event("client.wave")).await, forbidden);
    let other_player = &game.players[1];
    other_player
        .caller
        .execute(&format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", other_player.user_id))
        .await
        .unwrap();
    assert_refused!(other_player.caller.execute(&insert_event("client.wave")).await, forbidden, "a player who left");
    for column in ["created_at", "sender_id"] {
        let sql = format!(
            "INSERT INTO session_events (session_id, event_type, {column}) VALUES ('{}', 'client.x', NULL)",
            game.session_id
        );
        assert_refused!(player.execute(&sql).await, forbidden, "{column}");
    }
    let insert_with_seq = format!(
        "INSERT INTO session_events (session_id, event_type, seq) VALUES ('{}', 'client.x', 1)",
        game.session_id
    );
    assert_eq!(
        player.execute(&insert_with_seq).await.unwrap_err().sqlstate,
        GENERATED_ALWAYS,
        "only the server numbers events"
    );
    assert_refused!(player.execute("DELETE FROM session_events").await, forbidden);
    assert_refused!(player.execute("UPDATE session_events SET payload = '{}'").await, forbidden);
}

#[tokio::test]
async fn the_sender_is_the_caller_whatever_the_payload_says() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let sql = format!(
        "INSERT INTO session_events (session_id, event_type, payload) VALUES ('{}', 'client.chat', '{{\"from\": \"Seer\"}}')
         RETURNING sender_id",
        game.session_id
    );
    assert_eq!(player.caller.fetch_value::<uuid::Uuid>(&sql).await.unwrap(), player.user_id);
}

#[tokio::test]
async fn only_participants_read_events_even_of_a_public_session() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.update_session(&game, "is_public = true").await;
    assert!(game.seer.count("session_events").await > 0);
    assert!(game.players[0].caller.count("session_events").await > 0);
    assert_eq!(world.new_user().await.count("session_events").await, 0);
    assert_refused!(world.visitor().execute("SELECT FROM session_events").await, forbidden);
}

#[tokio::test]
async fn a_reader_that_has_seen_an_event_has_missed_no_earlier_one() {
    const EVENTS_PER_PLAYER: usize = 50;
    let world = World::new().await;
    let game = world.new_active_session(4).await;
    let insert_event =
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave')", game.session_id);
    let reader = game.seer.clone();
    let session_id = game.session_id;
    let event_count = game.players.len() * EVENTS_PER_PLAYER;
    let running_writers = Arc::new(AtomicUsize::new(game.players.len()));
    let mut tasks: Vec<BoxedTask<()>> = Vec::new();
    for player in &game.players {
        let (caller, insert_event, running_writers) =
            (player.caller.clone(), insert_event.clone(), running_writers.clone());
        tasks.push(Box::pin(async move {
            for _ in 0..EVENTS_PER_PLAYER {
                caller.execute(&insert_event).await.unwrap();
            }
            running_writers.fetch_sub(1, Ordering::SeqCst);
        }));
    }
    tasks.push(Box::pin(async move {
        let mut seen: Vec<i64> = Vec::new();
        loop {
            // `running_writers` is read before the events. So if no writer was running and the query returns no event,
            // the reader has seen all events.
            let writers_are_done = running_writers.load(Ordering::SeqCst) == 0;
            let last_seen = seen.last().copied().unwrap_or(0);
            let sql = format!(
                "SELECT seq FROM session_events WHERE session_id = '{session_id}' AND seq > {last_seen}
                 AND event_type = 'client.wave' ORDER BY seq"
            );
            let new_numbers: Vec<i64> = reader.fetch_values(&sql).await.unwrap();
            if new_numbers.is_empty() && writers_are_done {
                break;
            }
            seen.extend(new_numbers);
        }
        assert_eq!(
            seen.len(),
            event_count,
            "no event may appear with a lower number than an event that was already read"
        );
    }));
    run_together(tasks).await;
}

#[tokio::test]
async fn events_of_one_session_are_numbered_one_transaction_at_a_time() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let insert_event =
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave')", game.session_id);
    let first_transaction = game.players[0].caller.begin().await;
    first_transaction.execute_unprepared(&insert_event).await.unwrap();
    // While this transaction is open, no other may draw a number in the session. Otherwise an event with a higher
    // number could become visible before the event of this transaction.
    let second_caller = &game.players[1].caller;
    let outcome = second_caller.execute(&format!("SET LOCAL lock_timeout = '100ms'; {insert_event}")).await;
    assert_eq!(outcome.unwrap_err().sqlstate, LOCK_NOT_AVAILABLE, "the lock must not be available");
    first_transaction.commit().await.unwrap();
    assert_eq!(second_caller.execute(&insert_event).await, Ok(1));
}

#[tokio::test]
async fn new_events_delete_old_ones_in_bounded_batches() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    // Triggers are disabled, because otherwise this statement itself would delete old events.
    let insert_old_events = format!(
        "SET LOCAL session_replication_role = replica;
         INSERT INTO session_events (session_id, event_type, created_at)
         SELECT '{}', 'client.old', now() - INTERVAL '25 hours' FROM generate_series(1, 250)",
        game.session_id
    );
    world.superuser().await.execute(&insert_old_events).await.unwrap();
    let old_events = "session_events WHERE event_type = 'client.old'";
    let insert_event =
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.new')", game.session_id);
    for remaining_count in [150, 50, 0] {
        game.players[0].caller.execute(&insert_event).await.unwrap();
        assert_eq!(
            world.owner().count(old_events).await,
            remaining_count,
            "each event must delete up to 100 old ones, although its sender may not delete events"
        );
    }
    assert_eq!(
        world.owner().count("session_events WHERE event_type = 'client.new'").await,
        3,
        "recent events must stay"
    );
}

#[tokio::test]
async fn the_clean_up_finds_old_events_by_an_index() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let insert_events = format!(
        "SET LOCAL session_replication_role = replica;
         INSERT INTO session_events (session_id, event_type)
         SELECT '{}', 'client.x' FROM generate_series(1, 20000)",
        game.session_id
    );
    world.superuser().await.execute(&insert_events).await.unwrap();
    world.owner().execute("ANALYZE session_events").await.unwrap();
    // `private.delete_old_events` finds the oldest events with a similar query.
    let plan: Vec<String> = world
        .owner()
        .fetch_values(
            "EXPLAIN SELECT id FROM session_events WHERE created_at < now() - INTERVAL '24 hours'
             ORDER BY created_at LIMIT 100 FOR UPDATE SKIP LOCKED",
        )
        .await
        .unwrap();
    assert!(plan.join("\n").contains("idx_session_events_cleanup"), "{plan:#?}");
}

#[tokio::test]
async fn sessions_that_ended_91_days_ago_move_to_the_archive_with_their_seats_and_rolls() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let player = &game.players[0];
    world.new_attack_roll(game.session_id, player.character_id, "{1,2}", 10, 0).await;
    player.caller.execute(&insert_attribute_check_sql(game.session_id, player.character_id)).await.unwrap();
    world.update_session(&game, "status = 'completed'").await;
    world.update_session(&game, "ended_at = now() - INTERVAL '91 days'").await;
    let later_game = world.new_active_session(1).await;
    world.update_session(&later_game, "status = 'completed'").await;
    world.update_session(&later_game, "ended_at = now() - INTERVAL '89 days'").await;
    let archive_sessions = "SELECT private.archive_sessions(10)";
    assert_refused!(player.caller.execute(archive_sessions).await, forbidden);
    assert_eq!(world.service().fetch_value::<i32>(archive_sessions).await, Ok(1));
    assert_eq!(world.service().fetch_value::<i32>(archive_sessions).await, Ok(0), "nothing is left to archive");
    assert_eq!(world.owner().count("sessions").await, 1, "the session that ended 89 days ago must stay");
    let stranger = world.new_user().await;
    for (table_name, row_count) in
        [("archived_sessions", 1), ("archived_session_players", 2), ("archived_dice_rolls", 2)]
    {
        assert_eq!(player.caller.count(table_name).await, row_count, "{table_name}");
        assert_eq!(game.seer.count(table_name).await, row_count, "{table_name}");
        assert_eq!(stranger.count(table_name).await, 0, "{table_name}");
        let sql = format!("DELETE FROM {table_name}");
        assert_refused!(player.caller.execute(&sql).await, forbidden, "{table_name}");
    }
    let archived_session = fetch_row_as_json(&world.owner(), "SELECT seats_taken, status FROM archived_sessions").await;
    assert_eq!(
        (archived_session["seats_taken"].as_i64(), archived_session["status"].as_str()),
        (Some(2), Some("completed"))
    );
}

#[tokio::test]
async fn a_clean_up_that_was_planned_on_an_empty_table_still_uses_its_index() {
    let world = World::new().await;
    // The statistics say that the table is empty, as after its first vacuum.
    world.owner().execute("ANALYZE session_events").await.unwrap();
    let transaction = world.owner().begin().await;
    // The connection caches the plan, so a sequential scan that was planned now would still be used once the table has
    // become large.
    transaction.execute_unprepared("SELECT private.delete_old_events(100)").await.unwrap();
    let query = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'public.session_events'::regclass";
    let row = transaction.query_one_raw(Statement::from_string(DbBackend::Postgres, query)).await.unwrap().unwrap();
    assert_eq!(row.try_get_by_index::<i64>(0).unwrap(), 0, "sequential scans");
}
