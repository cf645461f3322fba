//! What the documents for operators name exists: tests, commands, error codes.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::cli::millrace;

const DOCUMENTS: [&str; 2] = ["docs/failure-modes.md", "docs/runbook.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(document: &str) -> String {
    let path = root().join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // What is commented out nobody reads.
    text.split("<!--").map(|part| part.split_once("-->").map_or(part, |(_, rest)| rest)).collect()
}

/// Texts between single backticks, line by line.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_test_that_the_failure_modes_name_exists() {
    let text = read("docs/failure-modes.md");
    let mut named = 0;
    for (file, test) in code_spans(&text).filter_map(|span| span.split_once(": ")) {
        if !file.ends_with(".rs") {
            continue;
        }
        named += 1;
        let source = read(file);
        // A function of its own, or a case of a macro that runs it on both databases.
        let exists = source.contains(&format!("fn {test}(")) || source.contains(&format!("    {test},"));
        assert!(exists, "{file} has no test {test}");
    }
    assert!(named > 30, "the table names only {named} tests");
}

/// The command lines in a document: those in code spans, and those behind a prompt.
fn command_lines(text: &str) -> BTreeSet<String> {
    let prompted = text.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
    let all = code_spans(text).chain(prompted);
    let ours = all.filter(|line| line.starts_with("millrace ")).map(|line| {
        let end = line.find(['|', '#', ';']).or_else(|| line.find(" > ")).unwrap_or(line.len());
        line[..end].trim().to_owned()
    });
    ours.collect()
}

/// As a shell takes a line apart, with single quotes.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    parts.flat_map(|(n, part)| if n % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }).collect()
}

#[tokio::test]
async fn every_command_that_the_documents_name_is_one_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    for document in DOCUMENTS {
        let lines = command_lines(&read(document));
        assert!(lines.len() > 5, "{document} names only {lines:?}");
        for line in lines {
            let words = words(&line);
            let ran = millrace(folder.path(), &[], &[&words[1..], &["--help"]].concat()).await;
            assert_eq!(ran.code, 0, "{document}: {line}: {ran}");
        }
    }
}

#[test]
fn every_error_code_that_the_documents_name_is_explained() {
    for document in DOCUMENTS {
        let text = read(document);
        let codes = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| {
            word.len() == 6 && word.starts_with("MR") && word[2..].chars().all(|digit| digit.is_ascii_digit())
        });
        for code in codes {
            let page = root().join(format!("crates/millrace/src/codes/{code}.md"));
            assert!(page.is_file(), "{document} names {code}, which is not explained");
        }
    }
}
