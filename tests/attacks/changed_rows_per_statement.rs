//! One statement of a user changes or deletes at most a hundred rows of a table. (`inserted_rows_and_sizes.rs` tests
//! insertions.)

use super::{assert_invariants, attempt, dry_run, execute_in, query_number, sql_outcome, sqlstates::TOO_MANY_ROWS};
use crate::world::{SqlCaller, World};

/// A user with more rows than one statement may change: drafts, creatures, characters, ended sessions, and seats in
/// these sessions.
struct UserWithManyRows {
    user: SqlCaller,
    /// The user's id, quoted for SQL.
    quoted_user_id: String,
    /// The id of the draft adventure with the creatures, quoted for SQL.
    quoted_draft_adventure_id: String,
}

async fn create_user_with_many_rows(world: &World) -> UserWithManyRows {
    let (user, player) = (world.new_user().await, world.new_player().await);
    let quoted_user_id = format!("'{}'", user.user_id());
    let adventure = world.new_adventure(user.user_id()).await;
    let quoted_draft_adventure_id = format!("'{}'", world.new_draft_adventure(user.user_id()).await);
    for sql in [
        format!(
            "INSERT INTO adventures (creator_id, name)
             SELECT {quoted_user_id}, 'Draft' FROM generate_series(1, 150)"
        ),
        format!(
            "INSERT INTO creatures (adventure_id, name)
             SELECT {quoted_draft_adventure_id}, 'Rat' FROM generate_series(1, 150)"
        ),
        format!(
            "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability, retired_at)
             SELECT {quoted_user_id}, 'Retired ' || number, 'warrior', 5, 3, 2, 2, '{{}}', now()
             FROM generate_series(1, 100) AS number"
        ),
        format!(
            "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability)
             SELECT {quoted_user_id}, 'Living ' || number, 'warrior', 5, 3, 2, 2, '{{}}'
             FROM generate_series(1, 10) AS number"
        ),
    ] {
        world.owner().execute(&sql).await.unwrap();
    }
    // A Seer may have only twenty sessions that have not ended, so 152 sessions are created and cancelled in eight
    // rounds of nineteen.
    for _ in 0..8 {
        let insert_sessions = format!(
            "WITH inserted AS (
               INSERT INTO sessions (seer_id, adventure_id)
               SELECT {quoted_user_id}, '{adventure}' FROM generate_series(1, 19) RETURNING id
             )
             SELECT array_agg(id)::text FROM inserted"
        );
        let session_ids_literal: String = world.owner().fetch_value(&insert_sessions).await.unwrap();
        for sql in [
            format!(
                "INSERT INTO session_players (session_id, user_id, character_id)
                 SELECT id, '{}', '{}' FROM unnest('{session_ids_literal}'::uuid[]) AS session (id)",
                player.user_id, player.character_id
            ),
            format!("UPDATE sessions SET status = 'cancelled' WHERE id = ANY ('{session_ids_literal}')"),
        ] {
            world.owner().execute(&sql).await.unwrap();
        }
    }
    UserWithManyRows { user, quoted_user_id, quoted_draft_adventure_id }
}

