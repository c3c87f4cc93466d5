//! The command `live` measures live events, those that participants receive while they are subscribed to a session:
//! their cost to writers, their delay until another process receives them, and the cost of a thousand idle subscribers.
//! It also measures the cost of broadcasts, and alternatives to the service's poller, the task that reads new events
//! from the database. And it runs the load test, once with subscriptions and once with polling.
//!
//! Other work on the machine affects the measurements. So short runs alternate, and they are compared by processor time
//! per operation as well as by throughput.

mod alternatives;
mod broadcasts;
mod section;
pub mod subscribers;

use std::{
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chrono::Utc;
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use service::{Operations, Options, Sparc, events::NewEvent};
use testdb::{Database, Server};

pub use self::section::section;
use self::{alternatives::AlternativeResult, subscribers::SubscriberProcess};
use crate::{
    Failure, LiveOptions,
    argument_sets::{ArgumentSet, choose_argument_sets},
    client::Client,
    compare::{AUTH_UID_SQL, PRODUCTION_SETTINGS},
    cpu,
    data_set::{DataSet, RowKind, row_id},
    fill::{Schema, fill},
    growth::migrate,
    load_test::{self, DELIVERY_TIMEOUT, Delivery, LoadStep},
    operations::{self, Environment, Operation, RunResult},
    report::{Report, RunInfo},
    sections,
};

/// The number of sessions with subscribers.
pub const SUBSCRIBED_SESSIONS: u64 = 250;
/// The number of subscribers per session: its Seer and three players.
pub const SUBSCRIBERS_PER_SESSION: u64 = 4;
/// The duration of a run of writers.
const RUN_LENGTH: Duration = Duration::from_millis(1500);
/// The number of pairs of runs, one with and one without subscribers, for each number of clients.
const RUN_PAIRS: usize = 12;
/// The number of pairs of runs, one with and one without the alternative, for each alternative and each number of
/// clients.
const RUN_PAIRS_PER_ALTERNATIVE: usize = 6;
/// The number of sessions in the first step of the load test, few enough that the machine sustains them.
const FIRST_STEP_SESSIONS: u64 = 200;
/// The time over which the processor use of idle subscribers is measured.
const IDLE_MEASUREMENT_LENGTH: Duration = Duration::from_secs(20);
/// Events per second at human speed: about as many as in 250 sessions that each have an event every four seconds. The
/// events are sent in the sessions of the argument sets, of which there are at most 64.
const EVENTS_PER_SECOND_AT_HUMAN_SPEED: u32 = 60;
/// The time over which delays are measured.
const DELAY_MEASUREMENT_LENGTH: Duration = Duration::from_secs(15);

/// The rows of the database. It has many active sessions, because the load test plays these.
pub const DATA_SET: DataSet =
    DataSet { users: 40_000, adventures: 100, active_sessions: 6000, unstarted_sessions: 1000, ended_sessions: 2000 };

/// The measurements of live events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LiveResults {
    /// Writers with and without subscribers.
    pub writer_comparisons: Vec<WriterComparison>,
    /// Delays from the call that writes an event to its arrival at a subscriber in another process, while events are
    /// written at human speed ([`EVENTS_PER_SECOND_AT_HUMAN_SPEED`]).
    pub delays_at_human_speed: DelaySummary,
    /// The same delays while eight clients roll as fast as they can.
    pub delays_while_rolling: DelaySummary,
    /// The processor use of a thousand idle subscribers.
    pub idle: IdleCpuUsage,
    /// The steps of the load test in which every player has a subscription.
    pub steps_with_subscriptions: Vec<LoadStep>,
    /// The steps of the load test in which every player polls.
    pub steps_with_polling: Vec<LoadStep>,
    /// The largest numbers of sessions that the load test sustained, with subscriptions and with polling.
    pub max_sustained_sessions: (u64, u64),
    /// The time of a roll with and without a broadcast of its event.
    pub broadcast: Option<broadcasts::BroadcastCost>,
    /// The results of the alternatives to the poller.
    pub alternatives: Vec<AlternativeResult>,
}

