//! Live events: their cost to writers, their delay until another process receives them, and the cost of a thousand idle
//! subscribers.
//!
//! The machine may do other work, so short runs alternate, and are compared by processor time per operation as well as
//! by throughput.

mod alternatives;
mod broadcasts;
pub mod listener;
mod section;

use std::{
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chrono::Utc;
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use service::{Operations, Options, Sparc, events::NewEvent};
use testdb::{Binaries, Database, Server};

pub use self::section::section;
use self::{alternatives::Alternative, listener::Listener};
use crate::{
    Failure, LiveEvents,
    client::Client,
    compare::{ACCOUNTS, SETTINGS},
    cpu,
    evening::{self, Delivery, Evening},
    fill::{Schema, fill},
    growth::up,
    operations::{self, Environment, Operation, Run},
    report::{Report, Settings},
    samples::{Sample, samples},
    sections,
    world::{Kind, World, id},
};

/// Sessions with subscribers.
pub const SESSIONS: u64 = 250;
/// Subscribers per session: its Seer and three players.
pub const SUBSCRIBERS: u64 = 4;
/// The duration of a run of writers.
const RUN: Duration = Duration::from_millis(1500);
/// Pairs of runs, with and without subscribers, at each number of clients.
const PAIRS: usize = 12;
/// Pairs of runs, with and without an alternative, at each number of clients.
const ALTERNATIVE_PAIRS: usize = 6;
/// The number of sessions of the first evening, few enough to be sustained.
const FIRST_SESSIONS: u64 = 200;
/// How long the subscribers are idle.
const IDLE_RUN: Duration = Duration::from_secs(20);
/// Events per second of 250 sessions at human speed, about one every four seconds each.
const HUMAN_RATE: u32 = 60;
/// How long delays are measured.
const DELAY_RUN: Duration = Duration::from_secs(15);

/// A database with many active sessions, because only they have subscribers.
pub const WORLD: World = World { users: 40_000, adventures: 100, active: 6000, open: 1000, ended: 2000 };

/// The measurements of live events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Live {
    /// Writers with and without subscribers.
    pub writers: Vec<Writers>,
    /// Delays from the call that writes an event to its arrival at a subscriber in another process, at human speed.
    pub at_human_speed: Delays,
    /// The same delays while eight clients roll as fast as they can.
    pub under_load: Delays,
    /// The processor use of a thousand idle subscribers.
    pub idle: Idle,
    /// Evenings in which every player has a subscription.
    #[serde(alias = "listening")]
    pub subscribing: Vec<Evening>,
    /// Evenings in which every player polls, in the same run.
    pub polling: Vec<Evening>,
    /// The largest numbers of sessions that were sustained, with subscriptions and with polling.
    #[serde(alias = "borne")]
    pub sustained: (u64, u64),
    /// What a broadcast adds to a roll.
    pub broadcast: Option<broadcasts::Broadcast>,
    /// The alternatives to the poller.
    #[serde(alias = "candidates")]
    pub alternatives: Vec<Alternative>,
}

/// Writers with and without an added load, measured alternately.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Writers {
    /// Concurrent clients.
    pub clients: u32,
    /// Rolls per second without the load.
    pub without_ops_s: f64,
    /// Rolls per second with the load.
    pub with_ops_s: f64,
    /// The loss in percent, the median over the pairs of runs; negative if writers are faster with the load.
    pub loss_percent: f64,
    /// The server's processor time per roll without the load, in milliseconds.
    pub without_cpu_ms: Option<f64>,
    /// The server's processor time per roll with the load, including the load's.
    pub with_cpu_ms: Option<f64>,
    /// The processor time of the process that is the load, per roll; `None` if the load is in the server.
    #[serde(default)]
    pub process_cpu_ms: Option<f64>,
}

/// Delays in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Delays {
    /// The median.
    pub p50_ms: f64,
    /// The 95th percentile.
    pub p95_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The number of events received.
    pub count: usize,
}

/// Processor use while no event is written, in percent of a processor.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Idle {
    /// Of the server with the subscribers.
    pub server_percent: Option<f64>,
    /// Of the server without the subscribers.
    #[serde(alias = "server_alone_percent")]
    pub server_baseline_percent: Option<f64>,
    /// Of the subscribers' process.
    pub process_percent: Option<f64>,
}

