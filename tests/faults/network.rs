//! A proxy between service and server that cuts, delays or swallows traffic.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use sea_orm::TransactionTrait;
use sparc::service::{Operations, Options, Sparc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{BOUND, Load, answers, no_transaction_is_open, nothing_is_lost, times};
use crate::{
    evening::{Evening, broken, unexpected},
    world::World,
};

/// States of a [`Proxy`]: forward, delay each piece, swallow everything, close every connection.
pub const OPEN: u8 = 0;
pub const SLOW: u8 = 1;
pub const SWALLOWING: u8 = 2;
pub const CUT: u8 = 3;
/// Forward a number of responses, then close.
const COUNTING: u8 = 4;

#[derive(Clone)]
/// A TCP proxy to a PostgreSQL server.
pub struct Proxy {
    state: Arc<AtomicU8>,
    left: Arc<AtomicU32>,
    accepted: Arc<AtomicU32>,
    pub url: String,
}

impl Proxy {
    pub async fn to_world(world: &World) -> Self {
        Self::to_url(world.url()).await
    }

    pub async fn to_url(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (before, rest) = url.rsplit_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        let url = format!("{before}@127.0.0.1:{}/{database}", listener.local_addr().unwrap().port());
        let proxy = Self { state: Arc::new(AtomicU8::new(OPEN)), left: Arc::default(), accepted: Arc::default(), url };
        let (state, left, accepted) = (proxy.state.clone(), proxy.left.clone(), proxy.accepted.clone());
        let server = server.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, state.clone(), None));
                tokio::spawn(forward(from_server, to_client, state.clone(), Some(left.clone())));
            }
        });
        proxy
    }

    /// Forwards that many responses, and then closes the connection.
    pub fn cut_after(&self, answers: u32) {
        self.left.store(answers, Ordering::SeqCst);
        self.set_state(COUNTING);
    }

    /// Returns how many connections were made to it.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn set_state(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }
}

async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: Arc<AtomicU8>,
    left: Option<Arc<AtomicU32>>,
) {
    let mut piece = vec![0; 8192];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        match state.load(Ordering::SeqCst) {
            SLOW => tokio::time::sleep(Duration::from_millis(20)).await,
            SWALLOWING => continue,
            CUT => return,
            COUNTING => {
                if let Some(left) = &left
                    && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
                {
                    return state.store(CUT, Ordering::SeqCst);
                }
            }
            _ => {}
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_or_slow_loses_no_acknowledged_row() {
    let cuts = times("SPARC_CUTS", 5);
    let world = World::new().await;
    let proxy = Proxy::to_world(&world).await;
    let evening = Arc::new(Evening::new(&world, 20).await);
    let sparc = Sparc::connect_with(&proxy.url, Options::default().max_connections(8)).await.unwrap();
    let load = Load::begin(&sparc, &evening, 8);
    for _ in 0..cuts {
        for state in [OPEN, SLOW, CUT] {
            proxy.set_state(state);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }
    proxy.set_state(OPEN);
    let outcomes = load.end().await;
    nothing_is_lost(&world, &outcomes.kept).await;
    assert_eq!(broken(&world).await, [""; 0]);
    no_transaction_is_open(&world).await;
    println!("cut {cuts} times: {:?}", outcomes.codes);
    assert_eq!(unexpected(&outcomes.codes, &["connection_lost", "commit_unknown", "pool_exhausted"]), [""; 0]);
    assert!(
        outcomes.codes.contains_key("connection_lost") || outcomes.codes.contains_key("commit_unknown"),
        "no client lost its connection"
    );
    answers(&sparc).await;
    sparc.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_over_a_network_that_swallows_everything_end_in_time() {
    let world = World::new().await;
    let player = world.new_player().await;
    let proxy = Proxy::to_world(&world).await;
    let deadline = Duration::from_millis(500);
    let options = Options::default().max_connections(2).acquire_timeout(deadline).deadline(deadline);
    let sparc = Sparc::connect_with(&proxy.url, options).await.unwrap();
    let me = sparc.as_user(player.id);
    me.characters().list().await.unwrap();
    proxy.set_state(SWALLOWING);
    for _ in 0..4 {
        let begun = Instant::now();
        let code = me.characters().list().await.unwrap_err().code();
        assert!(["connection_lost", "deadline_exceeded"].contains(&code), "{code}");
        assert!(begun.elapsed() < BOUND);
    }
    // Swallowed requests are never answered. Once the connections are closed, new ones work again.
    proxy.set_state(CUT);
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.set_state(OPEN);
    let mut tries = 0;
    let mine = loop {
        match me.characters().list().await {
            Ok(mine) => break mine,
            Err(error) => assert!(tries < 20, "{}", error.code()),
        }
        tries += 1;
    };
    assert_eq!(mine.len(), 1);
    no_transaction_is_open(&world).await;
}

#[tokio::test]
async fn a_server_that_answers_no_new_connection_is_awaited_once() {
    let world = World::new().await;
    let player = world.new_player().await;
    let proxy = Proxy::to_world(&world).await;
    let options = Options::default().max_connections(2).acquire_timeout(Duration::from_millis(300));
    let sparc = Sparc::connect_with(&proxy.url, options).await.unwrap();
    let me = sparc.as_user(player.id);
    let _uses_the_only_connection = me.begin().await.unwrap();
    proxy.set_state(SWALLOWING);
    let before = proxy.accepted();
    assert_eq!(me.characters().list().await.unwrap_err().code(), "connection_lost");
    assert_eq!(proxy.accepted(), before + 1, "each attempt would wait for `acquire_timeout`");
}
