//! The command `drivers` (named after the database drivers sqlx and tokio-postgres): the service compared with the same
//! operations written by hand, in plain sqlx and in tokio-postgres with pipelining, on one database, with and without
//! the latency of a network.
//!
//! The report calls these three implementations *programs*, although all of them run in this process. They run
//! alternately, so that other load on the machine affects all of them alike, and with equally many connections. The
//! processor time per operation depends less on other load than the throughput does.

mod decode;
mod delay;
mod phases;
mod pipelined;
mod plain_sqlx;
mod runs;
mod section;
mod statements;

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
    plain_sqlx::PlainSqlx,
    runs::Environment,
    statements::{Statements, run_through_service},
};
use crate::{
    DriverOptions, Failure,
    argument_sets::{ArgumentSet, choose_argument_sets},
    capture::StatementCapture,
    client::Client,
    compare::PRODUCTION_SETTINGS,
    data_set::DataSet,
    live::create_filled_database,
    report::{Report, RunInfo},
    sections,
};

/// The size of each program's connection pool, which is the service's default.
const POOL_SIZE: u32 = 10;
/// Numbers of concurrent clients.
const CLIENT_COUNTS: [usize; 2] = [1, 8];
/// The latency that the proxy adds to each round trip.
const ADDED_LATENCY: Duration = Duration::from_millis(1);
/// The number of times that [`calibrate`] adjusts the proxy's delay.
const CALIBRATION_STEPS: usize = 4;
/// A database that fits in the shared buffers.
const DATA_SET: DataSet =
    DataSet { users: 10_000, adventures: 100, active_sessions: 64, unstarted_sessions: 4000, ended_sessions: 2000 };

/// A measured operation; `name` says what it reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Profile,
    Lobby,
    Details,
    History,
    Roll,
}

impl Operation {
    /// All operations. The one that writes is measured last, so that its rolls do not change what the others read. (A
    /// few rolls are made before, by the check that all programs return the same.)
    const ALL: [Self; 5] = [Self::Profile, Self::Lobby, Self::Details, Self::History, Self::Roll];

    fn name(self) -> &'static str {
        match self {
            Self::Profile => "own profile",
            Self::Lobby => "lobby",
            Self::Details => "session details",
            Self::History => "a session's rolls",
            Self::Roll => "a roll",
        }
    }
}

/// What a program does with the result of an operation after decoding it.
#[derive(Clone, Copy, Debug)]
enum ResultUse {
    /// Discards it. The measurements do this.
    Discard,
    /// Converts it to JSON, so that the programs' results can be compared.
    Json,
}

/// An operation's result as JSON, or `None` with [`ResultUse::Discard`].
type OptionalJson = Option<Value>;

impl ResultUse {
    fn discard_or_convert(self, result: impl Serialize) -> Result<OptionalJson, Failure> {
        match self {
            Self::Discard => {
                // Keeps the compiler from leaving out the decoding of a result that nobody uses.
                black_box(result);
                Ok(None)
            }
            Self::Json => Ok(Some(serde_json::to_value(result)?)),
        }
    }
}

/// One of the three compared implementations.
enum Program {
    /// The service.
    Service(Sparc),
    /// Plain sqlx.
    PlainSqlx(PlainSqlx),
    /// tokio-postgres with pipelining.
    Pipelined(Pipelined),
}

impl Program {
    async fn run(
        &self,
        operation: Operation,
        argument_set: &ArgumentSet,
        result_use: ResultUse,
    ) -> Result<OptionalJson, Failure> {
        match self {
            Self::Service(sparc) => run_through_service(sparc, operation, argument_set, result_use).await,
            Self::PlainSqlx(program) => program.run(operation, argument_set, result_use).await,
            Self::Pipelined(program) => program.run(operation, argument_set, result_use).await,
        }
    }
}

/// The measurements of the command `drivers`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DriverResults {
    /// The time of a round trip in milliseconds, without and with the added latency.
    pub round_trip_ms: [f64; 2],
    /// Each operation, with each number of clients, without and with the added latency.
    pub operations: Vec<OperationComparison>,
    /// The round trips of each operation.
    pub round_trips: Vec<RoundTrips>,
    /// The time of each phase of each operation.
    pub phases: Vec<PhaseTimes>,
}

/// The number of round trips that the caller of an operation waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The operation.
    pub name: String,
    /// The numbers of the service, of plain sqlx, and of tokio-postgres with pipelining.
    pub counts: [f64; 3],
}

/// An operation, measured in all three programs with one number of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationComparison {
    /// The operation.
    pub name: String,
    /// Whether latency was added.
    pub has_added_latency: bool,
    /// Concurrent clients.
    pub clients: usize,
    /// The results of the service, of plain sqlx, and of tokio-postgres with pipelining.
    pub results: [ProgramResult; 3],
}

/// The result of one program: its run with the median throughput.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ProgramResult {
    /// Operations per second.
    pub operations_per_second: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of the latency in milliseconds.
    pub p99_ms: f64,
    /// Processor time of this process per operation, in milliseconds; `None` where the system does not report it. With
    /// added latency, it includes the proxy's.
    pub program_cpu_ms: Option<f64>,
    /// Processor time of PostgreSQL per operation, in milliseconds.
    pub postgresql_cpu_ms: Option<f64>,
}

