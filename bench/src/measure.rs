//! Measures two statements alternately: the specification's statement in the specification's schema, and the service's
//! statement in this project's schema, which comments call "this schema" and names call `ours`.

use std::time::{Duration, Instant};

use crate::{
    client::Client,
    failure::Failure,
    plan,
    quantile::quantile_ms,
    report::StatementResult,
    workload::{Role, STATEMENT_TIMEOUT, Workload},
};

/// Two statements for the same purpose, the specification's and the service's, which are compared with each other.
#[derive(Debug)]
pub struct StatementPair {
    /// Their name in the report.
    pub name: &'static str,
    /// The role that runs them.
    pub role: Role,
    /// Whether the statements can run many times in one transaction. If so, a short statement is sent many times in one
    /// message, so that the time of the round trip does not dominate.
    pub is_repeatable: bool,
    /// The specification's statement, in the specification's schema.
    pub specification: Workload,
    /// The service's statement, in this schema.
    pub ours: Workload,
}

/// The time for measuring one pair of statements.
const TIME_BUDGET: Duration = Duration::from_secs(4);
/// The maximum number of timed executions of the service's statement per round. If the statement first runs untimed
/// ([`EVICTION_THRESHOLD`]), this is also the number of its untimed executions.
const MAX_EXECUTIONS_PER_ROUND: usize = 10;
/// If the specification's statement takes longer than this, it is assumed to have evicted this schema's pages from the
/// caches. In that case the service's statement first runs untimed, because in production the two schemas would not
/// share a host's memory.
const EVICTION_THRESHOLD: Duration = Duration::from_millis(50);
/// The minimum number of timed executions when the service's statement is measured in isolation.
const MIN_ISOLATED_EXECUTIONS: usize = 3;
/// The maximum number of timed executions per argument set when the service's statement is measured in isolation.
const MAX_ISOLATED_EXECUTIONS_PER_ARGUMENT_SET: usize = 10;
/// The time for measuring one of the service's statements in isolation.
const ISOLATED_TIME_BUDGET: Duration = Duration::from_millis(1500);
/// The number of executions before timing begins. The server chooses between a custom and a generic plan after five
/// executions of a statement. For the statements in a function, it does so after five executions of the function.
const WARM_UP_EXECUTIONS: usize = 16;
/// If an execution takes longer than this, it is the last one of the statement's warm-up.
const SLOW_EXECUTION: Duration = Duration::from_millis(100);
/// The time for which a short statement is repeated in one message.
const TARGET_MESSAGE_TIME: Duration = Duration::from_millis(2);
/// The maximum number of times that a statement is repeated in one message.
const MAX_REPEATS: u128 = 25;
/// The minimum and maximum number of rounds. In each round, the specification's statement is executed once, unless it
/// has timed out before. Then the service's statement is executed repeatedly, for about as long as the specification's
/// took, but at most [`MAX_EXECUTIONS_PER_ROUND`] times.
const ROUND_LIMITS: std::ops::RangeInclusive<usize> = 3..=200;

impl StatementPair {
    /// Warms up one of the two statements, and returns how many times to send it in one message: as often as it runs in
    /// [`TARGET_MESSAGE_TIME`], but at most [`MAX_REPEATS`] times, and only once if it is not repeatable. After a slow
    /// execution ([`SLOW_EXECUTION`]) or a timeout, the warm-up ends and the statement is sent once per message.
    async fn warm_up_and_choose_repeats(&self, workload: &Workload, client: &mut Client) -> Result<u32, Failure> {
        let mut fastest = TIME_BUDGET;
        for index in 0..WARM_UP_EXECUTIONS {
            // `None` after a timeout.
            let Some((time, _)) = workload.execute(client, self.role, index, 1).await? else { return Ok(1) };
            fastest = fastest.min(time);
            if time > SLOW_EXECUTION {
                return Ok(1);
            }
        }
        let repeats = TARGET_MESSAGE_TIME.as_micros() / fastest.as_micros().max(1);
        Ok(if self.is_repeatable { repeats.clamp(1, MAX_REPEATS) as u32 } else { 1 })
    }

    /// Measures the service's statement in isolation: without the specification's statement in between. If time allows,
    /// it is first executed untimed for each argument set. Returns the median in milliseconds.
    pub async fn measure_in_isolation(&self, our_client: &mut Client) -> Result<f64, Failure> {
        self.ours.prepare(our_client).await?;
        let repeats = self.warm_up_and_choose_repeats(&self.ours, our_client).await?;
        let argument_set_count = self.ours.executions.len();
        let start = Instant::now();
        for index in 0..argument_set_count {
            self.ours.execute(our_client, self.role, index, repeats).await?;
            if start.elapsed() > ISOLATED_TIME_BUDGET / 2 {
                break;
            }
        }
        let mut times = Vec::new();
        let max_executions = argument_set_count * MAX_ISOLATED_EXECUTIONS_PER_ARGUMENT_SET;
        while times.len() < MIN_ISOLATED_EXECUTIONS
            || times.len() < max_executions && start.elapsed() < ISOLATED_TIME_BUDGET
        {
            let Some((time, _)) = self.ours.execute(our_client, self.role, times.len(), repeats).await? else {
                return Err(Failure::TooSlow { name: self.name, timeout: STATEMENT_TIMEOUT });
            };
            times.push(time);
        }
        self.ours.deallocate_all(our_client).await?;
        Ok(quantile_ms(&mut times, 0.5))
    }