/// Writers with and without an added load, measured alternately.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WriterComparison {
    /// Concurrent clients.
    pub clients: u32,
    /// Rolls per second without the load, the mean of the runs.
    pub rolls_per_second_without_load: f64,
    /// Rolls per second with the load, the mean of the runs.
    pub rolls_per_second_with_load: f64,
    /// The percentage of rolls per second lost with the load, the median over the pairs of runs; negative if writers
    /// are faster with the load.
    pub loss_percent: f64,
    /// PostgreSQL's processor time per roll without the load, in milliseconds.
    pub postgresql_cpu_ms_without_load: Option<f64>,
    /// PostgreSQL's processor time per roll with the load, including what the load itself costs PostgreSQL.
    pub postgresql_cpu_ms_with_load: Option<f64>,
    /// Processor time per roll of the process that adds the load, in milliseconds; `None` if PostgreSQL or the
    /// measuring process adds the load, or where the system does not report processor times.
    pub load_cpu_ms: Option<f64>,
}

/// Delays of events from the call that writes them, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct DelaySummary {
    /// The median.
    pub p50_ms: f64,
    /// The 95th percentile.
    pub p95_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The number of delays: one for each event and each subscriber that received it. Old reports call it `count`.
    #[serde(alias = "count")]
    pub deliveries: usize,
    /// The number of deliveries that had not happened when [`DELIVERY_TIMEOUT`] had passed after the last event.
    /// `None` in old reports, which did not count them.
    pub missing: Option<usize>,
}

/// Processor use while no event is written, in percent of a processor.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct IdleCpuUsage {
    /// PostgreSQL's processor use with the subscribers.
    pub postgresql_percent: Option<f64>,
    /// PostgreSQL's processor use without the subscribers.
    pub postgresql_baseline_percent: Option<f64>,
    /// The processor use of the subscribers' process.
    pub subscribers_percent: Option<f64>,
}

/// Runs the command `live`.
pub async fn run(options: &LiveOptions) -> Result<(), Failure> {
    let start = Instant::now();
    fs::create_dir_all(&options.out)?;
    let server = Server::start_plain(Some(&PRODUCTION_SETTINGS)).await?;
    let mut client = Client::open(server.url()).await?;
    let run_info = RunInfo::read(&mut client).await?;
    let postmaster_pid = client.postmaster_pid().await?;
    client.close().await?;
    let database = create_filled_database(&server, DATA_SET).await?;
    println!("filled after {:.0} s", start.elapsed().as_secs_f64());

    // The argument sets are chosen as if only the sessions with subscribers were active. The sessions with the next
    // numbers then count as unstarted, but in the database they are active too. So the `open_session` of an argument
    // set is not a waiting session; the command `live` does not use it.
    let argument_sets = choose_argument_sets(&DataSet { active_sessions: SUBSCRIBED_SESSIONS, ..DATA_SET });
    let url = database.url();
    let environment = Environment { url, argument_sets: &argument_sets, postmaster_pid };
    let mut results = LiveResults::default();
    let mut subscribers = SubscriberProcess::start(url, DATA_SET).await?;
    let subscribers_pid = subscribers.pid();
    let switch_load = async |is_on| if is_on { subscribers.subscribe().await } else { subscribers.unsubscribe().await };
    results.writer_comparisons = compare_writers(&environment, RUN_PAIRS, subscribers_pid, switch_load).await?;
    results.idle = subscribe_and_measure_idle(postmaster_pid, &mut subscribers).await?;
    let sparc = Sparc::connect_with(url, Options::default().max_connections(16)).await?;
    results.delays_at_human_speed = measure_delays(&sparc, &argument_sets, &mut subscribers).await?;
    println!("at human speed: {:?}", results.delays_at_human_speed);
    let rolling = operations::run_service_clients(Operation::Roll, &sparc, 8, &environment, DELAY_MEASUREMENT_LENGTH);
    (_, results.delays_while_rolling) =
        tokio::try_join!(rolling, measure_delays(&sparc, &argument_sets, &mut subscribers))?;
    println!("while eight clients roll: {:?}", results.delays_while_rolling);
    sparc.close().await?;
    subscribers.unsubscribe().await?;
    if !options.no_alternatives {
        results.alternatives = alternatives::measure_alternatives(&environment).await?;
    }
    subscribers.stop().await?;
    if !options.no_load_test {
        results.steps_with_polling =
            load_test::run_load_test(url, &DATA_SET, postmaster_pid, FIRST_STEP_SESSIONS, Delivery::Polling).await?;
        results.steps_with_subscriptions =
            load_test::run_load_test(url, &DATA_SET, postmaster_pid, FIRST_STEP_SESSIONS, Delivery::Subscriptions)
                .await?;
        let max_sessions = |steps| load_test::max_sustained_step(steps).map_or(0, |step| step.sessions);
        results.max_sustained_sessions =
            (max_sessions(&results.steps_with_subscriptions), max_sessions(&results.steps_with_polling));
        println!(
            "sessions: {} with subscriptions, {} with polling",
            results.max_sustained_sessions.0, results.max_sustained_sessions.1
        );
    }
    drop(database);
    results.broadcast = Some(broadcasts::measure_broadcasts().await?);
    let mut report = Report { run_info, live: Some(results), ..Report::default() };
    report.run_info.seconds = start.elapsed().as_secs_f64();
    sections::write_report_and_section(&report, &options.out, options.write_to_docs, "live", section(&report))
}

