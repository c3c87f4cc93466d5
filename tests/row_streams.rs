//! Row streams that are not read to their end, and statements between two rows of a stream: no row is lost, and no
//! caller waits forever.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, StreamTrait, TransactionTrait};
use sparc::service::{Error, Operations, Options, Sparc};

use crate::world::World;

/// Returns a query with `count` rows, numbered from 1.
fn rows_query(count: u32) -> Statement {
    let sql = format!("SELECT i, repeat('x', 100) FROM generate_series(1, {count}) AS i");
    Statement::from_string(DbBackend::Postgres, sql)
}

fn first_column(row: Result<QueryResult, DbErr>) -> i32 {
    row.unwrap().try_get_by_index(0).unwrap()
}

async fn connect_with_one_connection(world: &World, deadline: Duration) -> Sparc {
    Sparc::connect_with(world.url(), Options::default().max_connections(1).deadline(deadline)).await.unwrap()
}

#[tokio::test]
async fn a_statement_between_two_rows_of_a_stream_succeeds() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    let ada = connect_with_one_connection(&world, Duration::from_secs(20)).await.as_user(user_id);
    // A stream buffers 64 rows, so some of these streams just fit into the buffer, and some just do not.
    for count in [1, 64, 65, 66, 67, 1000, 20_000] {
        let started_at = Instant::now();
        let tx = ada.begin().await.unwrap();
        let mut stream = tx.stream_raw(rows_query(count)).await.unwrap();
        assert_eq!(tx.users().me().await.unwrap().id, user_id, "{count}");
        assert_eq!(first_column(stream.next().await.unwrap()), 1);
        let inner = tx.begin().await.unwrap();
        assert_eq!(inner.users().me().await.unwrap().id, user_id);
        inner.commit().await.unwrap();
        let later_rows: Vec<_> = stream.map(first_column).collect().await;
        assert_eq!(later_rows, (2..=count as i32).collect::<Vec<_>>(), "no row of the stream may be lost");
        tx.commit().await.unwrap();
        assert!(started_at.elapsed() < Duration::from_secs(10), "{count}");
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_returns_its_connection_at_the_deadline() {
    let world = World::new().await;
    let user_id = world.new_account().await;
    let sparc = connect_with_one_connection(&world, Duration::from_millis(300)).await;
    let ada = sparc.as_user(user_id);
    let stream = ada.stream_raw(rows_query(1_000_000)).await.unwrap();
    let mut tries = 0;
    while ada.users().me().await.is_err() {
        tries += 1;
        assert!(tries < 20, "the unread stream must not keep the only connection");
    }
    let outcome = stream.map_err(Error::from).try_fold(0, |count, _| async move { Ok(count + 1) }).await;
    assert_error!(outcome, Error::DeadlineExceeded, "a late reader must get an error");

    let tx = ada.begin().await.unwrap();
    let unread_stream = tx.stream_raw(rows_query(1_000_000)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let outcome = tx.users().me().await;
    drop(unread_stream);
    assert_error!(outcome, Error::DeadlineExceeded);
    assert_error!(tx.commit().await.map_err(Error::from), Error::DeadlineExceeded);
    assert!(ada.users().me().await.is_ok());
}

#[tokio::test]
async fn a_stream_commits_only_with_its_last_row_and_not_if_it_changed_the_identity() {
    let world = World::new().await;
    let player = world.new_player().await;
    let ada = connect_with_one_connection(&world, Duration::from_secs(20)).await.as_user(player.user_id);
    let update_bio_statement = |bio: &str| {
        let sql = format!(
            "WITH written AS (UPDATE users SET bio = '{bio}' WHERE id = '{}' RETURNING id)
             SELECT id FROM written, generate_series(1, 2)",
            player.user_id
        );
        Statement::from_string(DbBackend::Postgres, sql)
    };
    let mut stream = ada.stream_raw(update_bio_statement("read")).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    // If the commit did not wait for the reader, it would be complete after this pause.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        world.owner().fetch_value::<Option<String>>("SELECT bio FROM users").await,
        Ok(None),
        "another connection must not see the change before the last row is read"
    );
    let later_rows: Vec<_> = stream.try_collect().await.unwrap();
    assert_eq!(later_rows.len(), 1);
    assert_eq!(ada.users().me().await.unwrap().bio.as_deref(), Some("read"));
    // A statement that changes the identity must not be committed, even if it is read as a stream.
    let sql = format!(
        "UPDATE users SET bio = 'changed' WHERE id = '{}' RETURNING set_config('request.jwt.claim.email', 'x', true)",
        player.user_id
    );
    let stream = ada.stream_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
    let outcome = stream.try_collect::<Vec<_>>().await.map_err(Error::from);
    assert_error!(outcome, Error::IdentityChanged);
    assert_eq!(ada.users().me().await.unwrap().bio.as_deref(), Some("read"));
}

#[tokio::test]
async fn a_stream_that_fails_half_way_fails_its_transaction() {
    let world = World::new().await;
    let ada = connect_with_one_connection(&world, Duration::from_secs(20)).await.as_user(world.new_account().await);
    let failing_query =
        || Statement::from_string(DbBackend::Postgres, "SELECT 1000 / (500 - i) FROM generate_series(1, 1000) AS i");
    let tx = ada.begin().await.unwrap();
    let outcome = tx.stream_raw(failing_query()).await.unwrap().try_collect::<Vec<_>>().await;
    assert!(outcome.is_err());
    assert_error!(tx.commit().await.map_err(Error::from), Error::TransactionFailed);
    // The server runs the whole statement, even if the stream is dropped early. So the statement fails, although nobody
    // reads the failing row.
    let tx = ada.begin().await.unwrap();
    let mut stream = tx.stream_raw(failing_query()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    assert_error!(tx.users().me().await, Error::TransactionFailed);
    assert!(tx.commit().await.is_err());
    assert!(ada.execute_unprepared("SELECT 1").await.is_ok());
}
