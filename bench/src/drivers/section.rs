//! The page's section that compares the service with hand-written programs.

use std::fmt::Write;

use super::{DriverResults, OperationComparison, ProgramResult};
use crate::report::Report;

/// The names of the programs, in the order of the results.
const PROGRAMS: [&str; 3] = ["service", "plain sqlx", "pipelined"];

/// Returns the section, if there are measurements.
pub fn section(report: &Report) -> Option<String> {
    let results = report.drivers.as_ref()?;
    let mut text = HEAD.to_owned();
    without_latency(&mut text, results);
    with_latency(&mut text, results);
    phases(&mut text, results);
    Some(text)
}

fn without_latency(text: &mut String, results: &DriverResults) {
    text.push_str(WITHOUT_LATENCY);
    for compared in results.operations.iter().filter(|compared| !compared.is_delayed) {
        for (name, program) in PROGRAMS.iter().zip(&compared.programs) {
            let cpu = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}"));
            let _ = writeln!(
                text,
                "| {} | {} | {name} | {:.0} | {} | {:.2} | {:.2} | {} | {} |",
                compared.name,
                compared.clients,
                program.ops_s,
                ratio(compared, program),
                program.p50_ms,
                program.p99_ms,
                cpu(program.client_cpu_ms),
                cpu(program.server_cpu_ms),
            );
        }
    }
}

/// Operations per second divided by those of plain sqlx.
fn ratio(compared: &OperationComparison, program: &ProgramResult) -> String {
    format!("{:.2}", program.ops_s / compared.programs[1].ops_s)
}

fn with_latency(text: &mut String, results: &DriverResults) {
    let [direct, delayed] = results.round_trip_ms;
    let _ = write!(
        text,
        "\nWith a proxy that delays each direction by half a millisecond, a `SELECT 1` takes {delayed:.2} ms instead \
         of {direct:.2} ms.\n{WITH_LATENCY}"
    );
    for compared in results.operations.iter().filter(|compared| compared.is_delayed) {
        let round_trips =
            results.round_trips.iter().find(|counted| compared.clients == 1 && counted.name == compared.name);
        for (index, (name, program)) in PROGRAMS.iter().zip(&compared.programs).enumerate() {
            let _ = writeln!(
                text,
                "| {} | {} | {name} | {:.0} | {} | {:.2} | {:.2} | {} |",
                compared.name,
                compared.clients,
                program.ops_s,
                ratio(compared, program),
                program.p50_ms,
                program.p99_ms,
                round_trips.map(|counted| format!("{:.1}", counted.programs[index])).unwrap_or_default(),
            );
        }
    }
}

fn phases(text: &mut String, results: &DriverResults) {
    text.push_str(PHASES);
    for phase in &results.phases {
        let compared = results
            .operations
            .iter()
            .find(|compared| !compared.is_delayed && compared.clients == 1 && compared.name == phase.name);
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {} | {:.3} | {} |",
            phase.name,
            phase.round_trip_ms,
            phase.opening_ms,
            phase.begin_ms,
            phase.identity_ms,
            phase.statement_ms,
            phase.without_row_security_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}")),
            phase.commit_ms,
            compared.map(|compared| format!("{:.3}", compared.programs[0].p50_ms)).unwrap_or_default(),
        );
    }
}

const HEAD: &str = "## Next to hand-written Rust

Written by `cargo run --release -p bench -- drivers --out target/drivers --docs`. Three programs run the same statements
on the same rows, each with a pool of ten connections, and decode them into typed results:

- the service: an identity per call, retries, deadlines, spans, and in each transaction the check that the caller's
  account exists and is open, which the other two do not make;
- plain sqlx, as a careful author writes it: BEGIN, the caller's role and claims, the statement, COMMIT, each awaited.
  The pool's ping before each use is turned off; its ping after each use cannot be, but no caller waits for it;
- tokio-postgres with pipelining: the same four messages are sent together, so a caller waits for one round trip. The
  statement runs even if BEGIN fails, so the login must have no privileges of its own.

The command first checks that all three return the same. Runs alternate; the values are medians. Processor times are per
operation: of the program, and of PostgreSQL. *Times* is the throughput divided by that of plain sqlx.
";

const WITHOUT_LATENCY: &str = "
| operation | clients | program | operations/s | times | p50 ms | p99 ms | CPU ms | PostgreSQL CPU ms |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

const WITH_LATENCY: &str =
    "Round trips that a caller waits for are counted by how much longer an operation takes with 20 ms of latency.

| operation | clients | program | operations/s | times | p50 ms | p99 ms | round trips |
| --- | --- | --- | --- | --- | --- | --- | --- |
";

const PHASES: &str = "
The service sends BEGIN, the identity and the check of the account in one message (its opening), and returns from a read
without waiting for COMMIT. So a caller waits for two round trips, or three to write; plain sqlx waits for four. On one
machine a round trip costs mostly the processor time of waking the other side, so fewer messages also mean more
operations per second: this is what pipelining saves. It saves little where the statement or the disk takes the time.

The phases of each operation, one after the other on one connection, show what limits it (medians in milliseconds). A
round trip is a prepared `SELECT 1`; each other phase includes one, and its remaining time is PostgreSQL's work.

| operation | round trip | the service's opening | BEGIN | identity | statement | as the owner, without row security \
| COMMIT | service, p50 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
";
