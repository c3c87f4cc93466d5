//! The operating system's users: who runs this process, and who runs the server if that is root.

use std::process::Command;

use crate::error::Error;

/// Returns whether this process runs as root.
pub(crate) fn is_root() -> bool {
    numeric_id(&["-u"]).is_some_and(|id| id == 0)
}

/// Returns the ids of the user and group that run the server if this process runs as root: `postgres` if that user
/// exists, else `nobody`.
pub(crate) fn unprivileged_user() -> Result<(u32, u32), Error> {
    const NO_USER_MESSAGE: &str =
        "PostgreSQL does not run as root, and this system has neither a user \"postgres\" nor a user \"nobody\".";
    let ids = |name: &str| Some((numeric_id(&["-u", name])?, numeric_id(&["-g", name])?));
    ["postgres", "nobody"].into_iter().find_map(ids).ok_or_else(|| Error::Start(NO_USER_MESSAGE.to_owned()))
}

/// Runs the program `id`, which prints the numeric ids of a user, and returns the number that it prints for these
/// arguments.
fn numeric_id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}
