//! Compares the documentation of the operations with the outcomes that the tests expect. Asserts that two pages in
//! `docs/generated/` are up to date: `api.md`, generated from that documentation, and `errors.md`, generated from the
//! documentation of `Error`. With `SPARC_WRITE_DOCS=1`, writes both pages first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::{
    expected_outcomes, operations,
    sources::{declared_reads, service_sources},
};
use crate::generated_docs::{workspace_root, write_or_assert_up_to_date};

/// An operation as its documentation describes it.
pub struct DocumentedOperation {
    /// The name, for example `creatures.add`.
    pub name: String,
    /// The first sentence.
    description: String,
    /// The text between `Who may: ` and the sentence about the round trips.
    allowed_callers: String,
    /// The sentence about the round trips, for example `Three round trips`.
    pub round_trips_in_words: String,
    /// The sentence after the one about the round trips. It says what events the operation writes. Empty if there is no
    /// such sentence, or if it is `No event`.
    event: String,
    /// The codes of the errors in the section `# Errors`.
    errors: BTreeSet<String>,
}

/// Reads the documentation of every operation from the sources of the crate `service`. An operation is a public async
/// method whose body contains the operation's name in quotes, for example `"creatures.add"`.
pub fn read_documentation() -> Vec<DocumentedOperation> {
    let codes = read_code_entries();
    let mut documented = Vec::new();
    for file in service_sources() {
        let (mut doc, mut method_doc) = (String::new(), None);
        for line in fs::read_to_string(file).unwrap().lines().map(str::trim) {
            if let Some(text) = line.strip_prefix("///") {
                doc.push_str(text);
                doc.push_str(if text.is_empty() { "\n" } else { " " });
            } else if line.starts_with("pub async fn") {
                method_doc = Some(std::mem::take(&mut doc));
            } else if let Some(name) = find_operation_name(line) {
                if let Some(doc) = method_doc.take() {
                    documented.push(parse_documentation(name, &doc, &codes));
                }
            } else if !line.starts_with('#') {
                doc.clear();
            }
        }
    }
    documented.sort_by_key(|operation| {
        let aggregate = operation.name.split('.').next().unwrap();
        (AGGREGATES.iter().position(|listed| *listed == aggregate), operation.name.clone())
    });
    documented
}

/// The aggregates (the first parts of the operations' names), in the order in which `api.md` lists them.
const AGGREGATES: [&str; 9] =
    ["users", "characters", "adventures", "creatures", "sessions", "dice", "events", "tutorial", "maintenance"];

/// Operations that cannot run in a caller's transaction. `tests/live_events/`, `tests/subscribe_many.rs` and
/// `tests/maintenance.rs` test them.
const OUTSIDE_TRANSACTIONS: [&str; 3] = ["events.subscribe", "events.subscribe_many", "maintenance.vacuum"];

/// Returns the first text in quotes in the line that is the name of an operation (`aggregate.verb`).
fn find_operation_name(line: &str) -> Option<&str> {
    line.split('"').skip(1).step_by(2).find(|text| {
        text.split_once('.').is_some_and(|(aggregate, verb)| AGGREGATES.contains(&aggregate) && !verb.is_empty())
    })
}

/// Parses the documentation comment of an operation.
fn parse_documentation(name: &str, doc: &str, codes: &BTreeMap<String, CodeEntry>) -> DocumentedOperation {
    let (text, errors) = doc
        .split_once("# Errors")
        .unwrap_or_else(|| panic!("{name}: the documentation must have a section `# Errors`"));
    let (description, rest) =
        text.split_once("Who may: ").unwrap_or_else(|| panic!("{name}: the documentation must say `Who may: `"));
    let rest = collapse_whitespace(rest);
    let sentences: Vec<&str> = rest.split(". ").map(|sentence| sentence.trim_end_matches('.')).collect();
    let index = sentences
        .iter()
        .position(|sentence| sentence.contains("round trip"))
        .unwrap_or_else(|| panic!("{name}: the documentation must give its round trips"));
    let errors = errors.split("[`Error::").skip(1).map(|rest| {
        let variant = rest.split('`').next().unwrap();
        codes.get(variant).unwrap_or_else(|| panic!("{name}: there is no error `{variant}`")).code.clone()
    });
    DocumentedOperation {
        name: name.to_owned(),
        description: collapse_whitespace(description.trim().split(". ").next().unwrap().trim_end_matches('.')),
        allowed_callers: sentences[..index].join(". "),
        round_trips_in_words: sentences[index].to_owned(),
        event: match sentences.get(index + 1) {
            None | Some(&"No event") => String::new(),
            Some(text) if text.starts_with("Event") => (*text).to_owned(),
            Some(text) => panic!("{name}: after the round trips comes the event, not: {text}"),
        },
        errors: errors.collect(),
    }
}

