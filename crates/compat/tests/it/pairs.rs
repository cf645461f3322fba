use compat::Verdict::{self, Breaking, Compatible, ForReaders, ForWriters};
use compat::{Names, compare};
use serde_json::{Value, json};

use crate::spoken::{names, references};

/// What changed, before, after, whom it breaks, and where that is said.
pub(crate) type Pair = (&'static str, Value, Value, Verdict, &'static str);

fn object(properties: Value, required: Value) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

fn values() -> Vec<Pair> {
    let t = |name: &str| json!({ "type": name });
    vec![
        ("type narrowed", t("number"), t("integer"), ForWriters, "/type"),
        ("type widened", t("integer"), t("number"), ForReaders, "/type"),
        ("type replaced", t("string"), t("integer"), Breaking, "/type"),
        ("made nullable", t("string"), json!({ "type": ["string", "null"] }), ForReaders, "/type"),
        ("no longer nullable", json!({ "type": ["null", "string"] }), t("string"), ForWriters, "/type"),
        (
            "kinds in another order",
            json!({ "type": ["null", "string"] }),
            json!({ "type": ["string", "null"] }),
            Compatible,
            "/type",
        ),
        ("one kind in a list", t("string"), json!({ "type": ["string"] }), Compatible, "/type"),
        ("type added", json!({}), t("string"), ForWriters, "/type"),
        ("everything allowed", json!({ "type": "string" }), json!(true), ForReaders, "/type"),
        ("nothing allowed", t("string"), json!(false), ForWriters, ""),
        ("enum grown", json!({ "enum": ["a", "b"] }), json!({ "enum": ["a", "b", "c"] }), ForReaders, "/enum"),
        ("enum shrunk", json!({ "enum": ["a", "b"] }), json!({ "enum": ["a"] }), ForWriters, "/enum"),
        ("enum exchanged", json!({ "enum": ["a", "b"] }), json!({ "enum": ["a", "c"] }), Breaking, "/enum"),
        ("enum reordered", json!({ "enum": ["a", "b"] }), json!({ "enum": ["b", "a"] }), Compatible, ""),
        ("enum given up", json!({ "type": "string", "enum": ["a"] }), t("string"), ForReaders, "/enum"),
        ("const became enum", json!({ "const": "a" }), json!({ "enum": ["a", "b"] }), ForReaders, "/const"),
        ("const changed", json!({ "const": 1 }), json!({ "const": 2 }), Breaking, "/const"),
        ("const written as a float", json!({ "const": 1 }), json!({ "const": 1.0 }), Compatible, "/const"),
        (
            "minimum raised",
            json!({ "type": "integer", "minimum": 0 }),
            json!({ "type": "integer", "minimum": 1 }),
            ForWriters,
            "/minimum",
        ),
        (
            "minimum lowered",
            json!({ "type": "integer", "minimum": 1 }),
            json!({ "type": "integer", "minimum": 0 }),
            ForReaders,
            "/minimum",
        ),
        (
            "minimum became exclusive",
            json!({ "type": "number", "minimum": 0 }),
            json!({ "type": "number", "exclusiveMinimum": 0 }),
            ForWriters,
            "/exclusiveMinimum",
        ),
        (
            "the same minimum of an integer",
            json!({ "type": "integer", "minimum": 1 }),
            json!({ "type": "integer", "exclusiveMinimum": 0 }),
            Compatible,
            "/minimum",
        ),
        (
            "maximum lowered",
            json!({ "type": "number", "maximum": 10 }),
            json!({ "type": "number", "maximum": 9.5 }),
            ForWriters,
            "/maximum",
        ),
        (
            "maximum beyond doubles",
            json!({ "maximum": 9007199254740992_u64, "type": "integer" }),
            json!({ "maximum": 9007199254740993_u64, "type": "integer" }),
            ForReaders,
            "/maximum",
        ),
        (
            "exclusiveMaximum became inclusive",
            json!({ "type": "number", "exclusiveMaximum": 9 }),
            json!({ "type": "number", "maximum": 9 }),
            ForReaders,
            "/exclusiveMaximum",
        ),
        (
            "multipleOf loosened",
            json!({ "type": "integer", "multipleOf": 10 }),
            json!({ "type": "integer", "multipleOf": 5 }),
            ForReaders,
            "/multipleOf",
        ),
        (
            "multipleOf crosswise",
            json!({ "type": "integer", "multipleOf": 4 }),
            json!({ "type": "integer", "multipleOf": 6 }),
            Breaking,
            "/multipleOf",
        ),
        ("minLength added", t("string"), json!({ "type": "string", "minLength": 1 }), ForWriters, "/minLength"),
        (
            "maxLength raised",
            json!({ "type": "string", "maxLength": 5 }),
            json!({ "type": "string", "maxLength": 6 }),
            ForReaders,
            "/maxLength",
        ),
        (
            "maxLength of what is no text",
            json!({ "type": "integer" }),
            json!({ "type": "integer", "maxLength": 6 }),
            Compatible,
            "/maxLength",
        ),
        ("pattern added", t("string"), json!({ "type": "string", "pattern": "^a" }), ForWriters, "/pattern"),
        (
            "pattern changed",
            json!({ "type": "string", "pattern": "^a" }),
            json!({ "type": "string", "pattern": "^[a]" }),
            Breaking,
            "/pattern",
        ),
        ("format removed", json!({ "type": "string", "format": "uuid" }), t("string"), ForReaders, "/format"),
        (
            "format changed",
            json!({ "type": "string", "format": "date" }),
            json!({ "type": "string", "format": "date-time" }),
            Breaking,
            "/format",
        ),
        (
            "format of numbers widened",
            json!({ "type": "integer", "format": "int32" }),
            json!({ "type": "integer", "format": "int64" }),
            ForReaders,
            "/format",
        ),
        (
            "documentation",
            json!({ "type": "string", "title": "a", "examples": ["x"] }),
            json!({ "type": "string", "title": "b", "default": "y" }),
            Compatible,
            "/title",
        ),
        (
            "extension",
            json!({ "type": "string" }),
            json!({ "type": "string", "x-owner": "shop" }),
            Compatible,
            "/x-owner",
        ),
        ("unknown keyword added", t("string"), json!({ "type": "string", "charset": "ascii" }), Breaking, "/charset"),
        ("unknown keyword removed", json!({ "type": "string", "charset": "ascii" }), t("string"), Breaking, "/charset"),
        (
            "unknown keyword kept",
            json!({ "type": "string", "charset": "ascii" }),
            json!({ "type": "string", "charset": "ascii", "title": "x" }),
            Compatible,
            "/title",
        ),
        (
            "not kept",
            json!({ "type": "string", "not": { "const": "a" } }),
            json!({ "type": ["string", "null"], "not": { "const": "a" } }),
            ForReaders,
            "/type",
        ),
        (
            "not changed",
            json!({ "type": "string", "not": { "const": "a" } }),
            json!({ "type": "string", "not": { "enum": ["a", "b"] } }),
            Breaking,
            "/not",
        ),
        (
            "another dialect",
            json!({ "$schema": "http://json-schema.org/draft-07/schema#", "type": "string" }),
            t("string"),
            Breaking,
            "",
        ),
    ]
}