/// Creates a database with this project's schema, fills it with everything but events, and installs Supabase's
/// definition of `auth.uid()`.
pub async fn create_filled_database(server: &Server, data_set: DataSet) -> Result<Database, Failure> {
    let database = server.create_unmigrated().await?;
    let pool = database.connect(2).await?;
    migrate(&pool, None).await?;
    fill(database.url(), Schema::Ours, data_set, Utc::now()).await?;
    pool.execute_unprepared(AUTH_UID_SQL).await?;
    pool.close().await?;
    Ok(database)
}

/// Measures rolls with and without an added load, in pairs of runs whose order alternates. `switch_load` switches the
/// load on or off. `load_pid` is the id of the process that adds the load, or `None` if PostgreSQL or this process adds
/// it.
async fn compare_writers(
    environment: &Environment<'_>,
    pairs: usize,
    load_pid: Option<u32>,
    mut switch_load: impl AsyncFnMut(bool) -> Result<(), Failure>,
) -> Result<Vec<WriterComparison>, Failure> {
    let mut comparisons = Vec::new();
    for clients in [8, 64] {
        let sparc = Sparc::connect_with(environment.url, Options::default().max_connections(clients.max(10))).await?;
        // The warm-up opens every connection and prepares its statements.
        operations::run_service_clients(Operation::Roll, &sparc, clients, environment, RUN_LENGTH).await?;
        // The runs without the load, and those with it.
        let mut runs: [Vec<RunResult>; 2] = [Vec::new(), Vec::new()];
        let mut load_cpu_ms_by_run = Vec::new();
        for pair in 0..pairs {
            for position in 0..2 {
                let is_on = (pair + position) % 2 == 1;
                switch_load(is_on).await?;
                // The result of this run is discarded, because switching the load has effects of its own.
                operations::run_service_clients(Operation::Roll, &sparc, clients, environment, RUN_LENGTH / 5).await?;
                let before = load_pid.and_then(cpu::times_of_process);
                let (run, _) =
                    operations::run_service_clients(Operation::Roll, &sparc, clients, environment, RUN_LENGTH).await?;
                if is_on && let (Some(before), Some(after)) = (before, load_pid.and_then(cpu::times_of_process)) {
                    let roll_count = run.operations_per_second * RUN_LENGTH.as_secs_f64();
                    load_cpu_ms_by_run.push(after.since(&before).as_secs_f64() * 1000.0 / roll_count);
                }
                runs[usize::from(is_on)].push(run);
            }
        }
        switch_load(false).await?;
        sparc.close().await?;
        let mut losses: Vec<f64> = runs[0]
            .iter()
            .zip(&runs[1])
            .map(|(without, with)| 100.0 * (1.0 - with.operations_per_second / without.operations_per_second))
            .collect();
        losses.sort_by(f64::total_cmp);
        let mean_throughput =
            |runs: &[RunResult]| runs.iter().map(|run| run.operations_per_second).sum::<f64>() / runs.len() as f64;
        let mean_cpu_ms = |runs: &[RunResult]| {
            Some(runs.iter().map(|run| run.postgresql_cpu_ms).sum::<Option<f64>>()? / runs.len() as f64)
        };
        let comparison = WriterComparison {
            clients,
            rolls_per_second_without_load: mean_throughput(&runs[0]),
            rolls_per_second_with_load: mean_throughput(&runs[1]),
            loss_percent: f64::midpoint(losses[(pairs - 1) / 2], losses[pairs / 2]),
            postgresql_cpu_ms_without_load: mean_cpu_ms(&runs[0]),
            postgresql_cpu_ms_with_load: mean_cpu_ms(&runs[1]),
            load_cpu_ms: (!load_cpu_ms_by_run.is_empty())
                .then(|| load_cpu_ms_by_run.iter().sum::<f64>() / load_cpu_ms_by_run.len() as f64),
        };
        println!("{comparison:?}");
        comparisons.push(comparison);
    }
    Ok(comparisons)
}