#[tokio::test]
async fn one_statement_changes_at_most_a_hundred_rows() {
    let world = World::new().await;
    let UserWithManyRows { user, quoted_user_id, quoted_draft_adventure_id } = create_user_with_many_rows(&world).await;
    for (table, condition, change) in [
        ("adventures", format!("creator_id = {quoted_user_id} AND status = 'draft'"), "description = 'New'"),
        ("creatures", format!("adventure_id = {quoted_draft_adventure_id}"), "description = 'New'"),
        ("characters", format!("user_id = {quoted_user_id}"), "equipment = '[1]'"),
        ("sessions", format!("seer_id = {quoted_user_id}"), "is_public = true"),
        (
            "session_players",
            format!("session_id IN (SELECT id FROM sessions WHERE seer_id = {quoted_user_id})"),
            // Such an update changes no value, but the rows count as changed.
            "removed_at = removed_at",
        ),
    ] {
        let key = if table == "session_players" { "session_id" } else { "id" };
        let select_sql = |count: usize| format!("SELECT {key} FROM {table} WHERE {condition} LIMIT {count}");
        let update_sql = |count: usize| format!("UPDATE {table} SET {change} WHERE {key} IN ({})", select_sql(count));
        assert_eq!(dry_run(&user, &update_sql(100)).await, "done", "{table}");
        assert_eq!(dry_run(&user, &update_sql(101)).await, TOO_MANY_ROWS, "{table}");
        for sql in [
            format!("UPDATE {table} SET {change}"),
            format!("UPDATE {table} SET {change} WHERE {condition}"),
            format!("UPDATE {table} SET {change} FROM ({}) AS chosen (chosen) WHERE {key} = chosen", select_sql(140)),
            format!(
                "MERGE INTO {table} USING ({}) AS chosen (chosen) ON {key} = chosen
                 WHEN MATCHED THEN UPDATE SET {change}",
                select_sql(140)
            ),
            format!(
                "PREPARE {table}_many (integer) AS {}; EXECUTE {table}_many (105)",
                update_sql(1).replace("LIMIT 1", "LIMIT $1")
            ),
            // The EXCEPTION clause makes the UPDATE run in a subtransaction.
            format!("DO $$ BEGIN {}; EXCEPTION WHEN foreign_key_violation THEN NULL; END $$", update_sql(105)),
        ] {
            assert_eq!(dry_run(&user, &sql).await, TOO_MANY_ROWS, "{sql}");
        }
        // Every statement may change a hundred rows, even after others in the same transaction.
        assert_eq!(dry_run(&user, &format!("{0}; {0}; {0}", update_sql(100))).await, "done", "{table}");
        let repeated_updates =
            format!("SAVEPOINT here; {0}; ROLLBACK TO here; {0}; RELEASE here; {0}", update_sql(100));
        assert_eq!(dry_run(&user, &repeated_updates).await, "done", "{table}");
        // The owner and the service have no such limit.
        assert_eq!(dry_run(&world.owner(), &format!("UPDATE {table} SET {change} WHERE {condition}")).await, "done");
        assert_eq!(dry_run(&world.service(), &format!("UPDATE {table} SET {change} WHERE {condition}")).await, "done");
        if table != "characters" {
            // A statement with two parts, each of which changes sixty rows. (There are only 110 characters, so two such
            // parts would change some of them twice.)
            let update_sixty_sql = |order: &str| {
                format!(
                    "UPDATE {table} SET {change}
                     WHERE {key} IN (SELECT {key} FROM {table} WHERE {condition} ORDER BY {key} {order} LIMIT 60)"
                )
            };
            let update_in_two_parts =
                format!("WITH first AS ({} RETURNING 1) {}", update_sixty_sql("ASC"), update_sixty_sql("DESC"));
            assert_eq!(dry_run(&user, &update_in_two_parts).await, TOO_MANY_ROWS, "{update_in_two_parts}");
        }
    }
    // The rows that `ON CONFLICT DO UPDATE` changes count too.
    let upsert = format!(
        "INSERT INTO adventures (id, creator_id, name) SELECT id, creator_id, 'Again' FROM adventures
         WHERE creator_id = {quoted_user_id} AND status = 'draft' ON CONFLICT (id) DO UPDATE SET name = excluded.name"
    );
    assert_eq!(dry_run(&user, &upsert).await, TOO_MANY_ROWS);
    assert_eq!(dry_run(&user, &upsert.replace(" ON CONFLICT", " LIMIT 100 ON CONFLICT")).await, "done");
    assert_invariants(&world).await;
}

