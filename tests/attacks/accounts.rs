//! Closed is a column, holds in every table and state, and is decided under a lock.

use uuid::Uuid;

use super::{ask, close, finish, open_session, sound, within, would};
use crate::world::{Person, Player, Table, World, heroic_save, insert_character, roll, seat};

async fn email(world: &World, account: Uuid) -> String {
    world.owner().value(&format!("SELECT email FROM users WHERE id = '{account}'")).await.unwrap()
}

async fn is_closed(world: &World, account: Uuid) -> bool {
    world.owner().value(&format!("SELECT closed_at IS NOT NULL FROM users WHERE id = '{account}'")).await.unwrap()
}

/// Addresses that would be somebody's once closed, or without an address.
fn reserved(of: Uuid) -> Vec<String> {
    let upper = of.to_string().to_uppercase();
    vec![
        format!("{of}@deleted.invalid"),
        format!("{of}@no-email.invalid"),
        format!("{upper}@DELETED.INVALID"),
        format!("{of}@Deleted.Invalid"),
        format!("{upper}@No-Email.INVALID"),
        format!(" {of}@deleted.invalid "),
        format!("{of}@deleted.invalid\t"),
        "anybody@deleted.invalid".to_owned(),
    ]
}

#[tokio::test]
async fn an_address_of_a_reserved_domain_counts_as_none() {
    let world = World::new().await;
    let owner = world.owner();
    for place in 0..reserved(Uuid::nil()).len() {
        // At sign-up, and by a later change; somebody else's id, and one's own.
        for (at_sign_up, own) in [(true, false), (false, false), (true, true), (false, true)] {
            let (victim, attacker) = (world.account().await, Uuid::new_v4());
            let address = reserved(if own { attacker } else { victim }).remove(place);
            if at_sign_up {
                let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{attacker}', '{address}')");
                owner.exec(&sql).await.unwrap();
            } else {
                let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{attacker}', '{attacker}@example.org')");
                owner.exec(&sql).await.unwrap();
                let sql = format!("UPDATE auth.users SET email = '{address}' WHERE id = '{attacker}'");
                owner.exec(&sql).await.unwrap();
            }
            assert_eq!(email(&world, attacker).await, format!("{attacker}@no-email.invalid"), "{address:?}");
            assert!(!is_closed(&world, attacker).await, "{address:?} closes nobody");
            let bio = format!("UPDATE users SET bio = 'Here.' WHERE id = '{attacker}'");
            assert_eq!(ask(&world.user(attacker), &bio).await, "done", "{address:?}");

            // The victim closes all the same, by the operation or by the platform.
            match place % 3 {
                0 => close(&world, victim).await,
                1 => {
                    let sql = format!("SELECT private.close_account('{victim}')");
                    assert_eq!(ask(&world.user(victim), &sql).await, "done");
                }
                _ => {
                    let sql = format!("SELECT private.close_account('{victim}')");
                    assert_eq!(ask(&world.service(), &sql).await, "done");
                }
            }
            assert_eq!(email(&world, victim).await, format!("{victim}@deleted.invalid"), "{address:?}");
            // And so does the attacker.
            close(&world, attacker).await;
            assert_eq!(email(&world, attacker).await, format!("{attacker}@deleted.invalid"), "{address:?}");
        }
    }
    sound(&world).await;
}

#[tokio::test]
async fn nobody_without_an_address_is_kept_from_signing_up() {
    let world = World::new().await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    // The first takes what the second would get.
    for (id, address) in [(first, format!("'{second}@no-email.invalid'")), (second, "NULL".to_owned())] {
        world.owner().exec(&format!("INSERT INTO auth.users (id, email) VALUES ('{id}', {address})")).await.unwrap();
        assert_eq!(email(&world, id).await, format!("{id}@no-email.invalid"));
    }
}

/// An account with everything that one can have, as Seer, player and author.
struct Everything {
    account: Uuid,
    me: Person,
    live: Table,
    finished: Table,
    joined: Table,
    left: Table,
    public: Uuid,
    hero: Uuid,
    spare: Uuid,
    published: Uuid,
    failed: Uuid,
    creature: Uuid,
}

