//! Random schemas, and changes of them.

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// Names of properties.
pub(crate) const NAMES: [&str; 4] = ["a", "b", "c", "xd"];
pub(crate) const TEXTS: [&str; 6] = ["", "a", "ab", "xyz", "2026-11-21", "7f1c2d7e-5b0a-4f0e-9a57-0a4b8f6f3f10"];
pub(crate) const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "string", "integer", "number"];

pub(crate) fn one<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

pub(crate) fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(..100) < percent
}

pub(crate) fn scalar(rng: &mut Rng) -> Value {
    match rng.u8(..12) {
        0 => json!({ one(rng, &NAMES): rng.u8(..3) }),
        1 | 2 => Value::Null,
        3 => json!(rng.bool()),
        4 | 5 => json!(one(rng, &TEXTS)),
        6 | 7 => json!(f64::from(rng.i32(-8..8)) / 2.0),
        _ => json!(rng.i32(-4..5)),
    }
}

/// A schema with a few definitions that it may refer to, itself among them.
pub(crate) fn document(rng: &mut Rng) -> Value {
    let mut root = schema(rng, 3);
    let defs: Map<String, Value> = ["M", "N"].iter().map(|name| ((*name).to_owned(), guarded(rng))).collect();
    if let Value::Object(root) = &mut root {
        root.insert("$defs".into(), defs.into());
    }
    root
}

/// A record with few fields that says something of names besides declaring them.
pub(crate) fn record(rng: &mut Rng) -> Value {
    let mut root = json!({ "type": "object", "properties": value_of(rng, "properties", 1) });
    const SAYING: [&str; 10] = [
        "required",
        "required",
        "dependentRequired",
        "dependentSchemas",
        "if",
        "not",
        "anyOf",
        "oneOf",
        "const",
        "unevaluatedProperties",
    ];
    let saying = [one(rng, &SAYING), one(rng, &SAYING)];
    for keyword in saying {
        root[keyword] = value_of(rng, keyword, 2);
    }
    if saying.contains(&"if") {
        root[one(rng, &["then", "else"])] = schema(rng, 2);
    }
    root["$defs"] = json!({ "M": guarded(rng), "N": guarded(rng) });
    root
}

/// Declares one name more, or one less.
pub(crate) fn redeclared(rng: &mut Rng, record: &Value) -> Value {
    let mut changed = record.clone();
    let name = one(rng, &NAMES);
    let declared = changed["properties"].as_object_mut().unwrap();
    if declared.remove(name).is_none() {
        declared.insert(name.into(), json!({ "type": one(rng, &["string", "integer", "boolean"]) }));
    }
    changed
}

/// Refers to others only from within a value, so that it has a meaning.
fn guarded(rng: &mut Rng) -> Value {
    let mut keywords = Map::new();
    keywords.insert("type".into(), json!(one(rng, &["object", "array", "string", "integer"])));
    for keyword in ["properties", "items", "minimum", "maxLength", "required"] {
        if chance(rng, 50) {
            keywords.insert(keyword.into(), value_of(rng, keyword, 2));
        }
    }
    keywords.into()
}

const KEYWORDS: [&str; 38] = [
    "type",
    "type",
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minItems",
    "maxItems",
    "uniqueItems",
    "items",
    "prefixItems",
    "contains",
    "properties",
    "properties",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "$ref",
];

fn schema(rng: &mut Rng, depth: u32) -> Value {
    if chance(rng, 6) {
        return json!(rng.u8(..4) != 0);
    }
    let mut keywords = Map::new();
    if chance(rng, 80) {
        keywords.insert("type".into(), value_of(rng, "type", depth));
    }
    for _ in 0..rng.u32(..5) {
        let keyword = one(rng, &KEYWORDS);
        keywords.insert(keyword.into(), value_of(rng, keyword, depth));
    }
    for keyword in ["then", "else"] {
        if keywords.contains_key("if") && chance(rng, 60) {
            keywords.insert(keyword.into(), schema(rng, depth.saturating_sub(1)));
        }
    }
    keywords.into()
}

