//! The options of the commands.

use std::{path::PathBuf, time::Duration};

use clap::Args;

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareOptions {
    /// Scales, separated by commas; 1 is 200 thousand users, 300 thousand sessions, a million rolls and a million
    /// events.
    #[arg(long = "scale", value_delimiter = ',', default_value = "1", value_parser = parse_scale)]
    pub scales: Vec<f64>,
    /// Folder for `report.json`, `performance.md` and the plots.
    #[arg(long)]
    pub out: PathBuf,
    /// Also writes `performance.md` and the plots to `docs/`. That page keeps its sections of `live`, `replicas`,
    /// `http` and `drivers`.
    #[arg(long = "docs")]
    pub write_to_docs: bool,
    /// Seconds of each run that compares the service's operations with pgbench; 0 skips these runs.
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u64).range(..=3600))]
    pub operation_seconds: u64,
    /// Skips the load test, which finds how many sessions at human speed this machine sustains.
    #[arg(long)]
    pub no_load_test: bool,
    /// Number of simulated days, a minute each, in which events are written and expire; 0 skips the simulation.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub simulated_days: u64,
    /// Of the single statements, measures only those whose name contains this text, and skips the indexes; the other
    /// measurements still run. Can be repeated.
    #[arg(long)]
    pub only: Vec<String>,
    /// Skips the measurements of single statements and of indexes.
    #[arg(long, conflicts_with = "only")]
    pub no_statements: bool,
}

impl CompareOptions {
    /// Returns the duration of each run that compares operations with pgbench, or `None` to skip these runs.
    pub fn operation_run_length(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.operation_seconds)).filter(|duration| !duration.is_zero())
    }
}

/// Options of `live`.
#[derive(Args, Clone, Debug)]
pub struct LiveOptions {
    /// Folder for `report.json` and this command's section of `performance.md`.
    #[arg(long)]
    pub out: PathBuf,
    /// Also replaces this command's section of `docs/performance.md`.
    #[arg(long = "docs")]
    pub write_to_docs: bool,
    /// Skips the load tests, which find how many sessions this machine sustains with subscriptions and with clients
    /// that poll.
    #[arg(long)]
    pub no_load_test: bool,
    /// Skips the measurements of `NOTIFY` and logical decoding. The service learns of new events by polling the table;
    /// these are the alternatives.
    #[arg(long)]
    pub no_alternatives: bool,
}

/// Options of `replicas`.
#[derive(Args, Clone, Debug)]
pub struct ReplicaOptions {
    /// Folder for `report.json` and this command's section of `performance.md`.
    #[arg(long)]
    pub out: PathBuf,
    /// Also replaces this command's section of `docs/performance.md`.
    #[arg(long = "docs")]
    pub write_to_docs: bool,
    /// Number of concurrent sessions of six players.
    #[arg(long, default_value = "200", value_parser = clap::value_parser!(u64).range(1..))]
    pub sessions: u64,
}

/// Options of `http`.
#[derive(Args, Clone, Debug)]
pub struct HttpOptions {
    /// Folder for `report.json` and this command's section of `performance.md`.
    #[arg(long)]
    pub out: PathBuf,
    /// Also replaces this command's section of `docs/performance.md`.
    #[arg(long = "docs")]
    pub write_to_docs: bool,
    /// Seconds per run.
    #[arg(long, default_value = "1.5", value_parser = parse_seconds)]
    pub seconds: f64,
    /// Number of runs of each API. The APIs alternate; of each, the run with the median throughput is reported.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
}

/// Options of `drivers`.
#[derive(Args, Clone, Debug)]
pub struct DriverOptions {
    /// Folder for `report.json` and this command's section of `performance.md`.
    #[arg(long, default_value = "target/drivers")]
    pub out: PathBuf,
    /// Also replaces this command's section of `docs/performance.md`.
    #[arg(long = "docs")]
    pub write_to_docs: bool,
    /// Seconds per run.
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    pub seconds: f64,
    /// Number of runs of each program (the service, plain sqlx, tokio-postgres). The programs alternate; of each, the
    /// run with the median throughput is reported.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Measures only the operations whose name contains this text; can be repeated.
    #[arg(long)]
    pub only: Vec<String>,
}

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportOptions {
    /// The `report.json` files to merge. If several contain the same measurement, the first one is used. Of several
    /// simulations of days, the longest is used.
    #[arg(required = true)]
    pub reports: Vec<PathBuf>,
    /// Folder for the merged `report.json`, `performance.md` and the plots.
    #[arg(long)]
    pub out: PathBuf,
    /// Also writes `performance.md` and the plots to `docs/`. That page keeps its sections of `live`, `replicas`,
    /// `http` and `drivers` if the merged report has no measurements for them.
    #[arg(long = "docs")]
    pub write_to_docs: bool,
}

fn parse_scale(text: &str) -> Result<f64, String> {
    text.trim().parse().ok().filter(|scale| (0.001..=100.0).contains(scale)).ok_or("must be 0.001 to 100".to_owned())
}

/// Parses the length of a run. In a run shorter than a tenth of a second, a client might not make a single call, and
/// there would be no latency to report.
fn parse_seconds(text: &str) -> Result<f64, String> {
    text.trim().parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds)).ok_or("must be 0.1 to 3600".to_owned())
}
