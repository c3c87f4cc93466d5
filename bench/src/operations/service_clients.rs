//! Runs an operation through the service, once or with concurrent clients.

use std::time::{Duration, Instant};

use service::{
    IdentityConnection, Operations, Sparc,
    dice::{HistoryFilter, RollScope},
    events::NewEvent,
    sessions::LobbyFilter,
};
use tokio::task::JoinSet;

use super::run::{Environment, RunResult, cpu_ms_per_operation};
use crate::{argument_sets::ArgumentSet, cpu, failure::Failure, roll::new_roll};

/// A measured operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A roll of a character's attribute.
    Roll,
    /// An event sent by a client.
    SendEvent,
    /// The first page of the lobby.
    Lobby,
    /// The newest rolls of a session.
    History,
}

/// Runs the operation once.
pub async fn run_once(
    operation: Operation,
    caller: &IdentityConnection,
    argument_set: &ArgumentSet,
) -> Result<(), Failure> {
    match operation {
        Operation::Roll => {
            caller.dice().roll(new_roll(argument_set)?).await?;
        }
        Operation::SendEvent => {
            let event = NewEvent { session_id: argument_set.session, kind: "wave".to_owned(), ..Default::default() };
            caller.events().send(event).await?;
        }
        Operation::Lobby => {
            caller.sessions().lobby(&LobbyFilter::default(), None).await?;
        }
        Operation::History => {
            caller.dice().history(RollScope::Session(argument_set.session), &HistoryFilter::default(), None).await?;
        }
    }
    Ok(())
}

/// Runs the operation through the service as fast as possible for `run_length`, with concurrent clients, each with an
/// argument set of its own if there are enough. Returns the result of the run, and the latency of each operation.
pub async fn run_service_clients(
    operation: Operation,
    sparc: &Sparc,
    clients: u32,
    environment: &Environment<'_>,
    run_length: Duration,
) -> Result<(RunResult, Vec<Duration>), Failure> {
    let (postgresql_before, service_before) =
        (cpu::times_of_child_processes(environment.postmaster_pid), cpu::times_of_this_process());
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let argument_set = environment.argument_sets[number as usize % environment.argument_sets.len()].clone();
        let caller = sparc.as_user(argument_set.player);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < run_length {
                let operation_start = Instant::now();
                run_once(operation, &caller, &argument_set).await?;
                latencies.push(operation_start.elapsed());
                // In a service, the task would wait for its next request here. Without the yield, a task whose answer
                // has already arrived would continue while the others wait.
                tokio::task::yield_now().await;
            }
            Ok::<_, Failure>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        latencies.extend(outcome.map_err(|error| Failure::Message(error.to_string()))??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let run = RunResult {
        operations_per_second: latencies.len() as f64 / seconds,
        postgresql_cpu_ms: cpu_ms_per_operation(
            postgresql_before,
            cpu::times_of_child_processes(environment.postmaster_pid),
            latencies.len() as f64,
        ),
        service_cpu_ms: cpu_ms_per_operation(service_before, cpu::times_of_this_process(), latencies.len() as f64),
    };
    Ok((run, latencies))
}
