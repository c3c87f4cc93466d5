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
mod writers;

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::json;
use service::{Operations, Options, Sparc, events::NewEvent};
use testdb::Server;

pub use self::section::section;
use self::{
    subscribers::{SUBSCRIBED_SESSIONS, SUBSCRIBERS_PER_SESSION, SubscriberProcess, now_us},
    writers::compare_writers,
};
use crate::{
    argument_sets::{ArgumentSet, choose_argument_sets},
    client::Client,
    cpu,
    data_set::DataSet,
    database::{PRODUCTION_SETTINGS, create_filled_database},
    failure::Failure,
    load_test::{self, Delivery},
    operations::{self, Environment, Operation},
    options::LiveOptions,
    report::{DELIVERY_TIMEOUT, DelaySummary, IdleCpuUsage, LiveResults, Report, RunInfo, max_sustained_step},
    sections,
};

/// The number of pairs of runs, one with and one without subscribers, for each number of clients.
const RUN_PAIRS: usize = 12;
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
        let max_sessions = |steps| max_sustained_step(steps).map_or(0, |step| step.sessions);
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
