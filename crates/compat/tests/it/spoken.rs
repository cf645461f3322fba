//! Changes around names that a contract speaks of without declaring them, and around what references mean.

use compat::Verdict::{self, Breaking, ForReaders, ForWriters};
use compat::{Names, compare};
use serde_json::{Value, json};

use crate::pairs::Pair;

/// A record of one field that says more, before and after it declares a further field.
fn declares(field: &str, says: Value, more: Value) -> (Value, Value) {
    let mut old = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    old.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut new = old.clone();
    new["properties"][field] = says;
    (old, new)
}

fn pair(what: &'static str, (old, new): (Value, Value), expected: Verdict, path: &'static str) -> Pair {
    (what, old, new, expected, path)
}

/// Old data has such names already, so that a new declaration binds what is there.
pub(crate) fn names() -> Vec<Pair> {
    let (int, text) = (json!({ "type": "integer" }), json!({ "type": "string" }));
    let short = json!({ "type": "string", "maxLength": 3 });
    let number = json!({ "properties": { "number": text }, "required": ["number"] });
    let kind = |index: usize| json!({ "kind": { "const": index }, format!("p{index}"): { "type": "string" } });
    let tagged: Vec<Value> = (0..65).map(|index| json!({ "properties": kind(index), "required": ["kind"] })).collect();
    let nine = |letter: &str| -> Vec<Value> {
        (0..9).map(|index| json!({ "properties": { format!("{letter}{index}"): {} } })).collect()
    };
    vec![
        pair(
            "a name of `then` declared for all",
            declares("number", short.clone(), json!({ "if": { "required": ["card"] }, "then": number })),
            ForWriters,
            "/properties/number/",
        ),
        pair(
            "a name of `else` declared for all",
            declares("number", short.clone(), json!({ "if": { "required": ["cash"] }, "else": number })),
            ForWriters,
            "/properties/number/",
        ),
        pair(
            "a name of a condition declared",
            declares("card", int.clone(), json!({ "if": { "required": ["card"] }, "then": number })),
            ForWriters,
            "/properties/card/type",
        ),
        pair(
            "a name of dependentSchemas declared",
            declares(
                "billing",
                int.clone(),
                json!({ "dependentSchemas": { "card": { "properties": { "billing": text } } } }),
            ),
            ForWriters,
            "/properties/billing/type",
        ),
        pair(
            "a name that dependentRequired asks for declared",
            declares("billing", int.clone(), json!({ "dependentRequired": { "card": ["billing"] } })),
            ForWriters,
            "/properties/billing/type",
        ),
        pair(
            "a name that dependentRequired depends on declared",
            declares("card", int.clone(), json!({ "dependentRequired": { "card": ["billing"] } })),
            ForWriters,
            "/properties/card/type",
        ),
        // Backwards: it is declared no more, and still required.
        pair(
            "a required name declared",
            declares("b", int.clone(), json!({ "required": ["a", "b"] })),
            ForWriters,
            "/properties/b/type",
        ),
        pair(
            "a name of `not` declared",
            declares("b", int.clone(), json!({ "not": { "properties": { "b": { "const": 1 } }, "required": ["b"] } })),
            ForWriters,
            "/properties/b/type",
        ),
        pair(
            "a name within a reference of `then` declared",
            declares(
                "number",
                int.clone(),
                json!({ "if": {}, "then": { "$ref": "#/$defs/M" }, "$defs": { "M": number } }),
            ),
            ForWriters,
            "/properties/number/type",
        ),
        pair(
            "a name in a listed value declared",
            declares("b", json!({ "pattern": "^y" }), json!({ "enum": [{ "b": "x" }] })),
            ForWriters,
            "/properties/b/pattern",
        ),
        pair(
            "a name of 65 alternatives declared",
            declares("p1", short.clone(), json!({ "oneOf": tagged })),
            ForWriters,
            "/properties/p1/",
        ),
        pair(
            "a name of 81 combinations declared",
            declares("x1", short, json!({ "allOf": [{ "anyOf": nine("x") }, { "anyOf": nine("y") }] })),
            ForWriters,
            "/properties/x1/",
        ),
        pair(
            "a name declared where a condition makes a map of it",
            declares(
                "b",
                int.clone(),
                json!({ "if": {}, "then": { "additionalProperties": { "type": ["string", "integer"] } } }),
            ),
            ForWriters,
            "/properties/b/type",
        ),
        pair(
            "a name declared beside an unknown keyword, which may speak of it",
            declares("b", int.clone(), json!({ "dependencies": { "a": { "properties": { "b": text } } } })),
            ForWriters,
            "/properties/b/type",
        ),
        (
            "a name of a map by unevaluatedProperties declared",
            json!({ "type": "object", "properties": { "a": text }, "unevaluatedProperties": text }),
            json!({ "type": "object", "properties": { "a": text, "b": int } }),
            Breaking,
            "/properties/b/type",
        ),
    ]
}

/// What a reference means is not what it is called.
pub(crate) fn references() -> Vec<Pair> {
    let named = |reference: &str, kind: &str| json!({ "$id": "urn:x", "properties": { "m": { "$ref": reference } }, "$defs": { "M": { "type": kind } } });
    let property = |name: &str, says: Value| json!({ "properties": { name: says } });
    // Its reference means its own definition, which is not the one of the whole.
    let embedded = |kind: &str| {
        let inner = json!({ "$id": "urn:y", "$ref": "#/$defs/M", "$defs": { "M": { "type": kind } } });
        json!({ "properties": { "default": inner }, "$defs": { "M": { "type": "boolean" } } })
    };
    vec![
        (
            "a definition changed that the document refers to by its own id",
            named("urn:x#/$defs/M", "integer"),
            named("urn:x#/$defs/M", "string"),
            Breaking,
            "/properties/m/type",
        ),
        (
            "by its id and without",
            named("urn:x#/$defs/M", "integer"),
            named("#/$defs/M", "number"),
            ForReaders,
            "/properties/m/type",
        ),
        (
            "a document within the document, in a property that is called like a keyword",
            embedded("integer"),
            embedded("string"),
            Breaking,
            "",
        ),
        (
            "a property that is called like a reference",
            property("$anchor", json!({ "type": "integer" })),
            property("$anchor", json!({ "type": "number" })),
            ForReaders,
            "/properties/$anchor/type",
        ),
        (
            "what looks like a reference, in an example",
            json!({ "type": "integer", "examples": [{ "$ref": "money.json", "$id": "urn:z" }] }),
            json!({ "type": "number", "examples": [{ "$ref": "money.json", "$id": "urn:z" }] }),
            ForReaders,
            "/type",
        ),
    ]
}

#[test]
fn a_reference_into_another_document_is_a_break_even_where_nothing_changed() {
    // That document may have changed, and nobody judges it.
    for reference in ["money.json", "urn:a#/$defs/M", "orders.created.v1.json#"] {
        let old = json!({ "$id": "urn:x", "properties": { "m": { "$ref": reference } } });
        let mut new = old.clone();
        for title in [None, Some("x")] {
            title.into_iter().for_each(|title| new["title"] = json!(title));
            let differences = compare(&old, &new, Names::Fresh);
            assert_eq!((differences.len(), differences[0].verdict), (1, Breaking), "{differences:?}");
            assert!(differences[0].why.contains(reference) && differences[0].why.contains("$defs"), "{differences:?}");
        }
    }
}
