//! Chooses the server of a cluster on which a transaction begins, and begins it there.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use sea_orm::DbErr;
use tokio::{
    select,
    time::{sleep, timeout},
};

use super::cluster::{Cluster, SERVER_ATTEMPT_TIMEOUT};
use crate::{
    Error, error::is_connection_lost, position::ReadRequirement, shared_transaction::SharedTransaction,
    tracked_server::TrackedServer, transaction_state::BeginRequest,
};

/// Maximum wait for a replica that has not replayed the required log position; after that, the transaction begins on
/// the primary.
const MAX_REPLAY_WAIT: Duration = Duration::from_millis(25);
/// Pause between two attempts to find a server that accepts writes.
const PRIMARY_RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// What a transaction is for, as far as the choice of its server depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// It may write, or it is `SERIALIZABLE`, which a standby does not support. It runs on the primary.
    NeedsPrimary,
    /// It only reads, on a server that has replayed the required log position. With `is_repeatable_read`, all its
    /// statements see the snapshot of the first one.
    Read { read_requirement: ReadRequirement, is_repeatable_read: bool },
}

impl Cluster {
    /// Begins a transaction on a server that suits its purpose.
    pub(super) async fn begin(&self, request: &BeginRequest<'_>, purpose: Purpose) -> Result<SharedTransaction, DbErr> {
        if let Purpose::Read { read_requirement, is_repeatable_read } = purpose
            && let Some(transaction) = self.begin_on_replica(request, read_requirement, is_repeatable_read).await
        {
            return Ok(transaction);
        }
        self.begin_on_primary(request).await
    }

    /// Returns the server at this index as an argument of [`SharedTransaction::begin`]. Always `Some`, because `None`
    /// stands for a server without replicas, whose log positions are not tracked.
    fn tracked_server(&self, index: usize) -> Option<TrackedServer> {
        Some(TrackedServer::new(self.members[index].position_tracking.clone()))
    }

    /// Begins a transaction on a replica. Returns `None` if no replica can be used, or if the one on which the
    /// transaction began is not fresh enough in time.
    async fn begin_on_replica(
        &self,
        request: &BeginRequest<'_>,
        read_requirement: ReadRequirement,
        is_repeatable_read: bool,
    ) -> Option<SharedTransaction> {
        // If the outcome or log position of one of this identity's commits is unknown, only the primary certainly shows
        // the effect of that commit.
        if read_requirement.last_commit_without_position.is_some() {
            return None;
        }
        let newest_timeline = self.newest_timeline.load(Ordering::SeqCst);
        let (required_timeline, required_lsn) =
            read_requirement.position.map_or((0, 0), |position| (position.timeline, position.lsn));
        let mut candidate_indexes: Vec<usize> = (0..self.members.len())
            .filter(|index| {
                let member = &self.members[*index];
                let timeline = member.position_tracking.timeline.load(Ordering::SeqCst);
                member.serves_reads.load(Ordering::SeqCst)
                    && timeline >= required_timeline.max(newest_timeline)
                    // The replica must already be known to be fresh, because the statement that asks for its log
                    // position also takes the snapshot.
                    && (!is_repeatable_read || member.lsn.load(Ordering::SeqCst) >= required_lsn)
            })
            .collect();
        if candidate_indexes.is_empty() {
            if required_timeline > newest_timeline {
                // The caller's log position comes from another process, which knows of a promotion that the monitor of
                // this process has not seen yet.
                self.wake_monitor();
            }
            return None;
        }
        // The replicas are used in turn, but those that have replayed the log position come first. At most two are
        // tried, each for at most a third of the deadline, so that a third remains for the primary.
        let rotation = self.read_count.fetch_add(1, Ordering::Relaxed) % candidate_indexes.len();
        candidate_indexes.rotate_left(rotation);
        candidate_indexes.sort_by_key(|index| self.members[*index].lsn.load(Ordering::SeqCst) < required_lsn);
        for index in candidate_indexes.into_iter().take(2) {
            let member = &self.members[index];
            let lsn_before_begin = member.lsn.load(Ordering::SeqCst);
            let begin = SharedTransaction::begin(&member.pool, request, self.tracked_server(index));
            let begin_timeout = request
                .statement_deadline
                .map_or(SERVER_ATTEMPT_TIMEOUT, |deadline| SERVER_ATTEMPT_TIMEOUT.min(deadline / 3));
            let (transaction, status) = match timeout(begin_timeout, begin).await {
                Ok(Ok((transaction, Some(status)))) => (transaction, status),
                Ok(Err(error)) if is_connection_lost(&error) => {
                    member.serves_reads.store(false, Ordering::SeqCst);
                    self.wake_monitor();
                    continue;
                }
                // The replica hangs, has no free connection, refuses, or reports no log position. Another one may work.
                Ok(_) | Err(_) => {
                    self.wake_monitor();
                    continue;
                }
            };
            // This connection leads to a former primary, which another server has already replaced. (A replica that was
            // promoted a moment ago is on the newest timeline. It can serve the read, because it still has what it had
            // replayed.)
            if !status.is_standby && status.timeline < newest_timeline {
                transaction.discard().await;
                continue;
            }
            if status.is_standby {
                member.lsn.fetch_max(status.lsn, Ordering::SeqCst);
            }
            // A transaction may also be REPEATABLE READ by the database's default.
            let is_fresh = if is_repeatable_read || transaction.is_repeatable_read {
                lsn_before_begin >= required_lsn
            } else {
                status.lsn >= required_lsn || wait_until_replayed(&transaction, required_lsn).await
            };
            return is_fresh.then_some(transaction);
        }
        None
    }

