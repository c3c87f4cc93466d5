//! A row that a concurrent transaction deletes makes room under a limit only when that transaction commits, and for
//! only one new row.

use uuid::Uuid;

use super::{assert_invariants, attempt, execute_in, limits::create_living_characters, query_number};
use crate::world::{SqlCaller, World, insert_character_sql, insert_seat_sql, run_together};

/// Deletes rows in a transaction, starts inserts with the same ids, which wait for the transaction, and commits it.
/// Then inserts equally many rows with new ids, concurrently. Returns the [`sql_outcome`](super::sql_outcome) of each
/// insert.
async fn insert_while_deleting(
    world: &World,
    caller: &SqlCaller,
    table: &str,
    ids: &[Uuid],
    insert_sql: impl Fn(Uuid) -> String,
) -> Vec<String> {
    let attempt_insert = |id: Uuid| {
        let (caller, sql) = (caller.clone(), insert_sql(id));
        async move { attempt(&caller, &sql).await }
    };
    let id_list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    let deletion_transaction = caller.begin().await;
    execute_in(&deletion_transaction, &format!("DELETE FROM {table} WHERE id IN ({id_list})")).await.unwrap();
    let waiting_insert_tasks: Vec<_> = ids.iter().map(|id| tokio::spawn(attempt_insert(*id))).collect();
    world.owner().wait_until_backends_wait_for_locks(ids.len() as i64).await;
    deletion_transaction.commit().await.unwrap();
    let mut outcomes = run_together(ids.iter().map(|_| attempt_insert(Uuid::new_v4())).collect()).await;
    for task in waiting_insert_tasks {
        outcomes.push(task.await.unwrap());
    }
    outcomes
}

#[tokio::test]
async fn each_deleted_character_makes_room_for_exactly_one() {
    for on_conflict in ["", " ON CONFLICT DO NOTHING", " ON CONFLICT (id) DO UPDATE SET name = excluded.name"] {
        let world = World::new().await;
        let user = world.new_user().await;
        // An account may have ten living characters.
        create_living_characters(&world, user.user_id(), 10).await;
        let ids: Vec<Uuid> = world
            .owner()
            .fetch_values(&format!("SELECT id FROM characters WHERE user_id = '{}' LIMIT 8", user.user_id()))
            .await
            .unwrap();
        let insert_sql = |id| insert_character_sql(id, user.user_id()) + on_conflict;
        let outcomes = insert_while_deleting(&world, &user, "characters", &ids, insert_sql).await;
        let count_living_characters =
            format!("SELECT count(*) FROM characters WHERE user_id = '{}' AND retired_at IS NULL", user.user_id());
        let living_count = query_number(&world, &count_living_characters).await;
        assert_eq!(living_count, 10, "{on_conflict}: {outcomes:?}");
        assert_eq!(
            living_count,
            query_number(&world, &format!("SELECT living_characters FROM users WHERE id = '{}'", user.user_id())).await
        );
        assert_invariants(&world).await;
    }
}

#[tokio::test]
async fn each_deleted_adventure_or_creature_makes_room_for_exactly_one() {
    let world = World::new().await;
    let (author_of_adventures, author_of_creatures) = (world.new_user().await, world.new_user().await);
    let draft_adventure = world.new_draft_adventure(author_of_creatures.user_id()).await;
    for (caller, table, parent_column, parent) in [
        (&author_of_adventures, "adventures", "creator_id", author_of_adventures.user_id()),
        (&author_of_creatures, "creatures", "adventure_id", draft_adventure),
    ] {
        let insert_sql =
            |id: Uuid| format!("INSERT INTO {table} (id, {parent_column}, name) VALUES ('{id}', '{parent}', 'New')");
        // An account may have two hundred adventures, and an adventure two hundred creatures.
        let fill = format!(
            "INSERT INTO {table} (id, {parent_column}, name)
             SELECT gen_random_uuid(), '{parent}', 'Old' FROM generate_series(1, 200)"
        );
        world.owner().execute(&fill).await.unwrap();
        let ids: Vec<Uuid> = world
            .owner()
            .fetch_values(&format!("SELECT id FROM {table} WHERE {parent_column} = '{parent}' LIMIT 4"))
            .await
            .unwrap();
        let outcomes = insert_while_deleting(&world, caller, table, &ids, insert_sql).await;
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "done").count(), 4, "{table}: {outcomes:?}");
        assert_eq!(world.owner().count(&format!("{table} WHERE {parent_column} = '{parent}'")).await, 200, "{table}");
    }
    assert_invariants(&world).await;
}

#[tokio::test]
async fn a_deleted_seat_makes_room_for_exactly_one() {
    let world = World::new().await;
    let game = world.new_session(4).await;
    world.update_session(&game, "is_public = true").await;
    let seated_player = &game.players[0];
    let deletion_transaction = world.service().begin().await;
    let delete = format!(
        "DELETE FROM session_players WHERE session_id = '{}' AND user_id = '{}'",
        game.session_id, seated_player.user_id
    );
    execute_in(&deletion_transaction, &delete).await.unwrap();
    // The player whose seat is deleted and three new players try to take the seat that becomes free.
    let (caller, sql) = (
        seated_player.caller.clone(),
        insert_seat_sql(game.session_id, seated_player.user_id, seated_player.character_id),
    );
    let mut insert_tasks = vec![tokio::spawn(async move { attempt(&caller, &sql).await })];
    for _ in 0..3 {
        let player = world.new_player().await;
        let sql = insert_seat_sql(game.session_id, player.user_id, player.character_id);
        insert_tasks.push(tokio::spawn(async move { attempt(&player.caller, &sql).await }));
    }
    world.owner().wait_until_backends_wait_for_locks(4).await;
    deletion_transaction.commit().await.unwrap();
    let mut outcomes = Vec::new();
    for task in insert_tasks {
        outcomes.push(task.await.unwrap());
    }
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "done").count(), 1, "{outcomes:?}");
    assert_eq!(
        world.owner().count(&format!("session_players WHERE session_id = '{}' AND is_active", game.session_id)).await,
        4,
        "all four seats must be taken"
    );
    assert_invariants(&world).await;
}
