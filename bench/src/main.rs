#![doc = include_str!("../README.md")]

#[cfg(feature = "allocations")]
mod allocations;
mod argument_sets;
mod capture;
mod client;
mod compare;
mod cpu;
mod data_set;
mod days;
mod document;
mod drivers;
mod fill;
mod goals;
mod growth;
mod http;
mod indexes;
mod live;
mod load_test;
mod measure;
mod operations;
mod overhead;
mod pgbench;
mod plan;
mod plots;
mod reads;
mod replicas;
mod report;
mod rows;
mod sections;
mod workload;
mod writes;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use sea_orm::{DbErr, sqlx};

/// The reason why a measurement failed.
#[derive(Debug)]
pub enum Failure {
    /// This statement failed.
    Statement(String, sqlx::Error),
    /// An error of the driver without the text of a statement, for example when connecting or closing.
    Connection(sqlx::Error),
    /// A statement exceeded the statement timeout on this project's schema. The field is the statement's name in the
    /// report. (On the specification's schema, a timeout is no failure, but a result.)
    TooSlow(&'static str),
    /// Any other failure.
    Message(String),
}

impl Failure {
    fn in_statement(sql: &str, error: sqlx::Error) -> Self {
        Self::Statement(sql.to_owned(), error)
    }

    /// Whether the server cancelled the statement (`statement_timeout`).
    fn is_statement_timeout(&self) -> bool {
        matches!(self, Self::Statement(_, error)
            if error.as_database_error().and_then(|error| error.code()).as_deref() == Some("57014"))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Statement(sql, error) => write!(f, "{error}\nin: {sql}"),
            Self::Connection(error) => error.fmt(f),
            Self::TooSlow(name) => {
                write!(f, "{name} did not finish within {} s", workload::STATEMENT_TIMEOUT.as_secs())
            }
            Self::Message(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Failure {}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Connection(error)
    }
}

/// Implements the conversion of errors of these types into [`Failure::Message`].
macro_rules! impl_failure_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Message(error.to_string())
            }
        })*
    };
}

impl_failure_from!(DbErr, service::Error, serde_json::Error, std::io::Error, testdb::Error);

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compares this project's schema with the specification's, and the service with pgbench.
    Compare(CompareOptions),
    /// Measures live events: their cost to writers, their delay, and the cost of idle subscribers.
    Live(LiveOptions),
    /// Measures read replicas: the primary's load, the replicas' delay, and the cost of tracking log positions.
    Replicas(ReplicaOptions),
    /// Compares the example web service with PostgREST, over HTTP, on one database.
    Http(HttpOptions),
    /// Compares the service with the same operations in plain sqlx and in tokio-postgres with pipelining.
    Drivers(DriverOptions),
    /// Runs the subscribers of `live`, which starts this command as a process of its own.
    #[command(hide = true)]
    Subscribers {
        /// URL of the database.
        url: String,
        /// Number of accounts.
        users: u64,
        /// Number of active sessions.
        active_sessions: u64,
    },
    /// Merges the reports of several runs, and writes `performance.md` and the plots from them.
    Report(ReportOptions),
    /// Counts the service's heap allocations per operation.
    #[cfg(feature = "allocations")]
    Allocations {
        /// Folder for the heap profiles.
        #[arg(long)]
        out: PathBuf,
    },
}

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareOptions {
    /// Scales, separated by commas; 1 is 200 thousand users, 300 thousand sessions, a million rolls and a million
    /// events.
    #[arg(long = "scale", value_delimiter = ',', default_value = "1", value_parser = parse_scale)]
    scales: Vec<f64>,
    /// Folder for `report.json`, `performance.md` and the plots.
    #[arg(long)]
    out: PathBuf,
    /// Also writes `performance.md` and the plots to `docs/`. That page keeps its sections of `live`, `replicas`,
    /// `http` and `drivers`.
    #[arg(long = "docs")]
    write_to_docs: bool,
    /// Seconds of each run that compares the service's operations with pgbench; 0 skips these runs.
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u64).range(..=3600))]
    operation_seconds: u64,
    /// Skips the load test, which finds how many sessions at human speed this machine sustains.
    #[arg(long)]
    no_load_test: bool,
    /// Number of simulated days, a minute each, in which events are written and expire; 0 skips the simulation.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u64).range(..=10_000))]
    simulated_days: u64,
    /// Of the single statements, measures only those whose name contains this text, and skips the indexes; the other
    /// measurements still run. Can be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Skips the measurements of single statements and of indexes.
    #[arg(long, conflicts_with = "only")]
    no_statements: bool,
}

