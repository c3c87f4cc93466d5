//! Simulated evenings: sessions of six players at human speed, and how many such sessions one machine sustains.

use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, future::try_join_all};
use serde::{Deserialize, Serialize};
use service::{Operations, Options, Sparc, events::Subscription};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    Failure,
    cpu::{self, CpuTimes},
    measure::quantile,
    samples::Sample,
    world::{Kind, World, id},
    writes::new_roll,
};

/// One evening, in the report.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Evening {
    /// Concurrent sessions of six players.
    #[serde(alias = "tables")]
    pub sessions: u64,
    /// Rolls per second that were due.
    #[serde(alias = "wanted_rolls_s")]
    pub due_rolls_s: f64,
    /// Rolls per second that were made.
    pub rolls_s: f64,
    /// Operations per second: rolls, and the players' requests for new events.
    pub operations_s: f64,
    /// Median latency of a roll from the moment it was due, in milliseconds.
    pub roll_p50_ms: f64,
    /// The 99th percentile of that latency.
    pub roll_p99_ms: f64,
    /// Median time from the same moment until all six players have received the event.
    #[serde(default)]
    pub seen_p50_ms: f64,
    /// The 99th percentile of that time.
    #[serde(default)]
    pub seen_p99_ms: f64,
    /// Processors that the server used.
    pub server_cpus: Option<f64>,
    /// Processors that the service used.
    pub client_cpus: Option<f64>,
}

impl Evening {
    /// Whether the machine sustained the evening: rolls were fast enough, and more than 95 percent of those due were
    /// made.
    #[must_use]
    pub fn is_sustained(&self) -> bool {
        self.roll_p99_ms < MAX_ROLL_P99_MS && self.rolls_s > self.due_rolls_s * 0.95
    }
}

/// Returns the largest number of sessions that was sustained.
#[must_use]
pub fn max_sustained_sessions(evenings: &[Evening]) -> u64 {
    evenings.iter().filter(|evening| evening.is_sustained()).map(|evening| evening.sessions).max().unwrap_or_default()
}

/// Players of each session.
const PLAYERS: u64 = 6;
/// The time between two rolls of a session; after each roll, all six players get the new events.
pub const ROLL_INTERVAL: Duration = Duration::from_secs(4);
/// The duration of an evening.
const EVENING_LENGTH: Duration = Duration::from_secs(12);
/// An evening is sustained only if the 99th percentile of a roll's latency is below this, in milliseconds.
pub const MAX_ROLL_P99_MS: f64 = 50.0;
/// Sessions of the evening that warms up the pool.
const WARM_UP_SESSIONS: u64 = 20;
/// The size of the pool.
pub const CONNECTIONS: u32 = 16;

/// How the players get new events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Each player requests new events after each roll.
    Polling,
    /// Each player has a subscription.
    Subscriptions,
}

/// Runs evenings, each with twice as many sessions as the last, until one is not sustained. Then bisects between the
/// last two, to find the largest number of sessions that is sustained.
pub async fn run_evenings(
    url: &str,
    world: &World,
    postmaster_pid: Option<u32>,
    first_sessions: u64,
    delivery: Delivery,
) -> Result<Vec<Evening>, Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(CONNECTIONS)).await?;
    let mut evenings = Vec::new();
    // The most sessions that were sustained so far, and the fewest that were not.
    let (mut sustained, mut not_sustained) = (0, None);
    let mut sessions = first_sessions.min(world.active_sessions);
    run_evening(&sparc, world, WARM_UP_SESSIONS.min(world.active_sessions), postmaster_pid, delivery).await?;
    while not_sustained.is_none_or(|not_sustained| not_sustained - sustained > sustained / 10) {
        let evening = run_evening(&sparc, world, sessions, postmaster_pid, delivery).await?;
        evenings.push(evening);
        println!(
            "{sessions} sessions: {:.0} rolls per second, p50 {:.2} ms, p99 {:.2} ms, seen by all p99 {:.2} ms",
            evening.rolls_s, evening.roll_p50_ms, evening.roll_p99_ms, evening.seen_p99_ms
        );
        if evening.is_sustained() {
            sustained = sessions;
        } else {
            not_sustained = Some(sessions);
        }
        match not_sustained {
            None if sessions >= world.active_sessions => break,
            None => sessions = (sessions * 2).min(world.active_sessions),
            Some(not_sustained) if not_sustained <= 2 => break,
            Some(not_sustained) => sessions = sustained.midpoint(not_sustained),
        }
    }
    sparc.close().await?;
    evenings.sort_by_key(|evening| evening.sessions);
    Ok(evenings)
}

