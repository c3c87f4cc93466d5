//! Sessions: transitions between statuses, the counters that completing a session increments, and who may see and
//! change a session.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use crate::{
    random_operations::broken_invariants,
    sqlstates::{ADVENTURE_NOT_PLAYABLE, ILLEGAL_TRANSITION},
    world::{World, fetch_row_as_json, insert_seat_sql, run_together},
};

const STATUSES: [&str; 6] = ["waiting", "starting_soon", "active", "paused", "completed", "cancelled"];

/// Returns whether a session may go from one status to the other.
fn is_legal_transition(from: &str, to: &str) -> bool {
    matches!(
        (from, to),
        ("waiting", "starting_soon" | "active" | "cancelled")
            | ("starting_soon", "waiting" | "active" | "cancelled")
            | ("active", "paused" | "completed" | "cancelled")
            | ("paused", "active" | "completed" | "cancelled")
    )
}

#[tokio::test]
async fn only_the_legal_transitions_of_status_are_allowed() {
    let world = World::new().await;
    for from in STATUSES {
        let seer = world.new_user().await;
        let adventure_id = world.new_adventure(seer.user_id()).await;
        for to in STATUSES.into_iter().filter(|to| *to != from) {
            let sql = format!(
                "INSERT INTO sessions (seer_id, adventure_id, status) VALUES ('{}', '{adventure_id}', '{from}') RETURNING id",
                seer.user_id()
            );
            let session_id: Uuid = world.owner().fetch_value(&sql).await.unwrap();
            // A session needs a player to become active. In an ended session nobody can take a seat.
            if !matches!(from, "completed" | "cancelled") {
                let player = world.new_player().await;
                world.owner().execute(&insert_seat_sql(session_id, player.user_id, player.character_id)).await.unwrap();
            }
            let outcome = seer.execute(&format!("UPDATE sessions SET status = '{to}' WHERE id = '{session_id}'")).await;
            if is_legal_transition(from, to) {
                assert_eq!(outcome, Ok(1), "{from} -> {to}");
            } else {
                assert_refused!(outcome, ILLEGAL_TRANSITION, "session_status_transition", "{from} -> {to}");
            }
        }
    }
}

#[tokio::test]
async fn started_at_is_set_once_and_ended_at_is_set_by_completing() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let select_times = format!("SELECT started_at, ended_at FROM sessions WHERE id = '{}'", game.session_id);
    let times_when_active = fetch_row_as_json(&world.owner(), &select_times).await;
    assert!(times_when_active["started_at"].is_string() && times_when_active["ended_at"].is_null());
    world.update_session(&game, "status = 'paused'").await;
    world.update_session(&game, "status = 'active'").await;
    world.update_session(&game, "status = 'completed'").await;
    let times_when_ended = fetch_row_as_json(&world.owner(), &select_times).await;
    assert_eq!(times_when_ended["started_at"], times_when_active["started_at"], "started_at must be set only once");
    assert!(times_when_ended["ended_at"].is_string());
}

#[tokio::test]
async fn completing_a_session_counts_for_its_seer_players_and_adventure_and_sets_last_played_at() {
    let world = World::new().await;
    let game = world.new_active_session(3).await;
    let player_who_left = &game.players[2];
    player_who_left.caller.execute("UPDATE session_players SET is_active = false").await.unwrap();
    world.update_session(&game, "status = 'completed'").await;
    let owner = world.owner();
    let seer_id = game.seer.user_id();
    assert_eq!(owner.fetch_value::<i32>(&format!("SELECT games_run FROM users WHERE id = '{seer_id}'")).await, Ok(1));
    assert_eq!(
        owner.count("users WHERE games_played = 1").await,
        3,
        "the session must count for everyone who was seated, including the player who left"
    );
    let select_times_played = format!("SELECT times_played FROM adventures WHERE id = '{}'", game.adventure_id);
    assert_eq!(owner.fetch_value::<i32>(&select_times_played).await, Ok(1));
    assert_eq!(owner.count("characters WHERE last_played_at IS NOT NULL").await, 3);
}

#[tokio::test]
async fn a_session_that_ended_earlier_does_not_move_last_played_at_back() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    world.update_session(&game, "status = 'completed'").await;
    let select_time =
        format!("SELECT last_played_at::text FROM characters WHERE id = '{}'", game.players[0].character_id);
    let time_before: String = world.owner().fetch_value(&select_time).await.unwrap();
    // Another session of the same character, which ended a day ago, is marked as completed only now.
    let player = &game.players[0];
    let earlier_session = world.new_active_session(1).await;
    world
        .service()
        .execute(&insert_seat_sql(earlier_session.session_id, player.user_id, player.character_id))
        .await
        .unwrap();
    world
        .update_session(
            &earlier_session,
            "status = 'completed', started_at = now() - INTERVAL '25 hours', ended_at = now() - INTERVAL '1 day'",
        )
        .await;
    assert_eq!(world.owner().fetch_value::<String>(&select_time).await, Ok(time_before));
}