/// Collapses whitespace to single spaces.
fn collapse_whitespace(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What `codes.rs` says about a variant of `Error`.
struct CodeEntry {
    code: String,
    /// The HTTP status.
    status: String,
    is_retryable: bool,
}

/// Reads the entry of each variant of `Error` from lines like `Self::Busy => retryable("busy", 503),`.
fn read_code_entries() -> BTreeMap<String, CodeEntry> {
    let source = fs::read_to_string(workspace_root().join("service/src/error/codes.rs")).unwrap();
    let parse_line = |line: &str| {
        let (variant, entry) = line.trim().strip_prefix("Self::")?.split_once(" => ")?;
        let variant = variant.split([' ', '(']).next()?;
        let mut parts = entry.split(['(', ')', ',', '"', ' ']).filter(|part| !part.is_empty());
        let is_retryable = parts.next()? == "retryable";
        let entry = CodeEntry { code: parts.next()?.to_owned(), status: parts.next()?.to_owned(), is_retryable };
        Some((variant.to_owned(), entry))
    };
    source.lines().filter_map(parse_line).collect()
}

#[test]
fn the_tested_operations_are_the_documented_ones() {
    let documented: BTreeSet<String> = read_documentation().into_iter().map(|operation| operation.name).collect();
    let mut tested: BTreeSet<String> = operations().into_iter().map(|operation| operation.name.to_owned()).collect();
    tested.extend(OUTSIDE_TRANSACTIONS.map(str::to_owned));
    assert_eq!(documented, tested);
}

/// The other tests of this file would not find the documentation of an operation whose aggregate is missing from
/// [`AGGREGATES`].
#[test]
fn every_operation_belongs_to_a_listed_aggregate() {
    let mut operation_count = 0;
    for file in service_sources() {
        let source = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for call in code.join("\n").split("operation!(").skip(1) {
            // In the definition of a macro, the name is a parameter and has no quotes.
            let Some(name) = call.split('|').next().unwrap().split('"').nth(1) else { continue };
            assert!(
                find_operation_name(&format!("\"{name}\"")).is_some(),
                "AGGREGATES must list the aggregate of {name}: {file:?}"
            );
            operation_count += 1;
        }
    }
    assert!(operation_count > 50, "only {operation_count} operations were found");
}

#[test]
fn the_documented_errors_are_the_ones_that_the_tests_expect() {
    let outcomes = expected_outcomes();
    let mut mismatches = Vec::new();
    for operation in read_documentation() {
        if OUTSIDE_TRANSACTIONS.contains(&operation.name.as_str()) {
            continue;
        }
        let codes = outcomes.iter().filter(|(name, _)| *name == operation.name).map(|(_, code)| (*code).to_owned());
        let mut tested_codes: BTreeSet<String> = codes.collect();
        tested_codes.remove("done");
        if operation.errors != tested_codes {
            let untested: Vec<_> = operation.errors.difference(&tested_codes).collect();
            let undocumented: Vec<_> = tested_codes.difference(&operation.errors).collect();
            mismatches.push(format!(
                "{}: documented but not tested {untested:?}, tested but not documented {undocumented:?}",
                operation.name
            ));
        }
    }
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
}

/// Replaces each link `[text](target)` by its text, because the targets are items of the crate, to which a Markdown
/// page cannot link.
fn without_links(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        let Some((label, (_, after))) =
            link.split_once("](").and_then(|(label, target)| Some((label, target.split_once(')')?)))
        else {
            panic!("[ without a link: {markdown}");
        };
        text.push_str(label);
        rest = after;
    }
    text + rest
}

