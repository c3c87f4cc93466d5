//! Checks of the repository's text: links, code blocks, citations of decisions, line width, and words that the project
//! has replaced.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::generated_docs::workspace_root;

/// The maximum width of comments and documents, which is also that of the code (`rustfmt.toml`).
const MAX_WIDTH: usize = 120;

/// Words and names that the project has replaced, each with its replacement.
///
/// The codes of errors, such as `no_such_code`, and the names that the game's specification gives (`docs/decisions.md`)
/// do not change and are not listed.
const RETIRED_WORDS: &[(&str, &str)] = &[
    ("is_passing", "is_retryable"),
    ("SeatsAreTaken", "MaxPlayersBelowSeated"),
    ("NoSuchCode", "UnknownJoinCode"),
    ("HasHistory", "StillReferenced"),
    ("NotASeer", "NotSessionSeer"),
    ("ColumnClosed", "ColumnNotGranted"),
    ("BadCursor", "InvalidCursor"),
    ("FaultKind", "ValidationErrorKind"),
    ("TableCard", "MySession"),
    ("SessionCard", "SessionSummary"),
    ("ArchivedTable", "ArchivedSession"),
    ("TableSize", "MaxPlayers"),
    ("come_back", "rejoin"),
    ("bring_back", "unretire"),
    ("SavesLeft", "HeroicSavesRemaining"),
    ("RollsOf", "RollScope"),
    ("defence", "defense"),
    ("throwaway", "testdb"),
    ("keeper", "supervisor"),
    ("a table's rolls", "a session's rolls"),
    ("at that table", "in that session"),
    ("at a table", "in a session"),
    ("at its table", "in the session"),
    ("writes it anew", "regenerates it"),
    ("renewal", "repeatable objects"),
    ("the own ", "their own, the caller's"),
];

/// Returns the files that Git tracks and whose names end with one of the extensions.
fn tracked_files(extensions: &[&str]) -> Vec<PathBuf> {
    let output = Command::new("git").arg("-C").arg(workspace_root()).args(["ls-files", "-z"]).output().unwrap();
    // In a copy without `.git`, Git lists nothing. There the test of citations fails, and the other tests check
    // nothing.
    String::from_utf8(output.stdout)
        .unwrap()
        .split('\0')
        .filter(|name| extensions.iter().any(|extension| name.ends_with(extension)))
        .map(|name| workspace_root().join(name))
        .filter(|path| path.is_file())
        .collect()
}

fn relative_path(path: &Path) -> String {
    path.strip_prefix(workspace_root()).unwrap().display().to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Returns the anchor that GitHub gives to a heading.
fn heading_anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading
        .chars()
        .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
        .collect::<String>()
        .replace(' ', "-")
}

fn heading_anchors(text: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with('#')).map(heading_anchor).collect()
}

/// Returns the target of each `[text](target)` in a line.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let mut violations = Vec::new();
    for path in tracked_files(&[".md"]) {
        let text = read(&path);
        let is_crate_readme = relative_path(&path).ends_with("README.md") && relative_path(&path) != "README.md";
        for (index, line) in text.lines().enumerate() {
            for target in link_targets(line).filter(|target| !target.contains("://")) {
                let (file, heading) = target.split_once('#').unwrap_or((target, ""));
                // A crate's README is also its front page in rustdoc, where a target may be an item's path.
                if is_crate_readme && !file.contains('/') && !file.contains('.') {
                    continue;
                }
                // The generated pages quote rustdoc, whose targets are items.
                if relative_path(&path).starts_with("docs/generated/") && !file.contains('.') {
                    continue;
                }
                let target_path = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
                let has_heading = || {
                    heading.is_empty() || heading_anchors(&read(&target_path)).iter().any(|anchor| anchor == heading)
                };
                if !target_path.exists() || (target_path.is_file() && !has_heading()) {
                    violations.push(format!("{}:{}: {target}", relative_path(&path), index + 1));
                }
            }
        }
    }
    assert!(violations.is_empty(), "links whose target does not exist:\n{}", violations.join("\n"));
}