/// Measures the processor use of the server and of the subscribers' process while no event is written. The subscribers
/// subscribe after the baseline has been measured, and remain subscribed.
async fn subscribe_and_measure_idle(
    postmaster_pid: Option<u32>,
    subscribers: &mut SubscriberProcess,
) -> Result<IdleCpuUsage, Failure> {
    let percent = |used: Option<Duration>, time: Duration| Some(100.0 * used?.as_secs_f64() / time.as_secs_f64());
    let server_cpu_during = async |time: Duration| {
        let before = cpu::times_of_child_processes(postmaster_pid);
        tokio::time::sleep(time).await;
        Some(cpu::times_of_child_processes(postmaster_pid)?.since(&before?))
    };
    let baseline = server_cpu_during(IDLE_MEASUREMENT_LENGTH / 2).await;
    subscribers.subscribe().await?;
    let before = subscribers.cpu_times();
    let with_subscribers = server_cpu_during(IDLE_MEASUREMENT_LENGTH).await;
    let used_by_subscribers = before.zip(subscribers.cpu_times()).map(|(before, after)| after.since(&before));
    let idle = IdleCpuUsage {
        postgresql_percent: percent(with_subscribers, IDLE_MEASUREMENT_LENGTH),
        postgresql_baseline_percent: percent(baseline, IDLE_MEASUREMENT_LENGTH / 2),
        subscribers_percent: percent(used_by_subscribers, IDLE_MEASUREMENT_LENGTH),
    };
    println!("{idle:?}");
    Ok(idle)
}

/// Sends events at human speed, each with the time at which it was sent, and waits until all subscribers have received
/// them or [`DELIVERY_TIMEOUT`] has passed. Returns the delays that the subscribers measured.
async fn measure_delays(
    sparc: &Sparc,
    argument_sets: &[ArgumentSet],
    subscribers: &mut SubscriberProcess,
) -> Result<DelaySummary, Failure> {
    subscribers.discard_delays().await?;
    let start = Instant::now();
    let mut sent = 0_u32;
    while start.elapsed() < DELAY_MEASUREMENT_LENGTH {
        tokio::time::sleep_until((start + Duration::from_secs(1) * sent / EVENTS_PER_SECOND_AT_HUMAN_SPEED).into())
            .await;
        let argument_set = &argument_sets[sent as usize % argument_sets.len()];
        let (session_id, kind) = (argument_set.session, "wave".to_owned());
        let payload = json!({ "sent_at_us": now_us() });
        let event = NewEvent { session_id, kind, payload, ..Default::default() };
        sparc.as_user(argument_set.player).events().send(event).await?;
        sent += 1;
    }
    // If late and lost events were left out, the delays would look better than they are. So this waits for the late
    // ones, and counts the lost ones as missing.
    let expected_deliveries = u64::from(sent) * SUBSCRIBERS_PER_SESSION;
    let expected_deliveries = usize::try_from(expected_deliveries).unwrap_or(usize::MAX);
    let last_event_sent_at = Instant::now();
    let mut deliveries = 0;
    while deliveries < expected_deliveries && last_event_sent_at.elapsed() < DELIVERY_TIMEOUT {
        tokio::time::sleep(Duration::from_millis(100)).await;
        deliveries = subscribers.count_delays().await?;
    }
    if deliveries == 0 {
        return Err(Failure::Message("no subscriber has received an event".to_owned()));
    }
    let delays = subscribers.take_delays().await?;
    Ok(DelaySummary { missing: Some(expected_deliveries.saturating_sub(delays.deliveries)), ..delays })
}

/// Returns the microseconds since 1970 by the machine's clock, which this process shares with the subscribers' process.
fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since_1970| since_1970.as_micros() as u64)
}

/// Returns the id of the session with this number, and the user id of one of its participants. Participant 0 is the
/// Seer; the others are the players, in the order of their seats.
fn session_and_user(data_set: &DataSet, number: u64, participant: u64) -> (uuid::Uuid, uuid::Uuid) {
    let user = if participant == 0 { data_set.session(number).seer } else { data_set.player(number, participant - 1) };
    (row_id(RowKind::Session, number), row_id(RowKind::User, user))
}
