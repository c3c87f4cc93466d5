//! A statement writes a row, and a function that the statement calls changes or deletes that row. If events record both
//! changes, the triggers would write these events in the wrong order (the event of the function's change first). If the
//! statement ends a session or changes its seats, and the function deletes that session, the counters of seats would
//! become wrong. Statements of both kinds are refused with `triggered_data_change_violation`.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, execute_in, populated_account::create_populated_account,
    sqlstates::TRIGGERED_DATA_CHANGE_VIOLATION,
};
use crate::world::{GameSession, Player, SqlCaller, World, insert_character_sql, insert_seat_sql};

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
        Err(refusal) => refusal.sqlstate,
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
    assert_eq!(attempt_with_inner(&player.caller, &join, &leave).await, TRIGGERED_DATA_CHANGE_VIOLATION);
    assert_eq!(attempt(&player.caller, &join).await, "done");
    assert_eq!(attempt_with_inner(&player.caller, &leave, &rejoin).await, TRIGGERED_DATA_CHANGE_VIOLATION);
    assert_eq!(attempt(&player.caller, &leave).await, "done");
    // As above, the seat is not yet counted.
    assert_eq!(attempt_with_inner(&player.caller, &rejoin, &leave).await, TRIGGERED_DATA_CHANGE_VIOLATION);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_statement_that_sets_the_character_of_a_seat_twice_is_refused() {
    let world = World::new().await;
    let (game, player) = (world.new_session(0).await, world.new_player().await);
    world.update_session(&game, "is_public = true").await;
    let second_character = world.new_character(player.user_id).await;
    // Each character has a seat in another session that has not ended. Otherwise its counter `live_seats` would become
    // negative, and the check constraint of that column would refuse the statement.
    for character_id in [player.character_id, second_character] {
        let other_game = world.new_session(0).await;
        let seat = insert_seat_sql(other_game.session_id, player.user_id, character_id);
        world.owner().execute(&seat).await.unwrap();
    }
    let join = insert_seat_sql(game.session_id, player.user_id, player.character_id);
    let where_session = format!("WHERE session_id = '{}'", game.session_id);
    let change_character =
        |character: Uuid| format!("UPDATE session_players SET character_id = '{character}' {where_session}");
    assert_eq!(
        attempt_with_inner(&player.caller, &join, &change_character(second_character)).await,
        TRIGGERED_DATA_CHANGE_VIOLATION
    );
    assert_eq!(attempt(&player.caller, &join).await, "done");
    assert_eq!(
        attempt_with_inner(&player.caller, &change_character(second_character), &change_character(player.character_id))
            .await,
        TRIGGERED_DATA_CHANGE_VIOLATION
    );
    assert_invariants(&world).await;
}

/// When a client creates a row, a digest of the request is stored in `private.request_digests`, so that a repeated
/// request is recognized.
#[tokio::test]
async fn a_row_inserted_and_deleted_by_one_statement_leaves_no_digest_of_its_request() {
    let world = World::new().await;
    let fixture = create_populated_account(&world).await;
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
        assert_eq!(world.owner().count(&format!("private.request_digests WHERE id = '{id}'")).await, 0, "{table}");
    }
    // A session is deleted with its adventure.
    let draft_id = world.new_draft_adventure(fixture.account_id).await;
    let insert = format!("INSERT INTO sessions (id, adventure_id) VALUES ('{id}', '{draft_id}')");
    let end_and_delete = format!(
        "UPDATE public.sessions SET status = 'cancelled' WHERE id = '{id}';
         DELETE FROM public.adventures WHERE id = '{draft_id}'"
    );
    assert_eq!(attempt_with_inner(&fixture.caller, &insert, &end_and_delete).await, "done");
    assert_eq!(world.owner().count(&format!("private.request_digests WHERE id = '{id}'")).await, 0);
    assert_invariants(&world).await;
}

/// An attacker who took a seat with the same character in two sessions: one that the attacker runs, and one of another
/// Seer.
struct AttackerInTwoSessions {
    attacker: Player,
    /// The session that the attacker runs.
    session_id: Uuid,
    /// The adventure of that session, a draft of the attacker's.
    adventure_id: Uuid,
    /// The other Seer's session.
    other_game: GameSession,
}

impl AttackerInTwoSessions {
    async fn create(world: &World, is_seat_active: bool) -> Self {
        let other_game = world.new_session(0).await;
        world.update_session(&other_game, "is_public = true").await;
        let attacker = world.new_player().await;
        let (session_id, adventure_id) = (Uuid::new_v4(), world.new_draft_adventure(attacker.user_id).await);
        for sql in [
            insert_seat_sql(other_game.session_id, attacker.user_id, attacker.character_id),
            format!("INSERT INTO sessions (id, adventure_id) VALUES ('{session_id}', '{adventure_id}')"),
            insert_seat_sql(session_id, attacker.user_id, attacker.character_id),
            format!("UPDATE session_players SET is_active = {is_seat_active} WHERE session_id = '{session_id}'"),
        ] {
            assert_eq!(attempt(&attacker.caller, &sql).await, "done", "{sql}");
        }
        Self { attacker, session_id, adventure_id, other_game }
    }

