//! Runs pgbench, and measures its throughput and PostgreSQL's processor time over the same seconds.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use super::run::{Environment, RunResult, cpu_ms_per_operation};
use crate::{cpu, failure::Failure};

/// Options of the comparison with pgbench.
pub struct PgbenchOptions<'a> {
    /// Path of the program pgbench.
    pub program: &'a Path,
    /// Folder for pgbench's scripts.
    pub script_folder: &'a Path,
    /// The measured duration of each run, of the service and of pgbench.
    pub run_length: Duration,
}

/// The maximum number of pgbench's threads (`--jobs`).
const MAX_PGBENCH_THREADS: u32 = 2;

/// Runs a script with pgbench, with the given number of clients.
pub(super) async fn run_pgbench(
    script_path: &Path,
    clients: u32,
    environment: &Environment<'_>,
    pgbench_options: &PgbenchOptions<'_>,
) -> Result<RunResult, Failure> {
    // pgbench opens new connections for each run, so the first second of a run is not counted. (The service has a
    // warm-up, too.) The last second is not counted either: when it ends, the server processes of pgbench's connections
    // end, and then their processor times can no longer be read.
    let seconds = pgbench_options.run_length.as_secs() + 2;
    let threads = clients.min(MAX_PGBENCH_THREADS).to_string();
    let mut pgbench = Command::new(pgbench_options.program)
        .args(["--no-vacuum", "--protocol=prepared", "--define=has_values=0", "--progress=1", "--jobs", &threads])
        .args(["--client", &clients.to_string(), "--time", &seconds.to_string()])
        .arg("--file")
        .arg(script_path)
        .arg(environment.url)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stderr = pgbench.stderr.take().ok_or_else(|| Failure::Message("pgbench has no pipe".to_owned()))?;
    let mut lines = BufReader::new(stderr).lines();
    let mut other_lines = Vec::new();
    // Of each progress report that is counted: the moment at which it arrived, the processor times at that moment, and
    // the reported throughput.
    let mut reports = Vec::new();
    while let Some(line) = lines.next_line().await? {
        match parse_progress_report(&line) {
            Some((elapsed_seconds, transactions_per_second)) if elapsed_seconds < seconds as f64 - 0.5 => {
                let cpu_times = cpu::times_of_child_processes(environment.postmaster_pid);
                reports.push((Instant::now(), cpu_times, transactions_per_second));
            }
            Some(_) => (),
            None => other_lines.push(line),
        }
    }
    let status = pgbench.wait().await?;
    // Each report after the first has the throughput since the report before it.
    let operations: f64 = reports.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64() * pair[1].2).sum();
    let last_report = reports.pop();
    let (Some(first), Some(last), true) =
        (reports.into_iter().next(), last_report, status.success() && operations > 0.0)
    else {
        return Err(Failure::Message(format!("pgbench failed ({status}): {}", other_lines.join("\n"))));
    };
    Ok(RunResult {
        operations_per_second: operations / (last.0 - first.0).as_secs_f64(),
        postgresql_cpu_ms: cpu_ms_per_operation(first.1, last.1, operations),
        service_cpu_ms: None,
    })
}

/// Returns the seconds since the start of pgbench and the transactions per second since its previous progress report,
/// or `None` if the line is no progress report.
fn parse_progress_report(line: &str) -> Option<(f64, f64)> {
    let mut figures = line.strip_prefix("progress: ")?.split(", ");
    let elapsed_seconds = figures.next()?.strip_suffix(" s")?.parse().ok()?;
    let transactions_per_second = figures.next()?.strip_suffix(" tps")?.parse().ok()?;
    Some((elapsed_seconds, transactions_per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reports_are_parsed_and_other_lines_are_not() {
        let report = "progress: 3.0 s, 1291.7 tps, lat 6.190 ms stddev 4.301, 0 failed";
        assert_eq!(parse_progress_report(report), Some((3.0, 1291.7)));
        assert_eq!(parse_progress_report("pgbench: error: client 0 aborted"), None);
    }
}
