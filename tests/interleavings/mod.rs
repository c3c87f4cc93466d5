//! Runs statements concurrently, as PostgreSQL's isolation tests do: every pair of the statements that users, the
//! service, the platform (Supabase's Auth server) and maintenance send, on two connections, in every order of begin,
//! statement, commit and rollback. After each case, every invariant must hold, no transaction may wait for ever, and
//! each refusal must be one that `statements.rs` lists or, at REPEATABLE READ, a serialization failure.
//!
//! In these cases, each statement has finished, or waits for the other transaction, before the next statement is sent.
//! So the transactions overlap, but only one statement runs at a time, and two statements cannot wait for each other. A
//! second kind of case blocks both statements in the middle: until both have been sent, other connections hold a row
//! that the first statement locks and a row that the second statement locks. A third kind has three statements that
//! lock a row in common.
//!
//! By default, the test runs a sample of each kind of case. `SPARC_INTERLEAVINGS=20000` runs a sample of about that
//! size of each kind, `SPARC_INTERLEAVINGS=all` every case of the first two kinds, and `SPARC_INTERLEAVINGS=triples`
//! every case of the third. Any other value runs the cases whose names contain the value; a failed case is reported by
//! its name.

use std::collections::BTreeMap;

mod game_database;
mod runner;
mod statements;

use runner::{Case, IsolationLevel, Runner, Schedule, Step};
use statements::{Caller, STATEMENTS, Statement};

const ISOLATION_LEVELS: [IsolationLevel; 2] = [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead];

/// The number of databases on which cases run concurrently.
const DATABASE_COUNT: usize = 4;

/// The number of cases of each kind in the default sample.
const SAMPLE_SIZE: usize = 200;

/// Returns every order of the steps of all transactions that keeps the steps of each transaction in order.
fn interleavings(transactions: &[Vec<Step>]) -> Vec<Schedule> {
    if transactions.iter().all(Vec::is_empty) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (transaction, steps) in transactions.iter().enumerate().filter(|(_, steps)| !steps.is_empty()) {
        let mut remaining_steps = transactions.to_vec();
        remaining_steps[transaction].remove(0);
        for mut schedule in interleavings(&remaining_steps) {
            schedule.insert(0, (transaction, steps[0]));
            all.push(schedule);
        }
    }
    all
}

/// Returns every schedule of as many transactions as `last_steps` has elements: the last step (commit or rollback) of
/// each. At READ COMMITTED, where each statement takes its own snapshot, it does not matter when a transaction begins,
/// so all begin first.
fn schedules(level: IsolationLevel, last_steps: &[Step]) -> Vec<Schedule> {
    let begin_matters = level == IsolationLevel::RepeatableRead;
    let transactions: Vec<Vec<Step>> = last_steps
        .iter()
        .map(|last| if begin_matters { vec![Step::Begin, Step::Send, *last] } else { vec![Step::Send, *last] })
        .collect();
    let mut all = interleavings(&transactions);
    if !begin_matters {
        for schedule in &mut all {
            schedule.splice(0..0, (0..last_steps.len()).map(|transaction| (transaction, Step::Begin)));
        }
    }
    all
}

/// Returns the cases of two statements, with the steps of their transactions in every order.
fn pairs() -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    let ends = [Step::Commit, Step::Rollback];
    for (index, first) in STATEMENTS.iter().enumerate() {
        for second in &STATEMENTS[index..] {
            for level in ISOLATION_LEVELS {
                for first_end in ends {
                    for second_end in ends {
                        for schedule in schedules(level, &[first_end, second_end]) {
                            let statements = vec![first, second];
                            cases.push(Case { statements, level, schedule, held_rows: Vec::new() });
                        }
                    }
                }
            }
        }
    }
    cases
}

/// Returns whether `STATEMENTS` has a user's statement that writes the table with the command. For a command that locks
/// existing rows, the table must also be in `LOCKABLE_TABLES`; otherwise no case blocks the statement at one of these
/// rows.
pub fn has_interleaving_cases(command: &str, table: &str) -> bool {
    let (clause, locks_rows) = match command {
        "INSERT" => ("INSERT INTO", false),
        "DELETE" => ("DELETE FROM", true),
        command => (command, true),
    };
    let table = format!("public.{table}");
    let write = format!("{clause} {table} ");
    STATEMENTS.iter().any(|statement| matches!(statement.caller, Caller::User(_)) && statement.sql.contains(&write))
        && (!locks_rows || game_database::LOCKABLE_TABLES.iter().any(|(lockable, _)| *lockable == table))
}

/// For each statement's name, the rows that the statement locks.
type LockedRows = BTreeMap<&'static str, Vec<String>>;

/// Returns the case in which the transactions begin, and send their statements in the given order, while other
/// connections hold the given rows. In the schedule, each commit directly follows its statement. While the statement is
/// blocked, the runner postpones the commit, and the next transaction sends its statement.
fn blocked_case(statements: Vec<&'static Statement>, level: IsolationLevel, held_rows: Vec<String>) -> Case<'static> {
    let count = statements.len();
    let schedule = (0..count)
        .map(|transaction| (transaction, Step::Begin))
        .chain((0..count).flat_map(|transaction| [(transaction, Step::Send), (transaction, Step::Commit)]));
    Case { statements, level, schedule: schedule.collect(), held_rows }
}

/// Returns the cases of two statements that lock a row in common. There is one case for each combination of a row that
/// the first statement locks and a row that the second statement locks (the two rows may be the same). Other
/// connections hold these rows, which blocks both statements.
fn blocked_pairs(locked_rows: &LockedRows) -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    for first in STATEMENTS {
        for second in STATEMENTS {
            let (first_rows, second_rows) = (&locked_rows[first.name], &locked_rows[second.name]);
            if !first_rows.iter().any(|row| second_rows.contains(row)) {
                continue;
            }
            for first_row in first_rows {
                for second_row in second_rows {
                    let held_rows = if first_row == second_row {
                        vec![first_row.clone()]
                    } else {
                        vec![first_row.clone(), second_row.clone()]
                    };
                    cases.push(blocked_case(vec![first, second], IsolationLevel::ReadCommitted, held_rows));
                }
            }
        }
    }
    cases
}

