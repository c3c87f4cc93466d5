//! Every limit: at its edge, under concurrency, in old snapshots, and while rows are being deleted.

use uuid::Uuid;

use super::{assert_invariants, attempt, exec_and_commit, exec_in, open_session, query_number};
use crate::world::{Person, World, insert_character, insert_seat, run_together};

/// A limit that one more row reaches, and statements that each add one row.
struct Limit {
    name: &'static str,
    /// The SQLSTATE of the refusal.
    code: &'static str,
    maximum: i64,
    /// A query that counts the rows.
    count: String,
    /// A query that reads the counter.
    counter: String,
    /// Statements that each add one row, and who sends them.
    statements: Vec<(Person, String)>,
}

/// Creates `count` more characters, all living or all retired.
pub async fn create_characters(world: &World, user: Uuid, count: i64, are_retired: bool) {
    let retired_at = if are_retired { "now()" } else { "NULL" };
    let sql = format!(
        "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability, retired_at)
         SELECT '{user}', 'Hero {are_retired} ' || number, 'warrior', 5, 3, 2, 2, '{{}}', {retired_at} FROM generate_series(1, {count}) AS number"
    );
    world.owner().exec(&sql).await.unwrap();
}

/// Creates the rows for every limit, with `count` statements each.
async fn create_limits(world: &World, count: usize) -> Vec<Limit> {
    let owner = world.owner();
    let mut limits = Vec::new();
    let counter_of = |user: Uuid, counter: &str| format!("SELECT {counter} FROM users WHERE id = '{user}'");

    let me = world.new_user().await;
    create_characters(world, me.uuid(), 9, false).await;
    limits.push(Limit {
        name: "living characters",
        code: "SP001",
        maximum: 10,
        count: format!("SELECT count(*) FROM characters WHERE user_id = '{}' AND retired_at IS NULL", me.uuid()),
        counter: counter_of(me.uuid(), "living_characters"),
        statements: (0..count).map(|_| (me.clone(), insert_character(Uuid::new_v4(), me.uuid()))).collect(),
    });

    let me = world.new_user().await;
    create_characters(world, me.uuid(), 9, false).await;
    create_characters(world, me.uuid(), count as i64, true).await;
    let retired: Vec<Uuid> = owner
        .values(&format!("SELECT id FROM characters WHERE user_id = '{}' AND retired_at IS NOT NULL", me.uuid()))
        .await
        .unwrap();
    limits.push(Limit {
        name: "living characters, unretired",
        code: "SP001",
        maximum: 10,
        count: format!("SELECT count(*) FROM characters WHERE user_id = '{}' AND retired_at IS NULL", me.uuid()),
        counter: counter_of(me.uuid(), "living_characters"),
        statements: retired
            .iter()
            .map(|id| (me.clone(), format!("UPDATE characters SET retired_at = NULL WHERE id = '{id}'")))
            .collect(),
    });

    let me = world.new_user().await;
    create_characters(world, me.uuid(), 99, true).await;
    create_characters(world, me.uuid(), count.min(10) as i64, false).await;
    let living: Vec<Uuid> = owner
        .values(&format!("SELECT id FROM characters WHERE user_id = '{}' AND retired_at IS NULL", me.uuid()))
        .await
        .unwrap();
    limits.push(Limit {
        name: "retired characters",
        code: "SP022",
        maximum: 100,
        count: format!("SELECT count(*) FROM characters WHERE user_id = '{}' AND retired_at IS NOT NULL", me.uuid()),
        counter: counter_of(me.uuid(), "retired_characters"),
        statements: living
            .iter()
            .map(|id| (me.clone(), format!("UPDATE characters SET retired_at = now() WHERE id = '{id}'")))
            .collect(),
    });

    let player = world.new_player().await;
    let (seer, other) = (world.new_account().await, world.new_account().await);
    let adventure = world.new_adventure(seer).await;
    for index in 0..19 {
        let session = open_session(world, if index % 2 == 0 { seer } else { other }, adventure, true).await;
        owner.exec(&insert_seat(session, player.id, player.character)).await.unwrap();
    }
    let mut statements = Vec::new();
    let third_seer = world.new_account().await;
    for _ in 0..count {
        let session = open_session(world, third_seer, adventure, true).await;
        statements.push((player.person.clone(), insert_seat(session, player.id, player.character)));
    }
    limits.push(Limit {
        name: "seats in live sessions",
        code: "SP023",
        maximum: 20,
        count: format!("SELECT count(*) FROM session_players WHERE user_id = '{}' AND is_active", player.id),
        counter: counter_of(player.id, "live_seats"),
        statements,
    });

    let me = world.new_user().await;
    for _ in 0..19 {
        open_session(world, me.uuid(), adventure, false).await;
    }
    let insert = format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", me.uuid());
    limits.push(Limit {
        name: "live sessions as Seer",
        code: "SP024",
        maximum: 20,
        count: format!("SELECT count(*) FROM sessions WHERE seer_id = '{}' AND ended_at IS NULL", me.uuid()),
        counter: counter_of(me.uuid(), "live_sessions"),
        statements: (0..count).map(|_| (me.clone(), insert.clone())).collect(),
    });

    let me = world.new_user().await;
    let sql = format!(
        "INSERT INTO adventures (creator_id, name) SELECT '{}', 'Draft ' || number FROM generate_series(1, 199) AS number",
        me.uuid()
    );
    owner.exec(&sql).await.unwrap();
    let insert = format!("INSERT INTO adventures (creator_id, name) VALUES ('{}', 'One more')", me.uuid());
    limits.push(Limit {
        name: "adventures",
        code: "SP025",
        maximum: 200,
        count: format!("SELECT count(*) FROM adventures WHERE creator_id = '{}'", me.uuid()),
        counter: counter_of(me.uuid(), "adventure_count"),
        statements: (0..count).map(|_| (me.clone(), insert.clone())).collect(),
    });

    let me = world.new_user().await;
    let draft = world.new_draft(me.uuid()).await;
    let sql = format!(
        "INSERT INTO creatures (adventure_id, name) SELECT '{draft}', 'Rat ' || number FROM generate_series(1, 199) AS number"
    );
    owner.exec(&sql).await.unwrap();
    let insert = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft}', 'One more')");
    limits.push(Limit {
        name: "creatures of an adventure",
        code: "SP026",
        maximum: 200,
        count: format!("SELECT count(*) FROM creatures WHERE adventure_id = '{draft}'"),
        counter: format!("SELECT creature_count FROM adventures WHERE id = '{draft}'"),
        statements: (0..count).map(|_| (me.clone(), insert.clone())).collect(),
    });

    let game = world.new_session(3).await;
    world.set(&game, "is_public = true").await;
    let mut statements = Vec::new();
    for _ in 0..count {
        let player = world.new_player().await;
        statements.push((player.person.clone(), insert_seat(game.session, player.id, player.character)));
    }
    limits.push(Limit {
        name: "seats of a session",
        code: "SP002",
        maximum: 4,
        count: format!("SELECT count(*) FROM session_players WHERE session_id = '{}' AND is_active", game.session),
        counter: format!("SELECT seats_taken FROM sessions WHERE id = '{}'", game.session),
        statements,
    });
    limits
}