/// Runs the command `live`.
pub async fn live(options: &LiveEvents) -> Result<(), Failure> {
    let begun = Instant::now();
    fs::create_dir_all(&options.out)?;
    let server = Server::start_private(Some(&SETTINGS)).await?;
    let mut client = Client::open(server.url()).await?;
    let settings = Settings::of(&mut client).await?;
    let postmaster = client.value("SELECT pg_read_file('postmaster.pid')").await?;
    let postmaster = postmaster.lines().next().and_then(|line| line.parse().ok());
    client.close().await?;
    let database = set_up(&server, WORLD).await?;
    println!("filled after {:.0} s", begun.elapsed().as_secs_f64());

    // All writers write in sessions with subscribers.
    let samples = samples(&World { active: SESSIONS, ..WORLD });
    let pgbench = Binaries::find()?.program("pgbench").unwrap_or_default();
    let url = database.url();
    let environment =
        Environment { url, pgbench, samples: &samples, server: postmaster, folder: &options.out, time: RUN };
    let mut live = Live::default();
    let mut listener = Listener::start(url, WORLD).await?;
    let process = listener.process_id();
    let switch = async |is_on| if is_on { listener.subscribe().await } else { listener.unsubscribe().await };
    live.writers = writers(&environment, PAIRS, process, switch).await?;
    live.idle = idle(postmaster, &mut listener).await?;
    let sparc = Sparc::connect_with(url, Options::default().max_connections(16)).await?;
    live.at_human_speed = delays(&sparc, &samples, &mut listener).await?;
    println!("at human speed: {:?}", live.at_human_speed);
    let load = operations::run_service(Operation::Roll, &sparc, 8, &environment, DELAY_RUN);
    let (_, delayed) = tokio::try_join!(load, delays(&sparc, &samples, &mut listener))?;
    live.under_load = delayed;
    println!("under load: {:?}", live.under_load);
    sparc.close().await?;
    listener.unsubscribe().await?;
    if !options.no_alternatives {
        live.alternatives = alternatives::alternatives(&environment).await?;
    }
    listener.end().await?;
    if !options.no_evening {
        live.polling = evening::evenings(url, &WORLD, postmaster, FIRST_SESSIONS, Delivery::Polling).await?;
        live.subscribing = evening::evenings(url, &WORLD, postmaster, FIRST_SESSIONS, Delivery::Subscriptions).await?;
        live.sustained = (evening::max_sustained(&live.subscribing), evening::max_sustained(&live.polling));
        println!("sessions: {} with subscriptions, {} with polling", live.sustained.0, live.sustained.1);
    }
    drop(database);
    live.broadcast = Some(broadcasts::broadcasts().await?);
    let mut report = Report { settings, live: Some(live), ..Report::default() };
    report.settings.seconds = begun.elapsed().as_secs_f64();
    sections::write(&report, &options.out, options.docs, "live", section(&report))
}

/// Creates and fills a database, without events.
pub async fn set_up(server: &Server, world: World) -> Result<Database, Failure> {
    let database = server.create_empty().await?;
    let pool = database.connect(2).await?;
    up(&pool, None).await?;
    fill(database.url(), Schema::Ours, world, Utc::now()).await?;
    pool.execute_unprepared(ACCOUNTS).await?;
    pool.close().await?;
    Ok(database)
}

