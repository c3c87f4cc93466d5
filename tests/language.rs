//! Mechanical checks of the text: links, references to decisions, and messages about inputs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::documents::root;

/// Returns the repository's files with one of the extensions, as Git lists them.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z"]).output().unwrap();
    // A copy without `.git` has no list; then nothing is checked.
    String::from_utf8(listed.stdout)
        .unwrap()
        .split('\0')
        .filter(|name| extensions.iter().any(|extension| name.ends_with(extension)))
        .map(|name| root().join(name))
        .filter(|path| path.is_file())
        .collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Returns the anchor of a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

fn anchors(text: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// Returns the target of each `[text](target)` in a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let mut wrong = Vec::new();
    for path in files(&[".md"]) {
        let text = read(&path);
        let crate_page = relative(&path).ends_with("README.md") && relative(&path) != "README.md";
        for (number, line) in text.lines().enumerate() {
            for target in targets(line).filter(|target| !target.contains("://")) {
                let (file, heading) = target.split_once('#').unwrap_or((target, ""));
                // A crate's README is also its front page in rustdoc, where a target may be an item's path.
                if crate_page && !file.contains('/') && !file.contains('.') {
                    continue;
                }
                // The generated pages quote rustdoc, whose targets are items.
                if relative(&path).starts_with("docs/generated/") && !file.contains('.') {
                    continue;
                }
                let there = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
                let heading_is_there =
                    || heading.is_empty() || anchors(&read(&there)).iter().any(|anchor| anchor == heading);
                if !there.exists() || (there.is_file() && !heading_is_there()) {
                    wrong.push(format!("{}:{}: {target}", relative(&path), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "links whose target does not exist:\n{}", wrong.join("\n"));
}

#[test]
fn every_decision_that_is_cited_has_its_heading() {
    let decisions = read(&root().join("docs/decisions.md"));
    let headings: Vec<&str> = decisions
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .collect();
    let mut wrong = Vec::new();
    for path in files(&[".rs", ".sql", ".md", ".sh", ".toml"]) {
        // A citation may be broken between two lines of a comment.
        let text = read(&path);
        let lines = text.lines().map(|line| line.trim().trim_start_matches(['/', '!', '-', '#']).trim());
        let text = lines.collect::<Vec<_>>().join(" ");
        let cited = text.split("decision \"").skip(1).filter_map(|rest| rest.split('"').next());
        for cited in cited.filter(|cited| !headings.contains(cited)) {
            wrong.push(format!("{}: {cited}", relative(&path)));
        }
    }
    wrong.retain(|line| !line.starts_with("tests/language.rs"));
    assert!(wrong.is_empty(), "headings that docs/decisions.md does not have:\n{}", wrong.join("\n"));
}

#[test]
fn a_message_about_an_input_says_what_it_must_be() {
    let mut wrong = Vec::new();
    for path in files(&[".rs"]).into_iter().filter(|path| relative(path).starts_with("service/src/")) {
        let text = read(&path);
        let inputs = text.lines().enumerate().filter(|(_, line)| line.contains("field: \""));
        for (number, line) in inputs {
            let rules = line.split("rule: \"").skip(1).filter_map(|rest| rest.split('"').next());
            for rule in rules.filter(|rule| !rule.starts_with("must ")) {
                wrong.push(format!("{}:{}: {rule}", relative(&path), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "messages about an input that do not say what it must be:\n{}", wrong.join("\n"));
}
