//! Runs a *case*: several transactions, each with one statement and on a connection of its own. The case's schedule
//! determines the order of their steps.

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use sea_orm::sqlx::{AssertSqlSafe, Error, postgres::PgDatabaseError, query_scalar, raw_sql};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

use super::{
    game_database::{GameDatabase, connect, execute, id, with_ids},
    statements::{Caller, Statement},
};
use crate::sqlstates::SERIALIZATION_FAILURE;

/// How long a statement that is not blocked may take, and how long blocked statements may wait once no other step is
/// left. A statement that has not finished after this time hangs, or waits for a lock for ever.
const HANG_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IsolationLevel {
    ReadCommitted,
    RepeatableRead,
}

/// The steps of all transactions in order, each with the index of its transaction.
pub type Schedule = Vec<(usize, Step)>;

/// A step of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Begin,
    /// Sends the transaction's only statement.
    Send,
    Commit,
    Rollback,
}

/// The number of affected rows, or the SQLSTATE and the message of the error. If the connection has failed, the text
/// `connection` takes the place of the SQLSTATE.
pub type Answer = Result<u64, (String, String)>;

/// A connection with its own task, so that its statement can wait for a lock while other connections continue.
pub struct Client {
    /// The process id of the connection's backend on the server.
    backend_pid: i32,
    /// Sends the next statement to the connection's task.
    statement_sender: UnboundedSender<String>,
    answer_receiver: UnboundedReceiver<Answer>,
    /// Whether a statement was sent whose answer has not been received.
    has_pending_statement: bool,
}

impl Client {
    pub async fn new(url: &str) -> Self {
        let mut connection = connect(url).await;
        // The server looks for a deadlock after 20 ms instead of a second, so that cases end soon. A check that finds
        // no deadlock does no harm: the statement continues to wait.
        execute(&mut connection, "SET deadlock_timeout = '20ms'; SET jit = off").await;
        let backend_pid = query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
        let (statement_sender, mut statement_receiver) = unbounded_channel::<String>();
        let (answer_sender, answer_receiver) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(sql) = statement_receiver.recv().await {
                let answer = raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
                let answer = answer.map(|result| result.rows_affected()).map_err(|error| match error {
                    Error::Database(error) => {
                        let context = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::r#where);
                        let message = format!("{} {}", error.message(), context.unwrap_or_default().replace('\n', " "));
                        (error.code().unwrap_or_default().into_owned(), message)
                    }
                    other => ("connection".to_owned(), other.to_string()),
                });
                if answer_sender.send(answer).is_err() {
                    break;
                }
            }
        });
        Self { backend_pid, statement_sender, answer_receiver, has_pending_statement: false }
    }

    fn send(&mut self, sql: String) {
        self.statement_sender.send(sql).unwrap();
        self.has_pending_statement = true;
    }

    /// Waits until the statement has finished or is blocked by a lock. Returns its answer, or `None` if it is blocked
    /// or the task that sends the statements has ended.
    async fn receive_answer_unless_blocked(
        &mut self,
        database: &mut GameDatabase,
        context: &impl fmt::Display,
    ) -> Option<Answer> {
        let started_at = Instant::now();
        loop {
            if let Ok(answer) = timeout(Duration::from_millis(2), self.answer_receiver.recv()).await {
                self.has_pending_statement = false;
                return answer;
            }
            if database.is_blocked(self.backend_pid).await {
                return None;
            }
            assert!(started_at.elapsed() < HANG_TIMEOUT, "a statement does not finish: {context}");
        }
    }

    /// Waits until the statement has finished, and returns its answer; `None` if the task that sends the statements has
    /// ended.
    async fn receive_answer(&mut self, context: &impl fmt::Display) -> Option<Answer> {
        let answer = timeout(HANG_TIMEOUT, self.answer_receiver.recv())
            .await
            .unwrap_or_else(|_| panic!("a statement does not finish: {context}"));
        self.has_pending_statement = false;
        answer
    }
}

/// Returns the statements that begin a transaction, set its identity and, at REPEATABLE READ, take its snapshot.
fn begin_sql(statement: &Statement, level: IsolationLevel) -> String {
    let (isolation_sql, snapshot_sql) = match level {
        IsolationLevel::ReadCommitted => ("READ COMMITTED", ""),
        IsolationLevel::RepeatableRead => ("REPEATABLE READ", "; SELECT FROM public.users LIMIT 0"),
    };
    let identity_sql = match statement.caller {
        Caller::User(name) => format!(
            "; SET LOCAL ROLE authenticated; SET LOCAL request.jwt.claims = '{{\"role\": \"authenticated\", \"sub\": \"{}\"}}'",
            id(name)
        ),
        Caller::Service => {
            "; SET LOCAL ROLE service_role; SET LOCAL request.jwt.claims = '{\"role\": \"service_role\"}'".to_owned()
        }
        Caller::Platform => String::new(),
    };
    format!("BEGIN ISOLATION LEVEL {isolation_sql}{identity_sql}{snapshot_sql}")
}

