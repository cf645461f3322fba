//! Properties.

use serde_json::Value;

use super::facts::Facts;
use super::{Gaps, Prover, escaped, may, unjudged};
use crate::Names;
use crate::node::Node;
use crate::value::holds;

impl Prover {
    pub(super) fn properties(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        let spoken = facts.spoken();
        // A record has fields with names; in a map, names are data.
        let record = !facts.declared().is_empty() && !spoken.of_any_name;
        for (name, schema) in wanted.map("properties") {
            let unused = self.names == Names::Fresh
                && record
                && !spoken.names.contains(name)
                && !facts.other_names().contains(name);
            if !unused {
                let at = format!("{path}/properties/{}", escaped(name));
                self.part_within(&facts.property(name), schema, &at, gaps);
            }
        }
    }

    /// What is said of all properties that `properties` and `patternProperties` do not speak of.
    pub(super) fn additional(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        let Some(schema) = wanted.get("additionalProperties") else { return };
        if schema == &Value::Bool(true) {
            return;
        }
        let rest = wanted.part(schema);
        let named = |name: &str| wanted.get("properties").is_some_and(|properties| properties.get(name).is_some());
        // A name may match a pattern here and be free of this; asking it none the less asks for more.
        for name in facts.declared().union(facts.other_names()).filter(|name| !named(name)) {
            let known = facts.property(name);
            let at = format!("{path}/properties/{}", escaped(name));
            if schema == &Value::Bool(false) && !super::disjoint::never(&known) {
                may(gaps, &at, &format!("have `{name}`"));
            } else {
                self.part_within(&known, rest, &at, gaps);
            }
        }
        let at = format!("{path}/additionalProperties");
        for node in &facts.nodes {
            for (pattern, known) in node.map("patternProperties") {
                let covered = wanted.get("patternProperties").is_some_and(|patterns| patterns.get(pattern).is_some());
                if !covered {
                    self.part_within(&Facts::of([known]), rest, &at, gaps);
                }
            }
        }
        let further = facts.further();
        if schema == &Value::Bool(false) && !super::disjoint::never(&further) {
            may(gaps, &at, "have properties that are not named");
        } else {
            self.part_within(&further, rest, &at, gaps);
        }
    }

    pub(super) fn pattern_properties(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        for (pattern, schema) in wanted.map("patternProperties") {
            let at = format!("{path}/patternProperties/{}", escaped(pattern));
            let holds_for = |known: &Facts<'_>| {
                let mut found = Vec::new();
                self.part_within(known, schema, &at, &mut found);
                found.is_empty()
            };
            let patterns = || facts.nodes.iter().flat_map(|node| node.map("patternProperties"));
            let same_pattern = patterns().any(|(known, says)| known == pattern && holds_for(&Facts::of([says])));
            // Or whatever its name is, a property is as it should be.
            let any_name = || {
                facts.other_names().is_empty()
                    && facts.declared().iter().all(|name| holds_for(&facts.property(name)))
                    && patterns().all(|(_, says)| holds_for(&Facts::of([says])))
                    && holds_for(&facts.further())
            };
            if !same_pattern && !any_name() {
                may(gaps, &at, "have a property of such a name with another value");
            }
        }
    }

    pub(super) fn property_names(&self, facts: &Facts<'_>, wanted: Node<'_>, at: &str, gaps: &mut Gaps) {
        let Some(schema) = wanted.get("propertyNames").map(|schema| wanted.part(schema)) else { return };
        let closed = facts.further().impossible && facts.values("patternProperties").next().is_none();
        if closed && facts.declared().iter().all(|name| holds(schema, &Value::from(*name)) == Some(true)) {
            return;
        }
        self.opaque(facts, wanted, &["propertyNames"], at, gaps);
    }
}

pub(super) fn required(facts: &Facts<'_>, says: &Value, at: &str, gaps: &mut Gaps) {
    let Some(names) = says.as_array() else { return unjudged(gaps, at, "this is not a list of names") };
    let known = facts.required();
    for name in names.iter().filter_map(Value::as_str).filter(|name| !known.contains(name)) {
        may(gaps, &format!("{at}/{}", escaped(name)), &format!("lack `{name}`"));
    }
}

/// The most properties an object can have.
pub(super) fn most(facts: &Facts<'_>) -> Option<u64> {
    let closed = facts.nodes.iter().filter(|node| {
        node.get("additionalProperties") == Some(&Value::Bool(false)) && node.get("patternProperties").is_none()
    });
    let counted = closed.map(|node| node.map("properties").count() as u64).min();
    facts.at_most("maxProperties").into_iter().chain(counted).min()
}

pub(super) fn dependent(facts: &Facts<'_>, says: &Value, at: &str, gaps: &mut Gaps) {
    let Some(rules) = says.as_object() else { return unjudged(gaps, at, "this is not a map of names") };
    let required = facts.required();
    for (name, needs) in rules {
        let known = |needed: &str| {
            let ruled = |known: &Value| {
                known
                    .get(name)
                    .and_then(Value::as_array)
                    .is_some_and(|names| super::facts::lists(names, &needed.into()))
            };
            required.contains(needed) || facts.values("dependentRequired").any(ruled)
        };
        for needed in needs.as_array().into_iter().flatten().filter_map(Value::as_str).filter(|n| !known(n)) {
            may(gaps, &format!("{at}/{}", escaped(name)), &format!("have `{name}` without `{needed}`"));
        }
    }
}
