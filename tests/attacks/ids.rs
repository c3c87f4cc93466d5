//! A client that chooses the id of a row can neither reach another user's row by it, nor create a row that has the
//! history of a deleted one.

use uuid::Uuid;

use super::{assert_invariants, attempt, exec_in, full_account::create_full_account};
use crate::world::{World, insert_character};

/// A function for a condition, which an attacker creates in their own temporary schema: it fails when it is called.
const READ: &str = "CREATE FUNCTION pg_temp.read(anyelement) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'XX999', MESSAGE = 'read'; END $$";

/// PostgreSQL evaluates the condition of `ON CONFLICT DO UPDATE ... WHERE` on the existing row, and locks that row,
/// before row security is evaluated.
#[tokio::test]
async fn the_condition_of_an_upsert_reads_and_locks_no_row_of_others() {
    let world = World::new().await;
    let victim = create_full_account(&world).await;
    let me = create_full_account(&world).await;
    let draft = world.new_draft(victim.account).await;
    let insert_hidden = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft}', 'Wolf') RETURNING id");
    let hidden_creature: Uuid = world.owner().value(&insert_hidden).await.unwrap();
    world.set(&victim.live, "is_public = false").await;
    let my_draft = world.new_draft(me.account).await;
    let insert_session = |id: Uuid| {
        format!(
            "INSERT INTO sessions (id, seer_id, adventure_id) VALUES ('{id}', '{}', '{}')",
            me.account, me.published
        )
    };
    let insert_adventure =
        |id: Uuid| format!("INSERT INTO adventures (id, creator_id, name) VALUES ('{id}', '{}', 'Mine')", me.account);
    let insert_creature =
        |id: Uuid| format!("INSERT INTO creatures (id, adventure_id, name) VALUES ('{id}', '{my_draft}', 'Mine')");
    let rows = [
        (
            "characters",
            "name = 'Mine'",
            insert_character(victim.hero, me.account),
            insert_character(me.spare, me.account),
        ),
        ("sessions", "looking_for = 'x'", insert_session(victim.live.session), insert_session(me.live.session)),
        ("adventures", "name = 'Mine'", insert_adventure(draft), insert_adventure(my_draft)),
        ("adventures", "name = 'Mine'", insert_adventure(victim.published), insert_adventure(my_draft)),
        ("creatures", "name = 'Mine'", insert_creature(hidden_creature), insert_creature(me.creature)),
        ("creatures", "name = 'Mine'", insert_creature(victim.creature), insert_creature(me.creature)),
    ];
    for (table, change, theirs, mine) in rows {
        for condition in [format!("pg_temp.read({table})"), format!("{table}.created_at < now()"), "true".to_owned()] {
            let upsert = format!("ON CONFLICT (id) DO UPDATE SET {change} WHERE {condition}");
            for sql in [
                format!("{theirs} {upsert}"),
                format!("{theirs} {}", upsert.replace("(id)", &format!("ON CONSTRAINT {table}_pkey"))),
            ] {
                let transaction = me.me.begin().await;
                exec_in(&transaction, READ).await.unwrap();
                exec_in(&transaction, "SAVEPOINT before").await.unwrap();
                assert_refused!(exec_in(&transaction, &sql).await, "23505", &format!("{table}_pkey"), "{sql}");
                exec_in(&transaction, "ROLLBACK TO before").await.unwrap();
                let owner = world.owner().begin().await;
                let lock = format!("SELECT FROM {table} FOR UPDATE NOWAIT");
                assert!(exec_in(&owner, &lock).await.is_ok(), "{sql} must not have locked the row");
                owner.rollback().await.unwrap();
                transaction.rollback().await.unwrap();
            }
        }
        let upsert = format!("ON CONFLICT (id) DO UPDATE SET {change} WHERE {table}.created_at < now()");
        assert_eq!(attempt(&me.me, &format!("{mine} {upsert}")).await, "done", "one's own row of {table}");
    }
    assert_invariants(&world).await;
}

/// Row security uses the statement's snapshot, in which the caller still owns the adventure.
#[tokio::test]
async fn a_creature_for_a_deleted_adventure_reads_no_creature_of_others() {
    let world = World::new().await;
    let (me, victim) = (world.new_user().await, world.new_user().await);
    let hidden = world.new_draft(victim.uuid()).await;
    let insert = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{hidden}', 'Wolf') RETURNING id");
    let creature: Uuid = world.owner().value(&insert).await.unwrap();
    let mine = world.new_draft(me.uuid()).await;
    for condition in ["pg_temp.read(creatures)", "true", "false"] {
        let transaction = me.begin().await;
        exec_in(&transaction, READ).await.unwrap();
        let sql = format!(
            "WITH gone AS (DELETE FROM adventures WHERE id = '{mine}' RETURNING id)
             INSERT INTO creatures (id, adventure_id, name) SELECT '{creature}', id, 'Mine' FROM gone
             ON CONFLICT (id) DO UPDATE SET name = 'Mine' WHERE {condition}"
        );
        assert_refused!(exec_in(&transaction, &sql).await, forbidden, "{condition}");
        transaction.rollback().await.unwrap();
    }
}

