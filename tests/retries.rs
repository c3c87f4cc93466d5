//! Operations whose transaction the server aborts for a transient reason are retried a bounded number of times. A
//! refusal is not retried, nor is a transaction that the caller began.

use sea_orm::{ConnectionTrait, TransactionTrait};
use sparc::service::{Error, Operations, characters::NewCharacter};

use crate::{
    sqlstates::{CHARACTER_LIMIT_REACHED, DEADLOCK_DETECTED, SERIALIZATION_FAILURE},
    world::World,
};

/// A value for `times` that is greater than the number of attempts of any operation.
const ALWAYS: u32 = 1000;

/// Makes the first `times` inserts of a character fail with the given SQLSTATE.
async fn fail_inserts(world: &World, sqlstate: &str, times: u32) {
    let sql = format!(
        "CREATE SEQUENCE attempts; GRANT USAGE ON SEQUENCE attempts TO authenticated;
         CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
           IF nextval('public.attempts') <= {times} THEN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT ON characters FOR EACH ROW EXECUTE FUNCTION fail()"
    );
    world.pool.execute_unprepared(&sql).await.unwrap();
}

/// Returns how often an insert of a character was attempted.
async fn count_attempts(world: &World) -> i64 {
    world.owner().fetch_value("SELECT last_value FROM attempts").await.unwrap()
}

fn new_character() -> NewCharacter {
    NewCharacter { name: "Brunhild".into(), ..Default::default() }
}

#[tokio::test]
async fn a_deadlock_and_a_serialization_failure_are_retried() {
    for sqlstate in [DEADLOCK_DETECTED, SERIALIZATION_FAILURE] {
        let world = World::new().await;
        fail_inserts(&world, sqlstate, 3).await;
        let ada = world.sparc.as_user(world.new_account().await);
        ada.characters().create(new_character()).await.unwrap();
        assert_eq!(count_attempts(&world).await, 4);
        assert_eq!(world.owner().count("characters").await, 1);
    }
}

#[tokio::test]
async fn an_operation_that_keeps_failing_returns_busy_after_five_attempts() {
    let world = World::new().await;
    fail_inserts(&world, DEADLOCK_DETECTED, ALWAYS).await;
    let ada = world.sparc.as_user(world.new_account().await);
    assert_error!(ada.characters().create(new_character()).await, Error::Busy);
    assert_eq!(count_attempts(&world).await, 5);
}

#[tokio::test]
async fn a_callers_transaction_is_not_retried() {
    let world = World::new().await;
    fail_inserts(&world, SERIALIZATION_FAILURE, 1).await;
    let ada = world.sparc.as_user(world.new_account().await);
    let tx = ada.begin().await.unwrap();
    assert_error!(tx.characters().create(new_character()).await, Error::Busy);
    assert_eq!(count_attempts(&world).await, 1);
}

#[tokio::test]
async fn a_refusal_is_not_retried() {
    let world = World::new().await;
    fail_inserts(&world, CHARACTER_LIMIT_REACHED, ALWAYS).await;
    let ada = world.sparc.as_user(world.new_account().await);
    assert_error!(ada.characters().create(new_character()).await, Error::CharacterLimitReached);
    assert_eq!(count_attempts(&world).await, 1);
}
