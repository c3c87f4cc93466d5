//! Servers that accept a connection and do not answer, and firewalls that silently drop what is sent on a connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rls::{Database, IdentityConnection, Options};
use sea_orm::{ConnectOptions, ConnectionTrait, TransactionTrait};
use tokio::{
    io::AsyncReadExt,
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    outcome_code,
    outcomes::{INSERT_NOTE, as_owner, create_database},
    proxies::listen_in_front_of,
};

/// How long a call that pings one dead connection, and no others, may take at most.
const MAX_WAIT_FOR_ONE_PING: Duration = Duration::from_secs(10);

/// How many connections the tests of the firewall open in the pool.
const CONNECTION_COUNT: usize = 8;

/// Opens [`CONNECTION_COUNT`] connections in the pool, by keeping as many transactions open at the same time, and then
/// leaves the connections idle. The connection that was opened first is returned last, so that the pool hands it out
/// first. If it is dead, the pool must not use the others either, although they were acquired after it.
async fn open_connections(owner: &IdentityConnection) {
    let mut transactions = Vec::new();
    for _ in 0..CONNECTION_COUNT {
        transactions.push(owner.begin().await.unwrap());
    }
    for tx in transactions.into_iter().rev() {
        tx.rollback().await.unwrap();
    }
}

/// A proxy that stands for a firewall, and forwards connections to the server until it is told to drop them.
struct Firewall {
    /// The URL of the database through the firewall.
    url: String,
    silenced_count: watch::Sender<usize>,
    /// Number of silenced connections on which the client has sent a message other than Terminate (`X`), which closes a
    /// connection.
    used_after_silence_count: Arc<AtomicUsize>,
}

