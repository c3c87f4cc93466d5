//! Commits that a caller sends as raw SQL. What the handle of the transaction then says must not contradict what the
//! server has done.

use std::time::Duration;

use rls::IdentityConnection;
use sea_orm::{ConnectionTrait, StreamTrait, TransactionTrait};
use tokio::time::{sleep, timeout};

use crate::{
    outcome_code, statement,
    tenants::{as_tenant, count_notes, create_tenant_database},
};

const INSERT_NOTE: &str = "INSERT INTO notes (text) VALUES ('hello')";

/// Creates a database in which each commit of a note takes `seconds`.
async fn create_database_with_slow_commits(seconds: f32) -> (testdb::Database, IdentityConnection) {
    let (database, handle, role) = create_tenant_database().await;
    let schema = format!(
        "CREATE FUNCTION delay() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER delay AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION delay()"
    );
    database.connect(1).await.unwrap().execute_unprepared(&schema).await.unwrap();
    (database, as_tenant(&handle, &role, "acme"))
}

#[tokio::test]
async fn a_rollback_or_commit_after_a_streamed_commit_says_that_a_statement_ended_the_transaction() {
    let (_database, acme) = create_database_with_slow_commits(0.0).await;
    for is_nested in [false, true] {
        let tx = acme.begin().await.unwrap();
        tx.execute_unprepared(INSERT_NOTE).await.unwrap();
        if is_nested {
            let nested = tx.begin().await.unwrap();
            assert_eq!(outcome_code(nested.stream_raw(statement("COMMIT")).await), "transaction_ended");
            assert_eq!(outcome_code(nested.rollback().await), "transaction_ended");
        } else {
            assert_eq!(outcome_code(tx.stream_raw(statement("COMMIT")).await), "transaction_ended");
        }
        assert_eq!(outcome_code(tx.rollback().await), "transaction_ended", "nested: {is_nested}");
    }
    assert_eq!(count_notes(&acme).await, 2);
}

#[tokio::test]
async fn after_a_dropped_call_that_committed_every_call_says_that_a_statement_ended_the_transaction() {
    let (_database, acme) = create_database_with_slow_commits(0.5).await;
    for next_call in ["query", "rollback", "commit"] {
        for is_streamed in [false, true] {
            let tx = acme.begin().await.unwrap();
            tx.execute_unprepared(INSERT_NOTE).await.unwrap();
            let commit = async {
                if is_streamed {
                    drop(tx.stream_raw(statement("COMMIT")).await);
                } else {
                    drop(tx.execute_unprepared("COMMIT").await);
                }
            };
            assert!(timeout(Duration::from_millis(100), commit).await.is_err(), "the COMMIT must still be running");
            let outcome = match next_call {
                "query" => tx.query_one_raw(statement("SELECT 1")).await.map(drop),
                "rollback" => tx.rollback().await,
                _ => tx.commit().await,
            };
            assert_eq!(outcome_code(outcome), "transaction_ended", "{next_call}, streamed: {is_streamed}");
        }
    }
    assert_eq!(count_notes(&acme).await, 6);
}

#[tokio::test]
async fn a_dropped_call_whose_commit_the_server_refused_leaves_a_failed_transaction() {
    let (database, acme) = create_database_with_slow_commits(0.5).await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE 'refused'; END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION refuse()";
    database.connect(1).await.unwrap().execute_unprepared(refuse).await.unwrap();
    let tx = acme.begin().await.unwrap();
    tx.execute_unprepared(INSERT_NOTE).await.unwrap();
    assert!(timeout(Duration::from_millis(100), tx.execute_unprepared("COMMIT")).await.is_err());
    assert_eq!(outcome_code(tx.query_one_raw(statement("SELECT 1")).await), "transaction_failed");
    assert_eq!(outcome_code(tx.rollback().await), "done");
    assert_eq!(count_notes(&acme).await, 0);
}

#[tokio::test]
async fn a_commit_that_reaches_its_deadline_while_another_call_waits_has_an_unknown_outcome() {
    // The call gives up a second after its deadline. The other call, which began later, then learns the outcome.
    let (_database, acme) = create_database_with_slow_commits(2.5).await;
    let tx = acme.clone().with_deadline(Duration::from_secs(1)).begin().await.unwrap();
    tx.execute_unprepared(INSERT_NOTE).await.unwrap();
    let waiting_call = async {
        sleep(Duration::from_secs(1)).await;
        tx.query_one_raw(statement("SELECT 1")).await
    };
    let (commit_outcome, other_outcome) = tokio::join!(tx.execute_unprepared("COMMIT"), waiting_call);
    assert_eq!(outcome_code(commit_outcome), "commit_unknown");
    assert_eq!(outcome_code(other_outcome), "transaction_ended");
    assert_eq!(outcome_code(tx.rollback().await), "transaction_ended");
    assert_eq!(count_notes(&acme).await, 1);
}
