//! `cargo mutants-of-schema [WORD]...`: the mutation test of the schema. A *mutant* is the schema with one rule removed
//! or loosened. It is *killed* if an integration test fails on it (that test is its *killer*), and *survives*
//! otherwise. The program writes `docs/generated/mutants.md`, which lists the killer of each mutant.
//!
//! If words are given, the program tries only the mutants whose kind or name contains one of them. The word `new` is
//! special: it selects the mutants that have no known killer, except those in `EQUIVALENT_MUTANTS`. If `new` is given
//! together with other words, the program tries only the mutants that meet both conditions.
//!
//! On each mutant, the program first runs the likely tests: the test that killed it last time, then the tests that
//! killed other mutants of the same function, then the tests for rules of its kind. At the end, it runs all tests
//! (except `SKIPPED_TESTS`) on the mutants that survived the likely ones.

mod exceptions;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
};

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};

use exceptions::{EQUIVALENT_MUTANTS, SKIPPED_TESTS};

struct Mutant {
    /// The kind of the rule, such as `trigger`. `mutants.sql` lists the kinds.
    kind: String,
    /// The name of the rule, which is unique among the rules of its kind.
    name: String,
    /// The statement that removes or loosens the rule.
    statement: String,
}

impl Mutant {
    fn key(&self) -> (String, String) {
        (self.kind.clone(), self.name.clone())
    }
}

/// The name of the test that kills each mutant, by the mutant's kind and name: an empty string if the mutant survives
/// all tests, and no entry if it has never been tried.
type Killers = BTreeMap<(String, String), String>;

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(survivors) => {
            eprintln!("{survivors} mutants survive: write the missing test, or remove the rule");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the mutation test. Returns the number of mutants that survive although a test should detect them.
fn run() -> Result<usize, Box<dyn std::error::Error>> {
    let mut words: Vec<String> = env::args().skip(1).collect();
    let only_needing_killer = words.iter().any(|word| word == "new");
    words.retain(|word| word != "new");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace folder was not found")?;
    let page = workspace.join("docs/generated/mutants.md");
    let mutants = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(list_mutants())?;
    let test_program = build_tests(workspace)?;
    let outcome = run_tests_on_mutants(&test_program, &mutants, &page, &words, only_needing_killer);
    fs::remove_file(&test_program)?;
    outcome
}

/// Runs the tests on the mutants that the words select. Returns the number of mutants that survive although a test
/// should detect them.
fn run_tests_on_mutants(
    test_program: &Path,
    mutants: &[Mutant],
    page: &Path,
    words: &[String],
    only_needing_killer: bool,
) -> Result<usize, Box<dyn std::error::Error>> {
    if let Some(test) = first_failing_test(test_program, "", &[])? {
        return Err(format!("{test} fails although no rule was removed").into());
    }

    let known_killers = read_killers(page);
    let selected_mutants: Vec<&Mutant> = mutants
        .iter()
        .filter(|mutant| {
            let needs_killer = reason_for_equivalence(mutant).is_none()
                && known_killers.get(&mutant.key()).is_none_or(String::is_empty);
            let contains_word = |word: &String| mutant.kind.contains(word) || mutant.name.contains(word);
            (needs_killer || !only_needing_killer) && (words.is_empty() || words.iter().any(contains_word))
        })
        .collect();
    if selected_mutants.is_empty() && !only_needing_killer {
        return Err(format!("no rule has one of these words in its kind or name: {}", words.join(" ")).into());
    }
    let killers = Mutex::new(known_killers.clone());
    // The mutants whose last attempt failed because the tests could not be run.
    let untested = Mutex::new(BTreeSet::new());
    let mut unkilled: Vec<&Mutant> = selected_mutants.clone();
    for tests in [Tests::Likely, Tests::All] {
        unkilled = find_unkilled(unkilled, |mutant| {
            let killer = match find_killer(test_program, mutant, &known_killers, tests) {
                Ok(killer) => killer,
                Err(error) => {
                    // The tests could not be run, which says nothing about the mutant. If this also happens with
                    // `Tests::All`, the mutant's line on the page stays as it was.
                    eprintln!("{} {}: {error}", mutant.kind, mutant.name);
                    if let Ok(mut untested) = untested.lock() {
                        untested.insert(mutant.key());
                    }
                    return false;
                }
            };
            eprintln!("{} {}: {}", mutant.kind, mutant.name, killer.as_deref().unwrap_or(tests.survival_message()));
            let is_killed = killer.is_some();
            if let Ok(mut untested) = untested.lock() {
                untested.remove(&mutant.key());
            }
            if let Ok(mut killers) = killers.lock()
                && (is_killed || tests == Tests::All)
            {
                killers.insert(mutant.key(), killer.unwrap_or_default());
                let _ = write_page(page, mutants, &killers);
            }
            is_killed
        })?;
    }
    let killers = killers.into_inner().map_err(|_| "a thread panicked")?;
    write_page(page, mutants, &killers)?;
    if untested.into_inner().map_or(true, |untested| !untested.is_empty()) {
        return Err("the tests could not be run on every mutant".into());
    }
    let still_needs_killer = |mutant: &&&Mutant| {
        reason_for_equivalence(mutant).is_none() && killers.get(&mutant.key()).is_none_or(String::is_empty)
    };
    Ok(selected_mutants.iter().filter(still_needs_killer).count())
}

/// The tests that are run on a mutant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tests {
    /// The test that killed the mutant last time, the tests that killed other mutants of the same function, and the
    /// tests for rules of the same kind.
    Likely,
    /// All tests, except [`SKIPPED_TESTS`].
    All,
}

