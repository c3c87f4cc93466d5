//! The command `drivers`: the service next to the same operations written by hand, in plain sqlx and in tokio-postgres
//! with pipelining, on one database, with and without the latency of a network.
//!
//! All of them run in this process, with as many connections, in turns, so that other load on the machine affects each;
//! processor time per operation depends on it less than throughput.

mod delay;
mod parts;
mod pipelined;
mod plain;
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
use service::{Operations, Options, Sparc};
use testdb::Server;
use tokio::task::JoinSet;

pub use self::section::section;
use self::{
    delay::Delay,
    parts::Part,
    pipelined::Pipelined,
    plain::Plain,
    statements::{Statements, service},
};
use crate::{
    Drivers, Failure,
    captured::Capturing,
    client::Client,
    compare::SETTINGS,
    cpu::{self, CpuTimes},
    live::set_up,
    measure::quantile,
    report::{Report, Settings},
    samples::{Sample, samples},
    sections,
    world::World,
};

/// Connections of each program, the service's default.
const POOL: u32 = 10;
/// Numbers of concurrent clients.
const CLIENTS: [usize; 2] = [1, 8];
/// Untimed first run: afterwards, connections are open and statements are prepared.
const WARM_UP: Duration = Duration::from_millis(300);
/// The latency that the proxy adds to a round trip.
const LATENCY: Duration = Duration::from_millis(1);
/// The same while round trips are counted.
const LONG_LATENCY: Duration = Duration::from_millis(20);
/// How often the latency is adjusted.
const CALIBRATIONS: usize = 4;
/// Calls of each operation while round trips are counted.
const CALLS: usize = 12;
/// A database whose pages are in the buffers.
const WORLD: World = World { users: 10_000, adventures: 100, busy: 64, open: 4000, ended: 2000 };

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
    /// All of them. The one that writes is the last, so that it does not change what the others read.
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

/// What the caller does with a result.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// It has it, as a value of its type.
    Result,
    /// It compares it.
    Json,
}

/// A result as JSON, if it is wanted.
type Answer = Option<Value>;

impl Want {
    fn answer(self, result: impl Serialize) -> Result<Answer, Failure> {
        match self {
            Self::Result => {
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
    async fn run(&self, operation: Operation, sample: &Sample, want: Want) -> Result<Answer, Failure> {
        match self {
            Self::Service(sparc) => service(sparc, operation, sample, want).await,
            Self::Plain(plain) => plain.run(operation, sample, want).await,
            Self::Pipelined(pipelined) => pipelined.run(operation, sample, want).await,
        }
    }
}

/// The measurements of the command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DriverResults {
    /// A round trip in milliseconds, on the machine and with the added latency.
    pub round_trip_ms: [f64; 2],
    /// Operations by number of clients and latency.
    pub operations: Vec<Compared>,
    /// How many round trips the caller of each operation waits for, by program.
    pub round_trips: Vec<RoundTrips>,
    /// The parts of each operation.
    pub parts: Vec<Part>,
}

/// How many round trips a caller waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The operation.
    pub name: String,
    /// With the service, with plain sqlx, and with tokio-postgres with pipelining.
    pub programs: [f64; 3],
}

/// An operation with a number of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Compared {
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
    /// added latency it includes the proxy's.
    pub client_cpu_ms: Option<f64>,
    /// Processor time of PostgreSQL per operation, in milliseconds.
    pub server_cpu_ms: Option<f64>,
}

/// What the runs share.
struct Environment {
    server: Option<u32>,
    samples: Arc<Vec<Sample>>,
}

