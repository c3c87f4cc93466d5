//! The sections about growth: of the database and of each statement with the scale, and of the table of events with
//! time.

use std::fmt::Write;

use crate::{goals::at_scales_1_and_10, report::Report};

pub(super) fn write_growth(document: &mut String, report: &Report, plots_path: &str) {
    let _ = write!(
        document,
        "\n## Growth\n\n![Each statement as the tables grow]({plots_path}growth.svg)\n\nThis schema \
         was measured alternately with the specification ([Statements](#statements)), and then alone. The plot has the \
         specification's times, and this schema's times when it was measured alone. The latter are also in the \
         table at the end of this section, for scales 1 and 10.\n\nThe next \
         table has the size of the database divided by its number of sessions; the time to build all indexes after \
         loading, except those of constraints; the time that `up` takes on an empty database, and the time that it \
         takes when it runs again on the filled database; and the longest time for which this second `up` was seen to \
         hold an ACCESS EXCLUSIVE lock on a table.\n\n\
         | scale | bytes per session, specification | bytes per session, this schema | building indexes, ms | `up` on \
         the empty database, ms | `up` on the filled database, ms | longest lock, ms | locked table |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for creation in &report.creations {
        let locked_table = match creation.longest_lock_table.as_str() {
            "" => "none".to_owned(),
            table => format!("`{table}`"),
        };
        let _ = writeln!(
            document,
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {locked_table} |",
            creation.scale,
            creation.specification_bytes_per_session,
            creation.ours_bytes_per_session,
            creation.index_builds_ms,
            creation.up_on_empty_database_ms,
            creation.repeated_up_on_filled_database_ms,
            creation.longest_lock_ms
        );
    }
}

/// The maximum number of simulated days that the page lists, evenly spaced. `report.json` has all days.
const MAX_LISTED_DAYS: usize = 12;

pub(super) fn write_days(document: &mut String, report: &Report, plots_path: &str) {
    if !report.days.is_empty() {
        let _ = write!(
            document,
            "\n## Simulated days\n\n![Size of the table of events]({plots_path}days.svg)\n\nA simulated day passes in \
             a minute. Events expire after a simulated day, and the clean-up that runs with each new event deletes the \
             expired ones. To simulate more days and skip most other measurements, run `compare` with \
             `--no-statements --operation-seconds 0 --no-load-test --simulated-days 60`.\n\n\
             | day | events written so far | rows | dead rows | table MiB | indexes MiB | autovacuum runs so far |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        for day in report.days.iter().step_by(report.days.len().div_ceil(MAX_LISTED_DAYS)) {
            let _ = writeln!(
                document,
                "| {:.0} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} |",
                day.elapsed_days,
                day.events_written,
                day.live_rows,
                day.dead_rows,
                day.table_bytes / 1024.0 / 1024.0,
                day.index_bytes / 1024.0 / 1024.0,
                day.autovacuum_runs
            );
        }
    }
}

/// Writes the time and buffers of each statement at scale 1 and at scale 10.
pub(super) fn write_growth_by_statement(document: &mut String, report: &Report) {
    let statements = at_scales_1_and_10(report);
    if statements.is_empty() {
        return;
    }
    document.push_str(
        "\nThe statements of this schema at scales 1 and 10, measured without the specification's statements in \
         between, because those read more as the data grows and would evict pages that a production host, which has no \
         second schema, keeps in memory. Buffers are the mean over sixteen argument sets. The statements \
         whose names begin with *bare row* insert the rows that a roll, an event or a sign-up writes, while triggers \
         and policies are off.\n\n\
         | statement | ms, scale 1 | ms, scale 10 | time ratio | buffers, scale 1 | buffers, scale 10 | buffer \
         ratio |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (at_1, at_10) in statements {
        let _ = writeln!(
            document,
            "| {} | {:.3} | {:.3} | {:.2} | {} | {} | {:.2} |",
            at_10.name,
            at_1.ours_isolated_ms,
            at_10.ours_isolated_ms,
            at_10.ours_isolated_ms / at_1.ours_isolated_ms,
            at_1.buffers,
            at_10.buffers,
            at_10.buffers as f64 / at_1.buffers as f64
        );
    }
}

#[cfg(test)]
mod tests {
    use super::write_growth;
    use crate::report::{CreationResult, Report};

    #[test]
    fn the_locked_table_is_shown_as_none_if_no_lock_was_seen() {
        let creation = CreationResult { scale: 1.0, ..CreationResult::default() };
        let mut page = String::new();
        write_growth(&mut page, &Report { creations: vec![creation], ..Report::default() }, "");
        assert!(page.contains("| 0 | none |\n") && !page.contains("``"), "{page}");
    }
}
