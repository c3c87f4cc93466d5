//! A simulated evening: sessions of six players at human speed, and how many of them one machine sustains.

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
    writes::check,
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
pub fn max_sustained(evenings: &[Evening]) -> u64 {
    evenings.iter().filter(|evening| evening.is_sustained()).map(|evening| evening.sessions).max().unwrap_or_default()
}

/// The time between two rolls of a session; after each roll, all six players get the new events.
const PACE: Duration = Duration::from_secs(4);
/// The duration of an evening.
const LENGTH: Duration = Duration::from_secs(12);
/// An evening is sustained only if the 99th percentile of a roll's latency is below this, in milliseconds.
pub const MAX_ROLL_P99_MS: f64 = 50.0;
/// The size of the pool.
pub const CONNECTIONS: u32 = 16;

/// How players get new events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Each player requests new events after each roll.
    Polling,
    /// Each player has a subscription.
    Subscriptions,
}

/// Runs evenings, each with twice as many sessions as the last, until one is not sustained; then bisects between the
/// two.
pub async fn evenings(
    url: &str,
    world: &World,
    server: Option<u32>,
    first: u64,
    delivery: Delivery,
) -> Result<Vec<Evening>, Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(CONNECTIONS)).await?;
    let mut evenings = Vec::new();
    let (mut good, mut bad) = (0, None);
    let mut sessions = first.min(world.active);
    evening(&sparc, world, 20.min(world.active), server, delivery).await?;
    while bad.is_none_or(|bad| bad - good > good / 10) {
        let evening = evening(&sparc, world, sessions, server, delivery).await?;
        evenings.push(evening);
        println!(
            "{sessions} sessions: {:.0} rolls per second, p50 {:.2} ms, p99 {:.2} ms, seen by all p99 {:.2} ms",
            evening.rolls_s, evening.roll_p50_ms, evening.roll_p99_ms, evening.seen_p99_ms
        );
        if evening.is_sustained() {
            good = sessions;
        } else {
            bad = Some(sessions);
        }
        match bad {
            None if sessions >= world.active => break,
            None => sessions = (sessions * 2).min(world.active),
            Some(bad) if bad <= 2 => break,
            Some(bad) => sessions = good.midpoint(bad),
        }
    }
    sparc.close().await?;
    evenings.sort_by_key(|evening| evening.sessions);
    Ok(evenings)
}

/// Runs one evening.
pub async fn evening(
    sparc: &Sparc,
    world: &World,
    sessions: u64,
    server: Option<u32>,
    delivery: Delivery,
) -> Result<Evening, Failure> {
    // Subscriptions are opened before the evening begins.
    let mut opened = Vec::new();
    for chunk in (0..sessions).collect::<Vec<_>>().chunks(CONNECTIONS as usize) {
        let opening = chunk.iter().map(|number| Session::open(sparc, world, *number, delivery));
        opened.extend(try_join_all(opening).await?);
    }
    let (server_before, client_before) = (cpu::of_children(server), cpu::of_this_process());
    let begun = Instant::now();
    let mut playing = JoinSet::new();
    for session in opened {
        playing.spawn(session.play(begun));
    }
    let mut all = SessionResult::default();
    while let Some(played) = playing.join_next().await {
        let played = played.map_err(|error| Failure::Message(error.to_string()))??;
        all.rolls.extend(played.rolls);
        all.seen.extend(played.seen);
        all.polls += played.polls;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let used = |before: Option<CpuTimes>, after: Option<CpuTimes>| Some(after?.since(&before?).as_secs_f64() / seconds);
    Ok(Evening {
        sessions,
        due_rolls_s: sessions as f64 / PACE.as_secs_f64(),
        rolls_s: all.rolls.len() as f64 / seconds,
        operations_s: (all.rolls.len() + all.polls) as f64 / seconds,
        roll_p50_ms: quantile(&mut all.rolls, 0.5),
        roll_p99_ms: quantile(&mut all.rolls, 0.99),
        seen_p50_ms: quantile(&mut all.seen, 0.5),
        seen_p99_ms: quantile(&mut all.seen, 0.99),
        server_cpus: used(server_before, cpu::of_children(server)),
        client_cpus: used(client_before, cpu::of_this_process()),
    })
}

/// The measurements of one session.
#[derive(Default)]
struct SessionResult {
    rolls: Vec<Duration>,
    /// The times until all six players had received the roll's event.
    seen: Vec<Duration>,
    polls: usize,
}

/// One session.
struct Session {
    sparc: Sparc,
    number: u64,
    id: Uuid,
    players: Vec<u64>,
    /// The `seq` of the newest event that all players have.
    newest: i64,
    /// One per player; empty when they poll.
    subscriptions: Vec<Subscription>,
}

impl Session {
    async fn open(sparc: &Sparc, world: &World, number: u64, delivery: Delivery) -> Result<Self, Failure> {
        let session = id(Kind::Session, number);
        let players: Vec<u64> = (0..6).map(|seat| world.player(number, seat)).collect();
        let newest = sparc.as_user(id(Kind::User, players[0])).events().newest(session).await?;
        let mut subscriptions = Vec::new();
        if delivery == Delivery::Subscriptions {
            for player in &players {
                subscriptions.push(sparc.as_user(id(Kind::User, *player)).events().subscribe(session, None).await?);
            }
        }
        Ok(Self { sparc: sparc.clone(), number, id: session, players, newest, subscriptions })
    }

    /// Plays one evening. The latency of a late roll counts from the moment it was due, as the player perceives it.
    async fn play(mut self, begun: Instant) -> Result<SessionResult, Failure> {
        let mut due = begun + PACE.mul_f64((self.number % 97) as f64 / 97.0);
        let mut played = SessionResult::default();
        for turn in 0.. {
            if due > begun + LENGTH {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            let player = self.players[turn % 6];
            let sample = Sample { session: self.id, hero: id(Kind::Character, player), ..Sample::default() };
            self.sparc.as_user(id(Kind::User, player)).dice().roll(check(&sample)?).await?;
            played.rolls.push(due.elapsed());
            played.polls += self.receive().await?;
            played.seen.push(due.elapsed());
            due += PACE;
        }
        Ok(played)
    }

    /// Waits until all six players have the new events, and returns the number of requests for them.
    async fn receive(&mut self) -> Result<usize, Failure> {
        for subscription in &mut self.subscriptions {
            subscription.try_next().await?.ok_or_else(|| Failure::Message("a subscription ended".to_owned()))?;
        }
        if !self.subscriptions.is_empty() {
            return Ok(0);
        }
        for player in &self.players {
            let events = self.sparc.as_user(id(Kind::User, *player)).events().after(self.id, self.newest).await?;
            if Some(player) == self.players.last() {
                self.newest = events.last().map_or(self.newest, |event| event.seq);
            }
        }
        Ok(self.players.len())
    }
}
