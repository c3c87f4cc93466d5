//! The end of a transaction that only read: nobody waits for it, and it leaves nothing behind.

use std::pin::pin;

use sea_orm::{
    ConnectionTrait, DbBackend, EntityTrait, PaginatorTrait, QueryResult, Statement, TransactionTrait,
    sea_query::{Asterisk, Query},
};
use sparc::{entity::characters, service::Operations};
use tokio::select;
use uuid::Uuid;

use super::{
    documented::documented,
    operations,
    scene::{EVERYBODY, Scene},
    standby::reads,
    wire::{Wire, connect_counted, connect_counted_to, connect_through},
};
use crate::{programs::poll_then_drop, world::World};

/// Holds back all but the first `answers` responses. Returns whether the call finishes without the next one, and its
/// result.
async fn returns_after<T>(wire: &Wire, answers: u32, call: impl Future<Output = T>) -> (bool, T) {
    let mut call = pin!(call);
    wire.hold_after(answers);
    let early = select! {
        biased;
        outcome = &mut call => Some(outcome),
        () = wire.holds() => None,
    };
    match early {
        // The response that it did not wait for is delivered too, so that nothing is in progress afterwards.
        Some(outcome) => {
            wire.holds().await;
            wire.release();
            (true, outcome)
        }
        None => {
            wire.release();
            (false, call.await)
        }
    }
}

