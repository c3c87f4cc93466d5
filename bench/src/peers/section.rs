//! The page's section that compares the example service with the platform's API.

use std::fmt::Write;

use crate::report::Report;

/// Returns the section, if there are measurements.
pub fn section(report: &Report) -> Option<String> {
    if report.peers.is_empty() {
        return None;
    }
    let mut text = HEAD.to_owned();
    for one in &report.peers {
        for (api, of) in [("PostgREST", &one.postgrest), ("service", &one.service)] {
            let cpu = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}"));
            let ratio = if api == "service" { format!("{:.2}", one.ratio) } else { String::new() };
            let _ = writeln!(
                text,
                "| {} | {} | {api} | {:.0} | {ratio} | {:.2} | {:.2} | {} | {} | {:.0} |",
                one.name,
                one.clients,
                of.requests_s,
                of.p50_ms,
                of.p99_ms,
                cpu(of.api_cpu_ms),
                cpu(of.server_cpu_ms),
                of.bytes
            );
        }
    }
    Some(text)
}

const HEAD: &str = "## Next to the platform's API

Written by `cargo run --release -p bench -- peers --out target/peers --docs`. PostgREST and the example service
(`examples/live_session`) are two processes on one database with the same rows, with ten connections each, over HTTP
with kept-alive connections and tokens signed as the platform signs them. Runs alternate; the values are medians.
Processor times are per request: of the API process, and of PostgreSQL, which limits any API on the same machine.
PostgREST cannot compare two columns, so its lobby includes full sessions; it also returns twenty rows.

| operation | clients | API | requests/s | times | p50 ms | p99 ms | API CPU ms | PostgreSQL CPU ms | bytes |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";
