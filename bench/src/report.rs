//! The contents of `report.json`.

use std::{collections::HashSet, fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Failure, client::Client, days::Day, drivers::DriverResults, evening::Evening, growth::Size, indexes::Index,
    live::Live, measure::StatementResult, operations::OperationResult, overhead::Overhead, peers::PeerResult,
    replicas::Replicas,
};

/// All measurements of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The machine and the server.
    pub settings: Settings,
    /// Single statements, in both schemas.
    pub measures: Vec<StatementResult>,
    /// Whole operations, by the service and by pgbench.
    pub operations: Vec<OperationResult>,
    /// The cost of triggers and policies to a roll and to an event.
    pub overhead: Option<Overhead>,
    /// Evenings, by number of sessions.
    pub evenings: Vec<Evening>,
    /// Sizes and migrations, per scale.
    pub sizes: Vec<Size>,
    /// The uses and the cost of each index.
    pub indexes: Vec<Index>,
    /// Simulated days.
    pub days: Vec<Day>,
    /// Live events.
    #[serde(default)]
    pub live: Option<Live>,
    /// Read replicas.
    #[serde(default)]
    pub replicas: Option<Replicas>,
    /// The example service compared with the platform's API.
    #[serde(default)]
    pub peers: Vec<PeerResult>,
    /// The service compared with hand-written programs.
    #[serde(default)]
    pub drivers: Option<DriverResults>,
}

impl Report {
    /// Adds the measurements of `other` that this report lacks.
    fn add(&mut self, other: Self) {
        let measures: HashSet<_> = self.measures.iter().map(StatementResult::key).collect();
        self.measures.extend(other.measures.into_iter().filter(|measure| !measures.contains(&measure.key())));
        let known: Vec<f64> = self.sizes.iter().map(|size| size.scale).collect();
        self.sizes.extend(other.sizes.into_iter().filter(|size| !known.contains(&size.scale)));
        fn or<T>(list: &mut Vec<T>, other: Vec<T>) {
            if list.is_empty() {
                *list = other;
            }
        }
        or(&mut self.operations, other.operations);
        or(&mut self.evenings, other.evenings);
        or(&mut self.indexes, other.indexes);
        or(&mut self.peers, other.peers);
        // Every run of `compare` simulates a few days by default, so the longest list counts, not the first.
        if other.days.len() > self.days.len() {
            self.days = other.days;
        }
        self.overhead = self.overhead.or(other.overhead);
        self.live = self.live.take().or(other.live);
        self.replicas = self.replicas.take().or(other.replicas);
        self.drivers = self.drivers.take().or(other.drivers);
        self.settings.seconds += other.settings.seconds;
    }
}

/// Merges several reports. Of several with the same measurement, the first counts; the settings are the first report's.
pub fn merge(paths: &[PathBuf]) -> Result<Report, Failure> {
    let mut all: Option<Report> = None;
    for path in paths {
        let report: Report = serde_json::from_slice(&fs::read(path)?)?;
        match &mut all {
            Some(all) => all.add(report),
            None => all = Some(report),
        }
    }
    let mut all = all.unwrap_or_default();
    // The order of the statements is that of the longest list.
    let lists = all.measures.chunk_by(|a, b| a.scale == b.scale);
    let longest = lists.max_by_key(|list| list.len()).unwrap_or_default();
    let order: Vec<String> = longest.iter().map(|one| one.name.clone()).collect();
    let rank = |one: &StatementResult| order.iter().position(|name| *name == one.name);
    all.measures.sort_by(|a, b| a.scale.total_cmp(&b.scale).then(rank(a).cmp(&rank(b))));
    all.sizes.sort_by(|a, b| a.scale.total_cmp(&b.scale));
    Ok(all)
}

/// The machine and the server.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// The server's version.
    pub server: String,
    /// The number of processors.
    pub processors: usize,
    /// Memory in GiB; `None` where the system does not report it.
    pub memory_gib: Option<u64>,
    /// Server settings that affect the results.
    pub postgresql: Vec<(String, String)>,
    /// Duration of the run, in seconds.
    pub seconds: f64,
}

/// Selects the settings that affect the results.
const SETTINGS: &str = "SELECT name, setting || coalesce(' ' || unit, '')
    FROM pg_settings
    WHERE name IN ('shared_buffers', 'wal_level', 'fsync', 'synchronous_commit', 'full_page_writes', 'work_mem', 'jit',
      'effective_cache_size', 'random_page_cost', 'max_wal_size', 'max_connections')
    ORDER BY name";

impl Settings {
    /// Reads the settings from the server and the system.
    pub async fn of(client: &mut Client) -> Result<Self, Failure> {
        let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|meminfo| {
            let kib: u64 = meminfo.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib / 1024 / 1024)
        });
        Ok(Self {
            server: client.value("SHOW server_version").await?,
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory,
            postgresql: client
                .rows(SETTINGS)
                .await?
                .into_iter()
                .filter_map(|row| row.try_into().ok())
                .map(|[a, b]: [String; 2]| (a, b))
                .collect(),
            seconds: 0.0,
        })
    }
}
