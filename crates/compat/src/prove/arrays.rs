//! Elements.

use serde_json::Value;

use super::facts::Facts;
use super::{Gaps, Prover, may, unjudged};
use crate::node::Node;

impl Prover {
    /// The elements that `prefixItems` names.
    pub(super) fn prefix(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        for (index, schema) in wanted.list("prefixItems").iter().enumerate() {
            if facts.most_items().is_none_or(|most| (index as u64) < most) {
                let at = format!("{path}/prefixItems/{index}");
                self.part_within(&facts.element(index), wanted.part(schema), &at, gaps);
            }
        }
    }

    /// The elements after those.
    pub(super) fn items(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        let at = format!("{path}/items");
        let Some(schema) = wanted.get("items") else { return };
        if schema.is_array() {
            return unjudged(gaps, &at, "a list of schemas is called `prefixItems` since 2020-12");
        }
        let first = wanted.list("prefixItems").len();
        // From the first one that no prefix names, all are alike.
        for index in first..=facts.longest_prefix().max(first) {
            if facts.most_items().is_none_or(|most| (index as u64) < most) {
                self.part_within(&facts.element(index), wanted.part(schema), &at, gaps);
            }
        }
    }
}

pub(super) fn unique(facts: &Facts<'_>, says: &Value, at: &str, gaps: &mut Gaps) {
    let known = facts.values("uniqueItems").any(|known| known == &Value::Bool(true));
    let alone = facts.most_items().is_some_and(|most| most <= 1);
    if says == &Value::Bool(true) && !known && !alone {
        may(gaps, at, "have an item twice");
    }
}
