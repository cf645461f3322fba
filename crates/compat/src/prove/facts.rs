//! What is known of every document that a schema allows: it is valid under each of a number of schemas at once.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::disjoint::never;
use super::names::Spoken;
use crate::kinds::Kinds;
use crate::node::Node;
use crate::number::{Num, count, equal};
use crate::value::holds;

/// Schemas that hold at once: references followed, `allOf` taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    pub(crate) nodes: Vec<Node<'a>>,
    /// One of them allows nothing.
    pub(crate) impossible: bool,
    /// Property names of alternatives that were not taken here, but may hold as well.
    other_names: BTreeSet<&'a str>,
    /// Alternatives that were taken already, by schema and keyword.
    taken: Vec<(usize, &'static str)>,
}

/// A limit of numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) at: Num,
    pub(crate) exclusive: bool,
}

/// More cases than this are not told apart.
const CASES: usize = 64;

impl<'a> Facts<'a> {
    pub(crate) fn of(nodes: impl IntoIterator<Item = Node<'a>>) -> Self {
        let mut facts = Self { nodes: Vec::new(), impossible: false, other_names: BTreeSet::new(), taken: Vec::new() };
        nodes.into_iter().for_each(|node| facts.add(node));
        facts
    }

    pub(crate) fn and(&self, node: Node<'a>) -> Self {
        let mut facts = self.clone();
        facts.add(node);
        facts
    }

    /// With values of some kinds only.
    pub(crate) fn only(&self, kinds: Kinds) -> Self {
        static TYPES: LazyLock<[(Kinds, Value); 6]> = LazyLock::new(|| {
            let named = |kinds: Kinds, name: &str| (kinds, json!({ "type": name }));
            [
                named(Kinds::NULL, "null"),
                named(Kinds::BOOLEAN, "boolean"),
                named(Kinds::OBJECT, "object"),
                named(Kinds::ARRAY, "array"),
                named(Kinds::STRING, "string"),
                named(Kinds::NUMBER, "number"),
            ]
        });
        match TYPES.iter().find(|(known, _)| known.has(kinds)) {
            Some((_, schema)) => self.and(Node::root(schema)),
            None => self.clone(),
        }
    }

    fn add(&mut self, node: Node<'a>) {
        if node.schema == &Value::Bool(false) {
            self.impossible = true;
        }
        if node.keywords().is_none() || self.nodes.iter().any(|known| known.key() == node.key()) {
            return;
        }
        self.nodes.push(node);
        if let Some(target) = node.get("$ref").and_then(Value::as_str).and_then(|reference| node.target(reference)) {
            self.add(target);
        }
        node.list("allOf").iter().for_each(|part| self.add(node.part(part)));
    }

    /// Identifies these facts among those made from the same documents.
    pub(crate) fn key(&self) -> Vec<usize> {
        let mut key: Vec<usize> = self.nodes.iter().map(|node| node.key()).collect();
        key.sort_unstable();
        key.push(usize::from(self.impossible));
        key
    }

    /// The alternatives one by one. Each document is described by at least one of them.
    pub(crate) fn cases(&self) -> Vec<Self> {
        let mut done = Vec::new();
        let mut open = vec![self.clone()];
        while let Some(facts) = open.pop() {
            let Some((node, keyword)) = facts.alternative() else {
                done.push(facts);
                continue;
            };
            let branches = node.list(keyword);
            if done.len() + open.len() + branches.len() > CASES {
                // Fewer facts are still facts; no alternative is taken, so the names of all count as spoken of.
                return vec![self.clone()];
            }
            for (index, branch) in branches.iter().enumerate() {
                let mut case = facts.clone();
                case.taken.push((node.key(), keyword));
                case.add(node.part(branch));
                for (other, schema) in branches.iter().enumerate() {
                    if other != index && !never(&case.and(node.part(schema))) {
                        case.other_names.extend(Spoken::of(&[node.part(schema)], &[]).names);
                    }
                }
                open.push(case);
            }
        }
        done.reverse();
        done
    }

    fn alternative(&self) -> Option<(Node<'a>, &'static str)> {
        let mut choices = self.nodes.iter().flat_map(|node| [(*node, "oneOf"), (*node, "anyOf")]);
        choices.find(|(node, keyword)| !node.list(keyword).is_empty() && !self.taken.contains(&(node.key(), *keyword)))
    }

