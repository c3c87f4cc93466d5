//! The connection of a transaction and its state: the stack of frames, what is in progress, and what must be rolled
//! back. Access is exclusive; see [`Session`](crate::session::Session).

mod ending;
mod savepoints;
mod state;

use std::time::Duration;

pub(crate) use ending::commit_unknown;
pub(crate) use savepoints::savepoint;
use sea_orm::{DbErr, sqlx};
pub(crate) use state::{Failure, Frame, OUTERMOST, Over, Pending, over_error};

use crate::{
    Error, Identity,
    error::is_lost,
    marks::{Dropped, Marks},
    origin::Origin,
    pool::PooledConnection,
    pooler,
    runtime::timeout,
    wire::{
        Answer, Connection, PLACE, PLACE_COLUMNS, Place, PreparedStatements, ROLLBACK_TIMEOUT, TextRow, exec_error,
    },
};

/// What a SERIALIZABLE transaction read does not count until it is committed. The level may be the database's default.
const IS_SERIALIZABLE: &str = ", (current_setting('transaction_isolation') = 'serializable')::integer";

/// The connection and its state.
#[derive(Debug)]
pub(crate) struct Inner<C: Connection = PooledConnection> {
    pub(crate) pooled: Option<C>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) pending: Option<Pending>,
    /// Whether the end of a response has not been read yet: after an error, the server sends ReadyForQuery.
    pub(crate) has_rest: bool,
    pub(crate) over: Option<Over>,
    /// Whether a statement ran that may have changed the database session.
    pub(crate) unclean: bool,
    pub(crate) next: u64,
    /// The start time of the transaction, as the server prints it.
    pub(crate) started_at: String,
    pub(crate) identity: Identity,
    pub(crate) time: Option<Duration>,
    pub(crate) statements: PreparedStatements,
    /// Whether it only reads, at an isolation level at which what it read is valid however it ends.
    pub(crate) ends_unawaited: bool,
    /// Which of several servers it runs on.
    pub(crate) origin: Option<Origin>,
}

/// What a transaction is begun with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) identity: &'a Identity,
    /// The transaction modes, as in BEGIN.
    pub(crate) modes: &'a str,
    pub(crate) time: Option<Duration>,
    pub(crate) statements: PreparedStatements,
    /// It only reads, so nobody needs to wait for its end.
    pub(crate) ends_unawaited: bool,
}

impl<C: Connection> Inner<C> {
    /// Begins the transaction, and returns the server's log position, if there are replicas.
    pub(crate) async fn begin(
        pooled: C,
        request: &Request<'_>,
        origin: Option<Origin>,
    ) -> Result<(Self, Option<Place>), sqlx::Error> {
        let Request { identity, modes, time, statements, ends_unawaited } = *request;
        let mut inner = Self {
            pooled: Some(pooled),
            frames: vec![Frame::new(OUTERMOST)],
            pending: Some(Pending::Open),
            has_rest: false,
            over: None,
            unclean: false,
            next: OUTERMOST,
            started_at: String::new(),
            identity: identity.clone(),
            time,
            statements,
            ends_unawaited: false,
            origin,
        };
        let mut besides = String::new();
        if ends_unawaited {
            besides.push_str(IS_SERIALIZABLE);
        }
        if inner.origin.is_some() {
            besides.push_str(", ");
            besides.push_str(PLACE);
        }
        besides.push_str(", pg_backend_pid()");
        let set = identity.set_local_sql(time, &besides);
        let sql = format!("BEGIN{modes}; {}{set}", statements.begin());
        let mut answer = Answer::default();
        let outcome = match inner.pooled.as_mut() {
            Some(pooled) => pooled.simple_query(sql, &mut answer).await,
            None => Ok(()),
        };
        inner.answered(OUTERMOST, outcome)?;
        inner.started_at = answer.row.as_ref().and_then(TextRow::last).unwrap_or_default();
        let from_end =
            |columns: usize| answer.row.as_ref().and_then(|row| Some((row, row.0.len().checked_sub(columns)?)));
        let process = from_end(2).and_then(|(row, column)| row.number(column));
        let place_columns = if inner.origin.is_some() { PLACE_COLUMNS } else { 0 };
        let place =
            from_end(place_columns + 2).filter(|_| place_columns > 0).and_then(|(row, first)| Place::read(row, first));
        let is_serializable = from_end(place_columns + 3);
        inner.ends_unawaited =
            ends_unawaited && is_serializable.and_then(|(row, column)| row.number(column)) == Some(0);
        if let (Some(origin), Some(place)) = (&mut inner.origin, place) {
            origin.begun(place);
        }
        if let (PreparedStatements::Cached, Some(pooled)) = (statements, &mut inner.pooled) {
            inner.pending = Some(Pending::Open);
            if let Err(error) = pooler::check(pooled, process).await {
                inner.close(Over::Ended);
                return Err(error);
            }
            inner.pending = None;
        }
        Ok((inner, place))
    }