/// Measures rolls with and without an added load, in pairs of runs whose order alternates.
async fn writers(
    environment: &Environment<'_>,
    pairs: usize,
    process: Option<u32>,
    mut switch: impl AsyncFnMut(bool) -> Result<(), Failure>,
) -> Result<Vec<Writers>, Failure> {
    let mut all = Vec::new();
    for clients in [8, 64] {
        let sparc = Sparc::connect_with(environment.url, Options::default().max_connections(clients.max(10))).await?;
        operations::run_service(Operation::Roll, &sparc, clients, environment, RUN).await?;
        let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
        let mut process_times = Vec::new();
        for pair in 0..pairs {
            for step in 0..2 {
                let is_on = (pair + step) % 2 == 1;
                switch(is_on).await?;
                // An untimed run, because switching the load has effects of its own.
                operations::run_service(Operation::Roll, &sparc, clients, environment, RUN / 5).await?;
                let before = process.and_then(cpu::of);
                let (run, _) = operations::run_service(Operation::Roll, &sparc, clients, environment, RUN).await?;
                if is_on && let (Some(before), Some(after)) = (before, process.and_then(cpu::of)) {
                    let rolls = run.ops_s * RUN.as_secs_f64();
                    process_times.push(after.since(&before).as_secs_f64() * 1000.0 / rolls);
                }
                runs[usize::from(is_on)].push(run);
            }
        }
        switch(false).await?;
        sparc.close().await?;
        let mut losses: Vec<f64> =
            runs[0].iter().zip(&runs[1]).map(|(without, with)| 100.0 * (1.0 - with.ops_s / without.ops_s)).collect();
        losses.sort_by(f64::total_cmp);
        let mean = |runs: &[Run], of: fn(&Run) -> Option<f64>| {
            Some(runs.iter().map(of).sum::<Option<f64>>()? / runs.len() as f64)
        };
        let result = Writers {
            clients,
            without_ops_s: mean(&runs[0], |run| Some(run.ops_s)).unwrap_or_default(),
            with_ops_s: mean(&runs[1], |run| Some(run.ops_s)).unwrap_or_default(),
            loss_percent: f64::midpoint(losses[(pairs - 1) / 2], losses[pairs / 2]),
            without_cpu_ms: mean(&runs[0], |run| run.server_cpu_ms),
            with_cpu_ms: mean(&runs[1], |run| run.server_cpu_ms),
            process_cpu_ms: (!process_times.is_empty())
                .then(|| process_times.iter().sum::<f64>() / process_times.len() as f64),
        };
        println!("{result:?}");
        all.push(result);
    }
    Ok(all)
}

async fn idle(postmaster: Option<u32>, listener: &mut Listener) -> Result<Idle, Failure> {
    let percent = |spent: Option<Duration>, time: Duration| Some(100.0 * spent?.as_secs_f64() / time.as_secs_f64());
    let server_cpu_during = async |time: Duration| {
        let before = cpu::of_children(postmaster);
        tokio::time::sleep(time).await;
        Some(cpu::of_children(postmaster)?.since(&before?))
    };
    let baseline = server_cpu_during(IDLE_RUN / 2).await;
    listener.subscribe().await?;
    let before = listener.cpu();
    let subscribed = server_cpu_during(IDLE_RUN).await;
    let process = before.zip(listener.cpu()).map(|(before, after)| after.since(&before));
    let idle = Idle {
        server_percent: percent(subscribed, IDLE_RUN),
        server_baseline_percent: percent(baseline, IDLE_RUN / 2),
        process_percent: percent(process, IDLE_RUN),
    };
    println!("{idle:?}");
    Ok(idle)
}

/// Sends events that carry the time of sending, and returns the delays that the subscribers measured.
async fn delays(sparc: &Sparc, samples: &[Sample], listener: &mut Listener) -> Result<Delays, Failure> {
    listener.reset().await?;
    let begun = Instant::now();
    let mut sent = 0_u32;
    while begun.elapsed() < DELAY_RUN {
        tokio::time::sleep_until((begun + Duration::from_secs(1) * sent / HUMAN_RATE).into()).await;
        let sample = &samples[sent as usize % samples.len()];
        let (session_id, kind) = (sample.session, "wave".to_owned());
        let payload = json!({ "at": now() });
        let event = NewEvent { session_id, kind, payload, ..Default::default() };
        sparc.as_user(sample.player).events().send(event).await?;
        sent += 1;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    listener.delays().await
}

/// Returns the microseconds since 1970, by a clock that all processes on one machine share.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Returns a session and one of its participants: 0 is the Seer, the other numbers are players.
fn subscriber(world: &World, number: u64, participant: u64) -> (uuid::Uuid, uuid::Uuid) {
    let user = if participant == 0 { world.session(number).seer } else { world.player(number, participant - 1) };
    (id(Kind::Session, number), id(Kind::User, user))
}
