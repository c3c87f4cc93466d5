//! Accounts and their profiles: sign-ups (which none of our triggers may refuse), changes of the e-mail address, and
//! the end of an account. The platform deletes an account softly (it sets `deleted_at`) or hard (it deletes the row). A
//! soft deletion *closes* the account: its personal data is removed, and the history of its games stays.

use sea_orm::ConnectionTrait;
use serde_json::Value;
use sparc::service::{
    Error, Operations,
    users::{NewAccount, ProfileChanges},
};
use uuid::Uuid;

use crate::{
    sqlstates::{ACCOUNT_CLOSED, CHECK_VIOLATION},
    world::{BoxedTask, World, fetch_row_as_json, insert_seat_sql, run_together},
};

/// Signs up by single sign-on, for which the platform permits the same e-mail address twice, and returns the profile.
/// `email` is an SQL literal: a quoted address or `NULL`.
async fn sign_up(world: &World, email: &str, metadata: Value) -> Value {
    let id = Uuid::new_v4();
    let sql = format!(
        "INSERT INTO auth.users (id, email, raw_user_meta_data, is_sso_user) VALUES ('{id}', {email}, '{metadata}', true)"
    );
    world.owner().execute(&sql).await.unwrap();
    fetch_row_as_json(&world.owner(), &format!("SELECT * FROM users WHERE id = '{id}'")).await
}

#[tokio::test]
async fn the_display_name_comes_from_the_first_usable_source() {
    let world = World::new().await;
    for (email, metadata, expected_name) in [
        ("'a@x.org'", serde_json::json!({"display_name": "Ada", "full_name": "B", "name": "C"}), "Ada"),
        ("'b@x.org'", serde_json::json!({"full_name": "Ada Byron", "name": "C"}), "Ada Byron"),
        ("'c@x.org'", serde_json::json!({"name": "Countess"}), "Countess"),
        ("'mailbox@x.org'", serde_json::json!({}), "mailbox"),
        ("'blank@x.org'", serde_json::json!({"display_name": "   "}), "blank"),
        ("NULL", serde_json::json!({}), "Adventurer"),
        ("'odd@x.org'", serde_json::json!("not an object"), "odd"),
        ("'list@x.org'", serde_json::json!(["display_name"]), "list"),
    ] {
        assert_eq!(sign_up(&world, email, metadata).await["display_name"], expected_name);
    }
}

#[tokio::test]
async fn an_account_without_an_email_address_or_with_a_taken_one_gets_an_address_made_of_its_id() {
    let world = World::new().await;
    for email in ["NULL", "''", "'  '"] {
        let profile = sign_up(&world, email, Value::Null).await;
        assert_eq!(profile["email"], format!("{}@no-email.invalid", profile["id"].as_str().unwrap()));
    }
    assert_eq!(sign_up(&world, "'one@x.org'", Value::Null).await["email"], "one@x.org");
    let second_profile = sign_up(&world, "'one@x.org'", Value::Null).await;
    assert_eq!(second_profile["email"], format!("{}@no-email.invalid", second_profile["id"].as_str().unwrap()));
}

#[tokio::test]
async fn sixteen_concurrent_sign_ups_with_one_email_address_all_succeed() {
    let world = World::new().await;
    let tasks = (0..16)
        .map(|_| {
            let owner = world.owner();
            let insert_account = "INSERT INTO auth.users (id, email, is_sso_user)
                          VALUES (gen_random_uuid(), 'same@x.org', true)";
            async move { owner.execute(insert_account).await }
        })
        .collect();
    assert!(run_together(tasks).await.iter().all(|outcome| *outcome == Ok(1)));
    assert_eq!(world.owner().count("users").await, 16);
    assert_eq!(world.owner().count("users WHERE email = 'same@x.org'").await, 1);
}

