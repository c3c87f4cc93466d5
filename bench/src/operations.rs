//! Whole operations of the service, beside pgbench with the same statements in the same transactions: what any client
//! could reach at most.

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
    captured::Capturing,
    cpu::{self, Spent},
    measure::quantile,
    pgbench::{self, Step},
    reads::quoted,
    samples::Sample,
    writes::{check, roll_values},
};

/// An operation at a number of clients, in the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Operated {
    /// What was done.
    pub name: String,
    /// How many at once.
    pub clients: u32,
    /// Operations a second, of the service.
    pub ops_s: f64,
    /// The same, of pgbench.
    pub pgbench_ops_s: f64,
    /// The first divided by the second.
    pub ratio: f64,
    /// Operations a second of pgbench where it sends begin and identity in one message, as the service does.
    pub pgbench_pipelined_ops_s: f64,
    /// Answers that a client waits for.
    pub round_trips: usize,
    /// Median of an operation of the service, milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// Processor time of the server for an operation of the service, milliseconds; none where it cannot be told.
    pub server_cpu_ms: Option<f64>,
    /// Processor time of the service itself for one.
    pub client_cpu_ms: Option<f64>,
    /// Processor time of the server for a transaction of pgbench.
    pub pgbench_server_cpu_ms: Option<f64>,
}

/// Which operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// A check of a character.
    Roll,
    /// An event of a client's own.
    Send,
    /// The first page of the lobby.
    Lobby,
    /// The last rolls of a table.
    History,
}

const ALL: [(Doing, &str); 4] = [
    (Doing::Roll, "a roll"),
    (Doing::Send, "an event"),
    (Doing::Lobby, "a lobby page"),
    (Doing::History, "a table's rolls"),
];

/// So many at once.
const CLIENTS: [u32; 3] = [1, 8, 64];
/// So often each, in turns.
const TURNS: u32 = 3;
/// The service's own bound on an operation, which is one of the values that it sends.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the service says with its BEGIN.
const IDENTITY: &str = "SELECT set_config('role', $1, true), set_config('request.jwt.claims', $2, true),
    set_config('statement_timeout', $3, true)";

/// Where it happens.
#[derive(Clone)]
pub struct Place<'a> {
    /// Address of the database.
    pub url: &'a str,
    /// The program.
    pub pgbench: PathBuf,
    /// Who does it.
    pub samples: &'a [Sample],
    /// Process of the server.
    pub server: Option<u32>,
    /// A folder for pgbench's scripts.
    pub folder: &'a Path,
    /// How long each run takes.
    pub time: Duration,
}

/// What is told of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Operations a second.
    pub ops_s: f64,
    /// Processor time of the server for one.
    pub server_cpu_ms: Option<f64>,
    /// And of the client.
    pub client_cpu_ms: Option<f64>,
}

/// Runs all of them; a capturing of its own for each tells the statements.
pub async fn operations(
    place: &Place<'_>,
    capturing: impl AsyncFn() -> Result<Capturing, Failure>,
) -> Result<Vec<Operated>, Failure> {
    let mut operated = Vec::new();
    for (doing, name) in ALL {
        let steps = steps(doing, capturing().await?, place.samples).await?;
        // Begin with the identity, each statement, and commit.
        let round_trips = steps.len() + 1;
        let scripts = [false, true].map(|pipelined| {
            let name = if pipelined { "pipelined.sql" } else { "script.sql" };
            (place.folder.join(name), pgbench::script(&steps, pipelined))
        });
        for (path, script) in &scripts {
            tokio::fs::write(path, script).await?;
        }
        for clients in CLIENTS {
            // The default, or one for each.
            let connections = clients.max(10);
            let sparc = Sparc::connect_with(place.url, Options::default().max_connections(connections)).await?;
            let (mut ours, mut bench, mut times) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
            // Warm: every connection is there, and has its statements.
            service(doing, &sparc, clients, place, Duration::from_secs(1)).await?;
            for _ in 0..TURNS {
                let (run, took) = service(doing, &sparc, clients, place, place.time).await?;
                ours.push(run);
                times.extend(took);
                for (runs, (script, _)) in bench.iter_mut().zip(&scripts) {
                    runs.push(run_pgbench(script, clients, place).await?);
                }
            }
            sparc.close().await?;
            let (ours, [bench, pipelined]) = (median(ours), bench.map(median));
            operated.push(Operated {
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
                "{name}, {clients} at once: {:.0} a second, pgbench {:.0}: {:.2} of it; pipelined {:.0}: {:.2}",
                ours.ops_s,
                bench.ops_s,
                ours.ops_s / bench.ops_s,
                pipelined.ops_s,
                ours.ops_s / pipelined.ops_s
            );
        }
    }
    Ok(operated)
}

fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.ops_s.total_cmp(&b.ops_s));
    runs.get(runs.len() / 2).copied().unwrap_or_default()
}

