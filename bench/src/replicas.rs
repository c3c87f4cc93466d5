//! The effect of read replicas: the same evening with none, one and two of them, how far behind they are, and the cost
//! of tracking positions. All servers share this machine, so processor times are compared, not throughput.

mod section;

use std::{
    fs,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use service::{Operations, Options, Sparc, users::ProfileChanges};
use testdb::{Binaries, Server};

pub use self::section::section;
use crate::{
    Failure, ReplicaReads,
    client::Client,
    compare::SETTINGS,
    cpu::{self, CpuTimes},
    evening::{self, CONNECTIONS, Delivery},
    live::{self, SESSIONS, WORLD},
    measure::quantile,
    operations::{self, Environment, Operation},
    report::{Report, Settings},
    samples::samples,
    sections,
    world::{Kind, World, id},
};

/// Settings of the standbys. Replication is asynchronous: a commit waits only for the primary's disk, as without
/// replicas.
const STANDBY_SETTINGS: [&str; 3] = ["shared_buffers=1GB", "hot_standby=on", "max_connections=200"];
/// Settings of the primary beyond those of the other measurements.
const PRIMARY_SETTINGS: [&str; 2] = ["wal_keep_size=1GB", "max_connections=200"];
/// Evenings with each number of replicas, in turns; the median counts.
const ROUNDS: usize = 3;
/// The number of writes for which the delay until another identity sees them is measured.
const WRITES: usize = 200;
/// Turns of rolls with and without positions.
const TURNS: usize = 9;
/// The duration of a turn.
const TURN: Duration = Duration::from_secs(2);

/// The measurements of replicas.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Replicas {
    /// Concurrent sessions of six players.
    pub sessions: u64,
    /// Evenings with polling players and with subscribed ones, with no replica, one and two.
    pub evenings: Vec<Shared>,
    /// Milliseconds until another identity sees a write: the median, the 99th percentile and the maximum.
    pub seen_by_others_ms: [f64; 3],
    /// Rolls by one client and by eight, with and without positions.
    pub positions: Vec<Tracked>,
}

/// An evening, with the processor time of each server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Shared {
    /// Whether players poll; otherwise they subscribe.
    pub is_polling: bool,
    /// The number of replicas.
    pub replicas: usize,
    /// The 99th percentile of a roll's latency, in milliseconds.
    pub roll_p99_ms: f64,
    /// The 99th percentile of the time until all six players have the event, in milliseconds.
    pub seen_p99_ms: f64,
    /// Processors that the primary used.
    pub primary_cpus: f64,
    /// Processors that each replica used.
    pub replica_cpus: Vec<f64>,
    /// Processors that the service used.
    pub client_cpus: f64,
}

/// Rolls by a handle with a replica and by one without. All of them run on the primary, so the difference is the cost
/// of tracking positions.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tracked {
    /// Concurrent clients.
    pub clients: u32,
    /// Rolls per second without replicas.
    pub without_ops_s: f64,
    /// Rolls per second with positions.
    pub with_ops_s: f64,
    /// The loss in percent, the median over the pairs of turns.
    pub loss_percent: f64,
}

/// Runs the command `replicas`.
pub async fn replicas(options: &ReplicaReads) -> Result<(), Failure> {
    fs::create_dir_all(&options.out)?;
    let begun = Instant::now();
    let settings: Vec<&str> = SETTINGS.into_iter().chain(PRIMARY_SETTINGS).collect();
    let primary = Server::start_private(Some(&settings)).await?;
    let mut report =
        Report { settings: Settings::of(&mut Client::open(primary.url()).await?).await?, ..Report::default() };
    let database = live::set_up(&primary, WORLD).await?;
    let (mut standbys, mut urls, mut processes) = (Vec::new(), Vec::new(), vec![postmaster(&primary).await?]);
    for _ in 0..2 {
        let source = primary.clone();
        let standby = tokio::task::spawn_blocking(move || source.standby(&STANDBY_SETTINGS));
        let standby = standby.await.map_err(|error| Failure::Message(error.to_string()))??;
        urls.push(standby.copy_of(&database)?.url().to_owned());
        processes.push(postmaster(&standby).await?);
        standbys.push(standby);
    }
    println!("three servers after {:.0} s", begun.elapsed().as_secs_f64());

    let mut found = Replicas { sessions: options.sessions.min(WORLD.busy), ..Replicas::default() };
    for delivery in [Delivery::Polling, Delivery::Subscriptions] {
        let mut rounds: [Vec<Shared>; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (count, evenings) in rounds.iter_mut().enumerate() {
                evenings.push(evening(database.url(), &urls[..count], &processes, found.sessions, delivery).await?);
            }
        }
        found.evenings.extend(rounds.map(median));
    }
    let with = Options::default().max_connections(CONNECTIONS).replicas(urls);
    found.seen_by_others_ms = seen_by_others(&Sparc::connect_with(database.url(), with.clone()).await?).await?;
    println!("seen by others, ms: {:?}", found.seen_by_others_ms);
    let samples = samples(&World { busy: SESSIONS, ..WORLD });
    let pgbench = Binaries::find()?.program("pgbench").unwrap_or_default();
    let environment = Environment {
        url: database.url(),
        pgbench,
        samples: &samples,
        server: Some(processes[0]),
        folder: &options.out,
        time: TURN,
    };
    for clients in [1, 8] {
        found.positions.push(tracked(&environment, with.clone(), clients).await?);
    }
    report.replicas = Some(found);
    report.settings.seconds = begun.elapsed().as_secs_f64();
    sections::write(&report, &options.out, options.docs, "replicas", section(&report))
}

