//! Processor time, where the system tells it (Linux).

use std::{fs, time::Duration};

/// Ticks a second; the same on every Linux that a server runs on.
const TICKS: f64 = 100.0;

/// Of this process.
#[must_use]
pub fn own() -> Option<Duration> {
    Some(ticks(&fs::read_to_string("/proc/self/stat").ok()?)?.1)
}

/// Of the processes that a server has started and that still run.
#[must_use]
pub fn of_children(server: Option<u32>) -> Option<Duration> {
    let server = server?;
    let mut sum = Duration::ZERO;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((parent, time)) = ticks(&stat)
            && parent == server
        {
            sum += time;
        }
    }
    Some(sum)
}

/// The parent, and the time spent in user and system mode.
fn ticks(stat: &str) -> Option<(u32, Duration)> {
    // The name stands in brackets and may hold anything; after it: state, parent, and the times as 14th and 15th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let time = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some((fields.get(1)?.parse().ok()?, Duration::from_secs_f64((time(11)? + time(12)?) / TICKS)))
}
