//! The effect of read replicas.

use serde::{Deserialize, Serialize};

/// The measurements of replicas.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaResults {
    /// Concurrent sessions of six players.
    pub sessions: u64,
    /// The step of the load test with polling players and with subscribing players, each without a replica, with one
    /// and with two.
    pub load_steps: Vec<ReplicaLoadStep>,
    /// Milliseconds from the answer to a write's commit until another user sees the write: the median, the 99th
    /// percentile and the maximum.
    pub visibility_delay_ms: [f64; 3],
    /// The cost of tracking log positions, measured with rolls by one client and by eight clients.
    pub tracking: Vec<TrackingCost>,
}

/// A step of the load test, with the processors that each server kept busy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaLoadStep {
    /// Whether players poll instead of subscribing.
    pub is_polling: bool,
    /// The number of standbys that the service uses as replicas. Both standbys run in each step.
    pub replicas: usize,
    /// The 99th percentile of a roll's latency, in milliseconds.
    pub roll_p99_ms: f64,
    /// The 99th percentile of the time from the moment a roll was due until all six players have received its event, in
    /// milliseconds.
    pub delivered_to_all_p99_ms: f64,
    /// The mean number of processors that the primary kept busy. `None` on a system without `/proc`, as are
    /// `service_cpus` and each element of `replica_cpus`.
    pub primary_cpus: Option<f64>,
    /// The mean number of processors that each replica kept busy.
    pub replica_cpus: Vec<Option<f64>>,
    /// The mean number of processors that the service kept busy.
    pub service_cpus: Option<f64>,
}

/// The cost of tracking: rolls by a service with replicas, which tracks log positions, and by a service without
/// replicas, which does not. All rolls run on the primary, so the difference is the cost of tracking.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct TrackingCost {
    /// Concurrent clients.
    pub clients: u32,
    /// Rolls per second without replicas, the mean of the runs.
    pub rolls_per_second_without_replicas: f64,
    /// Rolls per second with replicas, the mean of the runs.
    pub rolls_per_second_with_replicas: f64,
    /// The percentage of rolls per second lost with replicas: the median over the pairs of runs, so it is not exactly
    /// the difference of the two means.
    pub loss_percent: f64,
}
