//! Nested transactions: they form a stack, and only the innermost open one can be used. `commit` returns `Ok` only if
//! the transaction was committed.

use sea_orm::{AccessMode, ConnectionTrait, IsolationLevel, TransactionTrait};
use sparc::service::{Error, IdentityConnection, Operations, Transaction, users::ProfileChanges};
use uuid::Uuid;

use crate::{
    sqlstates::FOREIGN_KEY_VIOLATION,
    world::{World, into_sql_error},
};

async fn write_bio(tx: &Transaction, bio: &str) -> Result<(), Error> {
    tx.users().edit(ProfileChanges { bio: Some(Some(bio.into())), ..Default::default() }).await.map(drop)
}

async fn read_bio(caller: &IdentityConnection) -> Option<String> {
    caller.users().me().await.unwrap().bio
}

/// Converts the outcome's error to [`Error`] and returns its code; returns `done` if there is no error.
fn outcome_code<T>(outcome: Result<T, impl Into<Error>>) -> &'static str {
    crate::world::outcome_code(outcome.map_err(Into::into))
}

#[tokio::test]
async fn an_outer_transaction_cannot_be_used_while_an_inner_one_is_open() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let outer = ada.begin().await.unwrap();
    write_bio(&outer, "outer").await.unwrap();
    let inner = outer.begin().await.unwrap();
    assert_eq!(outcome_code(outer.users().me().await), "nested_transaction_open");
    assert_eq!(outcome_code(outer.execute_unprepared("SELECT 1").await), "nested_transaction_open");
    assert_eq!(outcome_code(outer.begin().await), "nested_transaction_open");
    assert_eq!(
        outcome_code(outer.begin_with_config(None, Some(AccessMode::ReadOnly)).await),
        "nested_transaction_open"
    );
    write_bio(&inner, "inner").await.unwrap();
    inner.commit().await.unwrap();
    assert_eq!(
        outer.users().me().await.unwrap().bio.as_deref(),
        Some("inner"),
        "the outer transaction must be usable again, and see what the inner one wrote"
    );
    outer.commit().await.unwrap();
    assert_eq!(read_bio(&ada).await.as_deref(), Some("inner"));
}

#[tokio::test]
async fn a_commit_with_an_open_nested_transaction_is_refused_and_commits_nothing() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    for inner_fails in [false, true] {
        let outer = ada.begin().await.unwrap();
        write_bio(&outer, "outer").await.unwrap();
        let inner = outer.begin().await.unwrap();
        write_bio(&inner, "inner").await.unwrap();
        if inner_fails {
            assert!(inner.execute_unprepared("SELECT 1 / 0").await.is_err());
        }
        assert_eq!(outcome_code(outer.commit().await), "nested_transaction_open");
        assert_eq!(outcome_code(inner.users().me().await), "transaction_over");
        assert_eq!(outcome_code(inner.commit().await), "transaction_over");
        assert_eq!(read_bio(&ada).await, None);
    }
}

#[tokio::test]
async fn nested_transactions_that_follow_each_other_end_independently() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let outer = ada.begin().await.unwrap();
    let first_inner = outer.begin().await.unwrap();
    write_bio(&first_inner, "first").await.unwrap();
    first_inner.commit().await.unwrap();
    let second_inner = outer.begin().await.unwrap();
    write_bio(&second_inner, "second").await.unwrap();
    second_inner.rollback().await.unwrap();
    assert_eq!(outer.users().me().await.unwrap().bio.as_deref(), Some("first"));
    let third_inner = outer.begin().await.unwrap();
    write_bio(&third_inner, "third").await.unwrap();
    drop(third_inner);
    outer.commit().await.unwrap();
    assert_eq!(read_bio(&ada).await.as_deref(), Some("first"));
}

#[tokio::test]
async fn a_failed_nested_transaction_is_not_committed_and_the_outer_one_continues() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let outer = ada.begin().await.unwrap();
    write_bio(&outer, "outer").await.unwrap();
    let inner = outer.begin().await.unwrap();
    write_bio(&inner, "inner").await.unwrap();
    assert!(inner.execute_unprepared("SELECT 1 / 0").await.is_err());
    assert_eq!(outcome_code(inner.users().me().await), "transaction_failed");
    assert_eq!(outcome_code(inner.begin().await), "transaction_failed");
    assert_eq!(outcome_code(inner.commit().await), "transaction_failed");
    assert_eq!(
        outer.users().me().await.unwrap().bio.as_deref(),
        Some("outer"),
        "the refused commit must roll the nested transaction back"
    );
    outer.commit().await.unwrap();
    assert_eq!(read_bio(&ada).await.as_deref(), Some("outer"));
}

#[tokio::test]
async fn an_outer_rollback_ends_nested_transactions() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let outer = ada.begin().await.unwrap();
    let middle = outer.begin().await.unwrap();
    let inner = middle.begin().await.unwrap();
    write_bio(&inner, "inner").await.unwrap();
    middle.rollback().await.unwrap();
    assert_eq!(outcome_code(inner.users().me().await), "transaction_over");
    assert_eq!(outcome_code(inner.rollback().await), "transaction_over");
    write_bio(&outer, "outer").await.unwrap();
    let inner = outer.begin().await.unwrap();
    outer.rollback().await.unwrap();
    assert_eq!(outcome_code(inner.users().me().await), "transaction_over");
    drop(inner);
    assert_eq!(read_bio(&ada).await, None);
    // Panics if a transaction is still open.
    world.owner().assert_no_transaction_stays_idle().await;
}

