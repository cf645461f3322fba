//! A schema within the document that its references lead into.

use serde_json::{Map, Value};

use crate::keyword::is_annotation;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a> {
    pub(crate) schema: &'a Value,
    document: &'a Value,
}

/// Longer chains of references than this lead nowhere.
const CHAIN: usize = 32;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

impl<'a> Node<'a> {
    pub(crate) fn root(document: &'a Value) -> Self {
        Self { schema: document, document }
    }

    /// A part of this schema.
    pub(crate) fn part(self, schema: &'a Value) -> Self {
        Self { schema, ..self }
    }

    /// Says which schema this is: the same one reached on two ways is one.
    pub(crate) fn key(self) -> usize {
        std::ptr::from_ref(self.schema) as usize
    }

    pub(crate) fn keywords(self) -> Option<&'a Map<String, Value>> {
        self.schema.as_object()
    }

    pub(crate) fn get(self, keyword: &str) -> Option<&'a Value> {
        self.schema.as_object()?.get(keyword)
    }

    /// The schemas of a keyword that has several.
    pub(crate) fn list(self, keyword: &str) -> &'a [Value] {
        self.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The named schemas of a keyword.
    pub(crate) fn map(self, keyword: &str) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        let members = self.get(keyword).and_then(Value::as_object).into_iter().flatten();
        members.map(move |(name, schema)| (name.as_str(), self.part(schema)))
    }

    /// Where a reference leads, if that is in this document.
    pub(crate) fn target(self, reference: &str) -> Option<Self> {
        let pointer = reference.strip_prefix('#')?;
        if pointer.contains('%') || !(pointer.is_empty() || pointer.starts_with('/')) {
            return None;
        }
        self.document.pointer(pointer).map(|schema| self.part(schema))
    }

    /// Follows references that stand alone.
    pub(crate) fn resolved(self) -> Self {
        let mut node = self;
        for _ in 0..CHAIN {
            let Some(keywords) = node.keywords() else { break };
            let Some(reference) = keywords.get("$ref").and_then(Value::as_str) else { break };
            if !keywords.keys().all(|name| name == "$ref" || is_annotation(name)) {
                break;
            }
            let Some(target) = node.target(reference) else { break };
            node = target;
        }
        node
    }
}

/// Why nothing can be said about a document, if so.
pub(crate) fn unjudgeable(document: &Value) -> Option<String> {
    match document.get("$schema") {
        None => {}
        Some(Value::String(dialect)) if dialect.trim_end_matches('#') == DIALECT => {}
        Some(other) => return Some(format!("it is written in {other}, and only JSON Schema 2020-12 is understood")),
    }
    moving_reference(document, true)
}

/// Finds what makes a reference mean something else than the place it names.
fn moving_reference(schema: &Value, top: bool) -> Option<String> {
    const MOVING: [&str; 5] = ["$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef"];
    const DATA: [&str; 4] = ["enum", "const", "default", "examples"];
    match schema {
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            if MOVING.contains(&name.as_str()) || (!top && name == "$id" && value.is_string()) {
                return Some(format!("it uses `{name}`, which is not understood"));
            }
            if DATA.contains(&name.as_str()) { None } else { moving_reference(value, false) }
        }),
        Value::Array(values) => values.iter().find_map(|value| moving_reference(value, false)),
        _ => None,
    }
}