    /// Begins a transaction on the server that accepts writes. While there is none, waits for up to `acquire_timeout`.
    async fn begin_on_primary(&self, request: &BeginRequest<'_>) -> Result<SharedTransaction, DbErr> {
        let started_at = Instant::now();
        let mut watched_primary = self.primary.subscribe();
        let (mut is_first_attempt, mut last_error) = (true, DbErr::from(Error::NoPrimary));
        loop {
            let primary_index = *watched_primary.borrow_and_update();
            let member = &self.members[primary_index];
            let begin = SharedTransaction::begin(&member.pool, request, self.tracked_server(primary_index));
            let remaining = self.acquire_timeout.saturating_sub(started_at.elapsed());
            let has_timeout = !std::mem::take(&mut is_first_attempt);
            let outcome = select! {
                outcome = begin => outcome,
                // There is a new primary. The transaction that was being begun on the old one has changed nothing.
                Ok(()) = watched_primary.changed() => continue,
                // Later attempts end when `acquire_timeout` has passed since the first one began. The first attempt is
                // not limited here: the pool limits how long it waits for a connection (also to `acquire_timeout`), and
                // the deadline limits how long it waits for the answer to BEGIN.
                () = sleep(remaining), if has_timeout => return Err(last_error),
            };
            last_error = match outcome {
                Ok((transaction, Some(status))) => {
                    let newest_timeline = self.newest_timeline.load(Ordering::SeqCst);
                    let is_foreign = member.position_tracking.is_foreign.load(Ordering::SeqCst);
                    if !status.is_standby && status.timeline >= newest_timeline && !is_foreign {
                        self.newest_timeline.fetch_max(status.timeline, Ordering::SeqCst);
                        return Ok(transaction);
                    }
                    transaction.discard().await;
                    // New connections may reach another server: a pooler or a host name may lead to the new primary by
                    // now.
                    member.pool.drop_idle_connections();
                    Error::NoPrimary.into()
                }
                // The server reported no log position, so it is unknown whether it is a standby.
                Ok((transaction, None)) => {
                    transaction.discard().await;
                    Error::NoPrimary.into()
                }
                Err(error) if is_connection_lost(&error) => error,
                Err(error) => return Err(error),
            };
            self.wake_monitor();
            if started_at.elapsed() >= self.acquire_timeout {
                return Err(last_error);
            }
            select! {
                _ = watched_primary.changed() => {}
                () = sleep(PRIMARY_RETRY_INTERVAL) => {}
            }
        }
    }
}

/// Waits for at most [`MAX_REPLAY_WAIT`] until the transaction's server has replayed the log position. Returns whether
/// it has.
async fn wait_until_replayed(transaction: &SharedTransaction, lsn: u64) -> bool {
    let poll_status = async {
        let mut pause = Duration::from_millis(1);
        loop {
            sleep(pause).await;
            match transaction.replication_status().await {
                Ok(Some(status)) if status.lsn >= lsn => return true,
                Ok(Some(_)) => pause *= 2,
                Ok(None) | Err(_) => return false,
            }
        }
    };
    timeout(MAX_REPLAY_WAIT, poll_status).await.unwrap_or(false)
}
