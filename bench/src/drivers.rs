//! The command `drivers`: the service compared with the same operations written by hand, in plain sqlx and in
//! tokio-postgres with pipelining, on one database, with and without the latency of a network.
//!
//! All three run alternately in this process, with equally many connections, so that other load on the machine affects
//! each. The processor time per operation depends on other load less than the throughput.

mod delay;
mod phases;
mod pipelined;
mod plain;
mod runs;
mod section;
mod statements;
mod typed;

use std::{
    fs,
    hint::black_box,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::{Options, Sparc};
use testdb::Server;

pub use self::section::section;
use self::{
    delay::DelayProxy,
    phases::PhaseTimes,
    pipelined::Pipelined,
    plain::Plain,
    runs::Environment,
    statements::{Statements, run_service},
};
use crate::{
    Drivers, Failure,
    capture::StatementCapture,
    client::Client,
    compare::SETTINGS,
    live::set_up,
    report::{Report, Settings},
    samples::{Sample, samples},
    sections,
    world::World,
};

/// Connections of each program, the service's default.
const POOL: u32 = 10;
/// Numbers of concurrent clients.
const CLIENTS: [usize; 2] = [1, 8];
/// The latency that the proxy adds to a round trip.
const LATENCY: Duration = Duration::from_millis(1);
/// The number of times that the latency is adjusted.
const CALIBRATIONS: usize = 4;
/// A database that fits in the buffers.
const WORLD: World = World { users: 10_000, adventures: 100, active: 64, open: 4000, ended: 2000 };

/// A measured operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Profile,
    Lobby,
    Details,
    Rolls,
    Roll,
}

impl Operation {
    /// All operations. The one that writes is the last, so that it does not change what the others read.
    const ALL: [Self; 5] = [Self::Profile, Self::Lobby, Self::Details, Self::Rolls, Self::Roll];

    fn name(self) -> &'static str {
        match self {
            Self::Profile => "own profile",
            Self::Lobby => "lobby",
            Self::Details => "session details",
            Self::Rolls => "a session's rolls",
            Self::Roll => "a roll",
        }
    }
}

/// The result that a caller asks for.
#[derive(Clone, Copy, Debug)]
enum Output {
    /// The decoded value, which is discarded.
    Value,
    /// JSON, to compare the programs.
    Json,
}

/// The result as JSON, or `None` with [`Output::Value`].
type Answer = Option<Value>;

impl Output {
    fn convert(self, result: impl Serialize) -> Result<Answer, Failure> {
        match self {
            Self::Value => {
                black_box(result);
                Ok(None)
            }
            Self::Json => Ok(Some(serde_json::to_value(result)?)),
        }
    }
}

/// One of the compared programs.
enum Program {
    Service(Sparc),
    Plain(Plain),
    Pipelined(Pipelined),
}

impl Program {
    async fn run(&self, operation: Operation, sample: &Sample, output: Output) -> Result<Answer, Failure> {
        match self {
            Self::Service(sparc) => run_service(sparc, operation, sample, output).await,
            Self::Plain(plain) => plain.run(operation, sample, output).await,
            Self::Pipelined(pipelined) => pipelined.run(operation, sample, output).await,
        }
    }
}

/// The measurements of the command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DriverResults {
    /// A round trip in milliseconds, without and with the added latency.
    pub round_trip_ms: [f64; 2],
    /// Operations by number of clients and latency.
    pub operations: Vec<OperationComparison>,
    pub round_trips: Vec<RoundTrips>,
    #[serde(alias = "parts")]
    pub phases: Vec<PhaseTimes>,
}

/// How many round trips the caller of an operation waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The operation.
    pub name: String,
    /// By the service, plain sqlx, and tokio-postgres with pipelining.
    pub programs: [f64; 3],
}

/// An operation with a number of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationComparison {
    /// The operation.
    pub name: String,
    /// Whether latency was added.
    pub is_delayed: bool,
    /// Concurrent clients.
    pub clients: usize,
    /// The service, plain sqlx, and tokio-postgres with pipelining.
    pub programs: [ProgramResult; 3],
}

/// The medians of one program's runs.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ProgramResult {
    /// Operations per second.
    pub ops_s: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of the latency in milliseconds.
    pub p99_ms: f64,
    /// Processor time of this process per operation, in milliseconds; `None` where the system does not report it. With
    /// added latency, it includes the proxy's.
    pub client_cpu_ms: Option<f64>,
    /// Processor time of PostgreSQL per operation, in milliseconds.
    pub server_cpu_ms: Option<f64>,
}