/// Does it once, for somebody.
pub async fn once(doing: Doing, ada: &IdentityConnection, sample: &Sample) -> Result<(), Failure> {
    match doing {
        Doing::Roll => {
            ada.dice().roll(check(sample)?).await?;
        }
        Doing::Send => {
            let event = NewEvent { session_id: sample.session, kind: "wave".to_owned(), ..Default::default() };
            ada.events().send(event).await?;
        }
        Doing::Lobby => {
            ada.sessions().lobby(&LobbyFilter::default(), None).await?;
        }
        Doing::History => {
            ada.dice().history(RollScope::Session(sample.session), &HistoryFilter::default(), None).await?;
        }
    }
    Ok(())
}

/// So many clients, each at a table of its own, as fast as they can.
pub async fn service(
    doing: Doing,
    sparc: &Sparc,
    clients: u32,
    place: &Place<'_>,
    time: Duration,
) -> Result<(Run, Vec<Duration>), Failure> {
    let (server, own) = (cpu::of_children(place.server), cpu::own());
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let sample = place.samples[client as usize % place.samples.len()].clone();
        let ada = sparc.as_user(sample.player);
        tasks.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < time {
                let started = Instant::now();
                once(doing, &ada, &sample).await?;
                took.push(started.elapsed());
                // A service's task waits for its next request here: one that found each answer there already would otherwise
                // go on while the others wait.
                tokio::task::yield_now().await;
            }
            Ok::<_, Failure>(took)
        });
    }
    let mut times = Vec::new();
    while let Some(took) = tasks.join_next().await {
        times.extend(took.map_err(|error| Failure::Said(error.to_string()))??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let run = Run {
        ops_s: times.len() as f64 / seconds,
        server_cpu_ms: each(server, cpu::of_children(place.server), times.len() as f64),
        client_cpu_ms: each(own, cpu::own(), times.len() as f64),
    };
    Ok((run, times))
}

/// Milliseconds for each.
fn each(before: Option<Spent>, after: Option<Spent>, count: f64) -> Option<f64> {
    let spent = after?.since(&before?);
    Some(spent.as_secs_f64() * 1000.0 / count)
}

/// The identity and the operation's own statements, with their values for each sample.
async fn steps(doing: Doing, mut capturing: Capturing, samples: &[Sample]) -> Result<Vec<Step>, Failure> {
    let ada = capturing.sparc.as_user(samples[0].player).with_deadline(DEADLINE);
    once(doing, &ada, &samples[0]).await?;
    let identity = |sample: &Sample| -> Vec<String> {
        let claims = format!("{{\"role\":\"authenticated\",\"sub\":\"{}\"}}", sample.player);
        vec![quoted("authenticated"), quoted(claims), quoted(DEADLINE.as_millis())]
    };
    let values = |sample: &Sample| -> Vec<String> {
        let session = quoted(sample.session);
        match doing {
            Doing::Roll => roll_values(sample),
            Doing::Send => vec!["gen_random_uuid()".to_owned(), session, quoted("client.wave"), quoted("{}")],
            Doing::Lobby => Vec::new(),
            Doing::History => vec![session, quoted(51)],
        }
    };
    let mut steps = vec![Step { sql: IDENTITY.to_owned(), values: samples.iter().map(identity).collect() }];
    for statement in capturing.since().await? {
        steps.push(Step { sql: statement.sql, values: samples.iter().map(values).collect() });
    }
    Ok(steps)
}

async fn run_pgbench(script: &Path, clients: u32, place: &Place<'_>) -> Result<Run, Failure> {
    let before = cpu::of_children(place.server);
    let threads = clients.min(2).to_string();
    // Its backends end with it, and their time with them: read shortly before.
    let mut command = Command::new(&place.pgbench);
    command
        .args(["--no-vacuum", "--protocol=prepared", "--define=loaded=0", "--jobs", &threads])
        .args(["--client", &clients.to_string(), "--time", &place.time.as_secs().to_string()])
        .arg("--file")
        .arg(script)
        .arg(place.url);
    let nearly = place.time.saturating_sub(Duration::from_millis(300));
    let (output, spent) = tokio::join!(command.output(), async {
        tokio::time::sleep(nearly).await;
        cpu::of_children(place.server)
    });
    let output = output?;
    let told = String::from_utf8_lossy(&output.stdout);
    let ops_s = told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    let Some(ops_s) = ops_s.filter(|_| output.status.success()) else {
        return Err(Failure::Said(String::from_utf8_lossy(&output.stderr).into_owned()));
    };
    Ok(Run { ops_s, server_cpu_ms: each(before, spent, ops_s * nearly.as_secs_f64()), client_cpu_ms: None })
}
