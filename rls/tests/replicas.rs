//! What an identity sees on a replica, what a replica refuses, and what happens if no server answers.

use std::time::Duration;

use futures_util::{FutureExt, TryStreamExt};
use rls::{Database, Identity, IdentityConnection, Options, ServerRole};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, StreamTrait, TransactionTrait,
    sea_query::{Alias, Query},
};
use testdb::Server;
use tokio::time::{sleep, timeout};

use crate::{outcome_code, statement};

/// A primary with one replica, and a connection whose reads run on the replica.
struct Cluster {
    handle: Database,
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
        while handle.server_statuses().iter().all(|server| server.role != ServerRole::Replica) {
            sleep(Duration::from_millis(50)).await;
        }
        let replica = replica_database.connect(1).await.unwrap();
        let connection = handle.as_identity(Identity::new("member"));
        Self { handle, connection, owner, replica, _databases: [database, replica_database] }
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
        // The replay continues a moment later. A read that waited for that, in a transaction on the replica, would
        // still see the snapshot that the transaction took when it began.
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
async fn statements_and_streams_that_only_the_primary_can_run_are_retried_there() {
    let cluster = Cluster::start(
        "CREATE ROLE member;
         CREATE UNLOGGED TABLE cache (n integer);
         INSERT INTO cache VALUES (1);
         CREATE TABLE log (n integer);
         CREATE FUNCTION log_read() RETURNS integer LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING n';
         CREATE VIEW view_that_writes AS SELECT log_read() AS n;
         CREATE VIEW view_that_locks AS SELECT n FROM log FOR UPDATE;
         GRANT SELECT, INSERT, UPDATE ON cache, log, view_that_writes, view_that_locks TO member",
    )
    .await;
    for sql in
        [r#"SELECT "n" FROM "cache""#, r#"SELECT "n" FROM "view_that_writes""#, r#"SELECT "n" FROM "view_that_locks""#]
    {
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
async fn closing_refuses_calls_on_the_replica_even_while_a_transaction_on_the_primary_is_open() {
    let cluster = Cluster::start("CREATE ROLE member").await;
    let read = statement("SELECT 1");
    assert_eq!(outcome_code(cluster.connection.query_all_raw(read.clone()).await), "done");
    let transaction = cluster.connection.begin().await.unwrap();
    assert!(cluster.handle.close().now_or_never().is_none(), "closing must wait for the open transaction");
    assert_eq!(outcome_code(cluster.connection.query_all_raw(read).await), "pool_closed");
    transaction.commit().await.unwrap();
    cluster.handle.close().await.unwrap();
}

#[tokio::test]
async fn connecting_to_a_server_that_reports_no_log_position_fails_with_that_reason() {
    let database = Server::open().await.unwrap().create_unmigrated().await.unwrap();
    // PostgreSQL always has a log position. But with this function, what the server reports lacks the system
    // identifier, and an incomplete report is treated like one without a log position.
    let schema = "CREATE SCHEMA shadow;
        CREATE FUNCTION shadow.pg_control_system(OUT system_identifier bigint) LANGUAGE sql AS 'SELECT NULL::bigint'";
    database.connect(1).await.unwrap().execute_unprepared(schema).await.unwrap();
    let url = format!("{}?options=-csearch_path%3Dshadow%2Cpg_catalog", database.url());
    let mut options = Options::default();
    options.replicas = vec![url.clone()];
    options.acquire_timeout = Duration::from_millis(200);
    let error = Database::connect(&url, &options).await.unwrap_err();
    assert!(error.to_string().contains("does not report its log position"), "{error}");
}

#[tokio::test]
async fn the_error_says_how_long_the_call_has_waited_if_no_server_of_a_cluster_answers() {
    // The operating system accepts the connections, but no server answers on them.
    let silent_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://member@{}/game?sslmode=disable", silent_listener.local_addr().unwrap());
    let mut options = Options::default();
    options.replicas = vec![url.clone()];
    options.acquire_timeout = Duration::from_secs(2);
    let error = Database::connect(&url, &options).await.unwrap_err();
    assert!(error.to_string().contains("did not answer within 2 seconds"), "{error}");
}

/// Calls a blocking method of a server, such as `Server::kill`, on a thread that may block.
async fn run_blocking(server: &Server, method: fn(&Server) -> Result<(), testdb::Error>) {
    let server = server.clone();
    tokio::task::spawn_blocking(move || method(&server).unwrap()).await.unwrap();
}

/// Returns what each server of the handle is used for.
fn roles(handle: &Database) -> Vec<ServerRole> {
    handle.server_statuses().iter().map(|server| server.role).collect()
}

/// Waits until the servers of the handle have the expected roles.
async fn wait_for_roles(handle: &Database, expected: [ServerRole; 2]) {
    let waiting = async {
        while roles(handle) != expected {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("the roles are {:?}", roles(handle)));
}

/// Starts a standby, and waits until it has replayed the creation of the database. Returns the standby and its copy of
/// the database.
async fn start_standby_with_copy(primary: &Server, database: &testdb::Database) -> (Server, testdb::Database) {
    let primary = primary.clone();
    let standby = tokio::task::spawn_blocking(move || primary.start_standby(&[]).unwrap()).await.unwrap();
    let replica_database = standby.replica_of(database).unwrap();
    while replica_database.connect(1).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
    (standby, replica_database)
}

#[tokio::test]
async fn a_standby_at_the_first_url_is_reported_as_a_replica_while_there_is_no_primary() {
    let primary = Server::start_plain(None).await.unwrap();
    let database = primary.create_unmigrated().await.unwrap();
    let (_standby, replica_database) = start_standby_with_copy(&primary, &database).await;
    run_blocking(&primary, Server::kill).await;
    let mut options = Options::default();
    options.replicas = vec![database.url().to_owned()];
    let handle = Database::connect(replica_database.url(), &options).await.unwrap();
    assert_eq!(roles(&handle), [ServerRole::Replica, ServerRole::Unused]);
    let owner = handle.as_identity(Identity::new("postgres"));
    assert_eq!(outcome_code(owner.query_all_raw(statement("SELECT 1")).await), "done");
    run_blocking(&primary, Server::start_again).await;
    wait_for_roles(&handle, [ServerRole::Replica, ServerRole::Primary]).await;
}

#[tokio::test]
async fn a_never_promoted_primary_of_another_cluster_is_not_used_even_if_no_other_server_answers() {
    let server = Server::start_plain(None).await.unwrap();
    let other_server = Server::start_plain(None).await.unwrap();
    let (database, other_database) =
        (server.create_unmigrated().await.unwrap(), other_server.create_unmigrated().await.unwrap());
    let mut options = Options::default();
    // By mistake, this is the URL of another cluster's primary.
    options.replicas = vec![other_database.url().to_owned()];
    options.acquire_timeout = Duration::from_secs(1);
    run_blocking(&server, Server::kill).await;
    let error = Database::connect(database.url(), &options).await.unwrap_err();
    assert_eq!(error.code(), "connect_failed");
    assert!(error.to_string().contains("No PostgreSQL server answers"), "{error}");
    run_blocking(&server, Server::start_again).await;
    let handle = Database::connect(database.url(), &options).await.unwrap();
    assert_eq!(roles(&handle), [ServerRole::Primary, ServerRole::Unused]);
}

#[tokio::test]
async fn a_promoted_replica_replaces_the_first_server_until_that_turns_out_to_be_of_another_cluster() {
    let primary = Server::start_plain(None).await.unwrap();
    let database = primary.create_unmigrated().await.unwrap();
    let (standby, replica_database) = start_standby_with_copy(&primary, &database).await;
    run_blocking(&primary, Server::kill).await;
    run_blocking(&standby, Server::promote).await;
    let mut options = Options::default();
    options.replicas = vec![replica_database.url().to_owned()];
    // A process that starts after the failover.
    let handle = Database::connect(database.url(), &options).await.unwrap();
    let owner = handle.as_identity(Identity::new("postgres"));
    assert_eq!(outcome_code(owner.execute_unprepared("CREATE TABLE notes (n integer)").await), "done");
    // (Started again, so that its database can be dropped at the end.)
    run_blocking(&primary, Server::start_again).await;
    // A process whose first URL is that of another cluster, which is down at first.
    let other_server = Server::start_plain(None).await.unwrap();
    let other_database = other_server.create_unmigrated().await.unwrap();
    run_blocking(&other_server, Server::kill).await;
    let other_handle = Database::connect(other_database.url(), &options).await.unwrap();
    assert_eq!(roles(&other_handle), [ServerRole::Unused, ServerRole::Primary]);
    run_blocking(&other_server, Server::start_again).await;
    wait_for_roles(&other_handle, [ServerRole::Primary, ServerRole::Unused]).await;
    let other_owner = other_handle.as_identity(Identity::new("postgres"));
    let insert = "INSERT INTO notes VALUES (1)";
    let outcome = outcome_code(other_owner.execute_unprepared(insert).await);
    assert_eq!(outcome, "database", "the other cluster has no such table");
}

#[tokio::test]
async fn a_primary_of_another_cluster_gets_no_new_transactions_once_a_standby_at_the_first_url_answers() {
    let primary = Server::start_plain(None).await.unwrap();
    let database = primary.create_unmigrated().await.unwrap();
    let (standby, replica_database) = start_standby_with_copy(&primary, &database).await;
    run_blocking(&standby, Server::kill).await;
    // The primary of another cluster. It is a promoted standby, so it is on a later timeline.
    let other_server = Server::start_plain(None).await.unwrap();
    let other_database = other_server.create_unmigrated().await.unwrap();
    let (other_standby, promoted_database) = start_standby_with_copy(&other_server, &other_database).await;
    run_blocking(&other_standby, Server::promote).await;
    let mut options = Options::default();
    // By mistake, this is the URL of that primary. The right primary is not among the servers at all.
    options.replicas = vec![promoted_database.url().to_owned()];
    options.acquire_timeout = Duration::from_secs(1);
    let handle = Database::connect(replica_database.url(), &options).await.unwrap();
    assert_eq!(roles(&handle), [ServerRole::Unused, ServerRole::Primary]);
    let owner = handle.as_identity(Identity::new("postgres"));
    assert_eq!(outcome_code(owner.execute_unprepared("CREATE TABLE notes (n integer)").await), "done");
    let open_transaction = owner.begin().await.unwrap();
    open_transaction.execute_unprepared("INSERT INTO notes VALUES (1)").await.unwrap();
    run_blocking(&standby, Server::start_again).await;
    wait_for_roles(&handle, [ServerRole::Replica, ServerRole::Unused]).await;
    // A transaction that has already begun there can still commit.
    open_transaction.commit().await.unwrap();
    assert_eq!(outcome_code(owner.execute_unprepared("INSERT INTO notes VALUES (2)").await), "no_primary");
    // The identity has written on the other cluster. That must not keep the identity's reads from the replica.
    assert_eq!(outcome_code(owner.query_all_raw(statement("SELECT 1")).await), "done");
}
