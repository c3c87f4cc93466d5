//! The generated pages in `docs/generated/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns the root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Asserts that a file in `docs/generated/` has the given text; writes it first if `SPARC_WRITE_DOCS` is set.
pub fn assert_up_to_date(name: &str, text: &str, test: &str) {
    let path = root().join("docs/generated").join(name);
    if std::env::var_os("SPARC_WRITE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let difference = written.lines().zip(text.lines()).find(|(written, expected)| written != expected);
    assert!(
        written == text,
        "docs/generated/{name} is out of date; update it: SPARC_WRITE_DOCS=1 cargo test --test integration {test}\n{difference:#?}"
    );
}
