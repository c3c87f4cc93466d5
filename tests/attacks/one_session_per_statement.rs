//! All events that one statement of a user writes must belong to one session, and so must all its rolls. Otherwise the
//! statement would lock sessions in the order of its rows, and could deadlock with the Seer's update of the same
//! sessions.

use uuid::Uuid;

use super::{assert_invariants, attempt, dry_run, execute_in, sql_outcome, sqlstates::SEVERAL_SESSIONS};
use crate::world::{Player, World, insert_attribute_check_sql, insert_seat_sql};

/// What `dry_run` may return for a statement that is accepted: "no row" for a DO block, "done" for all others.
const SUCCESSES: [&str; 2] = ["done", "no row"];

/// Creates two active sessions of one Seer, in both of which the same player has a seat. Returns the player and the
/// sessions.
async fn create_two_sessions(world: &World) -> (Player, Uuid, Uuid) {
    // The two sessions get the Seer and the adventure of `game`, in which the player has no seat.
    let (game, player) = (world.new_active_session(1).await, world.new_player().await);
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{}') RETURNING id",
        game.seer.user_id(),
        game.adventure_id
    );
    let first_session: Uuid = world.owner().fetch_value(&sql).await.unwrap();
    let second_session: Uuid = world.owner().fetch_value(&sql).await.unwrap();
    for session in [first_session, second_session] {
        world.owner().execute(&insert_seat_sql(session, player.user_id, player.character_id)).await.unwrap();
        let start = format!("UPDATE sessions SET status = 'active' WHERE id = '{session}'");
        world.owner().execute(&start).await.unwrap();
    }
    (player, first_session, second_session)
}

fn insert_event_sql(session: Uuid) -> String {
    format!("INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.wave')")
}

/// Returns statements that each insert rows for two sessions, a row for `first` before any row for `second`. `insert`
/// must return a statement that inserts one row for the session that it is given.
fn statements_for_both(insert: &dyn Fn(Uuid) -> String, first: Uuid, second: Uuid) -> Vec<String> {
    let values = |session| insert(session).split_once("VALUES").unwrap().1.to_owned();
    let insert_into = insert(first).split_once("VALUES").unwrap().0.to_owned();
    vec![
        format!("{insert_into} VALUES {}, {}", values(first), values(second)),
        format!("{insert_into} VALUES {0}, {0}, {1}, {0}", values(first), values(second)),
        format!("{insert_into} VALUES {}, {} ON CONFLICT DO NOTHING", values(first), values(second)),
        // If the statement does not read a data-modifying CTE, PostgreSQL runs that CTE last.
        format!("WITH runs_last AS ({} RETURNING 1) {}", insert(second), insert(first)),
        format!("DO $$ BEGIN {insert_into} VALUES {}, {}; END $$", values(first), values(second)),
    ]
}

#[tokio::test]
async fn a_users_statement_writes_events_or_rolls_of_only_one_session() {
    let world = World::new().await;
    let (player, first_session, second_session) = create_two_sessions(&world).await;
    let insert_roll = |session: Uuid| insert_attribute_check_sql(session, player.character_id);
    for insert in [&insert_event_sql as &(dyn Fn(Uuid) -> String + Sync), &insert_roll] {
        for (earlier, later) in [(first_session, second_session), (second_session, first_session)] {
            for sql in statements_for_both(insert, earlier, later) {
                assert_eq!(dry_run(&player.caller, &sql).await, SEVERAL_SESSIONS, "{sql}");
                assert!(
                    SUCCESSES.contains(&&*dry_run(&world.service(), &sql).await),
                    "the service may write to several sessions: {sql}"
                );
            }
        }
        // Several rows of one session are accepted, and so is another session in the next statement.
        for sql in statements_for_both(insert, first_session, first_session) {
            assert!(SUCCESSES.contains(&&*dry_run(&player.caller, &sql).await), "{sql}");
        }
        assert_eq!(
            dry_run(
                &player.caller,
                &format!("{}; {}; {}", insert(first_session), insert(second_session), insert(first_session))
            )
            .await,
            "done"
        );
        let transaction = player.caller.begin().await;
        for sql in [insert(first_session), "SAVEPOINT here".to_owned(), insert(second_session)] {
            execute_in(&transaction, &sql).await.unwrap();
        }
        let insert_into_both = &statements_for_both(insert, first_session, second_session)[0];
        assert_eq!(sql_outcome(execute_in(&transaction, insert_into_both).await), SEVERAL_SESSIONS);
        execute_in(&transaction, "ROLLBACK TO here").await.unwrap();
        assert_eq!(
            execute_in(&transaction, &insert(second_session)).await,
            Ok(1),
            "the refused statement must leave nothing behind"
        );
        transaction.rollback().await.unwrap();
    }
    // With each row, the caller resets the setting in which the trigger remembers the session of the first row. (The
    // subquery runs again for each row, because its condition depends on the row.)
    let insert_with_reset = format!(
        "INSERT INTO session_events (session_id, event_type)
         SELECT session, 'client.wave' || coalesce(reset, '')
         FROM unnest('{{{first_session}, {second_session}}}'::uuid[]) AS sessions (session),
           LATERAL (SELECT set_config('sparc.session_of_events', '', true) WHERE session IS NOT NULL) AS resets (reset)"
    );
    assert_eq!(attempt(&player.caller, &insert_with_reset).await, SEVERAL_SESSIONS);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn the_second_session_is_refused_before_it_is_locked() {
    let world = World::new().await;
    let (player, free_session, locked_session) = create_two_sessions(&world).await;
    let insert_roll = |session: Uuid| insert_attribute_check_sql(session, player.character_id);
    let lock_holder = world.owner().begin().await;
    execute_in(&lock_holder, &format!("SELECT FROM sessions WHERE id = '{locked_session}' FOR UPDATE")).await.unwrap();
    for insert in [&insert_event_sql as &(dyn Fn(Uuid) -> String + Sync), &insert_roll] {
        for sql in statements_for_both(insert, free_session, locked_session) {
            let sql = format!("SET LOCAL lock_timeout = '5s'; {sql}");
            assert_eq!(dry_run(&player.caller, &sql).await, SEVERAL_SESSIONS, "{sql}");
        }
    }
    lock_holder.rollback().await.unwrap();
}
