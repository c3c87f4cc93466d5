//! A simulated evening: tables of six that play at the speed of people, and how many of them one machine bears.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use service::{Operations, Options, Sparc};
use tokio::task::JoinSet;

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
    /// Processors that the server kept busy.
    pub server_cpus: Option<f64>,
    /// Processors that the service kept busy.
    pub client_cpus: Option<f64>,
}

/// A table rolls so often; after each roll, each of the six looks what is new.
const PACE: Duration = Duration::from_secs(4);
/// How long an evening lasts.
const LENGTH: Duration = Duration::from_secs(12);
/// The 99th percentile of a roll that people bear, milliseconds.
pub const BEARABLE: f64 = 50.0;
/// Connections of the pool.
const CONNECTIONS: u32 = 16;

/// Evenings with more and more tables, until the rolls get slow; then between the last two.
pub async fn evenings(url: &str, world: &World, server: Option<u32>) -> Result<Vec<Evening>, Failure> {
    let sparc = Sparc::connect_with(url, Options::default().max_connections(CONNECTIONS)).await?;
    let mut evenings = Vec::new();
    let (mut good, mut bad) = (0, None);
    let mut tables = 50;
    evening(&sparc, world, 20.min(world.busy), server).await?;
    while bad.is_none_or(|bad| bad - good > good / 10) {
        let evening = evening(&sparc, world, tables, server).await?;
        evenings.push(evening);
        println!(
            "{tables} tables: {:.0} rolls a second, p50 {:.2} ms, p99 {:.2} ms",
            evening.rolls_s, evening.roll_p50_ms, evening.roll_p99_ms
        );
        if evening.roll_p99_ms < BEARABLE && evening.rolls_s > evening.wanted_rolls_s * 0.95 {
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

async fn evening(sparc: &Sparc, world: &World, tables: u64, server: Option<u32>) -> Result<Evening, Failure> {
    let (server_before, own_before) = (cpu::of_children(server), cpu::own());
    let begun = Instant::now();
    let mut playing = JoinSet::new();
    for table in 0..tables {
        playing.spawn(play(sparc.clone(), *world, table, begun));
    }
    let (mut rolls, mut looks) = (Vec::new(), 0);
    while let Some(played) = playing.join_next().await {
        let (took, looked) = played.map_err(|error| Failure::Said(error.to_string()))??;
        rolls.extend(took);
        looks += looked;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let busy = |before: Option<Spent>, after: Option<Spent>| Some(after?.since(&before?).as_secs_f64() / seconds);
    Ok(Evening {
        tables,
        wanted_rolls_s: tables as f64 / PACE.as_secs_f64(),
        rolls_s: rolls.len() as f64 / seconds,
        operations_s: (rolls.len() + looks) as f64 / seconds,
        roll_p50_ms: quantile(&mut rolls, 0.5),
        roll_p99_ms: quantile(&mut rolls, 0.99),
        server_cpus: busy(server_before, cpu::of_children(server)),
        client_cpus: busy(own_before, cpu::own()),
    })
}

/// One table. A roll that is late is counted from when it was wanted, as the player does.
async fn play(sparc: Sparc, world: World, table: u64, begun: Instant) -> Result<(Vec<Duration>, usize), Failure> {
    let session = id(Kind::Session, table);
    let players: Vec<u64> = (0..6).map(|seat| world.player(table, seat)).collect();
    let mut newest = sparc.as_user(id(Kind::User, players[0])).events().newest(session).await?;
    let mut wanted = begun + PACE.mul_f64((table % 97) as f64 / 97.0);
    let (mut rolls, mut looks) = (Vec::new(), 0);
    for turn in 0.. {
        if wanted > begun + LENGTH {
            break;
        }
        tokio::time::sleep_until(wanted.into()).await;
        let player = players[turn % 6];
        let sample = Sample { session, hero: id(Kind::Character, player), ..Sample::default() };
        sparc.as_user(id(Kind::User, player)).dice().roll(check(&sample)?).await?;
        rolls.push(wanted.elapsed());
        for player in &players {
            let events = sparc.as_user(id(Kind::User, *player)).events().after(session, newest).await?;
            looks += 1;
            if Some(player) == players.last() {
                newest = events.last().map_or(newest, |event| event.seq);
            }
        }
        wanted += PACE;
    }
    Ok((rolls, looks))
}
