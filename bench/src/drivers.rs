//! The command `drivers` (named after the database drivers sqlx and tokio-postgres): the service compared with the same
//! operations written by hand, in plain sqlx and in tokio-postgres with pipelining, on one database, with and without
//! the latency of a network.
//!
//! The report calls these three implementations *programs*, although all of them run in this process. They run
//! alternately, so that other load on the machine affects all of them alike, and with equally many connections. The
//! processor time per operation depends less on other load than the throughput does.

mod decode;
mod delay;
mod operation;
mod phases;
mod pipelined;
mod plain_sqlx;
mod programs;
mod runs;
mod section;
mod statements;

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use testdb::Server;

pub use self::section::section;
use self::{
    delay::DelayProxy,
    operation::Operation,
    programs::{Program, connect_programs, first_program_must_be_service},
    runs::Environment,
    statements::Statements,
};
use crate::{
    argument_sets::choose_argument_sets,
    capture::StatementCapture,
    client::Client,
    data_set::DataSet,
    database::{PRODUCTION_SETTINGS, create_filled_database},
    failure::Failure,
    options::DriverOptions,
    report::{DriverResults, OperationComparison, Report, RunInfo},
    sections,
};

/// Numbers of concurrent clients.
const CLIENT_COUNTS: [usize; 2] = [1, 8];
/// The latency that the proxy adds to each round trip.
const ADDED_LATENCY: Duration = Duration::from_millis(1);
/// The number of times that [`calibrate`] adjusts the proxy's delay.
const CALIBRATION_STEPS: usize = 4;
/// A database that fits in the shared buffers.
const DATA_SET: DataSet =
    DataSet { users: 10_000, adventures: 100, active_sessions: 64, unstarted_sessions: 4000, ended_sessions: 2000 };

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