impl Firewall {
    async fn start(database: &testdb::Database) -> Self {
        let (listener, url, server_address) = listen_in_front_of(database).await;
        let (silenced_count, silenced_count_receiver) = watch::channel(0);
        let used_after_silence_count = Arc::new(AtomicUsize::new(0));
        let counter = used_after_silence_count.clone();
        tokio::spawn(async move {
            for connection_number in 1.. {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut silenced_count = silenced_count_receiver.clone();
                let (server_address, counter) = (server_address.clone(), counter.clone());
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(server_address).await.unwrap();
                    let until_silenced =
                        async { drop(silenced_count.wait_for(|count| *count >= connection_number).await) };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                        () = until_silenced => {}
                    }
                    if client.read_u8().await.is_ok_and(|message_type| message_type != b'X') {
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { url, silenced_count, used_after_silence_count }
    }

    /// From now on, silently drops what is sent over the first `connection_count` connections that were opened through
    /// the firewall, without closing them.
    fn silence(&self, connection_count: usize) {
        self.silenced_count.send(connection_count).unwrap();
    }
}

#[tokio::test]
async fn if_a_firewall_drops_all_idle_connections_a_call_waits_for_only_one_of_them() {
    let database = create_database().await;
    let firewall = Firewall::start(&database).await;
    let mut options = Options::default();
    options.max_connections = u32::try_from(CONNECTION_COUNT).unwrap();
    let handle = Database::connect(&firewall.url, &options).await.unwrap();
    let owner = as_owner(&handle);
    open_connections(&owner).await;
    assert_eq!(handle.pool_status("postgres").idle, CONNECTION_COUNT);
    // A connection that was idle for more than 30 seconds is pinged before use.
    sleep(Duration::from_secs(31)).await;
    // One more, because `connect` has opened and closed a connection.
    firewall.silence(CONNECTION_COUNT + 1);
    let insert = timeout(MAX_WAIT_FOR_ONE_PING, owner.execute_unprepared(INSERT_NOTE));
    assert_eq!(outcome_code(insert.await.expect("the call must not wait longer")), "done");
    assert_eq!(firewall.used_after_silence_count.load(Ordering::SeqCst), 1, "connections that were pinged");
    assert_eq!(handle.pool_status("postgres").connections, 1, "the others are replaced when they are needed");
}

#[tokio::test]
async fn if_a_firewall_drops_all_idle_connections_a_health_check_waits_for_only_one_of_them() {
    let database = create_database().await;
    let firewall = Firewall::start(&database).await;
    let handle = Database::connect(&firewall.url, &Options::default()).await.unwrap();
    open_connections(&as_owner(&handle)).await;
    // One more, because `connect` has opened and closed a connection.
    firewall.silence(CONNECTION_COUNT + 1);
    // A health check pings a connection however long it was idle.
    timeout(MAX_WAIT_FOR_ONE_PING, handle.ping()).await.expect("the health check must not wait longer").unwrap();
    assert_eq!(firewall.used_after_silence_count.load(Ordering::SeqCst), 1, "connections that were pinged");
    assert_eq!(handle.pool_status("postgres").connections, 1);
}

/// Starts a proxy that forwards its first `forwarded_count` connections to the server. It accepts the others too, but
/// nobody answers on them. Returns the URL of the database through the proxy.
async fn start_proxy_that_forwards(database: &testdb::Database, forwarded_count: usize) -> String {
    let (listener, url, server_address) = listen_in_front_of(database).await;
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        for connection_number in 1.. {
            let (mut client, _) = listener.accept().await.unwrap();
            if connection_number > forwarded_count {
                unanswered.push(client);
                continue;
            }
            let mut server = tokio::net::TcpStream::connect(&server_address).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    url
}

/// Connects through [`start_proxy_that_forwards`], with a pool of one connection.
async fn connect_through_proxy(
    database: &testdb::Database,
    forwarded_count: usize,
    acquire_timeout: Duration,
) -> IdentityConnection {
    let url = start_proxy_that_forwards(database, forwarded_count).await;
    let mut options = Options::default();
    (options.max_connections, options.acquire_timeout) = (1, acquire_timeout);
    as_owner(&Database::connect(&url, &options).await.unwrap())
}

#[tokio::test]
async fn a_call_that_waited_for_a_place_in_the_pool_is_not_told_that_the_server_does_not_answer() {
    let database = create_database().await;
    // `connect` opens and closes the first connection. The second is the pool's.
    let owner = connect_through_proxy(&database, 2, Duration::from_secs(2)).await;
    let tx = owner.begin().await.unwrap();
    let waiting_calls = [owner.clone(), owner.clone()].map(|owner| async move {
        let waiting_call = owner.begin();
        outcome_code(waiting_call.await.map(drop))
    });
    let discard_connection = async {
        sleep(Duration::from_millis(1700)).await;
        // COPY closes the connection. The first of the waiting calls begins to open another one.
        assert_eq!(outcome_code(tx.execute_unprepared("COPY notes FROM STDIN").await), "invalid_statement");
        drop(tx);
    };
    let (codes, ()) = tokio::join!(join_all(waiting_calls), discard_connection);
    assert_eq!(codes, ["pool_timeout"; 2]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_reported_to_each_call_even_if_the_pool_is_too_small_for_them() {
    let database = create_database().await;
    let owner = connect_through_proxy(&database, 1, Duration::from_secs(1)).await;
    let codes = join_all((0..3).map(|_| async { outcome_code(owner.begin().await.map(drop)) })).await;
    assert_eq!(codes, ["connection_lost"; 3]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_reported_if_the_application_supplied_the_pool() {
    let database = create_database().await;
    let url = start_proxy_that_forwards(&database, 0).await;
    let mut options = ConnectOptions::new(url);
    options.connect_lazy(true).acquire_timeout(Duration::from_secs(1));
    let owner = as_owner(&Database::from_connection(sea_orm::Database::connect(options).await.unwrap()));
    assert_eq!(outcome_code(owner.begin().await.map(drop)), "connection_lost");
    // A statement outside of a transaction is retried if the connection is lost, but not after an attempt that has
    // already waited for `acquire_timeout`.
    let started_at = Instant::now();
    assert_eq!(outcome_code(owner.execute_unprepared(INSERT_NOTE).await), "connection_lost");
    assert!(started_at.elapsed() < Duration::from_secs(4), "{:?}", started_at.elapsed());
}
