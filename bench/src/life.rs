//! A long life: events come and go for simulated days, and the table stays as big as a day.
//!
//! A day of the game passes in a minute: each event is written as old as a day less that minute, so it expires a minute
//! later, and the clean-up that comes with each event takes it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{
    Failure,
    client::Client,
    world::{Kind, World, id},
};

/// One look, in the report.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Day {
    /// Days of the game since the beginning.
    pub day: f64,
    /// Events written so far.
    pub written: u64,
    /// Rows in the table, by its statistics.
    pub live: f64,
    /// Rows that are dead and not yet vacuumed.
    pub dead: f64,
    /// Bytes of the table.
    pub table_bytes: f64,
    /// Bytes of its indexes.
    pub index_bytes: f64,
    /// Times that autovacuum came.
    pub vacuumed: f64,
}

/// A day of the game.
const DAY: Duration = Duration::from_secs(60);
/// Who write.
const WRITERS: u64 = 4;

/// Lives for so long, in a database of its own.
pub async fn life(url: &str, world: World, time: Duration) -> Result<Vec<Day>, Failure> {
    let mut watcher = Client::open(url).await?;
    watcher.run("TRUNCATE session_events").await?;
    let begun = Instant::now();
    let mut writing = JoinSet::new();
    for writer in 0..WRITERS {
        let url = url.to_owned();
        writing.spawn(async move { write(&url, world, writer, begun + time).await });
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
        let number = |place: usize| row[0][place].parse::<f64>().unwrap_or_default();
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
    while let Some(wrote) = writing.join_next().await {
        wrote.map_err(|error| Failure::Message(error.to_string()))??;
    }
    Ok(days)
}

/// Writes an event every few milliseconds, at one table after the other.
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
        let session = id(Kind::Session, (number * WRITERS + writer) % world.busy);
        client.run(&format!("EXECUTE event('{session}')")).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.close().await
}
