//! The differences between two versions of one schema.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::Names;
use crate::node::{refers_elsewhere, unjudgeable};
use crate::prove::{Gap, What, gaps};
use crate::walk::edits;

/// Whom a difference breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nobody: new readers read what was written before, and old readers what is written from now on.
    Compatible,
    /// New readers read what was written before; old readers may fail on what is written from now on.
    ForReaders,
    /// Old readers read what is written from now on; new readers may fail on what was written before.
    ForWriters,
    /// Both may fail.
    Breaking,
}

impl Verdict {
    fn of(readers: bool, writers: bool) -> Self {
        match (readers, writers) {
            (true, true) => Self::Compatible,
            (true, false) => Self::ForReaders,
            (false, true) => Self::ForWriters,
            (false, false) => Self::Breaking,
        }
    }

    /// Whether new readers read old data.
    pub fn readers(self) -> bool {
        matches!(self, Self::Compatible | Self::ForReaders)
    }

    /// Whether old readers read new data.
    pub fn writers(self) -> bool {
        matches!(self, Self::Compatible | Self::ForWriters)
    }

    /// What both say together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::of(self.readers() && other.readers(), self.writers() && other.writers())
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// A JSON pointer into the schema, with references followed; empty for the whole. What is said of one name or value of
    /// a list ends with it: `/required/amount`.
    pub path: String,
    pub verdict: Verdict,
    /// In plain words.
    pub why: String,
}

/// Every difference, by path. None means that nobody can tell the two apart.
pub fn compare(old: &Value, new: &Value, names: Names) -> Vec<Difference> {
    let unknown = if old == new { refers_elsewhere(old) } else { unjudgeable(old).or_else(|| unjudgeable(new)) };
    if let Some(why) = unknown {
        let why = format!("cannot be judged, so it counts as a break: {why}");
        return vec![Difference { path: String::new(), verdict: Verdict::Breaking, why }];
    }
    if old == new {
        return Vec::new();
    }
    let mut sides: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for Gap { path, what } in gaps(old, new, names) {
        sides.entry(path).or_default().0.push(reason(&what, "old data", "new readers"));
    }
    for Gap { path, what } in gaps(new, old, names) {
        sides.entry(path).or_default().1.push(reason(&what, "new data", "old readers"));
    }
    let harmless = Verdict::Compatible;
    let mut differences: Vec<Difference> = Vec::new();
    for edit in edits(old, new) {
        if edit.unknown {
            differences.push(Difference { path: edit.path, verdict: Verdict::Breaking, why: edit.said });
        } else if !sides.keys().any(|path| is_in(path, &edit.path) || is_in(&edit.path, path)) {
            differences.push(Difference { path: edit.path, verdict: harmless, why: edit.said });
        }
    }
    for (path, (readers, writers)) in sides {
        let verdict = Verdict::of(readers.is_empty(), writers.is_empty());
        let mut why: Vec<String> = readers.into_iter().chain(writers).collect();
        why.dedup();
        differences.push(Difference { path, verdict, why: why.join("; ") });
    }
    if differences.is_empty() {
        let why = "written differently, and means the same".to_owned();
        differences.push(Difference { path: String::new(), verdict: harmless, why });
    }
    differences.sort_by(|a, b| (&a.path, &a.why).cmp(&(&b.path, &b.why)));
    differences
}

/// Whether a place is another one or within it.
fn is_in(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn reason(what: &What, data: &str, readers: &str) -> String {
    match what {
        What::May(what) => format!("{data} may {what}, which {readers} refuse"),
        What::Unjudged(why) => {
            format!("whether {readers} read {data} cannot be judged, so it counts as a break: {why}")
        }
    }
}