    /// Whether the transaction runs on a standby: it writes nothing, so the outcome of its commit does not matter.
    pub(crate) fn is_on_standby(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.is_standby)
    }

    pub(crate) fn connection(&mut self) -> Result<&mut C, DbErr> {
        let over = self.over;
        match (&mut self.pooled, over) {
            (Some(pooled), None) => Ok(pooled),
            (_, over) => Err(over_error(over)),
        }
    }

    pub(crate) fn frame(&mut self, id: u64) -> Option<&mut Frame> {
        self.frames.iter_mut().find(|frame| frame.id == id)
    }

    /// Checks that the frame may be used.
    pub(crate) fn check(&mut self, frame: u64) -> Result<(), DbErr> {
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

    /// Records a response: an error fails the frame, a lost connection ends the transaction.
    pub(crate) fn answered<T>(&mut self, frame: u64, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.pending = None;
        if let Err(error) = &outcome {
            if is_lost(error) {
                self.close(Over::Lost);
            } else if error.as_database_error().is_some() {
                self.has_rest = true;
                self.fail(frame, Failure::Failed);
            } else {
                // The driver could not send the request or decode the response, so more of it may follow.
                self.pending = Some(Pending::Stream);
            }
        }
        outcome
    }

    pub(crate) fn fail(&mut self, frame: u64, failure: Failure) {
        if let Some(frame) = self.frame(frame) {
            frame.failed.get_or_insert(failure);
        }
    }

    /// Ends the transaction and discards the connection instead of returning it to its pool.
    pub(crate) fn close(&mut self, over: Over) {
        self.over = Some(over);
        self.pending = None;
        if let Some(pooled) = self.pooled.take() {
            pooled.discard();
        }
    }

    /// Waits for the rest of the last response. After that, a request is sent as soon as it is made, so a call that is
    /// dropped is known to have been sent.
    async fn ready(&mut self) -> Result<(), DbErr> {
        if !self.has_rest || self.over.is_some() {
            return Ok(());
        }
        let limit = self.time.unwrap_or_default().max(ROLLBACK_TIMEOUT);
        match timeout(limit, self.connection()?.drain()).await {
            Ok(Ok(_)) => {
                self.has_rest = false;
                Ok(())
            }
            Ok(Err(error)) => {
                self.close(Over::Lost);
                Err(exec_error(error))
            }
            Err(_) => {
                self.close(Over::DeadlineExceeded);
                Err(Error::DeadlineExceeded.into())
            }
        }
    }

    /// Sends a statement of this layer's own in the innermost frame; `pending` is its kind.
    pub(crate) async fn send_own(&mut self, sql: String, pending: Pending) -> Result<Answer, DbErr> {
        self.ready().await?;
        self.pending = Some(pending);
        let frame = self.frames.last().map_or(OUTERMOST, |frame| frame.id);
        let mut answer = Answer::default();
        let outcome = self.connection()?.simple_query(sql, &mut answer).await;
        self.answered(frame, outcome).map_err(exec_error)?;
        Ok(answer)
    }

    /// Completes what earlier calls left unfinished. It may itself be dropped at any point.
    pub(crate) async fn settle(&mut self, marks: &Marks) -> Result<(), DbErr> {
        if self.pending.is_none() {
            self.ready().await?;
        }
        if let (Some(pending), None) = (self.pending, self.over) {
            let limit = self.time.unwrap_or_default().max(ROLLBACK_TIMEOUT);
            let refused = match timeout(limit, self.connection()?.drain()).await {
                Ok(Ok(refused)) => refused.is_some(),
                Ok(Err(error)) => {
                    self.close(Over::Lost);
                    return Err(exec_error(error));
                }
                Err(_) => {
                    self.close(Over::DeadlineExceeded);
                    return Err(Error::DeadlineExceeded.into());
                }
            };
            (self.pending, self.has_rest) = (None, false);
            match pending {
                Pending::Call(frame) => self.fail(frame, Failure::Failed),
                Pending::Stream if refused => {
                    let frame = self.frames.last().map_or(OUTERMOST, |frame| frame.id);
                    self.fail(frame, Failure::Failed);
                }
                Pending::Stream => {}
                // Its handle was never returned to a caller.
                Pending::Begin(frame) => {
                    if let Some(frame) = self.frame(frame) {
                        frame.abandoned = true;
                    }
                }
                Pending::Release(frame) | Pending::RollbackTo(frame) if !refused => self.pop(frame),
                Pending::Release(frame) | Pending::RollbackTo(frame) => self.fail(frame, Failure::Failed),
                // The transaction was never returned to a caller.
                Pending::Open => self.close(Over::Ended),
                // The transaction has ended, by commit or rollback.
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
                self.roll_back_to(frame).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn verify(&mut self, frame: u64, pending: Pending) -> Result<(), DbErr> {
        let sql = self.identity.verify_sql(&self.started_at);
        let row = self.send_own(sql, pending).await?.row;
        let of_row = |place| row.as_ref().and_then(|row| row.number(place));
        match of_row(0) {
            Some(0) => {
                self.forget_deallocated(of_row(1), pending).await?;
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
                self.over = Some(Over::EndedByStatement);
                Err(Error::TransactionEnded.into())
            }
        }
    }
}

impl<C: Connection> Inner<C> {
    /// After a statement that removed the driver's prepared statements (`DEALLOCATE`, `DISCARD`), clears the driver's
    /// cache, so that it does not use them.
    async fn forget_deallocated(&mut self, prepared: Option<i64>, pending: Pending) -> Result<(), DbErr> {
        if self.statements == PreparedStatements::Deallocated {
            return Ok(());
        }
        if prepared == self.connection()?.prepared_statements() {
            return Ok(());
        }
        self.pending = Some(pending);
        let outcome = self.connection()?.forget_prepared_statements().await;
        let frame = self.frames.last().map_or(OUTERMOST, |frame| frame.id);
        self.answered(frame, outcome).map_err(exec_error)
    }
}