    pub(crate) fn values(&self, keyword: &str) -> impl Iterator<Item = &'a Value> {
        self.nodes.iter().filter_map(move |node| node.get(keyword))
    }

    pub(crate) fn kinds(&self) -> Kinds {
        if self.impossible {
            return Kinds::NONE;
        }
        let typed = self.values("type").filter_map(Kinds::of_type).fold(Kinds::ALL, Kinds::and);
        match self.listed() {
            Some(values) => values.iter().fold(Kinds::NONE, |kinds, value| kinds.or(Kinds::of_value(value))).and(typed),
            None => typed,
        }
    }

    /// The values of the first `const` or `enum`.
    fn listed(&self) -> Option<Vec<&'a Value>> {
        self.nodes.iter().find_map(|node| match (node.get("const"), node.get("enum")) {
            (Some(value), _) => Some(vec![value]),
            (None, Some(Value::Array(values))) => Some(values.iter().collect()),
            _ => None,
        })
    }

    /// All values there can be, where that is known.
    pub(crate) fn finite(&self) -> Option<Vec<&'a Value>> {
        static FEW: LazyLock<[Value; 3]> = LazyLock::new(|| [Value::Null, json!(false), json!(true)]);
        let few = Kinds::NULL.or(Kinds::BOOLEAN);
        let values = match self.listed() {
            Some(values) => values,
            None if self.kinds().without(few).is_empty() => FEW.iter().collect(),
            None => return None,
        };
        let possible = |value: &&Value| self.nodes.iter().all(|node| holds(*node, value) != Some(false));
        Some(if self.impossible { Vec::new() } else { values.into_iter().filter(possible).collect() })
    }

    /// The strictest lower limit.
    pub(crate) fn lower(&self) -> Option<Bound> {
        let bounds = limits(self, "minimum", "exclusiveMinimum");
        let tightest = bounds.reduce(|a, b| match a.at.compare(b.at) {
            Some(std::cmp::Ordering::Less) => b,
            Some(std::cmp::Ordering::Equal) => Bound { at: a.at, exclusive: a.exclusive || b.exclusive },
            _ => a,
        })?;
        let integers = !self.kinds().has(Kinds::FRACTION);
        Some(match tightest.at.ceiling() {
            Num::Integer(at) if integers => {
                let skips = tightest.exclusive && matches!(tightest.at, Num::Integer(_));
                Bound { at: Num::Integer(at + i128::from(skips)), exclusive: false }
            }
            _ => tightest,
        })
    }

    /// The strictest upper limit.
    pub(crate) fn upper(&self) -> Option<Bound> {
        let bounds = limits(self, "maximum", "exclusiveMaximum");
        let tightest = bounds.reduce(|a, b| match a.at.compare(b.at) {
            Some(std::cmp::Ordering::Greater) => b,
            Some(std::cmp::Ordering::Equal) => Bound { at: a.at, exclusive: a.exclusive || b.exclusive },
            _ => a,
        })?;
        let integers = !self.kinds().has(Kinds::FRACTION);
        Some(match tightest.at.floor() {
            Num::Integer(at) if integers => {
                let skips = tightest.exclusive && matches!(tightest.at, Num::Integer(_));
                Bound { at: Num::Integer(at - i128::from(skips)), exclusive: false }
            }
            _ => tightest,
        })
    }

    /// The largest value of a keyword that says how much there is at least.
    pub(crate) fn at_least(&self, keyword: &str) -> u64 {
        self.values(keyword).filter_map(count).max().unwrap_or(0)
    }

    /// The smallest value of a keyword that says how much there is at most.
    pub(crate) fn at_most(&self, keyword: &str) -> Option<u64> {
        self.values(keyword).filter_map(count).min()
    }

    pub(crate) fn most_items(&self) -> Option<u64> {
        let ends = |node: &&Node<'a>| node.get("items") == Some(&Value::Bool(false));
        let closed = self.nodes.iter().filter(ends).map(|node| node.list("prefixItems").len() as u64).min();
        self.at_most("maxItems").into_iter().chain(closed).min()
    }

    /// What is known of the element at this place.
    pub(crate) fn element(&self, index: usize) -> Facts<'a> {
        Facts::of(self.nodes.iter().filter_map(|node| {
            let prefix = node.list("prefixItems");
            let rest = || node.get("items").filter(|items| !items.is_array());
            prefix.get(index).or_else(rest).map(|schema| node.part(schema))
        }))
    }

    pub(crate) fn longest_prefix(&self) -> usize {
        self.nodes.iter().map(|node| node.list("prefixItems").len()).max().unwrap_or(0)
    }

    pub(crate) fn required(&self) -> BTreeSet<&'a str> {
        self.values("required").filter_map(Value::as_array).flatten().filter_map(Value::as_str).collect()
    }

    /// Property names that these schemas declare.
    pub(crate) fn declared(&self) -> BTreeSet<&'a str> {
        self.nodes.iter().flat_map(|node| node.map("properties")).map(|(name, _)| name).collect()
    }

    /// What these schemas say of names, declared or not.
    pub(super) fn spoken(&self) -> Spoken<'a> {
        Spoken::of(&self.nodes, &self.taken)
    }

    /// Names that may occur with values of which nothing is known.
    pub(crate) fn other_names(&self) -> &BTreeSet<&'a str> {
        &self.other_names
    }

    /// What is known of the property of this name.
    pub(crate) fn property(&self, name: &str) -> Facts<'a> {
        Facts::of(self.nodes.iter().filter_map(|node| {
            let named = node.get("properties").and_then(|properties| properties.get(name));
            // Whether a pattern matches is not looked at; then nothing is known from this schema.
            let rest = || match node.get("patternProperties") {
                None => node.get("additionalProperties"),
                Some(_) => None,
            };
            named.or_else(rest).map(|schema| node.part(schema))
        }))
    }

    /// What is known of properties that are neither named nor match a pattern.
    pub(crate) fn further(&self) -> Facts<'a> {
        Facts::of(self.nodes.iter().filter_map(|node| Some(node.part(node.get("additionalProperties")?))))
    }
}

fn limits<'a>(
    facts: &'a Facts<'_>,
    inclusive: &'static str,
    exclusive: &'static str,
) -> impl Iterator<Item = Bound> + 'a {
    let bound = |exclusive: bool| move |value: &Value| Some(Bound { at: Num::of_value(value)?, exclusive });
    facts.values(inclusive).filter_map(bound(false)).chain(facts.values(exclusive).filter_map(bound(true)))
}

/// Whether `value` is one of `values`.
pub(crate) fn lists(values: &[Value], value: &Value) -> bool {
    values.iter().any(|listed| equal(listed, value))
}
