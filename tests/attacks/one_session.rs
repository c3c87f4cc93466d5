//! The events, and the rolls, of one statement belong to one session: otherwise it would lock sessions in the order of
//! its rows, and deadlock with the Seer's update of the same sessions.

use uuid::Uuid;

use super::{assert_invariants, attempt, dry_run, exec_in, outcome_code};
use crate::world::{Player, World, roll, seat};

/// Two active sessions of one Seer, with the same player.
async fn two_sessions(world: &World) -> (Player, Uuid, Uuid) {
    let (first, player) = (world.new_active_session(1).await, world.new_player().await);
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{}') RETURNING id",
        first.seer.uuid(),
        first.adventure
    );
    let second: Uuid = world.owner().value(&sql).await.unwrap();
    let third: Uuid = world.owner().value(&sql).await.unwrap();
    for session in [second, third] {
        world.owner().exec(&seat(session, player.id, player.character)).await.unwrap();
        let start = format!("UPDATE sessions SET status = 'active' WHERE id = '{session}'");
        world.owner().exec(&start).await.unwrap();
    }
    (player, second, third)
}

fn event(session: Uuid) -> String {
    format!("INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.wave')")
}

/// Statements that insert a row for each of two sessions, in that order, in one statement.
fn in_both(row: &dyn Fn(Uuid) -> String, first: Uuid, second: Uuid) -> Vec<String> {
    let values = |session| row(session).split_once("VALUES").unwrap().1.to_owned();
    let (insert, _) = row(first).split_once("VALUES").map(|(head, rest)| (head.to_owned(), rest.to_owned())).unwrap();
    vec![
        format!("{insert} VALUES {}, {}", values(first), values(second)),
        format!("{insert} VALUES {0}, {0}, {1}, {0}", values(first), values(second)),
        format!("{insert} VALUES {}, {} ON CONFLICT DO NOTHING", values(first), values(second)),
        // A CTE that nothing reads runs last.
        format!("WITH last AS ({} RETURNING 1) {}", row(second), row(first)),
        format!("DO $$ BEGIN {insert} VALUES {}, {}; END $$", values(first), values(second)),
    ]
}

#[tokio::test]
async fn one_statement_writes_events_or_rolls_of_one_session() {
    let world = World::new().await;
    let (player, first, second) = two_sessions(&world).await;
    let dice = |session: Uuid| roll(session, player.character);
    for row in [&event as &(dyn Fn(Uuid) -> String + Sync), &dice] {
        for (one, other) in [(first, second), (second, first)] {
            for sql in in_both(row, one, other) {
                assert_eq!(dry_run(&player.person, &sql).await, "SP039", "{sql}");
                assert!(
                    ["done", "no row"].contains(&&*dry_run(&world.service(), &sql).await),
                    "the service may: {sql}"
                );
            }
        }
        // Several rows of one session are accepted, and so is another session in the next statement.
        for sql in in_both(row, first, first) {
            assert!(["done", "no row"].contains(&&*dry_run(&player.person, &sql).await), "{sql}");
        }
        assert_eq!(dry_run(&player.person, &format!("{}; {}; {}", row(first), row(second), row(first))).await, "done");
        let transaction = player.person.begin().await;
        for sql in [row(first), "SAVEPOINT here".to_owned(), row(second)] {
            exec_in(&transaction, &sql).await.unwrap();
        }
        let both = &in_both(row, first, second)[0];
        assert_eq!(outcome_code(exec_in(&transaction, both).await), "SP039");
        exec_in(&transaction, "ROLLBACK TO here").await.unwrap();
        assert_eq!(exec_in(&transaction, &row(second)).await, Ok(1), "the refused statement leaves nothing behind");
        transaction.rollback().await.unwrap();
    }
    // The caller resets the setting with each row.
    let forged = format!(
        "INSERT INTO session_events (session_id, event_type)
         SELECT session, 'client.wave' || coalesce(reset, '')
         FROM unnest('{{{first}, {second}}}'::uuid[]) AS sessions (session),
           LATERAL (SELECT set_config('sparc.session_of_events', '', true) WHERE session IS NOT NULL) AS resets (reset)"
    );
    assert_eq!(attempt(&player.person, &forged).await, "SP039");
    assert_invariants(&world).await;
}

#[tokio::test]
async fn the_second_session_is_refused_before_it_is_locked() {
    let world = World::new().await;
    let (player, free, busy) = two_sessions(&world).await;
    let dice = |session: Uuid| roll(session, player.character);
    let holder = world.owner().begin().await;
    exec_in(&holder, &format!("SELECT FROM sessions WHERE id = '{busy}' FOR UPDATE")).await.unwrap();
    for row in [&event as &(dyn Fn(Uuid) -> String + Sync), &dice] {
        for sql in in_both(row, free, busy) {
            let sql = format!("SET LOCAL lock_timeout = '5s'; {sql}");
            assert_eq!(dry_run(&player.person, &sql).await, "SP039", "{sql}");
        }
    }
    holder.rollback().await.unwrap();
}
