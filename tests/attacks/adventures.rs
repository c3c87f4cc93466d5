//! A stranger's session that ends before anybody takes a seat does not prevent the deletion of its adventure. An
//! unpublished adventure can be read only by its creator, and by the Seers and seated players of its live sessions
//! (those that have not ended). A JSON document counts as changed even if an edit adds only trailing zeros to a number
//! (`12` becomes `12.0`).

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{
    assert_invariants, attempt, execute_and_commit, execute_in, new_public_session, query_number,
    sqlstates::{
        ADVENTURE_NOT_PLAYABLE, ADVENTURE_PUBLISHED, CHECK_VIOLATION, FOREIGN_KEY_VIOLATION, ILLEGAL_TRANSITION,
        INSUFFICIENT_PRIVILEGE, SESSION_OVER,
    },
};
use crate::world::{SqlCaller, World, insert_seat_sql};

async fn cancel_session(world: &World, session: Uuid) {
    let sql = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{session}'");
    assert_eq!(attempt(&world.owner(), &sql).await, "done");
}

/// Moves the end of an ended session a year into the past, and archives the session, as a job does with sessions that
/// ended more than 90 days ago.
async fn archive_session(world: &World, session: Uuid) {
    let sql = format!("UPDATE sessions SET ended_at = now() - INTERVAL '1 year' WHERE id = '{session}'");
    assert_eq!(attempt(&world.owner(), &sql).await, "done");
    assert_eq!(world.service().fetch_value::<i32>("SELECT private.archive_sessions(100)").await, Ok(1));
}

#[tokio::test]
async fn a_strangers_cancelled_session_without_players_does_not_prevent_the_deletion_of_an_adventure() {
    for is_archived in [false, true] {
        for session_count in [1, 3] {
            let world = World::new().await;
            let creator = world.new_user().await;
            let adventure = world.new_adventure(creator.user_id()).await;
            let stranger = world.new_user().await;
            for _ in 0..session_count {
                let insert = format!(
                    "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}') RETURNING id",
                    stranger.user_id()
                );
                let session: Uuid = stranger.fetch_value(&insert).await.unwrap();
                cancel_session(&world, session).await;
                if is_archived {
                    archive_session(&world, session).await;
                }
            }
            let delete = format!("DELETE FROM adventures WHERE id = '{adventure}'");
            assert_eq!(attempt(&stranger, &delete).await, "no row");
            assert_eq!(attempt(&creator, &delete).await, "done", "archived: {is_archived}");
            for table in ["sessions", "archived_sessions"] {
                assert_eq!(world.owner().count(&format!("{table} WHERE adventure_id = '{adventure}'")).await, 0);
            }
            let delete_account = format!("DELETE FROM auth.users WHERE id = '{}'", creator.user_id());
            assert_eq!(attempt(&world.owner(), &delete_account).await, "done");
            assert_invariants(&world).await;
        }
    }
}

#[tokio::test]
async fn a_strangers_cancelled_session_without_players_does_not_prevent_the_deletion_of_a_profile() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let (adventure, stranger) = (world.new_adventure(creator.user_id()).await, world.new_account().await);
    let session = new_public_session(&world, stranger, adventure).await;
    cancel_session(&world, session).await;
    let delete = format!("DELETE FROM auth.users WHERE id = '{}'", creator.user_id());
    assert_eq!(attempt(&world.owner(), &delete).await, "done");
    assert_eq!(
        world.owner().count(&format!("users WHERE id = '{}'", creator.user_id())).await,
        0,
        "the profile is deleted, not only closed"
    );
    assert_invariants(&world).await;
}

