//! An identity as a SeaORM connection: each statement runs in a short transaction of its own.

mod attempts;

use std::{pin::Pin, time::Duration};

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    StatementBuilder, StreamTrait, TransactionError, TransactionOptions, TransactionTrait,
};
use uuid::Uuid;

use attempts::Attempts;

use crate::{
    Identity, RowStream, Transaction, UnverifiedTransaction,
    database::Database,
    error::{is_connection_lost, is_outdated_statement_error, is_read_only_error, may_succeed_on_primary, sqlx_error},
    identity::{check_role, check_settings},
    position::{LogPosition, ReadRequirement},
    servers::{Purpose, Servers},
    statement_kind::may_run_read_only,
    transaction::{impl_transaction_trait, modes_sql},
    transaction_state::{BeginRequest, OUTERMOST_FRAME_ID, READ_ONLY},
};

/// The maximum number of attempts to run one statement; see [`IdentityConnection::decide_retry`].
const MAX_ATTEMPTS: u32 = 3;

/// The database as one identity sees it. [`Database::as_identity`] creates it; it is cheap to clone.
///
/// It is a SeaORM connection: statements that SeaORM builds, raw statements, loaders, paginators and streams run under
/// row-level security. Each statement runs in a short transaction of its own. That takes three round trips once the
/// statement has been prepared on its connection; without replicas, a read that SeaORM builds waits for only two. To
/// run several statements in one transaction, use [`begin`](TransactionTrait::begin). Without the traits of
/// [`unverified`](crate::unverified), this type gives no access to the bare connection or to another identity.
#[derive(Clone, Debug)]
pub struct IdentityConnection {
    database: Database,
    identity: Identity,
    /// The time limit of each statement, counted from its start.
    deadline: Option<Duration>,
    /// The highest of the positions that were given to the method `with_min_position`.
    min_position: Option<LogPosition>,
}

impl Database {
    /// Returns the database as that identity sees it.
    #[must_use]
    pub fn as_identity(&self, identity: Identity) -> IdentityConnection {
        IdentityConnection::new(self.clone(), identity)
    }
}

impl IdentityConnection {
    fn new(database: Database, identity: Identity) -> Self {
        let deadline = database.deadline;
        Self { database, identity, deadline, min_position: None }
    }