/// Runs the command.
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
    let statements = Statements::capture(Capturing::new(database.connect(1).await?), &samples[0]).await?;
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
        results.parts.push(parts::measure(url, sparc, operation, &statements, sample, options.seconds).await?);
        for (is_delayed, programs) in [(false, &networks[0]), (true, &networks[1])] {
            for clients in CLIENTS {
                let programs = environment.compare(operation, programs, clients, options).await?;
                let compared = Compared { name: operation.name().to_owned(), is_delayed, clients, programs };
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

/// Starts a proxy to the server, and returns the database's address through it.
fn delayed(url: &str) -> Result<(Delay, String), Failure> {
    let no_address = || Failure::Message(format!("the database must be at an IP address and a port: {url}"));
    let (before, address) = url.rsplit_once('@').ok_or_else(no_address)?;
    let (address, after) = address.split_once('/').ok_or_else(no_address)?;
    let address: SocketAddr = address.replace("localhost", "127.0.0.1").parse().map_err(|_| no_address())?;
    let proxy = Delay::start(address, LATENCY / 2)?;
    let url = format!("{before}@{}/{after}", proxy.address);
    Ok((proxy, url))
}

/// Adjusts the delay so that a round trip takes just as much longer, and returns both round trips in milliseconds.
async fn calibrate(proxy: &Delay, url: &str, delayed_url: &str) -> Result<[f64; 2], Failure> {
    let (mut direct, mut through) = (parts::round_trip(url).await?, parts::round_trip(delayed_url).await?);
    for _ in 0..CALIBRATIONS {
        // What a thread needs to wake up adds to what it sleeps.
        let expected = (proxy.get() + LATENCY / 2).saturating_sub(through.saturating_sub(direct) / 2);
        proxy.set(expected.clamp(LATENCY / 4, LATENCY / 2));
        (direct, through) = (parts::round_trip(url).await?, parts::round_trip(delayed_url).await?);
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

impl Environment {
    /// Checks that all programs return the same, and that each runs as its caller.
    async fn check(&self, operation: Operation, programs: &[Arc<Program>; 3]) -> Result<(), Failure> {
        let Program::Service(sparc) = &*programs[0] else { return Err(not_the_service()) };
        let differs = |what: &str, found: &Answer, expected: &Answer| {
            let name = operation.name();
            Failure::Message(format!("{name}: {what} must be {expected:?}, and is {found:?}"))
        };
        let sample = &self.samples[0];
        for program in programs {
            let found = program.run(operation, sample, Want::Json).await?;
            let expected = match operation {
                // The dice fall differently each time, so the row is read again.
                Operation::Roll => {
                    let id = found.as_ref().and_then(|roll| roll["id"].as_str()?.parse().ok()).unwrap_or_default();
                    Some(serde_json::to_value(sparc.as_user(sample.player).dice().get(id).await?)?)
                }
                _ => service(sparc, operation, sample, Want::Json).await?,
            };
            if found != expected {
                return Err(differs("a result", &found, &expected));
            }
            if operation == Operation::Rolls {
                let stranger = Sample { player: sample.newcomer, ..sample.clone() };
                let (found, expected) =
                    (program.run(operation, &stranger, Want::Json).await?, Some(Value::Array(Vec::new())));
                if found != expected {
                    return Err(differs("a stranger's result", &found, &expected));
                }
            }
        }
        Ok(())
    }

    /// Measures how many round trips a caller waits for: by how much a latency that is far above any other time
    /// prolongs the fastest of a few calls.
    async fn round_trips(
        &self,
        operation: Operation,
        networks: &[[Arc<Program>; 3]; 2],
        proxy: &Delay,
    ) -> Result<RoundTrips, Failure> {
        let mut round_trips = RoundTrips { name: operation.name().to_owned(), programs: [0.0; 3] };
        let usual = proxy.get();
        for (which, found) in round_trips.programs.iter_mut().enumerate() {
            let mut fastest = [Duration::MAX; 2];
            for (programs, fastest) in networks.iter().zip(&mut fastest) {
                // Connections are opened, and statements prepared, without the latency.
                for _ in 0..POOL {
                    programs[which].run(operation, &self.samples[0], Want::Result).await?;
                }
                proxy.set(LONG_LATENCY / 2);
                for _ in 0..CALLS {
                    let begun = Instant::now();
                    programs[which].run(operation, &self.samples[0], Want::Result).await?;
                    *fastest = begun.elapsed().min(*fastest);
                }
                proxy.set(usual);
            }
            *found = fastest[1].saturating_sub(fastest[0]).as_secs_f64() / LONG_LATENCY.as_secs_f64();
        }
        Ok(round_trips)
    }

    /// Measures the programs in turns.
    async fn compare(
        &self,
        operation: Operation,
        programs: &[Arc<Program>; 3],
        clients: usize,
        options: &Drivers,
    ) -> Result<[ProgramResult; 3], Failure> {
        let time = Duration::from_secs_f64(options.seconds);
        let mut runs = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..=options.rounds {
            for step in 0..programs.len() {
                let which = (round as usize + step) % programs.len();
                // The round before the first one warms up.
                let time = if round == 0 { WARM_UP.min(time) } else { time };
                let run = self.run(operation, &programs[which], clients, time).await?;
                if round > 0 {
                    runs[which].push(run);
                }
            }
        }
        Ok(runs.map(|mut runs: Vec<ProgramResult>| {
            runs.sort_by(|a, b| a.ops_s.total_cmp(&b.ops_s));
            runs.get(runs.len() / 2).copied().unwrap_or_default()
        }))
    }

    /// Runs the operation with concurrent clients, each in a session of its own, as fast as they can.
    async fn run(
        &self,
        operation: Operation,
        program: &Arc<Program>,
        clients: usize,
        time: Duration,
    ) -> Result<ProgramResult, Failure> {
        let before = (cpu::of_this_process(), cpu::of_children(self.server));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let (program, samples) = (program.clone(), self.samples.clone());
            tasks.spawn(async move {
                let sample = &samples[number % samples.len()];
                let mut times = Vec::new();
                while begun.elapsed() < time {
                    let started = Instant::now();
                    program.run(operation, sample, Want::Result).await?;
                    times.push(started.elapsed());
                    // As in a server, where the task would wait for its next request here.
                    tokio::task::yield_now().await;
                }
                Ok::<_, Failure>(times)
            });
        }
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done.map_err(|error| Failure::Message(error.to_string()))??);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let after = (cpu::of_this_process(), cpu::of_children(self.server));
        let count = times.len() as f64;
        let spent = |before: Option<CpuTimes>, after: Option<CpuTimes>| {
            Some(after?.since(&before?).as_secs_f64() * 1000.0 / count)
        };
        Ok(ProgramResult {
            ops_s: count / seconds,
            p50_ms: quantile(&mut times, 0.5),
            p99_ms: quantile(&mut times, 0.99),
            client_cpu_ms: spent(before.0, after.0),
            server_cpu_ms: spent(before.1, after.1),
        })
    }
}
