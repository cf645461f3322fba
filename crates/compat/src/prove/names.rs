//! The property names that schemas speak of, declared or not. Whoever writes under them may have used those names, so that
//! nothing may be assumed of them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::keyword::{Shape, shape};
use crate::node::Node;

#[derive(Debug, Default)]
pub(super) struct Spoken<'a> {
    pub(super) names: BTreeSet<&'a str>,
    /// Something is said of names that are not listed, or may be: such names are data, as in a map.
    pub(super) of_any_name: bool,
    seen: BTreeSet<usize>,
}

impl<'a> Spoken<'a> {
    /// Of these schemas, without the alternatives under (schema, keyword) that were `taken`: the one that was chosen is
    /// among the schemas.
    pub(super) fn of(nodes: &[Node<'a>], taken: &[(usize, &'static str)]) -> Self {
        let mut spoken = Self::default();
        nodes.iter().for_each(|node| spoken.add(*node, taken));
        spoken
    }

    /// Only what is said about the value itself: parts of it have names of their own.
    fn add(&mut self, node: Node<'a>, taken: &[(usize, &'static str)]) {
        if !self.seen.insert(node.key()) {
            return;
        }
        for (keyword, says) in node.keywords().into_iter().flatten() {
            match keyword.as_str() {
                "properties" => self.names.extend(keys(says)),
                "required" => self.names.extend(texts(says)),
                "dependentRequired" => {
                    self.names.extend(keys(says));
                    self.names.extend(says.as_object().into_iter().flatten().flat_map(|(_, needs)| texts(needs)));
                }
                "dependentSchemas" => {
                    self.names.extend(keys(says));
                    node.map("dependentSchemas").for_each(|(_, part)| self.add(part, taken));
                }
                "const" => self.names.extend(keys(says)),
                "enum" => self.names.extend(node.list("enum").iter().flat_map(keys)),
                "patternProperties" | "propertyNames" => self.of_any_name = true,
                "additionalProperties" | "unevaluatedProperties" => self.of_any_name |= !says.is_boolean(),
                "if" | "then" | "else" | "not" => self.add(node.part(says), taken),
                "allOf" => node.list("allOf").iter().for_each(|part| self.add(node.part(part), taken)),
                "anyOf" | "oneOf" if taken.iter().any(|(key, of)| (*key, *of) == (node.key(), keyword)) => {}
                "anyOf" | "oneOf" => node.list(keyword).iter().for_each(|part| self.add(node.part(part), taken)),
                "$ref" => {
                    let target = says.as_str().and_then(|reference| node.target(reference));
                    target.into_iter().for_each(|target| self.add(target, taken));
                }
                // What is not understood may speak of any.
                other => self.of_any_name |= shape(other) == Shape::Unknown,
            }
        }
    }
}

fn keys(value: &Value) -> impl Iterator<Item = &str> {
    value.as_object().into_iter().flatten().map(|(name, _)| name.as_str())
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}