    /// Returns the identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the id of the user whose identity this is, if it has one.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.identity.user_id()
    }

    /// Returns the deadline of each statement.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Returns the same connection with a deadline for each statement, including those in transactions that it begins.
    ///
    /// The server cancels a statement that takes longer (`statement_timeout`); if the server does not answer, the
    /// client gives up a second later. The same limit applies separately to beginning a transaction, which includes the
    /// wait for a connection, and to the commit, which always gets at least a second. A statement that misses its
    /// deadline returns [`Error::DeadlineExceeded`](crate::Error::DeadlineExceeded) and leaves nothing in the database.
    /// If a commit is not answered in time, its outcome is unknown
    /// ([`Error::CommitUnknown`](crate::Error::CommitUnknown)).
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Returns the log position of what this identity last wrote or read through this connection's [`Database`] and its
    /// clones, or the position given to [`with_min_position`](Self::with_min_position) if that is later. Pass the
    /// position to the client as a token. If the process that handles the client's next request gives the token to
    /// [`with_min_position`](Self::with_min_position), it reads nothing older. Without replicas, the position is
    /// `None`.
    #[must_use]
    pub fn position(&self) -> Option<LogPosition> {
        self.servers().cluster()?;
        self.read_requirement().position
    }

    /// Returns the same connection, whose reads then run on a replica only if that replica has replayed at least
    /// `position`, a token that another process got from [`position`](Self::position). Without replicas, this has no
    /// effect.
    #[must_use]
    pub fn with_min_position(mut self, position: impl Into<Option<LogPosition>>) -> Self {
        self.min_position = self.min_position.max(position.into());
        self
    }

    /// Returns whether there are replicas. If there are, one of them may become the primary.
    #[must_use]
    pub fn has_replicas(&self) -> bool {
        self.servers().cluster().is_some()
    }

    /// Begins a transaction that only reads, on a replica that is fresh enough, or else on the primary.
    pub(crate) async fn begin_read(&self, deadline: Option<Duration>) -> Result<UnverifiedTransaction, DbErr> {
        // With replicas, the end must be awaited: the answer to the commit contains the log position of what the
        // identity has read.
        let allows_background_end = !self.has_replicas();
        let is_repeatable_read = false;
        let request = self.new_begin_request(READ_ONLY, deadline, allows_background_end);
        self.begin_with_request(self.read_purpose(is_repeatable_read), request).await
    }

    /// Returns the database that this connection belongs to.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    pub(crate) async fn begin_unverified(
        &self,
        options: TransactionOptions,
        deadline: Option<Duration>,
    ) -> Result<UnverifiedTransaction, DbErr> {
        let is_read_only = matches!(options.access_mode, Some(AccessMode::ReadOnly));
        let is_repeatable_read = matches!(options.isolation_level, Some(IsolationLevel::RepeatableRead));
        let purpose = match options.isolation_level {
            // A standby cannot run SERIALIZABLE transactions.
            Some(IsolationLevel::Serializable) => Purpose::NeedsPrimary,
            _ if is_read_only => self.read_purpose(is_repeatable_read),
            _ => Purpose::NeedsPrimary,
        };
        self.begin_with_modes(purpose, &modes_sql(&options), deadline).await
    }

    fn read_purpose(&self, is_repeatable_read: bool) -> Purpose {
        Purpose::Read { read_requirement: self.read_requirement(), is_repeatable_read }
    }

    fn servers(&self) -> &Servers {
        self.database.servers_by_identity_role.for_role(self.identity.role())
    }

    /// Returns the requirement that follows from what this identity wrote or read through this connection's
    /// [`Database`] and its clones.
    fn recorded_requirement(&self) -> ReadRequirement {
        self.servers().cluster().map(|cluster| cluster.recorded_requirement(&self.identity)).unwrap_or_default()
    }

    /// Returns what a server must fulfil before this identity may read from it.
    fn read_requirement(&self) -> ReadRequirement {
        self.recorded_requirement().with_min_position(self.min_position)
    }

    /// Returns the log position of what this identity wrote or read through this connection's [`Database`] and its
    /// clones; `None` without replicas. `min_position` is not considered.
    pub(crate) fn seen_log_position(&self) -> Option<LogPosition> {
        self.recorded_requirement().position
    }

    async fn begin_with_modes(
        &self,
        purpose: Purpose,
        modes: &str,
        deadline: Option<Duration>,
    ) -> Result<UnverifiedTransaction, DbErr> {
        let allows_background_end = false;
        self.begin_with_request(purpose, self.new_begin_request(modes, deadline, allows_background_end)).await
    }

    fn new_begin_request<'a>(
        &'a self,
        modes: &'a str,
        deadline: Option<Duration>,
        allows_background_end: bool,
    ) -> BeginRequest<'a> {
        BeginRequest { identity: &self.identity, modes, statement_deadline: deadline, allows_background_end }
    }

    async fn begin_with_request(
        &self,
        purpose: Purpose,
        request: BeginRequest<'_>,
    ) -> Result<UnverifiedTransaction, DbErr> {
        check_role(self.identity.role())?;
        check_settings(&self.identity)?;
        // Boxed, because with several servers this future is large, and a caller's stack may hold many such futures.
        let transaction = Box::pin(self.servers().begin(&request, purpose)).await?;
        Ok(UnverifiedTransaction::new(transaction, OUTERMOST_FRAME_ID, self.database.servers_by_identity_role.clone()))
    }

    async fn begin_transaction(&self, options: TransactionOptions) -> Result<Transaction, DbErr> {
        let unverified = self.begin_unverified(options, self.deadline).await?;
        Ok(Transaction::new(unverified, self.database.map_error))
    }
}

impl_transaction_trait!(IdentityConnection, begin_transaction);

impl IdentityConnection {
    /// Begins a transaction for one statement. With `runs_read_only`, the transaction is `READ ONLY`, and begins on a
    /// replica if one is fresh enough. The transaction does not map errors, because the unmapped error says whether the
    /// statement may be retried.
    async fn begin_for_one_statement(&self, runs_read_only: bool) -> Result<Transaction, DbErr> {
        let unverified = if runs_read_only {
            self.begin_read(self.deadline).await?
        } else {
            self.begin_with_modes(Purpose::NeedsPrimary, "", self.deadline).await?
        };
        Ok(Transaction::new(unverified, |_, error| error).with_deferred_verification())
    }

    /// Maps the error of a caller's statement.
    fn map_error(&self, error: DbErr) -> DbErr {
        (self.database.map_error)(&self.identity, error)
    }

