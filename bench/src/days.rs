//! Simulated days, in which events are written and expire. The table of events should not grow beyond the events of one
//! day.
//!
//! A simulated day takes a minute. Each event is written as if it had been created 23 hours and 59 minutes ago.
//! Events expire 24 hours after their creation, so such an event expires a minute after it is written. Then the
//! clean-up that runs with each new event deletes it.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::{
    client::Client,
    data_set::{DataSet, RowKind, row_id},
    failure::Failure,
    report::DayResult,
};

/// The real duration of a simulated day.
const SIMULATED_DAY_LENGTH: Duration = Duration::from_secs(60);
/// The number of concurrent writers.
const WRITERS: u64 = 4;
/// The pause of a writer between two events.
const PAUSE_BETWEEN_EVENTS: Duration = Duration::from_millis(5);

/// Simulates this many days, and returns the size of the table after each. Truncates `session_events` first.
pub async fn simulate_days(url: &str, data_set: DataSet, day_count: u64) -> Result<Vec<DayResult>, Failure> {
    let duration = Duration::from_secs(day_count * SIMULATED_DAY_LENGTH.as_secs());
    let mut client = Client::open(url).await?;
    client.run("TRUNCATE session_events").await?;
    // The sequence counts the events that have ever been written. TRUNCATE does not reset it.
    let events_written_before = client.fetch_number("SELECT last_value FROM session_events_seq_seq").await?;
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let url = url.to_owned();
        writers.spawn(async move { write_events(&url, data_set, writer, start + duration).await });
    }
    let mut days = Vec::new();
    let mut day_end = start + SIMULATED_DAY_LENGTH;
    while day_end <= start + duration {
        tokio::time::sleep_until(day_end.into()).await;
        let rows = client
            .fetch_rows(
                "SELECT (SELECT last_value FROM session_events_seq_seq), n_live_tup, n_dead_tup,
                    pg_table_size(relid), pg_indexes_size(relid), autovacuum_count
                 FROM pg_stat_user_tables
                 WHERE relname = 'session_events'",
            )
            .await?;
        let value = |column: usize| rows[0][column].parse::<f64>().unwrap_or_default();
        days.push(DayResult {
            elapsed_days: start.elapsed().as_secs_f64() / SIMULATED_DAY_LENGTH.as_secs_f64(),
            events_written: (value(0) - events_written_before) as u64,
            live_rows: value(1),
            dead_rows: value(2),
            table_bytes: value(3),
            index_bytes: value(4),
            autovacuum_runs: value(5),
        });
        day_end += SIMULATED_DAY_LENGTH;
    }
    while let Some(outcome) = writers.join_next().await {
        outcome.map_err(|error| Failure::Message(error.to_string()))??;
    }
    Ok(days)
}

/// Writes an event every few milliseconds until `end`, in one session after another.
async fn write_events(url: &str, data_set: DataSet, writer: u64, end: Instant) -> Result<(), Failure> {
    let mut client = Client::open(url).await?;
    client
        .run(&format!(
            "PREPARE event AS
             INSERT INTO session_events (session_id, event_type, payload, created_at)
             VALUES ($1, 'dice_rolled', jsonb_build_object('note', repeat('x', 300)),
                 clock_timestamp() - INTERVAL '24 hours' + INTERVAL '{} seconds')",
            SIMULATED_DAY_LENGTH.as_secs()
        ))
        .await?;
    for number in 0.. {
        if Instant::now() >= end {
            break;
        }
        let session = row_id(RowKind::Session, (number * WRITERS + writer) % data_set.active_sessions);
        client.run(&format!("EXECUTE event('{session}')")).await?;
        tokio::time::sleep(PAUSE_BETWEEN_EVENTS).await;
    }
    client.close().await
}
