//! The command `http`: the example web service compared with PostgREST, over HTTP, on one database.
//!
//! Each API is a process of its own, with the same number of connections to the database. Runs alternate, so that other
//! load on the machine affects both. The processor time per request depends less on other load than the throughput
//! does.

mod connection;
mod requests;
mod section;
mod servers;

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use testdb::Server;
use tokio::task::JoinSet;

pub use self::section::section;
use self::{
    connection::{Connection, Request},
    requests::{Api, OPERATIONS, Operation},
    servers::ApiServer,
};
use crate::{
    argument_sets::choose_argument_sets,
    client::Client,
    cpu::{self, CpuTimes},
    data_set::DataSet,
    database::{AUTH_UID_SQL, PRODUCTION_SETTINGS, create_filled_database},
    failure::Failure,
    options::HttpOptions,
    quantile::quantile_ms,
    report::{ApiResult, HttpComparison, Report, RunInfo},
    sections,
};

/// Numbers of concurrent clients.
const CLIENT_COUNTS: [usize; 3] = [1, 8, 64];
/// A run fails if a request is still unanswered this long after the end of `run_length`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum duration of the warm-up, in which the API servers open their connections to the database and prepare
/// statements.
const MAX_WARM_UP_LENGTH: Duration = Duration::from_millis(300);
/// The rows of the database, few enough to fit in the shared buffers.
const DATA_SET: DataSet =
    DataSet { users: 10_000, adventures: 100, active_sessions: 64, unstarted_sessions: 4000, ended_sessions: 2000 };

/// The context that all runs share.
struct Environment {
    /// URL of the database.
    database_url: String,
    /// The statement that deletes the seats of all newcomers, the users who send the requests to join.
    delete_seats_sql: String,
    /// The process id of PostgreSQL's postmaster.
    postmaster_pid: Option<u32>,
    /// PostgREST and the example web service, in this order.
    apis: [(Api, ApiServer); 2],
    /// The requests of each API and operation, one per caller.
    requests: HashMap<(Api, Operation), Arc<Vec<Request>>>,
}

/// Runs the command `http`.
pub async fn run(options: &HttpOptions) -> Result<(), Failure> {
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
    let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let players = requests::players(&choose_argument_sets(&DATA_SET), &secret, &mut client).await?;
    let newcomers = requests::newcomers(&DATA_SET, &secret, &mut client).await?;
    println!("filled after {:.0} s", start.elapsed().as_secs_f64());
    // The web service is started first, because at its start it runs `up`, and PostgREST reads the schema at its start.
    let service = ApiServer::start_service(database.url(), &secret).await?;
    // This `up` has replaced Supabase's `auth.uid()` with the stand-in of the migrations.
    client.run(AUTH_UID_SQL).await?;
    client.close().await?;
    let postgrest = ApiServer::start_postgrest(database.url(), &secret).await?;
    println!("ready after {:.0} s", start.elapsed().as_secs_f64());

    let mut all_requests = HashMap::new();
    for api in [Api::PostgRest, Api::Service] {
        for (operation, _) in OPERATIONS {
            let callers = if operation == Operation::Join { &newcomers } else { &players };
            let requests = callers.iter().map(|caller| requests::request_for(api, operation, caller));
            all_requests.insert((api, operation), Arc::new(requests.collect::<Result<Vec<_>, _>>()?));
        }
    }
    let environment = Environment {
        database_url: database.url().to_owned(),
        delete_seats_sql: requests::delete_seats_sql(&newcomers),
        postmaster_pid,
        apis: [(Api::PostgRest, postgrest), (Api::Service, service)],
        requests: all_requests,
    };
    let mut report = Report { run_info, ..Report::default() };
    for (operation, name) in OPERATIONS {
        for clients in CLIENT_COUNTS {
            let result = environment.compare(operation, name, clients, options).await?;
            println!(
                "{name}, {clients} clients, requests per second: service {:.0}, PostgREST {:.0}, ratio {:.2}",
                result.service.requests_per_second, result.postgrest.requests_per_second, result.ratio
            );
            report.http.push(result);
        }
    }
    report.run_info.seconds = start.elapsed().as_secs_f64();
    sections::write_report_and_section(&report, &options.out, options.write_to_docs, "http", section(&report))
}

