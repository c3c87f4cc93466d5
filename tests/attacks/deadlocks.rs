//! Closing an account (its personal data is removed) or deleting it does not deadlock with other users' statements, in
//! whatever order these lock rows. The exception is a deadlock over old events, which the closing or the deletion
//! survives. Every write of an account locks the account's row in `private.account_gates` before any other row. The
//! closing and the deletion lock the account's row in `auth.users` first, then its row in `private.account_gates`, and
//! only then other rows. (`closing_waits.rs` and `starvation.rs` test that an account cannot delay its own closing by
//! overlapping writes.)
//!
//! The last two tests close no account: one ends sessions, and the other writes an event.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, close_or_delete_account_sql, delete_account_sql, execute_and_commit, execute_in,
    is_account_closed, new_private_session, sqlstates::ACCOUNT_CLOSED,
};
use crate::world::{GameSession, SqlCaller, World, insert_character_sql, insert_seat_sql};

/// A transaction of two statements, each of which locks a row that closing an account changes.
struct ConflictingWrites {
    /// Which rows the statements lock.
    locked_rows: &'static str,
    /// The account that is closed or deleted meanwhile.
    account_to_close: Uuid,
    writer: SqlCaller,
    statements: [String; 2],
}

pub(super) fn insert_event_sql(session: Uuid) -> String {
    format!("INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.wave')")
}

/// Returns an UPDATE of a character.
fn equip_sql(character: Uuid) -> String {
    format!("UPDATE characters SET equipment = '[1]' WHERE id = '{character}'")
}

/// Creates a second session of the same Seer, in which the same player has a seat with another character. Returns the
/// session and the character.
async fn create_second_session(world: &World, game: &GameSession) -> (Uuid, Uuid) {
    let session = new_private_session(world, game.seer.user_id(), game.adventure_id).await;
    let character = world.new_character(game.players[0].user_id).await;
    world.owner().execute(&insert_seat_sql(session, game.players[0].user_id, character)).await.unwrap();
    (session, character)
}

/// Creates two sessions, and returns a transaction of their player that writes the given rows. The account to close is
/// their Seer's.
async fn create_writes_of_player(world: &World, locked_rows: &'static str) -> ConflictingWrites {
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let (second_session, second_character) = create_second_session(world, &game).await;
    let update_profile = format!("UPDATE users SET bio = 'Plays.' WHERE id = '{}'", player.user_id);
    let statements = match locked_rows {
        "characters" => [equip_sql(player.character_id), equip_sql(second_character)],
        "sessions" => [insert_event_sql(game.session_id), insert_event_sql(second_session)],
        "character and session" => [equip_sql(player.character_id), insert_event_sql(second_session)],
        "profile and session" => [update_profile, insert_event_sql(second_session)],
        "profile and character" => [update_profile, equip_sql(second_character)],
        unknown => panic!("unknown rows: {unknown}"),
    };
    ConflictingWrites { locked_rows, account_to_close: game.seer.user_id(), writer: player.caller.clone(), statements }
}

/// Creates two sessions, and returns a transaction of their Seer that writes the given rows. The account to close is
/// their player's.
async fn create_writes_of_seer(world: &World, locked_rows: &'static str) -> ConflictingWrites {
    let game = world.new_session(1).await;
    let player = &game.players[0];
    let (second_session, _) = create_second_session(world, &game).await;
    // This statement changes no value, but locks the seat.
    let touch_seat = |session: Uuid| {
        format!(
            "UPDATE session_players SET removed_at = removed_at
             WHERE session_id = '{session}' AND user_id = '{}'",
            player.user_id
        )
    };
    let statements = match locked_rows {
        "seats" => [touch_seat(game.session_id), touch_seat(second_session)],
        "session and seat" => [insert_event_sql(game.session_id), touch_seat(second_session)],
        unknown => panic!("unknown rows: {unknown}"),
    };
    ConflictingWrites { locked_rows, account_to_close: player.user_id, writer: game.seer.clone(), statements }
}

