//! Statements in a transaction whose snapshot is older than a change that forbids them.

use super::{
    assert_invariants, attempt, close_account, execute_and_commit, is_account_closed,
    populated_account::{all_writes, create_populated_account},
    sqlstates::{
        ACCOUNT_CLOSED, ADVENTURE_NOT_PLAYABLE, CHARACTER_RETIRED, CHARACTER_SEATED, CHECK_VIOLATION,
        FOREIGN_KEY_VIOLATION, INSUFFICIENT_PRIVILEGE, SERIALIZATION_FAILURE,
    },
};
use crate::{
    random_operations::broken_invariants,
    world::{World, insert_seat_sql},
};

#[tokio::test]
async fn a_write_with_an_old_snapshot_has_no_effect_after_the_account_is_closed() {
    let world = World::new().await;
    let fixture = create_populated_account(&world).await;
    let mut transactions = Vec::new();
    let statements = all_writes(&fixture);
    let insert_session = format!(
        "INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{}')",
        fixture.account_id, fixture.published_adventure_id
    );
    // Only every third write is tried, because each transaction holds one of the pool's 40 connections. Creating a
    // session is not among these writes, so it is added.
    for sql in statements.iter().step_by(3).chain([&insert_session]) {
        transactions.push((fixture.caller.begin_with_snapshot().await, sql));
    }
    close_account(&world, fixture.account_id).await;
    for (transaction, sql) in transactions {
        let outcome = execute_and_commit(transaction, sql).await;
        assert!(
            [ACCOUNT_CLOSED, SERIALIZATION_FAILURE, INSUFFICIENT_PRIVILEGE, "no row"].contains(&outcome.as_str()),
            "{outcome}: {sql}"
        );
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn closing_an_account_in_an_old_snapshot_also_applies_to_newer_writes_or_fails() {
    let world = World::new().await;
    let write_count = all_writes(&create_populated_account(&world).await).len();
    // Only every second write of `all_writes` is tried, to save time. The first is replaced by one that is not in the
    // list.
    for index in (0..write_count).step_by(2) {
        let fixture = create_populated_account(&world).await;
        let unpublish =
            format!("UPDATE adventures SET status = 'draft' WHERE id = '{}'", fixture.published_adventure_id);
        let sql = if index == 0 { unpublish } else { all_writes(&fixture).remove(index) };
        let closing_transaction = fixture.caller.begin_with_snapshot().await;
        assert_eq!(attempt(&fixture.caller, &sql).await, "done", "{sql}");
        let outcome =
            execute_and_commit(closing_transaction, &format!("SELECT private.close_account('{}')", fixture.account_id))
                .await;
        assert!(["done", SERIALIZATION_FAILURE].contains(&outcome.as_str()), "{outcome}: {sql}");
        assert_eq!(is_account_closed(&world, fixture.account_id).await, outcome == "done", "{sql}");
        let broken_invariants = broken_invariants(&world).await;
        assert!(broken_invariants.is_empty(), "{sql}: {broken_invariants:?}");
    }
}

#[tokio::test]
async fn an_old_snapshot_lets_nobody_retire_or_delete_a_seated_character_or_seat_a_retired_one() {
    let world = World::new().await;
    let (game, player) = (world.new_session(1).await, world.new_player().await);
    world.update_session(&game, "is_public = true").await;
    // The player's snapshot shows no seat of the character that the player then retires.
    let retiring_transaction = player.caller.begin_with_snapshot().await;
    assert_eq!(
        attempt(&player.caller, &insert_seat_sql(game.session_id, player.user_id, player.character_id)).await,
        "done"
    );
    let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", player.character_id);
    let outcome = execute_and_commit(retiring_transaction, &retire).await;
    assert!([CHARACTER_SEATED, SERIALIZATION_FAILURE].contains(&outcome.as_str()), "{outcome}");
    // The snapshot in which a player takes a seat shows the character as it was before it was retired.
    let second_player = world.new_player().await;
    let joining_transaction = second_player.caller.begin_with_snapshot().await;
    let retire = format!("UPDATE characters SET retired_at = now() WHERE id = '{}'", second_player.character_id);
    assert_eq!(attempt(&second_player.caller, &retire).await, "done");
    let insert_seat = insert_seat_sql(game.session_id, second_player.user_id, second_player.character_id);
    let outcome = execute_and_commit(joining_transaction, &insert_seat).await;
    assert!([CHARACTER_RETIRED, SERIALIZATION_FAILURE].contains(&outcome.as_str()), "{outcome}");
    // The snapshot in which a player deletes a character shows no seat either.
    let third_player = world.new_player().await;
    let deletion_transaction = third_player.caller.begin_with_snapshot().await;
    assert_eq!(
        attempt(
            &third_player.caller,
            &insert_seat_sql(game.session_id, third_player.user_id, third_player.character_id)
        )
        .await,
        "done"
    );
    let delete = format!("DELETE FROM characters WHERE id = '{}'", third_player.character_id);
    let outcome = execute_and_commit(deletion_transaction, &delete).await;
    assert!([FOREIGN_KEY_VIOLATION, SERIALIZATION_FAILURE, CHARACTER_SEATED].contains(&outcome.as_str()), "{outcome}");
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_session_does_not_shrink_below_seats_that_the_snapshot_does_not_show() {
    let world = World::new().await;
    let game = world.new_session(2).await;
    world.update_session(&game, "is_public = true").await;
    let shrinking_transaction = game.seer.begin_with_snapshot().await;
    let player = world.new_player().await;
    assert_eq!(
        attempt(&player.caller, &insert_seat_sql(game.session_id, player.user_id, player.character_id)).await,
        "done"
    );
    let shrink = format!("UPDATE sessions SET max_players = 2 WHERE id = '{}'", game.session_id);
    let outcome = execute_and_commit(shrinking_transaction, &shrink).await;
    assert!([CHECK_VIOLATION, SERIALIZATION_FAILURE].contains(&outcome.as_str()), "{outcome}");
    assert_eq!(attempt(&game.seer, &shrink).await, CHECK_VIOLATION);
}

#[tokio::test]
async fn no_session_of_an_unpublished_adventure_is_created_in_a_snapshot_that_shows_it_as_published() {
    let world = World::new().await;
    let (creator, stranger) = (world.new_user().await, world.new_user().await);
    let adventure = world.new_adventure(creator.user_id()).await;
    let transaction_with_old_snapshot = stranger.begin_with_snapshot().await;
    assert_eq!(
        attempt(&creator, &format!("UPDATE adventures SET status = 'draft' WHERE id = '{adventure}'")).await,
        "done"
    );
    let insert =
        format!("INSERT INTO sessions (seer_id, adventure_id) VALUES ('{}', '{adventure}')", stranger.user_id());
    let outcome = execute_and_commit(transaction_with_old_snapshot, &insert).await;
    assert!(
        [ADVENTURE_NOT_PLAYABLE, SERIALIZATION_FAILURE].contains(&outcome.as_str()),
        "{outcome}: as Seer, the stranger could read what the creator writes from now on"
    );
}

#[tokio::test]
async fn a_closed_account_writes_nothing_in_a_snapshot_where_it_is_still_open() {
    for write in [
        "INSERT INTO tutorial_progress (user_id) VALUES ('{account}')",
        "INSERT INTO session_events (session_id, event_type) VALUES ('{session}', 'client.late')",
        "INSERT INTO adventures (creator_id, name) VALUES ('{account}', 'Too late')",
        "UPDATE characters SET name = 'Too late' WHERE user_id = '{account}'",
        "SELECT private.change_hit_points(id, -1) FROM characters WHERE user_id = '{account}'",
    ] {
        let world = World::new().await;
        let game = world.new_active_session(2).await;
        let player = &game.players[0];
        let write =
            write.replace("{account}", &player.user_id.to_string()).replace("{session}", &game.session_id.to_string());
        let transaction_with_old_snapshot = player.caller.begin_with_snapshot().await;
        close_account(&world, player.user_id).await;
        let outcome = execute_and_commit(transaction_with_old_snapshot, &write).await;
        assert!([ACCOUNT_CLOSED, SERIALIZATION_FAILURE].contains(&outcome.as_str()), "{write}: {outcome}");
        assert_invariants(&world).await;
    }
}

/// If the service adds a row to a closed account, it is usually the update of a counter that fails. An inactive seat is
/// in no counter. But `prepare_seat` locks the account's row in `private.account_gates`, and the seat's foreign key
/// locks the account's row in `users`. The closing has changed both rows since the snapshot.
#[tokio::test]
async fn the_service_seats_no_player_in_a_snapshot_where_the_closed_account_is_still_open() {
    let world = World::new().await;
    let (game, player) = (world.new_session(0).await, world.new_player().await);
    let transaction_with_old_snapshot = world.service().begin_with_snapshot().await;
    close_account(&world, player.user_id).await;
    let insert_seat = format!(
        "INSERT INTO session_players (session_id, user_id, character_id, is_active)
         VALUES ('{}', '{}', '{}', false)",
        game.session_id, player.user_id, player.character_id
    );
    assert_eq!(execute_and_commit(transaction_with_old_snapshot, &insert_seat).await, SERIALIZATION_FAILURE);
    assert_invariants(&world).await;
}
