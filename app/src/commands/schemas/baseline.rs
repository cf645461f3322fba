//! The contracts as they were: in a folder, or in a revision of the git repository around the current folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use compat::Contract;
use serde_json::Value;

use super::check::unreadable;
use crate::failure::Failure;

pub type Contracts = BTreeMap<Contract, Value>;

/// A folder if there is one of this name; a revision, with the files in its folder `within`, otherwise.
pub fn read(against: &str, within: &Path) -> Result<Contracts, Failure> {
    let folder = Path::new(against);
    if folder.is_dir() { read_folder(folder) } else { read_revision(against, within) }
}

pub fn read_folder(folder: &Path) -> Result<Contracts, Failure> {
    let mut found = Contracts::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(contract) = Contract::of_file(&name) {
            let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
            found.insert(contract, parse(&path.display().to_string(), &text)?);
        }
    }
    not_empty(found, &folder.display().to_string())
}

fn read_revision(revision: &str, within: &Path) -> Result<Contracts, Failure> {
    let within = within.to_string_lossy();
    let within = within.trim_end_matches('/');
    let commit = format!("{revision}^{{commit}}");
    // A revision that looks like a flag is none.
    if revision.starts_with('-') || !git(&["rev-parse", "--quiet", "--verify", &commit])?.status.success() {
        return Err(Failure::new(format!("--against {revision} is neither a folder nor a revision known to git here"))
            .remedy(format!(
                "git fetch --depth 1 origin {revision}, then --against FETCH_HEAD, if this clone is shallow"
            ))
            .usage());
    }
    let listed = git(&["ls-tree", "--name-only", "-z", revision, &format!("{within}/")])?;
    let mut found = Contracts::new();
    for path in String::from_utf8_lossy(&listed.stdout).split('\0') {
        let Some(contract) = path.rsplit('/').next().and_then(Contract::of_file) else { continue };
        let place = format!("{revision}:./{path}");
        let shown = git(&["show", &place])?;
        if !shown.status.success() {
            let said = String::from_utf8_lossy(&shown.stderr).trim().to_owned();
            return Err(Failure::new(format!("git cannot show {place}: {said}")));
        }
        found.insert(contract, parse(&place, &String::from_utf8_lossy(&shown.stdout))?);
    }
    not_empty(found, &format!("{revision}:{within}"))
}

/// Comparing with nothing finds nothing, which must not look like a good result.
fn not_empty(found: Contracts, place: &str) -> Result<Contracts, Failure> {
    if found.is_empty() {
        return Err(Failure::new(format!(
            "{place} has no contracts, which are files named like orders.created.v2.json"
        ))
        .remedy("name the folder they are in with --folder")
        .usage());
    }
    Ok(found)
}

fn parse(place: &str, text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::new(format!("{place} is not JSON: {error}")).usage())
}

fn git(args: &[&str]) -> Result<Output, Failure> {
    Command::new("git").args(args).output().map_err(|error| {
        Failure::new(format!("git cannot be started: {error}"))
            .remedy("install git, or give --against a folder")
            .usage()
    })
}
