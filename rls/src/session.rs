//! A connection with a transaction open on it, and the savepoints in that: what may be said, by whom, and what is true
//! afterwards.
//!
//! Everything that is said holds the connection from the check of the state to the answer ([`Call`]), so that nothing can
//! slip in between. The state is a stack of frames, the transaction and the savepoints in it; only the innermost may be
//! used. A call that was dropped half way is found by what it left behind ([`Pending`]), and settled before anything else
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
    runtime::Handle,
    sync::{Mutex, Notify, OwnedMutexGuard},
    time::timeout,
};

use crate::{
    Error, Identity,
    error::is_lost,
    pool::{Pool, PooledConnection},
    wire::{
        Answer, PreparedStatements, ROLLBACK_TIMEOUT, Released, drain, exec_error, has_own_statements, last_text,
        number, simple_query,
    },
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
}

/// What is known without the connection: a handle that is dropped cannot wait for it.
#[derive(Debug, Default)]
struct Marks {
    dropped: StdMutex<Vec<(u64, Dropped)>>,
    /// How many wait for the connection.
    waiting: AtomicUsize,
    wanted: Notify,
}

/// What was dropped of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    /// Its handle, without commit or rollback.
    Handle,
    /// An operation of several statements, half way.
    Operation,
}

/// The connection, and all that is known of it.
#[derive(Debug)]
pub(crate) struct Inner {
    pooled: Option<PooledConnection>,
    frames: Vec<Frame>,
    pending: Option<Pending>,
    over: Option<Over>,
    /// Whether something ran that may have changed the session.
    unclean: bool,
    next: u64,
    /// When the transaction began, as the server says it.
    begun: String,
    identity: Identity,
    time: Option<Duration>,
    statements: PreparedStatements,
}

/// The transaction, or a savepoint in it.
#[derive(Debug)]
struct Frame {
    id: u64,
    failed: Option<Failure>,
    abandoned: bool,
    /// Whether something ran that may have changed the identity, since it was verified.
    unverified: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// A statement failed, or a call was dropped.
    Failed,
    IdentityChanged,
}

/// What was said and not yet answered. Still there when the next one comes, it was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    /// A statement, or several, of this frame.
    Call(u64),
    /// Rows that nobody reads any more.
    Stream,
    /// The savepoint of this frame.
    Begin(u64),
    /// The release of this frame's savepoint.
    Release(u64),
    /// The rollback to this frame's savepoint.
    Undo(u64),
    /// The end of the transaction.
    End,
}

