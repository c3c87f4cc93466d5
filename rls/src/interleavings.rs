//! Runs random programs, over a model of the server. A program is a few tasks that share one transaction; each task
//! chooses at random what it does, and `shuttle` chooses the order in which the tasks run. After each run, these rules
//! must hold: a write that was answered Ok is saved if its transaction and all outer ones were committed; a write that
//! was refused or cancelled is not saved; every INSERT ran in the role that its text names; and the connection was
//! returned idle and clean, or discarded. A *frame* is the transaction or one of the nested transactions in it.

mod server;

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use futures_util::StreamExt;
use sea_orm::{DbBackend, DbErr, Statement};
use server::{ModelConnection, Server, USER_ROLE};
use shuttle::{
    Runner,
    future::{block_on, spawn, yield_now},
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler},
};

use crate::{
    Error, Identity,
    identity::set_role_statement,
    runtime::set_deadlines_may_be_exceeded,
    shared_transaction::{SharedTransaction, Verification},
    streams::stream_rows,
    transaction_state::{BeginRequest, OUTERMOST_FRAME_ID, TransactionState},
    wire::PreparedStatementMode,
};

/// What the answer says about a write or a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    NotDone,
    Unknown,
}

/// What the tasks did, and the answers that they got.
#[derive(Debug, Default)]
struct Log {
    /// The rows that the tasks tried to write. The index of a row is its number.
    rows: Vec<LoggedRow>,
    /// The frames, by id.
    frames: BTreeMap<u64, LoggedFrame>,
}

#[derive(Debug)]
struct LoggedRow {
    frame_id: u64,
    /// The outcome of the write.
    outcome: Outcome,
}

#[derive(Debug)]
struct LoggedFrame {
    /// The id of the frame around it; `None` for the outermost.
    outer_id: Option<u64>,
    /// The outcome of its commit.
    outcome: Outcome,
}

/// The transaction of a program, and the log of all its tasks.
#[derive(Clone)]
struct TaskContext {
    shared: SharedTransaction<ModelConnection>,
    log: Arc<Mutex<Log>>,
}

fn statement(sql: String) -> Statement {
    Statement::from_string(DbBackend::Postgres, sql)
}

fn random_below(limit: u32) -> u32 {
    thread_rng().gen_range(0..limit)
}

/// Polls the future a few times, and then drops it. Returns `None` if it did not complete.
async fn poll_and_drop<T>(future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut remaining_polls) = (pin!(future), random_below(5));
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if remaining_polls == 0 => Poll::Ready(None),
        Poll::Pending => {
            remaining_polls -= 1;
            Poll::Pending
        }
    })
    .await
}

impl TaskContext {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a row to the log, and returns its number. Unless its statement is answered Ok, the row must not be saved.
    fn log_row(&self, frame_id: u64) -> usize {
        let mut log = self.log();
        log.rows.push(LoggedRow { frame_id, outcome: Outcome::NotDone });
        log.rows.len() - 1
    }

    /// Records the answer to the write of a row; `None` if the write was cancelled.
    fn record_answer<T>(&self, row_number: usize, answer: Option<Result<T, DbErr>>) {
        if matches!(answer, Some(Ok(_))) {
            self.log().rows[row_number].outcome = Outcome::Done;
        }
    }

    async fn insert(&self, frame_id: u64) {
        let row_number = self.log_row(frame_id);
        let verification = if random_below(2) == 0 { Verification::Skipped } else { Verification::Immediate };
        let insert = statement(format!("INSERT {row_number} AS {USER_ROLE}"));
        self.record_answer(row_number, Some(self.shared.execute(frame_id, insert, verification).await));
    }

