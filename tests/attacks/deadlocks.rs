//! In whatever order a user's statements lock rows, closing or deleting another account does not deadlock with them. No
//! account can delay its own closing by writes that overlap.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, close_or_delete, exec_and_commit, exec_in, full_account::create_full_account,
    is_closed, open_session,
};
use crate::world::{GameSession, Person, World, insert_character, insert_roll, insert_seat};

/// A transaction of two statements, each of which locks a row that closing the account changes.
struct ConflictingWrites {
    name: &'static str,
    /// The account that is closed.
    account: Uuid,
    writer: Person,
    statements: [String; 2],
}

fn insert_event(session: Uuid) -> String {
    format!("INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.wave')")
}

fn equip(hero: Uuid) -> String {
    format!("UPDATE characters SET equipment = '[1]' WHERE id = '{hero}'")
}

/// Creates a second session of the same Seer, where the player has a seat with another character, and returns both.
async fn create_second_session(world: &World, game: &GameSession) -> (Uuid, Uuid) {
    let session = open_session(world, game.seer.uuid(), game.adventure, false).await;
    let hero = world.new_character(game.players[0].id).await;
    world.owner().exec(&insert_seat(session, game.players[0].id, hero)).await.unwrap();
    (session, hero)
}

/// Statements of a player whose Seer's account closes.
async fn player_writes(world: &World, name: &'static str) -> ConflictingWrites {
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let (session, hero) = create_second_session(world, &game).await;
    let profile = format!("UPDATE users SET bio = 'Plays.' WHERE id = '{}'", player.id);
    let statements = match name {
        "characters" => [equip(player.character), equip(hero)],
        "sessions" => [insert_event(game.session), insert_event(session)],
        "character and session" => [equip(player.character), insert_event(session)],
        "profile and session" => [profile, insert_event(session)],
        _ => [profile, equip(hero)],
    };
    ConflictingWrites { name, account: game.seer.uuid(), writer: player.person.clone(), statements }
}

/// Statements of a Seer while the account of a player closes.
async fn seer_writes(world: &World, name: &'static str) -> ConflictingWrites {
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let (session, _) = create_second_session(world, &game).await;
    let touch_seat = |session: Uuid| {
        format!(
            "UPDATE session_players SET removed_at = removed_at
             WHERE session_id = '{session}' AND user_id = '{}'",
            player.id
        )
    };
    let statements = match name {
        "seats" => [touch_seat(game.session), touch_seat(session)],
        _ => [insert_event(game.session), touch_seat(session)],
    };
    ConflictingWrites { name, account: player.id, writer: game.seer.clone(), statements }
}

#[tokio::test]
async fn closing_waits_for_no_row_while_it_holds_another() {
    let world = World::new().await;
    let administrator = world.administrator().await;
    for is_deletion in [false, true] {
        for is_reversed in [false, true] {
            let mut cases = Vec::new();
            for name in
                ["characters", "sessions", "character and session", "profile and session", "profile and character"]
            {
                cases.push(player_writes(&world, name).await);
            }
            for name in ["seats", "session and seat"] {
                cases.push(seer_writes(&world, name).await);
            }
            for ConflictingWrites { name, account, writer, mut statements } in cases {
                if is_reversed {
                    statements.reverse();
                }
                let case = format!("{name}, is deletion: {is_deletion}, reversed: {is_reversed}");
                let transaction = writer.begin().await;
                assert_eq!(exec_in(&transaction, &statements[0]).await, Ok(1), "{case}");
                let closing = administrator.begin().await;
                // A deadlock would end the user's statement, not the closing, which tries again.
                exec_in(&closing, "SET LOCAL deadlock_timeout = '60s'").await.unwrap();
                let sql = close_or_delete(account, is_deletion);
                let closed = tokio::spawn(async move { exec_and_commit(closing, &sql).await });
                world.owner().wait_for_lock_waiters(1).await;
                assert_eq!(exec_and_commit(transaction, &statements[1]).await, "done", "{case}");
                assert_eq!(closed.await.unwrap(), "done", "{case}");
                assert!(is_closed(&world, account).await, "{case}");
            }
        }
    }
    assert_invariants(&world).await;
}

