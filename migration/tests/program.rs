//! The program from its user's point of view: its output, its exit status, and the database after it was killed.

#![allow(missing_docs)]

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use migration::{MANIFEST, Migrator, connect};
use sea_orm_migration::MigratorTrait;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait};
use testdb::{Database, Server};
use tokio::sync::OnceCell;

async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(|| async { Server::open().await.unwrap_or_else(|error| panic!("{error}")) }).await
}

/// Creates an empty database and connects to it as the migration program does.
async fn empty_database() -> (Database, DatabaseConnection) {
    let database = server().await.create_empty().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    (database, db)
}

/// Returns the names of all migrations, in order.
fn migration_names() -> Vec<String> {
    Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect()
}

fn program_command(arguments: &[&str], url: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migration"));
    command.args(arguments).env_remove("DATABASE_URL").env("RUST_BACKTRACE", "1").stdin(Stdio::null());
    if let Some(url) = url {
        command.env("DATABASE_URL", url);
    }
    command
}

fn run(arguments: &[&str], url: Option<&str>) -> Output {
    program_command(arguments, url).output().unwrap()
}

fn stdout_of(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Expects exit status 1 and one sentence without panic, backtrace or password. Returns the sentence.
fn expect_error(arguments: &[&str], url: Option<&str>) -> String {
    let output = run(arguments, url);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.trim_end().ends_with('.'), "{message}");
    for noise in ["panicked", "stack backtrace", "hunter2"] {
        assert!(!message.contains(noise), "{message}");
    }
    message
}

/// Returns what `check` prints when something differs.
fn expect_differences(arguments: &[&str], url: Option<&str>) -> String {
    let output = run(arguments, url);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn scalar<T: sea_orm_migration::sea_orm::TryGetable>(db: &impl ConnectionTrait, sql: &str) -> T {
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// The number of tables in schema `public` once it is migrated, the list of migrations included.
const TABLE_COUNT: i64 = 13;

async fn table_count(db: &DatabaseConnection) -> i64 {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    scalar(db, sql).await
}

#[tokio::test]
async fn each_command_does_what_its_help_says() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    let all = migration_names().len();
    assert_eq!(stdout_of(&run(&["status"], url)).matches("pending").count(), all);
    assert_eq!(expect_differences(&["check"], url).matches("missing: migration").count(), all);
    assert_eq!(table_count(&db).await, 0, "status and check change nothing");
    assert_eq!(stdout_of(&run(&["up", "-n", "1"], url)).matches("applied").count(), 1);
    assert_eq!(stdout_of(&run(&[], url)).matches("applied").count(), all - 1, "up is the default command");
    assert_eq!(stdout_of(&run(&["up"], url)), "nothing to do\n");
    assert_eq!(stdout_of(&run(&["up", "--dry-run"], url)), "-- nothing to do\n");
    assert_eq!(stdout_of(&run(&["status"], url)).matches("applied").count(), all);
    assert_eq!(stdout_of(&run(&["check"], url)), "the database has the schema of this version\n");
    assert_eq!(stdout_of(&run(&["manifest"], url)), MANIFEST);
    assert_eq!(stdout_of(&run(&["down"], url)), format!("undone  {}\n", migration_names().pop().unwrap()), "one step");
    assert_eq!(stdout_of(&run(&["up"], url)).lines().count(), 2);
    assert_eq!(stdout_of(&run(&["refresh"], url)).matches("undone").count(), all);
    assert_eq!(stdout_of(&run(&["fresh"], url)).matches("applied").count(), all);
    assert_eq!(stdout_of(&run(&["reset"], url)).lines().count(), all);
    assert_eq!(table_count(&db).await, 0);
    let output = run(&["--database-url", database.url(), "status"], None);
    assert_eq!(stdout_of(&output).matches("pending").count(), all);
    assert!(stdout_of(&run(&["sql"], None)).contains("CREATE TABLE"), "sql must not need a database");
    let help = stdout_of(&run(&["--help"], None));
    let commands =
        ["up", "check", "status", "sql", "manifest", "down", "reset", "fresh", "refresh", "generate", "--database-url"];
    for command in commands {
        assert!(help.contains(command), "{command}");
    }
    assert!(stdout_of(&run(&["up", "--help"], None)).contains("--dry-run"));
    assert!(stdout_of(&run(&["fresh", "--help"], None)).contains("--yes"));
}

#[tokio::test]
async fn check_prints_each_difference_and_up_prints_each_change() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    stdout_of(&run(&["up"], url));
    db.execute_unprepared(
        "DROP TRIGGER set_updated_at ON users; GRANT SELECT (email) ON users TO anon;
         CREATE POLICY support ON users FOR SELECT TO anon USING (false)",
    )
    .await
    .unwrap();
    let message = expect_differences(&["check"], url);
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 3, "{message}");
    assert!(message.contains("missing: trigger set_updated_at on public.users"), "{message}");
    assert!(message.contains("changed: grant on table public.users to anon, from select ("), "{message}");
    assert!(message.contains("hint: policy support on public.users"), "{message}");
    assert!(stdout_of(&run(&["status"], url)).contains("2 differences"));
    let sql = stdout_of(&run(&["up", "--dry-run"], url));
    assert!(sql.starts_with("BEGIN;") && sql.contains("TRIGGER set_updated_at"), "{sql}");
    assert_eq!(expect_differences(&["check"], url), message, "nothing changed");
    let changes = stdout_of(&run(&["up"], url));
    assert_eq!(
        changes,
        "changed grant on table public.users to anon\ncreated trigger set_updated_at on public.users\n"
    );
    stdout_of(&run(&["check"], url));
}