    /// Does one random thing in the frame. `depth` is the number of frames around it.
    async fn random_step(&self, frame_id: u64, depth: u32) {
        yield_now().await;
        match random_below(9) {
            0 | 1 => self.insert(frame_id).await,
            // Writes in another role, and may be cancelled.
            2 => {
                let row_number = self.log_row(frame_id);
                let set_role_statements = ["service", USER_ROLE].map(|role| statement(set_role_statement(role)));
                let insert = statement(format!("INSERT {row_number} AS service"));
                let write = self.shared.execute_as_role(frame_id, set_role_statements, insert);
                let answer = if random_below(2) == 0 { poll_and_drop(write).await } else { Some(write.await) };
                self.record_answer(row_number, answer);
            }
            // Writes, and may be cancelled.
            3 => {
                let row_number = self.log_row(frame_id);
                let insert = statement(format!("INSERT {row_number} AS {USER_ROLE}"));
                let answer = poll_and_drop(self.shared.execute(frame_id, insert, Verification::Immediate)).await;
                self.record_answer(row_number, answer);
            }
            // Is refused by the server.
            4 => {
                let refuse = statement("REFUSE".to_owned());
                assert!(self.shared.execute(frame_id, refuse, Verification::Skipped).await.is_err());
            }
            // Writes, and changes the identity.
            5 => {
                let verification = if random_below(2) == 0 { Verification::Immediate } else { Verification::Deferred };
                let row_number = self.log_row(frame_id);
                let insert = statement(format!("INSERT {row_number} AS {USER_ROLE}, SWITCH"));
                // Not recorded: whatever the answer, the row must not be saved, because the statement changes the role.
                let answer = self.shared.execute(frame_id, insert, verification).await;
                assert!(
                    verification == Verification::Deferred || answer.is_err(),
                    "a changed identity was not noticed"
                );
            }
            6 => self.read_stream_and_maybe_insert(frame_id).await,
            _ if depth < 2 => Box::pin(self.run_nested(frame_id, depth)).await,
            _ => self.insert(frame_id).await,
        }
    }

    /// Reads some rows of a stream. Then either drops the stream, or runs another statement and reads the remaining
    /// rows.
    async fn read_stream_and_maybe_insert(&self, frame_id: u64) {
        let select = statement("ROWS 6".to_owned());
        let commits_at_end = false;
        let rows = stream_rows(&self.shared, frame_id, select, Verification::Skipped, commits_at_end).await;
        let Ok(rows) = rows else { return };
        let mut rows = pin!(rows);
        for _ in 0..random_below(8) {
            let Some(Ok(_)) = rows.next().await else { return };
        }
        if random_below(2) == 0 {
            // Meanwhile, the background task of `stream_rows`, which reads from the server, may fill the buffer, and
            // wait for this reader.
            for _ in 0..random_below(4) {
                yield_now().await;
            }
            self.insert(frame_id).await;
            while let Some(Ok(_)) = rows.next().await {}
        }
    }

    /// Begins a nested transaction, does some steps in it, and ends it.
    async fn run_nested(&self, outer_id: u64, depth: u32) {
        let begin = self.shared.begin_nested(outer_id, "");
        let begun = if random_below(4) == 0 { poll_and_drop(begin).await } else { Some(begin.await) };
        let Some(Ok(frame_id)) = begun else { return };
        let frame = LoggedFrame { outer_id: Some(outer_id), outcome: Outcome::NotDone };
        self.log().frames.insert(frame_id, frame);
        for _ in 0..=random_below(2) {
            self.random_step(frame_id, depth + 1).await;
        }
        self.end(frame_id).await;
    }

    /// Commits or rolls back the frame, or abandons it. In an application, dropping the frame's handle calls `abandon`.
    /// These tests have no handles, so they call it themselves, also after a commit or rollback.
    async fn end(&self, frame_id: u64) {
        let outcome = match random_below(8) {
            0 => {
                let rollback = self.shared.rollback(frame_id);
                let _ = if random_below(2) == 0 { poll_and_drop(rollback).await } else { Some(rollback.await) };
                self.shared.abandon(frame_id);
                Outcome::NotDone
            }
            1 => {
                self.shared.abandon(frame_id);
                Outcome::NotDone
            }
            2 => {
                let outcome =
                    poll_and_drop(self.shared.commit(frame_id)).await.map_or(Outcome::Unknown, commit_outcome);
                self.shared.abandon(frame_id);
                outcome
            }
            _ => commit_outcome(self.shared.commit(frame_id).await),
        };
        self.log().frames.entry(frame_id).and_modify(|frame| frame.outcome = outcome);
    }
}

fn commit_outcome(answer: Result<(), DbErr>) -> Outcome {
    match answer.map_err(Error::from) {
        Ok(()) => Outcome::Done,
        Err(Error::CommitUnknown(_)) => Outcome::Unknown,
        Err(_) => Outcome::NotDone,
    }
}

