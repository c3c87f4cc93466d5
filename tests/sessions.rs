//! Sessions: transitions between statuses, the counters that completing a session increments, join codes, and who may
//! see and change what.

use std::collections::HashSet;

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use crate::{
    random_operations::broken_invariants,
    world::{World, insert_seat, row_as_json, run_together},
};

const STATUSES: [&str; 6] = ["waiting", "starting_soon", "active", "paused", "completed", "cancelled"];

fn is_legal(from: &str, to: &str) -> bool {
    matches!(
        (from, to),
        ("waiting", "starting_soon" | "active" | "cancelled")
            | ("starting_soon", "waiting" | "active" | "cancelled")
            | ("active", "paused" | "completed" | "cancelled")
            | ("paused", "active" | "completed" | "cancelled")
    )
}

#[tokio::test]
async fn only_the_listed_transitions_of_status_are_allowed() {
    let world = World::new().await;
    for from in STATUSES {
        let seer = world.new_user().await;
        let adventure = world.new_adventure(seer.uuid()).await;
        for to in STATUSES.into_iter().filter(|to| *to != from) {
            let sql = format!(
                "INSERT INTO sessions (seer_id, adventure_id, status) VALUES ('{}', '{adventure}', '{from}') RETURNING id",
                seer.uuid()
            );
            let id: Uuid = world.owner().value(&sql).await.unwrap();
            if !matches!(from, "completed" | "cancelled") {
                let player = world.new_player().await;
                world.owner().exec(&insert_seat(id, player.id, player.character)).await.unwrap();
            }
            let outcome = seer.exec(&format!("UPDATE sessions SET status = '{to}' WHERE id = '{id}'")).await;
            if is_legal(from, to) {
                assert_eq!(outcome, Ok(1), "{from} -> {to}");
            } else {
                assert_refused!(outcome, "SP003", "session_status_transition", "{from} -> {to}");
            }
        }
    }
}

#[tokio::test]
async fn the_first_start_sets_started_at_and_the_end_sets_ended_at() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let sql = format!("SELECT started_at, ended_at FROM sessions WHERE id = '{}'", game.session);
    let active = row_as_json(&world.owner(), &sql).await;
    assert!(active["started_at"].is_string() && active["ended_at"].is_null());
    world.set(&game, "status = 'paused'").await;
    world.set(&game, "status = 'active'").await;
    world.set(&game, "status = 'completed'").await;
    let ended = row_as_json(&world.owner(), &sql).await;
    assert_eq!(ended["started_at"], active["started_at"], "started_at must be set only once");
    assert!(ended["ended_at"].is_string());
}

#[tokio::test]
async fn completing_a_session_counts_once_for_seer_players_adventure_and_characters() {
    let world = World::new().await;
    let game = world.new_active_session(3).await;
    let leaver = &game.players[2];
    leaver.person.exec("UPDATE session_players SET is_active = false").await.unwrap();
    world.set(&game, "status = 'completed'").await;
    let owner = world.owner();
    let seer = game.seer.uuid();
    assert_eq!(owner.value::<i32>(&format!("SELECT games_run FROM users WHERE id = '{seer}'")).await, Ok(1));
    assert_eq!(
        owner.count("users WHERE games_played = 1").await,
        3,
        "the game must count for everyone who was seated, including the player who left"
    );
    let played = format!("SELECT times_played FROM adventures WHERE id = '{}'", game.adventure);
    assert_eq!(owner.value::<i32>(&played).await, Ok(1));
    assert_eq!(owner.count("characters WHERE last_played_at IS NOT NULL").await, 3);
}

#[tokio::test]
async fn cancelling_a_session_counts_for_nobody() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    world.set(&game, "status = 'cancelled'").await;
    assert_eq!(world.owner().count("users WHERE games_run + games_played > 0").await, 0);
    assert_eq!(world.owner().value::<i32>("SELECT times_played FROM adventures").await, Ok(0));
}

