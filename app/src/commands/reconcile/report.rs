//! What came of a comparison, as people and scripts read it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::compare::Compared;
use super::fix::Done;
use super::judge::{Disagreement, Kind};
use crate::output;

/// More of one kind are counted, not shown one by one.
const SHOWN: usize = 50;

#[derive(Debug, Clone)]
pub struct Report {
    orders: u64,
    under_way: u64,
    /// Those that are left.
    pub disagreements: Vec<Disagreement>,
    done: Vec<Done>,
    mended: Vec<Disagreement>,
}

impl Report {
    pub fn of(compared: Compared) -> Self {
        let Compared { orders, under_way, found } = compared;
        Self { orders, under_way, disagreements: found, done: Vec::new(), mended: Vec::new() }
    }

    /// The same after fixes: `now` is what is left of the orders that were `touched`.
    pub fn after(self, now: Compared, touched: &BTreeSet<String>, done: Vec<Done>) -> Self {
        let is_touched = |one: &Disagreement| one.order_id.as_ref().is_some_and(|order| touched.contains(order));
        let (were, mut left): (Vec<_>, Vec<_>) = self.disagreements.into_iter().partition(is_touched);
        left.extend(now.found);
        let mended = were.into_iter().filter(|was| !left.iter().any(|one| one.is_same(was))).collect();
        Self { disagreements: left, done, mended, ..self }
    }

    pub fn show(&self, as_json: bool, fixing: bool) {
        if as_json {
            return output::json(&json!({
                "agree": self.disagreements.is_empty(),
                "orders": self.orders,
                "under_way": self.under_way,
                "disagreements": self.disagreements,
                "fixes": self.done,
                "mended": self.mended,
            }));
        }
        for done in &self.done {
            output::line(&format!(
                "{}  order {}: {}",
                if done.ok { "done  " } else { "FAILED" },
                done.order_id,
                done.what
            ));
        }
        if !self.mended.is_empty() {
            output::line(&format!("mended: {}\n", counts(&self.mended)));
        }
        let mut shown: BTreeMap<Kind, usize> = BTreeMap::new();
        for one in &self.disagreements {
            let count = shown.entry(one.kind).or_default();
            *count += 1;
            if *count <= SHOWN {
                show(one);
            }
        }
        for (kind, count) in shown.into_iter().filter(|(_, count)| *count > SHOWN) {
            output::line(&format!("... and {} more of {}; --json lists all\n", count - SHOWN, kind.as_str()));
        }
        output::line(&self.sum(fixing));
    }

    fn sum(&self, fixing: bool) -> String {
        let under_way = match self.under_way {
            0 => String::new(),
            n => format!(" ({n} of them under way, and left alone)"),
        };
        let compared = format!("{} orders compared{under_way}", self.orders);
        if self.disagreements.is_empty() {
            return format!("{compared}: all sides agree.");
        }
        let fixable = self.disagreements.iter().filter(|one| !one.fixes.is_empty()).count();
        let hint = match (fixable, fixing) {
            (0, _) => "none of them can be mended without somebody's decision".to_owned(),
            (n, false) => format!("{n} of them can be mended safely: --fix"),
            (n, true) => format!("{n} of them may need more time: run it again"),
        };
        format!(
            "{compared}: {} disagreements left ({}); {hint}.",
            self.disagreements.len(),
            counts(&self.disagreements)
        )
    }
}

fn show(one: &Disagreement) {
    let about = one.order_id.as_ref().map(|order| format!("  order {order}")).unwrap_or_default();
    output::line(&format!("{}{about}", one.kind.as_str()));
    for says in &one.says {
        output::line(&format!("    {:<24} {}", says.who, says.what));
    }
    output::line(&format!("    {:<24} {}\n", "->", one.remedy));
}

/// `2 event_lost, 1 timeline_gap`
fn counts(all: &[Disagreement]) -> String {
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for one in all {
        *counts.entry(one.kind).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
    parts.join(", ")
}

impl Disagreement {
    /// Whether both are about the same thing; what the sides say of it may have changed.
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |one: &Self| {
            let fixes = one.fixes.clone();
            (one.kind, one.order_id.clone(), fixes, one.says.first().map(|says| (says.who.clone(), says.what.clone())))
        };
        key(self) == key(other)
    }
}