fn objects() -> Vec<Pair> {
    let text = json!({ "type": "string" });
    let a = || json!({ "a": { "type": "string" } });
    let ab = || json!({ "a": { "type": "string" }, "b": { "type": "integer" } });
    let closed =
        |properties: Value| json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let nested = |minimum: i32| {
        object(
            json!({ "o": object(json!({ "n": { "type": "integer", "minimum": minimum } }), json!([])) }),
            json!(["o"]),
        )
    };
    vec![
        ("optional added", object(a(), json!([])), object(ab(), json!([])), Compatible, "/properties/b"),
        ("optional removed", object(ab(), json!([])), object(a(), json!([])), Compatible, "/properties/b"),
        ("required added", object(a(), json!(["a"])), object(ab(), json!(["a", "b"])), ForWriters, "/required/b"),
        ("required removed", object(ab(), json!(["a", "b"])), object(a(), json!(["a"])), ForReaders, "/required/b"),
        ("made required", object(a(), json!([])), object(a(), json!(["a"])), ForWriters, "/required/a"),
        ("made optional", object(a(), json!(["a"])), object(a(), json!([])), ForReaders, "/required/a"),
        ("renamed", object(a(), json!(["a"])), object(json!({ "c": text }), json!(["c"])), Breaking, "/required/c"),
        ("deep inside", nested(0), nested(1), ForWriters, "/properties/o/properties/n/minimum"),
        ("optional added to a closed object", closed(a()), closed(ab()), ForReaders, "/properties/b"),
        ("optional removed from a closed object", closed(ab()), closed(a()), ForWriters, "/properties/b"),
        ("object closed", object(a(), json!([])), closed(a()), ForWriters, "/additionalProperties"),
        ("object opened", closed(a()), object(a(), json!([])), ForReaders, "/additionalProperties"),
        (
            "openness made explicit",
            object(a(), json!([])),
            json!({ "type": "object", "properties": a(), "required": [], "additionalProperties": true }),
            Compatible,
            "/additionalProperties",
        ),
        (
            "values of a map narrowed",
            json!({ "type": "object", "additionalProperties": { "type": "number" } }),
            json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
            ForWriters,
            "/additionalProperties/type",
        ),
        (
            "a name of a map given a meaning",
            json!({ "type": "object" }),
            object(a(), json!([])),
            ForWriters,
            "/properties/a/type",
        ),
        (
            "a name with a general meaning named",
            json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            json!({ "type": "object", "properties": a(), "additionalProperties": { "type": "string" } }),
            Compatible,
            "/properties/a",
        ),
        (
            "pattern of names kept, values widened",
            json!({ "patternProperties": { "^x": { "type": "integer" } }, "type": "object" }),
            json!({ "patternProperties": { "^x": { "type": "number" } }, "type": "object" }),
            ForReaders,
            "/patternProperties/^x",
        ),
        (
            "pattern of names changed",
            json!({ "patternProperties": { "^x": { "type": "integer" } }, "type": "object" }),
            json!({ "patternProperties": { "^y": { "type": "integer" } }, "type": "object" }),
            Breaking,
            "/patternProperties",
        ),
        (
            "names restricted",
            json!({ "type": "object" }),
            json!({ "type": "object", "propertyNames": { "maxLength": 3 } }),
            ForWriters,
            "/propertyNames",
        ),
        (
            "maxProperties lowered",
            json!({ "type": "object", "maxProperties": 3 }),
            json!({ "type": "object", "maxProperties": 2 }),
            ForWriters,
            "/maxProperties",
        ),
        (
            "minProperties that required implies",
            object(a(), json!(["a"])),
            json!({ "type": "object", "properties": a(), "required": ["a"], "minProperties": 1 }),
            Compatible,
            "/minProperties",
        ),
        (
            "dependentRequired added",
            object(ab(), json!([])),
            json!({ "type": "object", "properties": ab(), "required": [], "dependentRequired": { "a": ["b"] } }),
            ForWriters,
            "/dependentRequired/a",
        ),
        (
            "unevaluatedProperties beside a change",
            json!({ "properties": a(), "unevaluatedProperties": false }),
            json!({ "properties": ab(), "unevaluatedProperties": false }),
            Breaking,
            "/unevaluatedProperties",
        ),
        (
            "a condition changed",
            json!({ "if": { "required": ["a"] }, "then": { "required": ["b"] } }),
            json!({ "if": { "required": ["a"] }, "then": { "required": ["c"] } }),
            Breaking,
            "/then",
        ),
    ]
}

