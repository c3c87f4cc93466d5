//! The parts of a transaction's state: its frames, the request in progress, and why the transaction has ended.

use sea_orm::{DbErr, RuntimeErr};

use crate::Error;

/// The id of the outermost [`Frame`], which is the transaction itself.
pub(crate) const OUTERMOST_FRAME_ID: u64 = 0;

/// The transaction, or a savepoint in it. The frames of a transaction form a stack.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) id: u64,
    /// `None` while the frame can be used.
    pub(crate) failure: Option<Failure>,
    /// Whether the frame must be rolled back because the caller has no handle of it: the call that began the frame was
    /// dropped before it returned the handle, or one of the reasons of
    /// [`UnfinishedReason::Abandoned`](crate::unlocked_state::UnfinishedReason::Abandoned) applies.
    pub(crate) is_abandoned: bool,
    /// Whether a statement that may have changed the identity has run since the identity was last verified.
    pub(crate) needs_verification: bool,
}

/// Why a frame can only be rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A statement failed, or a call was dropped.
    CallFailed,
    IdentityChanged,
}

/// A request that is in progress: it is about to be sent, or was sent and is not yet answered. If one is still recorded
/// when the next call begins, the call that sent it was dropped, or the driver failed before it had read the whole
/// answer. The number in a variant is the id of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// One or more statements of this frame.
    Call(u64),
    /// A request whose call may be dropped before the answer was read, without failing the frame: a stream of rows, or
    /// a query of this crate. Only an error in the answer fails the frame.
    DroppableCall,
    /// The SAVEPOINT of this frame, or the SET TRANSACTION after it.
    Savepoint(u64),
    /// The RELEASE SAVEPOINT of this frame.
    Release(u64),
    /// The ROLLBACK TO SAVEPOINT of this frame.
    RollbackTo(u64),
    /// The BEGIN of the transaction.
    Begin,
    /// The commit or rollback of the transaction.
    End,
}

/// Why the transaction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// This crate has committed or rolled back the transaction, or closed the connection, so that the server rolls
    /// back.
    EndedByCrate,
    /// The connection was lost.
    ConnectionLost,
    /// The deadline was exceeded.
    DeadlineExceeded,
    /// A statement of the caller ended the transaction.
    EndedByStatement,
    /// The connection was lost, or the deadline exceeded, while it was unknown whether a raw statement of the caller
    /// had committed the transaction.
    RawCommitUnknown,
}

impl Frame {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, failure: None, is_abandoned: false, needs_verification: false }
    }
}

pub(crate) fn commit_unknown_error(cause: &str) -> DbErr {
    Error::CommitUnknown(DbErr::Conn(RuntimeErr::Internal(cause.to_owned()))).into()
}

/// Returns the error of a call on a transaction that has ended or, if `reason` is `None`, on a savepoint that has ended
/// within an open transaction.
pub(crate) fn already_ended_error(reason: Option<EndReason>) -> DbErr {
    match reason {
        Some(EndReason::DeadlineExceeded) => Error::DeadlineExceeded.into(),
        Some(EndReason::EndedByStatement) => Error::TransactionEndedByStatement.into(),
        Some(EndReason::RawCommitUnknown) => commit_unknown_error("the connection was closed in an earlier call"),
        Some(EndReason::ConnectionLost) => {
            let source = RuntimeErr::Internal("the connection was lost in an earlier call".to_owned());
            Error::ConnectionLost(DbErr::Conn(source)).into()
        }
        Some(EndReason::EndedByCrate) | None => Error::TransactionOver.into(),
    }
}