/// Foreign keys accept that a row with the key exists at the end of the statement, although it is another row.
#[tokio::test]
async fn a_statement_cannot_replace_a_row_and_keep_its_history() {
    let world = World::new().await;
    let account = create_full_account(&world).await;
    let played = world.new_adventure(account.account).await;
    let adventure = format!("UPDATE sessions SET adventure_id = '{played}' WHERE id = '{}'", account.joined.session);
    world.owner().exec(&adventure).await.unwrap();
    let sheet = "'Better', 'wizard', 6, 6, 6, 6, '{}'";
    let columns = "id, user_id, name, class, might, grace, wit, heart, special_ability";
    let mut statements = Vec::new();
    for id in [account.hero, account.spare] {
        statements.push(("characters", id, format!("({columns}) SELECT id, user_id, {sheet}")));
    }
    for id in [played, account.published] {
        statements.push(("adventures", id, "(id, creator_id, name) SELECT id, creator_id, 'Better'".to_owned()));
    }
    let into_other =
        format!("(id, adventure_id, name) SELECT id, '{}', 'Better'", world.new_draft(account.account).await);
    statements.push(("creatures", account.creature, into_other));
    statements.push((
        "creatures",
        account.creature,
        "(id, adventure_id, name) SELECT id, adventure_id, 'Better'".to_owned(),
    ));
    for (table, id, insert) in statements {
        let delete = format!("DELETE FROM {table} WHERE id = '{id}' RETURNING *");
        let forms = [
            format!("WITH gone AS ({delete}) INSERT INTO {table} {insert} FROM gone"),
            format!(
                "WITH gone AS ({delete}), new AS (INSERT INTO {table} {insert} FROM gone RETURNING id) SELECT FROM new"
            ),
        ];
        for sql in forms {
            for person in [&account.me, &world.owner()] {
                assert_refused!(person.exec(&sql).await, "23505", &format!("{table}_pkey"), "{sql}");
            }
        }
        assert_eq!(world.owner().count(&format!("{table} WHERE id = '{id}' AND name <> 'Better'")).await, 1);
    }
    // In two statements, the first is refused if the row has history, and otherwise the second creates a new row.
    let delete = |id: Uuid| format!("DELETE FROM characters WHERE id = '{id}'");
    assert_eq!(attempt(&account.me, &delete(account.hero)).await, "23503");
    assert_eq!(attempt(&account.me, &delete(account.spare)).await, "done");
    assert_eq!(attempt(&account.me, &insert_character(account.spare, account.account)).await, "done");
    assert_invariants(&world).await;
}

/// The service stores the result of a validation for the adventure whose `updated_at` it has read. So the times must
/// differ even in one transaction, where `now()` does not change.
#[tokio::test]
async fn an_adventure_with_the_id_of_a_deleted_one_has_another_time() {
    let world = World::new().await;
    let creator = world.new_user().await;
    let id = Uuid::new_v4();
    let insert = format!("INSERT INTO adventures (id, name) VALUES ('{id}', 'A draft')");
    let transaction = creator.begin().await;
    let mut times = Vec::new();
    for change in ["", "UPDATE adventures SET name = 'An edited draft'", "UPDATE adventures SET name = 'Edited again'"]
    {
        exec_in(&transaction, &insert).await.unwrap();
        if !change.is_empty() {
            exec_in(&transaction, &format!("{change} WHERE id = '{id}'")).await.unwrap();
        }
        let sql = format!("INSERT INTO times SELECT updated_at FROM adventures WHERE id = '{id}'");
        exec_in(&transaction, "CREATE TEMP TABLE IF NOT EXISTS times (time timestamptz UNIQUE)").await.unwrap();
        times.push(exec_in(&transaction, &sql).await);
        exec_in(&transaction, &format!("DELETE FROM adventures WHERE id = '{id}'")).await.unwrap();
    }
    assert_eq!(times, [Ok(1), Ok(1), Ok(1)]);
    transaction.rollback().await.unwrap();
}
