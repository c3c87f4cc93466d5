//! Closing an account removes its personal data. Whether an account is closed does not depend on its e-mail address. A
//! closed account cannot write to any table, whatever the status of its sessions. Closing an account waits for the
//! account's uncommitted writes, and later writes wait for the closing. The platform (Supabase) closes and deletes
//! accounts; an account's user and the service can close it too.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, close_account, close_account_sql, dry_run, execute_and_commit, execute_in,
    is_account_closed, new_public_session,
    populated_account::{all_writes, create_populated_account},
    sqlstates::{ACCOUNT_CLOSED, ADVENTURE_NOT_PLAYABLE, INSUFFICIENT_PRIVILEGE, SERIALIZATION_FAILURE},
};
use crate::world::{Player, World, insert_attribute_check_sql, insert_character_sql, insert_seat_sql};

async fn profile_email(world: &World, account: Uuid) -> String {
    world.owner().fetch_value(&format!("SELECT email FROM users WHERE id = '{account}'")).await.unwrap()
}

/// Returns e-mail addresses in the reserved domains `deleted.invalid` and `no-email.invalid`. (The profile of a closed
/// account gets the *reserved address* `ID@deleted.invalid`, and that of an account without an address gets
/// `ID@no-email.invalid`.) Most of the returned addresses look like a reserved address of the account with this id.
fn reserved_addresses(id: Uuid) -> Vec<String> {
    let uppercase_id = id.to_string().to_uppercase();
    vec![
        format!("{id}@deleted.invalid"),
        format!("{id}@no-email.invalid"),
        format!("{uppercase_id}@DELETED.INVALID"),
        format!("{id}@Deleted.Invalid"),
        format!("{uppercase_id}@No-Email.INVALID"),
        format!(" {id}@deleted.invalid "),
        format!("{id}@deleted.invalid\t"),
        "anybody@deleted.invalid".to_owned(),
    ]
}

