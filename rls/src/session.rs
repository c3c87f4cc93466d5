//! A connection with a transaction open on it, and the savepoints in that: what may be said, by whom, and what is true
//! afterwards.
//!
//! Everything that is said holds the connection from the check of the state to the answer ([`Call`]), so that nothing can
//! slip in between. The state is a stack of frames, the transaction and the savepoints in it; only the innermost may be
//! used. A call that was dropped half way is found by what it left behind (`Pending`), and settled before anything else
//! is said.

use std::{
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sea_orm::{
    DbErr,
    sqlx::{self, PgConnection},
};
use tokio::{
    sync::{Mutex, Notify, OwnedMutexGuard},
    time::timeout,
};

use crate::{
    Error, Identity,
    error::is_lost,
    inner::{Failure, Frame, Inner, Over, Pending, commit_unknown, over_error, savepoint},
    pool::Pool,
    servers::Origin,
    wire::{PLACE, Place, PreparedStatements, ROLLBACK_TIMEOUT, exec_error},
};

/// The server stops a statement at its deadline; so much later it is not waited for any more. A commit that is under way is
/// waited for as long at least: most are answered, and then it is known.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The frame of the transaction itself.
pub(crate) const OUTERMOST: u64 = 0;

/// What a transaction and those nested in it share.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    inner: Arc<Mutex<Inner>>,
    marks: Arc<Marks>,
    pub(crate) identity: Identity,
    /// How long each statement may take.
    pub(crate) time: Option<Duration>,
    /// Statements that were sent by this handle and may have written something.
    writes: Arc<AtomicU64>,
    /// Of the server's log, where there are replicas.
    pub(crate) timeline: Option<u32>,
}

/// What a transaction is begun with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) identity: &'a Identity,
    /// As BEGIN says them.
    pub(crate) modes: &'a str,
    pub(crate) time: Option<Duration>,
    pub(crate) statements: PreparedStatements,
}

/// What is known without the connection: a handle that is dropped cannot wait for it.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    dropped: StdMutex<Vec<(u64, Dropped)>>,
    /// How many wait for the connection.
    waiting: AtomicUsize,
    wanted: Notify,
}

/// What was dropped of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Its handle, without commit or rollback.
    Handle,
    /// An operation of several statements, half way.
    Operation,
}

/// When the identity is looked at after a statement of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The statement is the program's own, or one that cannot change it.
    Never,
    /// Before its rows are given out.
    Now,
    /// With the commit, which follows, or before the next statement.
    Later,
}

impl Session {
    /// Takes a connection and begins a transaction of that identity on it, in one message. A connection of the pool that
    /// turns out to be dead is replaced by another, until one that was just made is.
    pub(crate) async fn begin(
        pool: &Pool,
        request: &Request<'_>,
        origin: Option<Origin>,
    ) -> Result<(Self, Option<Place>), DbErr> {
        let mut dead = 0;
        loop {
            let pooled = pool.acquire().await?;
            let is_last = pooled.is_new() || dead > pool.size();
            match Inner::begin(pooled, request, origin.clone()).await {
                Ok((inner, place)) => {
                    let session = Self {
                        timeline: inner.origin.as_ref().map(|origin| origin.timeline),
                        inner: Arc::new(Mutex::new(inner)),
                        marks: Arc::default(),
                        identity: request.identity.clone(),
                        time: request.time,
                        writes: Arc::default(),
                    };
                    return Ok((session, place));
                }
                Err(error) if is_lost(&error) && !is_last => dead += 1,
                Err(error) => return Err(begin_error(error, request.identity.role())),
            }
        }
    }

    /// Where its server is by now.
    pub(crate) async fn place(&self) -> Result<Option<Place>, DbErr> {
        let mut inner = self.lock().await;
        let answer = inner.say(format!("SELECT {PLACE}"), Pending::Stream).await?;
        Ok(answer.row.as_ref().and_then(|row| Place::read(row, 0)))
    }

    /// Closes the connection, on which nothing was done yet.
    pub(crate) async fn discard(self) {
        self.lock().await.close(Over::Ended);
    }

