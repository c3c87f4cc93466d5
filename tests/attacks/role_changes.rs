//! Rules for users also apply to a user whose statement changes the role while it runs, and to a user who writes
//! through a trigger of their own. After a reset of the role, a statement runs as the login role. So the statements of
//! these users run over a login that is a member of `anon` and `authenticated` only. Two tests are different: one uses
//! an operator's own role; and in the last test, nobody changes a role, but a statement that has waited for a lock is
//! checked against the session as it is then.

use uuid::Uuid;

use super::{
    assert_invariants, attempt_while_lock_holder_commits, dry_run, execute_and_commit, execute_in, new_private_session,
    query_number, sql_outcome,
    sqlstates::{INSUFFICIENT_PRIVILEGE, SESSION_OVER, SEVERAL_SESSIONS, TOO_MANY_ROWS, UNKNOWN_JOIN_CODE},
};
use crate::world::{World, insert_attribute_check_sql, insert_seat_sql};

/// An expression that resets the role while the statement that contains it runs.
const RESET_ROLE: &str = "set_config('role', 'none', true)";

#[tokio::test]
async fn a_statement_that_resets_its_role_gets_no_seat_in_a_session_that_became_private() {
    let world = World::new().await;
    let world_with_users_login = world.with_users_login().await;
    for returning in ["", &format!("RETURNING {RESET_ROLE}"), &format!("RETURNING (SELECT {RESET_ROLE})")] {
        let (game, player) = (world.new_session(0).await, world.new_player().await);
        world.update_session(&game, "is_public = true").await;
        let privacy_transaction = game.seer.begin().await;
        let sql = format!("UPDATE sessions SET is_public = false WHERE id = '{}'", game.session_id);
        execute_in(&privacy_transaction, &sql).await.unwrap();
        let join = format!("{} {returning}", insert_seat_sql(game.session_id, player.user_id, player.character_id));
        assert_eq!(
            attempt_while_lock_holder_commits(
                &world,
                &world_with_users_login.user(player.user_id),
                join,
                privacy_transaction
            )
            .await,
            INSUFFICIENT_PRIVILEGE,
            "{returning}"
        );
        assert_eq!(query_number(&world, "SELECT count(*) FROM session_players").await, 0);
    }
}

