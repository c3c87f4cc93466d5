//! Whole operations of the service, compared with pgbench. pgbench runs the same statements, also in one transaction
//! per operation, but discards their results.

mod run;
mod run_pgbench;
mod service_clients;

use std::time::Duration;

use service::{Options, Sparc};

use self::run_pgbench::run_pgbench;
pub use self::{
    run::{Environment, RunResult},
    run_pgbench::PgbenchOptions,
    service_clients::{Operation, run_once, run_service_clients},
};
use crate::{
    argument_sets::ArgumentSet,
    capture::StatementCapture,
    failure::Failure,
    pgbench::{self, ScriptStatement},
    quantile::quantile_ms,
    report::OperationResult,
    roll::roll_values,
    sql_values::{NEW_UUID, quote_literal},
};

impl OperationResult {
    /// Whether the operation returns a page of rows.
    pub fn operation_returns_page(&self) -> bool {
        OPERATIONS
            .iter()
            .any(|(operation, name)| *name == self.name && matches!(operation, Operation::Lobby | Operation::History))
    }
}

/// All operations with their names.
const OPERATIONS: [(Operation, &str); 4] = [
    (Operation::Roll, "a roll"),
    (Operation::SendEvent, "an event"),
    (Operation::Lobby, "a lobby page"),
    (Operation::History, "a session's rolls"),
];

/// The numbers of concurrent clients with which each operation is measured.
const CLIENT_COUNTS: [u32; 3] = [1, 8, 64];
/// The number of runs of the service, and of each of pgbench's two scripts, for each operation and number of clients.
/// These runs alternate. Throughput and processor time are those of the run with the median throughput; latencies are
/// those of all runs.
const ROUNDS: u32 = 3;
/// The deadline of each operation: the service's default. The service sends it as `statement_timeout`, and so does
/// pgbench.
const DEADLINE: Duration = Duration::from_secs(30);

/// The statement with which pgbench sets the identity and checks the account. The service needs two statements, which
/// it sends in one message with BEGIN: in production, its login has no privilege to call `require_open_account` until
/// the role is set, and PostgreSQL resolves the names in a statement before it runs the statement. Here the login is a
/// superuser, so one statement is enough for pgbench.
const SET_IDENTITY_SQL: &str = "SELECT set_config('role', $1, true), set_config('request.jwt.claims', $2, true),
    set_config('statement_timeout', $3, true), private.require_open_account()";

