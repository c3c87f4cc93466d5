//! Runs the migration program and checks its output, its exit status and the database.

#![allow(missing_docs)]

mod connection_errors;

use std::{
    io::{BufRead, BufReader, Read},
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
    let database = server().await.create_unmigrated().await.unwrap();
    let db = connect(database.url()).await.unwrap();
    (database, db)
}

/// Returns the names of all migrations, in order.
fn migration_names() -> Vec<String> {
    Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect()
}

/// Returns the command that runs the program with these arguments, and with `DATABASE_URL` set to `url`, or unset if
/// `url` is `None`.
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

/// Expects that the program succeeded. Returns its standard output.
fn stdout_after_success(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs the program and expects success. Returns its standard output.
fn expect_success(arguments: &[&str], url: Option<&str>) -> String {
    stdout_after_success(&run(arguments, url))
}

/// Runs the program and expects exit status 1, nothing on standard output, and one line on standard error, which ends
/// with a full stop and contains no panic, backtrace or password `hunter2`. Returns that line.
fn expect_error(arguments: &[&str], url: Option<&str>) -> String {
    let output = run(arguments, url);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.trim_end().ends_with('.'), "{message}");
    for unwanted in ["panicked", "stack backtrace", "hunter2"] {
        assert!(!message.contains(unwanted), "{message}");
    }
    message
}

/// Runs the program and expects exit status 1 and nothing on standard error, as from `check` when something differs.
/// Returns the program's standard output.
fn expect_differences(arguments: &[&str], url: Option<&str>) -> String {
    let output = run(arguments, url);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the first column of the first row.
async fn scalar<T: sea_orm_migration::sea_orm::TryGetable>(db: &impl ConnectionTrait, sql: &str) -> T {
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// The number of tables in schema `public` of a migrated database, `sparc_migrations` included.
const TABLE_COUNT: i64 = 13;

async fn table_count(db: &DatabaseConnection) -> i64 {
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
    scalar(db, sql).await
}

/// `generate` has a test of its own, below.
#[tokio::test]
async fn each_command_works_and_the_help_lists_it() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    let migration_count = migration_names().len();
    assert_eq!(expect_success(&["status"], url).matches("pending").count(), migration_count);
    assert_eq!(expect_differences(&["check"], url).matches("missing: migration").count(), migration_count);
    assert_eq!(table_count(&db).await, 0, "status and check must change nothing");
    assert_eq!(expect_success(&["up", "-n", "1"], url).matches("applied").count(), 1);
    assert_eq!(expect_success(&[], url).matches("applied").count(), migration_count - 1, "up is the default command");
    assert_eq!(expect_success(&["up"], url), "nothing to do\n");
    assert_eq!(expect_success(&["up", "--dry-run"], url), "-- nothing to do\n");
    assert_eq!(expect_success(&["status"], url).matches("applied").count(), migration_count);
    assert_eq!(expect_success(&["check"], url), "the database has the schema of this version\n");
    assert_eq!(expect_success(&["manifest"], url), MANIFEST);
    assert_eq!(
        expect_success(&["down"], url),
        format!("undone  {}\n", migration_names().pop().unwrap()),
        "down undoes one migration"
    );
    assert_eq!(
        expect_success(&["up"], url).lines().count(),
        2,
        "one line for the migration, and one for the functions, triggers, policies and views"
    );
    assert_eq!(expect_success(&["refresh"], url).matches("undone").count(), migration_count);
    assert_eq!(expect_success(&["fresh"], url).matches("applied").count(), migration_count);
    assert_eq!(expect_success(&["reset"], url).lines().count(), migration_count, "one line for each migration");
    assert_eq!(table_count(&db).await, 0);
    let arguments = ["--database-url", database.url(), "status"];
    assert_eq!(expect_success(&arguments, None).matches("pending").count(), migration_count);
    assert!(expect_success(&["sql"], None).contains("CREATE TABLE"), "sql must not need a database");
    let help = expect_success(&["--help"], None);
    // The commands are in lines of their own after this heading, up to an empty line.
    let listed_commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let commands =
        ["up", "check", "status", "sql", "manifest", "down", "reset", "fresh", "refresh", "generate", "help"];
    assert_eq!(listed_commands, commands, "{help}");
    assert!(help.lines().any(|line| line.trim_start().starts_with("-u, --database-url ")), "{help}");
    assert!(expect_success(&["up", "--help"], None).contains("--dry-run"));
    assert!(expect_success(&["fresh", "--help"], None).contains("--yes"));
}

/// The policy `support` is an operator's own object, which `check` reports as a hint and not as a difference.
#[tokio::test]
async fn check_prints_each_difference_and_up_prints_each_change() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    expect_success(&["up"], url);
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
    assert!(expect_success(&["status"], url).contains("2 differences"));
    let sql = expect_success(&["up", "--dry-run"], url);
    assert!(sql.starts_with("BEGIN;") && sql.contains("TRIGGER set_updated_at"), "{sql}");
    assert_eq!(expect_differences(&["check"], url), message, "--dry-run must change nothing");
    let changes = expect_success(&["up"], url);
    assert_eq!(
        changes,
        "changed grant on table public.users to anon\ncreated trigger set_updated_at on public.users\n"
    );
    expect_success(&["check"], url);
}