    /// The connection, for whoever is innermost; what was left half way on it is settled first.
    pub(crate) async fn call(&self, frame: u64) -> Result<Call, DbErr> {
        let mut inner = self.lock().await;
        inner.settle(&self.marks).await?;
        inner.check(frame)?;
        if inner.frame(frame).is_some_and(|frame| frame.unverified) {
            // Nothing of the caller's is lost when it is dropped here.
            inner.verify(frame, Pending::Stream).await?;
        }
        inner.pending = Some(Pending::Call(frame));
        Ok(Call { inner, frame })
    }

    /// What ends in time. What does not takes the connection with it: it may have half an answer on it.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        let Some(time) = self.time else { return work.await };
        let outcome = timeout(time.saturating_add(GRACE), work).await;
        outcome.unwrap_or_else(|_| {
            self.give_up();
            Err(Error::DeadlineExceeded.into())
        })
    }

    /// Closes the connection if something on it was not answered in time; one that somebody else has stays.
    fn give_up(&self) {
        if let Ok(mut inner) = self.inner.clone().try_lock_owned()
            && inner.pending.is_some()
        {
            inner.close(Over::Late);
        }
    }

    async fn lock(&self) -> OwnedMutexGuard<Inner> {
        if let Ok(inner) = self.inner.clone().try_lock_owned() {
            return inner;
        }
        let _waiting = Waiting::new(&self.marks);
        self.inner.clone().lock_owned().await
    }

    /// Whether somebody waits for the connection.
    pub(crate) fn is_wanted(&self) -> bool {
        self.marks.waiting.load(Ordering::SeqCst) > 0
    }

    /// Until somebody waits for the connection.
    pub(crate) async fn wanted(&self) {
        loop {
            let wanted = self.marks.wanted.notified();
            if self.is_wanted() {
                return;
            }
            wanted.await;
        }
    }

    /// Makes a savepoint, for a frame of its own.
    pub(crate) async fn begin_nested(&self, frame: u64, modes: &str) -> Result<u64, DbErr> {
        let begin = async {
            let mut call = self.call(frame).await?;
            let inner = &mut *call.inner;
            inner.next += 1;
            let id = inner.next;
            let sql = format!("SAVEPOINT {}", savepoint(id));
            inner.frames.push(Frame::new(id));
            if let Err(error) = inner.say(sql, Pending::Begin(id)).await {
                inner.pop(id);
                inner.fail(frame, Failure::Failed);
                return Err(error);
            }
            if !modes.is_empty() {
                let set = format!("SET TRANSACTION{modes}");
                if let Err(error) = inner.say(set, Pending::Begin(id)).await {
                    inner.undo(id).await?;
                    return Err(nested_mode_error(error));
                }
            }
            Ok(id)
        };
        self.in_time(begin).await
    }

    /// Commits, or keeps what was done since the savepoint. It says Ok only for what the server did.
    pub(crate) async fn commit(&self, frame: u64) -> Result<(), DbErr> {
        let time = self.time.map(|time| time.max(GRACE).saturating_add(GRACE));
        let commit = async {
            let mut inner = self.lock().await;
            inner.settle(&self.marks).await?;
            if let Err(refused) = inner.check(frame) {
                inner.roll_back_refused(frame).await;
                return Err(refused);
            }
            if frame == OUTERMOST { inner.commit().await } else { inner.release(frame).await }
        };
        match time {
            None => commit.await,
            Some(time) => match timeout(time, commit).await {
                Ok(outcome) => outcome,
                Err(_) => Err(self.late_commit(frame)),
            },
        }
    }

    fn late_commit(&self, frame: u64) -> DbErr {
        let pending = self.inner.try_lock().ok().filter(|inner| !inner.is_on_standby()).and_then(|inner| inner.pending);
        self.give_up();
        if frame == OUTERMOST && pending == Some(Pending::End) {
            commit_unknown("no answer in time")
        } else {
            Error::DeadlineExceeded.into()
        }
    }

    /// Undoes all, or what was done since the savepoint. What is nested in it ends with it.
    pub(crate) async fn rollback(&self, frame: u64) -> Result<(), DbErr> {
        let rollback = async {
            let mut inner = self.lock().await;
            // A server whose connection is lost rolls back.
            let _ = inner.settle(&self.marks).await;
            if matches!(inner.over, Some(Over::Ended | Over::ByText)) || inner.frame(frame).is_none() {
                return Err(over_error(inner.over));
            }
            if frame == OUTERMOST { inner.roll_back().await } else { inner.undo(frame).await }
        };
        timeout(ROLLBACK_TIMEOUT, rollback).await.unwrap_or_else(|_| {
            self.give_up();
            // The connection is closed, and the server rolls back.
            Ok(())
        })
    }

    /// The handle of a frame was dropped: what was done in it is undone before anything else is said.
    pub(crate) fn abandon(&self, frame: u64) {
        self.marks.add(frame, Dropped::Handle);
    }

    /// An operation ended half way: the frame can only be rolled back.
    pub(crate) fn fail(&self, frame: u64) {
        self.marks.add(frame, Dropped::Operation);
    }

    /// The same, counting for itself.
    pub(crate) fn counting(&self) -> Self {
        Self { writes: Arc::default(), ..self.clone() }
    }

    pub(crate) fn count_write(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }
}