    /// Returns the statements that end the attacker's own session with this status, and delete it with its adventure.
    fn end_and_delete_sql(&self, status: &str) -> String {
        format!(
            "UPDATE public.sessions SET status = '{status}' WHERE id = '{}';
             DELETE FROM public.adventures WHERE id = '{}'",
            self.session_id, self.adventure_id
        )
    }

    /// Ends the other Seer's session and closes both accounts, the attacker's and the other Seer's. Asserts that all of
    /// this still succeeds.
    async fn end_other_game_and_close_accounts(&self, world: &World) {
        assert_invariants(world).await;
        let cancel = format!("UPDATE sessions SET status = 'cancelled' WHERE id = '{}'", self.other_game.session_id);
        assert_eq!(attempt(&self.other_game.seer, &cancel).await, "done");
        for account in [self.attacker.user_id, self.other_game.seer.user_id()] {
            let close = format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{account}'");
            assert_eq!(attempt(&world.owner(), &close).await, "done");
        }
        assert_invariants(world).await;
    }
}

#[tokio::test]
async fn a_change_of_a_seat_is_refused_if_the_same_statement_ends_and_deletes_its_session() {
    let world = World::new().await;
    for (is_seat_active, form) in [
        (false, "UPDATE session_players SET is_active = true WHERE session_id = '{session}'"),
        (true, "UPDATE session_players SET is_active = false WHERE session_id = '{session}'"),
        (
            false,
            "UPDATE session_players SET is_active = true, character_id = '{character}' WHERE session_id = '{session}'",
        ),
        (
            false,
            "INSERT INTO session_players (session_id, user_id, character_id)
             VALUES ('{session}', '{user}', '{character}')
             ON CONFLICT (session_id, user_id) DO UPDATE SET is_active = true",
        ),
    ] {
        let fixture = AttackerInTwoSessions::create(&world, is_seat_active).await;
        let outer = form
            .replace("{session}", &fixture.session_id.to_string())
            .replace("{user}", &fixture.attacker.user_id.to_string())
            .replace("{character}", &fixture.attacker.character_id.to_string());
        let inner = fixture.end_and_delete_sql("cancelled");
        assert_eq!(
            attempt_with_inner(&fixture.attacker.caller, &outer, &inner).await,
            TRIGGERED_DATA_CHANGE_VIOLATION,
            "{form}"
        );
        fixture.end_other_game_and_close_accounts(&world).await;
    }

    // The same is true of an INSERT that takes the first seat in a session.
    let fixture = AttackerInTwoSessions::create(&world, true).await;
    let (session_id, adventure_id) = (Uuid::new_v4(), world.new_draft_adventure(fixture.attacker.user_id).await);
    let create_session = format!("INSERT INTO sessions (id, adventure_id) VALUES ('{session_id}', '{adventure_id}')");
    assert_eq!(attempt(&fixture.attacker.caller, &create_session).await, "done");
    let join = insert_seat_sql(session_id, fixture.attacker.user_id, fixture.attacker.character_id);
    let end_and_delete = format!(
        "UPDATE public.sessions SET status = 'cancelled' WHERE id = '{session_id}';
         DELETE FROM public.adventures WHERE id = '{adventure_id}'"
    );
    assert_eq!(
        attempt_with_inner(&fixture.attacker.caller, &join, &end_and_delete).await,
        TRIGGERED_DATA_CHANGE_VIOLATION
    );
    fixture.end_other_game_and_close_accounts(&world).await;
}

/// A trigger of the caller's temporary table fires before the statement-level triggers of `sessions`, so it can delete
/// the session before they subtract its seats from the counters.
#[tokio::test]
async fn a_statement_that_ends_a_session_and_deletes_it_through_a_trigger_is_refused() {
    let world = World::new().await;
    for status in ["cancelled", "completed"] {
        let fixture = AttackerInTwoSessions::create(&world, true).await;
        if status == "completed" {
            let start = format!("UPDATE sessions SET status = 'active' WHERE id = '{}'", fixture.session_id);
            assert_eq!(attempt(&fixture.attacker.caller, &start).await, "done");
        }
        let transaction = fixture.attacker.caller.begin().await;
        for sql in [
            "CREATE TEMP TABLE ended (id uuid)".to_owned(),
            format!(
                "CREATE FUNCTION pg_temp.delete_session() RETURNS trigger LANGUAGE plpgsql AS
                   $$ BEGIN DELETE FROM public.adventures WHERE id = '{}'; RETURN NULL; END $$",
                fixture.adventure_id
            ),
            "CREATE TRIGGER delete_session AFTER INSERT ON ended
               FOR EACH ROW EXECUTE FUNCTION pg_temp.delete_session()"
                .to_owned(),
        ] {
            execute_in(&transaction, &sql).await.unwrap();
        }
        let end = format!(
            "WITH ended_session AS (UPDATE sessions SET status = '{status}' WHERE id = '{}' RETURNING id)
             INSERT INTO ended SELECT id FROM ended_session",
            fixture.session_id
        );
        let refusal = execute_in(&transaction, &end).await.unwrap_err();
        assert_eq!(refusal.sqlstate, TRIGGERED_DATA_CHANGE_VIOLATION, "{status}");
        transaction.rollback().await.unwrap();
        fixture.end_other_game_and_close_accounts(&world).await;
    }
}