#[tokio::test]
async fn closing_does_not_deadlock_with_writes_of_others() {
    let world = World::new().await;
    let superuser = world.superuser().await;
    for is_deletion in [false, true] {
        for is_reversed in [false, true] {
            let mut cases = Vec::new();
            for locked_rows in
                ["characters", "sessions", "character and session", "profile and session", "profile and character"]
            {
                cases.push(create_writes_of_player(&world, locked_rows).await);
            }
            for locked_rows in ["seats", "session and seat"] {
                cases.push(create_writes_of_seer(&world, locked_rows).await);
            }
            for ConflictingWrites { locked_rows, account_to_close, writer, mut statements } in cases {
                if is_reversed {
                    statements.reverse();
                }
                let case = format!("{locked_rows}, is deletion: {is_deletion}, reversed: {is_reversed}");
                let transaction = writer.begin().await;
                assert_eq!(execute_in(&transaction, &statements[0]).await, Ok(1), "{case}");
                let closing_transaction = superuser.begin().await;
                // With this timeout, the closing would detect a deadlock only after 60 s. So the user's statement, with
                // the default of 1 s, would detect it first, and would fail. (If the closing detected it first, the
                // closing would try again, and this test would not notice the deadlock.)
                execute_in(&closing_transaction, "SET LOCAL deadlock_timeout = '60s'").await.unwrap();
                let sql = close_or_delete_account_sql(account_to_close, is_deletion);
                let closing_task = tokio::spawn(async move { execute_and_commit(closing_transaction, &sql).await });
                world.owner().wait_until_backends_wait_for_locks(1).await;
                assert_eq!(execute_and_commit(transaction, &statements[1]).await, "done", "{case}");
                assert_eq!(closing_task.await.unwrap(), "done", "{case}");
                assert!(is_account_closed(&world, account_to_close).await, "{case}");
            }
        }
    }
    assert_invariants(&world).await;
}