/// Runs the command `drivers`.
pub async fn run(options: &DriverOptions) -> Result<(), Failure> {
    let start = Instant::now();
    fs::create_dir_all(&options.out)?;
    let server = Server::start_plain(Some(&PRODUCTION_SETTINGS)).await?;
    let mut client = Client::open(server.url()).await?;
    let run_info = RunInfo::read(&mut client).await?;
    let postmaster_pid = client.postmaster_pid().await?;
    client.close().await?;
    let database = create_filled_database(&server, DATA_SET).await?;
    let mut client = Client::open(database.url()).await?;
    client.run("VACUUM ANALYZE").await?;
    client.close().await?;
    let argument_sets = choose_argument_sets(&DATA_SET);
    let statements = Statements::capture(StatementCapture::new(database.connect(1).await?), &argument_sets[0]).await?;
    println!("ready after {:.0} s", start.elapsed().as_secs_f64());

    let url = database.url();
    let (proxy, delayed_url) = start_proxy(url)?;
    let mut results =
        DriverResults { round_trip_ms: calibrate(&proxy, url, &delayed_url).await?, ..Default::default() };
    println!(
        "a round trip takes {:.3} ms, with added latency {:.3} ms",
        results.round_trip_ms[0], results.round_trip_ms[1]
    );
    let direct_programs = connect_programs(url, &statements).await?;
    let delayed_programs = connect_programs(&delayed_url, &statements).await?;
    let environment = Environment { postmaster_pid, argument_sets: Arc::new(argument_sets) };
    for operation in Operation::ALL {
        environment.check_results(operation, &direct_programs).await?;
    }
    let Program::Service(sparc) = &*direct_programs[0] else { return Err(first_program_must_be_service()) };
    let is_chosen = |operation: &Operation| {
        options.only.is_empty() || options.only.iter().any(|word| operation.name().contains(word.as_str()))
    };
    for operation in Operation::ALL.into_iter().filter(is_chosen) {
        let argument_set = &environment.argument_sets[0];
        results
            .round_trips
            .push(environment.count_round_trips(operation, [&direct_programs, &delayed_programs], &proxy).await?);
        results
            .phases
            .push(phases::measure_phases(url, sparc, operation, &statements, argument_set, options.seconds).await?);
        for (has_added_latency, programs) in [(false, &direct_programs), (true, &delayed_programs)] {
            for clients in CLIENT_COUNTS {
                let comparison = OperationComparison {
                    name: operation.name().to_owned(),
                    has_added_latency,
                    clients,
                    results: environment.compare(operation, programs, clients, options).await?,
                };
                let [service, plain_sqlx, pipelined] = comparison.results.map(|result| result.operations_per_second);
                println!(
                    "{}, {clients} clients{}, operations per second: service {service:.0}, plain sqlx {plain_sqlx:.0}, \
                     pipelined {pipelined:.0}",
                    comparison.name,
                    if has_added_latency { ", with added latency" } else { "" },
                );
                results.operations.push(comparison);
            }
        }
    }
    let mut report = Report { run_info, drivers: Some(results), ..Report::default() };
    report.run_info.seconds = start.elapsed().as_secs_f64();
    sections::write_report_and_section(&report, &options.out, options.write_to_docs, "drivers", section(&report))
}

fn first_program_must_be_service() -> Failure {
    Failure::Message("the first program must be the service".to_owned())
}

/// Starts a proxy to the database's server. Returns the proxy, and the URL with which a client connects to the database
/// through the proxy.
fn start_proxy(url: &str) -> Result<(DelayProxy, String), Failure> {
    let invalid = || Failure::Message(format!("the database's URL must have an IP address and a port: {url}"));
    let (scheme_and_login, rest) = url.rsplit_once('@').ok_or_else(invalid)?;
    let (host_and_port, database) = rest.split_once('/').ok_or_else(invalid)?;
    let server: SocketAddr = host_and_port.replace("localhost", "127.0.0.1").parse().map_err(|_| invalid())?;
    let proxy = DelayProxy::start(server, ADDED_LATENCY / 2)?;
    let url = format!("{scheme_and_login}@{}/{database}", proxy.address);
    Ok((proxy, url))
}

/// Adjusts the proxy's delay, which applies to each direction, so that the proxy prolongs a round trip by about
/// [`ADDED_LATENCY`]. Returns the milliseconds of a round trip without and with the proxy.
async fn calibrate(proxy: &DelayProxy, url: &str, delayed_url: &str) -> Result<[f64; 2], Failure> {
    let mut direct = phases::measure_round_trip(url).await?;
    let mut delayed = phases::measure_round_trip(delayed_url).await?;
    for _ in 0..CALIBRATION_STEPS {
        // The proxy's threads wake up late from each sleep, so the right delay is shorter than half the added latency.
        let delay = (proxy.delay() + ADDED_LATENCY / 2).saturating_sub(delayed.saturating_sub(direct) / 2);
        proxy.set_delay(delay.clamp(ADDED_LATENCY / 4, ADDED_LATENCY / 2));
        direct = phases::measure_round_trip(url).await?;
        delayed = phases::measure_round_trip(delayed_url).await?;
    }
    Ok([direct, delayed].map(|time| time.as_secs_f64() * 1000.0))
}

/// Creates the three programs, connected to the database at `url`.
async fn connect_programs(url: &str, statements: &Statements) -> Result<[Arc<Program>; 3], Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(POOL_SIZE)).await?;
    Ok([
        Program::Service(sparc),
        Program::PlainSqlx(PlainSqlx::connect(url, statements.clone()).await?),
        Program::Pipelined(Pipelined::new(url, statements.clone())?),
    ]
    .map(Arc::new))
}
