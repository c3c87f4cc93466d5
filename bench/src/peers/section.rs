//! The page's section that compares the example service with the platform's API.

use std::fmt::Write;

use super::ApiResult;
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
    text.push_str(LIMITS_HEAD);
    for one in report.peers.iter().filter(|one| one.clients == LIMITS_CLIENTS) {
        let _ = writeln!(text, "| {} | {:.2} | {} |", one.name, one.ratio, limits(&one.postgrest, &one.service));
    }
    Some(text)
}

/// The number of clients for which the limits are computed: enough to keep the processors busy.
const LIMITS_CLIENTS: usize = 8;

/// Returns the ratio that the processor times explain, and the ratio if the service itself used no processor time.
fn limits(postgrest: &ApiResult, service: &ApiResult) -> String {
    let times = (postgrest.api_cpu_ms, postgrest.server_cpu_ms, service.api_cpu_ms, service.server_cpu_ms);
    let (Some(api), Some(server), Some(own), Some(own_server)) = times else { return "- | -".to_owned() };
    format!("{:.2} | {:.2}", (api + server) / (own + own_server), (api + server) / own_server)
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

const LIMITS_HEAD: &str = "
The goals are three times for session details, 2.5 times for a roll, and twice for everything else. What limits them is
PostgreSQL, which does the same work for both: the policies and triggers of this schema, and for a write the log on
disk. With eight clients on busy processors, the ratio is that of the processor times of a request (*explained*). If the
service used no processor time at all, it would be that of PostgREST's whole time to PostgreSQL's time for the service
(*at most*).

| operation | times | explained | at most |
| --- | --- | --- | --- |
";
