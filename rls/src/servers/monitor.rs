//! Checks the servers of a cluster, each over a separate connection, with one statement: twice a second (ten times a
//! second while no primary is known), and also a tenth of a second after a caller has asked for a check, for example
//! because a server could not be reached.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use sea_orm::sqlx::{self, Connection, PgConnection};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::cluster::{Cluster, Member};
use crate::{
    Error,
    connect::{Opener, to_connect_error_with_timeout},
    pool::conn_error,
    position::LogPosition,
    wire::{
        REPLICATION_STATUS_COLUMN_COUNT, REPLICATION_STATUS_SQL, ReplicationStatus, SimpleQueryResponse, simple_query,
    },
};

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The interval while no primary is known, and the pause before a check that a caller has asked for.
const SHORT_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Timeout of the check of one server; after it, the server has failed the check. Also the timeout of closing a
/// connection.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long [`start`] waits for a primary when only replicas answer.
const PRIMARY_TIMEOUT: Duration = Duration::from_secs(1);
/// A replica is not used for reads if it has not replayed what the primary had written this long ago.
const MAX_LAG: Duration = Duration::from_secs(2);
/// Size of a page of the write-ahead log. A primary's log position may already include the header of a page or segment
/// to which nothing has been written yet, so a replica that has replayed everything may be one page behind.
const WAL_PAGE_SIZE: u64 = 8192;

/// What a server reports about itself.
struct Report {
    status: ReplicationStatus,
    /// Whether transactions are read-only by default: on a standby, or on a primary with
    /// `default_transaction_read_only`.
    is_read_only_by_default: bool,
    /// From `pg_control_system()`. It is the same on a primary and its replicas.
    system_identifier: i64,
}

/// How one server is checked: what opens connections to it, and the connection over which it is checked.
struct Probe {
    opener: Arc<Opener>,
    connection: Option<PgConnection>,
}

impl Probe {
    /// Asks the server for its report. A standby's timeline is the one that it is receiving, if the login may see that
    /// (`pg_read_all_stats`); otherwise it is the one recorded at the last restart point, which may be minutes old.
    async fn fetch_report(&mut self) -> Result<Report, sqlx::Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.opener.open().await?,
        };
        let sql = format!(
            "SELECT (SELECT system_identifier FROM pg_control_system()), \
               (current_setting('transaction_read_only') = 'on')::integer, {REPLICATION_STATUS_SQL}, \
               greatest( \
                 (SELECT timeline_id FROM pg_control_checkpoint()), \
                 (SELECT min_recovery_end_timeline FROM pg_control_recovery()), \
                 (SELECT received_tli FROM pg_stat_wal_receiver))"
        );
        let mut response = SimpleQueryResponse::default();
        simple_query(&mut connection, sql, &mut response).await?;
        let report = response.last_row.as_ref().and_then(|row| {
            // The first two columns are the system identifier and `is_read_only_by_default`.
            let status = ReplicationStatus::read(row, 2)?;
            let timeline = if status.is_standby {
                row.integer(2 + REPLICATION_STATUS_COLUMN_COUNT)?.try_into().ok()?
            } else {
                status.timeline
            };
            let (system_identifier, is_read_only_by_default) = (row.integer(0)?, row.integer(1)? == 1);
            Some(Report {
                status: ReplicationStatus { timeline, ..status },
                is_read_only_by_default,
                system_identifier,
            })
        });
        self.connection = Some(connection);
        report.ok_or_else(|| {
            sqlx::Error::Protocol(
                "this server does not report its log position, as a PostgreSQL server with streaming replicas does; \
                 connect to it without replicas or, if it was given as a replica, remove its URL"
                    .to_owned(),
            )
        })
    }

    async fn fetch_report_with_timeout(&mut self) -> Result<Report, sqlx::Error> {
        let outcome = timeout(CHECK_TIMEOUT, self.fetch_report()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }
}