/// Runs the command `drivers`.
pub async fn drivers(options: &Drivers) -> Result<(), Failure> {
    let begun = Instant::now();
    fs::create_dir_all(&options.out)?;
    let server = Server::start_private(Some(&SETTINGS)).await?;
    let mut client = Client::open(server.url()).await?;
    let settings = Settings::of(&mut client).await?;
    let postmaster = client.value("SELECT pg_read_file('postmaster.pid')").await?;
    client.close().await?;
    let database = set_up(&server, WORLD).await?;
    let mut client = Client::open(database.url()).await?;
    client.run("VACUUM ANALYZE").await?;
    client.close().await?;
    let samples = samples(&WORLD);
    let statements = Statements::capture(StatementCapture::new(database.connect(1).await?), &samples[0]).await?;
    println!("ready after {:.0} s", begun.elapsed().as_secs_f64());

    let url = database.url();
    let (proxy, delayed_url) = delayed(url)?;
    let mut results =
        DriverResults { round_trip_ms: calibrate(&proxy, url, &delayed_url).await?, ..Default::default() };
    println!(
        "a round trip takes {:.3} ms, with added latency {:.3} ms",
        results.round_trip_ms[0], results.round_trip_ms[1]
    );
    let networks = [programs(url, &statements).await?, programs(&delayed_url, &statements).await?];
    let environment = Environment {
        server: postmaster.lines().next().and_then(|line| line.parse().ok()),
        samples: Arc::new(samples),
    };
    for operation in Operation::ALL {
        environment.check(operation, &networks[0]).await?;
    }
    let Program::Service(sparc) = &*networks[0][0] else { return Err(not_the_service()) };
    let is_chosen = |operation: &Operation| {
        options.only.is_empty() || options.only.iter().any(|only| operation.name().contains(only.as_str()))
    };
    for operation in Operation::ALL.into_iter().filter(is_chosen) {
        let sample = &environment.samples[0];
        results.round_trips.push(environment.round_trips(operation, &networks, &proxy).await?);
        results.phases.push(phases::measure(url, sparc, operation, &statements, sample, options.seconds).await?);
        for (is_delayed, programs) in [(false, &networks[0]), (true, &networks[1])] {
            for clients in CLIENTS {
                let programs = environment.compare(operation, programs, clients, options).await?;
                let compared = OperationComparison { name: operation.name().to_owned(), is_delayed, clients, programs };
                let [service, plain, pipelined] = compared.programs.map(|one| one.ops_s);
                println!(
                    "{}, {clients} clients{}: {service:.0} per second, sqlx {plain:.0}, pipelined {pipelined:.0}",
                    compared.name,
                    if is_delayed { ", delayed" } else { "" },
                );
                results.operations.push(compared);
            }
        }
    }
    let mut report = Report { settings, drivers: Some(results), ..Report::default() };
    report.settings.seconds = begun.elapsed().as_secs_f64();
    sections::write(&report, &options.out, options.docs, "drivers", section(&report))
}

fn not_the_service() -> Failure {
    Failure::Message("the first program must be the service".to_owned())
}

/// Starts a proxy to the server, and returns the database's URL through it.
fn delayed(url: &str) -> Result<(DelayProxy, String), Failure> {
    let invalid = || Failure::Message(format!("the database's URL must have an IP address and a port: {url}"));
    let (before, rest) = url.rsplit_once('@').ok_or_else(invalid)?;
    let (host_and_port, after) = rest.split_once('/').ok_or_else(invalid)?;
    let server: SocketAddr = host_and_port.replace("localhost", "127.0.0.1").parse().map_err(|_| invalid())?;
    let proxy = DelayProxy::start(server, LATENCY / 2)?;
    let url = format!("{before}@{}/{after}", proxy.address);
    Ok((proxy, url))
}

/// Adjusts the delay until it prolongs a round trip by [`LATENCY`], and returns both round trips in milliseconds.
async fn calibrate(proxy: &DelayProxy, url: &str, delayed_url: &str) -> Result<[f64; 2], Failure> {
    let (mut direct, mut through) = (phases::round_trip(url).await?, phases::round_trip(delayed_url).await?);
    for _ in 0..CALIBRATIONS {
        // A sleeping thread wakes up late, so the delay must be shorter.
        let expected = (proxy.get() + LATENCY / 2).saturating_sub(through.saturating_sub(direct) / 2);
        proxy.set(expected.clamp(LATENCY / 4, LATENCY / 2));
        (direct, through) = (phases::round_trip(url).await?, phases::round_trip(delayed_url).await?);
    }
    Ok([direct, through].map(|time| time.as_secs_f64() * 1000.0))
}

/// Connects the three programs.
async fn programs(url: &str, statements: &Statements) -> Result<[Arc<Program>; 3], Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(POOL)).await?;
    Ok([
        Program::Service(sparc),
        Program::Plain(Plain::connect(url, statements.clone()).await?),
        Program::Pipelined(Pipelined::new(url, statements.clone())?),
    ]
    .map(Arc::new))
}
