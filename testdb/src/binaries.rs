//! A folder with PostgreSQL's server binaries: which programs and which version are in it, and how to install one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A folder with `initdb`, `pg_ctl` and `postgres`.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub(crate) folder: PathBuf,
}

impl Binaries {
    /// Returns the path of a program: one of the server binaries, or a client such as `pg_dump`. `None` if the program
    /// was not installed with the server binaries.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        // The folder may contain links to only some of the programs. The others are in the folder to which the links
        // lead.
        let linked_postgres = self.folder.join("postgres").canonicalize().ok()?;
        [self.folder.as_path(), linked_postgres.parent()?]
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    }
}

/// Returns the major version of the binaries in the folder. `None` if `initdb`, `pg_ctl` or `postgres` is not in it, or
/// `postgres` does not run.
pub(crate) fn major_version(folder: &Path) -> Option<u32> {
    if !["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).is_file()) {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    // The output is like "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
    String::from_utf8_lossy(&output.stdout)
        .split(')')
        .nth(1)?
        .trim()
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Returns a phrase for an error message that says how to install PostgreSQL on this system.
pub(crate) fn install_hint() -> String {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let family: String =
        system.lines().filter(|line| line.starts_with("ID=") || line.starts_with("ID_LIKE=")).collect();
    let command = if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else if family.contains("debian") || family.contains("ubuntu") {
        "apt-get install postgresql"
    } else if family.contains("fedora") || family.contains("rhel") {
        "dnf install postgresql-server"
    } else if family.contains("arch") {
        "pacman -S postgresql"
    } else if family.contains("alpine") {
        "apk add postgresql"
    } else {
        return "install PostgreSQL 15 to 18, or install npm, which can then fetch it".to_owned();
    };
    format!("install PostgreSQL 15 to 18 ({command}), or install npm, which can then fetch it")
}
