//! A future dropped at every point where it waits: whoever asked went away.

use std::{
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{SystemTime, UNIX_EPOCH},
};

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use sparc::{
    entity::sea_orm_active_enums::{Attribute, RollType},
    service::{
        Difficulty, Error, JoinCode, Operations, Options, Sparc, Transaction,
        dice::{NewRoll, Roller},
        sessions::NewSession,
    },
};

use super::{network::Proxy, no_transaction_is_open};
use crate::{evening::broken, world::World};

/// Lets the future wait so many times, and drops it the next; what it came to, if it came to it.
async fn waiting<T>(times: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Drops it at the first wait, the second, and so on, until it ends before it is dropped.
async fn dropped_everywhere<F: Future<Output = Result<(), Error>>>(world: &World, what: &str, ask: impl Fn() -> F) {
    let mut waits = 0;
    loop {
        let ended = waiting(waits, ask()).await;
        no_transaction_is_open(world).await;
        assert_eq!(broken(world).await, [""; 0], "{what} dropped at wait {waits}");
        match ended {
            Some(Ok(())) => break,
            // Dropped in the commit, it may have been done: the next one is told so.
            Some(Err(error)) => panic!("{what} after {waits} waits: {}", error.code()),
            None => waits += 1,
        }
        assert!(waits < 500, "{what} never ends");
    }
    println!("{what}: dropped at {waits} waits");
    assert!(waits >= 3, "{what} does not wait");
}

#[tokio::test]
async fn an_operation_dropped_anywhere_leaves_all_or_nothing() {
    let world = World::new().await;
    let game = world.active_session(1).await;
    let waiting_table = world.session(0).await;
    let code = format!("SELECT code::text FROM sessions WHERE id = '{}'", waiting_table.session);
    let code: JoinCode = world.owner().value::<String>(&code).await.unwrap().parse().unwrap();
    // Through a line in this very thread, so that no answer is there before it is waited for. Two connections, so that one
    // which is being given back is not waited for.
    let proxy = Proxy::to_world(&world).await;
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(2)).await.unwrap();
    let ada = sparc.as_user(game.players[0].id);
    let (hero, session) = (game.players[0].character, game.session);
    let seer = sparc.as_user(game.seer.uuid());
    dropped_everywhere(&world, "dice.roll", || async {
        let roll = NewRoll::of(RollType::Attack, session, Roller::Character(hero), Attribute::Wit, Difficulty::MAX);
        ada.dice().roll(roll).await.map(drop)
    })
    .await;
    dropped_everywhere(&world, "sessions.join", || async { ada.sessions().join(&code, hero).await.map(drop) }).await;
    dropped_everywhere(&world, "sessions.set_scene", || async {
        let scene = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos()).to_string();
        seer.sessions().set_scene(session, Some(&scene)).await.map(drop)
    })
    .await;
    dropped_everywhere(&world, "sessions.create", || async {
        let new = NewSession { adventure_id: game.adventure, ..Default::default() };
        seer.sessions().create(new).await.map(drop)
    })
    .await;
    assert_eq!(ada.characters().list().await.unwrap().len(), 1, "the pool works on");
    sparc.close().await.unwrap();
}

/// Whoever asks after it is who asked before, or is told that the transaction is over.
async fn still_the_same(tx: &Transaction, what: &str) {
    let query = Statement::from_string(DbBackend::Postgres, "SELECT current_user::text");
    match tx.query_one_raw(query).await {
        Ok(row) => assert_eq!(row.unwrap().try_get_by_index::<String>(0).unwrap(), "authenticated", "{what}"),
        Err(error) => assert_eq!(Error::from(error).code(), "transaction_failed", "{what}"),
    }
}

#[tokio::test]
async fn what_is_dropped_half_way_in_a_transaction_never_leaves_another_role_on() {
    let world = World::new().await;
    let proxy = Proxy::to_world(&world).await;
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(2)).await.unwrap();
    let creator = world.account().await;
    let draft = world.draft(creator).await;
    let me = sparc.as_user(creator);
    let mut dropped = 0;
    for waits in 0..60 {
        // A nested transaction, at two depths: it is undone, and the one around it goes on.
        let tx = me.begin().await.unwrap();
        let half = waiting(waits, tx.begin()).await.is_none();
        still_the_same(&tx, "outer").await;
        tx.commit().await.unwrap();
        let tx = me.begin().await.unwrap();
        let inner = tx.begin().await.unwrap();
        drop(waiting(waits, inner.begin()).await);
        still_the_same(&inner, "middle").await;
        let _ = inner.commit().await;
        still_the_same(&tx, "outer of three").await;
        drop(tx);
        // An elevated section.
        let tx = me.begin().await.unwrap();
        dropped += u32::from(waiting(waits, tx.adventures().validate(draft)).await.is_none());
        still_the_same(&tx, "elevated").await;
        drop(tx);
        no_transaction_is_open(&world).await;
        if !half && dropped < waits {
            break;
        }
    }
    assert!(dropped > 3, "nothing was dropped half way");
    sparc.close().await.unwrap();
}
