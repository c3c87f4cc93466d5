//! The limits on the numbers of rows of an account, an adventure and a session: each is tried at its edge, with
//! concurrent statements, and in transactions with an old snapshot. A *living* character is one that is not retired. A
//! *live* session is one that has not ended.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, execute_and_commit, execute_in, new_private_session, new_public_session, query_number,
    sqlstates::{
        ADVENTURE_LIMIT_REACHED, CHARACTER_LIMIT_REACHED, CREATURE_LIMIT_REACHED, RETIRED_CHARACTER_LIMIT_REACHED,
        SEAT_LIMIT_REACHED, SERIALIZATION_FAILURE, SESSION_FULL, SESSION_LIMIT_REACHED, SESSION_LIVE,
    },
};
use crate::world::{SqlCaller, World, insert_character_sql, insert_seat_sql, run_together};

/// A limit on a number of rows. [`create_rows_below_limits`] has created all but one of the rows that the limit allows.
struct Limit {
    name: &'static str,
    /// The SQLSTATE of the refusal.
    sqlstate: &'static str,
    /// The number of rows that the limit allows.
    maximum: i64,
    /// A query that counts the rows.
    count_query: String,
    /// A query that reads the counter that the triggers maintain.
    counter_query: String,
    /// Statements that each add one row to the count (by an INSERT, or by an UPDATE of a row), each with the user who
    /// sends it.
    statements: Vec<(SqlCaller, String)>,
}

/// Creates `count` more living characters of an account.
pub(super) async fn create_living_characters(world: &World, account: Uuid, count: i64) {
    let sql = format!(
        "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability)
         SELECT '{account}', 'Living ' || number, 'warrior', 5, 3, 2, 2, '{{}}'
         FROM generate_series(1, {count}) AS number"
    );
    world.owner().execute(&sql).await.unwrap();
}

/// Creates `count` more retired characters of an account.
async fn create_retired_characters(world: &World, account: Uuid, count: i64) {
    let sql = format!(
        "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability, retired_at)
         SELECT '{account}', 'Retired ' || number, 'warrior', 5, 3, 2, 2, '{{}}', now()
         FROM generate_series(1, {count}) AS number"
    );
    world.owner().execute(&sql).await.unwrap();
}

