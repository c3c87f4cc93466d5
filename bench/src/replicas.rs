//! The effect of read replicas: the same evening with no replica, with one and with two; the delay until other users
//! see a write; and the cost of tracking log positions. All servers share this machine, so their processor times are
//! compared, not the throughput.

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
    Failure, ReplicaOptions,
    client::Client,
    compare::PRODUCTION_SETTINGS,
    cpu::{self, CpuTimes},
    evening::{self, CONNECTIONS, Delivery},
    live::{self, SUBSCRIBED_SESSIONS, WORLD},
    measure::quantile,
    operations::{self, Environment, Operation},
    report::{Report, Settings},
    samples::choose_samples,
    sections,
    world::{Kind, World, id},
};

/// Settings of the standbys. Replication is asynchronous, so a commit waits only for the primary's disk.
const STANDBY_SETTINGS: [&str; 3] = ["shared_buffers=1GB", "hot_standby=on", "max_connections=200"];
/// Settings of the primary, in addition to [`PRODUCTION_SETTINGS`].
const PRIMARY_SETTINGS: [&str; 2] = ["wal_keep_size=1GB", "max_connections=200"];
/// How often an evening is measured with each number of replicas, alternately; the median counts.
const ROUNDS: usize = 3;
/// The number of writes whose delay until another identity sees them is measured.
const WRITES: usize = 200;
/// Pairs of runs of rolls, with and without tracking log positions.
const RUN_PAIRS: usize = 9;
/// The duration of a run.
const RUN_LENGTH: Duration = Duration::from_secs(2);

/// The measurements of replicas.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaResults {
    /// Concurrent sessions of six players.
    pub sessions: u64,
    /// Evenings with polling players and with subscribing players, each with no replica, with one and with two.
    pub evenings: Vec<ReplicaEvening>,
    /// Milliseconds until another identity sees a write: the median, the 99th percentile and the maximum.
    pub seen_by_others_ms: [f64; 3],
    /// Rolls by one client and by eight, with and without tracking log positions.
    #[serde(alias = "positions")]
    pub tracking: Vec<TrackingCost>,
}

/// An evening, with the processor time of each server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaEvening {
    /// Whether players poll instead of subscribing.
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

/// Rolls by a handle with replicas and by one without. All rolls run on the primary, so the difference is the cost of
/// tracking log positions.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct TrackingCost {
    /// Concurrent clients.
    pub clients: u32,
    /// Rolls per second without replicas.
    pub without_ops_s: f64,
    /// Rolls per second with replicas.
    pub with_ops_s: f64,
    /// The loss in percent, the median over the pairs of runs.
    pub loss_percent: f64,
}

/// Runs the command `replicas`.
pub async fn run(options: &ReplicaOptions) -> Result<(), Failure> {
    fs::create_dir_all(&options.out)?;
    let start = Instant::now();
    let settings: Vec<&str> = PRODUCTION_SETTINGS.into_iter().chain(PRIMARY_SETTINGS).collect();
    let primary = Server::start_private(Some(&settings)).await?;
    let mut report =
        Report { settings: Settings::read(&mut Client::open(primary.url()).await?).await?, ..Report::default() };
    let database = live::create_filled_database(&primary, WORLD).await?;
    let (mut standbys, mut replica_urls) = (Vec::new(), Vec::new());
    let mut postmaster_pids = vec![postmaster_pid(&primary).await?];
    for _ in 0..2 {
        let source = primary.clone();
        let standby = tokio::task::spawn_blocking(move || source.start_standby(&STANDBY_SETTINGS));
        let standby = standby.await.map_err(|error| Failure::Message(error.to_string()))??;
        replica_urls.push(standby.replica_of(&database)?.url().to_owned());
        postmaster_pids.push(postmaster_pid(&standby).await?);
        standbys.push(standby);
    }
    println!("three servers after {:.0} s", start.elapsed().as_secs_f64());

    let mut results =
        ReplicaResults { sessions: options.sessions.min(WORLD.active_sessions), ..ReplicaResults::default() };
    for delivery in [Delivery::Polling, Delivery::Subscriptions] {
        let mut rounds: [Vec<ReplicaEvening>; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (replicas, evenings) in rounds.iter_mut().enumerate() {
                let replica_urls = &replica_urls[..replicas];
                let evening =
                    measure_evening(database.url(), replica_urls, &postmaster_pids, results.sessions, delivery).await?;
                evenings.push(evening);
            }
        }
        results.evenings.extend(rounds.map(median_evening));
    }
    let with_replicas = Options::default().max_connections(CONNECTIONS).replicas(replica_urls);
    let sparc = Sparc::connect_with(database.url(), with_replicas.clone()).await?;
    results.seen_by_others_ms = measure_visibility_delay(&sparc).await?;
    drop(sparc);
    println!("seen by others, ms: {:?}", results.seen_by_others_ms);
    let samples = choose_samples(&World { active_sessions: SUBSCRIBED_SESSIONS, ..WORLD });
    let pgbench = Binaries::find()?.program("pgbench").unwrap_or_default();
    let environment = Environment {
        url: database.url(),
        pgbench,
        samples: &samples,
        postmaster_pid: Some(postmaster_pids[0]),
        folder: &options.out,
        run_length: RUN_LENGTH,
    };
    for clients in [1, 8] {
        results.tracking.push(measure_tracking_cost(&environment, with_replicas.clone(), clients).await?);
    }
    report.replicas = Some(results);
    report.settings.seconds = start.elapsed().as_secs_f64();
    sections::write(&report, &options.out, options.docs, "replicas", section(&report))
}