#[tokio::test]
async fn account_data_is_deleted_only_with_the_yes_option() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    expect_success(&["up"], url);
    let insert_account_sql = "INSERT INTO auth.users (email) VALUES ('ada@x.org')";
    db.execute_unprepared(insert_account_sql).await.unwrap();
    for command in ["down", "reset", "fresh", "refresh"] {
        let message = expect_error(&[command], url);
        assert!(message.contains("1 account,") && message.contains("--yes"), "{message}");
    }
    assert_eq!(table_count(&db).await, TABLE_COUNT, "nothing must change without --yes");
    for command in ["fresh", "refresh"] {
        expect_success(&[command, "--yes"], url);
        assert_eq!(scalar::<i64>(&db, "SELECT count(*) FROM users").await, 0, "{command} must delete the account");
        db.execute_unprepared(insert_account_sql).await.unwrap();
    }
    expect_success(&["down", "--yes"], url);
    assert_eq!(table_count(&db).await, 1, "only `sparc_migrations` must be left");
    expect_success(&["up"], url);
    // `down` undoes only the last migration. The first creates `auth.users`, so the account still exists, and `up`
    // creates its profile again.
    assert_eq!(scalar::<i64>(&db, "SELECT count(*) FROM users").await, 1);
    expect_success(&["reset", "--yes"], url);
    assert_eq!(table_count(&db).await, 0);
}

#[tokio::test]
async fn the_schema_is_not_dropped_while_an_operators_object_depends_on_it() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    expect_success(&["up"], url);
    // `attribute` is a type of the schema.
    db.execute_unprepared("CREATE FUNCTION strongest(attribute) RETURNS text LANGUAGE sql AS 'SELECT $1::text'")
        .await
        .unwrap();
    for command in ["down", "reset", "fresh", "refresh"] {
        assert!(expect_error(&[command], url).contains("function public.strongest(public.attribute)"), "{command}");
    }
    expect_success(&["check"], url);
}

#[tokio::test]
async fn a_lost_connection_is_reported_and_the_next_up_completes() {
    let (database, db) = empty_database().await;
    let url = Some(database.url());
    // This transaction holds the advisory lock of the migrators (`LOCK_KEY` in `script.rs`), for which the program
    // waits.
    let lock_holder = db.begin().await.unwrap();
    lock_holder.execute_unprepared("SELECT pg_advisory_xact_lock(358434263618)").await.unwrap();
    let mut child = program_command(&["up"], url).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let superuser_connection = connect(server().await.url()).await.unwrap();
    let holder_pid: i32 = scalar(&lock_holder, "SELECT pg_backend_pid()").await;
    // Other tests run the program on other databases, so only the connection that waits in this database is
    // terminated.
    let terminate_waiting_connection_sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE application_name = 'sparc migration' AND wait_event = 'advisory'
           AND datname = (SELECT datname FROM pg_stat_activity WHERE pid = {holder_pid})"
    );
    while scalar::<i64>(&superuser_connection, &terminate_waiting_connection_sql).await == 0 {
        assert!(child.try_wait().unwrap().is_none(), "the program must wait for the lock");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("lost") && message.lines().count() == 1, "{message}");
    lock_holder.rollback().await.unwrap();
    expect_success(&["up"], url);
    expect_success(&["check"], url);
}

#[tokio::test]
async fn a_program_that_waits_for_another_migrator_says_so_and_names_it() {
    let (database, db) = empty_database().await;
    let lock_holder = db.begin().await.unwrap();
    lock_holder.execute_unprepared("SELECT pg_advisory_xact_lock(358434263618)").await.unwrap();
    let holder_pid: i32 = scalar(&lock_holder, "SELECT pg_backend_pid()").await;
    let mut child =
        program_command(&["up"], Some(database.url())).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut notices = BufReader::new(child.stderr.take().unwrap());
    let mut notice = String::new();
    // Blocks until the program has written a line or has ended.
    notices.read_line(&mut notice).unwrap();
    assert!(notice.contains(&format!("process {holder_pid} ")), "{notice}");
    lock_holder.rollback().await.unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let mut further_notices = String::new();
    notices.read_to_string(&mut further_notices).unwrap();
    assert_eq!(further_notices, "", "the program must say it once");
}

#[tokio::test]
async fn name_collisions_and_unknown_migrations_are_reported() {
    let (database, db) = empty_database().await;
    db.execute_unprepared("CREATE TABLE sessions (id int)").await.unwrap();
    assert!(expect_error(&["up"], Some(database.url())).contains("table public.sessions"));
    db.execute_unprepared("DROP TABLE sessions").await.unwrap();
    expect_success(&["up"], Some(database.url()));
    db.execute_unprepared("INSERT INTO sparc_migrations VALUES ('m29991231_000001_future', 1)").await.unwrap();
    db.execute_unprepared("UPDATE private.sparc_record SET value = '0.99.0' WHERE name = 'version'").await.unwrap();
    for command in ["up", "down", "reset", "fresh", "refresh", "status", "check"] {
        let message = expect_error(&[command], Some(database.url()));
        assert!(message.contains("m29991231_000001_future"), "{message}");
        assert!(
            message.contains("0.99.0") && message.contains(env!("CARGO_PKG_VERSION")),
            "both versions must be named: {message}"
        );
    }
}