fn arrays_and_combinations() -> Vec<Pair> {
    let of = |items: Value| json!({ "type": "array", "items": items });
    let (int, num, text) = (json!({ "type": "integer" }), json!({ "type": "number" }), json!({ "type": "string" }));
    let tagged = |variants: &[(&str, &str)]| {
        let variant = |(kind, field): &(&str, &str)| {
            object(json!({ "kind": { "const": kind }, *field: { "type": "string" } }), json!(["kind", field]))
        };
        json!({ "oneOf": variants.iter().map(variant).collect::<Vec<_>>() })
    };
    let tree = |name: &str, value: &Value| {
        let reference = format!("#/$defs/{name}");
        json!({ "$ref": reference, "$defs": { name: {
            "type": "object", "properties": { "value": value, "next": { "$ref": reference } }, "required": ["value"],
        } } })
    };
    let reference = |target: Value| json!({ "properties": { "m": { "$ref": "#/$defs/M" } }, "$defs": { "M": target } });
    vec![
        ("items narrowed", of(num.clone()), of(int.clone()), ForWriters, "/items/type"),
        ("items widened", of(int.clone()), of(num.clone()), ForReaders, "/items/type"),
        (
            "maxItems added",
            of(int.clone()),
            json!({ "type": "array", "items": int, "maxItems": 3 }),
            ForWriters,
            "/maxItems",
        ),
        (
            "minItems lowered",
            json!({ "type": "array", "minItems": 2 }),
            json!({ "type": "array", "minItems": 1 }),
            ForReaders,
            "/minItems",
        ),
        (
            "uniqueItems added",
            of(int.clone()),
            json!({ "type": "array", "items": int, "uniqueItems": true }),
            ForWriters,
            "/uniqueItems",
        ),
        (
            "prefix extended",
            json!({ "type": "array", "prefixItems": [int] }),
            json!({ "type": "array", "prefixItems": [int, text] }),
            ForWriters,
            "/prefixItems/1/type",
        ),
        (
            "prefix of a closed list widened",
            json!({ "type": "array", "prefixItems": [int], "items": false }),
            json!({ "type": "array", "prefixItems": [num], "items": false }),
            ForReaders,
            "/prefixItems/0/type",
        ),
        (
            "list as it was before 2020-12",
            json!({ "type": "array", "items": [int] }),
            json!({ "type": "array", "items": [num] }),
            Breaking,
            "/items",
        ),
        (
            "contains changed",
            json!({ "type": "array", "contains": int }),
            json!({ "type": "array", "contains": num }),
            Breaking,
            "/contains",
        ),
        ("alternative added", json!({ "anyOf": [int] }), json!({ "anyOf": [int, text] }), ForReaders, "/anyOf/0/type"),
        (
            "alternative removed",
            json!({ "anyOf": [int, text] }),
            json!({ "anyOf": [text] }),
            ForWriters,
            "/anyOf/0/type",
        ),
        ("alternatives reordered", json!({ "anyOf": [int, text] }), json!({ "anyOf": [text, int] }), Compatible, ""),
        (
            "types instead of alternatives",
            json!({ "anyOf": [int, text] }),
            json!({ "type": ["integer", "string"] }),
            Compatible,
            "",
        ),
        (
            "a variant added",
            tagged(&[("card", "number")]),
            tagged(&[("card", "number"), ("cash", "till")]),
            ForReaders,
            "/oneOf/0/properties/kind/const",
        ),
        (
            "a variant removed",
            tagged(&[("card", "number"), ("cash", "till")]),
            tagged(&[("card", "number")]),
            ForWriters,
            "/oneOf/0/properties/kind/const",
        ),
        (
            "variants reordered",
            tagged(&[("card", "number"), ("cash", "till")]),
            tagged(&[("cash", "till"), ("card", "number")]),
            Compatible,
            "",
        ),
        (
            "values described one by one, and one more",
            json!({ "oneOf": [{ "const": "a" }, { "const": "b" }] }),
            json!({ "oneOf": [{ "const": "a" }, { "const": "b" }, { "const": "c" }] }),
            ForReaders,
            "/oneOf",
        ),
        (
            "enum instead of described values",
            json!({ "oneOf": [{ "const": "a" }, { "const": "b" }] }),
            json!({ "enum": ["b", "a"] }),
            Compatible,
            "",
        ),
        (
            "alternatives that overlap now",
            json!({ "oneOf": [{ "type": "integer", "maximum": 3 }, text] }),
            json!({ "oneOf": [{ "type": "integer", "maximum": 5 }, { "type": ["string", "integer"] }] }),
            Breaking,
            "/oneOf",
        ),
        (
            "allOf taken apart",
            json!({ "allOf": [{ "type": "integer" }, { "minimum": 1 }] }),
            json!({ "type": "integer", "minimum": 1 }),
            Compatible,
            "",
        ),
        (
            "allOf tightened",
            json!({ "allOf": [{ "type": "integer" }] }),
            json!({ "allOf": [{ "type": "integer" }, { "minimum": 1 }] }),
            ForWriters,
            "/allOf/1/minimum",
        ),
        (
            "definition tightened",
            reference(json!({ "type": "integer" })),
            reference(json!({ "type": "integer", "maximum": 9 })),
            ForWriters,
            "/properties/m/maximum",
        ),
        (
            "definition inlined",
            reference(json!({ "type": "integer" })),
            json!({ "properties": { "m": { "type": "integer" } } }),
            Compatible,
            "",
        ),
        (
            "reference to nowhere",
            reference(json!({ "type": "integer" })),
            json!({ "properties": { "m": { "$ref": "#/$defs/Gone" } } }),
            Breaking,
            "/properties/m",
        ),
        (
            "alternatives that both hold, each with a new name of the other",
            json!({ "anyOf": [object(json!({ "a": int }), json!([])), object(json!({ "b": int }), json!([]))] }),
            json!({ "anyOf": [
                object(json!({ "a": int, "b": text }), json!([])),
                object(json!({ "b": int, "a": text }), json!([])),
            ] }),
            ForWriters,
            "/anyOf",
        ),
        (
            "definitions exchanged where it matters, and where it does not",
            json!({
                "properties": { "k": { "anyOf": [{ "$ref": "#/$defs/A" }, { "$ref": "#/$defs/B" }] }, "m": { "$ref": "#/$defs/A" } },
                "$defs": { "A": int, "B": text },
            }),
            json!({
                "properties": { "k": { "anyOf": [{ "$ref": "#/$defs/B" }, { "$ref": "#/$defs/A" }] }, "m": { "$ref": "#/$defs/B" } },
                "$defs": { "A": int, "B": text },
            }),
            Breaking,
            "/properties/m/type",
        ),
        (
            "a prefix given up, whose elements were other ones",
            json!({ "type": "array", "prefixItems": [int, text], "items": int }),
            of(int.clone()),
            Breaking,
            "/items/type",
        ),
        (
            "a name that may match a pattern, and then is not what the others are",
            json!({ "type": "object", "patternProperties": { "^x": text }, "additionalProperties": int }),
            object(json!({ "xd": int }), json!([])),
            Breaking,
            "/properties/xd/type",
        ),
        (
            "reference to itself without end",
            int.clone(),
            json!({ "anyOf": [{ "type": "string" }, { "$ref": "#" }] }),
            Breaking,
            "/anyOf",
        ),
        ("recursive, renamed", tree("Old", &int), tree("New", &int), Compatible, ""),
        ("recursive, widened", tree("Old", &int), tree("New", &num), ForReaders, "/properties/value/type"),
        (
            "a moving reference",
            json!({ "$dynamicRef": "#n", "$defs": { "n": { "$dynamicAnchor": "n", "type": "string" } } }),
            json!({ "$dynamicRef": "#n", "$defs": { "n": { "$dynamicAnchor": "n" } } }),
            Breaking,
            "",
        ),
    ]
}

