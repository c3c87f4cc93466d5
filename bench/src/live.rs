//! Live events: what they cost those who write, how soon they arrive in another process, and what a thousand people who only
//! listen cost.
//!
//! The machine may do other things as well, so what is compared is measured in short turns, one after the other, with the
//! processor time of an operation beside its throughput.

mod broadcasts;
mod candidates;
pub mod listener;

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

use self::{candidates::Candidate, listener::Listener};
use crate::{
    Failure, LiveEvents,
    client::Client,
    compare::{ACCOUNTS, SETTINGS},
    cpu,
    evening::{self, Evening, Looking},
    fill::{Side, fill},
    growth::up,
    operations::{self, Doing, Place, Run},
    page,
    report::{Report, Settings},
    samples::{Sample, samples},
    world::{Kind, World, id},
};

/// Sessions that are listened to.
pub const SESSIONS: u64 = 250;
/// Subscribers of each: its Seer and players.
pub const SUBSCRIBERS: u64 = 4;
/// A turn of writers.
const TURN: Duration = Duration::from_millis(1500);
/// Turns with and without live events, at each number of clients.
const TURNS: usize = 12;
/// The same for what else was tried.
const FEW_TURNS: usize = 6;
/// The first evening's tables: fewer are no question here.
const FIRST_TABLES: u64 = 200;
/// Nothing happens for so long.
const IDLE: Duration = Duration::from_secs(20);
/// Events a second, as of so many sessions at human speed, and for how long.
const HUMAN: (u32, Duration) = (60, Duration::from_secs(15));

/// Tables that play; nothing else matters here.
const WORLD: World = World { users: 40_000, adventures: 100, busy: 3000, open: 1000, ended: 2000 };

/// All that is told of live events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Live {
    /// Writers with and without them.
    pub writers: Vec<Writers>,
    /// From the call of a write to the subscriber in another process, at human speed.
    pub at_human_speed: Delays,
    /// The same while eight clients write as fast as they can.
    pub under_load: Delays,
    /// A thousand who only listen.
    pub idle: Idle,
    /// Evenings in which everyone at the table listens instead of looking.
    pub listening: Vec<Evening>,
    /// Evenings in which everyone looks, on the same day.
    pub polling: Vec<Evening>,
    /// The most tables that it bears: listening, polling.
    pub borne: (u64, u64),
    /// What a broadcast adds to a roll.
    pub broadcast: Option<broadcasts::Broadcast>,
    /// What else was tried.
    pub candidates: Vec<Candidate>,
}

/// Writers with and without something, in turns.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Writers {
    /// How many at once.
    pub clients: u32,
    /// Rolls a second without it.
    pub without_ops_s: f64,
    /// And with it.
    pub with_ops_s: f64,
    /// What they lose, percent; below zero where they are faster. The median of the pairs of turns.
    pub loss_percent: f64,
    /// Processor time of the server for a roll, milliseconds, without.
    pub without_cpu_ms: Option<f64>,
    /// And with it, what it takes itself included.
    pub with_cpu_ms: Option<f64>,
}

/// How long something takes, milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Delays {
    /// The median.
    pub p50_ms: f64,
    /// 95 of 100.
    pub p95_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// How many were timed.
    pub count: usize,
}

/// Processors kept busy while nothing happens.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Idle {
    /// Of the server, percent of one.
    pub server_percent: Option<f64>,
    /// Of the server with nobody connected.
    pub server_alone_percent: Option<f64>,
    /// Of the process with the subscribers.
    pub process_percent: Option<f64>,
}

/// Measures, and writes what came of it.
pub async fn live(asked: &LiveEvents) -> Result<(), Failure> {
    let begun = Instant::now();
    fs::create_dir_all(&asked.out)?;
    let server = Server::start_private(Some(&SETTINGS)).await?;
    let mut client = Client::open(server.url()).await?;
    let settings = Settings::of(&mut client).await?;
    let postmaster = client.value("SELECT pg_read_file('postmaster.pid')").await?;
    let postmaster = postmaster.lines().next().and_then(|line| line.parse().ok());
    client.close().await?;
    let database = lay(&server).await?;
    println!("filled after {:.0} s", begun.elapsed().as_secs_f64());

    // Each writes in a session that is listened to.
    let samples = samples(&World { busy: SESSIONS, ..WORLD });
    let pgbench = Binaries::find()?.program("pgbench").unwrap_or_default();
    let url = database.url();
    let place = Place { url, pgbench, samples: &samples, server: postmaster, folder: &asked.out, time: TURN };
    let mut live = Live::default();
    let mut listener = Listener::start(url, WORLD).await?;
    live.writers =
        writers(&place, TURNS, async |is_on| if is_on { listener.subscribe().await } else { listener.leave().await })
            .await?;
    live.idle = idle(postmaster, &mut listener).await?;
    let sparc = Sparc::connect_with(url, Options::default().max_connections(16)).await?;
    live.at_human_speed = delays(&sparc, &samples, &mut listener).await?;
    println!("at human speed: {:?}", live.at_human_speed);
    let loaded = Place { time: HUMAN.1, ..place.clone() };
    let load = operations::service(Doing::Roll, &sparc, 8, &loaded, HUMAN.1);
    let (_, delayed) = tokio::try_join!(load, delays(&sparc, &samples, &mut listener))?;
    live.under_load = delayed;
    println!("under load: {:?}", live.under_load);
    sparc.close().await?;
    listener.leave().await?;
    if !asked.no_candidates {
        live.candidates = candidates::candidates(&place).await?;
    }
    listener.end().await?;
    if !asked.no_evening {
        live.polling = evening::evenings(url, &WORLD, postmaster, FIRST_TABLES, Looking::Polls).await?;
        live.listening = evening::evenings(url, &WORLD, postmaster, FIRST_TABLES, Looking::Listens).await?;
        live.borne = (evening::borne(&live.listening), evening::borne(&live.polling));
        println!("tables: {} listening, {} polling", live.borne.0, live.borne.1);
    }
    drop(database);
    live.broadcast = Some(broadcasts::broadcasts().await?);
    let mut report = Report { settings, live: Some(live), ..Report::default() };
    report.settings.seconds = begun.elapsed().as_secs_f64();
    page::write(&report, &asked.out, false)
}

