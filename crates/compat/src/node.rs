//! A schema within the document that its references lead into.

use serde_json::{Map, Value};

use crate::keyword::{Shape, is_annotation, shape};

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
        let pointer = within(self.document, reference)?;
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

/// The fragment of a reference into the document itself, by its own `$id` or without.
fn within<'r>(document: &Value, reference: &'r str) -> Option<&'r str> {
    let own = document.get("$id").and_then(Value::as_str).unwrap_or_default().trim_end_matches('#');
    match reference.strip_prefix(own) {
        Some("") => Some(""),
        Some(rest) if rest.starts_with('#') => rest.strip_prefix('#'),
        _ => reference.strip_prefix('#'),
    }
}

/// Why nothing can be said about a document, if so.
pub(crate) fn unjudgeable(document: &Value) -> Option<String> {
    match document.get("$schema") {
        None => {}
        Some(Value::String(dialect)) if dialect.trim_end_matches('#') == DIALECT => {}
        Some(other) => return Some(format!("it is written in {other}, and only JSON Schema 2020-12 is understood")),
    }
    find(document, true, &|keyword, says, top| {
        let moves =
            ["$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef"].contains(&keyword);
        // References within such a part are meant from there.
        let is_document = !top && keyword == "$id" && says.is_string();
        (moves || is_document).then(|| format!("it uses `{keyword}`, which is not understood"))
    })
    .or_else(|| refers_elsewhere(document))
}

/// Why a document that did not change may mean something else all the same, if so.
pub(crate) fn refers_elsewhere(document: &Value) -> Option<String> {
    find(document, true, &|keyword, says, _| {
        let reference = says.as_str().filter(|_| keyword == "$ref")?;
        within(document, reference).is_none().then(|| {
            format!("it refers to {reference:?}, which is in another document; copy that into its own `$defs`")
        })
    })
}

/// The first thing that is found in a keyword, whatever schema it is in; the flag says whether that is the outermost.
fn find(schema: &Value, top: bool, look: &dyn Fn(&str, &Value, bool) -> Option<String>) -> Option<String> {
    let within = |value: &Value| find(value, false, look);
    match schema {
        Value::Object(members) => members.iter().find_map(|(keyword, says)| {
            look(keyword, says, top).or_else(|| match keyword.as_str() {
                "enum" | "const" | "default" | "examples" => None,
                // What is named here is a property or a definition, not a keyword.
                "$defs" | "definitions" => says.as_object()?.values().find_map(within),
                _ if shape(keyword) == Shape::Map => says.as_object()?.values().find_map(within),
                _ => within(says),
            })
        }),
        Value::Array(values) => values.iter().find_map(within),
        _ => None,
    }
}
