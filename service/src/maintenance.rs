//! Maintenance jobs. They can be repeated and run concurrently. All of them except `vacuum` work in batches.
//!
//! Where the extension `pg_cron` is installed, the migration schedules the same jobs, but the scheduled vacuum jobs
//! process only `sessions` and `dice_rolls`.
//!
//! ```
//! use service::{Operations, Sparc, maintenance::JobOptions};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let demo = testdb::DemoGame::start().await?;
//! # let sparc = Sparc::connect(demo.url()).await?;
//! let service = sparc.as_service();
//! let report = service
//!     .maintenance()
//!     .archive_sessions(JobOptions::default(), |so_far| println!("{so_far} archived"))
//!     .await?;
//! service.maintenance().delete_old_events(JobOptions::default(), |_| ()).await?;
//! service.maintenance().vacuum(JobOptions::default(), |_| ()).await?;
//! println!("{} sessions, {}", report.processed, if report.reached_end { "all" } else { "more remain" });
//! # Ok(())
//! # }
//! ```

use std::time::{Duration, Instant};

use rls::unguarded::UnguardedExt;
use sea_orm::{DbBackend, FromQueryResult, Statement, TransactionOptions};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Executor, IdentityConnection,
    identity::Identity,
    operation::{Access, OperationRun, operation},
};

/// Options of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobOptions {
    /// Maximum number of events or sessions per batch, 1 to 10,000; a number outside this range is clamped to it. Each
    /// batch is a transaction of its own, unless the job runs in a caller's transaction. A thousand by default.
    /// `vacuum` has no batches.
    pub batch_size: u16,
    /// Time after which no further batch (of `vacuum`: no further table) begins. The first one always runs. Ten minutes
    /// by default.
    pub time_limit: Duration,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self { batch_size: 1000, time_limit: Duration::from_secs(600) }
    }
}

/// Result of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct JobReport {
    /// Number of events deleted, of sessions cancelled or archived, or of tables vacuumed or skipped, depending on the
    /// job.
    pub processed: u64,
    /// Whether the job ended because it found nothing more that it could process, and not because the time ran out.
    /// Rows that another transaction has locked, and sessions that cannot be archived or cancelled, remain even then.
    /// PostgreSQL logs a warning for each session that cannot be archived or cancelled. `delete_old_events` looks only
    /// at the oldest events, twice as many as a batch has. If other transactions have locked more than half of these,
    /// the job ends although it could delete later events.
    pub reached_end: bool,
}

/// The work that the jobs would do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromQueryResult, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Backlog {
    /// Number of events older than a day.
    pub old_events: i64,
    /// Number of completed and cancelled sessions that ended more than 90 days ago.
    pub archivable_sessions: i64,
    /// Number of abandoned live sessions, as [`Maintenance::cancel_abandoned_sessions`] defines them.
    pub abandoned_sessions: i64,
}

/// Maintenance operations: [`Operations::maintenance`](crate::Operations::maintenance).
#[derive(Debug)]
pub struct Maintenance<'a, C> {
    pub(crate) executor: &'a C,
}

const SELECT_BACKLOG: &str = "SELECT
    (SELECT count(*) FROM public.session_events WHERE created_at < now() - INTERVAL '24 hours') AS old_events,
    (
      SELECT count(*)
      FROM public.sessions
      WHERE status IN ('completed', 'cancelled')
        AND ended_at < now() - INTERVAL '90 days'
    ) AS archivable_sessions,
    (
      SELECT count(*)
      FROM public.sessions AS session
      WHERE private.is_abandoned(session)
    ) AS abandoned_sessions";

const DELETE_OLD_EVENTS: &str = "SELECT private.delete_old_events($1) AS row_count";

const CANCEL_ABANDONED: &str = "SELECT private.cancel_abandoned_sessions($1) AS row_count";

const ARCHIVE_SESSIONS: &str = "SELECT private.archive_sessions($1) AS row_count";

