//! Simulated days: events are written and expire, and the table must not grow beyond the events of one day.
//!
//! A simulated day passes in a minute: each event is dated a day less a minute ago, so it expires after a minute, and
//! the clean-up that runs with each new event deletes it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{
    Failure,
    client::Client,
    world::{Kind, World, id},
};

/// The size of the table after a simulated day, in the report.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Day {
    /// Simulated days since the start.
    pub day: f64,
    /// Events written so far.
    pub written: u64,
    /// Live rows, according to the table's statistics.
    pub live: f64,
    /// Dead rows, according to the same statistics.
    pub dead: f64,
    /// Size of the table in bytes.
    pub table_bytes: f64,
    /// Size of its indexes in bytes.
    pub index_bytes: f64,
    /// The number of autovacuum runs.
    pub vacuumed: f64,
}

/// The duration of a simulated day.
const DAY: Duration = Duration::from_secs(60);
/// The number of concurrent writers.
const WRITERS: u64 = 4;

/// Writes events for `time`. Truncates `session_events` first.
pub async fn simulate(url: &str, world: World, time: Duration) -> Result<Vec<Day>, Failure> {
    let mut watcher = Client::open(url).await?;
    watcher.run("TRUNCATE session_events").await?;
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let url = url.to_owned();
        writers.spawn(async move { write(&url, world, writer, begun + time).await });
    }
    let mut days = Vec::new();
    let mut next = begun + DAY;
    while next <= begun + time {
        tokio::time::sleep_until(next.into()).await;
        let row = watcher
            .rows(
                "SELECT (SELECT last_value FROM session_events_seq_seq), n_live_tup, n_dead_tup,
                    pg_table_size(relid), pg_indexes_size(relid), autovacuum_count
                 FROM pg_stat_user_tables
                 WHERE relname = 'session_events'",
            )
            .await?;
        let number = |column: usize| row[0][column].parse::<f64>().unwrap_or_default();
        days.push(Day {
            day: begun.elapsed().as_secs_f64() / DAY.as_secs_f64(),
            written: number(0) as u64,
            live: number(1),
            dead: number(2),
            table_bytes: number(3),
            index_bytes: number(4),
            vacuumed: number(5),
        });
        next += DAY;
    }
    while let Some(wrote) = writers.join_next().await {
        wrote.map_err(|error| Failure::Message(error.to_string()))??;
    }
    Ok(days)
}

/// Writes an event every few milliseconds, in one session after another.
async fn write(url: &str, world: World, writer: u64, until: Instant) -> Result<(), Failure> {
    let mut client = Client::open(url).await?;
    client
        .run(&format!(
            "PREPARE event AS
             INSERT INTO session_events (session_id, event_type, payload, created_at)
             VALUES ($1, 'dice_rolled', jsonb_build_object('note', repeat('x', 300)),
                 clock_timestamp() - INTERVAL '24 hours' + INTERVAL '{} seconds')",
            DAY.as_secs()
        ))
        .await?;
    for number in 0.. {
        if Instant::now() >= until {
            break;
        }
        let session = id(Kind::Session, (number * WRITERS + writer) % world.active);
        client.run(&format!("EXECUTE event('{session}')")).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.close().await
}
