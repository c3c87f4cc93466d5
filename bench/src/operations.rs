//! Whole operations of the service, compared with pgbench. pgbench runs the same statements, also in one transaction
//! per operation, but discards their results.

mod run_pgbench;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use service::{
    IdentityConnection, Operations, Options, Sparc,
    dice::{HistoryFilter, RollScope},
    events::NewEvent,
    sessions::LobbyFilter,
};
use tokio::task::JoinSet;

use self::run_pgbench::run_pgbench;
use crate::{
    Failure,
    argument_sets::ArgumentSet,
    capture::StatementCapture,
    cpu::{self, CpuTimes},
    measure::quantile_ms,
    pgbench::{self, ScriptStatement},
    reads::quote_literal,
    writes::{new_roll, roll_values},
};

/// A line of the report: an operation, measured with a fixed number of concurrent clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationResult {
    /// The operation.
    pub name: String,
    /// Concurrent clients.
    pub clients: u32,
    /// Operations per second by the service.
    pub operations_per_second: f64,
    /// Transactions per second by pgbench when it sends BEGIN and the identity in two round trips.
    pub pgbench_operations_per_second: f64,
    /// `operations_per_second` divided by `pgbench_operations_per_second`.
    pub ratio: f64,
    /// Transactions per second by pgbench when it sends BEGIN and the identity in one round trip, as the service does.
    pub pgbench_pipelined_operations_per_second: f64,
    /// Round trips per operation of the service.
    pub round_trips: usize,
    /// Median latency of the service's operation, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of that latency, in milliseconds.
    pub p99_ms: f64,
    /// PostgreSQL's processor time per operation of the service, in milliseconds; `None` where the system does not
    /// report it.
    pub postgresql_cpu_ms: Option<f64>,
    /// The service's own processor time per operation, in milliseconds.
    pub service_cpu_ms: Option<f64>,
    /// PostgreSQL's processor time per transaction of pgbench without pipelining, in milliseconds.
    pub postgresql_cpu_ms_with_pgbench: Option<f64>,
}

impl OperationResult {
    /// Whether the operation returns a page of rows.
    pub fn operation_returns_page(&self) -> bool {
        OPERATIONS
            .iter()
            .any(|(operation, name)| *name == self.name && matches!(operation, Operation::Lobby | Operation::History))
    }
}

/// A measured operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A roll of a character's attribute.
    Roll,
    /// An event sent by a client.
    SendEvent,
    /// The first page of the lobby.
    Lobby,
    /// The newest rolls of a session.
    History,
}

/// All operations with their names.
const OPERATIONS: [(Operation, &str); 4] = [
    (Operation::Roll, "a roll"),
    (Operation::SendEvent, "an event"),
    (Operation::Lobby, "a lobby page"),
    (Operation::History, "a session's rolls"),
];

/// The numbers of concurrent clients with which each operation is measured.
const CLIENT_COUNTS: [u32; 3] = [1, 8, 64];
/// The number of runs of the service, and of each of pgbench's two scripts, for each operation and number of clients.
/// These runs alternate. Throughput and processor time are those of the run with the median throughput; latencies are
/// those of all runs.
const ROUNDS: u32 = 3;
/// The deadline of each operation: the service's default. The service sends it as `statement_timeout`, and so does
/// pgbench.
const DEADLINE: Duration = Duration::from_secs(30);

/// The statement with which pgbench sets the identity and checks the account. The service needs two statements, which
/// it sends in one message with BEGIN: in production, its login has no privilege to call `require_open_account` until
/// the role is set, and PostgreSQL resolves the names in a statement before it runs the statement. Here the login is a
/// superuser, so one statement is enough for pgbench.
const SET_IDENTITY_SQL: &str = "SELECT set_config('role', $1, true), set_config('request.jwt.claims', $2, true),
    set_config('statement_timeout', $3, true), private.require_open_account()";

/// The server, the database and the argument sets that operations run with.
#[derive(Clone)]
pub struct Environment<'a> {
    /// URL of the database.
    pub url: &'a str,
    /// The users and sessions of the clients. Each client uses one argument set; if there are fewer argument sets than
    /// clients, clients share them.
    pub argument_sets: &'a [ArgumentSet],
    /// The process id of the server's postmaster.
    pub postmaster_pid: Option<u32>,
}