#[tokio::test]
async fn the_data_of_accounts_is_deleted_only_with_yes() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    stdout_of(&run(&["up"], url));
    db.execute_unprepared("INSERT INTO auth.users (email) VALUES ('ada@x.org')").await.unwrap();
    for command in ["down", "reset", "fresh", "refresh"] {
        let message = expect_error(&[command], url);
        assert!(message.contains("1 account,") && message.contains("--yes"), "{message}");
    }
    assert_eq!(table_count(&db).await, TABLE_COUNT, "nothing changed");
    stdout_of(&run(&["fresh", "--yes"], url));
    db.execute_unprepared("INSERT INTO auth.users (email) VALUES ('ben@x.org')").await.unwrap();
    stdout_of(&run(&["reset", "--yes"], url));
    assert_eq!(table_count(&db).await, 0);
}

#[tokio::test]
async fn an_operators_dependent_object_is_reported() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    stdout_of(&run(&["up"], url));
    db.execute_unprepared("CREATE FUNCTION strongest(attribute) RETURNS text LANGUAGE sql AS 'SELECT $1::text'")
        .await
        .unwrap();
    for command in ["down", "reset", "fresh", "refresh"] {
        assert!(expect_error(&[command], url).contains("function public.strongest(public.attribute)"), "{command}");
    }
    stdout_of(&run(&["check"], url));
}

#[tokio::test]
async fn a_lost_connection_is_reported_and_the_next_up_completes() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    // Holds the lock that the program waits for, and then terminates the program's connection.
    let lock_holder = db.begin().await.unwrap();
    lock_holder.execute_unprepared("SELECT pg_advisory_xact_lock(358434263618)").await.unwrap();
    let child = program_command(&["up"], url).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let other = connect(server().await.url()).await.unwrap();
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name = 'sparc migration' AND wait_event = 'advisory'
                 AND datname = (SELECT datname FROM pg_stat_activity WHERE pid = $1)";
    let pid: i32 = scalar(&lock_holder, "SELECT pg_backend_pid()").await;
    loop {
        let statement = Statement::from_string(DbBackend::Postgres, terminate.replace("$1", &pid.to_string()));
        let terminated: i64 = other.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap();
        if terminated > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("lost") && message.lines().count() == 1, "{message}");
    lock_holder.rollback().await.unwrap();
    stdout_of(&run(&["up"], url));
    stdout_of(&run(&["check"], url));
}

#[tokio::test]
async fn a_missing_url_is_reported() {
    assert!(expect_error(&["up"], None).contains("--database-url"));
    assert!(expect_error(&["up"], Some("")).contains("DATABASE_URL"));
}

