//! Checks that the programs return the same, counts the round trips that a caller waits for, and measures speed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use service::Operations;
use tokio::task::JoinSet;

use super::{
    Answer, Operation, Output, POOL, Program, ProgramResult, RoundTrips, delay::DelayProxy, not_the_service,
    run_service,
};
use crate::{
    Drivers, Failure,
    cpu::{self, CpuTimes},
    measure::quantile,
    samples::Sample,
};

/// The duration of the first run, which opens connections and prepares statements.
const WARM_UP: Duration = Duration::from_millis(300);
/// The latency of a round trip while round trips are counted.
const LONG_LATENCY: Duration = Duration::from_millis(20);
/// Calls of each operation while round trips are counted.
const CALLS: usize = 12;

/// The context that all runs share.
pub struct Environment {
    /// The server's process id.
    pub server: Option<u32>,
    /// The callers, with their sessions.
    pub samples: Arc<Vec<Sample>>,
}

impl Environment {
    /// Checks that all programs return the same, and that each runs with the caller's privileges.
    pub async fn check(&self, operation: Operation, programs: &[Arc<Program>; 3]) -> Result<(), Failure> {
        let Program::Service(sparc) = &*programs[0] else { return Err(not_the_service()) };
        let differs = |what: &str, found: &Answer, expected: &Answer| {
            let name = operation.name();
            Failure::Message(format!("{name}: {what} must be {expected:?}, but is {found:?}"))
        };
        let sample = &self.samples[0];
        for program in programs {
            let found = program.run(operation, sample, Output::Json).await?;
            let expected = match operation {
                // Each roll is random, so the result is compared with the stored row.
                Operation::Roll => {
                    let id = found.as_ref().and_then(|roll| roll["id"].as_str()?.parse().ok()).unwrap_or_default();
                    Some(serde_json::to_value(sparc.as_user(sample.player).dice().get(id).await?)?)
                }
                _ => run_service(sparc, operation, sample, Output::Json).await?,
            };
            if found != expected {
                return Err(differs("a result", &found, &expected));
            }
            if operation == Operation::Rolls {
                let stranger = Sample { player: sample.newcomer, ..sample.clone() };
                let (found, expected) =
                    (program.run(operation, &stranger, Output::Json).await?, Some(Value::Array(Vec::new())));
                if found != expected {
                    return Err(differs("a stranger's result", &found, &expected));
                }
            }
        }
        Ok(())
    }

    /// Measures how many round trips a caller waits for, by how much the fastest of a few calls takes longer with a
    /// latency far above all other times.
    pub async fn round_trips(
        &self,
        operation: Operation,
        networks: &[[Arc<Program>; 3]; 2],
        proxy: &DelayProxy,
    ) -> Result<RoundTrips, Failure> {
        let mut round_trips = RoundTrips { name: operation.name().to_owned(), programs: [0.0; 3] };
        let usual = proxy.get();
        for (which, found) in round_trips.programs.iter_mut().enumerate() {
            let mut fastest = [Duration::MAX; 2];
            for (programs, fastest) in networks.iter().zip(&mut fastest) {
                // Opens connections and prepares statements without the latency.
                for _ in 0..POOL {
                    programs[which].run(operation, &self.samples[0], Output::Value).await?;
                }
                proxy.set(LONG_LATENCY / 2);
                for _ in 0..CALLS {
                    let begun = Instant::now();
                    programs[which].run(operation, &self.samples[0], Output::Value).await?;
                    *fastest = begun.elapsed().min(*fastest);
                }
                proxy.set(usual);
            }
            *found = fastest[1].saturating_sub(fastest[0]).as_secs_f64() / LONG_LATENCY.as_secs_f64();
        }
        Ok(round_trips)
    }

    /// Measures the programs alternately, and returns the run with the median throughput of each.
    pub async fn compare(
        &self,
        operation: Operation,
        programs: &[Arc<Program>; 3],
        clients: usize,
        options: &Drivers,
    ) -> Result<[ProgramResult; 3], Failure> {
        let time = Duration::from_secs_f64(options.seconds);
        let mut runs = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..=options.rounds {
            for step in 0..programs.len() {
                let which = (round as usize + step) % programs.len();
                // Round 0 is the warm-up.
                let time = if round == 0 { WARM_UP.min(time) } else { time };
                let run = self.run(operation, &programs[which], clients, time).await?;
                if round > 0 {
                    runs[which].push(run);
                }
            }
        }
        Ok(runs.map(|mut runs: Vec<ProgramResult>| {
            runs.sort_by(|a, b| a.ops_s.total_cmp(&b.ops_s));
            runs.get(runs.len() / 2).copied().unwrap_or_default()
        }))
    }

    /// Runs the operation with concurrent clients, each in a session of its own, as fast as they can.
    async fn run(
        &self,
        operation: Operation,
        program: &Arc<Program>,
        clients: usize,
        time: Duration,
    ) -> Result<ProgramResult, Failure> {
        let before = (cpu::of_this_process(), cpu::of_children(self.server));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let (program, samples) = (program.clone(), self.samples.clone());
            tasks.spawn(async move {
                let sample = &samples[number % samples.len()];
                let mut times = Vec::new();
                while begun.elapsed() < time {
                    let started = Instant::now();
                    program.run(operation, sample, Output::Value).await?;
                    times.push(started.elapsed());
                    // In a server, the task would wait for its next request here.
                    tokio::task::yield_now().await;
                }
                Ok::<_, Failure>(times)
            });
        }
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done.map_err(|error| Failure::Message(error.to_string()))??);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let after = (cpu::of_this_process(), cpu::of_children(self.server));
        let count = times.len() as f64;
        let spent = |before: Option<CpuTimes>, after: Option<CpuTimes>| {
            Some(after?.since(&before?).as_secs_f64() * 1000.0 / count)
        };
        Ok(ProgramResult {
            ops_s: count / seconds,
            p50_ms: quantile(&mut times, 0.5),
            p99_ms: quantile(&mut times, 0.99),
            client_cpu_ms: spent(before.0, after.0),
            server_cpu_ms: spent(before.1, after.1),
        })
    }
}
