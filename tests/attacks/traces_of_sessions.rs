//! What happens in a private session leaves no trace that others can read, and a removed player reads nothing of it but
//! their own seat. Also: which edits set `updated_at`, to whom a join code shows its session, and that times in
//! JSON are in UTC.

use uuid::Uuid;

use super::{attempt, dry_run, query_number};
use crate::world::{GameSession, SqlCaller, World, insert_character_sql};

/// Returns the `updated_at` of all profiles, adventures and sessions that a visitor can read.
async fn fetch_visible_times(world: &World) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', kind, id, updated_at)
               FROM (
                 SELECT 'user' AS kind, id, updated_at FROM users
                 UNION ALL SELECT 'adventure', id, updated_at FROM adventures
                 UNION ALL SELECT 'session', id, updated_at FROM sessions
               ) AS visible
               ORDER BY 1";
    world.visitor().fetch_values(sql).await.unwrap()
}

#[tokio::test]
async fn private_changes_do_not_change_an_updated_at_that_everyone_can_read() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let public_game = world.new_session(1).await;
    world.update_session(&public_game, "is_public = true").await;
    let (player, public_player) = (&game.players[0], &public_game.players[0]);
    let (character, draft_adventure) = (Uuid::new_v4(), Uuid::new_v4());
    let (session, seer) = (game.session_id, game.seer.user_id());
    let times_before = fetch_visible_times(&world).await;
    assert_eq!(times_before.len(), 8, "five accounts, two adventures and a session");
    let update_seat = |set: &str| format!("UPDATE session_players SET {set} WHERE user_id = '{}'", player.user_id);
    for (caller, sql) in [
        (&player.caller, insert_character_sql(character, player.user_id)),
        (&player.caller, format!("UPDATE characters SET retired_at = now() WHERE id = '{character}'")),
        (&player.caller, format!("DELETE FROM characters WHERE id = '{character}'")),
        (&player.caller, update_seat("is_active = false")),
        (&player.caller, update_seat("is_active = true")),
        (
            &player.caller,
            format!(
                "INSERT INTO adventures (id, creator_id, name) VALUES ('{draft_adventure}', '{}', 'Draft')",
                player.user_id
            ),
        ),
        (&player.caller, format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_adventure}', 'Rat')")),
        (&player.caller, format!("DELETE FROM adventures WHERE id = '{draft_adventure}'")),
        (
            &game.seer,
            format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{seer}', '{}')", game.adventure_id),
        ),
        (&game.seer, format!("UPDATE sessions SET status = 'active' WHERE id = '{session}'")),
        (&game.seer, format!("UPDATE sessions SET status = 'completed' WHERE id = '{session}'")),
        (
            &world.owner(),
            format!(
                "UPDATE sessions SET last_event_at = now() - INTERVAL '9 days' WHERE id = '{}'",
                public_game.session_id
            ),
        ),
        (
            &public_player.caller,
            format!(
                "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave')",
                public_game.session_id
            ),
        ),
        (&world.owner(), format!("UPDATE auth.users SET email = 'new@x.org' WHERE id = '{}'", player.user_id)),
    ] {
        assert_eq!(attempt(caller, &sql).await, "done", "{sql}");
        assert_eq!(fetch_visible_times(&world).await, times_before, "{sql}");
    }
    let count_users_with_games = "SELECT count(*) FROM users WHERE games_played > 0 OR games_run > 0";
    assert_eq!(
        query_number(&world, count_users_with_games).await,
        3,
        "the session must count for its Seer and two players"
    );
    let count_outdated_sessions = "SELECT count(*) FROM sessions WHERE last_event_at < now() - INTERVAL '1 day'";
    assert_eq!(query_number(&world, count_outdated_sessions).await, 0, "the event must renew `last_event_at`");
}

