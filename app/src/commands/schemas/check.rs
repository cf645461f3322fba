//! `millrace schemas check`: whether the contracts of this build may replace those that were there before.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use compat::{Change, Contract, Names, Verdict, compare_contracts};
use contracts::documents;
use serde_json::{Value, json};

use super::{Check, Direction, baseline};
use crate::commands::Context;
use crate::failure::{CommandResult, Failure};
use crate::output;

pub fn run(context: &Context, args: &Check) -> CommandResult {
    let names = if args.strict { Names::Any } else { Names::Fresh };
    let new = match &args.current {
        Some(folder) => baseline::read_folder(folder)?,
        None => built_in(),
    };
    let retired = retired(args)?;
    if args.current.is_none() && baseline::read_folder(&args.folder).is_ok_and(|files| files != new) {
        output::note(&format!(
            "{0}/ is not what this binary was built with, and the binary is judged; --current {0} judges the files",
            args.folder.display()
        ));
    }
    let mut comparisons = Vec::new();
    for against in &args.against {
        let old = baseline::read(against, &args.folder)?;
        let mut changes = compare_contracts(&old, &new, names, |gone| retired.contains(gone));
        changes.retain(|change| !change.differences.is_empty());
        comparisons.push(Comparison { against, contracts: old.len(), changes });
    }
    let broken =
        comparisons.iter().flat_map(|one| &one.changes).filter(|change| breaks(change.verdict, args.direction));
    let broken: std::collections::BTreeSet<String> = broken.map(|change| change.contract.to_string()).collect();
    if context.json {
        output::json(&json!({
            "ok": broken.is_empty(), "direction": args.direction, "broken": broken,
            "comparisons": comparisons.iter().map(|one| json!({
                "against": one.against, "contracts": one.contracts, "changes": one.changes,
            })).collect::<Vec<_>>(),
        }));
    } else {
        comparisons.iter().for_each(|comparison| show(comparison, args.direction));
        if broken.is_empty() {
            output::note("No contract is broken.");
        } else {
            let names: Vec<&str> = broken.iter().map(String::as_str).collect();
            output::note(&format!(
                "Broken: {}. Undo the change, or leave the version as it was and add a new one.",
                names.join(", ")
            ));
        }
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Beside the contracts: one version a line that may be gone, `orders.created v1`; what follows a # is for people.
const RETIRED: &str = "retired.txt";

/// The versions that may be gone.
fn retired(args: &Check) -> Result<Vec<Contract>, Failure> {
    let path = args.current.as_ref().unwrap_or(&args.folder).join(RETIRED);
    let listed = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unreadable(&path, &error)),
    };
    let lines = listed.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty()).map(|line| named(line, &path.display().to_string()));
    args.retired.iter().map(|text| named(text, "--retired")).chain(lines).collect()
}

/// `orders.created v1`
fn named(text: &str, place: &str) -> Result<Contract, Failure> {
    let parts = text.trim().split_once(" v").and_then(|(name, version)| Some((name, version.parse().ok()?)));
    let (name, version) = parts.ok_or_else(|| {
        Failure::new(format!("{place}: {text:?} names no version"))
            .remedy("write it like this: orders.created v1")
            .usage()
    })?;
    Ok(Contract { name: name.to_owned(), version })
}

/// What changed since one baseline.
struct Comparison<'a> {
    against: &'a str,
    contracts: usize,
    changes: Vec<Change>,
}

fn built_in() -> BTreeMap<Contract, Value> {
    let entry =
        |document: documents::Document| (Contract { name: document.name, version: document.version }, document.schema);
    documents::all().into_iter().map(entry).collect()
}

fn breaks(verdict: Verdict, direction: Direction) -> bool {
    match direction {
        Direction::Both => verdict != Verdict::Compatible,
        Direction::Readers => !verdict.readers(),
        Direction::Writers => !verdict.writers(),
    }
}

fn show(comparison: &Comparison<'_>, direction: Direction) {
    let Comparison { against, contracts, changes } = comparison;
    output::line(&format!("against {against} ({contracts} contracts):"));
    if changes.is_empty() {
        output::line("  nothing changed");
    }
    for change in changes {
        output::line(&format!("  {}", change.contract));
        for difference in &change.differences {
            let mark = if breaks(difference.verdict, direction) { "BREAK" } else { "ok" };
            let path = if difference.path.is_empty() { String::new() } else { format!("{}: ", difference.path) };
            output::line(&format!("    {mark:<5} {}{path}{}", in_words(difference.verdict), difference.why));
        }
    }
}

fn in_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Compatible => "",
        Verdict::ForReaders => "[for readers only] ",
        Verdict::ForWriters => "[for writers only] ",
        Verdict::Breaking => "[breaking] ",
    }
}

/// For a folder that is not there.
pub(super) fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {error}", path.display())).usage()
}
