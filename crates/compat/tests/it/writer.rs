//! Random documents that a schema is likely to allow.

use compat::Names;
use fastrand::Rng;
use serde_json::{Map, Value, json};

use crate::random::{NAMES, TEXTS, TYPES, chance, one, scalar};

/// A name that no schema ever declares.
const NEVER_DECLARED: &str = "zz";

/// Writes under a schema. If it does without names that it does not know, it still uses every name that the schema speaks
/// of, in whatever way.
pub(crate) struct Writer<'a> {
    rng: &'a mut Rng,
    root: &'a Value,
    names: Names,
    /// What was written, and for the sake of which alternative.
    meant: Vec<(&'a Value, Value)>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(rng: &'a mut Rng, root: &'a Value, names: Names) -> Self {
        Self { rng, root, names, meant: Vec::new() }
    }

    /// Whether the last document is what its writer meant, and not valid by chance under an alternative that knows other
    /// names: of those something is assumed.
    pub(crate) fn as_meant(&self) -> bool {
        self.meant.iter().all(|(branch, value)| {
            let schema = json!({ "$defs": self.root["$defs"], "allOf": [branch] });
            validator(&schema).is_valid(value)
        })
    }

    /// All schemas that are to hold here: one branch of each choice, a condition and what follows from it or
    /// neither, what depends on a name or not.
    fn flatten(&mut self, schema: &'a Value, parts: &mut Vec<&'a Value>, branches: &mut Vec<&'a Value>, depth: u32) {
        if depth > 8 {
            return;
        }
        parts.push(schema);
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|to| self.root.pointer(&to[1..])) {
            self.flatten(target, parts, branches, depth + 1);
        }
        let list = |keyword: &str| schema.get(keyword).and_then(Value::as_array);
        list("allOf").into_iter().flatten().for_each(|part| self.flatten(part, parts, branches, depth + 1));
        for choice in [list("anyOf"), list("oneOf")].into_iter().flatten().filter(|branches| !branches.is_empty()) {
            let taken = self.rng.usize(..choice.len());
            branches.push(&choice[taken]);
            self.flatten(&choice[taken], parts, branches, depth + 1);
        }
        let follows: &[&str] = one(self.rng, &[&["if", "then"], &["else"], &[]]);
        for part in follows.iter().filter_map(|keyword| schema.get(keyword)) {
            self.flatten(part, parts, branches, depth + 1);
        }
        for (_, part) in schema.get("dependentSchemas").and_then(Value::as_object).into_iter().flatten() {
            if chance(self.rng, 50) {
                self.flatten(part, parts, branches, depth + 1);
            }
        }
    }

    pub(crate) fn value(&mut self, schemas: &[&'a Value], depth: u32) -> Value {
        let (mut parts, mut branches) = (Vec::new(), Vec::new());
        schemas.iter().for_each(|schema| self.flatten(schema, &mut parts, &mut branches, 0));
        let value = self.value_of(&parts, depth);
        self.meant.extend(branches.into_iter().map(|branch| (branch, value.clone())));
        value
    }

    fn value_of(&mut self, parts: &[&'a Value], depth: u32) -> Value {
        let all = |keyword: &str| parts.iter().filter_map(|part| part.get(keyword)).collect::<Vec<_>>();
        if let Some(value) = all("const").first() {
            return (*value).clone();
        }
        if let Some(values) = all("enum").first().and_then(|values| values.as_array()) {
            return values[self.rng.usize(..values.len())].clone();
        }
        let kind = match all("type").first() {
            _ if chance(self.rng, 3) => one(self.rng, &TYPES),
            None => one(self.rng, &TYPES),
            Some(Value::Array(kinds)) => kinds[self.rng.usize(..kinds.len())].as_str().unwrap(),
            Some(kind) => kind.as_str().unwrap(),
        };
        match kind {
            "object" if depth > 0 => self.object(parts, depth),
            "object" => json!({}),
            "array" => {
                let length = if depth > 0 { self.rng.usize(..4) } else { 0 };
                (0..length).map(|index| self.element(parts, index, depth)).collect::<Vec<_>>().into()
            }
            "string" => json!(one(self.rng, &TEXTS)),
            "boolean" => json!(self.rng.bool()),
            "integer" => json!(self.rng.i32(-4..5)),
            "number" => json!(f64::from(self.rng.i32(-9..9)) / 2.0),
            _ => Value::Null,
        }
    }

    fn element(&mut self, parts: &[&'a Value], index: usize, depth: u32) -> Value {
        let of = |part: &&'a Value| part.get("prefixItems").and_then(|p| p.get(index)).or_else(|| part.get("items"));
        let known: Vec<&'a Value> = parts.iter().filter_map(of).collect();
        self.value(&known, depth - 1)
    }

    fn object(&mut self, parts: &[&'a Value], depth: u32) -> Value {
        let mut spoken = Spoken::default();
        parts.iter().for_each(|part| spoken.of(self.root, part, false, 0));
        let declared = parts.iter().any(|part| part["properties"].as_object().is_some_and(|names| !names.is_empty()));
        // The assumption that is made of names.
        let fresh = self.names == Names::Fresh && declared && !spoken.of_any_name;
        let mut members = Map::new();
        for name in NAMES.into_iter().filter(|name| !fresh || spoken.names.contains(name)) {
            let required = parts.iter().any(|p| p["required"].as_array().is_some_and(|r| r.contains(&json!(name))));
            if chance(self.rng, if required { 97 } else { 45 }) {
                let of = |part: &&'a Value| match part.get("properties").and_then(|p| p.get(name)) {
                    Some(named) => vec![named],
                    None => {
                        let pattern = part.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
                        pattern.map(|(_, says)| says).chain(part.get("additionalProperties")).collect()
                    }
                };
                let known: Vec<&'a Value> = parts.iter().flat_map(of).collect();
                members.insert(name.into(), self.value(&known, depth - 1));
            }
        }
        if chance(self.rng, 15) {
            members.insert(NEVER_DECLARED.into(), scalar(self.rng));
        }
        members.into()
    }
}

/// What a schema says of names, about the value itself and not about parts of it.
#[derive(Default)]
struct Spoken<'a> {
    names: Vec<&'a str>,
    /// It says something of names that it does not list.
    of_any_name: bool,
}

impl<'a> Spoken<'a> {
    /// With what it says in alternatives, if `all`; those that a writer took are parts of their own.
    fn of(&mut self, root: &'a Value, schema: &'a Value, all: bool, depth: u32) {
        if depth > 8 {
            return;
        }
        let keys = |value: &'a Value| value.as_object().into_iter().flatten();
        let listed = |value: &'a Value| value.as_array().into_iter().flatten();
        for (keyword, says) in keys(schema) {
            match keyword.as_str() {
                "properties" => self.names.extend(keys(says).map(|(name, _)| name.as_str())),
                "required" => self.names.extend(listed(says).filter_map(Value::as_str)),
                "dependentRequired" => {
                    for (name, needs) in keys(says) {
                        self.names.push(name);
                        self.names.extend(listed(needs).filter_map(Value::as_str));
                    }
                }
                "dependentSchemas" => {
                    for (name, part) in keys(says) {
                        self.names.push(name);
                        self.of(root, part, true, depth + 1);
                    }
                }
                "const" => self.names.extend(keys(says).map(|(name, _)| name.as_str())),
                "enum" => self.names.extend(listed(says).flat_map(keys).map(|(name, _)| name.as_str())),
                "patternProperties" | "propertyNames" => self.of_any_name = true,
                "additionalProperties" | "unevaluatedProperties" => self.of_any_name |= !says.is_boolean(),
                "if" | "then" | "else" | "not" => self.of(root, says, true, depth + 1),
                "anyOf" | "oneOf" | "allOf" if all => {
                    listed(says).for_each(|part| self.of(root, part, true, depth + 1));
                }
                "$ref" if all => {
                    let target = says.as_str().and_then(|to| root.pointer(&to[1..]));
                    target.into_iter().for_each(|target| self.of(root, target, true, depth + 1));
                }
                _ => {}
            }
        }
    }
}

pub(crate) fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::options().should_validate_formats(true).build(schema).unwrap()
}