#[tokio::test]
async fn an_email_address_in_a_reserved_domain_is_replaced() {
    let world = World::new().await;
    let owner = world.owner();
    let address_count = reserved_addresses(Uuid::nil()).len();
    for index in 0..address_count {
        // The address is set at sign-up or by a later change, and contains the victim's id or the attacker's own.
        for (is_set_at_sign_up, has_attackers_id) in [(true, false), (false, false), (true, true), (false, true)] {
            let (victim, attacker) = (world.new_account().await, Uuid::new_v4());
            let address = reserved_addresses(if has_attackers_id { attacker } else { victim }).remove(index);
            // The attacker's account is an SSO account, because on Supabase only SSO accounts may share an address.
            if is_set_at_sign_up {
                let sql =
                    format!("INSERT INTO auth.users (id, email, is_sso_user) VALUES ('{attacker}', '{address}', true)");
                owner.execute(&sql).await.unwrap();
            } else {
                let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{attacker}', '{attacker}@example.org')");
                owner.execute(&sql).await.unwrap();
                let sql =
                    format!("UPDATE auth.users SET email = '{address}', is_sso_user = true WHERE id = '{attacker}'");
                owner.execute(&sql).await.unwrap();
            }
            assert_eq!(profile_email(&world, attacker).await, format!("{attacker}@no-email.invalid"), "{address:?}");
            assert!(!is_account_closed(&world, attacker).await, "{address:?} must close no account");
            let update_bio = format!("UPDATE users SET bio = 'Here.' WHERE id = '{attacker}'");
            assert_eq!(attempt(&world.user(attacker), &update_bio).await, "done", "{address:?}");

            // The victim's account can still be closed: by the platform, by its user, or by the service.
            match index % 3 {
                0 => close_account(&world, victim).await,
                1 => {
                    let sql = format!("SELECT private.close_account('{victim}')");
                    assert_eq!(attempt(&world.user(victim), &sql).await, "done");
                }
                _ => {
                    let sql = format!("SELECT private.close_account('{victim}')");
                    assert_eq!(attempt(&world.service(), &sql).await, "done");
                }
            }
            assert_eq!(profile_email(&world, victim).await, format!("{victim}@deleted.invalid"), "{address:?}");
            // The attacker's account can be closed too.
            close_account(&world, attacker).await;
            assert_eq!(profile_email(&world, attacker).await, format!("{attacker}@deleted.invalid"), "{address:?}");
        }
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn nobody_can_take_the_reserved_address_of_another_account() {
    let world = World::new().await;
    let (attacker, victim) = (Uuid::new_v4(), Uuid::new_v4());
    // The attacker asks for the reserved address that the victim, who has no address, gets later.
    for (id, address) in [(attacker, format!("'{victim}@no-email.invalid'")), (victim, "NULL".to_owned())] {
        world.owner().execute(&format!("INSERT INTO auth.users (id, email) VALUES ('{id}', {address})")).await.unwrap();
        assert_eq!(profile_email(&world, id).await, format!("{id}@no-email.invalid"));
    }
}

#[tokio::test]
async fn a_closed_account_writes_nothing() {
    for closed_by in ["platform", "user", "service", "deletion"] {
        let world = World::new().await;
        let fixture = create_populated_account(&world).await;
        let statements = all_writes(&fixture);
        for sql in &statements {
            let outcome = dry_run(&fixture.caller, sql).await;
            assert_eq!(outcome, "done", "before the account is closed: {sql}");
        }
        let close = format!("SELECT private.close_account('{}')", fixture.account_id);
        match closed_by {
            "platform" => close_account(&world, fixture.account_id).await,
            "user" => assert_eq!(attempt(&fixture.caller, &close).await, "done"),
            "service" => assert_eq!(attempt(&world.service(), &close).await, "done"),
            _ => {
                let sql = format!("DELETE FROM auth.users WHERE id = '{}'", fixture.account_id);
                assert_eq!(attempt(&world.owner(), &sql).await, "done");
            }
        }
        let mut unexpected_outcomes = Vec::new();
        for sql in &statements {
            let outcome = dry_run(&fixture.caller, sql).await;
            // Row security can refuse the write first (42501). "no row" is the outcome if the row no longer exists. A
            // new session can be refused because its adventure no longer exists.
            if ![ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, "no row", ADVENTURE_NOT_PLAYABLE].contains(&outcome.as_str()) {
                unexpected_outcomes.push(format!("{outcome}: {sql}"));
            }
        }
        assert!(unexpected_outcomes.is_empty(), "{closed_by}:\n{}", unexpected_outcomes.join("\n"));
        // These statements are refused because the account is closed, and not for another reason. The exception is the
        // change of the published adventure after a deletion: nobody has played the adventure, so it no longer exists.
        for sql in [
            format!("UPDATE users SET bio = 'Back.' WHERE id = '{}'", fixture.account_id),
            insert_character_sql(Uuid::new_v4(), fixture.account_id),
            format!("UPDATE characters SET name = 'Back again' WHERE id = '{}'", fixture.seated_character_id),
            format!("UPDATE sessions SET looking_for = 'Me' WHERE id = '{}'", fixture.completed_session.session_id),
            format!("INSERT INTO adventures (creator_id, name) VALUES ('{}', 'A new draft')", fixture.account_id),
            format!("UPDATE adventures SET name = 'Renamed' WHERE id = '{}'", fixture.published_adventure_id),
            format!(
                "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave')",
                fixture.completed_session.session_id
            ),
            insert_attribute_check_sql(fixture.completed_session.session_id, fixture.seated_character_id),
            format!("SELECT * FROM private.join_by_code('NOCODE', '{}')", fixture.seated_character_id),
            format!("SELECT * FROM private.replace_session_code('{}')", fixture.completed_session.session_id),
            format!("SELECT private.require_event_access('{}')", fixture.completed_session.session_id),
        ] {
            if closed_by != "deletion" || !sql.contains("adventures SET") {
                assert_eq!(dry_run(&fixture.caller, &sql).await, ACCOUNT_CLOSED, "{closed_by}: {sql}");
            }
        }
        assert_invariants(&world).await;
    }
}

#[tokio::test]
async fn nobody_reopens_a_closed_account() {
    let world = World::new().await;
    let user = world.new_user().await;
    close_account(&world, user.user_id()).await;
    for caller in [&user, &world.new_user().await, &world.visitor()] {
        for set in ["closed_at = NULL", "email = 'back@example.org'", "account_id = id"] {
            let sql = format!("UPDATE users SET {set} WHERE id = '{}'", user.user_id());
            assert_eq!(attempt(caller, &sql).await, INSUFFICIENT_PRIVILEGE, "{set}");
        }
    }
    // Nor does anybody store personal data in the account's profile again.
    for caller in [&world.service(), &world.owner()] {
        for set in [
            "email = 'back@example.org'",
            "display_name = 'Ada'",
            "avatar_url = 'https://example.org/a.png'",
            "bio = 'Back.'",
        ] {
            let sql = format!("UPDATE users SET {set} WHERE id = '{}'", user.user_id());
            assert_refused!(caller.execute(&sql).await, ACCOUNT_CLOSED, "account_open", "{set}");
        }
    }
    // A later change by the platform does not reopen the account either.
    let sql = format!("UPDATE auth.users SET email = 'back@example.org' WHERE id = '{}'", user.user_id());
    world.owner().execute(&sql).await.unwrap();
    assert!(is_account_closed(&world, user.user_id()).await);
    assert_eq!(profile_email(&world, user.user_id()).await, format!("{}@deleted.invalid", user.user_id()));
}

/// Returns eight statements that a player can have sent just before their account closes. `left_session` is a session
/// that the player has left, and `join_code` is the join code of `public_session`.
fn pending_requests(
    player: &Player,
    adventure: Uuid,
    public_session: Uuid,
    left_session: Uuid,
    join_code: &str,
) -> Vec<String> {
    let account = player.user_id;
    vec![
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{account}', '{adventure}')"),
        format!("INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'A draft')"),
        insert_seat_sql(public_session, account, player.character_id),
        format!(
            "UPDATE session_players SET is_active = true WHERE session_id = '{left_session}' AND user_id = '{account}'"
        ),
        format!("SELECT * FROM private.join_by_code('{join_code}', '{}')", player.character_id),
        insert_character_sql(Uuid::new_v4(), account),
        format!("UPDATE users SET display_name = 'Somebody', bio = 'Me.' WHERE id = '{account}'"),
        format!("INSERT INTO tutorial_progress (user_id) VALUES ('{account}')"),
    ]
}

#[tokio::test]
async fn the_closing_of_an_account_and_its_pending_requests_wait_for_each_other() {
    let world = World::new().await;
    for closing_is_first in [true, false] {
        for has_old_snapshot in [true, false] {
            // One round for each of the eight pending requests.
            for index in 0..8 {
                let (player, public_game, left_game) =
                    (world.new_player().await, world.new_session(0).await, world.new_session(1).await);
                world.update_session(&public_game, "is_public = true").await;
                world
                    .owner()
                    .execute(&insert_seat_sql(left_game.session_id, player.user_id, player.character_id))
                    .await
                    .unwrap();
                let leave = format!(
                    "UPDATE session_players SET is_active = false WHERE user_id = '{}' AND session_id = '{}'",
                    player.user_id, left_game.session_id
                );
                world.owner().execute(&leave).await.unwrap();
                let join_code: String = world
                    .owner()
                    .fetch_value(&format!("SELECT code::text FROM sessions WHERE id = '{}'", public_game.session_id))
                    .await
                    .unwrap();
                let sql = pending_requests(
                    &player,
                    public_game.adventure_id,
                    public_game.session_id,
                    left_game.session_id,
                    &join_code,
                )
                .remove(index);
                let close = close_account_sql(player.user_id);
                let user_transaction = match has_old_snapshot {
                    true => player.caller.begin_with_snapshot().await,
                    false => player.caller.begin().await,
                };
                let platform_transaction = world.owner().begin().await;
                if closing_is_first {
                    execute_in(&platform_transaction, &close).await.unwrap();
                    let request = sql.clone();
                    let request_task =
                        tokio::spawn(async move { execute_and_commit(user_transaction, &request).await });
                    world.owner().wait_until_backends_wait_for_locks(1).await;
                    platform_transaction.commit().await.unwrap();
                    let outcome = request_task.await.unwrap();
                    assert!([ACCOUNT_CLOSED, SERIALIZATION_FAILURE].contains(&outcome.as_str()), "{outcome}: {sql}");
                } else {
                    assert!(execute_in(&user_transaction, &sql).await.is_ok(), "{sql}");
                    let closing_task =
                        tokio::spawn(async move { execute_and_commit(platform_transaction, &close).await });
                    world.owner().wait_until_backends_wait_for_locks(1).await;
                    user_transaction.commit().await.unwrap();
                    assert_eq!(closing_task.await.unwrap(), "done", "{sql}");
                }
                assert!(is_account_closed(&world, player.user_id).await);
            }
        }
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn no_live_session_outlives_the_account_of_its_seer() {
    for closed_by in ["platform", "user", "deletion"] {
        let world = World::new().await;
        // The statuses of a live session: one that has not ended.
        for status in ["waiting", "starting_soon", "active", "paused"] {
            let game = world.new_session(2).await;
            if status == "paused" {
                world.update_session(&game, "status = 'active'").await;
            }
            if status != "waiting" {
                world.update_session(&game, &format!("status = '{status}'")).await;
            }
            let seer = game.seer.user_id();
            match closed_by {
                "platform" => close_account(&world, seer).await,
                "user" => {
                    assert_eq!(attempt(&game.seer, &format!("SELECT private.close_account('{seer}')")).await, "done");
                }
                _ => assert_eq!(
                    attempt(&world.owner(), &format!("DELETE FROM auth.users WHERE id = '{seer}'")).await,
                    "done"
                ),
            }
            let live_sessions = format!(
                "sessions WHERE seer_id = '{seer}' AND status IN ('waiting', 'starting_soon', 'active', 'paused')"
            );
            assert_eq!(world.owner().count(&live_sessions).await, 0, "{closed_by}, {status}");
            // A character with a seat in a live session could not retire.
            let player = &game.players[0];
            let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", player.character_id);
            assert_eq!(attempt(&player.caller, &retire).await, "done", "{closed_by}, {status}");
        }
        assert_invariants(&world).await;
    }
}

#[tokio::test]
async fn deleting_an_account_always_succeeds() {
    let world = World::new().await;
    let fixture = create_populated_account(&world).await;
    // In addition, a stranger runs a session of the account's adventure, and a session of the account is archived.
    let stranger = world.new_account().await;
    let stranger_session = new_public_session(&world, stranger, fixture.published_adventure_id).await;
    let player = &fixture.joined_session.players[0];
    let insert_seat = insert_seat_sql(stranger_session, player.user_id, player.character_id);
    world.owner().execute(&insert_seat).await.unwrap();
    world.update_session(&fixture.completed_session, "ended_at = now() - INTERVAL '1 year'").await;
    assert_eq!(world.service().fetch_value::<i32>("SELECT private.archive_sessions(10)").await, Ok(1));
    for account in [
        fixture.account_id,
        fixture.joined_session.players[0].user_id,
        fixture.joined_session.seer.user_id(),
        fixture.live_session.players[0].user_id,
        stranger,
    ] {
        assert_eq!(attempt(&world.owner(), &format!("DELETE FROM auth.users WHERE id = '{account}'")).await, "done");
        assert_eq!(world.owner().count(&format!("auth.users WHERE id = '{account}'")).await, 0);
        let unerased_profile = format!(
            "users WHERE id = '{account}' AND (
               display_name <> 'Former player' OR avatar_url IS NOT NULL OR bio IS NOT NULL
               OR closed_at IS NULL OR account_id IS NOT NULL OR email <> id || '@deleted.invalid'
             )"
        );
        assert_eq!(
            world.owner().count(&unerased_profile).await,
            0,
            "a profile that stays has no account and no personal data"
        );
    }
    // Sessions that others have played keep their seats, even the seats of deleted accounts.
    assert_eq!(
        world.owner().count(&format!("session_players WHERE session_id = '{}'", fixture.live_session.session_id)).await,
        2
    );
    // An account that had no part in any session leaves no rows.
    let newcomer = world.new_player().await;
    world.new_draft_adventure(newcomer.user_id).await;
    assert_eq!(
        attempt(&world.owner(), &format!("DELETE FROM auth.users WHERE id = '{}'", newcomer.user_id)).await,
        "done"
    );
    for table_and_column in ["users WHERE id", "characters WHERE user_id", "adventures WHERE creator_id"] {
        let rows = format!("{table_and_column} = '{}'", newcomer.user_id);
        assert_eq!(world.owner().count(&rows).await, 0, "{table_and_column}");
    }
    // A new account with the same id gets the old profile, and may write again.
    let returning_account = fixture.account_id;
    let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{returning_account}', 'back@example.org')");
    assert_eq!(attempt(&world.owner(), &sql).await, "done");
    assert!(!is_account_closed(&world, returning_account).await);
    let write_bio = format!("UPDATE users SET bio = 'Back.' WHERE id = '{returning_account}'");
    assert_eq!(attempt(&world.user(returning_account), &write_bio).await, "done");
    assert_invariants(&world).await;
}