#[tokio::test]
async fn a_statement_that_resets_its_role_keeps_its_limits() {
    let world = World::new().await;
    let world_with_users_login = world.with_users_login().await;
    let game = world.new_active_session(1).await;
    let (seer, player) =
        (world_with_users_login.user(game.seer.user_id()), world_with_users_login.user(game.players[0].user_id));
    let other_session = new_private_session(&world, game.seer.user_id(), game.adventure_id).await;
    let draft_adventure = world.new_draft_adventure(game.seer.user_id()).await;
    let insert_creatures = format!(
        "INSERT INTO creatures (adventure_id, name)
         SELECT '{draft_adventure}', 'Rat' FROM generate_series(1, 140)"
    );
    world.owner().execute(&insert_creatures).await.unwrap();
    let insert_events = |session: Uuid, count: u32| {
        format!(
            "INSERT INTO session_events (session_id, event_type)
             SELECT '{session}', 'client.wave' FROM generate_series(1, {count})"
        )
    };
    // For `ASC` the first sixty of the 140 creatures, for `DESC` the last sixty. Together these are more rows than the
    // hundred that one statement may change.
    let sixty_creatures_condition = |order: &str| {
        format!(
            "id IN (SELECT id FROM creatures WHERE adventure_id = '{draft_adventure}' ORDER BY id {order} LIMIT 60)"
        )
    };
    let combined_statement = |first: String, second: String| format!("WITH first AS ({first} RETURNING 1) {second}");
    let delete = |order: &str| format!("DELETE FROM creatures WHERE {}", sixty_creatures_condition(order));
    let update =
        |order: &str| format!("UPDATE creatures SET description = 'x' WHERE {}", sixty_creatures_condition(order));
    for (caller, sql, expected_sqlstate) in [
        (
            &player,
            combined_statement(insert_events(game.session_id, 60), insert_events(game.session_id, 60)),
            TOO_MANY_ROWS,
        ),
        (
            &seer,
            combined_statement(insert_events(game.session_id, 1), insert_events(other_session, 1)),
            SEVERAL_SESSIONS,
        ),
        (&seer, combined_statement(update("ASC"), update("DESC")), TOO_MANY_ROWS),
        (&seer, combined_statement(delete("ASC"), delete("DESC")), TOO_MANY_ROWS),
    ] {
        assert_eq!(dry_run(caller, &sql).await, expected_sqlstate, "{sql}");
        let sql_with_reset = format!("{sql} RETURNING {RESET_ROLE}");
        assert_eq!(dry_run(caller, &sql_with_reset).await, expected_sqlstate, "{sql_with_reset}");
    }
    // The expression for the first row's session resets the role before the row's triggers fire. `set_config` returns
    // `none`, to which the expression appends the session's id; `replace` removes `none` again.
    let reset_role_and_return_session = format!("{RESET_ROLE} || '{}'", game.session_id);
    let insert_events_in_two_sessions = format!(
        "INSERT INTO session_events (session_id, event_type)
         SELECT replace(session, 'none', '')::uuid, 'client.wave'
         FROM (VALUES (1, {reset_role_and_return_session}), (2, '{other_session}')) AS list (nth, session)
         ORDER BY nth"
    );
    assert_eq!(dry_run(&seer, &insert_events_in_two_sessions).await, SEVERAL_SESSIONS);
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_statement_that_resets_its_role_does_not_edit_an_ended_session() {
    let world = World::new().await;
    let world_with_users_login = world.with_users_login().await;
    let game = world.new_active_session(1).await;
    world.update_session(&game, "status = 'completed'").await;
    let seer = world_with_users_login.user(game.seer.user_id());
    for set in ["max_players = 3", "game_state = '[1]'", "scheduled_start = now() + INTERVAL '1 day'"] {
        let sql_without_reset = format!("UPDATE sessions SET {set} WHERE id = '{}'", game.session_id);
        assert_eq!(dry_run(&seer, &sql_without_reset).await, SESSION_OVER, "{sql_without_reset}");
        for looking_for in [RESET_ROLE.to_owned(), format!("(SELECT {RESET_ROLE})")] {
            let sql =
                format!("UPDATE sessions SET {set}, looking_for = {looking_for} WHERE id = '{}'", game.session_id);
            let outcome = dry_run(&seer, &sql).await;
            assert!([INSUFFICIENT_PRIVILEGE, SESSION_OVER].contains(&outcome.as_str()), "{sql}: {outcome}");
        }
    }
}

#[tokio::test]
async fn a_callers_own_trigger_neither_locks_a_hidden_session_nor_draws_a_second_event_number() {
    let world = World::new().await;
    let world_with_users_login = world.with_users_login().await;
    let game = world.new_active_session(1).await;
    let stranger = world_with_users_login.user(world.new_account().await);
    let lock_holder = world.owner().begin().await;
    execute_in(&lock_holder, &format!("SELECT FROM sessions WHERE id = '{}' FOR UPDATE", game.session_id))
        .await
        .unwrap();
    // The sequence behind `session_events.seq`.
    let select_last_event_number = "SELECT last_value FROM session_events_seq_seq";
    for event_type in ["'dice_rolled'", "'x'", "NULL", "'client.wave'"] {
        for (options, first_statement) in
            [("", ""), ("SECURITY DEFINER", ""), ("", "PERFORM set_config('role', 'none', true);")]
        {
            let transaction = stranger.begin().await;
            let create_trigger = format!(
                "SET LOCAL lock_timeout = '2s';
                 CREATE TEMPORARY TABLE callers_table (id integer) ON COMMIT DROP;
                 CREATE FUNCTION pg_temp.write() RETURNS trigger LANGUAGE plpgsql {options} AS $$
                 BEGIN
                   {first_statement}
                   INSERT INTO public.session_events (session_id, event_type) VALUES ('{}', {event_type});
                   RETURN NEW;
                 END $$;
                 CREATE TRIGGER write BEFORE INSERT ON callers_table FOR EACH ROW EXECUTE FUNCTION pg_temp.write()",
                game.session_id
            );
            execute_in(&transaction, &create_trigger).await.unwrap();
            let number_before = query_number(&world, select_last_event_number).await;
            let outcome = execute_and_commit(transaction, "INSERT INTO callers_table VALUES (1)").await;
            assert_eq!(outcome, INSUFFICIENT_PRIVILEGE, "{event_type} {options} {first_statement}");
            // The identity column `seq` draws one number per row before any trigger runs. Our trigger `prepare_event`
            // would draw another.
            assert!(
                query_number(&world, select_last_event_number).await <= number_before + 1,
                "{event_type} {options} {first_statement}"
            );
        }
    }
    lock_holder.rollback().await.unwrap();
    // The event of the pause, which one of our triggers writes, is stored, although a trigger of the caller's caused
    // it.
    let event_count = world.owner().count("session_events").await;
    let seer = world_with_users_login.user(game.seer.user_id());
    let pause_by_trigger = format!(
        "CREATE TEMPORARY TABLE callers_table (id integer);
         CREATE FUNCTION pg_temp.write() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN UPDATE public.sessions SET status = 'paused' WHERE id = '{}'; RETURN NEW; END $$;
         CREATE TRIGGER write BEFORE INSERT ON callers_table FOR EACH ROW EXECUTE FUNCTION pg_temp.write();
         INSERT INTO callers_table VALUES (1)",
        game.session_id
    );
    assert_eq!(sql_outcome(seer.execute(&pause_by_trigger).await), "done");
    assert_eq!(world.owner().count("session_events").await, event_count + 1);
}

#[tokio::test]
async fn the_rules_for_users_do_not_apply_to_an_operators_own_role() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let draft_adventure = world.new_draft_adventure(game.seer.user_id()).await;
    let insert_creatures = format!(
        "INSERT INTO creatures (adventure_id, name)
         SELECT '{draft_adventure}', 'Rat' FROM generate_series(1, 120)"
    );
    // The role, its privileges and its policies are created in a transaction that is rolled back.
    let transaction = world.owner().begin().await;
    for sql in [
        "CREATE ROLE sparc_operators_own NOLOGIN",
        "GRANT sparc_operators_own TO CURRENT_USER",
        "GRANT USAGE ON SCHEMA public, private TO sparc_operators_own",
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA private TO sparc_operators_own",
        "GRANT SELECT, INSERT, UPDATE ON creatures, sessions TO sparc_operators_own",
        "CREATE POLICY operators_creatures ON creatures TO sparc_operators_own USING (true) WITH CHECK (true)",
        "CREATE POLICY operators_sessions ON sessions TO sparc_operators_own USING (true) WITH CHECK (true)",
        "SET LOCAL ROLE sparc_operators_own",
    ] {
        execute_in(&transaction, sql).await.unwrap();
    }
    let update_session = format!("UPDATE sessions SET looking_for = 'anybody' WHERE id = '{}'", game.session_id);
    for (sql, row_count) in [
        (insert_creatures.as_str(), 120),
        ("UPDATE creatures SET description = 'x'", 120),
        (update_session.as_str(), 1),
    ] {
        assert_eq!(execute_in(&transaction, sql).await, Ok(row_count), "{sql}");
    }
    transaction.rollback().await.unwrap();
}

