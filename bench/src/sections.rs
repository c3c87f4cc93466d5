//! Sections of `performance.md` that a command of its own writes, between markers.

use std::{fmt::Write, fs, path::Path};

use crate::{Failure, report::Report};

/// Writes the report and one section of the page into `folder`; with `docs`, the section also replaces the one of the
/// same name in `docs/performance.md`, or is inserted before the plans.
pub fn write(report: &Report, folder: &Path, docs: bool, name: &str, text: &str) -> Result<(), Failure> {
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    fs::write(folder.join(format!("{name}.md")), text)?;
    if docs {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        let page = fs::read_to_string(&path)?;
        fs::write(path, replace_section(&page, name, text))?;
    }
    Ok(())
}

/// Returns a section between the markers by which a later run finds it.
pub fn section(name: &str, text: &str) -> String {
    format!("\n<!-- {name}: begin -->\n\n{}\n\n<!-- {name}: end -->\n", text.trim())
}

/// Returns the page with the section.
fn replace_section(page: &str, name: &str, text: &str) -> String {
    let new = section(name, text);
    let (begin, end) = (format!("\n<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->\n"));
    if let Some((before, rest)) = page.split_once(&begin)
        && let Some((_, after)) = rest.split_once(&end)
    {
        return format!("{before}{new}{after}");
    }
    match page.split_once("\n## Plans\n") {
        Some((before, after)) => format!("{before}{new}\n## Plans\n{after}"),
        None => format!("{page}{new}"),
    }
}

/// Returns the section about the platform's API.
#[must_use]
pub fn peers(report: &Report) -> String {
    let mut text = PEERS.to_owned();
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
    text
}

const PEERS: &str = "## Next to the platform's API

Written by `cargo run --release -p bench -- peers --out target/peers --docs`. PostgREST and the example service
(`examples/live_session`) are two processes on one database with the same rows, with ten connections each, over HTTP
with kept-alive connections and tokens signed as the platform signs them. Runs alternate; medians. Processor times are
per request: of the API process, and of PostgreSQL, which bounds any API on the same machine. PostgREST cannot compare
two columns, so its lobby also lists full sessions, twenty as well.

| operation | clients | API | requests/s | times | p50 ms | p99 ms | API CPU ms | PostgreSQL CPU ms | bytes |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_inserted_once_and_then_replaced() {
        let page = replace_section("# Page\n\n## Plans\n\nText\n", "peers", "first");
        assert_eq!(page, "# Page\n\n<!-- peers: begin -->\n\nfirst\n\n<!-- peers: end -->\n\n## Plans\n\nText\n");
        let again = replace_section(&page, "peers", "second");
        assert_eq!(again, page.replace("first", "second"));
    }
}
