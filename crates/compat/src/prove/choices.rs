//! Alternatives.

use serde_json::Value;

use super::disjoint::never;
use super::facts::Facts;
use super::{Gap, Gaps, Prover, What, may, unjudged};
use crate::node::Node;
use crate::same::same_keyword;
use crate::value::{exactly_one, holds};

impl Prover {
    pub(super) fn any_of(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        if !self.known(facts, wanted, "anyOf") {
            self.some_branch(facts, wanted, "anyOf", path, gaps, &|_, _| true);
        }
    }

    /// In one alternative, and in no other.
    pub(super) fn one_of(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        if self.known(facts, wanted, "oneOf") {
            return;
        }
        let branches = wanted.list("oneOf");
        self.some_branch(facts, wanted, "oneOf", path, gaps, &|case, taken| {
            let others = branches.iter().enumerate().filter(|(index, _)| *index != taken);
            others.into_iter().all(|(_, other)| apart(case, wanted.part(other)))
        });
    }

    fn known(&self, facts: &Facts<'_>, wanted: Node<'_>, keyword: &str) -> bool {
        facts.nodes.iter().any(|node| same_keyword(keyword, *node, wanted))
    }

    /// Shows that one alternative contains everything and `only` holds of it, if need be for each kind of value or each
    /// single value by itself.
    fn some_branch(
        &self,
        facts: &Facts<'_>,
        wanted: Node<'_>,
        keyword: &str,
        path: &str,
        gaps: &mut Gaps,
        only: &dyn Fn(&Facts<'_>, usize) -> bool,
    ) {
        let at = format!("{path}/{keyword}");
        let branches = wanted.list(keyword);
        if branches.is_empty() {
            return unjudged(gaps, &at, "it names no alternative");
        }
        let kinds: Vec<_> = facts.kinds().each().collect();
        if kinds.len() > 1 {
            for kind in kinds {
                self.some_branch(&facts.only(kind), wanted, keyword, path, gaps, only);
            }
            return;
        }
        let mut closest: Option<(usize, Gaps)> = None;
        for (index, branch) in branches.iter().enumerate() {
            let mut found = Vec::new();
            self.within(facts, wanted.part(branch), &format!("{at}/{index}"), &mut found);
            if found.is_empty() {
                if !only(facts, index) {
                    unjudged(gaps, &at, "whether some data fit more than one alternative cannot be told");
                }
                return;
            }
            if closest.as_ref().is_none_or(|(_, least)| found.len() < least.len()) {
                closest = Some((index, found));
            }
        }
        if let Some(values) = facts.finite() {
            let fits = |value: &Value| {
                let mut verdicts = branches.iter().map(|branch| holds(wanted.part(branch), value));
                match keyword {
                    "anyOf" => Some(verdicts.any(|verdict| verdict == Some(true))),
                    _ => exactly_one(verdicts),
                }
            };
            let misfits: Vec<_> = values.into_iter().filter(|value| fits(value) != Some(true)).collect();
            misfits.iter().for_each(|value| may(gaps, &at, &format!("be {value}")));
            return;
        }
        match closest {
            // What the best guess says, at its place.
            Some((_, found)) => gaps.extend(found.into_iter().map(|gap| Gap { what: fits_none(gap.what), ..gap })),
            None => may(gaps, &at, "fit none of the alternatives"),
        }
    }
}

fn fits_none(what: What) -> What {
    match what {
        What::May(text) if text.contains("fits no alternative") => What::May(text),
        What::May(text) => What::May(format!("{text} and then fits no alternative")),
        other => other,
    }
}

/// Whether nothing the facts describe is valid under the schema.
fn apart(facts: &Facts<'_>, schema: Node<'_>) -> bool {
    facts.and(schema).cases().iter().all(never)
}