/// A player's transaction inserts events in two sessions of one Seer, in the order of their ids or in the opposite
/// order. Between the two inserts, the deletion of the Seer's account begins. One session is cancelled; the other is
/// completed or still live.
#[tokio::test]
async fn deleting_an_account_does_not_deadlock_with_writes_in_its_sessions() {
    let world = World::new().await;
    let superuser = world.superuser().await;
    for is_reversed in [false, true] {
        for is_other_session_live in [false, true] {
            let game = world.new_active_session(1).await;
            let (cancelled_session, _) = create_second_session(&world, &game).await;
            world
                .owner()
                .execute(&format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{cancelled_session}'"))
                .await
                .unwrap();
            if !is_other_session_live {
                world.update_session(&game, "status = 'completed'").await;
            }
            let mut sessions = [game.session_id, cancelled_session];
            sessions.sort();
            if is_reversed {
                sessions.reverse();
            }
            let transaction = game.players[0].caller.begin().await;
            execute_in(&transaction, &insert_event_sql(sessions[0])).await.unwrap();
            let deletion_transaction = superuser.begin().await;
            // With this timeout, the deletion would detect a deadlock only after 60 s. So the player's statement, with
            // the default of 1 s, would detect it first, and would fail. (If the deletion detected it first, the
            // deletion would try again, and this test would not notice the deadlock.)
            execute_in(&deletion_transaction, "SET LOCAL deadlock_timeout = '60s'").await.unwrap();
            execute_in(&deletion_transaction, "SET LOCAL lock_timeout = '10s'").await.unwrap();
            let sql = delete_account_sql(game.seer.user_id());
            let deletion_must_wait = is_other_session_live && sessions[0] == game.session_id;
            if deletion_must_wait {
                let deletion_task = tokio::spawn(async move { execute_and_commit(deletion_transaction, &sql).await });
                world.owner().wait_until_backends_wait_for_locks(1).await;
                assert_eq!(execute_and_commit(transaction, &insert_event_sql(sessions[1])).await, "done");
                assert_eq!(deletion_task.await.unwrap(), "done");
            } else {
                // The deletion keeps ended sessions that others have played, so it does not wait for locks on them.
                assert_eq!(execute_and_commit(deletion_transaction, &sql).await, "done");
                assert_eq!(execute_and_commit(transaction, &insert_event_sql(sessions[1])).await, "done");
            }
            assert!(is_account_closed(&world, game.seer.user_id()).await);
        }
    }
    assert_invariants(&world).await;
}

/// A transaction has inserted an event, and has thereby deleted the old event of another session. When an account is
/// closed or deleted, that session is deleted with its events, because nobody has played it and its adventure is a
/// draft of the account. So the closing waits for the old event. Then the transaction inserts a character for the
/// account, and waits for the closing. The closing detects the deadlock, gives up only the deletion of the session and
/// its adventure, and succeeds, so the insert is refused.
#[tokio::test]
async fn closing_and_deleting_an_account_survive_a_deadlock_over_old_events() {
    for is_strangers_session in [false, true] {
        for is_deletion in [false, true] {
            let world = World::new().await;
            let superuser = world.superuser().await;
            let (author, stranger) = (world.new_account().await, world.new_account().await);
            let adventure = world.new_adventure(author).await;
            let seer = if is_strangers_session { stranger } else { author };
            let session = new_private_session(&world, seer, adventure).await;
            world
                .owner()
                .execute(&format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{session}'"))
                .await
                .unwrap();
            let unpublish = format!("UPDATE adventures SET status = 'draft' WHERE id = '{adventure}'");
            world.owner().execute(&unpublish).await.unwrap();
            let make_events_old = "UPDATE session_events SET created_at = now() - INTERVAL '2 days'";
            assert_eq!(world.owner().execute(make_events_old).await, Ok(1), "only the cancellation's event exists");
            let unrelated_game = world.new_session(0).await;
            let cleaning_transaction = superuser.begin().await;
            // The timeouts make the closing detect the deadlock.
            execute_in(&cleaning_transaction, "SET LOCAL deadlock_timeout = '60s'").await.unwrap();
            execute_in(&cleaning_transaction, &insert_event_sql(unrelated_game.session_id)).await.unwrap();
            let closing_transaction = superuser.begin().await;
            execute_in(&closing_transaction, "SET LOCAL deadlock_timeout = '2s'").await.unwrap();
            let sql = close_or_delete_account_sql(author, is_deletion);
            let closing_task = tokio::spawn(async move { execute_and_commit(closing_transaction, &sql).await });
            world.owner().wait_until_backends_wait_for_locks(1).await;
            let insert_outcome =
                execute_and_commit(cleaning_transaction, &insert_character_sql(Uuid::new_v4(), author)).await;
            assert_eq!(
                closing_task.await.unwrap(),
                "done",
                "stranger's session: {is_strangers_session}, is deletion: {is_deletion}"
            );
            assert_eq!(insert_outcome, ACCOUNT_CLOSED);
            assert!(is_account_closed(&world, author).await);
            assert_invariants(&world).await;
        }
    }
}

/// A Seer ends two sessions in which one player has seats. At the same time, the player changes the characters in both
/// seats, in either order.
#[tokio::test]
async fn ending_sessions_does_not_deadlock_with_writes_to_characters() {
    let world = World::new().await;
    for is_reversed in [false, true] {
        let game = world.new_active_session(1).await;
        let (_, second_character) = create_second_session(&world, &game).await;
        let mut characters = [game.players[0].character_id, second_character];
        characters.sort();
        if is_reversed {
            characters.reverse();
        }
        let transaction = game.players[0].caller.begin().await;
        execute_in(&transaction, &equip_sql(characters[0])).await.unwrap();
        let ending_transaction = game.seer.begin().await;
        let sql = format!("UPDATE sessions SET status = 'cancelled' WHERE seer_id = '{}'", game.seer.user_id());
        let ending_task = tokio::spawn(async move { execute_and_commit(ending_transaction, &sql).await });
        world.owner().wait_until_backends_wait_for_locks(1).await;
        assert_eq!(execute_and_commit(transaction, &equip_sql(characters[1])).await, "done");
        assert_eq!(ending_task.await.unwrap(), "done");
    }
    assert_invariants(&world).await;
}

/// An INSERT of an event locks the sender's row in `private.account_gates` before the session's row. So while the
/// INSERT waits for the row in `private.account_gates`, another transaction of the same account, which has locked that
/// row, can lock the session's.
#[tokio::test]
async fn an_event_does_not_deadlock_with_a_transaction_of_the_same_account() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let transaction = game.seer.begin().await;
    let update_bio = format!("UPDATE users SET bio = 'Runs games.' WHERE id = '{}'", game.seer.user_id());
    assert_eq!(execute_in(&transaction, &update_bio).await, Ok(1));
    let event_task = {
        let (seer, session) = (game.seer.clone(), game.session_id);
        tokio::spawn(async move { attempt(&seer, &insert_event_sql(session)).await })
    };
    world.owner().wait_until_backends_wait_for_locks(1).await;
    let pause = format!("UPDATE sessions SET status = 'paused' WHERE id = '{}'", game.session_id);
    assert_eq!(execute_and_commit(transaction, &pause).await, "done");
    assert_eq!(event_task.await.unwrap(), "done");
}