/// Returns the cases of three statements that lock a row in common. In some, another connection holds that row until
/// all three have been sent. In the others, all three transactions begin, then all send, and then all commit.
fn triples(locked_rows: &LockedRows) -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    for (first_index, first) in STATEMENTS.iter().enumerate() {
        for (second_index, second) in STATEMENTS.iter().enumerate().skip(first_index) {
            for third in &STATEMENTS[second_index..] {
                let shared_row = locked_rows[first.name]
                    .iter()
                    .find(|row| locked_rows[second.name].contains(row) && locked_rows[third.name].contains(row));
                let Some(row) = shared_row else { continue };
                for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                    let statements: Vec<_> = order.iter().map(|index| [first, second, third][*index]).collect();
                    for level in ISOLATION_LEVELS {
                        cases.push(blocked_case(statements.clone(), level, vec![row.clone()]));
                    }
                    let schedule = [Step::Begin, Step::Send, Step::Commit]
                        .into_iter()
                        .flat_map(|step| (0..3).map(move |transaction| (transaction, step)))
                        .collect();
                    cases.push(Case {
                        statements,
                        level: IsolationLevel::RepeatableRead,
                        schedule,
                        held_rows: Vec::new(),
                    });
                }
            }
        }
    }
    cases
}

/// Returns about `size` cases, evenly spread and the same in each run.
fn sample(cases: Vec<Case<'static>>, size: usize) -> Vec<Case<'static>> {
    // In each list, the same isolation levels, schedules and orders recur for every group of statements. The period is
    // 104 for a pair (4 combinations of last steps times 26 schedules) and 18 for a triple (6 orders times 3 cases), so
    // its prime factors are 2, 3 and 13. If the stride had a factor in common with a period, some levels, schedules or
    // orders would never be in the sample.
    let mut stride = (cases.len() / size.max(1)).max(1);
    while [2, 3, 13].iter().any(|factor| stride.is_multiple_of(*factor)) {
        stride += 1;
    }
    cases.into_iter().step_by(stride).collect()
}

/// Returns a sample of each kind of case.
fn sample_each_kind(locked_rows: &LockedRows, size: usize) -> Vec<Case<'static>> {
    let kinds = [pairs(), blocked_pairs(locked_rows), triples(locked_rows)];
    kinds.into_iter().flat_map(|cases| sample(cases, size)).collect()
}

/// Distributes the cases over several databases, which work concurrently. Each case runs once. Returns the failed
/// cases, each as its name and its problems, sorted by name.
async fn run_cases(cases: Vec<Case<'static>>) -> Vec<String> {
    let (case_count, started_at) = (cases.len(), std::time::Instant::now());
    let queue = std::sync::Arc::new(std::sync::Mutex::new(cases.into_iter().rev().collect::<Vec<_>>()));
    let mut tasks = Vec::new();
    for _ in 0..DATABASE_COUNT {
        let queue = queue.clone();
        tasks.push(tokio::spawn(async move {
            let mut runner = Runner::new().await;
            let mut failures = Vec::new();
            loop {
                let Some(case) = queue.lock().unwrap().pop() else { break failures };
                let problems = runner.run_case(&case).await;
                if !problems.is_empty() {
                    failures.push(format!("{case}\n    {}", problems.join("\n    ")));
                }
            }
        }));
    }
    let mut failures = Vec::new();
    for task in tasks {
        failures.extend(task.await.unwrap());
    }
    println!("{case_count} cases in {:.1} s, {} failed", started_at.elapsed().as_secs_f32(), failures.len());
    failures.sort_unstable();
    failures
}

/// Runs each statement alone and returns the rows that it locks.
async fn find_locked_rows() -> LockedRows {
    let mut runner = Runner::new().await;
    let mut locked_rows = LockedRows::new();
    for statement in STATEMENTS {
        locked_rows.insert(statement.name, runner.rows_locked_by(statement).await);
    }
    locked_rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_of_statements_breaks_an_invariant() {
    let locked_rows = find_locked_rows().await;
    let selection = std::env::var("SPARC_INTERLEAVINGS").unwrap_or_default();
    let cases = match selection.as_str() {
        "all" => pairs().into_iter().chain(blocked_pairs(&locked_rows)).collect(),
        "triples" => triples(&locked_rows),
        "" => sample_each_kind(&locked_rows, SAMPLE_SIZE),
        size if size.parse::<usize>().is_ok() => sample_each_kind(&locked_rows, size.parse().unwrap()),
        part => pairs()
            .into_iter()
            .chain(blocked_pairs(&locked_rows))
            .chain(triples(&locked_rows))
            .filter(|case| case.to_string().contains(part))
            .collect(),
    };
    assert!(!cases.is_empty(), "SPARC_INTERLEAVINGS selects no case");
    let failures = run_cases(cases).await;
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}
