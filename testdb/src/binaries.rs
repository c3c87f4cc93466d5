//! Where PostgreSQL's server programs are on this machine.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, npm};

/// The major versions that the schema supports.
pub(crate) const VERSIONS: std::ops::RangeInclusive<u32> = 15..=18;

/// A folder with `initdb`, `pg_ctl` and `postgres`.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub(crate) folder: PathBuf,
}

impl Binaries {
    /// One of them, and of those that come with a client, where it is there.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        // The folder may hold links to some of them alone.
        let real = self.folder.join("postgres").canonicalize().ok()?;
        [self.folder.as_path(), real.parent()?].iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Looks in `PG_BIN`, in `PATH`, and where Debian, Red Hat, Homebrew and Postgres.app put them; else fetches them
    /// with npm, and says so. `PG_VERSION` (15 to 18) asks for that major version.
    ///
    /// # Errors
    ///
    /// Nothing is found and nothing can be fetched, or `PG_BIN` or `PG_VERSION` names what is not there.
    pub fn find() -> Result<Self, Error> {
        let wanted = match env::var("PG_VERSION").ok().filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(
                text.parse().ok().filter(|version| VERSIONS.contains(version)).ok_or(Error::UnknownVersion(text))?,
            ),
        };
        if let Some(folder) = env::var_os("PG_BIN").filter(|folder| !folder.is_empty()) {
            let folder = PathBuf::from(folder);
            return match version(&folder) {
                Some(_) => Ok(Self { folder }),
                None => Err(Error::NotBinaries(folder)),
            };
        }
        let found = folders().into_iter().find(|folder| {
            version(folder).is_some_and(|version| match wanted {
                Some(wanted) => version == wanted,
                None => VERSIONS.contains(&version),
            })
        });
        match found {
            Some(folder) => Ok(Self { folder }),
            None => npm::fetch(wanted.unwrap_or(*VERSIONS.end())),
        }
    }
}

/// Every folder that may hold them, the likeliest first.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    for version in VERSIONS.rev() {
        for place in [
            format!("/usr/lib/postgresql/{version}/bin"),
            format!("/usr/pgsql-{version}/bin"),
            format!("/opt/homebrew/opt/postgresql@{version}/bin"),
            format!("/usr/local/opt/postgresql@{version}/bin"),
            format!("/Applications/Postgres.app/Contents/Versions/{version}/bin"),
        ] {
            folders.push(PathBuf::from(place));
        }
    }
    folders
}

/// The major version of the programs in the folder, if all three are there and run.
pub(crate) fn version(folder: &Path) -> Option<u32> {
    if !["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).is_file()) {
        return None;
    }
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    String::from_utf8_lossy(&output.stdout)
        .split(')')
        .nth(1)?
        .trim()
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// What to install on this system, for the sentence that says so.
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
        return "install PostgreSQL 15 or newer, or npm to fetch it with".to_owned();
    };
    format!("install PostgreSQL 15 or newer ({command}), or npm to fetch it with")
}