/// Options of the comparison with pgbench.
pub struct PgbenchOptions<'a> {
    /// Path of the program pgbench.
    pub program: &'a Path,
    /// Folder for pgbench's scripts.
    pub script_folder: &'a Path,
    /// The measured duration of each run, of the service and of pgbench.
    pub run_length: Duration,
}

/// The result of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunResult {
    /// Operations per second.
    pub operations_per_second: f64,
    /// PostgreSQL's processor time per operation, in milliseconds.
    pub postgresql_cpu_ms: Option<f64>,
    /// The service's processor time per operation, in milliseconds; `None` for a run of pgbench.
    pub service_cpu_ms: Option<f64>,
}

/// Measures all operations. `new_capture` opens a new connection, on which the statements of one operation are
/// captured.
pub async fn measure_operations(
    environment: &Environment<'_>,
    pgbench_options: &PgbenchOptions<'_>,
    new_capture: impl AsyncFn() -> Result<StatementCapture, Failure>,
) -> Result<Vec<OperationResult>, Failure> {
    let mut results = Vec::new();
    for (operation, name) in OPERATIONS {
        let statements = capture_statements(operation, new_capture().await?, environment.argument_sets).await?;
        // BEGIN and the identity (the first of the statements) take one round trip; each other statement takes one, and
        // so does COMMIT.
        let round_trips = statements.len() + 1;
        let scripts = [false, true].map(|is_pipelined| {
            let file_name = if is_pipelined { "pipelined.sql" } else { "script.sql" };
            (pgbench_options.script_folder.join(file_name), pgbench::build_script(&statements, is_pipelined))
        });
        for (path, script) in &scripts {
            tokio::fs::write(path, script).await?;
        }
        for clients in CLIENT_COUNTS {
            // One connection per client, but at least ten, the service's default.
            let connections = clients.max(10);
            let sparc = Sparc::connect_with(environment.url, Options::default().max_connections(connections)).await?;
            let (mut service_runs, mut latencies) = (Vec::new(), Vec::new());
            // The runs without pipelining, and those with it.
            let mut pgbench_runs = [Vec::new(), Vec::new()];
            // The warm-up opens every connection and prepares its statements.
            run_service_clients(operation, &sparc, clients, environment, Duration::from_secs(1)).await?;
            for _ in 0..ROUNDS {
                let (run, run_latencies) =
                    run_service_clients(operation, &sparc, clients, environment, pgbench_options.run_length).await?;
                service_runs.push(run);
                latencies.extend(run_latencies);
                for (runs, (script_path, _)) in pgbench_runs.iter_mut().zip(&scripts) {
                    runs.push(run_pgbench(script_path, clients, environment, pgbench_options).await?);
                }
            }
            sparc.close().await?;
            let service = median_run(service_runs);
            let [unpipelined, pipelined] = pgbench_runs.map(median_run);
            results.push(OperationResult {
                name: name.to_owned(),
                clients,
                operations_per_second: service.operations_per_second,
                pgbench_operations_per_second: unpipelined.operations_per_second,
                ratio: service.operations_per_second / unpipelined.operations_per_second,
                pgbench_pipelined_operations_per_second: pipelined.operations_per_second,
                round_trips,
                p50_ms: quantile_ms(&mut latencies, 0.5),
                p99_ms: quantile_ms(&mut latencies, 0.99),
                postgresql_cpu_ms: service.postgresql_cpu_ms,
                service_cpu_ms: service.service_cpu_ms,
                postgresql_cpu_ms_with_pgbench: unpipelined.postgresql_cpu_ms,
            });
            println!(
                "{name}, {clients} clients, operations per second: service {:.0}; pgbench {:.0}, ratio {:.2}; \
                 pipelined pgbench {:.0}, ratio {:.2}",
                service.operations_per_second,
                unpipelined.operations_per_second,
                service.operations_per_second / unpipelined.operations_per_second,
                pipelined.operations_per_second,
                service.operations_per_second / pipelined.operations_per_second
            );
        }
    }
    Ok(results)
}

/// Returns the run with the median throughput.
fn median_run(mut runs: Vec<RunResult>) -> RunResult {
    runs.sort_by(|a, b| a.operations_per_second.total_cmp(&b.operations_per_second));
    runs.swap_remove(runs.len() / 2)
}