/// Measures all operations. `new_capture` opens a new connection, on which the statements of one operation are
/// captured.
pub async fn measure_operations(
    environment: &Environment<'_>,
    pgbench_options: &PgbenchOptions<'_>,
    new_capture: impl AsyncFn() -> Result<StatementCapture, Failure>,
) -> Result<Vec<OperationResult>, Failure> {
    let mut results = Vec::new();
    for (operation, name) in OPERATIONS {
        let statements = capture_statements(operation, new_capture().await?, environment.argument_sets).await?;
        // BEGIN and the identity (the first of the statements) take one round trip; each other statement takes one, and
        // so does COMMIT.
        let round_trips = statements.len() + 1;
        let scripts = [false, true].map(|is_pipelined| {
            let file_name = if is_pipelined { "pipelined.sql" } else { "script.sql" };
            (pgbench_options.script_folder.join(file_name), pgbench::build_script(&statements, is_pipelined))
        });
        for (path, script) in &scripts {
            tokio::fs::write(path, script).await?;
        }
        for clients in CLIENT_COUNTS {
            // One connection per client, but at least ten, the service's default.
            let connections = clients.max(10);
            let sparc = Sparc::connect_with(environment.url, Options::default().max_connections(connections)).await?;
            let (mut service_runs, mut latencies) = (Vec::new(), Vec::new());
            // The runs without pipelining, and those with it.
            let mut pgbench_runs = [Vec::new(), Vec::new()];
            // The warm-up opens every connection and prepares its statements.
            run_service_clients(operation, &sparc, clients, environment, Duration::from_secs(1)).await?;
            for _ in 0..ROUNDS {
                let (run, run_latencies) =
                    run_service_clients(operation, &sparc, clients, environment, pgbench_options.run_length).await?;
                service_runs.push(run);
                latencies.extend(run_latencies);
                for (runs, (script_path, _)) in pgbench_runs.iter_mut().zip(&scripts) {
                    runs.push(run_pgbench(script_path, clients, environment, pgbench_options).await?);
                }
            }
            sparc.close().await?;
            let service = median_run(service_runs);
            let [unpipelined, pipelined] = pgbench_runs.map(median_run);
            results.push(OperationResult {
                name: name.to_owned(),
                clients,
                operations_per_second: service.operations_per_second,
                pgbench_operations_per_second: unpipelined.operations_per_second,
                ratio: service.operations_per_second / unpipelined.operations_per_second,
                pgbench_pipelined_operations_per_second: pipelined.operations_per_second,
                round_trips,
                p50_ms: quantile_ms(&mut latencies, 0.5),
                p99_ms: quantile_ms(&mut latencies, 0.99),
                postgresql_cpu_ms: service.postgresql_cpu_ms,
                service_cpu_ms: service.service_cpu_ms,
                postgresql_cpu_ms_with_pgbench: unpipelined.postgresql_cpu_ms,
            });
            println!(
                "{name}, {clients} clients, operations per second: service {:.0}; pgbench {:.0}, ratio {:.2}; \
                 pipelined pgbench {:.0}, ratio {:.2}",
                service.operations_per_second,
                unpipelined.operations_per_second,
                service.operations_per_second / unpipelined.operations_per_second,
                pipelined.operations_per_second,
                service.operations_per_second / pipelined.operations_per_second
            );
        }
    }
    Ok(results)
}

/// Returns the run with the median throughput.
fn median_run(mut runs: Vec<RunResult>) -> RunResult {
    runs.sort_by(|a, b| a.operations_per_second.total_cmp(&b.operations_per_second));
    runs.swap_remove(runs.len() / 2)
}

/// Runs the operation once and captures its statements. Returns first the statement that sets the identity, and then
/// the captured statements, each with its values for each argument set.
async fn capture_statements(
    operation: Operation,
    mut capture: StatementCapture,
    argument_sets: &[ArgumentSet],
) -> Result<Vec<ScriptStatement>, Failure> {
    let caller = capture.sparc.as_user(argument_sets[0].player).with_deadline(DEADLINE);
    run_once(operation, &caller, &argument_sets[0]).await?;
    let identity_values = |argument_set: &ArgumentSet| -> Vec<String> {
        let claims = format!("{{\"role\":\"authenticated\",\"sub\":\"{}\"}}", argument_set.player);
        vec![quote_literal("authenticated"), quote_literal(claims), quote_literal(DEADLINE.as_millis())]
    };
    // The values of the operation's only statement.
    let statement_values = |argument_set: &ArgumentSet| -> Vec<String> {
        let session = quote_literal(argument_set.session);
        match operation {
            Operation::Roll => roll_values(argument_set),
            Operation::SendEvent => {
                vec![NEW_UUID.to_owned(), session, quote_literal("client.wave"), quote_literal("{}")]
            }
            Operation::Lobby => Vec::new(),
            // The limit: fifty rolls, and one more to see whether there is a next page.
            Operation::History => vec![session, quote_literal(51)],
        }
    };
    let mut statements = vec![ScriptStatement {
        sql: SET_IDENTITY_SQL.to_owned(),
        values: argument_sets.iter().map(identity_values).collect(),
    }];
    for captured in capture.new_statements().await? {
        let values = argument_sets.iter().map(statement_values).collect();
        statements.push(ScriptStatement { sql: captured.sql, values });
    }
    Ok(statements)
}