#[tokio::test]
async fn cancelling_a_session_counts_for_no_user_and_no_adventure() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    world.update_session(&game, "status = 'cancelled'").await;
    assert_eq!(world.owner().count("users WHERE games_run + games_played > 0").await, 0);
    assert_eq!(world.owner().fetch_value::<i32>("SELECT times_played FROM adventures").await, Ok(0));
}

#[tokio::test]
async fn two_sessions_with_the_same_players_complete_concurrently_without_a_deadlock() {
    let world = World::new().await;
    let mut players = Vec::new();
    for _ in 0..6 {
        players.push(world.new_player().await);
    }
    let seers = [world.new_user().await, world.new_user().await];
    let adventure_id = world.new_adventure(seers[0].user_id()).await;
    for round in 0..100 {
        let mut tasks = Vec::new();
        for (index, seer) in seers.iter().enumerate() {
            let sql = format!(
                "INSERT INTO sessions (seer_id, adventure_id, max_players) VALUES ('{}', '{adventure_id}', 6) RETURNING id",
                seer.user_id()
            );
            let session_id: Uuid = world.owner().fetch_value(&sql).await.unwrap();
            // In the second session, the players take their seats in the opposite order, so a scan finds the seats in
            // that order. Without a fixed order of locks, the two completions would deadlock.
            let mut players_in_seat_order: Vec<_> = players.iter().collect();
            if index == 1 {
                players_in_seat_order.reverse();
            }
            let insert_seats: Vec<String> = players_in_seat_order
                .iter()
                .map(|player| insert_seat_sql(session_id, player.user_id, player.character_id))
                .collect();
            world.owner().execute(&insert_seats.join(";")).await.unwrap();
            world
                .owner()
                .execute(&format!("UPDATE sessions SET status = 'active' WHERE id = '{session_id}'"))
                .await
                .unwrap();
            let seer = seer.clone();
            tasks.push(async move {
                seer.execute(&format!("UPDATE sessions SET status = 'completed' WHERE id = '{session_id}'")).await
            });
        }
        assert_eq!(run_together(tasks).await, [Ok(1), Ok(1)], "round {round}");
    }
    assert_eq!(world.owner().count("users WHERE games_played = 200").await, 6);
    assert_eq!(world.owner().fetch_value::<i32>("SELECT times_played FROM adventures").await, Ok(200));
}

#[tokio::test]
async fn a_session_needs_a_published_adventure_or_a_draft_of_its_seer() {
    let world = World::new().await;
    let (seer, other_account_id) = (world.new_user().await, world.new_account().await);
    let insert_session_sql = |adventure_id| {
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure_id}')", seer.user_id())
    };
    assert_eq!(seer.execute(&insert_session_sql(world.new_draft_adventure(seer.user_id()).await)).await, Ok(1));
    assert_eq!(seer.execute(&insert_session_sql(world.new_adventure(other_account_id).await)).await, Ok(1));
    assert_refused!(
        seer.execute(&insert_session_sql(world.new_draft_adventure(other_account_id).await)).await,
        ADVENTURE_NOT_PLAYABLE,
        "adventure_playable"
    );
}

#[tokio::test]
async fn everyone_sees_public_sessions_and_only_participants_see_private_ones() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let this_session = format!("sessions WHERE id = '{}'", game.session_id);
    let stranger = world.new_user().await;
    let player = &game.players[0].caller;
    for (caller, visible_row_count) in [(&world.visitor(), 0), (&stranger, 0), (&game.seer, 1), (player, 1)] {
        assert_eq!(caller.count(&this_session).await, visible_row_count);
    }
    world.update_session(&game, "is_public = true").await;
    assert_eq!(world.visitor().count(&this_session).await, 1);
    assert_eq!(stranger.count(&this_session).await, 1);
}

