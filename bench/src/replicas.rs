//! The command `replicas` measures the effect of read replicas: the same step of the load test (a run with a fixed
//! number of sessions) without a replica, with one and with two; the delay until other users see a write; and the cost
//! of tracking log positions (positions in the write-ahead log), which a service with replicas does so that users see
//! their own writes. All servers share this machine, so their processor times are compared, not the throughput.

mod section;

use std::{
    fs,
    time::{Duration, Instant},
};

use service::{Operations, Options, Sparc, users::ProfileChanges};
use testdb::Server;

pub use self::section::section;
use crate::{
    argument_sets::choose_argument_sets,
    client::Client,
    data_set::{RowKind, row_id},
    database::{PRODUCTION_SETTINGS, create_filled_database},
    failure::Failure,
    live::DATA_SET,
    load_test::{self, Delivery, POOL_SIZE},
    operations::{self, Environment, Operation},
    options::ReplicaOptions,
    quantile::quantile_ms,
    report::{DELIVERY_TIMEOUT, ReplicaLoadStep, ReplicaResults, Report, RunInfo, TrackingCost},
    sections,
};

/// Settings of the standbys. A standby from which the service reads is called a replica.
const STANDBY_SETTINGS: [&str; 3] = ["shared_buffers=1GB", "hot_standby=on", "max_connections=200"];
/// Settings of the primary, in addition to [`PRODUCTION_SETTINGS`]. `synchronous_standby_names` is not set, so
/// replication is asynchronous, and a commit waits only for the primary's disk.
const PRIMARY_SETTINGS: [&str; 2] = ["wal_keep_size=1GB", "max_connections=200"];
/// The number of rounds for each [`Delivery`]. In each, the step of the load test is measured without a replica, with
/// one and with two. For each number of replicas, the round with the median processor use of the primary is reported.
const ROUNDS: usize = 3;
/// The number of writes for which [`measure_visibility_delay`] measures the delay.
const WRITES: usize = 200;
/// The number of pairs of runs with which the cost of tracking is measured: one run of rolls without replicas, and one
/// with them.
const RUN_PAIRS: usize = 9;
/// The duration of a run of rolls.
const RUN_LENGTH: Duration = Duration::from_secs(2);

/// Runs the command `replicas`.
pub async fn run(options: &ReplicaOptions) -> Result<(), Failure> {
    fs::create_dir_all(&options.out)?;
    let start = Instant::now();
    let settings: Vec<&str> = PRODUCTION_SETTINGS.into_iter().chain(PRIMARY_SETTINGS).collect();
    let primary = Server::start_plain(Some(&settings)).await?;
    let mut report =
        Report { run_info: RunInfo::read(&mut Client::open(primary.url()).await?).await?, ..Report::default() };
    let database = create_filled_database(&primary, DATA_SET).await?;
    // The standbys are kept until the end of the command, because dropping one stops its server.
    let (mut standbys, mut replica_urls) = (Vec::new(), Vec::new());
    // The first is the primary's, and the others are those of the standbys.
    let mut postmaster_pids = vec![postmaster_pid(&primary).await?];
    for _ in 0..2 {
        let primary_of_standby = primary.clone();
        let starting_standby = tokio::task::spawn_blocking(move || primary_of_standby.start_standby(&STANDBY_SETTINGS));
        let standby = starting_standby.await.map_err(|error| Failure::Message(error.to_string()))??;
        replica_urls.push(standby.replica_of(&database)?.url().to_owned());
        postmaster_pids.push(postmaster_pid(&standby).await?);
        standbys.push(standby);
    }
    println!("the primary and two replicas are ready after {:.0} s", start.elapsed().as_secs_f64());

    let mut results =
        ReplicaResults { sessions: options.sessions.min(DATA_SET.active_sessions), ..ReplicaResults::default() };
    for delivery in [Delivery::Polling, Delivery::Subscriptions] {
        // The measured steps; the index is the number of replicas.
        let mut steps_by_replica_count: [Vec<ReplicaLoadStep>; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (replica_count, steps) in steps_by_replica_count.iter_mut().enumerate() {
                let replica_urls = &replica_urls[..replica_count];
                let step =
                    measure_load_step(database.url(), replica_urls, &postmaster_pids, results.sessions, delivery)
                        .await?;
                steps.push(step);
            }
        }
        results.load_steps.extend(steps_by_replica_count.map(median_step));
    }
    let options_with_replicas = Options::default().max_connections(POOL_SIZE).replicas(replica_urls);
    let sparc = Sparc::connect_with(database.url(), options_with_replicas.clone()).await?;
    results.visibility_delay_ms = measure_visibility_delay(&sparc).await?;
    drop(sparc);
    println!("visibility delay in ms (median, p99, maximum): {:?}", results.visibility_delay_ms);
    let argument_sets = choose_argument_sets(&DATA_SET);
    let environment =
        Environment { url: database.url(), argument_sets: &argument_sets, postmaster_pid: Some(postmaster_pids[0]) };
    for clients in [1, 8] {
        results.tracking.push(measure_tracking_cost(&environment, options_with_replicas.clone(), clients).await?);
    }
    report.replicas = Some(results);
    report.run_info.seconds = start.elapsed().as_secs_f64();
    sections::write_report_and_section(&report, &options.out, options.write_to_docs, "replicas", section(&report))
}