#[tokio::test]
async fn one_statement_deletes_at_most_a_hundred_rows() {
    let world = World::new().await;
    let UserWithManyRows { user, quoted_user_id, quoted_draft_adventure_id } = create_user_with_many_rows(&world).await;
    for (table, condition) in [
        (
            "adventures",
            format!("creator_id = {quoted_user_id} AND status = 'draft' AND id <> {quoted_draft_adventure_id}"),
        ),
        ("creatures", format!("adventure_id = {quoted_draft_adventure_id}")),
        ("characters", format!("user_id = {quoted_user_id}")),
    ] {
        let select_sql = |count: usize| format!("SELECT id FROM {table} WHERE {condition} LIMIT {count}");
        let delete_sql = |count: usize| format!("DELETE FROM {table} WHERE id IN ({})", select_sql(count));
        assert_eq!(dry_run(&user, &delete_sql(100)).await, "done", "{table}");
        assert_eq!(dry_run(&user, &delete_sql(101)).await, TOO_MANY_ROWS, "{table}");
        for sql in [
            format!("DELETE FROM {table} WHERE {condition}"),
            format!("DELETE FROM {table} USING ({}) AS chosen (chosen) WHERE id = chosen", select_sql(105)),
            format!(
                "MERGE INTO {table} USING ({}) AS chosen (chosen) ON id = chosen WHEN MATCHED THEN DELETE",
                select_sql(105)
            ),
            format!(
                "WITH first AS (
                   DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {condition} ORDER BY id LIMIT 55)
                 )
                 DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {condition} ORDER BY id DESC LIMIT 50)"
            ),
        ] {
            assert_eq!(dry_run(&user, &sql).await, TOO_MANY_ROWS, "{sql}");
        }
        // Exactly a hundred rows can be deleted, even by a sequential scan, which goes on after the hundredth.
        let delete_hundred = format!(
            "DELETE FROM {table} WHERE {condition} AND id <= (
               SELECT (array_agg(id ORDER BY id DESC))[1]
               FROM (SELECT id FROM {table} WHERE {condition} ORDER BY id LIMIT 100) AS first
             )"
        );
        assert_eq!(dry_run(&user, &delete_hundred).await, "done", "{delete_hundred}");
        let transaction = user.begin().await;
        execute_in(&transaction, "SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off").await.unwrap();
        assert_eq!(execute_in(&transaction, &delete_hundred).await, Ok(100), "{delete_hundred}");
        transaction.rollback().await.unwrap();
        let repeated_deletions = format!("SAVEPOINT here; {0}; ROLLBACK TO here; {0}", delete_sql(100));
        assert_eq!(dry_run(&user, &repeated_deletions).await, "done", "{table}");
        assert_eq!(dry_run(&world.owner(), &format!("DELETE FROM {table} WHERE {condition}")).await, "done");
    }
    // Deleting an adventure in the same statement makes the database delete its creatures in the owner's name. On
    // PostgreSQL 18, that must not keep the trigger from counting the creatures that the user deletes.
    let delete_creatures_and_adventure = format!(
        "WITH first AS (
           DELETE FROM creatures WHERE id IN (
             SELECT id FROM creatures WHERE adventure_id = {quoted_draft_adventure_id} ORDER BY id LIMIT 55
           )
         ),
         second AS (
           DELETE FROM creatures WHERE id IN (
             SELECT id FROM creatures WHERE adventure_id = {quoted_draft_adventure_id} ORDER BY id DESC LIMIT 50
           )
         )
         DELETE FROM adventures WHERE id = (
           SELECT id FROM adventures
           WHERE creator_id = {quoted_user_id} AND status = 'draft' AND id <> {quoted_draft_adventure_id} LIMIT 1
         )"
    );
    assert_eq!(dry_run(&user, &delete_creatures_and_adventure).await, TOO_MANY_ROWS);
    // Rows that are deleted with their parent row, or with an account, do not count.
    assert_eq!(dry_run(&user, &format!("DELETE FROM adventures WHERE id = {quoted_draft_adventure_id}")).await, "done");
    assert_eq!(attempt(&user, &format!("SELECT private.close_account({quoted_user_id})")).await, "done");
    let count_drafts =
        format!("SELECT count(*) FROM adventures WHERE creator_id = {quoted_user_id} AND status = 'draft'");
    assert_eq!(query_number(&world, &count_drafts).await, 0);
    let delete = format!("DELETE FROM auth.users WHERE id = {quoted_user_id}");
    assert_eq!(world.superuser().await.execute(&delete).await, Ok(1));
    assert_invariants(&world).await;
}

#[tokio::test]
async fn too_many_rows_are_refused_before_all_are_changed() {
    let world = World::new().await;
    let UserWithManyRows { user, quoted_user_id, quoted_draft_adventure_id } = create_user_with_many_rows(&world).await;
    for (sql, table, counter) in [
        (format!("UPDATE sessions SET is_public = true WHERE seer_id = {quoted_user_id}"), "sessions", "updated"),
        (
            format!("UPDATE adventures SET description = 'New' WHERE creator_id = {quoted_user_id}"),
            "adventures",
            "updated",
        ),
        (
            format!("UPDATE creatures SET description = 'New' WHERE adventure_id = {quoted_draft_adventure_id}"),
            "creatures",
            "updated",
        ),
        (format!("UPDATE characters SET equipment = '[1]' WHERE user_id = {quoted_user_id}"), "characters", "updated"),
        (
            format!(
                "UPDATE session_players SET removed_at = removed_at
                 WHERE session_id IN (SELECT id FROM sessions WHERE seer_id = {quoted_user_id})"
            ),
            "session_players",
            "updated",
        ),
        (format!("DELETE FROM creatures WHERE adventure_id = {quoted_draft_adventure_id}"), "creatures", "deleted"),
        (
            format!("DELETE FROM adventures WHERE creator_id = {quoted_user_id} AND status = 'draft'"),
            "adventures",
            "deleted",
        ),
        (format!("DELETE FROM characters WHERE user_id = {quoted_user_id}"), "characters", "deleted"),
    ] {
        let transaction = user.begin().await;
        let changed_count_expression = format!("pg_stat_get_xact_tuples_{counter}('public.{table}'::regclass)");
        // The count may include rows that this connection changed before.
        let remember_count = format!(
            "SELECT set_config('test.changed_before', {changed_count_expression}::text, true);
             SAVEPOINT before"
        );
        execute_in(&transaction, &remember_count).await.unwrap();
        assert_eq!(sql_outcome(execute_in(&transaction, &sql).await), TOO_MANY_ROWS, "{sql}");
        // The statement changes a hundred rows, and at most two more before it is refused.
        let assert_few_changed = format!(
            "ROLLBACK TO before;
             DO $$ BEGIN
               ASSERT {changed_count_expression} - current_setting('test.changed_before')::bigint BETWEEN 100 AND 102;
             END $$"
        );
        execute_in(&transaction, &assert_few_changed).await.unwrap();
        transaction.rollback().await.unwrap();
    }
}
