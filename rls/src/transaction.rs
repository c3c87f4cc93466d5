//! A transaction of an identity, in two forms. [`Transaction`] is for an application's statements; it verifies the
//! identity after each statement that may change it. [`UnguardedTransaction`] is for the statements that a library on
//! top of this crate runs for its own operations; it never verifies the identity.

use std::{borrow::Cow, pin::Pin};

use async_trait::async_trait;
use futures_util::TryStreamExt;
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement, StatementBuilder, StreamTrait,
    TransactionOptions, TransactionSession, sqlx::postgres::PgRow,
};
use uuid::Uuid;

use crate::{
    Identity, RowStream,
    identity::{check_role, set_role_statement},
    servers::ServersByIdentityRole,
    shared_transaction::{SharedTransaction, Verification},
    statement_kind::cannot_change_session,
    statements::StatementToRun,
    streams,
};

/// Maps an error of a caller's statement to the error that the caller gets.
pub(crate) type MapError = fn(&Identity, DbErr) -> DbErr;

/// A transaction with the identity that began it. It is rolled back if it is dropped without
/// [`commit`](TransactionSession::commit).
///
/// Transactions begun from it are savepoints. They form a stack, and only the innermost may be used. The crate's front
/// page lists the errors and outcomes.
#[derive(Debug)]
pub struct Transaction {
    unguarded: UnguardedTransaction,
    map_error: MapError,
    /// When the identity is verified after a statement that may change it.
    verification: Verification,
}

/// A transaction for a library's own statements. The identity is not verified after them. The traits of
/// [`unguarded`](crate::unguarded) provide such a transaction.
#[derive(Debug)]
pub struct UnguardedTransaction {
    shared: SharedTransaction,
    /// The id of its frame, which is the whole transaction or a savepoint in it.
    frame_id: u64,
    rolls_back_on_drop: bool,
    servers_by_identity_role: ServersByIdentityRole,
}

impl UnguardedTransaction {
    pub(crate) fn new(
        shared: SharedTransaction,
        frame_id: u64,
        servers_by_identity_role: ServersByIdentityRole,
    ) -> Self {
        Self { shared, frame_id, rolls_back_on_drop: true, servers_by_identity_role }
    }

    /// Returns the identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Commits the transaction. The changes of a nested transaction become changes of the outer one, and take effect
    /// only if the outer one is committed.
    ///
    /// # Errors
    ///
    /// Those of [`Transaction::commit`].
    pub async fn commit(mut self) -> Result<(), DbErr> {
        let outcome = self.shared.commit(self.frame_id).await;
        // Whatever the outcome, the transaction has ended, so the drop of the handle must not roll it back.
        self.rolls_back_on_drop = false;
        outcome
    }

    /// Rolls the transaction back.
    ///
    /// # Errors
    ///
    /// Those of [`Transaction::rollback`].
    pub async fn rollback(mut self) -> Result<(), DbErr> {
        let outcome = self.shared.rollback(self.frame_id).await;
        self.rolls_back_on_drop = false;
        outcome
    }

    /// Runs the statement, and returns all rows as the driver's row type.
    ///
    /// # Errors
    ///
    /// Those of [`ConnectionTrait::query_all_raw`].
    pub async fn fetch_all(&self, statement: Statement) -> Result<Vec<PgRow>, DbErr> {
        self.shared.fetch_all(self.frame_id, statement, Verification::Skipped).await
    }

    /// Returns whether the role has no separate pool, as [`execute_as_role`](Self::execute_as_role) requires.
    #[must_use]
    pub fn can_execute_as_role(&self, role: &str) -> bool {
        !self.servers_by_identity_role.has_separate_pool(role)
    }

    /// Runs one statement in another role, then restores the role. The settings still identify the caller. Use this
    /// method only if a user may do something through the library that the user's own statements may not do, and give
    /// the reason at each use.
    ///
    /// # Errors
    ///
    /// Those of [`ConnectionTrait::execute_raw`]; [`Error::Misconfigured`](crate::Error::Misconfigured) if the role has
    /// a separate pool or is `none`.
    pub async fn execute_as_role(&self, role: Cow<'static, str>, statement: Statement) -> Result<ExecResult, DbErr> {
        check_role(&role)?;
        if self.servers_by_identity_role.has_separate_pool(&role) {
            let reason = format!("the role {role} has a separate pool and must be used through it");
            return Err(crate::Error::Misconfigured { reason }.into());
        }
        let set_role_statements = [&*role, self.identity().role()]
            .map(|role| Statement::from_string(DbBackend::Postgres, set_role_statement(role)));
        self.shared.execute_as_role(self.frame_id, set_role_statements, statement).await
    }