async fn everything(world: &World) -> Everything {
    let owner = world.owner();
    let (live, finished) = (world.active_table(2).await, world.active_table(2).await);
    let me = live.seer.clone();
    let account = me.uuid();
    let (hero, spare) = (world.character(account).await, world.character(account).await);
    owner.exec(&format!("UPDATE sessions SET seer_id = '{account}' WHERE id = '{}'", finished.session)).await.unwrap();
    world.set(&finished, "status = 'completed'").await;
    let (joined, left) = (world.table(1).await, world.table(1).await);
    for table in [&joined, &left] {
        owner.exec(&seat(table.session, account, hero)).await.unwrap();
    }
    world.set(&joined, "status = 'active'").await;
    let leave = format!(
        "UPDATE session_players SET is_active = false WHERE user_id = '{account}' AND session_id = '{}'",
        left.session
    );
    owner.exec(&leave).await.unwrap();
    let failed = world.roll(joined.session, hero, "{1,2}", 10, -3600).await;
    let somewhere = world.table(0).await;
    world.set(&somewhere, "is_public = true").await;
    let published = world.adventure(account).await;
    let sql = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{published}', 'Wolf') RETURNING id");
    let creature = owner.value(&sql).await.unwrap();
    owner.exec(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{account}')")).await.unwrap();
    Everything {
        account,
        me,
        live,
        finished,
        joined,
        left,
        public: somewhere.session,
        hero,
        spare,
        published,
        failed,
        creature,
    }
}

/// Everything that a user may write, each in a form that would be done.
fn writes(of: &Everything) -> Vec<String> {
    let Everything { account, hero, spare, published, failed, creature, public, .. } = of;
    let (live, finished, joined, left) = (of.live.session, of.finished.session, of.joined.session, of.left.session);
    let session = |id: Uuid, set: &str| format!("UPDATE sessions SET {set} WHERE id = '{id}'");
    let of_hero = |set: &str| format!("UPDATE characters SET {set} WHERE id = '{hero}'");
    let adventure = |set: &str| format!("UPDATE adventures SET {set} WHERE id = '{published}'");
    let own_seat = |id: Uuid, set: &str| {
        format!("UPDATE session_players SET {set} WHERE session_id = '{id}' AND user_id = '{account}'")
    };
    let code = |id: Uuid| format!("(SELECT code::text FROM sessions WHERE id = '{id}')");
    vec![
        format!("UPDATE users SET bio = 'Back.' WHERE id = '{account}'"),
        format!("UPDATE users SET display_name = 'Back again' WHERE id = '{account}'"),
        insert_character(Uuid::new_v4(), *account),
        of_hero("name = 'Back again'"),
        of_hero("hit_points = 1"),
        of_hero("equipment = '[1]'"),
        format!("UPDATE characters SET retired_at = now() WHERE id = '{spare}'"),
        format!("DELETE FROM characters WHERE id = '{spare}'"),
        format!("SELECT * FROM private.change_hit_points('{hero}', -1)"),
        format!("SELECT * FROM private.change_hit_points('{}', -1)", of.live.players[0].character),
        format!("INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'A new draft')"),
        adventure("name = 'Renamed'"),
        adventure("difficulty = 'hard'"),
        adventure("min_players = 1"),
        adventure("estimated_duration = 90"),
        adventure("status = 'archived'"),
        format!("DELETE FROM adventures WHERE id = '{published}'"),
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{published}', 'Mud Hag')"),
        format!("UPDATE creatures SET name = 'Renamed' WHERE id = '{creature}'"),
        format!("DELETE FROM creatures WHERE id = '{creature}'"),
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{account}', '{published}')"),
        session(live, "looking_for = 'Anybody'"),
        session(live, "is_public = true"),
        session(live, "max_players = 5"),
        session(live, "current_scene_id = 'ford'"),
        session(live, "current_encounter_id = 'ford'"),
        session(live, "game_state = '{\"round\": 1}'"),
        session(live, "status = 'paused'"),
        session(finished, "looking_for = 'Anybody'"),
        session(finished, "game_state = '{\"round\": 1}'"),
        session(finished, "current_scene_id = 'ford'"),
        seat(*public, *account, *hero),
        format!("SELECT * FROM private.join_by_code({}, '{hero}')", code(*public)),
        format!("SELECT * FROM private.join_by_code({}, '{hero}')", code(left)),
        own_seat(left, "is_active = true"),
        own_seat(left, &format!("character_id = '{spare}'")),
        own_seat(joined, "is_active = false"),
        format!(
            "UPDATE session_players SET is_active = false WHERE session_id = '{live}' AND user_id = '{}'",
            of.live.players[0].id
        ),
        roll(joined, *hero),
        roll(live, of.live.players[0].character),
        heroic_save(joined, *hero, *failed),
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{live}', 'client.wave')"),
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{finished}', 'client.wave')"),
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{joined}', 'client.wave')"),
        format!("UPDATE tutorial_progress SET skipped = true WHERE user_id = '{account}'"),
        format!(
            "UPDATE tutorial_progress SET current_step = 'character-basics', path = 'player' WHERE user_id = '{account}'"
        ),
        format!(
            "INSERT INTO tutorial_progress (user_id, skipped) VALUES ('{account}', true)
             ON CONFLICT (user_id) DO UPDATE SET skipped = true"
        ),
        format!(
            "MERGE INTO characters AS hero USING (SELECT '{hero}'::uuid AS id) AS wanted ON hero.id = wanted.id
             WHEN MATCHED THEN UPDATE SET name = 'Merged'"
        ),
        format!(
            "WITH gone AS (UPDATE characters SET name = 'In passing' WHERE id = '{hero}' RETURNING id) SELECT * FROM gone"
        ),
    ]
}

#[tokio::test]
async fn a_closed_account_writes_nothing() {
    for way in ["platform", "operation", "service", "deleted"] {
        let world = World::new().await;
        let of = everything(&world).await;
        let statements = writes(&of);
        for sql in &statements {
            let outcome = would(&of.me, sql).await;
            assert_eq!(outcome, "done", "before: {sql}");
        }
        let closing = format!("SELECT private.close_account('{}')", of.account);
        match way {
            "platform" => close(&world, of.account).await,
            "operation" => assert_eq!(ask(&of.me, &closing).await, "done"),
            "service" => assert_eq!(ask(&world.service(), &closing).await, "done"),
            _ => {
                let sql = format!("DELETE FROM auth.users WHERE id = '{}'", of.account);
                assert_eq!(ask(&world.owner(), &sql).await, "done");
            }
        }
        let mut done = Vec::new();
        for sql in &statements {
            let outcome = would(&of.me, sql).await;
            // What is gone, or no longer theirs, cannot be written either; a session needs an adventure.
            if !["SP019", "42501", "no row", "SP009"].contains(&outcome.as_str()) {
                done.push(format!("{outcome}: {sql}"));
            }
        }
        assert!(done.is_empty(), "{way}:\n{}", done.join("\n"));
        // Rows that are still theirs are refused by name.
        for sql in [
            format!("UPDATE users SET bio = 'Back.' WHERE id = '{}'", of.account),
            insert_character(Uuid::new_v4(), of.account),
            format!("UPDATE characters SET name = 'Back again' WHERE id = '{}'", of.hero),
            format!("UPDATE sessions SET looking_for = 'Me' WHERE id = '{}'", of.finished.session),
            format!("INSERT INTO adventures (creator_id, name) VALUES ('{}', 'A new draft')", of.account),
            format!("UPDATE adventures SET name = 'Renamed' WHERE id = '{}'", of.published),
            format!(
                "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.wave')",
                of.finished.session
            ),
        ] {
            if way != "deleted" || !sql.contains("adventures SET") {
                assert_eq!(would(&of.me, &sql).await, "SP019", "{way}: {sql}");
            }
        }
        sound(&world).await;
    }
}

#[tokio::test]
async fn nobody_opens_a_closed_account_again() {
    let world = World::new().await;
    let me = world.somebody().await;
    close(&world, me.uuid()).await;
    for person in [&me, &world.somebody().await, &world.visitor()] {
        for set in ["closed_at = NULL", "email = 'back@example.org'", "account_id = id"] {
            let sql = format!("UPDATE users SET {set} WHERE id = '{}'", me.uuid());
            assert_eq!(ask(person, &sql).await, "42501", "{set}");
        }
    }
    // Nor does a change that the platform makes later.
    let sql = format!("UPDATE auth.users SET email = 'back@example.org' WHERE id = '{}'", me.uuid());
    world.owner().exec(&sql).await.unwrap();
    assert!(is_closed(&world, me.uuid()).await);
    assert_eq!(email(&world, me.uuid()).await, format!("{}@deleted.invalid", me.uuid()));
}

#[tokio::test]
async fn a_write_that_sees_the_past_is_refused_after_the_closing() {
    let world = World::new().await;
    let of = everything(&world).await;
    let mut open = Vec::new();
    let statements = writes(&of);
    // Twenty at a time: each holds a connection.
    let open_session =
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{}')", of.account, of.published);
    for sql in statements.iter().step_by(3).chain([&open_session]) {
        open.push((of.me.begin_with_snapshot().await, sql));
    }
    close(&world, of.account).await;
    for (transaction, sql) in open {
        let outcome = finish(transaction, sql).await;
        assert!(["SP019", "40001", "42501", "no row"].contains(&outcome.as_str()), "{outcome}: {sql}");
    }
    sound(&world).await;
}

#[tokio::test]
async fn a_closing_that_sees_the_past_closes_the_present() {
    let world = World::new().await;
    let count = writes(&everything(&world).await).len();
    for place in (0..count).step_by(2) {
        let of = everything(&world).await;
        let take_back = format!("UPDATE adventures SET status = 'draft' WHERE id = '{}'", of.published);
        let sql = if place == 0 { take_back } else { writes(&of).remove(place) };
        let closing = of.me.begin_with_snapshot().await;
        assert_eq!(ask(&of.me, &sql).await, "done", "{sql}");
        let outcome = finish(closing, &format!("SELECT private.close_account('{}')", of.account)).await;
        assert!(["done", "40001"].contains(&outcome.as_str()), "{outcome}: {sql}");
        assert_eq!(is_closed(&world, of.account).await, outcome == "done", "{sql}");
        assert_eq!(crate::evening::broken(&world).await, [""; 0], "{sql}");
    }
}

/// What a person may have begun a moment before the account closes.
fn begun(account: Uuid, player: &Player, adventure: Uuid, public: Uuid, left: Uuid, code: &str) -> Vec<String> {
    vec![
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{account}', '{adventure}')"),
        format!("INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'A draft')"),
        seat(public, account, player.character),
        format!("UPDATE session_players SET is_active = true WHERE session_id = '{left}' AND user_id = '{account}'"),
        format!("SELECT * FROM private.join_by_code('{code}', '{}')", player.character),
        insert_character(Uuid::new_v4(), account),
        format!("UPDATE users SET display_name = 'Somebody', bio = 'Me.' WHERE id = '{account}'"),
        format!("INSERT INTO tutorial_progress (user_id) VALUES ('{account}')"),
    ]
}

#[tokio::test]
async fn closing_and_ones_own_requests_wait_for_each_other() {
    let world = World::new().await;
    for closes_first in [true, false] {
        for snapshot in [true, false] {
            for place in 0..8 {
                let (player, public, left) = (world.player().await, world.table(0).await, world.table(1).await);
                world.set(&public, "is_public = true").await;
                world.owner().exec(&seat(left.session, player.id, player.character)).await.unwrap();
                let leave = format!(
                    "UPDATE session_players SET is_active = false WHERE user_id = '{}' AND session_id = '{}'",
                    player.id, left.session
                );
                world.owner().exec(&leave).await.unwrap();
                let code: String = world
                    .owner()
                    .value(&format!("SELECT code::text FROM sessions WHERE id = '{}'", public.session))
                    .await
                    .unwrap();
                let sql =
                    begun(player.id, &player, public.adventure, public.session, left.session, &code).remove(place);
                let closing = format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{}'", player.id);
                let request = match snapshot {
                    true => player.person.begin_with_snapshot().await,
                    false => player.person.begin().await,
                };
                let platform = world.owner().begin().await;
                if closes_first {
                    within(&platform, &closing).await.unwrap();
                    let statement = sql.clone();
                    let waiting = tokio::spawn(async move { finish(request, &statement).await });
                    world.owner().until_waiting(1).await;
                    platform.commit().await.unwrap();
                    let outcome = waiting.await.unwrap();
                    assert!(["SP019", "40001"].contains(&outcome.as_str()), "{outcome}: {sql}");
                } else {
                    assert!(within(&request, &sql).await.is_ok(), "{sql}");
                    let waiting = tokio::spawn(async move { finish(platform, &closing).await });
                    world.owner().until_waiting(1).await;
                    request.commit().await.unwrap();
                    assert_eq!(waiting.await.unwrap(), "done", "{sql}");
                }
                assert!(is_closed(&world, player.id).await);
            }
        }
    }
    sound(&world).await;
}

#[tokio::test]
async fn no_session_outlives_the_account_of_its_seer() {
    for way in ["platform", "operation", "deleted"] {
        let world = World::new().await;
        for status in ["waiting", "starting_soon", "active", "paused"] {
            let table = world.table(2).await;
            if status == "paused" {
                world.set(&table, "status = 'active'").await;
            }
            if status != "waiting" {
                world.set(&table, &format!("status = '{status}'")).await;
            }
            let seer = table.seer.uuid();
            match way {
                "platform" => close(&world, seer).await,
                "operation" => {
                    assert_eq!(ask(&table.seer, &format!("SELECT private.close_account('{seer}')")).await, "done");
                }
                _ => assert_eq!(
                    ask(&world.owner(), &format!("DELETE FROM auth.users WHERE id = '{seer}'")).await,
                    "done"
                ),
            }
            let live = format!(
                "sessions WHERE seer_id = '{seer}' AND status IN ('waiting', 'starting_soon', 'active', 'paused')"
            );
            assert_eq!(world.owner().count(&live).await, 0, "{way}, {status}");
            let player = &table.players[0];
            let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", player.character);
            assert_eq!(ask(&player.person, &retire).await, "done", "{way}, {status}");
        }
        sound(&world).await;
    }
}

#[tokio::test]
async fn deleting_an_account_always_succeeds() {
    let world = World::new().await;
    let of = everything(&world).await;
    // An adventure that a stranger plays, and a game that is archived.
    let stranger = world.account().await;
    let played = open_session(&world, stranger, of.published, true).await;
    world.owner().exec(&seat(played, of.joined.players[0].id, of.joined.players[0].character)).await.unwrap();
    world.set(&of.finished, "ended_at = now() - INTERVAL '1 year'").await;
    assert_eq!(ask(&world.service(), "SELECT private.archive_sessions(10)").await, "done");
    for account in [of.account, of.joined.players[0].id, of.joined.seer.uuid(), of.live.players[0].id, stranger] {
        assert_eq!(ask(&world.owner(), &format!("DELETE FROM auth.users WHERE id = '{account}'")).await, "done");
        assert_eq!(world.owner().count(&format!("auth.users WHERE id = '{account}'")).await, 0);
        let profile = format!(
            "users WHERE id = '{account}' AND (display_name <> 'Former player' OR avatar_url IS NOT NULL OR bio IS NOT NULL
             OR closed_at IS NULL OR account_id IS NOT NULL OR email <> id || '@deleted.invalid')"
        );
        assert_eq!(world.owner().count(&profile).await, 0, "what stays names nobody");
    }
    // Others keep their history.
    assert_eq!(world.owner().count(&format!("session_players WHERE session_id = '{}'", of.live.session)).await, 2);
    // Somebody without history leaves nothing.
    let unknown = world.player().await;
    world.draft(unknown.id).await;
    assert_eq!(ask(&world.owner(), &format!("DELETE FROM auth.users WHERE id = '{}'", unknown.id)).await, "done");
    for table in ["users WHERE id", "characters WHERE user_id", "adventures WHERE creator_id"] {
        assert_eq!(world.owner().count(&format!("{table} = '{}'", unknown.id)).await, 0, "{table}");
    }
    // The same id again has its history back.
    let back = of.account;
    let sql = format!("INSERT INTO auth.users (id, email) VALUES ('{back}', 'back@example.org')");
    assert_eq!(ask(&world.owner(), &sql).await, "done");
    assert!(!is_closed(&world, back).await);
    assert_eq!(ask(&world.user(back), &format!("UPDATE users SET bio = 'Back.' WHERE id = '{back}'")).await, "done");
    sound(&world).await;
}
