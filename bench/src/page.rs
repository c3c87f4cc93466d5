//! The page of the documents.

use std::{fmt::Write, fs, path::Path};

use crate::{
    Failure,
    goals::{goals, grown},
    plots::plots,
    report::Report,
};

/// Writes report, page and pictures into the folder, and page and pictures into the project's documents.
pub fn write(report: &Report, folder: &Path, docs: bool) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    plots(report, folder)?;
    fs::write(folder.join("performance.md"), page(report, ""))?;
    if docs {
        let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let pictures = documents.join("performance");
        fs::create_dir_all(&pictures)?;
        plots(report, &pictures)?;
        fs::write(documents.join("performance.md"), page(report, "performance/"))?;
    }
    Ok(())
}

/// The whole page; the plots are at that path from it.
fn page(report: &Report, plots: &str) -> String {
    let measured: Vec<String> = scales(report).iter().map(f64::to_string).collect();
    let mut page = HEAD.replace("{scales}", &measured.join(","));
    settings(&mut page, report);
    page.push_str("\n## Goals\n\n| what | asked | measured | |\n| --- | --- | --- | --- |\n");
    for goal in goals(report) {
        let met = if goal.is_met { "met" } else { "**not met**" };
        let _ = writeln!(page, "| {} | {} | {} | {met} |", goal.what, goal.asked, goal.measured);
    }
    page.push_str(LIMITS);
    statements(&mut page, report, plots);
    operations(&mut page, report, plots);
    live(&mut page, report);
    growth(&mut page, report, plots);
    plans(&mut page, report);
    page
}

const HEAD: &str = "# Performance

Made by `cargo run --release -p bench -- compare --scale {scales} --out target/bench --docs`, or by `page` of several such
runs, whose seconds are counted together; [bench](../bench/README.md) says how it measures. The specification's own SQL and this schema stand in one cluster, filled with the same rows, and are
asked in turns. Scale 1 is 200 thousand users, 300 thousand sessions (100 thousand of them in the lobby), 600 thousand seats,
a million rolls and a million events.
";

const LIMITS: &str = "
Where a goal is not met:

- **One event.** The specification's clean-up reads an index of all events, so what is left of its time beside ours depends on
  how many there are; the bare INSERT of an event (below, *Triggers and policies*) is what no design goes under.
- **Beside pgbench.** Client and server share the processors. pgbench reads no answer; the service decodes rows, builds
  statements and cursors, and hands results to their tasks. What that takes is the column *service CPU*. By a profile of it for a
  table's rolls (`perf`, eight clients) 37 percent is the kernel's, for three messages each way. Of the rest, 37 percent decode the
  thousand cells of fifty rolls, 15 allocate (238 allocations, 142 for a lobby page, 193 for a roll: `bench heap`), 13 take the
  driver's messages apart, 8 copy, 6 trace, 5 schedule. Begin, identity, statement and commit in one message of text, tried with
  pgbench, are 5 percent more than the three that are sent.
