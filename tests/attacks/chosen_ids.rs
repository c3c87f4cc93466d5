//! A client may choose the id of a row that it inserts. But it can neither read, lock or change another user's row by
//! choosing that row's id, nor give a new row the history of a deleted one.

use uuid::Uuid;

use super::{
    assert_invariants, attempt, execute_in,
    populated_account::create_populated_account,
    sqlstates::{FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION},
};
use crate::world::{World, insert_character_sql};

/// Creates a function that an attacker puts into a condition. The function fails as soon as PostgreSQL evaluates the
/// condition on a row.
const CREATE_FAIL_ON_READ_FUNCTION: &str = "CREATE FUNCTION pg_temp.fail_on_read(anyelement) RETURNS boolean
    LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'XX999', MESSAGE = 'read'; END $$";

/// For `ON CONFLICT DO UPDATE ... WHERE`, PostgreSQL locks the existing row, and evaluates the condition on that row,
/// before row security is evaluated. So the id of another user's row must be refused even earlier.
#[tokio::test]
async fn an_upsert_with_the_id_of_another_users_row_neither_reads_nor_locks_that_row() {
    let world = World::new().await;
    let victim = create_populated_account(&world).await;
    let attacker = create_populated_account(&world).await;
    let victims_draft = world.new_draft_adventure(victim.account_id).await;
    let insert_hidden_creature =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{victims_draft}', 'Wolf') RETURNING id");
    let hidden_creature: Uuid = world.owner().fetch_value(&insert_hidden_creature).await.unwrap();
    world.update_session(&victim.live_session, "is_public = false").await;
    let own_draft = world.new_draft_adventure(attacker.account_id).await;
    let insert_session_sql = |id: Uuid| {
        format!(
            "INSERT INTO sessions (id, seer_id, adventure_id) VALUES ('{id}', '{}', '{}')",
            attacker.account_id, attacker.published_adventure_id
        )
    };
    let insert_adventure_sql = |id: Uuid| {
        format!("INSERT INTO adventures (id, creator_id, name) VALUES ('{id}', '{}', 'Mine')", attacker.account_id)
    };
    let insert_creature_sql =
        |id: Uuid| format!("INSERT INTO creatures (id, adventure_id, name) VALUES ('{id}', '{own_draft}', 'Mine')");
    let attempts = [
        // The table, a change, and two INSERTs of the attacker's: the first with the id of a row of the victim's, the
        // second with the id of a row of the attacker's own.
        (
            "characters",
            "name = 'Mine'",
            insert_character_sql(victim.seated_character_id, attacker.account_id),
            insert_character_sql(attacker.spare_character_id, attacker.account_id),
        ),
        (
            "sessions",
            "looking_for = 'x'",
            insert_session_sql(victim.live_session.session_id),
            insert_session_sql(attacker.live_session.session_id),
        ),
        ("adventures", "name = 'Mine'", insert_adventure_sql(victims_draft), insert_adventure_sql(own_draft)),
        (
            "adventures",
            "name = 'Mine'",
            insert_adventure_sql(victim.published_adventure_id),
            insert_adventure_sql(own_draft),
        ),
        ("creatures", "name = 'Mine'", insert_creature_sql(hidden_creature), insert_creature_sql(attacker.creature_id)),
        (
            "creatures",
            "name = 'Mine'",
            insert_creature_sql(victim.creature_id),
            insert_creature_sql(attacker.creature_id),
        ),
    ];
    for (table, change, insert_with_victims_id, insert_with_own_id) in attempts {
        for condition in
            [format!("pg_temp.fail_on_read({table})"), format!("{table}.created_at < now()"), "true".to_owned()]
        {
            let on_conflict = format!("ON CONFLICT (id) DO UPDATE SET {change} WHERE {condition}");
            for sql in [
                format!("{insert_with_victims_id} {on_conflict}"),
                format!(
                    "{insert_with_victims_id} {}",
                    on_conflict.replace("(id)", &format!("ON CONSTRAINT {table}_pkey"))
                ),
            ] {
                // The schema's owner has locked all rows of the table. So a statement that tries to lock one of them
                // waits, and fails after two seconds (`lock_timeout`).
                let lock_holder = world.owner().begin().await;
                execute_in(&lock_holder, &format!("SELECT FROM {table} FOR UPDATE")).await.unwrap();
                let transaction = attacker.caller.begin().await;
                execute_in(&transaction, CREATE_FAIL_ON_READ_FUNCTION).await.unwrap();
                execute_in(&transaction, "SET LOCAL lock_timeout = '2s'").await.unwrap();
                assert_refused!(
                    execute_in(&transaction, &sql).await,
                    UNIQUE_VIOLATION,
                    &format!("{table}_pkey"),
                    "{sql}"
                );
                transaction.rollback().await.unwrap();
                lock_holder.rollback().await.unwrap();
            }
        }
        let on_conflict = format!("ON CONFLICT (id) DO UPDATE SET {change} WHERE {table}.created_at < now()");
        assert_eq!(
            attempt(&attacker.caller, &format!("{insert_with_own_id} {on_conflict}")).await,
            "done",
            "the attacker's row of {table}"
        );
    }
    assert_invariants(&world).await;
}

