//! Commits that a caller sends as raw SQL. What the calls in the transaction return must not contradict what the server
//! has done. A *dropped* raw commit is one whose call was dropped before the server had answered.

use std::time::Duration;

use rls::{Database, IdentityConnection, Options};
use sea_orm::{ConnectionTrait, StreamTrait, TransactionTrait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::sleep,
};

use crate::{
    outcome_code,
    proxies::listen_in_front_of,
    statement,
    tenants::{as_tenant, count_notes, create_tenant_database},
};

const INSERT_NOTE: &str = "INSERT INTO notes (text) VALUES ('hello')";

/// Creates a database in which a commit takes `seconds` for each note that its transaction inserted. Returns the
/// database, and a connection to it for a tenant.
pub async fn create_database_with_commit_delay(seconds: f32) -> (testdb::Database, IdentityConnection) {
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

/// Polls a commit that takes time, until the server executes it, and then drops it.
async fn drop_running_commit(database: &testdb::Database, commit: impl Future) {
    let owner = database.connect(1).await.unwrap();
    let count_running = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event = 'PgSleep'";
    let commit_runs = async {
        loop {
            let row = owner.query_one_raw(statement(count_running)).await.unwrap().unwrap();
            if row.try_get_by_index::<i64>(0).unwrap() == 1 {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = commit => panic!("the COMMIT must still be running"),
        () = commit_runs => {}
    }
}

#[tokio::test]
async fn a_rollback_after_a_streamed_raw_commit_says_that_a_statement_ended_the_transaction() {
    let (_database, acme) = create_database_with_commit_delay(0.0).await;
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
async fn after_a_dropped_raw_commit_every_kind_of_call_says_that_a_statement_ended_the_transaction() {
    let (database, acme) = create_database_with_commit_delay(0.5).await;
    for next_call in ["query", "stream", "begin", "rollback", "commit"] {
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
            drop_running_commit(&database, commit).await;
            let outcome = match next_call {
                "query" => tx.query_one_raw(statement("SELECT 1")).await.map(drop),
                "stream" => tx.stream_raw(statement("SELECT 1")).await.map(drop),
                "begin" => tx.begin().await.map(drop),
                "rollback" => tx.rollback().await,
                _ => tx.commit().await,
            };
            assert_eq!(outcome_code(outcome), "transaction_ended", "{next_call}, streamed: {is_streamed}");
        }
    }
    assert_eq!(count_notes(&acme).await, 10);
}

#[tokio::test]
async fn a_dropped_raw_commit_that_the_server_refuses_leaves_a_failed_transaction() {
    let (database, acme) = create_database_with_commit_delay(0.5).await;
    let create_trigger = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE 'refused'; END $$;
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION refuse()";
    database.connect(1).await.unwrap().execute_unprepared(create_trigger).await.unwrap();
    let tx = acme.begin().await.unwrap();
    tx.execute_unprepared(INSERT_NOTE).await.unwrap();
    drop_running_commit(&database, tx.execute_unprepared("COMMIT")).await;
    assert_eq!(outcome_code(tx.query_one_raw(statement("SELECT 1")).await), "transaction_failed");
    assert_eq!(outcome_code(tx.rollback().await), "done");
    assert_eq!(count_notes(&acme).await, 0);
}

#[tokio::test]
async fn a_raw_commit_that_exceeds_its_deadline_while_another_call_waits_has_an_unknown_outcome() {
    // The call that sends the COMMIT gives up a second after its deadline. The other call, which began later, still
    // learns the outcome.
    let (_database, acme) = create_database_with_commit_delay(2.5).await;
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

#[tokio::test]
async fn a_commit_after_a_dropped_raw_commit_has_an_unknown_outcome_if_the_server_does_not_answer_in_time() {
    for is_nested in [false, true] {
        let (database, acme) = create_database_with_commit_delay(3.5).await;
        let tx = acme.clone().with_deadline(Duration::from_secs(1)).begin().await.unwrap();
        tx.execute_unprepared(INSERT_NOTE).await.unwrap();
        if is_nested {
            let nested = tx.begin().await.unwrap();
            drop_running_commit(&database, nested.execute_unprepared("COMMIT")).await;
            assert_eq!(outcome_code(nested.commit().await), "commit_unknown");
            assert_eq!(outcome_code(tx.rollback().await), "commit_unknown");
        } else {
            drop_running_commit(&database, tx.execute_unprepared("COMMIT")).await;
            assert_eq!(outcome_code(tx.commit().await), "commit_unknown");
        }
    }
}

/// The proxy cuts the connection when the client sends the verification that follows the answered COMMIT.
#[tokio::test]
async fn a_raw_commit_whose_verification_is_lost_has_an_unknown_outcome() {
    for call in ["execute", "stream"] {
        let (database, handle, role) = create_tenant_database().await;
        let (listener, url, server_address) = listen_in_front_of(&database).await;
        let (is_armed_sender, is_armed) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server_address).await.unwrap();
                tokio::spawn(forward_until_verification(client, server, is_armed.clone()));
            }
        });
        let through_proxy = Database::connect(&url, &Options::default()).await.unwrap();
        let tx = as_tenant(&through_proxy, &role, "acme").begin().await.unwrap();
        tx.execute_unprepared(INSERT_NOTE).await.unwrap();
        is_armed_sender.send(true).unwrap();
        let outcome = match call {
            "execute" => tx.execute_unprepared("COMMIT").await.map(drop),
            _ => tx.stream_raw(statement("COMMIT")).await.map(drop),
        };
        assert_eq!(outcome_code(outcome), "commit_unknown", "{call}");
        assert_eq!(outcome_code(tx.rollback().await), "commit_unknown", "{call}");
        assert_eq!(count_notes(&as_tenant(&handle, &role, "acme")).await, 1, "{call}");
    }
}

/// Forwards what client and server send. Once armed, closes both connections when the client sends a verification.
async fn forward_until_verification(client: TcpStream, server: TcpStream, is_armed: watch::Receiver<bool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let forward_to_server = async {
        let mut buffer = vec![0; 65536];
        while let Ok(size @ 1..) = from_client.read(&mut buffer).await {
            let message = &buffer[..size];
            // The verification reads the start time of the transaction. The statement that sets the identity reads it
            // too, but also calls `num_nulls`.
            let is_verification = contains(message, b"extract(epoch") && !contains(message, b"num_nulls");
            if *is_armed.borrow() && is_verification || to_server.write_all(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = forward_to_server => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

fn contains(message: &[u8], part: &[u8]) -> bool {
    message.windows(part.len()).any(|window| window == part)
}
