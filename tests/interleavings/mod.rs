//! Like PostgreSQL's isolation tests: every pair of the statements that users, the service, the platform and
//! maintenance send, on two connections, in every order of begin, statement, commit and rollback. After each case every
//! invariant holds, no transaction waits for ever, and every refusal is one that the documentation lists.
//!
//! Statements that run without interruption cannot deadlock, so a second kind of case stops them in the middle:
//! other connections lock a row that one statement locks, and a row that the other locks, until both have been sent.
//!
//! The test command runs a sample. `SPARC_INTERLEAVINGS=20000` runs a sample of that size of each kind, `=all` runs
//! every pair, and `=triples` runs three statements at a time. A case that fails is reported by its name, and
//! `=<part of a name>` runs the cases whose names contain it.

use std::collections::BTreeMap;

mod runner;
mod statements;
mod world;

use runner::{Case, Level, Runner, Step};
use statements::{STATEMENTS, Sender, Statement};

const LEVELS: [Level; 2] = [Level::ReadCommitted, Level::RepeatableRead];

/// The number of databases on which cases run concurrently.
const DATABASES: usize = 4;

/// The number of cases of each kind in the sample.
const SAMPLE: usize = 200;

/// Returns every order of the steps of the transactions.
fn orders(transactions: &[Vec<Step>]) -> Vec<Vec<(usize, Step)>> {
    if transactions.iter().all(Vec::is_empty) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (transaction, steps) in transactions.iter().enumerate().filter(|(_, steps)| !steps.is_empty()) {
        let mut rest = transactions.to_vec();
        rest[transaction].remove(0);
        for mut order in orders(&rest) {
            order.insert(0, (transaction, steps[0]));
            all.push(order);
        }
    }
    all
}

/// Returns the schedules of transactions with these ends. Under READ COMMITTED the time of BEGIN does not matter,
/// because each statement has its own snapshot.
fn schedules(level: Level, ends: &[Step]) -> Vec<Vec<(usize, Step)>> {
    let begin_matters = level == Level::RepeatableRead;
    let transactions: Vec<Vec<Step>> = ends
        .iter()
        .map(|end| if begin_matters { vec![Step::Begin, Step::Send, *end] } else { vec![Step::Send, *end] })
        .collect();
    let mut all = orders(&transactions);
    if !begin_matters {
        for order in &mut all {
            order.splice(0..0, (0..ends.len()).map(|transaction| (transaction, Step::Begin)));
        }
    }
    all
}

/// Returns the cases of two statements in every order.
fn pairs() -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    let ends = [Step::Commit, Step::Rollback];
    for (index, first) in STATEMENTS.iter().enumerate() {
        for second in &STATEMENTS[index..] {
            for level in LEVELS {
                for (one, other) in ends.iter().flat_map(|one| ends.iter().map(move |other| (*one, *other))) {
                    for schedule in schedules(level, &[one, other]) {
                        cases.push(Case { statements: vec![first, second], level, schedule, held: Vec::new() });
                    }
                }
            }
        }
    }
    cases
}

/// Returns whether a user's statement writes the table with the command and can be stopped before each row that it
/// locks.
pub fn has_interleaving_cases(command: &str, table: &str) -> bool {
    let (start, locks_rows) = match command {
        "INSERT" => ("INSERT INTO", false),
        "DELETE" => ("DELETE FROM", true),
        command => (command, true),
    };
    let table = format!("public.{table}");
    let write = format!("{start} {table} ");
    STATEMENTS.iter().any(|statement| matches!(statement.sender, Sender::User(_)) && statement.sql.contains(&write))
        && (!locks_rows || world::LOCKABLE.iter().any(|(lockable, _)| *lockable == table))
}

/// The rows that each statement locks, by the statement's name.
type Locks = BTreeMap<&'static str, Vec<String>>;