async fn assert_limit_holds(world: &World, limit: &Limit) {
    let (rows, counter) = (query_number(world, &limit.count).await, query_number(world, &limit.counter).await);
    assert!(rows <= limit.maximum, "{}: {rows} of {}", limit.name, limit.maximum);
    assert_eq!(rows, counter, "{}: the counter is wrong", limit.name);
}

#[tokio::test]
async fn each_limit_can_be_reached_but_not_exceeded() {
    let world = World::new().await;
    for limit in create_limits(&world, 2).await {
        let (person, sql) = &limit.statements[0];
        assert_eq!(attempt(person, sql).await, "done", "{}: the last", limit.name);
        let (person, sql) = &limit.statements[1];
        assert_eq!(attempt(person, sql).await, limit.code, "{}: one more", limit.name);
        assert_eq!(query_number(&world, &limit.count).await, limit.maximum, "{}", limit.name);
        assert_limit_holds(&world, &limit).await;
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn each_limit_holds_for_eight_concurrent_statements() {
    let world = World::new().await;
    for limit in create_limits(&world, 8).await {
        let tasks: Vec<_> =
            limit.statements.iter().cloned().map(|(person, sql)| async move { attempt(&person, &sql).await }).collect();
        let outcomes = run_together(tasks).await;
        let successes = outcomes.iter().filter(|outcome| *outcome == "done").count();
        assert_eq!(successes, 1, "{}: {outcomes:?}", limit.name);
        assert!(
            outcomes.iter().all(|outcome| outcome == "done" || outcome == limit.code),
            "{}: {outcomes:?}",
            limit.name
        );
        assert_limit_holds(&world, &limit).await;
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn each_limit_holds_for_transactions_with_an_old_snapshot() {
    let world = World::new().await;
    for limit in create_limits(&world, 3).await {
        // All three snapshots show room for one more row. The first transaction inserts it; one tries before the first
        // has committed, one afterwards.
        let (first, second, third) = (&limit.statements[0], &limit.statements[1], &limit.statements[2]);
        let (early, late) = (second.0.begin_with_snapshot().await, third.0.begin_with_snapshot().await);
        let open = first.0.begin_with_snapshot().await;
        exec_in(&open, &first.1).await.unwrap();
        let statement = second.1.clone();
        let waiting = tokio::spawn(async move { exec_and_commit(early, &statement).await });
        world.owner().wait_for_lock_waiters(1).await;
        open.commit().await.unwrap();
        let outcome = waiting.await.unwrap();
        assert!([limit.code, "40001"].contains(&outcome.as_str()), "{}: {outcome}", limit.name);
        let outcome = exec_and_commit(late, &third.1).await;
        assert!([limit.code, "40001"].contains(&outcome.as_str()), "{}: {outcome}", limit.name);
        assert_limit_holds(&world, &limit).await;
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn an_account_takes_no_more_than_twenty_seats_at_once() {
    let world = World::new().await;
    let player = world.new_player().await;
    let (seer, other) = (world.new_account().await, world.new_account().await);
    let adventure = world.new_adventure(seer).await;
    for index in 0..30 {
        open_session(&world, if index % 2 == 0 { seer } else { other }, adventure, true).await;
    }
    let join_all = format!(
        "INSERT INTO session_players (session_id, user_id, character_id)
         SELECT id, '{}', '{}' FROM sessions WHERE is_public AND status = 'waiting'",
        player.id, player.character
    );
    assert_eq!(attempt(&player.person, &join_all).await, "SP023");
    assert_eq!(attempt(&player.person, &format!("{join_all} ON CONFLICT DO NOTHING")).await, "SP023");
    // Twenty seats are allowed; the seats of a session that ends no longer count.
    assert_eq!(player.person.exec(&format!("{join_all} LIMIT 20")).await, Ok(20));
    assert_eq!(query_number(&world, &format!("SELECT live_seats FROM users WHERE id = '{}'", player.id)).await, 20);
    let cancel = format!("UPDATE sessions SET status = 'cancelled' WHERE seats_taken = 1 AND seer_id = '{seer}'");
    world.owner().exec(&cancel).await.unwrap();
    assert!(query_number(&world, &format!("SELECT live_seats FROM users WHERE id = '{}'", player.id)).await < 20);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_session_that_ends_makes_room_for_another() {
    let world = World::new().await;
    let me = world.new_user().await;
    let adventure = world.new_adventure(me.uuid()).await;
    let insert = format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", me.uuid());
    for _ in 0..20 {
        assert_eq!(attempt(&me, &insert).await, "done");
    }
    assert_eq!(attempt(&me, &insert).await, "SP024");
    for end in ["cancelled", "deleted"] {
        let one_session =
            format!("(SELECT id FROM sessions WHERE seer_id = '{}' AND status = 'waiting' LIMIT 1)", me.uuid());
        match end {
            "deleted" => {
                assert_eq!(
                    attempt(&world.service(), &format!("DELETE FROM sessions WHERE id = {one_session}")).await,
                    "SP031"
                );
                assert_eq!(
                    attempt(&world.owner(), &format!("DELETE FROM sessions WHERE id = {one_session}")).await,
                    "done"
                )
            }
            _ => assert_eq!(
                attempt(&me, &format!("UPDATE sessions SET status = '{end}' WHERE id = {one_session}")).await,
                "done"
            ),
        }
        assert_eq!(attempt(&me, &insert).await, "done", "{end}");
        assert_eq!(attempt(&me, &insert).await, "SP024", "{end}");
    }
    // All sessions end in one statement, and twenty new ones are opened in another.
    let cancel =
        format!("UPDATE sessions SET status = 'cancelled' WHERE seer_id = '{}' AND status = 'waiting'", me.uuid());
    assert_eq!(me.exec(&cancel).await, Ok(20));
    assert_eq!(query_number(&world, &format!("SELECT live_sessions FROM users WHERE id = '{}'", me.uuid())).await, 0);
    let open_sessions = |count: usize| {
        format!(
            "INSERT INTO sessions (seer_id, adventure_id) SELECT '{}', '{adventure}' FROM generate_series(1, {count})",
            me.uuid()
        )
    };
    assert_eq!(attempt(&me, &open_sessions(21)).await, "SP024");
    assert_eq!(me.exec(&open_sessions(20)).await, Ok(20));
    assert_invariants(&world).await;
}