/// Events in two ended sessions of a Seer whose account is deleted, in both orders.
#[tokio::test]
async fn deleting_an_account_does_not_deadlock_with_writes_in_its_ended_sessions() {
    let world = World::new().await;
    let administrator = world.administrator().await;
    for is_reversed in [false, true] {
        for is_live in [false, true] {
            let game = world.new_active_session(1).await;
            let (session, _) = create_second_session(&world, &game).await;
            world
                .owner()
                .exec(&format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{session}'"))
                .await
                .unwrap();
            if !is_live {
                world.set(&game, "status = 'completed'").await;
            }
            let mut sessions = [game.session, session];
            sessions.sort();
            if is_reversed {
                sessions.reverse();
            }
            let transaction = game.players[0].person.begin().await;
            exec_in(&transaction, &insert_event(sessions[0])).await.unwrap();
            let deletion = administrator.begin().await;
            exec_in(&deletion, "SET LOCAL deadlock_timeout = '60s'").await.unwrap();
            exec_in(&deletion, "SET LOCAL lock_timeout = '10s'").await.unwrap();
            let sql = close_or_delete(game.seer.uuid(), true);
            if is_live && sessions[0] == game.session {
                let deleted = tokio::spawn(async move { exec_and_commit(deletion, &sql).await });
                world.owner().wait_for_lock_waiters(1).await;
                assert_eq!(exec_and_commit(transaction, &insert_event(sessions[1])).await, "done");
                assert_eq!(deleted.await.unwrap(), "done");
            } else {
                // Sessions that others have played stay, so their locks do not matter.
                assert_eq!(exec_and_commit(deletion, &sql).await, "done");
                assert_eq!(exec_and_commit(transaction, &insert_event(sessions[1])).await, "done");
            }
            assert!(is_closed(&world, game.seer.uuid()).await);
        }
    }
    assert_invariants(&world).await;
}

/// A clean-up of old events, in a transaction that goes on to write to a session of the account.
#[tokio::test]
async fn closing_does_not_wait_for_the_clean_up_of_old_events() {
    for is_deletion in [false, true] {
        let world = World::new().await;
        let game = world.new_session(1).await;
        let player = &game.players[0];
        let other = world.new_session(0).await;
        let old = "UPDATE session_events SET created_at = now() - INTERVAL '2 days'";
        assert_eq!(world.owner().exec(old).await, Ok(1), "only the event of joining exists");
        let transaction = other.seer.begin().await;
        exec_in(&transaction, &insert_event(other.session)).await.unwrap();
        let sql = format!("SET LOCAL lock_timeout = '10s'; {}", close_or_delete(player.id, is_deletion));
        assert_eq!(attempt(&world.owner(), &sql).await, "done");
        transaction.commit().await.unwrap();
        assert!(is_closed(&world, player.id).await);
        let with_name =
            "session_events WHERE payload ->> 'user_id' = (SELECT id::text FROM users WHERE closed_at IS NOT NULL)
                     AND payload ->> 'display_name' <> 'Former player'";
        assert_eq!(world.owner().count(with_name).await, 0);
        assert_invariants(&world).await;
    }
}

/// A transaction has deleted old events of a session that is to be deleted with the account, and then waits for the
/// account. The closing or deletion detects the deadlock, and succeeds all the same.
#[tokio::test]
async fn deleting_an_account_survives_a_deadlock_over_old_events() {
    for is_strangers_session in [false, true] {
        for is_deletion in [false, true] {
            let world = World::new().await;
            let administrator = world.administrator().await;
            let (author, stranger) = (world.new_account().await, world.new_account().await);
            let adventure = world.new_adventure(author).await;
            let seer = if is_strangers_session { stranger } else { author };
            let session = open_session(&world, seer, adventure, false).await;
            world
                .owner()
                .exec(&format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{session}'"))
                .await
                .unwrap();
            let draft = format!("UPDATE adventures SET status = 'draft' WHERE id = '{adventure}'");
            world.owner().exec(&draft).await.unwrap();
            let old = "UPDATE session_events SET created_at = now() - INTERVAL '2 days'";
            assert_eq!(world.owner().exec(old).await, Ok(1), "only the event of cancelling exists");
            let elsewhere = world.new_session(0).await;
            let other = administrator.begin().await;
            exec_in(&other, "SET LOCAL deadlock_timeout = '60s'").await.unwrap();
            exec_in(&other, &insert_event(elsewhere.session)).await.unwrap();
            let closing = administrator.begin().await;
            exec_in(&closing, "SET LOCAL deadlock_timeout = '2s'").await.unwrap();
            let sql = close_or_delete(author, is_deletion);
            let closed = tokio::spawn(async move { exec_and_commit(closing, &sql).await });
            world.owner().wait_for_lock_waiters(1).await;
            let insert_outcome = exec_and_commit(other, &insert_character(Uuid::new_v4(), author)).await;
            assert_eq!(
                closed.await.unwrap(),
                "done",
                "stranger's session: {is_strangers_session}, is deletion: {is_deletion}"
            );
            assert_eq!(insert_outcome, "SP019");
            assert!(is_closed(&world, author).await);
            assert_invariants(&world).await;
        }
    }
}

/// A Seer ends two sessions of one player, who writes to both characters in the opposite order.
#[tokio::test]
async fn ending_sessions_does_not_deadlock_with_writes_to_characters() {
    let world = World::new().await;
    for is_reversed in [false, true] {
        let game = world.new_active_session(1).await;
        let (_, hero) = create_second_session(&world, &game).await;
        let mut heroes = [game.players[0].character, hero];
        heroes.sort();
        if is_reversed {
            heroes.reverse();
        }
        let transaction = game.players[0].person.begin().await;
        exec_in(&transaction, &equip(heroes[0])).await.unwrap();
        let ending = game.seer.begin().await;
        let sql = format!("UPDATE sessions SET status = 'cancelled' WHERE seer_id = '{}'", game.seer.uuid());
        let ended = tokio::spawn(async move { exec_and_commit(ending, &sql).await });
        world.owner().wait_for_lock_waiters(1).await;
        assert_eq!(exec_and_commit(transaction, &equip(heroes[1])).await, "done");
        assert_eq!(ended.await.unwrap(), "done");
    }
    assert_invariants(&world).await;
}

/// Writes that overlap: one is in progress, the closing waits for it, and then others arrive. These must not overtake
/// the closing, or writes that keep arriving would delay it for ever.
#[tokio::test]
async fn no_write_overtakes_a_closing_that_waits() {
    let world = World::new().await;
    for is_deletion in [false, true] {
        for has_snapshot in [false, true] {
            let fixture = create_full_account(&world).await;
            let rename = format!("UPDATE adventures SET name = 'Renamed' WHERE id = '{}'", fixture.published);
            let first = fixture.me.begin().await;
            exec_in(&first, &rename).await.unwrap();
            let closing = world.owner().begin().await;
            let sql = close_or_delete(fixture.account, is_deletion);
            let closed = tokio::spawn(async move { exec_and_commit(closing, &sql).await });
            world.owner().wait_for_lock_waiters(1).await;
            let writes = [
                format!("UPDATE users SET bio = 'Here.' WHERE id = '{}'", fixture.account),
                format!("UPDATE characters SET equipment = '[1]' WHERE user_id = '{}'", fixture.account),
                format!("INSERT INTO adventures (creator_id, name) VALUES ('{}', 'A draft')", fixture.account),
                format!(
                    "INSERT INTO session_events (session_id, event_type) VALUES ('{}', 'client.x')",
                    fixture.joined.session
                ),
                insert_roll(fixture.joined.session, fixture.hero),
            ];
            let mut waiting = Vec::new();
            for write in writes {
                let transaction = match has_snapshot {
                    true => fixture.me.begin_with_snapshot().await,
                    false => fixture.me.begin().await,
                };
                waiting.push(tokio::spawn(async move {
                    let outcome = exec_and_commit(transaction, &write).await;
                    (outcome, write)
                }));
                world.owner().wait_for_lock_waiters(1 + waiting.len() as i64).await;
            }
            first.commit().await.unwrap();
            assert_eq!(closed.await.unwrap(), "done");
            for write in waiting {
                let (outcome, sql) = write.await.unwrap();
                assert_eq!(outcome, if has_snapshot { "40001" } else { "SP019" }, "{sql}");
            }
        }
    }
    assert_invariants(&world).await;
}

/// A Seer's transaction has completed a session on the draft of the account that closes, and then changes another
/// session in which that account has a seat.
#[tokio::test]
async fn closing_locks_drafts_without_holding_other_rows_meanwhile() {
    let world = World::new().await;
    for is_deletion in [false, true] {
        let game = world.new_active_session(1).await;
        let creator = world.new_account().await;
        let set_creator = format!("UPDATE adventures SET creator_id = '{creator}' WHERE id = '{}'", game.adventure);
        world.owner().exec(&set_creator).await.unwrap();
        let other = open_session(&world, game.seer.uuid(), game.adventure, false).await;
        let hero = world.new_character(creator).await;
        world.owner().exec(&insert_seat(other, creator, hero)).await.unwrap();
        let unpublish = format!("UPDATE adventures SET status = 'draft' WHERE id = '{}'", game.adventure);
        world.owner().exec(&unpublish).await.unwrap();
        let writing = game.seer.begin().await;
        let complete = format!("UPDATE sessions SET status = 'completed' WHERE id = '{}'", game.session);
        exec_in(&writing, &complete).await.unwrap();
        let closing = world.owner().begin().await;
        let sql = close_or_delete(creator, is_deletion);
        let closed = tokio::spawn(async move { exec_and_commit(closing, &sql).await });
        world.owner().wait_for_lock_waiters(1).await;
        // If the closing held a row of this session, the two would deadlock.
        exec_in(&writing, "SET LOCAL lock_timeout = '5s'").await.unwrap();
        let cancel = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{other}'");
        assert_eq!(exec_and_commit(writing, &cancel).await, "done");
        assert_eq!(closed.await.unwrap(), "done");
    }
    assert_invariants(&world).await;
}

/// The platform locks the account and then its gate; a transaction of the account that has written has locked the gate.
#[tokio::test]
async fn closing_ones_own_account_does_not_wait_for_a_deletion_that_waits_for_the_caller() {
    let world = World::new().await;
    let account = world.new_user().await;
    let writing = account.begin().await;
    exec_in(&writing, &format!("UPDATE users SET bio = 'Here.' WHERE id = '{}'", account.uuid())).await.unwrap();
    let deletion = world.owner().begin().await;
    let sql = close_or_delete(account.uuid(), true);
    let deleted = tokio::spawn(async move { exec_and_commit(deletion, &sql).await });
    world.owner().wait_for_lock_waiters(1).await;
    for _ in 0..3 {
        exec_in(&writing, "SAVEPOINT before").await.unwrap();
        let close = format!("SELECT private.close_account('{}')", account.uuid());
        assert_eq!(exec_in(&writing, &close).await.unwrap_err().code, "40001");
        exec_in(&writing, "ROLLBACK TO before").await.unwrap();
    }
    // The foreign key to the account waits too, from the second change of the profile on. However often that ends in a
    // deadlock, the deletion goes on.
    for _ in 0..3 {
        exec_in(&writing, "SAVEPOINT before").await.unwrap();
        let bio = format!("UPDATE users SET bio = 'Still here.' WHERE id = '{}'", account.uuid());
        assert_eq!(exec_in(&writing, &bio).await.unwrap_err().code, "40P01");
        exec_in(&writing, "ROLLBACK TO before").await.unwrap();
    }
    writing.commit().await.unwrap();
    assert_eq!(deleted.await.unwrap(), "done");
}

/// A transaction that has written holds locks for which the closing waits. So it must not wait for the closing.
#[tokio::test]
async fn a_transaction_that_has_written_goes_on_while_a_closing_waits_for_it() {
    let world = World::new().await;
    let fixture = create_full_account(&world).await;
    let bio = format!("UPDATE users SET bio = 'Here.' WHERE id = '{}'", fixture.account);
    let equip = format!("UPDATE characters SET equipment = '[1]' WHERE user_id = '{}'", fixture.account);
    let writing = fixture.me.begin().await;
    exec_in(&writing, "SET LOCAL lock_timeout = '10s'").await.unwrap();
    exec_in(&writing, &bio).await.unwrap();
    let closing = world.owner().begin().await;
    let sql = close_or_delete(fixture.account, false);
    let closed = tokio::spawn(async move { exec_and_commit(closing, &sql).await });
    world.owner().wait_for_lock_waiters(1).await;
    exec_in(&writing, &equip).await.unwrap();
    assert_eq!(exec_and_commit(writing, &bio).await, "done");
    assert_eq!(closed.await.unwrap(), "done");
    assert!(is_closed(&world, fixture.account).await);
}

/// An event locks its account's gate before its session: another transaction of the account, which has the gate, can
/// still lock the session.
#[tokio::test]
async fn an_event_does_not_deadlock_with_a_transaction_of_the_same_account() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let transaction = game.seer.begin().await;
    let bio = format!("UPDATE users SET bio = 'Runs games.' WHERE id = '{}'", game.seer.uuid());
    assert_eq!(exec_in(&transaction, &bio).await, Ok(1));
    let event = {
        let (seer, session) = (game.seer.clone(), game.session);
        tokio::spawn(async move { attempt(&seer, &insert_event(session)).await })
    };
    world.owner().wait_for_lock_waiters(1).await;
    let pause = format!("UPDATE sessions SET status = 'paused' WHERE id = '{}'", game.session);
    assert_eq!(exec_and_commit(transaction, &pause).await, "done");
    assert_eq!(event.await.unwrap(), "done");
}
