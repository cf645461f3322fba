//! Whether two schemas say the same in the same way, whatever their definitions are called. Recursive schemas are the
//! same when no difference can ever be met.

use serde_json::Value;

use crate::keyword::{Shape, is_annotation, shape};
use crate::kinds::Kinds;
use crate::node::Node;
use crate::number::equal;

pub(crate) fn same(a: Node<'_>, b: Node<'_>) -> bool {
    schemas(a, b, &mut Vec::new())
}

/// Whether a keyword says the same in both; absent in both is the same.
pub(crate) fn same_keyword(keyword: &str, a: Node<'_>, b: Node<'_>) -> bool {
    keywords(keyword, a, b, &mut Vec::new())
}

/// Pairs that are being compared, or were and are the same unless one of those that are being compared is not.
type Assumed = Vec<(usize, usize)>;

fn schemas(a: Node<'_>, b: Node<'_>, assumed: &mut Assumed) -> bool {
    let (a, b) = (a.resolved(), b.resolved());
    let pair = (a.key(), b.key());
    if pair.0 == pair.1 || assumed.contains(&pair) {
        return true;
    }
    let before = assumed.len();
    assumed.push(pair);
    let is_same = match (a.schema, b.schema) {
        (Value::Object(left), Value::Object(right)) => left
            .keys()
            .chain(right.keys().filter(|name| !left.contains_key(*name)))
            .filter(|name| !is_annotation(name))
            .all(|name| keywords(name, a, b, assumed)),
        (left, right) => left == right,
    };
    if !is_same {
        // What was the same only if these two are, is not known any more.
        assumed.truncate(before);
    }
    is_same
}

fn keywords(keyword: &str, a: Node<'_>, b: Node<'_>, assumed: &mut Assumed) -> bool {
    let (left, right) = match (a.get(keyword), b.get(keyword)) {
        (None, None) => return true,
        (Some(left), Some(right)) => (left, right),
        _ => return false,
    };
    match (shape(keyword), left, right) {
        (Shape::Annotation, ..) => true,
        (Shape::Schema, Value::Object(_) | Value::Bool(_), _) => schemas(a.part(left), b.part(right), assumed),
        (Shape::Choice, Value::Array(left), Value::Array(right)) => {
            let mut free: Vec<&Value> = right.iter().collect();
            left.len() == right.len()
                && left.iter().all(|one| {
                    let found = free.iter().position(|other| schemas(a.part(one), b.part(other), assumed));
                    found.map(|at| free.swap_remove(at)).is_some()
                })
        }
        (Shape::List, Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().zip(right).all(|(one, other)| schemas(a.part(one), b.part(other), assumed))
        }
        (Shape::Map, Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, one)| {
                    right.get(name).is_some_and(|other| schemas(a.part(one), b.part(other), assumed))
                })
        }
        (Shape::Set, Value::Array(left), Value::Array(right)) => {
            let within = |some: &[Value], all: &[Value]| some.iter().all(|one| all.iter().any(|o| equal(one, o)));
            within(left, right) && within(right, left)
        }
        (Shape::Reference, Value::String(left), Value::String(right)) => match (a.target(left), b.target(right)) {
            (Some(one), Some(other)) => schemas(one, other, assumed),
            // What cannot be looked at may be anything.
            _ => false,
        },
        (Shape::Plain, ..) if keyword == "type" => {
            Kinds::of_type(left).is_some_and(|kinds| Kinds::of_type(right) == Some(kinds))
        }
        (Shape::Plain, ..) => equal(left, right),
        // References within what is not understood may mean anything.
        _ => left == right && !mentions_reference(left),
    }
}

pub(crate) fn mentions_reference(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| name == "$ref" || mentions_reference(value)),
        Value::Array(values) => values.iter().any(mentions_reference),
        _ => false,
    }
}