fn all() -> Vec<Pair> {
    [values(), objects(), arrays_and_combinations(), names(), references()].concat()
}

#[test]
fn every_kind_of_change_is_called_what_it_is_and_its_place_is_named() {
    let pairs = all();
    assert!(pairs.len() >= 90, "{}", pairs.len());
    let mut wrong = Vec::new();
    for (what, old, new, expected, path) in &pairs {
        // Backwards it is the opposite.
        for (old, new, expected) in [(old, new, *expected), (new, old, opposite(*expected))] {
            let differences = compare(old, new, Names::Fresh);
            let all = differences.iter().fold(Compatible, |all, one| all.and(one.verdict));
            let named = differences.iter().any(|one| one.path.starts_with(path));
            let explained = differences.iter().all(|one| one.why.len() > 5);
            if all != expected || differences.is_empty() || !named || !explained {
                wrong.push(format!("{what}: {expected:?} at {path}, not {all:?}: {differences:#?}\n  {old}\n  {new}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), pairs.len(), wrong.join("\n"));
}

fn opposite(verdict: Verdict) -> Verdict {
    match verdict {
        ForReaders => ForWriters,
        ForWriters => ForReaders,
        other => other,
    }
}

#[test]
fn a_schema_does_not_differ_from_itself() {
    for (what, old, new, ..) in all() {
        for schema in [old, new] {
            assert_eq!(compare(&schema, &schema.clone(), Names::Any), [], "{what}");
        }
    }
}

#[test]
fn a_name_that_may_have_been_used_before_its_declaration_breaks_readers_if_that_is_not_ruled_out() {
    let old = object(json!({ "a": {} }), json!([]));
    let new = object(json!({ "a": {}, "b": { "type": "integer" } }), json!([]));
    let any = compare(&old, &new, Names::Any);
    assert_eq!((any[0].path.as_str(), any[0].verdict), ("/properties/b/type", ForWriters), "{any:?}");
    assert!(compare(&old, &new, Names::Fresh).iter().all(|one| one.verdict == Compatible));
}

#[test]
fn reasons_are_plain_sentences() {
    let why = |old: Value, new: Value| compare(&old, &new, Names::Fresh).remove(0).why;
    assert_eq!(
        why(object(json!({}), json!([])), object(json!({}), json!(["total"]))),
        "old data may lack `total`, which new readers refuse"
    );
    assert_eq!(
        why(json!({ "enum": ["a"] }), json!({ "enum": ["a", "gold"] })),
        "new data may be \"gold\", which old readers refuse"
    );
}
