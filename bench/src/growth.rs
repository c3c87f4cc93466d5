//! What can grow with the data: the size on disk, the time that migrations take, and the time for which they lock
//! tables.

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

use crate::{client::Client, data_set::DataSet, failure::Failure};

/// Returns the size of the database divided by its sessions, in bytes.
pub async fn bytes_per_session(url: &str, data_set: &DataSet) -> Result<f64, Failure> {
    let mut client = Client::open(url).await?;
    let bytes = client.fetch_number("SELECT pg_database_size(current_database())").await?;
    client.close().await?;
    Ok(bytes / data_set.sessions() as f64)
}

/// Runs `up`, which applies at most `steps` pending migrations, or all of them if `steps` is `None`. Returns the
/// milliseconds that this took.
pub async fn migrate(pool: &DatabaseConnection, steps: Option<u32>) -> Result<f64, Failure> {
    let start = Instant::now();
    Migrator::up(pool, steps).await?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

/// Runs `up` while watching locks. Returns the milliseconds that `up` took, and what [`watch_locks`] returns: the
/// longest time for which an ACCESS EXCLUSIVE lock was seen, and the table with that lock.
pub async fn migrate_watching_locks(pool: &DatabaseConnection, url: &str) -> Result<(f64, Duration, String), Failure> {
    let is_done = Arc::new(AtomicBool::new(false));
    // The watcher must be connected before `up` takes its first lock.
    let watcher = tokio::spawn(watch_locks(Client::open(url).await?, is_done.clone()));
    let up_ms = migrate(pool, None).await;
    is_done.store(true, Ordering::Relaxed);
    let (longest_lock, longest_lock_table) = watcher.await.map_err(|error| Failure::Message(error.to_string()))??;
    Ok((up_ms?, longest_lock, longest_lock_table))
}

/// Looks every few milliseconds for ACCESS EXCLUSIVE locks on tables of `public`, until `is_done`. Returns the longest
/// time for which such a lock was seen, and the table with that lock.
async fn watch_locks(mut client: Client, is_done: Arc<AtomicBool>) -> Result<(Duration, String), Failure> {
    let mut locked_since: HashMap<String, Instant> = HashMap::new();
    let (mut longest_lock, mut longest_lock_table) = (Duration::ZERO, String::new());
    while !is_done.load(Ordering::Relaxed) {
        let rows = client
            .fetch_rows(
                "SELECT relation::regclass::text
                 FROM pg_locks
                 JOIN pg_class ON pg_class.oid = relation
                 WHERE relnamespace = 'public'::regnamespace
                   AND relkind = 'r'
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND mode = 'AccessExclusiveLock'
                   AND granted",
            )
            .await?;
        let locked_tables: Vec<String> = rows.into_iter().map(|mut row| row.remove(0)).collect();
        locked_since.retain(|table, _| locked_tables.contains(table));
        for table in locked_tables {
            let held_for = locked_since.entry(table.clone()).or_insert_with(Instant::now).elapsed();
            if held_for > longest_lock {
                (longest_lock, longest_lock_table) = (held_for, table);
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    client.close().await?;
    Ok((longest_lock, longest_lock_table))
}