    /// Records that an operation of several statements did not complete. After that, the transaction can only be rolled
    /// back.
    pub fn mark_failed(&self) {
        self.shared.mark_failed(self.frame_id);
    }

    /// Returns another handle of the same transaction, for one operation of several statements. It counts only the
    /// writes that are sent through it ([`may_have_written`](Self::may_have_written)). Dropping it does not end the
    /// transaction.
    #[must_use]
    pub fn operation_handle(&self) -> Self {
        Self {
            shared: self.shared.with_separate_write_count(),
            frame_id: self.frame_id,
            rolls_back_on_drop: false,
            servers_by_identity_role: self.servers_by_identity_role.clone(),
        }
    }

    /// Returns the timeline that the server was on when the transaction began; `None` without replicas. Each promotion
    /// of a standby begins a new timeline.
    #[must_use]
    pub fn timeline(&self) -> Option<u32> {
        self.shared.timeline
    }

    /// Returns whether a statement that may have written something was sent through this handle, or in a transaction
    /// nested in it. A statement that only writes rows, and whose result shows that it affected none, does not count.
    #[must_use]
    pub fn may_have_written(&self) -> bool {
        self.shared.write_count() > 0
    }

    async fn begin_nested(&self, options: &TransactionOptions) -> Result<Self, DbErr> {
        let frame_id = self.shared.begin_nested(self.frame_id, &modes_sql(options)).await?;
        Ok(Self::new(self.shared.clone(), frame_id, self.servers_by_identity_role.clone()))
    }
}

impl Drop for UnguardedTransaction {
    fn drop(&mut self) {
        if self.rolls_back_on_drop {
            self.shared.abandon(self.frame_id);
        }
    }
}

/// Returns the transaction modes as SQL that can be appended to BEGIN or SET TRANSACTION. Each has a leading space.
pub(crate) fn modes_sql(options: &TransactionOptions) -> String {
    let isolation = options.isolation_level.map(|level| format!(" ISOLATION LEVEL {level}"));
    let access = options.access_mode.map(|mode| format!(" {mode}"));
    [isolation, access].into_iter().flatten().collect()
}

#[async_trait]
impl ConnectionTrait for UnguardedTransaction {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.shared.execute(self.frame_id, statement, Verification::Skipped).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.shared.execute(self.frame_id, uncacheable_statement(sql), Verification::Skipped).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.shared.fetch_optional(self.frame_id, statement, Verification::Skipped).await?.map(Into::into))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        Ok(self.fetch_all(statement).await?.into_iter().map(Into::into).collect())
    }
}

/// Returns raw SQL as one statement without values, to be sent with the extended query protocol, which accepts only one
/// statement. The driver does not cache it, because its text is unlikely to recur.
fn uncacheable_statement(sql: &str) -> StatementToRun {
    StatementToRun { statement: Statement::from_string(DbBackend::Postgres, sql), is_cacheable: false }
}

impl Transaction {
    pub(crate) fn new(unguarded: UnguardedTransaction, map_error: MapError) -> Self {
        Self { unguarded, map_error, verification: Verification::Immediate }
    }

    /// Defers the verification to the commit, for a transaction of one statement.
    pub(crate) fn with_deferred_verification(mut self) -> Self {
        self.verification = Verification::Deferred;
        self
    }

