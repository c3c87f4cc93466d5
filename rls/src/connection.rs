//! An identity as a SeaORM connection, and how its transactions begin. Each statement runs in a short transaction of
//! its own: `connection_trait.rs` runs it, in the attempts of `attempts.rs`.

mod attempts;
mod connection_trait;

use std::time::Duration;

use sea_orm::{AccessMode, DbErr, IsolationLevel, TransactionOptions};
use uuid::Uuid;

use crate::{
    Identity, Transaction, UnguardedTransaction,
    database::Database,
    identity::{check_role, check_settings},
    position::{LogPosition, ReadRequirement},
    servers::{Purpose, Servers},
    transaction::modes_sql,
    transaction_state::{BeginRequest, OUTERMOST_FRAME_ID, READ_ONLY},
};

/// The database as one identity sees it. [`Database::as_identity`] creates it; it is cheap to clone.
///
/// It is a SeaORM connection: statements that SeaORM builds, raw statements, loaders, paginators and streams run under
/// row-level security. Each statement runs in a short transaction of its own. That takes three round trips once the
/// statement has been prepared on its connection; without replicas, a read that SeaORM builds waits for only two. To
/// run several statements in one transaction, use [`begin`](sea_orm::TransactionTrait::begin). Without the traits of
/// [`unguarded`](crate::unguarded), this type gives no access to the bare connection or to another identity.
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
    pub(crate) async fn begin_read(&self, deadline: Option<Duration>) -> Result<UnguardedTransaction, DbErr> {
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

    pub(crate) async fn begin_unguarded(
        &self,
        options: TransactionOptions,
        deadline: Option<Duration>,
    ) -> Result<UnguardedTransaction, DbErr> {
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
    ) -> Result<UnguardedTransaction, DbErr> {
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
    ) -> Result<UnguardedTransaction, DbErr> {
        check_role(self.identity.role())?;
        check_settings(&self.identity)?;
        // Boxed, because with several servers this future is large, and a caller's stack may hold many such futures.
        let transaction = Box::pin(self.servers().begin(&request, purpose)).await?;
        Ok(UnguardedTransaction::new(transaction, OUTERMOST_FRAME_ID, self.database.servers_by_identity_role.clone()))
    }

    /// Begins a transaction for an application's statements.
    pub(crate) async fn begin_transaction(&self, options: TransactionOptions) -> Result<Transaction, DbErr> {
        let unguarded = self.begin_unguarded(options, self.deadline).await?;
        Ok(Transaction::new(unguarded, self.database.map_error))
    }
}