/// Returns the process id of the server's postmaster.
async fn postmaster_pid(server: &Server) -> Result<u32, Failure> {
    let mut client = Client::open(server.url()).await?;
    let pid = client.postmaster_pid().await?;
    client.close().await?;
    pid.ok_or_else(|| Failure::Message("postmaster.pid does not begin with a process id".to_owned()))
}

/// Runs a step of the load test with the given replicas, and measures the processor use of the primary and of these
/// replicas. `postmaster_pids` has the id of the primary's postmaster, and then those of all standbys. The given
/// replicas are the first of these standbys.
async fn measure_load_step(
    url: &str,
    replica_urls: &[String],
    postmaster_pids: &[u32],
    sessions: u64,
    delivery: Delivery,
) -> Result<ReplicaLoadStep, Failure> {
    let options = Options::default().max_connections(POOL_SIZE).replicas(replica_urls);
    let sparc = Sparc::connect_with(url, options).await?;
    let (result, mut cpus) =
        load_test::run_step_and_measure_servers(&sparc, &DATA_SET, sessions, postmaster_pids, delivery).await?;
    sparc.close().await?;
    if result.undelivered_events > 0 {
        return Err(Failure::Message(format!(
            "{} events did not reach all players of their sessions",
            result.undelivered_events
        )));
    }
    let primary_cpus = cpus.remove(0);
    cpus.truncate(replica_urls.len());
    let step = ReplicaLoadStep {
        is_polling: delivery == Delivery::Polling,
        replicas: replica_urls.len(),
        roll_p99_ms: result.roll_p99_ms,
        delivered_to_all_p99_ms: result.delivered_to_all_p99_ms,
        primary_cpus,
        replica_cpus: cpus,
        service_cpus: result.service_cpus,
    };
    println!("{step:?}");
    Ok(step)
}

/// Returns the step with the median processor use of the primary.
fn median_step(mut steps: Vec<ReplicaLoadStep>) -> ReplicaLoadStep {
    let primary_cpus = |step: &ReplicaLoadStep| step.primary_cpus.unwrap_or_default();
    steps.sort_by(|a, b| primary_cpus(a).total_cmp(&primary_cpus(b)));
    steps.swap_remove(steps.len() / 2)
}

/// Changes a display name [`WRITES`] times, and measures each time how long after the answer to the commit another user
/// sees the new name. A writer always sees their own writes, but other users may read from a replica that lags behind.
/// Returns the median, the 99th percentile and the maximum, in milliseconds.
async fn measure_visibility_delay(sparc: &Sparc) -> Result<[f64; 3], Failure> {
    let (writer_id, reader) = (row_id(RowKind::User, 1), sparc.as_user(row_id(RowKind::User, 2)));
    let mut delays = Vec::new();
    for number in 0..WRITES {
        let name = format!("Name {number}");
        let changes = ProfileChanges { display_name: Some(name.clone()), ..Default::default() };
        sparc.as_user(writer_id).users().edit(changes).await?;
        let answered_at = Instant::now();
        while reader.users().profile(writer_id).await?.display_name != name {
            if answered_at.elapsed() > DELIVERY_TIMEOUT {
                return Err(Failure::Message("a replica did not receive a write in time".to_owned()));
            }
        }
        delays.push(answered_at.elapsed());
    }
    Ok([0.5, 0.99, 1.0].map(|fraction| quantile_ms(&mut delays, fraction)))
}

/// Measures rolls with and without replicas, in pairs of runs. The order of the two runs alternates from pair to pair.
/// `options_with_replicas` are the options of the service with replicas.
async fn measure_tracking_cost(
    environment: &Environment<'_>,
    options_with_replicas: Options,
    clients: u32,
) -> Result<TrackingCost, Failure> {
    let sparc_without_replicas =
        Sparc::connect_with(environment.url, Options::default().max_connections(POOL_SIZE)).await?;
    let sparc_with_replicas = Sparc::connect_with(environment.url, options_with_replicas).await?;
    // Rolls per second without replicas, and with them.
    let mut rates: [Vec<f64>; 2] = Default::default();
    for pair in 0..=RUN_PAIRS {
        for run_number in 0..2 {
            let index = (pair + run_number) % 2;
            let sparc = [&sparc_without_replicas, &sparc_with_replicas][index];
            let (run, _) =
                operations::run_service_clients(Operation::Roll, sparc, clients, environment, RUN_LENGTH).await?;
            // Pair 0 is not counted: it opens connections and prepares statements.
            if pair > 0 {
                rates[index].push(run.operations_per_second);
            }
        }
    }
    sparc_without_replicas.close().await?;
    sparc_with_replicas.close().await?;
    let mut losses: Vec<f64> =
        rates[0].iter().zip(&rates[1]).map(|(without, with)| 100.0 * (1.0 - with / without)).collect();
    losses.sort_by(f64::total_cmp);
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let cost = TrackingCost {
        clients,
        rolls_per_second_without_replicas: mean(&rates[0]),
        rolls_per_second_with_replicas: mean(&rates[1]),
        loss_percent: losses[losses.len() / 2],
    };
    println!("{cost:?}");
    Ok(cost)
}