- **Growth.** A search of the lobby looks until the page is full, at a thousand sessions at most. One in forty-eight matches: at
  scale 1 the first eight hundred happen to hold the twenty-one, at scale 10 the thousand hold twenty, and where they end is looked
  for as well. One that finds nothing looks at a thousand at any size, and takes as long (below, *Growth*). Where a statement asks
  for the own sessions (a table's rolls, events, own sessions), the nine more buffers are the map of visible pages, one for each 32
  thousand pages of seats, taken in turns.
- **Slower than the specification.** There it guards nothing: its events and session details ask nobody who may read them
  (`my_session_ids`, the policy's array, is most of the difference), its profiles show every column, its lobby has no Seer's
  name, its sign-up checks no text and finds no address for who has none. A search of the catalogue looks through a
  thousand from the newest, whether many match or none; the specification's reads eight hundred in less, and with many that match
  it stops at the twenty-first.
";

fn settings(page: &mut String, report: &Report) {
    let settings = &report.settings;
    let memory = settings.memory_gib.map(|memory| format!(", {memory} GiB")).unwrap_or_default();
    let told: Vec<String> = settings.postgresql.iter().map(|(name, setting)| format!("`{name}` {setting}")).collect();
    let _ = write!(
        page,
        "\nLast run: PostgreSQL {}, {} processors{memory}, {:.0} s; {}.\n",
        settings.server,
        settings.processors,
        settings.seconds,
        told.join(", ")
    );
}

fn scales(report: &Report) -> Vec<f64> {
    let mut scales: Vec<f64> = report.measures.iter().map(|measure| measure.scale).collect();
    scales.dedup();
    scales
}

fn statements(page: &mut String, report: &Report, plots: &str) {
    let _ = write!(
        page,
        "\n## Statements\n\n![Each statement, this schema beside the specification's]({plots}statements.svg)\n\n\
         Milliseconds, medians, as the role that asks, under row security, sent and answered on the same machine; writes are \
         rolled back. Where a trigger of this schema tells the table, the specification's client writes the event itself, so \
         that both leave the same behind. `>`: given up after that time.\n"
    );
    for scale in scales(report) {
        let _ = write!(
            page,
            "\n### Scale {scale}\n\n| statement | role | specification | here | times | p99 | in the server | buffers | rows |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        for one in report.measures.iter().filter(|measure| measure.scale == scale) {
            let more = if one.prd_gave_up { "> " } else { "" };
            let _ = writeln!(
                page,
                "| {} | {} | {more}{:.3} | {:.3} | {more}{:.1} | {:.3} | {:.3} | {} | {} |",
                one.name,
                one.role,
                one.prd_ms,
                one.ours_ms,
                one.ratio,
                one.p99_ms,
                one.server_ms,
                one.buffers,
                one.rows
            );
        }
    }
}

fn operations(page: &mut String, report: &Report, plots: &str) {
    if let Some(cost) = report.overhead {
        let _ = write!(
            page,
            "\n## Triggers and policies\n\nA roll as a player makes it takes {:.3} ms, the two INSERTs of finished rows, with \
             keys, checks and indexes but without triggers and policies, {:.3} ms: {:.2} times. An event of a client's own takes \
             {:.3} ms, its bare INSERT {:.3} ms: what no design goes below. Each with the way there and back.\n",
            cost.roll_ms, cost.bare_ms, cost.ratio, cost.event_ms, cost.bare_event_ms
        );
    }
    if !report.operations.is_empty() {
        let _ = write!(
            page,
            "\n## Whole operations\n\n![Operations a second, the service beside pgbench]({plots}operations.svg)\n\n\
             The service, and pgbench with the same statements in the same transactions over the same protocol; client and \
             server share the machine. The service sends begin and identity in one message; pgbench sends two, or, pipelined, \
             one as well. Its client reads no answer and makes nothing of it. Processor time is of one operation, in \
             milliseconds.\n\n\
             | operation | clients | operations/s | pgbench | of it | pipelined | of it | round trips | p50 ms | p99 ms | \
             server CPU | with pgbench | service CPU |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        let cpu = |time: Option<f64>| time.map_or_else(String::new, |time| format!("{time:.3}"));
        for one in &report.operations {
            let _ = writeln!(
                page,
                "| {} | {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.2} | {} | {:.3} | {:.3} | {} | {} | {} |",
                one.name,
                one.clients,
                one.ops_s,
                one.pgbench_ops_s,
                one.ratio,
                one.pgbench_pipelined_ops_s,
                one.ops_s / one.pgbench_pipelined_ops_s,
                one.round_trips,
                one.p50_ms,
                one.p99_ms,
                cpu(one.server_cpu_ms),
                cpu(one.pgbench_server_cpu_ms),
                cpu(one.client_cpu_ms)
            );
        }
    }
    if !report.evenings.is_empty() {
        let _ = write!(
            page,
            "\n## An evening\n\n![A roll at more and more tables]({plots}evening.svg)\n\nTables of six; each rolls every four \
             seconds, and after each roll all six look what is new. A roll is counted from the moment at which it was \
             wanted.\n\n| tables | rolls/s | operations/s | p50 ms | p99 ms | server's processors | service's processors |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        for one in &report.evenings {
            let cpus = |cpus: Option<f64>| cpus.map_or_else(String::new, |cpus| format!("{cpus:.2}"));
            let _ = writeln!(
                page,
                "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {} | {} |",
                one.tables,
                one.rolls_s,
                one.operations_s,
                one.roll_p50_ms,
                one.roll_p99_ms,
                cpus(one.server_cpus),
                cpus(one.client_cpus)
            );
        }
    }
}

fn live(page: &mut String, report: &Report) {
    let Some(live) = &report.live else { return };
    let figure = |figure: Option<f64>| figure.map_or_else(String::new, |figure| format!("{figure:.2}"));
    page.push_str(
        "\n## Live events\n\nMade by `cargo run --release -p bench -- live --out target/live`. A thousand people listen to 250 sessions \
         from a process of their own. Writers with something and without it are measured in short turns, because the machine does \
         other things as well; the loss is the median of the pairs. The processor time of the server is that of one roll, with what \
         the listening costs it in it.\n\n\
         | beside the writers | clients | rolls/s without | with | loss % | server CPU ms without | with |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let poller = live.writers.iter().map(|writers| ("a thousand who listen", writers));
    let others = live.candidates.iter().flat_map(|one| one.writers.iter().map(|writers| (one.name.as_str(), writers)));
    for (name, one) in poller.chain(others) {
        let _ = writeln!(
            page,
            "| {name} | {} | {:.0} | {:.0} | {:.1} | {} | {} |",
            one.clients,
            one.without_ops_s,
            one.with_ops_s,
            one.loss_percent,
            figure(one.without_cpu_ms),
            figure(one.with_cpu_ms)
        );
    }
    page.push_str(
        "\nFrom the call that writes an event, its own time and its commit included, to each subscriber in the other process, \
         milliseconds:\n\n| writers | p50 | p95 | p99 | events that arrived |\n| --- | --- | --- | --- | --- |\n",
    );
    for (name, one) in
        [("at human speed", live.at_human_speed), ("beside eight who roll as fast as they can", live.under_load)]
    {
        let _ =
            writeln!(page, "| {name} | {:.1} | {:.1} | {:.1} | {} |", one.p50_ms, one.p95_ms, one.p99_ms, one.count);
    }
    let _ = write!(
        page,
        "\nWhile nothing happens, the thousand cost the server {} percent of a processor ({} without them) and their process {}.\n",
        figure(live.idle.server_percent),
        figure(live.idle.server_alone_percent),
        figure(live.idle.process_percent)
    );
    if let Some(one) = live.broadcast {
        let _ = write!(
            page,
            "\nA broadcast adds {:.3} ms to a roll of {:.3} ms, on the stand-in for the platform (`tests/platform.sql`).\n",
            one.with_ms - one.without_ms,
            one.without_ms
        );
    }
    if live.listening.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "\nAn evening as above, in which each of the six has a stream: it bears {} tables, with polling {} on the same day.\n\n\
         | the six | tables | rolls/s | p50 ms | p99 ms | seen by all, p50 | p99 | server's processors | service's processors |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        live.borne.0, live.borne.1
    );
    let listening = live.listening.iter().map(|evening| ("listen", evening));
    for (name, one) in listening.chain(live.polling.iter().map(|evening| ("look", evening))) {
        let _ = writeln!(
            page,
            "| {name} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} |",
            one.tables,
            one.rolls_s,
            one.roll_p50_ms,
            one.roll_p99_ms,
            one.seen_p50_ms,
            one.seen_p99_ms,
            figure(one.server_cpus),
            figure(one.client_cpus)
        );
    }
}

/// So many uses of an index are told by name; the report has all.
const USES: usize = 4;

/// What each index is for. Those that nothing reads are told by their emptiness.
fn indexes(page: &mut String, report: &Report) {
    let Some(size) = report.sizes.iter().find(|size| size.scale == 1.0).or(report.sizes.first()) else { return };
    let _ = write!(
        page,
        "\n## Indexes\n\nAt scale {}: what reads each (measured statements, with the functions and policies in them; constraints; \
         what else there is), its size, how long it takes to build after loading, and what it adds to a row that is \
         written, by writing the same rows with it and without. *Carried* is what the specification names and nothing \
         of ours reads.\n\n\
         | table | index | read by | MiB | ms to build | µs a row |\n| --- | --- | --- | --- | --- | --- |\n",
        size.scale
    );
    for index in &report.indexes {
        let built = size.indexes.iter().find(|built| built.index == index.name);
        let mut used_by = index.used_by.iter().take(USES).map(String::as_str).collect::<Vec<_>>().join("; ");
        match index.used_by.len() {
            0 => used_by.push_str("*carried*"),
            more if more > USES => used_by.push_str(&format!("; and {} more", more - USES)),
            _ => (),
        }
        let _ = writeln!(
            page,
            "| `{}` | `{}` | {used_by} | {:.1} | {} | {} |",
            index.table,
            index.name,
            index.bytes / 1024.0 / 1024.0,
            built.map_or_else(String::new, |built| format!("{:.0}", built.ms)),
            index.write_us.map_or_else(String::new, |cost| format!("{cost:.1}"))
        );
    }
}

fn growth(page: &mut String, report: &Report, plots: &str) {
    let _ = write!(
        page,
        "\n## Growth\n\n![Each statement as the tables grow]({plots}growth.svg)\n\n\
         | scale | bytes a session, specification | here | building indexes ms | `up`, empty ms | `up`, full ms | longest lock \
         ms | of |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for size in &report.sizes {
        let _ = writeln!(
            page,
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | `{}` |",
            size.scale,
            size.prd_bytes_session,
            size.ours_bytes_session,
            size.indexes_ms,
            size.up_empty_ms,
            size.up_full_ms,
            size.longest_lock_ms,
            size.longest_lock_of
        );
    }
    growing(page, report);
    indexes(page, report);
    if !report.days.is_empty() {
        let _ = write!(
            page,
            "\n## A long life\n\n![Size of the events' table]({plots}life.svg)\n\nEvents are written and expire after a day \
             of the game, which passes in a minute; the clean-up that comes with each event takes the old ones. So many days are \
             run by themselves: `--only nothing --operations 0 --no-evening --life 60`.\n\n\
             | day | written | rows | dead | table MiB | indexes MiB | vacuumed |\n| --- | --- | --- | --- | --- | --- | --- \
             |\n"
        );
        let step = report.days.len().div_ceil(12);
        for day in report.days.iter().step_by(step) {
            let _ = writeln!(
                page,
                "| {:.0} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} |",
                day.day,
                day.written,
                day.live,
                day.dead,
                day.table_bytes / 1024.0 / 1024.0,
                day.index_bytes / 1024.0 / 1024.0,
                day.vacuumed
            );
        }
    }
}

/// What each statement takes and touches at scale 10, beside scale 1.
fn growing(page: &mut String, report: &Report) {
    let grown = grown(report);
    if grown.is_empty() {
        return;
    }
    page.push_str(
        "\nThis schema by itself, without the other side in turns: what the specification's statements read grows with the world, \
         and drives out of memory and caches what a host of its own would keep. Buffers are a mean over sixteen places. The bare \
         rows go into the same tables without triggers and policies.\n\n\
         | statement | ms at 1 | at 10 | times | buffers at 1 | at 10 | times |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (small, big) in grown {
        let _ = writeln!(
            page,
            "| {} | {:.3} | {:.3} | {:.2} | {} | {} | {:.2} |",
            big.name,
            small.alone_ms,
            big.alone_ms,
            big.alone_ms / small.alone_ms,
            small.buffers,
            big.buffers,
            big.buffers as f64 / small.buffers as f64
        );
    }
}

fn plans(page: &mut String, report: &Report) {
    let Some(scale) = scales(report).into_iter().next_back() else { return };
    page.push_str("\n## Plans\n\n");
    let flips: Vec<String> = report
        .measures
        .iter()
        .filter(|one| {
            report.measures.iter().any(|other| other.name == one.name && other.plan_hash != one.plan_hash)
                || one.plan_hash != one.generic_plan_hash
        })
        .map(|one| format!("{} (scale {}: {}, generic {})", one.name, one.scale, one.plan_hash, one.generic_plan_hash))
        .collect();
    if flips.is_empty() {
        page.push_str("The same at every scale, with the values known and with one plan for all.\n");
    } else {
        page.push_str("Not the same at every scale, or with one plan for all values:\n\n");
        for flip in flips {
            let _ = writeln!(page, "- {flip}");
        }
    }
    let _ = writeln!(page, "\nOf scale {scale}, as the role that asks:");
    for one in report.measures.iter().filter(|measure| measure.scale == scale) {
        let _ = write!(page, "\n### {}\n\n```text\n{}\n```\n", one.name, one.plan.text);
    }
}