#[tokio::test]
async fn every_edit_sets_updated_at_whoever_makes_it() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let (player, seer, service) = (&game.players[0], &game.seer, &world.service());
    let draft_adventure = world.new_draft_adventure(seer.user_id()).await;
    let user_edits: [(&str, Uuid, &SqlCaller, &[&str]); 4] = [
        (
            "users",
            player.user_id,
            &player.caller,
            &["display_name = 'Ada'", "avatar_url = 'https://x.org/a'", "bio = 'x'"],
        ),
        (
            "characters",
            player.character_id,
            &player.caller,
            &["name = 'Renamed'", "equipment = '[1]'", "special_ability = '[]'", "hit_points = 2"],
        ),
        (
            "adventures",
            draft_adventure,
            seer,
            &[
                "name = 'Renamed'",
                "description = 'x'",
                "thumbnail_url = 'https://x.org/a'",
                "artwork_url = 'https://x.org/a'",
                "difficulty = 'hard'",
                "estimated_duration = 5",
                "min_players = 1",
                "max_players = 5",
                "content = '[1]'",
                "status = 'archived'",
            ],
        ),
        (
            "sessions",
            game.session_id,
            seer,
            &[
                "is_public = true",
                "max_players = 3",
                "looking_for = 'x'",
                "scheduled_start = now() + INTERVAL '1 day'",
                "current_scene_id = 'x'",
                "current_encounter_id = 'x'",
                "game_state = '[1]'",
                "status = 'starting_soon'",
            ],
        ),
    ];
    // A value that is written to `updated_at` itself is replaced by the current time.
    let service_edits: [(&str, Uuid, &[&str]); 4] = [
        ("users", player.user_id, &["is_verified = true", "updated_at = 'infinity'"]),
        (
            "characters",
            player.character_id,
            &["level = 2", "experience = 9", "max_hit_points = 9", "updated_at = 'infinity'"],
        ),
        ("adventures", draft_adventure, &["is_valid = true", "validation_errors = '[1]'", "updated_at = 'infinity'"]),
        ("sessions", game.session_id, &["code = 'AAAAAA'", "updated_at = 'infinity'"]),
    ];
    let service_edits = service_edits.map(|(table, id, sets)| (table, id, service, sets));
    let edits = user_edits.into_iter().chain(service_edits);
    let edits = edits.flat_map(|(table, id, caller, sets)| sets.iter().map(move |set| (table, id, caller, *set)));
    for (table, id, caller, set) in edits {
        let select_updated_at = format!("SELECT updated_at::text FROM {table} WHERE id = '{id}'");
        let time_before: String = world.owner().fetch_value(&select_updated_at).await.unwrap();
        assert_eq!(attempt(caller, &format!("UPDATE {table} SET {set} WHERE id = '{id}'")).await, "done", "{set}");
        let time_after: String = world.owner().fetch_value(&select_updated_at).await.unwrap();
        assert!(time_after > time_before && time_after != "infinity", "{table}: {set}");
    }
}

/// Returns, for each kind of row of a session, archived or not, how many the user sees; kinds without any are omitted.
/// `("may follow broadcasts", 1)` and `("may follow events", 1)` say that the user may follow these.
async fn count_visible_rows(caller: &SqlCaller, game: &GameSession) -> Vec<(&'static str, i64)> {
    let session = game.session_id;
    let mut counts = Vec::new();
    for (kind, from) in [
        ("session", format!("sessions WHERE id = '{session}'")),
        ("rolls", format!("dice_rolls WHERE session_id = '{session}'")),
        ("events", format!("session_events WHERE session_id = '{session}'")),
        ("details", format!("get_session_details('{session}')")),
        ("seats", format!("session_players WHERE session_id = '{session}'")),
        ("may follow broadcasts", format!("(SELECT WHERE private.can_follow_topic('session:{session}')) AS allowed")),
        ("may follow events", format!("(SELECT WHERE private.my_event_access('{session}') = 'may_read') AS allowed")),
        ("archived session", format!("archived_sessions WHERE id = '{session}'")),
        ("archived rolls", format!("archived_dice_rolls WHERE session_id = '{session}'")),
        ("archived seats", format!("archived_session_players WHERE session_id = '{session}'")),
    ] {
        let count = caller.count(&from).await;
        if count > 0 {
            counts.push((kind, count));
        }
    }
    counts
}

