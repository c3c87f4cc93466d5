#![doc = include_str!("../README.md")]

mod captured;
mod client;
mod compare;
mod cpu;
mod evening;
mod fill;
mod goals;
mod growth;
#[cfg(feature = "heap")]
mod heap;
mod indexes;
mod life;
mod live;
mod measure;
mod operations;
mod overhead;
mod page;
mod pgbench;
mod plan;
mod plots;
mod reads;
mod report;
mod rows;
mod samples;
mod side;
mod world;
mod writes;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use sea_orm::{DbErr, sqlx};

/// Why there are no figures.
#[derive(Debug)]
pub enum Failure {
    /// The server said no to a statement.
    Statement(String, sqlx::Error),
    /// The connection failed.
    Driver(sqlx::Error),
    /// Ours took longer than anybody would wait.
    Slow(&'static str),
    /// What else there is to say.
    Said(String),
}

impl Failure {
    fn of(sql: &str, error: sqlx::Error) -> Self {
        Self::Statement(sql.to_owned(), error)
    }

    /// Whether the server stopped a statement that took too long.
    fn is_out_of_time(&self) -> bool {
        matches!(self, Self::Statement(_, error)
            if error.as_database_error().and_then(|error| error.code()).as_deref() == Some("57014"))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Statement(sql, error) => write!(f, "{error}\nin: {sql}"),
            Self::Driver(error) => error.fmt(f),
            Self::Slow(what) => write!(f, "{what} takes longer than {} s", side::PATIENCE.as_secs()),
            Self::Said(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Failure {}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

/// Errors whose words are enough.
macro_rules! said {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Said(error.to_string())
            }
        })*
    };
}

said!(DbErr, service::Error, serde_json::Error, std::io::Error, testdb::Error);

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures both schemas side by side, and the service beside pgbench.
    Compare(Compare),
    /// Measures live events: what they cost writers, how soon they arrive, what listening costs.
    Live(LiveEvents),
    /// The process of the subscribers, which `live` starts.
    #[command(hide = true)]
    Listen {
        /// Address of the database.
        url: String,
        /// Accounts of the world.
        users: u64,
        /// Sessions that play.
        busy: u64,
    },
    /// Makes page and pictures of what several runs measured.
    Page(Page),
    /// Profiles what the service allocates for an operation.
    #[cfg(feature = "heap")]
    Heap {
        /// Folder for the profile.
        #[arg(long)]
        out: PathBuf,
    },
}

/// What to compare.
#[derive(Args, Clone, Debug)]
pub struct Compare {
    /// How big the world is, several with commas; 1 is 200 thousand users, 300 thousand sessions, a million rolls and events.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = scale)]
    scale: Vec<f64>,
    /// Folder for the report, the plots and the page.
    #[arg(long)]
    out: PathBuf,
    /// Writes the page and the plots into the project's documents too.
    #[arg(long)]
    docs: bool,
    /// Seconds for each run of whole operations; 0 leaves them out.
    #[arg(long, default_value = "4")]
    operations: u64,
    /// Leaves the simulated evening out.
    #[arg(long)]
    no_evening: bool,
    /// Minutes of the long life, a day of the game each; 0 leaves it out.
    #[arg(long, default_value = "3")]
    life: u64,
    /// Only the measures whose name holds this; may be said several times.
    #[arg(long)]
    only: Vec<String>,
}

/// What to measure of live events.
#[derive(Args, Clone, Debug)]
pub struct LiveEvents {
    /// Folder for the report.
    #[arg(long)]
    out: PathBuf,
    /// Leaves the simulated evenings out.
    #[arg(long)]
    no_evening: bool,
    /// Leaves out what was tried instead of the poller.
    #[arg(long)]
    no_candidates: bool,
}

/// What to tell.
#[derive(Args, Clone, Debug)]
pub struct Page {
    /// Reports of runs; what an earlier one has of a scale, or of what is measured at one scale alone, stands.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    /// Folder for the report, the plots and the page.
    #[arg(long)]
    out: PathBuf,
    /// Writes the page and the plots into the project's documents too.
    #[arg(long)]
    docs: bool,
}

/// A scale that a machine may bear.
fn scale(text: &str) -> Result<f64, String> {
    text.trim().parse().ok().filter(|scale| (0.001..=100.0).contains(scale)).ok_or("is 0.001 to 100".to_owned())
}

impl Compare {
    fn life(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.life * 60)).filter(|time| !time.is_zero())
    }

    fn operations(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.operations)).filter(|time| !time.is_zero())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Compare(compare) => compare::compare(&compare).await,
        Command::Live(live) => live::live(&live).await,
        Command::Listen { url, users, busy } => {
            let world = world::World { users, adventures: 100, busy, open: 1000, ended: 2000 };
            live::listener::listen(&url, world).await
        }
        Command::Page(page) => {
            report::together(&page.reports).and_then(|report| page::write(&report, &page.out, page.docs))
        }
        #[cfg(feature = "heap")]
        Command::Heap { out } => heap::heap(&out).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