#[tokio::test]
async fn a_changed_email_address_reaches_the_profile_unless_it_is_taken() {
    let world = World::new().await;
    let (first_account_id, second_account_id) = (world.new_account().await, world.new_account().await);
    let set_email =
        |id, email: &str| format!("UPDATE auth.users SET email = '{email}', is_sso_user = true WHERE id = '{id}'");
    world.owner().execute(&set_email(first_account_id, "new@x.org")).await.unwrap();
    let select_email = |id| format!("SELECT email FROM users WHERE id = '{id}'");
    assert_eq!(world.owner().fetch_value::<String>(&select_email(first_account_id)).await.unwrap(), "new@x.org");
    world.owner().execute(&set_email(second_account_id, "new@x.org")).await.unwrap();
    assert_eq!(
        world.owner().fetch_value::<String>(&select_email(second_account_id)).await.unwrap(),
        format!("{second_account_id}@no-email.invalid")
    );
}

#[tokio::test]
async fn a_soft_deletion_removes_personal_data_and_drafts_and_ends_seats_and_sessions() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let player = &game.players[0];
    let user_id = player.user_id;
    player
        .caller
        .execute(
            "UPDATE users SET display_name = 'Real Name', avatar_url = 'https://x.org/me.png', bio = 'I live here'",
        )
        .await
        .unwrap();
    // Leaving and rejoining writes events with the player's name and picture.
    for is_active in [false, true] {
        player.caller.execute(&format!("UPDATE session_players SET is_active = {is_active}")).await.unwrap();
    }
    let draft_id = world.new_draft_adventure(user_id).await;
    let published_adventure_id = world.new_adventure(user_id).await;
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{user_id}', '{published_adventure_id}') RETURNING id"
    );
    let waiting_session_id: Uuid = world.owner().fetch_value(&sql).await.unwrap();
    let personal_data = "session_events WHERE payload::text LIKE '%Real Name%' OR payload::text LIKE '%me.png%'";
    assert!(world.owner().count(personal_data).await > 0, "events must contain personal data before the closing");

    world.owner().execute(&format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{user_id}'")).await.unwrap();

    let profile = fetch_row_as_json(&world.owner(), &format!("SELECT * FROM users WHERE id = '{user_id}'")).await;
    assert_eq!(profile["email"], format!("{user_id}@deleted.invalid"));
    assert_eq!(profile["display_name"], "Former player");
    assert!(profile["avatar_url"].is_null() && profile["bio"].is_null());
    let active_seats = format!("session_players WHERE user_id = '{user_id}' AND is_active");
    assert_eq!(world.owner().count(&active_seats).await, 0, "active seats must be given up");
    let select_status = format!("SELECT status::text FROM sessions WHERE id = '{waiting_session_id}'");
    assert_eq!(world.owner().fetch_value::<String>(&select_status).await.unwrap(), "cancelled");
    assert_eq!(world.owner().count(&format!("adventures WHERE id = '{draft_id}'")).await, 0, "drafts must be deleted");
    assert_eq!(
        world.owner().count(&format!("adventures WHERE id = '{published_adventure_id}'")).await,
        1,
        "published adventures must stay"
    );
    assert_eq!(world.owner().count(personal_data).await, 0, "no event may contain personal data");
    // The player left twice: once above, and once because the account was closed.
    assert_eq!(world.owner().count("session_events WHERE event_type = 'player_left'").await, 2);
}