#[tokio::test]
async fn only_the_seer_changes_a_session_and_only_its_granted_columns() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let where_session = format!("WHERE id = '{}'", game.session_id);
    for assignment in [
        "is_public = true",
        "max_players = 6",
        "looking_for = 'a healer'",
        "scheduled_start = now()",
        "current_scene_id = 'ford'",
        "current_encounter_id = 'wolves'",
        "game_state = '{\"light\": 1}'",
        "status = 'active'",
    ] {
        assert_eq!(
            game.players[0].caller.execute(&format!("UPDATE sessions SET {assignment} {where_session}")).await,
            Ok(0),
            "{assignment}"
        );
        assert_eq!(
            game.seer.execute(&format!("UPDATE sessions SET {assignment} {where_session}")).await,
            Ok(1),
            "{assignment}"
        );
    }
    for assignment in [
        "seer_id = gen_random_uuid()",
        "code = 'AAAAAA'",
        "adventure_id = gen_random_uuid()",
        "started_at = now()",
        "ended_at = now()",
        "created_at = now()",
        "seats_taken = 0",
        "encounter_number = 0",
    ] {
        assert_refused!(
            game.seer.execute(&format!("UPDATE sessions SET {assignment} {where_session}")).await,
            forbidden,
            "{assignment}"
        );
    }
    assert_refused!(game.seer.execute(&format!("DELETE FROM sessions {where_session}")).await, forbidden);
    assert_refused!(
        world.service().execute(&format!("UPDATE sessions SET seats_taken = 0 {where_session}")).await,
        forbidden
    );
}

#[tokio::test]
async fn a_user_creates_a_session_as_its_seer_and_sets_only_granted_columns() {
    let world = World::new().await;
    let (seer, other_account_id) = (world.new_user().await, world.new_account().await);
    let adventure_id = world.new_adventure(other_account_id).await;
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure_id}') RETURNING status::text",
        seer.user_id()
    );
    assert_eq!(seer.fetch_value::<String>(&sql).await.unwrap(), "waiting");
    let insert_for_another_seer =
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{other_account_id}', '{adventure_id}')");
    assert_refused!(seer.execute(&insert_for_another_seer).await, forbidden);
    for column in ["code", "status", "started_at", "created_at", "seats_taken"] {
        let sql = format!("INSERT INTO sessions (adventure_id, {column}) VALUES ('{adventure_id}', NULL)");
        assert_refused!(seer.execute(&sql).await, forbidden, "{column}");
    }
}

#[tokio::test]
async fn get_session_details_returns_only_sessions_that_the_caller_may_see() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let details_call = format!("get_session_details('{}')", game.session_id);
    let stranger = world.new_user().await;
    assert_eq!(stranger.count(&details_call).await, 0);
    assert_eq!(world.visitor().count(&details_call).await, 0);
    let details = fetch_row_as_json(&game.players[0].caller, &format!("SELECT * FROM {details_call}")).await;
    assert_eq!(details["session_data"]["id"], game.session_id.to_string());
    assert_eq!(details["players"].as_array().unwrap().len(), 2);
    let other_player = &details["players"][1];
    assert_eq!(
        other_player["characterId"],
        game.players[1].character_id.to_string(),
        "participants must see each other's characters"
    );
    assert_eq!(other_player["characterClass"], "warrior");
    assert_eq!(details["adventure_data"]["name"], "The Drowned Ford");
    world.update_session(&game, "is_public = true").await;
    assert_eq!(stranger.count(&details_call).await, 1);
    let service_details = fetch_row_as_json(&world.service(), &format!("SELECT * FROM {details_call}")).await;
    assert_eq!(service_details["players"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn get_session_details_returns_players_as_an_empty_list_if_there_are_none() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let details =
        fetch_row_as_json(&game.seer, &format!("SELECT * FROM get_session_details('{}')", game.session_id)).await;
    assert_eq!(details["players"], serde_json::json!([]));
}

#[tokio::test]
async fn a_public_session_with_a_draft_does_not_publish_the_draft() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    world.owner().execute("UPDATE adventures SET status = 'draft', content = '{\"secret\": 1}'").await.unwrap();
    world.update_session(&game, "is_public = true").await;
    let query = format!("SELECT adventure_data FROM get_session_details('{}')", game.session_id);
    let shows_content = |details: serde_json::Value| details["adventure_data"].get("content").is_some();
    let visitor_details = fetch_row_as_json(&world.visitor(), &query).await;
    let fields: Vec<&str> = visitor_details["adventure_data"].as_object().unwrap().keys().map(String::as_str).collect();
    let summary_fields = ["creator_id", "difficulty", "estimated_duration", "id", "name", "status", "thumbnail_url"];
    assert_eq!(fields, summary_fields, "a visitor must get only a summary of the adventure");
    assert!(!shows_content(fetch_row_as_json(&world.new_user().await, &query).await), "a stranger");
    assert!(shows_content(fetch_row_as_json(&game.seer, &query).await), "the Seer");
    let player = &game.players[0];
    assert!(shows_content(fetch_row_as_json(&player.caller, &query).await), "a player");
    let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", player.user_id);
    player.caller.execute(&leave).await.unwrap();
    assert!(!shows_content(fetch_row_as_json(&player.caller, &query).await), "a player who left");
}

