//! Errors that could mislead a caller: each must say what was wrong and whether a retry helps.

use std::time::Duration;

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, Statement,
    TransactionTrait,
};
use sparc::{
    entity::{adventures, characters},
    service::{Error, IdentityConnection, Operations, Options, Sparc},
};
use uuid::Uuid;

use crate::world::World;

fn sql(text: &str) -> Statement {
    Statement::from_string(DbBackend::Postgres, text)
}

fn assert_invalid<T: std::fmt::Debug>(outcome: Result<T, sea_orm::DbErr>, why: &str) {
    let error = outcome.map_err(Error::from).unwrap_err();
    assert!(matches!(error, Error::InvalidStatement { .. }) && !error.is_retryable(), "{why}: {error:?}");
}

async fn assert_works(who: &IdentityConnection) {
    assert!(who.users().me().await.is_ok());
}

#[tokio::test]
async fn a_statement_that_cannot_be_run_is_an_invalid_statement() {
    let world = World::new().await;
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    let ada = sparc.as_user(world.new_account().await);
    let ids: Vec<Uuid> = (0..65_536).map(|_| Uuid::new_v4()).collect();
    assert_invalid(
        characters::Entity::find().filter(characters::Column::Id.is_in(ids)).all(&ada).await,
        "too many values",
    );
    assert_works(&ada).await;
    assert_invalid(ada.query_all_raw(sql("SELECT $1::integer")).await, "a value that is missing");
    let two_values = Statement::from_sql_and_values(DbBackend::Postgres, "SELECT $1::integer", [1.into(), 2.into()]);
    assert_invalid(ada.query_all_raw(two_values).await, "one value too many");
    assert_invalid(ada.execute_unprepared("SELECT 1; SELECT 2").await, "two statements");
    assert_invalid(ada.execute_unprepared("SELEC 1").await, "no SQL");
    assert_invalid(ada.execute_unprepared("SELECT * FROM nowhere").await, "no such table");
    assert_invalid(ada.execute_unprepared("SELECT nothing FROM users").await, "no such column");
    assert_invalid(
        characters::ActiveModel { name: Set("x".into()), ..Default::default() }.update(&ada).await,
        "no key",
    );
    assert_works(&ada).await;
    // A statement that was not sent does not fail its transaction.
    let tx = ada.begin().await.unwrap();
    let ids: Vec<Uuid> = (0..65_536).map(|_| Uuid::new_v4()).collect();
    assert_invalid(
        characters::Entity::find().filter(characters::Column::Id.is_in(ids)).all(&tx).await,
        "too many values",
    );
    assert!(tx.users().me().await.is_ok());
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn another_users_row_is_not_found_and_not_a_database_error() {
    let world = World::new().await;
    let (ada, ben) = (world.new_player().await, world.new_player().await);
    let me = world.sparc.as_user(ada.id);
    let change = characters::ActiveModel { id: Set(ben.character), name: Set("Mine".into()), ..Default::default() };
    let refused = change.update(&me).await.map_err(Error::from).unwrap_err();
    assert!(matches!(refused, Error::NotFound { .. }), "{refused:?}");
    assert_eq!(refused.http_status(), 404);
    let public = world.new_adventure(ben.id).await;
    let change = adventures::ActiveModel { id: Set(public), name: Set("Mine".into()), ..Default::default() };
    let refused = change.update(&me).await.map_err(Error::from).unwrap_err();
    assert!(matches!(refused, Error::NotFound { .. }), "{refused:?}");
}

#[tokio::test]
async fn concurrent_operations_on_one_transaction_all_succeed() {
    let world = World::new().await;
    let creator = world.new_account().await;
    let draft = world.new_draft(creator).await;
    let ada = world.sparc.as_user(creator);
    let tx = ada.begin().await.unwrap();
    let operations = (0..20).map(|_| async {
        let (users, adventures) = (tx.users(), tx.adventures());
        let (me, errors) = tokio::join!(users.me(), adventures.validate(draft));
        me?;
        errors.map(drop)
    });
    for outcome in futures_util::future::join_all(operations).await {
        outcome.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn the_call_after_a_cancelled_one_does_not_get_its_error() {
    let world = World::new().await;
    let ada = world.sparc.as_user(world.new_account().await);
    let sparc = Sparc::connect_with(world.url(), Options::default().max_connections(1)).await.unwrap();
    for after_ms in [1, 5, 20] {
        let failing = "SELECT 1 / (pg_sleep(0.01) IS NULL)::integer";
        let single_connection = sparc.as_user(ada.user_id().unwrap());
        let _ =
            tokio::time::timeout(Duration::from_millis(after_ms), single_connection.query_one_raw(sql(failing))).await;
        assert_works(&single_connection).await;
        // In a nested transaction, nobody knows whether the cancelled statement has failed. So it can only be rolled
        // back, and the outer transaction goes on.
        let tx = ada.begin().await.unwrap();
        let inner = tx.begin().await.unwrap();
        let cancelled = tokio::time::timeout(Duration::from_millis(after_ms), inner.query_one_raw(sql(failing))).await;
        if cancelled.is_err() {
            assert_fails!(inner.users().me().await, Error::TransactionFailed);
        }
        inner.rollback().await.unwrap();
        assert!(tx.users().me().await.is_ok(), "the outer transaction continues");
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_concurrent_statement_never_runs_with_the_role_of_a_validation() {
    let world = World::new().await;
    let (creator, ben) = (world.new_account().await, world.new_player().await);
    let draft = world.new_draft(creator).await;
    let tx = world.sparc.as_user(creator).begin().await.unwrap();
    let validate = async {
        for _ in 0..200 {
            tx.adventures().validate(draft).await.unwrap();
        }
    };
    let mut reads = Vec::new();
    for _ in 0..8 {
        reads.push(async {
            for _ in 0..200 {
                let private = characters::Entity::find_by_id(ben.character).one(&tx).await.unwrap();
                assert!(private.is_none(), "another user's character was read with the service's role");
                let who = tx.query_one_raw(sql("SELECT current_user::text")).await.unwrap().unwrap();
                assert_eq!(who.try_get_by_index::<String>(0).unwrap(), "authenticated");
            }
        });
    }
    tokio::join!(validate, futures_util::future::join_all(reads));
    tx.commit().await.unwrap();
}