/// A fence (the three backticks that open or close a code block) stands on a line of its own, followed by at most the
/// name of a language, and each block that is opened is closed.
#[test]
fn code_blocks_of_documents_are_complete() {
    let mut violations = Vec::new();
    for path in tracked_files(&[".md"]) {
        let text = read(&path);
        let fences: Vec<&str> = text.lines().map(str::trim).filter(|line| line.contains("```")).collect();
        if !fences.len().is_multiple_of(2)
            || fences.iter().any(|fence| !fence.starts_with("```") || fence.contains(' '))
        {
            violations.push(relative_path(&path));
        }
    }
    assert!(violations.is_empty(), "documents with a broken code block: {violations:?}");
}

/// A comment or document cites sections of `decisions.md` in this form: `docs/decisions.md`, "HEADING" and "HEADING".
#[test]
fn every_cited_heading_of_the_decisions_exists() {
    let decisions = read(&workspace_root().join("docs/decisions.md"));
    let headings: Vec<&str> = decisions
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .collect();
    let (mut violations, mut citation_count) = (Vec::new(), 0);
    for path in tracked_files(&[".rs", ".sql", ".md", ".sh", ".toml"]) {
        // A citation can extend over two lines of a comment, so the lines are joined.
        let text = read(&path);
        let lines = text.lines().map(|line| line.trim().trim_start_matches(['/', '!', '-', '#']).trim());
        let text = lines.collect::<Vec<_>>().join(" ");
        for mut rest in text.split("`docs/decisions.md`, ").skip(1) {
            while let Some((heading, next)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                citation_count += 1;
                if !headings.contains(&heading) {
                    violations.push(format!("{}: {heading}", relative_path(&path)));
                }
                rest = next.strip_prefix(" and ").unwrap_or_default();
            }
        }
    }
    // This file's own comment and code contain the beginning of a citation.
    violations.retain(|line| !line.starts_with("tests/repository_text.rs"));
    assert!(
        citation_count > 10,
        "only {citation_count} citations were found; if their form has changed, adapt this test"
    );
    assert!(violations.is_empty(), "headings that docs/decisions.md does not have:\n{}", violations.join("\n"));
}

#[test]
fn comments_and_documents_wrap_at_120_characters() {
    let mut violations = Vec::new();
    for path in tracked_files(&[".rs", ".sql", ".md", ".sh", ".toml"]) {
        let name = relative_path(&path);
        let is_document = name.ends_with(".md");
        // Nobody reads the text of generated files in an editor.
        if ["docs/generated/", "docs/performance.md", "entity/src/tables/"].iter().any(|path| name.starts_with(path)) {
            continue;
        }
        let mut is_in_code_block = false;
        for (index, line) in read(&path).lines().enumerate() {
            is_in_code_block ^= is_document && line.trim_start().starts_with("```");
            let is_prose = if is_document {
                // Two kinds of lines may be longer: a row of a Markdown table, and a link to an image.
                !is_in_code_block && !line.starts_with('|') && !line.starts_with("![") && !line.starts_with("[![")
            } else {
                ["//", "--", "# "].iter().any(|mark| line.trim_start().starts_with(mark))
            };
            if is_prose && line.chars().count() > MAX_WIDTH {
                violations.push(format!("{name}:{}", index + 1));
            }
        }
    }
    assert!(
        violations.is_empty(),
        "{} lines are longer than {MAX_WIDTH} characters:\n{}",
        violations.len(),
        violations.join("\n")
    );
}

#[test]
fn no_retired_word_is_left() {
    let mut violations = Vec::new();
    for path in tracked_files(&[".rs", ".sql", ".md", ".sh", ".toml"]) {
        let name = relative_path(&path);
        if ["tests/repository_text.rs", "CHANGELOG.md"].contains(&name.as_str())
            || name.starts_with("bench/sql/specification")
        {
            continue;
        }
        for (index, line) in read(&path).lines().enumerate() {
            for (word, replacement) in RETIRED_WORDS.iter().filter(|(word, _)| line.contains(word)) {
                violations.push(format!("{name}:{}: {word} (use {replacement})", index + 1));
            }
        }
    }
    assert!(violations.is_empty(), "{} retired words:\n{}", violations.len(), violations.join("\n"));
}