    /// Returns whether a failed statement may be retried in a new transaction: only if it has left nothing in the
    /// database. Sets `runs_read_only` to `false` if the retry must run in a transaction that may write, or on the
    /// primary. Wakes the monitor if the server that was the primary is read-only.
    fn decide_retry(&self, error: &DbErr, runs_read_only: &mut bool) -> bool {
        if sqlx_error(error).is_some_and(is_outdated_statement_error) {
            // No connection that is open now will be used again, so the retry prepares the statement again. (Of a pool
            // that the application already had, only this connection was discarded, so the retry may meet another
            // outdated statement.)
            return true;
        }
        let Some(cluster) = self.servers().cluster() else {
            // A `SELECT` that seems only to read may write, through a function that a view or a policy calls.
            return is_connection_lost(error) || is_read_only_error(error) && std::mem::take(runs_read_only);
        };
        if std::mem::take(runs_read_only) {
            // The primary may accept what the replica refused.
            return may_succeed_on_primary(error);
        }
        let failed_as_read_only = is_read_only_error(error);
        if failed_as_read_only {
            // The server that was the primary may have become a standby.
            cluster.wake_monitor();
        }
        failed_as_read_only || is_connection_lost(error)
    }

    /// Whether raw SQL may run on a replica. Without replicas, raw SQL always runs in a transaction that may write.
    fn may_run_raw_on_replica(&self, statement: &Statement) -> bool {
        self.has_replicas() && may_run_read_only(&statement.sql)
    }
}

/// Runs a statement in a transaction of its own, and returns from the calling method. If an attempt fails for a reason
/// that [`decide_retry`](IdentityConnection::decide_retry) accepts, such as a connection lost before the commit, the
/// statement is retried in a new transaction, up to [`MAX_ATTEMPTS`] attempts in all.
macro_rules! run_in_own_transaction {
    ($self:ident, runs_read_only = $runs_read_only:expr, |$transaction:ident| $run:expr) => {{
        let mut attempts = Attempts::new($self, $runs_read_only);
        loop {
            let mut is_statement_error = false;
            let run = async {
                let $transaction = attempts.begin().await?;
                let outcome = $run.await;
                is_statement_error = outcome.is_err();
                let outcome = outcome?;
                $transaction.commit().await?;
                Ok::<_, DbErr>(outcome)
            };
            match run.await {
                Err(error) if attempts.decide_retry(&error) => {}
                Err(error) if is_statement_error => return Err($self.map_error(error)),
                outcome => return outcome,
            }
        }
    }};
}

#[async_trait]
impl ConnectionTrait for IdentityConnection {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        run_in_own_transaction!(self, runs_read_only = false, |transaction| transaction.execute_raw(statement.clone()))
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        run_in_own_transaction!(self, runs_read_only = false, |transaction| transaction.execute(statement))
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        run_in_own_transaction!(self, runs_read_only = false, |transaction| transaction.execute_unprepared(sql))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        run_in_own_transaction!(self, runs_read_only = self.may_run_raw_on_replica(&statement), |transaction| {
            transaction.query_one_raw(statement.clone())
        })
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        let statement = DbBackend::Postgres.build(statement);
        run_in_own_transaction!(self, runs_read_only = may_run_read_only(&statement.sql), |transaction| transaction
            .query_one_built(statement.clone()))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        run_in_own_transaction!(self, runs_read_only = self.may_run_raw_on_replica(&statement), |transaction| {
            transaction.query_all_raw(statement.clone())
        })
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        let statement = DbBackend::Postgres.build(statement);
        run_in_own_transaction!(self, runs_read_only = may_run_read_only(&statement.sql), |transaction| transaction
            .query_all_built(statement.clone()))
    }
}

impl StreamTrait for IdentityConnection {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    /// Streams the rows of a statement in a transaction of its own, which is committed after the last row. What the
    /// statement wrote is rolled back if the stream is dropped before its last row was read. The deadline applies to
    /// the whole stream. A statement that fails before its first row is retried like any other.
    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<RowStream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            let mut attempts = Attempts::new(self, self.may_run_raw_on_replica(&statement));
            loop {
                let mut has_begun = false;
                let begin_and_stream = async {
                    let transaction = attempts.begin().await?;
                    has_begun = true;
                    transaction.stream_and_commit(statement.clone()).await
                };
                match begin_and_stream.await {
                    Err(error) if attempts.decide_retry(&error) => {}
                    Err(error) if has_begun => return Err(self.map_error(error)),
                    Err(error) => return Err(error),
                    Ok(rows) => {
                        let rows: RowStream<'a> = Box::pin(rows.map_err(|error| self.map_error(error)));
                        return Ok(rows);
                    }
                }
            }
        })
    }
}