#[tokio::test]
async fn every_operation_that_reads_returns_before_its_commit_is_answered() {
    let scene = Scene::new().await;
    let (sparc, wire) = connect_counted(&scene).await;
    let (documented, reads) = (documented(), reads());
    let words = ["none", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten"];
    let (mut wrong, mut counted) = (Vec::new(), 0);
    for operation in operations().iter().filter(|operation| reads.contains(operation.name)) {
        let order = [3, 4, 5, 2, 1, 0];
        let who = order.into_iter().find(|place| operation.outcomes[*place] == "done").unwrap();
        let who = scene.identity(&sparc, EVERYBODY[who]);
        // Prepares the statements.
        assert_eq!((operation.alone)(&who, &scene).await, "done", "{}", operation.name);
        sparc.ping().await.unwrap();
        let round_trips = &documented.iter().find(|one| one.name == operation.name).unwrap().round_trips;
        let round_trips = words.iter().position(|word| round_trips.split(' ').next() == Some(word)).unwrap();
        let all_but_last = u32::try_from(round_trips).unwrap() - 1;
        match returns_after(&wire, all_but_last, (operation.alone)(&who, &scene)).await {
            (true, "done") => counted += 1,
            other => wrong.push(format!("{}: {other:?}", operation.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(counted >= 20, "only {counted} operations read");
}

#[tokio::test]
async fn a_caller_waits_for_two_round_trips_to_read_and_three_to_write() {
    let scene = Scene::new().await;
    let (sparc, wire) = connect_counted(&scene).await;
    let ada = sparc.as_user(scene.player.id);
    let hero = scene.player.character;
    let text = || Statement::from_string(DbBackend::Postgres, "SELECT 1 AS one");
    macro_rules! assert_waits {
        ($early:literal, $what:literal, $call:expr) => {
            // Prepares the statement.
            assert!($call.await.is_ok(), "{}", $what);
            sparc.ping().await.unwrap();
            let (early, outcome) = returns_after(&wire, 2, $call).await;
            assert!(outcome.is_ok(), "{}: {:?}", $what, outcome.err());
            assert_eq!(early, $early, "{}", $what);
        };
    }
    assert_waits!(true, "one row", characters::Entity::find_by_id(hero).one(&ada));
    assert_waits!(true, "all rows", characters::Entity::find().all(&ada));
    assert_waits!(true, "a count", characters::Entity::find().count(&ada));
    assert_waits!(true, "an operation that reads", ada.characters().get(hero));
    assert_waits!(false, "an operation that writes", ada.characters().rename(hero, "Nim"));
    assert_waits!(false, "a transaction of the caller's", async {
        let tx = ada.begin().await?;
        characters::Entity::find_by_id(hero).one(&tx).await?;
        tx.commit().await
    });
    // Its commit also verifies the identity.
    assert_waits!(false, "a text", ada.query_one_raw(text()));
}

#[tokio::test]
async fn a_refusal_to_read_is_returned_before_its_rollback_is_answered() {
    let scene = Scene::new().await;
    let (sparc, wire) = connect_counted(&scene).await;
    let ada = sparc.as_user(scene.player.id);
    let nobody = Uuid::new_v4();
    assert!(ada.characters().get(nobody).await.is_err());
    sparc.ping().await.unwrap();
    let (early, outcome) = returns_after(&wire, 2, ada.characters().get(nobody)).await;
    assert_eq!(outcome.unwrap_err().code(), "not_found");
    assert!(early);
    assert_eq!(ada.characters().get(scene.player.character).await.unwrap().id, scene.player.character);
}

/// What a serializable transaction has read is valid only once it has committed.
#[tokio::test]
async fn a_serializable_read_waits_for_its_commit() {
    let scene = Scene::new().await;
    let more = "&options=-c%20default_transaction_isolation%3Dserializable";
    let (sparc, wire) = connect_counted_to(scene.world.url(), more).await;
    let ada = sparc.as_user(scene.player.id);
    ada.users().me().await.unwrap();
    sparc.ping().await.unwrap();
    let (early, outcome) = returns_after(&wire, 2, ada.users().me()).await;
    assert_eq!(outcome.unwrap().id, scene.player.id);
    assert!(!early);
}

#[tokio::test]
async fn a_connection_counts_as_used_until_its_transaction_has_ended() {
    let scene = Scene::new().await;
    let (sparc, wire) = connect_counted(&scene).await;
    let (ada, ben) = (sparc.as_user(scene.player.id), sparc.as_user(scene.seer));
    ada.users().me().await.unwrap();
    sparc.ping().await.unwrap();
    wire.hold_after(2);
    assert_eq!(ada.users().me().await.unwrap().id, scene.player.id);
    wire.holds().await;
    let status = sparc.pool_status();
    assert_eq!((status.connections, status.idle), (1, 0));
    // The next caller, another user, waits for it.
    let mut next = pin!(ben.users().me());
    assert!(poll_then_drop(0, next.as_mut()).await.is_none());
    assert_eq!(sparc.pool_status().waiting, 1);
    wire.release();
    assert_eq!(next.await.unwrap().id, scene.seer);
    assert_eq!(sparc.pool_status().connections, 1);
    // So does closing.
    sparc.ping().await.unwrap();
    wire.hold_after(2);
    ada.users().me().await.unwrap();
    wire.holds().await;
    let mut closing = pin!(sparc.clone().close());
    assert!(poll_then_drop(3, closing.as_mut()).await.is_none());
    wire.release();
    closing.await.unwrap();
    assert_eq!(sparc.pool_status().connections, 0);
    assert_eq!(ada.users().me().await.unwrap_err().code(), "pool_closed");
}

#[tokio::test]
async fn a_server_lost_between_rows_and_commit_fails_neither_this_call_nor_the_next() {
    let scene = Scene::new().await;
    let (sparc, wire) = connect_counted(&scene).await;
    let ada = sparc.as_user(scene.player.id);
    for _ in 0..3 {
        ada.users().me().await.unwrap();
        sparc.ping().await.unwrap();
        wire.cut_at(3);
        assert_eq!(ada.users().me().await.unwrap().id, scene.player.id);
        // The only connection is gone, so the next call opens another.
        assert_eq!(ada.users().me().await.unwrap().id, scene.player.id);
        assert_eq!(sparc.pool_status().connections, 1);
    }
}

#[tokio::test]
async fn a_runtime_that_shuts_down_before_the_answer_leaves_no_transaction() {
    let scene = Scene::new().await;
    let (_, wire) = connect_counted(&scene).await;
    let (url, id) = (scene.world.url().to_owned(), scene.player.id);
    let port = wire.port;
    let held = wire.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sparc = connect_through(&url, port, "").await;
            let ada = sparc.as_user(id);
            ada.users().me().await.unwrap();
            sparc.ping().await.unwrap();
            held.hold_after(2);
            ada.users().me().await
        })
    });
    assert_eq!(answer.await.unwrap().unwrap().id, id);
    wire.release();
    crate::faults::assert_no_open_transaction(&scene.world).await;
}

/// A function in a view or policy may write; the statement then runs again in a transaction that may write.
#[tokio::test]
async fn a_read_that_calls_a_writing_function_takes_effect_once() {
    let world = World::new().await;
    let owner = world.owner();
    for sql in [
        "CREATE TABLE visits (id uuid)",
        "CREATE FUNCTION visit() RETURNS uuid LANGUAGE sql VOLATILE SECURITY DEFINER
         AS 'INSERT INTO public.visits SELECT auth.uid() RETURNING id'",
        "CREATE VIEW visitors AS SELECT visit() AS id",
        "GRANT SELECT ON visitors TO authenticated",
    ] {
        world.db.execute_unprepared(sql).await.unwrap();
    }
    let ada = world.sparc.as_user(world.new_account().await);
    let mut from = Query::select();
    from.column(Asterisk).from("visitors");
    let id = |row: QueryResult| row.try_get::<Uuid>("", "id").unwrap();
    assert_eq!(ada.query_one(&from).await.unwrap().map(id), ada.user_id());
    assert_eq!(ada.query_all(&from).await.unwrap().into_iter().map(id).collect::<Vec<_>>(), [ada.user_id().unwrap()]);
    assert_eq!(owner.count("visits").await, 2);
    // The read-only transactions that were tried first have ended.
    crate::faults::assert_no_open_transaction(&world).await;
}