impl Tests {
    fn survival_message(self) -> &'static str {
        match self {
            Self::Likely => "survives the likely tests",
            Self::All => "SURVIVES",
        }
    }
}

/// Calls `try_to_kill` for each mutant, in several threads, and returns the mutants for which it returns `false`: those
/// that survive, and those on which the tests could not be run.
fn find_unkilled(
    mutants: Vec<&Mutant>,
    try_to_kill: impl Fn(&Mutant) -> bool + Sync,
) -> Result<Vec<&Mutant>, Box<dyn std::error::Error>> {
    // SPARC_WORKERS can reduce the load on a machine that is also used for other work.
    let thread_count = match env::var("SPARC_WORKERS") {
        Ok(text) => text.parse::<std::num::NonZeroUsize>()?.get(),
        Err(_) => std::thread::available_parallelism()?.get(),
    };
    let queue = Mutex::new(mutants.into_iter());
    let unkilled = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..thread_count {
            scope.spawn(|| {
                let next = || queue.lock().ok().and_then(|mut queue| queue.next());
                while let Some(mutant) = next() {
                    if !try_to_kill(mutant)
                        && let Ok(mut unkilled) = unkilled.lock()
                    {
                        unkilled.push(mutant);
                    }
                }
            });
        }
    });
    Ok(unkilled.into_inner().map_err(|_| "a thread panicked")?)
}

/// Returns why no test can detect the mutant. `None` if a test should detect it.
fn reason_for_equivalence(mutant: &Mutant) -> Option<&'static str> {
    EQUIVALENT_MUTANTS
        .iter()
        .find(|(kind, name, _)| *kind == mutant.kind && *name == mutant.name)
        .map(|(_, _, reason)| *reason)
}

/// Returns the mutants of a migrated database. Each statement is run once and rolled back, to check that it succeeds.
async fn list_mutants() -> Result<Vec<Mutant>, Box<dyn std::error::Error>> {
    let database = testdb::Database::open_and_migrate().await?;
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

/// Builds the integration tests, and returns the path of a copy of the program that runs them.
fn build_tests(workspace: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["test", "--no-run", "--test", "integration"]).current_dir(workspace);
    let output = build.output()?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(log.into());
    }
    // The last line of the log ends with the path of the program, in parentheses.
    let path = log.rsplit_once('(').and_then(|(_, rest)| rest.split_once(')')).ok_or_else(|| log.clone())?.0;
    // The copy is needed because another build would replace the program.
    let copy = env::temp_dir().join(format!("sparc-mutants-{}", std::process::id()));
    fs::copy(workspace.join(path), &copy)?;
    Ok(copy)
}

/// Runs the tests on the mutant until one fails, and returns the name of that test. `None` if the mutant survives them.
fn find_killer(
    test_program: &Path,
    mutant: &Mutant,
    known_killers: &Killers,
    tests: Tests,
) -> io::Result<Option<String>> {
    if tests == Tests::All {
        return first_failing_test(test_program, &mutant.statement, &[]);
    }
    // Parts of the names of the tests for rules of this kind. The tests of the second list run only if no test of the
    // first list fails.
    let name_parts_of_kind: [&[&str]; 2] = match mutant.kind.as_str() {
        // The policies that limit how many rows a statement writes, and those that refuse closed accounts, are
        // recognized by their names.
        "policy gone" | "policy open" if mutant.name.contains("One statement") => {
            [&["every_table::", "changed_rows_per_statement::"], &["inserted_rows_and_sizes::"]]
        }
        "policy gone" | "policy open" if mutant.name.contains("Closed accounts") => {
            [&["every_table::"], &["accounts::"]]
        }
        "grant" | "policy gone" | "policy open" | "row security" => {
            [&["schema_rules::", "access::the_page_about_access"], &["access::"]]
        }
        "not null" | "constraint" | "unique index" | "bound" => [
            &["bounds::", "counters::", "schema_rules::", "refusals::"],
            &[
                "limits::",
                "unusual_texts::",
                "names::",
                "urls::",
                "archive::",
                "accounts::",
                "adventures::",
                "characters::",
                "privacy::",
            ],
        ],
        "trigger" if mutant.name.contains(".limit_") => {
            [&["inserted_rows_and_sizes::", "attacks::changed_rows_per_statement::"], &["attacks::closing::"]]
        }
        "lock" => [
            &["attacks::lock_order::", "attacks::deadlocks::", "attacks::starvation::"],
            &["races::", "maintenance::", "accounts::", "sign_ups::", "idempotency::", "attacks::"],
        ],
        _ => [
            &[
                "schema_rules::",
                "refusals::",
                "rolls::",
                "seats::",
                "joining::",
                "sessions::",
                "events::",
                "accounts::",
                "bounds::",
            ],
            &["attacks::", "characters::", "adventures::", "every_table::", "idempotency::"],
        ],
    };
    let last_killer: Vec<&str> = known_killers.get(&mutant.key()).map(String::as_str).into_iter().collect();
    let function = function_of(&mutant.name);
    let killers_of_function: BTreeSet<&str> = known_killers
        .iter()
        .filter(|((_, name), _)| function.is_some() && function_of(name) == function)
        .map(|(_, test)| test.as_str())
        .filter(|test| !test.is_empty())
        .collect();
    let killers_of_function: Vec<&str> = killers_of_function.into_iter().collect();
    for name_parts in [&last_killer, &killers_of_function, name_parts_of_kind[0], name_parts_of_kind[1]] {
        // If there were no parts, or only empty ones, all tests would run.
        if name_parts.iter().all(|part| part.is_empty()) {
            continue;
        }
        if let Some(test) = first_failing_test(test_program, &mutant.statement, name_parts)? {
            return Ok(Some(test));
        }
    }
    Ok(None)
}