#[tokio::test]
async fn history_prevents_the_deletion_of_an_adventure() {
    // The history of an adventure is its live sessions, and the ended ones in which somebody besides the Seer had a
    // seat.
    for session_kind in ["live", "live with a player", "left and cancelled", "completed", "archived"] {
        let world = World::new().await;
        let creator = world.new_user().await;
        let adventure = world.new_adventure(creator.user_id()).await;
        let (stranger, player) = (world.new_account().await, world.new_player().await);
        let session = new_public_session(&world, stranger, adventure).await;
        if session_kind != "live" {
            assert_eq!(
                attempt(&player.caller, &insert_seat_sql(session, player.user_id, player.character_id)).await,
                "done"
            );
        }
        let update_session = async |assignments: &str| {
            assert_eq!(
                attempt(&world.owner(), &format!("UPDATE sessions SET {assignments} WHERE id = '{session}'")).await,
                "done"
            );
        };
        match session_kind {
            "left and cancelled" => {
                let leave = format!("UPDATE session_players SET is_active = false WHERE session_id = '{session}'");
                assert_eq!(attempt(&player.caller, &leave).await, "done");
                update_session("status = 'cancelled'").await;
            }
            "completed" | "archived" => {
                update_session("status = 'active'").await;
                update_session("status = 'completed'").await;
            }
            _ => {}
        }
        if session_kind == "archived" {
            archive_session(&world, session).await;
        }
        assert_eq!(
            attempt(&creator, &format!("DELETE FROM adventures WHERE id = '{adventure}'")).await,
            FOREIGN_KEY_VIOLATION,
            "{session_kind}"
        );
        assert_eq!(world.owner().count(&format!("adventures WHERE id = '{adventure}'")).await, 1);
        // The account of the adventure's creator can still be deleted.
        let delete = format!("DELETE FROM auth.users WHERE id = '{}'", creator.user_id());
        assert_eq!(attempt(&world.owner(), &delete).await, "done", "{session_kind}");
        assert_invariants(&world).await;
    }
}

