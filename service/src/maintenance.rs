//! Maintenance: what keeps the tables tidy, in batches, safe to run twice and at once.
//!
//! Where `pg_cron` is installed, the schema schedules the same jobs.
//!
//! ```
//! use service::{Operations, Sparc, maintenance::JobOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let night = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(night.url()).await?;
//! let service = sparc.as_service();
//! let archived = service.maintenance().archive_sessions(JobOptions::default(), |so_far| println!("{so_far} moved")).await?;
//! service.maintenance().clean_events(JobOptions::default(), |_| ()).await?;
//! service.maintenance().vacuum(JobOptions::default(), |_| ()).await?;
//! println!("{} sessions, {}", archived.rows, if archived.is_finished { "all" } else { "more another night" });
//! # Ok(())
//! # }
//! ```

use std::time::{Duration, Instant};

use rls::unchecked::Unchecked;
use sea_orm::{DbBackend, FromQueryResult, Statement, TransactionOptions};
use serde::{Deserialize, Serialize};

use crate::{
    Caller, Error, IdentityConnection,
    connection::sealed::Sealed,
    identity::Identity,
    operation::{Access, Attempts, operation},
};

/// How a job is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobOptions {
    /// Rows of a batch, each a transaction of its own: 1 to 10,000. A thousand by default.
    pub batch: u16,
    /// No batch is begun later than this. Ten minutes by default.
    pub time: Duration,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self { batch: 1000, time: Duration::from_secs(600) }
    }
}

/// What a job has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct JobReport {
    /// Rows deleted, sessions moved, or tables vacuumed.
    pub rows: u64,
    /// Whether nothing is left that another run does not hold; else the time was up.
    pub is_finished: bool,
}

/// What is waiting to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Backlog {
    /// Events older than a day.
    pub events: i64,
    /// Completed and cancelled sessions that ended 90 days ago.
    pub sessions: i64,
    /// Live sessions that nobody comes back to.
    pub abandoned: i64,
}

/// Operations of upkeep: [`Operations::maintenance`](crate::Operations::maintenance).
#[derive(Debug)]
pub struct Maintenance<'a, C> {
    pub(crate) caller: &'a C,
}

const DUE: &str = "SELECT
    (SELECT count(*) FROM public.session_events WHERE created_at < now() - INTERVAL '24 hours') AS events,
    (
      SELECT count(*)
      FROM public.sessions
      WHERE status IN ('completed', 'cancelled')
        AND ended_at < now() - INTERVAL '90 days'
    ) AS sessions,
    (
      SELECT count(*)
      FROM public.sessions AS session
      WHERE private.is_abandoned(session)
    ) AS abandoned";

const CLEAN_EVENTS: &str = "SELECT private.clean_events($1) AS rows";

const CANCEL_ABANDONED: &str = "SELECT private.cancel_abandoned_sessions($1) AS rows";

const ARCHIVE_SESSIONS: &str = "SELECT private.archive_sessions($1) AS rows";

/// The tables where rows come and go fastest.
const TABLES: [&str; 4] = ["sessions", "session_players", "session_events", "dice_rolls"];

/// VACUUM skips a table that the role does not own, with a warning that no client reads.
const OWNS: &str = "SELECT bool_and(pg_has_role(session_user, relowner, 'USAGE')) AS owns
  FROM pg_catalog.pg_class
  WHERE oid = ANY ('{public.sessions,public.session_players,public.session_events,public.dice_rolls}'::regclass[])";

#[derive(FromQueryResult)]
struct Batch {
    rows: i32,
}

/// Runs batches until one comes back short, or the time is up.
macro_rules! in_batches {
    ($caller:expr, $name:literal, $sql:ident, $run:ident, $progress:ident) => {{
        let begun = Instant::now();
        let size = i32::from($run.batch.clamp(1, 10_000));
        let mut done = JobReport::default();
        while !done.is_finished && (done.rows == 0 || begun.elapsed() < $run.time) {
            let batch = operation!($caller, $name, |tx| {
                let statement = Statement::from_sql_and_values(DbBackend::Postgres, $sql, [size.into()]);
                Ok(Batch::find_by_statement(statement).one(tx).await?.map_or(0, |batch| batch.rows))
            })?;
            done.rows += u64::from(batch.unsigned_abs());
            done.is_finished = batch < size;
            $progress(done.rows);
        }
        Ok(done)
    }};
}