#[tokio::test]
async fn dropping_an_outer_transaction_ends_nested_transactions() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let outer = ada.begin().await.unwrap();
    let inner = outer.begin().await.unwrap();
    write_bio(&inner, "inner").await.unwrap();
    drop(outer);
    assert_eq!(outcome_code(inner.users().me().await), "transaction_over");
    assert_eq!(outcome_code(inner.commit().await), "transaction_over");
    assert_eq!(read_bio(&ada).await, None);
}

#[tokio::test]
async fn a_nested_transaction_refuses_an_isolation_level_and_accepts_read_only() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let outer = ada.begin().await.unwrap();
    write_bio(&outer, "outer").await.unwrap();
    let outcome = outer.begin_with_config(Some(IsolationLevel::Serializable), None).await;
    assert_eq!(outcome_code(outcome), "invalid_statement");
    let reader = outer.begin_with_config(None, Some(AccessMode::ReadOnly)).await.unwrap();
    assert_eq!(outcome_code(write_bio(&reader, "reader").await), "read_only");
    reader.rollback().await.unwrap();
    write_bio(&outer, "outer again").await.unwrap();
    outer.commit().await.unwrap();
    assert_eq!(read_bio(&ada).await.as_deref(), Some("outer again"));
}

#[tokio::test]
async fn a_commit_that_the_server_refuses_returns_its_error() {
    let world = World::new().await;
    world
        .pool
        .execute_unprepared(
            "CREATE TABLE nodes (id integer PRIMARY KEY, parent integer REFERENCES nodes DEFERRABLE INITIALLY DEFERRED);
             GRANT ALL ON nodes TO authenticated",
        )
        .await
        .unwrap();
    let ada = world.sparc.as_user(world.new_account().await);
    let tx = ada.begin().await.unwrap();
    tx.execute_unprepared("INSERT INTO nodes VALUES (1, 2)").await.unwrap();
    assert_refused!(tx.commit().await.map_err(into_sql_error), FOREIGN_KEY_VIOLATION, "nodes_parent_fkey");
    assert_refused!(
        ada.execute_unprepared("INSERT INTO nodes VALUES (1, 2)").await.map_err(into_sql_error),
        FOREIGN_KEY_VIOLATION,
        "nodes_parent_fkey",
        "the same statement outside of an explicit transaction"
    );
    assert_eq!(world.owner().count("nodes").await, 0);
    assert!(ada.execute_unprepared("INSERT INTO nodes VALUES (1, 1)").await.is_ok());
}

/// An operation may write some rows before it is refused. If it runs in a caller's transaction, the caller must not be
/// able to commit those rows.
#[tokio::test]
async fn the_writes_of_a_refused_operation_cannot_be_committed() {
    let world = World::new().await;
    let game = world.new_active_session(2).await;
    let seer = world.sparc.as_user(game.seer.user_id());
    let request_id = uuid::Uuid::new_v4();
    // `roll_initiative` derives the id of each roll from the ids of the request and of the character. Two players are
    // seated. The roll inserted below has the id that the first player's initiative roll would get. The operation skips
    // ids that exist, so it writes only the other player's roll. Then it finds that the existing roll is no initiative
    // roll, and is refused.
    let existing_id = uuid::Uuid::from_u128(request_id.as_u128() ^ game.players[0].character_id.as_u128());
    let insert_attack = format!(
        "INSERT INTO dice_rolls (id, session_id, character_id, attribute, difficulty, roll_type)
         VALUES ('{existing_id}', '{}', '{}', 'grace', 3, 'attack')",
        game.session_id, game.players[0].character_id
    );
    world.owner().execute(&insert_attack).await.unwrap();
    let tx = seer.begin().await.unwrap();
    let request = sparc::service::dice::NewInitiative {
        id: Some(request_id),
        session_id: game.session_id,
        creature_ids: Vec::new(),
    };
    assert_eq!(
        outcome_code(tx.dice().roll_initiative(request.clone()).await),
        "id_conflict",
        "the existing roll is an attack"
    );
    assert_eq!(outcome_code(tx.commit().await), "transaction_failed");
    assert_eq!(outcome_code(seer.dice().roll_initiative(request).await), "id_conflict");
    assert_eq!(world.owner().count("dice_rolls").await, 1);
    // A refused operation that wrote nothing does not fail the transaction.
    let tx = seer.begin().await.unwrap();
    assert_eq!(outcome_code(tx.sessions().get(uuid::Uuid::new_v4()).await), "not_found");
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn an_operation_that_matched_no_row_leaves_the_callers_transaction_usable() {
    let world = World::new().await;
    let player = world.new_player().await;
    let ada = world.sparc.as_user(player.user_id);
    let unknown_id = Uuid::new_v4();
    let tx = ada.begin().await.unwrap();
    write_bio(&tx, "kept").await.unwrap();
    assert_error!(tx.characters().rename(unknown_id, "Nobody").await, Error::NotFound { .. });
    assert_error!(tx.characters().delete(unknown_id).await, Error::NotFound { .. });
    assert!(tx.sessions().leave(unknown_id).await.is_err());
    tx.commit().await.unwrap();
    assert_eq!(read_bio(&ada).await.as_deref(), Some("kept"));
}