/// Returns whether the caller can read the word `secret` in the details of a session, in its adventure or in a creature
/// of the adventure.
async fn can_read_secret(caller: &SqlCaller, session: Uuid, adventure: Uuid) -> bool {
    for sql in [
        format!(
            "SELECT count(*) FROM public.get_session_details('{session}') AS details
             WHERE details::text LIKE '%secret%'"
        ),
        format!(
            "SELECT count(*) FROM private.session_details('{session}') AS details
             WHERE details::text LIKE '%secret%'"
        ),
        format!(
            "SELECT count(*) FROM adventures AS adventure
             WHERE id = '{adventure}' AND adventure::text LIKE '%secret%'"
        ),
        format!(
            "SELECT count(*) FROM creatures AS creature
             WHERE adventure_id = '{adventure}' AND creature::text LIKE '%secret%'"
        ),
    ] {
        // A caller who gets an error reads nothing.
        if caller.fetch_value::<i64>(&sql).await.unwrap_or(0) > 0 {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn others_read_unpublished_content_only_while_they_play_it() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let adventure = world.new_adventure(creator.user_id()).await;
    let seer = world.new_user().await;
    let mut sessions = Vec::new();
    for session_kind in ["live", "cancelled", "completed", "archived"] {
        let (player, former_player) = (world.new_player().await, world.new_player().await);
        let session = new_public_session(&world, seer.user_id(), adventure).await;
        for player in [&player, &former_player] {
            assert_eq!(
                attempt(&player.caller, &insert_seat_sql(session, player.user_id, player.character_id)).await,
                "done"
            );
        }
        let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{}'", former_player.user_id);
        assert_eq!(attempt(&former_player.caller, &leave).await, "done");
        sessions.push((session_kind, session, player, former_player));
    }
    // The creator unpublishes the adventure, and then adds something secret to its content and its creatures.
    for assignment in ["status = 'draft'", "content = '{\"nodes\": [], \"note\": \"secret\"}'"] {
        let update = format!("UPDATE adventures SET {assignment} WHERE id = '{adventure}'");
        assert_eq!(attempt(&creator, &update).await, "done");
    }
    let insert_creature = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', 'A secret')");
    assert_eq!(attempt(&creator, &insert_creature).await, "done");
    for (session_kind, session, ..) in &sessions {
        let steps: &[&str] = match *session_kind {
            "cancelled" => &["cancelled"],
            "completed" | "archived" => &["active", "completed"],
            _ => &[],
        };
        for status in steps {
            let sql = format!("UPDATE sessions SET status = '{status}' WHERE id = '{session}'");
            assert_eq!(attempt(&world.owner(), &sql).await, "done");
        }
        if *session_kind == "archived" {
            archive_session(&world, *session).await;
        }
    }
    for (session_kind, session, player, former_player) in &sessions {
        let is_live = *session_kind == "live";
        assert_eq!(can_read_secret(&seer, *session, adventure).await, is_live, "the Seer, {session_kind}");
        assert_eq!(can_read_secret(&player.caller, *session, adventure).await, is_live, "a player, {session_kind}");
        assert!(
            !can_read_secret(&former_player.caller, *session, adventure).await,
            "a player who left, {session_kind}"
        );
        assert!(!can_read_secret(&world.new_user().await, *session, adventure).await, "a stranger, {session_kind}");
        assert!(!can_read_secret(&world.visitor(), *session, adventure).await, "a visitor, {session_kind}");
        assert!(can_read_secret(&creator, *session, adventure).await, "the adventure's creator, {session_kind}");
    }
}

#[tokio::test]
async fn a_session_that_has_ended_cannot_be_reopened_to_read_its_adventure() {
    let world = World::new().await;
    let (creator, stranger) = (world.new_user().await, world.new_user().await);
    let adventure = world.new_adventure(creator.user_id()).await;
    let session = new_public_session(&world, stranger.user_id(), adventure).await;
    cancel_session(&world, session).await;
    assert_eq!(
        attempt(&creator, &format!("UPDATE adventures SET status = 'draft' WHERE id = '{adventure}'")).await,
        "done"
    );
    for status in ["waiting", "starting_soon", "active", "paused"] {
        let sql = format!("UPDATE sessions SET status = '{status}' WHERE id = '{session}'");
        assert_eq!(attempt(&stranger, &sql).await, ILLEGAL_TRANSITION, "{status}");
    }
    // Nor can the stranger create a new session of the draft, or write the column `adventure_id` of a session.
    let insert =
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", stranger.user_id());
    assert_eq!(attempt(&stranger, &insert).await, ADVENTURE_NOT_PLAYABLE);
    let other_adventure = world.new_adventure(creator.user_id()).await;
    let change = format!("UPDATE sessions SET adventure_id = '{other_adventure}' WHERE id = '{session}'");
    assert_eq!(attempt(&stranger, &change).await, INSUFFICIENT_PRIVILEGE);
}

#[tokio::test]
async fn json_that_differs_only_in_the_trailing_zeros_of_a_number_counts_as_changed() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let original = r#"{"scenes": [12], "gold": 0}"#;
    let variants = [
        r#"{"scenes": [12.0], "gold": 0}"#.to_owned(),
        format!(r#"{{"scenes": [12.{}], "gold": 0}}"#, "0".repeat(300)),
        r#"{"scenes": [12], "gold": 0.00}"#.to_owned(),
    ];
    let update_sql =
        |table: &str, assignments: &str, id: Uuid| format!("UPDATE {table} SET {assignments} WHERE id = '{id}'");
    let adventure = world.new_draft_adventure(game.seer.user_id()).await;
    let publish_assignments = format!("content = '{original}', is_valid = true, status = 'published'");
    assert_eq!(attempt(&world.owner(), &update_sql("adventures", &publish_assignments, adventure)).await, "done");
    let count_events = "SELECT count(*) FROM session_events WHERE event_type = 'game_state'";
    let select_version = "SELECT game_state_version::bigint FROM sessions";
    let set_state_sql = |state: &str| update_sql("sessions", &format!("game_state = '{state}'"), game.session_id);
    assert_eq!(attempt(&game.seer, &set_state_sql(original)).await, "done");
    for variant in &variants {
        let edit = update_sql("adventures", &format!("content = '{variant}'"), adventure);
        assert_eq!(attempt(&game.seer, &edit).await, ADVENTURE_PUBLISHED, "{variant}");
        let edit_and_unpublish =
            update_sql("adventures", &format!("content = '{variant}', status = 'draft'"), adventure);
        let transaction = game.seer.begin().await;
        execute_in(&transaction, &edit_and_unpublish).await.unwrap();
        let republish = update_sql("adventures", "status = 'published'", adventure);
        assert_eq!(
            execute_and_commit(transaction, &republish).await,
            CHECK_VIOLATION,
            "{variant} has not been validated"
        );

        // Writing the variant a second time does not change the state, so its version stays and no event is written.
        for state in [variant.as_str(), variant, original] {
            let expected_increase = i64::from(state != current_game_state(&world).await);
            let (version_before, event_count_before) =
                (query_number(&world, select_version).await, query_number(&world, count_events).await);
            assert_eq!(attempt(&game.seer, &set_state_sql(state)).await, "done");
            let version_and_event_count_after =
                (query_number(&world, select_version).await, query_number(&world, count_events).await);
            assert_eq!(
                version_and_event_count_after,
                (version_before + expected_increase, event_count_before + expected_increase),
                "{state}"
            );
        }
    }
    world.update_session(&game, "status = 'completed'").await;
    for variant in &variants {
        assert_eq!(attempt(&game.seer, &set_state_sql(variant)).await, SESSION_OVER, "{variant}");
    }
    assert_eq!(attempt(&game.seer, &set_state_sql(original)).await, "done", "the state does not change");
}

/// Returns the text of the only session's game state, with its keys in the order in which the test writes them.
async fn current_game_state(world: &World) -> String {
    let sql =
        "SELECT format('{\"scenes\": %s, \"gold\": %s}', game_state -> 'scenes', game_state -> 'gold') FROM sessions";
    world.owner().fetch_value(sql).await.unwrap()
}

#[tokio::test]
async fn only_the_first_publication_sets_the_time_of_publication() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let published_adventure = world.new_adventure(creator.user_id()).await;
    let set_status_sql =
        |status: &str| format!("UPDATE adventures SET status = '{status}' WHERE id = '{published_adventure}'");
    // The first publication of a draft sets the time.
    let draft_adventure = world.new_draft_adventure(creator.user_id()).await;
    let publish = format!("UPDATE adventures SET is_valid = true, status = 'published' WHERE id = '{draft_adventure}'");
    assert_eq!(attempt(&world.service(), &publish).await, "done");
    let select_has_published_at =
        format!("SELECT published_at IS NOT NULL FROM adventures WHERE id = '{draft_adventure}'");
    assert_eq!(world.owner().fetch_value::<bool>(&select_has_published_at).await, Ok(true));
    // Later publications do not change the time.
    let select_published_at = format!("SELECT published_at::text FROM adventures WHERE id = '{published_adventure}'");
    let time_of_first_publication: String = world.owner().fetch_value(&select_published_at).await.unwrap();
    for status in ["draft", "published", "archived", "published"] {
        assert_eq!(attempt(&creator, &set_status_sql(status)).await, "done");
        assert_eq!(
            world.owner().fetch_value::<String>(&select_published_at).await.unwrap(),
            time_of_first_publication,
            "{status}"
        );
    }
}

/// The crate `service` stores the result of a validation only if `updated_at` has not changed since the content was
/// read. So two edits must have different times even in one transaction, in which `now()` does not change.
#[tokio::test]
async fn two_edits_of_an_adventure_never_have_the_same_updated_at() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let draft_adventure = world.new_draft_adventure(creator.user_id()).await;
    let select_updated_at = format!("SELECT updated_at::text FROM adventures WHERE id = '{draft_adventure}'");
    let mut times = std::collections::BTreeSet::new();
    let edit_sql = |name: &str| {
        format!("UPDATE adventures SET content = '{{\"name\": \"{name}\"}}' WHERE id = '{draft_adventure}'")
    };
    let transaction = creator.begin().await;
    // The second edit writes the same content again.
    for name in ["Ford", "Ford", "Mill"] {
        execute_in(&transaction, &edit_sql(name)).await.unwrap();
        let row = transaction
            .query_one_raw(sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, &select_updated_at))
            .await;
        assert!(times.insert(row.unwrap().unwrap().try_get_by_index::<String>(0).unwrap()), "{name}");
    }
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_session_of_an_adventure_that_is_unpublished_meanwhile_is_not_created() {
    let world = World::new().await;
    let adventure = world.new_adventure(world.new_user().await.user_id()).await;
    let seer = world.new_user().await;
    // The INSERT of a session first checks the adventure. Then it updates the Seer's counter of sessions. Here the
    // counter is in a locked row, so the INSERT waits. After that, it checks the adventure again.
    let lock_holder = world.owner().begin().await;
    execute_in(&lock_holder, &format!("SELECT FROM users WHERE id = '{}' FOR UPDATE", seer.user_id())).await.unwrap();
    let (caller, sql) = (seer.clone(), format!("INSERT INTO sessions (adventure_id) VALUES ('{adventure}')"));
    let creation_task = tokio::spawn(async move { attempt(&caller, &sql).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    let unpublish = format!("UPDATE adventures SET status = 'draft' WHERE id = '{adventure}'");
    assert_eq!(attempt(&world.owner(), &unpublish).await, "done");
    lock_holder.commit().await.unwrap();
    assert_eq!(creation_task.await.unwrap(), ADVENTURE_NOT_PLAYABLE);
}