/// The outcome of one transaction.
#[derive(Default)]
struct Outcome {
    answer: Option<Answer>,
    /// The position of the transaction's commit among the commits of the case. `None` if the transaction was rolled
    /// back or its statement was refused.
    commit_position: Option<usize>,
}

/// Transactions of one statement each, and the order of their steps.
pub struct Case<'a> {
    pub statements: Vec<&'a Statement>,
    pub level: IsolationLevel,
    pub schedule: Schedule,
    /// Rows that other connections lock until all statements have been sent. Each text is a table and a condition
    /// (`public.users WHERE (id) = (@ada)`). A statement that reaches such a row is blocked there.
    pub held_rows: Vec<String>,
}

/// The name of the case: its statements, the isolation level, the steps (each a letter and the number of its
/// transaction) and the held rows.
impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.statements.iter().map(|statement| statement.name).collect();
        let level = if self.level == IsolationLevel::ReadCommitted { "rc" } else { "rr" };
        write!(f, "{}/{level}/", names.join("+"))?;
        for (transaction, step) in &self.schedule {
            let letter = match step {
                Step::Begin => 'b',
                Step::Send => 's',
                Step::Commit => 'c',
                Step::Rollback => 'r',
            };
            write!(f, "{letter}{}", transaction + 1)?;
        }
        for row in &self.held_rows {
            write!(f, "/{row}")?;
        }
        Ok(())
    }
}

/// A database, three connections for the transactions of a case, and two connections that lock the held rows.
pub struct Runner {
    pub database: GameDatabase,
    clients: Vec<Client>,
    holders: Vec<Client>,
    cases_run: u32,
    /// Whether the rows must be restored before the next case, because a transaction of the last case has committed.
    needs_restore: bool,
}

