//! One measure on both sides, in turns, and what came of it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{
    Failure,
    client::Client,
    plan::{self, Plan},
    side::{Asking, Role},
};

/// What is measured.
#[derive(Debug)]
pub struct Measure {
    /// Its name in the report.
    pub name: &'static str,
    /// Who asks.
    pub role: Role,
    /// Whether it may be done many times in one transaction: then a short one is sent many times at once, so that what the
    /// way there and back takes is shared.
    pub is_repeatable: bool,
    /// As the specification's schema has it.
    pub specification: Asking,
    /// As the service asks this schema.
    pub ours: Asking,
}

/// A measure, in the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// What was asked.
    pub name: String,
    /// How big the world is: 1 is 300 thousand sessions.
    pub scale: f64,
    /// The role that asked.
    pub role: String,
    /// Median of the specification's side, milliseconds.
    pub prd_ms: f64,
    /// Whether that side was given up after so long: it takes at least this.
    pub prd_gave_up: bool,
    /// Median of ours, milliseconds.
    pub ours_ms: f64,
    /// The first divided by the second.
    pub ratio: f64,
    /// The 99th percentile of ours, milliseconds.
    pub p99_ms: f64,
    /// Median of ours once the other side is gone, milliseconds, the least of a few: what growth is told by.
    pub alone_ms: f64,
    /// Rows that ours gave.
    pub rows: u64,
    /// Rows that the specification's side gave.
    pub prd_rows: u64,
    /// How often ours was asked.
    pub times: usize,
    /// Time in the server, planning included where it plans, milliseconds; by the server's own clock.
    pub server_ms: f64,
    /// What the plan of ours looks like, with the values known.
    pub plan_hash: String,
    /// The same with the values unknown: a plan for all.
    pub generic_plan_hash: String,
    /// How often the server planned anew, and how often it took one plan for all values.
    pub planned: (u64, u64),
    /// Buffers that the plan reads.
    pub buffers: u64,
    /// The plan itself.
    pub plan: Plan,
}

/// So long for both sides of a measure.
const BUDGET: Duration = Duration::from_secs(4);
/// Ours are asked up to so often in a round.
const TURNS: usize = 10;
/// What takes the other side longer reads so much that it drives out what ours reads: both stand in one memory, which two hosts
/// would not share. Then ours are asked once before they are timed.
const COLD: Duration = Duration::from_millis(50);
/// Ours by itself goes so often to each place, and so long to all.
const ALONE: (usize, Duration) = (10, Duration::from_millis(1500));
/// So often a statement is asked before it is timed: a server chooses after five times, and what a function holds is chosen
/// for once the function is.
const WARM: usize = 16;
/// Rounds at least and at most; in each, ours is asked as often as the other side takes longer.
const ROUNDS: std::ops::RangeInclusive<usize> = 3..=200;

impl Measure {
    /// How often a statement is sent at once: a short one many times.
    async fn repeats(&self, asking: &Asking, client: &mut Client) -> Result<u32, Failure> {
        let mut least = BUDGET;
        for place in 0..WARM {
            let Some((time, _)) = asking.once(client, self.role, place, 1).await? else { return Ok(1) };
            least = least.min(time);
            if time > Duration::from_millis(100) {
                return Ok(1);
            }
        }
        Ok(if self.is_repeatable { (2000 / least.as_micros().max(1)).clamp(1, 25) as u32 } else { 1 })
    }

    /// Median of ours by itself, at places that were all asked once before, milliseconds.
    pub async fn alone(&self, ours: &mut Client) -> Result<f64, Failure> {
        self.ours.prepare(ours).await?;
        let repeats = self.repeats(&self.ours, ours).await?;
        let places = self.ours.asked.len();
        let begun = Instant::now();
        for place in 0..places {
            self.ours.once(ours, self.role, place, repeats).await?;
            if begun.elapsed() > ALONE.1 / 2 {
                break;
            }
        }
        let mut times = Vec::new();
        while times.len() < *ROUNDS.start() || times.len() < places * ALONE.0 && begun.elapsed() < ALONE.1 {
            let Some((time, _)) = self.ours.once(ours, self.role, times.len(), repeats).await? else {
                return Err(Failure::Slow(self.name));
            };
            times.push(time);
        }
        self.ours.forget(ours).await?;
        Ok(quantile(&mut times, 0.5))
    }

    /// Measures it at one scale.
    pub async fn take(&self, specification: &mut Client, ours: &mut Client, scale: f64) -> Result<Measured, Failure> {
        self.specification.prepare(specification).await?;
        self.ours.prepare(ours).await?;
        let (mut theirs, mut own, mut gave_up) = (Vec::new(), Vec::new(), false);
        let (mut rows, mut prd_rows) = (0, 0);

        // Warm: often enough for the server to have chosen its plans.
        let here = self.repeats(&self.ours, ours).await?;
        let there = self.repeats(&self.specification, specification).await?;
        let begun = Instant::now();
        for round in 0..*ROUNDS.end() {
            if round >= *ROUNDS.start() && begun.elapsed() > BUDGET {
                break;
            }
            if !gave_up {
                match self.specification.once(specification, self.role, round, there).await? {
                    Some((time, count)) => {
                        theirs.push(time);
                        prd_rows = count;
                    }
                    None => gave_up = true,
                }
            }
            let last = theirs.last().copied().unwrap_or(BUDGET);
            if last > COLD {
                for turn in 0..TURNS {
                    self.ours.once(ours, self.role, round * TURNS + turn, here).await?;
                }
            }
            for turn in 0..TURNS {
                let Some((time, count)) = self.ours.once(ours, self.role, round * TURNS + turn, here).await? else {
                    return Err(Failure::Slow(self.name));
                };
                own.push(time);
                rows = count;
                if time * (turn as u32 + 1) > last {
                    break;
                }
            }
        }

        let planned = ours
            .rows("SELECT custom_plans, generic_plans FROM pg_prepared_statements ORDER BY prepare_time DESC LIMIT 1")
            .await?;
        let planned = planned
            .first()
            .map_or((0, 0), |row| (row[0].parse().unwrap_or_default(), row[1].parse().unwrap_or_default()));
        let plan = plan::of(ours, &self.ours, self.role, "force_custom_plan").await?;
        let generic = plan::of(ours, &self.ours, self.role, "force_generic_plan").await?;
        self.specification.forget(specification).await?;
        self.ours.forget(ours).await?;
        let prd_ms =
            if theirs.is_empty() { crate::side::PATIENCE.as_secs_f64() * 1000.0 } else { quantile(&mut theirs, 0.5) };
        let ours_ms = quantile(&mut own, 0.5);
        Ok(Measured {
            name: self.name.to_owned(),
            scale,
            role: self.role.name().to_owned(),
            prd_ms,
            prd_gave_up: gave_up,
            ours_ms,
            ratio: prd_ms / ours_ms,
            p99_ms: quantile(&mut own, 0.99),
            alone_ms: 0.0,
            rows,
            prd_rows,
            times: own.len(),
            server_ms: plan.ms,
            plan_hash: plan.hash(),
            generic_plan_hash: generic.hash(),
            planned,
            buffers: plan.buffers,
            plan,
        })
    }
}

impl Measured {
    /// What is measured, and at which scale.
    #[must_use]
    pub fn key(&self) -> (u64, String) {
        (self.scale.to_bits(), self.name.clone())
    }
}

/// The time, in milliseconds, below which that part of them is.
pub fn quantile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let place = ((times.len() as f64 - 1.0) * part).ceil().max(0.0) as usize;
    times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}