/// The tables with the most updates and deletions.
const BUSY_TABLES: [&str; 4] = ["sessions", "session_players", "session_events", "dice_rolls"];

/// Returns whether the login (the role with which the pool connects) owns all of [`BUSY_TABLES`]. This is checked
/// first, because VACUUM runs as the login, and would skip a table that the login does not own, with a warning but
/// without an error.
const SELECT_OWNS_TABLES: &str = "SELECT bool_and(pg_has_role(session_user, relowner, 'USAGE')) AS owns_all
  FROM pg_catalog.pg_class
  WHERE oid = ANY ('{public.sessions,public.session_players,public.session_events,public.dice_rolls}'::regclass[])";

/// The result of one batch: the number of events or sessions that it processed.
#[derive(FromQueryResult)]
struct BatchResult {
    row_count: i32,
}

/// Runs batches until one of them is not full or the time has run out. After each batch, calls `$on_progress` with the
/// number processed so far. Each batch is an operation of its own, which runs `$sql`. That statement calls a database
/// function with the batch size, and returns the number of events or sessions that the function processed.
macro_rules! run_in_batches {
    ($executor:expr, $name:literal, $sql:ident, $options:ident, $on_progress:ident) => {{
        let started_at = Instant::now();
        let batch_size = i32::from($options.batch_size.clamp(1, 10_000));
        let mut report = JobReport::default();
        while !report.reached_end && (report.processed == 0 || started_at.elapsed() < $options.time_limit) {
            let row_count = operation!($executor, $name, |tx| {
                let statement = Statement::from_sql_and_values(DbBackend::Postgres, $sql, [batch_size.into()]);
                Ok(BatchResult::find_by_statement(statement).one(tx).await?.map_or(0, |batch| batch.row_count))
            })?;
            report.processed += u64::from(row_count.unsigned_abs());
            report.reached_end = row_count < batch_size;
            $on_progress(report.processed);
        }
        Ok(report)
    }};
}

impl<C: Executor> Maintenance<'_, C> {
    /// Returns how much work the jobs would do now, for example for the total of a progress bar.
    ///
    /// Who may: the service. Three round trips.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn backlog(self) -> Result<Backlog, Error> {
        require_service(self.executor)?;
        operation!(self.executor, reads "maintenance.backlog", |tx| {
            let statement = Statement::from_string(DbBackend::Postgres, SELECT_BACKLOG);
            Ok(Backlog::find_by_statement(statement).one(tx).await?.unwrap_or_default())
        })
    }

    /// Deletes events older than a day, roughly the oldest first. After each batch, calls `on_progress` with the number
    /// deleted so far. Concurrent runs share the work.
    ///
    /// Who may: the service. Three round trips for each batch. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn delete_old_events(
        self,
        options: JobOptions,
        mut on_progress: impl FnMut(u64) + Send,
    ) -> Result<JobReport, Error> {
        require_service(self.executor)?;
        run_in_batches!(self.executor, "maintenance.delete_old_events", DELETE_OLD_EVENTS, options, on_progress)
    }

    /// Cancels abandoned live sessions (*live*: neither completed nor cancelled). A session that has not started counts
    /// as abandoned a week after its scheduled start, but no later than a year after its creation; if it has no
    /// scheduled start, it counts as abandoned a month after its creation. A started session counts as abandoned after
    /// a month without events. After each batch, calls `on_progress` with the number cancelled so far. Concurrent runs
    /// share the work.
    ///
    /// Who may: the service. Three round trips for each batch. Event `session_status`.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn cancel_abandoned_sessions(
        self,
        options: JobOptions,
        mut on_progress: impl FnMut(u64) + Send,
    ) -> Result<JobReport, Error> {
        require_service(self.executor)?;
        run_in_batches!(self.executor, "maintenance.cancel_abandoned_sessions", CANCEL_ABANDONED, options, on_progress)
    }

    /// Archives completed and cancelled sessions that ended more than 90 days ago, with their seats and rolls. After
    /// each batch, calls `on_progress` with the number archived so far. Concurrent runs share the work.
    ///
    /// Who may: the service. Three round trips for each batch. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], [`Error::NotSignedIn`].
    pub async fn archive_sessions(
        self,
        options: JobOptions,
        mut on_progress: impl FnMut(u64) + Send,
    ) -> Result<JobReport, Error> {
        require_service(self.executor)?;
        run_in_batches!(self.executor, "maintenance.archive_sessions", ARCHIVE_SESSIONS, options, on_progress)
    }
}