impl Environment {
    /// Measures both APIs alternately. Returns the comparison, in which each API's result is its run with the median
    /// throughput.
    async fn compare(
        &self,
        operation: Operation,
        name: &str,
        clients: usize,
        options: &HttpOptions,
    ) -> Result<HttpComparison, Failure> {
        let run_length = Duration::from_secs_f64(options.seconds);
        let mut runs_by_api = [Vec::new(), Vec::new()];
        for round in 0..=options.rounds {
            for position in 0..2 {
                // The API that runs first alternates.
                let api_index = (round as usize + position) % 2;
                // Round 0 is the warm-up.
                let run_length = if round == 0 { MAX_WARM_UP_LENGTH.min(run_length) } else { run_length };
                let run = self.run(&self.apis[api_index], operation, clients, run_length).await?;
                if round > 0 {
                    runs_by_api[api_index].push(run);
                }
            }
        }
        let [postgrest, service] = runs_by_api.map(|mut runs: Vec<ApiResult>| {
            runs.sort_by(|a, b| a.requests_per_second.total_cmp(&b.requests_per_second));
            runs.swap_remove(runs.len() / 2)
        });
        let ratio = service.requests_per_second / postgrest.requests_per_second;
        Ok(HttpComparison { name: name.to_owned(), clients, postgrest, service, ratio })
    }

    /// Sends requests as fast as possible from concurrent clients, each on a connection of its own. A run of
    /// [`Operation::Join`] ends early if all newcomers have joined, and deletes their seats at its end.
    async fn run(
        &self,
        (api, server): &(Api, ApiServer),
        operation: Operation,
        clients: usize,
        run_length: Duration,
    ) -> Result<ApiResult, Failure> {
        let requests = self.requests[&(*api, operation)].clone();
        let next_newcomer_index = Arc::new(AtomicUsize::new(0));
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(Connection::open(server.port).await?);
        }
        let api_cpu_times = || server.pid().and_then(cpu::times_of_process);
        let (api_before, postgresql_before) = (api_cpu_times(), cpu::times_of_child_processes(self.postmaster_pid));
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, mut connection) in connections.into_iter().enumerate() {
            let (requests, next_newcomer_index) = (requests.clone(), next_newcomer_index.clone());
            tasks.spawn(async move {
                let (mut latencies, mut bytes) = (Vec::new(), 0);
                while start.elapsed() < run_length {
                    // A newcomer can take a seat only once per run, so no request to join is sent twice: each client
                    // sends the next unsent one. Other requests can be repeated, so each client repeats one.
                    let request = match operation {
                        Operation::Join => requests.get(next_newcomer_index.fetch_add(1, Ordering::Relaxed)),
                        _ => requests.get(number % requests.len()),
                    };
                    let Some(request) = request else { break };
                    let request_start = Instant::now();
                    let response = connection.send(request).await?;
                    latencies.push(request_start.elapsed());
                    if !(200..300).contains(&response.status) {
                        let body = String::from_utf8_lossy(&response.body);
                        return Err(Failure::Message(format!("{} answered {}: {body}", request.path, response.status)));
                    }
                    bytes += response.bytes;
                }
                Ok::<_, Failure>((latencies, bytes))
            });
        }
        let (mut latencies, mut bytes) = (Vec::new(), 0);
        // One timeout for all clients: a timer for each request would take processor time from the servers.
        let deadline = start + run_length + REQUEST_TIMEOUT;
        while let Some(outcome) = tokio::time::timeout_at(deadline.into(), tasks.join_next()).await.map_err(|_| {
            Failure::Message(format!(
                "{} has not answered a request {} s after the end of the run",
                server.name,
                REQUEST_TIMEOUT.as_secs()
            ))
        })? {
            let (client_latencies, client_bytes) = outcome.map_err(|error| Failure::Message(error.to_string()))??;
            latencies.extend(client_latencies);
            bytes += client_bytes;
        }
        let seconds = start.elapsed().as_secs_f64();
        let (api_after, postgresql_after) = (api_cpu_times(), cpu::times_of_child_processes(self.postmaster_pid));
        if operation == Operation::Join {
            self.delete_seats().await?;
        }
        let request_count = latencies.len() as f64;
        let cpu_ms_per_request = |before: Option<CpuTimes>, after: Option<CpuTimes>| {
            Some(after?.since(&before?).as_secs_f64() * 1000.0 / request_count)
        };
        Ok(ApiResult {
            requests_per_second: request_count / seconds,
            p50_ms: quantile_ms(&mut latencies, 0.5),
            p99_ms: quantile_ms(&mut latencies, 0.99),
            api_cpu_ms: cpu_ms_per_request(api_before, api_after),
            postgresql_cpu_ms: cpu_ms_per_request(postgresql_before, postgresql_after),
            bytes_per_response: bytes as f64 / request_count,
        })
    }

    /// Deletes the seats that newcomers took in the run.
    async fn delete_seats(&self) -> Result<(), Failure> {
        let mut client = Client::open(&self.database_url).await?;
        client.run(&self.delete_seats_sql).await?;
        client.close().await
    }
}