/// Checks the servers until a primary is found, or until the system identifier is known and [`PRIMARY_TIMEOUT`] (or
/// `acquire_timeout`, if that is less) has passed. Then starts a task that keeps checking the servers until the cluster
/// is closed or dropped, and returns the task. Every server has then been checked at least once.
///
/// Returns an error instead if the system identifier is not known after `acquire_timeout`, or if a server refuses the
/// connection for a reason that does not pass, such as a wrong password.
pub(super) async fn start(cluster: &Arc<Cluster>) -> Result<JoinHandle<()>, Error> {
    let probe_of = |member: &Member| Probe { opener: member.opener.clone(), connection: None };
    let probes = cluster.members.iter().map(probe_of).collect();
    let mut monitor = Monitor {
        probes,
        system_identifier: None,
        has_identifier_of_first_server: false,
        primary_positions: VecDeque::new(),
        has_primary: false,
    };
    let started_at = Instant::now();
    loop {
        let failures = monitor.check(cluster).await;
        // As long as there is no system identifier, the first server has not answered. Then the first failure is that
        // server's, and the loop returns it if the time is over.
        let has_timed_out = monitor.system_identifier.is_none() && started_at.elapsed() >= cluster.acquire_timeout;
        for (index, error) in failures {
            let connect_error =
                to_connect_error_with_timeout(monitor.probes[index].opener.options(), &error, cluster.acquire_timeout);
            // A wrong password is reported at once. A server that is starting may still become ready in time.
            if has_timed_out || matches!(conn_error(error).into(), Error::Misconfigured { .. }) {
                return Err(connect_error.into());
            }
        }
        let has_waited_for_primary = started_at.elapsed() >= cluster.acquire_timeout.min(PRIMARY_TIMEOUT);
        if monitor.has_primary || monitor.system_identifier.is_some() && has_waited_for_primary {
            break;
        }
        sleep(SHORT_CHECK_INTERVAL).await;
    }
    let (weak_cluster, wake) = (Arc::downgrade(cluster), cluster.monitor_wake.clone());
    Ok(tokio::spawn(async move {
        loop {
            let interval = if monitor.has_primary { CHECK_INTERVAL } else { SHORT_CHECK_INTERVAL };
            if timeout(interval, wake.notified()).await.is_ok() {
                // After this pause, one check serves all callers that have asked for one meanwhile. A cluster that was
                // dropped has no callers.
                sleep(if weak_cluster.strong_count() == 0 { Duration::ZERO } else { SHORT_CHECK_INTERVAL }).await;
            }
            let Some(cluster) = weak_cluster.upgrade().filter(|cluster| !cluster.is_closed.load(Ordering::SeqCst))
            else {
                break;
            };
            monitor.check(&cluster).await;
        }
        for probe in monitor.probes {
            if let Some(connection) = probe.connection {
                let _ = timeout(CHECK_TIMEOUT, connection.close()).await;
            }
        }
    }))
}

/// The state of the task that checks the servers.
struct Monitor {
    probes: Vec<Probe>,
    /// The system identifier that a server must have to be used; `None` until [`adopt_system_identifier`] has found
    /// one.
    ///
    /// [`adopt_system_identifier`]: Self::adopt_system_identifier
    system_identifier: Option<i64>,
    /// Whether the system identifier is that of the first server in the list. It is then kept for good.
    has_identifier_of_first_server: bool,
    /// Recent log positions of the primary, the newest last, each with the time of the check that read it.
    primary_positions: VecDeque<(Instant, u64)>,
    /// Whether the last check found a primary.
    has_primary: bool,
}

