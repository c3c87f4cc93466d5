//! Takes each rule of the schema away in turn and runs the integration tests: `cargo mutants-of-schema [WORD]...`, those
//! whose kind or name holds a word, or all; `new`: those that no test is known to fail for. Writes `docs/generated/mutants.md`: which test fails for each, and which none fails for.
//!
//! A mutant is tried on the test that killed it the last time first, then on all that speak of such rules, then on all.

use std::{
    collections::BTreeMap,
    env, fs, io,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
};

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};

/// Tests that say nothing of the schema's rules: the testdb server, the documents, the migrations' own.
const BESIDE: &[&str] = &[
    "testdb_server::",
    "migrations::",
    "documented::",
    "spans::",
    "pooler::",
    "model::",
    "postgrest::",
    "soak::",
    "faults::",
    "replicas::",
    "plpgsql_check",
];

/// Rules that another one stands before, and why they stay: nothing that a test could see changes without them.
const EQUIVALENT_MUTANTS: &[(&str, &str, &str)] = &[
    (
        "bound",
        "adventures.adventures_max_players_check: 1 and one less",
        "`valid_player_range` and the least of `min_players` say the same",
    ),
    (
        "bound",
        "adventures.adventures_min_players_check: 6 and one more",
        "`valid_player_range` and the most of `max_players` say the same",
    ),
    ("lock", "private.update_user_stats(): 1", "the plan meets the rows in order anyway, which no plan promises"),
    ("lock", "private.update_user_stats(): 2", "the plan meets the rows in order anyway, which no plan promises"),
];

struct Mutant {
    kind: String,
    name: String,
    statement: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(survivors) => {
            eprintln!("{survivors} survive: write the test that is missing, or take the rule out");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize, Box<dyn std::error::Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace")?.to_owned();
    let page = root.join("docs/generated/mutants.md");
    let mutants = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(mutants())?;
    let program = build(&root)?;
    if let Some(test) = failing(&program, "", &[])? {
        return Err(format!("{test} fails with no rule taken away").into());
    }

    let known = read(&page);
    let chosen: Vec<&Mutant> = mutants
        .iter()
        .filter(|mutant| {
            let is_new = known.get(&(mutant.kind.clone(), mutant.name.clone())).is_none_or(String::is_empty);
            words.is_empty()
                || words.iter().any(|word| mutant.kind.contains(word) || mutant.name.contains(word))
                || (is_new && words.iter().any(|word| word == "new"))
        })
        .collect();
    let queue = Mutex::new(chosen.iter());
    let found = Mutex::new(known.clone());
    // Fewer where others work on the same machine.
    let workers = match env::var("SPARC_WORKERS") {
        Ok(wanted) => wanted.parse()?,
        Err(_) => std::thread::available_parallelism()?.get(),
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let next = || queue.lock().ok().and_then(|mut queue| queue.next().copied());
                while let Some(mutant) = next() {
                    let key = (mutant.kind.clone(), mutant.name.clone());
                    let killer =
                        find_killer(&program, mutant, known.get(&key)).unwrap_or_else(|error| Some(error.to_string()));
                    let killer = killer.unwrap_or_default();
                    eprintln!(
                        "{} {}: {}",
                        mutant.kind,
                        mutant.name,
                        if killer.is_empty() { "SURVIVES" } else { &killer }
                    );
                    if let Ok(mut found) = found.lock() {
                        found.insert(key, killer);
                        let _ = write(&page, &mutants, &found);
                    }
                }
            });
        }
    });
    fs::remove_file(&program)?;
    let found = found.into_inner().map_err(|_| "a worker stopped")?;
    write(&page, &mutants, &found)?;
    Ok(chosen
        .iter()
        .filter(|mutant| found.get(&(mutant.kind.clone(), mutant.name.clone())).is_none_or(String::is_empty))
        .count())
}

fn behind(mutant: &Mutant) -> Option<&'static str> {
    EQUIVALENT_MUTANTS
        .iter()
        .find(|(kind, name, _)| *kind == mutant.kind && *name == mutant.name)
        .map(|(_, _, why)| *why)
}

/// What the catalog of a migrated database holds; each statement is tried, and taken back.
async fn mutants() -> Result<Vec<Mutant>, Box<dyn std::error::Error>> {
    let database = testdb::Database::open_migrated().await?;
    let connection = database.connect(1).await?;
    let mut mutants = Vec::new();
    for row in
        connection.query_all_raw(Statement::from_string(DbBackend::Postgres, include_str!("mutants.sql"))).await?
    {
        let mutant = Mutant {
            kind: row.try_get_by_index(0)?,
            name: row.try_get_by_index(1)?,
            statement: row.try_get_by_index(2)?,
        };
        let transaction = connection.begin().await?;
        transaction
            .execute_unprepared(&mutant.statement)
            .await
            .map_err(|error| format!("{} {}: {error}", mutant.kind, mutant.name))?;
        transaction.rollback().await?;
        mutants.push(mutant);
    }
    Ok(mutants)
}

