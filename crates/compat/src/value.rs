//! Whether one value is valid, as far as that can be said without patterns and formats.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::keyword::is_annotation;
use crate::kinds::Kinds;
use crate::node::Node;
use crate::number::{Num, count, equal};

/// Deeper than this nothing is said.
const DEPTH: usize = 40;

/// `None`: cannot be said.
pub(crate) fn holds(node: Node<'_>, value: &Value) -> Option<bool> {
    schema(node, value, 0)
}

/// What one keyword of a schema says about a value.
pub(crate) fn keyword_holds(node: Node<'_>, keyword: &str, value: &Value) -> Option<bool> {
    one(node, keyword, value, 0)
}

fn schema(node: Node<'_>, value: &Value, depth: usize) -> Option<bool> {
    match node.schema {
        Value::Bool(verdict) => Some(*verdict),
        Value::Object(keywords) if depth < DEPTH => every(keywords.keys().map(|name| one(node, name, value, depth))),
        _ => None,
    }
}

/// One no is a no, whatever is not known.
fn every(verdicts: impl IntoIterator<Item = Option<bool>>) -> Option<bool> {
    let mut all = Some(true);
    for verdict in verdicts {
        match verdict {
            Some(false) => return Some(false),
            None => all = None,
            Some(true) => {}
        }
    }
    all
}

fn negated(verdict: Option<bool>) -> Option<bool> {
    verdict.map(|verdict| !verdict)
}

fn one(node: Node<'_>, keyword: &str, value: &Value, depth: usize) -> Option<bool> {
    if is_annotation(keyword) {
        return Some(true);
    }
    let says = node.get(keyword)?;
    let part = |schema_: &Value, value: &Value| schema(node.part(schema_), value, depth + 1);
    let limit = |wanted: fn(u64, u64) -> bool, has: Option<usize>| match has {
        None => Some(true),
        Some(has) => count(says).map(|limit| wanted(has as u64, limit)),
    };
    let number = |wanted: fn(Ordering) -> bool| match value {
        Value::Number(number) => Num::of(number).compare(Num::of_value(says)?).map(wanted),
        _ => Some(true),
    };
    let length = value.as_str().map(|text| text.chars().count());
    let items = value.as_array().map(Vec::len);
    let members = value.as_object();
    match keyword {
        "$ref" => schema(node.target(says.as_str()?)?, value, depth + 1),
        "type" => Kinds::of_type(says).map(|kinds| kinds.has(Kinds::of_value(value))),
        "const" => Some(equal(says, value)),
        "enum" => Some(says.as_array()?.iter().any(|listed| equal(listed, value))),
        "minimum" => number(Ordering::is_ge),
        "maximum" => number(Ordering::is_le),
        "exclusiveMinimum" => number(Ordering::is_gt),
        "exclusiveMaximum" => number(Ordering::is_lt),
        "multipleOf" => match (value, Num::of_value(says)?) {
            (Value::Number(number), Num::Integer(unit)) if unit != 0 => match Num::of(number) {
                Num::Integer(integer) => Some(integer % unit == 0),
                Num::Float(_) => None,
            },
            (Value::Number(_), _) => None,
            _ => Some(true),
        },
        "minLength" => limit(|has, least| has >= least, length),
        "maxLength" => limit(|has, most| has <= most, length),
        "minItems" => limit(|has, least| has >= least, items),
        "maxItems" => limit(|has, most| has <= most, items),
        "minProperties" => limit(|has, least| has >= least, members.map(Map::len)),
        "maxProperties" => limit(|has, most| has <= most, members.map(Map::len)),
        "required" => match members {
            None => Some(true),
            Some(members) => {
                Some(says.as_array()?.iter().all(|name| name.as_str().is_some_and(|n| members.contains_key(n))))
            }
        },
        "properties" => match members {
            None => Some(true),
            Some(members) => {
                every(says.as_object()?.iter().filter_map(|(name, says)| Some(part(says, members.get(name)?))))
            }
        },
        "additionalProperties" => match members {
            None => Some(true),
            Some(_) if node.get("patternProperties").is_some() => None,
            Some(members) => {
                let named = |name: &str| node.get("properties").is_some_and(|named| named.get(name).is_some());
                every(members.iter().filter(|(name, _)| !named(name)).map(|(_, value)| part(says, value)))
            }
        },
        "prefixItems" => match value {
            Value::Array(values) => every(values.iter().zip(says.as_array()?).map(|(value, says)| part(says, value))),
            _ => Some(true),
        },
        "items" if !says.is_array() => match value {
            Value::Array(values) => {
                every(values.iter().skip(node.list("prefixItems").len()).map(|value| part(says, value)))
            }
            _ => Some(true),
        },
        "allOf" => every(says.as_array()?.iter().map(|says| part(says, value))),
        "anyOf" => negated(every(says.as_array()?.iter().map(|says| negated(part(says, value))))),
        "oneOf" => exactly_one(says.as_array()?.iter().map(|says| part(says, value))),
        "not" => negated(part(says, value)),
        "pattern" => {
            if value.is_string() {
                None
            } else {
                Some(true)
            }
        }
        "format" => {
            if value.is_string() || value.is_number() {
                None
            } else {
                Some(true)
            }
        }
        _ => None,
    }
}

pub(crate) fn exactly_one(verdicts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let (mut yes, mut unknown) = (0, 0);
    for verdict in verdicts {
        match verdict {
            Some(true) => yes += 1,
            Some(false) => {}
            None => unknown += 1,
        }
    }
    match (yes, unknown) {
        (1, 0) => Some(true),
        (0, 0) | (2.., _) => Some(false),
        _ => None,
    }
}