async fn postmaster(server: &Server) -> Result<u32, Failure> {
    let mut client = Client::open(server.url()).await?;
    let file = client.value("SELECT pg_read_file('postmaster.pid')").await?;
    client.close().await?;
    let first = file.lines().next().and_then(|line| line.parse().ok());
    first.ok_or_else(|| Failure::Message("the server has no process id".to_owned()))
}

/// Plays one evening. The processor times of all servers are measured, including replicas that only replay.
async fn evening(
    url: &str,
    replicas: &[String],
    processes: &[u32],
    sessions: u64,
    delivery: Delivery,
) -> Result<Shared, Failure> {
    let options = Options::default().max_connections(CONNECTIONS).replicas(replicas);
    let sparc = Sparc::connect_with(url, options).await?;
    let begun = Instant::now();
    let before: Vec<_> = processes.iter().map(|process| cpu::of_children(Some(*process))).collect();
    let played = evening::evening(&sparc, &WORLD, sessions, None, delivery).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let spent = |(process, before): (&u32, &Option<CpuTimes>)| {
        let after = cpu::of_children(Some(*process));
        after.zip(before.as_ref()).map_or(f64::NAN, |(after, before)| after.since(before).as_secs_f64() / seconds)
    };
    let mut cpus: Vec<f64> = processes.iter().zip(&before).map(spent).collect();
    sparc.close().await?;
    let primary_cpus = cpus.remove(0);
    cpus.truncate(replicas.len());
    let shared = Shared {
        is_polling: delivery == Delivery::Polling,
        replicas: replicas.len(),
        roll_p99_ms: played.roll_p99_ms,
        seen_p99_ms: played.seen_p99_ms,
        primary_cpus,
        replica_cpus: cpus,
        client_cpus: played.client_cpus.unwrap_or(f64::NAN),
    };
    println!("{shared:?}");
    Ok(shared)
}

/// Returns the evening with the median use of the primary.
fn median(mut rounds: Vec<Shared>) -> Shared {
    rounds.sort_by(|a, b| a.primary_cpus.total_cmp(&b.primary_cpus));
    rounds.swap_remove(rounds.len() / 2)
}

/// Measures how long it takes after a commit until another identity sees it. Only recent data is guaranteed to other
/// identities, not the newest.
async fn seen_by_others(sparc: &Sparc) -> Result<[f64; 3], Failure> {
    let (writer, reader) = (id(Kind::User, 1), sparc.as_user(id(Kind::User, 2)));
    let mut delays = Vec::new();
    for number in 0..WRITES {
        let name = format!("Name {number}");
        let changes = ProfileChanges { display_name: Some(name.clone()), ..Default::default() };
        sparc.as_user(writer).users().edit(changes).await?;
        let committed = Instant::now();
        while reader.users().profile(writer).await?.display_name != name {}
        delays.push(committed.elapsed());
    }
    Ok([0.5, 0.99, 1.0].map(|share| quantile(&mut delays, share)))
}

async fn tracked(environment: &Environment<'_>, with: Options, clients: u32) -> Result<Tracked, Failure> {
    let without = Sparc::connect_with(environment.url, Options::default().max_connections(CONNECTIONS)).await?;
    let with = Sparc::connect_with(environment.url, with).await?;
    let mut runs: [Vec<f64>; 2] = Default::default();
    for turn in 0..=TURNS {
        for step in 0..2 {
            let which = (turn + step) % 2;
            let sparc = [&without, &with][which];
            let (run, _) = operations::service(Operation::Roll, sparc, clients, environment, TURN).await?;
            // The first turn opens connections and prepares statements.
            if turn > 0 {
                runs[which].push(run.ops_s);
            }
        }
    }
    without.close().await?;
    with.close().await?;
    let mut losses: Vec<f64> = runs[0].iter().zip(&runs[1]).map(|(a, b)| 100.0 * (1.0 - b / a)).collect();
    losses.sort_by(f64::total_cmp);
    let mean = |runs: &[f64]| runs.iter().sum::<f64>() / runs.len() as f64;
    let tracked = Tracked {
        clients,
        without_ops_s: mean(&runs[0]),
        with_ops_s: mean(&runs[1]),
        loss_percent: losses[losses.len() / 2],
    };
    println!("{tracked:?}");
    Ok(tracked)
}