impl Monitor {
    /// Checks every server. Returns the indexes of those that sent no report, with their errors.
    async fn check(&mut self, cluster: &Cluster) -> Vec<(usize, sqlx::Error)> {
        let now = Instant::now();
        let answers = join_all(self.probes.iter_mut().map(Probe::fetch_report_with_timeout)).await;
        let mut failures = Vec::new();
        let mut reports = Vec::new();
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(report) => reports.push((index, report)),
                Err(error) => failures.push((index, error)),
            }
        }
        let previous_identifier = self.system_identifier;
        self.adopt_system_identifier(&reports);
        for (index, report) in &reports {
            let Member { address, position_tracking, .. } = &cluster.members[*index];
            let is_foreign = Some(report.system_identifier) != self.system_identifier;
            // Each mismatch is logged once, not with every check.
            if !position_tracking.is_foreign.swap(is_foreign, Ordering::SeqCst) && is_foreign {
                if self.system_identifier.is_some() {
                    tracing::error!(
                        target: "sparc",
                        address,
                        "the server is not a copy of the others, and is not used; correct its URL"
                    );
                } else {
                    tracing::error!(
                        target: "sparc",
                        address,
                        "the server is given as a replica but was never one, so it is probably the primary of another \
                         cluster, and is not used before the server of the first URL has answered; correct the \
                         replica's URL, or start the server of the first URL"
                    );
                }
            }
        }
        if previous_identifier.is_some() && self.system_identifier != previous_identifier {
            // The servers used until now belong to another cluster. So what is known of their timelines and log
            // positions is forgotten.
            self.primary_positions.clear();
            cluster.newest_timeline.store(0, Ordering::SeqCst);
            cluster.read_requirements.clear();
            cluster.members[cluster.primary_index()].pool.drop_idle_connections();
            cluster.primary.send_replace(0);
        }
        reports.retain(|(_, report)| Some(report.system_identifier) == self.system_identifier);
        self.update_primary(cluster, &reports, now);
        self.update_members(cluster, &reports, now);
        failures
    }

    /// Determines the system identifier that servers must have: that of the first server in the list, whose URL was
    /// given to `connect`. After a failover, the first server may be gone for good. So as long as it has not answered,
    /// the identifier of another server is adopted: of a standby or, if no standby answers, of a primary on timeline 2
    /// or later, which must have been a standby once. A primary on timeline 1 was never a standby, so it may belong to
    /// another cluster, whose URL was given by mistake. If its identifier were adopted, it would receive the writes.
    fn adopt_system_identifier(&mut self, reports: &[(usize, Report)]) {
        if self.has_identifier_of_first_server {
            return;
        }
        let first = reports.iter().find(|(index, _)| *index == 0).map(|(_, report)| report.system_identifier);
        self.has_identifier_of_first_server = first.is_some();
        if first.is_some() {
            self.system_identifier = first;
        } else if self.system_identifier.is_none() {
            let standby = || reports.iter().find(|(_, report)| report.status.is_standby);
            let promoted = || reports.iter().find(|(_, report)| report.status.timeline > 1);
            self.system_identifier = standby().or_else(promoted).map(|(_, report)| report.system_identifier);
        }
    }

    /// Finds the primary, which is the server that is not in recovery. If there are several such servers, the primary
    /// is the one with the newest timeline, because it was promoted last. The others do not know yet that they have
    /// been replaced. Of servers on the same timeline, one that accepts writes by default is preferred, and then the
    /// one that is already in use as the primary. If the primary found is not the server in use, it replaces that
    /// server.
    fn update_primary(&mut self, cluster: &Cluster, reports: &[(usize, Report)], now: Instant) {
        let primary_index = cluster.primary_index();
        let newest_timeline = cluster.newest_timeline.load(Ordering::SeqCst);
        let found = reports
            .iter()
            .filter(|(_, report)| !report.status.is_standby && report.status.timeline >= newest_timeline)
            .max_by_key(|(index, report)| {
                (report.status.timeline, !report.is_read_only_by_default, *index == primary_index)
            });
        self.has_primary = found.is_some();
        let Some((index, report)) = found else { return };
        cluster.newest_timeline.fetch_max(report.status.timeline, Ordering::SeqCst);
        let position = LogPosition { timeline: report.status.timeline, lsn: report.status.lsn };
        cluster.read_requirements.record_primary_position(position, now);
        // An old primary may have reached a log position beyond that of the new one. What it wrote there is lost, so
        // replicas that have not replayed it do not lag. Positions are kept for twice `MAX_LAG`, because
        // `update_members` needs one that is at least `MAX_LAG` old.
        self.primary_positions
            .retain(|(checked_at, lsn)| now.duration_since(*checked_at) < MAX_LAG * 2 && *lsn <= report.status.lsn);
        self.primary_positions.push_back((now, report.status.lsn));
        if *index != primary_index {
            let address = &cluster.members[*index].address;
            let timeline = report.status.timeline;
            tracing::warn!(target: "sparc", address, timeline, "another server is the primary");
            cluster.members[primary_index].pool.drop_idle_connections();
            cluster.primary.send_replace(*index);
        }
    }

    /// Records what each server has reported, and decides which replicas are used for reads.
    fn update_members(&self, cluster: &Cluster, reports: &[(usize, Report)], now: Instant) {
        let newest_timeline = cluster.newest_timeline.load(Ordering::SeqCst);
        let positions = self.primary_positions.iter();
        let old_position = positions.rev().find(|(checked_at, _)| now.duration_since(*checked_at) >= MAX_LAG);
        let required_lsn = old_position.map(|(_, lsn)| *lsn);
        for (index, member) in cluster.members.iter().enumerate() {
            let report = reports.iter().find(|(report_index, _)| *report_index == index).map(|(_, report)| report);
            if let Some(report) = report {
                member.position_tracking.timeline.store(report.status.timeline, Ordering::SeqCst);
                member.lsn.store(report.status.lsn, Ordering::SeqCst);
                member.was_standby.store(report.status.is_standby, Ordering::SeqCst);
            }
            member.passed_last_check.store(report.is_some(), Ordering::SeqCst);
            let serves_reads = report.is_some_and(|report| {
                report.status.is_standby
                    && report.status.timeline >= newest_timeline
                    && required_lsn.is_none_or(|lsn| report.status.lsn + WAL_PAGE_SIZE >= lsn)
            });
            if member.serves_reads.swap(serves_reads, Ordering::SeqCst) != serves_reads {
                let address = &member.address;
                tracing::info!(target: "sparc", address, serves_reads, "the use of a replica for reads has changed");
            }
            if report.is_none() {
                member.pool.drop_idle_connections();
            }
        }
    }
}
