//! A proxy that cuts, delays or swallows the traffic between the service and the server, and tests that call operations
//! through it. `SPARC_CUTS` sets how often a test cuts the network.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::Duration,
};

use sea_orm::TransactionTrait;
use sparc::service::{Operations, Options, Sparc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{Load, assert_all_transactions_end, assert_call_succeeds, assert_nothing_lost, env_number};
use crate::{
    random_operations::{RandomOperations, broken_invariants, unexpected_errors},
    world::World,
};

/// State of a [`Proxy`]: forwards everything.
pub const OPEN: u8 = 0;
/// State of a [`Proxy`]: delays each chunk (the data of one read from a connection).
pub const SLOW: u8 = 1;
/// State of a [`Proxy`]: keeps connections open, but discards all data.
pub const SWALLOWING: u8 = 2;
/// State of a [`Proxy`]: closes a connection as soon as something is sent over it.
pub const CUT: u8 = 3;
/// State of a [`Proxy`]: forwards a limited number of chunks from the server, and then becomes [`CUT`].
const COUNTING_DOWN: u8 = 4;

/// A TCP proxy to a PostgreSQL server.
#[derive(Clone)]
pub struct Proxy {
    state: Arc<AtomicU8>,
    /// In the state [`COUNTING_DOWN`], how many more chunks from the server are forwarded.
    chunks_left: Arc<AtomicU32>,
    /// The number of connections that were accepted.
    accepted_count: Arc<AtomicU32>,
    /// The URL of the database, with the address of the proxy in place of the server's.
    pub url: String,
}

impl Proxy {
    /// Starts a proxy to the server of the world's database.
    pub async fn start_for_world(world: &World) -> Self {
        Self::start_for_url(world.url()).await
    }

    /// Starts a proxy to the server that the URL of a database names.
    pub async fn start_for_url(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (credentials, rest) = url.rsplit_once('@').unwrap();
        let (server_address, database) = rest.split_once('/').unwrap();
        let url = format!("{credentials}@127.0.0.1:{}/{database}", listener.local_addr().unwrap().port());
        let state = Arc::new(AtomicU8::new(OPEN));
        let proxy = Self { state, chunks_left: Arc::default(), accepted_count: Arc::default(), url };
        let (state, chunks_left, accepted_count) =
            (proxy.state.clone(), proxy.chunks_left.clone(), proxy.accepted_count.clone());
        let server_address = server_address.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                accepted_count.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(&server_address).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, state.clone(), None));
                tokio::spawn(forward(from_server, to_client, state.clone(), Some(chunks_left.clone())));
            }
        });
        proxy
    }

    /// Makes the proxy forward this many more chunks from the server, about one per response, and then become [`CUT`].
    pub fn cut_after(&self, chunk_count: u32) {
        self.chunks_left.store(chunk_count, Ordering::SeqCst);
        self.set_state(COUNTING_DOWN);
    }

    /// Returns how many connections the proxy has accepted.
    pub fn accepted_count(&self) -> u32 {
        self.accepted_count.load(Ordering::SeqCst)
    }

    pub fn set_state(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }
}

/// Forwards data in one direction until either connection ends or the proxy is [`CUT`]. Only the direction from the
/// server has `chunks_left`.
async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: Arc<AtomicU8>,
    chunks_left: Option<Arc<AtomicU32>>,
) {
    let mut chunk = vec![0; 8192];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        match state.load(Ordering::SeqCst) {
            SLOW => tokio::time::sleep(Duration::from_millis(20)).await,
            SWALLOWING => continue,
            CUT => return,
            COUNTING_DOWN => {
                if let Some(chunks_left) = &chunks_left
                    && chunks_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
                {
                    return state.store(CUT, Ordering::SeqCst);
                }
            }
            _ => {}
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_or_slow_loses_no_acknowledged_row() {
    let cut_count = env_number("SPARC_CUTS", 5);
    let world = World::new().await;
    let proxy = Proxy::start_for_world(&world).await;
    let operations = Arc::new(RandomOperations::new(&world, 20).await);
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(8)).await.unwrap();
    let load = Load::start(&sparc, &operations, 8);
    for _ in 0..cut_count {
        for state in [OPEN, SLOW, CUT] {
            proxy.set_state(state);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }
    proxy.set_state(OPEN);
    let outcomes = load.stop().await;
    assert_nothing_lost(&world, &outcomes.acknowledged).await;
    assert_eq!(broken_invariants(&world).await, [""; 0]);
    assert_all_transactions_end(&world).await;
    println!("cut {cut_count} times; calls by outcome: {:?}", outcomes.counts_by_code);
    assert_eq!(
        unexpected_errors(&outcomes.counts_by_code, &["connection_lost", "commit_unknown", "pool_exhausted"]),
        [""; 0]
    );
    assert!(
        outcomes.counts_by_code.contains_key("connection_lost")
            || outcomes.counts_by_code.contains_key("commit_unknown"),
        "no client lost its connection"
    );
    assert_call_succeeds(&sparc).await;
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_a_network_that_forwards_nothing_end_in_time() {
    let world = World::new().await;
    let player = world.new_player().await;
    let proxy = Proxy::start_for_world(&world).await;
    let deadline = Duration::from_millis(500);
    let options = Options::default().max_connections(2).acquire_timeout(deadline).deadline(deadline);
    let sparc = Sparc::connect_with(&proxy.url, options).await.unwrap();
    let me = sparc.as_user(player.user_id);
    me.characters().living().await.unwrap();
    proxy.set_state(SWALLOWING);
    for _ in 0..4 {
        // The limit is far above the deadline, because the machine may be busy.
        let call = tokio::time::timeout(20 * deadline, me.characters().living());
        let code = call.await.expect("a call does not end at its deadline").unwrap_err().code();
        assert!(["connection_lost", "deadline_exceeded"].contains(&code), "{code}");
    }
    // Requests that were swallowed are never answered. Once the pool has closed their connections, calls on new
    // connections succeed again.
    proxy.set_state(CUT);
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.set_state(OPEN);
    let mut failures = 0;
    let characters = loop {
        match me.characters().living().await {
            Ok(characters) => break characters,
            Err(error) => assert!(failures < 20, "{}", error.code()),
        }
        failures += 1;
    };
    assert_eq!(characters.len(), 1);
    assert_all_transactions_end(&world).await;
}

#[tokio::test]
async fn if_a_server_does_not_answer_a_new_connection_no_second_one_is_attempted() {
    let world = World::new().await;
    let player = world.new_player().await;
    let proxy = Proxy::start_for_world(&world).await;
    let options = Options::default().max_connections(2).acquire_timeout(Duration::from_millis(300));
    let sparc = Sparc::connect_with(&proxy.url, options).await.unwrap();
    let me = sparc.as_user(player.user_id);
    // The transaction uses the connection that is already open.
    let _transaction = me.begin().await.unwrap();
    proxy.set_state(SWALLOWING);
    let accepted_count_before = proxy.accepted_count();
    assert_eq!(me.characters().living().await.unwrap_err().code(), "connection_lost");
    assert_eq!(
        proxy.accepted_count(),
        accepted_count_before + 1,
        "another attempt would wait for `acquire_timeout` again"
    );
}
