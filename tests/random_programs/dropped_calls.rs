//! Drops the futures of calls on connections and transactions before they finish, at each await point. The calls are
//! commit, rollback and those that [`droppable_calls`] lists. The next caller uses the pool's only connection
//! immediately afterwards, and must not notice.

use std::pin::Pin;

use futures_util::TryStreamExt;
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, EntityTrait, IsolationLevel, PaginatorTrait, Statement, StreamTrait,
    TransactionError, TransactionOptions, TransactionTrait, sea_query::Query,
};
use sparc::{
    entity::characters,
    service::{IdentityConnection, Operations, Options, Sparc, Transaction},
};
use uuid::Uuid;

use super::poll_then_drop;
use crate::{faults::network::Proxy, world::World};

type CallFuture<'a> = Pin<Box<dyn Future<Output = Result<(), DbErr>> + 'a>>;

fn raw_statement(text: &str) -> Statement {
    Statement::from_string(DbBackend::Postgres, text)
}

/// A query that returns many rows, each with the role and the user that it runs as.
const SELECT_IDENTITY_ROWS: &str =
    "SELECT i, current_user::text AS role, auth.uid() AS id FROM generate_series(1, 200) AS i";

/// The description of a call, and a function that makes it.
type DroppableCall<C> = (&'static str, for<'a> fn(&'a C) -> CallFuture<'a>);

/// The calls that connections and transactions have in common.
fn droppable_calls<C>() -> Vec<DroppableCall<C>>
where
    C: ConnectionTrait + StreamTrait + TransactionTrait<Transaction = Transaction>,
{
    vec![
        ("execute_raw", |db| Box::pin(async { db.execute_raw(raw_statement("SELECT 1")).await.map(drop) })),
        ("execute_unprepared", |db| {
            Box::pin(async { db.execute_unprepared("SET TIME ZONE 'Asia/Tokyo'").await.map(drop) })
        }),
        ("query_one_raw", |db| {
            Box::pin(async { db.query_one_raw(raw_statement(SELECT_IDENTITY_ROWS)).await.map(drop) })
        }),
        ("query_all_raw", |db| {
            Box::pin(async { db.query_all_raw(raw_statement(SELECT_IDENTITY_ROWS)).await.map(drop) })
        }),
        ("execute", |db| Box::pin(async { db.execute(Query::select().expr(1)).await.map(drop) })),
        ("query_one", |db| Box::pin(async { characters::Entity::find().one(db).await.map(drop) })),
        ("query_all", |db| Box::pin(async { characters::Entity::find().all(db).await.map(drop) })),
        ("count", |db| Box::pin(async { characters::Entity::find().count(db).await.map(drop) })),
        ("stream_raw", |db| {
            Box::pin(async {
                db.stream_raw(raw_statement(SELECT_IDENTITY_ROWS)).await?.try_collect::<Vec<_>>().await.map(drop)
            })
        }),
        ("begin", |db| Box::pin(async { db.begin().await?.commit().await })),
        ("begin_with_config", |db| {
            Box::pin(async { db.begin_with_config(None, Some(AccessMode::ReadOnly)).await?.rollback().await })
        }),
        ("begin_with_options", |db| {
            let options =
                TransactionOptions { isolation_level: Some(IsolationLevel::ReadCommitted), ..Default::default() };
            Box::pin(async move { db.begin_with_options(options).await?.commit().await })
        }),
        ("transaction", |db| {
            Box::pin(async {
                let outcome =
                    db.transaction::<_, (), DbErr>(|tx| Box::pin(async { tx.begin().await?.commit().await })).await;
                outcome.map_err(|error| match error {
                    TransactionError::Connection(error) | TransactionError::Transaction(error) => error,
                })
            })
        }),
        ("a failing statement", |db| {
            Box::pin(async {
                // The division by zero fails when the statement is executed, not when it is planned.
                assert!(db.execute_unprepared("SELECT 1 / (pg_sleep(0) IS NULL)::integer").await.is_err());
                Ok(())
            })
        }),
    ]
}

/// Asserts that a connection or transaction works and runs its statements as the user.
async fn assert_identity(connection: &impl ConnectionTrait, id: Uuid, context: &str) {
    let row = connection
        .query_one_raw(raw_statement(SELECT_IDENTITY_ROWS))
        .await
        .unwrap_or_else(|error| panic!("{context}: {error}"))
        .unwrap();
    assert_eq!(row.try_get::<String>("", "role").unwrap(), "authenticated", "{context}");
    assert_eq!(row.try_get::<Uuid>("", "id").unwrap(), id, "{context}");
}

/// Connects with one connection, through a proxy. The proxy runs in this thread, so no response arrives during a poll
/// of a call: each time the call needs a response, the poll returns `Pending`, and the call can be dropped.
async fn connect_through_proxy(world: &World) -> Sparc {
    let proxy = Proxy::start_for_world(world).await;
    Sparc::connect_with(&proxy.url, Options::default().max_connections(1)).await.unwrap()
}

#[tokio::test]
async fn dropping_a_call_on_a_connection_does_not_affect_the_next_caller() {
    let world = World::new().await;
    let sparc = connect_through_proxy(&world).await;
    let (ada, ben) = (sparc.as_user(world.new_account().await), sparc.as_user(world.new_account().await));
    let mut dropped_calls = 0;
    for (name, call) in droppable_calls::<IdentityConnection>() {
        for extra_polls in 0.. {
            let context = format!("{name} after {extra_polls} extra polls");
            let outcome = poll_then_drop(extra_polls, call(&ada)).await;
            assert_identity(&ben, ben.user_id().unwrap(), &context).await;
            assert_eq!(ben.users().me().await.unwrap().id, ben.user_id().unwrap());
            if let Some(outcome) = outcome {
                outcome.unwrap_or_else(|error| panic!("{context}: {error}"));
                break;
            }
            dropped_calls += 1;
        }
    }
    println!("{dropped_calls} calls dropped");
    assert!(dropped_calls > 30, "too few calls were dropped before they finished");
}

#[tokio::test]
async fn dropping_a_call_on_a_transaction_makes_at_most_the_innermost_transaction_fail() {
    let world = World::new().await;
    let sparc = connect_through_proxy(&world).await;
    let (ada, ben) = (sparc.as_user(world.new_account().await), sparc.as_user(world.new_account().await));
    let (id, mut dropped_calls) = (ada.user_id().unwrap(), 0);
    for (name, call) in droppable_calls::<Transaction>() {
        for extra_polls in 0.. {
            let context = format!("{name} after {extra_polls} extra polls");
            let tx = ada.begin().await.unwrap();
            tx.execute_unprepared(&format!("UPDATE users SET bio = '{context}' WHERE id = '{id}'")).await.unwrap();
            let inner = tx.begin().await.unwrap();
            let is_finished = poll_then_drop(extra_polls, call(&inner)).await.is_some();
            match inner.execute_raw(raw_statement("SELECT 1")).await {
                Ok(_) => assert_identity(&inner, id, &context).await,
                Err(error) => assert_eq!(sparc::service::Error::from(error).code(), "transaction_failed", "{context}"),
            }
            inner.rollback().await.unwrap();
            assert_identity(&tx, id, &context).await;
            tx.commit().await.unwrap();
            assert_eq!(ada.users().me().await.unwrap().bio.as_deref(), Some(&*context));
            assert_identity(&ben, ben.user_id().unwrap(), &context).await;
            if is_finished {
                break;
            }
            dropped_calls += 1;
        }
    }
    println!("{dropped_calls} calls dropped");
    assert!(dropped_calls > 30, "too few calls were dropped before they finished");
}

/// `commit` and `rollback` consume their transaction, so [`droppable_calls`] does not contain them.
#[tokio::test]
async fn a_commit_or_rollback_dropped_at_any_point_still_ends_the_transaction() {
    let world = World::new().await;
    let sparc = connect_through_proxy(&world).await;
    let (ada, ben) = (sparc.as_user(world.new_account().await), sparc.as_user(world.new_account().await));
    let id = ada.user_id().unwrap();
    let mut dropped_count = 0;
    for is_commit in [true, false] {
        for is_nested in [false, true] {
            for extra_polls in 0.. {
                let context =
                    format!("is_commit: {is_commit}, is_nested: {is_nested}, after {extra_polls} extra polls");
                ada.execute_unprepared(&format!("UPDATE users SET bio = 'before' WHERE id = '{id}'")).await.unwrap();
                let update = format!("UPDATE users SET bio = 'after' WHERE id = '{id}'");
                let outer = ada.begin().await.unwrap();
                let tx = if is_nested { Some(outer.begin().await.unwrap()) } else { None };
                let outcome = match tx {
                    Some(tx) => {
                        tx.execute_unprepared(&update).await.unwrap();
                        let end = async { if is_commit { tx.commit().await } else { tx.rollback().await } };
                        let outcome = poll_then_drop(extra_polls, end).await;
                        assert_identity(&outer, id, &context).await;
                        outer.commit().await.unwrap();
                        outcome
                    }
                    None => {
                        outer.execute_unprepared(&update).await.unwrap();
                        poll_then_drop(extra_polls, async {
                            if is_commit { outer.commit().await } else { outer.rollback().await }
                        })
                        .await
                    }
                };
                assert_identity(&ben, ben.user_id().unwrap(), &context).await;
                let bio = ada.users().me().await.unwrap().bio;
                if let Some(outcome) = outcome {
                    outcome.unwrap();
                    assert_eq!(bio.as_deref(), Some(if is_commit { "after" } else { "before" }), "{context}");
                    break;
                }
                assert!(is_commit || bio.as_deref() == Some("before"), "{context}: {bio:?}");
                dropped_count += 1;
            }
        }
    }
    assert!(dropped_count >= 4, "too few commits and rollbacks were dropped before they finished");
}
