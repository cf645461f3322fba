//! `millrace schemas export`: contracts for tools that were not written here.

use std::path::Path;
use std::process::ExitCode;

use contracts::documents;
use serde_json::{Map, Value, json};

use super::{Export, asyncapi};
use crate::commands::Context;
use crate::failure::{CommandResult, Failure};
use crate::output;

pub fn run(context: &Context, args: &Export) -> CommandResult {
    match &args.to {
        Some(folder) => write_files(context, folder),
        None if args.openapi => {
            output::line(order::api::OPENAPI.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        None if args.asyncapi => {
            output::json(&asyncapi::document());
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let all: Map<String, Value> = documents::all().into_iter().map(|d| (d.file_name(), d.schema)).collect();
            output::json(&all);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Makes the folder say what the code says. Only files that are named like a contract are taken away.
fn write_files(context: &Context, folder: &Path) -> CommandResult {
    let failed = |what: &Path, error: std::io::Error| Failure::new(format!("{}: {error}", what.display()));
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let documents = documents::all();
    let (mut written, mut removed, mut unchanged) = (Vec::new(), Vec::new(), 0_usize);
    for document in &documents {
        let (name, text) = (document.file_name(), document.file_text());
        let path = folder.join(&name);
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            unchanged += 1;
            continue;
        }
        std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
        written.push(name);
    }
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if is_contract_file(&name) && documents.iter().all(|document| document.file_name() != name) {
            std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
            removed.push(name);
        }
    }
    if context.json {
        output::json(&json!({ "written": written, "removed": removed, "unchanged": unchanged }));
    } else {
        written.iter().for_each(|name| output::line(&format!("written    {name}")));
        removed.iter().for_each(|name| output::line(&format!("removed    {name}")));
        output::note(&format!("{} written, {} removed, {unchanged} as they were", written.len(), removed.len()));
    }
    Ok(ExitCode::SUCCESS)
}

/// `<name>.v<number>.json`
fn is_contract_file(name: &str) -> bool {
    let version = name.strip_suffix(".json").and_then(|stem| stem.rsplit_once(".v"));
    version.is_some_and(|(_, version)| version.parse::<u32>().is_ok())
}
