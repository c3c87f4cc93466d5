//! Constraints on counters and on other values hold even for the owner of the tables. Also: deletions lower the
//! counters; a user's write locks the row of the user's account in `private.account_gates`; a login that is itself
//! `service_role` cannot delete a live session.

use sea_orm::ConnectionTrait;

use crate::{
    bounds::{assert_accepted, assert_check_violation, assert_column_bounds},
    sqlstates::{CHECK_VIOLATION, FOREIGN_KEY_VIOLATION, LOCK_NOT_AVAILABLE, SESSION_LIVE, UNIQUE_VIOLATION},
    world::{World, into_sql_error},
};

/// A trigger refuses a row beyond a limit with an error that explains the limit. But what enforces the limit, for every
/// writer and at every isolation level, is the constraint on the counter.
#[tokio::test]
async fn counters_and_ratings_are_limited_by_check_constraints() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let owner = world.owner();
    let (seer_id, adventure_id) = (game.seer.user_id(), game.adventure_id);
    for (table, id, column, limit, constraint) in [
        ("users", seer_id, "adventure_count", 200, "adventure_limit"),
        ("users", seer_id, "living_characters", 10, "character_limit"),
        ("users", seer_id, "retired_characters", 100, "retired_character_limit"),
        ("users", seer_id, "live_sessions", 20, "live_session_limit"),
        ("users", seer_id, "live_seats", 20, "live_seat_limit"),
        ("adventures", adventure_id, "creature_count", 200, "creature_limit"),
    ] {
        let set_counter_sql = |count: i32| format!("UPDATE {table} SET {column} = {count} WHERE id = '{id}'");
        assert_accepted(&owner, &set_counter_sql(limit)).await;
        assert_check_violation(&owner, &set_counter_sql(limit + 1), constraint).await;
        assert_accepted(&owner, &set_counter_sql(0)).await;
        assert_check_violation(&owner, &set_counter_sql(-1), &format!("{table}_{column}_check")).await;
    }
    let set_average_rating_sql =
        |rating: &str| format!("UPDATE adventures SET average_rating = {rating} WHERE id = '{adventure_id}'");
    assert_accepted(&owner, &set_average_rating_sql("0")).await;
    assert_accepted(&owner, &set_average_rating_sql("5")).await;
    assert_check_violation(&owner, &set_average_rating_sql("-0.01"), "adventures_average_rating_check").await;
    assert_check_violation(&owner, &set_average_rating_sql("5.01"), "adventures_average_rating_check").await;
    let set_live_seats_sql = |seats: i32| {
        format!("UPDATE characters SET live_seats = {seats} WHERE id = '{}'", game.players[0].character_id)
    };
    assert_accepted(&owner, &set_live_seats_sql(0)).await;
    assert_check_violation(&owner, &set_live_seats_sql(-1), "characters_live_seats_check").await;
}

/// The API's roles can write few of these values, because of privileges and triggers. The constraints bind every role.
#[tokio::test]
async fn constraints_refuse_inconsistent_rows_even_from_the_owner() {
    let world = World::new().await;
    let (live_game, completed_game) = (world.new_active_session(1).await, world.new_active_session(1).await);
    let (owner, other_player) = (world.owner(), world.new_player().await);
    world.update_session(&completed_game, "status = 'completed'").await;
    world.update_session(&completed_game, "ended_at = now() - INTERVAL '1 year'").await;
    assert_eq!(owner.fetch_value::<i32>("SELECT private.archive_sessions(10)").await, Ok(1));
    // Triggers are disabled, because one would clear `is_active` of a removed player, and so make the row consistent.
    owner.execute("ALTER TABLE session_players DISABLE TRIGGER USER").await.unwrap();
    let update_user_sql =
        |assignment: &str| format!("UPDATE users SET {assignment} WHERE id = '{}'", other_player.user_id);
    for (sql, constraint) in [
        (
            format!(
                "UPDATE characters SET retired_at = now(), live_seats = 1 WHERE id = '{}'",
                other_player.character_id
            ),
            "character_not_seated",
        ),
        ("UPDATE archived_session_players SET removed_at = now(), is_active = true".to_owned(), "removed_is_inactive"),
        (
            format!("UPDATE session_players SET removed_at = now() WHERE session_id = '{}'", live_game.session_id),
            "removed_is_inactive",
        ),
        (update_user_sql(&format!("account_id = '{}'", live_game.seer.user_id())), "account_is_own"),
        (update_user_sql("display_name = E'two\\nlines'"), "displayable_name"),
        (update_user_sql("avatar_url = 'javascript:alert(1)'"), "web_avatar_url"),
        // A closed account gets the address `<its id>@deleted.invalid`, which no other account may have.
        (update_user_sql(&format!("email = '{}@deleted.invalid'", live_game.seer.user_id())), "reserved_email_is_own"),
        // `private.account_gates` has one row for each account.
        (
            format!("INSERT INTO private.account_gates VALUES ('{}')", uuid::Uuid::new_v4()),
            "account_gates_account_id_fkey",
        ),
        (format!("INSERT INTO private.account_gates VALUES ('{}')", other_player.user_id), "account_gates_pkey"),
    ] {
        let code = match constraint.rsplit('_').next() {
            Some("fkey") => FOREIGN_KEY_VIOLATION,
            Some("pkey") => UNIQUE_VIOLATION,
            _ => CHECK_VIOLATION,
        };
        assert_refused!(owner.execute(&sql).await, code, constraint, "{sql}");
    }
}