impl<C: Caller> Maintenance<'_, C> {
    /// What is waiting to be done: the end of a progress bar.
    ///
    /// Who may: the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn backlog(self) -> Result<Backlog, Error> {
        only_service(self.caller)?;
        operation!(self.caller, reads "maintenance.backlog", |tx| {
            let statement = Statement::from_string(DbBackend::Postgres, DUE);
            Ok(Backlog::find_by_statement(statement).one(tx).await?.unwrap_or_default())
        })
    }

    /// Deletes events older than a day, the oldest first, and tells after each batch how many are gone. Two at once share
    /// the work.
    ///
    /// Who may: the service. Three round trips for each batch. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn clean_events(self, run: JobOptions, mut progress: impl FnMut(u64) + Send) -> Result<JobReport, Error> {
        only_service(self.caller)?;
        in_batches!(self.caller, "maintenance.clean_events", CLEAN_EVENTS, run, progress)
    }

    /// Cancels live sessions that nobody comes back to: waiting ones a week after their start (or a month after they were
    /// opened without one), started ones after a month without events. Reports after each batch how many are cancelled.
    /// Two at once share the work.
    ///
    /// Who may: the service. Three round trips for each batch. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn cancel_abandoned(
        self,
        run: JobOptions,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<JobReport, Error> {
        only_service(self.caller)?;
        in_batches!(self.caller, "maintenance.cancel_abandoned", CANCEL_ABANDONED, run, progress)
    }

    /// Moves completed and cancelled sessions that ended 90 days ago to the archive, with their seats and rolls, and tells after each
    /// batch how many have moved. Two at once share the work.
    ///
    /// Who may: the service. Three round trips for each batch. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn archive_sessions(
        self,
        run: JobOptions,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<JobReport, Error> {
        only_service(self.caller)?;
        in_batches!(self.caller, "maintenance.archive_sessions", ARCHIVE_SESSIONS, run, progress)
    }
}

/// Not in a transaction of the caller's: PostgreSQL vacuums in none.
impl Maintenance<'_, IdentityConnection> {
    /// Vacuums and analyzes the tables where rows come and go fastest, and tells after each how many are done. A table
    /// that somebody else vacuums is left to them; none is begun after the time of the run.
    ///
    /// Who may: the service, over a login that owns the tables (the one that migrated). Three round trips and one for each
    /// table. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], also over a login that does not own the tables; [`Error::NotSignedIn`].
    ///
    /// ```compile_fail
    /// use service::{Operations, Transaction, maintenance::JobOptions};
    ///
    /// # async fn within(tx: &Transaction) {
    /// tx.maintenance().vacuum(JobOptions::default(), |_| ()).await; // PostgreSQL vacuums in no transaction
    /// # }
    /// ```
    pub async fn vacuum(self, run: JobOptions, mut progress: impl FnMut(u64) + Send) -> Result<JobReport, Error> {
        #[derive(FromQueryResult)]
        struct Row {
            owns: Option<bool>,
        }
        only_service(self.caller)?;
        let span = tracing::info_span!(
            target: "sparc::operation",
            "maintenance.vacuum",
            operation = "maintenance.vacuum",
            identity = "service",
            outcome = tracing::field::Empty,
            retries = tracing::field::Empty,
            duration_us = tracing::field::Empty,
        );
        let attempts = Attempts::of(self.caller, Access::Writes);
        let vacuuming = async {
            let tx = Unchecked::begin_unchecked(self.caller, TransactionOptions::default(), None).await?;
            let owns = Row::find_by_statement(Statement::from_string(DbBackend::Postgres, OWNS)).one(&tx).await?;
            tx.rollback().await?;
            if owns.and_then(|row| row.owns) != Some(true) {
                return Err(Error::NotAllowed { rule: "only the login that owns the tables may vacuum them" });
            }
            let begun = Instant::now();
            let mut done = JobReport::default();
            for table in TABLES {
                if done.rows > 0 && begun.elapsed() >= run.time {
                    return Ok(done);
                }
                self.caller.execute_as_login(format!("VACUUM (ANALYZE, SKIP_LOCKED) public.{table}")).await?;
                done.rows += 1;
                progress(done.rows);
            }
            done.is_finished = true;
            Ok(done)
        };
        let told = async {
            let outcome = vacuuming.await;
            attempts.record(&outcome);
            outcome
        };
        tracing::Instrument::instrument(told, span).await
    }
}

/// Said here, because nobody may find out by what a privilege says how much there is to clean.
fn only_service(caller: &impl Sealed) -> Result<(), Error> {
    match caller.identity() {
        Identity::Service => Ok(()),
        Identity::User(_) => Err(Error::NotAllowed { rule: "only the service may do the upkeep" }),
        Identity::Anon => Err(Error::NotSignedIn),
    }
}
