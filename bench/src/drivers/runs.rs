//! Runs the operations in the three *programs* (see `programs`): to check that all return the same results, to count
//! the round trips that a caller waits for, and to measure the throughput.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use service::Operations;
use tokio::task::JoinSet;

use super::{
    delay::DelayProxy,
    operation::{Operation, OptionalJson, ResultUse},
    programs::{POOL_SIZE, Program, first_program_must_be_service},
    statements::run_through_service,
};
use crate::{
    argument_sets::ArgumentSet,
    cpu::{self, CpuTimes},
    failure::Failure,
    options::DriverOptions,
    quantile::quantile_ms,
    report::{ProgramResult, RoundTrips},
};

/// The maximum duration of the warm-up, which opens connections and prepares statements. If runs are shorter, so is the
/// warm-up.
const MAX_WARM_UP_LENGTH: Duration = Duration::from_millis(300);
/// The latency that the proxy adds to a round trip while round trips are counted.
const COUNTING_LATENCY: Duration = Duration::from_millis(20);
/// The number of timed calls of a program, direct and again through the proxy, from which its round trips are computed.
/// Only the fastest call of each kind is used.
const TIMED_CALLS: usize = 12;

/// The context that all runs share.
pub struct Environment {
    /// The process id of PostgreSQL's postmaster.
    pub postmaster_pid: Option<u32>,
    /// The callers, with their sessions.
    pub argument_sets: Arc<Vec<ArgumentSet>>,
}

impl Environment {
    /// Checks that all programs return the same result. For [`Operation::History`], which reads a session's rolls, also
    /// checks that a user without a seat in the session gets no rows.
    pub async fn check_results(&self, operation: Operation, programs: &[Arc<Program>; 3]) -> Result<(), Failure> {
        let Program::Service(sparc) = &*programs[0] else { return Err(first_program_must_be_service()) };
        let mismatch = |subject: &str, found: &OptionalJson, expected: &OptionalJson| {
            let name = operation.name();
            Failure::Message(format!("{name}: {subject} must be {expected:?}, but is {found:?}"))
        };
        let argument_set = &self.argument_sets[0];
        for program in programs {
            let found = program.run(operation, argument_set, ResultUse::Json).await?;
            let expected = match operation {
                // Each roll is random, so the result is compared with the stored row.
                Operation::Roll => {
                    let id = found.as_ref().and_then(|roll| roll["id"].as_str()?.parse().ok()).unwrap_or_default();
                    Some(serde_json::to_value(sparc.as_user(argument_set.player).dice().get(id).await?)?)
                }
                _ => run_through_service(sparc, operation, argument_set, ResultUse::Json).await?,
            };
            if found != expected {
                return Err(mismatch("a result", &found, &expected));
            }
            if operation == Operation::History {
                // A newcomer has no seat in any session.
                let stranger = ArgumentSet { player: argument_set.newcomer, ..argument_set.clone() };
                let (found, expected) =
                    (program.run(operation, &stranger, ResultUse::Json).await?, Some(Value::Array(Vec::new())));
                if found != expected {
                    return Err(mismatch("a stranger's result", &found, &expected));
                }
            }
        }
        Ok(())
    }

