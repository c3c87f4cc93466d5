//! Several connections, each with one transaction, advanced step by step.

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
    statements::{Sender, Statement},
    world::{GameDatabase, connect, id, run, with_ids},
};

/// A statement that has neither finished nor waits for a lock after this time hangs.
const FOR_EVER: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    ReadCommitted,
    RepeatableRead,
}

/// The next step of one of the transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Begin,
    Send,
    Commit,
    Rollback,
}

/// The number of affected rows, or SQLSTATE and message.
pub type Answer = Result<u64, (String, String)>;

/// One connection with its own task, so that it can wait while others continue.
pub struct Side {
    backend: i32,
    sender: UnboundedSender<String>,
    answers: UnboundedReceiver<Answer>,
    waits: bool,
}

impl Side {
    pub async fn new(url: &str) -> Self {
        let mut connection = connect(url).await;
        // Deadlocks are detected early. No statement takes this long otherwise.
        run(&mut connection, "SET deadlock_timeout = '20ms'; SET jit = off").await;
        let backend = query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
        let (sender, mut receiver) = unbounded_channel::<String>();
        let (tell, answers) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(sql) = receiver.recv().await {
                let answer = raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
                let answer = answer.map(|result| result.rows_affected()).map_err(|error| match error {
                    Error::Database(error) => {
                        let place = error.try_downcast_ref::<PgDatabaseError>().and_then(PgDatabaseError::r#where);
                        let message = format!("{} {}", error.message(), place.unwrap_or_default().replace('\n', " "));
                        (error.code().unwrap_or_default().into_owned(), message)
                    }
                    other => ("connection".to_owned(), other.to_string()),
                });
                if tell.send(answer).is_err() {
                    break;
                }
            }
        });
        Self { backend, sender, answers, waits: false }
    }

    fn send(&mut self, sql: String) {
        self.sender.send(sql).unwrap();
        self.waits = true;
    }

    /// Waits until the statement has finished or waits for a lock.
    async fn settle(&mut self, database: &mut GameDatabase) -> Option<Answer> {
        let began = Instant::now();
        loop {
            if let Ok(answer) = timeout(Duration::from_millis(2), self.answers.recv()).await {
                self.waits = false;
                return answer;
            }
            if database.is_blocked(self.backend).await {
                return None;
            }
            assert!(began.elapsed() < FOR_EVER, "a statement does not finish");
        }
    }

    /// Waits until the statement has finished, whatever it waits for.
    async fn finish(&mut self) -> Option<Answer> {
        let answer = timeout(FOR_EVER, self.answers.recv()).await.ok().flatten();
        self.waits = false;
        answer
    }
}

/// Returns the statements that begin a transaction with its identity, and with its snapshot at REPEATABLE READ.
fn begin(statement: &Statement, level: Level) -> String {
    let (isolation, snapshot) = match level {
        Level::ReadCommitted => ("READ COMMITTED", ""),
        Level::RepeatableRead => ("REPEATABLE READ", "; SELECT FROM public.users LIMIT 0"),
    };
    let identity = match statement.sender {
        Sender::User(name) => format!(
            "; SET LOCAL ROLE authenticated; SET LOCAL request.jwt.claims = '{{\"role\": \"authenticated\", \"sub\": \"{}\"}}'",
            id(name)
        ),
        Sender::Service => {
            "; SET LOCAL ROLE service_role; SET LOCAL request.jwt.claims = '{\"role\": \"service_role\"}'".to_owned()
        }
        Sender::Platform => String::new(),
    };
    format!("BEGIN ISOLATION LEVEL {isolation}{identity}{snapshot}")
}

/// The outcome of one transaction.
#[derive(Default)]
struct Outcome {
    answer: Option<Answer>,
    /// The position of its commit among all commits.
    committed: Option<usize>,
}

/// Transactions of one statement each, and the order of their steps.
pub struct Case<'a> {
    pub statements: Vec<&'a Statement>,
    pub level: Level,
    pub schedule: Vec<(usize, Step)>,
    /// Rows that other connections lock until all statements have been sent; each one stops a statement in the middle.
    pub held: Vec<String>,
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.statements.iter().map(|statement| statement.name).collect();
        let level = if self.level == Level::ReadCommitted { "rc" } else { "rr" };
        write!(f, "{}/{level}/", names.join("+"))?;
        for (side, step) in &self.schedule {
            let letter = match step {
                Step::Begin => 'b',
                Step::Send => 's',
                Step::Commit => 'c',
                Step::Rollback => 'r',
            };
            write!(f, "{letter}{}", side + 1)?;
        }
        for row in &self.held {
            write!(f, "/{row}")?;
        }
        Ok(())
    }
}

/// A database, three connections for the transactions, and two that lock rows.
pub struct Runner {
    pub database: GameDatabase,
    sides: Vec<Side>,
    holders: Vec<Side>,
    played: u32,
    /// Whether anything was committed since the rows were last restored.
    changed: bool,
}

