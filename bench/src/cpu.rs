//! Processor time, where the system tells it (Linux).

use std::{collections::HashMap, fs, time::Duration};

/// Ticks a second; the same on every Linux that a server runs on.
const TICKS: f64 = 100.0;

/// Processor time of each of some processes at one moment.
#[derive(Debug)]
pub struct Spent(HashMap<u32, Duration>);

impl Spent {
    /// What they spent since then. One that ended in between takes what it spent with it; one that is new began at nothing.
    #[must_use]
    pub fn since(&self, before: &Self) -> Duration {
        let spent = |(process, time): (&u32, &Duration)| {
            time.saturating_sub(before.0.get(process).copied().unwrap_or_default())
        };
        self.0.iter().map(spent).sum()
    }
}

/// Of this process.
#[must_use]
pub fn own() -> Option<Spent> {
    let time = ticks(&fs::read_to_string("/proc/self/stat").ok()?)?.1;
    Some(Spent(HashMap::from([(std::process::id(), time)])))
}

/// Of a process.
#[must_use]
pub fn of(process: u32) -> Option<Spent> {
    let time = ticks(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?.1;
    Some(Spent(HashMap::from([(process, time)])))
}

/// Of the processes that a server has started and that still run.
#[must_use]
pub fn of_children(server: Option<u32>) -> Option<Spent> {
    let server = server?;
    let mut spent = HashMap::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((parent, time)) = ticks(&stat)
            && parent == server
        {
            spent.insert(process, time);
        }
    }
    Some(Spent(spent))
}

/// The parent, and the time spent in user and system mode.
fn ticks(stat: &str) -> Option<(u32, Duration)> {
    // The name stands in brackets and may hold anything; after it: state, parent, and the times as 14th and 15th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let time = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some((fields.get(1)?.parse().ok()?, Duration::from_secs_f64((time(11)? + time(12)?) / TICKS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_takes_nothing_from_the_others() {
        let at = |times: &[(u32, u64)]| Spent(times.iter().map(|(id, s)| (*id, Duration::from_secs(*s))).collect());
        let before = at(&[(1, 10), (2, 300)]);
        assert_eq!(at(&[(1, 14), (3, 2)]).since(&before), Duration::from_secs(6));
    }
}
