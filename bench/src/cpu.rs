//! Processor times, from `/proc` (Linux only).

use std::{collections::HashMap, fs, time::Duration};

/// Clock ticks per second (`USER_HZ`), which is 100 on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The total processor time that each process has used so far, by process id.
#[derive(Debug)]
pub struct CpuTimes(HashMap<u32, Duration>);

impl CpuTimes {
    /// Returns the processor time that the processes have used since `before`. A process that has ended since then is
    /// not counted. A process that has started since then is counted in full.
    #[must_use]
    pub fn since(&self, before: &Self) -> Duration {
        let used = |(pid, time): (&u32, &Duration)| time.saturating_sub(before.0.get(pid).copied().unwrap_or_default());
        self.0.iter().map(used).sum()
    }
}

/// Returns the processor time of this process, or `None` if the system has no `/proc`.
#[must_use]
pub fn times_of_this_process() -> Option<CpuTimes> {
    let (_, time) = parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)?;
    Some(CpuTimes(HashMap::from([(std::process::id(), time)])))
}

/// Returns the processor time of a process, or `None` if `/proc` does not have it.
#[must_use]
pub fn times_of_process(pid: u32) -> Option<CpuTimes> {
    let (_, time) = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some(CpuTimes(HashMap::from([(pid, time)])))
}

/// Returns the processor times of the running child processes of a server's postmaster, or `None` if the postmaster's
/// id is unknown or the system has no `/proc`.
#[must_use]
pub fn times_of_child_processes(postmaster_pid: Option<u32>) -> Option<CpuTimes> {
    let postmaster_pid = postmaster_pid?;
    let mut times = HashMap::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((parent_pid, time)) = parse_stat(&stat)
            && parent_pid == postmaster_pid
        {
            times.insert(pid, time);
        }
    }
    Some(CpuTimes(times))
}

/// Parses `/proc/PID/stat` into the id of the parent process and the time in user and system mode.
fn parse_stat(stat: &str) -> Option<(u32, Duration)> {
    // The program's name is in parentheses and may contain any character. After it, field 0 is the state, field 1 the
    // parent's id, and fields 11 and 12 are the times.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((fields.get(1)?.parse().ok()?, Duration::from_secs_f64((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_process_is_not_counted_and_a_new_one_is_counted_in_full() {
        let cpu_times = |seconds: &[(u32, u64)]| {
            CpuTimes(seconds.iter().map(|(pid, seconds)| (*pid, Duration::from_secs(*seconds))).collect())
        };
        // Process 2 ends, and process 3 starts.
        let before = cpu_times(&[(1, 10), (2, 300)]);
        let after = cpu_times(&[(1, 14), (3, 2)]);
        assert_eq!(after.since(&before), Duration::from_secs(6));
    }
}
