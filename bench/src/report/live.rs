//! Live events, which the service streams to subscribers as they happen.

use serde::{Deserialize, Serialize};

use super::load_steps::LoadStep;

/// The measurements of live events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LiveResults {
    /// Writers with and without subscribers.
    pub writer_comparisons: Vec<WriterComparison>,
    /// Delays from the call that writes an event to its arrival at a subscriber in another process, while events are
    /// written at human speed.
    pub delays_at_human_speed: DelaySummary,
    /// The same delays while eight clients roll as fast as they can.
    pub delays_while_rolling: DelaySummary,
    /// The processor use of a thousand idle subscribers.
    pub idle: IdleCpuUsage,
    /// The steps of the load test in which every player has a subscription.
    pub steps_with_subscriptions: Vec<LoadStep>,
    /// The steps of the load test in which every player polls.
    pub steps_with_polling: Vec<LoadStep>,
    /// The largest numbers of sessions that the load test sustained, with subscriptions and with polling.
    pub max_sustained_sessions: (u64, u64),
    /// The time of a roll with and without a broadcast of its event.
    pub broadcast: Option<BroadcastCost>,
    /// The results of the alternatives to the poller.
    pub alternatives: Vec<AlternativeResult>,
}

/// Writers with and without an added load, measured alternately.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WriterComparison {
    /// Concurrent clients.
    pub clients: u32,
    /// Rolls per second without the load, the mean of the runs.
    pub rolls_per_second_without_load: f64,
    /// Rolls per second with the load, the mean of the runs.
    pub rolls_per_second_with_load: f64,
    /// The percentage of rolls per second lost with the load, the median over the pairs of runs; negative if writers
    /// are faster with the load.
    pub loss_percent: f64,
    /// PostgreSQL's processor time per roll without the load, in milliseconds.
    pub postgresql_cpu_ms_without_load: Option<f64>,
    /// PostgreSQL's processor time per roll with the load, including what the load itself costs PostgreSQL.
    pub postgresql_cpu_ms_with_load: Option<f64>,
    /// Processor time per roll of the process that adds the load, in milliseconds; `None` if PostgreSQL or the
    /// measuring process adds the load, or where the system does not report processor times.
    pub load_cpu_ms: Option<f64>,
}

/// Delays of events from the call that writes them, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct DelaySummary {
    /// The median.
    pub p50_ms: f64,
    /// The 95th percentile.
    pub p95_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The number of delays: one for each event and each subscriber that received it. Old reports call it `count`.
    #[serde(alias = "count")]
    pub deliveries: usize,
    /// The number of deliveries that had not happened when
    /// [`DELIVERY_TIMEOUT`](super::load_steps::DELIVERY_TIMEOUT) had passed after the last event. `None` in old
    /// reports, which did not count them.
    pub missing: Option<usize>,
}

/// Processor use while no event is written, in percent of a processor.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct IdleCpuUsage {
    /// PostgreSQL's processor use with the subscribers.
    pub postgresql_percent: Option<f64>,
    /// PostgreSQL's processor use without the subscribers.
    pub postgresql_baseline_percent: Option<f64>,
    /// The processor use of the subscribers' process.
    pub subscribers_percent: Option<f64>,
}

/// The median time of a roll with and without its broadcast, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BroadcastCost {
    /// With the database's setting `sparc.broadcast` off.
    pub roll_ms_without_broadcast: f64,
    /// With this setting on. The stand-in for Supabase's schema `realtime` has a partition of `realtime.messages`, the
    /// table of broadcasts, for the current day; without this partition, no broadcast would be sent.
    pub roll_ms_with_broadcast: f64,
}

/// The measurements of an alternative to the service's poller, the task that reads new events from the database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AlternativeResult {
    /// Its description.
    pub name: String,
    /// Its cost to writers.
    pub writer_comparisons: Vec<WriterComparison>,
}
