//! What somebody with a few ordinary accounts and an hour of time would try, in plain SQL. Each kind of attack is tried
//! in several forms, some of them on two connections, or in a transaction with an old snapshot (one that was taken
//! before another transaction committed). The attackers are visitors, who have not signed in; strangers, who take no
//! part in the attacked session or adventure; players, Seers, and users whose account is closed.

use sea_orm::{ConnectionTrait, DatabaseTransaction};
use uuid::Uuid;

use crate::{
    sqlstates,
    world::{SqlCaller, SqlError, World, into_sql_error},
};

mod accounts;
mod adventures;
mod archive;
mod changed_rows_per_statement;
mod changed_twice;
mod chosen_ids;
mod closing;
mod closing_waits;
mod deadlocks;
mod deleted_rows;
mod ended_sessions;
mod escalation;
mod extremes;
mod in_flight;
mod inserted_rows_and_sizes;
mod leaks;
mod leaks_of_sessions;
mod limits;
mod lock_order;
mod maintenance;
mod names;
mod old_snapshots;
mod one_session_per_statement;
mod play;
mod populated_account;
mod printed_size;
mod removed_players;
mod role_changes;
mod seats;
mod short_writes;
mod starvation;
mod times;
mod tokens;
mod traces_of_sessions;
mod urls;
mod waits;

/// Returns "done" if the statement wrote rows or, if it is a SELECT, returned rows (whatever their values); "no row" if
/// it succeeded without a row, as a DO block or a DDL statement does; and the SQLSTATE of the refusal if it failed.
fn sql_outcome(outcome: Result<u64, SqlError>) -> String {
    match outcome {
        Ok(0) => "no row".to_owned(),
        Ok(_) => "done".to_owned(),
        Err(refusal) => refusal.sqlstate,
    }
}

/// Runs one or more statements in a transaction of their own, commits it, and returns their [`sql_outcome`].
async fn attempt(caller: &SqlCaller, sql: &str) -> String {
    sql_outcome(caller.execute(sql).await)
}

/// Starts a statement that has to wait for a lock of the transaction `lock_holder`. Once the statement waits, commits
/// that transaction, and returns the statement's [`sql_outcome`].
async fn attempt_while_lock_holder_commits(
    world: &World,
    caller: &SqlCaller,
    sql: String,
    lock_holder: DatabaseTransaction,
) -> String {
    let caller = caller.clone();
    let attempt_task = tokio::spawn(async move { attempt(&caller, &sql).await });
    world.owner().wait_until_backends_wait_for_locks(1).await;
    lock_holder.commit().await.unwrap();
    attempt_task.await.unwrap()
}

/// Runs one or more statements in a transaction of their own, rolls the transaction back, and returns the
/// [`sql_outcome`] of the statements.
async fn dry_run(caller: &SqlCaller, sql: &str) -> String {
    let transaction = caller.begin().await;
    let outcome = sql_outcome(execute_in(&transaction, sql).await);
    transaction.rollback().await.unwrap();
    outcome
}

/// Runs one or more statements in an open transaction, and returns the number of rows that they wrote or returned.
async fn execute_in(transaction: &DatabaseTransaction, sql: &str) -> Result<u64, SqlError> {
    transaction.execute_unprepared(sql).await.map(|result| result.rows_affected()).map_err(into_sql_error)
}

/// Runs a statement in an open transaction and commits. Returns the statement's [`sql_outcome`], or the SQLSTATE with
/// which the commit failed. If the statement fails, rolls the transaction back.
async fn execute_and_commit(transaction: DatabaseTransaction, sql: &str) -> String {
    match execute_in(&transaction, sql).await {
        Ok(rows) => match transaction.commit().await {
            Ok(()) => sql_outcome(Ok(rows)),
            Err(error) => into_sql_error(error).sqlstate,
        },
        Err(refusal) => {
            transaction.rollback().await.unwrap();
            refusal.sqlstate
        }
    }
}

/// Returns the statement with which the platform (Supabase) deletes an account.
fn delete_account_sql(account: Uuid) -> String {
    format!("DELETE FROM auth.users WHERE id = '{account}'")
}

/// Returns the statement with which the platform closes an account. (The platform calls this a soft deletion. A trigger
/// of the schema then removes the account's personal data.)
fn close_account_sql(account: Uuid) -> String {
    format!("UPDATE auth.users SET deleted_at = now() WHERE id = '{account}'")
}

/// Returns [`delete_account_sql`] or, if `is_deletion` is false, [`close_account_sql`].
fn close_or_delete_account_sql(account: Uuid, is_deletion: bool) -> String {
    if is_deletion { delete_account_sql(account) } else { close_account_sql(account) }
}

/// Closes an account as the platform does.
async fn close_account(world: &World, account: Uuid) {
    assert_eq!(world.owner().execute(&close_account_sql(account)).await, Ok(1));
}

/// Returns whether an account is closed. Its profile (its row in `public.users`) must still exist.
async fn is_account_closed(world: &World, account: Uuid) -> bool {
    world.owner().fetch_value(&format!("SELECT closed_at IS NOT NULL FROM users WHERE id = '{account}'")).await.unwrap()
}

/// Creates a waiting public session of a Seer, and returns its id.
async fn new_public_session(world: &World, seer: Uuid, adventure: Uuid) -> Uuid {
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id, is_public) VALUES ('{seer}', '{adventure}', true) RETURNING id"
    );
    world.owner().fetch_value(&sql).await.unwrap()
}

/// Creates a waiting private session of a Seer, and returns its id.
async fn new_private_session(world: &World, seer: Uuid, adventure: Uuid) -> Uuid {
    let sql = format!(
        "INSERT INTO sessions (seer_id, adventure_id, is_public) VALUES ('{seer}', '{adventure}', false) RETURNING id"
    );
    world.owner().fetch_value(&sql).await.unwrap()
}

/// Runs a query as the owner, and returns the number in its only row.
async fn query_number(world: &World, sql: &str) -> i64 {
    world.owner().fetch_value(&format!("SELECT ({sql})::bigint")).await.unwrap()
}

/// Asserts that no row violates an invariant of `migration/sql/invariants.sql`.
async fn assert_invariants(world: &World) {
    let broken_invariants = crate::random_operations::broken_invariants(world).await;
    assert!(broken_invariants.is_empty(), "{broken_invariants:?}");
}