impl Runner {
    pub async fn new() -> Self {
        let database = GameDatabase::new().await;
        let (mut sides, mut holders) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            sides.push(Side::new(&database.url).await);
        }
        for _ in 0..2 {
            holders.push(Side::new(&database.url).await);
        }
        Self { database, sides, holders, played: 0, changed: true }
    }

    /// Returns the rows that a statement locks if it runs alone.
    pub async fn locks(&mut self, statement: &Statement) -> Vec<String> {
        self.database.restore().await;
        self.sides[0].send(begin(statement, Level::ReadCommitted));
        self.sides[0].finish().await;
        self.sides[0].send(with_ids(statement.sql));
        let answer = self.sides[0].finish().await;
        assert!(matches!(answer, Some(Ok(1..))), "{} affects no row when it runs alone: {answer:?}", statement.name);
        let locked = self.database.locked_rows().await;
        self.sides[0].send("ROLLBACK".to_owned());
        self.sides[0].finish().await;
        locked
    }

    /// Runs a case and returns everything that is wrong with its outcome.
    pub async fn run_case(&mut self, case: &Case<'_>) -> Vec<String> {
        self.played += 1;
        if self.played.is_multiple_of(500) {
            self.database.vacuum().await;
        }
        if self.changed {
            self.database.restore().await;
        }
        for (holder, row) in self.holders.iter_mut().zip(&case.held) {
            holder.send(with_ids(&format!("BEGIN; SELECT FROM {row} FOR UPDATE")));
            // If the first holder has locked the row already, the second waits, which is fine.
            if let Some(answer) = holder.settle(&mut self.database).await {
                assert!(answer.is_ok(), "{answer:?}: {row}");
            }
        }

        let mut outcomes: Vec<Outcome> = case.statements.iter().map(|_| Outcome::default()).collect();
        let mut later: Vec<VecDeque<Step>> = case.statements.iter().map(|_| VecDeque::new()).collect();
        let mut commits = 0;
        let mut wrong = Vec::new();
        let mut schedule: VecDeque<(usize, Step)> = case.schedule.iter().copied().collect();
        let mut released = case.held.is_empty();
        let mut stalled = None;
        loop {
            // Transactions that waited may continue.
            for side in 0..outcomes.len() {
                if self.sides[side].waits
                    && let Some(answer) = self.sides[side].settle(&mut self.database).await
                {
                    outcomes[side].answer = Some(answer);
                    for step in later[side].drain(..).rev() {
                        schedule.push_front((side, step));
                    }
                }
            }
            let Some((side, step)) = schedule.pop_front() else {
                if !released {
                    released = true;
                    for holder in &mut self.holders[..case.held.len()] {
                        if holder.waits {
                            holder.finish().await;
                        }
                        holder.send("ROLLBACK".to_owned());
                        holder.finish().await;
                    }
                    continue;
                }
                if self.sides[..outcomes.len()].iter().all(|side| !side.waits) {
                    break;
                }
                // PostgreSQL resolves a deadlock soon; any other wait must not last.
                let stalls = *stalled.get_or_insert_with(Instant::now);
                assert!(stalls.elapsed() < FOR_EVER, "a transaction waits for ever: {case}");
                continue;
            };
            stalled = None;
            if self.sides[side].waits {
                later[side].push_back(step);
                continue;
            }
            let statement = case.statements[side];
            match step {
                Step::Begin => {
                    self.sides[side].send(begin(statement, case.level));
                    self.sides[side].finish().await;
                }
                Step::Send => {
                    self.sides[side].send(with_ids(statement.sql));
                    if let Some(answer) = self.sides[side].settle(&mut self.database).await {
                        outcomes[side].answer = Some(answer);
                    }
                }
                Step::Commit | Step::Rollback => {
                    self.sides[side].send(if step == Step::Commit { "COMMIT" } else { "ROLLBACK" }.to_owned());
                    match self.sides[side].finish().await {
                        Some(Ok(_)) => {}
                        other => wrong.push(format!("{} is not committed: {other:?}", statement.name)),
                    }
                    if step == Step::Commit && matches!(outcomes[side].answer, Some(Ok(_))) {
                        outcomes[side].committed = Some(commits);
                        commits += 1;
                    }
                }
            }
        }
        check_outcomes(case, &outcomes, &mut wrong);
        self.changed = commits > 0;
        if self.changed {
            wrong.extend(self.database.broken().await);
        }
        wrong
    }
}

/// Checks that only listed refusals occur and that no account wrote anything after it was closed.
fn check_outcomes(case: &Case<'_>, outcomes: &[Outcome], wrong: &mut Vec<String>) {
    for (statement, outcome) in case.statements.iter().zip(outcomes) {
        match &outcome.answer {
            None => wrong.push(format!("{} waits for ever", statement.name)),
            Some(Err((code, message))) => {
                let listed = statement.refusals.contains(&code.as_str())
                    || (code == "40001" && case.level == Level::RepeatableRead);
                if !listed {
                    wrong.push(format!("{} is refused with {code}: {message}", statement.name));
                }
            }
            Some(Ok(_)) => {}
        }
    }
    for (closing, closed) in case.statements.iter().zip(outcomes) {
        let (Some(who), Some(at)) = (closing.closes, closed.committed) else { continue };
        for (statement, outcome) in case.statements.iter().zip(outcomes) {
            let wrote = matches!(outcome.answer, Some(Ok(1..)))
                && outcome.committed.is_some_and(|after| after > at)
                && statement.sender == Sender::User(who)
                && statement.closes.is_none();
            if wrote {
                wrong.push(format!("{} was done after {}", statement.name, closing.name));
            }
        }
    }
}
