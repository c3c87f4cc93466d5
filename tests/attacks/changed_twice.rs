//! A statement writes a row, and a function that the statement calls changes that row again. If events record both
//! changes, the triggers would write these events in the wrong order (the event of the function's change first), so
//! such a statement is refused, mostly with `triggered_data_change_violation`.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, execute_in,
    full_account::create_full_account,
    sqlstates::{CHECK_VIOLATION, TRIGGERED_DATA_CHANGE_VIOLATION},
};
use crate::world::{SqlCaller, World, insert_character_sql, insert_seat_sql};

/// Runs the statement `outer`, whose RETURNING clause calls a function that runs the statement `inner`. Returns "done"
/// or the SQLSTATE of the refusal.
async fn attempt_with_inner(caller: &SqlCaller, outer: &str, inner: &str) -> String {
    let transaction = caller.begin().await;
    let create_function = format!(
        "CREATE OR REPLACE FUNCTION pg_temp.change_again() RETURNS int LANGUAGE plpgsql
         AS $$ BEGIN {inner}; RETURN 1; END $$"
    );
    execute_in(&transaction, &create_function).await.unwrap();
    let outcome = execute_in(&transaction, &format!("{outer} RETURNING pg_temp.change_again()")).await;
    transaction.commit().await.unwrap();
    match outcome {
        Ok(_) => "done".to_owned(),
        Err(refusal) => refusal.code,
    }
}

#[tokio::test]
async fn a_statement_that_changes_a_session_or_a_seat_twice_is_refused_if_an_event_records_it() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let update_session =
        |assignment: &str| format!("UPDATE sessions SET {assignment} WHERE id = '{}'", game.session_id);
    for (outer_assignment, inner_assignment) in [
        ("status = 'paused'", "status = 'completed'"),
        ("game_state = '{\"round\": 1}'", "game_state = '{\"round\": 2}'"),
        ("game_state = '{\"round\": 1}'", "status = 'paused'"),
        ("current_scene_id = 'a'", "current_scene_id = 'b'"),
        ("current_encounter_id = 'a'", "current_encounter_id = 'b'"),
        ("status = 'paused'", "current_encounter_id = 'c'"),
    ] {
        assert_eq!(
            attempt_with_inner(&game.seer, &update_session(outer_assignment), &update_session(inner_assignment)).await,
            TRIGGERED_DATA_CHANGE_VIOLATION,
            "{outer_assignment}, then {inner_assignment}"
        );
    }
    let change_without_event = update_session("looking_for = 'somebody'");
    assert_eq!(
        attempt_with_inner(&game.seer, &change_without_event, &change_without_event).await,
        "done",
        "no event records it"
    );

    let (waiting_game, player) = (world.new_session(0).await, world.new_player().await);
    world.update_session(&waiting_game, "is_public = true").await;
    let where_session = format!("WHERE session_id = '{}'", waiting_game.session_id);
    let leave = format!("UPDATE session_players SET is_active = false {where_session}");
    let rejoin = format!("UPDATE session_players SET is_active = true {where_session}");
    let join = insert_seat_sql(waiting_game.session_id, player.user_id, player.character_id);
    // The inner statement gives up a seat that the outer one has not counted yet, so the session's count of taken seats
    // would become negative.
    assert_eq!(attempt_with_inner(&player.caller, &join, &leave).await, CHECK_VIOLATION);
    assert_eq!(attempt(&player.caller, &join).await, "done");
    assert_eq!(attempt_with_inner(&player.caller, &leave, &rejoin).await, TRIGGERED_DATA_CHANGE_VIOLATION);
    assert_eq!(attempt(&player.caller, &leave).await, "done");
    // As above, the seat is not yet counted.
    assert_eq!(attempt_with_inner(&player.caller, &rejoin, &leave).await, CHECK_VIOLATION);
    assert_invariants(&world).await;
}

/// `private.requests` stores a digest of the request that created a row, by which a repeated request is recognized.
#[tokio::test]
async fn a_row_inserted_and_deleted_by_one_statement_leaves_no_digest_of_its_request() {
    let world = World::new().await;
    let fixture = create_full_account(&world).await;
    let id = Uuid::new_v4();
    for (table, insert) in [
        ("characters", insert_character_sql(id, fixture.account_id)),
        ("adventures", format!("INSERT INTO adventures (id, name) VALUES ('{id}', 'A draft')")),
        (
            "creatures",
            format!(
                "INSERT INTO creatures (id, adventure_id, name) VALUES ('{id}', '{}', 'Wolf')",
                fixture.published_adventure_id
            ),
        ),
    ] {
        let delete = format!("DELETE FROM {table} WHERE id = '{id}'");
        assert_eq!(attempt_with_inner(&fixture.caller, &insert, &delete).await, "done", "{table}");
        assert_eq!(world.owner().count(&format!("{table} WHERE id = '{id}'")).await, 0, "{table}");
        assert_eq!(world.owner().count(&format!("private.requests WHERE id = '{id}'")).await, 0, "{table}");
    }
    assert_invariants(&world).await;
}
