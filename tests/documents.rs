//! Documents that are made from what the tests see.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Writes the file of `docs/generated/` where `SPARC_WRITE_DOCS` is set; else says whether it is as it would be written.
pub fn assert_up_to_date(name: &str, text: &str, test: &str) {
    let path = root().join("docs/generated").join(name);
    if std::env::var_os("SPARC_WRITE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(text.lines()).find(|(there, seen)| there != seen);
    assert!(
        written == text,
        "docs/generated/{name} is not what was seen: SPARC_WRITE_DOCS=1 cargo test --test integration {test}\n{differs:#?}"
    );
}
