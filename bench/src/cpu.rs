//! Processor times, from `/proc` (Linux only).

use std::{collections::HashMap, fs, time::Duration};

/// Clock ticks per second (`USER_HZ`), which is 100 on Linux.
const TICKS: f64 = 100.0;

/// Processor times of processes at one moment.
#[derive(Debug)]
pub struct CpuTimes(HashMap<u32, Duration>);

impl CpuTimes {
    /// Returns the time spent since `before`. A process that has ended is not counted; a new one is counted in full.
    #[must_use]
    pub fn since(&self, before: &Self) -> Duration {
        let spent = |(process, time): (&u32, &Duration)| {
            time.saturating_sub(before.0.get(process).copied().unwrap_or_default())
        };
        self.0.iter().map(spent).sum()
    }
}

/// Returns the time of this process.
#[must_use]
pub fn of_this_process() -> Option<CpuTimes> {
    let time = ticks(&fs::read_to_string("/proc/self/stat").ok()?)?.1;
    Some(CpuTimes(HashMap::from([(std::process::id(), time)])))
}

/// Returns the time of a process.
#[must_use]
pub fn of(process: u32) -> Option<CpuTimes> {
    let time = ticks(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?.1;
    Some(CpuTimes(HashMap::from([(process, time)])))
}

/// Returns the times of the server's running child processes.
#[must_use]
pub fn of_children(server: Option<u32>) -> Option<CpuTimes> {
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
    Some(CpuTimes(spent))
}

/// Returns the parent and the time in user and system mode.
fn ticks(stat: &str) -> Option<(u32, Duration)> {
    // The name is in parentheses and may contain anything. After it come the state, the parent, and the times as fields
    // 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let time = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((fields.get(1)?.parse().ok()?, Duration::from_secs_f64((time(11)? + time(12)?) / TICKS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_not_subtracted_from_the_others() {
        let at = |times: &[(u32, u64)]| CpuTimes(times.iter().map(|(id, s)| (*id, Duration::from_secs(*s))).collect());
        let before = at(&[(1, 10), (2, 300)]);
        assert_eq!(at(&[(1, 14), (3, 2)]).since(&before), Duration::from_secs(6));
    }
}