fn value_of(rng: &mut Rng, keyword: &str, depth: u32) -> Value {
    let below = depth.saturating_sub(1);
    let part = |rng: &mut Rng| if depth == 0 { json!({ "type": one(rng, &TYPES) }) } else { schema(rng, below) };
    match keyword {
        "type" if chance(rng, 25) => {
            let mut kinds: Vec<&str> = (0..2).map(|_| one(rng, &TYPES)).collect();
            kinds.dedup();
            json!(kinds)
        }
        // Objects are where contracts differ.
        "type" if chance(rng, 40) => json!("object"),
        "type" => json!(one(rng, &TYPES)),
        "enum" => json!((0..rng.usize(1..4)).map(|_| scalar(rng)).collect::<Vec<_>>()),
        "const" => scalar(rng),
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => json!(f64::from(rng.i32(-6..7)) / 2.0),
        "multipleOf" => one(rng, &[json!(1), json!(2), json!(3), json!(4)].each_ref()).clone(),
        "minLength" | "minItems" | "minProperties" => json!(rng.u8(..3)),
        "maxLength" | "maxItems" | "maxProperties" => json!(rng.u8(..4)),
        "pattern" => json!(one(rng, &["^a", "b$", "^[a-z]*$"])),
        "format" => json!(one(rng, &["uuid", "date", "int32", "int64"])),
        "uniqueItems" => json!(rng.bool()),
        "properties" => {
            let names: Vec<&str> = NAMES.into_iter().filter(|_| chance(rng, 50)).collect();
            names.into_iter().map(|name| (name.to_owned(), part(rng))).collect::<Map<_, _>>().into()
        }
        "patternProperties" => json!({ one(rng, &["^x", "[ab]"]): part(rng) }),
        "propertyNames" => json!({ "maxLength": rng.u8(1..3) }),
        "required" => json!(NAMES.into_iter().filter(|_| chance(rng, 25)).collect::<Vec<_>>()),
        "dependentRequired" => json!({ one(rng, &NAMES): [one(rng, &NAMES)] }),
        "dependentSchemas" => json!({ one(rng, &NAMES): part(rng) }),
        "additionalProperties" | "unevaluatedProperties" if chance(rng, 60) => json!(rng.bool()),
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
            json!((0..rng.usize(1..4)).map(|_| part(rng)).collect::<Vec<_>>())
        }
        "$ref" => json!(one(rng, &["#/$defs/M", "#/$defs/N"])),
        _ => part(rng),
    }
}

/// Changes a schema in one to three places.
pub(crate) fn mutated(rng: &mut Rng, document: &Value) -> Value {
    let mut changed = document.clone();
    for _ in 0..rng.u32(1..4) {
        let count = places(&changed).len();
        let place = places(&changed)[rng.usize(..count)].clone();
        let Some(target) = changed.pointer_mut(&place) else { continue };
        let Value::Object(keywords) = target else {
            *target = json!(rng.bool());
            continue;
        };
        // Definitions must go on referring to others from within values only.
        let pool: &[&str] = if place.starts_with("/$defs/") && place.matches('/').count() == 2 {
            &["type", "properties", "items", "minimum", "maxLength", "required", "additionalProperties"]
        } else {
            &KEYWORDS
        };
        let present: Vec<String> =
            keywords.keys().filter(|name| !["$defs", "then", "else"].contains(&name.as_str())).cloned().collect();
        match rng.u8(..10) {
            0..3 if !present.is_empty() => {
                keywords.remove(&present[rng.usize(..present.len())]);
            }
            3..5 => {
                let keyword = one(rng, pool);
                keywords.insert(keyword.into(), value_of(rng, keyword, 1));
            }
            5 if keywords.get("properties").is_some_and(Value::is_object) => {
                keywords["properties"][one(rng, &NAMES)] = value_of(rng, "additionalProperties", 1);
            }
            6 if keywords.get("enum").is_some_and(Value::is_array) => {
                keywords["enum"].as_array_mut().unwrap().push(scalar(rng));
            }
            7 if pool.len() == KEYWORDS.len() && !place.is_empty() => {
                let whole = target.take();
                *target = json!({ one(rng, &["allOf", "anyOf", "oneOf"]): [whole] });
            }
            _ if !present.is_empty() => {
                let keyword = present[rng.usize(..present.len())].clone();
                if pool.contains(&keyword.as_str()) {
                    keywords.insert(keyword.clone(), value_of(rng, &keyword, 1));
                }
            }
            _ => {}
        }
    }
    changed
}

/// Pointers to all schemas within a schema.
fn places(document: &Value) -> Vec<String> {
    fn collect(schema: &Value, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        for (keyword, value) in schema.as_object().into_iter().flatten() {
            let at = format!("{path}/{keyword}");
            match (keyword.as_str(), value) {
                ("properties" | "patternProperties" | "dependentSchemas" | "$defs", Value::Object(parts)) => {
                    parts.iter().for_each(|(name, part)| collect(part, &format!("{at}/{name}"), found));
                }
                ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(parts)) => {
                    parts.iter().enumerate().for_each(|(index, part)| collect(part, &format!("{at}/{index}"), found));
                }
                (
                    "items"
                    | "additionalProperties"
                    | "unevaluatedProperties"
                    | "not"
                    | "if"
                    | "then"
                    | "else"
                    | "contains"
                    | "propertyNames",
                    _,
                ) => collect(value, &at, found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    collect(document, "", &mut found);
    found
}