/// Why nothing more is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// It was committed or rolled back.
    Ended,
    /// The connection was lost.
    Lost,
    /// It was not waited for any longer.
    Late,
    /// A statement ended the transaction.
    ByText,
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
        identity: Identity,
        modes: &str,
        time: Option<Duration>,
        statements: PreparedStatements,
    ) -> Result<Self, DbErr> {
        let begin = async {
            let mut dead = 0;
            loop {
                let pooled = pool.acquire().await?;
                let is_last = pooled.is_new() || dead > pool.size();
                match Inner::begin(pooled, identity.clone(), modes, time, statements).await {
                    Ok(inner) => {
                        return Ok(Self {
                            inner: Arc::new(Mutex::new(inner)),
                            marks: Arc::default(),
                            identity,
                            time,
                            writes: Arc::default(),
                        });
                    }
                    Err(error) if is_lost(&error) && !is_last => dead += 1,
                    Err(error) => return Err(begin_error(error, identity.role())),
                }
            }
        };
        match time {
            None => begin.await,
            Some(time) => {
                timeout(time.saturating_add(GRACE), begin).await.unwrap_or_else(|_| Err(Error::DeadlineExceeded.into()))
            }
        }
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
            inner.pending = Some(Pending::Begin(id));
            if let Err(error) = inner.say(sql).await {
                inner.pop(id);
                inner.fail(frame, Failure::Failed);
                return Err(error);
            }
            if !modes.is_empty() {
                inner.pending = Some(Pending::Begin(id));
                if let Err(error) = inner.say(format!("SET TRANSACTION{modes}")).await {
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
        let pending = self.inner.try_lock().ok().and_then(|inner| inner.pending);
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

    fn take(&self) -> Vec<(u64, Dropped)> {
        std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Frame {
    fn new(id: u64) -> Self {
        Self { id, failed: None, abandoned: false, unverified: false }
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

impl Inner {
    async fn begin(
        pooled: PooledConnection,
        identity: Identity,
        modes: &str,
        time: Option<Duration>,
        statements: PreparedStatements,
    ) -> Result<Self, sqlx::Error> {
        let mut inner = Self {
            pooled: Some(pooled),
            frames: vec![Frame::new(OUTERMOST)],
            pending: Some(Pending::End),
            over: None,
            unclean: false,
            next: OUTERMOST,
            begun: String::new(),
            identity,
            time,
            statements,
        };
        let set = inner.identity.set_local_sql(time);
        let sql = format!("BEGIN{modes}; {}{set}", statements.begin());
        let mut answer = Answer::default();
        let outcome = match inner.pooled.as_mut() {
            Some(pooled) => simple_query(pooled.connection(), sql, &mut answer).await,
            None => Ok(()),
        };
        inner.answered(OUTERMOST, outcome)?;
        inner.begun = answer.row.as_ref().and_then(last_text).unwrap_or_default();
        Ok(inner)
    }

    fn connection(&mut self) -> Result<&mut PgConnection, DbErr> {
        let over = self.over;
        match (&mut self.pooled, over) {
            (Some(pooled), None) => Ok(pooled.connection()),
            (_, over) => Err(over_error(over)),
        }
    }

    fn frame(&mut self, id: u64) -> Option<&mut Frame> {
        self.frames.iter_mut().find(|frame| frame.id == id)
    }

    /// Whether that frame may be used.
    fn check(&mut self, frame: u64) -> Result<(), DbErr> {
        if self.over.is_some() {
            return Err(over_error(self.over));
        }
        let innermost = self.frames.last().map(|frame| frame.id);
        match self.frame(frame).map(|frame| frame.failed) {
            None => Err(Error::TransactionOver.into()),
            Some(_) if innermost != Some(frame) => Err(Error::NestedTransactionOpen.into()),
            Some(Some(Failure::Failed)) => Err(Error::TransactionFailed.into()),
            Some(Some(Failure::IdentityChanged)) => Err(Error::IdentityChanged.into()),
            Some(None) => Ok(()),
        }
    }

    /// Takes note of an answer: a refusal fails the frame, a lost connection ends all.
    fn answered<T>(&mut self, frame: u64, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.pending = None;
        if let Err(error) = &outcome {
            if is_lost(error) {
                self.close(Over::Lost);
            } else if error.as_database_error().is_some() {
                self.fail(frame, Failure::Failed);
            } else {
                // The driver could not send it, or read what came: there may be more.
                self.pending = Some(Pending::Stream);
            }
        }
        outcome
    }

    fn fail(&mut self, frame: u64, failure: Failure) {
        if let Some(frame) = self.frame(frame) {
            frame.failed.get_or_insert(failure);
        }
    }

    /// Nothing more is said, and the connection does not go back to its pool.
    fn close(&mut self, over: Over) {
        self.over = Some(over);
        self.pending = None;
        if let Some(pooled) = self.pooled.take() {
            pooled.discard();
        }
    }

    /// Says what is the layer's own, of the innermost frame.
    async fn say(&mut self, sql: String) -> Result<Answer, DbErr> {
        let frame = self.frames.last().map_or(OUTERMOST, |frame| frame.id);
        let mut answer = Answer::default();
        let outcome = simple_query(self.connection()?, sql, &mut answer).await;
        self.answered(frame, outcome).map_err(exec_error)?;
        Ok(answer)
    }

    /// Brings to an end what was left half way. May be dropped itself, at any point.
    async fn settle(&mut self, marks: &Marks) -> Result<(), DbErr> {
        if let (Some(pending), None) = (self.pending, self.over) {
            let patience = self.time.unwrap_or_default().max(ROLLBACK_TIMEOUT);
            let refused = match timeout(patience, drain(self.connection()?)).await {
                Ok(Ok(refused)) => refused.is_some(),
                Ok(Err(error)) => {
                    self.close(Over::Lost);
                    return Err(exec_error(error));
                }
                Err(_) => {
                    self.close(Over::Late);
                    return Err(Error::DeadlineExceeded.into());
                }
            };
            self.pending = None;
            match pending {
                Pending::Call(frame) => self.fail(frame, Failure::Failed),
                Pending::Stream if refused => {
                    let frame = self.frames.last().map_or(OUTERMOST, |frame| frame.id);
                    self.fail(frame, Failure::Failed);
                }
                Pending::Stream => {}
                // Nobody has its handle.
                Pending::Begin(frame) => {
                    if let Some(frame) = self.frame(frame) {
                        frame.abandoned = true;
                    }
                }
                Pending::Release(frame) | Pending::Undo(frame) if !refused => self.pop(frame),
                Pending::Release(frame) | Pending::Undo(frame) => self.fail(frame, Failure::Failed),
                // It has ended, one way or the other.
                Pending::End if !refused => self.over = Some(Over::Ended),
                Pending::End => self.close(Over::Ended),
            }
        }
        for (frame, dropped) in marks.take() {
            match dropped {
                Dropped::Operation => self.fail(frame, Failure::Failed),
                Dropped::Handle => {
                    if let Some(frame) = self.frame(frame) {
                        frame.abandoned = true;
                    }
                }
            }
        }
        while let (Some(frame), None) =
            (self.frames.iter().find(|frame| frame.abandoned).map(|frame| frame.id), self.over)
        {
            if frame == OUTERMOST {
                self.roll_back().await?;
            } else {
                self.undo(frame).await?;
            }
        }
        Ok(())
    }

    /// The frame and those in it are no more.
    fn pop(&mut self, frame: u64) {
        let Some(place) = self.frames.iter().position(|there| there.id == frame) else { return };
        let unverified = self.frames.drain(place..).any(|frame| frame.unverified);
        if let Some(around) = self.frames.last_mut() {
            around.unverified |= unverified;
        }
    }

    /// Undoes what was done since the savepoint, and takes it away.
    async fn undo(&mut self, frame: u64) -> Result<(), DbErr> {
        let Some(place) = self.frames.iter().position(|there| there.id == frame) else {
            return Err(Error::TransactionOver.into());
        };
        let around = self.frames.get(place.wrapping_sub(1)).map_or(OUTERMOST, |frame| frame.id);
        let sql = format!("ROLLBACK TO SAVEPOINT {0}; RELEASE SAVEPOINT {0}", savepoint(frame));
        self.pending = Some(Pending::Undo(frame));
        let outcome = self.say(sql).await;
        self.pop(frame);
        if outcome.is_err() {
            self.fail(around, Failure::Failed);
        }
        outcome.map(drop)
    }

    async fn release(&mut self, frame: u64) -> Result<(), DbErr> {
        if self.frame(frame).is_some_and(|frame| frame.unverified)
            && let Err(changed) = self.verify(frame, Pending::Stream).await
        {
            self.roll_back_refused(frame).await;
            return Err(changed);
        }
        let sql = format!("RELEASE SAVEPOINT {}", savepoint(frame));
        self.pending = Some(Pending::Release(frame));
        match self.say(sql).await {
            Ok(_) => {
                self.pop(frame);
                Ok(())
            }
            Err(error) => {
                self.roll_back_refused(frame).await;
                Err(error)
            }
        }
    }

    /// After a commit that was refused, whose handle is gone.
    async fn roll_back_refused(&mut self, frame: u64) {
        if self.over.is_some() {
            return;
        }
        // What cannot be rolled back is closed, or failed already: the refusal matters.
        let _ = if frame == OUTERMOST { self.roll_back().await } else { self.undo(frame).await };
    }

    async fn verify(&mut self, frame: u64, pending: Pending) -> Result<(), DbErr> {
        let sql = self.identity.verify_sql(&self.begun);
        self.pending = Some(pending);
        let found = self.say(sql).await?.row.as_ref().and_then(|row| number(row, 0));
        match found {
            Some(0) => {
                if let Some(frame) = self.frame(frame) {
                    frame.unverified = false;
                }
                Ok(())
            }
            Some(1) => {
                self.fail(frame, Failure::IdentityChanged);
                Err(Error::IdentityChanged.into())
            }
            _ => {
                self.over = Some(Over::ByText);
                Err(Error::TransactionEnded.into())
            }
        }
    }

    /// PostgreSQL answers the commit of a failed transaction with ROLLBACK, which the driver takes for success. So a
    /// statement stands before it in the same message that fails where the transaction has.
    async fn commit(&mut self) -> Result<(), DbErr> {
        let is_unverified = self.frames.iter().any(|frame| frame.unverified);
        let before = if is_unverified { self.identity.require_sql(&self.begun) } else { "CLOSE ALL".to_owned() };
        let after = if self.unclean { self.statements.clean() } else { String::new() };
        let statements = self.statements;
        let mut answer = Answer::default();
        self.pending = Some(Pending::End);
        let connection = self.connection()?;
        let outcome = simple_query(connection, format!("{before}; COMMIT; {after}"), &mut answer).await;
        let is_committed = answer.done >= 2;
        match outcome {
            Ok(()) => {
                self.pending = None;
                self.over = Some(Over::Ended);
                if self.unclean {
                    let is_clean = has_own_statements(self.connection_at_rest()?, &answer, statements);
                    if is_clean { self.unclean = false } else { self.discard() }
                }
                Ok(())
            }
            // It is committed, and could not be cleaned.
            Err(_) if is_committed => {
                self.close(Over::Ended);
                Ok(())
            }
            Err(error) if is_lost(&error) => {
                self.close(Over::Lost);
                Err(commit_unknown(&error.to_string()))
            }
            Err(error) => {
                self.pending = None;
                let refused = self.not_committed(error, answer.done);
                self.roll_back_refused(OUTERMOST).await;
                Err(refused)
            }
        }
    }

    fn not_committed(&mut self, error: sqlx::Error, done: usize) -> DbErr {
        let text = error.to_string();
        if done == 0 && text.contains(crate::identity::ENDED) {
            self.over = Some(Over::ByText);
            return Error::TransactionEnded.into();
        }
        if done == 0 && text.contains(crate::identity::CHANGED) {
            return Error::IdentityChanged.into();
        }
        let is_failed =
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("25P02");
        if is_failed { Error::TransactionFailed.into() } else { exec_error(error) }
    }

    fn connection_at_rest(&mut self) -> Result<&mut PgConnection, DbErr> {
        self.pooled.as_mut().map(PooledConnection::connection).ok_or_else(|| Error::TransactionOver.into())
    }

    fn discard(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            pooled.discard();
        }
    }

    async fn roll_back(&mut self) -> Result<(), DbErr> {
        if self.over.is_some() {
            // Lost, late, or ended by a text: the server rolled back, or there is nothing to roll back.
            return Ok(());
        }
        let after = if self.unclean { self.statements.clean() } else { String::new() };
        let statements = self.statements;
        let mut answer = Answer::default();
        self.pending = Some(Pending::End);
        let outcome = simple_query(self.connection()?, format!("ROLLBACK; {after}"), &mut answer).await;
        match outcome {
            Ok(()) => {
                self.pending = None;
                self.over = Some(Over::Ended);
                if self.unclean {
                    let is_clean = has_own_statements(self.connection_at_rest()?, &answer, statements);
                    if is_clean { self.unclean = false } else { self.discard() }
                }
            }
            // A server that is gone has rolled back, too.
            Err(_) => self.close(Over::Ended),
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(pooled) = self.pooled.take() else { return };
        let is_at_rest = self.over == Some(Over::Ended) && self.pending.is_none() && !self.unclean;
        if is_at_rest {
            return drop(pooled);
        }
        let unclean = self.unclean.then_some(self.statements);
        // A text that ended the transaction may have begun another.
        let is_open = self.over != Some(Over::Ended);
        let released = Released { connection: Some(pooled), is_open, unclean };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(released.put_back());
        }
    }
}

/// Unique in its transaction.
fn savepoint(frame: u64) -> String {
    format!("rls_{frame}")
}

fn over_error(over: Option<Over>) -> DbErr {
    match over {
        Some(Over::Late) => Error::DeadlineExceeded.into(),
        Some(Over::ByText) => Error::TransactionEnded.into(),
        Some(Over::Lost) => Error::ConnectionLost(DbErr::Custom("it was lost by an earlier call".to_owned())).into(),
        Some(Over::Ended) | None => Error::TransactionOver.into(),
    }
}

fn commit_unknown(text: &str) -> DbErr {
    Error::CommitUnknown(DbErr::Custom(text.to_owned())).into()
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
