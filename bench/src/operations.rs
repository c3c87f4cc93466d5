//! Whole operations of the service, compared with pgbench, which runs the same statements in the same transactions, as
//! an upper bound for any client.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use service::{
    IdentityConnection, Operations, Options, Sparc,
    dice::{HistoryFilter, RollScope},
    events::NewEvent,
    sessions::LobbyFilter,
};
use tokio::{process::Command, task::JoinSet};

use crate::{
    Failure,
    capture::StatementCapture,
    cpu::{self, CpuTimes},
    measure::quantile,
    pgbench::{self, Step},
    reads::quoted,
    samples::Sample,
    writes::{check, roll_values},
};

/// An operation with a number of clients, in the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationResult {
    /// The operation.
    pub name: String,
    /// Concurrent clients.
    pub clients: u32,
    /// Operations per second by the service.
    pub ops_s: f64,
    /// Transactions per second by pgbench.
    pub pgbench_ops_s: f64,
    /// `ops_s` divided by `pgbench_ops_s`.
    pub ratio: f64,
    /// Transactions per second by pgbench with begin and identity in one message, as the service sends them.
    pub pgbench_pipelined_ops_s: f64,
    /// Round trips per operation.
    pub round_trips: usize,
    /// Median latency of the service's operation, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of the latency, in milliseconds.
    pub p99_ms: f64,
    /// The server's processor time per operation, in milliseconds; `None` where the system does not report it.
    pub server_cpu_ms: Option<f64>,
    /// The service's own processor time per operation, in milliseconds.
    pub client_cpu_ms: Option<f64>,
    /// The server's processor time per transaction of pgbench, in milliseconds.
    pub pgbench_server_cpu_ms: Option<f64>,
}

impl OperationResult {
    /// Whether the operation returns a page of rows.
    pub fn returns_rows(&self) -> bool {
        ALL.iter()
            .any(|(operation, name)| *name == self.name && matches!(operation, Operation::Lobby | Operation::History))
    }
}

/// The measured operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A character's check.
    Roll,
    /// An event sent by a client.
    Send,
    /// The first page of the lobby.
    Lobby,
    /// The newest rolls of a session.
    History,
}

const ALL: [(Operation, &str); 4] = [
    (Operation::Roll, "a roll"),
    (Operation::Send, "an event"),
    (Operation::Lobby, "a lobby page"),
    (Operation::History, "a session's rolls"),
];

/// Numbers of concurrent clients.
const CLIENTS: [u32; 3] = [1, 8, 64];
/// Runs of the service and of pgbench, which alternate; the medians count.
const ROUNDS: u32 = 3;
/// The deadline of each operation, which the service sends as `statement_timeout`.
const DEADLINE: Duration = Duration::from_secs(30);

/// The identity and the check of the account, which the service sends together with BEGIN. The service checks in a
/// statement of its own, because its login cannot name the function before the role is set.
const IDENTITY: &str = "SELECT set_config('role', $1, true), set_config('request.jwt.claims', $2, true),
    set_config('statement_timeout', $3, true), private.require_account()";

/// The server, the database and the samples that operations run with.
#[derive(Clone)]
pub struct Environment<'a> {
    /// URL of the database.
    pub url: &'a str,
    /// Path of pgbench.
    pub pgbench: PathBuf,
    pub samples: &'a [Sample],
    /// The server's process id.
    pub server: Option<u32>,
    /// Folder for pgbench's scripts.
    pub folder: &'a Path,
    /// Duration of each run.
    pub time: Duration,
}

/// The result of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Operations per second.
    pub ops_s: f64,
    /// The server's processor time per operation, in milliseconds.
    pub server_cpu_ms: Option<f64>,
    /// The client's processor time per operation, in milliseconds.
    pub client_cpu_ms: Option<f64>,
}

/// Measures all operations. Each operation's statements are captured on a connection of its own.
pub async fn operations(
    environment: &Environment<'_>,
    capture: impl AsyncFn() -> Result<StatementCapture, Failure>,
) -> Result<Vec<OperationResult>, Failure> {
    let mut results = Vec::new();
    for (operation, name) in ALL {
        let steps = steps(operation, capture().await?, environment.samples).await?;
        // The first step shares a message with BEGIN; each other statement and COMMIT are one more round trip.
        let round_trips = steps.len() + 1;
        let scripts = [false, true].map(|pipelined| {
            let name = if pipelined { "pipelined.sql" } else { "script.sql" };
            (environment.folder.join(name), pgbench::script(&steps, pipelined))
        });
        for (path, script) in &scripts {
            tokio::fs::write(path, script).await?;
        }
        for clients in CLIENTS {
            // One per client, and at least the default.
            let connections = clients.max(10);
            let sparc = Sparc::connect_with(environment.url, Options::default().max_connections(connections)).await?;
            let (mut ours, mut bench, mut times) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
            // Opens every connection and prepares its statements.
            run_service(operation, &sparc, clients, environment, Duration::from_secs(1)).await?;
            for _ in 0..ROUNDS {
                let (run, took) = run_service(operation, &sparc, clients, environment, environment.time).await?;
                ours.push(run);
                times.extend(took);
                for (runs, (script, _)) in bench.iter_mut().zip(&scripts) {
                    runs.push(run_pgbench(script, clients, environment).await?);
                }
            }
            sparc.close().await?;
            let (ours, [bench, pipelined]) = (median(ours), bench.map(median));
            results.push(OperationResult {
                name: name.to_owned(),
                clients,
                ops_s: ours.ops_s,
                pgbench_ops_s: bench.ops_s,
                ratio: ours.ops_s / bench.ops_s,
                pgbench_pipelined_ops_s: pipelined.ops_s,
                round_trips,
                p50_ms: quantile(&mut times, 0.5),
                p99_ms: quantile(&mut times, 0.99),
                server_cpu_ms: ours.server_cpu_ms,
                client_cpu_ms: ours.client_cpu_ms,
                pgbench_server_cpu_ms: bench.server_cpu_ms,
            });
            println!(
                "{name}, {clients} clients: {:.0} per second; pgbench {:.0}, ratio {:.2}; pipelined {:.0}, ratio {:.2}",
                ours.ops_s,
                bench.ops_s,
                ours.ops_s / bench.ops_s,
                pipelined.ops_s,
                ours.ops_s / pipelined.ops_s
            );
        }
    }
    Ok(results)
}

fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.ops_s.total_cmp(&b.ops_s));
    runs.get(runs.len() / 2).copied().unwrap_or_default()
}

/// Runs the operation once.
pub async fn run_once(operation: Operation, ada: &IdentityConnection, sample: &Sample) -> Result<(), Failure> {
    match operation {
        Operation::Roll => {
            ada.dice().roll(check(sample)?).await?;
        }
        Operation::Send => {
            let event = NewEvent { session_id: sample.session, kind: "wave".to_owned(), ..Default::default() };
            ada.events().send(event).await?;
        }
        Operation::Lobby => {
            ada.sessions().lobby(&LobbyFilter::default(), None).await?;
        }
        Operation::History => {
            ada.dice().history(RollScope::Session(sample.session), &HistoryFilter::default(), None).await?;
        }
    }
    Ok(())
}

/// Runs the operation as fast as possible with concurrent clients, each in a session of its own.
pub async fn run_service(
    operation: Operation,
    sparc: &Sparc,
    clients: u32,
    environment: &Environment<'_>,
    time: Duration,
) -> Result<(Run, Vec<Duration>), Failure> {
    let (server, client) = (cpu::of_children(environment.server), cpu::of_this_process());
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let sample = environment.samples[number as usize % environment.samples.len()].clone();
        let ada = sparc.as_user(sample.player);
        tasks.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < time {
                let started = Instant::now();
                run_once(operation, &ada, &sample).await?;
                took.push(started.elapsed());
                // In a service, the task would wait for its next request here. Without the yield, a task whose answers
                // have already arrived would continue while the others wait.
                tokio::task::yield_now().await;
            }
            Ok::<_, Failure>(took)
        });
    }
    let mut times = Vec::new();
    while let Some(took) = tasks.join_next().await {
        times.extend(took.map_err(|error| Failure::Message(error.to_string()))??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let run = Run {
        ops_s: times.len() as f64 / seconds,
        server_cpu_ms: per_operation(server, cpu::of_children(environment.server), times.len() as f64),
        client_cpu_ms: per_operation(client, cpu::of_this_process(), times.len() as f64),
    };
    Ok((run, times))
}

/// Returns the milliseconds per operation.
fn per_operation(before: Option<CpuTimes>, after: Option<CpuTimes>, count: f64) -> Option<f64> {
    let spent = after?.since(&before?);
    Some(spent.as_secs_f64() * 1000.0 / count)
}

/// Returns the identity and the captured statements of the operation, with the values of each sample.
async fn steps(operation: Operation, mut capture: StatementCapture, samples: &[Sample]) -> Result<Vec<Step>, Failure> {
    let ada = capture.sparc.as_user(samples[0].player).with_deadline(DEADLINE);
    run_once(operation, &ada, &samples[0]).await?;
    let identity = |sample: &Sample| -> Vec<String> {
        let claims = format!("{{\"role\":\"authenticated\",\"sub\":\"{}\"}}", sample.player);
        vec![quoted("authenticated"), quoted(claims), quoted(DEADLINE.as_millis())]
    };
    let values = |sample: &Sample| -> Vec<String> {
        let session = quoted(sample.session);
        match operation {
            Operation::Roll => roll_values(sample),
            Operation::Send => vec!["gen_random_uuid()".to_owned(), session, quoted("client.wave"), quoted("{}")],
            Operation::Lobby => Vec::new(),
            Operation::History => vec![session, quoted(51)],
        }
    };
    let mut steps = vec![Step { sql: IDENTITY.to_owned(), values: samples.iter().map(identity).collect() }];
    for statement in capture.new_statements().await? {
        steps.push(Step { sql: statement.sql, values: samples.iter().map(values).collect() });
    }
    Ok(steps)
}

async fn run_pgbench(script: &Path, clients: u32, environment: &Environment<'_>) -> Result<Run, Failure> {
    let before = cpu::of_children(environment.server);
    let threads = clients.min(2).to_string();
    // The processor times of pgbench's backends are lost when it ends, so they are read shortly before.
    let mut command = Command::new(&environment.pgbench);
    command
        .args(["--no-vacuum", "--protocol=prepared", "--define=loaded=0", "--jobs", &threads])
        .args(["--client", &clients.to_string(), "--time", &environment.time.as_secs().to_string()])
        .arg("--file")
        .arg(script)
        .arg(environment.url);
    let until_reading = environment.time.saturating_sub(Duration::from_millis(300));
    let (output, spent) = tokio::join!(command.output(), async {
        tokio::time::sleep(until_reading).await;
        cpu::of_children(environment.server)
    });
    let output = output?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let ops_s = stdout.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    let Some(ops_s) = ops_s.filter(|_| output.status.success()) else {
        return Err(Failure::Message(String::from_utf8_lossy(&output.stderr).into_owned()));
    };
    Ok(Run {
        ops_s,
        server_cpu_ms: per_operation(before, spent, ops_s * until_reading.as_secs_f64()),
        client_cpu_ms: None,
    })
}