#[tokio::test]
async fn a_token_that_outlives_its_account_writes_nothing() {
    let world = World::new().await;
    let player = world.new_player().await;
    let game = world.new_session(0).await;
    world.update_session(&game, "is_public = true").await;
    world
        .owner()
        .execute(&format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{}'", player.user_id))
        .await
        .unwrap();
    for write in [
        "UPDATE users SET display_name = 'Back again'".to_owned(),
        crate::world::insert_character_sql(Uuid::new_v4(), player.user_id),
        insert_seat_sql(game.session_id, player.user_id, player.character_id),
        format!("INSERT INTO sessions (adventure_id) VALUES ('{}')", game.adventure_id),
    ] {
        assert_refused!(player.caller.execute(&write).await, ACCOUNT_CLOSED, "account_open", "{write}");
    }
    // The platform can undo the deletion and then delete the account again. Both must succeed.
    let undelete_and_delete_again = format!(
        "UPDATE auth.users SET deleted_at = NULL WHERE id = '{0}'; UPDATE auth.users SET deleted_at = now() WHERE id = '{0}'",
        player.user_id
    );
    world.owner().execute(&undelete_and_delete_again).await.unwrap();
}

#[tokio::test]
async fn closing_an_account_archives_a_draft_if_another_user_has_a_seat_in_its_session() {
    let world = World::new().await;
    let seer = world.new_user().await;
    let draft_id = world.new_draft_adventure(seer.user_id()).await;
    let insert_session = format!("INSERT INTO sessions (adventure_id) VALUES ('{draft_id}') RETURNING id");
    let session_id: Uuid = seer.fetch_value(&insert_session).await.unwrap();
    let player = world.new_player().await;
    world.owner().execute(&insert_seat_sql(session_id, player.user_id, player.character_id)).await.unwrap();
    world
        .owner()
        .execute(&format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{}'", seer.user_id()))
        .await
        .unwrap();
    let status = world.owner().fetch_value::<String>("SELECT status::text FROM adventures").await.unwrap();
    assert_eq!(status, "archived", "the other player's history refers to the draft, so it must not be deleted");
}

#[tokio::test]
async fn a_hard_deletion_keeps_only_the_history_of_others() {
    let world = World::new().await;
    // This Seer is the only player of their own session, so nobody else has a part in it.
    let seer = world.new_player().await;
    let adventure_id = world.new_adventure(seer.user_id).await;
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure_id}') RETURNING id",
        seer.user_id
    );
    let session_id: Uuid = world.owner().fetch_value(&sql).await.unwrap();
    world.owner().execute(&insert_seat_sql(session_id, seer.user_id, seer.character_id)).await.unwrap();
    world.new_attack_roll(session_id, seer.character_id, "{1}", 10, 0).await;
    let delete_account = |id| format!("DELETE FROM auth.users WHERE id = '{id}'");
    assert_eq!(world.owner().execute(&delete_account(seer.user_id)).await, Ok(1));
    assert_eq!(world.owner().count("users").await + world.owner().count("sessions").await, 0);

    let game = world.new_session(1).await;
    for account_id in [game.players[0].user_id, game.seer.user_id()] {
        // No other user's history refers to the session and the character that are created here, so they must be
        // deleted with the account. The profile must stay.
        let insert_session = format!(
            "INSERT INTO sessions (seer_id, adventure_id, status) VALUES ('{account_id}', '{}', 'cancelled')",
            game.adventure_id
        );
        world.owner().execute(&insert_session).await.unwrap();
        world.new_character(account_id).await;
        assert_eq!(world.owner().execute(&delete_account(account_id)).await, Ok(1), "deleting an account must succeed");
        let anonymous_profile =
            format!("users WHERE id = '{account_id}' AND account_id IS NULL AND display_name = 'Former player'");
        assert_eq!(
            world.owner().count(&anonymous_profile).await,
            1,
            "the profile must stay, because the history of others refers to it"
        );
    }
    assert_eq!(world.owner().count("sessions").await, 1, "sessions without other players must be deleted");
    assert_eq!(world.owner().count("characters").await, 1, "characters without history must be deleted");
}

#[tokio::test]
async fn closing_an_account_closes_its_profile_even_if_the_trigger_on_accounts_is_disabled() {
    let world = World::new().await;
    let user = world.new_user().await;
    let disable_trigger = "ALTER TABLE auth.users DISABLE TRIGGER on_auth_user_changed";
    world.superuser().await.execute(disable_trigger).await.unwrap();
    user.execute(&format!("SELECT private.close_account('{}')", user.user_id())).await.unwrap();
    let closed_profile =
        format!("users WHERE id = '{}' AND closed_at IS NOT NULL AND display_name = 'Former player'", user.user_id());
    assert_eq!(world.owner().count(&closed_profile).await, 1);
}

