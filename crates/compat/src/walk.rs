//! What was written differently, place by place, whether it matters or not.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::keyword::{Shape, shape};
use crate::node::Node;
use crate::number::equal;
use crate::same::same;

/// A place where two schemas differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) path: String,
    pub(crate) said: String,
    /// Nothing is known of what this does.
    pub(crate) unknown: bool,
}

pub(crate) fn edits(old: &Value, new: &Value) -> Vec<Edit> {
    let mut walk = Walk { edits: Vec::new(), seen: BTreeSet::new() };
    walk.schema(Node::root(old), Node::root(new), "");
    walk.edits
}

struct Walk {
    edits: Vec<Edit>,
    seen: BTreeSet<(usize, usize)>,
}

impl Walk {
    fn say(&mut self, path: &str, said: String) {
        self.edits.push(Edit { path: path.to_owned(), said, unknown: false });
    }

    fn schema(&mut self, old: Node<'_>, new: Node<'_>, path: &str) {
        let own = |node: Node<'_>, keyword: &str| node.get(keyword).cloned();
        // A reference may have a description of its own.
        for keyword in ["title", "description", "default", "examples", "deprecated"] {
            if (old.get("$ref").is_some() || new.get("$ref").is_some()) && own(old, keyword) != own(new, keyword) {
                self.say(&format!("{path}/{keyword}"), format!("`{keyword}` changed, which is for people"));
            }
        }
        let (old, new) = (old.resolved(), new.resolved());
        if !self.seen.insert((old.key(), new.key())) {
            return;
        }
        let (Some(left), Some(right)) = (old.keywords(), new.keywords()) else {
            if old.schema != new.schema {
                self.say(path, format!("{} became {}", brief(old.schema), brief(new.schema)));
            }
            return;
        };
        let keywords: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
        for keyword in keywords {
            let at = format!("{path}/{keyword}");
            match (left.get(keyword), right.get(keyword)) {
                (Some(was), Some(is)) if was == is && shape(keyword) == Shape::Plain => {}
                (Some(was), Some(is)) => self.keyword(keyword, (old, was), (new, is), &at),
                (None, Some(is)) => self.single(keyword, is, "added", &at),
                (Some(was), None) => self.single(keyword, was, "removed", &at),
                (None, None) => {}
            }
        }
    }

    fn keyword(&mut self, keyword: &str, (old, was): (Node<'_>, &Value), (new, is): (Node<'_>, &Value), at: &str) {
        match shape(keyword) {
            // Definitions count where they are used.
            Shape::Annotation if keyword == "$defs" || keyword == "definitions" => {}
            Shape::Annotation if was != is => self.say(at, format!("`{keyword}` changed, which is for people")),
            Shape::Annotation => {}
            Shape::Schema => self.schema(node(old, was), node(new, is), at),
            Shape::Choice | Shape::List => {
                let (left, right) = (list(was), list(is));
                for (index, (was, is)) in left.iter().zip(right).enumerate() {
                    self.schema(node(old, was), node(new, is), &format!("{at}/{index}"));
                }
                let (more, fewer) = (right.iter().skip(left.len()), left.iter().skip(right.len()));
                let mut changed = |index: usize, said: &str| {
                    self.say(&format!("{at}/{index}"), format!("an alternative or part was {said}"));
                };
                more.enumerate().for_each(|(index, _)| changed(left.len() + index, "added"));
                fewer.enumerate().for_each(|(index, _)| changed(right.len() + index, "removed"));
            }
            Shape::Map => {
                let names: BTreeSet<&String> =
                    [was, is].into_iter().filter_map(Value::as_object).flat_map(|members| members.keys()).collect();
                for name in names {
                    let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                    match (was.get(name), is.get(name)) {
                        (Some(was), Some(is)) => self.schema(node(old, was), node(new, is), &at),
                        (None, _) => self.say(&at, format!("`{name}` was added")),
                        (_, None) => self.say(&at, format!("`{name}` was removed")),
                    }
                }
            }
            Shape::Set => {
                let (left, right) = (list(was), list(is));
                let has = |values: &[Value], value: &Value| values.iter().any(|one| equal(one, value));
                for value in right.iter().filter(|value| !has(left, value)) {
                    self.say(&format!("{at}/{}", text(value)), format!("{value} was added"));
                }
                for value in left.iter().filter(|value| !has(right, value)) {
                    self.say(&format!("{at}/{}", text(value)), format!("{value} was removed"));
                }
            }
            Shape::Reference => {
                // One that has other keywords beside it: followed, as far as it leads.
                if let (Some(old), Some(new)) =
                    (was.as_str().and_then(|to| old.target(to)), is.as_str().and_then(|to| new.target(to)))
                {
                    if !same(old, new) {
                        self.schema(old, new, at);
                    }
                } else if was != is {
                    self.say(at, format!("{} became {}", brief(was), brief(is)));
                }
            }
            Shape::Plain => self.say(at, format!("`{keyword}` changed from {} to {}", brief(was), brief(is))),
            Shape::Unknown if was != is => {
                let said = format!("`{keyword}` changed, and what it does is not known");
                self.edits.push(Edit { path: at.to_owned(), said, unknown: true });
            }
            Shape::Unknown => {}
        }
    }

    fn single(&mut self, keyword: &str, value: &Value, verb: &str, at: &str) {
        match shape(keyword) {
            Shape::Annotation if keyword == "$defs" || keyword == "definitions" => {}
            Shape::Annotation => self.say(at, format!("`{keyword}` was {verb}, which is for people")),
            Shape::Map => {
                for name in value.as_object().into_iter().flat_map(|members| members.keys()) {
                    let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                    self.say(&at, format!("`{name}` was {verb}"));
                }
            }
            Shape::Set => {
                let each = list(value).iter();
                each.for_each(|one| self.say(&format!("{at}/{}", text(one)), format!("{one} was {verb}")));
            }
            Shape::Unknown => {
                let said = format!("`{keyword}` was {verb}, and what it does is not known");
                self.edits.push(Edit { path: at.to_owned(), said, unknown: true });
            }
            _ => self.say(at, format!("`{keyword}` was {verb}: {}", brief(value))),
        }
    }
}

fn node<'a>(near: Node<'a>, schema: &'a Value) -> Node<'a> {
    near.part(schema)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace('~', "~0").replace('/', "~1")
}

/// A value in a sentence.
fn brief(value: &Value) -> String {
    const LONG: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= LONG { text } else { text.chars().take(LONG).chain("...".chars()).collect() }
}
