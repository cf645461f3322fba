//! `millrace schemas list` and `show`.

use std::process::ExitCode;

use contracts::documents::{self, Document};
use serde_json::{Value, json};

use crate::commands::Context;
use crate::failure::{CommandResult, Failure};
use crate::output;

pub fn list(context: &Context) -> CommandResult {
    let documents = documents::all();
    if context.json {
        output::json(&documents.iter().map(|document| row(context, document)).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    let cells = |document: &Document| {
        let what = document.schema["description"].as_str().unwrap_or_default();
        let first = what.split(['\n', '.']).next().unwrap_or_default();
        let standing = if is_retired(context, document) { "retired" } else { "" };
        vec![
            document.name.clone(),
            format!("v{}", document.version),
            document.subject.into(),
            standing.into(),
            first.into(),
        ]
    };
    output::table(&["NAME", "VERSION", "SUBJECT", "", "WHAT"], documents.iter().map(cells));
    Ok(ExitCode::SUCCESS)
}

fn row(context: &Context, document: &Document) -> Value {
    json!({
        "name": document.name, "version": document.version, "kind": document.kind, "subject": document.subject,
        "title": document.title(), "file": document.file_name(), "id": document.schema["$id"],
        "retired": is_retired(context, document),
    })
}

/// Whether the settings say that this version is no longer published.
fn is_retired(context: &Context, document: &Document) -> bool {
    context.settings.retired().contains(&document.name, document.version)
}

/// Prints a contract as it stands in its file, with `--json` and without.
pub fn show(event: &str, version: Option<u32>) -> CommandResult {
    let documents = documents::all();
    let of_name: Vec<&Document> = documents.iter().filter(|document| document.name == event).collect();
    if of_name.is_empty() {
        return Err(Failure::new(format!("there is no contract {event}")).remedy("millrace schemas list").usage());
    }
    let newest = of_name.iter().map(|document| document.version).max().unwrap_or_default();
    let wanted = version.unwrap_or(newest);
    let found = of_name.iter().find(|document| document.version == wanted).ok_or_else(|| {
        let known: Vec<String> = of_name.iter().map(|document| document.version.to_string()).collect();
        Failure::new(format!("{event} has no version {wanted}"))
            .remedy(format!("--version {}", known.join(" or ")))
            .usage()
    })?;
    output::line(found.file_text().trim_end());
    Ok(ExitCode::SUCCESS)
}