/// The recorded version is changed to one that is newer than this program.
#[tokio::test]
async fn an_older_program_neither_repairs_a_newer_schema_nor_records_its_own_version() {
    // One database for each change, because each of the two checks must refuse on its own: the one before repairs, and
    // the one before names are restored.
    for change in ["ALTER TABLE users ALTER COLUMN bio SET DEFAULT 'x'", "ALTER TABLE users RENAME COLUMN bio TO about"]
    {
        let (database, db) = empty_database().await;
        let url = Some(database.url());
        expect_success(&["up"], url);
        db.execute_unprepared("UPDATE private.sparc_record SET value = '0.99.0' WHERE name = 'version'").await.unwrap();
        assert_eq!(expect_success(&["up"], url), "nothing to do\n", "nothing differs");
        db.execute_unprepared(change).await.unwrap();
        for arguments in [&["up"][..], &["up", "--dry-run"]] {
            let message = expect_error(arguments, url);
            assert!(message.contains("0.99.0"), "{change} {arguments:?}: {message}");
        }
        let recorded: String = scalar(&db, "SELECT value FROM private.sparc_record WHERE name = 'version'").await;
        assert_eq!(recorded, "0.99.0", "{change}");
    }
}

#[tokio::test]
async fn missing_privileges_are_named() {
    let (database, db) = empty_database().await;
    let role = "unprivileged_migrator";
    db.execute_unprepared(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'hunter2'"))
        .await
        .unwrap();
    let (_, address_and_database) = database.url().split_once('@').unwrap();
    let message = expect_error(&["up"], Some(&format!("postgres://{role}:hunter2@{address_and_database}")));
    assert!(message.contains("CREATE on database") && message.contains("CREATE on schema public"), "{message}");
    assert_eq!(table_count(&db).await, 0, "nothing must change");
}

#[tokio::test]
async fn eight_concurrent_programs_succeed_and_one_migrates() {
    let (database, _db) = empty_database().await;
    let programs: Vec<_> = (0..8)
        .map(|_| program_command(&["up"], Some(database.url())).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let outputs: Vec<String> =
        programs.into_iter().map(|child| stdout_after_success(&child.wait_with_output().unwrap())).collect();
    assert_eq!(
        outputs.iter().filter(|text| text.matches("applied").count() == migration_names().len()).count(),
        1,
        "{outputs:?}"
    );
    assert_eq!(outputs.iter().filter(|text| *text == "nothing to do\n").count(), 7, "{outputs:?}");
}

#[tokio::test]
async fn after_the_program_is_killed_the_next_up_completes() {
    // Kills the program after 0, 8, 16 ms and so on, in different phases of the migration.
    for milliseconds in (0..120).step_by(8) {
        let (database, db) = empty_database().await;
        let mut child = program_command(&["up"], Some(database.url())).stdout(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        expect_success(&["up"], Some(database.url()));
        assert_eq!(table_count(&db).await, TABLE_COUNT, "killed after {milliseconds} ms");
        assert_eq!(expect_success(&["up"], Some(database.url())), "nothing to do\n");
    }
}

#[tokio::test]
async fn a_migration_is_generated_in_the_folder_of_the_crate() {
    let folder = std::env::temp_dir().join(format!("sparc-generate-{}", std::process::id()));
    let migrations_folder = folder.join("src/migrations");
    std::fs::create_dir_all(&migrations_folder).unwrap();
    let list_before = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/migrations/mod.rs")).unwrap();
    std::fs::write(migrations_folder.join("mod.rs"), &list_before).unwrap();
    let output =
        program_command(&["generate", "add_ratings"], None).env("CARGO_MANIFEST_DIR", &folder).output().unwrap();
    stdout_after_success(&output);
    let list = std::fs::read_to_string(migrations_folder.join("mod.rs")).unwrap();
    let generated_files: Vec<String> = std::fs::read_dir(&migrations_folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with("_add_ratings.rs"))
        .collect();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(generated_files.len(), 1);
    assert!(list.contains(&format!("Box::new({}::Migration)", generated_files[0].trim_end_matches(".rs"))));
    // `generate` adds line breaks and a trailing comma to the list of migrations; `cargo fmt` would remove them. So
    // white space and trailing commas are removed from both texts before they are compared.
    let compact = |text: &str| text.split_whitespace().collect::<String>().replace(",]", "]");
    let module = generated_files[0].trim_end_matches(".rs");
    let list_without_new =
        list.replace(&format!("mod {module};\n"), "").replace(&format!("Box::new({module}::Migration),"), "");
    assert_eq!(compact(&list_without_new), compact(&list_before), "nothing else must change");
    assert!(expect_error(&["generate", "bad-name"], None).contains("bad-name"));
}