/// For every limit, creates all but one of the rows that it allows. Returns the limits. Each limit gets
/// `statement_count` statements, each of which adds one row (but the limit on retired characters gets at most ten
/// statements).
async fn create_rows_below_limits(world: &World, statement_count: usize) -> Vec<Limit> {
    let owner = world.owner();
    let mut limits = Vec::new();
    let select_counter_sql =
        |account: Uuid, counter: &str| format!("SELECT {counter} FROM users WHERE id = '{account}'");

    let user = world.new_user().await;
    create_living_characters(world, user.user_id(), 9).await;
    limits.push(Limit {
        name: "living characters",
        sqlstate: CHARACTER_LIMIT_REACHED,
        maximum: 10,
        count_query: format!(
            "SELECT count(*) FROM characters WHERE user_id = '{}' AND retired_at IS NULL",
            user.user_id()
        ),
        counter_query: select_counter_sql(user.user_id(), "living_characters"),
        statements: (0..statement_count)
            .map(|_| (user.clone(), insert_character_sql(Uuid::new_v4(), user.user_id())))
            .collect(),
    });

    let user = world.new_user().await;
    create_living_characters(world, user.user_id(), 9).await;
    create_retired_characters(world, user.user_id(), statement_count as i64).await;
    let retired_ids: Vec<Uuid> = owner
        .fetch_values(&format!(
            "SELECT id FROM characters WHERE user_id = '{}' AND retired_at IS NOT NULL",
            user.user_id()
        ))
        .await
        .unwrap();
    limits.push(Limit {
        name: "living characters, reached by an UPDATE that unretires one",
        sqlstate: CHARACTER_LIMIT_REACHED,
        maximum: 10,
        count_query: format!(
            "SELECT count(*) FROM characters WHERE user_id = '{}' AND retired_at IS NULL",
            user.user_id()
        ),
        counter_query: select_counter_sql(user.user_id(), "living_characters"),
        statements: retired_ids
            .iter()
            .map(|id| (user.clone(), format!("UPDATE characters SET retired_at = NULL WHERE id = '{id}'")))
            .collect(),
    });

    let user = world.new_user().await;
    create_retired_characters(world, user.user_id(), 99).await;
    // An account may have only ten living characters.
    create_living_characters(world, user.user_id(), statement_count.min(10) as i64).await;
    let living_ids: Vec<Uuid> = owner
        .fetch_values(&format!("SELECT id FROM characters WHERE user_id = '{}' AND retired_at IS NULL", user.user_id()))
        .await
        .unwrap();
    limits.push(Limit {
        name: "retired characters",
        sqlstate: RETIRED_CHARACTER_LIMIT_REACHED,
        maximum: 100,
        count_query: format!(
            "SELECT count(*) FROM characters WHERE user_id = '{}' AND retired_at IS NOT NULL",
            user.user_id()
        ),
        counter_query: select_counter_sql(user.user_id(), "retired_characters"),
        statements: living_ids
            .iter()
            .map(|id| (user.clone(), format!("UPDATE characters SET retired_at = now() WHERE id = '{id}'")))
            .collect(),
    });

    let player = world.new_player().await;
    // With several Seers, none reaches the limit on the live sessions of a Seer.
    let (first_seer, second_seer) = (world.new_account().await, world.new_account().await);
    let adventure = world.new_adventure(first_seer).await;
    for index in 0..19 {
        let seer = if index % 2 == 0 { first_seer } else { second_seer };
        let session = new_public_session(world, seer, adventure).await;
        owner.execute(&insert_seat_sql(session, player.user_id, player.character_id)).await.unwrap();
    }
    let mut statements = Vec::new();
    let third_seer = world.new_account().await;
    for _ in 0..statement_count {
        let session = new_public_session(world, third_seer, adventure).await;
        statements.push((player.caller.clone(), insert_seat_sql(session, player.user_id, player.character_id)));
    }
    limits.push(Limit {
        name: "seats in live sessions",
        sqlstate: SEAT_LIMIT_REACHED,
        maximum: 20,
        count_query: format!("SELECT count(*) FROM session_players WHERE user_id = '{}' AND is_active", player.user_id),
        counter_query: select_counter_sql(player.user_id, "live_seats"),
        statements,
    });

    let user = world.new_user().await;
    for _ in 0..19 {
        new_private_session(world, user.user_id(), adventure).await;
    }
    let insert = format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", user.user_id());
    limits.push(Limit {
        name: "live sessions as Seer",
        sqlstate: SESSION_LIMIT_REACHED,
        maximum: 20,
        count_query: format!("SELECT count(*) FROM sessions WHERE seer_id = '{}' AND ended_at IS NULL", user.user_id()),
        counter_query: select_counter_sql(user.user_id(), "live_sessions"),
        statements: (0..statement_count).map(|_| (user.clone(), insert.clone())).collect(),
    });

    let user = world.new_user().await;
    let sql = format!(
        "INSERT INTO adventures (creator_id, name)
         SELECT '{}', 'Draft ' || number FROM generate_series(1, 199) AS number",
        user.user_id()
    );
    owner.execute(&sql).await.unwrap();
    let insert = format!("INSERT INTO adventures (creator_id, name) VALUES ('{}', 'One more')", user.user_id());
    limits.push(Limit {
        name: "adventures",
        sqlstate: ADVENTURE_LIMIT_REACHED,
        maximum: 200,
        count_query: format!("SELECT count(*) FROM adventures WHERE creator_id = '{}'", user.user_id()),
        counter_query: select_counter_sql(user.user_id(), "adventure_count"),
        statements: (0..statement_count).map(|_| (user.clone(), insert.clone())).collect(),
    });

    let user = world.new_user().await;
    let draft_adventure = world.new_draft_adventure(user.user_id()).await;
    let sql = format!(
        "INSERT INTO creatures (adventure_id, name)
         SELECT '{draft_adventure}', 'Rat ' || number FROM generate_series(1, 199) AS number"
    );
    owner.execute(&sql).await.unwrap();
    let insert = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_adventure}', 'One more')");
    limits.push(Limit {
        name: "creatures of an adventure",
        sqlstate: CREATURE_LIMIT_REACHED,
        maximum: 200,
        count_query: format!("SELECT count(*) FROM creatures WHERE adventure_id = '{draft_adventure}'"),
        counter_query: format!("SELECT creature_count FROM adventures WHERE id = '{draft_adventure}'"),
        statements: (0..statement_count).map(|_| (user.clone(), insert.clone())).collect(),
    });

    let game = world.new_session(3).await;
    world.update_session(&game, "is_public = true").await;
    let mut statements = Vec::new();
    for _ in 0..statement_count {
        let player = world.new_player().await;
        statements.push((player.caller.clone(), insert_seat_sql(game.session_id, player.user_id, player.character_id)));
    }
    limits.push(Limit {
        name: "seats of a session",
        sqlstate: SESSION_FULL,
        maximum: 4,
        count_query: format!(
            "SELECT count(*) FROM session_players WHERE session_id = '{}' AND is_active",
            game.session_id
        ),
        counter_query: format!("SELECT seats_taken FROM sessions WHERE id = '{}'", game.session_id),
        statements,
    });
    limits
}