/// A statement waits for a session that another transaction has locked. That transaction changes the session, removes
/// the player, or replaces the join code.
#[tokio::test]
async fn a_session_that_changed_while_a_statement_waited_for_it_is_checked_again() {
    let world = World::new().await;
    for change in [
        "sessions SET status = 'paused' WHERE id",
        "sessions SET status = 'completed' WHERE id",
        "session_players SET removed_at = now() WHERE session_id",
    ] {
        let game = world.new_active_session(1).await;
        let player = &game.players[0];
        let lock_holder = world.owner().begin().await;
        execute_in(&lock_holder, &format!("SELECT FROM sessions WHERE id = '{}' FOR UPDATE", game.session_id))
            .await
            .unwrap();
        execute_in(&lock_holder, &format!("UPDATE {change} = '{}'", game.session_id)).await.unwrap();
        let sql = insert_attribute_check_sql(game.session_id, player.character_id);
        assert_eq!(
            attempt_while_lock_holder_commits(&world, &player.caller, sql, lock_holder).await,
            INSUFFICIENT_PRIVILEGE,
            "{change}"
        );
    }
    // The session gets a new join code while a player enters the old one.
    let game = world.new_session(0).await;
    let player = world.new_player().await;
    let join_code: String = world
        .owner()
        .fetch_value(&format!("SELECT code::text FROM sessions WHERE id = '{}'", game.session_id))
        .await
        .unwrap();
    let lock_holder = game.seer.begin().await;
    execute_in(&lock_holder, &format!("SELECT FROM private.replace_session_code('{}')", game.session_id))
        .await
        .unwrap();
    let join = format!("SELECT FROM private.join_by_code('{join_code}', '{}')", player.character_id);
    assert_eq!(attempt_while_lock_holder_commits(&world, &player.caller, join, lock_holder).await, UNKNOWN_JOIN_CODE);
}