/// Closing an account changes the account's row in `account_gates`. So the closing waits until the user's writes are
/// committed or rolled back.
#[tokio::test]
async fn a_users_write_locks_the_row_of_the_account_in_account_gates() {
    let world = World::new().await;
    let player = world.new_player().await;
    let writer = player.caller.begin().await;
    writer.execute_unprepared("UPDATE characters SET name = 'Robin'").await.unwrap();
    let account_closer = world.owner().begin().await;
    account_closer.execute_unprepared("SET LOCAL lock_timeout = '200ms'").await.unwrap();
    let sql = format!("UPDATE private.account_gates SET is_open = false WHERE account_id = '{}'", player.user_id);
    let error = into_sql_error(account_closer.execute_unprepared(&sql).await.unwrap_err());
    assert_eq!(error.sqlstate, LOCK_NOT_AVAILABLE, "{error:?}");
}

#[tokio::test]
async fn counters_that_the_database_maintains_are_not_negative() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let owner = world.owner();
    assert_column_bounds(&owner, "sessions", "game_state_version", 0, i32::MAX).await;
    // The assertion above has left the counter at its maximum.
    world.update_session(&game, "game_state_version = 0, status = 'completed'").await;
    world.update_session(&game, "ended_at = now() - INTERVAL '1 year'").await;
    assert_eq!(owner.fetch_value::<i32>("SELECT private.archive_sessions(10)").await, Ok(1));
    for column in ["seats_taken", "encounter_number", "game_state_version"] {
        assert_column_bounds(&owner, "archived_sessions", column, 0, i32::MAX).await;
    }
    for column in ["heroic_saves_used", "heroic_saves_encounter"] {
        assert_column_bounds(&owner, "archived_session_players", column, 0, i32::MAX).await;
    }
}

#[tokio::test]
async fn deleting_a_seat_lowers_the_counters() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    let delete_seat = format!("DELETE FROM session_players WHERE user_id = '{}'", game.players[0].user_id);
    world.owner().execute(&delete_seat).await.unwrap();
    assert_eq!(world.owner().count("sessions WHERE seats_taken = 1").await, 1);
    assert_eq!(world.owner().count("users WHERE live_seats = 1").await, 1);
    assert_eq!(world.owner().count("characters WHERE live_seats = 1").await, 1);
}

#[tokio::test]
async fn deleting_a_live_session_lowers_the_counters() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    assert_eq!(world.owner().count("users WHERE live_seats = 1").await, 2);
    world.owner().execute(&format!("DELETE FROM sessions WHERE id = '{}'", game.session_id)).await.unwrap();
    assert_eq!(world.owner().count("users WHERE live_seats <> 0 OR live_sessions <> 0").await, 0);
    assert_eq!(world.owner().count("characters WHERE live_seats <> 0").await, 0);
}

/// A login that is itself `service_role` runs no SET ROLE, so the setting `role` does not show that it is the service.
#[tokio::test]
async fn a_login_that_is_itself_service_role_cannot_delete_a_live_session() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let delete = format!("DELETE FROM sessions WHERE id = '{}'", game.session_id);
    let transaction = world.superuser().await.begin().await;
    transaction.execute_unprepared("SET SESSION AUTHORIZATION service_role").await.unwrap();
    let refusal = transaction.execute_unprepared(&delete).await.unwrap_err();
    assert_eq!(into_sql_error(refusal).sqlstate, SESSION_LIVE);
    transaction.rollback().await.unwrap();
}
