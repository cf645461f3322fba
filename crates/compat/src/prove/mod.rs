//! Containment: whether every document that some facts describe is valid under a schema.

mod arrays;
mod choices;
mod disjoint;
mod facts;
mod names;
mod objects;
mod scalars;

use std::cell::{Cell, RefCell};

use serde_json::Value;

use crate::Names;
use crate::keyword::{Shape, shape};
use crate::kinds::Kinds;
use crate::node::Node;
use crate::same::{same, same_keyword};
use crate::value::keyword_holds;
use facts::Facts;

/// A place at which containment could not be shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gap {
    /// A JSON pointer into the schema, with references followed.
    pub(crate) path: String,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// What a document may do or be that the schema refuses: completes "it may ...".
    May(String),
    /// Why nothing can be said.
    Unjudged(String),
}

pub(crate) type Gaps = Vec<Gap>;

/// Where `allowed` allows what `wanted` refuses; empty when everything that is valid under `allowed` is valid under `wanted`.
pub(crate) fn gaps(allowed: &Value, wanted: &Value, names: Names) -> Gaps {
    let prover = Prover { names, steps: Cell::new(0), depth: Cell::new(0), under_way: RefCell::default() };
    let mut gaps = Vec::new();
    prover.within(&Facts::of([Node::root(allowed)]), Node::root(wanted), "", &mut gaps);
    gaps.sort();
    gaps.dedup();
    gaps
}

/// Enough for any contract that people can read; bounds for those that were made to be hard.
const STEPS: u32 = 200_000;
const NESTED: usize = 200;

struct Prover {
    names: Names,
    steps: Cell<u32>,
    /// How many times the proof went from a value into a part of it.
    depth: Cell<u32>,
    /// What is being shown, and at which depth: meeting it again further down is no new question.
    under_way: RefCell<Vec<(usize, Vec<usize>, u32)>>,
}

impl Prover {
    /// Adds to `gaps` whatever keeps the facts from implying `wanted`.
    fn within(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS || self.under_way.borrow().len() > NESTED {
            return unjudged(gaps, path, "it is too entangled");
        }
        if facts.impossible {
            return;
        }
        match wanted.schema {
            Value::Bool(true) => return,
            Value::Bool(false) if facts.kinds().is_empty() => return,
            Value::Bool(false) => return may(gaps, path, "have a value there"),
            Value::Object(_) => {}
            _ => return unjudged(gaps, path, "this is not a schema"),
        }
        if facts.nodes.iter().any(|known| same(*known, wanted)) {
            return;
        }
        let question = (wanted.key(), facts.key());
        let met = self.under_way.borrow().iter().find(|(w, f, _)| (*w, f) == (question.0, &question.1)).map(|q| q.2);
        match met {
            // A counterexample would have to contain a smaller one, without end.
            Some(depth) if depth < self.depth.get() => return,
            Some(_) => return unjudged(gaps, path, "it refers to itself without end"),
            None => {}
        }
        self.under_way.borrow_mut().push((question.0, question.1, self.depth.get()));
        for case in facts.cases() {
            if !disjoint::never(&case) {
                self.keywords(&case, wanted, path, gaps);
            }
        }
        self.under_way.borrow_mut().pop();
    }

    /// The same for a part of the value: an element, a property.
    fn part_within(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        self.depth.set(self.depth.get() + 1);
        self.within(facts, wanted, path, gaps);
        self.depth.set(self.depth.get() - 1);
    }

