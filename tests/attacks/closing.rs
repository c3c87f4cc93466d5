//! Nobody can prevent another account from being closed (its personal data is removed) or deleted, or delay this for
//! long. No single statement can both close the caller's account and write something else. An ended session is
//! *unshared* if nobody besides its Seer ever had a seat in it.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, close_account_sql, close_or_delete_account_sql, execute_and_commit, execute_in,
    is_account_closed, new_private_session,
    populated_account::create_populated_account,
    sql_outcome,
    sqlstates::{
        ACCOUNT_CLOSED, CHECK_VIOLATION, INSUFFICIENT_PRIVILEGE, SESSION_OVER, TRIGGERED_DATA_CHANGE_VIOLATION,
    },
};
use crate::{
    maintenance::insert_old_events,
    world::{World, insert_attribute_check_sql, insert_character_sql, insert_seat_sql},
};

/// The account of a Seer is closed. The closing cancels the Seer's session, and so has to change counters of the
/// players' characters. It waits for one of these characters, which another transaction has locked. Then that
/// transaction inserts a character for the Seer's account, and so has to update a counter in the Seer's profile. If the
/// closing had locked the profile before it waited, that would be a deadlock.
#[tokio::test]
async fn closing_does_not_deadlock_with_a_new_character_of_the_account() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let seer = game.seer.user_id();
    let equip = format!("UPDATE characters SET equipment = '[1]' WHERE id = '{}'", game.players[0].character_id);
    let writing_transaction = world.owner().begin().await;
    execute_in(&writing_transaction, &equip).await.unwrap();
    let closing_transaction = world.superuser().await.begin().await;
    // With this timeout, the closing would detect a deadlock only after 60 s. So the other transaction, with the
    // default of 1 s, would detect it first, and would fail. (If the closing detected it first, it would try again, and
    // this test would not notice the deadlock.) Only a superuser may set this parameter.
    execute_in(&closing_transaction, "SET LOCAL deadlock_timeout = '60s'").await.unwrap();
    let sql = close_account_sql(seer);
    let closing_task = tokio::spawn(async move { execute_and_commit(closing_transaction, &sql).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    assert_eq!(execute_and_commit(writing_transaction, &insert_character_sql(Uuid::new_v4(), seer)).await, "done");
    assert_eq!(closing_task.await.unwrap(), "done");
    assert!(is_account_closed(&world, seer).await);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn an_account_is_closed_or_deleted_while_another_seer_creates_a_session_of_the_accounts_adventure() {
    for is_deletion in [true, false] {
        let world = World::new().await;
        let (author, other_seer) = (world.new_user().await, world.new_user().await);
        let adventure = world.new_adventure(author.user_id()).await;
        let draft_adventure = world.new_draft_adventure(author.user_id()).await;
        let other_seers_transaction = other_seer.begin().await;
        let insert_session =
            format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", other_seer.user_id());
        execute_in(&other_seers_transaction, &insert_session).await.unwrap();
        let sql = close_or_delete_account_sql(author.user_id(), is_deletion);
        // The closing or deletion waits for none of the other Seer's locks, so overlapping transactions of other users
        // cannot prevent it. (`lock_timeout` would not show whether the deletion waits, because the deletion catches
        // the error of that timeout, and skips the adventure.)
        assert_eq!(attempt(&world.owner(), &format!("SET LOCAL statement_timeout = '10s'; {sql}")).await, "done");
        assert!(is_account_closed(&world, author.user_id()).await);
        other_seers_transaction.commit().await.unwrap();
        // The adventure stays, because the other Seer's session refers to it. So its author's profile stays too, even
        // after a deletion, and is closed. But the draft, which nobody has played, is deleted.
        let session_with_adventure =
            format!("sessions JOIN adventures ON adventures.id = adventure_id WHERE adventure_id = '{adventure}'");
        assert_eq!(world.owner().count(&session_with_adventure).await, 1);
        assert_eq!(world.owner().count(&format!("adventures WHERE id = '{draft_adventure}'")).await, 0);
        assert_invariants(&world).await;
    }
}

#[tokio::test]
async fn an_adventure_is_deleted_although_another_seer_writes_to_an_unshared_ended_session_of_the_adventure() {
    let world = World::new().await;
    let (author, other_seer) = (world.new_user().await, world.new_user().await);
    for session_count in [1, 3] {
        let adventure = world.new_adventure(author.user_id()).await;
        let mut ended_sessions = Vec::new();
        for _ in 0..session_count {
            let session = new_private_session(&world, other_seer.user_id(), adventure).await;
            let end = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{session}'");
            assert_eq!(attempt(&other_seer, &end).await, "done");
            ended_sessions.push(session);
        }
        let locked_session = ended_sessions[session_count - 1];
        // The deletion waits for the write, and then succeeds. The first deletion is rolled back, so that the second
        // one has something to delete.
        for (write, commits_deletion) in [
            (
                format!(
                    "INSERT INTO session_events (session_id, event_type) VALUES ('{locked_session}', 'client.wave')"
                ),
                false,
            ),
            (format!("UPDATE sessions SET looking_for = 'anybody' WHERE id = '{locked_session}'"), true),
        ] {
            let other_seers_transaction = other_seer.begin().await;
            execute_in(&other_seers_transaction, &write).await.unwrap();
            let deletion_transaction = author.begin().await;
            let sql = format!("DELETE FROM adventures WHERE id = '{adventure}'");
            let deletion_task = tokio::spawn(async move {
                if commits_deletion {
                    execute_and_commit(deletion_transaction, &sql).await
                } else {
                    let outcome = sql_outcome(execute_in(&deletion_transaction, &sql).await);
                    deletion_transaction.rollback().await.unwrap();
                    outcome
                }
            });
            world.owner().wait_until_backends_wait_for_locks(1).await;
            other_seers_transaction.commit().await.unwrap();
            assert_eq!(deletion_task.await.unwrap(), "done", "{write}");
        }
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn an_account_is_deleted_while_another_seer_writes_to_an_unshared_ended_session_of_the_accounts_adventure() {
    let world = World::new().await;
    let (author, other_seer) = (world.new_user().await, world.new_user().await);
    let adventure = world.new_adventure(author.user_id()).await;
    let session = new_private_session(&world, other_seer.user_id(), adventure).await;
    let end = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{session}'");
    assert_eq!(attempt(&other_seer, &end).await, "done");
    let other_seers_transaction = other_seer.begin().await;
    let insert_event =
        format!("INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.wave')");
    execute_in(&other_seers_transaction, &insert_event).await.unwrap();
    // As above, `lock_timeout` would not show whether the deletion waits.
    let sql = format!("SET LOCAL statement_timeout = '10s'; DELETE FROM auth.users WHERE id = '{}'", author.user_id());
    assert_eq!(attempt(&world.owner(), &sql).await, "done");
    other_seers_transaction.commit().await.unwrap();
    // The deletion does not wait for the session, which the other Seer has locked. So the adventure stays, and the
    // account's profile stays too, and is closed.
    assert_eq!(world.owner().count(&format!("adventures WHERE id = '{adventure}'")).await, 1, "the adventure stays");
    assert!(is_account_closed(&world, author.user_id()).await);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn no_statement_both_closes_the_account_and_writes() {
    let world = World::new().await;
    let fixture = create_populated_account(&world).await;
    let (account, live_session, completed_session, left_session) = (
        fixture.account_id,
        fixture.live_session.session_id,
        fixture.completed_session.session_id,
        fixture.left_session.session_id,
    );
    let (adventure, creature) = (fixture.published_adventure_id, fixture.creature_id);
    let (spare_character, seated_character) = (fixture.spare_character_id, fixture.seated_character_id);
    // An expression that closes the account and returns true.
    let close_sql = format!("private.close_account('{account}')");
    // An expression that closes the account and then yields the value.
    let close_then_yield_sql = |value: &str| format!("CASE WHEN {close_sql} THEN '{value}' END");
    let insert_event_sql = |event_type: &str, payload: &str| {
        format!(
            "INSERT INTO session_events (session_id, event_type, payload)
             VALUES ('{completed_session}', {event_type}, {payload})"
        )
    };
    let refused_because_closed = [
        format!("UPDATE adventures SET name = {} WHERE id = '{adventure}'", close_then_yield_sql("still here")),
        format!(
            "UPDATE adventures SET status = {}::adventure_status WHERE id = '{adventure}'",
            close_then_yield_sql("draft")
        ),
        format!("UPDATE adventures SET name = 'Renamed' WHERE id = '{adventure}' RETURNING {close_sql}"),
        format!(
            "UPDATE adventures SET name = 'Renamed' FROM (SELECT {close_sql} AS is_closed OFFSET 0) AS closing
             WHERE is_closed AND id = '{adventure}'"
        ),
        format!(
            "WITH closing AS MATERIALIZED (SELECT {close_sql} AS is_closed)
             UPDATE adventures SET name = 'Renamed' FROM closing WHERE is_closed AND id = '{adventure}'"
        ),
        format!(
            "INSERT INTO adventures (creator_id, name) VALUES ('{account}', {})",
            close_then_yield_sql("Another draft")
        ),
        format!(
            "INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'Another draft') RETURNING {close_sql}"
        ),
        format!("DELETE FROM adventures WHERE id = '{adventure}' AND {close_sql}"),
        format!(
            "INSERT INTO creatures (adventure_id, name)
             SELECT '{adventure}', CASE WHEN number = 1 THEN 'Wolf' WHEN {close_sql} THEN 'Mud Hag' END
             FROM generate_series(1, 2) AS number"
        ),
        format!(
            "INSERT INTO creatures (adventure_id, name) VALUES ('{adventure}', {})",
            close_then_yield_sql("Mud Hag")
        ),
        format!("UPDATE creatures SET name = {} WHERE id = '{creature}'", close_then_yield_sql("Mud Hag")),
        format!("DELETE FROM creatures WHERE id = '{creature}' AND {close_sql}"),
        format!("DELETE FROM creatures WHERE id = '{creature}' RETURNING {close_sql}"),
        format!("INSERT INTO characters (user_id, name) VALUES ('{account}', {})", close_then_yield_sql("Another")),
        format!("UPDATE characters SET name = {} WHERE id = '{spare_character}'", close_then_yield_sql("Renamed")),
        format!("UPDATE characters SET equipment = '[1]' WHERE id = '{spare_character}' RETURNING {close_sql}"),
        format!("DELETE FROM characters WHERE id = '{spare_character}' AND {close_sql}"),
        format!(
            "MERGE INTO characters AS target USING (SELECT '{spare_character}'::uuid AS id) AS wanted
             ON target.id = wanted.id WHEN MATCHED THEN UPDATE SET name = {}",
            close_then_yield_sql("Merged")
        ),
        format!(
            "INSERT INTO sessions (seer_id, adventure_id, looking_for) VALUES ('{account}', '{adventure}', {})",
            close_then_yield_sql("anybody")
        ),
        format!(
            "UPDATE sessions SET looking_for = {} WHERE id = '{completed_session}'",
            close_then_yield_sql("anybody")
        ),
        insert_event_sql(&close_then_yield_sql("client.wave"), "'{}'"),
        insert_event_sql("'client.wave'", &format!("CASE WHEN {close_sql} THEN '{{}}'::jsonb END")),
        format!("{} RETURNING {close_sql}", insert_event_sql("'client.wave'", "'{}'")),
        format!("UPDATE tutorial_progress SET skipped = {close_sql} WHERE user_id = '{account}'"),
        format!("UPDATE tutorial_progress SET skipped = true WHERE user_id = '{account}' RETURNING {close_sql}"),
        format!(
            "INSERT INTO tutorial_progress (user_id, skipped) VALUES ('{account}', true)
             ON CONFLICT (user_id) DO UPDATE SET skipped = {close_sql}"
        ),
    ];
    // Closing changes the rows that these statements write, or rows that they need. So something other than the check
    // for a closed account may refuse such a statement first (PostgreSQL, or another trigger), or the statement finds
    // no row.
    let refused_or_without_effect = [
        format!(
            "UPDATE session_players SET removed_at = CASE WHEN {close_sql} THEN now() END
             WHERE session_id = '{completed_session}'"
        ),
        format!("UPDATE users SET bio = {} WHERE id = '{account}'", close_then_yield_sql("Back.")),
        format!("UPDATE users SET bio = 'Back.' WHERE id = '{account}' RETURNING {close_sql}"),
        format!("UPDATE sessions SET looking_for = {} WHERE id = '{live_session}'", close_then_yield_sql("anybody")),
        format!(
            "UPDATE session_players SET is_active = {close_sql}
             WHERE session_id = '{left_session}' AND user_id = '{account}'"
        ),
        format!("{} RETURNING {close_sql}", insert_seat_sql(fixture.public_session_id, account, seated_character)),
        format!(
            "{} RETURNING {close_sql}",
            insert_attribute_check_sql(fixture.joined_session.session_id, seated_character)
        ),
        format!(
            "{} RETURNING {close_sql}",
            insert_attribute_check_sql(live_session, fixture.live_session.players[0].character_id)
        ),
        format!("SELECT * FROM private.change_hit_points('{seated_character}', CASE WHEN {close_sql} THEN -1 END)"),
    ];
    for (statements, possible_outcomes) in [
        (&refused_because_closed[..], &[ACCOUNT_CLOSED][..]),
        (
            &refused_or_without_effect[..],
            &[
                ACCOUNT_CLOSED,
                INSUFFICIENT_PRIVILEGE,
                TRIGGERED_DATA_CHANGE_VIOLATION,
                CHECK_VIOLATION,
                SESSION_OVER,
                "no row",
            ],
        ),
    ] {
        for sql in statements {
            for is_repeatable_read in [false, true] {
                let transaction = if is_repeatable_read {
                    fixture.caller.begin_with_snapshot().await
                } else {
                    fixture.caller.begin().await
                };
                let outcome = sql_outcome(execute_in(&transaction, sql).await);
                transaction.rollback().await.unwrap();
                assert!(possible_outcomes.contains(&outcome.as_str()), "{outcome}: {sql}");
            }
        }
    }
    // A transaction that writes may close the account in a later statement.
    let transaction = fixture.caller.begin().await;
    let rename = format!("UPDATE adventures SET name = 'Renamed' WHERE id = '{adventure}'");
    assert_eq!(execute_in(&transaction, &rename).await, Ok(1));
    assert_eq!(execute_and_commit(transaction, &format!("SELECT {close_sql}")).await, "done");
    assert!(is_account_closed(&world, account).await);
    assert_invariants(&world).await;
    // The fixture's account has a row in `tutorial_progress` already, so another account begins the tutorial.
    let newcomer = world.new_user().await;
    let begin_tutorial = format!(
        "INSERT INTO tutorial_progress (user_id) VALUES ('{0}') RETURNING private.close_account('{0}')",
        newcomer.user_id()
    );
    assert_eq!(attempt(&newcomer, &begin_tutorial).await, ACCOUNT_CLOSED);
}

/// A statement that inserts events also deletes events of any session that are more than a day old. A transaction that
/// closes an account inserts events too, but deletes no old ones, because it goes on to lock more rows. If it had
/// deleted old events, it could deadlock with the deletion of the session to which these belong.
#[tokio::test]
async fn closing_an_account_writes_events_without_deleting_old_ones() {
    let world = World::new().await;
    let (game, other_game) = (world.new_active_session(2).await, world.new_active_session(1).await);
    insert_old_events(&world, other_game.session_id, 3).await;
    let old_events = "session_events WHERE event_type = 'client.old'";
    for is_deletion in [false, true] {
        let account = game.players[usize::from(is_deletion)].user_id;
        let events_of_session = format!("session_events WHERE session_id = '{}'", game.session_id);
        let count_before = world.owner().count(&events_of_session).await;
        assert_eq!(attempt(&world.owner(), &close_or_delete_account_sql(account, is_deletion)).await, "done");
        assert!(world.owner().count(&events_of_session).await > count_before, "the closing must write an event");
        assert_eq!(world.owner().count(old_events).await, 3, "deletion: {is_deletion}");
    }
    let other_player = &other_game.players[0];
    let roll = insert_attribute_check_sql(other_game.session_id, other_player.character_id);
    assert_eq!(attempt(&other_player.caller, &roll).await, "done");
    assert_eq!(world.owner().count(old_events).await, 0, "the next event deletes them");
}
