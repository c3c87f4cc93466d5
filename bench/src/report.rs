//! What is written as `report.json`.

use std::{collections::HashSet, fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Failure, client::Client, evening::Evening, growth::Size, indexes::Index, life::Day, live::Live, measure::Measured,
    operations::Operated, overhead::Overhead,
};

/// All figures of one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What the machine and the server were.
    pub settings: Settings,
    /// Statements, both schemas side by side.
    pub measures: Vec<Measured>,
    /// Operations of the service, beside pgbench.
    pub operations: Vec<Operated>,
    /// Triggers and policies on a roll.
    pub overhead: Option<Overhead>,
    /// Evenings with more and more tables.
    pub evenings: Vec<Evening>,
    /// Sizes and migrations, at each scale.
    pub sizes: Vec<Size>,
    /// What each index is for, and what it costs.
    pub indexes: Vec<Index>,
    /// The long life.
    pub days: Vec<Day>,
    /// Live events.
    #[serde(default)]
    pub live: Option<Live>,
}

impl Report {
    /// Takes from another what this one does not have.
    fn add(&mut self, other: Self) {
        let measures: HashSet<_> = self.measures.iter().map(Measured::key).collect();
        self.measures.extend(other.measures.into_iter().filter(|measure| !measures.contains(&measure.key())));
        let known: Vec<f64> = self.sizes.iter().map(|size| size.scale).collect();
        self.sizes.extend(other.sizes.into_iter().filter(|size| !known.contains(&size.scale)));
        fn or<T>(own: &mut Vec<T>, other: Vec<T>) {
            if own.is_empty() {
                *own = other;
            }
        }
        or(&mut self.operations, other.operations);
        or(&mut self.evenings, other.evenings);
        or(&mut self.indexes, other.indexes);
        // Every run lives for some days; the longest life tells most.
        if other.days.len() > self.days.len() {
            self.days = other.days;
        }
        self.overhead = self.overhead.or(other.overhead);
        self.live = self.live.take().or(other.live);
        self.settings.seconds += other.settings.seconds;
    }
}

/// Several reports as one; what an earlier one has stands. The settings are the first one's.
pub fn together(paths: &[PathBuf]) -> Result<Report, Failure> {
    let mut all: Option<Report> = None;
    for path in paths {
        let report: Report = serde_json::from_slice(&fs::read(path)?)?;
        match &mut all {
            Some(all) => all.add(report),
            None => all = Some(report),
        }
    }
    let mut all = all.unwrap_or_default();
    // As the longest list has them.
    let lists = all.measures.chunk_by(|a, b| a.scale == b.scale);
    let longest = lists.max_by_key(|list| list.len()).unwrap_or_default();
    let order: Vec<String> = longest.iter().map(|one| one.name.clone()).collect();
    let place = |one: &Measured| order.iter().position(|name| *name == one.name);
    all.measures.sort_by(|a, b| a.scale.total_cmp(&b.scale).then(place(a).cmp(&place(b))));
    all.sizes.sort_by(|a, b| a.scale.total_cmp(&b.scale));
    Ok(all)
}

/// The machine and the server.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// The server's version.
    pub server: String,
    /// Processors.
    pub processors: usize,
    /// Memory, in GiB; none where it cannot be told.
    pub memory_gib: Option<u64>,
    /// Settings of the server that matter.
    pub postgresql: Vec<(String, String)>,
    /// Seconds that the whole run took.
    pub seconds: f64,
}

/// Settings that are told.
const TOLD: &str = "SELECT name, setting || coalesce(' ' || unit, '')
    FROM pg_settings
    WHERE name IN ('shared_buffers', 'wal_level', 'fsync', 'synchronous_commit', 'full_page_writes', 'work_mem', 'jit',
      'effective_cache_size', 'random_page_cost', 'max_wal_size', 'max_connections')
    ORDER BY name";

impl Settings {
    /// Asks the server and the system.
    pub async fn of(client: &mut Client) -> Result<Self, Failure> {
        let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|told| {
            let kib: u64 = told.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib / 1024 / 1024)
        });
        Ok(Self {
            server: client.value("SHOW server_version").await?,
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory,
            postgresql: client
                .rows(TOLD)
                .await?
                .into_iter()
                .filter_map(|row| row.try_into().ok())
                .map(|[a, b]: [String; 2]| (a, b))
                .collect(),
            seconds: 0.0,
        })
    }
}
