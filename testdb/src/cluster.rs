//! A private cluster, and the shell script that supervises it.
//!
//! The supervisor is a separate process, because nothing in this process survives `kill -9`, and a static is not
//! dropped at the end of a test run. It reads a pipe from this process; when the pipe closes, it stops the server and
//! removes its folder. (The crate `pgtemp` starts a server too, but panics where this returns an error, needs `sudo`
//! for root, and leaves the server running after Ctrl-C.)

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use uuid::Uuid;

use crate::{Binaries, Error};

const SUPERVISOR: &str = include_str!("supervisor.sh");

/// Settings of the server. Its data need not survive a crash of the machine, so nothing waits for the disk; the
/// realtime publication needs logical decoding.
const SETTINGS: [&str; 6] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=logical",
    "max_connections=200",
    "shared_buffers=128MB",
];

/// A private server; it stops when this is dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Cluster {
    supervisor: Child,
    /// The supervisor's standard input and output. Dropping this closes them, which stops the server.
    pipes: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    port: u16,
    superuser: &'static str,
    password: String,
}

/// The running cluster that a standby copies.
struct StandbySource {
    pg_basebackup: PathBuf,
    /// URL of the primary.
    primary: String,
    password: String,
}

impl Cluster {
    pub(crate) fn start(binaries: &Binaries, superuser: &'static str, settings: &[String]) -> Result<Self, Error> {
        Self::start_with(binaries, superuser, settings, None)
    }

    /// Starts a standby that streams from this server.
    pub(crate) fn standby(&self, binaries: &Binaries, settings: &[String]) -> Result<Self, Error> {
        let missing = || Error::Control("its programs come without pg_basebackup.".to_owned());
        let pg_basebackup = binaries.program("pg_basebackup").ok_or_else(missing)?;
        let source = StandbySource { pg_basebackup, primary: self.url("postgres"), password: self.password.clone() };
        Self::start_with(binaries, self.superuser, settings, Some(&source))
    }

    fn start_with(
        binaries: &Binaries,
        superuser: &'static str,
        settings: &[String],
        source: Option<&StandbySource>,
    ) -> Result<Self, Error> {
        let mut log = String::new();
        // Another program may take the free port before the server does.
        for _ in 0..5 {
            match Self::try_start(binaries, superuser, settings, source)? {
                Ok(cluster) => return Ok(cluster),
                Err(failure) => log = failure,
            }
            if !log.contains("Address already in use") {
                break;
            }
        }
        Err(Error::Start(log))
    }

    /// Starts the server once. The outer error prevents every attempt; the inner one is the server's log.
    fn try_start(
        binaries: &Binaries,
        superuser: &'static str,
        settings: &[String],
        source: Option<&StandbySource>,
    ) -> Result<Result<Self, String>, Error> {
        let port = free_port()?;
        let password = source.map_or_else(|| Uuid::new_v4().simple().to_string(), |source| source.password.clone());
        let mut command = Command::new("sh");
        command
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(&binaries.folder)
            .arg(port.to_string())
            .arg(superuser)
            .arg(source.map_or(Path::new(""), |source| &source.pg_basebackup))
            .args(SETTINGS)
            .args(settings)
            .current_dir("/")
            // Ctrl-C in a terminal is sent to the process group, but the supervisor must still stop the server.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if is_root() {
            // PostgreSQL refuses to run as root.
            let (user, group) = unprivileged()?;
            command.uid(user).gid(group);
        }
        let mut supervisor = command
            .spawn()
            .map_err(io_error("The shell could not be run; PATH must contain the folder of sh, usually /bin"))?;
        let (Some(mut input), Some(output)) = (supervisor.stdin.take(), supervisor.stdout.take()) else {
            return Err(Error::Start("its supervisor has no pipes.".to_owned()));
        };
        let primary = source.map_or_else(String::new, |source| format!("{}\n", source.primary));
        write!(input, "{password}\n{primary}").map_err(io_error("The supervisor of the server accepts no input"))?;

        let mut output = BufReader::new(output);
        let mut answer = String::new();
        output.read_line(&mut answer).map_err(io_error("The output of the server's supervisor could not be read"))?;
        if answer.trim() == "ready" {
            return Ok(Ok(Self { supervisor, pipes: Mutex::new(Some((input, output))), port, superuser, password }));
        }
        output
            .read_to_string(&mut answer)
            .map_err(io_error("The output of the server's supervisor could not be read"))?;
        supervisor.wait().map_err(io_error("The server's supervisor did not end"))?;
        Ok(Err(answer.trim().to_owned()))
    }

    /// Returns the superuser's password.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Sends an order to the supervisor; its script lists them.
    pub(crate) fn order(&self, order: &str) -> Result<(), Error> {
        let mut pipes =
            self.pipes.lock().map_err(|_| Error::Control("an earlier order was interrupted.".to_owned()))?;
        let Some((input, output)) = &mut *pipes else {
            return Err(Error::Control("its supervisor has ended.".to_owned()));
        };
        writeln!(input, "{order}").map_err(io_error("The supervisor of the server accepts no input"))?;
        let mut line = String::new();
        output.read_line(&mut line).map_err(io_error("The output of the server's supervisor could not be read"))?;
        if line.trim() == "ready" { Ok(()) } else { Err(Error::Control(line)) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of a database for the superuser.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of(self.superuser, database)
    }

    /// Returns the URL of a database for a role with the same password.
    pub(crate) fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(pipes) = self.pipes.get_mut() {
            drop(pipes.take());
        }
        // Waits, so that nothing is left when the caller continues. If the supervisor has already ended, there is
        // nothing to wait for.
        let _ = self.supervisor.wait();
    }
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(io_error("No free port was found"))?;
    let address = listener.local_addr().map_err(io_error("No free port was found"))?;
    Ok(address.port())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    id(&["-u"]).is_some_and(|id| id == 0)
}

/// Returns the user and group that run the server for root: `postgres` if it exists, else `nobody`.
fn unprivileged() -> Result<(u32, u32), Error> {
    ["postgres", "nobody"].iter().find_map(|name| Some((id(&["-u", name])?, id(&["-g", name])?))).ok_or_else(|| {
        Error::Start(
            "PostgreSQL does not run as root, and this system has neither a user \"postgres\" nor a user \"nobody\"."
                .to_owned(),
        )
    })
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

fn io_error(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |cause| Error::Io { what: what.to_owned(), cause }
}
