//! The committed description of the API.

use std::path::Path;

use serde_json::Value;

/// Writes the document when set.
const REGENERATE: &str = "MILLRACE_REGENERATE";

#[test]
fn the_committed_document_is_the_one_the_code_describes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let mut now = serde_json::to_string_pretty(&order::api::openapi()).unwrap();
    now.push('\n');
    if std::env::var_os(REGENERATE).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == now,
        "docs/openapi.json is not what the code describes; write it anew with: {REGENERATE}=1 cargo test -p order openapi"
    );
}

#[test]
fn every_operation_is_described_with_its_errors() {
    let document = serde_json::to_value(order::api::openapi()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let paths = document["paths"].as_object().unwrap();
    let operations: Vec<_> = paths.values().flat_map(|path| path.as_object().unwrap().values()).collect();
    assert_eq!(operations.len(), 8);
    for operation in operations {
        let responses = operation["responses"].as_object().unwrap();
        assert!(operation["summary"].is_string(), "{operation}");
        for (status, response) in responses {
            let content = response["content"].as_object().unwrap();
            let kind = content.keys().next().unwrap();
            assert_eq!(status.starts_with(['4', '5']), kind == "application/problem+json", "{status}: {response}");
        }
    }
    references_lead_somewhere(&document, &document);
}

fn references_lead_somewhere(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} is nowhere");
            }
            fields.values().for_each(|value| references_lead_somewhere(document, value));
        }
        Value::Array(values) => values.iter().for_each(|value| references_lead_somewhere(document, value)),
        _ => {}
    }
}
