//! One private cluster, and the shell that keeps it.
//!
//! The supervisor is a process of its own, because nothing inside this one survives `kill -9`, and a static is not dropped
//! at the end of a test run. It waits on a pipe from here; when the pipe closes it stops the server and removes its
//! folder. (The crate `pgtemp` embeds a server too, but panics where this returns an error, needs `sudo` as root, and
//! leaves the server running after Ctrl-C.)

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

/// Nothing here is worth a wait for the disk, and logical decoding is what the realtime publication is for.
const SETTINGS: [&str; 6] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=logical",
    "max_connections=200",
    "shared_buffers=128MB",
];

/// A server of our own; it ends when this is dropped, or with the process.
#[derive(Debug)]
pub(crate) struct Cluster {
    supervisor: Child,
    pipe: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    port: u16,
    superuser: &'static str,
    password: String,
}

/// What is made of a running cluster.
struct Copy {
    pg_basebackup: PathBuf,
    /// Address of the primary.
    primary: String,
    password: String,
}

impl Cluster {
    pub(crate) fn start(programs: &Binaries, superuser: &'static str, settings: &[String]) -> Result<Self, Error> {
        Self::start_with(programs, superuser, settings, None)
    }

    /// A standby that streams from this server.
    pub(crate) fn standby(&self, programs: &Binaries, settings: &[String]) -> Result<Self, Error> {
        let without = || Error::Start("these server programs come without pg_basebackup.".to_owned());
        let pg_basebackup = programs.program("pg_basebackup").ok_or_else(without)?;
        let copy = Copy { pg_basebackup, primary: self.url("postgres"), password: self.password.clone() };
        Self::start_with(programs, self.superuser, settings, Some(&copy))
    }

    fn start_with(
        programs: &Binaries,
        superuser: &'static str,
        settings: &[String],
        copy: Option<&Copy>,
    ) -> Result<Self, Error> {
        let mut said = String::new();
        // A free port may be taken before the server has it.
        for _ in 0..5 {
            match Self::try_start(programs, superuser, settings, copy)? {
                Ok(cluster) => return Ok(cluster),
                Err(log) => said = log,
            }
            if !said.contains("Address already in use") {
                break;
            }
        }
        Err(Error::Start(said))
    }

    /// The inner error is what the server said.
    fn try_start(
        programs: &Binaries,
        superuser: &'static str,
        settings: &[String],
        copy: Option<&Copy>,
    ) -> Result<Result<Self, String>, Error> {
        let port = free_port()?;
        let password = copy.map_or_else(|| Uuid::new_v4().simple().to_string(), |copy| copy.password.clone());
        let mut command = Command::new("sh");
        command
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(&programs.folder)
            .arg(port.to_string())
            .arg(superuser)
            .arg(copy.map_or(Path::new(""), |copy| &copy.pg_basebackup))
            .args(SETTINGS)
            .args(settings)
            .current_dir("/")
            // A terminal's Ctrl-C goes to its whole process group; the supervisor has work to do after it.
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
            .map_err(io_error("No shell can be run, and PATH must name the folder of sh, usually /bin"))?;
        let (Some(mut pipe), Some(output)) = (supervisor.stdin.take(), supervisor.stdout.take()) else {
            return Err(Error::Start("the supervisor has no pipes.".to_owned()));
        };
        let primary = copy.map_or_else(String::new, |copy| format!("{}\n", copy.primary));
        write!(pipe, "{password}\n{primary}").map_err(io_error("The supervisor does not listen"))?;

        let mut output = BufReader::new(output);
        let mut said = String::new();
        output.read_line(&mut said).map_err(io_error("The supervisor does not speak"))?;
        if said.trim() == "ready" {
            return Ok(Ok(Self { supervisor, pipe: Mutex::new(Some((pipe, output))), port, superuser, password }));
        }
        output.read_to_string(&mut said).map_err(io_error("The supervisor does not speak"))?;
        supervisor.wait().map_err(io_error("The supervisor does not end"))?;
        Ok(Err(said.trim().to_owned()))
    }

    /// The superuser's password.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Has the supervisor do something with the server, as its head says.
    pub(crate) fn order(&self, order: &str) -> Result<(), Error> {
        let mut pipe = self.pipe.lock().map_err(|_| Error::Start("the supervisor was left waiting.".to_owned()))?;
        let Some((asks, said)) = &mut *pipe else { return Err(Error::Start("the supervisor is gone.".to_owned())) };
        writeln!(asks, "{order}").map_err(io_error("The supervisor does not listen"))?;
        let mut line = String::new();
        said.read_line(&mut line).map_err(io_error("The supervisor does not speak"))?;
        if line.trim() == "ready" { Ok(()) } else { Err(Error::Start(line)) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Address of a database for its superuser.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of(self.superuser, database)
    }

    /// Address of a database for a role with the same password.
    pub(crate) fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(pipe) = self.pipe.get_mut() {
            drop(pipe.take());
        }
        // Waiting, so that nothing is left when the caller looks; a supervisor that is gone has nothing left to do.
        let _ = self.supervisor.wait();
    }
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(io_error("No port is free"))?;
    let address = listener.local_addr().map_err(io_error("No port is free"))?;
    Ok(address.port())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    id(&["-u"]).is_some_and(|id| id == 0)
}

/// User and group that run the server for root: PostgreSQL's own where it was installed, else nobody.
fn unprivileged() -> Result<(u32, u32), Error> {
    ["postgres", "nobody"].iter().find_map(|name| Some((id(&["-u", name])?, id(&["-g", name])?))).ok_or_else(|| {
        Error::Start(
            "PostgreSQL does not run as root, and there is neither a user \"postgres\" nor \"nobody\".".to_owned(),
        )
    })
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

fn io_error(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { what: what.to_owned(), source }
}
