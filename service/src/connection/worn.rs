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
    ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, Statement, StatementBuilder, TransactionOptions,
    sqlx::postgres::PgRow,
};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Pool, RowStream, STREAM_BUFFER, Statements, link::Link, received};
use crate::{
    Error,
    identity::{Identity, TORN},
};

/// Statements in it are the crate's own and are not looked through; a caller's go through
/// [`Transaction`](super::Transaction).
#[derive(Debug)]
pub struct Worn {
    link: Arc<Link>,
    /// How many it is nested in.
    depth: u32,
    /// Whether it was committed or rolled back.
    is_over: bool,
    identity: Identity,
    /// Whether a future was dropped in the middle of what changes the transaction or the role: what came next would run as
    /// it should not. Shared by a transaction and those nested in it.
    torn: Arc<AtomicBool>,
}

impl Worn {
    /// Begins, with the identity on, and the time that each statement may take: one round trip.
    pub(crate) async fn begin(
        pool: &Pool,
        options: TransactionOptions,
        identity: Identity,
        time: Option<Duration>,
        statements: Statements,
    ) -> Result<Self, DbErr> {
        let forgotten = match statements {
            Statements::Kept => "",
            Statements::Forgotten => "DEALLOCATE ALL; ",
        };
        let sql = format!("BEGIN{}; {forgotten}{}", modes(&options), identity.wear(time));
        let link = Arc::new(Link::begin(pool, sql).await?);
        Ok(Self { link, depth: 0, is_over: false, identity, torn: Arc::default() })
    }

    /// A savepoint; the identity is on already. What is dropped or fails half way ends the whole transaction.
    pub(crate) async fn nested(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        self.tear()?;
        let depth = self.depth + 1;
        self.link.save(depth).await?;
        let modes = modes(&options);
        if !modes.is_empty() {
            self.link.execute_unprepared(&format!("SET TRANSACTION{modes}")).await?;
        }
        self.torn.store(false, Ordering::Relaxed);
        let (link, torn) = (self.link.clone(), self.torn.clone());
        Ok(Self { link, depth, is_over: false, identity: self.identity, torn })
    }

    /// Before what must not be left half done; one at a time.
    fn tear(&self) -> Result<(), DbErr> {
        if self.torn.swap(true, Ordering::Relaxed) { Err(DbErr::Custom(TORN.to_owned())) } else { Ok(()) }
    }

    /// Nothing is done in what may be no transaction any more, or wear another role.
    fn whole(&self) -> Result<&Link, DbErr> {
        if self.torn.load(Ordering::Relaxed) { Err(DbErr::Custom(TORN.to_owned())) } else { Ok(&self.link) }
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

    pub(crate) async fn commit(mut self) -> Result<(), DbErr> {
        if let Err(torn) = self.whole() {
            let _ = self.link.undo(self.depth).await;
            return Err(torn);
        }
        self.link.keep(self.depth).await?;
        self.is_over = true;
        Ok(())
    }

    pub(crate) async fn rollback(mut self) -> Result<(), DbErr> {
        self.link.undo(self.depth).await?;
        self.is_over = true;
        Ok(())
    }

    /// All rows, as the driver has them.
    pub(crate) async fn rows(&self, statement: Statement) -> Result<Vec<PgRow>, DbErr> {
        self.whole()?.rows(statement).await
    }

    /// Rows as they come.
    pub(crate) async fn stream(&self, statement: Statement) -> Result<RowStream<'_>, DbErr> {
        let (rows, read) = mpsc::channel(STREAM_BUFFER);
        self.whole()?.send(statement, rows).await?;
        Ok(received(read))
    }

    /// Runs one statement as the server, and puts the identity back on: the one door for what a user may do through an
    /// operation but not by plain row access. Each use names its reason.
    ///
    /// A failure needs no putting back: the transaction is over.
    pub(crate) async fn elevated(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.tear()?;
        let outcome = async {
            self.link.execute(Identity::Service.wear_role()).await?;
            let done = self.link.execute(statement).await?;
            self.link.execute(self.identity.wear_role()).await?;
            Ok(done)
        }
        .await;
        self.torn.store(false, Ordering::Relaxed);
        outcome
    }
}

impl Drop for Worn {
    fn drop(&mut self) {
        if self.depth > 0 && !self.is_over {
            self.link.leave(self.depth);
        }
    }
}

/// How the transaction runs, as BEGIN and SET TRANSACTION say it.
fn modes(options: &TransactionOptions) -> String {
    let isolation = options.isolation_level.map(|level| format!(" ISOLATION LEVEL {level}"));
    let access = options.access_mode.map(|mode| format!(" {mode}"));
    [isolation, access].into_iter().flatten().collect()
}

#[async_trait]
impl ConnectionTrait for Worn {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.whole()?.execute(statement).await
    }

    async fn execute<S: StatementBuilder>(&self, statement: &S) -> Result<ExecResult, DbErr> {
        self.whole()?.execute(DbBackend::Postgres.build(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.whole()?.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.whole()?.query_one(statement).await
    }

    async fn query_one<S: StatementBuilder>(&self, statement: &S) -> Result<Option<QueryResult>, DbErr> {
        self.whole()?.query_one(DbBackend::Postgres.build(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.whole()?.query_all(statement).await
    }

    async fn query_all<S: StatementBuilder>(&self, statement: &S) -> Result<Vec<QueryResult>, DbErr> {
        self.whole()?.query_all(DbBackend::Postgres.build(statement)).await
    }
}