/// The program of the integration tests.
fn build(root: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(["test", "--no-run", "--test", "integration"]).current_dir(root).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let path = said.rsplit_once('(').and_then(|(_, rest)| rest.split_once(')')).ok_or_else(|| said.clone())?.0;
    // A copy: what is built meanwhile takes the place of the other one.
    let copy = env::temp_dir().join(format!("sparc-mutants-{}", std::process::id()));
    fs::copy(root.join(path), &copy)?;
    Ok(copy)
}

/// The first test that fails without the rule.
fn find_killer(program: &Path, mutant: &Mutant, before: Option<&String>) -> io::Result<Option<String>> {
    let speaking: &[&str] = match mutant.kind.as_str() {
        "policy gone" | "policy open" if mutant.name.contains("One statement") => &["sizes::"],
        "policy gone" | "policy open" if mutant.name.contains("Closed accounts") => &["accounts::", "leaks::"],
        "revoke" | "policy gone" | "policy open" | "row security" => &["access::", "catalog::"],
        "not null" | "constraint" | "unique index" => &["catalog::", "refusals::", "bounds::"],
        "bound" => &["bounds::"],
        "trigger" if mutant.name.contains("limit_rows") => &["sizes::"],
        "lock" => &["attacks::", "races::"],
        _ => &["attacks::", "rolls::", "seats::", "sessions::", "events::", "refusals::"],
    };
    if let Some(before) = before.filter(|before| !before.is_empty())
        && let Some(test) = failing(program, &mutant.statement, &[before])?
    {
        return Ok(Some(test));
    }
    match failing(program, &mutant.statement, speaking)? {
        Some(test) => Ok(Some(test)),
        None => failing(program, &mutant.statement, &[]),
    }
}

/// Runs the tests whose names hold one of the words, or all; the first that fails ends it.
fn failing(program: &Path, mutation: &str, words: &[&str]) -> io::Result<Option<String>> {
    let mut command = Command::new(program);
    command.args(words).env("SPARC_SCHEMA_MUTATION", mutation).env("RUST_BACKTRACE", "0");
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    for beside in BESIDE {
        command.args(["--skip", beside]);
    }
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = BufReader::new(running.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
    let mut failed = None;
    for line in lines {
        if let Some(test) = line?.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            failed = Some(test.to_owned());
            break;
        }
    }
    if failed.is_some() {
        running.kill()?;
    }
    let status = running.wait()?;
    // A program that ends badly without naming a test has not said yes either.
    Ok(failed.or_else(|| (!status.success()).then(|| format!("the test program: {status}"))))
}

/// What the page says of each: the test, or nothing.
fn read(page: &Path) -> BTreeMap<(String, String), String> {
    let text = fs::read_to_string(page).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
            let (kind, name, test) = (cells.next()?, cells.next()?, cells.next().unwrap_or_default());
            let bare = |cell: &str| cell.trim().trim_matches('`').to_owned();
            Some(((bare(kind), bare(name)), if test.starts_with("**none**") { String::new() } else { bare(test) }))
        })
        .collect()
}

fn write(page: &Path, mutants: &[Mutant], found: &BTreeMap<(String, String), String>) -> io::Result<()> {
    let of = |mutant: &Mutant| found.get(&(mutant.kind.clone(), mutant.name.clone()));
    let tried = mutants.iter().filter(|mutant| of(mutant).is_some()).count();
    let killed = mutants.iter().filter(|mutant| of(mutant).is_some_and(|test| !test.is_empty())).count();
    let mut text = format!(
        "# Rules taken away\n\nEach rule of the schema was taken away, or loosened by one, and a test failed for it: the one named here. Made by\n\
         `cargo mutants-of-schema`; [testing.md](../testing.md) says how.\n\n{} rules, {tried} tried, {killed} killed.\n\n\
         | kind | rule | test that fails without it |\n| --- | --- | --- |\n",
        mutants.len()
    );
    for mutant in mutants {
        if let Some(test) = of(mutant) {
            let test = match behind(mutant) {
                Some(why) if test.is_empty() => format!("**none**: {why}"),
                _ if test.is_empty() => "**none**".to_owned(),
                _ => format!("`{test}`"),
            };
            text.push_str(&format!("| {} | `{}` | {test} |\n", mutant.kind, mutant.name));
        }
    }
    fs::write(page, text)
}
