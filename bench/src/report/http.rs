//! The example web service compared with PostgREST, the server of Supabase's HTTP API.

use serde::{Deserialize, Serialize};

/// The results of both APIs for an operation with a number of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HttpComparison {
    /// The operation.
    pub name: String,
    /// Concurrent clients.
    pub clients: usize,
    /// The result of PostgREST.
    pub postgrest: ApiResult,
    /// The result of the example web service.
    pub service: ApiResult,
    /// Requests per second of the web service divided by those of PostgREST.
    pub ratio: f64,
}

/// The result of one API: its run with the median throughput.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ApiResult {
    /// Requests per second.
    pub requests_per_second: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile of the latency in milliseconds.
    pub p99_ms: f64,
    /// Processor time of the API process per request, in milliseconds; `None` where the system does not report it.
    pub api_cpu_ms: Option<f64>,
    /// Processor time of PostgreSQL per request, in milliseconds.
    pub postgresql_cpu_ms: Option<f64>,
    /// Bytes per response, including the headers.
    pub bytes_per_response: f64,
}
