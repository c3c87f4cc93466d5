//! Measures writers with and without an added load.

use std::time::Duration;

use service::{Options, Sparc};

use crate::{
    cpu,
    failure::Failure,
    operations::{self, Environment, Operation, RunResult},
    report::WriterComparison,
};

/// The duration of a run of writers.
const RUN_LENGTH: Duration = Duration::from_millis(1500);

/// Measures rolls with and without an added load, in pairs of runs whose order alternates. `switch_load` switches the
/// load on or off. `load_pid` is the id of the process that adds the load, or `None` if PostgreSQL or this process adds
/// it.
pub(super) async fn compare_writers(
    environment: &Environment<'_>,
    pairs: usize,
    load_pid: Option<u32>,
    mut switch_load: impl AsyncFnMut(bool) -> Result<(), Failure>,
) -> Result<Vec<WriterComparison>, Failure> {
    let mut comparisons = Vec::new();
    for clients in [8, 64] {
        let sparc = Sparc::connect_with(environment.url, Options::default().max_connections(clients.max(10))).await?;
        // The warm-up opens every connection and prepares its statements.
        operations::run_service_clients(Operation::Roll, &sparc, clients, environment, RUN_LENGTH).await?;
        // The runs without the load, and those with it.
        let mut runs: [Vec<RunResult>; 2] = [Vec::new(), Vec::new()];
        let mut load_cpu_ms_by_run = Vec::new();
        for pair in 0..pairs {
            for position in 0..2 {
                let is_on = (pair + position) % 2 == 1;
                switch_load(is_on).await?;
                // The result of this run is discarded, because switching the load has effects of its own.
                operations::run_service_clients(Operation::Roll, &sparc, clients, environment, RUN_LENGTH / 5).await?;
                let before = load_pid.and_then(cpu::times_of_process);
                let (run, _) =
                    operations::run_service_clients(Operation::Roll, &sparc, clients, environment, RUN_LENGTH).await?;
                if is_on && let (Some(before), Some(after)) = (before, load_pid.and_then(cpu::times_of_process)) {
                    let roll_count = run.operations_per_second * RUN_LENGTH.as_secs_f64();
                    load_cpu_ms_by_run.push(after.since(&before).as_secs_f64() * 1000.0 / roll_count);
                }
                runs[usize::from(is_on)].push(run);
            }
        }
        switch_load(false).await?;
        sparc.close().await?;
        let mut losses: Vec<f64> = runs[0]
            .iter()
            .zip(&runs[1])
            .map(|(without, with)| 100.0 * (1.0 - with.operations_per_second / without.operations_per_second))
            .collect();
        losses.sort_by(f64::total_cmp);
        let mean_throughput =
            |runs: &[RunResult]| runs.iter().map(|run| run.operations_per_second).sum::<f64>() / runs.len() as f64;
        let mean_cpu_ms = |runs: &[RunResult]| {
            Some(runs.iter().map(|run| run.postgresql_cpu_ms).sum::<Option<f64>>()? / runs.len() as f64)
        };
        let comparison = WriterComparison {
            clients,
            rolls_per_second_without_load: mean_throughput(&runs[0]),
            rolls_per_second_with_load: mean_throughput(&runs[1]),
            loss_percent: f64::midpoint(losses[(pairs - 1) / 2], losses[pairs / 2]),
            postgresql_cpu_ms_without_load: mean_cpu_ms(&runs[0]),
            postgresql_cpu_ms_with_load: mean_cpu_ms(&runs[1]),
            load_cpu_ms: (!load_cpu_ms_by_run.is_empty())
                .then(|| load_cpu_ms_by_run.iter().sum::<f64>() / load_cpu_ms_by_run.len() as f64),
        };
        println!("{comparison:?}");
        comparisons.push(comparison);
    }
    Ok(comparisons)
}
