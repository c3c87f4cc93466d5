//! What grows: bytes on the disk, the time to build indexes, and what a migration holds up.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use migration::{Migrator, sea_orm_migration::MigratorTrait};
use sea_orm::DatabaseConnection;
use serde::{Deserialize, Serialize};

use crate::{Failure, client::Client, fill::Built, world::World};

/// How big both databases are at one scale, in the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Size {
    /// 1 is 300 thousand sessions.
    pub scale: f64,
    /// Bytes for each session, everything counted, of the specification's database.
    pub prd_bytes_session: f64,
    /// The same, of ours.
    pub ours_bytes_session: f64,
    /// Milliseconds to build all indexes of ours that are no constraint's.
    pub indexes_ms: f64,
    /// Each of them.
    pub indexes: Vec<Built>,
    /// Milliseconds of `up` on an empty database.
    pub up_empty_ms: f64,
    /// Milliseconds of `up` on the full one, from the version before.
    pub up_full_ms: f64,
    /// The longest that it kept everybody from one table, milliseconds.
    pub longest_lock_ms: f64,
    /// Which table that was.
    pub longest_lock_of: String,
}

/// Bytes for each session.
pub async fn bytes_a_session(url: &str, world: &World) -> Result<f64, Failure> {
    let mut client = Client::open(url).await?;
    let bytes = client.number("SELECT pg_database_size(current_database())").await?;
    client.close().await?;
    Ok(bytes / world.sessions() as f64)
}

/// Migrates, so many steps or all, and tells how long it took.
pub async fn up(pool: &DatabaseConnection, steps: Option<u32>) -> Result<f64, Failure> {
    let begun = Instant::now();
    Migrator::up(pool, steps).await?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// The same while it is watched: how long, and the longest time that a table was closed to everybody, and which.
pub async fn up_watched(pool: &DatabaseConnection, url: &str) -> Result<(f64, Duration, String), Failure> {
    let done = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watch(url.to_owned(), done.clone()));
    let took = up(pool, None).await;
    done.store(true, Ordering::Relaxed);
    let (longest, table) = watching.await.map_err(|error| Failure::Message(error.to_string()))??;
    Ok((took?, longest, table))
}

/// Looks every few milliseconds which tables are closed.
async fn watch(url: String, done: Arc<AtomicBool>) -> Result<(Duration, String), Failure> {
    let mut client = Client::open(&url).await?;
    let mut since: HashMap<String, Instant> = HashMap::new();
    let mut longest = (Duration::ZERO, String::new());
    while !done.load(Ordering::Relaxed) {
        let closed = client
            .rows(
                "SELECT relation::regclass::text
                 FROM pg_locks
                 JOIN pg_class ON pg_class.oid = relation
                 WHERE relnamespace = 'public'::regnamespace
                   AND relkind = 'r'
                   AND mode = 'AccessExclusiveLock'
                   AND granted",
            )
            .await?;
        let closed: Vec<String> = closed.into_iter().map(|mut row| row.remove(0)).collect();
        since.retain(|table, _| closed.contains(table));
        for table in closed {
            let held = since.entry(table.clone()).or_insert_with(Instant::now).elapsed();
            if held > longest.0 {
                longest = (held, table);
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    client.close().await?;
    Ok(longest)
}
