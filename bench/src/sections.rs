//! Replaces a section of `performance.md` between its markers, so that a command can write only its own section.

use std::{fs, path::Path};

use crate::{Failure, report::Report};

/// Writes the report and one section of the page into `folder`. With `docs`, the section also replaces the one of the
/// same name in `docs/performance.md`; if there is none, it is inserted before the plans.
pub fn write(report: &Report, folder: &Path, docs: bool, name: &str, text: Option<String>) -> Result<(), Failure> {
    let text = text.unwrap_or_default();
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    fs::write(folder.join(format!("{name}.md")), &text)?;
    if docs {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        let page = fs::read_to_string(&path)?;
        fs::write(path, replace_section(&page, name, &text))?;
    }
    Ok(())
}

/// Puts a section between the markers by which a later run finds it.
pub fn wrap_in_markers(name: &str, text: &str) -> String {
    format!("\n<!-- {name}: begin -->\n\n{}\n\n<!-- {name}: end -->\n", text.trim())
}

/// Returns the page with the section, which replaces an earlier one of the same name.
fn replace_section(page: &str, name: &str, text: &str) -> String {
    let marked = wrap_in_markers(name, text);
    let (begin, end) = (format!("\n<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->\n"));
    if let Some((before, rest)) = page.split_once(&begin)
        && let Some((_, after)) = rest.split_once(&end)
    {
        return format!("{before}{marked}{after}");
    }
    match page.split_once("\n## Plans\n") {
        Some((before, after)) => format!("{before}{marked}\n## Plans\n{after}"),
        None => format!("{page}{marked}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_inserted_once_and_then_replaced() {
        let page = replace_section("# Page\n\n## Plans\n\nText\n", "peers", "first");
        assert_eq!(page, "# Page\n\n<!-- peers: begin -->\n\nfirst\n\n<!-- peers: end -->\n\n## Plans\n\nText\n");
        let replaced = replace_section(&page, "peers", "second");
        assert_eq!(replaced, page.replace("first", "second"));
    }
}