    fn keywords(&self, facts: &Facts<'_>, wanted: Node<'_>, path: &str, gaps: &mut Gaps) {
        let kinds = facts.kinds();
        let finite = facts.finite();
        for (keyword, says) in wanted.keywords().into_iter().flatten() {
            if shape(keyword) == Shape::Annotation {
                continue;
            }
            let at = format!("{path}/{keyword}");
            if let Some(values) = &finite {
                let verdicts: Vec<_> = values.iter().map(|v| (v, keyword_holds(wanted, keyword, v))).collect();
                if verdicts.iter().all(|(_, verdict)| *verdict == Some(true)) {
                    continue;
                }
                // References and branches name the place better than the value that breaks them.
                let plain = matches!(shape(keyword), Shape::Plain | Shape::Set);
                if plain && verdicts.iter().all(|(_, verdict)| verdict.is_some()) {
                    let wrong = verdicts.iter().filter(|(_, verdict)| *verdict == Some(false));
                    wrong.for_each(|(value, _)| may(gaps, &at, &format!("be {value}")));
                    continue;
                }
            }
            match keyword.as_str() {
                "$ref" => match says.as_str().and_then(|reference| wanted.target(reference)) {
                    Some(target) => self.within(facts, target, path, gaps),
                    None => self.opaque(facts, wanted, &["$ref"], &at, gaps),
                },
                "allOf" => {
                    for (index, part) in wanted.list("allOf").iter().enumerate() {
                        self.within(facts, wanted.part(part), &format!("{at}/{index}"), gaps);
                    }
                }
                "anyOf" => self.any_of(facts, wanted, path, gaps),
                "oneOf" => self.one_of(facts, wanted, path, gaps),
                "type" => match Kinds::of_type(says) {
                    Some(allowed) if kinds.without(allowed).is_empty() => {}
                    Some(allowed) => may(gaps, &at, &format!("be {}", kinds.without(allowed).in_words())),
                    None => unjudged(gaps, &at, "this is not a type"),
                },
                "const" => may(gaps, &at, &format!("be something else than {says}")),
                "enum" => may(gaps, &at, "be something that is not listed"),
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf"
                    if !kinds.has(Kinds::NUMBER) => {}
                "minimum" | "exclusiveMinimum" => scalars::lower(facts, says, keyword != "minimum", &at, gaps),
                "maximum" | "exclusiveMaximum" => scalars::upper(facts, says, keyword != "maximum", &at, gaps),
                "multipleOf" => scalars::multiple(facts, says, &at, gaps),
                "minLength" | "maxLength" | "pattern" | "contentEncoding" | "contentMediaType" | "contentSchema"
                    if !kinds.has(Kinds::STRING) => {}
                "minLength" => scalars::at_least(facts.at_least("minLength"), says, "characters", &at, gaps),
                "maxLength" => scalars::at_most(facts.at_most("maxLength"), says, "characters", &at, gaps),
                "pattern" => scalars::text(facts, "pattern", says, &format!("not match {says}"), &at, gaps),
                "format" if !kinds.has(Kinds::STRING.or(Kinds::NUMBER)) => {}
                "format" => scalars::format(facts, says, &at, gaps),
                "minItems" | "maxItems" | "uniqueItems" | "items" | "prefixItems" | "contains" | "minContains"
                | "maxContains" | "unevaluatedItems"
                    if !kinds.has(Kinds::ARRAY) => {}
                "minItems" => scalars::at_least(facts.at_least("minItems"), says, "items", &at, gaps),
                "maxItems" => scalars::at_most(facts.most_items(), says, "items", &at, gaps),
                "uniqueItems" => arrays::unique(facts, says, &at, gaps),
                "items" => self.items(facts, wanted, path, gaps),
                "prefixItems" => self.prefix(facts, wanted, path, gaps),
                "minContains" | "maxContains" if wanted.get("contains").is_none() => {}
                "contains" | "minContains" | "maxContains" => {
                    self.opaque(facts, wanted, &["contains", "minContains", "maxContains"], &at, gaps);
                }
                "required"
                | "properties"
                | "patternProperties"
                | "additionalProperties"
                | "propertyNames"
                | "minProperties"
                | "maxProperties"
                | "dependentRequired"
                | "dependentSchemas"
                | "unevaluatedProperties"
                    if !kinds.has(Kinds::OBJECT) => {}
                "required" => objects::required(facts, says, &at, gaps),
                "properties" => self.properties(facts, wanted, path, gaps),
                "patternProperties" => self.pattern_properties(facts, wanted, path, gaps),
                "additionalProperties" => self.additional(facts, wanted, path, gaps),
                "propertyNames" => self.property_names(facts, wanted, &at, gaps),
                "minProperties" => {
                    let least = facts.at_least("minProperties").max(facts.required().len() as u64);
                    scalars::at_least(least, says, "properties", &at, gaps);
                }
                "maxProperties" => scalars::at_most(objects::most(facts), says, "properties", &at, gaps),
                "dependentRequired" => objects::dependent(facts, says, &at, gaps),
                // Without its condition it says nothing, nor does a condition from which nothing follows.
                "then" | "else" if wanted.get("if").is_none() => {}
                "if" if wanted.get("then").is_none() && wanted.get("else").is_none() => {}
                "if" | "then" | "else" => self.opaque(facts, wanted, &["if", "then", "else"], &at, gaps),
                "unevaluatedItems" | "unevaluatedProperties" if says == &Value::Bool(true) => {}
                "unevaluatedItems" | "unevaluatedProperties" => {
                    unjudged(gaps, &at, &format!("`{keyword}` depends on everything beside it"));
                }
                other => self.opaque(facts, wanted, &[other], &at, gaps),
            }
        }
    }

    /// For what is not understood: it holds if it is known to hold, in the same words.
    fn opaque(&self, facts: &Facts<'_>, wanted: Node<'_>, keywords: &[&str], at: &str, gaps: &mut Gaps) {
        let known = |node: &Node<'_>| keywords.iter().all(|keyword| same_keyword(keyword, *node, wanted));
        if !facts.nodes.iter().any(known) {
            let named: Vec<String> = keywords.iter().map(|keyword| format!("`{keyword}`")).collect();
            unjudged(gaps, at, &format!("{} is not the same in both", named.join(", ")));
        }
    }
}

fn may(gaps: &mut Gaps, path: &str, what: &str) {
    gaps.push(Gap { path: path.to_owned(), what: What::May(what.to_owned()) });
}

fn unjudged(gaps: &mut Gaps, path: &str, why: &str) {
    gaps.push(Gap { path: path.to_owned(), what: What::Unjudged(why.to_owned()) });
}

/// A name as a JSON pointer has it.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
