//! What an identity sees on a replica, what a replica refuses, and what happens if no server answers.

use std::time::Duration;

use futures_util::TryStreamExt;
use rls::{Database, Identity, IdentityConnection, Options, ServerRole};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, StreamTrait,
    sea_query::{Alias, Query},
};
use testdb::Server;
use tokio::time::sleep;

use crate::statement;

/// A primary with one replica, and a connection whose reads run on the replica.
struct Cluster {
    /// The connection of the identity with the role `member`.
    connection: IdentityConnection,
    /// The owner's connection to the primary.
    owner: DatabaseConnection,
    /// The owner's connection to the replica.
    replica: DatabaseConnection,
    _databases: [testdb::Database; 2],
}

impl Cluster {
    /// Starts the servers, runs the SQL of `schema` on the primary, and waits until reads run on the replica.
    async fn start(schema: &str) -> Self {
        let settings = ["synchronous_commit=on"];
        let primary = Server::start_plain(Some(&settings)).await.unwrap();
        let database = primary.create_unmigrated().await.unwrap();
        let start_standby = move || primary.start_standby(&settings).unwrap();
        let standby = tokio::task::spawn_blocking(start_standby).await.unwrap();
        let replica_database = standby.replica_of(&database).unwrap();
        let owner = database.connect(1).await.unwrap();
        owner.execute_unprepared(schema).await.unwrap();
        let mut options = Options::default();
        options.replicas = vec![replica_database.url().to_owned()];
        let handle = Database::connect(database.url(), &options).await.unwrap();
        while handle.servers().iter().all(|server| server.role != ServerRole::Replica) {
            sleep(Duration::from_millis(50)).await;
        }
        let replica = replica_database.connect(1).await.unwrap();
        let connection = handle.as_identity(Identity::new("member"));
        Self { connection, owner, replica, _databases: [database, replica_database] }
    }

    /// Pauses the replay on the replica, and returns once the replica no longer applies what it receives.
    async fn pause_replica(&self) {
        self.replica.execute_unprepared("SELECT pg_wal_replay_pause()").await.unwrap();
        let select_is_paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
        while !self
            .replica
            .query_one_raw(statement(select_is_paused))
            .await
            .unwrap()
            .unwrap()
            .try_get_by_index::<bool>(0)
            .unwrap()
        {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn an_identity_sees_its_own_writes_even_if_transactions_are_repeatable_read_by_default() {
    let cluster = Cluster::start(
        "CREATE ROLE member;
         CREATE TABLE numbers (n integer);
         GRANT SELECT, INSERT ON numbers TO member;
         DO $$ BEGIN EXECUTE format(
           'ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''', current_database()); END $$",
    )
    .await;
    let column = Alias::new("n");
    let select = Query::select().column(column.clone()).from(Alias::new("numbers")).to_owned();
    for number in 0..10_i32 {
        cluster.pause_replica().await;
        let insert = Query::insert()
            .into_table(Alias::new("numbers"))
            .columns([column.clone()])
            .values_panic([number.into()])
            .to_owned();
        cluster.connection.execute(&insert).await.unwrap();
        // The replay continues while the read waits for the replica.
        let replica = cluster.replica.clone();
        let resume = tokio::spawn(async move {
            sleep(Duration::from_millis(6)).await;
            replica.execute_unprepared("SELECT pg_wal_replay_resume()").await.unwrap();
        });
        let rows = cluster.connection.query_all(&select).await.unwrap();
        resume.await.unwrap();
        let numbers: Vec<i32> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
        assert!(numbers.contains(&number), "{numbers:?} must contain {number}");
    }
}

#[tokio::test]
async fn what_only_the_primary_can_run_is_retried_there_streamed_or_not() {
    let cluster = Cluster::start(
        "CREATE ROLE member;
         CREATE UNLOGGED TABLE cache (n integer);
         INSERT INTO cache VALUES (1);
         CREATE TABLE log (n integer);
         CREATE FUNCTION log_read() RETURNS integer LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING n';
         CREATE VIEW view_that_writes AS SELECT log_read() AS n;
         GRANT SELECT, INSERT, UPDATE ON cache, log, view_that_writes TO member",
    )
    .await;
    for sql in [
        r#"SELECT "n" FROM "cache""#,
        r#"SELECT "n" FROM "view_that_writes""#,
        // `rls` recognizes a locking clause only between spaces. After a line break, it sends the statement to the
        // replica, which refuses it.
        "SELECT \"n\" FROM \"log\"\nFOR UPDATE",
    ] {
        let rows = cluster.connection.query_all_raw(statement(sql)).await.unwrap();
        assert!(!rows.is_empty(), "{sql}");
        let streamed: Vec<_> =
            cluster.connection.stream_raw(statement(sql)).await.unwrap().try_collect().await.unwrap();
        assert!(!streamed.is_empty(), "{sql}, streamed");
    }
    let count = cluster.owner.query_one_raw(statement("SELECT count(*) FROM log")).await.unwrap().unwrap();
    assert_eq!(count.try_get_by_index::<i64>(0).unwrap(), 2, "each read of the view is logged once");
}

#[tokio::test]
async fn if_no_server_of_a_cluster_answers_the_error_says_how_long_the_call_has_waited() {
    // The operating system accepts the connections, but no server answers on them.
    let silent_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://member@{}/game?sslmode=disable", silent_listener.local_addr().unwrap());
    let mut options = Options::default();
    options.replicas = vec![url.clone()];
    options.acquire_timeout = Duration::from_secs(2);
    let error = Database::connect(&url, &options).await.unwrap_err();
    assert!(error.to_string().contains("did not answer within 2 seconds"), "{error}");
}
