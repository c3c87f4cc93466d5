//! Three real servers, a primary and two standbys: reads on the standbys, live events, and the loss of a server. A
//! *replica* is a standby that a `Sparc` handle uses for reads.

mod failover;
mod live_events;
mod reads;

use std::time::Duration;

use sparc::service::{Options, Sparc};
use testdb::{Binaries, Server};

use crate::world::World;

/// Settings of the three servers. With `synchronous_commit=off`, which the servers of other tests have, a failover
/// could lose acknowledged commits. `wal_keep_size` keeps the WAL for a standby that is added later. With the short
/// `wal_retrieve_retry_interval`, a standby connects to the new primary soon after the old one is lost. The tests of
/// failover need that: they make replication synchronous, so every commit waits for a standby.
pub const SETTINGS: [&str; 3] = ["synchronous_commit=on", "wal_keep_size=512MB", "wal_retrieve_retry_interval=200ms"];

/// A primary and two standbys, and the game's database on them. (In PostgreSQL's manual, a cluster
/// is something else: the data of a single server.)
pub struct Cluster {
    /// The database on the primary.
    pub world: World,
    pub primary: Server,
    pub standbys: Vec<Server>,
}

impl Cluster {
    /// Starts the three servers. Returns `None` if this machine has no `pg_basebackup`.
    pub async fn start() -> Option<Self> {
        if Binaries::find_or_fetch().unwrap().program("pg_basebackup").is_none() {
            eprintln!("skipped: this machine has no pg_basebackup");
            return None;
        }
        let primary = Server::start_plain(Some(&SETTINGS)).await.unwrap();
        let world = World::new_on(&primary).await;
        let (first_standby, second_standby) = tokio::join!(start_standby_of(&primary), start_standby_of(&primary));
        let standbys = vec![first_standby, second_standby];
        Some(Self { world, primary, standbys })
    }

    /// Returns the game's database on each standby.
    pub async fn standby_worlds(&self) -> Vec<World> {
        let mut worlds = Vec::new();
        for standby in &self.standbys {
            worlds.push(self.world.on_standby(standby).await);
        }
        worlds
    }

    /// Connects a new `Sparc` handle to all three servers.
    pub async fn connect(&self) -> Sparc {
        let standby_worlds = self.standby_worlds().await;
        let urls = standby_worlds.iter().map(World::url);
        Sparc::connect_with(self.world.url(), Options::default().replicas(urls)).await.unwrap()
    }
}

/// Runs a blocking action on a server, on a thread where it does not block the async runtime.
pub async fn run_blocking<T: Send + 'static>(server: &Server, action: fn(&Server) -> T) -> T {
    let server = server.clone();
    tokio::task::spawn_blocking(move || action(&server)).await.unwrap()
}

/// Starts a standby that streams from the primary.
pub async fn start_standby_of(primary: &Server) -> Server {
    run_blocking(primary, |primary| primary.start_standby(&SETTINGS).unwrap()).await
}

/// Returns the position in the WAL at which the primary inserts its next record.
pub async fn current_insert_lsn(world: &World) -> String {
    world.owner().fetch_value("SELECT pg_current_wal_insert_lsn()::text").await.unwrap()
}

/// Waits until the standby has replayed the WAL up to the position, or to at most 40 bytes before it. The position that
/// the primary reports may already include the header of a new WAL page, which has at most 40 bytes, but the standby's
/// position includes it only after the next record was replayed. With `wal_level=logical`, which `testdb` sets, the
/// record of a commit is longer than 40 bytes, so every commit before the position has been replayed.
pub async fn wait_until_replayed(standby: &World, lsn: &str) {
    let is_replayed_sql = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'::pg_lsn - 40::numeric");
    wait_until(async || standby.owner().fetch_value(&is_replayed_sql).await.unwrap()).await;
}

/// Waits until the condition is true. Panics after 1,200 attempts, which take half a minute or longer.
pub async fn wait_until(mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the condition is not true after half a minute");
}