/// The statement deletes an adventure of the caller's, and inserts a creature for this adventure with the id of
/// somebody else's creature. Row security would accept the new creature, because row security uses the statement's
/// snapshot, in which the adventure still exists and belongs to the caller. So a trigger has to refuse the new creature
/// before PostgreSQL evaluates the condition of the ON CONFLICT clause on the existing one.
#[tokio::test]
async fn inserting_a_creature_for_a_deleted_adventure_reads_no_creature_of_others() {
    let world = World::new().await;
    let (attacker, victim) = (world.new_user().await, world.new_user().await);
    let victims_draft = world.new_draft_adventure(victim.user_id()).await;
    let insert_victims_creature =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{victims_draft}', 'Wolf') RETURNING id");
    let victims_creature: Uuid = world.owner().fetch_value(&insert_victims_creature).await.unwrap();
    let own_draft = world.new_draft_adventure(attacker.user_id()).await;
    for condition in ["pg_temp.fail_on_read(creatures)", "true", "false"] {
        let transaction = attacker.begin().await;
        execute_in(&transaction, CREATE_FAIL_ON_READ_FUNCTION).await.unwrap();
        let sql = format!(
            "WITH deleted AS (DELETE FROM adventures WHERE id = '{own_draft}' RETURNING id)
             INSERT INTO creatures (id, adventure_id, name) SELECT '{victims_creature}', id, 'Mine' FROM deleted
             ON CONFLICT (id) DO UPDATE SET name = 'Mine' WHERE {condition}"
        );
        assert_refused!(execute_in(&transaction, &sql).await, forbidden, "{condition}");
        transaction.rollback().await.unwrap();
    }
}

