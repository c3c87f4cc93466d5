//! Helpers for the tests that generate the pages in `docs/generated/` and compare them with the code.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns the root of the workspace.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Asserts that a file in `docs/generated/` has the given text. If `SPARC_WRITE_DOCS` is set, writes the file first.
/// `test` is a part of the name of the calling test, for the command that regenerates the file.
pub fn write_or_assert_up_to_date(name: &str, text: &str, test: &str) {
    let path = workspace_root().join("docs/generated").join(name);
    if std::env::var_os("SPARC_WRITE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let first_difference = found.lines().zip(text.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == text,
        "docs/generated/{name} is out of date; regenerate it with SPARC_WRITE_DOCS=1 cargo test --test integration {test}\n{first_difference:#?}"
    );
}
