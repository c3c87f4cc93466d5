//! A private cluster (a server that this process starts for itself), and the shell script that supervises it.
//!
//! The supervisor is a separate process, because this process cannot clean up after `kill -9`, and Rust does not drop
//! statics at the end of a test run. The supervisor reads a pipe from this process. When the pipe closes, the
//! supervisor stops the server and removes the server's folder. (The crate `pgtemp` starts servers too, but panics
//! instead of returning an error, needs `sudo` if it runs as root, and leaves the server running after Ctrl-C.)

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use uuid::Uuid;

use crate::{
    binaries::Binaries,
    error::{Error, io_error},
    system_user::{is_root, unprivileged_user},
};

const SUPERVISOR: &str = include_str!("supervisor.sh");

/// Settings of every private cluster. The data need not survive a crash of the machine, so no write waits for the disk.
/// The publication `supabase_realtime` needs `wal_level=logical`.
const SETTINGS: [&str; 6] = [
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=logical",
    "max_connections=200",
    "shared_buffers=128MB",
];

/// A running private cluster. Its server stops when this value is dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Cluster {
    supervisor: Child,
    /// The supervisor's standard input and output. Dropping them closes them, which stops the server. `None` only while
    /// the cluster is being dropped.
    pipes: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    port: u16,
    superuser: &'static str,
    password: String,
}

/// What the supervisor needs to create a standby: the path of the program `pg_basebackup`, and the URL and the password
/// of the primary that `pg_basebackup` copies.
struct StandbySource {
    pg_basebackup: PathBuf,
    primary_url: String,
    /// The password of the primary's superuser, which the standby has too.
    password: String,
}

impl Cluster {
    /// Starts a server with a new cluster.
    pub(crate) fn start(binaries: &Binaries, superuser: &'static str, settings: &[String]) -> Result<Self, Error> {
        Self::start_with_retries(binaries, superuser, settings, None)
    }

    /// Starts a standby that streams from this server.
    pub(crate) fn start_standby(&self, binaries: &Binaries, settings: &[String]) -> Result<Self, Error> {
        let missing_program_error = || Error::Control("the folder of its binaries has no pg_basebackup.".to_owned());
        let pg_basebackup = binaries.program("pg_basebackup").ok_or_else(missing_program_error)?;
        let source =
            StandbySource { pg_basebackup, primary_url: self.url("postgres"), password: self.password.clone() };
        Self::start_with_retries(binaries, self.superuser, settings, Some(&source))
    }

    /// Starts a server: a standby of `source`, or, if that is `None`, a server with a new cluster.
    fn start_with_retries(
        binaries: &Binaries,
        superuser: &'static str,
        settings: &[String],
        source: Option<&StandbySource>,
    ) -> Result<Self, Error> {
        let mut log = String::new();
        // Several attempts are made, because another program may take the free port before the server does.
        for _ in 0..5 {
            match Self::try_start(binaries, superuser, settings, source)? {
                Ok(cluster) => return Ok(cluster),
                Err(log_of_failure) => log = log_of_failure,
            }
            if !log.contains("Address already in use") {
                break;
            }
        }
        Err(Error::Start(log))
    }

    /// Tries once to start the server. The outer error means that no attempt can succeed. The inner error is the log of
    /// a server that did not start; if the log says that the port is in use, another attempt may succeed. `source` is
    /// as in [`Cluster::start_with_retries`].
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
            // Ctrl-C in a terminal ends all processes of this process's group. The supervisor has a group of its own,
            // so that it remains and stops the server.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if is_root() {
            // PostgreSQL refuses to run as root.
            let (user, group) = unprivileged_user()?;
            command.uid(user).gid(group);
        }
        let mut supervisor = command
            .spawn()
            .map_err(io_error("The shell could not be run; PATH must contain the folder of sh, usually /bin"))?;
        let (Some(mut input), Some(output)) = (supervisor.stdin.take(), supervisor.stdout.take()) else {
            return Err(Error::Start("its supervisor has no pipes.".to_owned()));
        };
        let primary_line = source.map_or_else(String::new, |source| format!("{}\n", source.primary_url));
        write!(input, "{password}\n{primary_line}")
            .map_err(io_error("The supervisor of the server accepts no input"))?;

        let mut output = BufReader::new(output);
        let mut answer = String::new();
        output.read_line(&mut answer).map_err(io_error("The output of the server's supervisor could not be read"))?;
        // If the first line is not "ready", the server did not start, and the whole output is its log.
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

    /// Sends a command to the supervisor, and waits until it has been carried out. `supervisor.sh` lists the commands.
    pub(crate) fn send_command(&self, command: &str) -> Result<(), Error> {
        let mut pipes =
            self.pipes.lock().map_err(|_| Error::Control("an earlier command was interrupted.".to_owned()))?;
        let Some((input, output)) = &mut *pipes else {
            return Err(Error::Control("its supervisor has ended.".to_owned()));
        };
        writeln!(input, "{command}").map_err(io_error("The supervisor of the server accepts no input"))?;
        let mut answer = String::new();
        output.read_line(&mut answer).map_err(io_error("The output of the server's supervisor could not be read"))?;
        match answer.trim() {
            "ready" => Ok(()),
            "" => Err(Error::Control("its supervisor has ended.".to_owned())),
            reason => Err(Error::Control(reason.to_owned())),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of a database for the superuser.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_for_role(self.superuser, database)
    }

    /// Returns the URL of a database for a role that has the superuser's password.
    pub(crate) fn url_for_role(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The supervisor ends when its standard input closes, so the pipes must be closed in any case.
        drop(self.pipes.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        // Waits, so that the server and its folder are gone when the caller continues. An error means that the
        // supervisor has already ended.
        let _ = self.supervisor.wait();
    }
}

/// Returns a port of 127.0.0.1 on which nothing listens at the moment.
fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(io_error("No free port was found"))?;
    let address = listener.local_addr().map_err(io_error("No free port was found"))?;
    Ok(address.port())
}
