//! The documentation of the operations against what was seen of them, and the tables in `docs/` made from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::{operations, seen};
use crate::documents::{agree, root};

/// What the documentation of an operation says.
pub struct Documented {
    pub name: String,
    does: String,
    who: String,
    pub round_trips: String,
    event: String,
    errors: BTreeSet<String>,
}

pub fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            Some(extension) if extension == "rs" => found.push(path),
            _ if path.is_dir() => sources(&path, found),
            _ => {}
        }
    }
}

/// Every operation, from the sources of the service: a public asynchronous method and the name of its span.
pub fn documented() -> Vec<Documented> {
    let mut files = Vec::new();
    sources(&root().join("service/src"), &mut files);
    let codes = codes();
    let mut all = Vec::new();
    for file in files {
        let (mut doc, mut method) = (String::new(), None);
        for line in fs::read_to_string(file).unwrap().lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("///") {
                doc.push_str(text);
                doc.push_str(if text.is_empty() { "\n" } else { " " });
            } else if line.starts_with("pub async fn") {
                method = Some(std::mem::take(&mut doc));
            } else if let Some(name) = span(line) {
                if let Some(doc) = method.take() {
                    all.push(read(name, &doc, &codes));
                }
            } else if !line.starts_with('#') {
                doc.clear();
            }
        }
    }
    all.sort_by_key(|operation| {
        let aggregate = operation.name.split('.').next().unwrap();
        (AGGREGATES.iter().position(|one| *one == aggregate), operation.name.clone())
    });
    all
}

const AGGREGATES: [&str; 9] =
    ["users", "characters", "adventures", "creatures", "sessions", "dice", "events", "tutorial", "maintenance"];

/// No transaction of a caller's has these; see `tests/live.rs` and `tests/upkeep.rs`.
const OUTSIDE_TRANSACTIONS: [&str; 3] = ["events.subscribe", "events.subscribe_many", "maintenance.vacuum"];

/// `"aggregate.verb"` in a line.
fn span(line: &str) -> Option<&str> {
    line.split('"').skip(1).step_by(2).find(|text| {
        text.split_once('.').is_some_and(|(aggregate, verb)| AGGREGATES.contains(&aggregate) && !verb.is_empty())
    })
}

fn read(name: &str, doc: &str, codes: &BTreeMap<String, Entry>) -> Documented {
    let (told, errors) = doc.split_once("# Errors").unwrap_or_else(|| panic!("{name} says nothing of errors"));
    let (does, rest) = told.split_once("Who may: ").unwrap_or_else(|| panic!("{name} does not say who may"));
    let sentences: Vec<&str> = rest.split(". ").map(|sentence| sentence.trim().trim_end_matches('.')).collect();
    let place = sentences
        .iter()
        .position(|sentence| sentence.contains("round trip"))
        .unwrap_or_else(|| panic!("{name} does not count its round trips"));
    let errors = errors.split("[`Error::").skip(1).map(|rest| {
        let variant = rest.split('`').next().unwrap();
        codes.get(variant).unwrap_or_else(|| panic!("{name}: no such error {variant}")).code.clone()
    });
    Documented {
        name: name.to_owned(),
        does: words(does.trim().split(". ").next().unwrap().trim_end_matches('.')),
        who: words(&sentences[..place].join(". ")),
        round_trips: words(sentences[place]),
        event: sentences.get(place + 1).filter(|text| **text != "No event").map(|text| words(text)).unwrap_or_default(),
        errors: errors.collect(),
    }
}

/// With one space between two words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An error, from its variant's documentation and the table of codes.
struct Entry {
    code: String,
    status: String,
    is_retryable: bool,
}

fn codes() -> BTreeMap<String, Entry> {
    let source = fs::read_to_string(root().join("service/src/error.rs")).unwrap();
    let line = |line: &str| {
        let (variant, entry) = line.trim().strip_prefix("Self::")?.split_once(" => ")?;
        let variant = variant.split([' ', '(']).next()?;
        let mut parts = entry.split(['(', ')', ',', '"', ' ']).filter(|part| !part.is_empty());
        let is_retryable = parts.next()? == "retryable";
        let entry = Entry { code: parts.next()?.to_owned(), status: parts.next()?.to_owned(), is_retryable };
        Some((variant.to_owned(), entry))
    };
    source.lines().filter_map(line).collect()
}

#[test]
fn every_operation_is_tried_and_every_one_that_is_tried_is_there() {
    let documented: BTreeSet<String> = documented().into_iter().map(|operation| operation.name).collect();
    let mut tried: BTreeSet<String> = operations().into_iter().map(|operation| operation.name.to_owned()).collect();
    tried.extend(OUTSIDE_TRANSACTIONS.map(str::to_owned));
    assert_eq!(documented, tried);
}