#[tokio::test]
async fn two_sessions_with_the_same_players_complete_concurrently_without_a_deadlock() {
    let world = World::new().await;
    let mut players = Vec::new();
    for _ in 0..6 {
        players.push(world.new_player().await);
    }
    let seers = [world.new_user().await, world.new_user().await];
    let adventure = world.new_adventure(seers[0].uuid()).await;
    for round in 0..100 {
        let mut tasks = Vec::new();
        for (index, seer) in seers.iter().enumerate() {
            let sql = format!(
                "INSERT INTO sessions (seer_id, adventure_id, max_players) VALUES ('{}', '{adventure}', 6) RETURNING id",
                seer.uuid()
            );
            let session: Uuid = world.owner().value(&sql).await.unwrap();
            // The players take their seats in the second session in the opposite order, so that a scan of its seats
            // meets them in the opposite order. Without a fixed order of locks, the two completions would deadlock.
            let mut order: Vec<_> = players.iter().collect();
            if index == 1 {
                order.reverse();
            }
            let seats: Vec<String> = order.iter().map(|p| insert_seat(session, p.id, p.character)).collect();
            world.owner().exec(&seats.join(";")).await.unwrap();
            world.owner().exec(&format!("UPDATE sessions SET status = 'active' WHERE id = '{session}'")).await.unwrap();
            let seer = seer.clone();
            tasks.push(async move {
                seer.exec(&format!("UPDATE sessions SET status = 'completed' WHERE id = '{session}'")).await
            });
        }
        assert_eq!(run_together(tasks).await, [Ok(1), Ok(1)], "round {round}");
    }
    assert_eq!(world.owner().count("users WHERE games_played = 200").await, 6);
    assert_eq!(world.owner().value::<i32>("SELECT times_played FROM adventures").await, Ok(200));
}

#[tokio::test]
async fn codes_are_unique_and_have_six_characters_that_are_not_confusable() {
    let world = World::new().await;
    let adventure = world.new_adventure(world.new_account().await).await;
    let mut seers = Vec::new();
    for _ in 0..24 {
        seers.push(world.new_user().await);
    }
    let mut codes = HashSet::new();
    for round in 1..=100 {
        let tasks = seers
            .iter()
            .cloned()
            .map(|seer| async move {
                let sql = format!("INSERT INTO sessions (adventure_id) VALUES ('{adventure}') RETURNING code::text");
                seer.value::<String>(&sql).await
            })
            .collect();
        codes.extend(run_together(tasks).await.into_iter().map(Result::unwrap));
        assert_eq!(codes.len(), 24 * round, "every session must have its own code");
        // An account may run at most twenty live sessions, so those of this round are cancelled.
        world.owner().exec("UPDATE sessions SET status = 'cancelled' WHERE status = 'waiting'").await.unwrap();
    }
    for code in &codes {
        assert_eq!(code.len(), 6);
        assert!(code.chars().all(|c| "ABCDEFGHJKMNPQRSTUVWXYZ23456789".contains(c)), "{code}");
    }
}

#[tokio::test]
async fn every_character_of_the_alphabet_is_drawn_equally_often() {
    let world = World::new().await;
    // `0 * i` makes PostgreSQL call the function once per row.
    let counts: Vec<i64> = world
        .owner()
        .values("SELECT count(*) FROM generate_series(1, 400) AS i, unnest(private.random_numbers(31, 155 + 0 * i)) AS n GROUP BY n")
        .await
        .unwrap();
    assert_eq!(counts.len(), 31);
    // Of 62,000 draws, each character is expected 2,000 times, with a standard deviation of 44. A difference of six
    // standard deviations does not happen by chance.
    assert!(counts.iter().all(|count| (1736..=2264).contains(count)), "{counts:?}");
}

#[tokio::test]
async fn a_session_needs_a_published_adventure_or_the_seers_own() {
    let world = World::new().await;
    let (seer, other) = (world.new_user().await, world.new_account().await);
    let create_session =
        |adventure| format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", seer.uuid());
    assert_eq!(seer.exec(&create_session(world.new_draft(seer.uuid()).await)).await, Ok(1));
    assert_eq!(seer.exec(&create_session(world.new_adventure(other).await)).await, Ok(1));
    assert_refused!(seer.exec(&create_session(world.new_draft(other).await)).await, "SP009", "adventure_playable");
}

#[tokio::test]
async fn everyone_sees_public_sessions_and_only_participants_see_private_ones() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let this_session = format!("sessions WHERE id = '{}'", game.session);
    let stranger = world.new_user().await;
    for (person, sees) in [(&world.visitor(), 0), (&stranger, 0), (&game.seer, 1), (&game.players[0].person, 1)] {
        assert_eq!(person.count(&this_session).await, sees);
    }
    world.set(&game, "is_public = true").await;
    assert_eq!(world.visitor().count(&this_session).await, 1);
    assert_eq!(stranger.count(&this_session).await, 1);
}

