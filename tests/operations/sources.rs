//! The sources of the crate `service`, and the operations that they declare as reads.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::generated_docs::workspace_root;

/// Returns the Rust files of the crate `service`.
pub fn service_sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    find_sources(&workspace_root().join("service/src"), &mut files);
    files
}

/// Collects the Rust files in a folder and its subfolders.
fn find_sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            Some(extension) if extension == "rs" => found.push(path),
            _ if path.is_dir() => find_sources(&path, found),
            _ => {}
        }
    }
}

/// Returns the names of the operations that the sources of the crate `service` declare as reads.
pub fn declared_reads() -> BTreeSet<String> {
    let find_names = |file| {
        let source = fs::read_to_string(file).unwrap();
        let names = source.split("reads \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    // `aggregate.verb` is the example in the documentation of the macro `operation!`.
    service_sources().into_iter().flat_map(find_names).filter(|name| name != "aggregate.verb").collect()
}