    /// Counts the round trips that a caller of each program waits for. The fastest call through the proxy takes longer
    /// than the fastest direct call. The difference, divided by [`COUNTING_LATENCY`], is about the number of round
    /// trips, because this latency far exceeds all other times.
    ///
    /// `programs` has the three programs twice: connected directly, and through the proxy.
    pub async fn count_round_trips(
        &self,
        operation: Operation,
        programs: [&[Arc<Program>; 3]; 2],
        proxy: &DelayProxy,
    ) -> Result<RoundTrips, Failure> {
        let mut round_trips = RoundTrips { name: operation.name().to_owned(), counts: [0.0; 3] };
        let usual_delay = proxy.delay();
        for (index, count) in round_trips.counts.iter_mut().enumerate() {
            let mut fastest_calls = [Duration::MAX; 2];
            for (connected_programs, fastest_call) in programs.iter().zip(&mut fastest_calls) {
                let program = &connected_programs[index];
                // The warm-up, with the usual delay: as many calls as the pool has connections, so that every
                // connection that the calls below may get is open, and has its statements prepared.
                for _ in 0..POOL_SIZE {
                    program.run(operation, &self.argument_sets[0], ResultUse::Discard).await?;
                }
                proxy.set_delay(COUNTING_LATENCY / 2);
                for _ in 0..TIMED_CALLS {
                    let start = Instant::now();
                    program.run(operation, &self.argument_sets[0], ResultUse::Discard).await?;
                    *fastest_call = start.elapsed().min(*fastest_call);
                }
                proxy.set_delay(usual_delay);
            }
            let [direct_call, delayed_call] = fastest_calls;
            *count = delayed_call.saturating_sub(direct_call).as_secs_f64() / COUNTING_LATENCY.as_secs_f64();
        }
        Ok(round_trips)
    }

    /// Measures the programs alternately. Returns for each program the run with its median throughput.
    pub async fn compare(
        &self,
        operation: Operation,
        programs: &[Arc<Program>; 3],
        clients: usize,
        options: &DriverOptions,
    ) -> Result<[ProgramResult; 3], Failure> {
        let run_length = Duration::from_secs_f64(options.seconds);
        let mut runs = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..=options.rounds {
            for position in 0..programs.len() {
                // The program that runs first changes from round to round.
                let index = (round as usize + position) % programs.len();
                // Round 0 is the warm-up.
                let run_length = if round == 0 { MAX_WARM_UP_LENGTH.min(run_length) } else { run_length };
                let run = self.run(operation, &programs[index], clients, run_length).await?;
                if round > 0 {
                    runs[index].push(run);
                }
            }
        }
        Ok(runs.map(|mut runs: Vec<ProgramResult>| {
            runs.sort_by(|a, b| a.operations_per_second.total_cmp(&b.operations_per_second));
            runs.swap_remove(runs.len() / 2)
        }))
    }

    /// Runs the operation as fast as possible with concurrent clients, each with an argument set of its own if there
    /// are enough.
    async fn run(
        &self,
        operation: Operation,
        program: &Arc<Program>,
        clients: usize,
        run_length: Duration,
    ) -> Result<ProgramResult, Failure> {
        let (program_before, postgresql_before) =
            (cpu::times_of_this_process(), cpu::times_of_child_processes(self.postmaster_pid));
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let (program, argument_sets) = (program.clone(), self.argument_sets.clone());
            tasks.spawn(async move {
                let argument_set = &argument_sets[number % argument_sets.len()];
                let mut times = Vec::new();
                while start.elapsed() < run_length {
                    let operation_start = Instant::now();
                    program.run(operation, argument_set, ResultUse::Discard).await?;
                    times.push(operation_start.elapsed());
                    // In a server, the task would wait for its next request here. Without the yield, a task whose next
                    // answer has already arrived would run on, and the others would wait for their turn.
                    tokio::task::yield_now().await;
                }
                Ok::<_, Failure>(times)
            });
        }
        let mut times = Vec::new();
        while let Some(outcome) = tasks.join_next().await {
            times.extend(outcome.map_err(|error| Failure::Message(error.to_string()))??);
        }
        let seconds = start.elapsed().as_secs_f64();
        let (program_after, postgresql_after) =
            (cpu::times_of_this_process(), cpu::times_of_child_processes(self.postmaster_pid));
        let count = times.len() as f64;
        let cpu_ms_per_operation = |before: Option<CpuTimes>, after: Option<CpuTimes>| {
            Some(after?.since(&before?).as_secs_f64() * 1000.0 / count)
        };
        Ok(ProgramResult {
            operations_per_second: count / seconds,
            p50_ms: quantile_ms(&mut times, 0.5),
            p99_ms: quantile_ms(&mut times, 0.99),
            program_cpu_ms: cpu_ms_per_operation(program_before, program_after),
            postgresql_cpu_ms: cpu_ms_per_operation(postgresql_before, postgresql_after),
        })
    }
}
