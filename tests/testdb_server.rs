//! The private server of `testdb` (one that only this process uses): it creates migrated databases, leaves nothing
//! behind when the process ends, and returns an error if a command fails.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use sparc::migration::{Migrator, sea_orm_migration::MigratorTrait};
use testdb::{Error, Server};

async fn data_directory(server: &Server) -> String {
    let database = server.create_unmigrated().await.unwrap();
    let db = database.connect(1).await.unwrap();
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, "SHOW data_directory")).await.unwrap();
    db.close().await.unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn nothing_is_left_of_a_server_when_its_last_handle_is_dropped() {
    let server = Server::start_plain(None).await.unwrap();
    let directory = data_directory(&server).await;
    assert!(std::path::Path::new(&directory).exists());
    let url = server.url().to_owned();
    drop(server);
    assert!(!std::path::Path::new(&directory).exists(), "the data directory must be deleted");
    let address = url.rsplit_once('@').and_then(|(_, rest)| rest.split_once('/')).unwrap().0;
    assert!(std::net::TcpStream::connect(address).is_err(), "the server must not listen any more");
}

#[tokio::test]
async fn the_data_directory_is_deleted_after_a_panic() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let outcome = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start_plain(None).await.unwrap();
            sender.send(data_directory(&server).await).unwrap();
            std::panic::resume_unwind(Box::new("a test failed"));
        });
    })
    .join();
    assert!(outcome.is_err());
    assert!(!std::path::Path::new(&receiver.recv().unwrap()).exists());
}

#[tokio::test]
async fn a_migrated_database_has_every_migration() {
    let server = crate::world::server().await;
    let started_at = Instant::now();
    let database = server.create_migrated().await.unwrap();
    assert!(
        started_at.elapsed() < Duration::from_secs(30),
        "creating a database took 30 seconds or more, so something probably waited for a timeout"
    );
    let db = database.connect(1).await.unwrap();
    let query = Statement::from_string(DbBackend::Postgres, "SELECT count(*) FROM sparc_migrations");
    let count: i64 = db.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    assert_eq!(count, Migrator::migrations().len() as i64);
}

/// Starts this test program again, with the given folder as its temporary folder, and with a single test, which starts
/// a server of its own.
fn spawn_test_program(folder: &std::path::Path) -> std::process::Child {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(folder).unwrap();
    // If the tests run as root, the server runs as another user, who must be able to write to this folder.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "testdb_server::a_migrated_database_has_every_migration"])
        .env("TMPDIR", folder)
        .env_remove("DATABASE_URL")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn nothing_is_left_after_ctrl_c_or_a_kill_at_various_moments() {
    for delay_ms in [100, 500, 900, 1400] {
        for signal in ["-INT", "-KILL"] {
            let folder = std::env::temp_dir().join(format!("sparc-left-{}-{delay_ms}{signal}", std::process::id()));
            let mut program = spawn_test_program(&folder);
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            let kill_status = std::process::Command::new("kill").args([signal, &program.id().to_string()]).status();
            assert!(kill_status.unwrap().success());
            program.wait().unwrap();
            // The supervisor (the process that stops the server when the program ends) first finishes its current step
            // and then cleans up. An empty folder alone does not prove that the supervisor has finished, because it may
            // not have created anything yet.
            let signalled_at = Instant::now();
            while is_used_as_temporary_folder(&folder) || std::fs::read_dir(&folder).unwrap().count() > 0 {
                assert!(
                    signalled_at.elapsed() < Duration::from_secs(60),
                    "{signal} after {delay_ms} ms leaves something"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let pgrep_output = std::process::Command::new("pgrep").args(["-f", folder.to_str().unwrap()]).output();
            assert!(pgrep_output.unwrap().stdout.is_empty(), "{signal} after {delay_ms} ms leaves a server");
            std::fs::remove_dir(&folder).unwrap();
        }
    }
}

/// Returns whether a process has the folder as its temporary folder. This searches environments, because the command
/// line of a process that is just starting may not name the folder yet.
fn is_used_as_temporary_folder(folder: &std::path::Path) -> bool {
    let variable = format!("TMPDIR={}\0", folder.display());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
        .any(|environment| environment.windows(variable.len()).any(|window| window == variable.as_bytes()))
}

#[tokio::test]
async fn promoting_a_server_that_is_not_a_standby_returns_an_error() {
    let server = Server::start_plain(None).await.unwrap();
    let outcome = tokio::task::spawn_blocking(move || server.promote()).await.unwrap();
    let Err(Error::Control(reason)) = outcome else { panic!("{outcome:?}") };
    assert!(reason.starts_with("promote: "), "{reason}");
}
