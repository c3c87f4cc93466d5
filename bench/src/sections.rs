//! Writes a command's report, and the command's section of `performance.md`. In the page, the section replaces that of
//! an earlier run, or is inserted; the rest of the page stays as it is. Markers (HTML comments) show where each section
//! begins and ends.

use std::{fs, path::Path};

use crate::{failure::Failure, report::Report};

/// Writes the report as `report.json` into `folder`, and next to it `text` as `NAME.md`. `text` is the section of
/// `performance.md` called `name`, or `None` if there are no measurements for it. If `write_to_docs`, also puts the
/// section into `docs/performance.md`; see [`insert_or_replace_section`].
pub fn write_report_and_section(
    report: &Report,
    folder: &Path,
    write_to_docs: bool,
    name: &str,
    text: Option<String>,
) -> Result<(), Failure> {
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    let Some(text) = text else { return Ok(()) };
    fs::write(folder.join(format!("{name}.md")), &text)?;
    if write_to_docs {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        let document = fs::read_to_string(&path)?;
        fs::write(path, insert_or_replace_section(&document, name, &text))?;
    }
    Ok(())
}

/// Returns `text` between the two markers that let a later run find the section.
pub fn wrap_in_markers(name: &str, text: &str) -> String {
    format!("\n<!-- {name}: begin -->\n\n{}\n\n<!-- {name}: end -->\n", text.trim())
}

/// Returns the text of the section called `name`, without its markers, or `None` if the document does not have it.
pub fn find_section<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    split_at_section(document, name).map(|[_, text, _]| text)
}

/// Splits the document into the text before the section called `name`, that of the section, and that after it.
fn split_at_section<'a>(document: &'a str, name: &str) -> Option<[&'a str; 3]> {
    let (before, rest) = document.split_once(&format!("\n<!-- {name}: begin -->\n"))?;
    let (text, after) = rest.split_once(&format!("<!-- {name}: end -->\n"))?;
    Some([before, text.trim(), after])
}

/// Returns the document in which `text` replaces the section called `name`. If there is no such section, `text` is
/// inserted before the heading `## Plans`, or appended if there is no such heading.
fn insert_or_replace_section(document: &str, name: &str, text: &str) -> String {
    let marked = wrap_in_markers(name, text);
    if let Some([before, _, after]) = split_at_section(document, name) {
        return format!("{before}{marked}{after}");
    }
    match document.split_once("\n## Plans\n") {
        Some((before, after)) => format!("{before}{marked}\n## Plans\n{after}"),
        None => format!("{document}{marked}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_inserted_once_and_then_replaced() {
        let document = insert_or_replace_section("# Page\n\n## Plans\n\nText\n", "http", "first");
        assert_eq!(document, "# Page\n\n<!-- http: begin -->\n\nfirst\n\n<!-- http: end -->\n\n## Plans\n\nText\n");
        let replaced = insert_or_replace_section(&document, "http", "second");
        assert_eq!(replaced, document.replace("first", "second"));
        assert_eq!(find_section(&replaced, "http"), Some("second"));
        assert_eq!(find_section(&replaced, "live"), None);
    }
}