/// Returns the function of a rule that is a part of a function (an error that it raises, a lock that it takes, a call).
/// The name of such a rule is `function(types): number`. `None` for other rules.
fn function_of(rule_name: &str) -> Option<&str> {
    rule_name.split_once(": ").map(|(function, _)| function).filter(|function| function.ends_with(')'))
}

/// Runs the tests whose names contain one of the parts, or all tests if there are no parts, on a schema that was
/// changed by the statement `mutation`; if that is empty, on the unchanged schema. Stops at the first test that fails,
/// and returns its name.
fn first_failing_test(test_program: &Path, mutation: &str, name_parts: &[&str]) -> io::Result<Option<String>> {
    let mut command = Command::new(test_program);
    command.args(name_parts).env("SPARC_SCHEMA_MUTATION", mutation).env("RUST_BACKTRACE", "0");
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    for name_part in SKIPPED_TESTS {
        command.args(["--skip", name_part]);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
    let failed_test = find_failed_test(lines);
    if !matches!(failed_test, Ok(None)) {
        child.kill()?;
    }
    let status = child.wait()?;
    // If the program fails without naming a test, the program itself counts as the failed test.
    Ok(failed_test?.or_else(|| (!status.success()).then(|| format!("the test program: {status}"))))
}

/// Returns the name of the first test that failed, from the lines that a test program prints.
fn find_failed_test(lines: impl Iterator<Item = io::Result<String>>) -> io::Result<Option<String>> {
    for line in lines {
        if let Some(test) = line?.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            return Ok(Some(test.to_owned()));
        }
    }
    Ok(None)
}

/// Reads the killers from the page that an earlier run wrote. If there is no page, no killer is known.
fn read_killers(page: &Path) -> Killers {
    let text = fs::read_to_string(page).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
            let (kind, name, test) = (cells.next()?, cells.next()?, cells.next().unwrap_or_default());
            let without_backticks = |cell: &str| cell.trim().trim_matches('`').to_owned();
            let test = if test.starts_with("**none**") { String::new() } else { without_backticks(test) };
            Some(((without_backticks(kind), without_backticks(name)), test))
        })
        .collect()
}

/// Writes `docs/generated/mutants.md`, with a line for each mutant that this run or an earlier one has tried.
fn write_page(page: &Path, mutants: &[Mutant], killers: &Killers) -> io::Result<()> {
    let result_of = |mutant: &Mutant| killers.get(&mutant.key());
    let tried = mutants.iter().filter(|mutant| result_of(mutant).is_some()).count();
    let killed = mutants.iter().filter(|mutant| result_of(mutant).is_some_and(|test| !test.is_empty())).count();
    let mut text = format!(
        "# Schema mutants\n\n\
         Each rule of the schema was removed or loosened (a bound by one, a policy's condition to `true`); the test named\n\
         here failed. Generated by `cargo mutants-of-schema`; [testing.md](../testing.md) describes it.\n\n\
         {} mutants, {tried} tried, {killed} killed.\n\n\
         | kind | rule | test that fails without it |\n| --- | --- | --- |\n",
        mutants.len()
    );
    for mutant in mutants {
        if let Some(test) = result_of(mutant) {
            let test = match reason_for_equivalence(mutant) {
                Some(reason) if test.is_empty() => format!("**none**: {reason}"),
                _ if test.is_empty() => "**none**".to_owned(),
                _ => format!("`{test}`"),
            };
            text.push_str(&format!("| {} | `{}` | {test} |\n", mutant.kind, mutant.name));
        }
    }
    fs::write(page, text)
}
