//! Replaces a section of `performance.md` between its markers, so that a command can write only its own section.

use std::{fs, path::Path};

use crate::{Failure, report::Report};

/// Writes `report.json` and one section of `performance.md` into `folder`. If `write_to_docs`, the section is also
/// written to `docs/performance.md`: it replaces the section of the same name, or is inserted before the plans
/// if there is none.
pub fn write(
    report: &Report,
    folder: &Path,
    write_to_docs: bool,
    name: &str,
    text: Option<String>,
) -> Result<(), Failure> {
    let text = text.unwrap_or_default();
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    fs::write(folder.join(format!("{name}.md")), &text)?;
    if write_to_docs {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        let document = fs::read_to_string(&path)?;
        fs::write(path, replace_section(&document, name, &text))?;
    }
    Ok(())
}

/// Encloses a section in markers, by which a later run finds it.
pub fn wrap_in_markers(name: &str, text: &str) -> String {
    format!("\n<!-- {name}: begin -->\n\n{}\n\n<!-- {name}: end -->\n", text.trim())
}

/// Returns the document with the section in place of an earlier section of the same name.
fn replace_section(document: &str, name: &str, text: &str) -> String {
    let marked = wrap_in_markers(name, text);
    let (begin, end) = (format!("\n<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->\n"));
    if let Some((before, rest)) = document.split_once(&begin)
        && let Some((_, after)) = rest.split_once(&end)
    {
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
        let document = replace_section("# Page\n\n## Plans\n\nText\n", "http", "first");
        assert_eq!(document, "# Page\n\n<!-- http: begin -->\n\nfirst\n\n<!-- http: end -->\n\n## Plans\n\nText\n");
        let replaced = replace_section(&document, "http", "second");
        assert_eq!(replaced, document.replace("first", "second"));
    }
}
