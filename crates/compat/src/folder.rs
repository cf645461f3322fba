//! Two sets of contracts: what was added, taken away, changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::Names;
use crate::compare::{Difference, Verdict, compare};

/// A version of a message, as its file is named: `orders.created.v2.json`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Contract {
    pub name: String,
    pub version: u32,
}

impl Contract {
    /// `None` for a file that is not named like one.
    pub fn of_file(name: &str) -> Option<Self> {
        let (name, version) = name.strip_suffix(".json")?.rsplit_once(".v")?;
        Some(Self { name: name.to_owned(), version: version.parse().ok()? })
    }

    pub fn file_name(&self) -> String {
        format!("{}.v{}.json", self.name, self.version)
    }
}

impl std::fmt::Display for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

/// What became of one contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    #[serde(flatten)]
    pub contract: Contract,
    pub verdict: Verdict,
    pub differences: Vec<Difference>,
}

/// What changed from one set to the other; what did not is left out. `retired` says which versions may be gone.
pub fn compare_contracts(
    old: &BTreeMap<Contract, Value>,
    new: &BTreeMap<Contract, Value>,
    names: Names,
    retired: impl Fn(&Contract) -> bool,
) -> Vec<Change> {
    let whole = |contract: &Contract, verdict: Verdict, why: String| Change {
        contract: contract.clone(),
        verdict,
        differences: vec![Difference { path: String::new(), verdict, why }],
    };
    let all: BTreeSet<&Contract> = old.keys().chain(new.keys()).collect();
    let change = |contract: &&Contract| match (old.get(contract), new.get(contract)) {
        (Some(was), Some(is)) => {
            let differences = compare(was, is, names);
            let verdict = differences.iter().fold(Verdict::Compatible, |all, one| all.and(one.verdict));
            (!differences.is_empty()).then(|| Change { contract: (*contract).clone(), verdict, differences })
        }
        (None, Some(_)) => Some(whole(contract, Verdict::Compatible, "is new".into())),
        (Some(_), None) if retired(contract) => {
            Some(whole(contract, Verdict::Compatible, "is gone, and was retired".into()))
        }
        (Some(_), None) => Some(whole(contract, Verdict::Breaking, "is gone, and was not retired".into())),
        (None, None) => None,
    };
    all.iter().filter_map(change).collect()
}