    /// Returns the identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.unguarded.identity()
    }

    /// Returns the id of the user whose identity this is, if it has one.
    #[must_use]
    pub fn user_id(&self) -> Option<Uuid> {
        self.identity().user_id()
    }

    pub(crate) fn unguarded_transaction(&self) -> &UnguardedTransaction {
        &self.unguarded
    }

    /// Streams rows, and commits the transaction after the last one.
    pub(crate) async fn stream_and_commit(mut self, statement: Statement) -> Result<RowStream<'static>, DbErr> {
        let commits_at_end = true;
        let rows = self.stream_rows(statement, Verification::Deferred, commits_at_end).await;
        // If the stream has begun, its task ends the transaction. Otherwise the drop of this handle does.
        self.unguarded.rolls_back_on_drop = rows.is_err();
        rows
    }

    /// Streams rows. Errors that arise while the rows are read are mapped too.
    async fn stream_rows(
        &self,
        statement: Statement,
        verification: Verification,
        commits_at_end: bool,
    ) -> Result<RowStream<'static>, DbErr> {
        let UnguardedTransaction { shared, frame_id, .. } = &self.unguarded;
        let rows =
            self.map_error(streams::stream_rows(shared, *frame_id, statement, verification, commits_at_end).await)?;
        let (identity, map_error) = (self.identity().clone(), self.map_error);
        Ok(Box::pin(rows.map_ok(Into::into).map_err(move |error| map_error(&identity, error))))
    }

    fn map_error<T>(&self, outcome: Result<T, DbErr>) -> Result<T, DbErr> {
        outcome.map_err(|error| (self.map_error)(self.identity(), error))
    }

    /// Returns when to verify the identity after a statement that SeaORM built: not at all if the statement's text
    /// shows that it cannot change the database session.
    fn verification_after(&self, statement: &Statement) -> Verification {
        if cannot_change_session(&statement.sql) { Verification::Skipped } else { self.verification }
    }

    /// Runs a statement of the caller, verifies the identity as `verification` says, and maps an error.
    async fn execute_for_caller(
        &self,
        statement: impl Into<StatementToRun>,
        verification: Verification,
    ) -> Result<ExecResult, DbErr> {
        self.map_error(self.unguarded.shared.execute(self.unguarded.frame_id, statement, verification).await)
    }

    /// Does the same as [`execute_for_caller`](Self::execute_for_caller), and returns the first row.
    async fn query_one_for_caller(
        &self,
        statement: Statement,
        verification: Verification,
    ) -> Result<Option<QueryResult>, DbErr> {
        let row = self.unguarded.shared.fetch_optional(self.unguarded.frame_id, statement, verification).await;
        Ok(self.map_error(row)?.map(Into::into))
    }

    /// Does the same as [`execute_for_caller`](Self::execute_for_caller), and returns all rows.
    async fn query_all_for_caller(
        &self,
        statement: Statement,
        verification: Verification,
    ) -> Result<Vec<QueryResult>, DbErr> {
        let rows = self.unguarded.shared.fetch_all(self.unguarded.frame_id, statement, verification).await;
        Ok(self.map_error(rows)?.into_iter().map(Into::into).collect())
    }

    /// Runs a statement that SeaORM built, and returns the first row.
    pub(crate) async fn query_one_built(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let verification = self.verification_after(&statement);
        self.query_one_for_caller(statement, verification).await
    }

    /// Runs a statement that SeaORM built, and returns all rows.
    pub(crate) async fn query_all_built(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let verification = self.verification_after(&statement);
        self.query_all_for_caller(statement, verification).await
    }

    /// Begins a transaction nested in this one.
    pub(crate) async fn begin_nested(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        Ok(Self::new(self.unguarded.begin_nested(&options).await?, self.map_error))
    }
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.execute_for_caller(statement, self.verification).await
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        let statement = DbBackend::Postgres.build(statement);
        let verification = self.verification_after(&statement);
        self.execute_for_caller(statement, verification).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.execute_for_caller(uncacheable_statement(sql), self.verification).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.query_one_for_caller(statement, self.verification).await
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        self.query_one_built(DbBackend::Postgres.build(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.query_all_for_caller(statement, self.verification).await
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        self.query_all_built(DbBackend::Postgres.build(statement)).await
    }
}

impl StreamTrait for Transaction {
    type Stream<'a> = RowStream<'a>;

    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    fn stream_raw<'a>(
        &'a self,
        statement: Statement,
    ) -> Pin<Box<dyn Future<Output = Result<RowStream<'a>, DbErr>> + 'a + Send>> {
        Box::pin(async move {
            // The statement may also be one that SeaORM built, because SeaORM's `stream` calls this method.
            let verification =
                if cannot_change_session(&statement.sql) { Verification::Skipped } else { Verification::Immediate };
            let commits_at_end = false;
            self.stream_rows(statement, verification, commits_at_end).await
        })
    }
}

#[async_trait]
impl TransactionSession for Transaction {
    async fn commit(self) -> Result<(), DbErr> {
        self.unguarded.commit().await
    }

    async fn rollback(self) -> Result<(), DbErr> {
        self.unguarded.rollback().await
    }
}
