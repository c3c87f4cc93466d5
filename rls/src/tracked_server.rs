//! Used only if there are replicas: the server that a transaction runs on, and the log position (the position in the
//! write-ahead log) that is recorded when the transaction commits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use crate::{
    Identity,
    position::{LogPosition, ReadRequirementsByIdentity},
    wire::ReplicationStatus,
};

/// What is needed to track the log positions that the transactions on one server reach.
#[derive(Debug)]
pub(crate) struct PositionTracking {
    /// What a server must fulfil before an identity may read from it, for each identity. All servers share this record.
    read_requirements: Arc<ReadRequirementsByIdentity>,
    /// The newest timeline that any primary has had so far. All servers share this number.
    newest_timeline: Arc<AtomicU32>,
    /// The timeline that the server was on when the monitor (`servers/monitor.rs`) last checked it; 0 before the first
    /// check.
    pub(crate) timeline: AtomicU32,
    /// Whether the server turned out to be of another cluster than the one whose URL was given to `connect`. Its log
    /// positions then mean nothing for the other servers.
    pub(crate) is_foreign: AtomicBool,
}

impl PositionTracking {
    pub(crate) fn new(read_requirements: Arc<ReadRequirementsByIdentity>, newest_timeline: Arc<AtomicU32>) -> Self {
        Self { read_requirements, newest_timeline, timeline: AtomicU32::new(0), is_foreign: AtomicBool::new(false) }
    }
}

/// The server that a transaction runs on.
#[derive(Clone, Debug)]
pub(crate) struct TrackedServer {
    position_tracking: Arc<PositionTracking>,
    /// Whether the transaction began on a standby. Then it can write nothing, even after that standby is promoted.
    pub(crate) was_standby: bool,
    /// The server's timeline when the transaction began.
    pub(crate) timeline: u32,
}

impl TrackedServer {
    pub(crate) fn new(position_tracking: Arc<PositionTracking>) -> Self {
        let timeline = position_tracking.timeline.load(Ordering::SeqCst);
        Self { position_tracking, was_standby: false, timeline }
    }

    /// Records what the server reported in its answer to BEGIN. A standby does not report its timeline there, so the
    /// timeline that the monitor has found remains.
    pub(crate) fn record_begin(&mut self, status: ReplicationStatus) {
        self.was_standby = status.is_standby;
        if !status.is_standby {
            self.timeline = status.timeline;
        }
    }

    /// Returns the record of a commit that is about to be sent.
    pub(crate) fn track_commit(&self, identity: &Identity) -> CommitInProgress {
        let count_before = self.position_tracking.read_requirements.commit_without_position_count();
        CommitInProgress {
            position_tracking: self.position_tracking.clone(),
            identity: identity.clone(),
            count_before,
            // On a standby the outcome of a commit does not matter, because nothing was written.
            is_settled: self.was_standby,
        }
    }
}

/// The record of a commit in progress. If it is dropped before [`record_outcome`](Self::record_outcome) has settled it,
/// a *commit without position* is recorded: one whose log position was not received, and whose outcome may be unknown
/// too. From then on, the identity reads only on the primary, until another of its commits has succeeded there.
pub(crate) struct CommitInProgress {
    position_tracking: Arc<PositionTracking>,
    identity: Identity,
    /// How many commits without position had been recorded, for all identities together, before this commit was sent.
    count_before: u64,
    /// Whether the drop has nothing to record.
    is_settled: bool,
}

impl CommitInProgress {
    /// Records the log position of what the identity wrote or read. The position of a read on a replica is recorded
    /// too, because the next replica must not show an older state. `status` is what the server reported after the
    /// commit. `is_unanswered` is whether the server's answer to the message of the commit was lost. If the commit
    /// succeeded but no status followed, or if it is unknown whether the commit succeeded, the drop of `self` records
    /// a commit without position, unless the transaction began on a standby.
    pub(crate) fn record_outcome(mut self, is_committed: bool, status: Option<ReplicationStatus>, is_unanswered: bool) {
        let PositionTracking { read_requirements, newest_timeline, timeline, is_foreign } = &*self.position_tracking;
        match status {
            _ if is_foreign.load(Ordering::SeqCst) => {}
            Some(status) if is_committed && status.is_standby => {
                let timeline = timeline.load(Ordering::SeqCst);
                read_requirements.record(&self.identity, LogPosition { timeline, lsn: status.lsn });
            }
            Some(status) if is_committed => {
                newest_timeline.fetch_max(status.timeline, Ordering::SeqCst);
                let position = LogPosition { timeline: status.timeline, lsn: status.lsn };
                read_requirements.record_primary_commit(&self.identity, position, self.count_before);
            }
            // The transaction is committed at an unknown log position, or its outcome is unknown. In both cases the
            // drop of `self` records a commit without position (except on a standby).
            _ if is_committed || is_unanswered => return,
            _ => {}
        }
        self.is_settled = true;
    }
}

impl Drop for CommitInProgress {
    fn drop(&mut self) {
        if !self.is_settled {
            self.position_tracking.read_requirements.record_commit_without_position(&self.identity);
        }
    }
}
