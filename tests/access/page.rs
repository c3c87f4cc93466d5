//! Writes the tables of the page `docs/generated/access.md`.

use std::fmt::Write;

/// Writes the heading and introduction of a section of the page, and the head of the section's Markdown table.
pub fn write_section_start(page: &mut String, title: &str, introduction: &str, columns: &[&str]) {
    write!(
        page,
        "\n## {title}\n\n{introduction}\n\n| {} |\n|{}\n",
        columns.join(" | "),
        " --- |".repeat(columns.len())
    )
    .unwrap();
}

/// Writes a row of a Markdown table.
pub fn write_row(page: &mut String, cells: &[String]) {
    writeln!(page, "| {} |", cells.join(" | ")).unwrap();
}
