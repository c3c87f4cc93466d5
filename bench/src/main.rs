#![doc = include_str!("../README.md")]

#[cfg(feature = "allocations")]
mod allocations;
mod argument_sets;
mod capture;
mod client;
mod compare;
mod cpu;
mod data_set;
mod database;
mod days;
mod document;
mod drivers;
mod failure;
mod fill;
mod goals;
mod growth;
mod http;
mod indexes;
mod live;
mod load_test;
mod measure;
mod operations;
mod options;
mod overhead;
mod pgbench;
mod plan;
mod plots;
mod quantile;
mod reads;
mod replicas;
mod report;
mod roll;
mod rows;
mod schema;
mod sections;
mod sql_values;
mod workload;
mod writes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    data_set::DataSet,
    options::{CompareOptions, DriverOptions, HttpOptions, LiveOptions, ReplicaOptions, ReportOptions},
};

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
        out: std::path::PathBuf,
    },
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
            let data_set = DataSet { users, active_sessions, ..live::DATA_SET };
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