/// `vacuum` is not available within a transaction, because PostgreSQL refuses VACUUM in one.
impl Maintenance<'_, IdentityConnection> {
    /// Vacuums and analyzes the tables with the most updates and deletions. After each table, calls `on_progress` with
    /// the number of tables processed so far. A table that is locked, for example by another VACUUM, is skipped, but
    /// counts as processed. After the time limit, no further table is begun; the handle's deadline does not limit the
    /// vacuum of a table.
    ///
    /// Who may: the service, through a login that owns the tables (the one that migrated). Three round trips, and two
    /// for each table. No event.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`], also through a login that does not own the tables; [`Error::NotSignedIn`].
    ///
    /// ```compile_fail
    /// use service::{Operations, Transaction, maintenance::JobOptions};
    ///
    /// # async fn within(tx: &Transaction) {
    /// tx.maintenance().vacuum(JobOptions::default(), |_| ()).await; // VACUUM cannot run in a transaction
    /// # }
    /// ```
    pub async fn vacuum(
        self,
        options: JobOptions,
        mut on_progress: impl FnMut(u64) + Send,
    ) -> Result<JobReport, Error> {
        #[derive(FromQueryResult)]
        struct OwnershipRow {
            owns_all: Option<bool>,
        }
        require_service(self.executor)?;
        // This span is like those of `operation!`, which cannot be used here because it begins a transaction.
        let span = tracing::info_span!(
            target: "sparc::operation",
            "maintenance.vacuum",
            operation = "maintenance.vacuum",
            identity = "service",
            outcome = tracing::field::Empty,
            retries = tracing::field::Empty,
            duration_us = tracing::field::Empty,
        );
        // Nothing is retried here: `operation_run` serves only to record the outcome in the span.
        let operation_run = OperationRun::new(self.executor, Access::ReadWrite);
        let vacuum_future = async {
            let deadline = self.executor.deadline();
            let tx = UnguardedExt::begin_unguarded(self.executor, TransactionOptions::default(), deadline).await?;
            let statement = Statement::from_string(DbBackend::Postgres, SELECT_OWNS_TABLES);
            let row = OwnershipRow::find_by_statement(statement).one(&tx).await?;
            tx.rollback().await?;
            if row.and_then(|row| row.owns_all) != Some(true) {
                return Err(Error::NotAllowed { rule: "only the login that owns the tables may vacuum them" });
            }
            let started_at = Instant::now();
            let mut report = JobReport::default();
            for table in BUSY_TABLES {
                if report.processed > 0 && started_at.elapsed() >= options.time_limit {
                    return Ok(report);
                }
                self.executor.execute_as_login(format!("VACUUM (ANALYZE, SKIP_LOCKED) public.{table}")).await?;
                report.processed += 1;
                on_progress(report.processed);
            }
            report.reached_end = true;
            Ok(report)
        };
        let recorded_vacuum_future = async {
            let outcome = vacuum_future.await;
            operation_run.record_outcome(&outcome);
            outcome
        };
        tracing::Instrument::instrument(recorded_vacuum_future, span).await
    }
}

/// Refuses callers other than the service. The database alone would let anyone vacuum, because VACUUM runs as the
/// login, whoever the caller is.
fn require_service(executor: &impl Executor) -> Result<(), Error> {
    match executor.identity() {
        Identity::Service => Ok(()),
        Identity::User(_) => Err(Error::NotAllowed { rule: "only the service may run maintenance" }),
        Identity::Anon => Err(Error::NotSignedIn),
    }
}
