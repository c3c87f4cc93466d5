//! The machine, the server and the duration of a run.

use serde::{Deserialize, Serialize};

use crate::{client::Client, failure::Failure};

/// The machine, the server and the duration of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RunInfo {
    /// The server's version.
    pub server_version: String,
    /// The number of processors.
    pub processors: usize,
    /// Memory in GiB; `None` where the system does not report it.
    pub memory_gib: Option<u64>,
    /// Names and values of the server settings that affect the results.
    pub server_settings: Vec<(String, String)>,
    /// Duration of the run in seconds, or the sum of the runs whose reports were merged.
    pub seconds: f64,
}

/// Selects the settings of the server that affect the results.
const SELECT_SETTINGS: &str = "SELECT name, setting || coalesce(' ' || unit, '')
    FROM pg_settings
    WHERE name IN ('shared_buffers', 'wal_level', 'fsync', 'synchronous_commit', 'full_page_writes', 'work_mem', 'jit',
      'effective_cache_size', 'random_page_cost', 'max_wal_size', 'max_connections')
    ORDER BY name";

impl RunInfo {
    /// Reads the information from the server and from the operating system, except `seconds`, which is 0.
    pub async fn read(client: &mut Client) -> Result<Self, Failure> {
        let memory_gib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|meminfo| {
            let kib: u64 = meminfo.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib / 1024 / 1024)
        });
        Ok(Self {
            server_version: client.fetch_value("SHOW server_version").await?,
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib,
            server_settings: client
                .fetch_rows(SELECT_SETTINGS)
                .await?
                .into_iter()
                .filter_map(|row| row.try_into().ok())
                .map(|[name, setting]: [String; 2]| (name, setting))
                .collect(),
            seconds: 0.0,
        })
    }
}
