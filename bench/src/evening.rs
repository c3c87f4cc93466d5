//! A simulated evening: tables of six that play at the speed of people, and how many of them one machine bears.

use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, future::try_join_all};
use serde::{Deserialize, Serialize};
use service::{Operations, Options, Sparc, events::Subscription};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    Failure,
    cpu::{self, Spent},
    measure::quantile,
    samples::Sample,
    world::{Kind, World, id},
    writes::check,
};

/// One evening, in the report.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Evening {
    /// Tables of six.
    pub tables: u64,
    /// Rolls a second that were to fall.
    pub wanted_rolls_s: f64,
    /// Rolls a second that fell.
    pub rolls_s: f64,
    /// Operations a second, the looks of everyone at the table included.
    pub operations_s: f64,
    /// Median of a roll from the moment at which the player wanted it, milliseconds.
    pub roll_p50_ms: f64,
    /// The 99th percentile.
    pub roll_p99_ms: f64,
    /// Median until all six have seen it, from the same moment.
    #[serde(default)]
    pub seen_p50_ms: f64,
    /// The 99th percentile.
    #[serde(default)]
    pub seen_p99_ms: f64,
    /// Processors that the server kept busy.
    pub server_cpus: Option<f64>,
    /// Processors that the service kept busy.
    pub client_cpus: Option<f64>,
}

impl Evening {
    /// Whether people bear it.
    #[must_use]
    pub fn is_borne(&self) -> bool {
        self.roll_p99_ms < BEARABLE && self.rolls_s > self.wanted_rolls_s * 0.95
    }
}

/// The most tables of those that were borne.
#[must_use]
pub fn borne(evenings: &[Evening]) -> u64 {
    evenings.iter().filter(|evening| evening.is_borne()).map(|evening| evening.tables).max().unwrap_or_default()
}

/// A table rolls so often; after each roll, each of the six looks what is new.
const PACE: Duration = Duration::from_secs(4);
/// How long an evening lasts.
const LENGTH: Duration = Duration::from_secs(12);
/// The 99th percentile of a roll that people bear, milliseconds.
pub const BEARABLE: f64 = 50.0;
/// Connections of the pool.
const CONNECTIONS: u32 = 16;

/// How the six of a table see what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looking {
    /// Each asks after each roll.
    Polls,
    /// Each has a stream.
    Listens,
}

/// Evenings with more and more tables, until the rolls get slow; then between the last two.
pub async fn evenings(
    url: &str,
    world: &World,
    server: Option<u32>,
    first: u64,
    looking: Looking,
) -> Result<Vec<Evening>, Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(CONNECTIONS)).await?;
    let mut evenings = Vec::new();
    let (mut good, mut bad) = (0, None);
    let mut tables = first.min(world.busy);
    evening(&sparc, world, 20.min(world.busy), server, looking).await?;
    while bad.is_none_or(|bad| bad - good > good / 10) {
        let evening = evening(&sparc, world, tables, server, looking).await?;
        evenings.push(evening);
        println!(
            "{tables} tables: {:.0} rolls a second, p50 {:.2} ms, p99 {:.2} ms, seen by all p99 {:.2} ms",
            evening.rolls_s, evening.roll_p50_ms, evening.roll_p99_ms, evening.seen_p99_ms
        );
        if evening.is_borne() {
            good = tables;
        } else {
            bad = Some(tables);
        }
        match bad {
            None if tables >= world.busy => break,
            None => tables = (tables * 2).min(world.busy),
            Some(bad) if bad <= 2 => break,
            Some(bad) => tables = good.midpoint(bad),
        }
    }
    sparc.close().await?;
    evenings.sort_by_key(|evening| evening.tables);
    Ok(evenings)
}

