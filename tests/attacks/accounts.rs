//! Only `closed_at` marks an account as closed. A closed account cannot write to any table, whatever the status of its
//! sessions. Closing an account waits for the account's uncommitted writes, and later writes wait for the closing.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, close, close_or_delete, dry_run, execute_and_commit, execute_in,
    full_account::{all_writes, create_full_account},
    is_closed, open_session,
    sqlstates::{ACCOUNT_CLOSED, ADVENTURE_NOT_PLAYABLE, INSUFFICIENT_PRIVILEGE, SERIALIZATION_FAILURE},
};
use crate::world::{Player, World, insert_character_sql, insert_roll_sql, insert_seat_sql};

async fn profile_email(world: &World, account: Uuid) -> String {
    world.owner().fetch_value(&format!("SELECT email FROM users WHERE id = '{account}'")).await.unwrap()
}

/// Returns e-mail addresses in the domains that are reserved for the placeholders of closed accounts and of accounts
/// without an address. Most look like the placeholder of the account with this id.
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
        for (is_set_at_sign_up, has_own_id) in [(true, false), (false, false), (true, true), (false, true)] {
            let (victim, attacker) = (world.new_account().await, Uuid::new_v4());
            let address = reserved_addresses(if has_own_id { attacker } else { victim }).remove(index);
            // On Supabase, only the addresses of SSO accounts need not be unique.
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
            assert!(!is_closed(&world, attacker).await, "{address:?} must close no account");
            let bio = format!("UPDATE users SET bio = 'Here.' WHERE id = '{attacker}'");
            assert_eq!(attempt(&world.user(attacker), &bio).await, "done", "{address:?}");

            // The victim's account can still be closed: by the platform, by its user, or by the service.
            match index % 3 {
                0 => close(&world, victim).await,
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
            close(&world, attacker).await;
            assert_eq!(profile_email(&world, attacker).await, format!("{attacker}@deleted.invalid"), "{address:?}");
        }
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn nobody_can_take_the_placeholder_address_of_another_account() {
    let world = World::new().await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    // The first account asks for the placeholder address that the second one gets later.
    for (id, address) in [(first, format!("'{second}@no-email.invalid'")), (second, "NULL".to_owned())] {
        world.owner().execute(&format!("INSERT INTO auth.users (id, email) VALUES ('{id}', {address})")).await.unwrap();
        assert_eq!(profile_email(&world, id).await, format!("{id}@no-email.invalid"));
    }
}

#[tokio::test]
async fn a_closed_account_writes_nothing() {
    for closed_by in ["platform", "user", "service", "deletion"] {
        let world = World::new().await;
        let fixture = create_full_account(&world).await;
        let statements = all_writes(&fixture);
        for sql in &statements {
            let outcome = dry_run(&fixture.person, sql).await;
            assert_eq!(outcome, "done", "before the account is closed: {sql}");
        }
        let closing = format!("SELECT private.close_account('{}')", fixture.account);
        match closed_by {
            "platform" => close(&world, fixture.account).await,
            "user" => assert_eq!(attempt(&fixture.person, &closing).await, "done"),
            "service" => assert_eq!(attempt(&world.service(), &closing).await, "done"),
            _ => {
                let sql = format!("DELETE FROM auth.users WHERE id = '{}'", fixture.account);
                assert_eq!(attempt(&world.owner(), &sql).await, "done");
            }
        }
        let mut accepted = Vec::new();
        for sql in &statements {
            let outcome = dry_run(&fixture.person, sql).await;
            // Row security refuses (42501) or hides a row that no longer exists or no longer belongs to the account. A
            // new session may be refused because its adventure no longer exists.
            if ![ACCOUNT_CLOSED, INSUFFICIENT_PRIVILEGE, "no row", ADVENTURE_NOT_PLAYABLE].contains(&outcome.as_str()) {
                accepted.push(format!("{outcome}: {sql}"));
            }
        }
        assert!(accepted.is_empty(), "{closed_by}:\n{}", accepted.join("\n"));
        // Writes to rows that still belong to the account are refused because the account is closed. After a deletion,
        // the adventure no longer exists.
        for sql in [
            format!("UPDATE users SET bio = 'Back.' WHERE id = '{}'", fixture.account),
            insert_character_sql(Uuid::new_v4(), fixture.account),
            format!("UPDATE characters SET name = 'Back again' WHERE id = '{}'", fixture.hero),
            format!("UPDATE sessions SET looking_for = 'Me' WHERE id = '{}'", fixture.finished.session_id),
            format!("INSERT INTO adventures (creator_id, name) VALUES ('{}', 'A new draft')", fixture.account),
            format!("UPDATE adventures SET name = 'Renamed' WHERE id = '{}'", fixture.published),
            format!(
                "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave')",
                fixture.finished.session_id
            ),
            insert_roll_sql(fixture.finished.session_id, fixture.hero),
            format!("SELECT * FROM private.join_by_code('NOCODE', '{}')", fixture.hero),
            format!("SELECT * FROM private.renew_session_code('{}')", fixture.finished.session_id),
            format!("SELECT private.require_listener('{}')", fixture.finished.session_id),
        ] {
            if closed_by != "deletion" || !sql.contains("adventures SET") {
                assert_eq!(dry_run(&fixture.person, &sql).await, ACCOUNT_CLOSED, "{closed_by}: {sql}");
            }
        }
        assert_invariants(&world).await;
    }
}

#[tokio::test]
async fn nobody_reopens_a_closed_account() {
    let world = World::new().await;
    let user = world.new_user().await;
    close(&world, user.user_id()).await;
    for person in [&user, &world.new_user().await, &world.visitor()] {
        for set in ["closed_at = NULL", "email = 'back@example.org'", "account_id = id"] {
            let sql = format!("UPDATE users SET {set} WHERE id = '{}'", user.user_id());
            assert_eq!(attempt(person, &sql).await, INSUFFICIENT_PRIVILEGE, "{set}");
        }
    }
    for person in [&world.service(), &world.owner()] {
        for set in ["display_name = 'Ada'", "avatar_url = 'https://example.org/a.png'", "bio = 'Back.'"] {
            let sql = format!("UPDATE users SET {set} WHERE id = '{}'", user.user_id());
            assert_refused!(person.execute(&sql).await, ACCOUNT_CLOSED, "account_open", "{set}");
        }
    }
    // A later change by the platform does not reopen it either.
    let sql = format!("UPDATE auth.users SET email = 'back@example.org' WHERE id = '{}'", user.user_id());
    world.owner().execute(&sql).await.unwrap();
    assert!(is_closed(&world, user.user_id()).await);
    assert_eq!(profile_email(&world, user.user_id()).await, format!("{}@deleted.invalid", user.user_id()));
}

/// Returns requests that a player may have sent just before their account closes.
fn pending_requests(
    account: Uuid,
    player: &Player,
    adventure: Uuid,
    public_session: Uuid,
    left_session: Uuid,
    code: &str,
) -> Vec<String> {
    vec![
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{account}', '{adventure}')"),
        format!("INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'A draft')"),
        insert_seat_sql(public_session, account, player.character_id),
        format!(
            "UPDATE session_players SET is_active = true WHERE session_id = '{left_session}' AND user_id = '{account}'"
        ),
        format!("SELECT * FROM private.join_by_code('{code}', '{}')", player.character_id),
        insert_character_sql(Uuid::new_v4(), account),
        format!("UPDATE users SET display_name = 'Somebody', bio = 'Me.' WHERE id = '{account}'"),
        format!("INSERT INTO tutorial_progress (user_id) VALUES ('{account}')"),
    ]
}

#[tokio::test]
async fn closing_an_account_and_its_own_requests_wait_for_each_other() {
    let world = World::new().await;
    for closes_first in [true, false] {
        for has_snapshot in [true, false] {
            // One round for each of the eight pending requests.
            for index in 0..8 {
                let (player, public, left) =
                    (world.new_player().await, world.new_session(0).await, world.new_session(1).await);
                world.update_session(&public, "is_public = true").await;
                world
                    .owner()
                    .execute(&insert_seat_sql(left.session_id, player.user_id, player.character_id))
                    .await
                    .unwrap();
                let leave = format!(
                    "UPDATE session_players SET is_active = false WHERE user_id = '{}' AND session_id = '{}'",
                    player.user_id, left.session_id
                );
                world.owner().execute(&leave).await.unwrap();
                let code: String = world
                    .owner()
                    .fetch_value(&format!("SELECT code::text FROM sessions WHERE id = '{}'", public.session_id))
                    .await
                    .unwrap();
                let sql = pending_requests(
                    player.user_id,
                    &player,
                    public.adventure_id,
                    public.session_id,
                    left.session_id,
                    &code,
                )
                .remove(index);
                let closing = close_or_delete(player.user_id, false);
                let users_transaction = match has_snapshot {
                    true => player.person.begin_repeatable_read().await,
                    false => player.person.begin().await,
                };
                let platforms_transaction = world.owner().begin().await;
                if closes_first {
                    execute_in(&platforms_transaction, &closing).await.unwrap();
                    let request = sql.clone();
                    let waiting = tokio::spawn(async move { execute_and_commit(users_transaction, &request).await });
                    world.owner().wait_for_lock_waiters(1).await;
                    platforms_transaction.commit().await.unwrap();
                    let outcome = waiting.await.unwrap();
                    assert!([ACCOUNT_CLOSED, SERIALIZATION_FAILURE].contains(&outcome.as_str()), "{outcome}: {sql}");
                } else {
                    assert!(execute_in(&users_transaction, &sql).await.is_ok(), "{sql}");
                    let waiting =
                        tokio::spawn(async move { execute_and_commit(platforms_transaction, &closing).await });
                    world.owner().wait_for_lock_waiters(1).await;
                    users_transaction.commit().await.unwrap();
                    assert_eq!(waiting.await.unwrap(), "done", "{sql}");
                }
                assert!(is_closed(&world, player.user_id).await);
            }
        }
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn no_live_session_outlives_the_account_of_its_seer() {
    for closed_by in ["platform", "user", "deletion"] {
        let world = World::new().await;
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
                "platform" => close(&world, seer).await,
                "user" => {
                    assert_eq!(attempt(&game.seer, &format!("SELECT private.close_account('{seer}')")).await, "done");
                }
                _ => assert_eq!(
                    attempt(&world.owner(), &format!("DELETE FROM auth.users WHERE id = '{seer}'")).await,
                    "done"
                ),
            }
            let live = format!(
                "sessions WHERE seer_id = '{seer}' AND status IN ('waiting', 'starting_soon', 'active', 'paused')"
            );
            assert_eq!(world.owner().count(&live).await, 0, "{closed_by}, {status}");
            let player = &game.players[0];
            let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", player.character_id);
            assert_eq!(attempt(&player.person, &retire).await, "done", "{closed_by}, {status}");
        }
        assert_invariants(&world).await;
    }
}

#[tokio::test]
async fn deleting_an_account_always_succeeds() {
    let world = World::new().await;
    let fixture = create_full_account(&world).await;
    // An adventure that a stranger plays, and an archived session.
    let stranger = world.new_account().await;
    let played = open_session(&world, stranger, fixture.published, true).await;
    world
        .owner()
        .execute(&insert_seat_sql(played, fixture.joined.players[0].user_id, fixture.joined.players[0].character_id))
        .await
        .unwrap();
    world.update_session(&fixture.finished, "ended_at = now() - INTERVAL '1 year'").await;
    assert_eq!(attempt(&world.service(), "SELECT private.archive_sessions(10)").await, "done");
    for account in [
        fixture.account,
        fixture.joined.players[0].user_id,
        fixture.joined.seer.user_id(),
        fixture.live.players[0].user_id,
        stranger,
    ] {
        assert_eq!(attempt(&world.owner(), &format!("DELETE FROM auth.users WHERE id = '{account}'")).await, "done");
        assert_eq!(world.owner().count(&format!("auth.users WHERE id = '{account}'")).await, 0);
        let unerased_profile = format!(
            "users WHERE id = '{account}' AND (display_name <> 'Former player' OR avatar_url IS NOT NULL OR bio IS NOT NULL
             OR closed_at IS NULL OR account_id IS NOT NULL OR email <> id || '@deleted.invalid')"
        );
        assert_eq!(
            world.owner().count(&unerased_profile).await,
            0,
            "a profile that stays has no account and no personal data"
        );
    }
    // Other participants keep their history.
    assert_eq!(
        world.owner().count(&format!("session_players WHERE session_id = '{}'", fixture.live.session_id)).await,
        2
    );
    // An account without history leaves no rows.
    let newcomer = world.new_player().await;
    world.new_draft(newcomer.user_id).await;
    assert_eq!(
        attempt(&world.owner(), &format!("DELETE FROM auth.users WHERE id = '{}'", newcomer.user_id)).await,
        "done"
    );
    for table in ["users WHERE id", "characters WHERE user_id", "adventures WHERE creator_id"] {
        assert_eq!(world.owner().count(&format!("{table} = '{}'", newcomer.user_id)).await, 0, "{table}");
    }
    // A new account with the same id gets the old profile, and may write again.
    let returning = fixture.account;
    let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{returning}', 'back@example.org')");
    assert_eq!(attempt(&world.owner(), &sql).await, "done");
    assert!(!is_closed(&world, returning).await);
    assert_eq!(
        attempt(&world.user(returning), &format!("UPDATE users SET bio = 'Back.' WHERE id = '{returning}'")).await,
        "done"
    );
    assert_invariants(&world).await;
}