/// Returns the process id of the server's postmaster.
async fn postmaster_pid(server: &Server) -> Result<u32, Failure> {
    let mut client = Client::open(server.url()).await?;
    let pid = client.postmaster_pid().await?;
    client.close().await?;
    pid.ok_or_else(|| Failure::Message("postmaster.pid does not begin with a process id".to_owned()))
}

/// Runs one evening, and measures the processor times of the primary and of the replicas that serve reads.
/// `postmaster_pids` begins with the primary's.
async fn measure_evening(
    url: &str,
    replica_urls: &[String],
    postmaster_pids: &[u32],
    sessions: u64,
    delivery: Delivery,
) -> Result<ReplicaEvening, Failure> {
    let options = Options::default().max_connections(CONNECTIONS).replicas(replica_urls);
    let sparc = Sparc::connect_with(url, options).await?;
    let start = Instant::now();
    let before: Vec<_> = postmaster_pids.iter().map(|pid| cpu::child_processes(Some(*pid))).collect();
    let result = evening::run_evening(&sparc, &WORLD, sessions, None, delivery).await?;
    let seconds = start.elapsed().as_secs_f64();
    let used_cpus = |(pid, before): (&u32, &Option<CpuTimes>)| {
        let after = cpu::child_processes(Some(*pid));
        after.zip(before.as_ref()).map_or(f64::NAN, |(after, before)| after.since(before).as_secs_f64() / seconds)
    };
    let mut cpus: Vec<f64> = postmaster_pids.iter().zip(&before).map(used_cpus).collect();
    sparc.close().await?;
    let primary_cpus = cpus.remove(0);
    cpus.truncate(replica_urls.len());
    let evening = ReplicaEvening {
        is_polling: delivery == Delivery::Polling,
        replicas: replica_urls.len(),
        roll_p99_ms: result.roll_p99_ms,
        seen_p99_ms: result.seen_p99_ms,
        primary_cpus,
        replica_cpus: cpus,
        client_cpus: result.client_cpus.unwrap_or(f64::NAN),
    };
    println!("{evening:?}");
    Ok(evening)
}

/// Returns the evening with the median processor use of the primary.
fn median_evening(mut rounds: Vec<ReplicaEvening>) -> ReplicaEvening {
    rounds.sort_by(|a, b| a.primary_cpus.total_cmp(&b.primary_cpus));
    rounds.swap_remove(rounds.len() / 2)
}

/// Measures how long after a commit another identity sees it, because another identity may read from a replica that
/// lags behind. Returns the median, the 99th percentile and the maximum, in milliseconds.
async fn measure_visibility_delay(sparc: &Sparc) -> Result<[f64; 3], Failure> {
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
    Ok([0.5, 0.99, 1.0].map(|fraction| quantile(&mut delays, fraction)))
}

async fn measure_tracking_cost(
    environment: &Environment<'_>,
    with_replicas: Options,
    clients: u32,
) -> Result<TrackingCost, Failure> {
    let without = Sparc::connect_with(environment.url, Options::default().max_connections(CONNECTIONS)).await?;
    let with = Sparc::connect_with(environment.url, with_replicas).await?;
    let mut runs: [Vec<f64>; 2] = Default::default();
    for pair in 0..=RUN_PAIRS {
        for step in 0..2 {
            let index = (pair + step) % 2;
            let sparc = [&without, &with][index];
            let (run, _) = operations::run_service(Operation::Roll, sparc, clients, environment, RUN_LENGTH).await?;
            // Pair 0 opens connections and prepares statements.
            if pair > 0 {
                runs[index].push(run.ops_s);
            }
        }
    }
    without.close().await?;
    with.close().await?;
    let mut losses: Vec<f64> =
        runs[0].iter().zip(&runs[1]).map(|(without, with)| 100.0 * (1.0 - with / without)).collect();
    losses.sort_by(f64::total_cmp);
    let mean = |runs: &[f64]| runs.iter().sum::<f64>() / runs.len() as f64;
    let cost = TrackingCost {
        clients,
        without_ops_s: mean(&runs[0]),
        with_ops_s: mean(&runs[1]),
        loss_percent: losses[losses.len() / 2],
    };
    println!("{cost:?}");
    Ok(cost)
}