#[tokio::test]
async fn an_account_that_is_imported_as_deleted_gets_a_closed_profile() {
    let world = World::new().await;
    let insert_account =
        "INSERT INTO auth.users (id, email, deleted_at) VALUES (gen_random_uuid(), 'gone@example.org', now())";
    world.owner().execute(insert_account).await.unwrap();
    assert_eq!(world.owner().count("users WHERE closed_at IS NOT NULL AND display_name = 'Former player'").await, 1);
    assert_eq!(world.owner().count("users").await, 1);
}

#[tokio::test]
async fn an_account_that_is_created_again_has_its_new_email_address() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let account_id = game.players[0].user_id;
    world.owner().execute(&format!("DELETE FROM auth.users WHERE id = '{account_id}'")).await.unwrap();
    let create_again = format!("INSERT INTO auth.users (id, email) VALUES ('{account_id}', 'back@example.org')");
    world.owner().execute(&create_again).await.unwrap();
    let reopened_profile =
        format!("users WHERE id = '{account_id}' AND closed_at IS NULL AND email = 'back@example.org'");
    assert_eq!(world.owner().count(&reopened_profile).await, 1);
}

#[tokio::test]
async fn accounts_that_close_concurrently_do_not_deadlock() {
    let world = World::new().await;
    let owner = world.owner();
    let mut games = [world.new_session(0).await, world.new_session(0).await, world.new_session(0).await];
    games.sort_by_key(|game| game.session_id);
    for round in 0..10 {
        let (ada, ben, cas) = (world.new_player().await, world.new_player().await, world.new_player().await);
        for (game, mirrored_game) in games.iter().zip(games.iter().rev()) {
            // Ada takes her seats in the opposite order to Ben and Cas. If closing an account waited for one session
            // while it holds another, the transactions could lock the sessions in opposite orders.
            owner.execute(&insert_seat_sql(game.session_id, ada.user_id, ada.character_id)).await.unwrap();
            owner.execute(&insert_seat_sql(mirrored_game.session_id, ben.user_id, ben.character_id)).await.unwrap();
            owner.execute(&insert_seat_sql(mirrored_game.session_id, cas.user_id, cas.character_id)).await.unwrap();
        }
        let mut tasks: Vec<BoxedTask<_>> = Vec::new();
        for account_id in [ada.user_id, ben.user_id] {
            let owner = owner.clone();
            tasks.push(Box::pin(async move {
                owner.execute(&format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{account_id}'")).await
            }));
        }
        // Cas leaves a session while Cas's own account is being closed.
        for sql in [
            format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{}'", cas.user_id),
            format!(
                "UPDATE session_players SET is_active = false WHERE user_id = '{}' AND session_id = '{}'",
                cas.user_id, games[0].session_id
            ),
        ] {
            let owner = owner.clone();
            tasks.push(Box::pin(async move { owner.execute(&sql).await }));
        }
        for outcome in run_together(tasks).await {
            assert!(outcome.is_ok(), "round {round}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn closing_an_account_waits_for_a_locked_seat_without_locking_the_seats_session() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let (owner, ada_id) = (world.owner(), game.players[0].user_id);
    let leave_transaction = owner.begin().await;
    let lock_seat = format!("SELECT FROM session_players WHERE user_id = '{ada_id}' FOR UPDATE");
    leave_transaction.execute_unprepared(&lock_seat).await.unwrap();
    let close_account = format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{ada_id}'");
    let (close_outcome, ()) = tokio::join!(owner.execute(&close_account), async {
        owner.wait_until_backends_wait_for_locks(1).await;
        // Leaving locks the session after the seat. If closing the account had locked the session before it waited for
        // the seat, that would be a deadlock.
        let leave = format!("UPDATE session_players SET is_active = false WHERE user_id = '{ada_id}'");
        leave_transaction.execute_unprepared(&leave).await.unwrap();
        leave_transaction.commit().await.unwrap();
    });
    assert!(close_outcome.is_ok(), "{close_outcome:?}");
}

#[tokio::test]
async fn two_seers_with_seats_in_each_others_session_close_their_accounts_without_a_deadlock() {
    let world = World::new().await;
    let owner = world.owner();
    let mut games = [world.new_session(0).await, world.new_session(0).await];
    games.sort_by_key(|game| game.session_id);
    let [first_game, second_game] = &games;
    // Closing an account locks the session in which the account has a seat and the session that the account runs. If
    // the closing waited for one while it holds the other, the two transactions could lock the sessions in opposite
    // orders.
    for (game, other_game) in [(first_game, second_game), (second_game, first_game)] {
        let other_seer_id = other_game.seer.user_id();
        let hero_id = world.new_character(other_seer_id).await;
        owner.execute(&insert_seat_sql(game.session_id, other_seer_id, hero_id)).await.unwrap();
    }
    let lock_transaction = owner.begin().await;
    lock_transaction
        .execute_unprepared(&format!("SELECT FROM sessions WHERE id = '{}' FOR UPDATE", second_game.session_id))
        .await
        .unwrap();
    let close_account = |account_id| format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{account_id}'");
    // The first game's Seer has a seat in the second game, which `lock_transaction` has locked. So closing the first
    // Seer's account waits. Only then does closing the second Seer's account start.
    let (close_first, close_second) =
        (close_account(first_game.seer.user_id()), close_account(second_game.seer.user_id()));
    let (first_outcome, second_outcome, ()) = tokio::join!(
        owner.execute(&close_first),
        async {
            owner.wait_until_backends_wait_for_locks(1).await;
            owner.execute(&close_second).await
        },
        async {
            owner.wait_until_backends_wait_for_locks(2).await;
            lock_transaction.commit().await.unwrap();
        }
    );
    assert!(first_outcome.is_ok() && second_outcome.is_ok(), "{first_outcome:?} {second_outcome:?}");
}

#[tokio::test]
async fn not_even_the_service_can_give_an_account_the_reserved_address_of_another() {
    let world = World::new().await;
    let (account_id, other_account_id) = (world.new_account().await, world.new_account().await);
    // Addresses at these domains are reserved. Only the account whose id is before the `@` may have one.
    for reserved_address in
        [format!("{account_id}@deleted.invalid"), format!("{account_id}@NO-EMAIL.invalid"), "x@deleted.invalid".into()]
    {
        let take_address = format!("UPDATE users SET email = '{reserved_address}' WHERE id = '{other_account_id}'");
        assert_refused!(
            world.service().execute(&take_address).await,
            CHECK_VIOLATION,
            "reserved_email_is_own",
            "{reserved_address}"
        );
    }
    let take_own_address =
        format!("UPDATE users SET email = '{account_id}@no-email.invalid' WHERE id = '{account_id}'");
    assert_eq!(world.service().execute(&take_own_address).await, Ok(1));
}

#[tokio::test]
async fn a_user_signs_up_and_edits_their_profile() {
    let world = World::new().await;
    let new_account =
        NewAccount { email: Some("ada@x.org".into()), display_name: Some("Ada".into()), ..Default::default() };
    assert!(!format!("{new_account:?}").contains("ada@x.org"), "the debug output must not contain the e-mail address");
    let profile = world.sparc.as_service().users().sign_up(new_account).await.unwrap();
    let ada = world.sparc.as_user(profile.id);
    assert_eq!(ada.users().my_email().await.unwrap(), "ada@x.org");
    let changes = ProfileChanges { bio: Some(Some("Counts".into())), ..Default::default() };
    let edited_profile = ada.users().edit(changes).await.unwrap();
    assert_eq!((edited_profile.display_name.as_str(), edited_profile.bio.as_deref()), ("Ada", Some("Counts")));
    assert_eq!(ada.users().edit(ProfileChanges::default()).await.unwrap(), edited_profile);
    assert_eq!(world.sparc.as_anon().users().profiles(&[profile.id]).await.unwrap().len(), 1);
    assert_error!(ada.users().sign_up(NewAccount::default()).await, Error::NotAllowed { .. });
    assert_error!(world.sparc.as_anon().users().me().await, Error::NotSignedIn);
}