/// Somebody who waits for the connection.
struct Waiting<'a>(&'a Marks);

impl<'a> Waiting<'a> {
    fn new(marks: &'a Marks) -> Self {
        marks.waiting.fetch_add(1, Ordering::SeqCst);
        marks.wanted.notify_waiters();
        Self(marks)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Marks {
    fn add(&self, frame: u64, dropped: Dropped) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push((frame, dropped));
    }

    pub(crate) fn take(&self) -> Vec<(u64, Dropped)> {
        std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The connection for one call, from the check to the answer. Dropped before [`done`](Call::done), the call was cancelled:
/// what it did is not known, and its frame can only be rolled back.
pub(crate) struct Call {
    inner: OwnedMutexGuard<Inner>,
    frame: u64,
}

impl Call {
    pub(crate) fn connection(&mut self) -> Result<&mut PgConnection, DbErr> {
        self.inner.connection()
    }

    /// Says that what follows is rows, which may be left unread.
    pub(crate) fn streams(&mut self) {
        self.inner.pending = Some(Pending::Stream);
    }

    /// What the server said to it.
    pub(crate) fn done<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.inner.answered(self.frame, outcome)
    }

    /// It is not answered as a whole yet.
    pub(crate) fn goes_on(&mut self) {
        self.inner.pending = Some(Pending::Call(self.frame));
    }

    /// It is.
    pub(crate) fn ends(&mut self) {
        self.inner.pending = None;
    }

    /// Before a statement that may change the session.
    pub(crate) fn expect_changes(&mut self) {
        self.inner.unclean = true;
        if let Some(frame) = self.inner.frame(self.frame) {
            frame.unverified = true;
        }
    }

    /// Whether the identity is still the one that was set.
    pub(crate) async fn verify(&mut self) -> Result<(), DbErr> {
        self.inner.verify(self.frame, Pending::Call(self.frame)).await
    }

    /// Takes the time as up: the connection is closed.
    pub(crate) fn too_late(&mut self) {
        self.inner.close(Over::Late);
    }
}

/// A role that the login may not take, or that is not there.
fn begin_error(error: sqlx::Error, role: &str) -> DbErr {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    if matches!(code.as_deref(), Some("42501" | "22023")) {
        let reason = format!("the pool's login must be a member of the role {role}: {error}");
        return Error::Misconfigured { reason }.into();
    }
    exec_error(error)
}

/// What a savepoint cannot have.
fn nested_mode_error(error: DbErr) -> DbErr {
    match crate::error::sqlx_error(&error).and_then(|error| error.as_database_error()).and_then(|error| error.code()) {
        Some(code) if code == "25001" || code == "25006" => {
            Error::invalid("a nested transaction must have the isolation level of the one around it, and may only read where that does").into()
        }
        _ => error,
    }
}