/// A database with tables that play, and no events yet.
async fn lay(server: &Server) -> Result<Database, Failure> {
    let database = server.empty().await?;
    let pool = database.connect(2).await?;
    up(&pool, None).await?;
    fill(database.url(), Side::Ours, WORLD, Utc::now()).await?;
    pool.execute_unprepared(ACCOUNTS).await?;
    pool.close().await?;
    Ok(database)
}

/// Rolls with something and without it, in turns whose order changes.
async fn writers(
    place: &Place<'_>,
    turns: usize,
    mut switch: impl AsyncFnMut(bool) -> Result<(), Failure>,
) -> Result<Vec<Writers>, Failure> {
    let mut all = Vec::new();
    for clients in [8, 64] {
        let sparc = Sparc::connect_with(place.url, Options::default().max_connections(clients.max(10))).await?;
        operations::service(Doing::Roll, &sparc, clients, place, TURN).await?;
        let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
        for turn in 0..turns {
            for step in 0..2 {
                let is_on = (turn + step) % 2 == 1;
                switch(is_on).await?;
                // What was switched on or off shall not be timed.
                operations::service(Doing::Roll, &sparc, clients, place, TURN / 5).await?;
                let (run, _) = operations::service(Doing::Roll, &sparc, clients, place, TURN).await?;
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
        let found = Writers {
            clients,
            without_ops_s: mean(&runs[0], |run| Some(run.ops_s)).unwrap_or_default(),
            with_ops_s: mean(&runs[1], |run| Some(run.ops_s)).unwrap_or_default(),
            loss_percent: f64::midpoint(losses[(turns - 1) / 2], losses[turns / 2]),
            without_cpu_ms: mean(&runs[0], |run| run.server_cpu_ms),
            with_cpu_ms: mean(&runs[1], |run| run.server_cpu_ms),
        };
        println!("{found:?}");
        all.push(found);
    }
    Ok(all)
}

async fn idle(server: Option<u32>, listener: &mut Listener) -> Result<Idle, Failure> {
    let percent = |spent: Option<Duration>, time: Duration| Some(100.0 * spent?.as_secs_f64() / time.as_secs_f64());
    let server_for = async |time: Duration| {
        let before = cpu::of_children(server);
        tokio::time::sleep(time).await;
        Some(cpu::of_children(server)?.since(&before?))
    };
    let alone = server_for(IDLE / 2).await;
    listener.subscribe().await?;
    let before = listener.cpu();
    let listening = server_for(IDLE).await;
    let process = before.zip(listener.cpu()).map(|(before, after)| after.since(&before));
    let idle = Idle {
        server_percent: percent(listening, IDLE),
        server_alone_percent: percent(alone, IDLE / 2),
        process_percent: percent(process, IDLE),
    };
    println!("{idle:?}");
    Ok(idle)
}

/// Events with the time at which they were to be written, to people in another process.
async fn delays(sparc: &Sparc, samples: &[Sample], listener: &mut Listener) -> Result<Delays, Failure> {
    listener.forget().await?;
    let begun = Instant::now();
    let mut sent = 0_u32;
    while begun.elapsed() < HUMAN.1 {
        tokio::time::sleep_until((begun + Duration::from_secs(1) * sent / HUMAN.0).into()).await;
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

/// Microseconds since 1970: what two processes of one machine agree on.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// The session of that number, and one of its people.
fn subscriber(world: &World, number: u64, place: u64) -> (uuid::Uuid, uuid::Uuid) {
    let who = if place == 0 { world.session(number).seer } else { world.player(number, place - 1) };
    (id(Kind::Session, number), id(Kind::User, who))
}