#[tokio::test]
async fn an_ended_session_shows_nothing_of_an_adventure_that_became_a_draft_again() {
    let world = World::new().await;
    for status in ["completed", "cancelled"] {
        let game = world.new_active_session(1).await;
        world.update_session(&game, &format!("is_public = true, status = '{status}'")).await;
        // The creator of an adventure may always read it, so this one is given to somebody other than the Seer.
        let creator_id = world.new_account().await;
        let set_creator =
            format!("UPDATE adventures SET creator_id = '{creator_id}' WHERE id = '{}'", game.adventure_id);
        world.owner().execute(&set_creator).await.unwrap();
        let query = format!("SELECT adventure_data FROM get_session_details('{}')", game.session_id);
        let callers = [world.visitor(), world.new_user().await, game.seer.clone(), game.players[0].caller.clone()];
        for caller in &callers {
            assert_eq!(fetch_row_as_json(caller, &query).await["adventure_data"]["status"], "published");
        }
        let make_draft =
            format!("UPDATE adventures SET status = 'draft', name = 'Later' WHERE id = '{}'", game.adventure_id);
        world.owner().execute(&make_draft).await.unwrap();
        for caller in &callers {
            let adventure_data = fetch_row_as_json(caller, &query).await["adventure_data"].clone();
            assert!(adventure_data.is_null(), "{status} {:?}: {adventure_data}", caller.id);
        }
        for caller in [world.user(creator_id), world.service()] {
            assert_eq!(fetch_row_as_json(&caller, &query).await["adventure_data"]["name"], "Later");
        }
    }
}

#[tokio::test]
async fn a_session_that_the_service_inserts_has_consistent_times_in_every_status() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let ended_yesterday = ["completed", "cancelled"].map(|status| (status, "now() - INTERVAL '1 day'"));
    for (status, ended_at) in STATUSES.map(|status| (status, "NULL")).into_iter().chain(ended_yesterday) {
        let insert_session = format!(
            "INSERT INTO sessions (seer_id, adventure_id, status, ended_at) VALUES ('{}', '{}', '{status}', {ended_at})",
            game.seer.user_id(),
            game.adventure_id
        );
        world.service().execute(&insert_session).await.unwrap();
    }
    assert_eq!(broken_invariants(&world).await, [""; 0]);
    assert_eq!(world.owner().count("sessions WHERE ended_at < started_at").await, 0);
}

#[tokio::test]
async fn ended_at_is_never_earlier_than_started_at() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    // This transaction begins before the one that starts the session. It ends the session, but its `now()` is earlier
    // than `started_at`, so `ended_at` must not be its `now()`.
    let early_transaction = game.seer.begin().await;
    early_transaction.execute_unprepared("SELECT now()").await.unwrap();
    world.update_session(&game, "status = 'active'").await;
    let complete = format!("UPDATE sessions SET status = 'completed' WHERE id = '{}'", game.session_id);
    early_transaction.execute_unprepared(&complete).await.unwrap();
    early_transaction.commit().await.unwrap();
    assert_eq!(world.owner().count("sessions WHERE ended_at < started_at").await, 0);
    assert_eq!(world.owner().count("sessions WHERE ended_at = started_at").await, 1);
}

#[tokio::test]
async fn session_details_in_schema_private_returns_only_sessions_that_the_caller_may_see() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let details_call = format!("private.session_details('{}')", game.session_id);
    assert_eq!(world.new_user().await.count(&details_call).await, 0, "a stranger");
    assert_eq!(world.visitor().count(&details_call).await, 0, "a visitor");
    for caller in [&game.seer, &game.players[0].caller, &world.service()] {
        assert_eq!(caller.count(&details_call).await, 1);
    }
    world.update_session(&game, "is_public = true").await;
    let select_player_count = format!("SELECT jsonb_array_length(players) FROM {details_call}");
    assert_eq!(
        world.visitor().fetch_value::<i32>(&select_player_count).await.unwrap(),
        0,
        "a visitor may not see seats"
    );
    assert_eq!(world.new_user().await.fetch_value::<i32>(&select_player_count).await.unwrap(), 1);
}
