//! What somebody with a few ordinary accounts and an hour would try: each kind in several forms, in plain SQL, as visitor,
//! stranger, participant, Seer and closed account, on two connections, and in transactions that see the past.

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use uuid::Uuid;

use crate::world::{Person, Refused, World, refused};

mod accounts;
mod adventures;
mod escalation;
mod everything;
mod leaks;
mod limits;
mod maintenance;
mod past;
mod play;
mod seats;
mod sizes;
mod texts;

/// What came of a statement: "done", "no row", or the SQLSTATE of its refusal.
fn outcome_code(outcome: Result<u64, Refused>) -> String {
    match outcome {
        Ok(0) => "no row".to_owned(),
        Ok(_) => "done".to_owned(),
        Err(refused) => refused.code,
    }
}

async fn attempt(person: &Person, sql: &str) -> String {
    outcome_code(person.exec(sql).await)
}

/// What would come of it: it is taken back.
async fn dry_run(person: &Person, sql: &str) -> String {
    let transaction = person.begin().await;
    let outcome = outcome_code(exec_in(&transaction, sql).await);
    transaction.rollback().await.unwrap();
    outcome
}

/// A statement in a transaction that is open.
async fn exec_in(transaction: &DatabaseTransaction, sql: &str) -> Result<u64, Refused> {
    transaction.execute_unprepared(sql).await.map(|done| done.rows_affected()).map_err(refused)
}

/// A statement in a transaction that is open, and its commit.
async fn exec_and_commit(transaction: DatabaseTransaction, sql: &str) -> String {
    match exec_in(&transaction, sql).await {
        Ok(rows) => match transaction.commit().await {
            Ok(()) => outcome_code(Ok(rows)),
            Err(error) => refused(error).code,
        },
        Err(refused) => {
            transaction.rollback().await.unwrap();
            refused.code
        }
    }
}

/// As the platform does it, softly.
async fn close(world: &World, account: Uuid) {
    let sql = format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{account}'");
    assert_eq!(world.owner().exec(&sql).await, Ok(1));
}

async fn is_closed(world: &World, account: Uuid) -> bool {
    world.owner().value(&format!("SELECT closed_at IS NOT NULL FROM users WHERE id = '{account}'")).await.unwrap()
}

/// A public session of that Seer, waiting.
async fn open_session(world: &World, seer: Uuid, adventure: Uuid, public: bool) -> Uuid {
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id, is_public) VALUES ('{seer}', '{adventure}', {public}) RETURNING id"
    );
    world.owner().value(&sql).await.unwrap()
}

/// A number of the database's, as its owner.
async fn number(world: &World, sql: &str) -> i64 {
    world.owner().value(&format!("SELECT ({sql})::bigint")).await.unwrap()
}

/// No invariant is broken.
async fn assert_invariants(world: &World) {
    assert_eq!(crate::evening::broken(world).await, [""; 0]);
}