/// Returns the case in which the statements begin and are sent in that order while the rows are locked, and each one
/// commits as soon as it has finished.
fn stopped(statements: Vec<&'static Statement>, level: Level, held: Vec<String>) -> Case<'static> {
    let count = statements.len();
    let schedule = (0..count)
        .map(|transaction| (transaction, Step::Begin))
        .chain((0..count).flat_map(|transaction| [(transaction, Step::Send), (transaction, Step::Commit)]));
    Case { statements, level, schedule: schedule.collect(), held }
}

/// Returns the cases of two statements that lock a row in common, each stopped before each row that it locks.
fn stopped_pairs(locks: &Locks) -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    for first in STATEMENTS {
        for second in STATEMENTS {
            let (first_rows, second_rows) = (&locks[first.name], &locks[second.name]);
            if !first_rows.iter().any(|row| second_rows.contains(row)) {
                continue;
            }
            for one in first_rows {
                for other in second_rows {
                    let held = if one == other { vec![one.clone()] } else { vec![one.clone(), other.clone()] };
                    cases.push(stopped(vec![first, second], Level::ReadCommitted, held));
                }
            }
        }
    }
    cases
}

/// Returns the cases of three statements that lock a row in common, with and without another connection that has locked
/// it.
fn triples(locks: &Locks) -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    for (first_index, first) in STATEMENTS.iter().enumerate() {
        for (second_index, second) in STATEMENTS.iter().enumerate().skip(first_index) {
            for third in &STATEMENTS[second_index..] {
                let shared = locks[first.name]
                    .iter()
                    .find(|row| locks[second.name].contains(row) && locks[third.name].contains(row));
                let Some(row) = shared else { continue };
                for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                    let statements: Vec<_> = order.iter().map(|index| [first, second, third][*index]).collect();
                    for level in LEVELS {
                        cases.push(stopped(statements.clone(), level, vec![row.clone()]));
                    }
                    let schedule = [Step::Begin, Step::Send, Step::Commit]
                        .into_iter()
                        .flat_map(|step| (0..3).map(move |transaction| (transaction, step)))
                        .collect();
                    cases.push(Case { statements, level: Level::RepeatableRead, schedule, held: Vec::new() });
                }
            }
        }
    }
    cases
}

/// Returns about `wanted` cases, spread evenly and the same in each run.
fn sample(cases: Vec<Case<'static>>, wanted: usize) -> Vec<Case<'static>> {
    // Each pair has an even number of orders; an even step would never reach some of them.
    let step = (cases.len() / wanted).max(1) | 1;
    cases.into_iter().step_by(step).collect()
}

fn samples(locks: &Locks, wanted: usize) -> Vec<Case<'static>> {
    let kinds = [pairs(), stopped_pairs(locks), triples(locks)];
    kinds.into_iter().flat_map(|cases| sample(cases, wanted)).collect()
}

/// Runs all cases on several databases and returns the failures by name.
async fn run_cases(cases: Vec<Case<'static>>) -> Vec<String> {
    let (count, begun) = (cases.len(), std::time::Instant::now());
    let cases = std::sync::Arc::new(std::sync::Mutex::new(cases.into_iter().rev().collect::<Vec<_>>()));
    let mut runners = Vec::new();
    for _ in 0..DATABASES {
        let cases = cases.clone();
        runners.push(tokio::spawn(async move {
            let mut runner = Runner::new().await;
            let mut failures = Vec::new();
            loop {
                let Some(case) = cases.lock().unwrap().pop() else { break failures };
                let problems = runner.run_case(&case).await;
                if !problems.is_empty() {
                    failures.push(format!("{case}\n    {}", problems.join("\n    ")));
                }
            }
        }));
    }
    let mut failures = Vec::new();
    for runner in runners {
        failures.extend(runner.await.unwrap());
    }
    println!("{count} cases in {:.1} s, {} failed", begun.elapsed().as_secs_f32(), failures.len());
    failures.sort_unstable();
    failures
}

async fn find_locks() -> Locks {
    let mut runner = Runner::new().await;
    let mut locks = Locks::new();
    for statement in STATEMENTS {
        locks.insert(statement.name, runner.locks(statement).await);
    }
    locks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_of_statements_breaks_an_invariant() {
    let locks = find_locks().await;
    let wanted = std::env::var("SPARC_INTERLEAVINGS").unwrap_or_default();
    let cases = match wanted.as_str() {
        "all" => pairs().into_iter().chain(stopped_pairs(&locks)).collect(),
        "triples" => triples(&locks),
        "" => samples(&locks, SAMPLE),
        size if size.parse::<usize>().is_ok() => samples(&locks, size.parse().unwrap()),
        part => pairs()
            .into_iter()
            .chain(stopped_pairs(&locks))
            .chain(triples(&locks))
            .filter(|case| case.to_string().contains(part))
            .collect(),
    };
    let failures = run_cases(cases).await;
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
}