/// Runs the operation once.
pub async fn run_once(
    operation: Operation,
    caller: &IdentityConnection,
    argument_set: &ArgumentSet,
) -> Result<(), Failure> {
    match operation {
        Operation::Roll => {
            caller.dice().roll(new_roll(argument_set)?).await?;
        }
        Operation::SendEvent => {
            let event = NewEvent { session_id: argument_set.session, kind: "wave".to_owned(), ..Default::default() };
            caller.events().send(event).await?;
        }
        Operation::Lobby => {
            caller.sessions().lobby(&LobbyFilter::default(), None).await?;
        }
        Operation::History => {
            caller.dice().history(RollScope::Session(argument_set.session), &HistoryFilter::default(), None).await?;
        }
    }
    Ok(())
}

/// Runs the operation through the service as fast as possible for `run_length`, with concurrent clients, each with an
/// argument set of its own if there are enough. Returns the result of the run, and the latency of each operation.
pub async fn run_service_clients(
    operation: Operation,
    sparc: &Sparc,
    clients: u32,
    environment: &Environment<'_>,
    run_length: Duration,
) -> Result<(RunResult, Vec<Duration>), Failure> {
    let (postgresql_before, service_before) =
        (cpu::times_of_child_processes(environment.postmaster_pid), cpu::times_of_this_process());
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let argument_set = environment.argument_sets[number as usize % environment.argument_sets.len()].clone();
        let caller = sparc.as_user(argument_set.player);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < run_length {
                let operation_start = Instant::now();
                run_once(operation, &caller, &argument_set).await?;
                latencies.push(operation_start.elapsed());
                // In a service, the task would wait for its next request here. Without the yield, a task whose answer
                // has already arrived would continue while the others wait.
                tokio::task::yield_now().await;
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        latencies.extend(outcome.map_err(|error| Failure::Message(error.to_string()))??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let run = RunResult {
        operations_per_second: latencies.len() as f64 / seconds,
        postgresql_cpu_ms: cpu_ms_per_operation(
            postgresql_before,
            cpu::times_of_child_processes(environment.postmaster_pid),
            latencies.len() as f64,
        ),
        service_cpu_ms: cpu_ms_per_operation(service_before, cpu::times_of_this_process(), latencies.len() as f64),
    };
    Ok((run, latencies))
}

/// Returns the processor time per operation, in milliseconds.
fn cpu_ms_per_operation(before: Option<CpuTimes>, after: Option<CpuTimes>, operations: f64) -> Option<f64> {
    let used = after?.since(&before?);
    Some(used.as_secs_f64() * 1000.0 / operations)
}

/// Runs the operation once and captures its statements. Returns first the statement that sets the identity, and then
/// the captured statements, each with its values for each argument set.
async fn capture_statements(
    operation: Operation,
    mut capture: StatementCapture,
    argument_sets: &[ArgumentSet],
) -> Result<Vec<ScriptStatement>, Failure> {
    let caller = capture.sparc.as_user(argument_sets[0].player).with_deadline(DEADLINE);
    run_once(operation, &caller, &argument_sets[0]).await?;
    let identity_values = |argument_set: &ArgumentSet| -> Vec<String> {
        let claims = format!("{{\"role\":\"authenticated\",\"sub\":\"{}\"}}", argument_set.player);
        vec![quote_literal("authenticated"), quote_literal(claims), quote_literal(DEADLINE.as_millis())]
    };
    // The values of the operation's only statement.
    let statement_values = |argument_set: &ArgumentSet| -> Vec<String> {
        let session = quote_literal(argument_set.session);
        match operation {
            Operation::Roll => roll_values(argument_set),
            Operation::SendEvent => {
                vec![pgbench::NEW_UUID.to_owned(), session, quote_literal("client.wave"), quote_literal("{}")]
            }
            Operation::Lobby => Vec::new(),
            // The limit: fifty rolls, and one more to see whether there is a next page.
            Operation::History => vec![session, quote_literal(51)],
        }
    };
    let mut statements = vec![ScriptStatement {
        sql: SET_IDENTITY_SQL.to_owned(),
        values: argument_sets.iter().map(identity_values).collect(),
    }];
    for captured in capture.new_statements().await? {
        let values = argument_sets.iter().map(statement_values).collect();
        statements.push(ScriptStatement { sql: captured.sql, values });
    }
    Ok(statements)
}