/// Options of `live`.
#[derive(Args, Clone, Debug)]
pub struct LiveOptions {
    /// Folder for `report.json` and this command's section of `performance.md`.
    #[arg(long)]
    out: PathBuf,
    /// Also replaces this command's section of `docs/performance.md`.
    #[arg(long = "docs")]
    write_to_docs: bool,
    /// Skips the load tests, which find how many sessions this machine sustains with subscriptions and with clients
    /// that poll.
    #[arg(long)]
    no_load_test: bool,
    /// Skips the measurements of `NOTIFY` and logical decoding. The service learns of new events by polling the table;
    /// these are the alternatives.
    #[arg(long)]
    no_alternatives: bool,
}

/// Options of `replicas`.
#[derive(Args, Clone, Debug)]
pub struct ReplicaOptions {
    /// Folder for `report.json` and this command's section of `performance.md`.
    #[arg(long)]
    out: PathBuf,
    /// Also replaces this command's section of `docs/performance.md`.
    #[arg(long = "docs")]
    write_to_docs: bool,
    /// Number of concurrent sessions of six players.
    #[arg(long, default_value = "200", value_parser = clap::value_parser!(u64).range(1..))]
    sessions: u64,
}

/// Options of `http`.
#[derive(Args, Clone, Debug)]
pub struct HttpOptions {
    /// Folder for `report.json` and this command's section of `performance.md`.
    #[arg(long)]
    out: PathBuf,
    /// Also replaces this command's section of `docs/performance.md`.
    #[arg(long = "docs")]
    write_to_docs: bool,
    /// Seconds per run.
    #[arg(long, default_value = "1.5", value_parser = parse_seconds)]
    seconds: f64,
    /// Number of runs of each API. The APIs alternate; of each, the run with the median throughput is reported.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Options of `drivers`.
#[derive(Args, Clone, Debug)]
pub struct DriverOptions {
    /// Folder for `report.json` and this command's section of `performance.md`.
    #[arg(long, default_value = "target/drivers")]
    out: PathBuf,
    /// Also replaces this command's section of `docs/performance.md`.
    #[arg(long = "docs")]
    write_to_docs: bool,
    /// Seconds per run.
    #[arg(long, default_value = "1", value_parser = parse_seconds)]
    seconds: f64,
    /// Number of runs of each program (the service, plain sqlx, tokio-postgres). The programs alternate; of each, the
    /// run with the median throughput is reported.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measures only the operations whose name contains this text; can be repeated.
    #[arg(long)]
    only: Vec<String>,
}

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportOptions {
    /// The `report.json` files to merge. If several contain the same measurement, the first one is used. Of several
    /// simulations of days, the longest is used.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    /// Folder for the merged `report.json`, `performance.md` and the plots.
    #[arg(long)]
    out: PathBuf,
    /// Also writes `performance.md` and the plots to `docs/`. That page keeps its sections of `live`, `replicas`,
    /// `http` and `drivers` if the merged report has no measurements for them.
    #[arg(long = "docs")]
    write_to_docs: bool,
}

fn parse_scale(text: &str) -> Result<f64, String> {
    text.trim().parse().ok().filter(|scale| (0.001..=100.0).contains(scale)).ok_or("must be 0.001 to 100".to_owned())
}

/// Parses the length of a run. In a run shorter than a tenth of a second, a client might not make a single call, and
/// there would be no latency to report.
fn parse_seconds(text: &str) -> Result<f64, String> {
    text.trim().parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds)).ok_or("must be 0.1 to 3600".to_owned())
}

impl CompareOptions {
    /// Returns the duration of the simulation of days, or `None` to skip it.
    fn simulation_length(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.simulated_days * days::SIMULATED_DAY_LENGTH.as_secs()))
            .filter(|duration| !duration.is_zero())
    }

    /// Returns the duration of each run that compares operations with pgbench, or `None` to skip these runs.
    fn operation_run_length(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.operation_seconds)).filter(|duration| !duration.is_zero())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Compare(options) => compare::run(&options).await,
        Command::Live(options) => live::run(&options).await,
        Command::Replicas(options) => replicas::run(&options).await,
        Command::Http(options) => http::run(&options).await,
        Command::Drivers(options) => drivers::run(&options).await,
        Command::Subscribers { url, users, active_sessions } => {
            let data_set = data_set::DataSet { users, active_sessions, ..live::DATA_SET };
            live::subscribers::run(&url, data_set).await
        }
        Command::Report(options) => report::merge(&options.reports)
            .and_then(|report| document::write(&report, &options.out, options.write_to_docs)),
        #[cfg(feature = "allocations")]
        Command::Allocations { out } => allocations::run(&out).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_and_drivers_accept_only_usable_run_lengths() {
        let is_accepted = |command: &str, seconds: &str| {
            Arguments::try_parse_from(["bench", command, "--out", "target", &format!("--seconds={seconds}")]).is_ok()
        };
        for command in ["http", "drivers"] {
            assert!(is_accepted(command, "0.2"));
            for seconds in ["0", "-1", "NaN", "inf", "1e300"] {
                assert!(!is_accepted(command, seconds), "{command} {seconds}");
            }
        }
    }
}
