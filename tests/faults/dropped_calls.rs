//! The future of a call is dropped at each point where it waits, as happens when a client disconnects.

use std::time::{SystemTime, UNIX_EPOCH};

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use sparc::{
    entity::sea_orm_active_enums::{Attribute, RollType},
    service::{
        Difficulty, Error, Operations, Options, Sparc, Transaction,
        dice::{NewRoll, Roller},
        sessions::NewSession,
    },
};

use super::{assert_all_transactions_end, network::Proxy};
use crate::{random_operations::broken_invariants, random_programs::poll_then_drop, world::World};

/// Calls an operation again and again: drops the first call at its first wait, the second call at its second wait, and
/// so on, until a call finishes before it would be dropped. After each call, asserts that no transaction stays open and
/// that the invariants hold.
async fn drop_at_every_wait<F: Future<Output = Result<(), Error>>>(
    world: &World,
    name: &str,
    operation: impl Fn() -> F,
) {
    // The next call may pass this many waits, and is dropped at the one after.
    let mut passed_waits = 0;
    loop {
        let outcome = poll_then_drop(passed_waits, operation()).await;
        assert_all_transactions_end(world).await;
        assert_eq!(broken_invariants(world).await, [""; 0], "{name} after {passed_waits} waits");
        match outcome {
            Some(Ok(())) => break,
            // An earlier call may have committed although it was dropped. This call must succeed nevertheless.
            Some(Err(error)) => panic!("{name} after {passed_waits} waits: {}", error.code()),
            None => passed_waits += 1,
        }
        assert!(passed_waits < 500, "{name} does not finish");
    }
    println!("{name}: dropped at {passed_waits} waits");
    assert!(passed_waits >= 3, "{name} must wait at least three times");
}

#[tokio::test]
async fn an_operation_dropped_at_any_point_commits_all_or_nothing() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let waiting_game = world.new_session(0).await;
    let code = world.join_code(waiting_game.session_id).await;
    // The proxy runs in this thread, so a response arrives only while a call waits, and the call can be dropped at each
    // response. With two connections, a call need not wait until the dropped call's connection is back in the pool.
    let proxy = Proxy::start_for_world(&world).await;
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(2)).await.unwrap();
    let ada = sparc.as_user(game.players[0].user_id);
    let (character, session) = (game.players[0].character_id, game.session_id);
    let seer = sparc.as_user(game.seer.user_id());
    drop_at_every_wait(&world, "dice.roll", || async {
        let roll =
            NewRoll::new(RollType::Attack, session, Roller::Character(character), Attribute::Wit, Difficulty::MAX);
        ada.dice().roll(roll).await.map(drop)
    })
    .await;
    drop_at_every_wait(&world, "sessions.join", || async { ada.sessions().join(&code, character).await.map(drop) })
        .await;
    drop_at_every_wait(&world, "sessions.set_scene", || async {
        // Each call sets a different scene, because setting the current scene again would write nothing.
        let scene = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos()).to_string();
        seer.sessions().set_scene(session, Some(&scene)).await.map(drop)
    })
    .await;
    drop_at_every_wait(&world, "sessions.create", || async {
        let new_session = NewSession { adventure_id: game.adventure_id, ..Default::default() };
        seer.sessions().create(new_session).await.map(drop)
    })
    .await;
    assert_eq!(ada.characters().living().await.unwrap().len(), 1, "the pool must still work");
    sparc.close().await.unwrap();
}

/// Asserts that the transaction still runs with the role of a user, or can only be rolled back.
async fn assert_user_role_or_failed(tx: &Transaction, context: &str) {
    let query = Statement::from_string(DbBackend::Postgres, "SELECT current_user::text");
    match tx.query_one_raw(query).await {
        Ok(row) => assert_eq!(row.unwrap().try_get_by_index::<String>(0).unwrap(), "authenticated", "{context}"),
        Err(error) => assert_eq!(Error::from(error).code(), "transaction_failed", "{context}"),
    }
}

#[tokio::test]
async fn a_dropped_call_never_leaves_its_transaction_in_another_role() {
    let world = World::new().await;
    let proxy = Proxy::start_for_world(&world).await;
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(2)).await.unwrap();
    let creator = world.new_account().await;
    let draft_adventure = world.new_draft_adventure(creator).await;
    let me = sparc.as_user(creator);
    let (mut dropped_begin_count, mut dropped_validation_count) = (0, 0);
    let mut finishes_undropped = false;
    for passed_waits in 0..60 {
        // The call that begins a nested transaction is dropped, at two depths. The outer transactions must continue.
        let tx = me.begin().await.unwrap();
        let is_begin_dropped = poll_then_drop(passed_waits, tx.begin()).await.is_none();
        assert_user_role_or_failed(&tx, "outer").await;
        tx.commit().await.unwrap();
        let tx = me.begin().await.unwrap();
        let inner = tx.begin().await.unwrap();
        let is_inner_begin_dropped = poll_then_drop(passed_waits, inner.begin()).await.is_none();
        dropped_begin_count += u32::from(is_begin_dropped && is_inner_begin_dropped);
        assert_user_role_or_failed(&inner, "middle").await;
        inner.commit().await.unwrap();
        assert_user_role_or_failed(&tx, "outer of three").await;
        drop(tx);
        // Here the dropped call is an operation that runs a statement as `service_role`.
        let tx = me.begin().await.unwrap();
        let is_validation_dropped =
            poll_then_drop(passed_waits, tx.adventures().validate(draft_adventure)).await.is_none();
        dropped_validation_count += u32::from(is_validation_dropped);
        assert_user_role_or_failed(&tx, "after a statement as service_role").await;
        drop(tx);
        assert_all_transactions_end(&world).await;
        // Stop when the calls finish before they would be dropped.
        finishes_undropped = !is_begin_dropped && !is_inner_begin_dropped && !is_validation_dropped;
        if finishes_undropped {
            break;
        }
    }
    assert!(finishes_undropped, "the calls must finish after enough waits");
    assert!(dropped_begin_count > 0, "no nested transaction was dropped before it began");
    assert!(dropped_validation_count > 3, "too few validations were dropped before they finished");
    sparc.close().await.unwrap();
}