/// Runs one program, and checks the rules.
async fn run_program_and_check_rules(deadline: Option<Duration>, may_lose_connection: bool) {
    // `PctScheduler` panics if its first program never has two tasks to choose from, which happens if the BEGIN is
    // cancelled. So there is always a second task for a moment.
    let second_task = spawn(yield_now());
    yield_now().await;
    second_task.await.unwrap();
    let server = Server::default();
    let identity = Identity::new(USER_ROLE);
    let request =
        BeginRequest { identity: &identity, modes: "", statement_deadline: deadline, allows_background_end: false };
    server.state().may_lose_connection = may_lose_connection;
    let begin = TransactionState::begin(server.connect(), PreparedStatementMode::Cached, &request, None);
    let begun = if random_below(8) == 0 { poll_and_drop(begin).await } else { Some(begin.await) };
    let Some(Ok((state, _))) = begun else { return wait_for_release_and_check_server_rules(&server).await };
    let context = TaskContext { shared: SharedTransaction::new(state), log: Arc::default() };
    context.log().frames.insert(OUTERMOST_FRAME_ID, LoggedFrame { outer_id: None, outcome: Outcome::NotDone });
    let tasks: Vec<_> = (0..2 + random_below(2))
        .map(|_| {
            let context = context.clone();
            spawn(async move {
                for _ in 0..=random_below(3) {
                    context.random_step(OUTERMOST_FRAME_ID, 0).await;
                }
            })
        })
        .collect();
    // A nested transaction may outlive the outer one.
    let outermost_ends_last = random_below(3) > 0;
    if !outermost_ends_last {
        context.end(OUTERMOST_FRAME_ID).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    if outermost_ends_last {
        context.end(OUTERMOST_FRAME_ID).await;
    }
    let log = context.log.clone();
    drop(context);
    wait_for_release_and_check_server_rules(&server).await;
    let state = server.state();
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    for (row_number, row) in log.rows.iter().enumerate() {
        // A row is saved if, and only if, its write and the commits of all frames around it are done.
        let mut expected = row.outcome;
        let mut next_frame_id = Some(row.frame_id);
        while let Some(frame) = next_frame_id.and_then(|frame_id| log.frames.get(&frame_id)) {
            expected = match (expected, frame.outcome) {
                (Outcome::NotDone, _) | (_, Outcome::NotDone) => Outcome::NotDone,
                (Outcome::Unknown, _) | (_, Outcome::Unknown) => Outcome::Unknown,
                (Outcome::Done, Outcome::Done) => Outcome::Done,
            };
            next_frame_id = frame.outer_id;
        }
        let is_saved = state.saved_row_numbers.contains(&u32::try_from(row_number).unwrap());
        let is_as_expected = expected == Outcome::Unknown || is_saved == (expected == Outcome::Done);
        assert!(is_as_expected, "row {row_number}: saved {is_saved}, but the answers say {expected:?}: {log:?}");
    }
}

/// Waits until the connection has been returned or discarded, and checks that the model server has seen no rule broken.
/// (The rules about saved rows are checked by the caller.)
async fn wait_for_release_and_check_server_rules(server: &Server) {
    while server.state().unreleased_connection_count > 0 {
        yield_now().await;
    }
    assert_eq!(server.state().broken_rules, [""; 0]);
}

/// Runs the test under each of two schedulers. `SPARC_SCHEDULES` is the number of schedules under each of them; the
/// default is 2000.
fn explore_schedules(test: impl Fn() + Copy + Send + Sync + 'static) {
    let schedule_count = std::env::var("SPARC_SCHEDULES")
        .map_or(2000, |text| text.parse().expect("SPARC_SCHEDULES must be a number of schedules"));
    // By default, the stack of a task has 60 KiB, which is too little for the driver in a debug build.
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(schedule_count), config.clone()).run(test);
    let bug_depth = 3;
    Runner::new(PctScheduler::new(bug_depth, schedule_count), config).run(test);
}

#[test]
fn the_rules_hold_for_random_programs() {
    explore_schedules(|| {
        let (deadline, may_lose_connection) = (None, false);
        set_deadlines_may_be_exceeded(false);
        block_on(run_program_and_check_rules(deadline, may_lose_connection));
    });
}

#[test]
fn the_rules_hold_despite_exceeded_deadlines_and_lost_connections() {
    explore_schedules(|| {
        // The length of the deadline does not matter: `runtime::timeout` decides at random when it is exceeded.
        let (deadline, may_lose_connection) = (Some(Duration::from_secs(1)), true);
        set_deadlines_may_be_exceeded(true);
        block_on(run_program_and_check_rules(deadline, may_lose_connection));
    });
}
