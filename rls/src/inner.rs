//! The connection of a transaction and its state: the stack of frames, the request in progress, and the frames to roll
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
        Answer, Connection, PreparedStatements, ROLLBACK_TIMEOUT, SERVER_POSITION, SERVER_POSITION_COLUMNS,
        ServerPosition, TextRow, exec_error,
    },
};

/// Whether the transaction is SERIALIZABLE, possibly by the database's default: what it reads is valid only once it is
/// committed.
const IS_SERIALIZABLE: &str = ", (current_setting('transaction_isolation') = 'serializable')::integer";

/// The connection and its state.
#[derive(Debug)]
pub(crate) struct Inner<C: Connection = PooledConnection> {
    pub(crate) pooled: Option<C>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) pending: Option<Pending>,
    /// Whether the end of a response is still unread: after an error, the server sends ReadyForQuery.
    pub(crate) has_unread_end: bool,
    pub(crate) over: Option<Over>,
    /// Whether a statement ran that may have changed the database session.
    pub(crate) unclean: bool,
    pub(crate) last_id: u64,
    /// The start time of the transaction, as the server prints it.
    pub(crate) started_at: String,
    pub(crate) identity: Identity,
    pub(crate) time: Option<Duration>,
    pub(crate) statements: PreparedStatements,
    /// Whether its end need not be awaited: it only reads, and is not SERIALIZABLE, so that what it read is valid
    /// anyway.
    pub(crate) ends_unawaited: bool,
    /// The server that it runs on, if there are replicas.
    pub(crate) origin: Option<Origin>,
}

/// The parameters of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) identity: &'a Identity,
    /// The transaction modes, as in BEGIN.
    pub(crate) modes: &'a str,
    pub(crate) time: Option<Duration>,
    pub(crate) statements: PreparedStatements,
    /// Whether its end need not be awaited, because it only reads.
    pub(crate) ends_unawaited: bool,
}

impl<C: Connection> Inner<C> {
    /// Begins the transaction, and returns the server's log position, if there are replicas.
    pub(crate) async fn begin(
        pooled: C,
        request: &Request<'_>,
        origin: Option<Origin>,
    ) -> Result<(Self, Option<ServerPosition>), sqlx::Error> {
        let Request { identity, modes, time, statements, ends_unawaited } = *request;
        let mut inner = Self {
            pooled: Some(pooled),
            frames: vec![Frame::new(OUTERMOST)],
            pending: Some(Pending::Open),
            has_unread_end: false,
            over: None,
            unclean: false,
            last_id: OUTERMOST,
            started_at: String::new(),
            identity: identity.clone(),
            time,
            statements,
            ends_unawaited: false,
            origin,
        };
        let mut extra_columns = String::new();
        if ends_unawaited {
            extra_columns.push_str(IS_SERIALIZABLE);
        }
        if inner.origin.is_some() {
            extra_columns.push_str(", ");
            extra_columns.push_str(SERVER_POSITION);
        }
        extra_columns.push_str(", pg_backend_pid()");
        let set = identity.set_local_sql(time, &extra_columns);
        let sql = format!("BEGIN{modes}; {}{set}", statements.begin());
        let mut answer = Answer::default();
        let outcome = match inner.pooled.as_mut() {
            Some(pooled) => pooled.simple_query(sql, &mut answer).await,
            None => Ok(()),
        };
        inner.answered(OUTERMOST, outcome).map_err(|error| match answer.done {
            // The statement that sets the identity comes after BEGIN and DEALLOCATE.
            done if done <= usize::from(statements == PreparedStatements::Deallocated) + 1 => {
                role_error(error, identity.role())
            }
            // The admission expression may refuse the identity with any code.
            _ => error,
        })?;
        inner.started_at = answer.row.as_ref().and_then(TextRow::last).unwrap_or_default();
        let from_end =
            |columns: usize| answer.row.as_ref().and_then(|row| Some((row, row.0.len().checked_sub(columns)?)));
        let process = from_end(2).and_then(|(row, column)| row.number(column));
        let position_columns = if inner.origin.is_some() { SERVER_POSITION_COLUMNS } else { 0 };
        let position = from_end(position_columns + 2)
            .filter(|_| position_columns > 0)
            .and_then(|(row, first)| ServerPosition::read(row, first));
        let is_serializable = from_end(position_columns + 3);
        inner.ends_unawaited =
            ends_unawaited && is_serializable.and_then(|(row, column)| row.number(column)) == Some(0);
        if let (Some(origin), Some(position)) = (&mut inner.origin, position) {
            origin.begun(position);
        }
        if let (PreparedStatements::Cached, Some(pooled)) = (statements, &mut inner.pooled) {
            inner.pending = Some(Pending::Open);
            if let Err(error) = pooler::check(pooled, process).await {
                inner.close(Over::Ended);
                return Err(error);
            }
            inner.pending = None;
        }
        Ok((inner, position))
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
                self.has_unread_end = true;
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

    /// Reads the last response to its end. After that, a request is sent as soon as it is made, so even a call that is
    /// dropped has been sent.
    async fn ready(&mut self) -> Result<(), DbErr> {
        if !self.has_unread_end || self.over.is_some() {
            return Ok(());
        }
        let limit = self.time.unwrap_or_default().max(ROLLBACK_TIMEOUT);
        match timeout(limit, self.connection()?.drain()).await {
            Ok(Ok(_)) => {
                self.has_unread_end = false;
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

    /// Sends a statement of this crate in the innermost frame. `pending` is recorded until the answer.
    pub(crate) async fn send_internal(&mut self, sql: String, pending: Pending) -> Result<Answer, DbErr> {
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
            (self.pending, self.has_unread_end) = (None, false);
            match pending {
                Pending::Call(frame) => self.fail(frame, Failure::Failed),
                Pending::Stream if refused => {
                    let frame = self.frames.last().map_or(OUTERMOST, |frame| frame.id);
                    self.fail(frame, Failure::Failed);
                }
                Pending::Stream => {}
                // The nested transaction was never returned to a caller.
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
        let row = self.send_internal(sql, pending).await?.row;
        let number = |column| row.as_ref().and_then(|row| row.number(column));
        match number(0) {
            Some(0) => {
                self.forget_deallocated(number(1), pending).await?;
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
    /// cache, so that the driver prepares them again.
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

/// Maps the error for a role that does not exist or that the login is not a member of.
fn role_error(error: sqlx::Error, role: &str) -> sqlx::Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    if matches!(code.as_deref(), Some("42501" | "22023")) {
        let reason = format!("the pool's login must be a member of the role {role}: {error}");
        return sqlx::Error::Configuration(reason.into());
    }
    error
}