    /// Measures both statements alternately.
    pub async fn measure(
        &self,
        specification_client: &mut Client,
        our_client: &mut Client,
        scale: f64,
    ) -> Result<StatementResult, Failure> {
        self.specification.prepare(specification_client).await?;
        self.ours.prepare(our_client).await?;
        let (mut specification_times, mut ours_times, mut specification_timed_out) = (Vec::new(), Vec::new(), false);
        // The numbers of rows that the last executions returned.
        let (mut rows, mut specification_rows) = (0, 0);

        // After these warm-ups the server has chosen between custom and generic plans, except for slow statements.
        let repeats = self.warm_up_and_choose_repeats(&self.ours, our_client).await?;
        let specification_repeats = self.warm_up_and_choose_repeats(&self.specification, specification_client).await?;
        let start = Instant::now();
        for round in 0..*ROUND_LIMITS.end() {
            if round >= *ROUND_LIMITS.start() && start.elapsed() > TIME_BUDGET {
                break;
            }
            if !specification_timed_out {
                match self.specification.execute(specification_client, self.role, round, specification_repeats).await? {
                    Some((time, returned_rows)) => {
                        specification_times.push(time);
                        specification_rows = returned_rows;
                    }
                    None => {
                        // A lower bound of its time, so that the median is a lower bound too.
                        specification_times.push(STATEMENT_TIMEOUT);
                        specification_timed_out = true;
                    }
                }
            }
            // After a timeout, `TIME_BUDGET` is used in place of the time of the specification's statement.
            let specification_time = match specification_times.last() {
                Some(time) if !specification_timed_out => *time,
                _ => TIME_BUDGET,
            };
            if specification_time > EVICTION_THRESHOLD {
                for execution_number in 0..MAX_EXECUTIONS_PER_ROUND {
                    self.ours
                        .execute(our_client, self.role, round * MAX_EXECUTIONS_PER_ROUND + execution_number, repeats)
                        .await?;
                }
            }
            for execution_number in 0..MAX_EXECUTIONS_PER_ROUND {
                let Some((time, returned_rows)) = self
                    .ours
                    .execute(our_client, self.role, round * MAX_EXECUTIONS_PER_ROUND + execution_number, repeats)
                    .await?
                else {
                    return Err(Failure::TooSlow { name: self.name, timeout: STATEMENT_TIMEOUT });
                };
                ours_times.push(time);
                rows = returned_rows;
                if time * (execution_number as u32 + 1) > specification_time {
                    break;
                }
            }
        }

        // The counts are those of the statement that was executed most often. Only the bare INSERTs (see `overhead`)
        // prepare more than one statement.
        let plan_counts = our_client
            .fetch_rows(
                "SELECT custom_plans, generic_plans FROM pg_prepared_statements
                 ORDER BY custom_plans + generic_plans DESC LIMIT 1",
            )
            .await?;
        let plan_counts = plan_counts
            .first()
            .map_or((0, 0), |row| (row[0].parse().unwrap_or_default(), row[1].parse().unwrap_or_default()));
        let plan = plan::explain(our_client, &self.ours, self.role, "force_custom_plan").await?;
        let generic_plan = plan::explain(our_client, &self.ours, self.role, "force_generic_plan").await?;
        self.specification.deallocate_all(specification_client).await?;
        self.ours.deallocate_all(our_client).await?;
        let specification_ms = quantile_ms(&mut specification_times, 0.5);
        let ours_ms = quantile_ms(&mut ours_times, 0.5);
        Ok(StatementResult {
            name: self.name.to_owned(),
            scale,
            role: self.role.name().to_owned(),
            specification_ms,
            specification_timed_out,
            ours_ms,
            ratio: specification_ms / ours_ms,
            p99_ms: quantile_ms(&mut ours_times, 0.99),
            // `compare` sets this later, from `measure_in_isolation`.
            ours_isolated_ms: 0.0,
            rows,
            specification_rows,
            timed_messages: ours_times.len(),
            server_ms: plan.ms,
            plan_hash: plan.hash(),
            generic_plan_hash: generic_plan.hash(),
            plan_counts,
            buffers: plan.buffers,
            plan,
        })
    }
}