#[test]
fn every_error_that_is_documented_was_seen_and_every_one_that_was_seen_is_documented() {
    let seen = seen();
    let mut wrong = Vec::new();
    for operation in documented() {
        if OUTSIDE_TRANSACTIONS.contains(&operation.name.as_str()) {
            continue;
        }
        let codes = seen.iter().filter(|(name, _)| *name == operation.name).map(|(_, code)| (*code).to_owned());
        let mut codes: BTreeSet<String> = codes.collect();
        codes.remove("done");
        if operation.errors != codes {
            let unseen: Vec<_> = operation.errors.difference(&codes).collect();
            let untold: Vec<_> = codes.difference(&operation.errors).collect();
            wrong.push(format!(
                "{}: documented and not seen {unseen:?}, seen and not documented {untold:?}",
                operation.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_of_operations_is_as_the_code_says() {
    let mut text = "# The service's operations\n\n\
         Made from the documentation of `service/src` by `tests/operations/documented.rs`, which also asserts that each\n\
         error was seen, and none that is not told here. `SPARC_WRITE_DOCS=1 cargo test --test integration documented`\n\
         writes it anew. What any operation may answer besides (`busy`, `deadline_exceeded`, `connection_lost`,\n\
         `commit_unknown`, `pool_exhausted`, `pool_closed`, `misconfigured`, `server_exhausted`, `read_only`, `database`; to a user,\n\
         `unknown_account` and `account_closed`) is in [errors.md](errors.md). Round trips count begin with identity and commit; in a\n\
         caller's transaction they are three fewer. What runs on a replica, where the handle has any, is tried on a real\n\
         standby by `tests/operations/standby.rs`.\n"
        .to_owned();
    let reads = super::standby::reads();
    let mut aggregate = String::new();
    for operation in documented() {
        let (of, verb) = operation.name.split_once('.').unwrap();
        if of != aggregate {
            aggregate = of.to_owned();
            let besides = match of {
                "maintenance" => " and `tests/upkeep.rs`",
                "events" => " and `tests/live.rs`",
                _ => "",
            };
            text.push_str(&format!(
                "\n## {of}\n\nTried in `tests/operations/{of}.rs`{besides}.\n\n\
                 | operation | does | who may | errors | event | round trips | runs on |\n| --- | --- | --- | --- | --- | --- | --- |\n"
            ));
        }
        let errors: Vec<String> = operation.errors.iter().map(|code| format!("`{code}`")).collect();
        let round_trips = operation.round_trips.replace(" round trips", "").to_lowercase();
        text.push_str(&format!(
            "| `{verb}` | {} | {} | {} | {} | {round_trips} | {} |\n",
            operation.does.replace("](Self::", "](").replace('|', "\\|"),
            operation.who,
            errors.join(", "),
            operation.event.trim_start_matches("Event ").trim_start_matches("Events "),
            if reads.contains(&operation.name) { "replica" } else { "primary" }
        ));
    }
    agree("api.md", &text, "documented");
}

#[test]
fn the_table_of_errors_is_as_the_code_says() {
    let source = fs::read_to_string(root().join("service/src/error.rs")).unwrap();
    let codes = codes();
    let mut text = "# Errors\n\n\
         `service::Error`, made from `service/src/error.rs` by `tests/operations/documented.rs`. Match on the variant, or on\n\
         `code()` where a string crosses a border. A retry of the same call helps where the last column says so; nothing\n\
         of it was done. After `commit_unknown` it is not known whether it was, so that only what was given an id is safe to repeat.\n\n\
         An error serializes to one shape, which a handler returns as it is. The message can be shown to a person, and says\n\
         nothing of the server's set-up; the details are the variant's fields under their names, and empty where it has none.\n\n\
         ```json\n\
         {\"code\": \"invalid_value\", \"message\": \"name must have 2 to 50 characters\", \"retryable\": false,\n \
         \"details\": {\"field\": \"name\", \"rule\": \"must have 2 to 50 characters\"}}\n\
         ```\n\n\
         A refusal gives the best reason that its caller may know. Of what row security hides one hears the same as of what is\n\
         not there.\n\n\
         | code | variant | means | HTTP | retry |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    let (mut doc, mut told) = (String::new(), 0);
    for line in source.lines().map(str::trim) {
        if let Some(part) = line.strip_prefix("///") {
            doc.push_str(part);
        } else if !line.starts_with('#') {
            let variant = line.split([' ', '(', ',']).next().unwrap_or_default();
            if let (Some(entry), true) = (codes.get(variant), doc.contains("Code `")) {
                let means = doc.trim().split(" Code `").next().unwrap();
                let (code, said) = (&entry.code, doc.split("Code `").nth(1).unwrap().split('`').next().unwrap());
                assert_eq!(code, said, "the documentation of {variant}");
                let retry = if entry.is_retryable { "helps" } else { "" };
                text.push_str(&format!("| `{code}` | `{variant}` | {means} | {} | {retry} |\n", entry.status));
                told += 1;
            }
            doc.clear();
        }
    }
    assert_eq!(told, codes.len(), "every variant has a documentation with its code");
    agree("errors.md", &text, "documented");
}
