//! The program as its user meets it: what it prints, how it exits, and what it leaves when it is killed.

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
    SERVER.get_or_init(|| async { Server::start().await.unwrap_or_else(|error| panic!("{error}")) }).await
}

async fn empty() -> (Database, DatabaseConnection) {
    let database = server().await.empty().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    (database, db)
}

/// Names of all migrations, in their order.
fn names() -> Vec<String> {
    Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect()
}

fn program(arguments: &[&str], url: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migration"));
    command.args(arguments).env_remove("DATABASE_URL").env("RUST_BACKTRACE", "1").stdin(Stdio::null());
    if let Some(url) = url {
        command.env("DATABASE_URL", url);
    }
    command
}

fn run(arguments: &[&str], url: Option<&str>) -> Output {
    program(arguments, url).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// One clear sentence, a non-zero exit, no panic and no backtrace, and no password.
fn refused(arguments: &[&str], url: Option<&str>) -> String {
    let output = run(arguments, url);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.trim_end().ends_with('.'), "{said}");
    for noise in ["panicked", "stack backtrace", "hunter2"] {
        assert!(!said.contains(noise), "{said}");
    }
    said
}

/// What `check` prints where something differs.
fn differing(arguments: &[&str], url: Option<&str>) -> String {
    let output = run(arguments, url);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn scalar<T: sea_orm_migration::sea_orm::TryGetable>(db: &impl ConnectionTrait, sql: &str) -> T {
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

async fn tables(db: &DatabaseConnection) -> i64 {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn the_commands_do_what_they_say() {
    let (database, db) = empty().await;
    let url = Some(database.url());
    let all = names().len();
    assert_eq!(printed(&run(&["status"], url)).matches("pending").count(), all);
    assert_eq!(differing(&["check"], url).matches("missing: migration").count(), all);
    assert_eq!(tables(&db).await, 0, "status and check change nothing");
    assert_eq!(printed(&run(&["up", "-n", "1"], url)).matches("applied").count(), 1);
    assert_eq!(printed(&run(&[], url)).matches("applied").count(), all - 1, "up is what it does without a command");
    assert_eq!(printed(&run(&["up"], url)), "nothing to do\n");
    assert_eq!(printed(&run(&["up", "--dry-run"], url)), "-- nothing to do\n");
    assert_eq!(printed(&run(&["status"], url)).matches("applied").count(), all);
    assert_eq!(printed(&run(&["check"], url)), "the database has the schema of this version\n");
    assert_eq!(printed(&run(&["manifest"], url)), MANIFEST);
    assert_eq!(printed(&run(&["down"], url)), format!("undone  {}\n", names().pop().unwrap()), "one step");
    assert_eq!(printed(&run(&["up"], url)).lines().count(), 2);
    assert_eq!(printed(&run(&["refresh"], url)).matches("undone").count(), all);
    assert_eq!(printed(&run(&["fresh"], url)).matches("applied").count(), all);
    assert_eq!(printed(&run(&["reset"], url)).lines().count(), all);
    assert_eq!(tables(&db).await, 0);
    let given = run(&["--database-url", database.url(), "status"], None);
    assert_eq!(printed(&given).matches("pending").count(), all);
    assert!(printed(&run(&["sql"], None)).contains("CREATE TABLE"), "the script needs no database");
    let help = printed(&run(&["--help"], None));
    let commands =
        ["up", "check", "status", "sql", "manifest", "down", "reset", "fresh", "refresh", "generate", "--database-url"];
    for command in commands {
        assert!(help.contains(command), "{command}");
    }
    assert!(printed(&run(&["up", "--help"], None)).contains("--dry-run"));
    assert!(printed(&run(&["fresh", "--help"], None)).contains("--yes"));
}

#[tokio::test]
async fn check_exits_with_a_line_for_each_difference_and_up_with_one_for_each_change() {
    let (database, db) = empty().await;
    let url = Some(database.url());
    printed(&run(&["up"], url));
    db.execute_unprepared(
        "DROP TRIGGER set_updated_at ON users; GRANT SELECT (email) ON users TO anon;
         CREATE POLICY support ON users FOR SELECT TO anon USING (false)",
    )
    .await
    .unwrap();
    let said = differing(&["check"], url);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(said.contains("missing: trigger set_updated_at on public.users"), "{said}");
    assert!(said.contains("changed: grant on table public.users to anon, from select ("), "{said}");
    assert!(said.contains("hint: policy support on public.users"), "{said}");
    assert!(printed(&run(&["status"], url)).contains("2 differences"));
    let sql = printed(&run(&["up", "--dry-run"], url));
    assert!(sql.starts_with("BEGIN;") && sql.contains("TRIGGER set_updated_at"), "{sql}");
    assert_eq!(differing(&["check"], url), said, "nothing changed");
    let changes = printed(&run(&["up"], url));
    assert_eq!(
        changes,
        "changed grant on table public.users to anon\ncreated trigger set_updated_at on public.users\n"
    );
    printed(&run(&["check"], url));
}

#[tokio::test]
async fn what_accounts_have_is_deleted_only_if_that_is_said() {
    let (database, db) = empty().await;
    let url = Some(database.url());
    printed(&run(&["up"], url));
    db.execute_unprepared("INSERT INTO auth.users (email) VALUES ('ada@x.org')").await.unwrap();
    for command in ["down", "reset", "fresh", "refresh"] {
        let said = refused(&[command], url);
        assert!(said.contains("1 account,") && said.contains("--yes"), "{said}");
    }
    assert_eq!(tables(&db).await, 13, "nothing changed");
    printed(&run(&["fresh", "--yes"], url));
    db.execute_unprepared("INSERT INTO auth.users (email) VALUES ('ben@x.org')").await.unwrap();
    printed(&run(&["reset", "--yes"], url));
    assert_eq!(tables(&db).await, 0);
}

#[tokio::test]
async fn an_operators_object_in_the_way_is_said_so() {
    let (database, db) = empty().await;
    let url = Some(database.url());
    printed(&run(&["up"], url));
    db.execute_unprepared("CREATE FUNCTION strongest(attribute) RETURNS text LANGUAGE sql AS 'SELECT $1::text'")
        .await
        .unwrap();
    for command in ["down", "reset", "fresh", "refresh"] {
        assert!(refused(&[command], url).contains("function public.strongest(public.attribute)"), "{command}");
    }
    printed(&run(&["check"], url));
}

#[tokio::test]
async fn a_server_that_goes_away_midway_is_said_so_and_the_next_up_completes() {
    let (database, db) = empty().await;
    let url = Some(database.url());
    // Somebody holds what the program will wait for: then its connection is ended.
    let holding = db.begin().await.unwrap();
    holding.execute_unprepared("SELECT pg_advisory_xact_lock(358434263618)").await.unwrap();
    let child = program(&["up"], url).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let server = connect(server().await.url()).await.unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name = 'sparc migration' AND wait_event = 'advisory'
                 AND datname = (SELECT datname FROM pg_stat_activity WHERE pid = $1)";
    let pid: i32 = scalar(&holding, "SELECT pg_backend_pid()").await;
    loop {
        let statement = Statement::from_string(DbBackend::Postgres, end.replace("$1", &pid.to_string()));
        let ended: i64 = server.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap();
        if ended > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("lost") && said.lines().count() == 1, "{said}");
    holding.rollback().await.unwrap();
    printed(&run(&["up"], url));
    printed(&run(&["check"], url));
}

#[tokio::test]
async fn no_address_is_said_so() {
    assert!(refused(&["up"], None).contains("--database-url"));
    assert!(refused(&["up"], Some("")).contains("DATABASE_URL"));
}

#[tokio::test]
async fn an_address_that_does_not_parse_is_said_so() {
    // Of "postgres://" alone, all is left to the defaults.
    for url in ["nonsense", "mysql://root:hunter2@localhost/db", "postgres://a:hunter2@host:port/db"] {
        assert!(refused(&["up"], Some(url)).contains("postgres://USER:PASSWORD@HOST:PORT/DATABASE"), "{url}");
    }
}

#[tokio::test]
async fn nobody_listening_is_said_so_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let begun = std::time::Instant::now();
    let said = refused(&["up"], Some(&format!("postgres://a:hunter2@127.0.0.1:{port}/db")));
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it does not go on knocking");
}

#[tokio::test]
async fn a_listener_that_never_answers_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let said = refused(&["up"], Some(&format!("postgres://a:hunter2@127.0.0.1:{port}/db")));
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_database_are_said_so() {
    let (database, _db) = empty().await;
    let (head, tail) = database.url().split_once('@').unwrap();
    let wrong = format!("{}:hunter2@{tail}", head.rsplit_once(':').unwrap().0);
    assert!(refused(&["up"], Some(&wrong)).contains("does not accept the password of user \"postgres\""));
    let missing = format!("{}/no_such_database", database.url().rsplit_once('/').unwrap().0);
    assert!(refused(&["up"], Some(&missing)).contains("createdb no_such_database"));
}

#[tokio::test]
async fn what_is_not_ours_and_what_is_not_known_is_said_so() {
    let (database, db) = empty().await;
    db.execute_unprepared("CREATE TABLE sessions (id int)").await.unwrap();
    assert!(refused(&["up"], Some(database.url())).contains("table public.sessions"));
    db.execute_unprepared("DROP TABLE sessions").await.unwrap();
    printed(&run(&["up"], Some(database.url())));
    db.execute_unprepared("INSERT INTO sparc_migrations VALUES ('m29991231_000001_future', 1)").await.unwrap();
    db.execute_unprepared("UPDATE private.sparc_record SET value = '0.99.0' WHERE name = 'version'").await.unwrap();
    for command in ["up", "down", "reset", "fresh", "status", "check"] {
        let said = refused(&[command], Some(database.url()));
        assert!(said.contains("m29991231_000001_future"), "{said}");
        assert!(said.contains("0.99.0") && said.contains(env!("CARGO_PKG_VERSION")), "both versions: {said}");
    }
}

#[tokio::test]
async fn a_role_without_the_privileges_is_told_which() {
    let (database, db) = empty().await;
    let role = "program_plain";
    db.execute_unprepared(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'hunter2'"))
        .await
        .unwrap();
    let (_, tail) = database.url().split_once('@').unwrap();
    let said = refused(&["up"], Some(&format!("postgres://{role}:hunter2@{tail}")));
    assert!(said.contains("CREATE on database") && said.contains("CREATE on schema public"), "{said}");
    assert_eq!(tables(&db).await, 0, "nothing changed");
}

#[tokio::test]
async fn eight_programs_at_once_all_succeed_and_one_does_the_work() {
    let (database, _db) = empty().await;
    let running: Vec<_> =
        (0..8).map(|_| program(&["up"], Some(database.url())).stdout(Stdio::piped()).spawn().unwrap()).collect();
    let said: Vec<String> = running.into_iter().map(|child| printed(&child.wait_with_output().unwrap())).collect();
    assert_eq!(said.iter().filter(|text| text.matches("applied").count() == names().len()).count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|text| *text == "nothing to do\n").count(), 7, "{said:?}");
}

#[tokio::test]
async fn a_program_killed_in_the_middle_leaves_a_database_that_the_next_up_finishes() {
    for milliseconds in (0..120).step_by(8) {
        let (database, db) = empty().await;
        let mut killed = program(&["up"], Some(database.url())).stdout(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
        printed(&run(&["up"], Some(database.url())));
        assert_eq!(tables(&db).await, 13, "killed after {milliseconds} ms");
        assert_eq!(printed(&run(&["up"], Some(database.url()))), "nothing to do\n");
    }
}

#[tokio::test]
async fn a_migration_is_generated_where_the_crate_is() {
    let folder = std::env::temp_dir().join(format!("sparc-generate-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("src")).unwrap();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs"), folder.join("src/lib.rs")).unwrap();
    let output = program(&["generate", "add_ratings"], None).env("CARGO_MANIFEST_DIR", &folder).output().unwrap();
    printed(&output);
    let registered = std::fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    let made: Vec<String> = std::fs::read_dir(folder.join("src"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with("_add_ratings.rs"))
        .collect();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(made.len(), 1);
    assert!(registered.contains(&format!("Box::new({}::Migration)", made[0].trim_end_matches(".rs"))));
    assert!(registered.contains("m20261101_000001_platform::Migration"), "the others stay");
    assert!(refused(&["generate", "bad-name"], None).contains("bad-name"));
}