#[tokio::test]
async fn an_invalid_url_is_reported() {
    // "postgres://" without anything else is valid: everything has its default.
    for url in ["nonsense", "mysql://root:hunter2@localhost/db", "postgres://a:hunter2@host:port/db"] {
        assert!(expect_error(&["up"], Some(url)).contains("postgres://USER:PASSWORD@HOST:PORT/DATABASE"), "{url}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_reported_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = std::time::Instant::now();
    let message = expect_error(&["up"], Some(&format!("postgres://a:hunter2@127.0.0.1:{port}/db")));
    assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
    assert!(started.elapsed() < Duration::from_secs(10), "it must not keep retrying");
}

#[tokio::test]
async fn a_server_that_never_answers_is_reported() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let message = expect_error(&["up"], Some(&format!("postgres://a:hunter2@127.0.0.1:{port}/db")));
    assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_database_are_reported() {
    let (database, _db) = empty_database().await;
    let (credentials, address) = database.url().split_once('@').unwrap();
    let wrong = format!("{}:hunter2@{address}", credentials.rsplit_once(':').unwrap().0);
    assert!(expect_error(&["up"], Some(&wrong)).contains("does not accept the password of user \"postgres\""));
    let missing = format!("{}/no_such_database", database.url().rsplit_once('/').unwrap().0);
    assert!(expect_error(&["up"], Some(&missing)).contains("createdb no_such_database"));
}

#[tokio::test]
async fn name_collisions_and_unknown_migrations_are_reported() {
    let (database, db) = empty_database().await;
    db.execute_unprepared("CREATE TABLE sessions (id int)").await.unwrap();
    assert!(expect_error(&["up"], Some(database.url())).contains("table public.sessions"));
    db.execute_unprepared("DROP TABLE sessions").await.unwrap();
    stdout_of(&run(&["up"], Some(database.url())));
    db.execute_unprepared("INSERT INTO sparc_migrations VALUES ('m29991231_000001_future', 1)").await.unwrap();
    db.execute_unprepared("UPDATE private.sparc_record SET value = '0.99.0' WHERE name = 'version'").await.unwrap();
    for command in ["up", "down", "reset", "fresh", "status", "check"] {
        let message = expect_error(&[command], Some(database.url()));
        assert!(message.contains("m29991231_000001_future"), "{message}");
        assert!(
            message.contains("0.99.0") && message.contains(env!("CARGO_PKG_VERSION")),
            "both versions must be named: {message}"
        );
    }
}

#[tokio::test]
async fn an_older_program_neither_repairs_a_newer_schema_nor_records_its_own_version() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    stdout_of(&run(&["up"], url));
    db.execute_unprepared("UPDATE private.sparc_record SET value = '0.99.0' WHERE name = 'version'").await.unwrap();
    assert_eq!(stdout_of(&run(&["up"], url)), "nothing to do\n", "the schema is the same");
    for change in ["ALTER TABLE users ALTER COLUMN bio SET DEFAULT 'x'", "ALTER TABLE users RENAME COLUMN bio TO about"]
    {
        db.execute_unprepared(change).await.unwrap();
        for arguments in [&["up"][..], &["up", "--dry-run"]] {
            let message = expect_error(arguments, url);
            assert!(message.contains("0.99.0"), "{change} {arguments:?}: {message}");
        }
    }
    let sql = "SELECT value FROM private.sparc_record WHERE name = 'version'";
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap().unwrap();
    assert_eq!(row.try_get_by_index::<String>(0).unwrap(), "0.99.0");
}

#[tokio::test]
async fn missing_privileges_are_named() {
    let (database, db) = empty_database().await;
    let role = "program_plain";
    db.execute_unprepared(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'hunter2'"))
        .await
        .unwrap();
    let (_, address) = database.url().split_once('@').unwrap();
    let message = expect_error(&["up"], Some(&format!("postgres://{role}:hunter2@{address}")));
    assert!(message.contains("CREATE on database") && message.contains("CREATE on schema public"), "{message}");
    assert_eq!(table_count(&db).await, 0, "nothing changed");
}

#[tokio::test]
async fn eight_concurrent_programs_succeed_and_one_migrates() {
    let (database, _db) = empty_database().await;
    let running: Vec<_> = (0..8)
        .map(|_| program_command(&["up"], Some(database.url())).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let outputs: Vec<String> = running.into_iter().map(|child| stdout_of(&child.wait_with_output().unwrap())).collect();
    assert_eq!(
        outputs.iter().filter(|text| text.matches("applied").count() == migration_names().len()).count(),
        1,
        "{outputs:?}"
    );
    assert_eq!(outputs.iter().filter(|text| *text == "nothing to do\n").count(), 7, "{outputs:?}");
}

#[tokio::test]
async fn after_a_killed_program_the_next_up_completes() {
    for milliseconds in (0..120).step_by(8) {
        let (database, db) = empty_database().await;
        let mut child = program_command(&["up"], Some(database.url())).stdout(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        stdout_of(&run(&["up"], Some(database.url())));
        assert_eq!(table_count(&db).await, TABLE_COUNT, "killed after {milliseconds} ms");
        assert_eq!(stdout_of(&run(&["up"], Some(database.url()))), "nothing to do\n");
    }
}

#[tokio::test]
async fn a_migration_is_generated_in_the_folder_of_the_crate() {
    let folder = std::env::temp_dir().join(format!("sparc-generate-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("src")).unwrap();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs"), folder.join("src/lib.rs")).unwrap();
    let output =
        program_command(&["generate", "add_ratings"], None).env("CARGO_MANIFEST_DIR", &folder).output().unwrap();
    stdout_of(&output);
    let registered = std::fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    let generated: Vec<String> = std::fs::read_dir(folder.join("src"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with("_add_ratings.rs"))
        .collect();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(generated.len(), 1);
    assert!(registered.contains(&format!("Box::new({}::Migration)", generated[0].trim_end_matches(".rs"))));
    assert!(registered.contains("m20261101_000001_platform::Migration"), "the other migrations must stay registered");
    assert!(expect_error(&["generate", "bad-name"], None).contains("bad-name"));
}
