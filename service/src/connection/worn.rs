//! A transaction that wears an identity: what operations work in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement, StatementBuilder,
    TransactionOptions, TransactionTrait,
};
use uuid::Uuid;

use super::Statements;
use crate::{
    Error,
    identity::{Identity, TORN},
};

/// Statements in it are the crate's own and are not looked through; a caller's go through
/// [`Transaction`](super::Transaction).
#[derive(Debug)]
pub struct Worn {
    inner: DatabaseTransaction,
    identity: Identity,
    /// Whether a future was dropped in the middle of what changes the transaction or the role: the driver may have rolled
    /// everything back, and what came next would run as the login. Shared by a transaction and those nested in it.
    torn: Arc<AtomicBool>,
}

impl Worn {
    /// Puts the identity on, and the time that each statement may take.
    pub(crate) async fn put_on(
        inner: DatabaseTransaction,
        identity: Identity,
        time: Option<Duration>,
        statements: Statements,
    ) -> Result<Self, DbErr> {
        match statements {
            Statements::Kept => identity.wear(&inner, time).await?,
            Statements::Forgotten => identity.wear_afresh(&inner, time).await?,
        }
        Ok(Self { inner, identity, torn: Arc::default() })
    }

    /// A savepoint; the identity is on already. Dropped or failed half way, the driver ends the whole transaction.
    pub(crate) async fn nested(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        self.tear()?;
        let inner = self.inner.begin_with_options(options).await?;
        self.torn.store(false, Ordering::Relaxed);
        Ok(Self { inner, identity: self.identity, torn: self.torn.clone() })
    }

    /// Before what must not be left half done; one at a time.
    fn tear(&self) -> Result<(), DbErr> {
        if self.torn.swap(true, Ordering::Relaxed) { Err(DbErr::Custom(TORN.to_owned())) } else { Ok(()) }
    }

    /// Nothing is done in what may be no transaction any more, or wear another role.
    fn whole(&self) -> Result<(), DbErr> {
        if self.torn.load(Ordering::Relaxed) { Err(DbErr::Custom(TORN.to_owned())) } else { Ok(()) }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// The user in whose name statements run.
    ///
    /// # Errors
    ///
    /// [`Error::NotSignedIn`] for a visitor and for the service.
    pub(crate) fn user(&self) -> Result<Uuid, Error> {
        self.identity.user().ok_or(Error::NotSignedIn)
    }

    pub(crate) fn inner(&self) -> Result<&DatabaseTransaction, DbErr> {
        self.whole()?;
        Ok(&self.inner)
    }

    pub(crate) async fn commit(self) -> Result<(), DbErr> {
        if let Err(torn) = self.whole() {
            let _ = self.inner.rollback().await;
            return Err(torn);
        }
        self.inner.commit().await
    }

    pub(crate) async fn rollback(self) -> Result<(), DbErr> {
        self.inner.rollback().await
    }

    /// Runs one statement as the server, and puts the identity back on: the one door for what a user may do through an
    /// operation but not by plain row access. Each use names its reason.
    ///
    /// A failure needs no putting back: the transaction is over.
    pub(crate) async fn elevated(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.tear()?;
        let outcome = async {
            Identity::Service.wear_role(&self.inner).await?;
            let done = self.inner.execute_raw(statement).await?;
            self.identity.wear_role(&self.inner).await?;
            Ok(done)
        }
        .await;
        self.torn.store(false, Ordering::Relaxed);
        outcome
    }
}

#[async_trait]
impl ConnectionTrait for Worn {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.inner()?.execute_raw(statement).await
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        self.inner()?.execute(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.inner()?.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.inner()?.query_one_raw(statement).await
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        self.inner()?.query_one(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.inner()?.query_all_raw(statement).await
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        self.inner()?.query_all(statement).await
    }
}