/// Runs one evening.
pub async fn run_evening(
    sparc: &Sparc,
    world: &World,
    sessions: u64,
    postmaster_pid: Option<u32>,
    delivery: Delivery,
) -> Result<Evening, Failure> {
    // Subscriptions are opened before the evening begins.
    let mut opened_sessions = Vec::new();
    for chunk in (0..sessions).collect::<Vec<_>>().chunks(CONNECTIONS as usize) {
        let opening = chunk.iter().map(|number| Session::open(sparc, world, *number, delivery));
        opened_sessions.extend(try_join_all(opening).await?);
    }
    let (server_cpu_before, client_cpu_before) = (cpu::child_processes(postmaster_pid), cpu::this_process());
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for session in opened_sessions {
        tasks.spawn(session.play(start));
    }
    let mut all = SessionResult::default();
    while let Some(outcome) = tasks.join_next().await {
        let result = outcome.map_err(|error| Failure::Message(error.to_string()))??;
        all.roll_latencies.extend(result.roll_latencies);
        all.seen_latencies.extend(result.seen_latencies);
        all.polls += result.polls;
    }
    let seconds = start.elapsed().as_secs_f64();
    let used_cpus =
        |before: Option<CpuTimes>, after: Option<CpuTimes>| Some(after?.since(&before?).as_secs_f64() / seconds);
    Ok(Evening {
        sessions,
        due_rolls_s: sessions as f64 / ROLL_INTERVAL.as_secs_f64(),
        rolls_s: all.roll_latencies.len() as f64 / seconds,
        operations_s: (all.roll_latencies.len() + all.polls) as f64 / seconds,
        roll_p50_ms: quantile(&mut all.roll_latencies, 0.5),
        roll_p99_ms: quantile(&mut all.roll_latencies, 0.99),
        seen_p50_ms: quantile(&mut all.seen_latencies, 0.5),
        seen_p99_ms: quantile(&mut all.seen_latencies, 0.99),
        server_cpus: used_cpus(server_cpu_before, cpu::child_processes(postmaster_pid)),
        client_cpus: used_cpus(client_cpu_before, cpu::this_process()),
    })
}

/// The measurements of one session.
#[derive(Default)]
struct SessionResult {
    /// Each roll's time from the moment it was due until the player had its result.
    roll_latencies: Vec<Duration>,
    /// Each roll's time from the same moment until all six players had received its event.
    seen_latencies: Vec<Duration>,
    /// The number of requests for new events.
    polls: usize,
}

/// One session.
struct Session {
    sparc: Sparc,
    number: u64,
    id: Uuid,
    /// The account numbers of its players.
    players: Vec<u64>,
    /// The `seq` of the newest event that all players have.
    newest_seq: i64,
    /// One per player; empty if the players poll.
    subscriptions: Vec<Subscription>,
}

impl Session {
    async fn open(sparc: &Sparc, world: &World, number: u64, delivery: Delivery) -> Result<Self, Failure> {
        let session_id = id(Kind::Session, number);
        let players: Vec<u64> = (0..PLAYERS).map(|seat| world.player(number, seat)).collect();
        let newest_seq = sparc.as_user(id(Kind::User, players[0])).events().newest(session_id).await?;
        let mut subscriptions = Vec::new();
        if delivery == Delivery::Subscriptions {
            for player in &players {
                let caller = sparc.as_user(id(Kind::User, *player));
                subscriptions.push(caller.events().subscribe(session_id, None).await?);
            }
        }
        Ok(Self { sparc: sparc.clone(), number, id: session_id, players, newest_seq, subscriptions })
    }

    /// Plays one evening. The latency of a late roll counts from the moment it was due, as the player perceives it.
    async fn play(mut self, start: Instant) -> Result<SessionResult, Failure> {
        // The first rolls of the sessions are spread over one interval.
        let mut due = start + ROLL_INTERVAL.mul_f64((self.number % 97) as f64 / 97.0);
        let mut result = SessionResult::default();
        for turn in 0.. {
            if due > start + EVENING_LENGTH {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            let player = self.players[turn % self.players.len()];
            let sample = Sample { session: self.id, character: id(Kind::Character, player), ..Sample::default() };
            self.sparc.as_user(id(Kind::User, player)).dice().roll(new_roll(&sample)?).await?;
            result.roll_latencies.push(due.elapsed());
            result.polls += self.receive_events().await?;
            result.seen_latencies.push(due.elapsed());
            due += ROLL_INTERVAL;
        }
        Ok(result)
    }

    /// Waits until all six players have the new events, and returns the number of requests for them.
    async fn receive_events(&mut self) -> Result<usize, Failure> {
        for subscription in &mut self.subscriptions {
            subscription.try_next().await?.ok_or_else(|| Failure::Message("a subscription ended".to_owned()))?;
        }
        if !self.subscriptions.is_empty() {
            return Ok(0);
        }
        for player in &self.players {
            let events = self.sparc.as_user(id(Kind::User, *player)).events().after(self.id, self.newest_seq).await?;
            if Some(player) == self.players.last() {
                self.newest_seq = events.last().map_or(self.newest_seq, |event| event.seq);
            }
        }
        Ok(self.players.len())
    }
}