/// A foreign key only requires that a row with the referenced key exists at the end of the statement. So if a statement
/// could delete a row and insert another with the same id, the new row would get the history of the deleted one.
#[tokio::test]
async fn a_statement_cannot_replace_a_row_and_keep_its_history() {
    let world = World::new().await;
    let fixture = create_populated_account(&world).await;
    let played_adventure = world.new_adventure(fixture.account_id).await;
    world.update_session(&world.new_session(0).await, &format!("adventure_id = '{played_adventure}'")).await;
    let better_values = "'Better', 'wizard', 6, 6, 6, 6, '{}'";
    let character_columns = "id, user_id, name, class, might, grace, wit, heart, special_ability";
    // Such a statement is refused for a row with history (a character with a seat, an adventure that is played) and for
    // a row without history. Each case is a table, the id of a row, and the columns and SELECT list of the INSERT.
    let mut cases = Vec::new();
    for id in [fixture.seated_character_id, fixture.spare_character_id] {
        cases.push(("characters", id, format!("({character_columns}) SELECT id, user_id, {better_values}")));
    }
    for id in [played_adventure, fixture.published_adventure_id] {
        cases.push(("adventures", id, "(id, creator_id, name) SELECT id, creator_id, 'Better'".to_owned()));
    }
    let columns_and_select_for_another_adventure = format!(
        "(id, adventure_id, name) SELECT id, '{}', 'Better'",
        world.new_draft_adventure(fixture.account_id).await
    );
    cases.push(("creatures", fixture.creature_id, columns_and_select_for_another_adventure));
    cases.push((
        "creatures",
        fixture.creature_id,
        "(id, adventure_id, name) SELECT id, adventure_id, 'Better'".to_owned(),
    ));
    for (table, id, columns_and_select) in cases {
        let delete = format!("DELETE FROM {table} WHERE id = '{id}' RETURNING *");
        let replacements = [
            format!("WITH deleted AS ({delete}) INSERT INTO {table} {columns_and_select} FROM deleted"),
            format!(
                "WITH deleted AS ({delete}),
                   inserted AS (INSERT INTO {table} {columns_and_select} FROM deleted RETURNING id)
                 SELECT FROM inserted"
            ),
        ];
        for sql in replacements {
            for caller in [&fixture.caller, &world.owner()] {
                assert_refused!(caller.execute(&sql).await, UNIQUE_VIOLATION, &format!("{table}_pkey"), "{sql}");
            }
        }
        assert_eq!(world.owner().count(&format!("{table} WHERE id = '{id}' AND name <> 'Better'")).await, 1);
    }
    // With two statements, the deletion is refused if the row has history. A row without history is deleted, and the
    // insertion then creates a new row.
    let delete_character_sql = |id: Uuid| format!("DELETE FROM characters WHERE id = '{id}'");
    assert_eq!(
        attempt(&fixture.caller, &delete_character_sql(fixture.seated_character_id)).await,
        FOREIGN_KEY_VIOLATION
    );
    assert_eq!(attempt(&fixture.caller, &delete_character_sql(fixture.spare_character_id)).await, "done");
    assert_eq!(
        attempt(&fixture.caller, &insert_character_sql(fixture.spare_character_id, fixture.account_id)).await,
        "done"
    );
    assert_invariants(&world).await;
}

/// The crate `service` stores the result of a validation only if the adventure still has the `updated_at` that was read
/// with the content. So if an adventure is deleted and another is inserted with the same id, their times must differ,
/// even in one transaction, in which `now()` does not change.
#[tokio::test]
async fn an_adventure_with_the_id_of_a_deleted_one_has_a_different_updated_at() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let id = Uuid::new_v4();
    let insert = format!("INSERT INTO adventures (id, name) VALUES ('{id}', 'A draft')");
    let transaction = creator.begin().await;
    let mut outcomes = Vec::new();
    for change in ["", "UPDATE adventures SET name = 'An edited draft'", "UPDATE adventures SET name = 'Edited again'"]
    {
        execute_in(&transaction, &insert).await.unwrap();
        if !change.is_empty() {
            execute_in(&transaction, &format!("{change} WHERE id = '{id}'")).await.unwrap();
        }
        // The second of two equal times would violate the unique constraint.
        execute_in(&transaction, "CREATE TEMP TABLE IF NOT EXISTS times (time timestamptz UNIQUE)").await.unwrap();
        let sql = format!("INSERT INTO times SELECT updated_at FROM adventures WHERE id = '{id}'");
        outcomes.push(execute_in(&transaction, &sql).await);
        execute_in(&transaction, &format!("DELETE FROM adventures WHERE id = '{id}'")).await.unwrap();
    }
    assert_eq!(outcomes, [Ok(1), Ok(1), Ok(1)]);
    transaction.rollback().await.unwrap();
}