async fn evening(
    sparc: &Sparc,
    world: &World,
    tables: u64,
    server: Option<u32>,
    looking: Looking,
) -> Result<Evening, Failure> {
    // Everybody is there before it begins.
    let mut seated = Vec::new();
    for chunk in (0..tables).collect::<Vec<_>>().chunks(CONNECTIONS as usize) {
        let seating = chunk.iter().map(|table| Table::seat(sparc, world, *table, looking));
        seated.extend(try_join_all(seating).await?);
    }
    let (server_before, own_before) = (cpu::of_children(server), cpu::own());
    let begun = Instant::now();
    let mut playing = JoinSet::new();
    for table in seated {
        playing.spawn(table.play(begun));
    }
    let mut all = Played::default();
    while let Some(played) = playing.join_next().await {
        let played = played.map_err(|error| Failure::Said(error.to_string()))??;
        all.rolls.extend(played.rolls);
        all.seen.extend(played.seen);
        all.looks += played.looks;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let busy = |before: Option<Spent>, after: Option<Spent>| Some(after?.since(&before?).as_secs_f64() / seconds);
    Ok(Evening {
        tables,
        wanted_rolls_s: tables as f64 / PACE.as_secs_f64(),
        rolls_s: all.rolls.len() as f64 / seconds,
        operations_s: (all.rolls.len() + all.looks) as f64 / seconds,
        roll_p50_ms: quantile(&mut all.rolls, 0.5),
        roll_p99_ms: quantile(&mut all.rolls, 0.99),
        seen_p50_ms: quantile(&mut all.seen, 0.5),
        seen_p99_ms: quantile(&mut all.seen, 0.99),
        server_cpus: busy(server_before, cpu::of_children(server)),
        client_cpus: busy(own_before, cpu::own()),
    })
}

/// What a table did.
#[derive(Default)]
struct Played {
    rolls: Vec<Duration>,
    /// Until all six have seen the roll.
    seen: Vec<Duration>,
    looks: usize,
}

/// One table.
struct Table {
    sparc: Sparc,
    number: u64,
    session: Uuid,
    players: Vec<u64>,
    newest: i64,
    /// Of each player; none where they look.
    streams: Vec<Subscription>,
}

impl Table {
    async fn seat(sparc: &Sparc, world: &World, number: u64, looking: Looking) -> Result<Self, Failure> {
        let session = id(Kind::Session, number);
        let players: Vec<u64> = (0..6).map(|seat| world.player(number, seat)).collect();
        let newest = sparc.as_user(id(Kind::User, players[0])).events().newest(session).await?;
        let mut streams = Vec::new();
        if looking == Looking::Listens {
            for player in &players {
                streams.push(sparc.as_user(id(Kind::User, *player)).events().subscribe(session, None).await?);
            }
        }
        Ok(Self { sparc: sparc.clone(), number, session, players, newest, streams })
    }

    /// A roll that is late is counted from when it was wanted, as the player does.
    async fn play(mut self, begun: Instant) -> Result<Played, Failure> {
        let mut wanted = begun + PACE.mul_f64((self.number % 97) as f64 / 97.0);
        let mut played = Played::default();
        for turn in 0.. {
            if wanted > begun + LENGTH {
                break;
            }
            tokio::time::sleep_until(wanted.into()).await;
            let player = self.players[turn % 6];
            let sample = Sample { session: self.session, hero: id(Kind::Character, player), ..Sample::default() };
            self.sparc.as_user(id(Kind::User, player)).dice().roll(check(&sample)?).await?;
            played.rolls.push(wanted.elapsed());
            played.looks += self.see().await?;
            played.seen.push(wanted.elapsed());
            wanted += PACE;
        }
        Ok(played)
    }

    /// All six see what is new; how often they asked for it.
    async fn see(&mut self) -> Result<usize, Failure> {
        for stream in &mut self.streams {
            stream.try_next().await?.ok_or_else(|| Failure::Said("a stream is over".to_owned()))?;
        }
        if !self.streams.is_empty() {
            return Ok(0);
        }
        for player in &self.players {
            let events = self.sparc.as_user(id(Kind::User, *player)).events().after(self.session, self.newest).await?;
            if Some(player) == self.players.last() {
                self.newest = events.last().map_or(self.newest, |event| event.seq);
            }
        }
        Ok(self.players.len())
    }
}