#[tokio::test]
async fn only_the_seer_changes_a_session_and_never_its_server_owned_columns() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let this_session = format!("WHERE id = '{}'", game.session);
    for change in [
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
            game.players[0].person.exec(&format!("UPDATE sessions SET {change} {this_session}")).await,
            Ok(0),
            "{change}"
        );
        assert_eq!(game.seer.exec(&format!("UPDATE sessions SET {change} {this_session}")).await, Ok(1), "{change}");
    }
    for change in [
        "seer_id = gen_random_uuid()",
        "code = 'AAAAAA'",
        "adventure_id = gen_random_uuid()",
        "started_at = now()",
        "ended_at = now()",
        "created_at = now()",
        "seats_taken = 0",
        "encounters_begun = 0",
    ] {
        assert_refused!(
            game.seer.exec(&format!("UPDATE sessions SET {change} {this_session}")).await,
            forbidden,
            "{change}"
        );
    }
    assert_refused!(game.seer.exec(&format!("DELETE FROM sessions {this_session}")).await, forbidden);
    assert_refused!(
        world.service().exec(&format!("UPDATE sessions SET seats_taken = 0 {this_session}")).await,
        forbidden
    );
}

#[tokio::test]
async fn a_seer_opens_a_session_and_the_insert_returns_it() {
    let world = World::new().await;
    let (seer, other) = (world.new_user().await, world.new_account().await);
    let adventure = world.new_adventure(other).await;
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}') RETURNING status::text",
        seer.uuid()
    );
    assert_eq!(seer.value::<String>(&sql).await.unwrap(), "waiting");
    let forged = format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{other}', '{adventure}')");
    assert_refused!(seer.exec(&forged).await, forbidden);
    for column in ["code", "status", "started_at", "created_at", "seats_taken"] {
        let sql = format!("INSERT INTO sessions (adventure_id, {column}) VALUES ('{adventure}', NULL)");
        assert_refused!(seer.exec(&sql).await, forbidden, "{column}");
    }
}

#[tokio::test]
async fn details_are_returned_only_for_sessions_that_the_caller_may_see() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let query = format!("get_session_details('{}')", game.session);
    let stranger = world.new_user().await;
    assert_eq!(stranger.count(&query).await, 0);
    assert_eq!(world.visitor().count(&query).await, 0);
    let details = row_as_json(&game.players[0].person, &format!("SELECT * FROM {query}")).await;
    assert_eq!(details["session_data"]["id"], game.session.to_string());
    assert_eq!(details["players"].as_array().unwrap().len(), 2);
    let other_player = &details["players"][1];
    assert_eq!(
        other_player["characterId"],
        game.players[1].character.to_string(),
        "participants must see each other's characters"
    );
    assert_eq!(other_player["characterClass"], "warrior");
    assert_eq!(details["adventure_data"]["name"], "The Drowned Ford");
    world.set(&game, "is_public = true").await;
    assert_eq!(stranger.count(&query).await, 1);
    assert_eq!(
        row_as_json(&world.service(), &format!("SELECT * FROM {query}")).await["players"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn details_give_an_empty_list_for_no_players() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let details = row_as_json(&game.seer, &format!("SELECT * FROM get_session_details('{}')", game.session)).await;
    assert_eq!(details["players"], serde_json::json!([]));
}

#[tokio::test]
async fn a_public_session_with_a_draft_does_not_publish_the_draft() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    world.owner().exec("UPDATE adventures SET status = 'draft', content = '{\"secret\": 1}'").await.unwrap();
    world.set(&game, "is_public = true").await;
    let query = format!("SELECT adventure_data FROM get_session_details('{}')", game.session);
    let shows_content = |details: serde_json::Value| details["adventure_data"].get("content").is_some();
    let for_visitor = row_as_json(&world.visitor(), &query).await;
    let fields: Vec<&str> = for_visitor["adventure_data"].as_object().unwrap().keys().map(String::as_str).collect();
    let allowed = ["creator_id", "difficulty", "estimated_duration", "id", "name", "status", "thumbnail_url"];
    assert_eq!(fields, allowed, "a visitor may see only the fields that a lobby shows");
    assert!(!shows_content(row_as_json(&world.new_user().await, &query).await), "a stranger");
    assert!(shows_content(row_as_json(&game.seer, &query).await), "the Seer");
    let player = &game.players[0];
    assert!(shows_content(row_as_json(&player.person, &query).await), "a player");
    let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", player.id);
    player.person.exec(&leave).await.unwrap();
    assert!(!shows_content(row_as_json(&player.person, &query).await), "a player who left");
}

