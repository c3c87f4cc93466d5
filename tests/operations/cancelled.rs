//! Every operation dropped at every point where it waits, and the connection used at once by the next.

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use sparc::service::{Error, IdentityConnection, Operations, Options, Sparc, Transaction};

use super::{
    operations,
    scene::{EVERYBODY, Scene},
};
use crate::{faults::network::Line, programs::polled};

/// Role and user of the next statement.
async fn asker(tx: &Transaction) -> Result<(String, Option<uuid::Uuid>), Error> {
    let sql = "SELECT current_user::text, auth.uid()";
    let row = tx.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?.unwrap();
    Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
}

/// Whoever asks after it in the transaction is who asked before, or is told that it can only be rolled back.
async fn is_the_same(tx: &Transaction, who: &IdentityConnection, what: &str) {
    match asker(tx).await {
        Ok(asker) => assert_eq!(asker, (who.identity().role().to_owned(), who.user_id()), "{what}"),
        Err(error) => assert_eq!(error.code(), "transaction_failed", "{what}"),
    }
}

#[tokio::test]
async fn an_operation_dropped_anywhere_leaves_the_next_one_nothing() {
    let scene = Scene::new().await;
    let before = scene.digest().await;
    // Through a line in this very thread, so that no answer is there before it is waited for.
    let line = Line::to(&scene.world).await;
    let sparc = Sparc::connect_with(&line.url, Options::default().max_connections(1)).await.unwrap();
    let next = sparc.as_user(scene.stranger.id);
    let mut dropped = 0;
    for operation in operations() {
        let who = operation.told.iter().rposition(|told| *told == "done");
        let Some(who) = who.map(|place| scene.identity(&sparc, EVERYBODY[place])) else { continue };
        for polls in 0.. {
            let what = format!("{} after {polls} polls", operation.name);
            let tx = who.begin().await.unwrap();
            let inner = tx.begin().await.unwrap();
            let ended = polled(polls, (operation.ask)(&inner, &scene)).await.is_some();
            is_the_same(&inner, &who, &what).await;
            inner.rollback().await.unwrap();
            let asker = asker(&tx).await.unwrap_or_else(|error| panic!("{what}, around it: {error}"));
            assert_eq!(asker, (who.identity().role().to_owned(), who.user_id()), "{what}");
            // Dropped once more, and the transaction with it: the one connection is the next one's.
            let ended = polled(polls, (operation.ask)(&tx, &scene)).await.is_some() && ended;
            drop(tx);
            let me = next.users().me().await.unwrap_or_else(|error| panic!("{what}, the next: {error}"));
            assert_eq!(me.id, scene.stranger.id, "{what}");
            if ended {
                break;
            }
            dropped += 1;
            assert!(polls < 200, "{what}: it never ends");
        }
    }
    println!("{dropped} times");
    assert!(dropped > 100, "{dropped}");
    assert_eq!(scene.digest().await, before, "and nothing was committed");
    sparc.close().await.unwrap();
}