#[test]
fn the_page_of_operations_is_up_to_date() {
    let mut text = "# The service's operations\n\n\
         Generated by `tests/operations/documented.rs` from the documentation of `service/src`. Another test of that file\n\
         checks that the errors listed here are exactly those that the tests expect, except for the operations that run\n\
         outside of transactions (`events.subscribe`, `events.subscribe_many`, `maintenance.vacuum`). To update this page:\n\
         `SPARC_WRITE_DOCS=1 cargo test --test integration documented`.\n\n\
         Any operation may also fail with `busy`, `deadline_exceeded`, `connection_lost`, `commit_unknown`, `pool_exhausted`,\n\
         `pool_closed`, `misconfigured`, `server_exhausted`, `read_only` or `database`. The call of a user may also fail with\n\
         `unknown_account` or `account_closed`. See [errors.md](errors.md). The number of round trips includes two for begin\n\
         (with the identity) and commit; in a caller's transaction an operation takes two fewer. Without replicas, an operation\n\
         that a replica may run returns before its commit is answered, so its caller waits for one round trip fewer.\n\
         In the column *runs on*, *replica* means that a replica may run the operation, if there is one;\n\
         `tests/operations/standby.rs` runs every operation on a real standby.\n"
        .to_owned();
    let reads = declared_reads();
    let mut aggregate = String::new();
    for operation in read_documentation() {
        let (current_aggregate, verb) = operation.name.split_once('.').unwrap();
        if current_aggregate != aggregate {
            aggregate = current_aggregate.to_owned();
            let other_tests = match current_aggregate {
                "maintenance" => " and `tests/maintenance.rs`",
                "events" => ", `tests/live_events/` and `tests/subscribe_many.rs`",
                _ => "",
            };
            text.push_str(&format!(
                "\n## {aggregate}\n\nTested in `tests/operations/{aggregate}.rs`{other_tests}.\n\n\
                 | operation | does | who may | errors | event | round trips | runs on |\n| --- | --- | --- | --- | --- | --- | --- |\n"
            ));
        }
        let errors: Vec<String> = operation.errors.iter().map(|code| format!("`{code}`")).collect();
        let round_trips = operation.round_trips_in_words.replace(" round trips", "").to_lowercase();
        text.push_str(&format!(
            "| `{verb}` | {} | {} | {} | {} | {round_trips} | {} |\n",
            without_links(&operation.description).replace('|', "\\|"),
            operation.allowed_callers,
            errors.join(", "),
            operation.event.trim_start_matches("Event ").trim_start_matches("Events "),
            if reads.contains(&operation.name) { "replica" } else { "primary" }
        ));
    }
    write_or_assert_up_to_date("api.md", &text, "documented");
}

#[test]
fn the_page_of_errors_is_up_to_date() {
    let source = fs::read_to_string(workspace_root().join("service/src/error.rs")).unwrap();
    let codes = read_code_entries();
    let mut text = "# Errors\n\n\
         The variants of `service::Error`, generated by `tests/operations/documented.rs` from `service/src/error.rs`. Match on\n\
         the variant, or on `code()` where the error crosses a process boundary as text. Where the last column says `helps`,\n\
         nothing was changed and the same call may be retried. After `commit_unknown` the change may have been committed;\n\
         [the guide](../guide.md#repeating-a-request) says which calls may be repeated.\n\n\
         Every error serializes to one shape, which a handler can return unchanged. The message can be shown to a person and\n\
         reveals nothing about the server's set-up. The details are the variant's fields by name; a variant without fields has\n\
         empty details. The enum is `#[non_exhaustive]`, and several variants have fields: match on `Error::IdConflict { .. }`\n\
         or `Error::CommitUnknown(_)`.\n\n\
         ```json\n\
         {\"code\": \"invalid_value\", \"message\": \"name must have 2 to 50 characters\", \"retryable\": false,\n \
         \"details\": {\"field\": \"name\", \"rule\": \"must have 2 to 50 characters\"}}\n\
         ```\n\n\
         A refusal gives the most precise reason that its caller may know. What row security hides is refused like something\n\
         that does not exist.\n\n\
         | code | variant | means | HTTP | retry |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    let (mut doc, mut described_count, mut in_attribute) = (String::new(), 0, false);
    for line in source.lines().map(str::trim) {
        in_attribute |= line.starts_with("#[");
        if in_attribute {
            in_attribute = !line.ends_with(']');
        } else if let Some(part) = line.strip_prefix("///") {
            doc.push_str(part);
        } else {
            let variant = line.split([' ', '(', ',']).next().unwrap_or_default();
            if let (Some(entry), true) = (codes.get(variant), doc.contains("Code `")) {
                let meaning = doc.trim().split(" Code `").next().unwrap();
                let (code, documented_code) =
                    (&entry.code, doc.split("Code `").nth(1).unwrap().split('`').next().unwrap());
                assert_eq!(code, documented_code, "{variant}: the code in its documentation");
                let retry = if entry.is_retryable { "helps" } else { "" };
                text.push_str(&format!("| `{code}` | `{variant}` | {meaning} | {} | {retry} |\n", entry.status));
                described_count += 1;
            }
            doc.clear();
        }
    }
    assert_eq!(described_count, codes.len(), "the documentation of every variant must give its code");
    write_or_assert_up_to_date("errors.md", &text, "documented");
}