#[tokio::test]
async fn an_ended_session_shows_nothing_of_a_later_draft() {
    let world = World::new().await;
    for status in ["completed", "cancelled"] {
        let game = world.new_active_session(1).await;
        world.set(&game, &format!("is_public = true, status = '{status}'")).await;
        let creator = world.new_user().await.id;
        let publish = format!(
            "UPDATE adventures SET creator_id = '{}', status = 'published' WHERE id = '{}'",
            creator.unwrap(),
            game.adventure
        );
        world.owner().exec(&publish).await.unwrap();
        let query = format!("SELECT adventure_data FROM get_session_details('{}')", game.session);
        let people = [world.visitor(), world.new_user().await, game.seer.clone(), game.players[0].person.clone()];
        for person in &people {
            assert_eq!(row_as_json(person, &query).await["adventure_data"]["status"], "published");
        }
        let draft = format!("UPDATE adventures SET status = 'draft', name = 'Later' WHERE id = '{}'", game.adventure);
        world.owner().exec(&draft).await.unwrap();
        for person in &people {
            let seen = row_as_json(person, &query).await["adventure_data"].clone();
            assert!(seen.is_null(), "{status} {:?}: {seen}", person.id);
        }
        for person in [world.user(creator.unwrap()), world.service()] {
            assert_eq!(row_as_json(&person, &query).await["adventure_data"]["name"], "Later");
        }
    }
}

#[tokio::test]
async fn a_session_that_the_service_inserts_in_any_status_has_the_times_of_that_status() {
    let world = World::new().await;
    let game = world.new_session(0).await;
    let yesterday = ["completed", "cancelled"].map(|status| (status, "now() - INTERVAL '1 day'"));
    for (status, ended_at) in STATUSES.map(|status| (status, "NULL")).into_iter().chain(yesterday) {
        let insert = format!(
            "INSERT INTO sessions (seer_id, adventure_id, status, ended_at) VALUES ('{}', '{}', '{status}', {ended_at})",
            game.seer.uuid(),
            game.adventure
        );
        world.service().exec(&insert).await.unwrap();
    }
    assert_eq!(broken_invariants(&world).await, [""; 0]);
    assert_eq!(world.owner().count("sessions WHERE ended_at < started_at").await, 0);
}

#[tokio::test]
async fn a_session_does_not_end_before_it_started() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    // This transaction begins before the one that starts the session, so its now() is earlier than started_at.
    let early = game.seer.begin().await;
    early.execute_unprepared("SELECT now()").await.unwrap();
    world.set(&game, "status = 'active'").await;
    let complete = format!("UPDATE sessions SET status = 'completed' WHERE id = '{}'", game.session);
    early.execute_unprepared(&complete).await.unwrap();
    early.commit().await.unwrap();
    assert_eq!(world.owner().count("sessions WHERE ended_at < started_at").await, 0);
    assert_eq!(world.owner().count("sessions WHERE ended_at = started_at").await, 1);
}

#[tokio::test]
async fn session_details_returns_no_session_that_the_caller_does_not_see() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let details = format!("private.session_details('{}')", game.session);
    assert_eq!(world.new_user().await.count(&details).await, 0, "a stranger");
    assert_eq!(world.visitor().count(&details).await, 0, "a visitor");
    for person in [&game.seer, &game.players[0].person, &world.service()] {
        assert_eq!(person.count(&details).await, 1);
    }
    world.set(&game, "is_public = true").await;
    let players = format!("SELECT jsonb_array_length(players) FROM {details}");
    assert_eq!(world.visitor().value::<i32>(&players).await.unwrap(), 0, "a visitor may not see seats");
    assert_eq!(world.new_user().await.value::<i32>(&players).await.unwrap(), 1);
}