/// Asserts that there are no more rows than the limit allows, and that the counter is their number.
async fn assert_limit_holds(world: &World, limit: &Limit) {
    let row_count = query_number(world, &limit.count_query).await;
    let counter = query_number(world, &limit.counter_query).await;
    assert!(row_count <= limit.maximum, "{}: {row_count} of {}", limit.name, limit.maximum);
    assert_eq!(row_count, counter, "{}: the counter is wrong", limit.name);
}

#[tokio::test]
async fn each_limit_can_be_reached_but_not_exceeded() {
    let world = World::new().await;
    for limit in create_rows_below_limits(&world, 2).await {
        let (caller, sql) = &limit.statements[0];
        assert_eq!(attempt(caller, sql).await, "done", "{}: the last row", limit.name);
        let (caller, sql) = &limit.statements[1];
        assert_eq!(attempt(caller, sql).await, limit.sqlstate, "{}: one row too many", limit.name);
        assert_eq!(query_number(&world, &limit.count_query).await, limit.maximum, "{}", limit.name);
        assert_limit_holds(&world, &limit).await;
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn each_limit_holds_for_eight_concurrent_statements() {
    let world = World::new().await;
    for limit in create_rows_below_limits(&world, 8).await {
        let tasks: Vec<_> =
            limit.statements.iter().cloned().map(|(caller, sql)| async move { attempt(&caller, &sql).await }).collect();
        let outcomes = run_together(tasks).await;
        let success_count = outcomes.iter().filter(|outcome| *outcome == "done").count();
        assert_eq!(success_count, 1, "{}: {outcomes:?}", limit.name);
        assert!(
            outcomes.iter().all(|outcome| outcome == "done" || outcome == limit.sqlstate),
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
    for limit in create_rows_below_limits(&world, 3).await {
        // All three snapshots show room for one more row. The first transaction adds it. The second one tries before
        // the first has committed, and the third one afterwards.
        let [(first_caller, first_sql), (second_caller, second_sql), (third_caller, third_sql)] = &limit.statements[..]
        else {
            panic!("each limit must have three statements")
        };
        let second_transaction = second_caller.begin_with_snapshot().await;
        let third_transaction = third_caller.begin_with_snapshot().await;
        let first_transaction = first_caller.begin_with_snapshot().await;
        execute_in(&first_transaction, first_sql).await.unwrap();
        let second_sql = second_sql.clone();
        let second_task = tokio::spawn(async move { execute_and_commit(second_transaction, &second_sql).await });
        world.owner().wait_until_backends_wait_for_locks(1).await;
        first_transaction.commit().await.unwrap();
        let second_outcome = second_task.await.unwrap();
        let third_outcome = execute_and_commit(third_transaction, third_sql).await;
        for outcome in [second_outcome, third_outcome] {
            assert!([limit.sqlstate, SERIALIZATION_FAILURE].contains(&outcome.as_str()), "{}: {outcome}", limit.name);
        }
        assert_limit_holds(&world, &limit).await;
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn an_account_has_no_more_than_twenty_seats_in_live_sessions() {
    let world = World::new().await;
    let player = world.new_player().await;
    // Thirty sessions of two Seers, because a Seer may have only twenty live ones.
    let (first_seer, second_seer) = (world.new_account().await, world.new_account().await);
    let adventure = world.new_adventure(first_seer).await;
    for index in 0..30 {
        new_public_session(&world, if index % 2 == 0 { first_seer } else { second_seer }, adventure).await;
    }
    let join_all = format!(
        "INSERT INTO session_players (session_id, user_id, character_id)
         SELECT id, '{}', '{}' FROM sessions WHERE is_public AND status = 'waiting'",
        player.user_id, player.character_id
    );
    assert_eq!(attempt(&player.caller, &join_all).await, SEAT_LIMIT_REACHED);
    assert_eq!(attempt(&player.caller, &format!("{join_all} ON CONFLICT DO NOTHING")).await, SEAT_LIMIT_REACHED);
    // Twenty seats are allowed.
    assert_eq!(player.caller.execute(&format!("{join_all} LIMIT 20")).await, Ok(20));
    assert_eq!(
        query_number(&world, &format!("SELECT live_seats FROM users WHERE id = '{}'", player.user_id)).await,
        20
    );
    // After a session has ended, its seats no longer count. Each Seer has fifteen of the sessions, so at least five of
    // the player's twenty seats are in sessions of the first Seer.
    let cancel = format!("UPDATE sessions SET status = 'cancelled' WHERE seats_taken = 1 AND seer_id = '{first_seer}'");
    world.owner().execute(&cancel).await.unwrap();
    assert!(query_number(&world, &format!("SELECT live_seats FROM users WHERE id = '{}'", player.user_id)).await < 20);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_session_that_has_ended_or_is_deleted_no_longer_counts_towards_the_limit_on_live_sessions() {
    let world = World::new().await;
    let user = world.new_user().await;
    let adventure = world.new_adventure(user.user_id()).await;
    let insert = format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", user.user_id());
    for _ in 0..20 {
        assert_eq!(attempt(&user, &insert).await, "done");
    }
    assert_eq!(attempt(&user, &insert).await, SESSION_LIMIT_REACHED);
    for fate in ["cancelled", "deleted"] {
        let select_waiting_session =
            format!("(SELECT id FROM sessions WHERE seer_id = '{}' AND status = 'waiting' LIMIT 1)", user.user_id());
        match fate {
            "deleted" => {
                // The service may not delete a live session; only the schema's owner may.
                let delete = format!("DELETE FROM sessions WHERE id = {select_waiting_session}");
                assert_eq!(attempt(&world.service(), &delete).await, SESSION_LIVE);
                assert_eq!(attempt(&world.owner(), &delete).await, "done");
            }
            _ => {
                let set_status = format!("UPDATE sessions SET status = '{fate}' WHERE id = {select_waiting_session}");
                assert_eq!(attempt(&user, &set_status).await, "done");
            }
        }
        assert_eq!(attempt(&user, &insert).await, "done", "{fate}");
        assert_eq!(attempt(&user, &insert).await, SESSION_LIMIT_REACHED, "{fate}");
    }
    // All sessions end in one statement, and twenty new ones are created in another.
    let cancel =
        format!("UPDATE sessions SET status = 'cancelled' WHERE seer_id = '{}' AND status = 'waiting'", user.user_id());
    assert_eq!(user.execute(&cancel).await, Ok(20));
    assert_eq!(
        query_number(&world, &format!("SELECT live_sessions FROM users WHERE id = '{}'", user.user_id())).await,
        0
    );
    let insert_sessions_sql = |session_count: usize| {
        format!(
            "INSERT INTO sessions (seer_id, adventure_id)
             SELECT '{}', '{adventure}' FROM generate_series(1, {session_count})",
            user.user_id()
        )
    };
    assert_eq!(attempt(&user, &insert_sessions_sql(21)).await, SESSION_LIMIT_REACHED);
    assert_eq!(user.execute(&insert_sessions_sql(20)).await, Ok(20));
    assert_invariants(&world).await;
}