#[tokio::test]
async fn a_removed_player_reads_only_their_own_seat_in_a_private_session() {
    let world = World::new().await;
    let game = world.new_active_session(3).await;
    let [removed_player, leaver, remaining_player] = [0, 1, 2].map(|index| &game.players[index]);
    world.new_attack_roll(game.session_id, removed_player.character_id, "{1,2,3,4,5}", 10, 0).await;
    let insert_initiative_roll = format!(
        "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type)
         VALUES ('{}', '{}', 'grace', 3, 'initiative') RETURNING id",
        game.session_id, remaining_player.character_id
    );
    let initiative_roll: Uuid = world.owner().fetch_value(&insert_initiative_roll).await.unwrap();
    let mut rows_before = count_visible_rows(&removed_player.caller, &game).await;
    // The number of events does not matter here.
    rows_before.retain(|(kind, _)| *kind != "events");
    let all_rows = [
        ("session", 1),
        ("rolls", 2),
        ("details", 1),
        ("seats", 3),
        ("may follow broadcasts", 1),
        ("may follow events", 1),
    ];
    assert_eq!(rows_before, all_rows);
    let update_seat = |set: &str, user: Uuid| {
        format!("UPDATE session_players SET {set} WHERE session_id = '{}' AND user_id = '{user}'", game.session_id)
    };
    assert_eq!(attempt(&leaver.caller, &update_seat("is_active = false", leaver.user_id)).await, "done");
    assert_eq!(attempt(&game.seer, &update_seat("removed_at = now()", removed_player.user_id)).await, "done");
    let replace_join_code = format!("SELECT FROM private.replace_session_code('{}')", game.session_id);
    assert_eq!(attempt(&game.seer, &replace_join_code).await, "done");

    let only_own_seat = [("seats", 1)];
    assert_eq!(count_visible_rows(&removed_player.caller, &game).await, only_own_seat);
    assert!(count_visible_rows(&leaver.caller, &game).await.contains(&("session", 1)), "a player who left may rejoin");
    assert!(count_visible_rows(&remaining_player.caller, &game).await.contains(&("seats", 3)));
    // `initiative_order` omits the rolls that its caller may not see.
    let count_ordered_rolls =
        format!("SELECT cardinality(private.initiative_order(ARRAY['{initiative_roll}']::uuid[]))");
    for (player, expected_count) in [(remaining_player, 1), (removed_player, 0)] {
        assert_eq!(player.caller.fetch_value::<i32>(&count_ordered_rolls).await, Ok(expected_count));
    }
    // Everyone sees a public session, but only its participants see its rolls and events.
    world.update_session(&game, "is_public = true").await;
    assert_eq!(count_visible_rows(&removed_player.caller, &game).await, [("session", 1), ("details", 1), ("seats", 3)]);
    world.update_session(&game, "is_public = false").await;
    // Once the Seer has readmitted the removed player, the player is a participant again.
    assert_eq!(attempt(&game.seer, &update_seat("removed_at = NULL", removed_player.user_id)).await, "done");
    assert!(count_visible_rows(&removed_player.caller, &game).await.starts_with(&[("session", 1), ("rolls", 2)]));
    assert_eq!(attempt(&game.seer, &update_seat("removed_at = now()", removed_player.user_id)).await, "done");
    // After the end of the session, and in the archive, the removed player still reads nothing but their own seat.
    for set in ["status = 'completed'", "ended_at = now() - INTERVAL '91 days'"] {
        world.update_session(&game, set).await;
    }
    assert_eq!(count_visible_rows(&removed_player.caller, &game).await, only_own_seat);
    assert_eq!(world.service().fetch_value::<i32>("SELECT private.archive_sessions(9)").await, Ok(1));
    assert_eq!(count_visible_rows(&removed_player.caller, &game).await, [("archived seats", 1)]);
    let all_archived_rows = [("archived session", 1), ("archived rolls", 2), ("archived seats", 3)];
    assert!(count_visible_rows(&leaver.caller, &game).await.ends_with(&all_archived_rows));
}

#[tokio::test]
async fn once_a_session_has_started_its_join_code_does_not_show_the_session_to_others() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let (player, removed_player, stranger) = (&game.players[0], &game.players[1], world.new_user().await);
    let join_code: String = world.owner().fetch_value("SELECT code::text FROM sessions").await.unwrap();
    let count_visible_sessions =
        async |caller: &SqlCaller| caller.count(&format!("private.session_by_code('{join_code}')")).await;
    let remove = format!("UPDATE session_players SET removed_at = now() WHERE user_id = '{}'", removed_player.user_id);
    assert_eq!(attempt(&game.seer, &remove).await, "done");
    for (status, visible_count_for_others) in
        [("waiting", 1), ("starting_soon", 1), ("active", 0), ("paused", 0), ("completed", 0)]
    {
        if status != "waiting" {
            world.update_session(&game, &format!("status = '{status}'")).await;
        }
        for (caller, expected_count) in [
            (&stranger, visible_count_for_others),
            (&removed_player.caller, visible_count_for_others),
            (&player.caller, 1),
            (&game.seer, 1),
            (&world.service(), 1),
        ] {
            assert_eq!(count_visible_sessions(caller).await, expected_count, "{status}, {:?}", caller.id);
        }
    }
}

#[tokio::test]
async fn times_in_json_are_in_utc_whatever_zone_the_caller_sets() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    world.update_session(&game, "scheduled_start = now() + INTERVAL '1 day'").await;
    let count_status_events = "SELECT count(*) FROM session_events WHERE event_type = 'session_status'";
    let count_status_events_in_utc = format!("{count_status_events} AND payload ->> 'started_at' LIKE '%+00:00'");
    // `<x>+150` is a time zone in the POSIX notation: 150 hours behind UTC.
    for zone in ["<x>+150", "Asia/Kolkata"] {
        let set_zone = format!("SET LOCAL timezone = '{zone}'; SET LOCAL datestyle = 'German'");
        // With the second zone, the session is `paused` at first, and becomes active again.
        for status in ["active", "paused"] {
            let sql = format!("{set_zone}; UPDATE sessions SET status = '{status}' WHERE id = '{}'", game.session_id);
            assert_eq!(attempt(&game.seer, &sql).await, "done", "{zone}");
        }
        let status_event_count = query_number(&world, count_status_events).await;
        assert!(status_event_count > 0, "{zone}");
        assert_eq!(query_number(&world, &count_status_events_in_utc).await, status_event_count, "{zone}");
        let assert_utc = format!(
            "{set_zone}; DO $$ DECLARE details jsonb; BEGIN
               SELECT session_data INTO details FROM public.get_session_details('{}');
               ASSERT details ->> 'created_at' LIKE '%+00:00', details ->> 'created_at';
               ASSERT details ->> 'scheduled_start' LIKE '%+00:00', details ->> 'scheduled_start';
             END $$",
            game.session_id
        );
        // The DO block affects no row.
        assert_eq!(dry_run(&game.seer, &assert_utc).await, "no row", "{zone}");
    }
}