impl Runner {
    pub async fn new() -> Self {
        let database = GameDatabase::new().await;
        let (mut clients, mut holders) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            clients.push(Client::new(&database.url).await);
        }
        for _ in 0..2 {
            holders.push(Client::new(&database.url).await);
        }
        Self { database, clients, holders, cases_run: 0, needs_restore: true }
    }

    /// Runs a statement alone, rolls it back, and returns the rows that it locked.
    pub async fn rows_locked_by(&mut self, statement: &Statement) -> Vec<String> {
        self.database.restore().await;
        self.clients[0].send(begin_sql(statement, IsolationLevel::ReadCommitted));
        self.clients[0].receive_answer(&statement.name).await;
        self.clients[0].send(with_ids(statement.sql));
        let answer = self.clients[0].receive_answer(&statement.name).await;
        assert!(matches!(answer, Some(Ok(1..))), "{} must affect a row when it runs alone: {answer:?}", statement.name);
        let locked = self.database.locked_rows().await;
        self.clients[0].send("ROLLBACK".to_owned());
        self.clients[0].receive_answer(&statement.name).await;
        locked
    }

    /// Runs a case and returns the problems that occurred.
    pub async fn run_case(&mut self, case: &Case<'_>) -> Vec<String> {
        self.cases_run += 1;
        if self.cases_run.is_multiple_of(500) {
            self.database.vacuum().await;
        }
        if self.needs_restore {
            self.database.restore().await;
        }
        for (holder, row) in self.holders.iter_mut().zip(&case.held_rows) {
            holder.send(with_ids(&format!("BEGIN; SELECT FROM {row} FOR UPDATE")));
            // The held rows differ, and no other transaction is open, so no holder waits.
            let answer = holder.receive_answer(case).await;
            assert!(matches!(answer, Some(Ok(_))), "{answer:?}: {row}");
        }

        let mut outcomes: Vec<Outcome> = case.statements.iter().map(|_| Outcome::default()).collect();
        // For each transaction, the steps that must follow its statement but could not run while a lock blocked it.
        let mut postponed_steps: Vec<VecDeque<Step>> = case.statements.iter().map(|_| VecDeque::new()).collect();
        let mut commit_count = 0;
        let mut problems = Vec::new();
        let mut schedule: VecDeque<(usize, Step)> = case.schedule.iter().copied().collect();
        let mut has_released_rows = case.held_rows.is_empty();
        let mut stalled_since = None;
        loop {
            // Transactions whose statement has finished in the meantime continue with their postponed steps.
            for transaction in 0..outcomes.len() {
                if self.clients[transaction].has_pending_statement
                    && let Some(answer) =
                        self.clients[transaction].receive_answer_unless_blocked(&mut self.database, case).await
                {
                    outcomes[transaction].answer = Some(answer);
                    for step in postponed_steps[transaction].drain(..).rev() {
                        schedule.push_front((transaction, step));
                    }
                }
            }
            let Some((transaction, step)) = schedule.pop_front() else {
                if !has_released_rows {
                    has_released_rows = true;
                    for holder in &mut self.holders[..case.held_rows.len()] {
                        holder.send("ROLLBACK".to_owned());
                        holder.receive_answer(case).await;
                    }
                    continue;
                }
                if self.clients[..outcomes.len()].iter().all(|client| !client.has_pending_statement) {
                    break;
                }
                // PostgreSQL ends a deadlock soon. A statement that still waits after `HANG_TIMEOUT` waits for ever.
                let since = *stalled_since.get_or_insert_with(Instant::now);
                assert!(since.elapsed() < HANG_TIMEOUT, "a transaction waits for ever: {case}");
                continue;
            };
            stalled_since = None;
            if self.clients[transaction].has_pending_statement {
                postponed_steps[transaction].push_back(step);
                continue;
            }
            let statement = case.statements[transaction];
            match step {
                Step::Begin => {
                    self.clients[transaction].send(begin_sql(statement, case.level));
                    self.clients[transaction].receive_answer(case).await;
                }
                Step::Send => {
                    self.clients[transaction].send(with_ids(statement.sql));
                    if let Some(answer) =
                        self.clients[transaction].receive_answer_unless_blocked(&mut self.database, case).await
                    {
                        outcomes[transaction].answer = Some(answer);
                    }
                }
                Step::Commit | Step::Rollback => {
                    self.clients[transaction].send(if step == Step::Commit { "COMMIT" } else { "ROLLBACK" }.to_owned());
                    let answer = self.clients[transaction].receive_answer(case).await;
                    let has_ended = matches!(answer, Some(Ok(_)));
                    if !has_ended {
                        problems.push(format!("{} does not commit or roll back: {answer:?}", statement.name));
                    }
                    if step == Step::Commit && has_ended && matches!(outcomes[transaction].answer, Some(Ok(_))) {
                        outcomes[transaction].commit_position = Some(commit_count);
                        commit_count += 1;
                    }
                }
            }
        }
        collect_problems(case, &outcomes, &mut problems);
        self.needs_restore = commit_count > 0;
        if self.needs_restore {
            problems.extend(self.database.broken_invariants().await);
        }
        problems
    }
}

/// Adds a problem for each refusal that is not expected, for each statement without an answer, and for each write of a
/// user that was committed after the transaction that closed or deleted the user's account.
fn collect_problems(case: &Case<'_>, outcomes: &[Outcome], problems: &mut Vec<String>) {
    for (statement, outcome) in case.statements.iter().zip(outcomes) {
        match &outcome.answer {
            None => problems.push(format!("{} has no answer, because its task has ended", statement.name)),
            Some(Err((code, message))) => {
                // At REPEATABLE READ, PostgreSQL refuses a write to a row that changed after the snapshot.
                let is_expected = statement.refusals.contains(&code.as_str())
                    || (code == SERIALIZATION_FAILURE && case.level == IsolationLevel::RepeatableRead);
                if !is_expected {
                    problems.push(format!("{} is refused with {code}: {message}", statement.name));
                }
            }
            Some(Ok(_)) => {}
        }
    }
    for (closing_statement, closing_outcome) in case.statements.iter().zip(outcomes) {
        let (Some(user), Some(closing_position)) = (closing_statement.closed_account, closing_outcome.commit_position)
        else {
            continue;
        };
        for (statement, outcome) in case.statements.iter().zip(outcomes) {
            let wrote_after_closing = matches!(outcome.answer, Some(Ok(1..)))
                && outcome.commit_position.is_some_and(|position| position > closing_position)
                && statement.caller == Caller::User(user)
                && statement.closed_account.is_none();
            if wrote_after_closing {
                problems.push(format!("{} wrote after {}", statement.name, closing_statement.name));
            }
        }
    }
}
